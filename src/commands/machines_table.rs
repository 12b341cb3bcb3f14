//! The document of `/api/machines` as a table for people.

use crate::commands::painter::{NONE, Painter, YELLOW};
use crate::commands::table::{Column, Fit, Table, column, count, time, wrapped};
use crate::process::visible::visible;
use crate::process::words;
use serde_json::Value;

/// Time in a state, and since the last event, are what a person looks for; the rate goes before what was last.
const COLUMNS: [Column; 8] = [
    column("NAME", Fit::Ends(16), 0),
    column("TYPE", Fit::Beginning(10), 3),
    column("STATE", Fit::Beginning(10), 0),
    column("TIME", Fit::Number, 0),
    column("TRIGGER", Fit::Beginning(10), 2),
    column("RATE", Fit::Number, 1),
    column("SEEN", Fit::Number, 0),
    column("NOTE", Fit::Word, 0),
];

/// The table of an `/api/machines` document for lines of `width` characters, with a line above it; `None` if it is
/// none.
pub fn table(document: &str, width: usize, painter: Painter) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let mut machines: Vec<&Value> = document.get("machines")?.as_array()?.iter().collect();
    let mut text = wrapped(&head_line(&document)?, "; ", width);
    if machines.is_empty() {
        text.push_str("no machines\n");
        return Some(text);
    }
    let silence = |machine: &Value| number(machine, "last_event_seconds").unwrap_or(f64::INFINITY);
    let name = |machine: &Value| machine.get("machine_name").and_then(Value::as_str).map(str::to_owned);
    // The one that stands still is the one that people look for.
    machines.sort_by(|a, b| silence(b).total_cmp(&silence(a)).then_with(|| name(a).cmp(&name(b))));
    let mut table = Table::new(&COLUMNS);
    for machine in machines {
        let is_stale = machine.get("stale").and_then(Value::as_bool) == Some(true);
        let color = if is_stale { YELLOW } else { NONE };
        table.push(color, row(machine, is_stale));
    }
    Some(text + &table.text(width, painter))
}

/// Where the numbering is, and what is in the table.
fn head_line(document: &Value) -> Option<String> {
    let totals = document.get("totals")?;
    let total = |name: &str| totals.get(name)?.as_u64();
    let mut machines = words::count(total("machines")?, "machine");
    if let stale @ 1.. = total("stale")? {
        machines.push_str(&format!(", {stale} stale"));
    }
    if let evicted @ 1.. = total("evicted")? {
        machines.push_str(&format!("; {evicted} had to leave the full table"));
    }
    Some(format!(
        "epoch {}, event {}; {machines}",
        visible(document.get("epoch")?.as_str().unwrap_or("unknown")),
        document.get("seq")?.as_u64()?
    ))
}

fn row(machine: &Value, is_stale: bool) -> Vec<String> {
    let text = |name: &str| visible(machine.get(name).and_then(Value::as_str).unwrap_or_default());
    let seconds = |name| number(machine, name).map_or("?".to_owned(), |seconds| time(seconds * 1000.0));
    vec![
        text("machine_name"),
        text("config_type"),
        text("current_state"),
        seconds("state_seconds"),
        text("last_trigger"),
        rate(number(machine, "events_per_second").unwrap_or(0.0)),
        seconds("last_event_seconds"),
        if is_stale { "stale".to_owned() } else { String::new() },
    ]
}

fn number(machine: &Value, name: &str) -> Option<f64> {
    Some(machine.get(name)?.as_f64()?.max(0.0))
}

/// Events per second in at most seven characters.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}/s"),
        rate => format!("{}/s", count(rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn machine(name: &str, seen: Value) -> Value {
        json!({
            "machine_name": name, "config_type": "worker", "current_state": "encoding", "last_trigger": "new_job",
            "state_seconds": 61.2, "events_per_second": 0.3, "last_event_seconds": seen, "stale": false,
        })
    }

    fn shown(machines: &[Value], width: usize) -> Vec<String> {
        let document = json!({
            "epoch": "00aa", "seq": 17, "time": 1.5, "rate_seconds": 10,
            "totals": {"machines": 3, "stale": 1, "evicted": 2}, "machines": machines,
        });
        let text = table(&document.to_string(), width, Painter::default()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_longest_silent_comes_first_and_a_stale_one_is_marked_by_a_word() {
        let mut stale = machine("gone", 7200.into());
        stale["stale"] = true.into();
        let mut bare = machine("bare", Value::Null);
        for key in ["config_type", "last_trigger", "state_seconds"] {
            bare[key] = Value::Null;
        }
        assert_eq!(
            shown(&[machine("b", 0.5.into()), machine("a", 0.5.into()), stale, bare], 80),
            [
                "epoch 00aa, event 17; 3 machines, 1 stale; 2 had to leave the full table",
                "NAME  TYPE    STATE      TIME  TRIGGER   RATE   SEEN  NOTE",
                "bare          encoding      ?           0.3/s      ?",
                "gone  worker  encoding  61.2s  new_job  0.3/s  2h00m  stale",
                "a     worker  encoding  61.2s  new_job  0.3/s  500ms",
                "b     worker  encoding  61.2s  new_job  0.3/s  500ms",
            ]
        );
    }

    #[test]
    fn whatever_the_texts_are_a_line_fits_from_60_columns_on() {
        let long = "\u{1b}[31mä".repeat(300);
        let mut large = machine(&long, 1e9.into());
        for key in ["config_type", "current_state", "last_trigger"] {
            large[key] = long.as_str().into();
        }
        (large["state_seconds"], large["events_per_second"], large["stale"]) = (1e9.into(), 1e9.into(), true.into());
        for width in 60..=200 {
            let lines = shown(&[large.clone(), machine("a", 0.5.into())], width);
            let fit = |line: &String| line.chars().count() <= width && !line.contains('\u{1b}');
            assert!(lines.iter().all(fit), "{width}: {lines:#?}");
            assert!(lines.iter().any(|line| line.ends_with("stale")), "{width}: {lines:#?}");
        }
        let narrow = shown(&[large, machine("a", 0.5.into())], 60);
        assert_eq!(
            narrow.last().unwrap(),
            "no room for TYPE, TRIGGER, RATE; --json has them"
        );
    }

    #[test]
    fn none_are_said_and_what_is_no_such_document_is_none() {
        assert_eq!(shown(&[], 120)[1..], ["no machines"]);
        for other in ["{}", "hello", r#"{"machines":[]}"#] {
            assert_eq!(table(other, 120, Painter::default()), None);
        }
    }
}
