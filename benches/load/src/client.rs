//! One WebSocket client of the generator: its handshake, its frames, the order of what it gets.

use crate::event::Events;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

const REQUEST: &str = "GET /ws/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads whatever comes; what it gets is counted.
    Reading,
    /// Reads nothing, once it has its snapshot.
    Stopped,
    /// Reads, but stands still for a second in every two.
    Pausing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Has asked for the upgrade.
    Asking,
    /// Waits for its snapshot.
    Joining,
    Open,
    /// Over, for whatever reason.
    Ended,
}

/// What one client has seen that it should not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Numbers that were left out.
    pub missing: u64,
    /// Numbers that came again, or late.
    pub repeated: u64,
    /// Events whose text was changed.
    pub changed: u64,
}

#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    pub kind: Kind,
    pub state: State,
    /// The number that it gets next.
    pub next: u64,
    pub faults: Faults,
    /// The beginning of a frame whose end has not come.
    rest: Vec<u8>,
}

/// What a reading has brought: numbers `first..end` of a client, each once and in order, unless its faults grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub number: u64,
    /// How many before it were left out.
    pub missing: u64,
}

impl Client {
    /// Connects and asks for the upgrade. On loopback this waits for nothing but the queue of the listener.
    pub fn connect(address: SocketAddr, kind: Kind) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        // No port is left waiting by ten thousand clients that go.
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
        // Loopback would hold megabytes for whoever does not read; a real connection does not.
        match kind {
            Kind::Reading => {}
            Kind::Stopped => rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096)?,
            Kind::Pausing => rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 64 * 1024)?,
        }
        let sent = send(&stream, REQUEST.as_bytes(), SendFlags::NOSIGNAL)?;
        assert_eq!(sent, REQUEST.len(), "a new connection takes a request");
        Ok(Client {
            stream,
            kind,
            state: State::Asking,
            next: 0,
            faults: Faults::default(),
            rest: Vec::new(),
        })
    }

    /// Receives once, and gives every event that is whole to `each`. Never blocks; an end is a state.
    pub fn read(&mut self, room: &mut [u8], events: &Events, exact: bool, mut each: impl FnMut(Delivered)) {
        if self.state == State::Ended {
            return;
        }
        let kept = self.rest.len();
        room[..kept].copy_from_slice(&self.rest);
        let len = match recv(&self.stream, &mut room[kept..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.state = State::Ended;
                return;
            }
            Ok((len, _)) => kept + len,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => {
                self.state = State::Ended;
                return;
            }
        };
        let taken = self.take(&room[..len], events, exact, &mut each);
        self.rest.clear();
        self.rest.extend_from_slice(&room[taken..len]);
    }

    /// Takes what is whole; how many bytes that was.
    fn take(&mut self, bytes: &[u8], events: &Events, exact: bool, each: &mut impl FnMut(Delivered)) -> usize {
        let mut at = 0;
        if self.state == State::Asking {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return 0;
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                self.state = State::Ended;
                return bytes.len();
            }
            self.state = State::Joining;
            at = end + 4;
        }
        while let Some((opcode, from, to)) = frame(&bytes[at..]) {
            let payload = &bytes[at + from..at + to];
            match opcode {
                0x1 => match events.read(payload, exact) {
                    Some(number) => self.event(number, each),
                    None if self.state == State::Joining => self.state = State::Open,
                    None => {}
                },
                0x8 => self.state = State::Ended,
                0x9 => self.pong(payload),
                _ => {}
            }
            at += to;
        }
        at
    }

    fn event(&mut self, number: Result<u64, u64>, each: &mut impl FnMut(Delivered)) {
        let number = number.unwrap_or_else(|number| {
            self.faults.changed += 1;
            number
        });
        if number < self.next {
            self.faults.repeated += 1;
            return;
        }
        let missing = number - self.next;
        self.faults.missing += missing;
        self.next = number + 1;
        each(Delivered { number, missing });
    }

    fn pong(&self, payload: &[u8]) {
        // A mask of zeros is a mask (RFC 6455, section 5.3, asks for one, not for which).
        let mut frame = vec![0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        // Whoever takes no pong now gets one for its next ping.
        let _ = send(&self.stream, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Opcode, and where the payload begins and ends, of a whole unmasked frame (RFC 6455, section 5.2).
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (from, len) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    (bytes.len() >= from + len).then_some((first & 0x0f, from, from + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn text_frame(text: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81, 126];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(text);
        frame
    }

    fn event_frame(events: &Events, number: u64) -> Vec<u8> {
        let mut text = Vec::new();
        events.write(number, &mut text);
        text_frame(&text)
    }

    #[test]
    fn losses_repetitions_and_changes_are_told_apart_however_the_bytes_are_cut() {
        let events = Events::new(300);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap(), Kind::Reading).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        bytes.extend(text_frame(&[b' '; 130]));
        // 0, 1, 4 (2 and 3 are lost), 4 again, 5 changed.
        for number in [0, 1, 4, 4] {
            bytes.extend(event_frame(&events, number));
        }
        let mut text = Vec::new();
        events.write(5, &mut text);
        text[290] = b'y';
        bytes.extend(text_frame(&text));
        let mut numbers = Vec::new();
        let mut room = vec![0; 1 << 16];
        for part in bytes.chunks(37) {
            server.write_all(part).unwrap();
            let mut fds = [rustix::event::PollFd::new(&client, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
            client.read(&mut room, &events, true, |delivered| {
                numbers.push((delivered.number, delivered.missing))
            });
        }
        assert_eq!(numbers, [(0, 0), (1, 0), (4, 2), (5, 0)]);
        let faults = client.faults;
        assert_eq!((faults.missing, faults.repeated, faults.changed), (2, 1, 1));
        assert_eq!(client.state, State::Open);
    }
}
