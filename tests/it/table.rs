//! Guards the bounds of the machine table, and what clients get of a large one.

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
    taken_in(server, sent)
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
            &crate::support::client::Options {
                target: "/ws/events?machine=machine-11*".to_owned(),
                ..Default::default()
            },
        );
        let initial = filtered.json();
        let shown = names(&initial);
        assert_eq!(shown.len(), 1000);
        assert!(shown.is_sorted() && initial["machines_left_out"].is_null());
    });
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
