//! Sends events to a server's datagram socket without ever waiting longer than asked: what `emit` and `demo` share.

use crate::config::MAX_EVENT_BYTES_MAX;
use crate::process::clock::timespec;
use crate::process::waits;
use crate::stream::event::DropCause;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the kernel keeps free of a sender's buffer: `unix_dgram_sendmsg` refuses a datagram with EMSGSIZE when it is
/// longer than the buffer less 32 bytes (Linux, net/unix/af_unix.c).
const SEND_BUFFER_OVERHEAD_BYTES: usize = 32;
/// The `net.core.wmem_max` with which an event of [`MAX_EVENT_BYTES_MAX`] bytes fits: setsockopt(2) doubles what it is
/// given, which is at most `wmem_max` (socket(7), SO_SNDBUF).
const WMEM_MAX_FOR_ALL: usize = 512 * 1024;
const _: () = assert!(2 * WMEM_MAX_FOR_ALL - SEND_BUFFER_OVERHEAD_BYTES >= MAX_EVENT_BYTES_MAX);

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody receives at the path.
    NoServer,
    /// The server's queue stayed full for the whole timeout: it is overloaded, or it hangs.
    QueueFull,
    /// More bytes than the system sends in one datagram, which is at most `most` bytes.
    TooLarge { most: usize },
    /// More bytes than the largest `--max-event-bytes`, so no server takes it.
    TooLargeForAll,
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
            Refusal::TooLarge { most } => write!(
                f,
                "larger than the {most} bytes that this system lets a sender put into one datagram (net.core.wmem_max); \
                 `sysctl -w net.core.wmem_max={WMEM_MAX_FOR_ALL}` lets every event through that a server can take"
            ),
            Refusal::TooLargeForAll => write!(
                f,
                "larger than the {MAX_EVENT_BYTES_MAX} bytes that the largest --max-event-bytes allows, so no server takes it"
            ),
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
    /// The [`Refusal`] says why the event was not taken; no part of it was, so the caller may send it again.
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
                // The next send may be larger than this one, so the room is made when it is missed.
                Err(Errno::MSGSIZE) => {
                    let room = make_room(&socket, event.len());
                    if let Err(why) = room {
                        self.socket = Some(socket);
                        return Err(why);
                    }
                }
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.socket = Some(socket);
                        return Err(Refusal::QueueFull);
                    }
                    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
                    // Whatever it says, the next send tells.
                    let _ = waits::SENDER.judge(poll(&mut fds, Some(&timespec(left))));
                }
                Err(error) => return Err(refusal(&error.into())),
            }
        }
    }
}

/// Lets `socket` send datagrams of `bytes` bytes. Without it a datagram has at most `net.core.wmem_default` less 32
/// bytes (212,960 on most hosts), which is less than the default `--max-event-bytes`.
fn make_room(socket: &UnixDatagram, bytes: usize) -> Result<(), Refusal> {
    let other = |errno: Errno| refusal(&errno.into());
    let before = sockopt::socket_send_buffer_size(socket).map_err(other)?;
    let wanted = bytes + SEND_BUFFER_OVERHEAD_BYTES;
    if wanted > before {
        // The kernel doubles it, and cuts it silently to `net.core.wmem_max` before.
        sockopt::set_socket_send_buffer_size(socket, wanted.div_ceil(2)).map_err(other)?;
    }
    let after = sockopt::socket_send_buffer_size(socket).map_err(other)?;
    // A socket that was large enough already would make the caller try for ever.
    if after >= wanted && after > before {
        Ok(())
    } else {
        Err(Refusal::TooLarge {
            most: after.saturating_sub(SEND_BUFFER_OVERHEAD_BYTES),
        })
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
        Some(libc::EACCES | libc::EPERM) => Refusal::NotAllowed,
        Some(number) => Refusal::Other(number),
        None => Refusal::Path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two ends, the first of which may send without waiting.
    fn pair() -> (UnixDatagram, UnixDatagram) {
        let (one, other) = UnixDatagram::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        (one, other)
    }

    fn sysctl(name: &str) -> usize {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap();
        text.trim().parse().unwrap()
    }

    #[test]
    fn a_datagram_has_the_senders_buffer_less_32_bytes() {
        let (socket, _reader) = pair();
        let most = sysctl("wmem_default") - SEND_BUFFER_OVERHEAD_BYTES;
        let error = socket.send(&vec![b'x'; most + 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(socket.send(&vec![b'x'; most]).unwrap(), most);
    }

    #[test]
    fn room_is_made_for_exactly_what_is_sent() {
        let most = 2 * sysctl("wmem_max") - SEND_BUFFER_OVERHEAD_BYTES;
        let bytes = (sysctl("wmem_default") + 1).min(most);
        let (socket, reader) = pair();
        assert!(socket.send(&vec![b'x'; bytes]).is_err());
        make_room(&socket, bytes).unwrap();
        assert_eq!(socket.send(&vec![b'x'; bytes]).unwrap(), bytes);
        assert_eq!(reader.recv(&mut vec![0; bytes + 1]).unwrap(), bytes);
    }

    #[test]
    fn what_the_host_does_not_allow_is_said_with_the_sysctl() {
        let most = 2 * sysctl("wmem_max") - SEND_BUFFER_OVERHEAD_BYTES;
        let (socket, _reader) = pair();
        let refused = make_room(&socket, most + 1).unwrap_err();
        assert_eq!(refused, Refusal::TooLarge { most });
        let said = refused.to_string();
        for part in [
            &format!("the {most} bytes"),
            "net.core.wmem_max",
            "sysctl -w net.core.wmem_max=524288",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
