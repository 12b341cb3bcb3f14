//! When a thread that shows no progress is late, and when it hangs. Pure: time comes in as the length of each round.

use crate::liveness::beat::Verdict;
use std::time::Duration;

/// A thread is late after this part of the hang timeout.
const LATE_PART: u32 = 3;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    late: Duration,
    hung: Duration,
}

impl Limits {
    /// A thread hangs after `hang_timeout` without progress, and is late after a third of that.
    pub fn new(hang_timeout: Duration) -> Limits {
        Limits {
            late: hang_timeout / LATE_PART,
            hung: hang_timeout,
        }
    }
}

/// What a round sees of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Whose place this is: another number is another thread.
    pub number: u64,
    pub progress: u64,
    /// How long it may stand still because it waits by its own declaration, and nothing waits for it.
    pub wait: Option<Duration>,
}

/// What is remembered of a thread between rounds.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    number: u64,
    progress: u64,
    /// Sum of the valid rounds since its progress changed.
    still: Duration,
    /// Sum of all rounds since then, also of those that say nothing about it.
    since: Duration,
    verdict: Verdict,
}

/// What a round changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Late,
    Hung,
    /// It moves again, after so long; whether it had been called hung.
    Recovered {
        after: Duration,
        hung: bool,
    },
    /// The connection with this number has ended after so long without progress; whether it had been called hung.
    Gone {
        number: u64,
        after: Duration,
        hung: bool,
    },
}

impl Default for Watched {
    fn default() -> Self {
        Watched {
            number: 0,
            progress: 0,
            still: Duration::ZERO,
            since: Duration::ZERO,
            verdict: Verdict::Alive,
        }
    }
}

impl Watched {
    /// One valid round that took `round`.
    pub fn look(&mut self, seen: Seen, round: Duration, limits: Limits) -> Option<Change> {
        if seen.number != self.number {
            // Nobody or another connection has the place; what its former one was blamed for is over with it.
            let next = Watched {
                number: seen.number,
                progress: seen.progress,
                ..Watched::default()
            };
            let former = std::mem::replace(self, next);
            return (former.verdict != Verdict::Alive).then_some(Change::Gone {
                number: former.number,
                after: former.since,
                hung: former.verdict == Verdict::Hung,
            });
        }
        if seen.progress != self.progress {
            return self.moved(seen.progress);
        }
        self.still += round;
        self.since += round;
        let hung = limits.hung.saturating_add(seen.wait.unwrap_or_default());
        match self.verdict {
            Verdict::Alive | Verdict::Late if self.still >= hung => {
                self.verdict = Verdict::Hung;
                Some(Change::Hung)
            }
            Verdict::Alive if seen.wait.is_none() && self.still >= limits.late => {
                self.verdict = Verdict::Late;
                Some(Change::Late)
            }
            _ => None,
        }
    }

    /// A round that says nothing: the watchdog itself did not run for so long. What was counted does not count.
    pub fn void(&mut self, round: Duration) {
        self.still = Duration::ZERO;
        self.since += round;
    }

    fn moved(&mut self, progress: u64) -> Option<Change> {
        let (after, was) = (self.since, self.verdict);
        self.progress = progress;
        self.still = Duration::ZERO;
        self.since = Duration::ZERO;
        self.verdict = Verdict::Alive;
        (was != Verdict::Alive).then_some(Change::Recovered {
            after,
            hung: was == Verdict::Hung,
        })
    }

    /// The verdict now.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// For how long there was no progress.
    pub fn since(&self) -> Duration {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(250);
    const HUNG: Duration = Duration::from_secs(15);

    fn busy(progress: u64) -> Seen {
        Seen {
            number: 0,
            progress,
            wait: None,
        }
    }

    /// What `rounds` equal rounds change, with the time at which they do.
    fn changes(watched: &mut Watched, seen: Seen, rounds: u32) -> Vec<(Duration, Change)> {
        let limits = Limits::new(HUNG);
        (1..=rounds)
            .filter_map(|round| Some((ROUND * round, watched.look(seen, ROUND, limits)?)))
            .collect()
    }

    #[test]
    fn a_hang_is_late_then_hung_then_said_no_more_and_its_end_is_said_once() {
        let mut watched = Watched::default();
        changes(&mut watched, busy(1), 1);
        let said = changes(&mut watched, busy(1), 400);
        assert_eq!(said, [(HUNG / 3, Change::Late), (HUNG, Change::Hung)]);
        let after = ROUND * 400;
        let end = Change::Recovered { after, hung: true };
        assert_eq!(changes(&mut watched, busy(2), 400)[0], (ROUND, end));
        assert_eq!(watched.since(), ROUND * 399);
    }

    #[test]
    fn one_that_moves_before_the_limit_was_late_only() {
        let mut watched = Watched::default();
        changes(&mut watched, busy(1), 1);
        assert_eq!(changes(&mut watched, busy(1), 59), [(HUNG / 3, Change::Late)]);
        let after = ROUND * 59;
        let end = Change::Recovered { after, hung: false };
        assert_eq!(changes(&mut watched, busy(2), 1), [(ROUND, end)]);
    }

    #[test]
    fn a_day_of_waiting_in_turns_is_no_hang() {
        let mut watched = Watched::default();
        for turn in 0..4 * 3600 * 24 {
            let waits = Seen {
                wait: Some(Duration::from_secs(1)),
                ..busy(turn)
            };
            assert_eq!(changes(&mut watched, waits, 1), []);
        }
    }

    #[test]
    fn a_wait_that_outlasts_its_bound_by_the_limit_is_a_hang_and_never_late() {
        let mut watched = Watched::default();
        let waits = Seen {
            wait: Some(Duration::from_secs(10)),
            ..busy(7)
        };
        changes(&mut watched, waits, 1);
        let after = HUNG + Duration::from_secs(10);
        assert_eq!(changes(&mut watched, waits, 400), [(after, Change::Hung)]);
        let ended = Seen {
            wait: Some(Duration::MAX),
            ..busy(8)
        };
        changes(&mut watched, ended, 1);
        assert_eq!(changes(&mut watched, ended, 4 * 3600), []);
    }

    #[test]
    fn a_wait_that_others_wait_for_is_a_hang() {
        let mut watched = Watched::default();
        changes(&mut watched, busy(7), 1);
        // Declared as a wait by the thread, but its queue is not empty: the caller says that it is none.
        assert_eq!(changes(&mut watched, busy(7), 60).len(), 2);
    }

    #[test]
    fn a_round_that_the_watchdog_overslept_starts_the_count_anew() {
        let mut watched = Watched::default();
        changes(&mut watched, busy(1), 1);
        assert_eq!(changes(&mut watched, busy(1), 59).len(), 1);
        watched.void(Duration::from_secs(3600));
        assert_eq!(changes(&mut watched, busy(1), 59), []);
        assert_eq!(changes(&mut watched, busy(1), 1), [(ROUND, Change::Hung)]);
    }

    #[test]
    fn another_client_in_the_same_place_is_not_blamed() {
        let mut watched = Watched::default();
        changes(&mut watched, busy(1), 60);
        let other = Seen { number: 5, ..busy(1) };
        let gone = Change::Gone {
            number: 0,
            after: ROUND * 59,
            hung: false,
        };
        assert_eq!(changes(&mut watched, other, 20), [(ROUND, gone)]);
        assert_eq!(watched.verdict(), Verdict::Alive);
    }
}
