//! What `/api/machines` says of a machine that stays too long.

use serde_json::Value;

/// A verdict that deserves a look; the worst is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It stays longer than its limit, and is alive.
    Stuck,
    /// The same without a sign of life.
    Silent,
    /// It stays longer than usual; pages show it, and no alert goes out.
    Slow,
}

impl Trouble {
    /// Of a machine in the document; `None` if it is well, or the server does not judge.
    pub fn of(machine: &Value) -> Option<Trouble> {
        let verdict = machine.get("verdict")?.as_str()?;
        let all = [Trouble::Stuck, Trouble::Silent, Trouble::Slow];
        all.into_iter().find(|trouble| trouble.name() == verdict)
    }

    /// Its word, in the document and for people.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Stuck => "stuck",
            Trouble::Silent => "silent",
            Trouble::Slow => "slow",
        }
    }
}

/// The document with only those machines that are stuck or silent, and how many they are. `None` if it is no document
/// of machines, or of a server that judges none: its silence must not pass for health.
pub fn in_trouble(document: &str) -> Option<(String, usize)> {
    let mut document: Value = serde_json::from_str(document).ok()?;
    let totals = document.get("totals")?;
    (totals.get("stuck")?.is_u64() && totals.get("silent")?.is_u64()).then_some(())?;
    let machines = document.get_mut("machines")?.as_array_mut()?;
    machines.retain(|machine| matches!(Trouble::of(machine), Some(Trouble::Stuck | Trouble::Silent)));
    let count = machines.len();
    Some((document.to_string(), count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_stuck_and_silent_machines_are_in_trouble_that_a_script_asks_for() {
        let mut document = json!({"totals": {"stuck": 1, "silent": 1}, "machines": [
            {"machine_name": "a", "verdict": "ok"}, {"machine_name": "b", "verdict": "slow"},
            {"machine_name": "c", "verdict": "silent"}, {"machine_name": "d", "verdict": "stuck"},
        ]});
        let (left, count) = in_trouble(&document.to_string()).unwrap();
        let left: Value = serde_json::from_str(&left).unwrap();
        assert_eq!((count, &left["machines"][0]["machine_name"]), (2, &json!("c")));
        assert_eq!(left["totals"], document["totals"]);
        // A server of an earlier version has no verdicts.
        document["totals"] = json!({"machines": 4});
        assert_eq!(in_trouble(&document.to_string()), None);
    }
}
