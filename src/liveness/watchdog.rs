//! Reads every thread's beat, and says who is late, who hangs and who moves again.
//!
//! Runs on: `watchdog`, one.
//! Owns: what it remembers of each beat, and the ways on which it speaks.
//! Blocks on: the clock (250 ms); a stuck terminal (50 ms a line); the emergency file (1 s a report); the disk under
//! standard error when that is a file.
//! Can be stalled by: that disk, and only when a line or a report is due. Not by a lock that is held for long.
//! Full queue means: a line that the log's file has no room for is on the terminal only, and counted as lost.
//! Ends when: asked to.
//! Watched as: `watchdog`; when it stands still, `/health` says so, and the service manager is told nothing more.
//!
//! It must speak when every lock of the process is held by somebody who hangs, the allocator's included. So it works in
//! memory of its own, writes nothing through the `log` macros, and looks at beats instead of asking threads.

use crate::liveness::backlog::Backlog;
use crate::liveness::beat::{Beat, Role, Verdict};
use crate::liveness::beats::Beats;
use crate::liveness::demand::Demand;
use crate::liveness::drill;
use crate::liveness::judge::{Change, Limits, Seen, Watched};
use crate::liveness::operation::Operation;
use crate::liveness::report::{FINDINGS_MAX, Finding, Reporter};
use crate::liveness::stacks::arena;
use crate::liveness::standstill::{Sample, Standstill};
use crate::liveness::voice::Voice;
use crate::process::clock::timespec;
use crate::process::stop::Stop;
use crate::process::systemd::Notifier;
use crate::process::threads::{self, ThreadHandle};
use crate::process::waits;
use crate::process::words::{count, pick};
use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often beats are read.
const TURN: Duration = Duration::from_millis(250);
/// A round that took this much longer than a turn says more about the host, or about the program that suspended this
/// process, than about the threads: it is void.
const OVERSLEPT: Duration = Duration::from_millis(500);
/// Threads that begin to hang within this many rounds of each other share one report.
const SETTLE_ROUNDS: u32 = 2;
/// The service manager hears of us so much before its interval is over, because a round may begin late.
const FEED_EARLY: Duration = Duration::from_millis(500);
/// Lines about clients that are late or move again, within a window; a fault that stalls one often stalls many, and
/// outsiders can make clients.
const CLIENT_LINES_MAX: usize = 20;
/// Length of that window.
const CLIENT_LINES_WINDOW: Duration = Duration::from_secs(10);

/// What the server does when a core thread hangs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnHang {
    /// Report, and go on with what moves.
    #[default]
    Report,
    /// Report, then end the process with SIGABRT, so that a supervisor starts it anew.
    Abort,
}

/// Settings of the watchdog.
#[derive(Clone, Copy, Debug)]
pub struct WatchdogSettings {
    pub hang_timeout: Duration,
    pub on_hang: OnHang,
    /// A client's thread waits for work until its next ping is due.
    pub ping_interval: Duration,
}

/// Code that recurses looks up symbols on this stack; only touched pages count.
const STACK_BYTES: usize = 4 * 1024 * 1024;

/// How the watchdog tells of what it sees.
#[derive(Debug)]
pub struct Ways {
    /// To people, line by line.
    pub voice: Voice,
    /// To people, with the place of every thread.
    pub reporter: Reporter,
    /// To the service manager: that the server is alive.
    pub notifier: Arc<Notifier>,
}

/// What is remembered of one beat.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    watched: Watched,
    /// The kernel's figures when it became late.
    sample: Option<Sample>,
    /// Round in which it began to hang, as long as that is not reported.
    unreported: Option<u64>,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Watchdog {
    beats: &'static Beats,
    limits: Limits,
    on_hang: OnHang,
    ping_interval: Duration,
    backlogs: Vec<Backlog>,
    permanent: Vec<Entry>,
    /// By place; has room for all places from the beginning, so that it never grows.
    clients: Vec<Entry>,
    round: u64,
    looked: Instant,
    /// Since when lines about clients are counted, how many there would have been.
    client_lines: (Instant, usize),
    voice: Voice,
    reporter: Reporter,
    notifier: Arc<Notifier>,
    fed: Option<Instant>,
    demand: Demand,
    stop: Stop,
}

/// A change, and of whom.
type Changed = (&'static Beat, Change);

impl Watchdog {
    /// Ready to run.
    pub fn new(
        settings: &WatchdogSettings,
        beats: &'static Beats,
        backlogs: Vec<Backlog>,
        ways: Ways,
        demand: Demand,
        stop: Stop,
    ) -> Watchdog {
        let Ways {
            voice,
            reporter,
            notifier,
        } = ways;
        let mut clients = Vec::new();
        clients.reserve_exact(beats.clients.room());
        Watchdog {
            beats,
            limits: Limits::new(settings.hang_timeout),
            on_hang: settings.on_hang,
            ping_interval: settings.ping_interval,
            backlogs,
            permanent: vec![Entry::default(); beats.permanent().len()],
            clients,
            round: 0,
            looked: Instant::now(),
            client_lines: (Instant::now(), 0),
            voice,
            reporter,
            notifier,
            fed: None,
            demand,
            stop,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("watchdog", STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beats.watchdog.adopt();
        self.reporter.prepare(&mut self.voice);
        self.looked = Instant::now();
        while !self.stop.requested() {
            drill::obey(self.beats.watchdog);
            self.wait();
            let _doing = self.beats.watchdog.begin(Operation::Watching);
            arena::scope(|| self.turn());
            self.feed();
            arena::scope(|| self.answer());
        }
        self.beats.watchdog.turn_to(Operation::Ended);
    }

    /// Blocks for a turn, or until asked to end or to report.
    fn wait(&self) {
        let _doing = self.beats.watchdog.begin(Operation::Waiting);
        let mut fds = [
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.demand.as_fd(), PollFlags::IN),
        ];
        // Interrupted, the round is a short one.
        let _ = waits::WATCHDOG.judge(poll(&mut fds, Some(&timespec(TURN))));
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.looked);
        self.looked = now;
        self.round += 1;
        if took > TURN + OVERSLEPT {
            self.void(took);
            return;
        }
        let changes = self.look(took);
        self.tell(&changes);
        self.report_if_settled();
    }

    /// Makes the report that somebody asks for.
    fn answer(&mut self) {
        let (reporter, beats, backlogs) = (&mut self.reporter, self.beats, &self.backlogs);
        self.demand.answer(|| {
            let _doing = beats.watchdog.begin(Operation::Reporting);
            reporter.on_demand(beats, backlogs)
        });
    }

    /// Tells the service manager that we are alive, when that is due and no core thread hangs. Uses no memory.
    fn feed(&mut self) {
        let Some(interval) = self.notifier.watchdog_interval() else {
            return;
        };
        let due = self.fed.is_none_or(|at| at.elapsed() + FEED_EARLY >= interval);
        let mut core = self.beats.permanent().into_iter().filter(|beat| beat.is_core());
        if due && core.all(|beat| beat.verdict().0 != Verdict::Hung) && self.notifier.alive().is_ok() {
            self.fed = Some(Instant::now());
        }
    }

    /// A round that says nothing.
    fn void(&mut self, took: Duration) {
        let beats = self.beats.permanent().into_iter().zip(&mut self.permanent);
        for (beat, entry) in beats.chain(self.beats.clients.places().zip(&mut self.clients)) {
            entry.watched.void(took);
            // What it did meanwhile, or could not do, is no part of the judgment either.
            entry.sample = entry.sample.and_then(|_| Sample::of(beat.thread_id()));
        }
    }

    /// Looks at every beat.
    fn look(&mut self, took: Duration) -> Vec<Changed> {
        let mut changes = Vec::new();
        for (index, beat) in self.beats.permanent().into_iter().enumerate() {
            // Of itself it can only say that it moves; a thread that has not begun cannot stand still.
            if !std::ptr::eq(beat, self.beats.watchdog) && beat.thread_id() != 0 {
                let wait = beat.sight().operation.wait_bound().filter(|_| !self.owes(beat));
                let change = self.permanent[index].look(beat, wait, took, self.limits, self.round);
                if change.is_some() {
                    self.beats.note_change();
                }
                changes.extend(change.map(|change| (beat, change)));
            }
        }
        for (place, beat) in self.beats.clients.places().enumerate() {
            if place >= self.clients.len() {
                self.clients.resize(place + 1, Entry::default());
            }
            let wait = match beat.sight().operation {
                Operation::Waiting => Operation::Waiting.wait_bound().map(|bound| bound + self.ping_interval),
                operation => operation.wait_bound(),
            };
            // A place that nobody has cannot stand still.
            let wait = if beat.number() == 0 { Some(Duration::MAX) } else { wait };
            let change = self.clients[place].look(beat, wait, took, self.limits, self.round);
            changes.extend(change.map(|change| (beat, change)));
        }
        changes
    }

    /// Returns whether something waits for this thread.
    fn owes(&self, beat: &'static Beat) -> bool {
        let mut own = self.backlogs.iter().filter(|backlog| std::ptr::eq(backlog.beat, beat));
        own.any(|backlog| (backlog.waiting)().is_some())
    }

    /// Says who is late and who moves again, one line each; of clients only so many.
    fn tell(&mut self, changes: &[Changed]) {
        self.end_window();
        for (beat, change) in changes {
            let (level, line) = match change {
                Change::Hung => continue,
                Change::Late => (Level::Warn, late_line(beat)),
                Change::Recovered { after, hung } => (level_of(*hung), recovery_line(beat, *after, *hung)),
                Change::Gone { number, after, hung } => (level_of(*hung), gone_line(*number, *after, *hung)),
            };
            if beat.role() == Role::Client {
                self.client_lines.1 += 1;
                if self.client_lines.1 > CLIENT_LINES_MAX {
                    continue;
                }
            }
            self.voice.say(level, &line);
        }
    }

    /// Says how many lines about clients were left out, once per window.
    fn end_window(&mut self) {
        let (since, lines) = self.client_lines;
        if since.elapsed() < CLIENT_LINES_WINDOW {
            return;
        }
        self.client_lines = (Instant::now(), 0);
        if let Some(more @ 1..) = lines.checked_sub(CLIENT_LINES_MAX) {
            self.voice.say(
                Level::Warn,
                &format!(
                    "⚠️  {} about clients that are late or move again {} left out",
                    count(more, "more line"),
                    pick(more, "was", "were")
                ),
            );
        }
    }

    /// Reports those who hang, once all that began to hang together are known.
    fn report_if_settled(&mut self) {
        let entries = self.permanent.iter().chain(&self.clients);
        let first = entries.filter_map(|entry| entry.unreported).min();
        if first.is_none_or(|first| self.round < first + u64::from(SETTLE_ROUNDS)) {
            return;
        }
        let findings = self.take_findings();
        if findings.is_empty() {
            return;
        }
        let _doing = self.beats.watchdog.begin(Operation::Reporting);
        let is_last = self.on_hang == OnHang::Abort && findings.iter().any(|finding| finding.beat.is_core());
        let (beats, backlogs) = (self.beats, &self.backlogs);
        self.reporter
            .report(&findings, (beats, backlogs), &mut self.voice, is_last);
        if is_last {
            self.voice.say(Level::Error, "🛑 aborting, as --on-hang abort asks");
            self.voice.linger();
            std::process::abort();
        }
    }

    /// Everybody whose hang is not reported yet, if it still hangs.
    fn take_findings(&mut self) -> Vec<Finding> {
        let permanent = self.beats.permanent().into_iter().zip(&mut self.permanent);
        let clients = self.beats.clients.places().zip(&mut self.clients);
        let mut findings = Vec::new();
        for (beat, entry) in permanent.chain(clients) {
            // Asking the kernel takes a moment each, so only for those that get a line.
            let in_full = findings.len() < FINDINGS_MAX;
            findings.extend(entry.finding(beat, in_full));
        }
        findings
    }
}

impl Entry {
    fn look(
        &mut self,
        beat: &'static Beat,
        wait: Option<Duration>,
        took: Duration,
        limits: Limits,
        round: u64,
    ) -> Option<Change> {
        let seen = Seen {
            number: beat.number(),
            progress: beat.progress(),
            wait,
        };
        let mut change = self.watched.look(seen, took, limits);
        beat.judge(self.watched.verdict(), self.watched.since());
        match &mut change {
            Some(Change::Late) => self.sample = Sample::of(beat.thread_id()),
            Some(Change::Hung) => self.unreported = Some(round),
            // Before it was reported: nobody was told that it hung.
            Some(Change::Recovered { hung, .. } | Change::Gone { hung, .. }) => {
                *hung &= self.unreported.take().is_none();
            }
            None => {}
        }
        change
    }

    fn finding(&mut self, beat: &'static Beat, in_full: bool) -> Option<Finding> {
        self.unreported.take()?;
        (self.watched.verdict() == Verdict::Hung).then(|| Finding {
            beat,
            still: self.watched.since(),
            standstill: if in_full {
                Standstill::of(beat.thread_id(), self.sample.as_ref())
            } else {
                Standstill::Unknown
            },
        })
    }
}

fn late_line(beat: &'static Beat) -> String {
    let (_, still) = beat.verdict();
    format!(
        "⚠️  {} is late: no progress for {:.1}s in {}",
        beat.name(),
        still.as_secs_f64(),
        beat.sight().text()
    )
}

/// The end of what was said at level error is said at the same level, so that no filter leaves it out.
fn level_of(hung: bool) -> Level {
    if hung { Level::Error } else { Level::Warn }
}

fn recovery_line(beat: &'static Beat, after: Duration, hung: bool) -> String {
    format!(
        "✅ {} moves again after {:.1}s without progress (it was {})",
        beat.name(),
        after.as_secs_f64(),
        was(hung)
    )
}

fn gone_line(number: u64, after: Duration, hung: bool) -> String {
    format!(
        "✅ client-{number} has ended after {:.1}s without progress (it was {})",
        after.as_secs_f64(),
        was(hung)
    )
}

fn was(hung: bool) -> &'static str {
    if hung {
        Verdict::Hung.name()
    } else {
        Verdict::Late.name()
    }
}
