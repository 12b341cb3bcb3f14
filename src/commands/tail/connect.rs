//! How `tail` gets to a server's stream: the URL, the name's addresses, the handshake.
//!
//! The handshake offers `threadcast.v1`. A server that does not know it answers without a subprotocol, as the original
//! does, and is spoken with in the plain protocol, on the same connection.

use crate::commands::tail::end::LOOK;
use crate::commands::tail::end::{End, Halt};
use crate::commands::tail::lookup::{Lookup, look_up};
use crate::config::Config;
use crate::process::address::{Authority, ServerAddress};
use crate::process::visible::visible;
use crate::stream::protocol::{Protocol, v1};
use crate::web::STREAM_PATH;
use crate::web::query;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::client::{Response, generate_request};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::{HandshakeMachine, RoundResult, StageResult};
use tungstenite::http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use tungstenite::http::uri::PathAndQuery;
use tungstenite::http::{HeaderValue, StatusCode, Uri};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, WebSocket};

/// Time for a connection, and for its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A filter that makes a longer query is ours alone to apply: the head of a request is bounded (16 KiB at our server).
const FILTER_BYTES_MAX: usize = 8 * 1024;

/// Where a server's stream is.
#[derive(Clone, Debug)]
pub struct StreamUrl {
    authority: Authority,
    /// As a request has it: without the zone of an address.
    uri: Uri,
}

impl Default for StreamUrl {
    /// At the default port of this host.
    fn default() -> StreamUrl {
        StreamUrl::at(
            Authority::new("localhost".to_owned(), Config::default().port),
            STREAM_PATH,
        )
    }
}

impl FromStr for StreamUrl {
    type Err = String;

    /// Fails with what would be right. Without a path it is the stream's own.
    fn from_str(text: &str) -> Result<StreamUrl, String> {
        let address = ServerAddress::parse(text, Config::default().port)?;
        let path = match address.path.as_str() {
            // Those of the server's pages: the same address serves all commands.
            "" | "/" | "/health" | "/status" | "/initial" => STREAM_PATH,
            path => path,
        };
        let query = address.query.map_or(String::new(), |query| format!("?{query}"));
        // The rest of what a request cannot hold is refused here, with the part that is wrong.
        PathAndQuery::try_from(format!("{path}{query}"))
            .map_err(|_| format!("{path}{query} must be percent-encoded"))
            .map(|target| StreamUrl::at(address.authority, target.as_str()))
    }
}

impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.uri.path_and_query().map_or("", PathAndQuery::as_str);
        write!(f, "ws://{}{target}", self.authority)
    }
}

impl StreamUrl {
    /// `target` is a path and a query that are known to be well-formed.
    fn at(authority: Authority, target: &str) -> StreamUrl {
        let uri = Uri::builder()
            .scheme("ws")
            .authority(authority.for_header())
            .path_and_query(target)
            .build()
            // The host was read as a name or an address, so all three parts are well-formed.
            .unwrap_or_default();
        StreamUrl { authority, uri }
    }

    /// The same with `pairs` in its query; they take the place of pairs with the same keys.
    fn with(&self, pairs: &[(&str, String)]) -> Uri {
        let own = self.uri.query().unwrap_or_default().split('&');
        let own =
            own.filter(|pair| !pair.is_empty() && !pairs.iter().any(|(key, _)| pair.split('=').next() == Some(key)));
        let ours = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", query::encode(value)));
        let query: Vec<String> = own.map(str::to_owned).chain(ours).collect();
        if query.is_empty() {
            return self.uri.clone();
        }
        let text = format!("{}?{}", self.uri.path(), query.join("&"));
        let mut parts = self.uri.clone().into_parts();
        // It is a path as before and percent-encoded text; should it be refused all the same, the URL stays as given.
        match PathAndQuery::try_from(text) {
            Ok(path) => {
                parts.path_and_query = Some(path);
                Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
            }
            Err(_) => self.uri.clone(),
        }
    }
}

/// A connection, and what is spoken on it.
pub type Connected = (WebSocket<Looking>, Protocol);

/// Connects to one server again and again.
#[derive(Debug)]
pub struct Dialer {
    url: StreamUrl,
    /// The look-up that is still under way.
    lookup: Option<Receiver<Lookup>>,
}

impl Dialer {
    /// For the server at `url`.
    pub fn new(url: StreamUrl) -> Dialer {
        Dialer { url, lookup: None }
    }

    /// A connection that asks for `pairs` in its query. Blocks until it is there or it is time to end, at most 5 s.
    ///
    /// # Errors
    /// [`Halt::Lost`] if there is none now: the caller tries again later. [`Halt::Hopeless`] ends the command, because
    /// no further attempt with these arguments could succeed.
    pub fn connect(&mut self, pairs: &[(&str, String)], end: &End) -> Result<Connected, Halt> {
        let text = self.url.to_string();
        let lost = |why: &dyn fmt::Display| Halt::Lost(format!("cannot connect to {text}: {why}"));
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let deadline = end.at().map_or(deadline, |end| end.min(deadline));
        let addresses = self.resolve(deadline, end).map_err(|error| lost(&error))?;
        let stream = open(&addresses, deadline).map_err(|error| lost(&error))?;
        match shake_hands(stream, self.url.with(pairs), deadline, end) {
            Ok(Some(connected)) => Ok(connected),
            Ok(None) => Err(lost(&"nothing answers there")),
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                let why = format!("the server answers {}: {}", answer.status(), reason(body));
                // What a server says of itself may pass; what it says of our request does not.
                if answer.status().is_server_error() {
                    Err(lost(&why))
                } else {
                    Err(Halt::Hopeless(format!("cannot use {text}: {why}")))
                }
            }
            Err(error) => Err(lost(&error)),
        }
    }

    /// The addresses of the server's host. Blocks until they are known or it is time to end, at most until `deadline`.
    ///
    /// Nothing ends a look-up that hangs, so another thread does it. One is under way at a time: if it takes longer,
    /// the next call waits for its answer too.
    fn resolve(&mut self, deadline: Instant, end: &End) -> io::Result<Vec<SocketAddr>> {
        let url = &self.url;
        if let Ok(address) = url.authority.host().parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, url.authority.port())]);
        }
        let answer = match self.lookup.take() {
            Some(answer) => answer,
            None => look_up(url.authority.host().to_owned(), url.authority.port())?,
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match answer.recv_timeout(left.min(LOOK)) {
                Ok(addresses) => return addresses,
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the look-up of the name failed")),
                Err(RecvTimeoutError::Timeout) if left.is_zero() || end.is_here() => {
                    self.lookup = Some(answer);
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the look-up of the name takes too long",
                    ));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The pairs of a query that ask for `filter`; none when that is too long to be asked.
pub fn filter_pairs(filter: &crate::stream::filter::Filter) -> Vec<(&'static str, String)> {
    let lists = [("machine", filter.machines()), ("type", filter.kinds())];
    let pairs = lists.into_iter().filter_map(|(key, list)| Some((key, list?.join(","))));
    let pairs: Vec<_> = pairs.collect();
    let bytes: usize = pairs.iter().map(|(_, value)| query::encode(value).len()).sum();
    if bytes > FILTER_BYTES_MAX { Vec::new() } else { pairs }
}

fn open(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero is not a timeout.
        match TcpStream::connect_timeout(address, left.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LOOK))?;
                stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection whose look ends early when a signal comes: then it is asked whether it is time to end, and nothing is
/// lost.
#[derive(Debug)]
pub struct Looking(TcpStream);

impl Read for Looking {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(early)
    }
}

impl Write for Looking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(early)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(early)
    }
}

/// What is interrupted is no failure.
fn early(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => io::ErrorKind::WouldBlock.into(),
        _ => error,
    }
}

/// The opening handshake (RFC 6455 section 4.1); `None` when it is not answered in time or it is time to end.
///
/// The library's own takes a server that chooses none of the offered subprotocols for a broken one. To the standard
/// such a server is fine, and the original is one.
fn shake_hands(stream: TcpStream, uri: Uri, deadline: Instant, end: &End) -> Result<Option<Connected>, Error> {
    let mut request = uri.into_client_request()?;
    request
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(v1::NAME));
    let (request, key) = generate_request(request)?;
    let mut machine = HandshakeMachine::start_write(Looking(stream), request);
    loop {
        machine = match machine.single_round::<Response>()? {
            RoundResult::Incomplete(machine) => machine,
            // The socket's timeout, after each look.
            RoundResult::WouldBlock(_) if end.is_here() || Instant::now() >= deadline => return Ok(None),
            RoundResult::WouldBlock(machine) => machine,
            RoundResult::StageFinished(StageResult::DoneWriting(stream)) => HandshakeMachine::start_read(stream),
            RoundResult::StageFinished(StageResult::DoneReading { result, stream, tail }) => {
                if result.status() != StatusCode::SWITCHING_PROTOCOLS {
                    return Err(Error::Http(Box::new(result.map(|_| Some(tail)))));
                }
                let protocol = judge(&result, &key)?;
                let config = WebSocketConfig::default().read_buffer_size(64 * 1024);
                let socket = WebSocket::from_partially_read(stream, tail, Role::Client, Some(config));
                return Ok(Some((socket, protocol)));
            }
        };
    }
}

/// What the server that has answered like this speaks.
fn judge(answer: &Response, key: &str) -> Result<Protocol, Error> {
    let header = |name: HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let says = |name, word| header(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    if !says(UPGRADE, "websocket") {
        return Err(ProtocolError::MissingUpgradeWebSocketHeader.into());
    }
    if !says(CONNECTION, "upgrade") {
        return Err(ProtocolError::MissingConnectionUpgradeHeader.into());
    }
    if header(SEC_WEBSOCKET_ACCEPT) != Some(&derive_accept_key(key.as_bytes())) {
        return Err(ProtocolError::SecWebSocketAcceptKeyMismatch.into());
    }
    match header(SEC_WEBSOCKET_PROTOCOL) {
        None => Ok(Protocol::Plain),
        Some(v1::NAME) => Ok(Protocol::V1),
        Some(_) => {
            let why = tungstenite::error::SubProtocolError::InvalidSubProtocol;
            Err(ProtocolError::SecWebSocketSubProtocolError(why).into())
        }
    }
}

/// The reason in the body of a refusal.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let detail = serde_json::from_str::<serde_json::Value>(&text).ok();
    let detail = detail.and_then(|body| Some(body.get("detail")?.as_str()?.to_owned()));
    visible(detail.as_deref().unwrap_or(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::filter::Filter;

    fn with(url: &str, pairs: &[(&str, &str)]) -> String {
        let url: StreamUrl = url.parse().unwrap();
        let pairs: Vec<(&str, String)> = pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        url.with(&pairs).to_string()
    }

    #[test]
    fn what_is_asked_for_stands_in_the_query_once() {
        let url = "ws://host:1/ws/events";
        assert_eq!(with(url, &[]), url);
        assert_eq!(
            with(url, &[("machine", "a b,c*"), ("since", "00:1")]),
            "ws://host:1/ws/events?machine=a%20b%2Cc%2A&since=00%3A1"
        );
        assert_eq!(
            with("ws://host/p?since=x&y&machine=m", &[("since", "z")]),
            "ws://host:80/p?y&machine=m&since=z"
        );
        assert_eq!(with("ws://host", &[("a", "b")]), "ws://host:80/ws/events?a=b");
    }

    #[test]
    fn every_way_to_write_an_address_leads_to_the_stream() {
        for (text, expected) in [
            ("localhost:3002", "ws://localhost:3002/ws/events"),
            ("localhost", "ws://localhost:3002/ws/events"),
            ("http://localhost:3002/", "ws://localhost:3002/ws/events"),
            ("ws://[::1]:3002/ws/events", "ws://[::1]:3002/ws/events"),
            ("ws://proxy/live/ws/events?x=1", "ws://proxy:80/live/ws/events?x=1"),
            ("[fe80::1%lo]", "ws://[fe80::1%lo]:3002/ws/events"),
        ] {
            assert_eq!(text.parse::<StreamUrl>().unwrap().to_string(), expected);
        }
        assert_eq!(StreamUrl::default().to_string(), "ws://localhost:3002/ws/events");
        let zoned: StreamUrl = "[fe80::1%lo]".parse().unwrap();
        assert_eq!(zoned.with(&[]).authority().unwrap(), "[fe80::1]:3002");
        let why = "localhost/a<b".parse::<StreamUrl>().unwrap_err();
        assert_eq!(why, "/a<b must be percent-encoded");
    }

    #[test]
    fn a_filter_that_no_request_could_hold_is_not_asked_for() {
        let pairs = |text: &str| filter_pairs(&Filter::from_lists(Some(text), Some("t")).unwrap());
        assert_eq!(
            pairs("a,b*"),
            [("machine", "a,b*".to_owned()), ("type", "t".to_owned())]
        );
        assert!(pairs(&vec!["x".repeat(250); 60].join(",")).is_empty());
        assert!(filter_pairs(&Filter::default()).is_empty());
    }
}
