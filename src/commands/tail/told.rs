//! What a server itself tells of machines, in words.

use crate::commands::painter::{GREEN, RED};
use crate::commands::table::time;
use crate::process::words::count;
use crate::stream::event::NOTICES;
use serde_json::Value;

/// Machines of one finding that a line names; of more, the number.
const NAMED_MAX: usize = 5;

/// What a line says of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The machine, or how many.
    pub(super) who: String,
    pub(super) color: &'static str,
    pub(super) what: String,
}

/// The words for an event of the server's own, `None` for any other. `since` writes when a stay began, in seconds since
/// the epoch.
pub(super) fn told(kind: &str, event: &Value, since: impl Fn(f64) -> String) -> Option<Told> {
    if !NOTICES.contains(&kind) || event["server"] != true {
        return None;
    }
    let payload = &event["payload"];
    let text = |key: &str| payload[key].as_str();
    let state = text("state").unwrap_or("?");
    let seconds = payload["seconds"].as_f64().unwrap_or_default();
    let stay = time(seconds * 1000.0);
    let why = text("why").map_or(String::new(), |why| format!(": {why}"));
    let usual = payload["usual_median"].as_f64();
    let usual = usual.map_or(String::new(), |median| format!(" (usually {})", time(median * 1000.0)));
    let names = names(payload);
    let machine = event["machine_name"].as_str();
    let (color, what) = match kind {
        "machine_moves_again" => {
            let moves = if machine.is_some() { "moves" } else { "move" };
            (
                GREEN,
                format!("{moves} again after {stay} in {state}{usual}{names}{why}"),
            )
        }
        kind => {
            let verdict = kind.trim_start_matches("machine_");
            let began = payload["timestamp"].as_f64().map(|found| since(found - seconds));
            let began = began.unwrap_or_default();
            (RED, format!("{verdict} in {state} for {stay}{began}{names}{why}"))
        }
    };
    let who = match (machine, payload["count"].as_u64()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(several)) => count(several, "machine"),
        (None, None) => "(no machine)".to_owned(),
    };
    Some(Told { who, color, what })
}

/// The names of several machines with one cause; nothing for one, and where none is named.
fn names(payload: &Value) -> String {
    let Some(machines) = payload["machines"].as_array().filter(|names| !names.is_empty()) else {
        return String::new();
    };
    let named: Vec<&str> = machines.iter().filter_map(Value::as_str).take(NAMED_MAX).collect();
    let all = payload["count"].as_u64().unwrap_or(machines.len() as u64);
    let more = match all.saturating_sub(named.len() as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" ({}{more})", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(kind: &str, event: &Value) -> (String, &'static str, String) {
        let told = told(kind, event, |began| format!(", since {began:.1}")).unwrap();
        (told.who, told.color, told.what)
    }

    #[test]
    fn who_what_since_when_and_why_stand_in_one_line() {
        let mut event = json!({"machine_name": "e", "server": true, "payload": {
            "state": "encoding", "seconds": 31.2, "usual_median": 1.1, "why": "it is alive", "timestamp": 100.0,
        }});
        let found = words("machine_stuck", &event);
        let (who, red) = ("e".to_owned(), RED);
        assert_eq!(
            found,
            (
                who.clone(),
                red,
                "stuck in encoding for 31.2s, since 68.8: it is alive".into()
            )
        );
        event["payload"]["why"] = json!("it is in \"idle\" now");
        let over = "moves again after 31.2s in encoding (usually 1.1s): it is in \"idle\" now";
        assert_eq!(words("machine_moves_again", &event), (who, GREEN, over.into()));
        event["server"] = json!("true");
        assert_eq!(told("machine_stuck", &event, |_| String::new()), None);
        assert_eq!(told("state_change", &json!({"server": true}), |_| String::new()), None);
    }

    #[test]
    fn several_machines_are_counted_and_the_first_are_named() {
        let names: Vec<String> = (1..=100).map(|number| format!("e{number}")).collect();
        let event = json!({"machine_name": null, "server": true, "payload": {
            "machines": names, "count": 120, "state": "s", "seconds": 5, "timestamp": 9.0,
        }});
        let (who, _, what) = words("machine_silent", &event);
        assert_eq!(
            (who.as_str(), what.as_str()),
            (
                "120 machines",
                "silent in s for 5.0s, since 4.0 (e1, e2, e3, e4, e5 and 115 more)"
            )
        );
        let over = json!({"server": true, "payload": {"machines": [], "count": 120}});
        let (who, _, what) = words("machine_moves_again", &over);
        assert_eq!(
            (who.as_str(), what.as_str()),
            ("120 machines", "move again after 0 in ?")
        );
    }
}
