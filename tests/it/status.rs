//! `/status` and `threadcast clients`: the figures of every client add up to what it really received, and are told
//! while the rest stands still; slow clients are named in the log.

use crate::support::client::Options;
use crate::support::server::run;
use crate::support::{TestClient, TestServer, eventually, in_both_shapes, numbered};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

const KIB: usize = 1024;

/// What a client is to be.
fn connect(server: &TestServer, query: &str, v1: bool, receive_buffer: Option<usize>) -> TestClient {
    let options = Options {
        target: format!("/ws/events{query}"),
        receive_buffer,
        headers: if v1 {
            vec!["Sec-WebSocket-Protocol: threadcast.v1".to_owned()]
        } else {
            Vec::new()
        },
        ..Options::default()
    };
    let mut client = TestClient::with(server.address, &options);
    if v1 {
        assert_eq!(client.json()["type"], "hello");
    }
    assert_eq!(client.json()["type"], "initial");
    client
}

fn status(server: &TestServer) -> Value {
    let answer = server.http("GET", "/status", &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let status = answer.json();
    expect_sums(&status);
    status
}

/// The totals are those of the rows, and every event delivered has its time.
#[track_caller]
fn expect_sums(status: &Value) {
    let clients = status["clients"].as_array().unwrap();
    let totals = &status["totals"];
    assert_eq!(totals["clients"], clients.len());
    for key in ["queued_events", "queued_bytes", "delivered", "skipped", "times_behind"] {
        let sum: u64 = clients.iter().map(|client| client[key].as_u64().unwrap()).sum();
        assert_eq!(totals[key], sum, "{key}: {status}");
    }
    for row in clients.iter().chain([totals]) {
        let buckets = row["delivery"].as_array().unwrap();
        let sum: u64 = buckets.iter().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(row["delivered"], sum, "{row}");
        assert_eq!(
            buckets.len(),
            status["delivery_bounds_ms"].as_array().unwrap().len() + 1
        );
    }
}

/// The row of a client.
fn row(status: &Value, client: &TestClient) -> Value {
    row_of(status, &client.socket().local_addr().unwrap().to_string())
}

fn row_of(status: &Value, address: &str) -> Value {
    let mut rows = status["clients"].as_array().unwrap().iter();
    let row = rows.find(|row| row["address"] == address);
    row.unwrap_or_else(|| panic!("no {address} in {status}")).clone()
}

/// Waits until the row of a client is as it should be.
#[track_caller]
fn row_with(server: &TestServer, client: &TestClient, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let begun = Instant::now();
    loop {
        let row = row(&status(server), client);
        if condition(&row) {
            return row;
        }
        last = if last == row { last } else { row };
        assert!(begun.elapsed() < crate::support::DEADLINE, "not {what}: {last}");
        crate::support::pause(std::time::Duration::from_millis(5));
    }
}

fn url(server: &TestServer) -> String {
    format!("http://{}", server.address)
}

#[test]
fn what_clients_received_is_what_their_figures_say() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let mut plain = connect(&server, "", false, None);
        let mut v1 = connect(&server, "", true, None);
        let mut filtered = connect(&server, "?machine=other*&type=tock", false, None);
        let sender = server.sender();
        for number in 0..300 {
            sender.send(&numbered(number, 200)).unwrap();
        }
        for number in 0..40 {
            let event = format!("{{\"machine_name\": \"other-{number}\", \"type\": \"tock\"}}");
            sender.send(event.as_bytes()).unwrap();
        }
        plain.expect_numbers(0..300);
        (0..40).for_each(|_| assert!(plain.text().contains("tock")));
        (1..=340).for_each(|seq| assert_eq!(v1.json()["seq"], seq));
        (0..40).for_each(|_| assert!(filtered.text().contains("tock")));

        let rows = [(&plain, 340), (&v1, 340), (&filtered, 40)].map(|(client, delivered)| {
            let row = row_with(&server, client, "delivered", |row| {
                row["delivered"] == delivered && row["queued_events"] == 0
            });
            assert_eq!(
                (row["state"].as_str(), &row["behind_seconds"]),
                (Some("live"), &Value::Null)
            );
            for key in ["queued_bytes", "lag_events", "skipped", "skips_unknown", "times_behind"] {
                assert_eq!(row[key], 0, "{key}: {row}");
            }
            assert_eq!(row["lag_ms"], 0.0, "{row}");
            assert!(row["slowest_ms"].as_f64() > Some(0.0), "{row}");
            assert!(row["last_pong_seconds"].as_f64() < Some(60.0), "{row}");
            row
        });
        assert_eq!(
            rows.each_ref().map(|row| row["protocol"].as_str().unwrap()),
            ["plain", "threadcast.v1", "plain"]
        );
        assert_eq!(
            rows.each_ref().map(|row| row["filter"].as_str()),
            [None, None, Some("machine=other*&type=tock")]
        );
        let (now, health) = (status(&server), server.health());
        assert_eq!((&now["seq"], &now["epoch"]), (&health["seq"], &health["epoch"]));
        assert_eq!((&now["seq"], &health["clients_behind"]), (&340.into(), &0.into()));
        assert_eq!(
            (&now["history"]["bytes"], &now["history"]["after"]),
            (&health["history_bytes"], &0.into())
        );
        assert!(now["history"]["bytes"].as_u64() > Some(340 * 50), "{now}");
        assert_eq!(now["history"]["bytes_max"], 64 * KIB * KIB);

        v1.send_text(r#"{"type":"subscribe","machines":null,"types":["tock"]}"#);
        row_with(&server, &v1, "its new filter", |row| row["filter"] == "type=tock");
        plain.close();
        eventually("who has left is not shown", || {
            (status(&server)["totals"]["clients"] == 2).then_some(())
        });
    });
}

#[test]
fn what_waits_for_a_stopped_client_is_told_with_its_age() {
    const EVENTS: u64 = 900;
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery, "--send-timeout", "60s"]);
        let mut stopped = connect(&server, "", false, Some(4 * KIB));
        let sender = server.sender();
        for number in 0..EVENTS as usize {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        let row = row_with(&server, &stopped, "old and complete", |row| {
            let events = |key: &str| row[key].as_u64().unwrap();
            events("delivered") + events("queued_events") == EVENTS
                && row["lag_ms"].as_f64() >= Some(200.0)
                && events("lag_events") == events("queued_events")
        });
        let queued = row["queued_events"].as_u64().unwrap();
        assert!(
            queued > 0 && row["queued_bytes"].as_u64().unwrap() >= queued * KIB as u64,
            "{row}"
        );
        assert_eq!((&row["state"], &row["times_behind"]), (&"live".into(), &0.into()));

        stopped.expect_numbers(0..EVENTS as usize);
        let row = row_with(&server, &stopped, "delivered", |row| {
            row["delivered"] == EVENTS && row["queued_events"] == 0
        });
        assert_eq!(
            (&row["lag_ms"], &row["queued_bytes"]),
            (&0.0.into(), &0.into()),
            "{row}"
        );
        assert!(row["slowest_ms"].as_f64() >= Some(200.0), "{row}");
        // 131 ms and more.
        let slow = &row["delivery"].as_array().unwrap()[12..];
        assert!(slow.iter().any(|count| *count != 0), "{row}");
    });
}

#[test]
fn a_client_that_is_behind_is_named_and_so_is_its_return() {
    const EVENTS: u64 = 2000;
    in_both_shapes(|delivery| {
        let server = TestServer::start(&[
            "--delivery",
            delivery,
            "--client-queue-bytes",
            "64KiB",
            "--send-timeout",
            "60s",
            "--max-behind",
            "5m",
            "--heartbeat-interval",
            "200ms",
        ]);
        let mut slow = connect(&server, "", true, Some(4 * KIB));
        let sender = server.sender();
        for number in 0..EVENTS as usize {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        let row = row_with(&server, &slow, "behind by all that it has not got", |row| {
            row["state"] == "behind"
                && status(&server)["seq"] == EVENTS
                && row["lag_events"].as_u64() == row["delivered"].as_u64().map(|delivered| EVENTS - delivered)
        });
        let times = row["times_behind"].as_u64().unwrap();
        assert!(times > 0, "{row}");
        assert!(
            row["behind_seconds"].as_f64() >= Some(0.0) && row["lag_ms"].as_f64() > Some(0.0),
            "{row}"
        );
        eventually("/health counts it", || {
            (server.health()["clients_behind"] == 1).then_some(())
        });
        server.wait_for_line(" | behind=1");
        let client = format!("client {} from {}", row["id"], row["address"].as_str().unwrap());
        server.wait_for_line(&format!("🐌 {client} is behind after event "));

        let events = (0..)
            .map(|_| slow.json())
            .filter(|message| message.get("event").is_some());
        let seqs: Vec<u64> = events
            .map(|event| event["seq"].as_u64().unwrap())
            .take(EVENTS as usize)
            .collect();
        assert!(seqs.into_iter().eq(1..=EVENTS));
        let row = row_with(&server, &slow, "live again", |row| {
            row["state"] == "live" && row["delivered"] == EVENTS
        });
        for (key, value) in [("skipped", 0), ("queued_events", 0), ("lag_events", 0)] {
            assert_eq!(row[key], value, "{key}: {row}");
        }
        server.wait_for_line(&format!("🐇 {client} is live again with event "));
        eventually("/health forgets it", || {
            (server.health()["clients_behind"] == 0).then_some(())
        });
    });
}

#[test]
fn what_the_history_no_longer_has_is_counted_as_skipped() {
    const EVENTS: u64 = 3000;
    in_both_shapes(|delivery| {
        let server = TestServer::start(&[
            "--delivery",
            delivery,
            "--client-queue-bytes",
            "64KiB",
            "--history-bytes",
            "64KiB",
            "--send-timeout",
            "60s",
            "--max-behind",
            "5m",
        ]);
        let mut v1 = connect(&server, "", true, Some(4 * KIB));
        let mut plain = connect(&server, "", false, Some(4 * KIB));
        let sender = server.sender();
        for number in 0..EVENTS as usize {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        eventually("all is forwarded", || {
            (server.health()["events_forwarded"] == EVENTS).then_some(())
        });
        let (mut received, mut told, mut last) = (0, 0, 0);
        while last < EVENTS {
            let message = v1.json();
            if message.get("event").is_some() {
                assert_eq!(message["seq"], last + 1);
                (received, last) = (received + 1, last + 1);
            } else if message["type"] == "gap" {
                assert_eq!(
                    (&message["from"], &message["cause"]),
                    (&(last + 1).into(), &"history".into())
                );
                told += message["count"].as_u64().unwrap();
                last = message["to"].as_u64().unwrap();
            }
        }
        assert!(told > 0, "nothing was skipped, so this proved nothing");
        let row = row_with(&server, &v1, "live again", |row| {
            row["state"] == "live" && row["delivered"] == received
        });
        assert_eq!(
            (&row["skipped"], &row["skips_unknown"]),
            (&told.into(), &0.into()),
            "{row}"
        );

        // A plain client is told nothing; its figures know. The last event comes when it misses nothing any more.
        let address = plain.socket().local_addr().unwrap().to_string();
        let received = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let texts = (0..).map(|_| plain.text()).filter(|text| !text.contains("\"initial\""));
                texts.take_while(|text| !text.contains("\"last\"")).count() as u64
            });
            eventually("it is live again", || {
                let row = row_of(&status(&server), &address);
                let events = |key: &str| row[key].as_u64().unwrap();
                let all = row["state"] == "live" && events("delivered") + events("skipped") == EVENTS;
                (all || reader.is_finished()).then_some(())
            });
            server.send(r#"{"type": "last"}"#);
            reader.join().unwrap()
        });
        assert!(received < EVENTS, "it missed something");
        eventually("its figures are right", || {
            let row = row_of(&status(&server), &address);
            let right = row["delivered"] == received + 1 && row["skipped"] == EVENTS - received;
            right.then_some(())
        });

        let stranger = format!("?since={:016x}:5", 1);
        let mut stranger = TestClient::with(
            server.address,
            &Options {
                target: format!("/ws/events{stranger}"),
                ..Options::default()
            },
        );
        assert!(stranger.text().starts_with("{\"type\":\"initial\""));
        row_with(&server, &stranger, "known to miss it knows not what", |row| {
            row["skips_unknown"] == 1
        });
    });
}

#[test]
fn a_client_that_falls_behind_again_and_again_is_named_now_and_then() {
    const EVENTS: usize = 1500;
    let flags = [
        "--client-queue-bytes",
        "64KiB",
        "--send-timeout",
        "60s",
        "--max-behind",
        "5m",
    ];
    let server = TestServer::start(&flags);
    let begun = Instant::now();
    let mut slow = connect(&server, "", false, Some(4 * KIB));
    let sender = server.sender();
    for round in 0..3 {
        for number in round * EVENTS..(round + 1) * EVENTS {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        row_with(&server, &slow, "behind once more", |row| {
            row["times_behind"].as_u64() > Some(round as u64)
        });
        slow.expect_numbers(round * EVENTS..(round + 1) * EVENTS);
        row_with(&server, &slow, "live again", |row| row["state"] == "live");
    }
    let row = row(&status(&server), &slow);
    let times = row["times_behind"].as_u64().unwrap();
    assert!(times >= 3, "{row}");
    let may_be = 1 + begun.elapsed().as_secs() as usize / 10;
    for sign in ["🐌 client ", "🐇 client "] {
        let said = server.lines().with(sign).len();
        assert!((1..=may_be).contains(&said), "{said} of {times}, at most {may_be}");
    }
}

#[test]
fn the_figures_are_told_while_the_fanout_and_a_client_stand_still() {
    let server = TestServer::start(&["--allow-drill", "--hang-timeout", "1s"]);
    let mut client = server.client();
    server.send(numbered(0, 100));
    client.expect_numbers(0..1);
    let id = row(&status(&server), &client)["id"].as_u64().unwrap();
    for component in ["fanout".to_owned(), format!("client-{id}")] {
        let target = format!("/drill?component={component}&ms=60000");
        assert_eq!(server.act(&target).status, 200);
    }
    eventually("both are hung", || {
        let health = server.health();
        (health["status"] == "hung" && health["stalls"].as_array().unwrap().len() == 2).then_some(())
    });
    let row = row(&status(&server), &client);
    assert_eq!((&row["delivered"], &row["state"]), (&1.into(), &"live".into()), "{row}");
    let (code, out, err) = run(server.folder().path(), &["clients", "--url", &url(&server)]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("; 1 client\n"), "{out}");
    for component in ["fanout".to_owned(), format!("client-{id}")] {
        server.act(&format!("/drill?component={component}&ms=0"));
    }
    server.send(numbered(1, 100));
    client.expect_numbers(1..2);
}

#[test]
fn the_page_is_for_reading_only() {
    let server = TestServer::start(&[]);
    let refused = server.http("POST", "/status", &[]);
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    let foreign = server.http("GET", "/status", &["Origin: https://elsewhere.example"]);
    assert_eq!(foreign.status, 403);
    assert_eq!(status(&server)["clients"].as_array().unwrap().len(), 0);
}

#[test]
fn the_command_shows_a_table_or_the_document() {
    let server = TestServer::start(&[]);
    let folder = server.folder();
    let (code, out, err) = run(folder.path(), &["clients", "--url", &url(&server)]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.starts_with("epoch ") && out.ends_with("; 0 clients\nno clients\n"),
        "{out}"
    );

    let plain = connect(&server, "", false, None);
    let _v1 = connect(&server, "?machine=w*", true, None);
    let (code, out, err) = run(folder.path(), &["clients", "--url", &url(&server)]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert!(
        lines[1].starts_with("ID  ADDRESS") && lines[1].ends_with("FILTER"),
        "{out}"
    );
    assert!(out.contains(&plain.socket().local_addr().unwrap().to_string()), "{out}");
    let v1 = lines.iter().find(|line| line.contains("  v1 ")).unwrap();
    assert!(v1.contains("  live ") && v1.ends_with("  machine=w*"), "{out}");
    assert!(
        lines
            .iter()
            .all(|line| line.chars().count() <= 120 && !line.contains('\u{1b}')),
        "{out}"
    );

    let (code, out, _) = run(folder.path(), &["clients", "--json", "--url", &url(&server)]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    let document: Value = serde_json::from_str(&out).unwrap();
    expect_sums(&document);
    assert_eq!(document["clients"][0]["id"], row(&status(&server), &plain)["id"]);
}

#[test]
fn the_command_says_why_it_shows_nothing() {
    let server = TestServer::start(&[]);
    let folder = server.folder();
    for (arguments, status, part) in [
        (
            &["clients", "--url", "http://127.0.0.1:1"][..],
            1,
            "cannot ask the server at 127.0.0.1:1",
        ),
        (
            &["clients", "--json", "--watch", "--url", "http://127.0.0.1:1"],
            1,
            "is it running there?",
        ),
        (&["clients", "--url", "localhost:"], 2, "from 1 to 65535"),
        (&["clients", "--watch", "soon"], 2, "--watch cannot be \"soon\""),
        (&["clients", "--watch=1us"], 2, "from 100ms"),
        (&["clients", "--json", "5"], 2, "5"),
    ] {
        let (got, out, err) = run(folder.path(), arguments);
        assert_eq!((got, out.as_str()), (status, ""), "{arguments:?}: {err}");
        assert!(
            err.starts_with("threadcast: ") && err.contains(part),
            "{arguments:?}: {err}"
        );
    }
}

#[test]
fn watching_shows_one_table_after_another_until_it_is_ended() {
    let server = TestServer::start(&[]);
    let _client = server.client();
    for (signal, flags) in [
        (Signal::INT, &["--watch", "0.1"][..]),
        (Signal::TERM, &["--watch=100ms", "--json"]),
    ] {
        let mut watch = Command::new(env!("CARGO_BIN_EXE_threadcast"))
            .arg("clients")
            .args(flags)
            .args(["--url", &url(&server)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let shown: Vec<String> = lines
            .map(Result::unwrap)
            .filter(|line| line.contains("ADDRESS") || line.contains("\"address\""))
            .take(3)
            .collect();
        assert_eq!(shown.len(), 3);
        // The pipe is closed now, so that either the signal ends it or the next table does.
        kill_process(Pid::from_child(&watch), signal).unwrap();
        let ended = eventually("it ends", || watch.try_wait().unwrap());
        assert!(ended.success(), "{ended}");
    }
}
