//! One client: its handshake, and what the kernel has not yet taken of what it is sent.

use crate::frames::{self, Answer};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::net::TcpStream;

/// Bytes that may wait for a client that does not read.
const REST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reads that one turn does at most, so that no client can keep the thread by sending.
const READS_MAX: usize = 4;

/// What a client needs after a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Same,
    /// Something waits: tell when the kernel takes more.
    WatchWriting,
    /// Nothing waits any more.
    OnlyReading,
    End,
}

impl Fate {
    /// Both of two calls' wishes, the later one last.
    pub fn or(self, later: Fate) -> Fate {
        match later {
            Fate::Same => self,
            _ => later,
        }
    }
}

pub struct Client {
    stream: TcpStream,
    /// What has come of the request's head; `None` when the handshake is done.
    request: Option<Vec<u8>>,
    /// What the kernel has not taken yet, from `sent` on.
    rest: Vec<u8>,
    sent: usize,
}

impl Client {
    /// `None` if the connection has ended already.
    pub fn new(stream: TcpStream) -> Option<Client> {
        stream.set_nodelay(true).ok()?;
        Some(Client {
            stream,
            request: Some(Vec::new()),
            rest: Vec::new(),
            sent: 0,
        })
    }

    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends whole frames, or keeps what the kernel does not take.
    pub fn send(&mut self, frames: &[u8]) -> Fate {
        if self.request.is_some() {
            return Fate::Same;
        }
        if !self.rest.is_empty() {
            return self.keep(frames, Fate::Same);
        }
        match send(&self.stream, frames, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(taken) if taken == frames.len() => Fate::Same,
            Ok(taken) => self.keep(&frames[taken..], Fate::WatchWriting),
            Err(Errno::AGAIN | Errno::INTR) => self.keep(frames, Fate::WatchWriting),
            Err(_) => Fate::End,
        }
    }

    fn keep(&mut self, bytes: &[u8], fate: Fate) -> Fate {
        if self.rest.len() - self.sent + bytes.len() > REST_BYTES_MAX {
            return Fate::End;
        }
        // Moves what waits at most once per as many bytes sent.
        if self.sent > self.rest.len() / 2 {
            self.rest.drain(..self.sent);
            self.sent = 0;
        }
        self.rest.extend_from_slice(bytes);
        fate
    }

    /// Sends what waits.
    pub fn send_rest(&mut self) -> Fate {
        let waiting = &self.rest[self.sent..];
        match send(&self.stream, waiting, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(taken) if taken < waiting.len() => self.sent += taken,
            Ok(_) => {
                (self.rest, self.sent) = (Vec::new(), 0);
                return Fate::OnlyReading;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Fate::End,
        }
        Fate::Same
    }

    /// Reads what has come: first the request, later things that are ignored.
    pub fn read(&mut self, buffer: &mut [u8]) -> Fate {
        for _ in 0..READS_MAX {
            let received = match recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Fate::End,
                Ok((_, length)) => &buffer[..length],
                Err(Errno::AGAIN | Errno::INTR) => return Fate::Same,
                Err(_) => return Fate::End,
            };
            if let Some(request) = &mut self.request {
                request.extend_from_slice(received);
                return self.shake_hands();
            }
        }
        Fate::Same
    }

    fn shake_hands(&mut self) -> Fate {
        let received = self.request.as_deref().unwrap_or_default();
        match frames::answer(received) {
            Answer::Wait => Fate::Same,
            Answer::Refuse(answer) => {
                let _ = send(&self.stream, answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                Fate::End
            }
            Answer::Accept(mut head, _) => {
                self.request = None;
                frames::append_text(&mut head, &frames::initial(b""));
                self.send(&head)
            }
        }
    }
}
