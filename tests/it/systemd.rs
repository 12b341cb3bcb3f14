//! The service manager learns that we serve when we do and that we stop when we begin to, whatever it does itself; and
//! the units that we ship are ones that it understands.

use crate::support::{DEADLINE, TestServer, eventually, http, pause, skipped, uninterrupted};
use rustix::process::Signal;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// A service manager: its socket, and what `NOTIFY_SOCKET` says of it.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at_path(folder: &TempDir) -> Manager {
        let path = folder.path().join("notify");
        Manager {
            socket: UnixDatagram::bind(&path).unwrap(),
            name: path.to_str().unwrap().to_owned(),
        }
        .patient()
    }

    fn at_abstract_name() -> Manager {
        // The kernel gives names as unique as this in all of the host.
        let name = format!("threadcast-notify-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(&name).unwrap();
        Manager {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            name: format!("@{name}"),
        }
        .patient()
    }

    fn patient(self) -> Manager {
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        self
    }

    /// The next message. Blocks until it comes.
    #[track_caller]
    fn message(&self) -> String {
        let mut bytes = [0; 4096];
        let len = uninterrupted(|| self.socket.recv(&mut bytes)).expect("a message");
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    /// How many more messages have come by now.
    fn unread(&self) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        let count = std::iter::from_fn(|| self.socket.recv(&mut [0; 4096]).ok()).count();
        self.socket.set_nonblocking(false).unwrap();
        count
    }
}

/// A server whose manager is to be the only one that tells when it serves.
struct Started(Child);

impl Started {
    fn start(folder: &Path, manager: &Manager) -> Started {
        let child = Command::new(env!("CARGO_BIN_EXE_threadcast"))
            .args(["serve", "--port", "0", "--event-socket-path", "events.sock"])
            .current_dir(folder)
            .env("NOTIFY_SOCKET", &manager.name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Started(child.unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ready_is_told_once_and_only_when_it_serves_and_stopping_when_it_begins_to() {
    let at_path = folder();
    for manager in [Manager::at_path(&at_path), Manager::at_abstract_name()] {
        let folder = folder();
        let mut server = Started::start(folder.path(), &manager);
        let ready = manager.message();
        let status = ready.strip_prefix("READY=1\nSTATUS=serving http://").expect(&ready);
        let (address, rest) = status.split_once(", events at ").unwrap();
        assert_eq!(rest, "events.sock\n");
        // At once, without trying again: who starts after us relies on it.
        let address: SocketAddr = address.parse().unwrap();
        let health = http::request(address, "GET", "/health", &[]);
        assert_eq!(health.status, 200, "{}", health.body);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"{}", folder.path().join("events.sock")).unwrap();

        rustix::process::kill_process(rustix::process::Pid::from_child(&server.0), Signal::TERM).unwrap();
        assert!(manager.message().starts_with("STOPPING=1\nSTATUS="));
        assert!(server.0.wait().unwrap().success());
        assert_eq!(manager.unread(), 0, "nothing else is told");
    }
}

#[test]
fn a_manager_that_is_busy_is_told_later() {
    let folder = folder();
    let manager = Manager::at_path(&folder);
    let filler = UnixDatagram::unbound().unwrap();
    filler.connect(&manager.name).unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send(b"busy").is_ok() {}
    let server = TestServer::start_command(folder, &[], |command| {
        command.env("NOTIFY_SOCKET", &manager.name);
    });
    assert_eq!(server.health()["status"], "ok", "it does not wait for its manager");
    eventually("it is told", || {
        manager.message().starts_with("READY=1\n").then_some(())
    });
}

#[test]
fn a_manager_that_is_not_there_costs_a_line() {
    for (name, said) in [
        ("/nowhere/notify", "cannot tell the service manager that we serve: "),
        ("vsock:2:1234", "NOTIFY_SOCKET is \"vsock:2:1234\" instead of "),
    ] {
        let mut server = TestServer::start_command(folder(), &[], |command| {
            command.env("NOTIFY_SOCKET", name);
        });
        server.wait_for_line(said);
        assert_eq!(server.health()["status"], "ok");
        assert!(server.stop().success());
    }
}

/// A server whose manager wants to hear of it within a second.
fn watched(folder: Arc<TempDir>, flags: &[&str], manager: &Manager) -> TestServer {
    TestServer::start_command(folder, flags, |command| {
        command
            .env("NOTIFY_SOCKET", &manager.name)
            .env("WATCHDOG_USEC", "1000000");
    })
}

#[test]
fn a_server_that_moves_says_so_again_and_again() {
    let folder = folder();
    let manager = Manager::at_path(&folder);
    let _server = watched(folder, &[], &manager);
    let mut alive = 0;
    while alive < 5 {
        match manager.message().as_str() {
            "WATCHDOG=1\n" => alive += 1,
            other => assert!(other.starts_with("READY=1\n"), "{other}"),
        }
    }
}

#[test]
fn a_hung_core_thread_is_not_vouched_for() {
    let folder = folder();
    let manager = Manager::at_path(&folder);
    let server = watched(folder, &["--allow-drill", "--hang-timeout", "1s"], &manager);
    let drill = |millis: u32| {
        let target = format!("/drill?component=fanout&ms={millis}");
        assert_eq!(server.act(&target).status, 200);
    };
    drill(60_000);
    server.wait_for_line("SERVER HANG DETECTED: fanout");
    assert_eq!(server.health()["status"], "hung");
    manager.unread();
    // The next word of it comes when it moves again, and not before. Three times the interval is the subject.
    pause(Duration::from_millis(1500));
    assert_eq!(manager.unread(), 0);
    drill(0);
    assert_eq!(manager.message(), "WATCHDOG=1\n");
    assert_ne!(server.health()["status"], "hung");
}

/// The units as they are shipped.
fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn systemd_understands_the_units() {
    let there = Command::new("systemd-analyze").arg("--version").output();
    if let Err(error) = there {
        let kind = error.kind();
        assert_eq!(kind, io::ErrorKind::NotFound);
        skipped("`systemd-analyze verify` of the units, because it is not installed here");
        return;
    }
    let folder = folder();
    let installed = "/usr/local/bin/threadcast";
    let service = unit("threadcast.service");
    assert!(service.contains(&format!("\nExecStart={installed} serve")));
    let service = service.replace(installed, env!("CARGO_BIN_EXE_threadcast"));
    fs::write(folder.path().join("threadcast.service"), service).unwrap();
    fs::write(folder.path().join("threadcast.socket"), unit("threadcast.socket")).unwrap();
    let services = unit("threadcast-services.service");
    assert!(services.contains(&format!("\nExecStart={installed} up")));
    let services = services
        .replace(installed, env!("CARGO_BIN_EXE_threadcast"))
        .replace("%h/project", "/");
    fs::write(folder.path().join("threadcast-services.service"), services).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args([
            "./threadcast.service",
            "./threadcast.socket",
            "./threadcast-services.service",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "not even a warning");
}

#[test]
fn the_units_start_the_server_with_flags_that_it_knows() {
    let service = unit("threadcast.service").replace("\\\n", " ");
    let line = service
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let arguments: Vec<&str> = line.split_whitespace().skip(1).collect();
    let parsed = threadcast::cli::parse(&arguments, &Vec::new()).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(matches!(parsed, threadcast::cli::Command::Serve(_)), "{line}");
}
