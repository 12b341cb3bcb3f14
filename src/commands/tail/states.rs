//! What `tail` says of the machines in an `initial`.

use crate::commands::tail::place::Part;
use crate::process::visible::visible;
use crate::process::words::count;
use serde_json::Value;

/// Machines that are named; of more, the number.
const NAMED: usize = 10;

/// An `initial` so far.
#[derive(Debug, Default)]
pub(super) struct States {
    named: Vec<String>,
    machines: usize,
}

impl States {
    /// Takes in a message, which is that part of an `initial`. Returns what to say of the machines once all parts are
    /// here; nothing of any other message.
    pub(super) fn take(&mut self, text: &str, part: Part) -> Option<String> {
        if !text.starts_with("{\"type\":\"initial\"") {
            return None;
        }
        if part.is_first {
            *self = States::default();
        }
        let initial: Value = serde_json::from_str(text).ok()?;
        let machines = initial.get("machines")?.as_array()?;
        let states = machines.iter().map(|row| {
            let field = |name| row.get(name).and_then(Value::as_str).unwrap_or("?");
            let stale = if row["stale"] == true { " (stale)" } else { "" };
            visible(&format!("{} {}{stale}", field("machine_name"), field("current_state")))
        });
        self.named.extend(states.take(NAMED - self.named.len()));
        let left_out = initial["machines_left_out"].as_u64().unwrap_or_default();
        self.machines += machines.len() + left_out as usize;
        part.is_last.then(|| std::mem::take(self).said())
    }

    fn said(self) -> String {
        let more = if self.machines > self.named.len() { ", ..." } else { "" };
        match self.machines {
            0 => "no machines".to_owned(),
            machines => format!("{}: {}{more}", count(machines, "machine"), self.named.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial(names: &[&str], more: &str) -> String {
        let rows: Vec<String> = names
            .iter()
            .map(|name| format!(r#"{{"machine_name":"{name}","current_state":"s"}}"#))
            .collect();
        format!(r#"{{"type":"initial","machines":[{}]{more}}}"#, rows.join(","))
    }

    #[test]
    fn machines_of_all_parts_are_counted_and_the_first_are_named() {
        let mut states = States::default();
        let (first, last) = (
            Part {
                is_first: true,
                is_last: false,
            },
            Part {
                is_first: false,
                is_last: true,
            },
        );
        assert_eq!(states.take(&initial(&["lost"], ""), first), None);
        assert_eq!(states.take(&initial(&["a", "b"], ""), first), None);
        assert_eq!(states.take(r#"{"type":"ping"}"#, Part::WHOLE), None);
        let said = states.take(&initial(&["c"; 9], ""), last).unwrap();
        assert_eq!(said, format!("11 machines: a s, b s{}, ...", ", c s".repeat(8)));
        assert_eq!(states.take(&initial(&[], ""), Part::WHOLE).unwrap(), "no machines");
        let plain = states.take(&initial(&["a"], r#","machines_left_out":7"#), Part::WHOLE);
        assert_eq!(plain.unwrap(), "8 machines: a s, ...");
    }
}
