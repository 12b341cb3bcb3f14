//! How the short commands ask a running server for something over HTTP.

use crate::commands::complain;
use crate::config::Config;
use crate::process::address::{Authority, ServerAddress};
use crate::process::exit::ExitStatus;
use crate::process::visible::{visible, visible_json};
use crate::web::{GRAPH_PATH, MACHINES_PATH, STREAM_PATH};
use httparse::{EMPTY_HEADER, Response, Status};
use serde_json::Value;
use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long to wait for each part of a document: the fan-out, which some are asked of, answers within 4 s.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(5);
/// Names a server that is none of ours, or an older one.
const STRANGER: &str = "what answers there is no threadcast of this version";
/// How long to wait for the server's connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: a report of all threads, or the figures of some 100,000 clients.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// All parts of an answer together may take the time of this many: a peer that sends a byte now and then must not hold
/// a command for ever.
const WHOLE_PATIENCES: u32 = 10;
/// The server's own answers have some five header lines.
const HEADERS_MAX: usize = 32;

/// Where a server answers requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(Authority);

impl ServerUrl {
    /// By host (without brackets) and port.
    pub fn new(host: String, port: u16) -> ServerUrl {
        ServerUrl(Authority::new(host, port))
    }

    /// The addresses of its host, with its port. Blocks on the system's answer to a name.
    ///
    /// # Errors
    /// The system knows no address of the name, or could not ask for it; its error says which.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok((self.0.host(), self.0.port()).to_socket_addrs()?.collect())
    }

    /// Its host, without brackets.
    pub fn host(&self) -> &str {
        self.0.host()
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }
}

impl Default for ServerUrl {
    fn default() -> Self {
        let config = Config::default();
        ServerUrl::new(config.host, config.port)
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    /// Fails with what would be right. The URL of the stream or of a page is taken too: it is the same server.
    fn from_str(text: &str) -> Result<ServerUrl, String> {
        let address = ServerAddress::parse(text, Config::default().port)?;
        match address.path.as_str() {
            "" | "/" | STREAM_PATH | MACHINES_PATH | GRAPH_PATH | "/health" | "/status" | "/initial" => {
                Ok(ServerUrl(address.authority))
            }
            path => Err(format!(
                "a server has nothing at {path}; write http://{}, without a path",
                address.authority
            )),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// Why the server refused, fit for a terminal: the server may be broken, or somebody else's.
    pub fn detail(&self) -> String {
        let body = serde_json::from_str::<serde_json::Value>(&self.body).ok();
        let detail = body.and_then(|body| Some(body.get("detail")?.as_str()?.to_owned()));
        visible(&detail.unwrap_or_else(|| format!("status {}: {}", self.status, self.body)))
    }
}

/// Sends `GET target` and returns the answer; says so, with a hint, when there is none. Blocks 5 s for each of the
/// host's addresses and `patience` for each part of the answer, at most.
///
/// # Errors
/// There is no server, or it does not answer. The person has been told, so the caller only ends with this status.
pub fn get(url: &ServerUrl, target: &str, patience: Duration) -> Result<Answer, ExitStatus> {
    quietly(url, target, patience).map_err(|error| {
        complain(&format!(
            "threadcast: cannot ask the server at {url}: {error}\nhint: is it running there? `{}` answers when it is\n",
            format_args!("curl http://{url}/health")
        ));
        ExitStatus::Failed
    })
}

/// A document of the server that commands show.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    pub target: &'a str,
    /// The key of the list in it, by which it is known.
    pub list: &'a str,
    /// What a person does not see without it.
    pub what: &'a str,
}

impl Page<'_> {
    /// Says that what the server has there is something else.
    pub fn is_strange(&self) -> ExitStatus {
        self.is_missing(STRANGER)
    }

    fn is_missing(&self, why: &str) -> ExitStatus {
        complain(&format!("threadcast: {}: {why}\n", self.what));
        ExitStatus::Failed
    }
}

/// Asks for a document; says so when there is none. Blocks as [`get`] does, 5 s for each part.
///
/// # Errors
/// There is no server, it has no such document, or none now. The person has been told, so the caller only ends with
/// this status.
pub fn document(url: &ServerUrl, page: &Page<'_>) -> Result<String, ExitStatus> {
    let answer = get(url, page.target, DOCUMENT_PATIENCE)?;
    let body: Option<Value> = serde_json::from_str(&answer.body).ok();
    let has = |key: &str, is_it: fn(&Value) -> bool| body.as_ref().and_then(|body| body.get(key)).is_some_and(is_it);
    match answer.status {
        200 if has(page.list, Value::is_array) => Ok(answer.body),
        // Ours say why; the original says `Not Found` in the same form.
        status if status != 200 && status != 404 && has("detail", Value::is_string) => {
            Err(page.is_missing(&answer.detail()))
        }
        _ => Err(page.is_strange()),
    }
}

/// A document as a line for programs. A line end inside it stands between its tokens, where any white space is the
/// same. On a terminal what could drive that is escaped; the document stays the same.
pub fn one_line(document: &str) -> String {
    let line = document.trim_end().replace(['\n', '\r'], " ");
    let line = if io::stdout().is_terminal() {
        visible_json(&line)
    } else {
        line
    };
    format!("{line}\n")
}

/// As [`get`], but leaves it to the caller to say what failed.
///
/// # Errors
/// There is no server at any of the host's addresses, or it does not answer; the error is the last address's.
pub fn quietly(url: &ServerUrl, target: &str, patience: Duration) -> io::Result<Answer> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in url.addresses()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(socket) => return exchange(&socket, &url.0.for_header(), ("GET", target), patience),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends a request to `host` and reads the answer to its end. Blocks `patience` for each part of it, and ten times that
/// for all of it.
///
/// # Errors
/// The connection fails, time is over, or what answers is no threadcast.
pub fn exchange<S: Timed>(
    socket: &S,
    host: &str,
    (method, target): (&str, &str),
    patience: Duration,
) -> io::Result<Answer>
where
    for<'a> &'a S: Read + Write,
{
    socket.limit(patience)?;
    let head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // In one piece: a server that refuses looks once.
    (&mut &*socket).write_all(head.as_bytes())?;
    let mut bytes = read_to_end(socket, patience).map_err(|error| {
        // What a timed socket says when time is over means nothing to a person.
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"))
            }
            _ => error,
        }
    })?;
    let stranger = || io::Error::new(io::ErrorKind::InvalidData, "what answers there is no threadcast");
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    match (response.parse(&bytes), response.code) {
        (Ok(Status::Complete(head_len)), Some(status)) => Ok(Answer {
            status,
            body: String::from_utf8(bytes.split_off(head_len)).map_err(|_| stranger())?,
        }),
        _ => Err(stranger()),
    }
}

/// What the peer sends until it ends, at most [`ANSWER_BYTES_MAX`]. Blocks as [`exchange`] does.
fn read_to_end<S>(socket: &S, patience: Duration) -> io::Result<Vec<u8>>
where
    for<'a> &'a S: Read,
{
    let begun = Instant::now();
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    while bytes.len() < ANSWER_BYTES_MAX {
        if begun.elapsed() > patience * WHOLE_PATIENCES {
            let why = format!("the answer has not ended within {:?}", patience * WHOLE_PATIENCES);
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        match (&mut &*socket).read(&mut piece) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&piece[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// A socket whose reads and writes can have a limit.
pub trait Timed {
    /// From now on each read and each write ends after `patience`.
    ///
    /// # Errors
    /// `patience` is zero, which the system takes for no limit at all.
    fn limit(&self, patience: Duration) -> io::Result<()>;
}

impl Timed for TcpStream {
    fn limit(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Timed for UnixStream {
    fn limit(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_shown() {
        for (text, shown) in [
            ("http://localhost:3002", "localhost:3002"),
            ("localhost", "localhost:3002"),
            ("http://[::1]:80/", "[::1]:80"),
            ("ws://10.0.0.1:3002/ws/events", "10.0.0.1:3002"),
            ("http://10.0.0.1:3002/status", "10.0.0.1:3002"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), shown);
        }
        let why = "http://localhost:1/threadcast/".parse::<ServerUrl>().unwrap_err();
        assert_eq!(
            why,
            "a server has nothing at /threadcast/; write http://localhost:1, without a path"
        );
    }
}
