//! A `gap` says what a client will not get, and nothing of what it has passed already: it begins behind the position
//! that the client gave, whatever the range that was lost as one.

use crate::notices::v1_options;
use crate::support::server::run;
use crate::support::{DEADLINE, TestClient, TestServer, eventually, numbered};
use crate::tail::tail;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const FLAGS: [&str; 2] = ["--journal", "journal"];
const EVENTS: usize = 10;
/// The first number behind those of the events that a killed server skips.
const SKIP_LEAST: u64 = 1 << 32;

/// The only segment of the journal in `folder`.
fn segment(folder: &Path) -> PathBuf {
    let mut entries = fs::read_dir(folder.join("journal")).unwrap().flatten();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
    entries.find_map(|entry| Some(entry.path()).filter(is_segment)).unwrap()
}

/// A server that begins again after a kill, with a journal of [`EVENTS`] events that has lost the lines of `lost`.
/// Gives its epoch too.
fn server_without(lost: std::ops::RangeInclusive<usize>) -> (TestServer, String) {
    let mut server = TestServer::start(&FLAGS);
    for number in 0..EVENTS {
        server.send(numbered(number, 100));
    }
    eventually("the events are in the journal", || {
        (server.health()["journal"]["events"] == EVENTS).then_some(())
    });
    let epoch = server.health()["epoch"].as_str().unwrap().to_owned();
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let segment = segment(&server.path(""));
    let text = fs::read_to_string(&segment).unwrap();
    let is_kept = |line: &&str| !lost.clone().any(|seq| line.starts_with(&format!("{{\"seq\":{seq},")));
    let kept: Vec<&str> = text.split_inclusive('\n').filter(is_kept).collect();
    assert_eq!(kept.len(), text.lines().count() - lost.count(), "{text}");
    fs::write(&segment, kept.concat()).unwrap();
    (TestServer::start_in(server.folder(), &FLAGS), epoch)
}

/// The gap that a client gets which has passed number `seq`, and the events before it.
#[track_caller]
fn gap_after(server: &TestServer, epoch: &str, seq: u64) -> (Value, Vec<u64>) {
    let options = v1_options(&format!("/ws/events?since={epoch}:{seq}"));
    let mut client = TestClient::with(server.address, &options);
    let mut events = Vec::new();
    loop {
        let message = client.json();
        match (message["type"].as_str(), message.get("event")) {
            (_, Some(_)) => events.push(message["seq"].as_u64().unwrap()),
            (Some("gap"), _) => return (message, events),
            (Some("hello"), _) => assert_eq!(message["after"], seq, "{message}"),
            (Some("behind"), _) => assert_eq!(message["seq"], seq, "{message}"),
            _ => panic!("no gap, but {message}"),
        }
    }
}

#[test]
fn a_gap_begins_behind_the_position_that_the_client_gave() {
    // The last two, whose numbers the client has had.
    let (server, epoch) = server_without(9..=10);
    for (seq, from) in [(10, 11), (9, 10), (8, 9), (1 << 20, (1 << 20) + 1)] {
        let (gap, events) = gap_after(&server, &epoch, seq);
        assert_eq!(
            (&gap["from"], &gap["cause"]),
            (&json!(from), &json!("restart")),
            "{gap}"
        );
        assert!(gap["to"].as_u64().unwrap() > SKIP_LEAST, "{gap}");
        assert_eq!((&gap["count"], events), (&Value::Null, vec![]), "{gap}");
    }
    // The same to a person.
    let mut tail = tail(&server, &["--since", &format!("{epoch}:10"), "--count", "1"]);
    tail.wait_until_said("events may be missing (among the numbers 11 to ");
    server.send(numbered(10, 100));
    assert_eq!(tail.status(DEADLINE), 0, "{}", tail.said());
}

#[test]
fn of_a_loss_that_is_counted_only_the_rest_is_counted() {
    let (server, epoch) = server_without(4..=7);
    for (seq, from, count) in [(3, 4, 4), (4, 5, 3), (6, 7, 1)] {
        let (gap, _) = gap_after(&server, &epoch, seq);
        let told = json!({"type": "gap", "from": from, "to": 7, "count": count, "cause": "journal_damaged"});
        assert_eq!(gap, told);
    }
    let (gap, events) = gap_after(&server, &epoch, 7);
    assert_eq!((&gap["cause"], events), (&json!("restart"), vec![8, 9, 10]), "{gap}");
}

#[test]
fn a_part_of_a_recording_has_the_losses_that_reach_into_it() {
    let (mut server, _) = server_without(9..=10);
    server.send(numbered(10, 100));
    eventually("the event is in the journal", || {
        (server.health()["journal"]["events"] == 1).then_some(())
    });
    assert!(server.stop().success());
    let receiver = TestServer::start(&[]);
    let (journal, socket) = (server.path("journal"), receiver.socket_path());
    let paths = [
        "--journal",
        journal.to_str().unwrap(),
        "--event-socket-path",
        socket.to_str().unwrap(),
    ];
    for (part, losses) in [(["--from", "100"], "1 losses"), (["--to", "8"], "no losses")] {
        let arguments = [&["replay"][..], &paths, &["--fast"], &part].concat();
        let (status, _, said) = run(&server.path(""), &arguments);
        assert_eq!(status, 0, "{said}");
        let counted = if said.contains("1 loss is recorded") {
            "1 losses"
        } else {
            "no losses"
        };
        assert_eq!(counted, losses, "{part:?}: {said}");
    }
}
