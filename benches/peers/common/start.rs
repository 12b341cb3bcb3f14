//! What a peer does before it serves: reads its command line, raises its limit of descriptors, opens its two sockets.
//!
//! Each peer includes this file by its path, so that they differ in nothing but how they serve.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// Connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// An event's longest datagram, in bytes; threadcast's own default of `--max-event-bytes`.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;

/// The two sockets, listening; both non-blocking.
pub struct Sockets {
    pub listener: TcpListener,
    pub events: UnixDatagram,
    /// Removes the socket's file when it is dropped.
    pub file: SocketFile,
}

/// The path of the event socket.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing could be done about it at the end.
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens the sockets that `--socket PATH --port N` name.
///
/// # Errors
/// What is wrong with the command line, or the socket that could not be opened.
pub fn open() -> Result<Sockets, String> {
    let (path, port) = arguments()?;
    raise_descriptor_limit();
    let listener = listen(port).map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}"))?;
    let events = bind(&path).map_err(|error| format!("cannot bind {}: {error}", path.display()))?;
    let file = SocketFile(path);
    Ok(Sockets { listener, events, file })
}

/// Tells who started this peer that both sockets listen.
pub fn say_ready() {
    // Who has closed our output does not want to know.
    let _ = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush());
}

fn arguments() -> Result<(PathBuf, u16), String> {
    const USAGE: &str = "usage: PEER --socket PATH --port N";
    let (mut path, mut port) = (None, None);
    let mut rest = env::args().skip(1);
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{flag} lacks its value; {USAGE}"))?;
        match flag.as_str() {
            "--socket" => path = Some(PathBuf::from(value)),
            "--port" => {
                port = Some(
                    value
                        .parse()
                        .map_err(|_| format!("--port {value} is no port; {USAGE}"))?,
                )
            }
            _ => return Err(format!("unknown flag {flag}; {USAGE}")),
        }
    }
    path.zip(port).ok_or_else(|| USAGE.to_owned())
}

/// Ten thousand clients need ten thousand descriptors; the soft limit is 1024 on most machines.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // With the old limit it still serves fewer clients.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    // A second listen(2) changes the backlog only; the standard library's is 128.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind(path: &PathBuf) -> io::Result<UnixDatagram> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let events = UnixDatagram::bind(path)?;
    events.set_nonblocking(true)?;
    Ok(events)
}
