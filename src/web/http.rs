//! Just enough HTTP/1.1: the head of a request under a total deadline, and one answer, after which the connection ends.
//! docs/http.md has what is taken and what is refused, row by row.

pub mod answer;

pub mod head;

pub mod target;

pub use answer::Answer;
pub use head::{HEAD_BYTES_MAX, Head};

use crate::process::clock::timespec;
use crate::process::stop::Stop;
use crate::process::waits;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A head must be there in whole after this long; browsers need milliseconds.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBounds {
    /// An answer that is not taken after this long is given up.
    pub send: Duration,
    /// The same once the server stops.
    pub send_at_stop: Duration,
    /// How long the peer may still send after our last byte, so that it is not reset before it has read our answer.
    pub drain: Duration,
}

impl AnswerBounds {
    /// Over TCP: a snapshot of 1 MiB over a slow line takes its time.
    pub const REMOTE: AnswerBounds = AnswerBounds {
        send: Duration::from_secs(20),
        send_at_stop: Duration::from_secs(1),
        drain: Duration::from_secs(1),
    };
    /// On the same host, where only a peer that does not read needs more than milliseconds.
    pub const LOCAL: AnswerBounds = AnswerBounds {
        send: Duration::from_secs(5),
        send_at_stop: Duration::from_millis(250),
        drain: Duration::from_millis(250),
    };
}

/// Longest single wait, so that no deadline is overslept by much and the stop of the server is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// Why there is no usable head.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not one byte came until the deadline: a browser's speculative connection, or a port scan. Nobody waits for an
    /// answer.
    Silent,
    /// The peer is gone after this many bytes, nothing can be answered.
    Gone { received: usize },
    /// The server stops, and the peer has not said anything yet.
    Stopping,
    /// Answer this and end.
    Refused(Answer),
}

/// Reads a head from `socket`. Blocks at most [`HEAD_DEADLINE`], however slowly the peer sends, and not once the server
/// stops.
///
/// # Errors
/// [`HeadError::Refused`] has the answer to send; with any other one nobody waits for an answer, and the caller only
/// ends the connection.
pub fn read_head(socket: BorrowedFd<'_>, stop: &Stop) -> Result<Head, HeadError> {
    let deadline = Instant::now() + HEAD_DEADLINE;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(head) = head::parse(&bytes).map_err(HeadError::Refused)? {
            return Ok(head);
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            let text = format!(
                "the head of the request is over {HEAD_BYTES_MAX} bytes; if a browser sent it, delete the cookies of this \
                 host's name, which it sends to every port"
            );
            return Err(HeadError::Refused(Answer::detail(431, &text)));
        }
        let ready = wait(socket, PollFlags::IN, || {
            if stop.requested() { Instant::now() } else { deadline }
        });
        if !ready {
            return Err(match (bytes.is_empty(), stop.requested()) {
                (true, true) => HeadError::Stopping,
                (true, false) => HeadError::Silent,
                (false, true) => HeadError::Refused(Answer::detail(503, "the server is stopping")),
                (false, false) => {
                    let text = format!("the head of the request did not come within {HEAD_DEADLINE:?}");
                    HeadError::Refused(Answer::detail(408, &text))
                }
            });
        }
        let before = bytes.len();
        bytes.resize(HEAD_BYTES_MAX.min(before + 4096), 0);
        let received = recv(socket, &mut bytes[before..], RecvFlags::DONTWAIT).map(|(_, count)| count);
        bytes.truncate(before + received.unwrap_or(0));
        match received {
            Ok(1..) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => return Err(HeadError::Gone { received: before }),
        }
    }
}

/// Sends an answer and ends the connection so that the peer can read it. Returns whether the peer's side took all of
/// it. Blocks at most as long as `bounds` say, and 250 ms until it notices that the server stops.
pub fn answer(socket: impl AsFd, method: &str, answer: &Answer, bounds: AnswerBounds, stop: &Stop) -> bool {
    let socket = socket.as_fd();
    let bytes = answer.encode(method);
    let deadline = Instant::now() + bounds.send;
    let mut stopping = None;
    let deadline = || {
        if stop.requested() {
            *stopping.get_or_insert_with(|| deadline.min(Instant::now() + bounds.send_at_stop))
        } else {
            deadline
        }
    };
    if !send_until(socket, &bytes, deadline) {
        return false;
    }
    // It fails only when the peer is gone.
    let _ = shutdown(socket, Shutdown::Write);
    drain(socket, Instant::now() + bounds.drain);
    true
}

/// Sends all of `bytes` until `deadline`. Returns whether it could.
pub fn send_all(socket: BorrowedFd<'_>, bytes: &[u8], deadline: Instant) -> bool {
    send_until(socket, bytes, || deadline)
}

/// The same with a deadline that may come nearer meanwhile.
fn send_until(socket: BorrowedFd<'_>, bytes: &[u8], mut deadline: impl FnMut() -> Instant) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match send(socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if !wait(socket, PollFlags::OUT, &mut deadline) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Reads and throws away what the peer sends until it ends or `deadline` passes.
fn drain(socket: BorrowedFd<'_>, deadline: Instant) {
    let mut scrap = [0; 4096];
    while wait(socket, PollFlags::IN, || deadline) {
        match recv(socket, &mut scrap, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Blocks until the socket is ready for `events` or has failed, at most until `deadline`, which is asked anew at every
/// look; whether it is, or may be.
fn wait(socket: BorrowedFd<'_>, events: PollFlags, mut deadline: impl FnMut() -> Instant) -> bool {
    loop {
        let left = deadline().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut fds = [PollFd::from_borrowed_fd(socket, events)];
        match poll(&mut fds, Some(&timespec(left.min(LOOK)))) {
            // Retried against the same deadline.
            Ok(0) | Err(Errno::INTR) => {}
            // Where the kernel does not let us wait, the caller's own look tells.
            outcome => {
                let _ = waits::CLIENTS.judge(outcome);
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_that_does_not_read_holds_an_answer_within_its_bounds() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let long = Answer::text(200, vec![b'x'; 8 * 1024 * 1024]);
        let brief = AnswerBounds {
            send: Duration::from_millis(50),
            ..AnswerBounds::LOCAL
        };
        let stop = Stop::new().unwrap();
        let begun = Instant::now();
        assert!(!answer(&socket, "GET", &long, brief, &stop));
        // Far less than the bound of those elsewhere, and much more than a busy host takes.
        assert!(begun.elapsed() < AnswerBounds::REMOTE.send / 2, "{:?}", begun.elapsed());
        stop.request();
        let begun = Instant::now();
        assert!(!answer(&socket, "GET", &long, AnswerBounds::REMOTE, &stop));
        assert!(begun.elapsed() < AnswerBounds::REMOTE.send / 2, "{:?}", begun.elapsed());
    }
}
