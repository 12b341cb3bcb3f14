//! Whatever the host runs out of or has taken from under the server: one clear line, one counter that moves, and ten
//! clients that watch meanwhile and notice nothing; when the host has it again, so has the server.

use crate::clock::shim;
use crate::event_socket::refused_without_privileges;
use crate::support::client::{Options, TEXT, masked};
use crate::support::server::{in_shell, mounting_shell};
use crate::support::{DEADLINE, Row, TestClient, TestServer, Watched, eventually, skipped};
use rustix::process::{Pid, Resource, Rlimit, geteuid, prlimit};
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const LOG: &str = "logs/websocket-server.log";

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// Connections that say nothing and take what they need.
fn silent(server: &TestServer, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect()
}

/// Waits until a newcomer is served.
#[track_caller]
fn newcomer_is_served(server: &TestServer) {
    let mut client = eventually("a newcomer is served", || {
        TestClient::try_with(server.address, &Options::default()).ok()
    });
    assert!(client.text().starts_with("{\"type\":\"initial\""));
    client.close().expect("a close frame");
}

/// How many of these are told 503. The others are ended at the deadline for their heads, so with any this takes 5 s.
fn told_to_come_back(silent: Vec<TcpStream>) -> usize {
    let told = silent.into_iter().filter(|mut socket| {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 5\r\n")
    });
    told.count()
}

#[test]
fn out_of_descriptors_newcomers_wait_until_there_are_some_again() {
    let mut watched = Watched::new(TestServer::start(&[]));
    let line = "cannot accept a connection: ";
    let counter = "/connections_failed/no_descriptor";
    watched.judge(Row::new("out of descriptors", line, counter, 2, |server| {
        // The server has planned for the limit that it found; somebody lowers it now.
        let limit = Some(server.descriptors() as u64 + 30);
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        prlimit(Pid::from_raw(server.pid() as i32), Resource::Nofile, limit).unwrap();
        let silent = silent(server, 120);
        let told = server.wait_for_line(line);
        assert!(told.contains("ulimit -n") && told.contains("LimitNOFILE="), "{told}");
        eventually("it stands back and tries again", || {
            (server.lines().with(line).len() > 1).then_some(())
        });
        drop(silent);
        newcomer_is_served(server);
        server.wait_for_line("connections are accepted again, after ");
        assert!(server.lines().with(line).len() <= 21, "the line is rate-limited");
    }));
}

#[test]
fn a_server_with_few_descriptors_plans_for_them_and_tells_who_is_too_many() {
    let server = TestServer::start_command(folder(), &[], |command| {
        in_shell(command, &["sh"], "ulimit -n 104");
    });
    server.wait_for_line("room for 35 clients");
    let mut watched = Watched::new(server);
    let line = ": too many connections";
    // 35 clients and five more connections have room, and ten are there: of 120, the last 90 come too late, but for one
    // or two whose room the requests of this test had taken.
    let least = 78;
    watched.judge(Row::new(
        "too many connections",
        line,
        "/connections_failed/too_many",
        least,
        |server| {
            let mut silent = silent(server, 120);
            let told = told_to_come_back(silent.split_off(40));
            assert!(told as u64 >= least, "{told} were told");
            drop(silent);
            newcomer_is_served(server);
            assert!(server.lines().with("cannot accept").is_empty(), "it never runs out");
        },
    ));
}

#[test]
fn out_of_threads_newcomers_are_told_so() {
    // The limit of processes does not bind root, so the server runs as another user; whoever is not root shares the
    // limit with all that this user runs, so that nobody can say what it would do.
    if !geteuid().is_root() {
        skipped("only root can give the server a user, and with it a limit of threads, of its own");
        return;
    }
    let folder = folder();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    // An own number, so that no other process counts.
    let user = 61_000 + std::process::id() % 4_000;
    let user = ["--reuid", "--regid"].map(|flag| format!("{flag}={user}"));
    let shell = ["setpriv", &user[0], &user[1], "--clear-groups", "--"];
    let server = TestServer::start_command(folder, &[], |command| {
        in_shell(command, &[&shell[..], &["sh"]].concat(), "true");
    });
    let mut watched = Watched::new(server);
    let line = "cannot start a thread for a client: ";
    watched.judge(Row::new(
        "out of threads",
        line,
        "/connections_failed/no_thread",
        1,
        |server| {
            // As the server's own user, who may lower its limits without privilege.
            let pid = server.pid().to_string();
            let limit = format!("--nproc={}", server.threads() + 20);
            let lowered = Command::new(shell[0])
                .args(&shell[1..])
                .args(["prlimit", "--pid", &pid, &limit])
                .status();
            assert!(lowered.unwrap().success());
            let silent = silent(server, 120);
            let told = server.wait_for_line(line);
            assert!(told.contains("ulimit -u") && told.contains("TasksMax="), "{told}");
            assert!(told_to_come_back(silent) > 0, "whoever gets no thread is told so");
            newcomer_is_served(server);
        },
    ));
}

/// Makes lines until `done`: messages that a server logs at debug.
#[track_caller]
fn chatter_until(server: &TestServer, what: &str, mut done: impl FnMut() -> bool) {
    let mut client = server.client();
    eventually(what, || {
        client.send_bytes(&masked(TEXT, b"chatter").repeat(100));
        client.send_text("ping");
        while client.text() != "{\"type\":\"pong\"}" {}
        done().then_some(())
    });
    client.close().expect("a close frame");
}

/// A server that logs much, in a folder of its own with a `logs` in it, started by `shell` after `script`.
fn talkative(shell: &[&str], script: &str) -> TestServer {
    let folder = folder();
    fs::create_dir(folder.path().join("logs")).unwrap();
    TestServer::start_command(folder, &["--log-level", "debug", "--state-file", "none"], |command| {
        in_shell(command, shell, script);
    })
}

/// Trouble by which lines in the log file are lost.
fn lines_lost<'a>(what: &'a str, trouble: impl FnOnce(&TestServer) + Send + 'a) -> Row<'a> {
    let line = "cannot write logs/websocket-server.log: ";
    Row::new(what, line, "/log_lines_lost", 1, trouble)
}

#[test]
fn a_log_folder_that_takes_nothing_costs_only_lines() {
    let chatter = |server: &TestServer| {
        let lost = || server.health()["log_lines_lost"].as_u64().unwrap();
        let before = lost();
        chatter_until(server, "lines are lost", || lost() > before + 100);
    };
    match mounting_shell() {
        Some(shell) => {
            let server = talkative(shell, "mount -t tmpfs -o ro tmpfs logs");
            server.wait_for_line("Read-only file system");
            Watched::new(server).judge_since_start(lines_lost("a read-only log folder", chatter));
            let script = "mount -t tmpfs -o size=64k tmpfs logs && head -c 32768 /dev/zero > logs/filler";
            let server = talkative(shell, script);
            Watched::new(server).judge(lines_lost("a log folder on a full disk", |server| {
                chatter(server);
                assert!(
                    !server.lines().with("No space left on device").is_empty(),
                    "{}",
                    server.lines().all()
                );
            }));
        }
        None if !geteuid().is_root() => {
            let server = talkative(&["sh"], "chmod 555 logs");
            server.wait_for_line("Permission denied");
            Watched::new(server).judge_since_start(lines_lost("a log folder that is not writable", chatter));
        }
        None => {}
    }
}

#[test]
fn a_log_folder_that_is_removed_is_made_anew_as_soon_as_that_is_possible() {
    let mut watched = Watched::new(talkative(&["sh"], "true"));
    watched.judge(Row::harmless("the log folder removed", |server| {
        fs::remove_dir_all(server.path("logs")).unwrap();
        // The watchers' events make lines.
        eventually("the log file is there again", || fs::metadata(server.path(LOG)).ok());
        assert_eq!(server.health()["log_lines_lost"], 0);
    }));
    watched.judge(lines_lost("the log folder replaced by a file", |server| {
        let logs = server.path("logs");
        fs::rename(&logs, server.path("aside")).unwrap();
        fs::write(&logs, "a file in its place").unwrap();
        server.wait_for_line("cannot write logs/websocket-server.log: ");
        fs::remove_file(&logs).unwrap();
        let told = server.wait_for_line("logs/websocket-server.log can be written again");
        assert!(told.contains("lines are missing in it"), "{told}");
    }));
}

#[test]
fn a_terminal_that_is_stuck_costs_only_its_own_lines() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let server = TestServer::start_command(folder(), &["--log-level", "debug"], |command| {
        command.stderr(writer);
    });
    let line = "the terminal did not take ";
    Watched::new(server).judge(Row::new(
        "the terminal's pipe stuck",
        line,
        "/log_lines_lost",
        1,
        |server| {
            // A pipe holds 64 KiB.
            chatter_until(server, "the pipe is full", || server.health()["log_lines_lost"] != 0);
            // Somebody reads again.
            reader.read_exact(&mut vec![0; 32 * 1024]).unwrap();
            let log = server.path(LOG);
            chatter_until(server, "the loss is said", || {
                fs::read_to_string(&log).is_ok_and(|text| text.contains(line))
            });
        },
    ));
}

#[test]
fn a_folder_that_cannot_hold_the_socket_is_said_by_whoever_wants_it_there() {
    let folder = folder();
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    let path = run.join("events.sock");
    let server = TestServer::start_in(folder, &["--event-socket-path", path.to_str().unwrap()]);
    // The harness looks for the socket at its usual place.
    std::os::unix::fs::symlink(&path, server.socket_path()).unwrap();
    let mut watched = Watched::new(server);
    watched.judge(Row::harmless(
        "a second server whose socket's folder is missing",
        |server| {
            let missing = server.path("missing");
            let said = refused_without_privileges(&server.path(""), &missing.join("events.sock"));
            let advice = format!("make the folder {} first", missing.display());
            assert!(said.contains(&advice), "{said}");
            assert!(!missing.exists());
        },
    ));
    watched.judge(Row::harmless(
        "a second server whose socket's folder is not writable",
        |server| {
            let closed = server.path("closed");
            fs::create_dir(&closed).unwrap();
            fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
            let said = refused_without_privileges(&server.path(""), &closed.join("events.sock"));
            let advice = format!("{} must be writable", closed.display());
            assert!(said.contains(&advice), "{said}");
        },
    ));
    let removed = Row::harmless("the folder of the socket removed and given back", |server| {
        let active = || server.health()["unix_socket_active"].as_bool().unwrap();
        fs::remove_dir_all(&run).unwrap();
        eventually("the loss shows", || (!active()).then_some(()));
        assert_eq!(server.health()["status"], "degraded");
        fs::create_dir(&run).unwrap();
        eventually("the socket is back", || active().then_some(()));
    });
    watched.judge(Row {
        line: Some("🚨 event socket"),
        // The old socket, for the senders that are connected to it, as the watchers' is.
        kept_descriptors: 1,
        ..removed
    });
}

#[test]
fn a_wall_clock_that_is_stepped_is_nobodys_end() {
    let folder = folder();
    let step_file = folder.path().join("step");
    let Some(library) = shim(folder.path()) else {
        return;
    };
    // Shorter than each step.
    let flags = ["--ping-interval", "100ms", "--pong-timeout", "10s"];
    let server = TestServer::start_command(folder, &flags, |command| {
        command.env("LD_PRELOAD", &library).env("CLOCK_STEP_FILE", &step_file);
    });
    let mut watched = Watched::new(server);
    for (what, days) in [
        ("the clock a day ahead", 1),
        ("the clock two days back", -1),
        ("the clock set right", 0),
    ] {
        watched.judge(Row::harmless(what, |server| {
            fs::write(&step_file, (days * 86_400).to_string()).unwrap();
            // The watchers' events carry the server to the new time.
            eventually("the server sees the step", || {
                let seen = server.health()["last_event_time"].as_f64().unwrap();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
                let ahead = seen - now - f64::from(days) * 86_400.0;
                (ahead.abs() < 3600.0).then_some(())
            });
            let health = server.health();
            assert!(health["seconds_since_last_event"].as_f64().unwrap() >= 0.0, "{health}");
            assert!(health["uptime_seconds"].as_f64().unwrap() >= 0.0, "{health}");
        }));
    }
}
