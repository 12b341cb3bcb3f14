//! `threadcast emit` sends exactly what it was given, never waits longer than asked, and says what was not taken and
//! why.

use crate::support::server::run;
use crate::support::{DEADLINE, TestServer, eventually, pause, skipped, uninterrupted};
use rustix::process::Signal;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap()
}

/// `emit` with `arguments` for the socket at `path`, not yet ended.
fn start(path: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_threadcast"))
        .arg("emit")
        .args(arguments)
        .arg("--event-socket-path")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Its status and what it said; nothing may have gone to standard output.
fn end(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn emit(path: &Path, arguments: &[&str]) -> (i32, String) {
    end(start(path, arguments))
}

/// The same with `lines` as standard input.
fn emit_lines(path: &Path, arguments: &[&str], lines: &[u8]) -> (i32, String) {
    let mut child = start(path, &[&["--stdin"], arguments].concat());
    child.stdin.take().unwrap().write_all(lines).unwrap();
    end(child)
}

/// A socket that nobody reads, in `folder`.
fn unread(folder: &TempDir) -> (UnixDatagram, PathBuf) {
    let path = folder.path().join("events.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    (socket, path)
}

/// Sends until no sender has room. A sender may first reach the bound of its own buffer, so several take turns.
fn fill(path: &Path) {
    loop {
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(path).unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sender.send(b"{}").is_ok() {
            sent += 1;
        }
        if sent == 0 {
            return;
        }
    }
}

#[test]
fn a_client_gets_the_exact_bytes() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let path = server.socket_path();
    for (arguments, expected) in [
        (
            &["wake", "w1"][..],
            r#"{"machine_name": "w1", "type": "wake", "payload": {}}"#,
        ),
        (
            &[
                "state_change",
                "w1",
                "--payload",
                r#" { "to_state" : "b","n":1.50, "é":"\u00e9\ud83d", "n":1e0 } "#,
            ],
            r#"{"machine_name": "w1", "type": "state_change", "payload":  { "to_state" : "b","n":1.50, "é":"\u00e9\ud83d", "n":1e0 } }"#,
        ),
        // The type inside a payload is free, also where the server keeps it for itself at the top.
        (
            &["t", "m", "--payload", r#"{"type":"ping"}"#],
            r#"{"machine_name": "m", "type": "t", "payload": {"type":"ping"}}"#,
        ),
        (
            &["a\"b", "Zürich\\1\n"],
            r#"{"machine_name": "Zürich\\1\n", "type": "a\"b", "payload": {}}"#,
        ),
        (
            &["--timeout", "5s", "--", "-t", "-m"],
            r#"{"machine_name": "-m", "type": "-t", "payload": {}}"#,
        ),
    ] {
        let mut before = vec!["--timeout", "60s"];
        before.extend(arguments);
        // The path goes first here, because `--` ends the flags.
        let mut all = vec!["emit", "--event-socket-path", path.to_str().unwrap()];
        all.extend(before);
        assert_eq!(
            run(server.folder().path(), &all),
            (0, String::new(), String::new()),
            "{arguments:?}"
        );
        assert_eq!(client.text(), expected);
    }
}

#[test]
fn a_payload_that_is_no_object_is_refused_with_the_reason() {
    let folder = folder();
    let (socket, path) = unread(&folder);
    for (payload, reason) in [
        ("", "it is empty"),
        ("{", "it is not one JSON document"),
        ("hello", "it is not one JSON document"),
        (r#"{"a": NaN}"#, "it is not one JSON document"),
        ("{} {}", "it is not one JSON document"),
        ("1", "it is JSON, but not an object"),
        ("null", "it is JSON, but not an object"),
        ("[{}]", "it is JSON, but not an object"),
        // Objects only together with the event around them; the second would even change its type.
        (r#"{}, "more": 1"#, "it is not one JSON document"),
        (r#"{}, "type": "other", "x": {}"#, "it is not one JSON document"),
        (r#"{}}, {"a": {}"#, "it is not one JSON document"),
    ] {
        let (status, said) = emit(&path, &["t", "m", "--payload", payload]);
        assert_eq!(status, 1, "{payload}: {said}");
        assert!(said.starts_with("threadcast: 0 sent, 1 refused"), "{payload}: {said}");
        assert!(
            said.contains("the payload must be one JSON object") && said.contains(reason),
            "{payload}: {said}"
        );
        assert!(!said.contains("line"), "there are no lines here: {said}");
    }
    let (status, said) = emit(&path, &["initial", "m"]);
    assert_eq!(status, 1);
    assert!(said.contains("ping, pong or initial"), "{said}");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 9]).is_err(), "nothing of it was sent");
}

#[test]
fn lines_keep_their_bytes_and_empty_ones_are_skipped() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let events = [
        r#"{"type":"a"}"#,
        "  { \"type\" :\t\"b\" , \"n\":1.0e0 }  ",
        r#"{"type":"ü","x":"\u00fc\ud83d 😀"}"#,
        r#"{"type":"c","type":"d"}"#,
        r#"{"last":"without an end of line"}"#,
    ];
    let input = format!(
        "{}\n\n   \n{}\r\n\r\n{}\n{}\n{}",
        events[0], events[1], events[2], events[3], events[4]
    );
    let (status, said) = emit_lines(&server.socket_path(), &["--timeout", "60s"], input.as_bytes());
    assert_eq!(status, 0, "{said}");
    let path = server.socket_path();
    assert_eq!(said, format!("threadcast: 5 sent, 0 refused, at {}\n", path.display()));
    for event in events {
        assert_eq!(client.text(), event);
    }
}

#[test]
fn refused_lines_are_counted_by_reason_with_the_first_line() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let mut input = b"{\"n\":1}\n\nnonsense\n[1]\n\xef\xbb\xbf{}\n{\"x\":\"\xff\"}\n{\"type\":\"ping\"}\n".to_vec();
    input.extend([b"{\"pad\":\"", "x".repeat(1_050_000).as_bytes(), b"\"}\n{\"n\":2}\n"].concat());
    let (status, said) = emit_lines(&server.socket_path(), &["--timeout", "60s"], &input);
    assert_eq!(status, 1, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("threadcast: 2 sent, 6 refused, at "), "{said}");
    assert_eq!(
        lines[1..],
        [
            "  2: no event: not one JSON document (first: line 3)",
            "  1: no event: JSON, but not an object (first: line 4)",
            "  1: no event: not UTF-8 (first: line 6)",
            "  1: no event: its type (ping, pong or initial, or a notice that calls itself the server's) is the server's own \
             (first: line 7)",
            "  1: larger than the 1047552 bytes that the largest --max-event-bytes allows, so no server takes it (first: line 8)",
        ]
    );
    assert_eq!(
        (client.text().as_str(), client.text().as_str()),
        (r#"{"n":1}"#, r#"{"n":2}"#)
    );
    assert_eq!(server.health()["events_received"], 2, "the rest was not even sent");
}

#[test]
fn a_type_or_a_machine_without_a_name_is_wrong_usage() {
    let folder = folder();
    let (socket, path) = unread(&folder);
    for arguments in [["", ""], ["t", ""], ["", "m"]] {
        let (status, said) = emit(&path, &arguments);
        assert_eq!(status, 2, "{arguments:?}: {said}");
        assert!(
            said.starts_with("threadcast: emit needs a type and a machine that are not empty\nhint: "),
            "{said}"
        );
    }
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 9]).is_err(), "nothing of it was sent");
}

/// Waits until the command catches `signal` (proc_pid_status(5)), and sends it.
fn ask_to_end(child: &Child, signal: Signal) {
    eventually("it catches the signal", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        (caught & (1 << (signal.as_raw() - 1)) != 0).then_some(())
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_signal_ends_a_stream_of_lines_and_it_says_how_many_went_out() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let mut child = start(&server.socket_path(), &["--stdin", "--timeout", "60s"]);
    let mut input = child.stdin.take().unwrap();
    // The last line is not whole.
    input.write_all(b"{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}").unwrap();
    for number in 1..3 {
        assert_eq!(client.text(), format!("{{\"n\":{number}}}"));
    }
    ask_to_end(&child, Signal::TERM);
    let (status, said) = end(child);
    assert_eq!(status, 0, "{said}");
    let path = server.socket_path();
    let expected = format!(
        "threadcast: 2 sent, 0 refused, at {}\nthreadcast: ended by a signal before line 4\n",
        path.display()
    );
    assert_eq!(said, expected);
    assert_eq!(server.health()["events_received"], 2);
    drop(input);
}

#[test]
fn a_signal_ends_a_line_that_waits_for_room() {
    let folder = folder();
    let (_socket, path) = unread(&folder);
    fill(&path);
    let mut child = start(&path, &["--stdin", "--timeout", "10m"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{}\n").unwrap();
    let begun = Instant::now();
    ask_to_end(&child, Signal::TERM);
    let (status, said) = end(child);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.starts_with("threadcast: 0 sent, 0 refused, at ") && said.ends_with("by a signal before line 1\n"),
        "{said}"
    );
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    drop(input);
}

#[test]
fn without_a_server_it_fails_at_once_with_a_hint() {
    let folder = folder();
    let absent = folder.path().join("absent.sock");
    let stale = folder.path().join("stale.sock");
    drop(UnixDatagram::bind(&stale).unwrap());
    for path in [&absent, &stale] {
        let begun = Instant::now();
        let (status, said) = emit(path, &["t", "m", "--timeout", "5m"]);
        assert_eq!(status, 1, "{said}");
        assert!(
            said.contains("no server receives there; start one with `threadcast serve`"),
            "{said}"
        );
        assert!(said.contains(path.to_str().unwrap()), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "it waited for nothing");
    }
    let (status, said) = emit(&folder.path().join("x".repeat(200)), &["t", "m"]);
    assert_eq!(status, 2);
    assert!(said.contains("a socket path has at most 107 bytes"), "{said}");
    let _streams = std::os::unix::net::UnixListener::bind(folder.path().join("stream.sock")).unwrap();
    let (status, said) = emit(&folder.path().join("stream.sock"), &["t", "m"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("the system refused it: ") && said.contains("wrong type"),
        "{said}"
    );
}

#[test]
fn a_stream_of_events_goes_on_with_the_restarted_server() {
    let mut server = TestServer::start(&[]);
    let mut child = start(&server.socket_path(), &["--stdin", "--timeout", "60s"]);
    let mut input: ChildStdin = child.stdin.take().unwrap();
    for (number, signal) in [Signal::TERM, Signal::KILL, Signal::TERM].into_iter().enumerate() {
        let event = format!("{{\"n\":{number}}}");
        let mut client = server.client();
        writeln!(input, "{event}").unwrap();
        assert_eq!(client.text(), event);
        drop(client);
        server.signal(signal);
        server.wait_for_end(DEADLINE);
        server = TestServer::start_in(server.folder(), &[]);
    }
    drop(input);
    let (status, said) = end(child);
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("threadcast: 3 sent, 0 refused"), "{said}");
}

#[test]
fn a_full_queue_holds_nobody_longer_than_the_timeout() {
    let folder = folder();
    let (_socket, path) = unread(&folder);
    fill(&path);
    for (timeout, least) in [("0s", 0), ("300ms", 300)] {
        let begun = Instant::now();
        let (status, said) = emit(&path, &["t", "m", "--timeout", timeout]);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("the server's queue was full all the time"), "{said}");
        assert!(
            begun.elapsed() >= Duration::from_millis(least),
            "it did not wait for room"
        );
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
    let begun = Instant::now();
    let (status, said) = emit_lines(&path, &["--timeout", "50ms"], b"{}\n{}\n\n{}\n");
    assert_eq!(status, 1);
    assert!(said.starts_with("threadcast: 0 sent, 3 refused"), "{said}");
    assert!(
        said.contains("  3: the server's queue was full") && said.contains("(first: line 1)"),
        "{said}"
    );
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_hung_server_holds_a_stream_for_one_timeout_only() {
    let folder = folder();
    let (_socket, path) = unread(&folder);
    fill(&path);
    let begun = Instant::now();
    let (status, said) = emit_lines(&path, &["--timeout", "2s"], &b"{}\n".repeat(30));
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("  30: the server's queue was full all the time"),
        "{said}"
    );
    assert!(begun.elapsed() >= Duration::from_secs(2), "the first one waits");
    assert!(begun.elapsed() < Duration::from_secs(30), "each of 30 lines waited");
}

/// Most memory that process `id` ever had resident, in bytes.
fn resident_bytes_max(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_line_without_end_is_refused_and_not_held_in_memory() {
    const MIB: usize = 1024 * 1024;
    let folder = folder();
    let (socket, path) = unread(&folder);
    let mut child = start(&path, &["--stdin", "--timeout", "60s"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{\"n\":1}\n{\"pad\":\"").unwrap();
    for _ in 0..64 {
        input.write_all(&vec![b'x'; MIB]).unwrap();
    }
    // A pipe holds 64 KiB, so nearly all of it was read.
    let most = resident_bytes_max(child.id());
    assert!(most < 32 * MIB, "{most} bytes were resident");
    input.write_all(b"\"}\n{\"n\":2}\nnonsense\n").unwrap();
    drop(input);
    let (status, said) = end(child);
    assert_eq!(status, 1, "{said}");
    assert!(said.starts_with("threadcast: 2 sent, 2 refused"), "{said}");
    assert!(
        said.contains("  1: larger than the 1047552 bytes") && said.contains("(first: line 2)\n"),
        "{said}"
    );
    assert!(
        said.contains("(first: line 4)"),
        "the lines after it keep their numbers: {said}"
    );
    let mut bytes = [0; 100];
    for event in [&b"{\"n\":1}"[..], b"{\"n\":2}"] {
        let len = uninterrupted(|| socket.recv(&mut bytes)).unwrap();
        assert_eq!(&bytes[..len], event);
    }
}

#[test]
fn an_event_waits_for_room_and_is_sent_when_there_is() {
    let folder = folder();
    let (socket, path) = unread(&folder);
    fill(&path);
    let mut child = start(&path, &["late", "m", "--timeout", "60s"]);
    // Long enough that it mostly waits already; if it does not, the test is only easier.
    pause(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    let mut bytes = [0; 200];
    while uninterrupted(|| socket.recv(&mut bytes)).unwrap() == 2 {}
    assert!(bytes.starts_with(br#"{"machine_name": "m", "type": "late""#));
    assert_eq!(end(child), (0, String::new()));
}

#[test]
fn a_server_that_ends_while_its_queue_is_full_is_noticed() {
    let folder = folder();
    let (socket, path) = unread(&folder);
    fill(&path);
    let mut child = start(&path, &["t", "m", "--timeout", "5m"]);
    pause(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    let begun = Instant::now();
    drop(socket);
    let (status, said) = end(child);
    assert_eq!(status, 1);
    assert!(said.contains("no server receives there"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_socket_of_somebody_else_is_told_from_an_absent_one() {
    if rustix::process::geteuid().is_root() {
        skipped("a socket that this user may not write to, because root may write to every one");
        return;
    }
    let folder = folder();
    let (_socket, path) = unread(&folder);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let (status, said) = emit(&path, &["t", "m"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("this user may not write to the socket; see --socket-mode"),
        "{said}"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_sends_nothing() {
    let folder = folder();
    let (socket, path) = unread(&folder);
    for (arguments, part) in [
        (&[][..], "the type of the event and the name of its machine"),
        (&["t"], "the type of the event and the name of its machine"),
        (&["t", "m", "more"], "more"),
        (&["t", "m", "--stdin"], "either --stdin alone"),
        (&["--stdin", "--payload", "{}"], "either --stdin alone"),
        (&["t", "m", "--payload"], "--payload"),
        (&["t", "m", "--timeout", "5"], "--timeout cannot be \"5\""),
        (&["t", "m", "--timeout", "-1s"], "--timeout"),
        (&["t", "m", "--paylod", "{}"], "--paylod"),
    ] {
        let mut all = vec!["emit", "--event-socket-path", path.to_str().unwrap()];
        all.extend(arguments);
        let (status, output, said) = run(folder.path(), &all);
        assert_eq!((status, output.as_str()), (2, ""), "{arguments:?}: {said}");
        assert!(
            said.contains(part) && said.contains("\nhint: "),
            "{arguments:?}: {said}"
        );
    }
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 9]).is_err());
}
