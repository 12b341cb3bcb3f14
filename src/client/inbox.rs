//! Reads what clients send, all of them on one thread.
//!
//! Runs on: `inbox`, one.
//! Owns: the reading half of every client (tungstenite's state), the epoll instance.
//! Blocks on: readiness (250 ms; 10 ms while a client's answers wait for room).
//! Can be stalled by: nothing but its own work; a client has a bounded amount per turn.
//! Full queue means: of a client's frames: that client is not read until there is room; of joining clients: who joins
//! waits up to 2 s and then ends.
//! Ends when: asked to.
//! Watched as: `inbox`, a core thread.

use crate::client::frame_rules::{Fault, FrameRules};
use crate::client::writer::Control;
use crate::fanout::requests::FanoutHandle;
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::outbox::gauges::ClientGauges;
use crate::outbox::link::Link;
use crate::process::clock::timespec;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, Obituaries, ThreadHandle};
use crate::process::waits;
use crate::process::wake::Wake;
use crate::process::words::count;
use crate::stream::chunk::{close_frame, text_frame};
use crate::stream::protocol::{self, ClientMessage, EndReason};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// Longest wait for readiness.
const TURN: Duration = Duration::from_millis(250);
/// The same while some client's answers wait for room in its queue.
const TURN_WITH_WAITING: Duration = Duration::from_millis(10);
/// Clients looked at per turn; the rest stays ready.
const EVENTS_PER_TURN: usize = 256;
/// Bytes read from one client per turn, so that a talkative one delays nobody: as many as its largest message has.
const BYTES_PER_TURN: usize = 64 * 1024;
/// Messages read from one client per turn, because the bytes above could be 10,000 of the shortest.
const MESSAGES_PER_TURN: usize = 64;
/// Joining clients that wait. Full policy: who joins waits, at most [`JOIN_TIMEOUT`].
const JOINING_QUEUE_LEN_MAX: usize = 1024;
/// How long a client's thread waits for room among the joining.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest message that a client may send; the control messages have some 20 bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Read buffer per client, there as long as the client is; a control message with its frame has some 30 bytes.
const READ_BUFFER_BYTES: usize = 256;
/// The epoll key of the stop request; clients count from 1.
const STOP_KEY: u64 = 0;
/// The epoll key of the wake-up.
const WAKE_KEY: u64 = u64::MAX;

/// A client that is to be read from now on.
#[derive(Debug)]
struct Joining {
    link: Arc<Link>,
    control: Sender<Control>,
    /// What came behind the handshake.
    leftover: Vec<u8>,
}

/// Everybody's way to the inbox.
#[derive(Clone, Debug)]
pub struct InboxHandle {
    joining: Sender<Joining>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wake: Wake,
    ends: AtomicBool,
    end_all: AtomicBool,
}

impl InboxHandle {
    /// Gives a client's reading half to the inbox; whether it took it. Blocks at most [`JOIN_TIMEOUT`].
    pub fn join(&self, link: Arc<Link>, control: Sender<Control>, leftover: Vec<u8>) -> bool {
        let joining = Joining {
            link,
            control,
            leftover,
        };
        let taken = self.joining.send_timeout(joining, JOIN_TIMEOUT).is_ok();
        self.shared.wake.wake();
        taken
    }

    /// Makes the inbox let go of clients whose thread is done with them. Never blocks.
    pub fn look_for_ends(&self) {
        // Release: with it the inbox sees which link is over.
        self.shared.ends.store(true, Ordering::Release);
        self.shared.wake.wake();
    }

    /// Makes the inbox end every client because the server stops: the way to them that needs no fan-out. Never blocks.
    pub fn end_all(&self) {
        self.shared.end_all.store(true, Ordering::Release);
        self.shared.wake.wake();
    }
}

/// The thread's own things.
#[derive(Debug)]
pub struct Inbox {
    epoll: OwnedFd,
    joining: Receiver<Joining>,
    shared: Arc<Shared>,
    readers: HashMap<u64, Reader>,
    /// Clients whose answers wait for room.
    waiting: Vec<u64>,
    /// When all clients were last looked at because no wait told of any.
    read_all_at: Instant,
    fanout: FanoutHandle,
    gauges: Arc<ClientGauges>,
    beat: &'static Beat,
    stop: Stop,
}

impl Inbox {
    /// Ready to run, and the way to it.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new(
        fanout: FanoutHandle,
        gauges: Arc<ClientGauges>,
        beat: &'static Beat,
        stop: Stop,
    ) -> io::Result<(Inbox, InboxHandle)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Wake::new()?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE_KEY), EventFlags::IN)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP_KEY), EventFlags::IN)?;
        let (joining_tx, joining) = bounded(JOINING_QUEUE_LEN_MAX);
        let shared = Arc::new(Shared {
            wake,
            ends: AtomicBool::new(false),
            end_all: AtomicBool::new(false),
        });
        let handle = InboxHandle {
            joining: joining_tx,
            shared: Arc::clone(&shared),
        };
        let inbox = Inbox {
            epoll,
            joining,
            shared,
            readers: HashMap::new(),
            waiting: Vec::new(),
            read_all_at: Instant::now(),
            fanout,
            gauges,
            beat,
            stop,
        };
        Ok((inbox, handle))
    }

    /// Starts the thread. `obituaries` gets its name when it ends.
    ///
    /// # Errors
    /// The host refuses another thread.
    pub fn start(self, obituaries: Obituaries) -> io::Result<ThreadHandle<()>> {
        threads::spawn("inbox", CORE_STACK_BYTES, Some(obituaries), move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        while !self.stop.requested() {
            drill::obey(self.beat);
            let knows = self.wait(&mut events);
            let _doing = self.beat.begin(Operation::Reading);
            for event in &events {
                self.beat.step();
                match event.data.u64() {
                    STOP_KEY => {}
                    WAKE_KEY => drop(self.shared.wake.quieten()),
                    id => self.read(id),
                }
            }
            if !knows {
                self.read_all();
            }
            self.retry_waiting();
            self.take_joining();
            self.let_go();
        }
        self.beat.turn_to(Operation::Ended);
    }

    /// Blocks until somebody is to be read, at most a turn. Returns whether `events` says who.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> bool {
        let _doing = self.beat.begin(Operation::Waiting);
        let turn = if self.waiting.is_empty() {
            TURN
        } else {
            TURN_WITH_WAITING
        };
        events.clear();
        let waited = epoll::wait(&self.epoll, spare_capacity(events), Some(&timespec(turn)));
        // An interrupted wait gives no events; the next turn waits again. A failed one tells of nobody, so everybody is
        // looked at.
        waits::INBOX.judge(waited).is_some() || waited == Err(Errno::INTR)
    }

    fn take_joining(&mut self) {
        for _ in 0..EVENTS_PER_TURN {
            let Ok(joining) = self.joining.try_recv() else {
                return;
            };
            self.beat.step();
            let id = joining.link.id();
            let added = epoll::add(&self.epoll, &*joining.link, EventData::new_u64(id), EventFlags::IN);
            if let Err(error) = added {
                log::error!("🚨 cannot watch client {id}: {error}; it is ended");
                joining.link.end(EndReason::Internal);
                let _ = joining.control.try_send(Control::Wake);
                continue;
            }
            self.readers.insert(id, Reader::new(joining));
            // What came with the handshake will not make the socket ready.
            self.read(id);
        }
        // More may wait than one turn takes.
        self.shared.wake.wake();
    }

    fn read(&mut self, id: u64) {
        let Some(reader) = self.readers.get_mut(&id) else {
            return;
        };
        match reader.read(&self.fanout, &self.gauges) {
            Next::Ready => {}
            Next::Wait => {
                // No interest: errors are still reported, and found by the retry.
                let _ = epoll::modify(&self.epoll, &*reader.link, EventData::new_u64(id), EventFlags::empty());
                self.waiting.push(id);
            }
            Next::Done => self.remove(id),
        }
    }

    /// Looks at every client that may be read, once in a turn's time, because thousands may be there. Without an epoll
    /// that works nothing else tells of them.
    fn read_all(&mut self) {
        if self.read_all_at.elapsed() < TURN {
            return;
        }
        self.read_all_at = Instant::now();
        let ids: Vec<u64> = self.readers.keys().copied().collect();
        for id in ids {
            self.beat.step();
            if !self.waiting.contains(&id) {
                self.read(id);
            }
        }
    }

    /// Goes on with clients whose answers had no room.
    fn retry_waiting(&mut self) {
        for id in std::mem::take(&mut self.waiting) {
            let Some(reader) = self.readers.get_mut(&id) else {
                continue;
            };
            if !reader.send_owed() {
                self.waiting.push(id);
                continue;
            }
            let _ = epoll::modify(&self.epoll, &*reader.link, EventData::new_u64(id), EventFlags::IN);
            // What tungstenite has read already will not make the socket ready.
            self.read(id);
        }
    }

    fn let_go(&mut self) {
        if self.shared.end_all.load(Ordering::Acquire) {
            // Again each turn, for those who join meanwhile; the first reason stands.
            for reader in self.readers.values() {
                if reader.link.end(EndReason::Stopping) {
                    let _ = reader.control.try_send(Control::Wake);
                }
            }
        }
        if !self.shared.ends.swap(false, Ordering::Acquire) {
            return;
        }
        let over = self.readers.values().filter(|reader| reader.link.is_over());
        let over: Vec<u64> = over.map(|reader| reader.link.id()).collect();
        for id in over {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(reader) = self.readers.remove(&id) {
            let _ = epoll::delete(&self.epoll, &*reader.link);
            reader.link.set_peer_ended();
            let _ = reader.control.try_send(Control::Wake);
        }
    }
}

/// What is to happen with a client after its turn.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Wait until its socket is ready.
    Ready,
    /// Wait until there is room for what it is owed.
    Wait,
    /// There is nothing more to read.
    Done,
}

/// One client's reading half.
#[derive(Debug)]
struct Reader {
    link: Arc<Link>,
    control: Sender<Control>,
    socket: WebSocket<Half>,
    /// Its end has been decided: whatever comes is thrown away until the peer ends too.
    draining: bool,
}

impl Reader {
    fn new(joining: Joining) -> Reader {
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
    fn read(&mut self, fanout: &FanoutHandle, gauges: &ClientGauges) -> Next {
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
                    if self.link.want_refresh() {
                        fanout.nudge();
                    }
                }
                ClientMessage::Subscribe(filter) => {
                    if self.link.want_filter(filter) {
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
        if self.send_owed() { Next::Ready } else { Next::Wait }
    }

    /// Whether everything owed found room.
    fn send_owed(&mut self) -> bool {
        if !self.socket.get_mut().hand_over() {
            return false;
        }
        self.draining |= self.socket.get_ref().closing;
        true
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

    /// Hands over what was written, which is whole frames; whether the writer's queue had room for it.
    fn hand_over(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
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
                false
            }
            // Without a writer nothing is owed any more.
            Ok(()) | Err(_) => true,
        }
    }
}
