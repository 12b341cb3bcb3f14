//! The log tells what happened in lines that nobody can forge, and neither a disk nor a terminal nor an outsider can
//! make it cost anything but lines, which are counted.

use crate::support::client::Options;
use crate::support::screen::pty;
use crate::support::server::in_shell;
use crate::support::{DEADLINE, TestClient, TestServer, eventually, numbered, pause, state_change};
use rustix::fs::{OFlags, fcntl_getfl};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

fn log_path(server: &TestServer) -> PathBuf {
    server.path("logs/websocket-server.log")
}

fn log_of(server: &TestServer) -> String {
    fs::read_to_string(log_path(server)).unwrap_or_default()
}

/// Waits until the log file has a line with `part`; gives the line.
#[track_caller]
fn wait_for_file_line(path: &Path, part: &str) -> String {
    eventually(&format!("{part:?} in {}", path.display()), || {
        let text = fs::read_to_string(path).ok()?;
        // The last line may not be whole yet.
        let whole = &text[..text.rfind('\n')? + 1];
        whole.lines().find(|line| line.contains(part)).map(str::to_owned)
    })
}

/// Time, level and thread, as every line must begin.
fn is_line(line: &str) -> bool {
    let shape = |text: &str| -> String {
        text.chars()
            .map(|character| if character.is_ascii_digit() { '9' } else { character })
            .collect()
    };
    let head = line.get(..24).map(shape);
    head.as_deref() == Some("9999-99-99T99:99:99.999Z")
        && ["ERROR", "WARN ", "INFO ", "DEBUG", "TRACE"]
            .iter()
            .any(|level| line[24..].starts_with(&format!(" {level} [")))
}

#[test]
fn the_file_has_the_lines_of_the_terminal() {
    let mut server = TestServer::start(&["--log-dir", "deep/folder", "--log-level", "debug"]);
    let client = server.client();
    server.send(state_change("m", "a", "b", 1.5));
    server.send("no JSON");
    client.close();
    assert_eq!(server.http("GET", "/nothing", &[]).status, 404);
    assert_eq!(server.stop().code(), Some(0));
    let file = fs::read_to_string(server.path("deep/folder/websocket-server.log")).unwrap();
    eventually("the terminal has them too", || {
        (server.lines().all() == file.trim_end_matches('\n')).then_some(())
    });
    assert!(file.contains("👋 stopped in"));
    for line in file.lines() {
        assert!(is_line(line), "{line}");
    }
}

#[test]
fn operators_find_the_lines_that_they_know() {
    let server = TestServer::start(&["--log-level", "debug", "--ping-interval", "50ms"]);
    server.wait_for_line("🚀 threadcast ");
    let mut client = server.client();
    let joined = server.wait_for_line("📋 client 1 from 127.0.0.1:");
    assert!(joined.contains("joined after event 0"), "{joined}");
    let sent = server.wait_for_line("✅ snapshot of 0 machines sent to client 1 in ");
    assert!(sent.ends_with("ms"), "{sent}");
    server.send(state_change("known", "a", "b", 1.5));
    client.text();
    let received = server.wait_for_line("📥 event 1: ");
    assert!(received.contains("state_change of known, "), "{received}");
    let told = server.wait_for_line("🔊 broadcast of 1 event to 1 client took ");
    let millis = told.rsplit(' ').next().unwrap().trim_end_matches("ms");
    assert!(millis.parse::<f64>().unwrap() >= 0.0, "{told}");
    server.wait_for_line("🏓 ping to client 1");
}

#[test]
fn at_info_there_is_no_line_per_event_or_ping() {
    let server = TestServer::start(&["--ping-interval", "20ms"]);
    let mut client = server.client();
    for number in 0..50 {
        server.send(numbered(number, 100));
    }
    client.expect_numbers(0..50);
    server.wait_for_line("📋 client 1 ");
    for part in ["📥", "🔊", "🏓"] {
        assert!(server.lines().with(part).is_empty(), "{}", server.lines().all());
    }
}

/// The stream goes on; the terminal tells why the file does not; the loss is counted.
#[track_caller]
fn serves_without_a_log_file(server: &TestServer, why: &str) {
    let line = server.wait_for_line("⚠️ cannot write logs/websocket-server.log: ");
    assert!(line.contains(why), "{line}");
    let mut client = server.client();
    server.send(numbered(7, 100));
    client.expect_numbers(7..8);
    let health = server.health();
    assert!(health["log_lines_lost"].as_u64().unwrap() > 0, "{health}");
    assert_eq!(health["status"], "ok");
}

#[test]
fn a_log_folder_that_cannot_be_made_is_said_and_made_later() {
    let folder = folder();
    let logs = folder.path().join("logs");
    fs::write(&logs, "a file in its place").unwrap();
    let server = TestServer::start_in(Arc::clone(&folder), &["--log-level", "debug"]);
    serves_without_a_log_file(&server, "");
    assert_eq!(fs::read(&logs).unwrap(), b"a file in its place");
    fs::remove_file(&logs).unwrap();
    let line = eventually("the file is written again", || {
        // Any line makes it try; those of events are not limited.
        server.send(numbered(0, 100));
        server
            .lines()
            .with("✅ logs/websocket-server.log can be written again")
            .pop()
    });
    assert!(line.contains("lines are missing in it"), "{line}");
    wait_for_file_line(&log_path(&server), "can be written again");
}

#[test]
fn a_log_folder_removed_under_us_is_made_anew() {
    let server = TestServer::start(&["--log-level", "debug"]);
    wait_for_file_line(&log_path(&server), "🚀");
    fs::remove_dir_all(server.path("logs")).unwrap();
    server.send(numbered(1, 100));
    wait_for_file_line(&log_path(&server), "📥 event 1: ");
    // As logrotate does it.
    fs::rename(log_path(&server), server.path("logs/rotated")).unwrap();
    server.send(numbered(2, 100));
    let text = wait_for_file_line(&log_path(&server), "📥 event 2: ");
    assert!(!text.contains("event 1:"));
    assert_eq!(server.health()["log_lines_lost"], 0);
}

/// Sends `count` events in batches, each awaited in the log file, so that it is the terminal alone that loses lines.
#[track_caller]
fn stream_with_log(server: &TestServer, count: usize) {
    let mut client = server.client();
    let sender = server.sender();
    for start in (0..count).step_by(100) {
        for number in start..start + 100 {
            sender.send(&numbered(number, 200)).unwrap();
        }
        client.expect_numbers(start..start + 100);
        wait_for_file_line(&log_path(server), &format!("📥 event {}: ", start + 100));
    }
}

#[track_caller]
fn file_is_complete(server: &TestServer, count: usize) {
    let log = log_of(server);
    for number in 1..=count {
        assert!(
            log.contains(&format!("📥 event {number}: ")),
            "event {number} is missing"
        );
    }
    assert!(!log.contains("came faster than they could be written"));
}

#[test]
fn a_terminal_that_nobody_reads_costs_only_its_own_lines() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut server = TestServer::start_command(folder(), &["--log-level", "debug"], |command| {
        command.stderr(writer);
    });
    // Some 300 KB of lines: a pipe holds 64 KiB.
    stream_with_log(&server, 2000);
    file_is_complete(&server, 2000);
    let health = server.health();
    assert!(health["log_lines_lost"].as_u64().unwrap() > 0, "{health}");
    assert_eq!(health["status"], "ok");

    // Somebody reads again: the loss is said, and no line was cut in the middle of the pipe.
    let mut read = vec![0; 32 * 1024];
    reader.read_exact(&mut read).unwrap();
    eventually("the loss is said", || {
        server.send(numbered(0, 100));
        log_of(&server).contains("⚠️ the terminal did not take ").then_some(())
    });
    assert_eq!(server.stop().code(), Some(0));
    // The writer's last end is closed with the server, so this ends.
    reader.read_to_end(&mut read).unwrap();
    for line in String::from_utf8(read).unwrap().lines() {
        assert!(is_line(line), "{line}");
        assert_eq!(line.matches("[fanout]").count().max(1), 1, "{line}");
    }
}

/// What the server writes to `theirs` gets stuck, because nobody reads `ours`; later somebody does.
fn costs_only_its_own_lines(mut ours: File, theirs: OwnedFd) {
    let shared = theirs.try_clone().unwrap();
    let server = TestServer::start_command(folder(), &["--log-level", "debug"], |command| {
        // Plain lines, as in the file; terminal.rs has those with a status line below.
        command
            .stderr(theirs)
            .env("TERM", "dumb")
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8");
    });
    stream_with_log(&server, 4000);
    file_is_complete(&server, 4000);
    let health = server.health();
    assert!(health["log_lines_lost"].as_u64().unwrap() > 0, "{health}");
    assert_eq!(health["status"], "ok");
    // Whoever shares it with the server, such as the shell, still waits where it has to.
    assert!(!fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK));
    drop(shared);

    let seen = Mutex::new(Vec::new());
    // A character may have been cut, as lines may.
    let seen_text = || String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    let log = std::thread::scope(|scope| {
        // Ours in here: should something fail, its end ends the reader.
        let mut server = server;
        scope.spawn(|| {
            let mut bytes = [0; 4096];
            // Ends with the server, which has the only other end.
            while let Ok(count @ 1..) = ours.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        eventually("the loss is said, there too", || {
            server.send(numbered(0, 100));
            seen_text().contains("⚠️ the terminal did not take ").then_some(())
        });
        assert_eq!(server.stop().code(), Some(0));
        log_of(&server)
    });
    let complete: HashSet<&str> = log.lines().collect();
    let text = seen_text();
    let mut cut = 0;
    for line in text.lines().filter(|line| !complete.contains(line)) {
        let begun = line.trim_end_matches('\u{fffd}');
        assert!(
            log.lines().any(|whole| whole.starts_with(begun)),
            "two lines in one: {line:?}"
        );
        cut += 1;
    }
    let lines = text.lines().count();
    assert!(cut < lines / 2, "{cut} of {lines} lines were cut");
}

#[test]
fn a_stopped_terminal_costs_only_its_own_lines() {
    let (emulator, program) = pty();
    costs_only_its_own_lines(emulator, program);
}

#[test]
fn a_journal_that_stands_still_costs_only_its_own_lines() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    costs_only_its_own_lines(OwnedFd::from(ours).into(), theirs.into());
}

#[test]
fn a_log_file_that_cannot_be_set_aside_goes_on() {
    let folder = folder();
    let logs = folder.path().join("logs");
    let old = |end: &str| logs.join(format!("websocket-server.log{end}"));
    // A folder that is not empty cannot be replaced, not even by root.
    fs::create_dir_all(old(".5").join("kept")).unwrap();
    for number in 1..=4 {
        fs::write(old(&format!(".{number}")), format!("old {number}\n")).unwrap();
    }
    let nearly_full = [vec![b'x'; 10 * 1024 * 1024 - 300], vec![b'\n']].concat();
    fs::write(old(""), nearly_full).unwrap();
    let mut server = TestServer::start_in(Arc::clone(&folder), &["--log-level", "debug"]);
    stream_with_log(&server, 200);
    file_is_complete(&server, 200);
    let line = server.wait_for_line("⚠️ cannot rotate logs/websocket-server.log because ");
    assert!(
        line.contains("websocket-server.log.5") && line.contains("; it grows until "),
        "{line}"
    );
    assert_eq!(server.health()["log_lines_lost"], 0);
    assert_eq!(server.stop().code(), Some(0));
    wait_for_file_line(&log_path(&server), "👋 stopped in");
    assert_eq!(log_of(&server).matches("cannot rotate").count(), 1);
    assert!(fs::metadata(old("")).unwrap().len() > 10 * 1024 * 1024);
    for number in 1..=4 {
        let kept = fs::read_to_string(old(&format!(".{number}"))).unwrap();
        assert_eq!(kept, format!("old {number}\n"), "no older file is lost");
    }
}

#[test]
fn a_closed_terminal_costs_only_its_own_lines() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let broken = TestServer::start_command(folder(), &["--log-level", "debug"], |command| {
        command.stderr(writer);
    });
    let closed = TestServer::start_command(folder(), &["--log-level", "debug"], |command| {
        in_shell(command, &["sh"], "exec 2>&-");
    });
    for mut server in [broken, closed] {
        stream_with_log(&server, 200);
        file_is_complete(&server, 200);
        assert_eq!(server.health()["status"], "ok");
        assert_eq!(server.stop().code(), Some(0));
        wait_for_file_line(&log_path(&server), "👋 stopped in");
    }
}

#[test]
fn what_outsiders_cause_is_limited_and_counted() {
    let begun = Instant::now();
    let mut server = TestServer::start(&[]);
    let sender = server.sender();
    for number in 0..500 {
        sender.send(format!("no JSON {number}").as_bytes()).unwrap();
    }
    let foreign = Options {
        headers: vec!["Origin: https://evil.example".to_owned()],
        ..Options::default()
    };
    for _ in 0..60 {
        TestClient::try_with(server.address, &foreign).unwrap_err();
    }
    eventually("all are counted", || {
        let drops = &server.health()["events_dropped"];
        let total: u64 = drops
            .as_object()
            .unwrap()
            .values()
            .map(|count| count.as_u64().unwrap())
            .sum();
        (total == 500).then_some(())
    });
    assert_eq!(server.stop().code(), Some(0));
    // Twenty per window of ten seconds.
    let most = 20 * (begun.elapsed().as_secs() as usize / 10 + 2);
    for (part, caused) in [("⚠️ dropped an event: ", 500), ("⚠️ refused a request of ", 60)] {
        let written = server
            .lines()
            .with(part)
            .iter()
            .filter(|line| !line.contains("more lines like"))
            .count();
        assert!((1..=most).contains(&written), "{written} lines with {part:?}");
        let example = format!("more lines like “{part}");
        let left_out: usize = server
            .lines()
            .with(&example)
            .iter()
            .map(|line| {
                line.split("⚠️ ")
                    .nth(1)
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
                    .parse::<usize>()
                    .unwrap()
            })
            .sum();
        assert_eq!(
            written + left_out,
            caused,
            "every line is written or counted: {}",
            server.lines().all()
        );
    }
}

#[test]
fn no_name_and_no_text_from_outside_can_forge_a_line() {
    let mut server = TestServer::start(&["--log-level", "debug"]);
    let forged = "2030-01-01T00:00:00.000Z ERROR [main] forged";
    // Newlines, escape sequences, their one-byte forms, line ends of Unicode, and marks that turn the reading around.
    for evil in [
        r"\n",
        r"\r",
        r"\r\n",
        r"\u001b[2J",
        r"\u001b]0;title\u0007",
        r"\u009b31m",
        r"\u0085",
        r"\u2028",
        r"\u2029",
        r"\u202e",
        r"\u2066",
        r"\u0000",
        r"\u007f",
        r"\u061c",
        r"\u200b",
        r"\ufeff",
        r"\udb40\udc01",
    ] {
        let text = format!("x{evil}{forged}");
        server.send(format!(
            "{{\"machine_name\": \"{text}\", \"type\": \"{text}\", \"payload\": {{\"to_state\": \"{text}\"}}}}"
        ));
    }
    for raw in ["\n", "\r", "\u{1b}[2J", "\u{9b}31m", "\u{2028}", "\u{202e}"] {
        server.send(format!("no JSON{raw}{forged}"));
        let header = format!("Origin: https://evil{raw}{forged}");
        if !raw.contains(['\n', '\r']) {
            server.http("GET", "/health", &[&header]);
        }
    }
    server.send(b"no UTF-8 \xff\x1b[31m".as_slice());
    let mut client = server.client();
    let sender = server.sender();
    eventually("a loud machine is named", || {
        for _ in 0..300 {
            sender
                .send(br#"{"machine_name": "\n\u001b[31mloud", "type": "t"}"#)
                .unwrap();
        }
        for _ in 0..300 {
            client.text();
        }
        server.lines().with("sends over 100 events/s").pop()
    });
    assert_eq!(server.stop().code(), Some(0));
    let file = log_of(&server);
    assert!(file.contains("forged"), "else this test shows nothing");
    for line in file.split('\n').filter(|line| !line.is_empty()) {
        assert!(is_line(line), "{line:?}");
        let dangerous = |c: char| {
            c.is_control()
                || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                    | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
        };
        assert!(!line.contains(dangerous), "{line:?}");
        assert!(!line.starts_with("2030"), "{line}");
    }
}

#[test]
fn a_machine_in_a_loop_is_named_once() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let sender = server.sender();
    let tick = |machine: &str| format!("{{\"machine_name\": \"{machine}\", \"type\": \"tick\", \"payload\": {{}}}}");
    let begun = Instant::now();
    // Over two of the seconds in which events are counted, so that it would be said again.
    let mut sent = 0;
    while begun.elapsed() < Duration::from_millis(2200) {
        for number in 0..150 {
            let machine = if number % 10 == 0 { "calm" } else { "wild" };
            sender.send(tick(machine).as_bytes()).unwrap();
        }
        for _ in 0..150 {
            client.text();
        }
        sent += 1;
        pause(Duration::from_millis(if sent == 1 { 0 } else { 300 }));
    }
    server.wait_for_line("⚠️ machine wild sends over 100 events/s");
    assert_eq!(
        server.lines().with("sends over 100 events/s").len(),
        1,
        "{}",
        server.lines().all()
    );
    assert!(server.lines().with("machine calm").is_empty());
    assert!(begun.elapsed() < DEADLINE);
}
