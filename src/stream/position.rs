//! Where a client is in the stream: the epoch of the numbering, and the number of the last event that it has.

use crate::process::clock::epoch_seconds;
use crate::stream::event::Seq;
use std::fmt;
use std::str::FromStr;

/// One unbroken numbering of events. Numbers of different epochs cannot be compared. The journal keeps it over
/// restarts; without a journal every start has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// One that no other server has had: the time in microseconds, and 12 random bits for starts at the same moment.
    pub fn new() -> Epoch {
        let micros = (epoch_seconds() * 1e6) as u64;
        Epoch(micros << 12 | fastrand::u64(..1 << 12))
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Epoch, PositionError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Epoch).ok_or(PositionError)
    }
}

/// `EPOCH:N`: everything up to event N of that epoch has been seen; N = 0 for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub epoch: Epoch,
    pub seq: Seq,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// A text that is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionError;

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position is EPOCH:N, 16 hexadecimal digits, a colon and a number")
    }
}

impl std::error::Error for PositionError {}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let (epoch, seq) = text.split_once(':').ok_or(PositionError)?;
        let digits = !seq.is_empty() && seq.bytes().all(|byte| byte.is_ascii_digit());
        let seq = seq.parse().ok().filter(|_| digits).ok_or(PositionError)?;
        Ok(Position {
            epoch: epoch.parse()?,
            seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_as_it_was_written() {
        let position = Position {
            epoch: Epoch::new(),
            seq: 17,
        };
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "17",
            ":17",
            "0123456789abcdef:",
            "0123456789abcdef:+1",
            "0123456789abcdef:-1",
            "0123456789abcdef:1x",
            "0123456789abcdef:99999999999999999999",
            "+123456789abcdef:1",
            "123456789abcdef:1",
            "0123456789abcdefg:1",
        ] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }
}
