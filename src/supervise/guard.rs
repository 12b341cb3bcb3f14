//! Watches the threads of `threadcast up`, as the watchdog watches those of the server: a thread that shows no progress
//! is named, with what it does. Thread `main` calls it in its turns; it waits for nobody.

use crate::liveness::beat::{Beat, Role};
use crate::liveness::judge::{Change, Limits, Seen, Watched};
use crate::liveness::operation::{Operation, SlowLimits, SlowTally};
use crate::supervise::board::Board;
use std::time::{Duration, Instant};

/// A thread without progress for this long hangs.
const HANG_TIMEOUT: Duration = Duration::from_secs(10);
/// A turn of `main` that took this much longer than it should says more about the host than about the others.
const OVERSLEPT: Duration = Duration::from_millis(750);

/// The beats of the threads, whose memory is never freed.
#[derive(Clone, Copy, Debug)]
pub struct Beats {
    pub act: &'static Beat,
    pub look: &'static Beat,
    pub control: &'static Beat,
    /// Of a thread that there is only with a `[[watch]]`.
    pub watch: &'static Beat,
}

impl Beats {
    /// Makes the beats of one supervisor.
    pub fn new() -> Beats {
        let limits = SlowLimits {
            broadcast: Duration::MAX,
            snapshot: Duration::MAX,
        };
        let slow: &'static SlowTally = Box::leak(Box::new(SlowTally::new(limits)));
        let beat = |name| -> &'static Beat { Box::leak(Box::new(Beat::new(name, Role::Helper, slow))) };
        Beats {
            act: beat("act"),
            look: beat("look"),
            control: beat("control"),
            watch: beat("watch"),
        }
    }
}

impl Default for Beats {
    fn default() -> Beats {
        Beats::new()
    }
}

/// What is remembered of the threads.
#[derive(Debug)]
pub struct Guard {
    threads: Vec<(&'static Beat, Watched)>,
    limits: Limits,
    looked: Instant,
}

impl Guard {
    /// Watches these threads from now on, `watch` too if there is one.
    pub fn new(beats: Beats, has_watch: bool) -> Guard {
        let watch = Some(beats.watch).filter(|_| has_watch);
        let beats = [beats.act, beats.look, beats.control].into_iter().chain(watch);
        Guard {
            threads: beats.map(|beat| (beat, Watched::default())).collect(),
            limits: Limits::new(HANG_TIMEOUT),
            looked: Instant::now(),
        }
    }

    /// One look: says in the log who hangs and who moves again, and shows on `board` who hangs now.
    pub fn look(&mut self, board: &Board) {
        let now = Instant::now();
        let round = now.saturating_duration_since(self.looked);
        self.looked = now;
        let mut is_changed = false;
        for (beat, watched) in &mut self.threads {
            if round > OVERSLEPT {
                watched.void(round);
                continue;
            }
            let sight = beat.sight();
            let seen = Seen {
                number: beat.number(),
                progress: sight.progress,
                wait: sight.operation.wait_bound(),
            };
            match watched.look(seen, round, self.limits) {
                Some(Change::Hung) => {
                    log::error!("🧊 {}", hangs(beat, watched));
                    is_changed = true;
                }
                Some(Change::Recovered { after, hung: true }) => {
                    log::warn!(
                        "✅ thread {} moves again after {:.1} s",
                        beat.name(),
                        after.as_secs_f64()
                    );
                    is_changed = true;
                }
                _ => {}
            }
        }
        if is_changed {
            let hung = self.threads.iter().filter(|(_, watched)| is_hung(watched));
            board.show_hung(hung.map(|(beat, watched)| hangs(beat, watched)).collect());
        }
    }
}

fn is_hung(watched: &Watched) -> bool {
    watched.verdict() == crate::liveness::beat::Verdict::Hung
}

fn hangs(beat: &Beat, watched: &Watched) -> String {
    let operation: Operation = beat.sight().operation;
    format!(
        "thread {} of this supervisor makes no progress for {:.0} s in {}; services go on, and nobody {} meanwhile",
        beat.name(),
        watched.since().as_secs_f64(),
        operation.name(),
        match &*beat.name() {
            "watch" => "looks at watched files",
            "look" => "counts what they take",
            "control" => "answers",
            _ => "starts them again",
        }
    )
}
