//! TCP_INFO (tcp(7)), which rustix lacks: whether a connection's path still carries anything.
//!
//! A sender cannot tell a slow reader from a path that is cut: either way the socket is full. The kernel knows more. A
//! living peer's kernel acknowledges what it gets, and answers each probe of a window that is closed; over a dead path
//! nothing comes back, however often the kernel sends the same data again.
#![allow(unsafe_code)]

use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Bytes of `struct tcp_info` (linux/tcp.h) that are read; the kernel writes no more than it is given room for. It has
/// had these fields since Linux 2.6.
const INFO_BYTES: usize = 104;
/// A kernel that lives answers sooner than this: the least time after which Linux sends again (TCP_RTO_MIN).
const ANSWER_TIME: Duration = Duration::from_millis(200);

/// What the kernel knows of the way to a peer, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpPath {
    /// How often it has sent the oldest unacknowledged data again, since the last that was acknowledged.
    retransmits: u8,
    /// Probes of the peer's closed window that are not answered.
    probes: u8,
    /// Segments that are under way.
    unacked: u32,
    /// Time since the peer's kernel last acknowledged anything, be it for the second time.
    last_ack: Duration,
}

/// What a full socket means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What was sent has arrived, or the window is closed: the reader is slow.
    Open,
    /// What was sent is not acknowledged, but the peer's kernel answers.
    Refused,
    /// What was sent again and again, into an open window, is not answered.
    Dead,
}

impl TcpPath {
    /// Asks the kernel. `None` where it does not tell, as of a socket that is not TCP. Never blocks.
    pub fn of(socket: impl AsFd) -> Option<TcpPath> {
        let mut info = [0_u8; INFO_BYTES];
        let mut len = mem::size_of_val(&info) as libc::socklen_t;
        // SAFETY: the descriptor is open for the time of the borrow; the kernel writes at most `len` bytes to `info`,
        // for which any bytes are valid, and the length that it wrote to `len`.
        let status = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        (status == 0 && len as usize == info.len()).then(|| TcpPath::read(&info))
    }

    /// Reads the fields at their places in `struct tcp_info`.
    fn read(info: &[u8; INFO_BYTES]) -> TcpPath {
        let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        TcpPath {
            retransmits: info[2],
            probes: info[3],
            unacked: word(24),
            last_ack: Duration::from_millis(u64::from(word(56))),
        }
    }

    /// Judges a socket that has taken nothing for the time `blocked`.
    ///
    /// A kernel that lives but has no room acknowledges each retransmission with what it had; one that is out of reach
    /// says nothing. So the path is dead if nothing came for half of the time: retransmissions double their distance,
    /// and at the beginning something may still have been under way.
    pub fn way(&self, blocked: Duration) -> Way {
        if self.unacked == 0 || self.retransmits == 0 || self.probes > 0 {
            Way::Open
        } else if self.last_ack * 2 >= blocked {
            Way::Dead
        } else {
            Way::Refused
        }
    }

    /// Returns whether a reset, which is sent once, may well be lost: something was sent and not answered in time.
    pub fn is_unanswered(&self) -> bool {
        let waits = self.unacked > 0 || self.probes > 1;
        waits && self.last_ack >= ANSWER_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::set_socket_recv_buffer_size;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    fn path(unacked: u32, retransmits: u8, probes: u8, last_ack_ms: u64) -> TcpPath {
        TcpPath {
            retransmits,
            probes,
            unacked,
            last_ack: Duration::from_millis(last_ack_ms),
        }
    }

    #[test]
    fn a_path_is_dead_when_what_is_sent_again_is_not_answered() {
        let blocked = Duration::from_secs(2);
        for (path, way) in [
            (path(0, 0, 0, 9000), Way::Open),
            (path(0, 0, 3, 400), Way::Open),
            (path(5, 0, 0, 100), Way::Open),
            (path(5, 3, 0, 600), Way::Refused),
            (path(5, 3, 0, 1999), Way::Dead),
            (path(5, 3, 0, 9000), Way::Dead),
        ] {
            assert_eq!(path.way(blocked), way, "{path:?}");
        }
    }

    #[test]
    fn a_reset_reaches_only_who_answers() {
        assert!(!path(0, 0, 0, 60_000).is_unanswered(), "nothing was sent");
        assert!(!path(0, 0, 1, 60_000).is_unanswered(), "the next answer is under way");
        assert!(!path(3, 0, 0, 20).is_unanswered());
        assert!(path(3, 2, 0, 700).is_unanswered());
        assert!(path(0, 0, 2, 700).is_unanswered(), "a closed window behind a dead path");
    }

    /// The places of the fields are the kernel's.
    #[test]
    fn a_slow_reader_has_no_dead_path() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_socket_recv_buffer_size(&listener, 4096).unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _reader = listener.accept().unwrap();
        sender.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = sender.write_all(&[0; 65_536]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let path = TcpPath::of(&sender).unwrap();
        assert_ne!(path.way(Duration::from_millis(700)), Way::Dead, "{path:?}");
        assert!(path.last_ack <= begun.elapsed(), "{path:?}");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(TcpPath::of(&datagrams), None);
    }
}
