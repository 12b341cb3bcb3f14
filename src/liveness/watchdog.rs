//! Reads every thread's beat, and says who is late, who hangs and who moves again.
//!
//! Runs on: `watchdog`, one.
//! Owns: what it remembers of each beat, and the ways on which it speaks.
//! Blocks on: the clock (250 ms); a stuck terminal (50 ms a line); the disk under the emergency file.
//! Can be stalled by: that disk, and only when a report is due. Not by a lock: it takes none that others wait for.
//! Full queue means: a line that the log's file has no room for is on the terminal only, and counted as lost.
//! Ends when: asked to.
//! Watched as: `watchdog`; when it stands still, `/health` says so, and the service manager is told nothing more.
//!
//! It must speak when every lock of the process is held by somebody who hangs, the allocator's included. So it works in
//! memory of its own, writes nothing through the `log` macros, and looks at beats instead of asking threads.

use crate::liveness::beat::{Beat, Beats, Role, Verdict};
use crate::liveness::demand::Demand;
use crate::liveness::drill;
use crate::liveness::judge::{Change, Limits, Seen, Watched};
use crate::liveness::operation::Operation;
use crate::liveness::report::{Finding, Reporter};
use crate::liveness::stacks::arena;
use crate::liveness::standstill::{Sample, Standstill};
use crate::liveness::voice::Voice;
use crate::process::clock::timespec;
use crate::process::config::OnHang;
use crate::process::stop::Stop;
use crate::process::systemd::Notifier;
use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often beats are read.
const TURN: Duration = Duration::from_millis(250);
/// A round that took so much longer than a turn says more about the host, or about whoever suspended this process, than
/// about the threads: it is void.
const OVERSLEPT: Duration = Duration::from_millis(500);
/// Threads that begin to hang within so many rounds of each other are told of together.
const SETTLE_ROUNDS: u32 = 2;
/// The service manager hears of us so much before its interval is over, because a round may begin late.
const FEED_EARLY: Duration = Duration::from_millis(500);
/// Lines about clients that are late or move again, within a window; a fault that stalls one often stalls many, and
/// outsiders can make clients.
const CLIENT_LINES_MAX: usize = 20;
const CLIENT_LINES_WINDOW: Duration = Duration::from_secs(10);

/// Something that waits for a thread: with it, the thread's own wait is not idleness.
pub struct Backlog {
    pub beat: &'static Beat,
    /// Whether anything waits. Reads atomics only.
    pub is_waiting: Box<dyn Fn() -> bool + Send>,
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").field("beat", &self.beat.name()).finish()
    }
}

/// Settings of the watchdog.
#[derive(Debug)]
pub struct WatchdogConfig {
    pub hang_timeout: Duration,
    pub on_hang: OnHang,
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
        config: &WatchdogConfig,
        beats: &'static Beats,
        backlogs: Vec<Backlog>,
        (voice, reporter, notifier): (Voice, Reporter, Arc<Notifier>),
        (demand, stop): (Demand, Stop),
    ) -> Watchdog {
        let mut clients = Vec::new();
        clients.reserve_exact(beats.clients.room());
        Watchdog {
            beats,
            limits: Limits::new(config.hang_timeout),
            on_hang: config.on_hang,
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

    /// The thread's body.
    pub fn run(mut self) {
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
        let _ = poll(&mut fds, Some(&timespec(TURN)));
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
        let (reporter, beats) = (&mut self.reporter, self.beats);
        let mut made = false;
        self.demand.answer(|| {
            made = true;
            let _doing = beats.watchdog.begin(Operation::Reporting);
            reporter.on_demand(beats)
        });
        if made {
            self.looked = Instant::now();
        }
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
        for entry in self.permanent.iter_mut().chain(&mut self.clients) {
            entry.watched.void(took);
        }
    }

    /// Looks at every beat.
    fn look(&mut self, took: Duration) -> Vec<Changed> {
        let mut changes = Vec::new();
        for (index, beat) in self.beats.permanent().into_iter().enumerate() {
            // Of itself it can only say that it moves; a thread that has not begun cannot stand still.
            if !std::ptr::eq(beat, self.beats.watchdog) && beat.thread_id() != 0 {
                let owes = self.owes(beat);
                let change = self.permanent[index].look(beat, owes, took, self.limits, self.round);
                changes.extend(change.map(|change| (beat, change)));
            }
        }
        for (place, beat) in self.beats.clients.places() {
            if place >= self.clients.len() {
                self.clients.resize(place + 1, Entry::default());
            }
            let change = self.clients[place].look(beat, false, took, self.limits, self.round);
            changes.extend(change.map(|change| (beat, change)));
        }
        changes
    }

    /// Whether something waits for this thread.
    fn owes(&self, beat: &'static Beat) -> bool {
        let mut own = self.backlogs.iter().filter(|backlog| std::ptr::eq(backlog.beat, beat));
        own.any(|backlog| (backlog.is_waiting)())
    }

    /// Says who is late and who moves again, one line each; of clients only so many.
    fn tell(&mut self, changes: &[Changed]) {
        self.end_window();
        for (beat, change) in changes {
            let (level, line) = match change {
                Change::Hung => continue,
                Change::Late => (Level::Warn, late_line(beat)),
                Change::Recovered { after, hung } => (Level::Warn, recovery_line(beat, *after, *hung)),
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
                &format!("⚠️  {more} more lines about clients that are late or move again were left out"),
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
        self.reporter.report(&findings, self.beats, &mut self.voice);
        if self.on_hang == OnHang::Abort && findings.iter().any(|finding| finding.beat.is_core()) {
            self.voice.say(Level::Error, "🛑 aborting, as --on-hang abort asks");
            std::process::abort();
        }
        // The time that the report took says nothing about the others, which it has interrupted.
        self.looked = Instant::now();
    }

    /// Everybody whose hang is not reported yet, if it still hangs.
    fn take_findings(&mut self) -> Vec<Finding> {
        let permanent = self.beats.permanent().into_iter().zip(&mut self.permanent);
        let clients = &mut self.clients;
        let mut findings: Vec<Finding> = permanent.filter_map(|(beat, entry)| entry.finding(beat)).collect();
        for (place, beat) in self.beats.clients.places() {
            findings.extend(clients.get_mut(place).and_then(|entry| entry.finding(beat)));
        }
        // Of a client that is gone meanwhile there is nothing to report.
        for entry in clients {
            entry.unreported = None;
        }
        findings
    }
}

impl Entry {
    fn look(&mut self, beat: &'static Beat, owes: bool, took: Duration, limits: Limits, round: u64) -> Option<Change> {
        let sight = beat.sight();
        let seen = Seen {
            number: beat.number(),
            progress: sight.progress,
            waits: sight.operation.is_wait() && !owes,
        };
        let change = self.watched.look(seen, took, limits);
        beat.judge(self.watched.verdict(), self.watched.since());
        match change {
            Some(Change::Late) => self.sample = Sample::of(beat.thread_id()),
            Some(Change::Hung) => self.unreported = Some(round),
            Some(Change::Recovered { .. }) => self.unreported = None,
            None => {}
        }
        change
    }

    fn finding(&mut self, beat: &'static Beat) -> Option<Finding> {
        self.unreported.take()?;
        (self.watched.verdict() == Verdict::Hung).then(|| Finding {
            beat,
            still: self.watched.since(),
            standstill: Standstill::of(beat.thread_id(), self.sample.as_ref()),
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

fn recovery_line(beat: &'static Beat, after: Duration, hung: bool) -> String {
    let was = if hung { "hung" } else { "late" };
    format!(
        "✅ {} moves again after {:.1}s without progress (it was {was})",
        beat.name(),
        after.as_secs_f64()
    )
}
