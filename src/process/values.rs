//! Values as people write them, in flags, in the file of settings and on a command's line: numbers, times, sizes,
//! paths.
//!
//! A function that cannot read a value says what would be right, as a text that ends a sentence.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// A KiB, in bytes.
pub const KIB: usize = 1024;
/// A MiB, in bytes.
pub const MIB: usize = 1024 * 1024;
/// A GiB, in bytes.
pub const GIB: usize = 1024 * MIB;
/// An hour.
pub const HOUR: Duration = Duration::from_secs(3600);
/// A day of 24 hours.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// A leap year, so that a bound of one year takes every year.
pub const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// sun_path holds 108 bytes with its final zero (unix(7)); `.lock` is put behind the same path.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Reads a text.
///
/// # Errors
/// The text is empty; the error says so to the person who gave it.
pub fn not_empty(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it must not be empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// The path of the event socket's file.
///
/// # Errors
/// As [`file_path`], or the path is longer than 107 bytes; the text says so to the person who gave it.
pub fn socket_path(path: &OsStr) -> Result<PathBuf, String> {
    let bytes = path.as_bytes();
    if bytes.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "a socket path has at most {SOCKET_PATH_BYTES_MAX} bytes, this one has {}",
            bytes.len()
        ));
    }
    file_path(path)
}

/// The path of a socket's file.
///
/// # Errors
/// It is empty, or means something else to other programs; the text says what would be right.
pub fn file_path(path: &OsStr) -> Result<PathBuf, String> {
    let bytes = path.as_bytes();
    if bytes.is_empty() {
        return Err("it must not be empty".to_owned());
    }
    // Other programs (ss, socat, systemd) write so what unix(7) calls an abstract socket. One of these has no
    // permissions, so any user could connect, and no file to lock or to watch.
    if bytes.starts_with(b"@") {
        return Err(format!(
            "a name that begins with @ stands for an abstract socket, which has neither permissions nor a file, and is \
             not supported; write the path of a file, and ./{} for a file of that name",
            path.display()
        ));
    }
    Ok(path.into())
}

/// Reads a whole number.
///
/// # Errors
/// It is none, or out of bounds; the text says what would be right.
pub fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(value) if is_digits && (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("write a whole number from {least} to {most}")),
    }
}

/// Reads the permissions of a file, in octal digits.
///
/// # Errors
/// The text is no octal number, or one above 0777; the error says what would be right.
pub fn octal_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("write an octal mode such as 0660".to_owned()),
    }
}

/// Reads `true` or `false`.
///
/// # Errors
/// The text is neither of the two; the error names both.
pub fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "write true or false".to_owned())
}

/// Reads a time such as `500ms`, `10s` or `2m`.
///
/// # Errors
/// It is none, or out of bounds; the text says what would be right.
pub fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let units = [
        ("ms", 0.001),
        ("us", 0.000_001),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("d", 86_400.0),
    ];
    let value = units.iter().find_map(|(unit, seconds)| {
        let count: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        let value = Duration::try_from_secs_f64(count * seconds).ok()?;
        // Whole microseconds, as it is shown.
        Some(Duration::from_micros(u64::try_from(value.as_micros()).ok()?))
    });
    match value {
        Some(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!(
            "write a time such as 500ms, 10s or 2m, from {} to {}",
            show_duration(least),
            show_duration(most)
        )),
    }
}

/// Reads a size such as `256KiB` or `1MiB`, in bytes.
///
/// # Errors
/// It is none, or out of bounds; the text says what would be right.
pub fn size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let units = [("KiB", 1024), ("MiB", MIB), ("GiB", GIB), ("B", 1), ("", 1)];
    let value = units.iter().find_map(|(unit, bytes)| {
        let count: usize = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        count.checked_mul(*bytes)
    });
    match value {
        Some(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!(
            "write a size such as 256KiB or 1MiB, from {} to {}",
            show_size(least),
            show_size(most)
        )),
    }
}

/// Shows the time as it could be given again.
pub fn show_duration(value: Duration) -> String {
    let micros = value.as_micros();
    match micros {
        0 => "0s".to_owned(),
        micros if micros.is_multiple_of(3_600_000_000) => format!("{}h", micros / 3_600_000_000),
        micros if micros.is_multiple_of(60_000_000) => format!("{}m", micros / 60_000_000),
        micros if micros.is_multiple_of(1_000_000) => format!("{}s", micros / 1_000_000),
        micros if micros.is_multiple_of(1000) => format!("{}ms", micros / 1000),
        micros => format!("{micros}us"),
    }
}

/// The size as it could be given again.
pub fn show_size(value: usize) -> String {
    match value {
        value if value >= GIB && value.is_multiple_of(GIB) => format!("{}GiB", value / GIB),
        value if value >= MIB && value.is_multiple_of(MIB) => format!("{}MiB", value / MIB),
        value if value >= 1024 && value.is_multiple_of(1024) => format!("{}KiB", value / 1024),
        value => format!("{value}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_and_shown() {
        let any = |text| duration(text, Duration::ZERO, YEAR).map(show_duration);
        assert_eq!(any("0.5s").unwrap(), "500ms");
        assert_eq!(any("120s").unwrap(), "2m");
        assert_eq!(any("250us").unwrap(), "250us");
        assert_eq!(
            duration("0.0000015s", Duration::ZERO, YEAR),
            Ok(Duration::from_micros(1))
        );
        assert_eq!(size("1536KiB", 0, GIB).map(show_size).unwrap(), "1536KiB");
        assert_eq!(size("65536", 0, GIB).map(show_size).unwrap(), "64KiB");
    }
}
