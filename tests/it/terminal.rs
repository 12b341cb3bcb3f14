//! What a person sees of the log on a terminal: one status line at the bottom, local times, and no more than the
//! terminal can show.

use crate::support::screen::{Shown, pty, set_columns};
use crate::support::server::clear_environment;
use crate::support::{TestServer, eventually, numbered, state_change};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// Two hours before UTC, as POSIX writes it.
const EAST: &str = "TST-02:00";
/// A heartbeat each 100 ms.
const LIVELY: [&str; 2] = ["--heartbeat-interval", "100ms"];

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

fn log_of(server: &TestServer) -> String {
    fs::read_to_string(server.path("logs/websocket-server.log")).unwrap_or_default()
}

/// A server whose standard error is `terminal`, of a usual kind in UTC but for `variables`.
fn server_on(terminal: OwnedFd, flags: &[&str], variables: &[(&str, &str)]) -> TestServer {
    TestServer::start_command(folder(), flags, |command| {
        command
            .stderr(terminal)
            .env("TERM", "xterm")
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .envs(variables.iter().copied());
    })
}

/// A server on a terminal of 200 columns that somebody reads, and another end to resize it.
fn on_terminal(flags: &[&str], variables: &[(&str, &str)]) -> (TestServer, Shown, File) {
    let (emulator, program) = pty();
    set_columns(&emulator, 200);
    let shown = Shown::read(emulator.try_clone().unwrap());
    (server_on(program, flags, variables), shown, emulator)
}

#[track_caller]
fn wait_for(shown: &Shown, part: &str) {
    eventually(&format!("{part:?} on the terminal"), || {
        shown.raw().contains(part).then_some(())
    });
}

/// The number of the newest heartbeat in `text`; 0 before the first.
fn newest(text: &str) -> u64 {
    let number = text.rsplit("heartbeat #").next().filter(|rest| rest.len() < text.len());
    let digits = number.and_then(|rest| rest.split(' ').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[test]
fn the_heartbeat_is_one_line_at_the_bottom_and_is_gone_at_the_end() {
    let (mut server, shown, _emulator) = on_terminal(&LIVELY, &[]);
    wait_for(&shown, "heartbeat #3 ");
    server.send("no JSON");
    wait_for(&shown, "dropped an event");
    let so_far = newest(&shown.raw());
    eventually("it goes on below the line", || {
        (newest(&shown.raw()) >= so_far + 2).then_some(())
    });
    let rows = shown.rows();
    let at: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].contains('💓')).collect();
    // Between an erasure and the next status line there is none.
    assert!(at.is_empty() || at == [rows.len() - 1], "{rows:#?}");
    assert_eq!(server.stop().code(), Some(0));
    wait_for(&shown, "👋 stopped in");
    eventually("the status line is gone", || {
        shown.rows().iter().all(|row| !row.contains('💓')).then_some(())
    });
    let log = log_of(&server);
    let rows = shown.rows();
    let expected: Vec<&str> = log.lines().filter(|line| !line.contains("💓")).collect();
    assert_eq!(rows, [&expected[..], &[""]].concat(), "all other lines are whole");
    let heartbeats = log.lines().filter(|line| line.contains("[heartbeat] 💓")).count() as u64;
    assert_eq!(heartbeats, newest(&log), "the file has each of them");
    assert!(log.contains("status=stopped"), "{log}");
}

#[test]
fn the_status_line_fits_a_terminal_that_is_made_narrower() {
    let (server, shown, emulator) = on_terminal(&LIVELY, &[]);
    wait_for(&shown, "backlog=0");
    let last = |text: &str| text.rsplit("\r\u{1b}[K").next().unwrap_or_default().to_owned();
    let wide = eventually("a whole status line", || {
        let line = last(&shown.raw());
        line.contains("backlog=").then_some(line)
    });
    assert!(wide.chars().count() > 80, "{wide}");
    for columns in [60, 20, 100] {
        set_columns(&emulator, columns);
        let so_far = newest(&log_of(&server));
        // One may be drawn while the terminal changes; the one after knows.
        eventually("the file has two more", || {
            (newest(&log_of(&server)) >= so_far + 2).then_some(())
        });
        let line = eventually("a status line", || {
            let line = last(&shown.raw());
            line.contains('💓').then_some(line)
        });
        // The emoji takes two.
        assert!(line.chars().count() + 1 < usize::from(columns), "{columns}: {line}");
        assert!(
            columns < 60 || line.contains("backlog=0"),
            "the last field stays: {line}"
        );
    }
}

#[test]
fn a_stopped_terminal_with_a_status_line_costs_only_its_own_lines() {
    let (emulator, program) = pty();
    let mut server = server_on(program, &[&LIVELY[..], &["--log-level", "debug"]].concat(), &[]);
    let mut client = server.client();
    let sender = server.sender();
    for start in (0..4000).step_by(100) {
        for number in start..start + 100 {
            sender.send(&numbered(number, 200)).unwrap();
        }
        client.expect_numbers(start..start + 100);
        // Each batch is awaited, so that it is the terminal alone that loses lines.
        eventually("the file has all of them", || {
            log_of(&server)
                .contains(&format!("📥 event {}: ", start + 100))
                .then_some(())
        });
    }
    assert!(!log_of(&server).contains("came faster than they could be written"));
    let health = server.health();
    assert!(health["log_lines_lost"].as_u64().unwrap() > 0, "{health}");
    assert_eq!(health["status"], "ok");

    let shown = Shown::read(emulator);
    eventually("the loss is said, there too", || {
        server.send(numbered(0, 100));
        shown.raw().contains("⚠️ the terminal did not take ").then_some(())
    });
    assert_eq!(server.stop().code(), Some(0));
    wait_for(&shown, "👋 stopped in");
    eventually("the status line is gone", || {
        shown.rows().last().is_some_and(String::is_empty).then_some(())
    });
    let log = log_of(&server);
    let rows = shown.rows();
    let mut cut = 0;
    for row in rows.iter().filter(|row| !log.lines().any(|line| line == **row)) {
        let begun = row.trim_end_matches('\u{fffd}');
        assert!(
            log.lines().any(|whole| whole.starts_with(begun)),
            "two lines in one: {row:?}"
        );
        cut += 1;
    }
    assert!(cut < rows.len() / 2, "{cut} of {} lines were cut", rows.len());
}

#[test]
fn a_dumb_terminal_and_a_given_format_get_whole_lines_only() {
    for (flags, variables) in [
        (&[][..], &[("TERM", "dumb")][..]),
        (&[], &[("TERM", "")]),
        (&["--log-format", "text"], &[]),
    ] {
        let (mut server, shown, _emulator) = on_terminal(&[&LIVELY[..], flags].concat(), variables);
        wait_for(&shown, "heartbeat #3 ");
        assert_eq!(server.stop().code(), Some(0));
        wait_for(&shown, "👋 stopped in");
        assert!(!shown.raw().contains('\u{1b}'), "{flags:?} {variables:?}");
        let log = log_of(&server);
        eventually("the terminal has all lines of the file", || {
            (shown.raw().replace("\r\n", "\n") == log).then_some(())
        });
    }
}

#[test]
fn a_terminal_of_locale_c_gets_ascii_but_for_names_of_others() {
    for variables in [
        [("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")],
        [("LC_ALL", ""), ("LANG", "POSIX")],
    ] {
        let variables = [&variables[..], &[("LC_CTYPE", "")]].concat();
        let flags = [&LIVELY[..], &["--log-level", "debug"]].concat();
        let (mut server, shown, _emulator) = on_terminal(&flags, &variables);
        server.send(state_change("päivä", "a", "b", 1.5));
        server.send("no JSON");
        wait_for(&shown, "heartbeat #3 ");
        wait_for(&shown, "WARN  [fanout] dropped an event");
        wait_for(&shown, " of päivä, ");
        assert_eq!(server.stop().code(), Some(0));
        wait_for(&shown, "[main] stopped in");
        let ours = shown.raw().replace("päivä", "");
        let line = ours.lines().find(|line| !line.is_ascii());
        assert_eq!(line, None);
        assert!(log_of(&server).contains("👋 stopped in"), "the file keeps them");
    }
}

/// The time of day in the last line of `text` with `part`, in seconds; and whether it says that it is UTC.
fn time_of(text: &str, part: &str) -> (f64, bool) {
    let line = text.lines().rfind(|line| line.contains(part)).unwrap();
    let stamp = line.split_once('T').unwrap().1.split(' ').next().unwrap();
    let mut parts = stamp
        .trim_end_matches('Z')
        .split(':')
        .map(|part| part.parse::<f64>().unwrap());
    let mut next = || parts.next().unwrap();
    (next() * 3600.0 + next() * 60.0 + next(), stamp.ends_with('Z'))
}

#[test]
fn times_on_a_terminal_are_local_and_the_file_keeps_utc() {
    for (flags, hours) in [(&[][..], 2.0), (&["--utc"], 0.0)] {
        let (mut server, shown, _emulator) = on_terminal(flags, &[("TZ", EAST)]);
        assert_eq!(server.stop().code(), Some(0));
        wait_for(&shown, "👋 stopped in");
        let log = log_of(&server);
        let ((there, there_utc), (file, file_utc)) = (time_of(&shown.raw(), "👋"), time_of(&log, "👋"));
        let apart = (there - file).rem_euclid(24.0 * 3600.0);
        assert!((apart - hours * 3600.0).abs() < 0.001, "{there} {file}");
        assert_eq!((there_utc, file_utc), (hours == 0.0, true));
        let said = shown.raw().matches("times on this terminal are UTC+02:00").count();
        assert_eq!(said, usize::from(hours > 0.0), "the zone is named once");
    }
    // Not on a terminal.
    let server = TestServer::start_command(folder(), &[], |command| {
        command.env("TZ", EAST);
    });
    let line = server.wait_for_line("🚀");
    assert_eq!(log_of(&server).lines().next(), Some(line.as_str()));
}

#[test]
fn a_server_in_the_background_draws_no_status_line_over_what_a_person_types() {
    let (emulator, program) = pty();
    set_columns(&emulator, 200);
    let shown = Shown::read(emulator.try_clone().unwrap());
    let folder = folder();
    let end = || Stdio::from(program.try_clone().unwrap());
    let mut command = Command::new("setsid");
    clear_environment(&mut command);
    let mut shell = command
        // With job control the shell keeps the terminal, and the server is a job of its own.
        .args([
            "--ctty",
            "--wait",
            "bash",
            "-c",
            "set -m; \"$0\" \"$@\" & echo \"job $!.\"; wait",
        ])
        .arg(env!("CARGO_BIN_EXE_threadcast"))
        .args(["serve", "--port", "0", "--event-socket-path", "e.sock"])
        .args(LIVELY)
        .current_dir(folder.path())
        .env("TERM", "xterm")
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    drop(program);
    let job = eventually("the number of the job", || {
        let raw = shown.raw();
        let (_, rest) = raw.split_once("job ")?;
        rest.split_once('.')?.0.parse::<i32>().ok()
    });
    let log = folder.path().join("logs/websocket-server.log");
    eventually("three heartbeats in the file", || {
        (newest(&fs::read_to_string(&log).unwrap_or_default()) >= 3).then_some(())
    });
    let raw = shown.raw();
    kill_process(Pid::from_raw(job).unwrap(), Signal::TERM).unwrap();
    shell.wait().unwrap();
    assert!(raw.contains(" listens on http://"), "other lines come: {raw}");
    assert!(!raw.contains("heartbeat #"), "{raw}");
}
