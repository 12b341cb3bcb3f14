//! With sockets that the service manager keeps, nothing sent while no server runs is lost, and nothing of the manager's
//! is touched; what was passed wrongly is told by its number.

use crate::support::server::in_shell;
use crate::support::{DEADLINE, Sender, TestServer, eventually, http, pause, skipped, state_change};
use rustix::net::sockopt;
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use threadcast::config::Config;

/// The two sockets, held open as the service manager does.
struct Sockets {
    events: UnixDatagram,
    http: TcpListener,
    folder: Arc<TempDir>,
}

impl Sockets {
    fn new() -> Sockets {
        let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
        let path = folder.path().join("events.sock");
        let events = UnixDatagram::bind(&path).unwrap();
        // Not what --socket-mode would set.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        Sockets { events, http, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("events.sock")
    }

    fn address(&self) -> SocketAddr {
        self.http.local_addr().unwrap()
    }

    /// A server that was passed both.
    fn serve(&self) -> TestServer {
        TestServer::start_command(Arc::clone(&self.folder), &[], |command| {
            pass(
                command,
                self.events.try_clone().unwrap(),
                self.http.try_clone().unwrap(),
            );
        })
    }

    /// What the manager knows of the socket's file.
    fn file(&self) -> (u64, u32, i64) {
        let metadata = fs::symlink_metadata(self.path()).unwrap();
        (metadata.ino(), metadata.mode(), metadata.ctime_nsec())
    }
}

/// Lets `command` begin with descriptors 3 and 4, as sd_listen_fds(3) says. They travel as standard input and output of
/// a shell, which the command replaces; so its process id is the shell's.
fn pass(command: &mut Command, three: impl Into<OwnedFd>, four: impl Into<OwnedFd>) {
    let script = "exec 3<&0 4>&1 </dev/null >/dev/null; \
                  export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=one:two";
    in_shell(command, &["sh"], script);
    command
        .stdin(Stdio::from(three.into()))
        .stdout(Stdio::from(four.into()));
}

#[test]
fn what_was_sent_while_no_server_ran_arrives() {
    let sockets = Sockets::new();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(sockets.path()).unwrap();
    // The kernel of a host may hold no more than ten.
    for number in 0..9 {
        sender
            .send(&state_change("early", "a", &format!("s{number}"), f64::from(number)))
            .unwrap();
    }
    let mut early = TcpStream::connect(sockets.address()).unwrap();
    early.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(early, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();

    let server = sockets.serve();
    assert_eq!(server.address, sockets.address(), "it serves at the passed socket");
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let state = || {
        server.initial()["machines"][0]["current_state"]
            .as_str()
            .map(str::to_owned)
    };
    eventually("all of them in order", || {
        (state().as_deref() == Some("s8")).then_some(())
    });
    assert_eq!(server.health()["events_received"], 9);
    // And what is sent now is no different.
    let mut client = server.client();
    sender.send(b"{\"now\":1}").unwrap();
    assert_eq!(client.text(), "{\"now\":1}");
    server.wait_for_line("the service manager passed a socket that listens on 127.0.0.1:");
    assert!(
        server
            .lines()
            .with("--event-socket-path")
            .iter()
            .all(|line| !line.contains("does not matter"))
    );
}

#[test]
fn restarts_lose_no_event_and_refuse_no_connection() {
    let sockets = Sockets::new();
    let done = AtomicBool::new(false);
    let (sent, mut last) = std::thread::scope(|scope| {
        let engine = scope.spawn(|| {
            let sender = Sender::to(&sockets.path());
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                let name = format!("m{sent}");
                sender
                    .send(&state_change(&name, "a", "b", 1.0))
                    .expect("no send fails or waits for ever");
                sent += 1;
                // So that the table has room for all of them.
                pause(Duration::from_millis(10));
            }
            sent
        });
        let mut server = sockets.serve();
        let file = sockets.file();
        for _ in 0..3 {
            eventually("events come", || {
                (server.health()["events_received"].as_u64() > Some(3)).then_some(())
            });
            assert!(server.stop().success());
            assert_eq!(sockets.file(), file, "the socket's file stays as it was");
            let mut between = TcpStream::connect(sockets.address()).expect("connecting is always possible");
            between.set_read_timeout(Some(DEADLINE)).unwrap();
            write!(between, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            server = sockets.serve();
            let mut answer = String::new();
            between.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        done.store(true, Ordering::Relaxed);
        (engine.join().unwrap(), server)
    });
    let expected: BTreeSet<String> = (0..sent).map(|number| format!("m{number}")).collect();
    // Each event has a machine of its own, and machines are kept across restarts.
    eventually("every event was received", || {
        let initial = last.initial();
        let rows = initial["machines"].as_array().unwrap().iter();
        let known: BTreeSet<String> = rows
            .map(|row| row["machine_name"].as_str().unwrap().to_owned())
            .collect();
        (known == expected).then_some(())
    });
    assert!(last.stop().success());
    assert!(sockets.path().exists());
    assert!(
        !sockets.folder.path().join("events.sock.lock").exists(),
        "the path needs no lock of ours"
    );
}

/// The server's own ends of connections: copies of all its TCP sockets that have a peer. `None`, said, where the host
/// does not let us look.
fn servers_ends(server: &TestServer) -> Option<Vec<TcpStream>> {
    let pid = Pid::from_raw(server.pid() as i32).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let mut ends = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap() {
        let number: ForeignRawFd = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            Ok(fd) => ends.push(TcpStream::from(fd)),
            // Closed since we saw it.
            Err(rustix::io::Errno::BADF) => {}
            Err(error) => {
                skipped(format_args!(
                    "the options of the server's sockets, which this host does not show: {error}"
                ));
                return None;
            }
        }
    }
    ends.retain(|end| end.peer_addr().is_ok());
    Some(ends)
}

#[test]
fn connections_from_before_the_start_have_the_same_options_as_later_ones() {
    let sockets = Sockets::new();
    let early = TcpStream::connect(sockets.address()).unwrap();
    let server = sockets.serve();
    let late = TcpStream::connect(sockets.address()).unwrap();
    let expected = 2 * Config::default().send_buffer_bytes;
    for connection in [&early, &late] {
        let ours = connection.local_addr().unwrap();
        let found = eventually("the server has taken the connection", || match servers_ends(&server) {
            None => Some(None),
            Some(ends) => ends
                .into_iter()
                .find(|end| end.peer_addr().is_ok_and(|peer| peer == ours))
                .map(Some),
        });
        let Some(end) = found else { return };
        // The kernel knows of the connection before the server has set its options.
        eventually("it sends without delay", || end.nodelay().unwrap().then_some(()));
        let size = || sockopt::socket_send_buffer_size(&end).unwrap();
        eventually("its buffer is bounded", || (size() == expected).then_some(()));
    }
}

#[test]
fn a_lost_path_is_told_and_left_to_the_manager() {
    let sockets = Sockets::new();
    let mut server = sockets.serve();
    fs::remove_file(sockets.path()).unwrap();
    let line = server.wait_for_line("somebody has removed event socket");
    assert!(line.contains("systemctl stop threadcast.socket"), "{line}");
    assert!(!sockets.path().exists(), "it is not bound again");
    let _thief = UnixDatagram::bind(sockets.path()).unwrap();
    eventually("health names who has it", || {
        let health = server.health().to_string();
        let owner = format!("process {} (", std::process::id());
        (health.contains("degraded") && health.contains(&owner)).then_some(())
    });
    let before = sockets.file();
    assert!(server.stop().success());
    // Begun when the path is lost already, it knows that too.
    let mut server = sockets.serve();
    server.wait_for_line("another server has taken event socket");
    assert!(server.stop().success());
    assert_eq!(sockets.file(), before, "the other server's file is not touched");
}

/// Starts a server that was passed two descriptors and must not start; gives what it said.
#[track_caller]
fn refused(folder: &Path, three: impl Into<OwnedFd>, four: impl Into<OwnedFd>, script: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadcast"));
    command
        .args(["serve", "--port", "0", "--event-socket-path", "own.sock"])
        .current_dir(folder);
    let (three, four) = (three.into(), four.into());
    in_shell(
        &mut command,
        &["sh"],
        &format!("exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; {script}"),
    );
    let output = command
        .stdin(Stdio::from(three))
        .stdout(Stdio::from(four))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("threadcast: ") && said.contains("\nhint: "), "{said}");
    let left: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["events.sock"], "a server that does not start leaves nothing");
    said
}

#[test]
fn what_was_passed_wrongly_is_told_by_its_number() {
    let sockets = Sockets::new();
    let folder = sockets.folder.path();
    let events = || sockets.events.try_clone().unwrap();
    let http = || sockets.http.try_clone().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let stream = UnixListener::bind(elsewhere.path().join("s.sock")).unwrap();
    for (said, part) in [
        (
            refused(folder, events(), stream, "export LISTEN_FDNAMES=a:b"),
            "descriptor 4 (\"b\") is a Unix stream socket that listens",
        ),
        (
            refused(folder, UdpSocket::bind("127.0.0.1:0").unwrap(), http(), ":"),
            "descriptor 3 is an IPv4 datagram socket",
        ),
        (
            refused(folder, UnixDatagram::unbound().unwrap(), http(), ":"),
            "descriptor 3 is a Unix datagram socket without a path",
        ),
        (
            refused(folder, events(), events(), ":"),
            "descriptor 4 is a second Unix datagram socket",
        ),
        (
            refused(folder, http(), http(), ":"),
            "descriptor 4 is a second TCP socket that listens",
        ),
        (
            refused(folder, events(), fs::File::open("/dev/null").unwrap(), ":"),
            "descriptor 4 is not a socket",
        ),
        (
            refused(folder, events(), http(), "export LISTEN_FDS=3"),
            "descriptor 5 does not exist",
        ),
        (
            refused(folder, events(), http(), "export LISTEN_FDS=two"),
            "LISTEN_FDS is \"two\"",
        ),
    ] {
        assert!(said.contains(part), "no {part:?}: {said}");
    }
    // The sockets themselves are none the worse.
    let server = sockets.serve();
    server.sender().send(b"{}").unwrap();
    eventually("it is received", || {
        (server.health()["events_received"] == 1).then_some(())
    });
}

#[test]
fn one_of_the_two_is_enough_and_what_is_meant_for_another_process_is_not_ours() {
    let sockets = Sockets::new();
    let other_path = sockets.folder.path().join("not-this-one.sock");
    let flags = ["--event-socket-path", other_path.to_str().unwrap()];
    let server = TestServer::start_command(Arc::clone(&sockets.folder), &flags, |command| {
        let script = "exec 3<&0 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=1";
        in_shell(command, &["sh"], script);
        command.stdin(Stdio::from(OwnedFd::from(sockets.events.try_clone().unwrap())));
    });
    assert_ne!(server.address, sockets.address());
    let line = server.wait_for_line("the service manager passed an event socket at");
    assert!(line.contains("not-this-one.sock does not matter"), "{line}");
    assert!(!other_path.exists());
    server.sender().send(b"{}").unwrap();
    eventually("it is received", || {
        (server.health()["events_received"] == 1).then_some(())
    });
    drop(server);

    let fresh = Arc::new(tempfile::tempdir().unwrap());
    let mut server = TestServer::start_command(fresh, &[], |command| {
        command.env("LISTEN_PID", "1").env("LISTEN_FDS", "2");
    });
    assert!(server.socket_path().exists(), "it has sockets of its own");
    assert_eq!(http::request(server.address, "GET", "/health", &[]).status, 200);
    assert!(server.stop().success());
    assert!(!server.socket_path().exists(), "and removes its file");
}
