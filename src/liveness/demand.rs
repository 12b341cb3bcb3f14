//! A report that somebody asks for: where every thread is right now, made by the watchdog on its own thread.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longest such report; what is longer is cut at a line.
const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The way to ask, and the watchdog's way to answer.
#[derive(Clone, Debug)]
pub struct Demand(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    answered: Condvar,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// With the memory for the answer, taken by whoever asks: the watchdog takes none.
    Asked(Vec<u8>),
    /// The watchdog has it in hand.
    Making,
    /// Also when nobody waits for it any more.
    Answered(Vec<u8>),
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
    /// Out of descriptors.
    pub fn new() -> io::Result<Demand> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Demand(Arc::new(Inner {
            state: Mutex::default(),
            answered: Condvar::new(),
            wake,
        })))
    }

    /// Asks, and blocks until the report is there, at most `bound`.
    ///
    /// # Errors
    /// See [`NoReport`].
    pub fn ask(&self, bound: Duration) -> Result<Vec<u8>, NoReport> {
        let inner = &*self.0;
        let memory = Vec::with_capacity(REPORT_BYTES_MAX);
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Asked(_) | State::Making) {
            return Err(NoReport::Taken);
        }
        // Nothing is freed with the lock in hand: the watchdog takes it, and must not wait for the allocator.
        let stale = std::mem::replace(&mut *state, State::Asked(memory));
        // A full counter means that a wake-up is under way already.
        let _ = rustix::io::write(&inner.wake, &1u64.to_ne_bytes());
        let (mut state, _) = inner
            .answered
            .wait_timeout_while(state, bound, |state| !matches!(state, State::Answered(_)))
            .unwrap_or_else(PoisonError::into_inner);
        let outcome = match *state {
            // It will leave the report here, for nobody.
            State::Making => State::Idle,
            _ => std::mem::take(&mut *state),
        };
        drop(state);
        drop(stale);
        match outcome {
            State::Answered(report) => Ok(report),
            _ => Err(NoReport::Late),
        }
    }

    /// Watchdog: makes the report if one is wanted. Waits for nobody but, for moments, for who asks; takes and gives back no
    /// memory outside of `make`.
    pub(super) fn answer(&self, make: impl FnOnce() -> String) {
        let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = match std::mem::replace(&mut *state, State::Making) {
            State::Asked(memory) => Some(memory),
            other => {
                *state = other;
                None
            }
        };
        drop(state);
        let Some(mut memory) = memory else { return };
        let report = make();
        let (fits, _) = super::report::cut_at_line(&report, memory.capacity());
        memory.extend_from_slice(fits.as_bytes());
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::Answered(memory);
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
        let asker = threads::spawn("asks", 256 * 1024, None, move || asking.ask(LONG)).unwrap();
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
            assert_eq!(demand.ask(Duration::from_millis(1)), Err(NoReport::Late));
        }
    }
}
