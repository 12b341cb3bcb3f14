//! What is usual of a state: the figures of its dwells, and from when on a dwell is not usual any more.

use std::time::Duration;

/// With fewer dwells nobody knows what is usual.
pub const STUCK_DWELLS_MIN: u32 = 100;
/// With fewer dwells a state is never called slow.
pub const SLOW_DWELLS_MIN: u32 = 30;
/// Shorter than this is never stuck: nobody could do anything about it sooner.
pub const STUCK_LEAST: Duration = Duration::from_secs(30);
/// Times the median.
const STUCK_MEDIANS: u32 = 5;
/// Times the second largest dwell. The largest may be a hang that was learned; two of them are no accident.
pub const STUCK_SECOND_LARGEST: u32 = 3;
/// A state whose 99th percentile is more than this many medians has no usual time.
const SPREAD_MAX: f64 = 30.0;
/// If more than this part of the dwells is void, the others are no measure.
const VOIDED_PART: u32 = 10;
/// Times the 95th percentile.
const SLOW_P95: u32 = 3;

/// The figures of the dwells in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usual {
    /// Dwells that count. Older ones count less.
    pub n: u32,
    /// Dwells of which nobody knows how long they took, because something was lost meanwhile.
    pub voided: u32,
    pub median: Duration,
    pub p95: Duration,
    pub p99: Duration,
    pub largest: Duration,
    pub second_largest: Duration,
}

impl Usual {
    /// From when on a dwell is stuck. `None`: there are too few dwells, their spread is too wide, or too many of them
    /// do not count.
    pub fn stuck_after(&self) -> Option<Duration> {
        let limit = STUCK_LEAST
            .max(self.median.saturating_mul(STUCK_MEDIANS))
            .max(self.second_largest.saturating_mul(STUCK_SECOND_LARGEST));
        (self.n >= STUCK_DWELLS_MIN && !self.is_too_wide() && !self.is_biased()).then_some(limit)
    }

    /// From when on a dwell is slow, which is shown and never alerted. `None`: there are too few dwells.
    pub fn slow_after(&self) -> Option<Duration> {
        (self.n >= SLOW_DWELLS_MIN).then(|| self.p95.saturating_mul(SLOW_P95))
    }

    /// Returns whether the dwells that count tell nothing, because too many others are void: those are the long ones,
    /// in which a loss is likelier.
    pub fn is_biased(&self) -> bool {
        self.voided > self.n / VOIDED_PART
    }

    /// Returns whether the dwells are too different from each other to call one of them usual.
    pub fn is_too_wide(&self) -> bool {
        self.p99.as_secs_f64() > SPREAD_MAX * self.median.as_secs_f64()
    }
}
