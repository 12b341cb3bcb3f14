//! Is the host starved of processors? Then every worker is slow, and none of them is at fault.

use std::fs;
use std::time::{Duration, Instant};

/// Where the kernel tells it (Documentation/accounting/psi.rst).
const PATH: &str = "/proc/pressure/cpu";
/// It counts as starved no more when the pressure was not over the limit for this long.
const OVER_AFTER: Duration = Duration::from_secs(10);
/// The pressure that no host has more of: the limit is none.
const NO_LIMIT: usize = 100;

/// What a look has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// From now on the host is starved.
    Starved,
    /// It is no more.
    Recovered,
}

/// Follows the pressure.
#[derive(Debug)]
pub struct Pressure {
    limit: usize,
    /// The host counts as starved when the pressure was over the limit for this long.
    wait: Duration,
    starved: bool,
    /// Since when the pressure contradicts that.
    contradicted: Option<Instant>,
}

impl Pressure {
    /// With a limit in percent, of which 100 is none, and the time for which the pressure must be over it.
    pub fn new(limit: usize, wait: Duration) -> Pressure {
        Pressure {
            limit,
            wait,
            starved: false,
            contradicted: None,
        }
    }

    /// Returns whether the host is starved.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Returns whether there is a limit.
    pub fn has_limit(&self) -> bool {
        self.limit < NO_LIMIT
    }

    /// Takes in a pressure in percent, as of `now`. A host that tells none has none.
    pub fn take(&mut self, percent: f64, now: Instant) -> Change {
        let is_over = self.has_limit() && percent > self.limit as f64;
        if is_over == self.starved {
            self.contradicted = None;
            return Change::None;
        }
        let since = *self.contradicted.get_or_insert(now);
        let bound = if is_over { self.wait } else { OVER_AFTER };
        if now.saturating_duration_since(since) < bound {
            return Change::None;
        }
        self.starved = is_over;
        self.contradicted = None;
        if is_over { Change::Starved } else { Change::Recovered }
    }
}

/// The share of the last 10 s in which some task waited for a processor, in percent; `None` where the kernel does not
/// tell. Blocks on /proc.
pub fn of_cpu() -> Option<f64> {
    some_avg10(&fs::read_to_string(PATH).ok()?)
}

/// The share of the last 10 s in which some task waited for a processor, in percent.
fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let mut fields = some.split_ascii_whitespace();
    fields.find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let text =
            "some avg10=83.21 avg60=40.00 avg300=9.99 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(83.21));
        for text in ["", "full avg10=1.00", "some avg60=1.00", "some avg10=x"] {
            assert_eq!(some_avg10(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_is_starved_after_a_minute_over_the_limit_and_recovers_after_ten_seconds() {
        let (mut pressure, begun) = (Pressure::new(80, Duration::from_secs(60)), Instant::now());
        let mut take = |second, percent| pressure.take(percent, begun + Duration::from_secs(second));
        assert_eq!(take(0, 90.0), Change::None);
        assert_eq!(take(30, 70.0), Change::None);
        assert_eq!(take(31, 90.0), Change::None);
        assert_eq!(take(90, 90.0), Change::None, "59 s");
        assert_eq!(take(91, 90.0), Change::Starved);
        assert_eq!(take(92, 80.0), Change::None);
        assert_eq!(take(101, 90.0), Change::None);
        assert_eq!(take(102, 10.0), Change::None);
        assert_eq!(take(112, 10.0), Change::Recovered);
    }

    #[test]
    fn without_a_limit_no_host_is_starved() {
        let (mut pressure, now) = (Pressure::new(100, Duration::ZERO), Instant::now());
        assert_eq!(pressure.take(100.0, now), Change::None);
        assert_eq!(pressure.take(100.0, now + Duration::from_secs(100)), Change::None);
        assert!(!pressure.is_starved());
    }
}
