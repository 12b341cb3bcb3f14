//! Just enough HTTP/1.1: the head of a request under a total deadline, and one answer, after which the connection ends.

use crate::process::clock::timespec;
use crate::process::stop::Stop;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A head must be there in whole after this long; browsers need milliseconds.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Longest head; as much as common servers take.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header lines of a head.
const HEADERS_MAX: usize = 64;
/// An answer that is not taken after this long is given up: a snapshot of 1 MiB over a slow line takes its time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// How long the peer may still send after our last byte, so that it is not reset before it has read our answer.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// Longest single wait, so that no deadline is overslept by much and the stop of the server is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// What we use of a request's head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What stands after `?`, empty for nothing.
    pub query: String,
    pub host: Option<String>,
    pub origin: Option<String>,
    /// A proxy says that the request comes from somewhere else than the connection does.
    pub forwarded: bool,
    /// The request asks to become a WebSocket.
    pub upgrade: bool,
    pub websocket_key: Option<String>,
    pub websocket_version: Option<String>,
    /// The subprotocols that the client offers.
    pub websocket_protocols: Vec<String>,
    /// A body follows the head (RFC 9112 section 6.3). Nobody here reads one.
    pub body: bool,
    /// What came behind the head in the same read.
    pub rest: Vec<u8>,
}

/// Why there is no usable head.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not one byte came until the deadline: a browser's speculative connection, or a port scan. Nobody waits for an
    /// answer.
    Silent,
    /// The peer is gone after so many bytes, nothing can be answered.
    Gone { received: usize },
    /// The server stops, and the peer has not said anything yet.
    Stopping,
    /// Answer this and end.
    Refused(Answer),
}

/// An answer, without the headers that every answer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// What is wrong with the request, where that is why this is the answer.
    refusal: Option<String>,
}

impl Answer {
    /// A JSON answer.
    pub fn json(status: u16, body: Vec<u8>) -> Answer {
        Answer {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body,
            refusal: None,
        }
    }

    /// An answer for people.
    pub fn text(status: u16, body: Vec<u8>) -> Answer {
        Answer {
            content_type: "text/plain; charset=utf-8",
            ..Answer::json(status, body)
        }
    }

    /// A refusal, in the form in which the original says what is wrong: `{"detail":"..."}`.
    pub fn detail(status: u16, text: &str) -> Answer {
        let detail = serde_json::Value::from(text);
        Answer {
            refusal: Some(text.to_owned()),
            ..Answer::json(status, format!("{{\"detail\":{detail}}}").into_bytes())
        }
    }

    /// Whether the request was refused; a page that tells of trouble is none.
    pub fn is_refusal(&self) -> bool {
        self.refusal.is_some()
    }

    /// Status and reason, for the log.
    pub fn summary(&self) -> String {
        let reason = self.refusal.as_deref().unwrap_or_else(|| reason(self.status));
        format!("{} {reason}", self.status)
    }

    /// With one more header. The value must not contain a line end.
    pub fn with(mut self, name: &'static str, value: String) -> Answer {
        debug_assert!(!value.contains(['\r', '\n']));
        self.headers.push((name, value));
        self
    }

    /// The bytes on the wire; without the body for HEAD.
    pub fn encode(&self, method: &str) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nvary: Origin\r\nconnection: close\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        for (name, value) in &self.headers {
            // Writing to a String cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if method != "HEAD" {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

/// Reads a head from `socket`. Blocks at most [`HEAD_DEADLINE`], however slowly the peer sends, and not once the server
/// stops.
///
/// # Errors
/// What to answer, or that nobody is there to be answered.
pub fn read_head(socket: BorrowedFd<'_>, stop: &Stop) -> Result<Head, HeadError> {
    let deadline = Instant::now() + HEAD_DEADLINE;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(head) = parse(&bytes)? {
            return Ok(head);
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            let text = format!("the head of the request is over {HEAD_BYTES_MAX} bytes");
            return Err(HeadError::Refused(Answer::detail(431, &text)));
        }
        let ready = wait(socket, PollFlags::IN, || match stop.requested() {
            true => Instant::now(),
            false => deadline,
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

/// The head at the beginning of `bytes`; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let refused = |status, text: &str| Err(HeadError::Refused(Answer::detail(status, text)));
    // On the heap: a page of stack that is touched once stays with the client's thread for its life.
    let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return refused(431, "the request has over 64 header lines"),
        Err(error) => return refused(400, &format!("this is no HTTP request: {error}")),
    };
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        rest: bytes[len..].to_vec(),
        ..Head::default()
    };
    let (mut upgrade, mut connection) = (false, false);
    let (mut length, mut encoding) = (None, None);
    for header in request.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value) else {
            return refused(400, &format!("header {} is not UTF-8", header.name));
        };
        let place = match header.name.to_ascii_lowercase().as_str() {
            "host" => &mut head.host,
            "origin" => &mut head.origin,
            "sec-websocket-key" => &mut head.websocket_key,
            "sec-websocket-version" => &mut head.websocket_version,
            "content-length" => &mut length,
            "transfer-encoding" => &mut encoding,
            "upgrade" => {
                upgrade |= has_token(value, "websocket");
                continue;
            }
            "connection" => {
                connection |= has_token(value, "upgrade");
                continue;
            }
            "sec-websocket-protocol" => {
                let offered = value.split(',').map(|name| name.trim().to_owned());
                head.websocket_protocols.extend(offered);
                continue;
            }
            "forwarded" | "x-forwarded-for" | "x-real-ip" | "via" => {
                head.forwarded = true;
                continue;
            }
            _ => continue,
        };
        // Two of these would be read one way by a proxy and another way by us.
        if place.replace(value.trim().to_owned()).is_some() {
            return refused(400, &format!("header {} is there twice", header.name));
        }
    }
    head.upgrade = upgrade && connection;
    head.body = has_body(length.as_deref(), encoding.as_deref())?;
    match request.version {
        Some(1) if head.host.is_none() => refused(400, "the request has no Host header"),
        Some(0) if head.upgrade => refused(505, "a WebSocket needs HTTP/1.1"),
        _ => Ok(Some(head)),
    }
}

/// Whether a request with these two headers has a body. We read none, so that nothing of it is ever taken for a second
/// request; a proxy before us may read it, so it must be able to mean one thing only (RFC 9112 section 6.3).
fn has_body(length: Option<&str>, encoding: Option<&str>) -> Result<bool, HeadError> {
    let refused = |text: &str| Err(HeadError::Refused(Answer::detail(400, text)));
    match (length, encoding) {
        (Some(_), Some(_)) => refused("the request has both Content-Length and Transfer-Encoding"),
        (None, encoding) => Ok(encoding.is_some()),
        // More digits than any number has are still digits.
        (Some(digits), None) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(digits.bytes().any(|digit| digit != b'0'))
        }
        (Some(_), None) => refused("Content-Length is no number"),
    }
}

/// Whether a comma-separated header value contains `token`, in whatever case.
fn has_token(value: &str, token: &str) -> bool {
    value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Sends an answer and ends the connection so that the peer can read it; whether the peer's side took all of it. Blocks
/// at most the answer's deadline and the drain's; once the server stops, the drain's for each.
pub fn answer(socket: &std::net::TcpStream, method: &str, answer: &Answer, stop: &Stop) -> bool {
    let bytes = answer.encode(method);
    let deadline = Instant::now() + ANSWER_DEADLINE;
    let mut stopping = None;
    let deadline = || match stop.requested() {
        true => *stopping.get_or_insert_with(|| deadline.min(Instant::now() + DRAIN_DEADLINE)),
        false => deadline,
    };
    if !send_until(socket.as_fd(), &bytes, deadline) {
        return false;
    }
    // It fails only when the peer is gone.
    let _ = socket.shutdown(std::net::Shutdown::Write);
    drain(socket.as_fd(), Instant::now() + DRAIN_DEADLINE);
    true
}

/// Sends all of `bytes` until `deadline`; whether it could.
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
/// look; whether it is.
fn wait(socket: BorrowedFd<'_>, events: PollFlags, mut deadline: impl FnMut() -> Instant) -> bool {
    loop {
        let left = deadline().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut fds = [PollFd::from_borrowed_fd(socket, events)];
        // An interrupted poll is retried against the same deadline.
        if poll(&mut fds, Some(&timespec(left.min(LOOK)))).is_ok_and(|ready| ready > 0) {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        parse(text.as_bytes()).unwrap().unwrap()
    }

    fn status(text: &str) -> u16 {
        match parse(text.as_bytes()) {
            Err(HeadError::Refused(answer)) => answer.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_upgrade_is_recognised_with_what_follows_it() {
        let text = "GET /ws/events?x=1 HTTP/1.1\r\nHost: localhost:3002\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\nrest";
        let head = head(text);
        assert_eq!((head.path.as_str(), head.query.as_str()), ("/ws/events", "x=1"));
        assert!(head.upgrade);
        assert_eq!(head.rest, b"rest");
        for len in 0..text.len() - 4 {
            assert_eq!(
                parse(&text.as_bytes()[..len]).unwrap_or(None).map(|head| head.rest),
                None,
                "{len}"
            );
        }
    }

    #[test]
    fn half_an_upgrade_is_none() {
        assert!(!head("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n").upgrade);
        assert!(!head("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\r\n").upgrade);
    }

    #[test]
    fn a_body_is_seen_where_there_is_one() {
        for (framing, body) in [
            ("X: y", false),
            ("Content-Length: 0", false),
            ("Content-Length: 000", false),
            ("Content-Length: 99999999999999999999999", true),
            ("Transfer-Encoding: chunked", true),
        ] {
            let head = head(&format!("GET / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            assert_eq!(head.body, body, "{framing}");
        }
    }

    #[test]
    fn odd_heads_are_refused_with_a_status() {
        assert_eq!(status("hello\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
        assert_eq!(
            status("GET / HTTP/1.1\r\nHost: a\r\nOrigin: a\r\norigin: b\r\n\r\n"),
            400
        );
        assert_eq!(status("GET / HTTP/1.1\r\nHost: \u{0}\r\n\r\n"), 400);
        assert_eq!(
            status("GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
            505
        );
        for framing in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length:",
        ] {
            assert_eq!(
                status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")),
                400,
                "{framing}"
            );
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(status(&many), 431);
    }

    #[test]
    fn a_head_gets_no_body() {
        let answer = Answer::detail(404, "Not Found");
        let get = String::from_utf8(answer.encode("GET")).unwrap();
        assert!(get.ends_with("\r\n\r\n{\"detail\":\"Not Found\"}"));
        let head = String::from_utf8(answer.encode("HEAD")).unwrap();
        assert!(head.contains("content-length: 22\r\n") && head.ends_with("\r\n\r\n"));
    }
}
