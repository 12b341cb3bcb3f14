//! Takes datagrams from the socket and puts them into the queue; does nothing else, so that no sender is ever held.
//!
//! Runs on: `ingest`, one.
//! Owns: the datagram socket, those it had before somebody removed their file, and the path's lock.
//! Blocks on: a datagram (250 ms), room in the queue (while the fan-out moves; 5 ms once it stands still).
//! Can be stalled by: the fan-out, for the patience; the file system, once a second, when the socket's folder hangs.
//! Full queue means: datagrams are dropped and counted (`queue_full`), and the stream says so at their place.
//! Ends when: asked to; what the kernel holds then is still taken.
//! Watched as: `ingest`, a core thread.

use crate::liveness::beat::{Beat, Operation};
use crate::liveness::drill;
use crate::pipeline::event::{DropCause, DropTally};
use crate::pipeline::event_socket::{BindError, EventSocket, PathLock, PathState};
use crate::pipeline::intake::{IntakeTx, Pushed};
use crate::process::clock::timespec;
use crate::process::procfs::other_unix_socket_owner;
use crate::process::recvmmsg::DatagramBatch;
use crate::process::stop::Stop;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{Shutdown, shutdown};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a datagram.
const TURN: Duration = Duration::from_millis(250);
/// Datagrams per system call. The kernel holds 10 to 512, so more would seldom be filled.
const BATCH_LEN: usize = 32;
/// System calls per socket and turn, so that one flooded socket does not keep the thread from its other duties.
const BATCHES_PER_TURN: usize = 64;
/// How often the path is looked at.
const PATH_LOOK: Duration = Duration::from_secs(1);
/// How often a lasting loss of the path is said again.
const REMIND: Duration = Duration::from_secs(60);
/// Sockets whose file somebody removed are still drained, because senders stay connected to them; the oldest goes.
const FORMER_SOCKETS_MAX: usize = 8;
/// When stopping, at most this long is spent on what the kernel still holds.
const LAST_DRAIN: Duration = Duration::from_millis(500);

/// What `ingest` shows to whoever asks.
#[derive(Debug, Default)]
pub struct IngestGauges {
    /// Datagrams taken from the kernel.
    pub received: AtomicU64,
    /// Datagrams that were not forwarded.
    pub drops: DropTally,
    path_state: AtomicU8,
}

impl IngestGauges {
    /// What stood at the socket's path when it was last looked at.
    pub fn path_state(&self) -> PathState {
        match self.path_state.load(Ordering::Relaxed) {
            0 => PathState::Ours,
            1 => PathState::Gone,
            2 => PathState::Taken,
            _ => PathState::Blocked,
        }
    }
}

/// The thread's own things.
#[derive(Debug)]
pub struct Ingest {
    socket: EventSocket,
    former: Vec<EventSocket>,
    _lock: PathLock,
    mode: u32,
    batch: DatagramBatch,
    intake: IntakeTx,
    gauges: Arc<IngestGauges>,
    beat: Arc<Beat>,
    stop: Stop,
    path_looked: Instant,
    reminded: Option<Instant>,
}

impl Ingest {
    /// Ready to run with a bound socket whose file has permissions `mode`.
    pub fn new(
        (socket, lock, mode): (EventSocket, PathLock, u32),
        event_bytes_max: usize,
        intake: IntakeTx,
        gauges: Arc<IngestGauges>,
        beat: Arc<Beat>,
        stop: Stop,
    ) -> Ingest {
        Ingest {
            socket,
            former: Vec::new(),
            _lock: lock,
            mode,
            batch: DatagramBatch::new(BATCH_LEN, event_bytes_max),
            intake,
            gauges,
            beat,
            stop,
            path_looked: Instant::now(),
            reminded: None,
        }
    }

    /// The thread's body.
    pub fn run(mut self) {
        while !self.stop.requested() {
            drill::obey(&self.beat);
            self.wait();
            self.receive();
            self.intake.settle();
            if self.path_looked.elapsed() >= PATH_LOOK {
                self.look_at_path();
            }
        }
        self.close_the_door();
        self.last_drain();
        self.beat.enter(Operation::Ended);
    }

    fn wait(&self) {
        self.beat.enter(Operation::Waiting);
        let sockets = std::iter::once(&self.socket).chain(&self.former);
        let mut fds: Vec<PollFd<'_>> = sockets
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
            .collect();
        fds.push(PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN));
        // An interrupted or failed poll costs nothing: receiving does not block, and the next turn polls again.
        let _ = poll(&mut fds, Some(&timespec(TURN)));
    }

    /// Takes what waits. Gives how many datagrams.
    fn receive(&mut self) -> u64 {
        self.beat.enter(Operation::Receiving);
        let before = self.gauges.received.load(Ordering::Relaxed);
        for index in 0..=self.former.len() {
            for _ in 0..BATCHES_PER_TURN {
                let socket = if index == 0 {
                    &self.socket
                } else {
                    &self.former[index - 1]
                };
                match self.batch.receive(socket.as_fd()) {
                    Ok(0) => break,
                    Ok(_) => self.hand_on(),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        log::warn!(
                            "⚠️ cannot receive from {}: {error}; trying again",
                            self.socket.path().display()
                        );
                        break;
                    }
                }
            }
        }
        self.gauges.received.load(Ordering::Relaxed) - before
    }

    fn hand_on(&mut self) {
        for datagram in self.batch.datagrams() {
            self.beat.step();
            self.gauges.received.fetch_add(1, Ordering::Relaxed);
            if datagram.cut {
                let total = self.gauges.drops.add(DropCause::TooLarge, 1);
                log::warn!(
                    "⚠️ dropped an event: {}; it begins {} ({total} so far)",
                    DropCause::TooLarge.text(),
                    beginning(datagram.bytes)
                );
                continue;
            }
            let beat = &self.beat;
            let mut waiting = || beat.enter(Operation::WaitingForRoom);
            match self.intake.push(datagram.bytes, &mut waiting) {
                Pushed::Queued | Pushed::Closed => {}
                Pushed::Dropped => {
                    let total = self.gauges.drops.add(DropCause::QueueFull, 1);
                    log::error!("🚨 dropped an event: {} ({total} so far)", DropCause::QueueFull.text());
                }
            }
        }
    }

    /// Whoever removed or replaced our file took all new senders from us; takes the path back as soon as it is free.
    fn look_at_path(&mut self) {
        self.beat.enter(Operation::CheckingPath);
        self.path_looked = Instant::now();
        let before = self.gauges.path_state();
        let mut state = self.socket.path_state();
        // Moved away and back: the file of a socket that we thought lost stands there again.
        let back = self
            .former
            .iter()
            .position(|former| former.path_state() == PathState::Ours);
        if let Some(index) = back {
            std::mem::swap(&mut self.socket, &mut self.former[index]);
            log::warn!(
                "✅ the former file of event socket {} is back: ours again",
                self.socket.path().display()
            );
            state = PathState::Ours;
        } else if state != PathState::Ours {
            match EventSocket::bind(self.socket.path(), self.mode) {
                Ok(socket) => {
                    self.adopt(socket, state);
                    state = PathState::Ours;
                }
                Err(error) => self.remind(state, &error),
            }
        } else if before != PathState::Ours {
            log::warn!("✅ event socket {} is ours again", self.socket.path().display());
        }
        if state == PathState::Ours {
            self.reminded = None;
        }
        self.gauges.path_state.store(state as u8, Ordering::Relaxed);
    }

    fn adopt(&mut self, socket: EventSocket, was: PathState) {
        let what = match was {
            PathState::Gone => "was removed by somebody",
            _ => "was replaced by a file that no server owns",
        };
        log::warn!(
            "⚠️ event socket {} {what}; bound it again: new senders reach us, and those connected to the old one still do",
            socket.path().display()
        );
        let former = std::mem::replace(&mut self.socket, socket);
        self.former.push(former);
        if self.former.len() > FORMER_SOCKETS_MAX {
            self.former.remove(0);
            log::warn!(
                "⚠️ gave up the oldest of {} former event sockets; its senders must connect again",
                FORMER_SOCKETS_MAX + 1
            );
        }
    }

    fn remind(&mut self, state: PathState, error: &BindError) {
        if self.reminded.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        self.reminded = Some(Instant::now());
        let path = self.socket.path().display();
        match (state, error) {
            (PathState::Taken, BindError::Owned { .. }) => {
                let owner = other_unix_socket_owner(self.socket.path());
                let owner = owner.map_or("a process that we may not look at".to_owned(), |owner| {
                    owner.to_string()
                });
                log::error!(
                    "🚨 another server has taken event socket {path} from us: {owner}; events of senders that connect \
                     from now on go there. Stop it (the UI starts one unless it is given --no-websocket); we take the \
                     path back by ourselves"
                );
            }
            _ => log::error!(
                "🚨 event socket {path} is lost: {error}; {}; trying again every second",
                error.hint()
            ),
        }
    }

    /// From here on every send fails, so that no sender is told of a success that nobody takes from the kernel.
    fn close_the_door(&self) {
        self.socket.remove_file();
        for socket in std::iter::once(&self.socket).chain(&self.former) {
            // It cannot fail for a socket that we hold; what is queued can still be received (unix(7)).
            let _ = shutdown(socket, Shutdown::Read);
        }
    }

    fn last_drain(&mut self) {
        let end = Instant::now() + LAST_DRAIN;
        while self.receive() > 0 && Instant::now() < end {}
        self.intake.settle();
    }
}

/// The first characters of a datagram, for messages; the log makes control characters visible.
pub fn beginning(bytes: &[u8]) -> String {
    const CHARS: usize = 80;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * CHARS)]);
    let mut start: String = text.chars().take(CHARS).collect();
    if start.len() < bytes.len() {
        start.push('…');
    }
    start
}
