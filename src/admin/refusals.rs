//! Peers of the admin socket that are refused. Each may first say what it asks, because bytes left unread would make
//! its end a broken connection instead of an answer, and because the log names the request.
//!
//! Runs on `admin`, which waits for none of them.

use crate::process::peer::Peer;
use crate::process::procfs;
use crate::web::http::head;
use crate::web::http::{Answer, Head};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a peer has to say what it asks; commands do so at once.
const PATIENCE: Duration = Duration::from_millis(50);
/// Refused peers that have not asked yet. Full policy: the oldest is answered without its request.
const WAITING_MAX: usize = 16;
/// Bytes of a request that are read; those of our commands have some 200.
const HEAD_BYTES_MAX: usize = 4096;
/// Refusals in a row that get a line each in the log. The next line says how many got none.
const LINES_MAX: u32 = 5;
/// After these there may be one more line in this time, 2 s.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// One peer to be refused.
#[derive(Debug)]
pub struct Refusal {
    pub socket: UnixStream,
    /// `None`: the kernel does not tell.
    pub peer: Option<Peer>,
    /// The status to answer with.
    pub status: u16,
    /// In words for the peer.
    pub why: String,
}

/// Those that have not been answered yet.
#[derive(Debug)]
pub struct Refusals {
    waiting: Vec<Waiting>,
    lines: Allowance,
}

#[derive(Debug)]
struct Waiting {
    refusal: Refusal,
    received: Vec<u8>,
    until: Instant,
}

impl Default for Refusals {
    /// None yet.
    fn default() -> Refusals {
        Refusals {
            waiting: Vec::new(),
            lines: Allowance::new(Instant::now()),
        }
    }
}

impl Refusals {
    /// Takes in one more. If there was no room, answers the oldest and returns its socket.
    pub fn add(&mut self, refusal: Refusal) -> Option<UnixStream> {
        let oldest = (self.waiting.len() >= WAITING_MAX).then(|| self.waiting.remove(0));
        self.waiting.push(Waiting {
            refusal,
            received: Vec::new(),
            until: Instant::now() + PATIENCE,
        });
        Some(oldest?.answer(&mut self.lines))
    }

    /// Returns whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What to poll for.
    pub fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let sockets = self.waiting.iter().map(|waiting| &waiting.refusal.socket);
        sockets.map(|socket| PollFd::new(socket, PollFlags::IN))
    }

    /// How long the next one still has to say what it asks.
    pub fn time_left(&self) -> Option<Duration> {
        let next = self.waiting.iter().map(|waiting| waiting.until).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Answers those that have asked or had their time; all of them if `all`. Returns their sockets.
    pub fn turn(&mut self, all: bool) -> Vec<UnixStream> {
        let now = Instant::now();
        let lines = &mut self.lines;
        let ready = self
            .waiting
            .extract_if(.., |waiting| waiting.has_asked() || all || now >= waiting.until);
        ready.map(|waiting| waiting.answer(lines)).collect()
    }
}

impl Waiting {
    /// Reads what is there. Returns whether that is a whole request, or all that will come.
    fn has_asked(&mut self) -> bool {
        let before = self.received.len();
        self.received.resize(HEAD_BYTES_MAX, 0);
        let count = match recv(&self.refusal.socket, &mut self.received[before..], RecvFlags::DONTWAIT) {
            Ok((_, count)) => Some(count),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Err(_) => Some(0),
        };
        self.received.truncate(before + count.unwrap_or(0));
        count == Some(0) || self.received.len() >= HEAD_BYTES_MAX || !matches!(head::parse(&self.received), Ok(None))
    }

    fn answer(self, lines: &mut Allowance) -> UnixStream {
        let Refusal {
            socket,
            peer,
            status,
            why,
        } = self.refusal;
        let asked = head::parse(&self.received).ok().flatten();
        if let Some(hidden) = lines.take(Instant::now()) {
            log::warn!("{}", line(peer, asked.as_ref(), status, &why, hidden));
        }
        let method = asked.map_or_else(|| "POST".to_owned(), |head| head.method);
        let bytes = Answer::detail(status, &why).encode(&method);
        // An empty socket takes it at once; a peer that has gone need not know.
        let _ = send(&socket, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let _ = shutdown(&socket, Shutdown::Write);
        socket
    }
}

/// What the log says: who, by what program, asked for what, and why not.
fn line(peer: Option<Peer>, asked: Option<&Head>, status: u16, why: &str, hidden: u64) -> String {
    let who = match peer {
        // It is in another PID namespace.
        Some(Peer { pid: 0, uid, .. }) => format!("user {uid}"),
        Some(Peer { pid, uid, .. }) => match procfs::short_name(pid) {
            Some(name) => format!("user {uid} (process {pid}, {name})"),
            None => format!("user {uid} (process {pid})"),
        },
        None => "an unknown user".to_owned(),
    };
    let asked = match asked {
        Some(head) => format!("{:.20} {:.200}", head.method, head.path),
        None => "no request that can be read".to_owned(),
    };
    let hidden = match hidden {
        0 => String::new(),
        hidden => format!(" ({hidden} more were refused since the line before)"),
    };
    format!("⚠️ refused a request at the admin socket: {who}, {asked}: {status}, {why}{hidden}")
}

/// How many lines the log may have now.
#[derive(Debug)]
struct Allowance {
    lines: u32,
    since: Instant,
    hidden: u64,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance {
            lines: LINES_MAX,
            since: now,
            hidden: 0,
        }
    }

    /// Takes one line. Returns how many refusals got none since the last one, or `None` if this one gets none either.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let more = now.saturating_duration_since(self.since).as_millis() / LINE_EVERY.as_millis();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.since += LINE_EVERY.saturating_mul(more);
        self.lines = self.lines.saturating_add(more).min(LINES_MAX);
        match self.lines.checked_sub(1) {
            Some(left) => {
                self.lines = left;
                Some(std::mem::take(&mut self.hidden))
            }
            None => {
                self.hidden += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn refusal() -> (Refusal, UnixStream) {
        let (socket, peer) = UnixStream::pair().unwrap();
        let refusal = Refusal {
            socket,
            peer: None,
            status: 503,
            why: "busy".to_owned(),
        };
        (refusal, peer)
    }

    #[test]
    fn lines_have_a_bound_and_what_is_left_out_is_said_later() {
        let begun = Instant::now();
        let mut lines = Allowance::new(begun);
        for _ in 0..LINES_MAX {
            assert_eq!(lines.take(begun), Some(0));
        }
        assert_eq!((lines.take(begun), lines.take(begun + LINE_EVERY / 2)), (None, None));
        assert_eq!(lines.take(begun + LINE_EVERY), Some(2));
        assert_eq!(lines.take(begun + LINE_EVERY), None);
        let later = begun + LINE_EVERY * 1000;
        assert_eq!(lines.take(later), Some(1));
        for _ in 1..LINES_MAX {
            assert_eq!(lines.take(later), Some(0));
        }
        assert_eq!(
            lines.take(later),
            None,
            "a long silence saves no more than a row of lines"
        );
    }

    #[test]
    fn a_request_in_pieces_is_answered_when_it_is_whole() {
        let mut refusals = Refusals::default();
        let (refusal, mut peer) = refusal();
        assert!(refusals.add(refusal).is_none());
        peer.write_all(b"POST /forget?machine=m HTTP/1.1\r\nhost: l").unwrap();
        refusals.waiting[0].until += Duration::from_secs(3600);
        assert!(refusals.turn(false).is_empty());
        peer.write_all(b"ocalhost\r\n\r\n").unwrap();
        assert_eq!(refusals.turn(false).len(), 1);
        let mut answer = String::new();
        peer.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("{\"detail\":\"busy\"}"),
            "{answer}"
        );
    }

    #[test]
    fn a_crowd_of_silent_peers_has_a_bound() {
        let mut refusals = Refusals::default();
        let mut peers = Vec::new();
        for number in 0..WAITING_MAX + 3 {
            let (refusal, peer) = refusal();
            peers.push(peer);
            assert_eq!(refusals.add(refusal).is_some(), number >= WAITING_MAX);
        }
        assert_eq!(refusals.turn(true).len(), WAITING_MAX);
        assert!(refusals.is_empty() && refusals.time_left().is_none());
    }

    #[test]
    fn the_log_says_who_asked_for_what() {
        let peer = Peer {
            pid: std::process::id() as i32,
            uid: 54_321,
            gid: 1,
        };
        let head = head::parse(b"POST /drill?ms=1 HTTP/1.1\r\nhost: l\r\n\r\n").unwrap();
        let said = line(Some(peer), head.as_ref(), 403, "no", 2);
        let name = procfs::short_name(peer.pid).unwrap();
        assert!(
            said.ends_with(&format!(
                "user 54321 (process {}, {name}), POST /drill: 403, no (2 more were refused since the line before)",
                peer.pid
            )),
            "{said}"
        );
        let said = line(Some(Peer { pid: 0, ..peer }), None, 503, "busy", 0);
        assert!(
            said.ends_with("user 54321, no request that can be read: 503, busy"),
            "{said}"
        );
    }
}
