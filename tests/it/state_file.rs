//! Machines survive a restart and a kill, whatever happens to the state file; and those that nobody needs can be
//! forgotten by hand.

use crate::support::server::{in_shell, mounting_shell, run};
use crate::support::{DEADLINE, TestServer, eventually, numbered, state_change};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// The rows of `/initial`, byte for byte.
#[track_caller]
fn rows(server: &TestServer) -> String {
    let body = server.http("GET", "/initial", &[]).body;
    let (rows, _) = body.rsplit_once(",\"timestamp\":").expect(&body);
    rows.to_owned()
}

/// Machines of all dialects, with whatever a name or a state may hold.
fn populate(server: &TestServer) {
    for event in [
        r#"{"machine_name": "worker", "type": "machine_registered", "payload": {"machine_name": "worker", "config_type": "conf", "current_state": "idle", "timestamp": 1795393481.742173}}"#,
        r#"{"machine_name": "worker", "type": "state_change", "payload": {"to_state": "busy", "timestamp": 1795393482}}"#,
        r#"{"machine_name": "p\u00e4iv\u00e4\u00e4 \ud83d\ude80 \"quoted\" \\ \n", "event_type": "state_change", "payload": {"to_state": "a\tb", "timestamp": 2.50}}"#,
        r#"{"machine_id": "document", "type": "state_change", "state": "c", "timestamp": 1e3, "data": {}}"#,
        r#"{"machine_name": "Z", "type": "state_change", "payload": {"to_state": "without a time"}}"#,
    ] {
        server.send(event);
    }
    eventually("the machines are in the table", || {
        (server.health()["machines"] == 4).then_some(())
    });
}

/// Waits until the state file holds what `/initial` shows, and what no snapshot has, as it should within a second.
#[track_caller]
fn wait_until_saved(server: &TestServer, path: &Path) {
    const MORE: [&str; 3] = ["state_since", "last_event", "last_trigger"];
    let machines = server.initial()["machines"].take();
    eventually("the state is saved", || {
        let mut saved: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        for row in saved["machines"].as_array_mut()? {
            row.as_object_mut()?.retain(|key, _| !MORE.contains(&&key[..]));
        }
        (saved["machines"] == machines).then_some(())
    });
}

#[test]
fn machines_survive_a_restart_byte_for_byte() {
    let mut server = TestServer::start(&[]);
    populate(&server);
    let before = rows(&server);
    // At once, so that it is the stop that saves.
    assert_eq!(server.stop().code(), Some(0));
    let server = TestServer::start_in(server.folder(), &[]);
    assert_eq!(rows(&server), before);
    server.wait_for_line("📋 4 machines remembered from logs/threadcast-state.json");
    assert_eq!(server.health()["machines"], 4);
    let mut client = crate::support::TestClient::connect(server.address);
    assert!(client.text().starts_with(&before));
}

#[test]
fn machines_survive_a_kill() {
    let mut server = TestServer::start(&["--state-file", "kept/state.json"]);
    populate(&server);
    let before = rows(&server);
    wait_until_saved(&server, &server.path("kept/state.json"));
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let mut server = TestServer::start_in(server.folder(), &["--state-file", "kept/state.json"]);
    assert_eq!(rows(&server), before);

    // What ended before the kill does not rise from the dead.
    server.send(r#"{"machine_name": "worker", "type": "machine_terminated", "payload": {}}"#);
    let port = server.address.port().to_string();
    let (status, _, said) = run(&server.path(""), &["forget", "document", "--port", &port]);
    assert_eq!(status, 0, "{said}");
    eventually("both are gone", || (server.health()["machines"] == 2).then_some(()));
    let before = rows(&server);
    wait_until_saved(&server, &server.path("kept/state.json"));
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let mut server = TestServer::start_in(server.folder(), &["--state-file", "kept/state.json"]);
    assert_eq!(rows(&server), before);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(
        rows(&TestServer::start_in(
            server.folder(),
            &["--state-file", "kept/state.json"]
        )),
        before
    );
}

/// Killed in the middle of its saving, it leaves a whole file, not long out of date.
#[test]
fn a_kill_under_load_leaves_a_whole_and_recent_state() {
    let folder = folder();
    for round in 0..3 {
        let mut server = TestServer::start_in(Arc::clone(&folder), &[]);
        let sender = server.sender();
        let begun = Instant::now();
        let mut sent = Vec::new();
        // Longer than it takes to save twice, the last time longer than a state may be old, and each time another
        // moment of the rhythm. A busy machine may need longer for the first save.
        let state = folder.path().join("logs/threadcast-state.json");
        let of_this_round = || fs::read_to_string(&state).is_ok_and(|text| text.contains(&format!("\"{round}-")));
        let least = Duration::from_millis([1300, 1470, 4200][round]);
        while begun.elapsed() < least || !of_this_round() {
            let number = sent.len();
            let event = state_change("counter", "s", &format!("{round}-{number}"), 1.5);
            sender.send(&event).unwrap();
            sent.push(Instant::now());
            assert!(begun.elapsed() < DEADLINE, "nothing is saved");
            crate::support::pause(Duration::from_millis(1));
        }
        server.signal(Signal::KILL);
        let killed = Instant::now();
        server.wait_for_end(DEADLINE);
        let server = TestServer::start_in(server.folder(), &[]);
        let state = server.initial()["machines"][0]["current_state"].clone();
        let (of_round, number) = state.as_str().unwrap().split_once('-').unwrap();
        assert_eq!(of_round, round.to_string(), "{state}");
        let age = killed - sent[number.parse::<usize>().unwrap()];
        // A second is promised; the others are for a machine that is busy with other tests.
        assert!(age < Duration::from_secs(4), "{age:?}");
        assert!(server.lines().with("damaged").is_empty());
    }
}

#[test]
fn a_damaged_state_file_is_set_aside_and_named() {
    let whole = {
        let mut server = TestServer::start(&[]);
        populate(&server);
        assert_eq!(server.stop().code(), Some(0));
        fs::read(server.path("logs/threadcast-state.json")).unwrap()
    };
    let cases: [&[u8]; 4] = [&whole[..whole.len() / 2], b"\0\xff garbage \x1b[2J", b"", b"[1, 2]"];
    for damaged in cases {
        let folder = folder();
        let path = folder.path().join("state.json");
        fs::write(&path, damaged).unwrap();
        let mut server = TestServer::start_in(Arc::clone(&folder), &["--state-file", path.to_str().unwrap()]);
        assert_eq!(server.initial()["machines"], json!([]));
        let line = server.wait_for_line("is damaged");
        let aside: Vec<PathBuf> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("state.json.damaged-"))
            .collect();
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(fs::read(&aside[0]).unwrap(), damaged);
        for path in [&path, &aside[0]] {
            assert!(line.contains(path.to_str().unwrap()), "{line}");
        }
        populate(&server);
        let before = rows(&server);
        assert_eq!(server.stop().code(), Some(0));
        let server = TestServer::start_in(folder, &["--state-file", path.to_str().unwrap()]);
        assert_eq!(rows(&server), before);
    }
}

/// The server is what people watch their workers with; it goes on without its memory.
#[track_caller]
fn serves_without_memory(server: &TestServer, why: &str) {
    let line = server.wait_for_line("machines will not be remembered");
    assert!(line.contains(why) && line.contains("--state-file"), "{line}");
    populate(server);
    let mut client = server.client();
    server.send(numbered(1, 100));
    client.expect_numbers(1..2);
    assert_eq!(server.health()["status"], "ok");
}

#[test]
fn a_folder_that_cannot_hold_the_state_is_said_and_the_server_serves() {
    let folder = folder();
    fs::write(folder.path().join("file"), "x").unwrap();
    let mut server = TestServer::start_in(Arc::clone(&folder), &["--state-file", "file/state.json"]);
    serves_without_memory(&server, "file/state.json");
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"x");

    if let Some(shell) = mounting_shell() {
        fs::create_dir(folder.path().join("disk")).unwrap();
        let server = TestServer::start_command(folder, &["--state-file", "disk/state.json"], |command| {
            in_shell(command, shell, "mount -t tmpfs -o ro tmpfs disk");
        });
        serves_without_memory(&server, "Read-only file system");
    }
}

#[test]
fn a_missing_folder_of_the_state_file_is_made() {
    let mut server = TestServer::start(&["--state-file", "a/b/state.json"]);
    populate(&server);
    let before = rows(&server);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(
        rows(&TestServer::start_in(
            server.folder(),
            &["--state-file", "a/b/state.json"]
        )),
        before
    );
}

#[test]
fn without_a_state_file_nothing_is_kept_and_nothing_is_wrong() {
    let mut server = TestServer::start(&["--state-file", "none"]);
    populate(&server);
    assert_eq!(server.health()["status"], "ok");
    assert_eq!(server.stop().code(), Some(0));
    let files = fs::read_dir(server.path("logs")).unwrap();
    let mut names: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["hang-emergency.log", "websocket-server.log"]);
    assert!(!server.path("none").exists());
    let server = TestServer::start_in(server.folder(), &["--state-file", "none"]);
    assert_eq!(server.initial()["machines"], json!([]));
}

#[test]
fn the_second_server_on_a_state_file_says_so_and_leaves_it_alone() {
    let mut first = TestServer::start(&[]);
    first.send(state_change("of the first", "a", "b", 1.5));
    eventually("it is tabled", || (first.health()["machines"] == 1).then_some(()));
    let before = rows(&first);
    let path = first.path("logs/threadcast-state.json");
    let mut second = TestServer::start(&["--state-file", path.to_str().unwrap()]);
    serves_without_memory(&second, &format!("process {}", first.pid()));
    assert_eq!(second.stop().code(), Some(0));
    assert_eq!(first.stop().code(), Some(0));
    assert_eq!(rows(&TestServer::start_in(first.folder(), &[])), before);
}

#[test]
fn a_full_disk_costs_lines_and_memory_but_no_event() {
    let Some(shell) = mounting_shell() else { return };
    let folder = folder();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let flags = ["--log-dir", "disk", "--log-level", "debug"];
    let mut server = TestServer::start_command(Arc::clone(&folder), &flags, |command| {
        // 16 pages, of which the lock and the first lines get a few.
        let script = "mount -t tmpfs -o size=64k tmpfs disk && head -c 49152 /dev/zero > disk/filler";
        in_shell(command, shell, script);
    });
    let mut client = server.client();
    populate(&server);
    let sender = server.sender();
    // The machines of `populate` were five events.
    for _ in 0..5 {
        client.text();
    }
    for number in 0..500 {
        sender.send(&numbered(number, 300)).unwrap();
        client.expect_numbers(number..number + 1);
    }
    let lost = eventually("lines are lost", || {
        server.health()["log_lines_lost"].as_u64().filter(|lost| *lost > 0)
    });
    server.wait_for_line("⚠️ cannot write disk/websocket-server.log: No space left");
    server.send(state_change("late", "a", "b", 1.5));
    client.text();
    server.wait_for_line("🚨 cannot write disk/threadcast-state.json: No space left");
    assert_eq!(server.health()["status"], "ok");

    // The server's own view of its disk.
    let disk = PathBuf::from(format!(
        "/proc/{}/root{}",
        server.pid(),
        folder.path().join("disk").display()
    ));
    fs::remove_file(disk.join("filler")).unwrap();
    server.wait_for_line("✅ disk/threadcast-state.json can be written again");
    eventually("the log goes on", || {
        server.send(numbered(0, 100));
        client.expect_numbers(0..1);
        server
            .lines()
            .with("✅ disk/websocket-server.log can be written again")
            .pop()
    });
    let saved: Value = serde_json::from_slice(&fs::read(disk.join("threadcast-state.json")).unwrap()).unwrap();
    assert_eq!(saved["machines"].as_array().unwrap().len(), 5, "{saved}");
    // The rest of a line that did not fit is no part of the next. The disk may end within a character.
    let log = fs::read(disk.join("websocket-server.log")).unwrap();
    let log = String::from_utf8_lossy(&log);
    let date = &log[..11];
    for line in log.lines() {
        assert!(line.matches(date).count() <= 1, "{line}");
    }
    assert!(server.health()["log_lines_lost"].as_u64().unwrap() >= lost);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_forgotten_machine_leaves_every_screen_whatever_its_name() {
    let server = TestServer::start(&[]);
    let mut clients = [server.client(), server.client()];
    let port = server.address.port().to_string();
    for name in [
        "plain",
        "with a space",
        "päivää ✓ 🚀",
        "100%&machine=b+c#?/%20",
        "quote\" and back\\slash",
        "line\nbreak",
        "--dashes",
    ] {
        let quoted = json!(name);
        let event = format!(
            "{{\"machine_name\": {quoted}, \"type\": \"machine_registered\", \"payload\": {{\"config_type\": \"c\", \"current_state\": \"s\"}}}}"
        );
        server.send(&event);
        for client in &mut clients {
            assert_eq!(client.text(), event);
        }
        assert_eq!(server.initial()["machines"][0]["machine_name"], quoted);
        let (status, output, said) = run(&server.path(""), &["forget", "--port", &port, "--", name]);
        assert_eq!((status, said.as_str()), (0, ""), "{name}");
        assert_eq!(output, format!("machine {name:?} is forgotten\n"));
        for client in &mut clients {
            let told = client.json();
            assert_eq!(told["type"], "machine_terminated");
            assert_eq!(told["machine_name"], quoted);
            assert_eq!(told["payload"]["machine_name"], quoted);
            assert_eq!(told["payload"]["config_type"], "c");
            assert!(told["payload"]["timestamp"].is_f64());
        }
        assert_eq!(server.initial()["machines"], json!([]));
    }
}

#[test]
fn forgetting_what_is_not_there_fails_and_says_why() {
    let server = TestServer::start(&[]);
    let port = server.address.port().to_string();
    let (status, output, said) = run(&server.path(""), &["forget", "nobody 100%", "--port", &port]);
    assert_eq!((status, output.as_str()), (1, ""));
    assert!(said.contains("there is no machine \"nobody 100%\""), "{said}");

    // A port that nobody listens on: ours until a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (status, _, said) = run(&server.path(""), &["forget", "m", "--port", &port.to_string()]);
    assert_eq!(status, 1);
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(said.contains("hint: is it running"), "{said}");
}
