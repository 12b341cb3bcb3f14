//! Serves one WebSocket client: its backlog, its pings, what the inbox answers, and its end.
//!
//! Runs on: `client-N`, one thread per client.
//! Owns: the backlog taken from its queue; its socket, whenever the hand-over says so.
//! Blocks on: its queue (until the next ping is due), its socket (until it takes a byte, at most the send timeout).
//! Can be stalled by: its own peer only; a fan-out that stands still while it owns this one socket makes it retry.
//! Full queue means: the fan-out has ended this client as too slow (counter `too_slow`); nobody else notices.
//! Ends when: there is an [`EndReason`], or the fan-out drops the queue because the server stops.
//! Watched as: `client-N`, not a core thread: a stall makes health `degraded`.

use crate::client::outbox::Link;
use crate::client::protocol::{self, EndReason};
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::pipeline::chunk::{Chunk, close_frame, ping_frame, text_frame};
use crate::pipeline::requests::FanoutHandle;
use crate::process::clock::{epoch_seconds, monotonic_ms, pause, timespec};
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, select};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames of the inbox that may wait. Full policy: the inbox stops reading from this client until there is room.
pub const CONTROL_QUEUE_LEN_MAX: usize = 8;
/// Chunks given to one system call, and roughly how many bytes; then pings and pongs have their turn.
const GATHER_CHUNKS_MAX: usize = 32;
const GATHER_BYTES_MAX: usize = 128 * 1024;
/// Longest single wait for the socket, so that the end of the client is noticed in time.
const LOOK: Duration = Duration::from_millis(250);
/// How long to stand back when the fan-out owns the socket; it does so for microseconds.
const BUSY: Duration = Duration::from_millis(1);
/// For how long ending a client tries to own its socket, then it is reset.
const LAST_ACQUIRE: Duration = Duration::from_millis(100);
/// When the server stops: for how long a client's backlog is still written.
const LAST_FLUSH: Duration = Duration::from_millis(1000);
/// How long the peer has to answer our close frame (contract: an ordered end, but a bounded one).
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// A wait that took so much longer than asked means that this process did not run (suspended, starved).
const OVERSLEPT: Duration = Duration::from_secs(1);
/// A beat of the inbox older than this means that silence is not the client's fault.
const INBOX_STILL: Duration = Duration::from_secs(1);

/// What the inbox sends to the writer.
#[derive(Debug)]
pub enum Control {
    /// Whole frames.
    Frame(Vec<u8>),
    /// Whole frames, of which the last answers the client's own close frame: nothing may follow them.
    Close(Vec<u8>),
    /// Look at the link: something about its end has changed.
    Wake,
}

/// The times that rule a client's life.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
    pub send_timeout: Duration,
    /// Looks for an order to stand still several times a second.
    pub allow_drill: bool,
}

/// What a writer works with.
#[derive(Debug)]
pub struct Writer {
    pub link: Arc<Link>,
    pub queue: Receiver<Arc<Chunk>>,
    pub control: Receiver<Control>,
    pub beat: &'static Beat,
    pub inbox_beat: &'static Beat,
    pub fanout: FanoutHandle,
    pub timing: Timing,
}

/// The state of a running writer.
#[derive(Debug)]
struct Running {
    w: Writer,
    /// Chunks taken from the queue, not written to the last byte.
    backlog: VecDeque<Arc<Chunk>>,
    /// Bytes of the first of them that are written.
    sent_of_first: usize,
    /// Frames that go out between two chunks.
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first of them that are written.
    sent_of_frame: usize,
    next_ping: Instant,
    /// Since when the socket takes nothing.
    blocked_since: Option<Instant>,
    /// Until when there may be anything written at all; set when the server stops.
    deadline: Option<Instant>,
    /// When this process last came back from not running, [`monotonic_ms`].
    resumed_ms: u64,
    /// When its socket, having been full, last took bytes again, [`monotonic_ms`]: the peer reads.
    reads_ms: u64,
    owner: bool,
    /// The frames end with the answer to the client's close frame.
    peer_closed: bool,
}

impl Writer {
    /// Serves the client until its end; gives the reason. The caller has sent the handshake; the first chunk in the
    /// queue is the snapshot that the fan-out has joined the client with, at `joined`, of `machines` machines.
    pub fn run(self, joined: Instant, machines: usize, slow_snapshot: Duration) -> EndReason {
        let next_ping = Instant::now() + self.timing.ping_interval;
        let mut running = Running {
            w: self,
            backlog: VecDeque::new(),
            sent_of_first: 0,
            frames: VecDeque::new(),
            sent_of_frame: 0,
            next_ping,
            blocked_since: None,
            deadline: None,
            resumed_ms: 0,
            reads_ms: 0,
            owner: true,
            peer_closed: false,
        };
        let reason = running.begin(joined, machines, slow_snapshot).err();
        let reason = reason.unwrap_or_else(|| running.serve());
        // Whoever set a reason first was right.
        running.w.link.end(reason);
        let reason = running.w.link.end_reason().unwrap_or(reason);
        running.finish(reason);
        reason
    }
}

impl Running {
    /// Sends the snapshot, and says so.
    fn begin(&mut self, joined: Instant, machines: usize, slow_snapshot: Duration) -> Result<(), EndReason> {
        // Before anything else, also before what a client that does not wait for it has been answered already.
        self.take_chunk();
        self.write_chunks()?;
        self.write_all_there_is()?;
        if let Some(reason) = self.w.link.end_reason() {
            return Err(reason);
        }
        let (id, took) = (self.w.link.id(), joined.elapsed());
        log::info!(
            "✅ snapshot of {machines} machines sent to client {id} in {:.2}ms",
            took.as_secs_f64() * 1000.0
        );
        if took > slow_snapshot {
            log::warn!(
                "⚠️  SLOW OPERATION: snapshot took {:.2}ms to reach client {id}",
                took.as_secs_f64() * 1000.0
            );
        }
        Ok(())
    }

    fn serve(&mut self) -> EndReason {
        loop {
            self.obey_drill();
            self.keep_alive();
            // Before every wait: the wake-up that told of the end may have been taken while frames were written.
            if let Some(reason) = self.w.link.end_reason() {
                return reason;
            }
            if !self.has_work() {
                self.rest();
                self.wait();
            } else if let Err(reason) = self.write_all_there_is() {
                return reason;
            }
        }
    }

    /// Stands still if that was asked of it, with its socket in its hand if it can be had: to the fan-out that is a
    /// client whose socket is stuck.
    fn obey_drill(&mut self) {
        if self.w.beat.is_held() {
            let _ = self.acquire();
            drill::obey(self.w.beat);
        }
    }

    fn has_work(&self) -> bool {
        !self.backlog.is_empty() || !self.frames.is_empty()
    }

    /// Gives the socket back while there is nothing to write; the fan-out sends by itself then.
    fn rest(&mut self) {
        if std::mem::take(&mut self.owner) {
            self.w.link.handover().release();
        }
    }

    /// Blocks until there is something to write, at most until the next ping is due or silence is to be judged.
    fn wait(&mut self) {
        let asked = self.time_to_wait();
        let begun = Instant::now();
        let _doing = self.w.beat.begin(Operation::Waiting);
        let Writer { queue, control, .. } = &self.w;
        select! {
            recv(queue) -> chunk => match chunk {
                Ok(chunk) => self.backlog.push_back(chunk),
                Err(_) => { self.w.link.end(EndReason::Stopping); }
            },
            recv(control) -> control => match control {
                Ok(control) => self.take_control(control),
                // The inbox has let go of this client, and has said why unless it is itself at its end.
                Err(_) => { self.w.link.end(EndReason::Internal); }
            },
            default(asked) => {}
        }
        self.notice_oversleep(asked, begun);
    }

    fn time_to_wait(&self) -> Duration {
        let to_ping = self.next_ping.saturating_duration_since(Instant::now());
        let silent = self.silence();
        let to_judge = self.w.timing.pong_timeout.saturating_sub(silent).max(LOOK);
        let most = if self.w.timing.allow_drill { LOOK } else { Duration::MAX };
        to_ping.min(to_judge).min(most)
    }

    /// After a time in which this process did not run, nobody is blamed for it.
    fn notice_oversleep(&mut self, asked: Duration, begun: Instant) {
        if begun.elapsed() > asked + OVERSLEPT {
            self.resumed_ms = monotonic_ms();
            self.blocked_since = self.blocked_since.map(|_| Instant::now());
        }
    }

    /// For how long there was no sign of the client while we were listening. Taking bytes is one: our ping lies behind
    /// what it has still to read.
    fn silence(&self) -> Duration {
        let since = self.w.link.heard_ms().max(self.resumed_ms).max(self.reads_ms);
        Duration::from_millis(monotonic_ms().saturating_sub(since))
    }

    /// Pings when it is time, and ends a client that is silent for too long.
    fn keep_alive(&mut self) {
        let now = Instant::now();
        if now >= self.next_ping {
            // Never two at once for what a ping was late.
            self.next_ping = now + self.w.timing.ping_interval;
            let mut frames = text_frame(&protocol::ping(epoch_seconds()));
            frames.extend_from_slice(&ping_frame());
            self.frames.push_back(frames);
            log::debug!("🏓 ping to client {}", self.w.link.id());
        }
        if self.silence() >= self.w.timing.pong_timeout {
            if self.w.inbox_beat.sight().age >= INBOX_STILL {
                self.resumed_ms = monotonic_ms();
            } else {
                self.w.link.end(EndReason::NoPong);
            }
        }
    }

    /// Writes backlog and frames until there are none, or gives up this turn because the fan-out owns the socket.
    fn write_all_there_is(&mut self) -> Result<(), EndReason> {
        let about = (0, self.w.link.queued_bytes() as u64);
        let _doing = self.w.beat.begin_about(Operation::Sending, about);
        if !self.acquire() {
            pause(BUSY);
            return Ok(());
        }
        loop {
            if self.deadline.is_none() {
                self.take_frames();
                self.keep_alive();
                // A client that never stops asking must not keep its own end waiting.
                if self.w.link.end_reason().is_some() {
                    return Ok(());
                }
            }
            // A begun chunk first; then all frames in hand and some chunks in turn, so that neither starves the other.
            if self.sent_of_first > 0 {
                self.write_chunks()?;
            }
            let had_frames = !self.frames.is_empty();
            while !self.frames.is_empty() {
                self.write_frame()?;
            }
            if !self.backlog.is_empty() || self.take_chunk() {
                self.write_chunks()?;
            } else if !had_frames {
                return Ok(());
            }
        }
    }

    fn acquire(&mut self) -> bool {
        if self.owner {
            return true;
        }
        let Some(tail) = self.w.link.handover().try_acquire() else {
            return false;
        };
        self.owner = true;
        if tail > 0 {
            // The chunk that the fan-out could not finish: in hand already, or first in the queue.
            let found = !self.backlog.is_empty() || self.take_chunk();
            debug_assert!(found, "a passed-on chunk is in the queue");
            self.sent_of_first = tail;
        }
        true
    }

    /// Moves what waits from the queue to the backlog; whether there was anything.
    fn take_chunk(&mut self) -> bool {
        let before = self.backlog.len();
        while self.backlog.len() < GATHER_CHUNKS_MAX {
            match self.w.queue.try_recv() {
                Ok(chunk) => self.backlog.push_back(chunk),
                Err(TryRecvError::Empty) => {
                    if self.w.link.handover().queued() > self.backlog.len() {
                        // The rest waits on the fan-out's side for the slots that are free now.
                        self.w.fanout.nudge();
                    }
                    break;
                }
                Err(TryRecvError::Disconnected) => {
                    self.w.link.end(EndReason::Stopping);
                    break;
                }
            }
        }
        self.backlog.len() > before
    }

    fn take_frames(&mut self) {
        // Bounded: the inbox queues at most so many, and waits for us before it queues more.
        for _ in 0..CONTROL_QUEUE_LEN_MAX {
            match self.w.control.try_recv() {
                Ok(control) => self.take_control(control),
                Err(_) => return,
            }
        }
    }

    fn take_control(&mut self, control: Control) {
        match control {
            Control::Frame(frames) => self.frames.push_back(frames),
            Control::Close(frames) => {
                self.frames.push_back(frames);
                self.peer_closed = true;
                self.w.link.end(EndReason::PeerClosed);
            }
            Control::Wake => {}
        }
    }

    /// Writes the first chunks of the backlog to their last byte.
    fn write_chunks(&mut self) -> Result<(), EndReason> {
        let mut count = 0;
        let mut bytes = 0;
        for chunk in self.backlog.iter().take(GATHER_CHUNKS_MAX) {
            if count > 0 && bytes + chunk.bytes().len() > GATHER_BYTES_MAX {
                break;
            }
            count += 1;
            bytes += chunk.bytes().len();
        }
        let target = self.backlog.len() - count;
        while self.backlog.len() > target {
            let left = self.backlog.len() - target;
            let slices: Vec<IoSlice<'_>> = self
                .backlog
                .iter()
                .take(left)
                .enumerate()
                .map(|(index, chunk)| IoSlice::new(&chunk.bytes()[if index == 0 { self.sent_of_first } else { 0 }..]))
                .collect();
            let sent = send_slices(&self.w.link, &slices);
            let sent = self.progress(sent)?;
            self.account(sent);
        }
        Ok(())
    }

    /// Takes `sent` bytes off the front of the backlog.
    fn account(&mut self, sent: usize) {
        self.sent_of_first += sent;
        while let Some(chunk) = self.backlog.front() {
            let len = chunk.bytes().len();
            if self.sent_of_first < len {
                return;
            }
            self.sent_of_first -= len;
            if self.w.link.written(chunk) {
                self.w.fanout.nudge();
            }
            self.backlog.pop_front();
        }
    }

    /// Writes the first frame to its last byte.
    fn write_frame(&mut self) -> Result<(), EndReason> {
        while let Some(frame) = self.frames.front() {
            if self.sent_of_frame == frame.len() {
                self.sent_of_frame = 0;
                self.frames.pop_front();
                return Ok(());
            }
            let sent = send_slices(&self.w.link, &[IoSlice::new(&frame[self.sent_of_frame..])]);
            self.sent_of_frame += self.progress(sent)?;
        }
        Ok(())
    }

    /// Judges the outcome of a send; when the socket is full, blocks until it may take more.
    fn progress(&mut self, sent: Result<usize, Errno>) -> Result<usize, EndReason> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(EndReason::SendTimeout);
        }
        match sent {
            Ok(sent) => {
                self.w.beat.step();
                if self.blocked_since.take().is_some() {
                    self.reads_ms = monotonic_ms();
                }
                Ok(sent)
            }
            Err(Errno::INTR) => Ok(0),
            Err(Errno::AGAIN) => self.wait_for_room().map(|()| 0),
            Err(_) => Err(EndReason::PeerGone),
        }
    }

    /// Blocks until the socket may take a byte, at most a look; the send timeout counts from the last byte it took. The
    /// kernel shows what a peer reads only in large steps, so that some KiB a second look like nothing.
    fn wait_for_room(&mut self) -> Result<(), EndReason> {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        let left = self.w.timing.send_timeout.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err(EndReason::SendTimeout);
        }
        let (asked, begun) = (left.min(LOOK), Instant::now());
        let about = (0, self.w.link.queued_bytes() as u64);
        let _doing = self.w.beat.begin_about(Operation::WaitingForSocket, about);
        let mut fds = [PollFd::from_borrowed_fd(self.w.link.as_fd(), PollFlags::OUT)];
        // Interrupted or not, the next send tells.
        let _ = poll(&mut fds, Some(&timespec(asked)));
        self.notice_oversleep(asked, begun);
        match self.w.link.end_reason() {
            // The backlog of a stopping server is still written, within its own bound.
            None | Some(EndReason::Stopping) => Ok(()),
            Some(reason) => Err(reason),
        }
    }

    /// Ends the connection: tells the client why if it can still be told, else resets it.
    fn finish(&mut self, reason: EndReason) {
        let _doing = self.w.beat.begin(Operation::Closing);
        if reason == EndReason::PeerGone || !self.acquire_at_last() {
            self.w.link.reset();
            return;
        }
        // What the inbox answers from now on is not waited for.
        self.take_frames();
        let told = match reason {
            // The answer to the client's own close frame is the last of the frames; nothing may follow it.
            _ if self.peer_closed => self.flush_frames_at_once(),
            EndReason::Stopping => self.flush_at_last() && self.send_at_once(&close_bytes(reason)),
            _ => self.finish_frame_at_once() && self.send_at_once(&close_bytes(reason)),
        };
        if !told {
            self.w.link.reset();
            return;
        }
        self.w.link.shut_down_writing();
        // When the server stops, what a late reader has not taken yet is the kernel's to deliver, even past our end.
        if !self.peer_ended() && reason != EndReason::Stopping {
            self.w.link.reset();
        }
    }

    fn acquire_at_last(&mut self) -> bool {
        let deadline = Instant::now() + LAST_ACQUIRE;
        while !self.acquire() {
            if Instant::now() >= deadline {
                return false;
            }
            pause(BUSY);
        }
        true
    }

    /// Writes all that is there, within [`LAST_FLUSH`]; whether it could.
    fn flush_at_last(&mut self) -> bool {
        self.deadline = Some(Instant::now() + LAST_FLUSH);
        self.write_all_there_is().is_ok()
    }

    /// Sends the rest of a frame that the client has begun to receive, if the socket takes it now.
    fn finish_frame_at_once(&mut self) -> bool {
        if self.sent_of_frame > 0
            && let Some(frame) = self.frames.pop_front()
        {
            return self.send_at_once(&frame[self.sent_of_frame..]);
        }
        let Some(first) = self.backlog.front().filter(|_| self.sent_of_first > 0) else {
            return true;
        };
        let rest = first.bytes()[self.sent_of_first..first.boundary_from(self.sent_of_first)].to_vec();
        self.send_at_once(&rest)
    }

    fn flush_frames_at_once(&mut self) -> bool {
        if self.sent_of_first > 0 && !self.finish_frame_at_once() {
            return false;
        }
        let mut rest: Vec<u8> = self.frames.drain(..).flatten().collect();
        rest.drain(..self.sent_of_frame);
        self.send_at_once(&rest)
    }

    fn send_at_once(&self, bytes: &[u8]) -> bool {
        send_slices(&self.w.link, &[IoSlice::new(bytes)]) == Ok(bytes.len())
    }

    /// Blocks until the peer has ended its direction too, at most [`CLOSE_DEADLINE`]; whether it has.
    fn peer_ended(&self) -> bool {
        let deadline = Instant::now() + CLOSE_DEADLINE;
        loop {
            if self.w.link.peer_ended() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.w.control.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return self.w.link.peer_ended(),
                // The inbox has let go of the client: it has read its end, or the server is past reading.
                Err(RecvTimeoutError::Disconnected) => return self.w.link.peer_ended(),
            }
        }
    }
}

fn close_bytes(reason: EndReason) -> Vec<u8> {
    let facts = reason.facts();
    close_frame(facts.code, facts.text)
}

/// One non-blocking send. Nothing to send is sent.
fn send_slices(link: &Link, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(link, slices, &mut SendAncillaryBuffer::default(), flags)
}
