//! A WebSocket client that sees every byte, independent of the server's own library.

use super::{DEADLINE, number_of};
use rustix::net::sockopt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

impl Frame {
    /// The payload of a text frame.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// Code and reason of a close frame.
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        match self.payload.as_slice() {
            [] => (1005, String::new()),
            [high, low, reason @ ..] => (
                u16::from_be_bytes([*high, *low]),
                String::from_utf8(reason.to_vec()).unwrap(),
            ),
            other => panic!("{other:?}"),
        }
    }

    /// Whether the server keeps the connection alive with it.
    pub fn is_keepalive(&self) -> bool {
        matches!(self.opcode, PING | PONG) || self.opcode == TEXT && self.payload.starts_with(b"{\"type\":\"ping\"")
    }
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Options {
    pub target: String,
    /// SO_RCVBUF, if it is to be tiny.
    pub receive_buffer: Option<usize>,
    /// Further header lines.
    pub headers: Vec<String>,
    /// Sent in the same segment as the request.
    pub with_request: Vec<u8>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            target: "/ws/events".to_owned(),
            receive_buffer: None,
            headers: Vec::new(),
            with_request: Vec::new(),
        }
    }
}

/// The client.
#[derive(Debug)]
pub struct TestClient {
    socket: TcpStream,
    received: Vec<u8>,
    start: usize,
    /// The head of the server's answer.
    pub head: String,
}

impl TestClient {
    /// Connects and shakes hands; the status must be 101.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> TestClient {
        TestClient::with(address, &Options::default())
    }

    /// The same with options.
    #[track_caller]
    pub fn with(address: SocketAddr, options: &Options) -> TestClient {
        TestClient::try_with(address, options).unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    /// The same; a refusal is an error that carries the answer.
    pub fn try_with(address: SocketAddr, options: &Options) -> io::Result<TestClient> {
        let socket = connect(address, options.receive_buffer)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        socket.set_nodelay(true)?;
        let further: String = options.headers.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{further}\r\n",
            options.target
        );
        let mut client = TestClient {
            socket,
            received: Vec::new(),
            start: 0,
            head: String::new(),
        };
        client
            .socket
            .write_all(&[request.as_bytes(), &options.with_request].concat())?;
        client.read_head()?;
        Ok(client)
    }

    fn read_head(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                self.head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                if !self.head.starts_with("HTTP/1.1 101 ") {
                    // The rest of the answer, for the message.
                    let _ = self.socket.read_to_end(&mut self.received);
                    return Err(io::Error::other(String::from_utf8_lossy(&self.received).into_owned()));
                }
                self.start = end + 4;
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 && self.start == self.received.len() {
            self.received.clear();
            self.start = 0;
        }
        let before = self.received.len();
        self.received.resize(before + 64 * 1024, 0);
        let read = loop {
            match self.socket.read(&mut self.received[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.received.truncate(before + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next frame. Fails with the socket's error, `UnexpectedEof` when the server has ended.
    pub fn try_frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((frame, len)) = parse(&self.received[self.start..]) {
                self.start += len;
                return Ok(frame);
            }
            if self.start > 1024 * 1024 {
                self.received.drain(..self.start);
                self.start = 0;
            }
            self.fill()?;
        }
    }

    /// The next frame, whatever it is.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        self.try_frame().unwrap_or_else(|error| panic!("no frame: {error}"))
    }

    /// The next text that is no keepalive; answers protocol pings on the way, and does not wait for ever because of
    /// them.
    pub fn try_text(&mut self) -> io::Result<String> {
        let begun = Instant::now();
        loop {
            if begun.elapsed() > 2 * DEADLINE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing but keepalive"));
            }
            let frame = self.try_frame()?;
            match frame.opcode {
                PING => self.send(PONG, &frame.payload),
                TEXT if !frame.is_keepalive() => return Ok(frame.text().to_owned()),
                CLOSE => return Err(io::Error::other(format!("closed: {:?}", frame.close()))),
                _ => {}
            }
        }
    }

    /// The same; must be there.
    #[track_caller]
    pub fn text(&mut self) -> String {
        self.try_text().unwrap_or_else(|error| panic!("no text: {error}"))
    }

    /// The next text as JSON.
    #[track_caller]
    pub fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Skips frames until the close frame; `None` when the connection ended without one.
    pub fn until_close(&mut self) -> Option<(u16, String)> {
        loop {
            match self.try_frame() {
                Ok(frame) if frame.opcode == CLOSE => return Some(frame.close()),
                Ok(_) => {}
                Err(error) => {
                    assert_ne!(
                        error.kind(),
                        io::ErrorKind::WouldBlock,
                        "neither a close frame nor an end"
                    );
                    return None;
                }
            }
        }
    }

    /// Checks that events made by `numbered` come as exactly `expected`, each once and in order.
    #[track_caller]
    pub fn expect_numbers(&mut self, expected: std::ops::Range<usize>) {
        for number in expected {
            let text = self
                .try_text()
                .unwrap_or_else(|error| panic!("waiting for event {number}: {error}"));
            assert_eq!(
                number_of(text.as_bytes()),
                Some(number),
                "instead: {}",
                &text[..text.len().min(200)]
            );
        }
    }

    /// Sends one masked frame.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.send_bytes(&masked(opcode, payload));
    }

    /// Sends a text message.
    pub fn send_text(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
    }

    /// Sends bytes as they are. A server that has ended the connection is no failure here.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Sends a close frame and waits for the answer.
    pub fn close(mut self) -> Option<(u16, String)> {
        self.send(CLOSE, &1000u16.to_be_bytes());
        self.until_close()
    }

    /// The socket, and what was read from it and not yet looked at.
    pub fn into_parts(mut self) -> (TcpStream, Vec<u8>) {
        self.received.drain(..self.start);
        (self.socket, self.received)
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Ends our direction.
    pub fn shut_down(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// How long reads wait.
    pub fn set_patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    /// Checks that nothing but keepalive comes for `duration`.
    #[track_caller]
    pub fn expect_silence(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            self.set_patience(left);
            match self.try_frame() {
                Ok(frame) => assert!(frame.is_keepalive(), "{frame:?}"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
            }
        }
        self.set_patience(DEADLINE);
    }
}

/// A masked frame, as a client must send it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked_with(0x80 | opcode, payload)
}

/// The same with a first byte of one's own (fragments, reserved bits).
pub fn masked_with(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The first frame of `bytes` with its length on the wire; fails on whatever a server must not send.
pub fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (opcode, payload, len) = peek(bytes)?;
    let payload = payload.to_vec();
    Some((Frame { opcode, payload }, len))
}

/// The same without copying: opcode, payload, length on the wire.
pub fn peek(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(
        first & 0xf0,
        0x80,
        "only whole frames without reserved bits: {first:#x}"
    );
    assert_eq!(second & 0x80, 0, "a server must not mask");
    let (header, len) = match second {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()) as usize),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        len => (2, len as usize),
    };
    let payload = bytes.get(header..header + len)?;
    let opcode = first & 0x0f;
    assert!(matches!(opcode, TEXT | CLOSE | PING | PONG), "opcode {opcode}");
    Some((opcode, payload, header + len))
}

fn connect(address: SocketAddr, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if let Some(size) = receive_buffer {
        // Before connecting, so that the window is small from the beginning.
        sockopt::set_socket_recv_buffer_size(&socket, size)?;
    }
    connect(&socket, &address)?;
    Ok(socket.into())
}
