//! The document of `/status` as a table for people, at most 120 columns wide.

use crate::commands::painter::{BOLD, NONE, Painter, YELLOW};
use crate::process::visible::visible;
use crate::process::words::{self, size};
use serde_json::Value;
use std::cmp::Reverse;

/// Widest line.
const COLUMNS_MAX: usize = 120;
/// Longer addresses lose their middle; any with IPv4 fits.
const ADDRESS_MAX: usize = 24;
/// Of a filter, the beginning is shown.
const FILTER_MIN: usize = 12;
/// What stands between two columns.
const GAP: usize = 2;

/// The heads of the columns before the filter. Numbers are aligned to the right.
const HEADS: [(&str, bool); 12] = [
    ("ID", true),
    ("ADDRESS", false),
    ("PROTO", false),
    ("STATE", false),
    ("SINCE", true),
    ("QUEUED", true),
    ("BYTES", true),
    ("LAG", true),
    ("DELIVERED", true),
    ("SKIPPED", true),
    ("BEHIND", true),
    ("SLOWEST", true),
];

/// The table of a `/status` document, with a line above it; `None` if it is none.
pub fn table(document: &str, painter: Painter) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let mut clients: Vec<&Value> = document.get("clients")?.as_array()?.iter().collect();
    let mut text = head_line(&document, clients.len())? + "\n";
    if clients.is_empty() {
        text.push_str("no clients\n");
        return Some(text);
    }
    // Who is furthest behind is who one looks for.
    clients.sort_by_key(|client| Reverse(number(client, "lag_ms").to_bits()));
    let rows: Vec<Vec<String>> = clients.iter().map(|client| row(client)).collect();
    let last: Vec<(String, String)> = clients.iter().map(|client| (pong(client), filter(client))).collect();
    let widths: Vec<usize> = HEADS
        .iter()
        .enumerate()
        .map(|(column, (head, _))| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(head.len())
        })
        .collect();
    let heads: Vec<String> = HEADS.iter().map(|(head, _)| (*head).to_owned()).collect();
    let some_filter = last.iter().any(|(_, filter)| !filter.is_empty());
    let head_filter = if some_filter { "FILTER" } else { "" };
    text.push_str(&painter.paint(BOLD, &line(&heads, &widths, "PONG", head_filter)));
    text.push('\n');
    for ((client, cells), (pong, filter)) in clients.iter().zip(&rows).zip(&last) {
        let color = if is_slow(client) { YELLOW } else { NONE };
        text.push_str(&painter.paint(color, &line(cells, &widths, pong, filter)));
        text.push('\n');
    }
    Some(text)
}

/// Where the numbering is, what the history has, who is there.
fn head_line(document: &Value, clients: usize) -> Option<String> {
    let history = document.get("history")?;
    let behind = document.get("totals")?.get("behind")?.as_u64()?;
    let clients = match (clients, behind) {
        (clients, 0) => words::count(clients, "client"),
        (clients, behind) => format!("{}, {behind} behind", words::count(clients, "client")),
    };
    Some(format!(
        "epoch {}, event {}; history {} of {}, after event {}; {clients}",
        visible(document.get("epoch")?.as_str().unwrap_or("unknown")),
        document.get("seq")?.as_u64()?,
        size(number(history, "bytes")),
        size(number(history, "bytes_max")),
        history.get("after")?.as_u64()?,
    ))
}

fn row(client: &Value) -> Vec<String> {
    let text = |name: &str| visible(client.get(name).and_then(Value::as_str).unwrap_or("?"));
    let protocol = text("protocol");
    let skipped = match number(client, "skips_unknown") {
        0.0 => count(number(client, "skipped")),
        // Nobody knows how many more.
        _ => format!("{}+?", count(number(client, "skipped"))),
    };
    vec![
        format!("{:.0}", number(client, "id")),
        shortened(&text("address"), ADDRESS_MAX),
        protocol.strip_prefix("threadcast.").unwrap_or(&protocol).to_owned(),
        text("state"),
        time(number(client, "connected_seconds") * 1000.0),
        count(number(client, "queued_events")),
        size(number(client, "queued_bytes")),
        time(number(client, "lag_ms")),
        count(number(client, "delivered")),
        skipped,
        count(number(client, "times_behind")),
        time(number(client, "slowest_ms")),
    ]
}

fn pong(client: &Value) -> String {
    time(number(client, "last_pong_seconds") * 1000.0)
}

fn filter(client: &Value) -> String {
    visible(client.get("filter").and_then(Value::as_str).unwrap_or_default())
}

fn is_slow(client: &Value) -> bool {
    client.get("state").and_then(Value::as_str) != Some("live") || number(client, "queued_events") > 0.0
}

fn number(client: &Value, name: &str) -> f64 {
    client.get(name).and_then(Value::as_f64).unwrap_or(0.0).max(0.0)
}

/// One line; the filter gets what is left of it.
fn line(cells: &[String], widths: &[usize], pong: &str, filter: &str) -> String {
    let mut text = String::new();
    for ((cell, width), (_, right)) in cells.iter().zip(widths).zip(HEADS) {
        if right {
            text.push_str(&format!("{cell:>width$}"))
        } else {
            text.push_str(&format!("{cell:<width$}"))
        }
        text.push_str(&" ".repeat(GAP));
    }
    text.push_str(&format!("{pong:>5}"));
    if !filter.is_empty() {
        let left = COLUMNS_MAX.saturating_sub(text.chars().count() + GAP).max(FILTER_MIN);
        text.push_str(&" ".repeat(GAP));
        text.push_str(&beginning(filter, left));
    }
    beginning(&text, COLUMNS_MAX)
}

fn beginning(text: &str, most: usize) -> String {
    if text.chars().count() > most {
        text.chars().take(most - 1).chain(['…']).collect()
    } else {
        text.to_owned()
    }
}

/// With its beginning, and the end, where the port is.
fn shortened(text: &str, most: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= most {
        return text.to_owned();
    }
    let (first, last) = (most / 2, most - most / 2 - 1);
    let end = &chars[chars.len() - last..];
    chars[..first].iter().chain(&['…']).chain(end).collect()
}

/// A count in at most five characters.
fn count(count: f64) -> String {
    match count {
        count if count < 99_999.5 => format!("{count:.0}"),
        count if count < 999_500.0 => format!("{:.0}k", count / 1e3),
        count if count < 99_950_000.0 => format!("{:.1}M", count / 1e6),
        count if count < 9.995e8 => format!("{:.0}M", count / 1e6),
        count => format!("{:.1}G", count / 1e9),
    }
}

/// A time, given in ms, in at most six characters.
fn time(ms: f64) -> String {
    let seconds = (ms / 1000.0).round() as u64;
    match ms {
        0.0 => "0".to_owned(),
        ms if ms < 9.95 => format!("{ms:.1}ms"),
        ms if ms < 999.5 => format!("{ms:.0}ms"),
        ms if ms < 99_950.0 => format!("{:.1}s", ms / 1000.0),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 100 * 3600 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn client(id: u64, lag_ms: f64) -> Value {
        json!({
            "id": id, "address": "127.0.0.1:50000", "connected_seconds": 61.2, "protocol": "threadcast.v1",
            "filter": null, "state": "live", "queued_events": 0, "queued_bytes": 0, "lag_ms": lag_ms, "delivered": 12,
            "skipped": 0, "skips_unknown": 0, "times_behind": 0, "slowest_ms": 0.31, "last_pong_seconds": 2.5,
        })
    }

    fn shown(clients: &[Value]) -> Vec<String> {
        let document = json!({
            "epoch": "00aa", "seq": 17, "history": {"bytes": 1536, "bytes_max": 67_108_864, "after": 3},
            "totals": {"behind": 1}, "clients": clients,
        });
        let text = table(&document.to_string(), Painter::default()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_slowest_comes_first_and_columns_are_aligned() {
        let lines = shown(&[client(1, 0.0), client(12, 950.4), client(3, 0.0), client(4, 12_000.0)]);
        assert_eq!(
            lines[..3],
            [
                "epoch 00aa, event 17; history 1.5 KiB of 64 MiB, after event 3; 4 clients, 1 behind",
                "ID  ADDRESS          PROTO  STATE  SINCE  QUEUED  BYTES    LAG  DELIVERED  SKIPPED  BEHIND  SLOWEST   PONG",
                " 4  127.0.0.1:50000  v1     live   61.2s       0    0 B  12.0s         12        0       0    0.3ms   2.5s",
            ]
        );
        let ids: Vec<&str> = lines[2..].iter().map(|line| &line[..2]).collect();
        assert_eq!(ids, [" 4", "12", " 1", " 3"]);
    }

    #[test]
    fn nobody_is_said_and_what_is_no_status_is_none() {
        assert_eq!(shown(&[])[1..], ["no clients"]);
        assert_eq!(table("{}", Painter::default()), None);
        assert_eq!(table("hello", Painter::default()), None);
    }

    #[test]
    fn whatever_the_numbers_are_a_line_fits_120_columns() {
        let large = json!({
            "id": 123_456_789_u64, "address": "[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
            "connected_seconds": 1e7, "protocol": "threadcast.v1", "filter": "machine=".to_owned() + &"ä".repeat(300),
            "state": "behind", "queued_events": 1e9, "queued_bytes": 1e12, "lag_ms": 1e10, "delivered": 1e11,
            "skipped": 1e11, "skips_unknown": 2, "times_behind": 1e6, "slowest_ms": 1e9, "last_pong_seconds": 1e5,
        });
        let lines = shown(&[large, client(1, 0.0)]);
        assert!(lines.iter().all(|line| line.chars().count() <= 120), "{lines:#?}");
        assert!(lines[2].contains("…6666]:65535"), "{}", lines[2]);
        let filtered = json!({"id": 1, "filter": "type=error", "state": "live"});
        assert!(shown(&[filtered])[2].ends_with("  type=error"));
    }

    #[test]
    fn numbers_are_short() {
        let counts = [0.0, 99_999.0, 123_456.0, 1_250_000.0, 123e6, 5e9].map(count);
        assert_eq!(counts, ["0", "99999", "123k", "1.2M", "123M", "5.0G"]);
        let times = [0.0, 0.064, 12.3, 1500.0, 125_000.0, 7_500_000.0, 9e8].map(time);
        assert_eq!(times, ["0", "0.1ms", "12ms", "1.5s", "2m05s", "2h05m", "10d10h"]);
    }
}
