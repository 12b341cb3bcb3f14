//! Takes datagrams from the sockets and puts them into the queue: what `ingest` does, and `fanout` while it is idle.
//!
//! An event that wakes `ingest`, which then wakes `fanout`, costs two wakes; on an idle host each is dearer than
//! sending the event to fifty clients. So both wait for datagrams, and the kernel wakes `fanout` if it waits, else
//! `ingest` (EPOLLEXCLUSIVE, epoll_ctl(2): one waiter per datagram, in the order in which they were added, and who does
//! not wait in its epoll instance does not count). The thread that receives has the [`Receiver`] locked until all that
//! it took is in the queue, so the queue has the order of the socket whichever it was. `fanout` only tries the lock,
//! takes a handful, and only into an empty queue; `ingest` tries it again and again. Neither waits for the other longer
//! than a look, and either alone keeps the stream going, unless the other one hangs with the lock in hand.

use crate::intake::IntakeSettings;
use crate::intake::event_socket::EventSocket;
use crate::intake::gauges::IngestGauges;
use crate::intake::queue::{IntakeTx, Pushed};
use crate::liveness::beat::Beat;
use crate::liveness::operation::Operation;
use crate::process::bell::Bell;
use crate::process::clock::timespec;
use crate::process::locks::try_lock;
use crate::process::recvmmsg::DatagramBatch;
use crate::process::waits;
use crate::stream::event::DropCause;
use crate::stream::event::beginning;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Datagrams per system call. The kernel holds 10 to 512, so more would seldom be filled.
const BATCH_LEN: usize = 32;
/// As many as the idle fan-out takes at once: of the largest events they fill a quarter of the empty queue.
const FEW: usize = 8;
/// System calls per socket and turn, so that one flooded socket does not keep the thread from the others.
const BATCHES_PER_TURN: usize = 64;
/// The kernel has told the idle fan-out alone of a datagram, and `ingest` has the lock: most likely it takes that
/// datagram, but it may have looked before. So the fan-out waits for its bell for 2 ms, and then looks itself.
const LEFT_LOOK: Duration = Duration::from_millis(2);
/// The epoll key of the fan-out's bell.
const BELL_KEY: u64 = 0;
/// The epoll key of the sockets that the fan-out waits for.
const DATAGRAMS_KEY: u64 = 1;

/// The sockets, and the queue's end. The thread that has it locked receives.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<EventSocket>,
    /// Sockets whose file somebody removed are still received from, because senders stay connected to them.
    former: Vec<Arc<EventSocket>>,
    batch: DatagramBatch,
    /// `None` once nothing more is to be received.
    intake: Option<IntakeTx>,
    gauges: Arc<IngestGauges>,
    /// Which socket is received from first in the next turn; taken modulo their number.
    next_socket: usize,
    /// Where `ingest` waits.
    sleep: Arc<OwnedFd>,
    /// Where `fanout` waits.
    fanout_sleep: Arc<OwnedFd>,
}

impl Receiver {
    /// Receives from `socket` into `intake`, from [`Receiver::start`] on.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new(
        socket: EventSocket,
        settings: IntakeSettings,
        intake: IntakeTx,
        gauges: Arc<IngestGauges>,
        fanout: &FanoutSleep,
    ) -> io::Result<Receiver> {
        Ok(Receiver {
            socket: Arc::new(socket),
            former: Vec::new(),
            batch: DatagramBatch::new(BATCH_LEN, settings.event_bytes_max),
            intake: Some(intake),
            gauges,
            next_socket: 0,
            sleep: Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?),
            fanout_sleep: Arc::clone(&fanout.epoll),
        })
    }

    /// `ingest`, when everything else runs: from here on datagrams are waited for and taken.
    pub(super) fn start(&self) {
        self.wait_for_or_say(&self.socket);
    }

    fn wait_for_or_say(&self, socket: &EventSocket) {
        // Without descriptors or memory for it, it is still looked at in every turn of `ingest`.
        if let Err(error) = self.wait_for(socket) {
            log::warn!("⚠️ events come in turns of 250 ms, because their socket cannot be waited for: {error}");
        }
    }

    /// Both wait for the datagrams of `socket` from here on, `fanout` first.
    fn wait_for(&self, socket: &EventSocket) -> io::Result<()> {
        for epoll in [&self.fanout_sleep, &self.sleep] {
            let exclusive = EventFlags::IN | EventFlags::EXCLUSIVE;
            epoll::add(epoll, socket, EventData::new_u64(DATAGRAMS_KEY), exclusive)?;
        }
        Ok(())
    }

    /// The idle fan-out does not wait for `socket` any more.
    fn leave_to_ingest(&self, socket: &EventSocket) {
        // It fails only when it does not wait for it.
        let _ = epoll::delete(&self.fanout_sleep, socket);
    }

    /// Where `ingest` waits: readable when a socket is.
    pub(super) fn sleep(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.sleep)
    }

    /// The socket at our path, and those that were there before; to look at without the receiver in hand.
    pub(super) fn sockets(&self) -> (Arc<EventSocket>, Vec<Arc<EventSocket>>) {
        (Arc::clone(&self.socket), self.former.clone())
    }

    /// `socket` takes the place of the one at our path, which is received from as long as it is one of the last `most`.
    pub(super) fn adopt(&mut self, socket: EventSocket, most: usize) -> Former {
        self.wait_for_or_say(&socket);
        self.leave_to_ingest(&self.socket);
        self.former.push(std::mem::replace(&mut self.socket, Arc::new(socket)));
        if self.former.len() <= most {
            return Former::Kept;
        }
        self.former.remove(0);
        Former::OldestGivenUp
    }

    /// The file of former socket `index` stands at our path again.
    pub(super) fn take_back(&mut self, index: usize) {
        self.leave_to_ingest(&self.socket);
        std::mem::swap(&mut self.socket, &mut self.former[index]);
        // `ingest` waits for it already, so that the order of the two would be wrong.
        let _ = epoll::delete(&self.sleep, &self.socket);
        self.wait_for_or_say(&self.socket);
    }

    /// `ingest`: takes what waits until nothing does, every socket has had its share, or `interrupted` says so, which
    /// is asked after every system call that gave something. Returns how many datagrams.
    pub(super) fn receive(&mut self, beat: &'static Beat, interrupted: &dyn Fn() -> bool) -> u64 {
        let _doing = beat.begin(Operation::Receiving);
        let mut received = 0;
        let sockets = 1 + self.former.len();
        for _ in 0..sockets {
            let index = self.next_socket % sockets;
            // Even if every turn is interrupted at its first socket, each has its turn.
            self.next_socket = index + 1;
            if self.receive_share(index, beat, interrupted, &mut received) == Share::Interrupted {
                break;
            }
        }
        received
    }

    /// Receives from one socket.
    fn receive_share(
        &mut self,
        index: usize,
        beat: &'static Beat,
        interrupted: &dyn Fn() -> bool,
        received: &mut u64,
    ) -> Share {
        for _ in 0..BATCHES_PER_TURN {
            let socket = match index {
                0 => &self.socket,
                _ => &self.former[index - 1],
            };
            match self.batch.receive(socket.as_fd(), BATCH_LEN) {
                Ok(0) => {
                    waits::EVENT_SOCKET.judge(Ok(()));
                    return Share::Had;
                }
                Ok(count) => {
                    *received += count as u64;
                    self.hand_on(beat);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::warn!(
                        "⚠️ cannot receive from {}: {error}; trying again",
                        self.socket.path().display()
                    );
                    // Stands back, and shows in `/health` if it lasts.
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    waits::EVENT_SOCKET.judge::<()>(Err(errno));
                    return Share::Had;
                }
            }
            if interrupted() {
                return Share::Interrupted;
            }
        }
        Share::Had
    }

    /// `fanout`: takes a few datagrams into the queue if that is empty. Returns which thread is to receive next.
    fn receive_few(&mut self, beat: &'static Beat) -> Next {
        match &self.intake {
            None => return Next::Ingest,
            // What waits there came before, and is taken from it first; an empty one has room for these few.
            Some(intake) if !intake.is_empty() => return Next::Fanout,
            Some(_) => {}
        }
        let _doing = beat.begin(Operation::Receiving);
        match self.batch.receive(self.socket.as_fd(), FEW) {
            Ok(0) => Next::Fanout,
            Ok(_) => {
                self.hand_on(beat);
                Next::Fanout
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Next::Fanout,
            Err(_) => Next::Ingest,
        }
    }

    fn hand_on(&mut self, beat: &'static Beat) {
        let Some(intake) = &mut self.intake else {
            return;
        };
        for datagram in self.batch.datagrams() {
            beat.step();
            self.gauges.received.fetch_add(1, Ordering::Relaxed);
            self.gauges
                .received_bytes
                .fetch_add(datagram.bytes.len() as u64, Ordering::Relaxed);
            if datagram.cut {
                let total = self.gauges.drops.add(DropCause::TooLarge);
                log::warn!(
                    "⚠️ dropped an event: {}; it begins {} ({total} so far)",
                    DropCause::TooLarge.text(),
                    beginning(datagram.bytes)
                );
                intake.lose(DropCause::TooLarge);
                continue;
            }
            let mut waits = None;
            let mut waiting = || {
                waits.get_or_insert_with(|| beat.begin(Operation::WaitingForRoom));
                beat.step();
            };
            match intake.push(datagram.bytes, &mut waiting) {
                Pushed::Queued | Pushed::Closed => {}
                Pushed::Dropped => {
                    let total = self.gauges.drops.add(DropCause::QueueFull);
                    log::error!("🚨 dropped an event: {} ({total} so far)", DropCause::QueueFull.text());
                }
            }
        }
    }

    /// `ingest`: tells the fan-out what is missing although no further datagram came. Returns how many datagrams it
    /// could not tell of yet.
    pub(super) fn settle(&mut self) -> u64 {
        self.intake.as_mut().map_or(0, IntakeTx::settle)
    }

    /// The server stops: from here on only `ingest` receives.
    pub(super) fn leave_all_to_ingest(&self) {
        self.leave_to_ingest(&self.socket);
    }

    /// Nothing more comes; the fan-out ends when it has taken what waits.
    pub(super) fn close(&mut self) {
        if let Some(intake) = self.intake.take() {
            intake.close();
        }
    }
}

/// What became of the sockets that were at our path before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// All of them are still received from.
    Kept,
    /// There were too many: the oldest is closed.
    OldestGivenUp,
}

/// How a socket's part of a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// Nothing waits at it any more, or it has had as much as one socket gets in a turn, or it failed.
    Had,
    /// The thread has another duty.
    Interrupted,
}

/// The thread that is to receive next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The fan-out goes on.
    Fanout,
    /// `ingest` has the lock, or a fault of the socket is its to tell.
    Ingest,
}

/// How the fan-out waits: for its bell, and for datagrams while nobody else takes them.
#[derive(Debug)]
pub struct FanoutSleep {
    bell: Bell,
    epoll: Arc<OwnedFd>,
    /// The last wait found the socket readable.
    datagrams: bool,
    /// It belongs to `ingest`, with which the queue ends.
    receiver: Weak<Mutex<Receiver>>,
    /// `ingest` has the lock, or a fault of the socket is its to tell: the next wait is for the bell only, and short.
    left_to_ingest: bool,
}

impl FanoutSleep {
    /// Waits for `bell` only, until it is given a receiver.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub fn new(bell: Bell) -> io::Result<FanoutSleep> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &bell, EventData::new_u64(BELL_KEY), EventFlags::IN)?;
        Ok(FanoutSleep {
            bell,
            epoll: Arc::new(epoll),
            datagrams: false,
            receiver: Weak::new(),
            left_to_ingest: false,
        })
    }

    /// From here on it receives what waits, too.
    pub fn receive_with(&mut self, receiver: &Arc<Mutex<Receiver>>) {
        self.receiver = Arc::downgrade(receiver);
    }

    /// Blocks until the bell rings or a datagram waits, at most `most`; not at all unless `is_idle`.
    pub fn wait(&mut self, most: Duration, is_idle: impl FnOnce() -> bool) {
        let alone = std::mem::take(&mut self.left_to_ingest);
        let (bell, epoll) = (&self.bell, &self.epoll);
        let mut ready = Vec::with_capacity(2);
        bell.sleep(is_idle, || {
            let most = timespec(if alone { most.min(LEFT_LOOK) } else { most });
            // An interrupted wait costs nothing: the next turn waits again, also after one that has failed.
            if alone {
                let _ = waits::FANOUT.judge(poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&most)));
            } else {
                let _ = waits::FANOUT.judge(epoll::wait(epoll, spare_capacity(&mut ready), Some(&most)));
            }
        });
        let is_ready = |key| ready.iter().any(|ready| ready.data.u64() == key);
        if alone || is_ready(BELL_KEY) {
            bell.quieten();
        }
        self.datagrams = is_ready(DATAGRAMS_KEY);
    }

    /// After a wait: puts into the queue what waits in the socket, if that is what ended the wait. Never blocks.
    pub fn receive(&mut self, beat: &'static Beat) {
        if !self.datagrams {
            return;
        }
        if let Some(receiver) = self.receiver.upgrade() {
            // Where `ingest` has the lock, it receives.
            let next = try_lock(&receiver).map_or(Next::Ingest, |mut receiver| receiver.receive_few(beat));
            self.left_to_ingest = next == Next::Ingest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::queue::INTAKE_LEN_MAX;

    impl Receiver {
        /// A former socket is always ready, and nothing can be received from it.
        pub(in crate::intake) fn former_fails(&mut self) {
            self.former.push(Arc::new(EventSocket::broken()));
        }

        /// The queue is full.
        pub(in crate::intake) fn fill(&mut self) {
            let intake = self.intake.as_mut().unwrap();
            for _ in 0..INTAKE_LEN_MAX {
                assert_eq!(intake.push(b"x", &mut || ()), Pushed::Queued);
            }
        }
    }
}
