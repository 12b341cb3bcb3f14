//! docs/http.md says which requests are taken and which are refused: every row of its tables is sent to a real server.

use crate::support::examples;
use crate::support::server::run;
use crate::support::{DEADLINE, TestServer, eventually, uninterrupted};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

const TAKEN: &str = "| request | status | why |";

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md")).unwrap()
}

/// The rows, in cells, of the table with this head that comes first behind `after`.
fn table<'a>(page: &'a str, after: &str, head: &str) -> Vec<Vec<&'a str>> {
    let (_, behind) = page.split_once(after).unwrap();
    let lines = behind.lines().skip_while(|line| *line != head).skip(2);
    let rows: Vec<Vec<&str>> = lines
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 3, "no table {head} behind {after}");
    rows
}

/// The texts in ticks of a cell, and the names that it says are not there.
fn parts(cell: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut spans, mut absent) = (Vec::new(), Vec::new());
    for (index, part) in cell.split('`').enumerate() {
        if index % 2 == 1 {
            spans.push(part);
        } else {
            absent.extend(part.trim().strip_prefix("no "));
        }
    }
    (spans, absent)
}

/// The bytes that a text of the page stands for.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (byte, len) = match &after[..1] {
            "n" => (b'\n', 1),
            "r" => (b'\r', 1),
            "t" => (b'\t', 1),
            "0" => (0, 1),
            "x" => (u8::from_str_radix(&after[1..3], 16).unwrap(), 3),
            other => panic!("what is \\{other}?"),
        };
        bytes.push(byte);
        rest = &after[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The status of an answer, its head, and what is behind it.
fn send(address: SocketAddr, request: &[u8]) -> (u16, String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        let read = uninterrupted(|| socket.read(&mut byte)).unwrap();
        assert_eq!(read, 1, "{}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = String::new();
    if status != 101 {
        uninterrupted(|| socket.read_to_string(&mut body)).unwrap();
    }
    (status, head, body)
}

/// Sends the request of a row; says what is wrong with the answer.
fn try_row(address: SocketAddr, row: &[&str], lines: &[&str]) -> Option<String> {
    let (status, head, body) = send(address, &bytes(&format!("{}\\r\\n\\r\\n", lines.join("\\r\\n"))));
    let has = |line: &str| head.contains(&format!("\r\n{line}"));
    let length = format!("content-length: {}\r\n", body.len());
    let without_body = status == 101 || status == 204 || lines[0].starts_with("HEAD ");
    let wrong = [
        (status.to_string() != row[1], "the status"),
        (has("allow: ") != (status == 405 || status == 204), "allow"),
        (
            has("upgrade: websocket\r\n") != (status == 426 || status == 101),
            "upgrade",
        ),
        (has("connection: Upgrade, close\r\n") != (status == 426), "connection"),
        (
            has("sec-websocket-version: 13\r\n") != (status == 426),
            "sec-websocket-version",
        ),
        (has("date: ") != (status != 101), "date"),
        (has("vary: Origin\r\n") != (status != 101), "vary"),
        (
            has("content-length: ") == (status == 101 || status == 204),
            "content-length",
        ),
        (without_body != body.is_empty(), "the body"),
        (!without_body && !has(&length), "the length"),
        (status == 403 && has("access-control-"), "access-control"),
    ];
    let wrong: Vec<&str> = wrong
        .iter()
        .filter(|(wrong, _)| *wrong)
        .map(|(_, what)| *what)
        .collect();
    (!wrong.is_empty()).then(|| format!("{row:?}: {wrong:?} in {head}{body}"))
}

/// Sends the requests of a table whose rows have whole requests.
#[track_caller]
fn replay(server: &TestServer, rows: &[Vec<&str>]) {
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let faults: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let (mut lines, absent) = parts(row[0]);
            if !absent.contains(&"Host") && !lines.iter().any(|line| line.starts_with("Host:")) {
                lines.insert(1, "Host: localhost");
            }
            try_row(address, row, &lines)
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_request_of_the_page_is_taken_or_refused_as_it_says() {
    let page = page();
    let server = TestServer::start(&[]);
    replay(&server, &table(&page, "## What is taken", TAKEN));
}

#[test]
fn a_foreign_name_opens_nothing_on_a_server_for_the_whole_network() {
    let page = page();
    let server = TestServer::start(&["--host", "0.0.0.0", "--allow-origin", "https://dash.example.com"]);
    let mut rows = table(&page, "## Names of this host", TAKEN);
    let own = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let short = own.split('.').next().unwrap();
    let named: Vec<String> = [
        own.clone(),
        short.to_owned(),
        format!("{short}.local:3002"),
        own.to_uppercase(),
    ]
    .iter()
    .map(|name| format!("`GET /initial HTTP/1.1` `Host: {name}`"))
    .collect();
    rows.extend(named.iter().map(|request| vec![&request[..], "200"]));
    replay(&server, &rows);
}

#[test]
fn every_request_to_become_a_websocket_is_answered_as_the_page_says() {
    let page = page();
    let server = TestServer::start(&[]);
    let (_, block) = page.split_once("```http\n").unwrap();
    let proper: Vec<&str> = block.split("```").next().unwrap().lines().collect();
    let mut faults = Vec::new();
    for row in table(&page, "## Becoming", "| differs | status | why |") {
        let (spans, absent) = parts(row[0]);
        let mut lines = proper.clone();
        let named = |line: &str, name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        lines.retain(|line| !absent.iter().any(|name| named(line, name)));
        for span in spans {
            match span.split_once(": ").filter(|(name, _)| !name.contains(' ')) {
                Some((name, _)) => {
                    lines.retain(|line| !named(line, name));
                    lines.push(span);
                }
                None => lines[0] = span,
            }
        }
        faults.extend(try_row(server.address, &row, &lines));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The lines of the block that begins with this line.
fn block<'a>(page: &'a str, begin: &str) -> Vec<&'a str> {
    let lines = page.lines().skip_while(|line| *line != begin).skip(1);
    lines.take_while(|line| *line != "```").collect()
}

/// A row without its times, which are other ones each time; whether each is known stays.
fn without_times(row: &mut Value) {
    for key in ["state_seconds", "events_per_second", "last_event_seconds"] {
        if row[key].is_f64() {
            row[key] = "a number".into();
        }
    }
}

/// What `server` answers at `path` after the events of an example of the page, and what the page says; their blocks
/// begin with these lines. Both have the same keys in the same order.
#[track_caller]
fn seen_and_wanted(page: &str, server: &TestServer, [events, wanted]: [&str; 2], path: &str) -> [Value; 2] {
    let (events, wanted) = (block(page, events), block(page, wanted).concat());
    for event in &events {
        server.send(event);
    }
    let seen = eventually("the last event is in the list", || {
        let answer = server.http("GET", path, &[]);
        (answer.json()["seq"] == events.len()).then_some(answer.body)
    });
    let parts = [&seen, &wanted].map(|text| examples::parts(text));
    assert_eq!(parts[0], parts[1], "the same keys in the same order");
    [&seen, &wanted].map(|text| serde_json::from_str(text).unwrap())
}

#[test]
fn the_machines_of_the_page_are_told_as_it_says() {
    let page = page();
    let server = TestServer::start(&[]);
    let example = ["```json events", "```json machines"];
    let [mut seen, mut wanted] = seen_and_wanted(&page, &server, example, "/api/machines");
    assert_eq!(seen["totals"], wanted["totals"]);
    for document in [&mut seen, &mut wanted] {
        let rows = document["machines"].as_array_mut().unwrap();
        rows.iter_mut().for_each(without_times);
    }
    assert_eq!(seen["machines"], wanted["machines"]);
    let (_, meanings) = page.split_once("## Machines").unwrap();
    for key in seen["machines"][0].as_object().unwrap().keys() {
        assert!(
            meanings.contains(&format!("| `{key}`")) || meanings.contains(&format!(", `{key}`")),
            "{key}"
        );
    }
}

#[test]
fn the_graph_of_the_page_is_told_as_it_says() {
    let page = page();
    let server = TestServer::start(&[]);
    let example = ["```json graph events", "```json graph"];
    let [mut seen, mut wanted] = seen_and_wanted(&page, &server, example, "/api/graph");
    for document in [&mut seen, &mut wanted] {
        for kind in document["types"].as_array_mut().unwrap() {
            for state in kind["states"].as_array_mut().unwrap() {
                for time in ["median", "p95", "p99", "largest"] {
                    assert!(state["usual"][time].as_f64() < Some(10.0));
                    state["usual"][time] = "a number".into();
                }
            }
        }
    }
    assert_eq!((&seen["totals"], &seen["types"]), (&wanted["totals"], &wanted["types"]));
    let (_, meanings) = page.split_once("## What machines usually do").unwrap();
    for key in [
        "entered",
        "now",
        "limit_seconds",
        "usual",
        "from",
        "n",
        "second_largest",
        "states_forgotten",
    ] {
        assert!(meanings.contains(&format!("`{key}`")), "{key}");
    }
    let some = server.http("GET", "/api/graph?type=work*", &[]).json();
    assert_eq!(some["types"].as_array().unwrap().len(), 1);
}

#[test]
fn the_flag_takes_what_an_origin_header_can_hold_and_refuses_the_rest_with_the_reason() {
    let page = page();
    let rows = table(&page, "## Origins", "| `--allow-origin` | lets in a page of |");
    let mut flags = Vec::new();
    for row in &rows {
        flags.extend(["--allow-origin", row[0].trim_matches('`')]);
    }
    let server = TestServer::start(&flags);
    for row in &rows {
        let header = format!("Origin: {}", row[1].trim_matches('`'));
        let answer = server.http("GET", "/health", &[&header]);
        assert_eq!(answer.status, 200, "{header}: {}", answer.body);
    }
    for other in ["https://example.com", "http://dash.example.com", "qrc://x", "file://x"] {
        let answer = server.http("GET", "/health", &[&format!("Origin: {other}")]);
        assert_eq!(answer.status, 403, "{other}");
    }
    let folder = tempfile::tempdir().unwrap();
    for row in table(&page, "What no browser", "| `--allow-origin` | reason |") {
        let value = row[0].trim_matches('`');
        let (status, _, said) = run(folder.path(), &["serve", "--allow-origin", value]);
        assert_eq!(status, 2, "{value}: {said}");
        assert!(said.contains(row[1]), "{value}: {said}");
    }
}
