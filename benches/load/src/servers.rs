//! The servers that are compared: how each is built, started and ended.

use crate::generator::Target;
use rustix::process::{Pid, Signal, kill_process};
use std::error::Error;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server must serve after so long; the original one imports its libraries for some seconds.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A server that has been asked to end is given so long, then it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// One server of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    /// One line for the page.
    pub what: &'static str,
    /// Passes the text of events on as it is.
    pub exact: bool,
    pub most_clients: usize,
    launch: Launch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Launch {
    /// The server of this project, with its defaults and a delivery.
    Threadcast(&'static str),
    /// A peer of its own crate.
    Peer,
    /// The original one.
    Python,
    /// This program: recvmmsg alone.
    Bare,
}

pub const ALL: [Kind; 7] = [
    Kind {
        name: "direct",
        what: "threadcast with its defaults: the fan-out sends, a client's thread writes what its socket does not take",
        exact: true,
        most_clients: usize::MAX,
        launch: Launch::Threadcast("direct"),
    },
    Kind {
        name: "queued",
        what: "threadcast with `--delivery queued`: a client's thread does every send",
        exact: true,
        most_clients: usize::MAX,
        launch: Launch::Threadcast("queued"),
    },
    Kind {
        name: "tokio-usual",
        what: "tokio and tokio-tungstenite as people write it: a broadcast channel, a task per client",
        exact: true,
        most_clients: usize::MAX,
        launch: Launch::Peer,
    },
    Kind {
        name: "tokio-tuned",
        what: "tokio as fast as it honestly gets: frames encoded once, batches",
        exact: true,
        most_clients: usize::MAX,
        launch: Launch::Peer,
    },
    Kind {
        name: "floor",
        what: "one thread that receives and sends without blocking, and nothing else: no check, no state, no history",
        exact: true,
        most_clients: usize::MAX,
        launch: Launch::Peer,
    },
    Kind {
        name: "python",
        what: "the original server of statemachine-engine, from PyPI",
        exact: false,
        most_clients: 50,
        launch: Launch::Python,
    },
    Kind {
        name: "bare",
        what: "a loop of recvmmsg(2) and nothing else",
        exact: true,
        most_clients: 0,
        launch: Launch::Bare,
    },
];

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The project's folder.
    pub top: PathBuf,
    /// Where the peers are built.
    pub target: PathBuf,
}

impl Places {
    fn binary(&self, kind: &Kind) -> PathBuf {
        match kind.launch {
            Launch::Threadcast(_) => self.top.join("target/release/threadcast"),
            Launch::Peer => self.target.join("release").join(kind.name),
            Launch::Python => self.top.join("benches/peers/python/run"),
            Launch::Bare => std::env::current_exe().unwrap_or_default(),
        }
    }

    /// Why this server cannot be measured here, if it cannot.
    pub fn lacks(&self, kind: &Kind) -> Option<String> {
        let binary = self.binary(kind);
        (!binary.exists()).then(|| format!("{} is not built (make bench builds it)", binary.display()))
    }
}

/// A running server; ended when it goes.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub target: Target,
    folder: PathBuf,
}

impl Server {
    /// Starts it in a new folder below `target`, and waits until it serves.
    pub fn start(kind: &Kind, places: &Places) -> Result<Server, Box<dyn Error>> {
        let folder = places.target.join(format!("run-{}", kind.name));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let socket = folder.join("events.sock");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(places.binary(kind));
        match kind.launch {
            Launch::Threadcast(delivery) => {
                command.args(["serve", "--delivery", delivery, "--event-socket-path"]);
                command.arg(&socket).args(["--host", "127.0.0.1"]);
            }
            Launch::Peer | Launch::Python => {
                command.arg("--socket").arg(&socket);
            }
            Launch::Bare => {
                command.arg("bare").arg("--socket").arg(&socket);
            }
        }
        if kind.launch != Launch::Bare {
            command.args(["--port", &port.to_string()]);
        }
        let output = File::create(folder.join("output"))?;
        command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", kind.name))?;
        let pid = Pid::from_child(&child);
        let target = Target {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            socket,
            pid,
            exact: kind.exact,
        };
        let mut server = Server { child, target, folder };
        server.wait_until_it_serves(kind)?;
        Ok(server)
    }

    fn wait_until_it_serves(&mut self, kind: &Kind) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + START_PATIENCE;
        let is_socket = |path: &Path| fs::metadata(path).is_ok_and(|data| data.file_type().is_socket());
        loop {
            let listens = kind.launch == Launch::Bare || TcpStream::connect(self.target.address).is_ok();
            if listens && is_socket(&self.target.socket) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended at its start ({status}): {}", kind.name, self.output()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not serve after 30 s: {}", kind.name, self.output()).into());
            }
            sleep(LOOK);
        }
    }

    /// The end of what it has said.
    pub fn output(&self) -> String {
        let text = fs::read(self.folder.join("output")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(self.target.pid, Signal::TERM);
        let deadline = Instant::now() + END_PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
