//! The two clocks, and the only pause in the program.

use rustix::time::ClockId;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::{Date, Month, OffsetDateTime};

/// Wall-clock seconds since the Unix epoch, as messages carry them; 0.0 when the clock stands before 1970.
pub fn epoch_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Microseconds of the monotonic clock since its first use in this process; steps of the wall clock do not move it.
pub fn monotonic_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    // 584,000 years fit.
    elapsed.as_micros() as u64
}

/// As [`monotonic_us`], in milliseconds.
pub fn monotonic_ms() -> u64 {
    monotonic_us() / 1000
}

/// How long this host has been suspended since it was started (clock_gettime(2): CLOCK_BOOTTIME goes on meanwhile, and
/// CLOCK_MONOTONIC does not).
pub fn suspended() -> Duration {
    let read = |clock| {
        let time = rustix::time::clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let monotonic = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(monotonic)
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

/// A time in seconds since the epoch as RFC 3339 writes it, in UTC with milliseconds; the epoch itself where that
/// calendar has no such day.
pub fn rfc3339(epoch: f64) -> String {
    // Rounded, so that a time which was read back from its digits keeps them.
    let nanos = i128::from((epoch * 1000.0).round() as i64) * 1_000_000;
    rfc3339_of(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// As [`rfc3339`], of a calendar's time in UTC.
pub fn rfc3339_of(at: OffsetDateTime) -> String {
    let mut text = String::with_capacity(24);
    push_time(&mut text, at);
    text.push('Z');
    text
}

/// Puts date and time behind `out` as RFC 3339 writes them, with milliseconds, without the zone that `at` is in: 23
/// bytes. Takes no memory where `out` has room for them.
pub fn push_time(out: &mut String, at: OffsetDateTime) {
    let (date, time) = (at.date(), at.time());
    // A string takes all that is written to it.
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond(),
    );
}

/// The seconds since the epoch of a time as [`rfc3339`] writes it, with any number of digits behind the second, or
/// none; `None` when it is none, or of another zone than UTC.
pub fn parse_rfc3339(text: &str) -> Option<f64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let numbers = |text: &str, separator| -> Option<[u16; 3]> {
        let parts: Option<Vec<u16>> = text.split(separator).map(digits).collect();
        parts?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    digits::<u64>(fraction)?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let day = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    let byte = |number: u16| u8::try_from(number).ok();
    let at = day
        .with_hms(byte(hour)?, byte(minute)?, byte(second)?)
        .ok()?
        .assume_utc();
    // Read together, so that the nearest double is the one that was written.
    format!("{}.{fraction}", at.unix_timestamp()).parse().ok()
}

fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    let are_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok()).flatten()
}

/// `timeout` as system calls take it, rounded up to a whole millisecond so that a poll never returns just before a
/// deadline.
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
    fn a_time_is_written_as_rfc_3339() {
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_393_480.585), "2026-11-23T00:24:40.585Z");
        assert_eq!(rfc3339(1e300), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_time_in_rfc_3339_is_read() {
        for time in [0.0, 1_795_393_480.585, 1_795_393_480.0] {
            assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time));
        }
        assert_eq!(
            parse_rfc3339("2026-11-23T00:24:40.585657Z"),
            Some(1_795_393_480.585_657)
        );
        for text in [
            "2026-11-23",
            "2026-11-31T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T00:00:00.Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn timeouts_round_up() {
        let spec = timespec(Duration::from_micros(1_500_001));
        assert_eq!((spec.tv_sec, spec.tv_nsec), (1, 501_000_000));
    }
}
