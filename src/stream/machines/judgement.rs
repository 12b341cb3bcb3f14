//! How long a machine may stay in its state before it is stuck: as declared, else as learned.

use crate::stream::declared::{self, Declared};
use crate::stream::learned::usual::{STUCK_LEAST, STUCK_SECOND_LARGEST, Usual};
use std::time::Duration;

/// The state in which a machine of the original engine has nothing to do: the engine itself knows it by this name,
/// looks for events more seldom there, and does not tell of looking in vain. Those who send jobs decide how long that
/// lasts, so yesterday's stays say nothing of tonight's.
const WAITING: &str = "waiting";

/// A limit, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub after: Duration,
    pub source: Source,
}

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A person declared it.
    Declared,
    /// It is the shortest that there is.
    Least,
    /// It is a multiple of the median.
    Median,
    /// It is a multiple of the second largest dwell.
    SecondLargest,
}

impl Source {
    /// Why that is the limit, for people.
    pub fn text(self) -> &'static str {
        match self {
            Source::Declared => "a declared limit",
            Source::Least => "the shortest limit, more than 5 times the median and 3 times the second largest",
            Source::Median => "5 times the median",
            Source::SecondLargest => "3 times the second largest",
        }
    }
}

/// The limit of a machine of that type in that state, of which `usual` is known. `None`: it is never stuck there; so it
/// is in `waiting`, unless a limit is declared.
pub fn limit(declared: &Declared, config_type: Option<&str>, state: &str, usual: Option<&Usual>) -> Option<Limit> {
    match declared.limit(config_type, state) {
        Some(declared::Limit::Never) => return None,
        Some(declared::Limit::After(after)) => {
            return Some(Limit {
                after,
                source: Source::Declared,
            });
        }
        None if state == WAITING => return None,
        None => {}
    }
    let usual = usual?;
    let after = usual.stuck_after()?;
    let source = if after == STUCK_LEAST {
        Source::Least
    } else if after == usual.second_largest.saturating_mul(STUCK_SECOND_LARGEST) {
        Source::SecondLargest
    } else {
        Source::Median
    };
    Some(Limit { after, source })
}

/// From when on a machine of that type is slow in that state. `None`: it never is, because it is never stuck there
/// either, or because too few dwells are known.
pub fn slow_after(
    declared: &Declared,
    config_type: Option<&str>,
    state: &str,
    usual: Option<&Usual>,
) -> Option<Duration> {
    match declared.limit(config_type, state) {
        Some(declared::Limit::Never) => None,
        None if state == WAITING => None,
        _ => usual.and_then(Usual::slow_after),
    }
}
