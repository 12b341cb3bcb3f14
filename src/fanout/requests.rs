//! Everybody's way to ask the fan-out, and what it shows to pages and the heartbeat.
//!
//! Client threads call this. Every call is bounded; a fan-out that does not answer is an error, not a wait.

use crate::outbox::link::{StateAsOf, Subscriber};
use crate::process::bell::Bell;
use crate::process::clock::monotonic_ms;
use crate::process::locks::try_lock;
use crate::stream::batch::Batch;
use crate::stream::event::Refused;
use crate::stream::event::Seq;
use crate::stream::learned::state::State;
use crate::stream::machines::Snapshot;
use crate::stream::machines::dwell::Verdict;
use crate::stream::machines::merge::EngineRow;
use crate::stream::machines::recovered::RecoveredTo;
use crate::stream::machines::survey::Survey;
use crate::stream::notice::Notice;
use crate::stream::position::{Epoch, Position};
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Requests that wait. Full policy: the thread that asks waits, at most [`ANSWER_TIMEOUT`].
const REQUESTS_QUEUE_LEN_MAX: usize = 1024;
/// How long a client's thread waits for an answer; then it says so to its client instead of hanging.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the fan-out shows; any thread may read it.
#[derive(Debug, Default)]
pub struct FanoutGauges {
    /// Clients that receive events.
    pub clients: AtomicUsize,
    /// Events forwarded.
    pub events: AtomicU64,
    /// The numbering; empty until the fan-out is made.
    pub epoch: OnceLock<Epoch>,
    /// The last number given.
    pub newest: AtomicU64,
    /// The number up to which everything has been offered to every client that keeps up. Stored with Release after the
    /// last of them: a thread that loads it with Acquire sees what was queued for a client before.
    pub offered: AtomicU64,
    /// Memory of the history, in bytes.
    pub history_bytes: AtomicUsize,
    /// The number after which everything is in the history.
    pub history_after: AtomicU64,
    /// Clients that catch up.
    pub behind: AtomicUsize,
    /// Machines in the table.
    pub machines: AtomicUsize,
    /// Machines that had to leave the full table.
    pub machines_evicted: AtomicU64,
    /// Rows for which the last plain `initial` without a filter had no room.
    pub machines_left_out: AtomicUsize,
    /// Events whose machine is too large for the table.
    pub machines_untabled: AtomicU64,
    /// What was learned, with its version, as of the end of the fan-out; empty until then.
    pub learned_at_last: OnceLock<(u64, Vec<Arc<State>>)>,
    /// When the last event was forwarded: the bits of an f64, seconds since the epoch; 0 for never.
    pub(super) last_event: AtomicU64,
    /// The same in milliseconds of the monotonic clock, and 1; 0 for never.
    pub(super) last_event_ms: AtomicU64,
    /// Both sides only try the lock, so nobody waits for it, and what is read belongs together.
    backlog: Mutex<Backlog>,
}

/// What waited for clients that do not keep up, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Clients for which events waited.
    pub clients: usize,
    /// Bytes of these events, as if each client had its own copy.
    pub bytes: usize,
    /// The client with the largest backlog: its number, and its bytes.
    pub largest: Option<(u64, usize)>,
    /// When the fan-out looked, [`monotonic_ms`].
    pub measured_ms: u64,
}

impl Backlog {
    /// Adds client number `client` with `bytes` of events waiting.
    pub(super) fn add(&mut self, client: u64, bytes: usize) {
        self.clients += 1;
        self.bytes += bytes;
        if self.largest.is_none_or(|(_, largest)| bytes > largest) {
            self.largest = Some((client, bytes));
        }
    }
}

impl FanoutGauges {
    /// When the last event was forwarded, seconds since the epoch.
    pub fn last_event(&self) -> Option<f64> {
        match self.last_event.load(Ordering::Relaxed) {
            0 => None,
            bits => Some(f64::from_bits(bits)),
        }
    }

    /// How long ago the last event was forwarded, whatever the wall clock did since.
    pub fn last_event_age(&self) -> Option<Duration> {
        let at = self.last_event_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(monotonic_ms().saturating_sub(at)))
    }

    /// A document was made of `snapshot`: shows what the plain one leaves out, if it was that.
    pub fn show_left_out(&self, snapshot: &Snapshot) {
        if let Some(left_out) = snapshot.left_out() {
            self.machines_left_out.store(left_out, Ordering::Relaxed);
        }
    }

    /// The backlog as the fan-out saw it last; `None` in the moment in which it writes that down. Never blocks.
    pub fn backlog(&self) -> Option<Backlog> {
        try_lock(&self.backlog).map(|backlog| *backlog)
    }

    /// Shows the backlog. Returns whether it could: not while somebody reads the last one. Never blocks.
    pub(super) fn try_show_backlog(&self, backlog: Backlog) -> bool {
        let Some(mut shown) = try_lock(&self.backlog) else {
            return false;
        };
        *shown = backlog;
        true
    }
}

/// What other threads ask of the fan-out.
#[derive(Debug)]
pub(super) enum Request {
    /// Bring this client to the live stream: everything after its position, or the state as of now.
    CatchUp {
        subscriber: Subscriber,
        start: Start,
        reply: Sender<Joined>,
    },
    /// What does the history have before this number?
    Past {
        before: Seq,
        reply: Sender<PastPage>,
    },
    /// What does this client, which is behind, miss?
    Missed {
        client: u64,
        reply: Sender<Missed>,
    },
    Snapshot {
        reply: Sender<Arc<Snapshot>>,
    },
    Survey {
        reply: Sender<Arc<Survey>>,
    },
    Findings {
        findings: Findings,
        reply: Sender<bool>,
    },
    Forget {
        machine: String,
        reply: Sender<bool>,
    },
    TakeIn {
        found: Found,
        reply: Sender<()>,
    },
    /// Some client has ended, wants a refresh or has room again; see [`FanoutHandle::nudge`].
    Nudge,
}

/// What thread `detector` found of machines.
#[derive(Debug)]
pub struct Findings {
    /// Machines that stay too long, each with the number of its dwell. None: what was found is over.
    pub machines: Vec<(Box<str>, u64, Verdict)>,
    /// The event that tells of it; `None`: an earlier one did.
    pub told: Option<Notice>,
}

/// What thread `enginedb` found in the engine's database: a part of it, small enough for one turn.
#[derive(Debug, Default)]
pub struct Found {
    /// Events that engines could not send, in their order.
    pub events: Vec<Refused>,
    /// How far that is.
    pub recovered_to: Option<RecoveredTo>,
    /// Nothing more of these comes for now.
    pub all_recovered: bool,
    pub rows: Vec<EngineRow>,
    /// Machines whose rows are gone.
    pub vanished: Vec<Box<str>>,
    /// All rows of a database that could not be read when the server started are in: who has come since has not seen
    /// them.
    pub came_late: bool,
}

/// Where a client's stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the state as of now.
    State,
    /// After what the client says that it has: what is not in the history any more is missing.
    After(Position),
    /// After this number, found in the history a moment ago; or with the oldest that is still there.
    Past(Position),
}

/// A part of the history.
#[derive(Debug)]
pub struct PastPage {
    pub epoch: Epoch,
    /// The oldest first; none when there is nothing before.
    pub batches: Vec<Arc<Batch>>,
    /// Every number after this one is in the history.
    pub reaches: Seq,
}

/// How a client was joined. What comes first is in its queue; whatever is published from then on comes behind it.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    pub epoch: Epoch,
    /// The last number given.
    pub newest: Seq,
    /// It catches up from this number on; `None`: it begins with the state as of the newest.
    pub after: Option<Seq>,
    /// Machines in that state.
    pub machines: usize,
}

/// What a client that is behind gets next.
#[derive(Debug)]
pub enum Missed {
    /// Everything after number `after` up to the last of these.
    Batches {
        batches: Vec<Arc<Batch>>,
        after: Seq,
        /// The next to come is in its queue, or is asked for a period later; else it has to ask again.
        complete: bool,
        /// The state behind them, which a client that conflates has asked for.
        state: Option<Box<StateAsOf>>,
    },
    /// The history does not reach any more: the state now. The next to come is in its queue.
    State(StateAsOf),
}

/// Why the fan-out gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Not within [`ANSWER_TIMEOUT`].
    Late,
    /// It is over: the server stops.
    Over,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::Late => write!(f, "the fan-out did not answer within {ANSWER_TIMEOUT:?}"),
            Unanswered::Over => write!(f, "the server is stopping"),
        }
    }
}

impl std::error::Error for Unanswered {}

/// Everybody's way to ask the fan-out.
#[derive(Clone, Debug)]
pub struct FanoutHandle {
    requests: Sender<Request>,
    attention: Arc<AtomicBool>,
    bell: Bell,
}

impl FanoutHandle {
    /// Makes the handle and the end of the fan-out, which `bell` wakes.
    pub fn new(bell: Bell) -> (FanoutHandle, FanoutRequests) {
        let (requests, rx) = bounded(REQUESTS_QUEUE_LEN_MAX);
        let attention = Arc::new(AtomicBool::new(false));
        let handle = FanoutHandle {
            requests,
            attention: Arc::clone(&attention),
            bell,
        };
        (handle, FanoutRequests { rx, attention })
    }

    /// Asks for a client to be brought to the live stream, beginning with `start`.
    ///
    /// Blocks at most twice [`ANSWER_TIMEOUT`].
    ///
    /// # Errors
    /// The fan-out has not answered in time, or is over. The caller ends the client: it was not joined, or the fan-out
    /// lets go of it at its next look.
    pub fn catch_up(&self, subscriber: Subscriber, start: Start) -> Result<Joined, Unanswered> {
        self.ask(|reply| Request::CatchUp {
            subscriber,
            start,
            reply,
        })
    }

    /// Asks for a part of the history that begins before number `before`. Blocks as [`FanoutHandle::catch_up`].
    ///
    /// # Errors
    /// The fan-out has not answered in time, or is over; the caller may ask again for the same part.
    pub fn past(&self, before: Seq) -> Result<PastPage, Unanswered> {
        self.ask(|reply| Request::Past { before, reply })
    }

    /// Asks what a client that is behind misses; the answer comes on the channel, which ends without one if the fan-out
    /// does not have that client any more. Never blocks.
    ///
    /// # Errors
    /// [`Unanswered::Late`] if its queue is full: the caller asks again later. [`Unanswered::Over`] if the server
    /// stops.
    pub fn ask_missed(&self, client: u64) -> Result<Receiver<Missed>, Unanswered> {
        self.ask_soon(|reply| Request::Missed { client, reply })
    }

    fn ask_soon<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<Receiver<T>, Unanswered> {
        let (reply, answer) = bounded(1);
        match self.requests.try_send(request(reply)) {
            Ok(()) => {
                self.bell.ring();
                Ok(answer)
            }
            Err(TrySendError::Full(_)) => Err(Unanswered::Late),
            Err(TrySendError::Disconnected(_)) => Err(Unanswered::Over),
        }
    }

    /// Asks for the state as of now. Blocks as [`FanoutHandle::catch_up`].
    ///
    /// # Errors
    /// The fan-out has not answered in time, or is over; the caller answers its own client with 503.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, Unanswered> {
        self.ask(|reply| Request::Snapshot { reply })
    }

    /// Asks what is known of all machines, as of now or up to a second ago. Blocks as [`FanoutHandle::catch_up`].
    ///
    /// # Errors
    /// The fan-out has not answered in time, or is over; the caller answers its own client with 503.
    pub fn survey(&self) -> Result<Arc<Survey>, Unanswered> {
        self.ask(|reply| Request::Survey { reply })
    }

    /// As [`FanoutHandle::survey`]; the answer comes on the channel. Never blocks.
    ///
    /// # Errors
    /// As [`FanoutHandle::ask_missed`].
    pub fn ask_survey(&self) -> Result<Receiver<Arc<Survey>>, Unanswered> {
        self.ask_soon(|reply| Request::Survey { reply })
    }

    /// Leaves what was found of machines, to be noted and told to everybody. On the channel comes whether it was: not
    /// if all of them have moved meanwhile. Never blocks.
    ///
    /// # Errors
    /// As [`FanoutHandle::ask_missed`].
    pub fn tell(&self, findings: Findings) -> Result<Receiver<bool>, Unanswered> {
        self.ask_soon(|reply| Request::Findings { findings, reply })
    }

    /// Asks for a machine to be removed. Returns whether there was one of that name. Blocks as
    /// [`FanoutHandle::catch_up`].
    ///
    /// # Errors
    /// The fan-out has not answered in time, or is over. A late fan-out may still remove the machine.
    pub fn forget(&self, machine: String) -> Result<bool, Unanswered> {
        self.ask(|reply| Request::Forget { machine, reply })
    }

    /// Leaves what was found in the engine's database, once; calls `wait` again and again until it is taken in, with a
    /// channel that is ready then. Whether it was: not if `wait` gave up, or the fan-out is over.
    pub fn take_in(&self, found: Found, mut wait: impl FnMut(Option<&Receiver<()>>) -> bool) -> bool {
        let (reply, answer) = bounded(1);
        let mut request = Request::TakeIn { found, reply };
        loop {
            match self.requests.try_send(request) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => request = back,
                Err(TrySendError::Disconnected(_)) => return false,
            }
            if !wait(None) {
                return false;
            }
        }
        self.bell.ring();
        loop {
            match answer.try_recv() {
                Ok(()) => return true,
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) if wait(Some(&answer)) => {}
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T, Unanswered> {
        let (reply, answer) = bounded(1);
        self.requests
            .send_timeout(request(reply), ANSWER_TIMEOUT)
            .map_err(|error| {
                if error.is_timeout() {
                    Unanswered::Late
                } else {
                    Unanswered::Over
                }
            })?;
        self.bell.ring();
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(|error| {
            if error.is_timeout() {
                Unanswered::Late
            } else {
                Unanswered::Over
            }
        })
    }

    /// Makes the fan-out look through its clients for those that have ended, want a refresh, or
    /// have room again. Never blocks.
    pub fn nudge(&self) {
        // Release: what the caller wrote to the client's link before comes with it.
        self.attention.store(true, Ordering::Release);
        // With a full queue the fan-out is awake, and looks at the flag at its next turn.
        let _ = self.requests.try_send(Request::Nudge);
        self.bell.ring();
    }
}

/// The fan-out's end of [`FanoutHandle`].
#[derive(Debug)]
pub struct FanoutRequests {
    pub(super) rx: Receiver<Request>,
    pub(super) attention: Arc<AtomicBool>,
}
