//! Guards what a client gets that wants at most one state per machine and period: the last state of each machine,
//! everything else in its order, and a count of what is left out.

use crate::notices::v1_options;
use crate::support::client::Options;
use crate::support::server::run;
use crate::support::{TestClient, TestServer, eventually, in_both_shapes, pause, state_change};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn client(server: &TestServer, v1: bool, query: &str) -> TestClient {
    let target = format!("/ws/events?{query}");
    let options = if v1 {
        v1_options(&target)
    } else {
        Options {
            target,
            ..Options::default()
        }
    };
    let mut client = TestClient::with(server.address, &options);
    if v1 {
        assert_eq!(client.json()["type"], "hello");
    }
    client
}

/// The next message that is no ping.
fn next(client: &mut TestClient) -> Value {
    client.json()
}

/// The only client in `/status`.
fn status(server: &TestServer) -> Value {
    server.http("GET", "/status", &[]).json()["clients"][0].take()
}

/// Sends `count` changes of each of two machines, and a note behind every tenth.
fn send_many(server: &TestServer, count: usize) {
    let sender = server.sender();
    for number in 0..count {
        for machine in ["a", "b"] {
            sender
                .send(&state_change(machine, "x", &number.to_string(), 1.0))
                .unwrap();
        }
        if number % 10 == 9 {
            sender
                .send(br#"{"machine_name": "a", "type": "note", "payload": {}}"#)
                .unwrap();
        }
    }
}

#[test]
fn of_each_machine_the_last_state_of_a_period_comes_and_what_is_left_out_is_counted() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let mut client = client(&server, true, "conflate=500ms");
        assert_eq!(next(&mut client)["type"], "initial");
        const CHANGES: usize = 1000;
        let begun = Instant::now();
        send_many(&server, CHANGES);
        let (mut seq, mut left_out, mut notes, mut states) = (0, 0, 0, 0);
        let mut last = [Value::Null, Value::Null];
        while last != [json!("999"), json!("999")] || notes < CHANGES / 10 {
            let message = next(&mut client);
            if message["type"] == "conflated" {
                let (from, to) = (message["from"].as_u64().unwrap(), message["to"].as_u64().unwrap());
                assert!(seq < from && from <= to, "it stands before its events: {message}");
                left_out += message["count"].as_u64().unwrap();
                continue;
            }
            let number = message["seq"].as_u64().unwrap();
            assert!(number > seq, "in order: {seq} {message}");
            seq = number;
            match message["machine"].as_str().unwrap() {
                _ if message["type"] == "note" => notes += 1,
                machine => {
                    states += 1;
                    last[usize::from(machine == "b")] = message["event"]["payload"]["to_state"].clone();
                }
            }
        }
        let periods = begun.elapsed().as_millis() / 500 + 2;
        assert!(states <= 2 * periods, "{states} states in {periods} periods");
        assert_eq!(
            states + u128::from(left_out),
            2 * CHANGES as u128,
            "all are accounted for"
        );
        let row = status(&server);
        assert_eq!(
            (&row["conflate"], &row["conflated"]),
            (&json!("500ms"), &json!(left_out)),
            "{row}"
        );
        assert_eq!(
            (&row["state"], &row["times_behind"]),
            (&json!("live"), &json!(0)),
            "{row}"
        );
        assert_eq!(server.health()["clients_behind"], 0);
    });
}

#[test]
fn a_plain_client_ends_at_the_right_states_and_gets_each_period_once() {
    let server = TestServer::start(&[]);
    let mut client = client(&server, false, "conflate=300ms&type=state_change");
    assert_eq!(next(&mut client)["type"], "initial");
    send_many(&server, 500);
    let (mut last, mut states) = ([Value::Null, Value::Null], 0);
    while last != [json!("499"), json!("499")] {
        let event = next(&mut client);
        states += 1;
        let is_b = usize::from(event["machine_name"] == "b");
        last[is_b] = event["payload"]["to_state"].clone();
    }
    assert!(states < 200, "{states}");
    let (_, out, _) = run(
        server.folder().path(),
        &["clients", "--url", &format!("http://{}", server.address)],
    );
    let left_out = 1000 - states;
    assert_eq!(status(&server)["conflated"], left_out);
    assert!(out.contains("conflate=3"), "{out}");
}

#[test]
fn a_registration_an_end_and_a_loss_are_never_left_out() {
    let server = TestServer::start(&["--max-event-bytes", "1KiB"]);
    let mut client = client(&server, true, "conflate=1s");
    assert_eq!(next(&mut client)["type"], "initial");
    let sender = server.sender();
    let registered = br#"{"machine_name": "m", "type": "machine_registered", "payload": {"config_type": "c", "current_state": "s"}}"#;
    let ended = br#"{"machine_name": "m", "type": "machine_terminated", "payload": {}}"#;
    sender.send(&state_change("m", "x", "1", 1.0)).unwrap();
    sender.send(registered).unwrap();
    sender.send(&state_change("m", "x", "2", 1.0)).unwrap();
    sender.send(&[b' '; 2000]).unwrap();
    sender.send(ended).unwrap();
    sender.send(&state_change("m", "x", "3", 1.0)).unwrap();
    let got: Vec<Value> = (0..5).map(|_| next(&mut client)).collect();
    let seqs: Vec<&Value> = got.iter().map(|message| &message["seq"]).collect();
    assert_eq!(got[0], json!({"type": "conflated", "from": 1, "to": 3, "count": 2}));
    assert_eq!(got[2]["type"], "gap");
    assert_eq!(seqs, [&Value::Null, &json!(2), &Value::Null, &json!(5), &json!(6)]);
}

#[test]
fn a_wish_is_answered_at_once_and_conflation_begins_and_ends_with_a_subscription() {
    let server = TestServer::start(&[]);
    let mut client = client(&server, true, "");
    assert_eq!(next(&mut client)["type"], "initial");
    client.send_text(r#"{"type":"subscribe","conflate":"60s"}"#);
    assert_eq!(next(&mut client)["conflate"], "1m");
    assert_eq!(next(&mut client)["type"], "initial");
    let begun = Instant::now();
    send_many(&server, 5);
    eventually("they are numbered", || (server.health()["seq"] == 10).then_some(()));
    // What has happened comes before the state, as always.
    client.send_text("refresh");
    assert_eq!(next(&mut client)["type"], "conflated");
    assert_eq!(next(&mut client)["seq"], 9);
    assert_eq!(next(&mut client)["seq"], 10);
    let initial = next(&mut client);
    assert_eq!((&initial["type"], &initial["seq"]), (&json!("initial"), &json!(10)));
    client.send_text(r#"{"type":"subscribe","conflate":"1h"}"#);
    let error = next(&mut client);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("subscribe: conflate: write a time"),
        "{error}"
    );
    client.send_text(r#"{"type":"subscribe","machines":["b"]}"#);
    let subscribed = next(&mut client);
    assert_eq!(
        (&subscribed["type"], &subscribed["conflate"]),
        (&json!("subscribed"), &Value::Null)
    );
    assert_eq!(next(&mut client)["machines"].as_array().unwrap().len(), 1);
    send_many(&server, 3);
    for number in [12, 14, 16] {
        assert_eq!(next(&mut client)["seq"], number);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "nothing waited for a period");
}

#[test]
fn a_client_that_resumes_gets_the_past_in_the_same_way_and_then_rests() {
    let server = TestServer::start(&["--ping-interval", "200ms"]);
    send_many(&server, 100);
    eventually("they are numbered", || (server.health()["seq"] == 210).then_some(()));
    let mut client = client(&server, true, "conflate=60s&last=200");
    let kinds: Vec<String> = (0..15)
        .map(|_| next(&mut client)["type"].as_str().unwrap().to_owned())
        .collect();
    let mut expected = vec!["behind", "conflated"];
    expected.extend(["note"; 9]);
    expected.extend(["state_change", "state_change", "note", "live"]);
    assert_eq!(kinds, expected);
    // A client that rests knows where it is.
    let ping = std::iter::repeat_with(|| client.frame()).find(|frame| frame.payload.starts_with(b"{\"type\":\"ping\""));
    let ping: Value = serde_json::from_slice(&ping.unwrap().payload).unwrap();
    assert_eq!(ping["seq"], 210);
}

#[test]
fn what_a_period_has_so_far_comes_before_the_end_of_the_server() {
    in_both_shapes(|delivery| {
        let mut server = TestServer::start(&["--delivery", delivery]);
        let mut clients = [
            client(&server, true, "conflate=60s"),
            client(&server, false, "conflate=60s"),
        ];
        for client in &mut clients {
            assert_eq!(next(client)["type"], "initial");
        }
        send_many(&server, 4);
        eventually("they are numbered", || (server.health()["seq"] == 8).then_some(()));
        assert!(server.stop().success());
        assert_eq!(next(&mut clients[0])["type"], "conflated");
        for client in &mut clients {
            for _ in 0..2 {
                assert!(client.text().contains("\"to_state\": \"3\""));
            }
            assert_eq!(client.until_close().unwrap().0, 1012);
        }
    });
}

#[test]
fn a_slow_client_that_conflates_is_ended_as_any_other_and_one_that_keeps_up_is_not() {
    let mut server = TestServer::start(&["--max-behind", "500ms", "--send-timeout", "60s"]);
    let mut quick = client(&server, true, "conflate=200ms");
    assert_eq!(next(&mut quick)["type"], "initial");
    let options = Options {
        receive_buffer: Some(4096),
        ..v1_options("/ws/events?conflate=200ms")
    };
    let slow = TestClient::with(server.address, &options);
    let sender = server.sender();
    let filler = "x".repeat(1000);
    let note = format!(r#"{{"machine_name": "m", "type": "note", "payload": {{"x": "{filler}"}}}}"#);
    std::thread::scope(|scope| {
        scope.spawn(|| while quick.try_text().is_ok() {});
        eventually("the slow one is ended", || {
            for _ in 0..100 {
                sender.send(note.as_bytes()).unwrap();
            }
            pause(Duration::from_millis(50));
            (server.health()["clients_ended"]["too_slow"] == 1).then_some(())
        });
        assert_eq!(server.health()["connections"], 1);
        assert!(server.stop().success());
    });
    drop(slow);
}

#[test]
fn tail_conflates_and_says_what_was_left_out() {
    let server = TestServer::start(&[]);
    send_many(&server, 100);
    eventually("they are numbered", || (server.health()["seq"] == 210).then_some(()));
    let url = format!("ws://{}/ws/events", server.address);
    let flags = [
        "tail",
        "--url",
        &url,
        "-n",
        "200",
        "--conflate",
        "1s",
        "--duration",
        "2s",
        "--format",
        "json",
    ];
    let (code, out, said) = run(server.folder().path(), &flags);
    assert_eq!((code, out.lines().count()), (0, 12), "{out}{said}");
    assert!(
        said.contains("188 events left out for a newer state of the machine (--conflate)"),
        "{said}"
    );
    let (code, _, said) = run(server.folder().path(), &["tail", "--conflate", "2m"]);
    assert!(code == 2 && said.contains("from 100ms to 1m"), "{said}");
}
