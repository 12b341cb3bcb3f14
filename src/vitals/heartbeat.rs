//! Says every few seconds, in one line and in the status file, how the server does.
//!
//! Runs on: `heartbeat`, one.
//! Owns: what was counted until the last line.
//! Blocks on: the clock (250 ms a turn, ended at once by a request); a second look at a watchdog that
//! seems to stand still (400 ms, in turns too). It asks nobody: it reads what the others show.
//! Can be stalled by: the kernel's answer to a read of /proc; after a crowd of clients has left, the thread that holds
//! the allocator's lock.
//! Full queue means: a log line is lost and counted; in the status file's slot the newest content replaces an older
//! one.
//! Ends when: asked to, with a last line and a last status.
//! Watched as: `heartbeat`; not a core thread, a stall makes health `degraded`, and the status file grows old.

use crate::fanout::requests::Backlog;
use crate::liveness::beat::Beat;
use crate::liveness::clock_wait;
use crate::liveness::operation::Operation;
use crate::process::clock::{epoch_seconds, monotonic_ms, rfc3339};
use crate::process::files::Slot;
use crate::process::heap;
use crate::process::logging::{LogControl, STATUS};
use crate::process::procfs::own_threads;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::process::words::count;
use crate::vitals::health::{Finding, Vitals, object};
use crate::vitals::pulse::{Pulse, Totals};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// When this many clients have left, and no more than that are still there, the memory that they needed goes back to
/// the system. Fewer leave a few MiB, which the next ones use again.
const CLIENTS_LEFT_MANY: u64 = 100;

/// Settings of the heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatSettings {
    /// From one line to the next.
    pub interval: Duration,
    /// Where HTTP and WebSocket are served, for the status file.
    pub address: SocketAddr,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Heartbeat {
    settings: HeartbeatSettings,
    vitals: Arc<Vitals>,
    /// Of the status file, if there is one.
    slot: Option<Slot>,
    beat: &'static Beat,
    stop: Stop,
    /// Requested when the server begins to stop: from then on threads end, which is no fault of theirs.
    stopping: Stop,
    number: u64,
    counted: Totals,
    counted_at: Instant,
    backlog: Backlog,
    /// Clients that had ended when memory was last given back.
    given_back_at: u64,
}

/// What the status file says, besides the verdicts of `/health`, from the wish to end on.
const STOPPING: &str = "stopping";
/// What it says when the stop is over.
const STOPPED: &str = "stopped";

impl Heartbeat {
    /// Ready to run. Everything is counted from 0, and from now.
    pub fn new(
        settings: HeartbeatSettings,
        vitals: Arc<Vitals>,
        slot: Option<Slot>,
        beat: &'static Beat,
        stop: Stop,
        stopping: Stop,
    ) -> Heartbeat {
        Heartbeat {
            settings,
            vitals,
            slot,
            beat,
            stop,
            stopping,
            number: 0,
            counted: Totals::default(),
            counted_at: Instant::now(),
            backlog: Backlog {
                measured_ms: monotonic_ms(),
                ..Backlog::default()
            },
            given_back_at: 0,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("heartbeat", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        // At once, so that nobody takes the file of a former run for ours.
        let started = self.measure("ok", &Finding::none(), self.counted_at);
        self.leave(&started, &Finding::none());
        let mut due = self.counted_at + self.settings.interval;
        loop {
            self.wait_until(due);
            if self.stop.requested() {
                break;
            }
            self.say();
            due += self.settings.interval;
            let now = Instant::now();
            // After a time in which this process did not run, one line, not one for each that is missing.
            if due <= now {
                due = now + self.settings.interval;
            }
        }
        self.number += 1;
        let nothing = Finding::none();
        let last = self.measure(STOPPED, &nothing, Instant::now());
        self.tell(&last, &nothing);
        self.beat.turn_to(Operation::Ended);
    }

    /// Blocks until `due`, at most; a request to end comes through at once. A drill lengthens it.
    fn wait_until(&self, due: Instant) {
        clock_wait::wait_until(due, self.beat, &self.stop, &waits::HEARTBEAT);
    }

    /// One heartbeat.
    fn say(&mut self) {
        let (status, finding) = if self.stopping.requested() {
            (STOPPING, Finding::none())
        } else {
            let finding = self.vitals.find(|look| self.wait_until(Instant::now() + look));
            (finding.status.name(), finding)
        };
        let _doing = self.beat.begin(Operation::Composing);
        self.number += 1;
        let pulse = self.measure(status, &finding, Instant::now());
        self.tell(&pulse, &finding);
        self.give_back();
    }

    /// After a crowd has left, gives back what it needed.
    fn give_back(&mut self) {
        let clients = &self.vitals.clients;
        let ended: u64 = clients.ends.counts().map(|(_, count)| count).sum();
        let open = clients.open.load(Ordering::Relaxed) as u64;
        let left = ended - self.given_back_at;
        if left < CLIENTS_LEFT_MANY.max(open) {
            return;
        }
        let _doing = self.beat.begin(Operation::GivingBack);
        let begun = Instant::now();
        heap::give_back();
        log::debug!(
            "🧹 {} left; giving back their memory took {:.2}ms",
            count(left, "client"),
            begun.elapsed().as_secs_f64() * 1000.0
        );
        self.given_back_at = ended;
    }

    /// Reads every gauge; from here on things are counted anew.
    fn measure(&mut self, status: &'static str, finding: &Finding, now: Instant) -> Pulse {
        let totals = totals(&self.vitals);
        // When the fan-out is just writing it down, the one before is some 100 ms older, and says so.
        self.backlog = self.vitals.fanout.backlog().unwrap_or(self.backlog);
        let pulse = Pulse {
            number: self.number,
            covers: now.saturating_duration_since(self.counted_at),
            connections: self.vitals.fanout.clients.load(Ordering::Relaxed),
            tasks: own_threads(),
            last_event: self.vitals.fanout.last_event_age(),
            since: totals.since(&self.counted),
            queue: (self.vitals.intake.len(), self.vitals.intake.bytes()),
            backlog: self.backlog,
            behind: self.vitals.fanout.behind.load(Ordering::Relaxed),
            backlog_age: Duration::from_millis(monotonic_ms().saturating_sub(self.backlog.measured_ms)),
            status,
            reasons: finding.texts(),
        };
        self.counted = totals;
        self.counted_at = now;
        pulse
    }

    fn tell(&self, pulse: &Pulse, finding: &Finding) {
        log::info!(target: STATUS, "{pulse}");
        self.leave(pulse, finding);
    }

    /// Leaves the status to thread `files`.
    fn leave(&self, pulse: &Pulse, finding: &Finding) {
        if let Some(slot) = &self.slot {
            slot.put(Arc::new(self.status_file(pulse, finding, epoch_seconds()).into_bytes()));
        }
    }

    /// What the status file says at `now`, in seconds since the epoch: when it was written and by whom, all that
    /// `/health` says, and this heartbeat.
    fn status_file(&self, pulse: &Pulse, finding: &Finding, now: f64) -> String {
        let path = self.vitals.event_socket_path.display().to_string();
        let ours: [(&str, Value); 6] = [
            ("written_at", now.into()),
            ("written_at_rfc3339", rfc3339(now).into()),
            ("interval_seconds", self.settings.interval.as_secs_f64().into()),
            ("pid", std::process::id().into()),
            ("address", self.settings.address.to_string().into()),
            ("event_socket_path", path.into()),
        ];
        let mut fields = self.vitals.fields(pulse.status, finding);
        // The verdict stays first; next one wants to know of when and of whom it is.
        fields.splice(1..1, ours);
        fields.push(("heartbeat", pulse.fields()));
        format!("{}\n", object(&fields))
    }
}

/// Everything that is counted, as of now. Single counts, each read for itself: one that moves meanwhile is in the next.
fn totals(vitals: &Vitals) -> Totals {
    let journal = vitals.journal.as_ref().map_or(0, |journal| journal.dropped());
    let dropped = vitals.ingest.drops.counts();
    Totals {
        events: vitals.ingest.received.load(Ordering::Relaxed),
        bytes: vitals.ingest.received_bytes.load(Ordering::Relaxed),
        dropped: dropped.chain([("journal", journal)]).collect(),
        ended: vitals.clients.ends.counts().collect(),
        refused: vitals.clients.refused.load(Ordering::Relaxed) as u64,
        log_lines_lost: vitals.log.as_ref().map_or(0, LogControl::lines_lost),
    }
}
