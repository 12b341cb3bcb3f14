//! A machine's stay in its state.

use std::time::Instant;

/// What is wrong with a machine that stays too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is alive.
    Stuck,
    /// There is no sign of life.
    Silent,
}

impl Verdict {
    /// Its name in `/api/machines`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Stuck => "stuck",
            Verdict::Silent => "silent",
        }
    }
}

/// A stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dwell {
    /// When it began; or when the machine was first seen in this state, if nobody knows that.
    pub(super) since: Instant,
    /// Numbers the dwells of all machines since the start of the server.
    pub(super) number: u64,
    /// How much had been lost when it began: it teaches only if nothing was since. `None`: it does not teach.
    pub(super) losses: Option<u64>,
    /// What was found, if anything.
    pub(super) verdict: Option<Verdict>,
}

impl Dwell {
    /// One of which nobody knows when it began.
    pub(super) fn seen(since: Instant) -> Dwell {
        Dwell {
            since,
            number: 0,
            losses: None,
            verdict: None,
        }
    }
}

/// What the dwells of all machines have in common.
#[derive(Debug, Default)]
pub(super) struct Dwells {
    /// The last number.
    numbered: u64,
    /// How often it happened that something may be missing.
    pub(super) losses: u64,
}

impl Dwells {
    /// Something may be missing: no dwell that lasts now teaches anything.
    pub(super) fn note_loss(&mut self) {
        self.losses += 1;
    }

    /// The next dwell, of which nobody knows when it began.
    pub(super) fn begin_unknown(&mut self, since: Instant) -> Dwell {
        self.numbered += 1;
        Dwell {
            number: self.numbered,
            ..Dwell::seen(since)
        }
    }
}
