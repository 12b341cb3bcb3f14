//! `threadcast tail` shows every event that is wanted, stays with its server, harms no terminal, and ends when asked;
//! `threadcast demo` gives it something to show and leaves nothing behind.

use crate::support::server::run;
use crate::support::{DEADLINE, TestServer, eventually, skipped, state_change, within};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the issue promises for Ctrl-C is 2 s; the rest is for a machine that is busy with other tests.
const INTERRUPT_MAX: Duration = Duration::from_secs(6);

/// A running `threadcast`, its output in files; ended and reaped whatever happens.
pub struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    pub fn start(arguments: &[&str]) -> Running {
        Running::with(arguments, |_| ())
    }

    pub fn with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        // A test run in the background of a script ignores Ctrl-C, one under nohup the end of its terminal; its
        // children would inherit that.
        Running::under("--default-signal=INT,HUP", arguments, change)
    }

    /// The same with `signals` as env(1) sets them for a command that it starts.
    fn under(signals: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        let folder = tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap();
        let file = |name| File::create(folder.path().join(name)).unwrap();
        let mut command = Command::new("env");
        command
            .args([signals, env!("CARGO_BIN_EXE_threadcast")])
            .args(arguments)
            .env("TZ", "UTC")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("said"));
        change(&mut command);
        let child = command.spawn().unwrap();
        Running { child, folder }
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).unwrap()
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    #[track_caller]
    pub fn wait_until_said(&self, part: &str) {
        eventually(part, || self.said().contains(part).then_some(()));
    }

    fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its status when it ends by itself.
    #[track_caller]
    pub fn status(&mut self, deadline: Duration) -> i32 {
        let child = &mut self.child;
        let status = within(deadline, "the command ends", || child.try_wait().unwrap());
        status.code().unwrap_or_else(|| panic!("{status}: {}", self.said()))
    }

    /// Ctrl-C must end it in time and well.
    #[track_caller]
    pub fn ends_on_interrupt(&mut self) {
        self.ends_on_interrupt_with(0);
    }

    /// The same with another status: 1 if there was never a server.
    #[track_caller]
    fn ends_on_interrupt_with(&mut self, status: i32) {
        self.interrupt();
        assert_eq!(self.status(INTERRUPT_MAX), status, "{}", self.said());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn url(address: SocketAddr) -> String {
    format!("ws://{address}/ws/events")
}

/// `tail` of `server` with further `arguments`.
pub fn tail(server: &TestServer, arguments: &[&str]) -> Running {
    Running::start(&[&["tail", "--url", &url(server.address)], arguments].concat())
}

/// What it has said besides how to go on from its end, which is its last word if it has come to know a number.
fn without_last_word(running: &Running) -> String {
    let said = running.said();
    match said.split_once("threadcast: to go on from here: threadcast tail --since ") {
        Some((before, position)) if position.lines().count() == 1 => before.to_owned(),
        _ => said,
    }
}

/// Waits until `count` clients are joined, so that they get what is sent from now on.
#[track_caller]
pub fn wait_for_clients(server: &TestServer, count: usize) {
    eventually("all are connected", || {
        (server.health()["connections"] == count).then_some(())
    });
}

#[test]
fn each_format_has_its_lines_and_count_ends_it() {
    let server = TestServer::start(&[]);
    server.send(state_change("w1", "x", "a", 1.0));
    eventually("it is part of what the others begin with", || {
        (server.health()["machines"] == 1).then_some(())
    });
    let events = [
        state_change("w1", "a", "b", 3661.25),
        br#"{"machine_name":"w2", "type":"error","payload":{"error_message":"boom","job_id":"j7","timestamp":3662}}"#
            .to_vec(),
        b"{\"machine_name\":\"w2\",\n \"type\":\"new\",\"payload\":{\"a\": 1, \"timestamp\":3663}}\n".to_vec(),
    ];
    let mut human = tail(&server, &["--count", "3"]);
    let mut compact = tail(&server, &["--format", "compact", "--count=3"]);
    let mut json = tail(&server, &["--format", "json", "--count", "3"]);
    wait_for_clients(&server, 3);
    for event in &events {
        server.send(event);
    }
    for running in [&mut human, &mut compact, &mut json] {
        assert_eq!(running.status(DEADLINE), 0, "{}", running.said());
    }
    assert_eq!(
        human.out(),
        format!(
            "01:01:01.250 {:<20} a -> b (t)\n01:01:02.000 {:<20} error: boom (job j7)\n01:01:03.000 {:<20} new {}\n",
            "w1", "w2", "w2", r#"{"a":1,"timestamp":3663}"#
        )
    );
    let connected = format!("threadcast: connected to {}; 1 machine: w1 a\n", url(server.address));
    assert_eq!(without_last_word(&human), connected);
    assert_eq!(
        compact.out(),
        "w1 a -> b (t)\nw2 error: boom (job j7)\nw2 new {\"a\":1,\"timestamp\":3663}\n"
    );
    let text = |event: &[u8]| String::from_utf8(event.to_vec()).unwrap();
    let expected: String = events
        .iter()
        .map(|event| text(event).trim().replace('\n', " ") + "\n")
        .collect();
    assert_eq!(json.out(), expected);
    assert_eq!(
        (without_last_word(&compact), without_last_word(&json)),
        Default::default()
    );
}

#[test]
fn only_what_matches_is_shown_and_counted() {
    let server = TestServer::start(&[]);
    let event = |machine: &str, kind: &str| format!(r#"{{"machine_name":"{machine}","type":"{kind}"}}"#);
    let events = [
        event("image_001", "job_started"),
        event("image_12", "job_started"),
        event("mail", "job_started"),
        r#"{"type":"job_started"}"#.to_owned(),
        r#"{"machine_name":"image_003"}"#.to_owned(),
        event("image_002", "error"),
        event("image_002", "job_completed"),
        // The last matches all of them.
        event("image_999", "job_completed"),
    ];
    let cases: [(&[&str], &[usize]); 5] = [
        (&[], &[0, 1, 2, 3, 4, 5, 6, 7]),
        (&["--machine", "image_*"], &[0, 1, 4, 5, 6, 7]),
        (&["--machine", "image_???"], &[0, 4, 5, 6, 7]),
        (&["--type", "job_*"], &[0, 1, 2, 3, 6, 7]),
        (
            &["--machine", "*_00?", "--type", "job_?*", "--machine", "image_???"],
            &[0, 6, 7],
        ),
    ];
    let mut tails: Vec<Running> = Vec::new();
    for (flags, shown) in cases {
        let count = shown.len().to_string();
        tails.push(tail(
            &server,
            &[flags, &["--format", "json", "--count", &count]].concat(),
        ));
    }
    wait_for_clients(&server, tails.len());
    for event in &events {
        server.send(event);
    }
    for (running, (flags, shown)) in tails.iter_mut().zip(cases) {
        assert_eq!(running.status(DEADLINE), 0);
        let expected: String = shown.iter().map(|index| format!("{}\n", events[*index])).collect();
        assert_eq!(running.out(), expected, "{flags:?}");
    }
}

#[test]
fn its_duration_ends_it_and_a_server_that_never_answered_is_a_failure() {
    let server = TestServer::start(&[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free_address();
    for (address, status) in [(server.address, 0), (silent.local_addr().unwrap(), 1), (nobody, 1)] {
        let begun = Instant::now();
        let mut running = Running::start(&["tail", "--url", &url(address), "--duration", "400ms"]);
        assert_eq!(running.status(DEADLINE), status, "{}", running.said());
        let told = running
            .said()
            .contains("threadcast: no server in all that time: cannot connect to ws://");
        assert_eq!(told, status == 1, "{}", running.said());
        assert_eq!(
            running.said().contains("hint: start one with `threadcast serve`"),
            status == 1
        );
        assert!(begun.elapsed() >= Duration::from_millis(400));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_name_that_does_not_resolve_keeps_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("aliases");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // The resolver reads the aliases of host names from this file (hostname(7)), and waits for a writer.
    let start = |flags: &[&str]| {
        Running::with(
            &[&["tail", "--url", "ws://nosuchhost:1/ws/events"], flags].concat(),
            |command| {
                command.env("HOSTALIASES", &fifo);
            },
        )
    };
    let lookup_waits = || {
        let open = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::open(&fifo, open, rustix::fs::Mode::empty()).ok()
    };
    let mut running = start(&[]);
    let waits = eventually("it looks the name up", || {
        lookup_waits()
            .map(Some)
            .or_else(|| running.said().contains("connecting again").then_some(None))
    });
    let Some(_writer) = waits else {
        skipped("a look-up that hangs, because this host's resolver does not read HOSTALIASES");
        return;
    };
    running.ends_on_interrupt_with(1);
    let begun = Instant::now();
    let mut running = start(&["--duration", "500ms"]);
    assert_eq!(running.status(DEADLINE), 1, "{}", running.said());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // Without an end of its own it tells what it waits for, and goes on trying.
    let mut running = start(&[]);
    running.wait_until_said("the look-up of the name takes too long; connecting again in");
    running.ends_on_interrupt_with(1);
}

/// An address at which nobody listens.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn colors_are_for_terminals_and_no_color_forbids_them() {
    let server = TestServer::start(&[]);
    let arguments = ["tail", "--url", &url(server.address), "--count", "1"];
    let command = format!("{} {}", env!("CARGO_BIN_EXE_threadcast"), arguments.join(" "));
    // `script` gives its command a terminal.
    let there = Command::new("script").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        skipped("colors on a terminal, because there is no `script` here to make one");
        return;
    }
    let on_terminal = |no_color: Option<&str>, format: &str| {
        let wrapped = format!("{command} --format {format}");
        let mut running = Running::with(&[], |plain| {
            let mut script = Command::new("script");
            script
                .args(["-qec", &wrapped, "/dev/null"])
                .env("TERM", "xterm")
                .env("TZ", "UTC")
                .env_remove("NO_COLOR");
            if let Some(value) = no_color {
                script.env("NO_COLOR", value);
            }
            let out = File::create(plain_out()).unwrap();
            script.stdin(Stdio::null()).stdout(out).stderr(Stdio::null());
            *plain = script;
        });
        wait_for_clients(&server, 1);
        server.send(br#"{"machine_name":"w1","type":"error","payload":{"error_message":"boom\u001b[2J"}}"#);
        assert_eq!(running.status(DEADLINE), 0);
        wait_for_clients(&server, 0);
        let shown = fs::read_to_string(plain_out()).unwrap();
        fs::remove_file(plain_out()).unwrap();
        shown
    };
    let shown = on_terminal(None, "human");
    assert!(shown.contains("\u{1b}[31merror: boom\\u{1b}[2J\u{1b}[0m"), "{shown:?}");
    assert!(
        on_terminal(Some(""), "human").contains("\u{1b}[31m"),
        "an empty NO_COLOR is none"
    );
    for (no_color, format) in [(Some("1"), "human"), (None, "compact"), (None, "json")] {
        let shown = on_terminal(no_color, format);
        assert!(
            shown.contains("boom") && !shown.contains('\u{1b}'),
            "{format}: {shown:?}"
        );
    }
}

/// Where a terminal's output goes; one test uses it, one terminal at a time.
fn plain_out() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("threadcast-terminal-{}", std::process::id()))
}

#[test]
fn it_comes_back_to_a_restarted_server_with_growing_delays() {
    let mut server = TestServer::start(&[]);
    let mut running = tail(&server, &[]);
    wait_for_clients(&server, 1);
    server.send(state_change("w1", "a", "b", 1.0));
    eventually("the first event", || running.out().contains("a -> b").then_some(()));
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let delays = eventually("three delays", || {
        let said = running.said();
        let delays = said
            .lines()
            .filter_map(|line| line.split_once("; connecting again in ")?.1.strip_suffix(" s"));
        let delays: Vec<f64> = delays.map(|delay| delay.parse().unwrap()).collect();
        (delays.len() >= 3).then_some(delays)
    });
    assert!(
        (0.2..=0.5).contains(&delays[0]) && (0.5..=1.0).contains(&delays[1]) && (1.0..=2.0).contains(&delays[2]),
        "{delays:?}"
    );
    let port = server.address.port().to_string();
    let server = TestServer::start_in(server.folder(), &["--port", &port]);
    wait_for_clients(&server, 1);
    server.send(state_change("w1", "b", "c", 2.0));
    eventually("the second event", || running.out().contains("b -> c").then_some(()));
    assert_eq!(running.out().lines().count(), 2);
    assert_eq!(
        running.said().matches("threadcast: connected to ").count(),
        2,
        "{}",
        running.said()
    );
    running.ends_on_interrupt();
}

#[test]
fn a_server_that_stops_well_is_told_from_a_lost_one() {
    let mut server = TestServer::start(&[]);
    let mut running = tail(&server, &["--format", "json"]);
    wait_for_clients(&server, 1);
    server.stop();
    running.wait_until_said("the server has ended the connection (1012");
    running.wait_until_said("connecting again in");
    running.ends_on_interrupt();
    assert_eq!(running.out(), "");
}

#[test]
fn ctrl_c_ends_it_wherever_it_waits() {
    // For an event.
    let server = TestServer::start(&[]);
    let mut running = tail(&server, &[]);
    wait_for_clients(&server, 1);
    running.ends_on_interrupt();
    // For the time to connect again; the fourth wait is at least 2 s.
    let mut waiting = Running::start(&["tail", "--url", &url(free_address())]);
    eventually("a long wait", || {
        (waiting.said().matches("connecting again").count() >= 4).then_some(())
    });
    waiting.ends_on_interrupt_with(1);
    // For the answer of a server that takes connections and stands still.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut asking = Running::start(&["tail", "--url", &url(silent.local_addr().unwrap())]);
    let (_connection, _) = silent.accept().unwrap();
    asking.ends_on_interrupt_with(1);
}

#[test]
fn sigterm_and_the_end_of_its_terminal_end_it_well() {
    let server = TestServer::start(&[]);
    for signal in [Signal::TERM, Signal::HUP] {
        let mut running = tail(&server, &["--format", "json"]);
        wait_for_clients(&server, 1);
        running.signal(signal);
        assert_eq!(running.status(INTERRUPT_MAX), 0, "{signal:?}: {}", running.said());
        assert_eq!(without_last_word(&running), "");
        wait_for_clients(&server, 0);
    }
}

#[test]
fn a_script_that_ignores_ctrl_c_for_it_is_obeyed() {
    let server = TestServer::start(&[]);
    let mut running = Running::under(
        "--ignore-signal=INT,HUP",
        &["tail", "--format", "json", "--url", &url(server.address)],
        |_| (),
    );
    wait_for_clients(&server, 1);
    running.signal(Signal::INT);
    running.signal(Signal::HUP);
    server.send(b"{}");
    eventually("it goes on", || (running.out() == "{}\n").then_some(()));
    running.signal(Signal::TERM);
    assert_eq!(running.status(INTERRUPT_MAX), 0, "{}", running.said());
    assert_eq!(without_last_word(&running), "", "nothing of it is worth a word");
}

#[test]
fn ctrl_c_ends_it_although_its_reader_has_stopped_reading() {
    let server = TestServer::start(&[]);
    let mut running = Running::with(
        &["tail", "--format", "json", "--url", &url(server.address)],
        |command| {
            command.stdout(Stdio::piped());
        },
    );
    wait_for_clients(&server, 1);
    let sender = server.sender();
    for number in 0..20 {
        sender.send(&crate::support::numbered(number, 10_000)).unwrap();
    }
    // A pipe holds 64 KiB; then it waits in its write.
    let stack = format!("/proc/{}/wchan", running.child.id());
    let unread = || fs::read_to_string(&stack).unwrap_or_default();
    if unread().is_empty() || unread() == "0" {
        eprintln!("the kernel does not show where it waits; the reader has stopped all the same");
        let out = running.child.stdout.as_ref().unwrap();
        eventually("the pipe is full", || {
            (rustix::io::ioctl_fionread(out).unwrap() >= 60_000).then_some(())
        });
    } else {
        eventually("it waits in its write", || unread().contains("pipe").then_some(()));
    }
    running.ends_on_interrupt();
}

#[test]
fn it_ends_well_when_its_reader_is_gone() {
    let server = TestServer::start(&[]);
    let mut running = Running::with(
        &["tail", "--format", "compact", "--url", &url(server.address)],
        |command| {
            command.stdout(Stdio::piped());
        },
    );
    wait_for_clients(&server, 1);
    server.send(state_change("w1", "a", "b", 1.0));
    let mut out = BufReader::new(running.child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "w1 a -> b (t)\n");
    // As `head -1` does. No further event comes that a write could fail with.
    drop(out);
    assert_eq!(running.status(DEADLINE), 0);
    assert_eq!(running.said(), "");
}

/// Takes one connection and answers its request.
fn answer(listener: &TcpListener, answer: &str) -> TcpStream {
    let (mut connection, _) = listener.accept().unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    connection.write_all(answer.as_bytes()).unwrap();
    connection
}

#[test]
fn a_refusal_ends_it_with_the_servers_reason() {
    let server = TestServer::start(&[]);
    for path in ["/live", "/ws/event", "/healthz"] {
        let (status, out, said) = run(
            Path::new("/"),
            &["tail", "--url", &format!("ws://{}{path}", server.address)],
        );
        assert_eq!((status, out.as_str()), (1, ""), "{said}");
        assert!(said.contains("the server answers 403 Forbidden: "), "{said}");
        assert!(said.contains("/ws/events"), "the reason names the right path: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut running = Running::start(&["tail", "--url", &url(listener.local_addr().unwrap())]);
    let body = "no \u{1b}[2J such page";
    let text = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _connection = answer(&listener, &text);
    assert_eq!(running.status(DEADLINE), 1);
    let said = running.said();
    assert!(
        said.contains("the server answers 404 Not Found: no \\u{1b}[2J such page"),
        "{said:?}"
    );
}

#[test]
fn a_server_that_has_no_room_now_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut running = Running::start(&["tail", "--url", &url(listener.local_addr().unwrap())]);
    let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
    drop(answer(&listener, busy));
    drop(answer(&listener, busy));
    running.wait_until_said("the server answers 503 Service Unavailable: busy; connecting again in");
    running.ends_on_interrupt_with(1);
}

#[test]
fn odd_events_harm_neither_it_nor_the_terminal() {
    let server = TestServer::start(&[]);
    let rows: [(&str, &str); 9] = [
        ("{}", "(no machine) (no type)"),
        (
            r#"{"machine_name":7,"type":null,"payload":[1]}"#,
            "(no machine) (no type) [1]",
        ),
        (
            r#"{"machine_name":"m","type":"state_change","payload":"text"}"#,
            "m -> ?",
        ),
        (
            r#"{"machine_name":"m\u001b]0;x\u0007","type":"a\nb\u009b31m"}"#,
            r"m\u{1b}]0;x\u{7} a\nb\u{9b}31m",
        ),
        (
            "{\"machine_name\":\"m\u{9b}2J\",\"type\":\"\u{202e}t\"}",
            r"m\u{9b}2J \u{202e}t",
        ),
        (
            r#"{"machine_name":"m","type":"activity_log","payload":{"message":"cut \ud83d here","level":"WARN"}}"#,
            "m cut \u{fffd} here",
        ),
        (
            r#"{"machine_name":"m\u200b","type":"job_started","payload":{"job_id":"\u061c7\ufeff\udb40\udc01"}}"#,
            r"m\u{200b} job_started \u{61c}7\u{feff}\u{e0001}",
        ),
        (
            r#"{"machine_name":"m","type":"error","payload":{"error_message":1e999,"timestamp":1e300}}"#,
            "m error: ?",
        ),
        (
            r#"{"machine_name":"last","type":"end","payload":{"timestamp":-1}}"#,
            r#"last end {"timestamp":-1}"#,
        ),
    ];
    let count = (rows.len() + 1).to_string();
    let mut compact = tail(&server, &["--format", "compact", "--count", &count]);
    let mut human = tail(&server, &["--count", &count]);
    let mut json = tail(&server, &["--format", "json", "--count", &count]);
    wait_for_clients(&server, 3);
    let deep = format!(
        "{{\"machine_name\":\"deep\",\"x\":{}{}}}",
        "[".repeat(100),
        "]".repeat(100)
    );
    server.send(&deep);
    let sender = server.sender();
    for (event, _) in &rows {
        sender.send(event.as_bytes()).unwrap();
    }
    for running in [&mut compact, &mut human, &mut json] {
        assert_eq!(running.status(DEADLINE), 0, "{}", running.said());
    }
    let expected: String = rows.iter().map(|(_, line)| format!("{line}\n")).collect();
    assert_eq!(compact.out(), format!("deep (no type)\n{expected}"));
    let driving = |text: &str| {
        text.chars()
            .any(|character| character.is_control() && character != '\n')
    };
    assert!(!driving(&human.out()), "{:?}", human.out());
    let sent: String = rows.iter().map(|(event, _)| format!("{event}\n")).collect();
    assert_eq!(json.out(), format!("{deep}\n{sent}"), "programs get the bytes");
}

#[test]
fn wrong_usage_ends_with_2_before_any_connection() {
    for (arguments, part) in [
        (&["tail", "--url", "wss://localhost/ws/events"][..], "speaks no TLS"),
        (
            &["tail", "--url", "ws://"],
            "--url cannot be \"ws://\": the host is missing",
        ),
        (&["tail", "--url", "ws://:3002/ws/events"], "the host is missing"),
        (&["tail", "--url", "ws://localhost:99999/"], "from 1 to 65535"),
        (&["tail", "--url", ""], "it is empty; write HOST:PORT"),
        (&["tail", "--format", "xml"], "write human, compact or json"),
        (
            &["tail", "--count", "-1"],
            "--count cannot be \"-1\": write how many events",
        ),
        (&["tail", "-n", "x"], "--lines cannot be \"x\": write how many events"),
        (&["tail", "-n", "+5"], "--lines cannot be \"+5\""),
        (&["tail", "--lines=-1"], "--lines cannot be \"-1\""),
        (&["tail", "-20"], "there is no -20; write -n 20"),
        (&["tail", "-n"], "--lines needs a value"),
        (
            &["tail", "-n", "1", "--since", "0123456789abcdef:1"],
            "either --since or -n, not both",
        ),
        (
            &["tail", "--since", "17"],
            "--since cannot be \"17\": write EPOCH:N as tail prints it",
        ),
        (&["tail", "--since", ""], "write EPOCH:N"),
        (&["tail", "--since", "0123456789abcdef:-1"], "write EPOCH:N"),
        (
            &["tail", "--machine", ""],
            "--machine cannot be \"\": a pattern for machine is empty",
        ),
        (
            &["tail", "--machine", "a", "--type", "b,,c"],
            "--type cannot be \"b,,c\"",
        ),
        (&["tail", "--duration", "0s"], "--duration"),
        (&["tail", "--duration", "soon"], "--duration"),
        (&["tail", "m", ""], "a pattern for machine is empty"),
        (&["demo", "more"], "more"),
        (
            &["demo", "--freeze", "image_worker_01"],
            "--freeze cannot be \"image_worker_01\": write one of image_worker_001, image_worker_002, image_worker_003, \
             mail_queue, nightly_report",
        ),
        (&["demo", "--freeze-after", "1s"], "demo needs --freeze"),
        (
            &["demo", "--freeze", "mail_queue", "--freeze-for", "0s"],
            "--freeze-for",
        ),
        (&["demo", "--event-socket-path"], "--event-socket-path"),
    ] {
        let (status, out, said) = run(Path::new("/"), arguments);
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}: {said}");
        assert!(
            said.contains(part) && said.contains("\nhint: "),
            "{arguments:?}: {said}"
        );
    }
}

/// The machines in the server's snapshot.
fn machines(server: &TestServer) -> BTreeSet<String> {
    let initial = server.initial();
    let rows = initial["machines"].as_array().unwrap().iter();
    rows.map(|row| row["machine_name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_demonstration_has_five_machines_and_leaves_none() {
    let server = TestServer::start(&[]);
    let mut demo = Running::start(&["demo", "--event-socket-path", server.socket_path().to_str().unwrap()]);
    // One of them may already have ended for a while when the last appears.
    let mut seen = BTreeSet::new();
    eventually("all five", || {
        seen.extend(machines(&server));
        (seen.len() == 5).then_some(())
    });
    assert!(
        seen.contains("mail_queue") && seen.contains("image_worker_003"),
        "{seen:?}"
    );
    demo.interrupt();
    assert_eq!(demo.status(DEADLINE), 0, "{}", demo.said());
    eventually("all are gone", || machines(&server).is_empty().then_some(()));
    assert!(demo.said().contains(" events sent, 0 refused"), "{}", demo.said());
}

#[test]
fn a_frozen_machine_of_the_demonstration_sends_activity_until_it_moves_again() {
    let server = TestServer::start(&[]);
    let path = server.socket_path();
    let events = tail(&server, &["--machine", "image_worker_002", "--format", "compact"]);
    wait_for_clients(&server, 1);
    let mut demo = Running::start(&[
        "demo",
        "--event-socket-path",
        path.to_str().unwrap(),
        "--freeze",
        "image_worker_002",
        "--freeze-after",
        "0s",
        "--freeze-for",
        "2500ms",
    ]);
    demo.wait_until_said("threadcast: image_worker_002 moves again\n");
    let said = demo.said();
    let frozen = said.split("image_worker_002 is frozen in ").nth(1).unwrap();
    let (state, _) = frozen.split_once(':').unwrap();
    let shown = |part: &str| eventually(part, || events.out().contains(part).then(|| events.out()));
    let out = shown(&format!("\nimage_worker_002 {state} -> "));
    let between = out.split(&format!(" -> {state} (")).nth(1).unwrap();
    let lines: Vec<&str> = between.lines().skip(1).collect();
    let still = lines
        .iter()
        .filter(|line| line.contains(&format!("Still {state}")))
        .count();
    assert!((2..=3).contains(&still), "{out}");
    demo.interrupt();
    assert_eq!(demo.status(DEADLINE), 0, "{}", demo.said());
    events.interrupt();
    eventually("all are gone", || machines(&server).is_empty().then_some(()));
}

#[test]
fn the_demonstration_leaves_none_however_it_is_asked_to_end() {
    let server = TestServer::start(&[]);
    let path = server.socket_path();
    let arguments = ["demo", "--event-socket-path", path.to_str().unwrap()];
    for (signals, ignored, ending) in [
        ("--default-signal=INT,HUP", None, Signal::TERM),
        ("--default-signal=INT,HUP", None, Signal::HUP),
        ("--ignore-signal=INT", Some(Signal::INT), Signal::TERM),
    ] {
        let mut demo = Running::under(signals, &arguments, |_| ());
        eventually("a machine", || (!machines(&server).is_empty()).then_some(()));
        if let Some(ignored) = ignored {
            demo.signal(ignored);
        }
        demo.signal(ending);
        assert_eq!(demo.status(DEADLINE), 0, "{ending:?}: {}", demo.said());
        eventually("all are gone", || machines(&server).is_empty().then_some(()));
        assert!(!demo.said().contains("signals"), "{}", demo.said());
    }
}

#[test]
fn a_demonstration_without_a_server_says_so_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.sock");
    let mut demo = Running::start(&["demo", "--event-socket-path", path.to_str().unwrap()]);
    demo.wait_until_said("an event was refused: no server receives there");
    demo.interrupt();
    assert_eq!(demo.status(DEADLINE), 1);
    assert!(demo.said().contains("threadcast: 0 events sent, "), "{}", demo.said());
}
