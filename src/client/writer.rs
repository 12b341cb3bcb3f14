//! Serves one WebSocket client: its backlog, what it missed, its pings, what the inbox answers, and its end.
//!
//! Runs on: `client-N`, one thread per client.
//! Owns: the backlog taken from its queue; its socket, whenever the hand-over says so.
//! Blocks on: its queue (until the next ping is due), its socket (until it takes a byte, at most the send timeout).
//! Can be stalled by: its own peer only; a fan-out that stands still while it owns this one socket makes it retry.
//! Full queue means: the fan-out leaves this client out until it has caught up from the history; nobody else notices.
//! Ends when: there is an [`EndReason`], or the fan-out drops the queue because the server stops.
//! Watched as: `client-N`, not a core thread: a stall makes health `degraded`.

mod catch_up;
mod ending;
mod initial;
mod keepalive;
mod missed;
mod socket;

use self::missed::CatchUp;
use crate::client::notices::Notices;
use crate::fanout::requests::{FanoutGauges, FanoutHandle, Joined};
use crate::liveness::beat::Beat;
use crate::liveness::beats::Beats;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::outbox::link::{Link, Parcel};
use crate::process::clock::{monotonic_us, pause};
use crate::process::words::count;
use crate::stream::chunk::{Chunk, text_frame};
use crate::stream::initial::Initial;
use crate::stream::protocol::{EndReason, Protocol, v1};
use crate::stream::view::View;
use crossbeam_channel::{Receiver, TryRecvError, never, select};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Frames of the inbox that may wait. Full policy: the inbox stops reading from this client until there is room.
pub const CONTROL_QUEUE_LEN_MAX: usize = 8;
/// Most chunks given to one system call; then pings and pongs have their turn.
const GATHER_CHUNKS_MAX: usize = 32;
/// Bytes that the chunks of one system call have together, unless it is one chunk that has more; then pings and pongs
/// have their turn.
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

/// A client that gets events older than this gets a `lag`, which says how far it is behind.
const LAG_MIN: Duration = Duration::from_millis(250);
/// Shortest time between two of these messages.
const LAG_EVERY: Duration = Duration::from_secs(1);
/// How often the thread of a `threadcast.v1` client looks for hangs. A hang is judged after 15 s, so a second more
/// hardly matters, and 1,000 such clients cost a hundredth of a processor.
const NOTICES_EVERY: Duration = Duration::from_secs(1);

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
    /// Takes the place of the two before it where the path is dead and they are shorter.
    pub dead_path_timeout: Duration,
    /// Looks for an order to stand still several times a second.
    pub allow_drill: bool,
}

/// What a writer works with.
#[derive(Debug)]
pub struct Writer {
    pub link: Arc<Link>,
    pub view: Arc<View>,
    pub queue: Receiver<Parcel>,
    pub control: Receiver<Control>,
    pub beat: &'static Beat,
    pub inbox_beat: &'static Beat,
    pub fanout: FanoutHandle,
    pub numbers: Arc<FanoutGauges>,
    pub beats: &'static Beats,
    pub timing: Timing,
    pub limits: v1::Limits,
}

/// A chunk to be written, and where it comes from.
#[derive(Debug)]
struct Pending {
    chunk: Arc<Chunk>,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Events from the queue.
    Events,
    /// A parcel of the queue that became an `initial`.
    Initial,
    /// An `initial` that came with what the client missed.
    Refreshed,
    /// Our own: from the history, or what goes before and behind it.
    Own,
}

/// The thread that has the client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    Ours,
    /// The fan-out sends to it, for microseconds.
    Busy,
}

/// What looking for something to write has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supply {
    /// There is something to write, or to go on with.
    More,
    /// Nothing is there now.
    Empty,
}

/// The state of a running writer.
#[derive(Debug)]
struct Running {
    writer: Writer,
    /// Chunks in hand, not written to the last byte.
    backlog: VecDeque<Pending>,
    /// Parcels taken from the queue that still count as queued.
    in_hand: usize,
    /// An `initial` whose further parts are still to be made; what is in the queue comes behind them.
    initial: Option<(Initial, Source)>,
    catch_up: Option<CatchUp>,
    /// Bytes of the first of them that are written.
    sent_of_first: usize,
    /// Frames that go out between two chunks.
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first of them that are written.
    sent_of_frame: usize,
    next_ping: Instant,
    /// It is time for a ping; it is made when it can go out.
    ping_due: bool,
    next_lag: Instant,
    notices: Notices,
    /// Since when the socket takes nothing.
    blocked_since: Option<Instant>,
    /// When the socket was last found full for too long, its path was dead.
    path_is_dead: bool,
    /// Until when there may be anything written at all; set when the server stops.
    deadline: Option<Instant>,
    /// When this process last came back from not running, [`monotonic_ms`](crate::process::clock::monotonic_ms).
    resumed_ms: u64,
    /// When its socket, having been full, last took bytes again, [`monotonic_ms`](crate::process::clock::monotonic_ms):
    /// the peer reads.
    reads_ms: u64,
    owner: bool,
    /// The frames end with the answer to the client's close frame.
    peer_closed: bool,
}

impl Writer {
    /// Serves the client until its end; returns the reason. The caller has sent the handshake; first in the queue is
    /// what the fan-out has joined the client with, asked for at `begun`.
    pub fn run(self, begun: Instant, joined: &Joined, slow_snapshot: Duration) -> EndReason {
        let now = Instant::now();
        let mut running = Running {
            next_ping: now + self.timing.ping_interval,
            ping_due: false,
            notices: Notices::new(self.beats),
            writer: self,
            backlog: VecDeque::new(),
            in_hand: 0,
            initial: None,
            catch_up: None,
            sent_of_first: 0,
            frames: VecDeque::new(),
            sent_of_frame: 0,
            next_lag: now,
            blocked_since: None,
            path_is_dead: false,
            deadline: None,
            resumed_ms: 0,
            reads_ms: 0,
            owner: true,
            peer_closed: false,
        };
        let reason = running.begin(begun, joined, slow_snapshot).err();
        let reason = reason.unwrap_or_else(|| running.serve());
        // The first reason stands.
        running.writer.link.end(reason);
        let reason = running.writer.link.end_reason().unwrap_or(reason);
        running.finish(reason);
        reason
    }

    fn is_v1(&self) -> bool {
        self.link.protocol() == Protocol::V1
    }
}

impl Running {
    /// Sends what comes first, and says so.
    fn begin(&mut self, begun: Instant, joined: &Joined, slow_snapshot: Duration) -> Result<(), EndReason> {
        if self.writer.is_v1() {
            let hello = v1::Hello {
                epoch: joined.epoch,
                newest: joined.newest,
                after: joined.after,
                client: self.writer.link.id(),
                limits: self.writer.limits,
            };
            let view = &self.writer.view;
            self.put_own(&v1::hello(&hello, &view.filter, view.conflate));
            for notice in self.notices.news() {
                self.put_own(&notice);
            }
        }
        // Before anything else, also before what a client that does not wait for it has been answered already.
        self.take_parcels();
        while !self.backlog.is_empty() {
            self.write_chunks()?;
        }
        self.write_all_there_is()?;
        if let Some(reason) = self.writer.link.end_reason() {
            return Err(reason);
        }
        let (id, took) = (self.writer.link.id(), begun.elapsed());
        if let Some(after) = joined.after {
            log::info!("✅ client {id} goes on after event {after}");
            return Ok(());
        }
        log::info!(
            "✅ snapshot of {} sent to client {id} in {:.2}ms",
            count(joined.machines, "machine"),
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
            self.tell_hangs();
            // Before every wait: the wake-up that told of the end may have been taken while frames were written.
            if let Some(reason) = self.writer.link.end_reason() {
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
        if self.writer.beat.is_held() {
            let _ = self.acquire();
            drill::obey(self.writer.beat);
        }
    }

    fn has_work(&self) -> bool {
        let now = Instant::now();
        let to_replay = self.catch_up.as_ref().is_some_and(|catch_up| catch_up.has_work(now));
        to_replay || self.initial.is_some() || self.ping_due || !self.backlog.is_empty() || !self.frames.is_empty()
    }

    /// Gives the socket back while there is nothing to write; the fan-out sends by itself then.
    fn rest(&mut self) {
        if std::mem::take(&mut self.owner) {
            self.writer.link.handover().release();
        }
    }

    /// Blocks until there is something to write, at most until the next ping is due or silence is to be judged.
    fn wait(&mut self) {
        let asked = self.time_to_wait();
        let begun = Instant::now();
        let _doing = self.writer.beat.begin(Operation::Waiting);
        // What is in the queue comes after what it misses.
        let never_answered = never();
        let answer = self.catch_up.as_ref().and_then(|catch_up| catch_up.asked.as_ref());
        let answer = answer.unwrap_or(&never_answered);
        let never_queued = never();
        let rests = self
            .catch_up
            .as_ref()
            .is_none_or(|catch_up| catch_up.rests(begun).is_some());
        let queue = if rests { &self.writer.queue } else { &never_queued };
        select! {
            recv(answer) -> missed => match missed {
                Ok(missed) => self.take_missed(missed),
                // The fan-out does not have this client any more.
                Err(_) => self.end_without_fanout(),
            },
            recv(queue) -> parcel => match parcel {
                Ok(parcel) => self.take_parcel(parcel),
                Err(_) => { self.writer.link.end(EndReason::Stopping); }
            },
            recv(self.writer.control) -> control => match control {
                Ok(control) => self.take_control(control),
                // The inbox has let go of this client, and has said why unless it is itself at its end.
                Err(_) => { self.writer.link.end(EndReason::Internal); }
            },
            default(asked) => {}
        }
        self.notice_oversleep(asked, begun);
    }

    fn time_to_wait(&self) -> Duration {
        let to_ping = self.next_ping.saturating_duration_since(Instant::now());
        let silent = self.silence();
        let to_judge = self.writer.timing.pong_timeout.saturating_sub(silent).max(LOOK);
        // A fan-out that lets go of a client which catches up cannot say so through its queue, unless it rests.
        let now = Instant::now();
        let rest = self.catch_up.as_ref().and_then(|catch_up| catch_up.rests(now));
        let looks = self.writer.timing.allow_drill || self.catch_up.is_some() && rest.is_none();
        let most = if looks {
            LOOK
        } else if self.writer.is_v1() {
            NOTICES_EVERY
        } else {
            Duration::MAX
        };
        to_ping.min(to_judge).min(most).min(rest.unwrap_or(Duration::MAX))
    }

    /// Writes backlog and frames until there are none, or gives up this turn because the fan-out owns the socket.
    fn write_all_there_is(&mut self) -> Result<(), EndReason> {
        let about = (0, self.writer.link.queued_bytes() as u64);
        let _doing = self.writer.beat.begin_about(Operation::Sending, about);
        if self.acquire() == Socket::Busy {
            pause(BUSY);
            return Ok(());
        }
        loop {
            if self.deadline.is_none() {
                self.take_frames();
                self.keep_alive();
                self.tell_hangs();
                // A client that never stops asking must not keep its own end waiting.
                if self.writer.link.end_reason().is_some() {
                    return Ok(());
                }
            }
            // A begun chunk first; then all frames in hand and some chunks in turn, so that neither starves the other.
            if self.sent_of_first > 0 {
                self.write_chunks()?;
            }
            self.put_ping();
            let had_frames = !self.frames.is_empty();
            while !self.frames.is_empty() {
                self.write_frame()?;
            }
            if self.supply_chunks() == Supply::More {
                self.write_chunks()?;
            } else if !had_frames {
                return Ok(());
            }
        }
    }

    /// Takes what is to be written next from the history or from the queue, unless there is something already.
    fn supply_chunks(&mut self) -> Supply {
        self.tell_lag();
        if !self.backlog.is_empty() || self.put_part() == Supply::More || self.replay() == Supply::More {
            return Supply::More;
        }
        self.take_parcels()
    }

    /// Takes the socket, unless the fan-out has it. Never blocks.
    fn acquire(&mut self) -> Socket {
        if self.owner {
            return Socket::Ours;
        }
        let Some(tail) = self.writer.link.handover().try_acquire() else {
            return Socket::Busy;
        };
        self.owner = true;
        if tail > 0 {
            // The chunk that the fan-out could not finish: in hand already, or first in the queue.
            let found = !self.backlog.is_empty() || self.take_parcels() == Supply::More;
            debug_assert!(found, "a passed-on chunk is in the queue");
            self.sent_of_first = tail;
        }
        Socket::Ours
    }

    /// Moves what waits from the queue to the backlog. While the client catches up, or an `initial` has further parts,
    /// what waits there comes later.
    fn take_parcels(&mut self) -> Supply {
        while self.backlog.len() < GATHER_CHUNKS_MAX && self.catch_up.is_none() && self.initial.is_none() {
            match self.writer.queue.try_recv() {
                Ok(parcel) => self.take_parcel(parcel),
                Err(TryRecvError::Empty) => {
                    if self.writer.link.handover().queued() > self.in_hand {
                        // The rest waits on the fan-out's side for the slots that are free now.
                        self.writer.fanout.nudge();
                    }
                    break;
                }
                Err(TryRecvError::Disconnected) => {
                    self.writer.link.end(EndReason::Stopping);
                    break;
                }
            }
        }
        self.supply()
    }

    /// What is in hand.
    fn supply(&self) -> Supply {
        if self.backlog.is_empty() {
            Supply::Empty
        } else {
            Supply::More
        }
    }

    fn take_parcel(&mut self, parcel: Parcel) {
        self.in_hand += 1;
        match parcel {
            Parcel::Events(chunk) => {
                if self.backlog.is_empty() {
                    self.writer.link.figures().next(chunk.published_us());
                }
                self.put(chunk, Source::Events);
            }
            Parcel::Snapshot(state) => self.put_state(*state, Source::Initial),
            Parcel::Behind(after) => {
                if self.writer.is_v1() {
                    self.put_own(&v1::behind(after));
                }
                self.catch_up = Some(CatchUp::new(after));
            }
            Parcel::Conflate(after) => {
                let period = self.writer.view.conflate.unwrap_or_default();
                self.catch_up = Some(CatchUp::resting(after, Instant::now() + period));
            }
            Parcel::Ask => {
                if let Some(catch_up) = &mut self.catch_up {
                    catch_up.rest_until = None;
                }
                self.queue_item_done();
            }
        }
    }

    fn put(&mut self, chunk: Arc<Chunk>, source: Source) {
        self.backlog.push_back(Pending { chunk, source });
    }

    fn put_own(&mut self, message: &str) {
        self.put(Arc::new(Chunk::message(message.as_bytes())), Source::Own);
    }

    /// Tells a client how far behind what it gets now is.
    fn tell_lag(&mut self) {
        let now = Instant::now();
        if !self.writer.is_v1() || now < self.next_lag {
            return;
        }
        let Some(first) = self.backlog.iter().find(|pending| !pending.chunk.is_message()) else {
            return;
        };
        let age = Duration::from_micros(monotonic_us().saturating_sub(first.chunk.published_us()));
        // What a client has chosen to wait for is no lag.
        let chosen = self.writer.view.conflate.unwrap_or_default();
        if age < LAG_MIN + chosen || self.sent_of_first > 0 {
            return;
        }
        self.next_lag = now + LAG_EVERY;
        let newest = self.writer.numbers.newest.load(Ordering::Relaxed);
        let events = newest.saturating_sub(first.chunk.last());
        self.frames
            .push_back(text_frame(&v1::lag(age.as_millis() as u64, events)));
    }

    /// Tells which components hang, and which do no more. Asks nobody, so it works whatever hangs.
    fn tell_hangs(&mut self) {
        if self.writer.is_v1() {
            let news = self.notices.news();
            self.frames.extend(news.iter().map(|notice| text_frame(notice)));
        }
    }

    fn take_frames(&mut self) {
        // Bounded: the inbox queues at most this many, and waits for us before it queues more.
        for _ in 0..CONTROL_QUEUE_LEN_MAX {
            match self.writer.control.try_recv() {
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
                self.writer.link.end(EndReason::PeerClosed);
            }
            Control::Wake => {}
        }
    }
}
