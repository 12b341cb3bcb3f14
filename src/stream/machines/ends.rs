//! When machines ended: a row of the engine's database that is older must not bring one back.

use serde_json::Value;
use std::collections::BTreeMap;

/// Ends that are remembered, so that an older row does not bring the machine back; the oldest goes.
const ENDS_MAX: usize = 4096;

/// When machines ended, in seconds since the epoch, and whether the engine's database still has a row of each.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<Box<str>, (f64, bool)>);

impl Ends {
    /// `machine` ended at `time`.
    pub(super) fn note(&mut self, machine: &str, time: f64, has_row: bool) {
        if self.0.len() >= ENDS_MAX && !self.0.contains_key(machine) {
            let oldest = self.0.iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0));
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| self.0.remove(&name));
        }
        self.0.insert(machine.into(), (time, has_row));
    }

    /// Returns whether `machine` ended at `time` or after it.
    pub(super) fn is_over(&self, machine: &str, time: f64) -> bool {
        self.0.get(machine).is_some_and(|(ended, _)| *ended >= time)
    }

    /// Notes whether `machine` has a row. Returns whether that is new.
    pub(super) fn set_row(&mut self, machine: &str, has_row: bool) -> bool {
        let end = self.0.get_mut(machine);
        end.is_some_and(|(_, had_row)| std::mem::replace(had_row, has_row) != has_row)
    }

    /// Those that a row would bring back after a restart.
    pub(super) fn with_rows(&self) -> serde_json::Map<String, Value> {
        let ends = self.0.iter().filter(|(_, (_, has_row))| *has_row);
        ends.map(|(machine, (time, _))| (machine.to_string(), Value::from(*time)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_that_are_remembered_are_bounded() {
        let mut ends = Ends::default();
        for n in 0..=ENDS_MAX {
            ends.note(&n.to_string(), n as f64, false);
        }
        assert_eq!(ends.0.len(), ENDS_MAX);
        assert!(!ends.is_over("0", 0.0));
        assert!(ends.is_over("4096", 4096.0));
    }
}
