//! `/api/machines` and `threadcast machines`: what is known of every machine, across restarts, and while the rest
//! stands still.

use crate::support::pty::{plain_lines, run_on_terminal};
use crate::support::server::run;
use crate::support::{TestServer, eventually, pause, state_change};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    server.signal(Signal::KILL);
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

fn url(server: &TestServer) -> String {
    format!("http://{}", server.address)
}

/// `threadcast machines` with these arguments: status, standard output, standard error.
fn machines(server: &TestServer, arguments: &[&str]) -> (i32, String, String) {
    let url = url(server);
    run(
        server.folder().path(),
        &[&["machines", "--url", &url], arguments].concat(),
    )
}

/// A server that knows these machines.
#[track_caller]
fn with_machines(names: &[&str]) -> TestServer {
    let server = TestServer::start(&[]);
    for name in names {
        server.send(state_change(name, "a", "busy", 1.0));
    }
    if let Some(last) = names.last() {
        row(&server, last, |_| true);
    }
    server
}

#[test]
fn the_command_shows_all_machines_or_those_that_match() {
    let server = with_machines(&["worker-1", "worker-2", "db"]);
    let (code, out, err) = machines(&server, &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("epoch ") && lines[0].ends_with("; 3 machines"),
        "{out}"
    );
    assert!(lines[1].starts_with("NAME ") && lines[1].ends_with("SEEN"), "{out}");
    assert_eq!(lines.len(), 5, "{out}");
    let row = lines.iter().find(|line| line.starts_with("db ")).unwrap();
    assert!(
        row.contains("  busy  ") && row.contains("  t  ") && row.contains("/s  "),
        "{out}"
    );
    for globs in [&["worker-*"][..], &["worker-1", "*2"], &["worker-1,worker-2"]] {
        let (code, out, err) = machines(&server, globs);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(
            out.contains("worker-1") && out.contains("worker-2") && !out.contains("\ndb"),
            "{out}"
        );
    }
    let (code, out, _) = machines(&server, &["db", "--json"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["machines"][0]["machine_name"], "db");
    assert_eq!(
        (
            document["machines"].as_array().unwrap().len(),
            &document["totals"]["machines"]
        ),
        (1, &3.into())
    );
}

#[test]
fn a_glob_that_matches_none_is_told_what_there_is() {
    let server = with_machines(&["worker-1", "db"]);
    let (code, out, err) = machines(&server, &["wroker-*"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(
        err,
        "threadcast: no machine matches wroker-*; the server knows 2 machines: db, worker-1\n"
    );
    assert!(out.ends_with("; 2 machines\nno machines\n"), "{out}");
    let (code, out, err) = machines(&server, &["wroker-*", "--json"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.ends_with("\"machines\":[]}\n") && err.contains("no machine matches"),
        "{out}{err}"
    );
    let (code, _, err) = machines(&with_machines(&[]), &["x"]);
    assert!(
        code == 0 && err.ends_with("no machine matches x; the server knows no machine yet\n"),
        "{err}"
    );
}

#[test]
fn it_forgets_as_forget_does() {
    let server = with_machines(&["worker-1", "db"]);
    let (code, out, err) = machines(&server, &["--forget", "db"]);
    assert_eq!((code, out.as_str()), (0, "machine \"db\" is forgotten\n"), "{err}");
    let (_, out, _) = machines(&server, &[]);
    assert!(out.contains("; 1 machine\n") && !out.contains("\ndb"), "at once: {out}");
    let (code, _, err) = machines(&server, &["--forget", "db"]);
    assert!(code == 1 && err.contains("there is no machine \"db\""), "{err}");
}

#[test]
fn watching_shows_one_list_after_another_until_it_is_ended() {
    let server = with_machines(&["m"]);
    let mut watch = Command::new(env!("CARGO_BIN_EXE_threadcast"))
        .args(["machines", "--watch", "0.1", "--url", &url(&server)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let shown = lines
        .map(Result::unwrap)
        .filter(|line| line.starts_with("NAME"))
        .take(3);
    assert_eq!(shown.count(), 3);
    // The pipe is closed now, so that either the signal ends it or the next table does.
    kill_process(Pid::from_child(&watch), Signal::TERM).unwrap();
    let ended = eventually("it ends", || watch.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}

/// Answers every connection with these bytes, whatever is asked.
fn answering(bytes: &'static [u8]) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&over);
    #[expect(clippy::disallowed_methods, reason = "the harness has threads of its own")]
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            if flag.load(Ordering::Relaxed) {
                return;
            }
            let mut request = [0; 4096];
            let _ = socket.read(&mut request);
            let _ = socket.write_all(bytes);
        }
    });
    (url, over)
}

#[test]
fn what_answers_and_is_no_threadcast_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for answer in [
        // The original's server, nginx, a server that has a page of that name, none of HTTP.
        &b"HTTP/1.1 404 Not Found\r\nserver: uvicorn\r\ncontent-length: 22\r\n\r\n{\"detail\":\"Not Found\"}"[..],
        b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nConnection: close\r\n\r\n<html>404 Not Found</html>",
        b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nConnection: close\r\n\r\n<html>502</html>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"220 mail.example ESMTP\r\n",
    ] {
        let (url, over) = answering(answer);
        for arguments in [
            &["clients"][..],
            &["clients", "--json"],
            &["machines"],
            &["machines", "--json"],
            &["machines", "x"],
            &["machines", "--check"],
            &["machines", "--graph"],
            &["machines", "--graph", "x", "--json"],
            &["machines", "--graph", "--dot"],
        ] {
            let (code, out, err) = run(folder.path(), &[arguments, &["--url", &url]].concat());
            assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {err}");
            assert!(
                err.contains("what answers there is no threadcast"),
                "{arguments:?}: {err}"
            );
        }
        over.store(true, Ordering::Relaxed);
        // So that the thread looks.
        let _ = TcpStream::connect(url.trim_start_matches("http://"));
    }
    for command in ["clients", "machines"] {
        let (code, out, err) = run(folder.path(), &[command, "--url", "http://127.0.0.1:1"]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(
            err.contains("cannot ask the server at 127.0.0.1:1") && err.contains("hint: "),
            "{err}"
        );
    }
}

#[test]
fn a_server_that_cannot_tell_now_says_why() {
    let server = TestServer::start(&["--allow-drill"]);
    assert_eq!(server.act("/drill?component=fanout&ms=60000").status, 200);
    eventually("it stands still", || {
        (server.http("GET", "/initial", &[]).status == 503).then_some(())
    });
    let (code, out, err) = machines(&server, &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "threadcast: no list of machines: the fan-out did not answer within 2s\n"
    );
    assert_eq!(server.act("/drill?component=fanout&ms=0").status, 200);
}

#[test]
fn both_tables_fit_their_terminal_without_broken_rows() {
    let long = format!("worker-{}-7", "x".repeat(120));
    let server = with_machines(&["db", &long]);
    let _clients = [server.client(), server.client()];
    for columns in [60, 80, 120] {
        for (command, rows, must) in [
            ("machines", 2, ["NAME", "TIME", "SEEN"]),
            ("clients", 2, ["ID", "QUEUED", "LAG"]),
        ] {
            let (code, shown) = run_on_terminal(server.folder().path(), columns, &[command, "--url", &url(&server)]);
            assert_eq!(code, 0, "{shown}");
            assert!(shown.contains("\u{1b}[1m"), "a terminal has colors: {shown:?}");
            let lines = plain_lines(&shown);
            assert!(
                lines.iter().all(|line| line.chars().count() <= usize::from(columns)),
                "{lines:#?}"
            );
            let head = lines
                .iter()
                .position(|line| must.iter().all(|head| line.contains(head)));
            let behind = &lines[head.unwrap_or_else(|| panic!("{lines:#?}")) + 1..];
            let note = behind
                .iter()
                .position(|line| line.starts_with("no room for "))
                .unwrap_or(behind.len());
            assert_eq!(note, rows, "{lines:#?}");
            assert!(
                note == behind.len() || shown.trim_end().ends_with("--json has them"),
                "{lines:#?}"
            );
        }
    }
}

#[test]
fn json_on_a_terminal_cannot_drive_it_and_elsewhere_is_as_the_server_says() {
    // One character that begins a command of a terminal, and one that turns the direction of writing.
    let name = "a\u{9b}2J\u{202e}b";
    let server = with_machines(&[name]);
    let (code, shown) = run_on_terminal(
        server.folder().path(),
        80,
        &["machines", "--json", "--url", &url(&server)],
    );
    assert_eq!(code, 0, "{shown:?}");
    assert!(!shown.contains(['\u{9b}', '\u{202e}']), "{shown:?}");
    let document: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(document["machines"][0]["machine_name"], name, "the same document");
    let (_, out, _) = machines(&server, &["--json"]);
    assert!(out.contains(name), "{out:?}");
}

#[test]
fn names_of_wide_characters_break_no_row() {
    let name = "日本語の機械🚀".repeat(6);
    let server = with_machines(&[&name, "db"]);
    for columns in [60, 80, 120] {
        let (code, shown) = run_on_terminal(server.folder().path(), columns, &["machines", "--url", &url(&server)]);
        assert_eq!(code, 0, "{shown}");
        for line in plain_lines(&shown) {
            let wide = line.chars().filter(|character| *character > '\u{2e80}').count();
            assert!(line.chars().count() + wide <= usize::from(columns), "{columns}: {line}");
        }
    }
}

#[test]
fn without_a_terminal_the_width_is_that_of_columns_if_it_is_sane() {
    let server = with_machines(&["db", &format!("worker-{}", "x".repeat(300))]);
    for (columns, widest) in [("60", 60), ("200", 200), ("0", 120), ("wide", 120), ("", 120)] {
        let output = Command::new(env!("CARGO_BIN_EXE_threadcast"))
            .args(["machines", "--url", &url(&server)])
            .env("COLUMNS", columns)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let most = out.lines().map(|line| line.chars().count()).max().unwrap();
        // The long name takes what there is.
        assert!((widest - 4..=widest).contains(&most), "{columns}: {most}\n{out}");
    }
}

#[cfg(feature = "engine-db")]
#[test]
fn a_machine_whose_process_is_gone_is_stale_by_a_word() {
    use crate::support::engine_db::{EngineDb, dead_pid, epoch, living_pid};
    let (folder, db) = EngineDb::in_folder();
    let now = epoch();
    db.machine("dead", "busy", now - 50.0, dead_pid(), Some("c"));
    db.machine("living", "busy", now, living_pid(), Some("c"));
    let server = TestServer::start_in(folder, &[]);
    let dead = row(&server, "dead", |row| row["stale"] == true);
    assert!(
        dead["state_seconds"].is_null() && seconds(&dead, "last_event_seconds") >= 50.0,
        "{dead}"
    );
    assert_eq!(row(&server, "living", |_| true)["stale"], false);
    assert_eq!(survey(&server, "")["totals"]["stale"], 1);
    let (_, out, _) = machines(&server, &[]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].ends_with("; 2 machines, 1 stale") && lines[1].ends_with("  NOTE"),
        "{out}"
    );
    assert!(lines[2].starts_with("dead ") && lines[2].ends_with("  stale"), "{out}");
    // A sign of life takes it off.
    server.send(state_change("dead", "busy", "idle", now));
    row(&server, "dead", |row| {
        row["stale"] == false && seconds(row, "state_seconds") < 50.0
    });
}
