//! Events that engines could not send, and wrote into their database instead, reach everybody: in order, once each,
//! with the bytes that they would have had, and without turning back what is shown.

use crate::support::client::Options;
use crate::support::engine_db::{DEFAULT_PATH, EngineDb, card, cards, epoch};
use crate::support::{DEADLINE, TestClient, TestServer, eventually, in_both_shapes_at_once, numbered, state_change};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use tempfile::TempDir;

/// A client of `threadcast.v1` that goes on after `since`, or has read its `initial`; and the epoch.
#[track_caller]
fn v1(server: &TestServer, since: Option<&str>) -> (TestClient, String) {
    let since = since.map_or(String::new(), |since| format!("?since={since}"));
    let options = Options {
        target: format!("/ws/events{since}"),
        headers: vec!["Sec-WebSocket-Protocol: threadcast.v1".to_owned()],
        ..Options::default()
    };
    let mut client = TestClient::with(server.address, &options);
    let hello = client.json();
    assert_eq!(hello["type"], "hello");
    if since.is_empty() {
        assert_eq!(client.json()["type"], "initial");
    }
    (client, hello["epoch"].as_str().unwrap().to_owned())
}

/// A folder for a server, with a database in which one machine is.
#[track_caller]
fn in_folder() -> (Arc<TempDir>, EngineDb) {
    let (folder, db) = EngineDb::in_folder();
    db.machine("~first", "s", epoch(), None, None);
    (folder, db)
}

/// The next event of a `threadcast.v1` client: the text before the event itself, and the event. Skips states, and what
/// only tells how far it is or that a server was killed.
#[track_caller]
fn v1_event(client: &mut TestClient) -> (String, String) {
    loop {
        let text = client.text();
        if let Some((head, event)) = text.split_once(",\"event\":") {
            return (head.to_owned(), event.strip_suffix('}').unwrap().to_owned());
        }
        let kind: Value = serde_json::from_str(&text).unwrap();
        let harmless = ["initial", "behind", "live", "ping"];
        let killed = kind["cause"] == "restart";
        assert!(killed || harmless.iter().any(|known| kind["type"] == *known), "{text}");
    }
}

/// An engine could not send an event made by `numbered`.
fn refuse_numbered(db: &EngineDb, number: usize) {
    db.refused("load", "tick", &format!("{{\"n\": {number}, \"pad\": \"\"}}"));
}

/// The payload of a `state_change`, and the whole event.
fn change(machine: &str, from: &str, to: &str, timestamp: f64) -> (String, String) {
    let event = String::from_utf8(state_change(machine, from, to, timestamp)).unwrap();
    let (_, payload) = event.split_once("\"payload\": ").unwrap();
    (payload.strip_suffix('}').unwrap().to_owned(), event)
}

/// So many events were recovered. They are counted when they have been given out.
#[track_caller]
fn recovered(server: &TestServer, events: usize) {
    let count = || server.health()["engine_db"]["recovered"].as_u64().unwrap() as usize;
    eventually("they are counted", || (count() >= events).then_some(()));
    assert_eq!(count(), events);
}

#[test]
fn an_event_that_could_not_be_sent_has_the_bytes_that_it_would_have_had() {
    in_both_shapes_at_once(|delivery| {
        let (folder, db) = in_folder();
        let server = TestServer::start_in(folder, &["--delivery", delivery]);
        let (mut plain, (mut marked, _)) = (server.client(), v1(&server, None));
        let name = "p\u{e4}iv\u{e4} \"q\" \\ / \n\t\u{8}\u{c}\r\u{1}\u{7f} 🚀";
        // As Python's json.dumps writes it.
        let python = r#""p\u00e4iv\u00e4 \"q\" \\ / \n\t\b\f\r\u0001\u007f \ud83d\ude80""#;
        let payload = r#"{"b":1.50,  "a": ["\u00e9", "é", 1e0], "b": null}"#;
        let event = format!("{{\"machine_name\": {python}, \"type\": \"\\u00e9tape\", \"payload\": {payload}}}");
        db.refused(name, "étape", payload);
        assert_eq!(plain.text(), event);
        let head = format!(
            "{{\"seq\":1,\"machine\":{},\"type\":\"étape\",\"recovered\":true",
            json!(name)
        );
        let (got_head, got_event) = v1_event(&mut marked);
        assert_eq!(got_event, event);
        // Their own spelling of the name is the server's matter.
        let as_json = |head: &str| serde_json::from_str::<Value>(&format!("{head}}}")).unwrap();
        assert_eq!(as_json(&got_head), as_json(&head));
        assert!(
            got_head.starts_with("{\"seq\":1,\"machine\":") && got_head.ends_with(",\"recovered\":true"),
            "{got_head}"
        );

        // What comes by the socket has no mark.
        server.send(numbered(0, 0));
        plain.expect_numbers(0..1);
        let (head, _) = v1_event(&mut marked);
        assert_eq!(head, "{\"seq\":2,\"machine\":\"load\",\"type\":\"tick\"");
    });
}

#[test]
fn events_come_in_order_and_once_each() {
    const COUNT: usize = 500;
    let (folder, db) = in_folder();
    let server = TestServer::start_in(folder, &[]);
    let (mut plain, (mut marked, _)) = (server.client(), v1(&server, None));
    for part in 0..5 {
        db.execute("BEGIN");
        (0..COUNT / 5).for_each(|number| refuse_numbered(&db, part * COUNT / 5 + number));
        db.execute("COMMIT");
    }
    plain.expect_numbers(0..COUNT);
    server.wait_for_line("events that engines could not send were recovered from data/pipeline.db");
    // They are still there, and read again.
    db.is_read_by(&server);
    db.is_read_by(&server);
    refuse_numbered(&db, COUNT);
    plain.expect_numbers(COUNT..COUNT + 1);
    server.send(numbered(COUNT + 1, 0));
    plain.expect_numbers(COUNT + 1..COUNT + 2);
    for number in 0..=COUNT {
        let (head, event) = v1_event(&mut marked);
        let expected = format!(
            "{{\"seq\":{},\"machine\":\"load\",\"type\":\"tick\",\"recovered\":true",
            number + 1
        );
        assert_eq!((head, event.into_bytes()), (expected, numbered(number, 0)));
    }
    recovered(&server, COUNT + 1);
    let told = server.lines().with("↩️ ");
    assert!(told.len() >= 2, "{told:?}");
}

#[test]
fn an_event_that_is_deleted_brings_back_no_other() {
    let (folder, db) = in_folder();
    let server = TestServer::start_in(folder, &[]);
    let mut client = server.client();
    db.execute("BEGIN");
    (0..3).for_each(|number| refuse_numbered(&db, number));
    db.execute("COMMIT");
    client.expect_numbers(0..3);
    db.execute("DELETE FROM realtime_events WHERE id = 3");
    // Twice, because events are read before machines.
    db.is_read_by(&server);
    db.is_read_by(&server);
    refuse_numbered(&db, 3);
    client.expect_numbers(3..4);
    db.execute("DELETE FROM realtime_events");
    db.is_read_by(&server);
    db.is_read_by(&server);
    refuse_numbered(&db, 4);
    client.expect_numbers(4..5);
    recovered(&server, 5);
}

#[test]
fn with_a_journal_a_kill_right_after_a_recovery_repeats_nothing() {
    let flags = ["--journal", "journal"];
    let (folder, db) = in_folder();
    let mut server = TestServer::start_in(folder, &flags);
    let (mut client, epoch) = v1(&server, None);
    // Long enough that the state file has a position.
    db.is_read_by(&server);
    db.is_read_by(&server);
    (0..3).for_each(|number| refuse_numbered(&db, number));
    (0..3).for_each(|_| drop(v1_event(&mut client)));
    eventually("they are in the journal", || {
        (server.health()["journal"]["events"] == 3).then_some(())
    });
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let server = TestServer::start_in(server.folder(), &flags);
    let (mut client, _) = v1(&server, Some(&format!("{epoch}:0")));
    db.is_read_by(&server);
    refuse_numbered(&db, 3);
    for number in 0..4 {
        let (_, event) = v1_event(&mut client);
        assert_eq!(String::from_utf8(numbered(number, 0)).unwrap(), event);
    }
    recovered(&server, 1);
}

#[test]
fn what_was_consumed_or_is_older_than_the_server_is_not_sent() {
    let (folder, db) = in_folder();
    refuse_numbered(&db, 90);
    db.execute("UPDATE realtime_events SET created_at = datetime('now', '-1 hour')");
    refuse_numbered(&db, 91);
    db.execute("UPDATE realtime_events SET consumed = 1, consumed_at = CURRENT_TIMESTAMP, created_at = datetime('now', '+1 hour') WHERE id = 2");
    let server = TestServer::start_in(folder, &[]);
    let mut client = server.client();
    db.is_read_by(&server);
    refuse_numbered(&db, 0);
    client.expect_numbers(0..1);
    // From now on the id decides: the engine's clock may have been set.
    refuse_numbered(&db, 1);
    db.execute("UPDATE realtime_events SET created_at = datetime('now', '-1 hour') WHERE id = 4");
    db.is_read_by(&server);
    db.execute("BEGIN");
    refuse_numbered(&db, 92);
    db.execute("UPDATE realtime_events SET consumed = 1, consumed_at = CURRENT_TIMESTAMP WHERE id = 5");
    refuse_numbered(&db, 2);
    db.execute("COMMIT");
    client.expect_numbers(1..3);
    recovered(&server, 3);
}

#[test]
fn a_restart_repeats_nothing_and_misses_nothing() {
    let (folder, db) = in_folder();
    let mut server = TestServer::start_in(folder, &[]);
    let mut client = server.client();
    (0..3).for_each(|number| refuse_numbered(&db, number));
    client.expect_numbers(0..3);
    assert_eq!(server.stop().code(), Some(0));

    let mut server = TestServer::start_in(server.folder(), &[]);
    let mut client = server.client();
    db.is_read_by(&server);
    recovered(&server, 0);
    refuse_numbered(&db, 3);
    client.expect_numbers(3..4);
    let state = server.path("logs/threadcast-state.json");
    let about = fs::metadata(db.path()).unwrap();
    eventually("the position is saved", || {
        let state: Value = serde_json::from_slice(&fs::read(&state).ok()?).unwrap();
        let kept = &state["engine_db"];
        let file = format!("{}:{}", about.dev(), about.ino());
        (kept["file"] == file && kept["events"] == 4).then_some(())
    });
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);

    let server = TestServer::start_in(server.folder(), &[]);
    let mut client = server.client();
    db.is_read_by(&server);
    refuse_numbered(&db, 4);
    client.expect_numbers(4..5);
    recovered(&server, 1);
}

#[test]
fn with_a_journal_what_was_refused_while_no_server_ran_comes_and_keeps_its_mark() {
    comes_and_keeps_its_mark(&["--journal", "journal"], true);
}

#[test]
fn with_a_journal_alone_what_was_refused_while_no_server_ran_comes() {
    // By the time of the journal's last event. How far it was recovered nobody knows at the next start.
    comes_and_keeps_its_mark(&["--journal", "journal", "--state-file", "none"], false);
}

fn comes_and_keeps_its_mark(flags: &[&str], again: bool) {
    let (folder, db) = in_folder();
    let mut server = TestServer::start_in(folder, flags);
    let (mut client, epoch) = v1(&server, None);
    server.send(numbered(0, 0));
    v1_event(&mut client);
    eventually("it is in the journal", || {
        (server.health()["journal"]["events"] == 1).then_some(())
    });
    assert_eq!(server.stop().code(), Some(0));
    (1..4).for_each(|number| refuse_numbered(&db, number));

    let all = |server: &TestServer| {
        let since = format!("{epoch}:0");
        let (mut client, _) = v1(server, Some(&since));
        let seqs: Vec<u64> = (0..4)
            .map(|number| {
                let (head, event) = v1_event(&mut client);
                assert_eq!(event.as_bytes(), numbered(number, 0));
                assert_eq!(head.contains(",\"recovered\":true"), number > 0, "{head}");
                let head: Value = serde_json::from_str(&format!("{head}}}")).unwrap();
                head["seq"].as_u64().unwrap()
            })
            .collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
        // The same bytes as ever for a plain client that goes on.
        let options = Options {
            target: format!("/ws/events?since={since}"),
            ..Options::default()
        };
        TestClient::with(server.address, &options).expect_numbers(0..4);
    };
    let mut server = TestServer::start_in(server.folder(), flags);
    all(&server);
    recovered(&server, 3);
    eventually("they are in the journal", || {
        (server.health()["journal"]["events"] == 3).then_some(())
    });
    assert_eq!(server.stop().code(), Some(0));
    if !again {
        return;
    }

    let server = TestServer::start_in(server.folder(), flags);
    db.is_read_by(&server);
    all(&server);
    recovered(&server, 0);
    refuse_numbered(&db, 4);
    recovered(&server, 1);
}

#[test]
fn what_is_no_event_is_counted_and_holds_nothing_up() {
    let (folder, db) = in_folder();
    let server = TestServer::start_in(folder, &["--max-event-bytes", "4KiB"]);
    let mut plain = server.client();
    let (mut marked, _) = v1(&server, None);
    db.execute("BEGIN");
    db.refused("m", "x", "{\"a\": NaN}");
    db.refused("m", "x", "{");
    db.refused("m", "initial", "{}");
    db.refused("m", "x", &format!("{{\"pad\": \"{}\"}}", "x".repeat(5000)));
    refuse_numbered(&db, 0);
    db.execute("COMMIT");
    plain.expect_numbers(0..1);
    db.is_read_by(&server);
    let dropped = server.health()["events_dropped"].take();
    assert_eq!(
        (&dropped["not_json"], &dropped["reserved_type"], &dropped["too_large"]),
        (&2.into(), &1.into(), &1.into()),
        "{dropped}"
    );
    let mut lost = 0;
    let last = loop {
        let message = marked.json();
        if message["type"] == "gap" {
            lost += message["count"].as_u64().unwrap()
        } else {
            break message;
        }
    };
    assert_eq!(
        (lost, &last["seq"], &last["recovered"]),
        (4, &5.into(), &true.into()),
        "{last}"
    );
    assert_eq!(server.health()["status"], "ok");
}

/// The next message of a plain client is an event, as it was sent.
#[track_caller]
fn comes(client: &mut TestClient, event: &str) {
    assert_eq!(client.text(), event);
}

/// The next message is a state, in which machine `m` is in `state`, or is not at all.
#[track_caller]
fn fresh_state(client: &mut TestClient, state: Option<&str>) {
    let text = client.text();
    assert!(text.starts_with("{\"type\":\"initial\""), "{text}");
    let cards = cards(&text);
    let found: Vec<Value> = cards
        .iter()
        .map(|card| serde_json::from_str(card).unwrap())
        .filter(|card: &Value| card["machine_name"] == "m")
        .collect();
    let states: Vec<Option<&str>> = found.iter().map(|card| card["current_state"].as_str()).collect();
    assert_eq!(states, Vec::from_iter(state.map(Some)), "{text}");
}

#[track_caller]
fn state_of_m(server: &TestServer) -> Option<String> {
    let card: Value = serde_json::from_str(&card(server, "m")?).unwrap();
    Some(card["current_state"].as_str()?.to_owned())
}

#[test]
fn an_old_event_never_turns_back_what_is_shown() {
    in_both_shapes_at_once(|delivery| {
        let (folder, db) = in_folder();
        let server = TestServer::start_in(folder, &["--delivery", delivery]);
        let mut client = server.client();
        let now = epoch();
        let sent = change("m", "a", "b", now).1;
        server.send(&sent);
        comes(&mut client, &sent);

        // Older than what the client has: it is told the state anew, once, behind the last of them.
        let (old, older) = (change("m", "y", "z", now - 5.0), change("m", "x", "y", now - 6.0));
        db.execute("BEGIN");
        db.refused("m", "state_change", &older.0);
        db.refused("m", "state_change", &old.0);
        refuse_numbered(&db, 0);
        db.execute("COMMIT");
        comes(&mut client, &older.1);
        comes(&mut client, &old.1);
        client.expect_numbers(0..1);
        fresh_state(&mut client, Some("b"));
        assert_eq!(state_of_m(&server).as_deref(), Some("b"));

        // Newer: it counts, and nothing has to be said.
        let newer = change("m", "b", "c", now + 5.0);
        db.refused("m", "state_change", &newer.0);
        comes(&mut client, &newer.1);
        server.send(numbered(1, 0));
        client.expect_numbers(1..2);
        assert_eq!(state_of_m(&server).as_deref(), Some("c"));
    });
}

#[test]
fn an_old_end_ends_nothing_and_what_ended_stays_so() {
    let (folder, db) = in_folder();
    let server = TestServer::start_in(folder, &[]);
    let mut client = server.client();
    let now = epoch();
    let sent = change("m", "a", "b", now).1;
    server.send(&sent);
    comes(&mut client, &sent);
    let end = |timestamp: f64| {
        let payload = format!("{{\"machine_name\": \"m\", \"config_type\": \"conf\", \"timestamp\": {timestamp:?}}}");
        db.refused("m", "machine_terminated", &payload);
        format!("{{\"machine_name\": \"m\", \"type\": \"machine_terminated\", \"payload\": {payload}}}")
    };
    let old = end(now - 5.0);
    comes(&mut client, &old);
    fresh_state(&mut client, Some("b"));
    assert_eq!(state_of_m(&server).as_deref(), Some("b"));

    let newer = end(now + 5.0);
    comes(&mut client, &newer);
    server.send(numbered(0, 0));
    client.expect_numbers(0..1);
    assert_eq!(state_of_m(&server), None);

    // Of before its end.
    let late = change("m", "b", "c", now + 3.0);
    db.refused("m", "state_change", &late.0);
    comes(&mut client, &late.1);
    fresh_state(&mut client, None);
    assert_eq!(state_of_m(&server), None);
}

#[test]
fn events_of_another_file_in_its_place_are_read_from_its_beginning() {
    let (folder, db) = in_folder();
    let server = TestServer::start_in(folder, &[]);
    let mut client = server.client();
    (0..3).for_each(|number| refuse_numbered(&db, number));
    client.expect_numbers(0..3);
    drop(db);
    drop(EngineDb::create(server.path("other.db")));
    fs::rename(server.path("other.db"), server.path(DEFAULT_PATH)).unwrap();
    let db = EngineDb::open(server.path(DEFAULT_PATH));
    refuse_numbered(&db, 3);
    client.expect_numbers(3..4);
    db.is_read_by(&server);
    refuse_numbered(&db, 4);
    client.expect_numbers(4..5);
    recovered(&server, 5);
}

#[test]
fn without_the_database_nothing_is_recovered() {
    let (folder, db) = in_folder();
    let server = TestServer::start_in(folder, &["--db", "none"]);
    refuse_numbered(&db, 0);
    assert_eq!(server.health()["engine_db"], Value::Null);
    let mut client = server.client();
    server.send(numbered(1, 0));
    client.expect_numbers(1..2);
    assert_eq!(server.health()["events_received"], 1);
}
