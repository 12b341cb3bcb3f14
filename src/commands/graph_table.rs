//! The document of `/api/graph` as tables for people.

use crate::commands::painter::{BOLD, DIM, NONE, Painter};
use crate::commands::table::{Column, Fit, Table, column, count, ends, time, wrapped};
use crate::process::visible::visible;
use crate::process::words;
use serde_json::Value;

/// How long machines stay is what a person looks for, and from when on one is stuck.
const COLUMNS: [Column; 9] = [
    column("STATE", Fit::Beginning(12), 0),
    column("TRIGGER", Fit::Beginning(7), 0),
    column("ENTERED", Fit::Number, 0),
    column("NOW", Fit::Number, 1),
    column("STAYS", Fit::Number, 4),
    column("MEDIAN", Fit::Number, 0),
    column("P95", Fit::Number, 3),
    column("P99", Fit::Number, 2),
    column("LIMIT", Fit::Number, 0),
];
/// Columns of a type's name above its table.
const NAME_COLUMNS_MAX: usize = 30;

/// The tables of an `/api/graph` document for lines of `width` characters, one for each type, with a line above them;
/// `None` if it is no such document.
pub fn table(document: &str, width: usize, painter: Painter) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let types = document.get("types")?.as_array()?;
    let mut text = wrapped(&head_line(&document)?, "; ", width);
    if types.is_empty() {
        text.push_str("no types\n");
    }
    for of in types {
        let states = of.get("states")?.as_array()?;
        text.push('\n');
        text.push_str(&painter.paint(BOLD, wrapped(&title(of, states), " ", width).trim_end()));
        text.push('\n');
        let mut table = Table::new(&COLUMNS);
        for state in states {
            table.push(NONE, row(state));
            for way in state.get("from")?.as_array()? {
                table.push(DIM, way_row(way));
            }
        }
        text.push_str(&table.text(width, painter));
    }
    Some(text)
}

/// Where the numbering is, and what is known in all.
fn head_line(document: &Value) -> Option<String> {
    let totals = document.get("totals")?;
    let total = |name: &str| totals.get(name)?.as_u64();
    let (states, ways) = (total("states")?, total("transitions")?);
    let forgotten = match (total("states_forgotten")?, total("transitions_forgotten")?) {
        (0, 0) => String::new(),
        (states, ways) => format!(
            "; {} and {} had to leave",
            words::count(states, "state"),
            words::count(ways, "way")
        ),
    };
    Some(format!(
        "epoch {}, event {}; {} and {} in all{forgotten}",
        visible(document.get("epoch")?.as_str().unwrap_or("unknown")),
        document.get("seq")?.as_u64()?,
        words::count(states, "state"),
        words::count(ways, "way"),
    ))
}

/// Whose states follow.
fn title(of: &Value, states: &[Value]) -> String {
    let name = |key: &str| of[key].as_str().map(|name| ends(&visible(name), NAME_COLUMNS_MAX));
    let who = match (name("type"), name("machine")) {
        (Some(config_type), _) => config_type,
        (None, machine) => format!("{}, a machine of no known type", machine.unwrap_or_default()),
    };
    let now: u64 = states.iter().filter_map(|state| state["now"].as_u64()).sum();
    format!(
        "{who}: {}, {} in them now",
        words::count(states.len(), "state"),
        words::count(now, "machine")
    )
}

fn row(state: &Value) -> Vec<String> {
    let usual = &state["usual"];
    let stays = usual["n"].as_u64().unwrap_or(0);
    let seconds = |of: &Value| of.as_f64().map_or(String::new(), |seconds| time(seconds * 1000.0));
    // Of no stay there is no usual time.
    let figure = |key: &str| if stays > 0 { seconds(&usual[key]) } else { String::new() };
    vec![
        visible(state["state"].as_str().unwrap_or("?")),
        String::new(),
        number(&state["entered"]),
        number(&state["now"]),
        count(stays as f64),
        figure("median"),
        figure("p95"),
        figure("p99"),
        seconds(&state["limit_seconds"]),
    ]
}

fn way_row(way: &Value) -> Vec<String> {
    let from = way["state"].as_str().map_or("(start)".to_owned(), visible);
    let mut cells = vec![
        format!("  <- {from}"),
        visible(way["trigger"].as_str().unwrap_or_default()),
        number(&way["count"]),
    ];
    cells.resize(COLUMNS.len(), String::new());
    cells
}

fn number(value: &Value) -> String {
    count(value.as_f64().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As docs/http.md has it, with more stays.
    fn document(name: &str) -> Value {
        let usual =
            |n: u64| json!({"n": n, "median": 1.5, "p95": 2.25, "p99": 4.0, "largest": 5.0, "second_largest": 4.5});
        json!({
            "epoch": "00aa", "seq": 17, "time": 1.5,
            "totals": {"states": 3, "transitions": 4, "states_forgotten": 0, "transitions_forgotten": 1},
            "types": [
                {"type": name, "machine": null, "states": [
                    {"state": "encoding", "entered": 1200, "now": 1, "limit_seconds": 30.0, "usual": usual(900),
                     "from": [{"state": "idle", "trigger": name, "count": 1200}]},
                    {"state": name, "entered": 2, "now": 1, "limit_seconds": null, "usual": usual(0),
                     "from": [{"state": null, "trigger": null, "count": 1}, {"state": name, "trigger": "x", "count": 1}]},
                ]},
                {"type": null, "machine": "uploader", "states": []},
            ],
        })
    }

    fn shown(document: &Value, width: usize) -> Vec<String> {
        let text = table(&document.to_string(), width, Painter::default()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_state_has_its_figures_and_below_it_the_ways_into_it() {
        assert_eq!(
            shown(&document("worker"), 80),
            [
                "epoch 00aa, event 17; 3 states and 4 ways in all;",
                "0 states and 1 way had to leave",
                "",
                "worker: 2 states, 2 machines in them now",
                "STATE         TRIGGER  ENTERED  NOW  STAYS  MEDIAN   P95   P99  LIMIT",
                "encoding                  1200    1    900    1.5s  2.2s  4.0s  30.0s",
                "  <- idle     worker      1200",
                "worker                       2    1      0",
                "  <- (start)                 1",
                "  <- worker   x              1",
                "",
                "uploader, a machine of no known type: 0 states, 0 machines in them now",
                "",
            ]
        );
    }

    #[test]
    fn whatever_the_texts_are_a_line_fits_from_60_columns_on() {
        for name in ["x".repeat(300), "\u{1b}[31mä".repeat(100), "好".repeat(100)] {
            for width in 60..=160 {
                for line in shown(&document(&name), width) {
                    let wide = line.chars().filter(|letter| *letter > '\u{2e80}').count();
                    assert!(line.chars().count() + wide <= width, "{width}: {line}");
                    assert!(!line.contains('\u{1b}'), "{line}");
                }
            }
        }
    }

    #[test]
    fn none_are_said_and_what_is_no_such_document_is_none() {
        let mut empty = document("worker");
        empty["types"] = json!([]);
        assert_eq!(shown(&empty, 120)[1..], ["no types"]);
        for other in ["{}", "hello", r#"{"types":[]}"#] {
            assert_eq!(table(other, 120, Painter::default()), None);
        }
    }
}
