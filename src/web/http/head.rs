//! The head of a request, read from its bytes, by RFC 9112 and RFC 9110. Nothing here waits.
//!
//! Of the headers only those are judged that somebody here reads; every other value is opaque (RFC 9110 section 5.5),
//! because browsers send cookies of every other program on the same host.

use crate::web::http::answer::Answer;
use crate::web::http::target::{Target, is_host};

/// Longest head; as much as common servers take.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most header lines of a head.
const HEADERS_MAX: usize = 64;

/// What we use of a request's head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    /// Without the query; `*` for the whole server, empty for CONNECT.
    pub path: String,
    /// What stands after `?`, empty for nothing.
    pub query: String,
    /// The host that the request is for, with its port if it names one: the target's, else that of `Host`.
    pub host: Option<String>,
    pub origin: Option<String>,
    /// A proxy says that the request comes from somewhere else than the connection does.
    pub forwarded: bool,
    /// The request is HTTP/1.0.
    pub old: bool,
    /// `Upgrade` has `websocket`.
    pub asks_websocket: bool,
    /// `Connection` has `upgrade`.
    pub asks_upgrade: bool,
    pub websocket_key: Option<String>,
    pub websocket_version: Option<String>,
    /// The subprotocols that the client offers.
    pub websocket_protocols: Vec<String>,
    /// What a browser wants to send beside a later request of a page elsewhere (`Access-Control-Request-Headers`).
    pub preflight: Option<String>,
    /// A body follows the head (RFC 9112 section 6.3). Nobody here reads one.
    pub body: bool,
    /// What came behind the head in the same read.
    pub rest: Vec<u8>,
}

impl Head {
    /// Returns whether the request asks to become a WebSocket. An `Upgrade` in HTTP/1.0 does not count (RFC 9110
    /// section 7.8).
    pub fn upgrade(&self) -> bool {
        self.asks_websocket && self.asks_upgrade && !self.old
    }
}

/// The head at the beginning of `bytes`; `None` while it is not whole. `bytes` are at most
/// [`HEAD_BYTES_MAX`], but no length and no content make it panic.
///
/// # Errors
/// The refusal to answer with: 400, 405, 431 or 505, with what is wrong with the head.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Answer> {
    // On the heap: a page of stack that is touched once stays with the client's thread for its life.
    let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) if version(bytes) == Version::NotWhole => return Ok(None),
        Err(error) => return Err(unreadable(error, bytes)),
    };
    // A lone LF may count as a line's end (RFC 9112 section 2.2), and must not in what proxies may read otherwise.
    if has_bare_line_feed(&bytes[..len]) {
        return Err(refused(
            "a line of the head ends with LF alone; it must end with CR LF (netcat: nc -C)",
        ));
    }
    let method = request.method.unwrap_or_default();
    let target = Target::parse(method, request.path.unwrap_or_default())?;
    let mut head = Head {
        method: method.to_owned(),
        path: target.path.to_owned(),
        query: target.query.to_owned(),
        old: request.version == Some(0),
        rest: bytes[len..].to_vec(),
        ..Head::default()
    };
    let mut framing = Framing::default();
    for header in request.headers.iter() {
        head.read(header, &mut framing)?;
    }
    if head.host.is_none() && !head.old {
        return Err(refused("the request has no Host header"));
    }
    if let Some(host) = head.host.as_deref().filter(|host| !is_host(host)) {
        return Err(refused(&format!(
            "Host {:.200} is no host with or without a port",
            format!("{host:?}")
        )));
    }
    // RFC 9112 section 3.2.2: then `Host` does not count.
    if let Some(authority) = target.authority {
        head.host = Some(authority.to_owned());
    }
    head.body = framing.has_body(head.old)?;
    Ok(Some(head))
}

impl Head {
    /// Takes in one header line.
    fn read(&mut self, header: &httparse::Header<'_>, framing: &mut Framing) -> Result<(), Answer> {
        let place = match header.name.to_ascii_lowercase().as_str() {
            "host" => &mut self.host,
            "origin" => &mut self.origin,
            "sec-websocket-key" => &mut self.websocket_key,
            "sec-websocket-version" => &mut self.websocket_version,
            "access-control-request-headers" => &mut self.preflight,
            "content-length" => &mut framing.length,
            "transfer-encoding" => &mut framing.encoding,
            "upgrade" => {
                self.asks_websocket |= has_token(text(header)?, "websocket");
                return Ok(());
            }
            "connection" => {
                self.asks_upgrade |= has_token(text(header)?, "upgrade");
                return Ok(());
            }
            "sec-websocket-protocol" => {
                let offered = text(header)?.split(',').map(|name| name.trim().to_owned());
                self.websocket_protocols.extend(offered);
                return Ok(());
            }
            "forwarded" | "x-forwarded-for" | "x-real-ip" | "via" => {
                self.forwarded = true;
                return Ok(());
            }
            _ => return Ok(()),
        };
        // Two of these would be read one way by a proxy and another way by us.
        if place.replace(text(header)?.to_owned()).is_some() {
            return Err(refused(&format!("header {} is there twice", header.name)));
        }
        Ok(())
    }
}

fn refused(text: &str) -> Answer {
    Answer::detail(400, text)
}

/// The value of a header that we read. All of these are ASCII.
fn text<'a>(header: &httparse::Header<'a>) -> Result<&'a str, Answer> {
    match std::str::from_utf8(header.value) {
        Ok(text) if text.is_ascii() => Ok(text.trim()),
        _ => Err(refused(&format!("header {} is not ASCII", header.name))),
    }
}

/// What is wrong with bytes that are no head.
fn unreadable(error: httparse::Error, bytes: &[u8]) -> Answer {
    match error {
        httparse::Error::TooManyHeaders => {
            Answer::detail(431, &format!("the request has over {HEADERS_MAX} header lines"))
        }
        httparse::Error::Version if version(bytes) == Version::Other => {
            Answer::detail(505, "this server speaks HTTP/1.1 and HTTP/1.0")
        }
        error => refused(&format!("this is no HTTP request: {error}")),
    }
}

/// What stands where a request line has the version, if that is none of ours.
#[derive(Debug, PartialEq, Eq)]
enum Version {
    /// So far, one of HTTP. httparse refuses `HTTP/2` before the rest has come; the verdict must not depend on how the
    /// network cuts a head.
    NotWhole,
    /// One of HTTP.
    Other,
    Nothing,
}

fn version(bytes: &[u8]) -> Version {
    let bytes = bytes.trim_ascii_start();
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let parts: Vec<&[u8]> = bytes[..end.unwrap_or(bytes.len())]
        .split(|byte| *byte == b' ')
        .collect();
    let [_, _, version] = parts[..] else {
        return Version::Nothing;
    };
    let fits = |(index, byte): (usize, &u8)| match index {
        5 | 7 => byte.is_ascii_digit(),
        _ => b"HTTP/0.0".get(index) == Some(byte),
    };
    match (version.iter().enumerate().all(fits), end) {
        (true, None) => Version::NotWhole,
        (true, Some(_)) if version.len() == "HTTP/0.0".len() => Version::Other,
        _ => Version::Nothing,
    }
}

/// Returns whether a line ends with LF alone.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let mut before = 0;
    head.iter()
        .any(|byte| std::mem::replace(&mut before, *byte) != b'\r' && *byte == b'\n')
}

/// What says where a request's body ends.
#[derive(Debug, Default)]
struct Framing {
    length: Option<String>,
    encoding: Option<String>,
}

impl Framing {
    /// Returns whether there is a body. We read none, so that nothing of it is ever taken for a second request; a proxy
    /// before us may read it, so it must be able to mean one thing only (RFC 9112 section 6.3).
    fn has_body(&self, old: bool) -> Result<bool, Answer> {
        match (self.length.as_deref(), self.encoding.as_deref()) {
            (Some(_), Some(_)) => Err(refused("the request has both Content-Length and Transfer-Encoding")),
            (None, None) => Ok(false),
            (None, Some(_)) if old => Err(refused("HTTP/1.0 has no Transfer-Encoding")),
            (None, Some(codings)) => {
                let last = codings.rsplit(',').next().unwrap_or_default().trim();
                if last.eq_ignore_ascii_case("chunked") {
                    Ok(true)
                } else {
                    Err(refused(
                        "the last Transfer-Encoding is not chunked, so the body has no end",
                    ))
                }
            }
            // More digits than any number has are still digits.
            (Some(digits), None) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(digits.bytes().any(|digit| digit != b'0'))
            }
            (Some(_), None) => Err(refused("Content-Length is no number")),
        }
    }
}

/// Returns whether a comma-separated header value contains `token`, in whatever case.
fn has_token(value: &str, token: &str) -> bool {
    value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        parse(text.as_bytes()).unwrap().unwrap()
    }

    fn status(text: &str) -> u16 {
        parse(text.as_bytes()).unwrap_err().status
    }

    #[test]
    fn an_upgrade_is_recognised_with_what_follows_it() {
        let text = "GET /ws/events?x=1 HTTP/1.1\r\nHost: localhost:3002\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\nrest";
        let head = head(text);
        assert_eq!((head.path.as_str(), head.query.as_str()), ("/ws/events", "x=1"));
        assert!(head.upgrade());
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
        assert!(!head("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n").upgrade());
        assert!(!head("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\r\n").upgrade());
        assert!(!head("GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n").upgrade());
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
    fn the_version_is_judged_when_it_has_come() {
        let whole = "GET / HTTP/2.0\r\n\r\n";
        for len in 0..="GET / HTTP/2.0".len() {
            assert_eq!(parse(&whole.as_bytes()[..len]), Ok(None), "{len}");
        }
        assert_eq!(status("GET / HTTP/2.0\r"), 505);
        assert_eq!(status("GET / HTTP/2.0a"), 400);
        assert_eq!(status("GET / HTTQ"), 400);
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
        for framing in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length:",
            "Transfer-Encoding: chunked, gzip",
        ] {
            assert_eq!(
                status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")),
                400,
                "{framing}"
            );
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(status(&many), 431);
        assert_eq!(status("GET / HTTP/2.0\r\n\r\n"), 505);
        assert_eq!(status("\r\nGET / HTTP/1.2\r\n\r\n"), 505);
        assert_eq!(status("GET / HTTP/a.b\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/10.0\r\n\r\n"), 400);
        assert_eq!(status("GET /a b HTTP/1.1\r\n\r\n"), 400);
    }
}
