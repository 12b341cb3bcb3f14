//! Sees what services take: processes, memory, processor time; counts programs that run too often; rotates logs.
//!
//! Runs on: `look`, one, in `threadcast up`.
//! Owns: its own list of all processes, and what they had taken when it looked last.
//! Blocks on: the clock (250 ms a turn); the kernel, which walks through the memory of each process; the logs' disk.
//! Can be stalled by: a process that hangs in the kernel with its memory locked; that disk.
//! Full queue means: nothing; it has none.
//! Ends when: asked to.
//! Watched as: `look`, by thread `main`. Nobody waits for it: without it, the figures grow old.

use crate::liveness::beat::Beat;
use crate::liveness::clock_wait;
use crate::liveness::operation::Operation;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::supervise::board::{Board, Taken};
use crate::supervise::census::Census;
use crate::supervise::children::Member;
use crate::supervise::conflicts::telling::Telling;
use crate::supervise::log_files::{self, Keep};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The figures are no older than this, so that a log does not grow for hours; and no look costs more than a thousandth
/// of a processor for each hundred processes.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);
/// Until the first services are shown.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// The thread's own things.
#[derive(Debug)]
pub struct Look {
    census: Census,
    board: Board,
    /// From one look to the next.
    every: Duration,
    /// How much of each log is kept.
    keep: Keep,
    /// Services whose log could not be rotated, so that the log has one line about each.
    unrotated: BTreeSet<Arc<str>>,
    /// Processor time of each service at the last look.
    before: BTreeMap<Arc<str>, Duration>,
    looked: Instant,
    /// Programs that run too often.
    conflicts: Telling,
    beat: &'static Beat,
    stop: Stop,
}

impl Look {
    /// Ready to run: looks once in `every`, but 1 to 10 s apart, and keeps what `keep` says of each log.
    pub fn new(
        census: Census,
        board: Board,
        (every, keep): (Duration, Keep),
        conflicts: Telling,
        beat: &'static Beat,
        stop: Stop,
    ) -> Look {
        Look {
            census,
            board,
            every: every.clamp(*EVERY.start(), *EVERY.end()),
            keep,
            unrotated: BTreeSet::new(),
            before: BTreeMap::new(),
            looked: Instant::now(),
            conflicts,
            beat,
            stop,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; `Refusal` says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("look", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        while !self.stop.requested() {
            self.look();
            self.rotate_logs();
            // Before the first services are shown there is nothing to look at.
            let every = if self.before.is_empty() { FIRST_LOOK } else { self.every };
            let due = Instant::now() + every;
            clock_wait::wait_until(due, self.beat, &self.stop, &waits::LOOK);
        }
        self.beat.turn_to(Operation::Ended);
    }

    /// Rotates the logs that have grown too large.
    fn rotate_logs(&mut self) {
        let _doing = self.beat.begin(Operation::Writing);
        for (name, row) in self.board.rows() {
            self.beat.step();
            match log_files::rotate(&row.log, self.keep) {
                Ok(rotated) => {
                    self.unrotated.remove(&name);
                    if let Some(rotated) = rotated {
                        log::info!("📜 {name}: {rotated}");
                    }
                }
                Err(error) if self.unrotated.insert(Arc::clone(&name)) => log::error!("❌ {name}: {error}"),
                Err(_) => {}
            }
        }
    }

    /// One that was taken over may have lost its mark. The next look finds what descends from it.
    fn remember_leaders(&mut self) {
        for (service, row) in self.board.rows() {
            if let Some(leader) = row.leader.filter(|_| row.is_adopted) {
                self.census.remember(leader, Member { service, n: row.n });
            }
        }
    }

    fn look(&mut self) {
        let _doing = self.beat.begin(Operation::LookingAtProcesses);
        let begun = Instant::now();
        // An old list is better than none; thread `act` tells of the fault.
        let _ = self.census.look();
        self.remember_leaders();
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.looked).as_secs_f64();
        let mut taken = BTreeMap::new();
        let mut cpus = BTreeMap::new();
        for name in self.board.names() {
            self.beat.step();
            let figures = self.census.figures(&name);
            let memory = self.census.memory(&name);
            let before = self.before.get(&name).filter(|_| passed > 0.0);
            // It falls when a process ends that nobody of the service waits for.
            let cpu_percent = before.map(|before| figures.cpu.saturating_sub(*before).as_secs_f64() / passed * 100.0);
            cpus.insert(Arc::clone(&name), figures.cpu);
            let of_it = Taken {
                processes: figures.processes,
                memory_bytes: memory.pss_bytes,
                cpu_percent,
            };
            taken.insert(name, of_it);
        }
        (self.before, self.looked) = (cpus, now);
        self.board.show_taken(taken, begun);
        self.conflicts.look(&self.census, &self.board);
    }
}
