//! A report that somebody asks for: where every thread is right now, made by the watchdog on its own thread.

use crate::process::locks::{lock, try_lock};
use crate::process::wake::{Found, Wake};
use crate::process::words::cut_at_line;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest such report; what is longer is cut at a line.
const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often an asker looks whether it is over.
const LOOK: Duration = Duration::from_millis(250);

/// The way to ask, and the watchdog's way to answer.
#[derive(Clone, Debug)]
pub struct Demand(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    answered: Condvar,
    wake: Wake,
}

/// One asker at a time: from its question until it has its answer or has given up.
#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// With the memory for the answer, taken by the thread that asks: the watchdog takes none.
    Asked(Vec<u8>),
    /// The watchdog has it in hand; whether somebody still waits for it.
    Making {
        wanted: bool,
    },
    Answered(Vec<u8>),
    /// An answer that came too late, kept for the next asker to free.
    Stale {
        _memory: Vec<u8>,
    },
}

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReport {
    /// Somebody else's is being made.
    Taken,
    /// The watchdog did not answer in time.
    Late,
}

impl Demand {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub fn new() -> io::Result<Demand> {
        let wake = Wake::new()?;
        Ok(Demand(Arc::new(Inner {
            state: Mutex::default(),
            answered: Condvar::new(),
            wake,
        })))
    }

    /// Asks, and blocks until the report is there, at most `bound`; not longer than 250 ms once `over` says so.
    ///
    /// # Errors
    /// See [`NoReport`].
    pub fn ask(&self, bound: Duration, over: impl Fn() -> bool) -> Result<Vec<u8>, NoReport> {
        let memory = Vec::with_capacity(REPORT_BYTES_MAX);
        let mut state = lock(&self.0.state);
        if !matches!(*state, State::Idle | State::Stale { .. }) {
            return Err(NoReport::Taken);
        }
        // Nothing is freed with the lock in hand: the watchdog takes it, and must not wait for the allocator.
        let stale = std::mem::replace(&mut *state, State::Asked(memory));
        self.0.wake.wake();
        let deadline = Instant::now() + bound;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let waiting = self.0.answered.wait_timeout(state, left.min(LOOK));
            (state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::Answered(_)) || left.is_zero() || over() {
                break;
            }
        }
        let outcome = match *state {
            State::Making { .. } => std::mem::replace(&mut *state, State::Making { wanted: false }),
            _ => std::mem::take(&mut *state),
        };
        drop(state);
        drop(stale);
        match outcome {
            State::Answered(report) => Ok(report),
            _ => Err(NoReport::Late),
        }
    }

    /// Watchdog: makes the report if one is wanted. Waits for nobody, takes and gives back no memory outside of `make`.
    pub(super) fn answer(&self, make: impl FnOnce() -> String) {
        if self.0.wake.quieten() == Found::Quiet {
            return;
        }
        let Some(mut state) = try_lock(&self.0.state) else {
            // Somebody has it for moments; the next turn comes back to this.
            return self.0.wake.wake();
        };
        let mut memory = match std::mem::replace(&mut *state, State::Making { wanted: true }) {
            State::Asked(memory) => memory,
            // The asker has given up.
            other => {
                *state = other;
                return;
            }
        };
        drop(state);
        let report = make();
        let (fits, _) = cut_at_line(&report, memory.capacity());
        memory.extend_from_slice(fits.as_bytes());
        // The thread that holds it does so for moments, and takes no memory meanwhile.
        let mut state = lock(&self.0.state);
        *state = match *state {
            State::Making { wanted: true } => State::Answered(memory),
            _ => State::Stale { _memory: memory },
        };
        drop(state);
        self.0.answered.notify_all();
    }
}

impl AsFd for Demand {
    /// Becomes readable when somebody asks.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::threads;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn who_asks_gets_an_answer() {
        let demand = Demand::new().unwrap();
        let asking = demand.clone();
        let asker = threads::spawn("asks", 256 * 1024, None, move || asking.ask(LONG, || false)).unwrap();
        while !asker.is_finished() {
            demand.answer(|| "all is well\n".to_owned());
        }
        let answer = asker.join_within(LONG).unwrap();
        assert_eq!(answer.unwrap(), b"all is well\n");
    }

    #[test]
    fn without_a_watchdog_the_wait_ends_and_the_next_may_ask() {
        let demand = Demand::new().unwrap();
        for _ in 0..2 {
            assert_eq!(demand.ask(Duration::from_millis(1), || false), Err(NoReport::Late));
        }
    }

    #[test]
    fn while_one_waits_another_is_told_and_takes_nothing_from_it() {
        let demand = Demand::new().unwrap();
        let asking = demand.clone();
        let first = threads::spawn("asks", 256 * 1024, None, move || asking.ask(LONG, || false)).unwrap();
        while matches!(*lock(&demand.0.state), State::Idle) {}
        assert_eq!(demand.ask(LONG, || false), Err(NoReport::Taken));
        demand.answer(|| "for the first\n".to_owned());
        assert_eq!(first.join_within(LONG).unwrap().unwrap(), b"for the first\n");
    }

    #[test]
    fn who_gives_up_while_the_report_is_made_leaves_the_way_free() {
        let demand = Demand::new().unwrap();
        let (asking, over) = (demand.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let seen = Arc::clone(&over);
        let give_up = move || seen.load(std::sync::atomic::Ordering::Relaxed);
        let first = threads::spawn("asks", 256 * 1024, None, move || asking.ask(LONG, give_up)).unwrap();
        while matches!(*lock(&demand.0.state), State::Idle) {}
        demand.answer(|| {
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(first.join_within(LONG).unwrap(), Err(NoReport::Late));
            "for nobody\n".to_owned()
        });
        assert_eq!(demand.ask(Duration::from_millis(1), || false), Err(NoReport::Late));
    }
}
