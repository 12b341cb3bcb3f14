//! Sends events to a server's datagram socket without ever waiting longer than asked: what `emit` and `demo` share.

use crate::pipeline::event::DropCause;
use crate::process::clock::timespec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody receives at the path.
    NoServer,
    /// The server's queue stayed full for the whole timeout: it is overloaded, or it hangs.
    QueueFull,
    /// More bytes than the system sends in one datagram.
    TooLarge,
    /// This user may not write to the socket.
    NotAllowed,
    /// The payload alone is not one JSON object; with the event around it, it could still look like one.
    Payload(DropCause),
    /// The server would drop it.
    NotAnEvent(DropCause),
    /// No socket can be at the path, whoever makes it.
    Path,
    /// Some other error of the system, by its number.
    Other(i32),
}

impl fmt::Display for Refusal {
    /// In words, with what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoServer => f.write_str("no server receives there; start one with `threadcast serve`"),
            Refusal::QueueFull => f.write_str("the server's queue was full all the time; look at its /health"),
            Refusal::TooLarge => f.write_str("larger than a datagram can be here"),
            Refusal::NotAllowed => {
                f.write_str("this user may not write to the socket; see --socket-mode of the server")
            }
            Refusal::Payload(cause) => write!(f, "the payload must be one JSON object; it is {}", cause.text()),
            Refusal::NotAnEvent(cause) => write!(f, "no event: {}", cause.text()),
            Refusal::Path => f.write_str("no socket can have this path: it is empty or too long"),
            Refusal::Other(number) => write!(f, "the system refused it: {}", io::Error::from_raw_os_error(*number)),
        }
    }
}

/// A connection to the socket at a path, made anew when the server was restarted.
#[derive(Debug)]
pub struct EventSender {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl EventSender {
    /// For the socket at `path`, which need not exist yet.
    pub fn new(path: &Path) -> EventSender {
        EventSender {
            path: path.to_owned(),
            socket: None,
        }
    }

    /// Sends one event. Blocks while the server's queue is full, at most `timeout`.
    ///
    /// # Errors
    /// It was not taken; nothing of it was.
    pub fn send(&mut self, event: &[u8], timeout: Duration) -> Result<(), Refusal> {
        let deadline = Instant::now() + timeout;
        // A second try, because the first may only show that the server we knew is gone.
        match self.try_send(event, deadline) {
            Err(Refusal::NoServer) => self.try_send(event, deadline),
            other => other,
        }
    }

    fn try_send(&mut self, event: &[u8], deadline: Instant) -> Result<(), Refusal> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.path).map_err(|error| refusal(&error))?,
        };
        loop {
            match send(&socket, event, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.socket = Some(socket);
                        return Err(Refusal::QueueFull);
                    }
                    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
                    // Whatever it says, the next send tells.
                    let _ = poll(&mut fds, Some(&timespec(left)));
                }
                Err(error) => return Err(refusal(&error.into())),
            }
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

fn refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ECONNREFUSED | libc::ENOTCONN | libc::ECONNRESET | libc::EPIPE) => Refusal::NoServer,
        Some(libc::EMSGSIZE) => Refusal::TooLarge,
        Some(libc::EACCES | libc::EPERM) => Refusal::NotAllowed,
        Some(number) => Refusal::Other(number),
        None => Refusal::Path,
    }
}
