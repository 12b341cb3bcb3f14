//! The two clocks, and the only pause in the program.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock seconds since the Unix epoch, as messages carry them; 0.0 when the clock stands before 1970.
pub fn epoch_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Milliseconds of the monotonic clock since its first use in this process; steps of the wall clock do not move it.
pub fn monotonic_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    // 584 million years fit.
    elapsed.as_millis() as u64
}

/// Blocks for `duration`, which every caller states as a named bound. No other code sleeps.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// A JSON number for a time in seconds, in the shortest form that reads back the same, always with a fraction.
pub fn json_seconds(seconds: f64) -> String {
    format!("{seconds:?}")
}

/// `timeout` as system calls take it, rounded up to a whole millisecond so that a poll never returns just before a deadline.
pub fn timespec(timeout: Duration) -> rustix::event::Timespec {
    let millis = timeout.as_nanos().div_ceil(1_000_000) as i64;
    rustix::event::Timespec {
        tv_sec: millis / 1000,
        tv_nsec: (millis % 1000) * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_keep_their_fraction() {
        assert_eq!(json_seconds(1_795_393_480.0), "1795393480.0");
        assert_eq!(json_seconds(1_795_393_480.585_657_1), "1795393480.5856571");
    }

    #[test]
    fn timeouts_round_up() {
        let spec = timespec(Duration::from_micros(1_500_001));
        assert_eq!((spec.tv_sec, spec.tv_nsec), (1, 501_000_000));
    }
}
