//! A setting whose values are rules: a text each, or, in the settings file, a table each (`[[stuck]]`).

use crate::config::Config;
use crate::config::file::{Entry, Place, Value};
use crate::process::nearest::nearest;
use crate::stream::declared::{Declared, Part, rule_text};

/// Makes the text of the rule that a table stands for, of the values of its keys in their order. An error is the index
/// of the key that is wrong, and what would be right.
type Join = fn(&[Option<&str>]) -> Result<String, (usize, String)>;

/// A list of rules.
#[derive(Debug)]
pub struct Rules {
    /// What stands for a rule in the help.
    pub(super) value: &'static str,
    /// What it takes, as a text for the reference.
    pub(super) takes: &'static str,
    /// Adds a rule.
    pub(super) add: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) clear: fn(&mut Config),
    /// The rules, each as `add` takes it.
    pub(super) texts: fn(&Config) -> Vec<String>,
    /// The keys that a table has in place of a rule's text.
    keys: &'static [&'static str],
    join: Join,
}

pub(super) const STUCK: Rules = Rules {
    value: "TYPE/STATE=AFTER",
    takes: "rules with 100ms to 8784h or never, or none",
    add: |config, text| config.stuck.add(text),
    clear: |config| config.stuck = Declared::default(),
    texts: |config| config.stuck.texts(),
    keys: &["type", "state", "after"],
    join: |values| {
        let value = |index: usize| values.get(index).copied().flatten();
        rule_text(value(0), value(1), value(2)).map_err(|error| {
            let key = match error.part {
                Part::Type => 0,
                Part::State => 1,
                Part::After => 2,
            };
            (key, error.wanted)
        })
    },
};

impl Rules {
    /// The text of the rule that the table at `place` stands for; `name` is the setting's.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub(super) fn of_table(&self, name: &str, place: Place, table: &[Entry]) -> Result<String, Vec<(Place, String)>> {
        let mut values: Vec<Option<(Place, &str)>> = vec![None; self.keys.len()];
        let mut faults = Vec::new();
        for entry in table {
            let key = self.keys.iter().position(|key| *key == entry.name);
            match (key, entry.values.as_slice()) {
                (None, _) => faults.push((entry.key, self.unknown(name, &entry.name))),
                (Some(key), [(place, Value::Text(text) | Value::Bare(_, text))]) if !entry.is_list => {
                    values[key] = Some((*place, text));
                }
                (Some(_), _) => faults.push((entry.key, format!("{} of {name} must be a text", entry.name))),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let texts: Vec<Option<&str>> = values.iter().map(|value| value.map(|(_, text)| text)).collect();
        (self.join)(&texts).map_err(|(key, wanted)| match values[key] {
            Some((place, text)) => vec![(
                place,
                format!("{} of {name} cannot be {text:?}: {wanted}", self.keys[key]),
            )],
            None => vec![(place, format!("{} of {name} {wanted}", self.keys[key]))],
        })
    }

    /// What to say about a key that a table cannot have.
    fn unknown(&self, name: &str, key: &str) -> String {
        // The nearest of three short keys is often far from what was meant, so the text names them all.
        let known = self.keys.join(", ");
        match nearest(key, self.keys.iter().copied()) {
            Some(nearest) => format!("there is no key {key:?} in {name}; did you mean {nearest:?}?"),
            None => format!(
                "there is no key {key:?} in {name}, only {known}; a setting must stand above the first [[{name}]]"
            ),
        }
    }
}
