//! Guards the bounds of the machine table, and what clients get of a large one.

use crate::notices::v1_options;
use crate::support::client::Options;
use crate::support::server::run;
use crate::support::{TestClient, TestServer, eventually, in_both_shapes, numbered, state_change};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most bytes of a message that Python's client takes.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
const MIB: usize = 1024 * 1024;

/// Waits until so many events, none of which may be lost, have gone out; gives `/health` of then.
#[track_caller]
fn taken_in(server: &TestServer, count: usize) -> Value {
    let health = eventually("events are taken in", || {
        Some(server.health()).filter(|health| health["events_forwarded"].as_u64() >= Some(count as u64))
    });
    assert_eq!(health["events_dropped"]["queue_full"], 0, "{health}");
    health
}

/// Sends an event of each of these machines, and waits until the table has them; gives `/health` of then.
#[track_caller]
fn fill(server: &TestServer, names: impl Iterator<Item = String>) -> Value {
    /// The sender is at most twice this ahead of the table, so that the queue between never fills: that is not the
    /// subject.
    const AHEAD: usize = 10_000;
    let sender = server.sender();
    let before = server.health()["events_forwarded"].as_u64().unwrap() as usize;
    let mut sent = before;
    for name in names {
        if (sent - before) % AHEAD == AHEAD - 1 {
            taken_in(server, sent.saturating_sub(AHEAD).max(before));
        }
        sender.send(&state_change(&name, "a", "b", 1.5)).unwrap();
        sent += 1;
    }
    taken_in(server, sent);
    // Its turn is over when it answers; then the gauges are those of all events.
    server.initial();
    server.health()
}

/// The names of the rows of an `initial`.
fn names(initial: &Value) -> Vec<&str> {
    let rows = initial["machines"].as_array().unwrap();
    rows.iter().map(|row| row["machine_name"].as_str().unwrap()).collect()
}

#[test]
fn a_million_machine_names_take_no_more_memory_than_the_table_may() {
    // What a usual machine takes, and the queue between the sender and the table.
    const BESIDES: usize = 16 * MIB;
    for (flags, count, bound) in [
        (&[][..], 1_000_000, 32 * MIB),
        (
            &["--max-machines", "200000", "--machine-bytes", "8MiB"],
            300_000,
            8 * MIB,
        ),
    ] {
        let server = TestServer::start(&[&["--history-bytes", "0"], flags].concat());
        let before = server.resident_bytes();
        let health = fill(&server, (0..count).map(|number| format!("m{number}")));
        let kept = health["machines"].as_u64().unwrap();
        assert_eq!(kept + health["machines_evicted"].as_u64().unwrap(), count);
        let added = server.resident_bytes().saturating_sub(before);
        eprintln!("{flags:?}: {} KiB for {kept} machines", added / 1024);
        assert!(added < bound + BESIDES, "{flags:?}: {added} bytes for {kept} machines");
        let lines = server.lines().with("the machine table is full").len();
        assert!((1..=200).contains(&lines), "{lines} lines tell of it");
        let mut client = TestClient::connect(server.address);
        assert!(client.text().len() < MESSAGE_BYTES_MAX);
        server.send(numbered(0, 100));
        client.expect_numbers(0..1);
    }
}

#[test]
fn a_plain_initial_has_the_newest_of_a_large_table_and_counts_the_rest() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        const MACHINES: usize = 12_000;
        // Greater names are older, so the order of names would show others.
        let name = |number: usize| format!("machine-{:05}", MACHINES - number);
        let health = fill(&server, (0..MACHINES).map(name));
        assert_eq!(health["machines"], MACHINES, "the table has all of them");
        assert_eq!(health["machines_evicted"], 0);
        let mut client = TestClient::connect(server.address);
        let text = client.text();
        assert!(text.len() < MESSAGE_BYTES_MAX, "{}", text.len());
        assert!(text.len() > MESSAGE_BYTES_MAX - 2048, "{} is too little", text.len());
        let initial: Value = serde_json::from_str(&text).unwrap();
        let shown = names(&initial);
        let left_out = MACHINES - shown.len();
        assert_eq!(initial["machines_left_out"], left_out);
        assert_eq!(server.health()["machines_left_out"], left_out);
        let newest: BTreeSet<String> = (left_out..MACHINES).map(name).collect();
        // Machines of one turn are heard of at the same moment.
        let strangers = shown.iter().filter(|shown| !newest.contains(**shown)).count();
        assert!(strangers < 600, "{strangers} of {} are not the newest", shown.len());
        client.send_text("refresh");
        assert!(client.text() == text || client.text().len() < MESSAGE_BYTES_MAX);
        let page = server.initial();
        assert_eq!(
            (names(&page).len(), &page["machines_left_out"]),
            (shown.len(), &left_out.into())
        );
        // One that was left out is heard of again.
        server.send(state_change(&name(0), "b", "c", 2.0));
        eventually("it comes first", || {
            (names(&server.initial())[0] == name(0)).then_some(())
        });
        // With fewer rows all of them come, by name.
        let mut filtered = TestClient::with(
            server.address,
            &Options {
                target: "/ws/events?machine=machine-11*".to_owned(),
                ..Options::default()
            },
        );
        let initial = filtered.json();
        let shown = names(&initial);
        assert_eq!(shown.len(), 1000);
        assert!(shown.is_sorted() && initial["machines_left_out"].is_null());
    });
}

/// A `threadcast.v1` client that reads slowly, if `slow`.
fn v1_client(server: &TestServer, query: &str, slow: bool) -> TestClient {
    let options = Options {
        receive_buffer: slow.then_some(4096),
        ..v1_options(&format!("/ws/events?{query}"))
    };
    TestClient::with(server.address, &options)
}

/// Reads an `initial` to its last part, with `first` before it; gives the names of its rows and its number.
#[track_caller]
fn whole_initial(client: &mut TestClient, first: &[&str]) -> (Vec<String>, u64) {
    for kind in first {
        assert_eq!(client.json()["type"], *kind);
    }
    let (mut all, mut last) = (Vec::new(), 0);
    loop {
        let text = client.text();
        assert!(text.len() < 256 * 1024, "a part of {} bytes", text.len());
        let part: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&part["type"], &part["part"]),
            (&"initial".into(), &(last + 1).into()),
            "{text:.100}"
        );
        assert!(part["machines_left_out"].is_null());
        all.extend(names(&part).into_iter().map(str::to_owned));
        last += 1;
        if part["part"] == part["parts"] {
            return (all, part["seq"].as_u64().unwrap());
        }
    }
}

#[test]
fn a_numbered_initial_has_every_row_in_parts_and_what_follows_comes_behind_the_last() {
    in_both_shapes(|delivery| {
        const MACHINES: usize = 12_000;
        let server = TestServer::start(&["--delivery", delivery, "--send-timeout", "60s"]);
        let name = |number: usize| format!("machine-{number:05}");
        fill(&server, (0..MACHINES).map(name));
        let all: Vec<String> = (0..MACHINES).map(name).collect();
        // It reads nothing while events come, so that parts wait in its thread.
        let mut slow = v1_client(&server, "", true);
        let mut filtered = v1_client(&server, "machine=machine-0*,load", false);
        let mut quick = v1_client(&server, "", false);
        let (rows, seq) = whole_initial(&mut quick, &["hello"]);
        assert!(rows == all && seq == MACHINES as u64);
        for number in 0..100 {
            server.send(numbered(number, 200));
        }
        quick.send_text("refresh");
        for (client, all) in [(&mut slow, &all[..]), (&mut filtered, &all[..10_000])] {
            let (rows, seq) = whole_initial(client, &["hello"]);
            assert!(rows == all, "{} rows", rows.len());
            assert_eq!(seq, MACHINES as u64);
            for number in seq + 1..=seq + 100 {
                let mut messages = std::iter::repeat_with(|| client.json());
                let event = messages.find(|message| message["type"] != "lag");
                assert_eq!(event.unwrap()["seq"], number);
            }
        }
        // A fresh one comes between events, as of its number.
        let (mut seq, mut refreshed) = (MACHINES as u64, false);
        while seq < MACHINES as u64 + 100 || !refreshed {
            let message = quick.json();
            if message["type"] == "initial" {
                refreshed = message["part"] == message["parts"];
                assert_eq!(message["seq"], seq);
            } else {
                seq += 1;
                assert_eq!(message["seq"], seq);
            }
        }
    });
}

#[test]
fn clients_that_read_nothing_hold_a_part_each_of_a_large_table() {
    const CLIENTS: usize = 100;
    let server = TestServer::start(&["--send-timeout", "600s", "--pong-timeout", "600s"]);
    fill(&server, (0..20_000).map(|number| format!("machine-{number:05}")));
    let before = server.resident_bytes();
    let query = |number: usize| if number.is_multiple_of(2) { "" } else { "machine=m*" };
    let mut clients: Vec<TestClient> = (0..CLIENTS)
        .map(|number| {
            // So that each begins with another copy of the table.
            server.send(state_change("machine-00007", "a", &number.to_string(), 2.0));
            taken_in(&server, 20_001 + number);
            v1_client(&server, query(number), true)
        })
        .collect();
    eventually("all are joined", || {
        (server.health()["connections"] == CLIENTS).then_some(())
    });
    let added = server.resident_bytes().saturating_sub(before);
    eprintln!("{CLIENTS} clients that read nothing: {} KiB", added / 1024);
    assert!(added < 16 * MIB + CLIENTS * MIB / 2, "{added}");
    for client in &mut clients[..2] {
        assert_eq!(whole_initial(client, &["hello"]).0.len(), 20_000);
    }
}

#[test]
fn tail_counts_the_machines_of_all_parts() {
    let server = TestServer::start(&[]);
    fill(&server, (0..5_000).map(|number| format!("machine-{number:05}")));
    let url = format!("ws://{}/ws/events", server.address);
    let (code, _, said) = run(server.folder().path(), &["tail", "--url", &url, "--duration", "2s"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("5000 machines: machine-00000 b, "), "{said}");
}

#[test]
fn the_machines_silent_longest_leave_a_full_table_and_it_is_told() {
    let mut server = TestServer::start(&["--max-machines", "160"]);
    fill(&server, (0..160).map(|number| format!("m{number:03}")));
    // The oldest is heard of again, without a state.
    server.send(r#"{"machine_name": "m000", "type": "note"}"#);
    let health = fill(&server, ["new".to_owned()].into_iter());
    assert_eq!(
        (&health["machines"], &health["machines_evicted"]),
        (&150.into(), &11.into())
    );
    server.wait_for_line(
        "the machine table is full (--max-machines, --machine-bytes): 11 machines that were silent longest left it",
    );
    let initial = server.initial();
    let names = names(&initial);
    assert!(
        names.contains(&"m000") && names.contains(&"new") && names.contains(&"m159"),
        "{names:?}"
    );
    // A start with less room keeps the newest, and says so.
    assert!(server.stop().success());
    let server = TestServer::start_in(server.folder(), &["--max-machines", "16"]);
    server.wait_for_line("more that were silent longest have no room (--max-machines, --machine-bytes)");
    let initial = server.initial();
    let kept = crate::table::names(&initial);
    assert!(
        (15..=16).contains(&kept.len()) && kept.contains(&"m159") && kept.contains(&"new"),
        "{kept:?}"
    );
    assert_eq!(server.health()["machines"], kept.len());
}
