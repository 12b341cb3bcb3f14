//! Runs the command of `--on-alert` for what `/health` begins and ceases to name: hangs, machines that are stuck or
//! silent, a journal that fails, an event socket that another server has taken.
//!
//! Runs on: `alerts`, one, only with `--on-alert`.
//! Owns: the reasons that last; at most 64 alerts that wait; the command that runs, with its pipes.
//! Blocks on: the clock and the command's pipes (250 ms a turn, ended at once by a request); a second look at a
//! watchdog that seems to stand still (400 ms); the start of the command, until the kernel has loaded the program.
//! Can be stalled by: the disk that the program lies on; the kernel's answer to a read of /proc.
//! Full queue means: the oldest alert that waits is dropped, counted in `/health` and said.
//! Ends when: asked to; a command that runs then has 1 s to end, and is killed.
//! Watched as: `alerts`; not a core thread, a stall makes health `degraded`. Nobody waits for it: it looks at what
//! others show, a few times a second.

pub mod alert;
mod episodes;
mod run;
mod waiting;

use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::clock::{epoch_seconds, pause, timespec};
use crate::process::command_line::join;
use crate::process::refusal::Refusal;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::process::words::count;
use crate::vitals::alert_gauges::AlertGauges;
use crate::vitals::health::{Vitals, owner_of};
use crate::vitals::reason::Kind;
use alert::{Alert, Origin};
use episodes::Episodes;
use run::{End, Outcome, Run};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use waiting::Waiting;

/// Longest single wait.
const TURN: Duration = Duration::from_millis(250);
/// How often the thread looks at the reasons. The watchdog judges as often; a look costs some microseconds.
const LOOK: Duration = Duration::from_millis(250);
/// Commands start this far apart at least, so that a flood of alerts is no flood of processes.
const APART: Duration = Duration::from_secs(1);
/// At the stop of the server, a command that runs may go on for this long: it may be telling why.
const GRACE: Duration = Duration::from_secs(1);
/// A command that was killed then is gone within moments, unless the kernel holds it; this long the stop looks.
const GONE: Duration = Duration::from_millis(300);
/// The log says it when a killed command is still there after this long.
const UNDEAD: Duration = Duration::from_secs(5);

/// Settings of the alerts.
#[derive(Clone, Debug)]
pub struct AlertSettings {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may run.
    pub time_max: Duration,
    /// The server, as the alerts name it.
    pub origin: Origin,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Alerts {
    settings: AlertSettings,
    vitals: Arc<Vitals>,
    gauges: Arc<AlertGauges>,
    episodes: Episodes,
    waiting: Waiting,
    running: Option<Running>,
    /// When the last command started.
    started: Option<Instant>,
    /// The server that has taken the event socket, once the thread has searched for it; kept while it is taken.
    taker: Option<Option<String>>,
    beat: &'static Beat,
    stop: Stop,
}

#[derive(Debug)]
struct Running {
    run: Run,
    alert: Alert,
    /// The log knows that it cannot be killed.
    is_undead: bool,
}

impl Alerts {
    /// Ready to run.
    pub fn new(
        settings: AlertSettings,
        vitals: Arc<Vitals>,
        gauges: Arc<AlertGauges>,
        beat: &'static Beat,
        stop: Stop,
    ) -> Alerts {
        Alerts {
            settings,
            vitals,
            episodes: Episodes::default(),
            waiting: Waiting::new(Arc::clone(&gauges)),
            gauges,
            running: None,
            started: None,
            taker: None,
            beat,
            stop,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`] says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("alerts", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        let mut look_at = Instant::now();
        while !self.stop.requested() {
            drill::obey(self.beat);
            let now = Instant::now();
            if now >= look_at {
                self.look();
                look_at = Instant::now() + LOOK;
            }
            self.start_next(Instant::now());
            self.wait_until(look_at);
            self.attend();
        }
        self.finish();
        self.beat.turn_to(Operation::Ended);
    }

    /// Looks which reasons are new and which are gone. Blocks 400 ms when the watchdog seems to stand still.
    fn look(&mut self) {
        let doing = self.beat.begin(Operation::Watching);
        let taker = &mut self.taker;
        let owner = |path: &std::path::Path| taker.get_or_insert_with(|| owner_of(path)).clone();
        let finding = self.vitals.find_with(pause, owner);
        drop(doing);
        if !finding.reasons.iter().any(|reason| reason.kind == Kind::SocketTaken) {
            self.taker = None;
        }
        for alert in self.episodes.turn(&finding.reasons, Instant::now(), epoch_seconds()) {
            self.waiting.push(alert);
        }
    }

    /// Returns whether a command may start by now.
    fn may_start(&self, now: Instant) -> bool {
        self.running.is_none() && self.started.is_none_or(|started| now >= started + APART)
    }

    fn start_next(&mut self, now: Instant) {
        if !self.may_start(now) {
            return;
        }
        let Some(alert) = self.waiting.pop() else { return };
        let dropped = self.waiting.take_dropped();
        if dropped > 0 {
            log::warn!(
                "⚠️ {} dropped, because more came than the command of --on-alert can take at one a second: /health has \
                 what is wrong now",
                count(dropped, "alert")
            );
        }
        self.started = Some(now);
        log::debug!("🔔 {alert}: starting {}", self.program());
        let doing = self.beat.begin(Operation::StartingCommand);
        let input = alert.json(&self.settings.origin);
        let started = Run::start(&self.settings.command, input, self.settings.time_max);
        drop(doing);
        match started {
            Ok(run) => {
                self.running = Some(Running {
                    run,
                    alert,
                    is_undead: false,
                });
            }
            Err(error) => {
                self.gauges.failed.fetch_add(1, Ordering::Relaxed);
                log::warn!(
                    "⚠️ cannot start {} for an alert ({alert}): {error}; nobody was told. {}",
                    self.program(),
                    remedy(&error)
                );
            }
        }
    }

    /// The program, without its arguments, which may be a secret.
    fn program(&self) -> String {
        join(self.settings.command.first().map(String::as_str))
    }

    /// Blocks until the command has something for us, it is time to start one, or `look_at`, at most.
    fn wait_until(&self, look_at: Instant) {
        let now = Instant::now();
        let mut until = look_at.min(now + TURN);
        if let Some(running) = &self.running {
            if !running.run.is_killed() {
                until = until.min(running.run.deadline());
            }
        } else if let Some(started) = self.started.filter(|_| !self.waiting.is_empty()) {
            until = until.min(started + APART);
        }
        self.wait(until.saturating_duration_since(now));
    }

    fn wait(&self, longest: Duration) {
        let _doing = self.beat.begin(Operation::Waiting);
        let mut fds = self.running.as_ref().map_or_else(Vec::new, |running| running.run.fds());
        fds.push(PollFd::new(&self.stop, PollFlags::IN));
        // Interrupted or not, the clock tells.
        let _ = waits::ALERTS.judge(poll(&mut fds, Some(&timespec(longest))));
    }

    /// Does for the command that runs what does not wait, and sees its end.
    fn attend(&mut self) {
        let Some(running) = &mut self.running else { return };
        let now = Instant::now();
        if let Some(outcome) = running.run.turn(now) {
            if let Some(Running { alert, .. }) = self.running.take() {
                self.tell(&alert, &outcome);
            }
        } else if !running.is_undead && running.run.is_killed() && now >= running.run.deadline() + UNDEAD {
            running.is_undead = true;
            let age = running.run.age(now).as_secs();
            log::error!(
                "🚨 the command of --on-alert for {} was killed and has not ended, {age} s after its start: the kernel holds \
                 it, as for a disk that does not answer. No alert is told until it has ended",
                running.alert
            );
        }
    }

    fn tell(&self, alert: &Alert, outcome: &Outcome) {
        let Outcome { end, took, said } = outcome;
        let (program, took) = (self.program(), took.as_secs_f64());
        let said = match said.as_str() {
            "" => String::new(),
            said => format!("; it said: {said}"),
        };
        let is_well = matches!(end, End::Exited(status) if status.success());
        let gauge = if is_well {
            &self.gauges.delivered
        } else {
            &self.gauges.failed
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        match end {
            _ if is_well => log::info!("🔔 {alert}: {program} ended well after {took:.1} s{said}"),
            End::Killed => log::warn!(
                "⚠️ {alert}: {program} was killed with all that it had started after {took:.1} s (--on-alert-timeout); \
                 perhaps nobody was told{said}"
            ),
            End::Exited(_) | End::Unknown => log::warn!(
                "⚠️ {alert}: {program} ended with {end} after {took:.1} s; perhaps nobody was told. Run it by hand with JSON \
                 on its standard input{said}"
            ),
        }
    }

    /// The server stops: what waits is dropped, and the command that runs gets some time.
    fn finish(&mut self) {
        self.waiting.clear();
        let dropped = self.waiting.take_dropped();
        if dropped > 0 {
            log::warn!("⚠️ {} dropped, because the server stops", count(dropped, "alert"));
        }
        let end = Instant::now() + GRACE;
        while self.running.is_some() {
            let now = Instant::now();
            if now >= end + GONE {
                // The kernel holds it. Its parent ends now, and init sees its end.
                return;
            }
            if let Some(running) = self.running.as_mut().filter(|_| now >= end) {
                running.run.kill();
            }
            self.rest();
            self.attend();
        }
    }

    /// Waits a moment for the command alone: the stop is requested already, so its descriptor would not wait.
    fn rest(&self) {
        let _doing = self.beat.begin(Operation::Waiting);
        let mut fds = self.running.as_ref().map_or_else(Vec::new, |running| running.run.fds());
        let _ = waits::ALERTS.judge(poll(&mut fds, Some(&timespec(Duration::from_millis(20)))));
    }
}

/// What a person can do when the command does not start.
fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "Give --on-alert the path of a program, or its name if it is in the server's PATH; what \
                                    a shell is to read is written sh -c '...'"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "Let the server's user run this file (chmod +x), or look whether a service's hardening forbids it"
                .to_owned()
        }
        _ => format!("To mend it, {}", Refusal::of(error)),
    }
}
