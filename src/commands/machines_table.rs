//! The document of `/api/machines` as a table for people.

use crate::commands::painter::{NONE, Painter, RED, YELLOW};
use crate::commands::table::{Column, Fit, Table, column, count, time, wrapped};
use crate::commands::trouble::Trouble;
use crate::process::visible::visible;
use crate::process::words;
use serde_json::Value;
use std::cmp::Ordering;

/// The verdict and the time in a state are what a person looks for; then when the machine was seen last, and what is
/// usual.
const COLUMNS: [Column; 10] = [
    column("NAME", Fit::Ends(16), 0),
    column("VERDICT", Fit::Word, 0),
    column("TYPE", Fit::Beginning(10), 5),
    column("STATE", Fit::Beginning(10), 0),
    column("TIME", Fit::Number, 0),
    column("USUAL", Fit::Number, 2),
    column("TRIGGER", Fit::Beginning(10), 4),
    column("RATE", Fit::Number, 3),
    column("SEEN", Fit::Number, 1),
    column("NOTE", Fit::Word, 0),
];
/// More events a second than this are noisy: no person can follow them, and most are a loop gone wild. The server's log
/// warns of as many.
const NOISY_PER_SECOND: f64 = 100.0;

/// The table of an `/api/machines` document for lines of `width` characters, with a line above it, and with `none` in
/// its place if the list is empty. `None` if it is no such document.
pub fn table(document: &str, none: &str, width: usize, painter: Painter) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let mut machines: Vec<&Value> = document.get("machines")?.as_array()?.iter().collect();
    let mut text = wrapped(&head_line(&document)?, "; ", width);
    if machines.is_empty() {
        text.push_str(none);
        text.push('\n');
        return Some(text);
    }
    machines.sort_by(|a, b| before(a, b));
    let mut table = Table::new(&COLUMNS);
    for machine in machines {
        let (trouble, note) = (Trouble::of(machine), note(machine));
        let color = match trouble {
            Some(Trouble::Stuck | Trouble::Silent) => RED,
            Some(Trouble::Slow) => YELLOW,
            None if note.is_empty() => NONE,
            None => YELLOW,
        };
        table.push(color, row(machine, trouble, note));
    }
    Some(text + &table.text(width, painter))
}

/// The order of two machines: the worst trouble first, in each kind of it the longest stay, then by name.
fn before(a: &Value, b: &Value) -> Ordering {
    let rank = |machine: &Value| Trouble::of(machine).map_or(usize::MAX, |trouble| trouble as usize);
    let stay = |machine: &Value| match Trouble::of(machine) {
        Some(_) => number(machine, "state_seconds").unwrap_or(f64::INFINITY),
        None => 0.0,
    };
    let name = |machine: &Value| machine.get("machine_name").and_then(Value::as_str).map(str::to_owned);
    let troubles = rank(a).cmp(&rank(b)).then_with(|| stay(b).total_cmp(&stay(a)));
    troubles.then_with(|| name(a).cmp(&name(b)))
}

/// Where the numbering is, and what is in the table.
fn head_line(document: &Value) -> Option<String> {
    let totals = document.get("totals")?;
    let total = |name: &str| totals.get(name)?.as_u64();
    let mut machines = words::count(total("machines")?, "machine");
    for (counted, word) in [
        (total("stuck").unwrap_or(0), "stuck"),
        (total("silent").unwrap_or(0), "silent"),
        (total("stale")?, "stale"),
    ] {
        if counted > 0 {
            machines.push_str(&format!(", {counted} {word}"));
        }
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

/// What else a person should know of a machine, in a word.
fn note(machine: &Value) -> &'static str {
    if machine.get("stale").and_then(Value::as_bool) == Some(true) {
        "stale"
    } else if number(machine, "events_per_second").unwrap_or(0.0) > NOISY_PER_SECOND {
        "noisy"
    } else {
        ""
    }
}

fn row(machine: &Value, trouble: Option<Trouble>, note: &str) -> Vec<String> {
    let text = |name: &str| visible(machine.get(name).and_then(Value::as_str).unwrap_or_default());
    let seconds = |name| number(machine, name).map_or("?".to_owned(), |seconds| time(seconds * 1000.0));
    let usual = machine.get("usual").and_then(|usual| number(usual, "median"));
    vec![
        text("machine_name"),
        trouble.map_or("", Trouble::name).to_owned(),
        text("config_type"),
        text("current_state"),
        seconds("state_seconds"),
        usual.map_or(String::new(), |seconds| time(seconds * 1000.0)),
        text("last_trigger"),
        rate(number(machine, "events_per_second").unwrap_or(0.0)),
        seconds("last_event_seconds"),
        note.to_owned(),
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
            "totals": {"machines": 3, "stale": 1, "evicted": 2, "stuck": 2, "silent": 0}, "machines": machines,
        });
        let text = table(&document.to_string(), "no machines", width, Painter::default()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn trouble_comes_first_and_the_rest_by_name() {
        let troubled = |name: &str, verdict: &str, stay: f64| {
            let mut machine = machine(name, 0.5.into());
            (machine["verdict"], machine["state_seconds"]) = (verdict.into(), stay.into());
            machine["usual"] = json!({"n": 312, "median": 1.146});
            machine
        };
        let mut stale = machine("gone", 7200.into());
        stale["stale"] = true.into();
        let mut bare = machine("bare", Value::Null);
        for key in ["config_type", "last_trigger", "state_seconds"] {
            bare[key] = Value::Null;
        }
        let mut noisy = machine("a", 0.5.into());
        noisy["events_per_second"] = 312.4.into();
        let machines = [
            stale,
            troubled("slow", "slow", 7.0),
            troubled("silent", "silent", 900.0),
            troubled("stuck-1", "stuck", 31.0),
            noisy,
            troubled("stuck-2", "stuck", 95.0),
            bare,
            troubled("ok", "ok", 1.0),
        ];
        assert_eq!(
            shown(&machines, 100),
            [
                "epoch 00aa, event 17; 3 machines, 2 stuck, 1 stale; 2 had to leave the full table",
                "NAME     VERDICT  TYPE    STATE       TIME  USUAL  TRIGGER   RATE   SEEN  NOTE",
                "stuck-2  stuck    worker  encoding   95.0s   1.1s  new_job  0.3/s  500ms",
                "stuck-1  stuck    worker  encoding   31.0s   1.1s  new_job  0.3/s  500ms",
                "silent   silent   worker  encoding  15m00s   1.1s  new_job  0.3/s  500ms",
                "slow     slow     worker  encoding    7.0s   1.1s  new_job  0.3/s  500ms",
                "a                 worker  encoding   61.2s         new_job  312/s  500ms  noisy",
                "bare                      encoding       ?                  0.3/s      ?",
                "gone              worker  encoding   61.2s         new_job  0.3/s  2h00m  stale",
                "ok                worker  encoding    1.0s   1.1s  new_job  0.3/s  500ms",
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
        (large["verdict"], large["usual"]) = ("silent".into(), json!({"median": 1e9}));
        for width in 60..=200 {
            let lines = shown(&[large.clone(), machine("a", 0.5.into())], width);
            let fit = |line: &String| line.chars().count() <= width && !line.contains('\u{1b}');
            assert!(lines.iter().all(fit), "{width}: {lines:#?}");
            assert!(lines.iter().any(|line| line.ends_with("stale")), "{width}: {lines:#?}");
        }
        let narrow = shown(&[large, machine("a", 0.5.into())], 60);
        assert_eq!(
            narrow[narrow.len() - 2],
            "no room for TYPE, USUAL, TRIGGER, RATE, SEEN; --json has"
        );
    }

    #[test]
    fn none_are_said_and_what_is_no_such_document_is_none() {
        assert_eq!(shown(&[], 120)[1..], ["no machines"]);
        for other in ["{}", "hello", r#"{"machines":[]}"#] {
            assert_eq!(table(other, "", 120, Painter::default()), None);
        }
    }
}
