//! One HTTP request over a connection of its own.

use super::DEADLINE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The value of a header, which must be written in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends a request with a `Host` of this server and further header lines, and reads the answer to its end.
pub fn request(address: SocketAddr, method: &str, target: &str, headers: &[&str]) -> Answer {
    let host = format!("Host: {address}");
    let lines = std::iter::once(host.as_str()).chain(headers.iter().copied());
    let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
    raw(address, format!("{method} {target} HTTP/1.1\r\n{lines}\r\n").as_bytes())
}

/// Sends a request that acts to an admin socket, and reads the answer to its end.
pub fn act(socket: &Path, method: &str, target: &str, headers: &[&str]) -> Answer {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let socket = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    let bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    exchange(socket, bytes.as_bytes())
}

/// Sends bytes and reads the answer to its end.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    exchange(socket, bytes)
}

fn exchange(mut socket: impl Read + Write, bytes: &[u8]) -> Answer {
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
