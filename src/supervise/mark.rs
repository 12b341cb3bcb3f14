//! The mark in the environment of every process of a service: `THREADCAST_RUN=<id of the run>/<service>/<n>`.
//!
//! Processes inherit it from each other over forks, sessions and lost parents. One that clears or overwrites its
//! environment has none; the census finds it by its descent.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

/// The name of the variable.
pub const VARIABLE: &str = "THREADCAST_RUN";
/// Longest name of a service.
pub const SERVICE_BYTES_MAX: usize = 64;
/// Digits of a run's id.
const ID_DIGITS: usize = 32;

/// The id of a run folder: 128 random bits, which no two folders share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub [u8; 16]);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What stands in a text is no id or no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMark;

impl FromStr for RunId {
    type Err = NoMark;

    /// Reads 32 hexadecimal digits in lower case, as [`fmt::Display`] writes them.
    fn from_str(text: &str) -> Result<RunId, NoMark> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != ID_DIGITS || !text.bytes().all(is_digit) {
            return Err(NoMark);
        }
        let bits = u128::from_str_radix(text, 16).map_err(|_| NoMark)?;
        Ok(RunId(bits.to_be_bytes()))
    }
}

/// Which service of which run a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub run: RunId,
    /// Name of the service: letters, digits, `_`, `-` and `.`, at most [`SERVICE_BYTES_MAX`] bytes.
    pub service: String,
    /// Number of the start of that service, counted over the life of the run folder.
    pub n: u64,
}

impl Mark {
    /// Returns the value of the variable.
    pub fn value(&self) -> String {
        let mut value = String::new();
        // A string takes all that is written to it.
        let _ = write!(value, "{}/{}/{}", self.run, self.service, self.n);
        value
    }

    /// Finds the mark in an environment as /proc/PID/environ has it: `NAME=value` with a NUL behind each. The first
    /// variable of that name counts, as for getenv(3).
    pub fn find(environment: &[u8]) -> Option<Mark> {
        let value = environment.split(|byte| *byte == 0).find_map(|entry| {
            let value = entry.strip_prefix(VARIABLE.as_bytes())?;
            value.strip_prefix(b"=")
        })?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }
}

/// Returns whether `name` can be a service's: a safe name of a file that needs no quoting anywhere.
pub fn is_service_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty() && name.len() <= SERVICE_BYTES_MAX && !name.starts_with('.') && name.bytes().all(is_plain)
}

impl FromStr for Mark {
    type Err = NoMark;

    /// Reads exactly what [`Mark::value`] writes.
    fn from_str(text: &str) -> Result<Mark, NoMark> {
        let (run, rest) = text.split_once('/').ok_or(NoMark)?;
        let (service, n) = rest.split_once('/').ok_or(NoMark)?;
        let mark = Mark {
            run: run.parse()?,
            service: service.to_owned(),
            n: n.parse().map_err(|_| NoMark)?,
        };
        // A number has several spellings, `+1` and `01` among them; a mark has one.
        (is_service_name(service) && mark.value() == text)
            .then_some(mark)
            .ok_or(NoMark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_mark_is_read_in_one_spelling_only() {
        let text = format!("{ID}/worker-1.a_B/12");
        let mark: Mark = text.parse().unwrap();
        assert_eq!((mark.service.as_str(), mark.n), ("worker-1.a_B", 12));
        assert_eq!(mark.value(), text);
        let long = "x".repeat(SERVICE_BYTES_MAX + 1);
        for wrong in [
            String::new(),
            ID.to_owned(),
            format!("{ID}/a"),
            format!("{ID}/a/"),
            format!("{ID}/a/+1"),
            format!("{ID}/a/01"),
            format!("{ID}/a/1/2"),
            format!("{ID}/a/1 "),
            format!("{ID}//1"),
            format!("{ID}/a b/1"),
            format!("{ID}/../1"),
            format!("{ID}/{long}/1"),
            format!("{ID}/a/99999999999999999999"),
            format!("{}/a/1", ID.to_uppercase()),
            format!("+{}/a/1", &ID[1..]),
            format!("{}/a/1", &ID[1..]),
        ] {
            assert_eq!(wrong.parse::<Mark>(), Err(NoMark), "{wrong}");
        }
    }

    #[test]
    fn only_the_exact_variable_counts() {
        let mark = format!("{ID}/a/1");
        let in_environment = |text: String| Mark::find(text.replace(' ', "\0").as_bytes()).map(|mark| mark.n);
        assert_eq!(in_environment(format!("A=1 {VARIABLE}={mark} B=2 ")), Some(1));
        assert_eq!(in_environment(format!("{VARIABLE}={mark}")), Some(1));
        assert_eq!(in_environment(format!("X{VARIABLE}={mark} ")), None);
        assert_eq!(in_environment(format!("A={VARIABLE}={mark} ")), None);
        assert_eq!(in_environment(format!("{VARIABLE}S={mark} ")), None);
        assert_eq!(in_environment(format!("{VARIABLE}= {VARIABLE}={mark} ")), None);
        assert_eq!(Mark::find(b""), None);
        assert_eq!(Mark::find(format!("{VARIABLE}={mark}\u{ff}\0").as_bytes()), None);
    }
}
