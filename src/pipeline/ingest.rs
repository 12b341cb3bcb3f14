//! Takes datagrams from the socket and puts them into the queue; does nothing else, so that no sender is ever held.
//!
//! Runs on: `ingest`, one.
//! Owns: the datagram socket, those it had before somebody removed their file, and the path's lock.
//! Blocks on: a datagram (250 ms), room in the queue (while the fan-out moves; 5 ms once it stands still), 10 ms after
//! an error of a socket.
//! Can be stalled by: the fan-out, for the patience; the file system, once a second, when the socket's folder hangs.
//! Full queue means: datagrams are dropped and counted (`queue_full`), and the stream says so at their place.
//! Ends when: asked to; what the kernel holds then is still taken, unless the socket is one that was passed to us: that
//! holds it for whoever comes next.
//! Watched as: `ingest`, a core thread.

use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::pipeline::event::{DropCause, DropTally};
use crate::pipeline::event_socket::{BindError, EventSocket, PathLock, PathState};
use crate::pipeline::intake::{IntakeTx, Pushed};
use crate::process::clock::{pause, timespec};
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
/// System calls per socket and turn, so that one flooded socket does not keep the thread from the others.
const BATCHES_PER_TURN: usize = 64;
/// How often the path is looked at.
const PATH_LOOK: Duration = Duration::from_secs(1);
/// How often a lasting loss of the path is said again.
const REMIND: Duration = Duration::from_secs(60);
/// Sockets whose file somebody removed are still drained, because senders stay connected to them; the oldest goes.
const FORMER_SOCKETS_MAX: usize = 8;
/// When stopping, at most this long is spent on what the kernel still holds.
const LAST_DRAIN: Duration = Duration::from_millis(300);
/// And this long on telling the fan-out what was dropped at the very end; it is emptying the queue meanwhile.
const LAST_SETTLE: Duration = Duration::from_millis(100);
/// How finely that is tried.
const SETTLE_LOOK: Duration = Duration::from_millis(1);
/// After an error of a socket, which stays ready to be read: out of memory, this thread must not eat the processor too.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// What `ingest` shows to whoever asks.
#[derive(Debug, Default)]
pub struct IngestGauges {
    /// Datagrams taken from the kernel.
    pub received: AtomicU64,
    /// Their bytes; of one that is too large, those that it was cut to.
    pub received_bytes: AtomicU64,
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
    beat: &'static Beat,
    stop: Stop,
    path_looked: Instant,
    reminded: Option<Instant>,
    /// Which socket is received from first in the next turn; taken modulo their number.
    next_socket: usize,
}

impl Ingest {
    /// Ready to run with a bound socket whose file has permissions `mode`.
    pub fn new(
        (socket, lock, mode): (EventSocket, PathLock, u32),
        event_bytes_max: usize,
        intake: IntakeTx,
        gauges: Arc<IngestGauges>,
        beat: &'static Beat,
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
            next_socket: 0,
        }
    }

    /// The thread's body.
    pub fn run(mut self) {
        self.beat.adopt();
        while !self.stop.requested() {
            drill::obey(self.beat);
            self.wait();
            self.receive(&Ingest::has_another_duty);
            self.intake.settle();
            if self.is_path_look_due() {
                self.look_at_path();
            }
        }
        self.close_the_door();
        self.last_drain();
        self.beat.turn_to(Operation::Ended);
    }

    fn wait(&self) {
        let _doing = self.beat.begin(Operation::Waiting);
        let sockets = std::iter::once(&self.socket).chain(&self.former);
        let mut fds: Vec<PollFd<'_>> = sockets
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
            .collect();
        fds.push(PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN));
        // An interrupted or failed poll costs nothing: receiving does not block, and the next turn polls again.
        let _ = poll(&mut fds, Some(&timespec(TURN)));
    }

    fn is_path_look_due(&self) -> bool {
        self.path_looked.elapsed() >= PATH_LOOK
    }

    fn has_another_duty(&self) -> bool {
        self.stop.requested() || self.is_path_look_due()
    }

    /// Takes what waits until nothing does, every socket has had its share, or `interrupted` says so, which is asked
    /// after every system call that gave something. Gives how many datagrams.
    fn receive(&mut self, interrupted: &dyn Fn(&Ingest) -> bool) -> u64 {
        let _doing = self.beat.begin(Operation::Receiving);
        let before = self.gauges.received.load(Ordering::Relaxed);
        let sockets = 1 + self.former.len();
        for _ in 0..sockets {
            let index = self.next_socket % sockets;
            // Even if every turn is interrupted at its first socket, each has its turn.
            self.next_socket = index + 1;
            if !self.receive_share(index, interrupted) {
                break;
            }
        }
        self.gauges.received.load(Ordering::Relaxed) - before
    }

    /// Receives from one socket; whether there is time for the next one.
    fn receive_share(&mut self, index: usize, interrupted: &dyn Fn(&Ingest) -> bool) -> bool {
        for _ in 0..BATCHES_PER_TURN {
            let socket = if index == 0 {
                &self.socket
            } else {
                &self.former[index - 1]
            };
            match self.batch.receive(socket.as_fd()) {
                Ok(0) => return true,
                Ok(_) => self.hand_on(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::warn!(
                        "⚠️ cannot receive from {}: {error}; trying again",
                        self.socket.path().display()
                    );
                    pause(AFTER_ERROR);
                    return true;
                }
            }
            if interrupted(self) {
                return false;
            }
        }
        true
    }

    fn hand_on(&mut self) {
        for datagram in self.batch.datagrams() {
            self.beat.step();
            self.gauges.received.fetch_add(1, Ordering::Relaxed);
            self.gauges
                .received_bytes
                .fetch_add(datagram.bytes.len() as u64, Ordering::Relaxed);
            if datagram.cut {
                let total = self.gauges.drops.add(DropCause::TooLarge, 1);
                log::warn!(
                    "⚠️ dropped an event: {}; it begins {} ({total} so far)",
                    DropCause::TooLarge.text(),
                    beginning(datagram.bytes)
                );
                self.intake.lose(DropCause::TooLarge);
                continue;
            }
            let mut waits = None;
            let mut waiting = || {
                waits.get_or_insert_with(|| self.beat.begin(Operation::WaitingForRoom));
                self.beat.step();
            };
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
        let _doing = self.beat.begin(Operation::CheckingPath);
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
            match self.socket.bind_again(self.mode) {
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
                // Looking for its process takes tens of milliseconds in which senders would wait for us.
                log::error!(
                    "🚨 another server has taken event socket {path} from us; events of senders that connect from now \
                     on go there. Stop it (/health tells which process it is; the UI starts one unless it is given \
                     --no-websocket); we take the path back by ourselves"
                );
            }
            (_, BindError::Passed { .. }) => {
                let what = match state {
                    PathState::Taken => "another server has taken",
                    PathState::Blocked => "something that is no socket has replaced",
                    PathState::Gone | PathState::Ours => "somebody has removed",
                };
                log::error!(
                    "🚨 {what} event socket {path}: events of senders that connect from now on do not reach us. {error}: \
                     {}",
                    error.hint()
                );
            }
            _ => log::error!(
                "🚨 event socket {path} is lost: {error}; {}; trying again every second",
                error.hint()
            ),
        }
    }

    /// From here on every send fails, so that no sender is told of a success that nobody takes from the kernel. Not so
    /// with a passed socket, which our successor takes from: shutting it down would end it for everybody.
    fn close_the_door(&self) {
        if self.socket.is_passed() {
            return;
        }
        self.socket.remove_file();
        self.gauges.path_state.store(PathState::Gone as u8, Ordering::Relaxed);
        for socket in std::iter::once(&self.socket).chain(&self.former) {
            // It cannot fail for a socket that we hold; what is queued can still be received (unix(7)).
            let _ = shutdown(socket, Shutdown::Read);
        }
    }

    fn last_drain(&mut self) {
        let end = Instant::now() + LAST_DRAIN;
        while !self.socket.is_passed() && self.receive(&|_| Instant::now() >= end) > 0 && Instant::now() < end {}
        self.last_settle(|| pause(SETTLE_LOOK));
    }

    /// Insists, because a queue that is too full now would leave it untold for ever what is missing at the end.
    fn last_settle(&mut self, mut wait: impl FnMut()) {
        let end = Instant::now() + LAST_SETTLE;
        let mut untold = self.intake.settle();
        while untold > 0 && Instant::now() < end {
            let _doing = self.beat.begin(Operation::WaitingForRoom);
            wait();
            untold = self.intake.settle();
        }
        if untold > 0 {
            log::error!("🚨 {untold} events at the very end were dropped: the queue was full when the server stopped");
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beat::tests::beats;
    use crate::pipeline::event_socket::lock;
    use crate::pipeline::intake::{Entry, INTAKE_LEN_MAX, IntakeRx, intake};
    use std::os::unix::net::UnixDatagram;

    fn ready() -> (tempfile::TempDir, Ingest, IntakeRx, Stop) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock");
        let beats = beats();
        let stop = Stop::new().unwrap();
        let patience = Duration::from_millis(1);
        let (tx, rx, _gauge) = intake(beats.fanout, patience, stop.clone());
        let sockets = (EventSocket::bind(&path, 0o600).unwrap(), lock(&path).unwrap(), 0o600);
        let gauges = Arc::new(IngestGauges::default());
        let ingest = Ingest::new(sockets, 1024, tx, gauges, beats.ingest, stop.clone());
        (folder, ingest, rx, stop)
    }

    fn send(ingest: &Ingest, text: &str) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(text.as_bytes(), ingest.socket.path()).unwrap();
    }

    fn datagram(rx: &IntakeRx) -> String {
        match rx.try_recv().unwrap() {
            Entry::Datagram(bytes) => String::from_utf8(bytes.into()).unwrap(),
            lost => panic!("{lost:?}"),
        }
    }

    #[test]
    fn a_flood_keeps_no_socket_and_no_duty_waiting() {
        let (_folder, mut ingest, rx, stop) = ready();
        send(&ingest, "former");
        std::fs::remove_file(ingest.socket.path()).unwrap();
        let socket = ingest.socket.bind_again(0o600).unwrap();
        ingest.adopt(socket, PathState::Gone);
        send(&ingest, "new");

        // As in a flood: interrupted after each system call, long before any socket is empty.
        assert_eq!(ingest.receive(&|_| true), 1);
        assert_eq!(datagram(&rx), "new");
        assert_eq!(ingest.receive(&|_| true), 1);
        assert_eq!(datagram(&rx), "former");

        assert!(!ingest.has_another_duty());
        ingest.path_looked -= PATH_LOOK;
        assert!(ingest.has_another_duty());
        ingest.look_at_path();
        assert!(!ingest.has_another_duty());
        stop.request();
        assert!(ingest.has_another_duty());
    }

    #[test]
    fn a_socket_that_fails_is_not_asked_in_a_circle() {
        const TURNS: u32 = 5;
        let (_folder, mut ingest, rx, _stop) = ready();
        ingest.former.push(EventSocket::broken());
        send(&ingest, "still received");
        let begun = Instant::now();
        for _ in 0..TURNS {
            ingest.wait();
            ingest.receive(&Ingest::has_another_duty);
        }
        assert!(begun.elapsed() >= TURNS * AFTER_ERROR);
        assert_eq!(datagram(&rx), "still received");
    }

    #[test]
    fn what_is_dropped_at_the_very_end_is_still_told() {
        let (_folder, mut ingest, rx, _stop) = ready();
        for _ in 0..INTAKE_LEN_MAX {
            assert_eq!(ingest.intake.push(b"x", &mut || ()), Pushed::Queued);
        }
        send(&ingest, "one too many");
        assert_eq!(ingest.receive(&|_| true), 1);
        assert_eq!(ingest.gauges.drops.count(DropCause::QueueFull), 1);
        let mut taken = Vec::new();
        // The queue is full until ingest waits.
        ingest.last_settle(|| taken.extend(std::iter::from_fn(|| rx.try_recv().ok())));
        taken.extend(std::iter::from_fn(|| rx.try_recv().ok()));
        assert_eq!(taken.len(), INTAKE_LEN_MAX + 1);
        assert_eq!(taken.last(), Some(&Entry::Lost(1, DropCause::QueueFull)));
    }
}
