//! Which machine sends too much: counts per name and second, warned about by name, once a minute.
//!
//! Owned by thread `fanout`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// More events than this in one second are worth a word: no person can follow them, and most are a loop gone wild.
const EVENTS_PER_SECOND: u32 = 100;
/// The time over which events are counted.
const SECOND: Duration = Duration::from_secs(1);
/// How often the same machine is warned about.
const REMIND: Duration = Duration::from_secs(60);
/// Names counted per second; with more of them, each sends little.
const NAMES_MAX: usize = 4096;
/// A longer name is not counted: with it the names counted take 4 MiB at most, where events may be of 256 KiB each.
const NAME_BYTES_MAX: usize = 1024;

/// Counts of the current second.
#[derive(Debug)]
pub struct Rates {
    second: Instant,
    counts: HashMap<Box<str>, u32>,
    warned: HashMap<Box<str>, Instant>,
}

impl Rates {
    /// Begins to count at `now`.
    pub fn new(now: Instant) -> Rates {
        Rates {
            second: now,
            counts: HashMap::new(),
            warned: HashMap::new(),
        }
    }

    /// Counts an event of `machine`. Returns the machine's count when it is to be warned about now.
    pub fn count(&mut self, machine: &str, now: Instant) -> Option<u32> {
        if now.saturating_duration_since(self.second) >= SECOND {
            self.second = now;
            self.counts.clear();
            self.warned.retain(|_, at| now.saturating_duration_since(*at) < REMIND);
        }
        if machine.len() > NAME_BYTES_MAX {
            return None;
        }
        if !self.counts.contains_key(machine) {
            if self.counts.len() >= NAMES_MAX {
                return None;
            }
            self.counts.insert(machine.into(), 0);
        }
        let count = self.counts.get_mut(machine)?;
        *count += 1;
        if *count != EVENTS_PER_SECOND + 1 || self.warned.contains_key(machine) {
            return None;
        }
        let count = *count;
        self.warned.insert(machine.into(), now);
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(rates: &mut Rates, machine: &str, events: u32, at: Instant) -> usize {
        (0..events).filter(|_| rates.count(machine, at).is_some()).count()
    }

    #[test]
    fn over_a_hundred_in_a_second_are_warned_about_once_a_minute() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        assert_eq!(warnings(&mut rates, "calm", 100, start), 0);
        assert_eq!(warnings(&mut rates, "wild", 500, start), 1);
        assert_eq!(warnings(&mut rates, "wild", 500, start + 2 * SECOND), 0);
        assert_eq!(warnings(&mut rates, "other", 101, start + 2 * SECOND), 1);
        assert_eq!(warnings(&mut rates, "wild", 500, start + 62 * SECOND), 1);
    }

    #[test]
    fn a_million_names_do_not_fill_the_memory() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        for number in 0..100_000 {
            rates.count(&number.to_string(), start);
        }
        assert_eq!(rates.counts.len(), NAMES_MAX);
    }
}
