//! What each signal does: one wish to end is one, however often it is sent; a closed terminal ends the server in order;
//! elsewhere SIGHUP reads the settings again; what means nothing ends nothing.

use crate::support::client::CLOSE;
use crate::support::server::in_shell;
use crate::support::{DEADLINE, TestClient, TestServer, compile, eventually, skipped};
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn folder() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// A server that `shell` starts, after `script`.
fn started_by(folder: Arc<tempfile::TempDir>, flags: &[&str], shell: &[&str], script: &str) -> TestServer {
    TestServer::start_command(folder, flags, |command| in_shell(command, shell, script))
}

/// Without a controlling terminal, whoever runs the tests.
const DETACHED: [&str; 2] = ["setsid", "sh"];

/// GNU timeout signals its child, then the child's group: the server gets each twice, microseconds apart.
#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    for signal in [Signal::TERM, Signal::INT] {
        for _ in 0..5 {
            let mut server = TestServer::start(&["--journal", "journal"]);
            let mut client = server.client();
            for _ in 0..3 {
                server.signal(signal);
            }
            let (code, _) = client.until_close().expect("a close frame");
            assert_eq!(code, 1012);
            client.send(CLOSE, &1012u16.to_be_bytes());
            client.shut_down();
            assert_eq!(
                server.wait_for_end(DEADLINE).code(),
                Some(0),
                "{}",
                server.lines().all()
            );
            assert!(!server.socket_path().exists());
            server.wait_for_line("👋 stopped in");
            assert!(
                journal_has_ended(server.folder().path()),
                "the journal has no line that says that this is all"
            );
        }
    }
}

fn journal_has_ended(folder: &Path) -> bool {
    let segments = fs::read_dir(folder.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segments = segments.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    segments
        .map(|path| fs::read_to_string(path).unwrap())
        .any(|text| text.lines().any(|line| line.contains("\"end\"")))
}

#[test]
fn under_timeout_the_end_is_an_ordered_one() {
    let timeout = ["timeout", "--preserve-status", "2", "sh"];
    let mut server = started_by(folder(), &[], &timeout, ":");
    assert_eq!(
        server.wait_for_end(DEADLINE).code(),
        Some(0),
        "{}",
        server.lines().all()
    );
    server.wait_for_line("👋 stopped in");
    assert!(!server.socket_path().exists());
}

#[test]
fn signals_that_mean_nothing_end_nothing() {
    let mut server = TestServer::start(&[]);
    let mut client = server.client();
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
        Signal::STKFLT,
        Signal::XFSZ,
    ] {
        server.signal(signal);
    }
    server.wait_for_line("SIGUSR1 means nothing to this server");
    server.wait_for_line("SIGPROF means nothing to this server");
    server.wait_for_line("SIGPWR means nothing to this server");
    server.wait_for_line("SIGSTKFLT means nothing to this server");
    for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        send(&server, signal);
    }
    server.wait_for_line("SIGRTMIN means nothing to this server");
    server.wait_for_line("SIGRTMIN+1 means nothing to this server");
    server.send(crate::support::numbered(1, 100));
    client.expect_numbers(1..2);
    assert_eq!(server.stop().code(), Some(0));
}

/// Sends a signal for which rustix has no name.
#[expect(unsafe_code, reason = "rustix does not send real-time signals")]
fn send(server: &TestServer, signal: i32) {
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    let sent = unsafe { libc::kill(server.pid() as i32, signal) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn an_ignored_real_time_signal_stays_ignored() {
    let ignored = libc::SIGRTMAX();
    let mut server = started_by(folder(), &[], &["sh"], &format!("trap '' {ignored}"));
    send(&server, ignored);
    send(&server, ignored - 1);
    let number = ignored - 1 - libc::SIGRTMIN();
    server.wait_for_line(&format!("SIGRTMIN+{number} means nothing to this server"));
    send(&server, libc::SIGRTMIN());
    server.wait_for_line("SIGRTMIN means nothing to this server");
    assert_eq!(server.stop().code(), Some(0));
    let said = server.lines().with("means nothing");
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn quit_leaves_a_core_as_everywhere() {
    // A test run in the background of a script ignores it, and its children would inherit that.
    let mut server = started_by(folder(), &[], &["env", "--default-signal=QUIT", "sh"], ":");
    server.signal(Signal::QUIT);
    assert_eq!(server.wait_for_end(DEADLINE).signal(), Some(Signal::QUIT.as_raw()));
}

#[test]
fn without_a_terminal_hup_reopens_the_log() {
    let mut server = started_by(folder(), &[], &DETACHED, ":");
    let log = server.path("logs/websocket-server.log");
    fs::rename(&log, server.path("logs/older.log")).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line(
        "🔄 SIGHUP: log files are opened anew; no setting that can change while the server runs has changed",
    );
    eventually("the new log has the line", || {
        fs::read_to_string(&log).ok().filter(|text| text.contains("🔄 SIGHUP"))
    });
    assert_eq!(server.stop().code(), Some(0));
}

#[cfg(feature = "config-file")]
#[test]
fn without_a_terminal_hup_reads_the_settings_again() {
    let folder = folder();
    let settings = folder.path().join("settings.toml");
    let write = |text: &str| fs::write(&settings, text).unwrap();
    write("log-level = \"info\"\nping-interval = \"10s\"\n");
    let flags = ["--config", settings.to_str().unwrap()];
    let mut server = started_by(Arc::clone(&folder), &flags, &DETACHED, ":");
    let status = |server: &TestServer| {
        server
            .http("GET", "/health", &["Origin: https://dash.example.com"])
            .status
    };
    assert_eq!(status(&server), 403);
    write("log-level = \"debug\"\nping-interval = \"5s\"\nallow-origin = [\"https://dash.example.com\"]\n");
    server.signal(Signal::HUP);
    server.wait_for_line("log-level is debug (was info)");
    let line = server.lines().with("🔄 SIGHUP").pop().unwrap();
    assert!(line.contains("allow-origin is https://dash.example.com"), "{line}");
    assert!(
        line.contains("with the next start only: ping-interval is 5s (was 10s)"),
        "{line}"
    );
    assert_eq!(status(&server), 200);
    let sender = server.sender();
    sender.send(br#"{"machine_name":"m","type":"t"}"#).unwrap();
    eventually("debug lines are written", || server.lines().with("DEBUG").pop());
    write("log-level = \"loud\"\n");
    server.signal(Signal::HUP);
    let line = eventually("the fault is said", || server.lines().with("🚨 SIGHUP").pop());
    assert!(
        line.contains("none has changed") && line.contains("log-level"),
        "{line}"
    );
    assert_eq!(status(&server), 200);
    assert_eq!(server.stop().code(), Some(0));
}

/// A file on a disk that does not answer, for which a pipe without a writer stands here.
#[cfg(feature = "config-file")]
#[test]
fn settings_that_never_answer_hold_up_nobody() {
    let folder = folder();
    let settings = folder.path().join("settings.toml");
    fs::write(&settings, "log-level = \"info\"\n").unwrap();
    let flags = ["--config", settings.to_str().unwrap()];
    let mut server = started_by(Arc::clone(&folder), &flags, &DETACHED, ":");
    fs::remove_file(&settings).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &settings, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("the file of settings does not answer");
    server.signal(Signal::HUP);
    server.wait_for_line("the settings are still being read since the last one");
    assert_eq!(server.health()["status"], "ok");
    assert_eq!(server.stop().code(), Some(0), "{}", server.lines().all());
}

#[test]
fn an_ignored_hup_stays_ignored() {
    let mut server = started_by(folder(), &[], &["nohup", "sh"], ":");
    server.signal(Signal::HUP);
    let mut client = server.client();
    server.send(crate::support::numbered(1, 100));
    client.expect_numbers(1..2);
    assert_eq!(server.lines().with("SIGHUP"), [""; 0]);
    assert_eq!(server.stop().code(), Some(0));
}

/// Runs its arguments on a terminal of their own, and closes that when a line comes on standard input.
const ON_A_TERMINAL: &str = r"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.dup2(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), 2)
    os.execv(sys.argv[2], sys.argv[2:])
sys.stdin.readline()
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_closed_terminal_ends_it_in_order() {
    let folder = folder();
    let said = folder.path().join("said");
    let mut command = Command::new("python3");
    command
        .args(["-c", ON_A_TERMINAL])
        .arg(&said)
        .arg(env!("CARGO_BIN_EXE_threadcast"));
    command
        .args(["serve", "--port", "0", "--journal", "journal", "--event-socket-path"])
        .arg(folder.path().join("events.sock"));
    command.current_dir(folder.path()).stdin(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return skipped("a server on a terminal that is closed, because python3 is not installed");
    };
    let said = || fs::read_to_string(&said).unwrap_or_default();
    let address = eventually("it serves", || {
        let said = said();
        said.split(" listens on http://")
            .nth(1)?
            .split(',')
            .next()?
            .parse()
            .ok()
    });
    let mut client = TestClient::connect(address);
    client.text();
    drop(child.stdin.take());
    let (code, _) = client.until_close().expect("a close frame");
    assert_eq!(code, 1012);
    client.send(CLOSE, &1012u16.to_be_bytes());
    client.shut_down();
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", said());
    assert!(
        said().contains("🛑 SIGHUP: stopping") && said().contains("👋 stopped in"),
        "{}",
        said()
    );
    assert!(journal_has_ended(folder.path()), "the journal says that this is all");
    assert!(!folder.path().join("events.sock").exists());
}

/// A limit on the size of files, as `ulimit -f` sets it, must cost lines and not the server.
#[test]
fn a_file_that_may_not_grow_costs_what_it_would_have_held() {
    let folder = folder();
    // In blocks of 512 bytes.
    let flags = ["--journal", "journal", "--log-level", "debug"];
    let mut server = started_by(folder, &flags, &["sh"], "ulimit -f 64");
    let mut client = server.client();
    let sender = server.sender();
    for number in 0..600 {
        sender.send(&crate::support::numbered(number, 1024)).unwrap();
    }
    client.expect_numbers(0..600);
    // It begins a new segment a second later; the terminal has what the log's file has not.
    server.wait_for_line("the journal cannot be written: File too large");
    server.wait_for_line("the journal can be written again");
    eventually("lost lines of the log are counted", || {
        (server.health()["log_lines_lost"].as_u64() > Some(0)).then_some(())
    });
    assert_eq!(server.stop().code(), Some(0));
}

/// Not a byte may be written into any file, from the first moment on.
#[test]
fn files_that_may_not_grow_at_all_cost_no_service() {
    let flags = [
        "--status-file",
        "status.json",
        "--heartbeat-interval",
        "200ms",
        "--allow-drill",
        "--hang-timeout",
        "1s",
    ];
    let mut server = started_by(folder(), &flags, &["sh"], "ulimit -f 0");
    let mut client = server.client();
    let event = crate::support::state_change("m", "a", "b", 1.5);
    server.send(&event);
    assert_eq!(client.text().as_bytes(), event);
    for file in ["logs/threadcast-state.json", "status.json"] {
        server.wait_for_line(&format!("🚨 cannot write {file}: File too large"));
    }
    assert_eq!(server.act("/drill?component=fanout&ms=600000").status, 200);
    server.wait_for_line("💾 the report could not be written to logs/hang-emergency.log: File too large");
    assert_eq!(server.act("/drill?component=fanout&ms=0").status, 200);
    server.send(&event);
    assert_eq!(client.text().as_bytes(), event);
    assert_eq!(server.stop().code(), Some(0), "{}", server.lines().all());
    for file in ["logs/threadcast-state.json", "status.json"] {
        assert!(!server.path(file).exists(), "half of {file} helps nobody");
    }
}

/// Blocks in opening a file whose path ends in $BLOCKED_END, for ever or until there is a file $BLOCKED_UNTIL.
pub const BLOCKING_OPEN: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int ends(const char *path) {
    const char *end = getenv("BLOCKED_END");
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && !strcmp(path + length - tail, end);
}
int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, mode_t);
    va_end(list);
    const char *until = getenv("BLOCKED_UNTIL");
    while (ends(path) && !(until && !access(until, F_OK))) usleep(10000);
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    return real(path, flags, mode);
}
"#;

#[test]
fn a_signal_ends_a_start_that_hangs() {
    let folder = folder();
    let Some(library) = compile(folder.path(), "blocking-open", BLOCKING_OPEN) else {
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadcast"));
    command.args([
        "serve",
        "--port",
        "0",
        "--journal",
        "journal",
        "--event-socket-path",
        "events.sock",
    ]);
    command
        .env("LD_PRELOAD", library)
        .env("BLOCKED_END", "journal/journal.lock");
    command.current_dir(folder.path()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = folder.path().join("logs/websocket-server.log");
    // The handlers are there once the thread is that waits for the start.
    eventually("it starts", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let mut names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.any(|name| name == "start\n").then_some(())
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let output = run_to_end(&mut child);
    assert_eq!(output.0, Some(1), "{}", output.1);
    let expected =
        "SIGTERM came while the server starts, and the start does not go on: it is opening the journal journal";
    assert!(output.1.contains(expected), "{}", output.1);
    assert!(output.1.contains("[start] 🚨 SIGTERM came"), "{}", output.1);
    assert!(
        fs::read_to_string(log).unwrap_or_default().contains(expected),
        "the log has it too"
    );
}

#[test]
fn a_start_that_hangs_leaves_nothing_behind_when_it_is_ended() {
    let folder = folder();
    let Some(library) = compile(folder.path(), "blocking-open", BLOCKING_OPEN) else {
        return;
    };
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("threadcast-state.json"), "{}").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadcast"));
    command
        .args(["serve", "--port", "0", "--journal", "journal"])
        .args(["--event-socket-path", "events.sock"])
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("XDG_RUNTIME_DIR")
        .env("LD_PRELOAD", library)
        .env("BLOCKED_END", "/threadcast-state.json")
        .current_dir(folder.path())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let sockets = || {
        let in_folder = |folder: &Path| {
            let names = fs::read_dir(folder).unwrap();
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        };
        let names = in_folder(folder.path()).chain(in_folder(&logs));
        let mut names: Vec<String> = names.filter(|name| name.contains(".sock")).collect();
        names.sort();
        names
    };
    eventually("the journal has begun, and next comes the state file", || {
        let journal = fs::read_dir(folder.path().join("journal")).ok()?;
        let mut files = journal.map(|entry| entry.unwrap().path());
        let has_line = |path: &Path| fs::metadata(path).is_ok_and(|file| file.len() > 0);
        files
            .any(|path| path.extension().is_some_and(|end| end == "jsonl") && has_line(&path))
            .then_some(())
    });
    let made = sockets();
    assert_eq!(
        made.len(),
        3,
        "the admin socket, its lock, and that of the event socket: {made:?}"
    );
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let (status, said) = run_to_end(&mut child);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("[start] 🚨 SIGTERM came") && said.contains("it is reading the state file"),
        "{said}"
    );
    assert_eq!(sockets(), [""; 0]);
    assert!(
        journal_has_ended(folder.path()),
        "no number was given, and the journal says so"
    );
}

fn run_to_end(child: &mut std::process::Child) -> (Option<i32>, String) {
    let status = eventually("it ends", || child.try_wait().unwrap());
    let mut text = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
    (status.code(), text)
}
