//! The log in the forms that programs read: JSON, and the priorities of systemd's journal. A hang keeps the form, too.

use crate::support::{TestServer, eventually};
use rustix::fs::fstat;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

/// A server that can be made to hang.
const HANGING: [&str; 3] = ["--allow-drill", "--hang-timeout", "1s"];

fn log_of(server: &TestServer) -> String {
    fs::read_to_string(server.path("logs/websocket-server.log")).unwrap_or_default()
}

/// Makes the fan-out hang, and waits until its report is in the log's file.
#[track_caller]
fn hang(server: &TestServer) {
    assert_eq!(server.act("/drill?component=fanout&ms=2500").status, 200);
    for part in [
        "SERVER HANG DETECTED: fanout: ",
        "thread fanout (id ",
        "fanout moves again after ",
    ] {
        eventually(&format!("{part:?} in the file"), || {
            log_of(server).contains(part).then_some(())
        });
    }
}

/// The lines of a log in JSON; each has the four keys and no other.
#[track_caller]
fn objects(text: &str) -> Vec<Value> {
    let object = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["level", "message", "thread", "time"], "{line}");
        let time = value["time"].as_str().unwrap();
        assert!(
            time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T',
            "{line}"
        );
        let level = value["level"].as_str().unwrap();
        assert!(["error", "warn", "info", "debug", "trace"].contains(&level), "{line}");
        value
    };
    text.lines().map(object).collect()
}

#[test]
fn json_is_one_object_a_line_on_standard_error_and_in_the_file() {
    let flags = [
        "--log-format",
        "json",
        "--log-level",
        "debug",
        "--heartbeat-interval",
        "100ms",
    ];
    let mut server = TestServer::start(&flags);
    server.send(r#"{"machine_name": "päivä \"q\" \\", "type": "state_change", "payload": {"to_state": "b"}}"#);
    server.send("no JSON\n\u{1b}[2J");
    server.wait_for_line("heartbeat #2 ");
    assert_eq!(server.stop().code(), Some(0));
    let file = log_of(&server);
    eventually("standard error has the same", || {
        (server.lines().all() == file.trim_end()).then_some(())
    });
    let lines = objects(&file);
    let with = |part: &str| {
        let found = lines
            .iter()
            .find(|line| line["message"].as_str().unwrap().contains(part));
        found.unwrap_or_else(|| panic!("{part:?}: {file}"))
    };
    assert_eq!(with("🚀 threadcast ")["level"], "info");
    assert_eq!(with("🚀 threadcast ")["thread"], "main");
    assert_eq!(with("state_change of päivä \"q\" \\")["level"], "debug");
    assert_eq!(with("⚠️ dropped an event")["level"], "warn");
    assert_eq!(with("💓 Server heartbeat #1 ")["thread"], "heartbeat");
}

#[test]
fn the_report_of_a_hang_is_json_too() {
    let flags = [&HANGING[..], &["--log-format", "json"]].concat();
    let mut server = TestServer::start(&flags);
    hang(&server);
    assert_eq!(server.stop().code(), Some(0));
    for text in [log_of(&server), server.lines().all()] {
        let lines = objects(&text);
        let of_the_watchdog: Vec<&Value> = lines.iter().filter(|line| line["thread"] == "watchdog").collect();
        let has = |part: &str| {
            let mut messages = of_the_watchdog.iter().map(|line| line["message"].as_str().unwrap());
            assert!(messages.any(|message| message.contains(part)), "{part:?}: {text}");
        };
        has("🚨 SERVER HANG DETECTED: fanout: ");
        has("\n📍 accept ");
        has("thread fanout (id ");
        has("✅ fanout moves again after ");
    }
}

/// What a server writes to a socket in the place of systemd's journal, with JOURNAL_STREAM made of the socket's own
/// device and inode by `named`.
fn to_the_journal(flags: &[&str], named: impl FnOnce(u64, u64) -> String) -> (TestServer, Arc<Mutex<String>>) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let stat = fstat(&theirs).unwrap();
    let variable = named(stat.st_dev, stat.st_ino);
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let got = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&got);
    #[expect(clippy::disallowed_methods, reason = "the harness has threads of its own")]
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = ours.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
            *kept.lock().unwrap() = String::from_utf8_lossy(&bytes).into_owned();
        }
    });
    let server = TestServer::start_command(folder, flags, |command| {
        command.stderr(theirs).env("JOURNAL_STREAM", variable);
    });
    (server, got)
}

#[test]
fn systemds_journal_gets_priorities_and_no_second_time() {
    let (mut server, got) = to_the_journal(&HANGING, |device, inode| format!("{device}:{inode}"));
    server.send("no JSON");
    hang(&server);
    assert_eq!(server.stop().code(), Some(0));
    eventually("the journal has the end", || {
        got.lock().unwrap().contains("👋 stopped in").then_some(())
    });
    let got = got.lock().unwrap();
    for line in got.lines() {
        let priority = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let (priority, _) = priority.unwrap_or_else(|| panic!("no priority: {line}"));
        assert!(["3", "4", "6", "7"].contains(&priority), "{line}");
    }
    for begin in [
        "<6>INFO  [main] 🚀 threadcast ",
        "<4>WARN  [fanout] ⚠️ dropped an event",
        "<3>ERROR [watchdog] 🚨 SERVER HANG DETECTED: fanout: ",
        "<3>📍 accept ",
        "<3>thread fanout (id ",
    ] {
        assert!(got.lines().any(|line| line.starts_with(begin)), "{begin}: {got}");
    }
    let file = log_of(&server);
    let first = file.lines().next().unwrap();
    assert!(
        first[24..].starts_with(" INFO  [main] 🚀 threadcast "),
        "the file as ever: {first}"
    );
    assert!(file.lines().any(|line| line.starts_with("📍 accept ")));
}

#[test]
fn a_journal_that_is_not_our_standard_error_or_another_format_gets_no_priorities() {
    for (flags, inode_off) in [(&[][..], 1), (&["--log-format", "text"], 0)] {
        let (server, got) = to_the_journal(flags, |device, inode| format!("{device}:{}", inode + inode_off));
        let line = eventually("a line", || {
            got.lock()
                .unwrap()
                .lines()
                .find(|line| line.contains("🚀"))
                .map(str::to_owned)
        });
        assert_eq!(&line[23..30], "Z INFO ", "{line}");
        drop(server);
    }
}

#[test]
fn another_format_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let (status, _, said) = crate::support::server::run(folder.path(), &["serve", "--log-format", "xml"]);
    assert_eq!(status, 2);
    assert!(said.contains("write auto, text or json"), "{said}");
}
