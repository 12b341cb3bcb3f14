//! `/api/machines` and `threadcast machines`: what is known of every machine, across restarts, and while the rest
//! stands still.

use crate::support::{TestServer, eventually, pause, state_change};
use serde_json::Value;
use std::time::Duration;

/// What `/api/machines` says, with this query.
#[track_caller]
fn survey(server: &TestServer, query: &str) -> Value {
    let answer = server.http("GET", &format!("/api/machines{query}"), &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// The row of a machine, once there is one that `is_it` takes.
#[track_caller]
fn row(server: &TestServer, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{name} is as it should be"), || {
        let mut document = survey(server, "");
        let rows = document["machines"].as_array_mut().unwrap();
        let row = rows.iter_mut().find(|row| row["machine_name"] == name)?;
        is_it(row).then(|| row.take())
    })
}

fn seconds(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

#[test]
fn the_rate_of_a_machine_rises_and_falls_to_nothing_when_it_is_silent() {
    let server = TestServer::start(&[]);
    let sender = server.sender();
    sender.send(&state_change("m", "a", "b", 1.0)).unwrap();
    // Without a state, they count all the same.
    for _ in 0..40 {
        sender
            .send(br#"{"machine_name": "m", "type": "note", "payload": {}}"#)
            .unwrap();
    }
    let busy = row(&server, "m", |row| seconds(row, "events_per_second") >= 4.0);
    assert_eq!(
        (&busy["last_trigger"], &busy["current_state"]),
        (&"t".into(), &"b".into())
    );
    let silent = row(&server, "m", |row| row["events_per_second"] == 0.0);
    assert!(seconds(&silent, "last_event_seconds") > 5.0, "{silent}");
    assert!(
        seconds(&silent, "state_seconds") >= seconds(&silent, "last_event_seconds"),
        "{silent}"
    );
}

#[test]
fn time_in_a_state_counts_on_over_a_restart_and_a_kill() {
    let mut server = TestServer::start(&[]);
    server.send(state_change("m", "a", "b", 1.0));
    row(&server, "m", |row| seconds(row, "state_seconds") >= 1.0);
    // Only its last event is newer now.
    server.send(r#"{"machine_name": "m", "type": "note", "payload": {}}"#);
    let before = row(&server, "m", |row| {
        seconds(row, "last_event_seconds") + 0.9 <= seconds(row, "state_seconds")
    });
    assert_eq!(server.stop().code(), Some(0));
    pause(Duration::from_millis(300));
    let mut server = TestServer::start_in(server.folder(), &[]);
    let after = row(&server, "m", |_| true);
    for key in ["state_seconds", "last_event_seconds"] {
        let more = seconds(&after, key) - seconds(&before, key);
        assert!((0.3..30.0).contains(&more), "{key}: {before} {after}");
    }
    assert!(
        seconds(&after, "state_seconds") >= seconds(&after, "last_event_seconds") + 0.9,
        "{after}"
    );
    assert_eq!(
        (&after["last_trigger"], &after["events_per_second"]),
        (&"t".into(), &0.0.into())
    );
    server.signal(rustix::process::Signal::KILL);
    server.wait_for_end(crate::support::DEADLINE);
    let server = TestServer::start_in(server.folder(), &[]);
    assert!(seconds(&row(&server, "m", |_| true), "state_seconds") > seconds(&after, "state_seconds"));
}

#[test]
fn a_query_gives_some_of_them_and_the_totals_of_all() {
    let server = TestServer::start(&[]);
    for name in ["worker-1", "worker-2", "db"] {
        server.send(state_change(name, "a", "b", 1.0));
    }
    row(&server, "db", |_| true);
    for (query, names) in [
        ("?machine=worker-*", &["worker-1", "worker-2"][..]),
        ("?machine=db,worker-2", &["db", "worker-2"]),
        ("?machine=%64b&x=1", &["db"]),
        ("?machine=nobody", &[]),
    ] {
        let document = survey(&server, query);
        let rows = document["machines"].as_array().unwrap();
        let seen: Vec<&str> = rows.iter().map(|row| row["machine_name"].as_str().unwrap()).collect();
        assert_eq!(seen, names, "{query}");
        assert_eq!(document["totals"]["machines"], 3);
    }
    let refused = server.http("GET", "/api/machines?machine=a,,b", &[]);
    assert!(
        refused.status == 400 && refused.body.contains("a pattern for machine is empty"),
        "{}",
        refused.body
    );
}

#[test]
fn a_fanout_that_stands_still_is_named() {
    let server = TestServer::start(&["--allow-drill"]);
    assert_eq!(server.act("/drill?component=fanout&ms=60000").status, 200);
    let answer = eventually("it stands still", || {
        let answer = server.http("GET", "/api/machines", &[]);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("the fan-out did not answer within 2s"),
        "{}",
        answer.body
    );
    assert_eq!(server.act("/drill?component=fanout&ms=0").status, 200);
    eventually("it goes on", || {
        (server.http("GET", "/api/machines", &[]).status == 200).then_some(())
    });
}

#[test]
fn however_many_ask_the_list_is_made_once_a_second() {
    let server = TestServer::start(&[]);
    server.send(state_change("m", "a", "b", 1.0));
    row(&server, "m", |_| true);
    let (begun, mut numbers) = (std::time::Instant::now(), std::collections::BTreeSet::new());
    let sender = server.sender();
    for _ in 0..100 {
        sender.send(&state_change("m", "a", "b", 1.0)).unwrap();
        numbers.insert(survey(&server, "")["seq"].as_u64().unwrap());
    }
    let most = begun.elapsed().as_secs() + 2;
    assert!(numbers.len() as u64 <= most, "{numbers:?} in {:?}", begun.elapsed());
}
