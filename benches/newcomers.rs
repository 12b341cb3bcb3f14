//! What a large machine table costs: its memory, and the time and memory of clients that join.
//!
//! `cargo bench --bench newcomers` fills the table of a server with 20,000 machines, then with 1,000,000 names:
//!
//! - `initial`: from the beginning of the connection to the last byte of the last message, in milliseconds; the median
//!   and the most of 50 clients, one after the other. Before each one a machine changes its state, so that the fan-out
//!   copies the rows anew. `/initial` is the page.
//! - `copy`: the longest that the fan-out took for a copy, as the server itself has seen it, in milliseconds.
//! - `reads nothing`: memory for each of 100 `threadcast.v1` clients that read nothing, in KiB: if all of them joined at
//!   one state of the table, and if a machine changed its state between each two.
//! - `flood`: microseconds for each of 1,000,000 names of which 20,000 have room, and the memory that the server then
//!   has more than an idle one, in MiB. The sender waits for the server every 10,000 names.
//!
//! Every client must get every row that it wants: else the bench fails.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "as in the tests whose harness this is; its output is what a bench is for"
)]

#[path = "../tests/it"]
mod it {
    #[allow(unused_imports, reason = "this uses a part of the harness")]
    pub mod support;
}

use it::support;
use std::time::{Duration, Instant};
use support::client::Options;
use support::{TestClient, TestServer, state_change, within};

const MACHINES: usize = 20_000;
const NAMES: usize = 1_000_000;
const NEWCOMERS: usize = 50;
const SILENT: usize = 100;
/// The sender is at most twice this ahead of the table.
const AHEAD: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let server = server();
    let before = server.resident_bytes();
    fill(&server, MACHINES);
    println!("{MACHINES} machines: {:.1} MiB", mib(server.resident_bytes() - before));
    println!("             median ms  most ms  bytes");
    for (name, v1, query, rows) in [
        ("plain", false, "", None),
        ("v1", true, "", Some(MACHINES)),
        ("v1, a half", true, "machine=worker-0*", Some(MACHINES / 2)),
    ] {
        print(name, |number| {
            change(&server, number);
            let begun = Instant::now();
            let mut client = client(&server, v1, query, None);
            let (seen, bytes) = initial(&mut client, v1);
            assert!(rows.is_none_or(|rows| rows == seen), "{seen} rows");
            (begun.elapsed(), bytes)
        });
    }
    print("/initial", |number| {
        change(&server, number);
        let begun = Instant::now();
        let bytes = server.http("GET", "/initial", &[]).body.len();
        (begun.elapsed(), bytes)
    });
    let slow = server.health()["slow_operations"]["snapshot"].clone();
    println!("copy: {} ms at most", slow["max_ms"]);
    for changes in [false, true] {
        let each = silent(changes);
        let what = if changes {
            "a change between each two"
        } else {
            "one state"
        };
        println!("reads nothing, {what}: {each} KiB each");
    }
    flood();
}

fn server() -> TestServer {
    TestServer::start(&[
        "--history-bytes",
        "0",
        "--send-timeout",
        "600s",
        "--pong-timeout",
        "600s",
    ])
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Sends an event of each of so many machines, and waits until the table has them.
fn fill(server: &TestServer, count: usize) {
    let sender = server.sender();
    for number in 0..count {
        sender
            .send(&state_change(
                &format!("worker-{number:05}"),
                "idle",
                "working",
                1_795_393_481.688_681,
            ))
            .unwrap();
        if number % AHEAD == AHEAD - 1 {
            taken_in(server, (number + 1).saturating_sub(AHEAD));
        }
    }
    taken_in(server, count);
}

fn taken_in(server: &TestServer, count: usize) {
    within(PATIENCE, "events are taken in", || {
        (server.health()["events_forwarded"].as_u64() >= Some(count as u64)).then_some(())
    });
}

/// A machine changes its state, and the table has it.
fn change(server: &TestServer, number: usize) {
    let seq = server.health()["seq"].as_u64();
    server.send(state_change("worker-00007", "idle", &format!("state-{number}"), 1.5));
    within(PATIENCE, "the event is taken in", || {
        (server.health()["seq"].as_u64() > seq).then_some(())
    });
}

fn client(server: &TestServer, v1: bool, query: &str, receive_buffer: Option<usize>) -> TestClient {
    let header = v1.then(|| "Sec-WebSocket-Protocol: threadcast.v1".to_owned());
    let options = Options {
        target: format!("/ws/events?{query}"),
        receive_buffer,
        headers: header.into_iter().collect(),
        ..Options::default()
    };
    TestClient::with(server.address, &options)
}

/// Reads an `initial` to its end: rows and bytes.
fn initial(client: &mut TestClient, v1: bool) -> (usize, usize) {
    if v1 {
        client.text();
    }
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let text = client.text();
        bytes += text.len();
        rows += text.matches("{\"machine_name\":").count();
        let part = |key: &str| text.split(key).nth(1)?.split(',').next();
        if !v1 || part("\"part\":") == part("\"parts\":") {
            return (rows, bytes);
        }
    }
}

fn print(name: &str, mut join: impl FnMut(usize) -> (Duration, usize)) {
    let mut seen: Vec<(Duration, usize)> = (0..NEWCOMERS).map(&mut join).collect();
    seen.sort_unstable();
    let millis = |index: usize| seen[index].0.as_secs_f64() * 1000.0;
    println!(
        "{name:<12} {:9.1} {:8.1} {:6}",
        millis(NEWCOMERS / 2),
        millis(NEWCOMERS - 1),
        seen[0].1
    );
}

/// Memory for each client that reads nothing, in KiB.
fn silent(changes: bool) -> usize {
    let server = server();
    fill(&server, MACHINES);
    drop(client(&server, true, "", None));
    let before = server.resident_bytes();
    let clients: Vec<TestClient> = (0..SILENT)
        .map(|number| {
            if changes {
                change(&server, number);
            }
            client(&server, true, "", Some(4096))
        })
        .collect();
    // Each has its first part in hand when it has filled its socket.
    within(PATIENCE, "all are joined", || {
        (server.health()["connections"].as_u64() >= Some(SILENT as u64)).then_some(())
    });
    let added = server.resident_bytes().saturating_sub(before);
    drop(clients);
    added / SILENT / 1024
}

fn flood() {
    let server = server();
    let before = server.resident_bytes();
    let begun = Instant::now();
    fill(&server, NAMES);
    let each = begun.elapsed().as_secs_f64() * 1e6 / NAMES as f64;
    let added = mib(server.resident_bytes().saturating_sub(before));
    let health = server.health();
    println!(
        "flood: {each:.1} us for each of {NAMES} names, {added:.1} MiB; {} stay, {} left",
        health["machines"], health["machines_evicted"]
    );
}
