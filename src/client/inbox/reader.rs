//! One client's reading half: what it sends, and what it is owed for that.

use crate::client::frame_rules::{Fault, FrameRules};
use crate::client::writer::Control;
use crate::fanout::requests::FanoutHandle;
use crate::outbox::gauges::ClientGauges;
use crate::outbox::link::{Link, Wish};
use crate::process::words::count;
use crate::stream::chunk::{close_frame, text_frame};
use crate::stream::protocol::{self, ClientMessage, EndReason};
use crate::stream::view::View;
use crossbeam_channel::{Sender, TrySendError};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// A client that is to be read from now on.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) link: Arc<Link>,
    pub(super) control: Sender<Control>,
    /// What came behind the handshake.
    pub(super) leftover: Vec<u8>,
}

/// Bytes read from one client per turn, so that a talkative one delays nobody: as many as its largest message has.
const BYTES_PER_TURN: usize = 64 * 1024;
/// Messages read from one client per turn, because the bytes above could be 10,000 of the shortest.
const MESSAGES_PER_TURN: usize = 64;
/// Largest message that a client may send; the control messages have some 20 bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Read buffer per client, there as long as the client is; a control message with its frame has some 30 bytes.
const READ_BUFFER_BYTES: usize = 256;

/// What is to happen with a client after its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait until its socket is ready.
    Ready,
    /// Wait until there is room for what it is owed.
    Wait,
    /// There is nothing more to read.
    Done,
}

/// What became of what a client is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// Its writer has all of it.
    HandedOver,
    /// The writer's queue is full; it is tried again.
    NoRoom,
}

/// One client's reading half.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) link: Arc<Link>,
    pub(super) control: Sender<Control>,
    socket: WebSocket<Half>,
    /// Its end has been decided: whatever comes is thrown away until the peer ends too.
    draining: bool,
}

impl Reader {
    pub(super) fn new(joining: Joining) -> Reader {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MESSAGE_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let mut half = Half {
            link: Arc::clone(&joining.link),
            control: joining.control.clone(),
            budget: 0,
            rules: FrameRules::default(),
            fault: None,
            out: Vec::new(),
            closing: false,
        };
        let mut leftover = joining.leftover;
        let good = half.judge(&leftover);
        leftover.truncate(good);
        Reader {
            socket: WebSocket::from_partially_read(half, leftover, Role::Server, Some(config)),
            link: joining.link,
            control: joining.control,
            draining: false,
        }
    }

    /// One turn of this client.
    pub(super) fn read(&mut self, fanout: &FanoutHandle, gauges: &ClientGauges) -> Next {
        if self.link.is_over() {
            return Next::Done;
        }
        if self.draining || self.link.end_reason().is_some() {
            return self.drain();
        }
        self.socket.get_mut().budget = BYTES_PER_TURN;
        for _ in 0..MESSAGES_PER_TURN {
            match self.socket.read() {
                Ok(message) => {
                    self.link.heard();
                    self.take(&message, fanout, gauges);
                }
                Err(error) => {
                    if let Some(fault) = self.socket.get_ref().fault.filter(|_| is_invalid_data(&error)) {
                        self.tell(EndReason::Protocol, &fault);
                        return self.end(EndReason::Protocol);
                    }
                    let Some(reason) = reason_of(&error) else {
                        return self.answer();
                    };
                    self.tell(reason, &error);
                    return self.end(reason);
                }
            }
            if self.socket.get_ref().closing {
                return self.answer();
            }
        }
        self.send_owed();
        // Messages may be left in tungstenite's buffer, so this client goes on next turn whether its socket is ready
        // or not.
        Next::Wait
    }

    /// Says what exactly a client did wrong; the line of its end names only the reason.
    fn tell(&self, reason: EndReason, error: &dyn fmt::Display) {
        if reason != EndReason::PeerGone {
            let (id, peer) = (self.link.id(), self.link.peer());
            log::warn!("⚠️ client {id} from {peer} sent what it must not: {error}; it is ended");
        }
    }

    fn take(&mut self, message: &Message, fanout: &FanoutHandle, gauges: &ClientGauges) {
        match message {
            Message::Text(text) => match protocol::read(self.link.protocol(), text) {
                ClientMessage::Ping => {
                    let out = &mut self.socket.get_mut().out;
                    out.extend_from_slice(&text_frame(protocol::PONG));
                }
                ClientMessage::Refresh => {
                    if self.link.want_refresh() == Wish::New {
                        fanout.nudge();
                    }
                }
                ClientMessage::Subscribe { filter, conflate } => {
                    let view = View {
                        protocol: self.link.protocol(),
                        filter,
                        conflate,
                        // Only clients of `threadcast.v1` come here, and see them anyway.
                        plain_notices: false,
                    };
                    if self.link.want_view(view) == Wish::New {
                        fanout.nudge();
                    }
                }
                ClientMessage::Refused(why) => {
                    let out = &mut self.socket.get_mut().out;
                    out.extend_from_slice(&text_frame(&protocol::v1::error(&why)));
                    self.ignore("a message that cannot be taken", text.len(), gauges);
                }
                ClientMessage::Pong => {}
                ClientMessage::Other => self.ignore("a text that is no message of the protocol", text.len(), gauges),
            },
            Message::Binary(bytes) => self.ignore("a binary message", bytes.len(), gauges),
            Message::Close(close) => {
                self.socket.get_mut().closing = true;
                let theirs = close.as_ref().map(|close| u16::from(close.code));
                return self.answer_close(theirs);
            }
            _ => {}
        }
        // tungstenite remembers only its answer to the last ping or close. Its outcome says nothing new.
        let _ = self.socket.flush();
    }

    /// Answers a close frame with its own code. tungstenite, which has read `theirs` in it, knows fewer codes than the
    /// registry, and has 1002 in place of one that it does not know.
    fn answer_close(&mut self, theirs: Option<u16>) {
        let begun = self.socket.get_ref().out.len();
        let _ = self.socket.flush();
        let half = self.socket.get_mut();
        if let Some(code) = half.rules.close_code().filter(|code| Some(*code) != theirs) {
            half.out.truncate(begun);
            half.out.extend_from_slice(&close_frame(code, ""));
        }
    }

    fn ignore(&self, what: &str, len: usize, gauges: &ClientGauges) {
        gauges.ignored.fetch_add(1, Ordering::Relaxed);
        log::debug!("📋 ignored {what} of client {}, {}", self.link.id(), count(len, "byte"));
    }

    /// Hands what the client is owed to its writer, all of a turn at once.
    fn answer(&mut self) -> Next {
        match self.send_owed() {
            Owed::HandedOver => Next::Ready,
            Owed::NoRoom => Next::Wait,
        }
    }

    /// Hands what the client is owed to its writer. After the answer to its close frame, what comes is thrown away.
    pub(super) fn send_owed(&mut self) -> Owed {
        let owed = self.socket.get_mut().hand_over();
        if owed == Owed::HandedOver {
            self.draining |= self.socket.get_ref().closing;
        }
        owed
    }

    fn end(&mut self, reason: EndReason) -> Next {
        self.send_owed();
        self.link.end(reason);
        self.draining = true;
        if reason == EndReason::PeerGone {
            return Next::Done;
        }
        let _ = self.control.try_send(Control::Wake);
        Next::Ready
    }

    /// Throws away what comes; done when the peer has ended.
    fn drain(&mut self) -> Next {
        let mut scrap = [0; 4096];
        for _ in 0..BYTES_PER_TURN / scrap.len() {
            match recv(&*self.link, &mut scrap, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Next::Done,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Next::Ready,
                Err(_) => return Next::Done,
            }
        }
        Next::Ready
    }
}

/// Returns whether a [`Half`] that has met a fault gave this error.
fn is_invalid_data(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::InvalidData)
}

/// Why a client ends with this error; `None` if it does not.
fn reason_of(error: &Error) -> Option<EndReason> {
    match error {
        Error::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        Error::Capacity(_) => Some(EndReason::MessageTooBig),
        Error::Utf8(_) => Some(EndReason::NotUtf8),
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => Some(EndReason::PeerGone),
        Error::Protocol(_) => Some(EndReason::Protocol),
        _ => Some(EndReason::PeerGone),
    }
}

/// tungstenite's view of the connection: it reads from the socket and writes to the client's thread.
#[derive(Debug)]
struct Half {
    link: Arc<Link>,
    control: Sender<Control>,
    /// Bytes that may still be read this turn.
    budget: usize,
    rules: FrameRules,
    /// The frame that comes next breaks the protocol: nothing more is read.
    fault: Option<Fault>,
    out: Vec<u8>,
    /// The client has sent its close frame: what is handed over next is the last that it gets.
    closing: bool,
}

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(self.budget);
        if self.fault.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (_, count) = recv(&*self.link, &mut buffer[..room], RecvFlags::DONTWAIT)?;
        self.budget -= count;
        let good = self.judge(&buffer[..count]);
        if good == 0 && self.fault.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(good)
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Nothing: a turn's frames are handed over together.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Half {
    /// Returns how many of `bytes`, which come next, may be read.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        match self.rules.judge(bytes) {
            Ok(()) => bytes.len(),
            Err((good, fault)) => {
                self.fault = Some(fault);
                good
            }
        }
    }

    /// Hands over what was written, which is whole frames.
    fn hand_over(&mut self) -> Owed {
        if self.out.is_empty() {
            return Owed::HandedOver;
        }
        let frames = std::mem::take(&mut self.out);
        let control = if self.closing {
            Control::Close(frames)
        } else {
            Control::Frame(frames)
        };
        match self.control.try_send(control) {
            Err(TrySendError::Full(Control::Frame(frames) | Control::Close(frames))) => {
                self.out = frames;
                Owed::NoRoom
            }
            // Without a writer nothing is owed any more.
            Ok(()) | Err(_) => Owed::HandedOver,
        }
    }
}
