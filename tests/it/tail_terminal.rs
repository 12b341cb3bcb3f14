//! `tail` on a terminal: its times, its colors, its characters. And its status when no server has answered.

use crate::support::screen::{Shown, pty};
use crate::support::server::run;
use crate::support::{DEADLINE, TestServer, eventually, state_change, within};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::process::{Command, Stdio};

/// Two hours before UTC, as POSIX writes it.
const EAST: &str = "TST-02:00";

/// An address at which nobody listens.
fn nowhere() -> String {
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    format!("ws://{address}/ws/events")
}

/// What `tail` writes to a terminal until it ends by itself, and its status.
#[track_caller]
fn tail_on_terminal(url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (String, i32) {
    let (emulator, program) = pty();
    let shown = Shown::read(emulator);
    let mut child = Command::new(env!("CARGO_BIN_EXE_threadcast"))
        .args(["tail", "--url", url])
        .args(arguments)
        .env("TERM", "xterm")
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("NO_COLOR")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(program.try_clone().unwrap())
        .stderr(program)
        .spawn()
        .unwrap();
    let status = within(DEADLINE, "tail ends", || child.try_wait().unwrap());
    eventually("the terminal has all of it", || shown.has_ended().then_some(()));
    (shown.raw(), status.code().unwrap())
}

#[test]
fn the_times_of_tail_are_in_the_zone_of_the_log_and_the_first_notice_names_it() {
    let server = TestServer::start(&[]);
    server.send(state_change("w1", "a", "b", 3661.25));
    let url = format!("ws://{}/ws/events", server.address);
    let last = ["-n", "1", "--count", "1"];
    for (flags, zone, time) in [
        (&[][..], "UTC+02:00", "03:01:01.250"),
        (&["--utc"], "UTC", "01:01:01.250"),
    ] {
        let arguments = [&last[..], flags].concat();
        let (shown, status) = tail_on_terminal(&url, &arguments, &[("TZ", EAST)]);
        assert_eq!(status, 0, "{shown}");
        assert_eq!(shown.matches(&format!("(times are {zone})\r\n")).count(), 1, "{shown}");
        assert!(shown.contains(time), "{shown}");
        let first = shown.lines().next().unwrap();
        assert!(first.starts_with("threadcast: connected to ") && first.ends_with(&format!("(times are {zone})")));
    }
    let (shown, _) = tail_on_terminal(&url, &[&last[..], &["--format", "json"]].concat(), &[("TZ", EAST)]);
    assert!(!shown.contains("times are"), "no times are shown: {shown}");
    // Not on a terminal.
    let (shown, said) = {
        let output = Command::new(env!("CARGO_BIN_EXE_threadcast"))
            .args([&["tail", "--url", &url], &last[..]].concat())
            .env("TZ", EAST)
            .output()
            .unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert!(
        shown.starts_with("01:01:01.250 ") && !said.contains("times are"),
        "{shown} {said}"
    );
}

#[test]
fn a_dumb_terminal_and_no_color_get_no_colors_from_tail() {
    let server = TestServer::start(&[]);
    server.send(br#"{"machine_name":"w1","type":"error","payload":{"error_message":"boom"}}"#);
    let url = format!("ws://{}/ws/events", server.address);
    for (variables, colored) in [
        (&[][..], true),
        (&[("NO_COLOR", "")], true),
        (&[("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
    ] {
        let (shown, status) = tail_on_terminal(&url, &["-n", "1", "--count", "1"], variables);
        assert_eq!(status, 0);
        assert!(shown.contains("boom"), "{shown:?}");
        assert_eq!(shown.contains('\u{1b}'), colored, "{variables:?}: {shown:?}");
    }
}

#[test]
fn tail_fails_if_no_server_has_answered_whatever_ends_it() {
    let server = TestServer::start(&[]);
    server.send(state_change("w1", "a", "b", 1.0));
    let there = format!("ws://{}/ws/events", server.address);
    let nobody = nowhere();
    let folder = tempfile::tempdir().unwrap();
    for (url, arguments, expected) in [
        (&nobody, &["--duration", "300ms"][..], 1),
        (&nobody, &["--duration", "300ms", "--count", "1"], 1),
        (&there, &["--duration", "300ms"], 0),
        // It was there, and fewer came than asked for.
        (&there, &["--duration", "300ms", "--count", "5"], 0),
        (&there, &["-n", "1", "--count", "1"], 0),
    ] {
        let (status, _, said) = run(folder.path(), &[&["tail", "--url", url], arguments].concat());
        assert_eq!(status, expected, "{arguments:?}: {said}");
        assert_eq!(said.contains("no server in all that time"), expected == 1, "{said}");
    }
    for (url, expected) in [(&nobody, 1), (&there, 0)] {
        for arguments in [&[][..], &["--count", "5"]] {
            let file = folder.path().join("said");
            let mut child = Command::new("env")
                .args([
                    "--default-signal=INT",
                    env!("CARGO_BIN_EXE_threadcast"),
                    "tail",
                    "--url",
                    url,
                ])
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(File::create(&file).unwrap())
                .spawn()
                .unwrap();
            eventually("it is under way", || {
                let said = fs::read_to_string(&file).unwrap();
                (said.contains("connecting again") || said.contains("connected to")).then_some(())
            });
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            let status = within(DEADLINE, "it ends", || child.try_wait().unwrap());
            assert_eq!(status.code(), Some(expected), "{}", fs::read_to_string(&file).unwrap());
        }
    }
}

#[test]
fn on_a_terminal_of_locale_c_its_notices_are_ascii() {
    let (shown, status) = tail_on_terminal(&nowhere(), &["--duration", "300ms"], &[("LC_ALL", "C")]);
    assert_eq!(status, 1);
    assert!(
        shown.is_ascii() && shown.contains("no server in all that time"),
        "{shown}"
    );
    let server = TestServer::start(&[]);
    server.send(state_change("päivä", "a", "b", 1.0));
    let url = format!("ws://{}/ws/events", server.address);
    let (shown, status) = tail_on_terminal(&url, &["-n", "1", "--count", "1"], &[("LC_ALL", "C")]);
    assert_eq!(status, 0);
    assert!(
        shown.contains("päivä") && shown.replace("päivä", "").is_ascii(),
        "{shown}"
    );
}
