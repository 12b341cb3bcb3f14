//! The document of `/status` as a table for people.

use crate::commands::painter::{NONE, Painter, YELLOW};
use crate::commands::table::{Column, Fit, Table, column, count, time, wrapped};
use crate::process::visible::visible;
use crate::process::words::{self, size};
use serde_json::Value;
use std::cmp::Reverse;

/// What waits for a client is what a person looks for; what was, and what it wants, can be left out.
const COLUMNS: [Column; 14] = [
    column("ID", Fit::Number, 0),
    // Any with IPv4 fits.
    column("ADDRESS", Fit::Ends(21), 0),
    column("PROTO", Fit::Word, 5),
    column("STATE", Fit::Word, 0),
    column("SINCE", Fit::Number, 6),
    column("QUEUED", Fit::Number, 1),
    column("BYTES", Fit::Number, 2),
    column("LAG", Fit::Number, 0),
    column("DELIVERED", Fit::Number, 8),
    column("SKIPPED", Fit::Number, 3),
    column("BEHIND", Fit::Number, 7),
    column("SLOWEST", Fit::Number, 9),
    column("PONG", Fit::Number, 10),
    column("FILTER", Fit::Beginning(12), 4),
];

/// The table of a `/status` document for lines of `width` characters, with a line above it; `None` if it is none.
pub fn table(document: &str, width: usize, painter: Painter) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let mut clients: Vec<&Value> = document.get("clients")?.as_array()?.iter().collect();
    let mut text = wrapped(&head_line(&document, clients.len())?, "; ", width);
    if clients.is_empty() {
        text.push_str("no clients\n");
        return Some(text);
    }
    // Who is furthest behind is who one looks for.
    clients.sort_by_key(|client| Reverse(number(client, "lag_ms").to_bits()));
    let mut table = Table::new(&COLUMNS);
    for client in clients {
        let color = if is_slow(client) { YELLOW } else { NONE };
        table.push(color, row(client));
    }
    Some(text + &table.text(width, painter))
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
        text("address"),
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
        time(number(client, "last_pong_seconds") * 1000.0),
        visible(&wishes(client)),
    ]
}

/// What it wants: how much of each machine, with how many events were left out for that, and its filter.
fn wishes(client: &Value) -> String {
    let text = |name: &str| client.get(name).and_then(Value::as_str);
    let conflate = text("conflate").map(|period| {
        let left_out = count(number(client, "conflated"));
        format!("conflate={period} ({left_out} left out)")
    });
    let wishes = [conflate, text("filter").map(str::to_owned)];
    wishes.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn is_slow(client: &Value) -> bool {
    client.get("state").and_then(Value::as_str) != Some("live") || number(client, "queued_events") > 0.0
}

fn number(client: &Value, name: &str) -> f64 {
    client.get(name).and_then(Value::as_f64).unwrap_or(0.0).max(0.0)
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

    fn shown(clients: &[Value], width: usize) -> Vec<String> {
        let document = json!({
            "epoch": "00aa", "seq": 17, "history": {"bytes": 1536, "bytes_max": 67_108_864, "after": 3},
            "totals": {"behind": 1}, "clients": clients,
        });
        let text = table(&document.to_string(), width, Painter::default()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_slowest_comes_first_and_columns_are_aligned() {
        let lines = shown(
            &[client(1, 0.0), client(12, 950.4), client(3, 0.0), client(4, 12_000.0)],
            120,
        );
        assert_eq!(
            lines[..3],
            [
                "epoch 00aa, event 17; history 1.5 KiB of 64 MiB, after event 3; 4 clients, 1 behind",
                "ID  ADDRESS          PROTO  STATE  SINCE  QUEUED  BYTES    LAG  DELIVERED  SKIPPED  BEHIND  SLOWEST  PONG",
                " 4  127.0.0.1:50000  v1     live   61.2s       0    0 B  12.0s         12        0       0    0.3ms  2.5s",
            ]
        );
        let ids: Vec<&str> = lines[2..].iter().map(|line| &line[..2]).collect();
        assert_eq!(ids, [" 4", "12", " 1", " 3"]);
    }

    #[test]
    fn nobody_is_said_and_what_is_no_status_is_none() {
        assert_eq!(shown(&[], 120)[1..], ["no clients"]);
        assert_eq!(table("{}", 120, Painter::default()), None);
        assert_eq!(table("hello", 120, Painter::default()), None);
    }

    #[test]
    fn whatever_the_numbers_are_a_line_fits_from_60_columns_on() {
        let large = json!({
            "id": 123_456_789_u64, "address": "[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
            "connected_seconds": 1e7, "protocol": "threadcast.v1", "filter": "machine=".to_owned() + &"ä".repeat(300),
            "state": "behind", "queued_events": 1e9, "queued_bytes": 1e12, "lag_ms": 1e10, "delivered": 1e11,
            "skipped": 1e11, "skips_unknown": 2, "times_behind": 1e6, "slowest_ms": 1e9, "last_pong_seconds": 1e5,
        });
        for width in 60..=200 {
            let lines = shown(&[large.clone(), client(1, 0.0)], width);
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{width}: {lines:#?}"
            );
            assert!(lines.iter().any(|line| line.contains(":65535")), "{width}: {lines:#?}");
        }
        let narrow = shown(&[client(1, 0.0)], 60);
        assert_eq!(
            narrow[2..],
            [
                "ID  ADDRESS          STATE  QUEUED  BYTES  LAG  SKIPPED",
                " 1  127.0.0.1:50000  live        0    0 B    0        0",
                "no room for PROTO, SINCE, DELIVERED, BEHIND, SLOWEST, PONG;",
                "--json has them",
            ]
        );
        let filtered = json!({"id": 1, "filter": "type=error", "state": "live"});
        assert!(shown(&[filtered], 120)[2].ends_with("  type=error"));
        let conflating = json!({"id": 1, "filter": "type=a", "conflate": "1s", "conflated": 12, "state": "live"});
        assert!(shown(&[conflating], 160)[2].ends_with("  conflate=1s (12 left out) type=a"));
    }
}
