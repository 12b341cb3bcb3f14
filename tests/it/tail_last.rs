//! The last events come first: `?last=N` and `threadcast tail -n N` begin with what the history has, and go on with
//! what comes, without a gap and without a repeat.

use crate::notices::v1_options;
use crate::support::client::Options;
use crate::support::{DEADLINE, TestClient, TestServer, eventually, number_of, numbered, state_change};
use crate::tail::{Running, tail, url};
use crate::tail_resume::{Fake, V1, event, hello};

fn forwarded(server: &TestServer, count: usize) {
    eventually("the server has them all", || {
        (server.health()["events_forwarded"] == count).then_some(())
    });
}

/// Sends ten events of `a` and `b` in turn: `a` has the even numbers.
fn ten(server: &TestServer) -> Vec<String> {
    let events: Vec<String> = (0..10)
        .map(|number| {
            let machine = if number % 2 == 0 { "a" } else { "b" };
            format!(r#"{{"machine_name":"{machine}","type":"t{number}","n":{number}}}"#)
        })
        .collect();
    events.iter().for_each(|event| server.send(event));
    forwarded(server, 10);
    events
}

fn lines(events: &[&String]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

#[test]
fn the_last_events_that_are_wanted_come_first_and_then_what_comes() {
    let server = TestServer::start(&[]);
    let events = ten(&server);
    let pick = |numbers: &[usize]| numbers.iter().map(|number| &events[*number]).collect::<Vec<_>>();
    let more = r#"{"machine_name":"a","type":"t9","n":10}"#.to_owned();
    let cases: [(&[&str], &[usize]); 7] = [
        (&["-n", "3"], &[7, 8, 9]),
        (&["-n3", "-f", "a"], &[4, 6, 8]),
        (&["--lines=2", "--machine", "b", "a"], &[8, 9]),
        (&["-n", "2", "--type", "t9", "--type", "t1"], &[1, 9]),
        (&["-n", "10"], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (&["-n", "0", "--follow"], &[]),
        (&["-n", "99", "?"], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ];
    let mut running: Vec<Running> = cases
        .iter()
        .map(|(flags, shown)| {
            let count = (shown.len() + 1).to_string();
            tail(&server, &[*flags, &["--format", "json", "--count", &count]].concat())
        })
        .collect();
    eventually("all are connected", || {
        (server.health()["connections"] == cases.len()).then_some(())
    });
    server.send(&more);
    for (running, (flags, shown)) in running.iter_mut().zip(cases) {
        // The one whose filter is for b and a, and those for everything, see it; so does each of the others.
        assert_eq!(running.status(DEADLINE), 0, "{flags:?}: {}", running.said());
        let mut expected = pick(shown);
        expected.push(&more);
        assert_eq!(running.out(), lines(&expected), "{flags:?}");
        let short = running.said().contains("history has only 10 events of the last 99");
        assert_eq!(short, flags.contains(&"99"), "{}", running.said());
    }
}

#[test]
fn nothing_is_missing_or_twice_between_the_history_and_what_comes() {
    let server = TestServer::start(&[]);
    const EVENTS: usize = 4000;
    let sender = server.sender();
    let shown: Vec<usize> = std::thread::scope(|scope| {
        scope.spawn(|| (0..EVENTS).for_each(|number| assert!(sender.send(&numbered(number, 100)).unwrap() > 0)));
        eventually("the stream is under way", || {
            (server.health()["events_forwarded"].as_u64() > Some(100)).then_some(())
        });
        let running = tail(&server, &["-n", "50", "--format", "json"]);
        eventually("the last one is here", || {
            let out = running.out();
            let last = out.lines().last()?;
            (number_of(last.as_bytes()) == Some(EVENTS - 1) && out.ends_with('\n')).then_some(())
        });
        let out = running.out();
        out.lines().map(|line| number_of(line.as_bytes()).unwrap()).collect()
    });
    assert!(shown.len() >= 50, "{}", shown.len());
    let expected: Vec<usize> = (shown[0]..EVENTS).collect();
    assert_eq!(shown, expected);
}

#[test]
fn both_protocols_begin_with_the_events_and_without_a_state() {
    let server = TestServer::start(&[]);
    let events = ten(&server);
    let mut plain = TestClient::with(
        server.address,
        &Options {
            target: "/ws/events?last=2&machine=a".to_owned(),
            ..Options::default()
        },
    );
    assert_eq!([plain.text(), plain.text()], [events[6].clone(), events[8].clone()]);
    let mut v1 = TestClient::with(server.address, &v1_options("/ws/events?last=2&machine=a"));
    let hello = v1.json();
    assert_eq!(
        (&hello["type"], &hello["after"]),
        (&"hello".into(), &6.into()),
        "{hello}"
    );
    assert_eq!(v1.json()["type"], "behind");
    assert_eq!(
        [v1.json()["seq"].as_u64(), v1.json()["seq"].as_u64()],
        [Some(7), Some(9)]
    );
    let live = v1.json();
    assert_eq!(
        (&live["type"], &live["replayed"]),
        (&"live".into(), &2.into()),
        "{live}"
    );
    server.send(state_change("a", "x", "y", 1.5));
    assert_eq!(v1.json()["seq"], 11);
    assert!(plain.text().contains("\"y\""));
}

#[test]
fn the_oldest_that_is_there_comes_first_when_the_history_is_small() {
    let server = TestServer::start(&["--history-bytes", "64KiB"]);
    let sender = server.sender();
    for begin in (0..500).step_by(20) {
        (begin..begin + 20).for_each(|number| assert!(sender.send(&numbered(number, 1000)).unwrap() > 0));
        // The history lets go of whole batches, and the fan-out makes one of all that waits for it.
        forwarded(&server, begin + 20);
    }
    let mut client = TestClient::with(server.address, &v1_options("/ws/events?last=500"));
    assert_eq!(client.json()["type"], "hello");
    assert_eq!(client.json()["type"], "behind");
    // Nothing of it is called missing: nobody has asked for what is older.
    let first = client.json()["seq"].as_u64().unwrap();
    assert!(first > 400, "{first}");
    let mut last = first;
    while last < 500 {
        let seq = client.json()["seq"].as_u64().unwrap();
        assert_eq!(seq, last + 1);
        last = seq;
    }
    assert_eq!(client.json()["type"], "live");
}

#[test]
fn they_survive_a_restart_with_a_journal() {
    let mut server = TestServer::start(&["--journal", "journal"]);
    let events = ten(&server);
    assert_eq!(server.stop().code(), Some(0));
    let server = TestServer::start_in(server.folder(), &["--journal", "journal"]);
    let mut running = tail(&server, &["-n", "2", "--count", "2", "--format", "json"]);
    assert_eq!(running.status(DEADLINE), 0, "{}", running.said());
    assert_eq!(running.out(), lines(&[&events[8], &events[9]]));
}

#[test]
fn a_server_that_cannot_is_said_to_and_shown_as_ever() {
    const EPOCH: &str = "0123456789abcdef";
    let initial = r#"{"type":"initial","seq":4,"machines":[],"timestamp":1.5}"#.to_owned();
    let plain = r#"{"machine_name":"m","type":"t","n":5}"#.to_owned();
    for (headers, messages, said) in [
        ("", vec![plain.clone()], "this server keeps no history"),
        (
            V1,
            vec![hello(EPOCH, "null"), initial, event(5)],
            "this server is of an earlier version, which cannot begin with the last events",
        ),
    ] {
        let (server, address) = Fake::new();
        let arguments = [
            "tail",
            "-n",
            "3",
            "--format",
            "json",
            "--count",
            "1",
            "--url",
            &url(address),
        ];
        let mut running = Running::start(&arguments);
        let (_connection, head) = server.serve(headers, &messages);
        assert!(head.starts_with("GET /ws/events?last=3 HTTP/1.1\r\n"), "{head}");
        assert_eq!(running.status(DEADLINE), 0);
        assert_eq!(running.out(), format!("{plain}\n"));
        assert!(running.said().contains(said), "{}", running.said());
    }
}

#[test]
fn a_connection_that_was_lost_goes_on_after_what_was_shown() {
    const EPOCH: &str = "0123456789abcdef";
    let (server, address) = Fake::new();
    let mut running = Running::start(&[
        "tail",
        "-n",
        "2",
        "--format",
        "json",
        "--count",
        "2",
        "--url",
        &url(address),
    ]);
    let (connection, head) = server.serve(V1, &[hello(EPOCH, "4"), event(5)]);
    assert!(head.starts_with("GET /ws/events?last=2 HTTP/1.1\r\n"), "{head}");
    eventually("it is shown", || (running.out().lines().count() == 1).then_some(()));
    drop(connection);
    let (_connection, head) = server.serve(V1, &[hello(EPOCH, "5"), event(6)]);
    assert!(
        head.starts_with("GET /ws/events?since=0123456789abcdef%3A5 HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(running.status(DEADLINE), 0, "{}", running.said());
}
