//! The one queue between receiving and `fanout`, bounded by entries and by bytes.

use crate::intake::IntakeSettings;
use crate::liveness::beat::Beat;
use crate::process::bell::Bell;
use crate::process::clock::pause;
use crate::process::stop::Stop;
use crate::stream::event::DropCause;
use crate::stream::event::Refused;
use crate::stream::notice::Notice;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most entries. Full policy: wait while the fan-out moves, then drop, count, and say so in the stream's own order.
pub const INTAKE_LEN_MAX: usize = 65_536;
/// Most bytes of events in the queue, unless a limit of the address space leaves less room.
pub const INTAKE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Low-water mark, in percent of both bounds: after a drop, whatever comes is dropped until the queue is below it. So a
/// fan-out that has stood still gets a quarter of the queue ahead before senders wait for it again.
const LOW_WATER_PERCENT: usize = 75;
/// How finely a full queue is looked at.
const LOOK: Duration = Duration::from_micros(200);
/// A fan-out that stands still because the host gives it no processor is waited for so much longer than one that hangs:
/// on a busy host that takes milliseconds, and dropping would be worse.
const STARVED_MAX: Duration = Duration::from_millis(100);
/// When the server stops, at most this long is spent on waiting for room in all.
const LAST_WAIT: Duration = Duration::from_millis(300);

/// What was received.
#[derive(Debug, PartialEq)]
pub enum Entry {
    /// A datagram as it came.
    Datagram(Box<[u8]>),
    /// An event that its engine could not send. It does not come by the queue, whose 65,536 places it must not make
    /// larger.
    Recovered(Box<Refused>),
    /// An event of our own, which does not come by the queue either.
    Own(Box<Notice>),
    /// At this place in the order so many datagrams are missing.
    Lost(u64, DropCause),
}

impl Entry {
    /// Bytes of the event in it.
    pub fn bytes(&self) -> usize {
        match self {
            Entry::Datagram(bytes) => bytes.len(),
            Entry::Recovered(event) => event.datagram.len(),
            Entry::Own(notice) => notice.json.len(),
            Entry::Lost(..) => 0,
        }
    }
}

/// The receiving thread's end.
#[derive(Debug)]
pub struct IntakeTx {
    tx: Sender<Entry>,
    bytes_max: usize,
    room: Arc<Room>,
    consumer: &'static Beat,
    bell: Bell,
    patience: Duration,
    stop: Stop,
    /// Set when the stop was noticed: from then on nothing is waited for.
    deadline: Option<Instant>,
    /// Datagrams dropped since the last entry that got in.
    lost: u64,
}

/// The end of `fanout`.
#[derive(Debug)]
pub struct IntakeRx {
    rx: Receiver<Entry>,
    room: Arc<Room>,
}

/// How full the queue is, for threads that ask. It holds no end of the queue, whose ends say who is still there.
#[derive(Clone, Debug)]
pub struct IntakeGauge(Arc<Room>);

/// What is in the queue.
#[derive(Debug, Default)]
struct Room {
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// Nothing more will come.
    closed: AtomicBool,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    Dropped,
    /// `fanout` is over.
    Closed,
}

/// Makes the queue. `consumer` is the beat of `fanout`, whose progress decides whether waiting makes sense, and the
/// bell that wakes it.
pub fn intake(
    settings: IntakeSettings,
    consumer: &'static Beat,
    bell: Bell,
    stop: Stop,
) -> (IntakeTx, IntakeRx, IntakeGauge) {
    intake_of(INTAKE_LEN_MAX, settings, consumer, bell, stop)
}

fn intake_of(
    len_max: usize,
    settings: IntakeSettings,
    consumer: &'static Beat,
    bell: Bell,
    stop: Stop,
) -> (IntakeTx, IntakeRx, IntakeGauge) {
    let (tx, rx) = bounded(len_max);
    let room = Arc::new(Room::default());
    let sender = IntakeTx {
        tx,
        bytes_max: settings.queue_bytes_max,
        room: Arc::clone(&room),
        consumer,
        bell,
        patience: settings.patience,
        stop,
        deadline: None,
        lost: 0,
    };
    let gauge = IntakeGauge(Arc::clone(&room));
    (sender, IntakeRx { rx, room }, gauge)
}

/// What the fan-out knows of what was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    /// It has, and nothing more is dropped.
    InFull,
    /// The queue is still too full.
    NotYet,
}

impl IntakeTx {
    /// Puts a datagram into the queue.
    ///
    /// Blocks while the queue is full and the fan-out moves; once it has stood still for the patience, drops without
    /// waiting until the queue is below its low-water mark. `waiting` is called while it waits.
    pub fn push(&mut self, datagram: &[u8], waiting: &mut dyn FnMut()) -> Pushed {
        if self.lost > 0 && self.announce_loss() == Announced::NotYet {
            self.lost += 1;
            return Pushed::Dropped;
        }
        let entry = Entry::Datagram(datagram.into());
        match self.push_entry(entry, waiting) {
            Pushed::Dropped => {
                self.lost += 1;
                Pushed::Dropped
            }
            other => other,
        }
    }

    /// Leaves word that a datagram is missing here, which the caller has counted by its `cause`. Never blocks; without
    /// room it is told with the next ones that are.
    pub fn lose(&mut self, cause: DropCause) {
        if self.lost > 0 || self.try_push(Entry::Lost(1, cause)).is_err() {
            self.lost += 1;
        }
    }

    /// While dropping: tells the fan-out what is missing, once the queue has run down far enough.
    fn announce_loss(&mut self) -> Announced {
        let capacity = self.tx.capacity().unwrap_or(INTAKE_LEN_MAX);
        let low = |now: usize, max: usize| now < max / 100 * LOW_WATER_PERCENT + max % 100 * LOW_WATER_PERCENT / 100;
        if !low(self.tx.len(), capacity) || !low(self.room.bytes.load(Ordering::Relaxed), self.bytes_max) {
            return Announced::NotYet;
        }
        match self.try_push(Entry::Lost(self.lost, DropCause::QueueFull)) {
            Ok(()) => {
                self.lost = 0;
                Announced::InFull
            }
            Err(_) => Announced::NotYet,
        }
    }

    /// Tells the fan-out what is missing although no further datagram came; called now and then. Returns how many
    /// datagrams it could not tell of yet.
    pub fn settle(&mut self) -> u64 {
        if self.lost > 0 {
            self.announce_loss();
        }
        self.lost
    }

    fn push_entry(&mut self, entry: Entry, waiting: &mut dyn FnMut()) -> Pushed {
        let mut entry = match self.try_push(entry) {
            Ok(()) => return Pushed::Queued,
            Err(TrySendError::Disconnected(_)) => return Pushed::Closed,
            Err(TrySendError::Full(entry)) => entry,
        };
        let mut progress = self.consumer.progress();
        let mut still = Duration::ZERO;
        loop {
            let hung = still >= self.patience && (still >= STARVED_MAX || !self.consumer.is_runnable());
            if hung || self.is_late() {
                return Pushed::Dropped;
            }
            waiting();
            let begun = Instant::now();
            pause(LOOK.min(self.patience));
            // A look that was overslept says more about us than about the fan-out.
            still += begun.elapsed().min(2 * LOOK);
            entry = match self.try_push(entry) {
                Ok(()) => return Pushed::Queued,
                Err(TrySendError::Disconnected(_)) => return Pushed::Closed,
                Err(TrySendError::Full(entry)) => entry,
            };
            let now = self.consumer.progress();
            if now != progress {
                progress = now;
                still = Duration::ZERO;
            }
        }
    }

    /// Returns whether the server stops and has no time left to wait for room.
    fn is_late(&mut self) -> bool {
        if !self.stop.requested() {
            return false;
        }
        let now = Instant::now();
        now >= *self.deadline.get_or_insert(now + LAST_WAIT)
    }

    fn try_push(&self, entry: Entry) -> Result<(), TrySendError<Entry>> {
        let bytes = entry.bytes();
        // Relaxed: a bound, not an order; the channel orders the entries themselves. Counted before the entry can be
        // taken out, so the counts never fall below zero.
        if self.room.bytes.load(Ordering::Relaxed) + bytes > self.bytes_max {
            return Err(TrySendError::Full(entry));
        }
        self.room.add(bytes);
        self.tx.try_send(entry).inspect_err(|_| self.room.sub(bytes))?;
        self.bell.ring();
        Ok(())
    }

    /// Returns whether nothing waits in the queue.
    pub fn is_empty(&self) -> bool {
        self.tx.is_empty()
    }

    /// Nothing more will come.
    pub fn close(self) {
        let (room, bell) = (Arc::clone(&self.room), self.bell.clone());
        drop(self);
        // Its order to the sleeper's look is the bell's.
        room.closed.store(true, Ordering::Relaxed);
        bell.ring();
    }
}

impl Room {
    fn add(&self, bytes: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, bytes: usize) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl IntakeRx {
    /// The next entry, if one waits.
    ///
    /// # Errors
    /// None waits, or `ingest` is over and everything was taken.
    pub fn try_recv(&self) -> Result<Entry, TryRecvError> {
        self.rx.try_recv().inspect(|entry| self.room.sub(entry.bytes()))
    }

    /// Entries that wait.
    pub fn waiting(&self) -> usize {
        self.rx.len()
    }

    /// Returns whether nothing waits, and more may come.
    pub fn is_idle(&self) -> bool {
        self.rx.is_empty() && !self.room.closed.load(Ordering::Relaxed)
    }
}

impl IntakeGauge {
    /// Entries in the queue.
    pub fn len(&self) -> usize {
        self.0.entries.load(Ordering::Relaxed)
    }

    /// Returns whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in the queue.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beats::tests::beats;

    const PATIENCE: Duration = Duration::from_millis(2);

    fn small(len: usize) -> (IntakeTx, IntakeRx, &'static Beat) {
        let beat = beats().fanout;
        let (tx, rx, _gauge) = intake_of(
            len,
            IntakeSettings {
                queue_bytes_max: INTAKE_BYTES_MAX,
                patience: PATIENCE,
                event_bytes_max: 1024,
                socket_mode: 0o600,
            },
            beat,
            Bell::new().unwrap(),
            Stop::new().unwrap(),
        );
        (tx, rx, beat)
    }

    #[test]
    fn a_standing_consumer_costs_the_patience_once_and_the_loss_keeps_its_place() {
        let (mut tx, rx, _) = small(4);
        for _ in 0..4 {
            assert_eq!(tx.push(b"in", &mut || ()), Pushed::Queued);
        }
        let mut waits = 0;
        for _ in 0..1000 {
            assert_eq!(tx.push(b"lost", &mut || waits += 1), Pushed::Dropped);
        }
        // Only the first of the thousand waited.
        assert!(
            waits > 0 && waits <= PATIENCE.as_micros() / LOOK.as_micros() + 1,
            "{waits}"
        );
        while rx.try_recv().is_ok() {}
        assert_eq!(tx.push(b"after", &mut || ()), Pushed::Queued);
        assert_eq!(rx.try_recv().unwrap(), Entry::Lost(1000, DropCause::QueueFull));
        assert_eq!(rx.try_recv().unwrap(), Entry::Datagram((*b"after").into()));
    }

    #[test]
    fn a_moving_consumer_is_waited_for() {
        let (mut tx, rx, beat) = small(1);
        assert_eq!(tx.push(b"one", &mut || ()), Pushed::Queued);
        let mut rounds = 0;
        let pushed = tx.push(b"two", &mut || {
            beat.step();
            rounds += 1;
            // Ten times the patience, then room.
            if rounds == 10 * PATIENCE.as_micros() / LOOK.as_micros() {
                rx.try_recv().unwrap();
            }
        });
        assert_eq!(pushed, Pushed::Queued);
    }

    #[test]
    fn a_stopping_server_waits_for_room_only_so_long() {
        let (mut tx, _rx, beat) = small(1);
        assert_eq!(tx.push(b"one", &mut || ()), Pushed::Queued);
        tx.stop.request();
        // The consumer moves all the time, so that only the stop can end the waiting.
        assert_eq!(tx.push(b"two", &mut || beat.step()), Pushed::Dropped);
    }

    #[test]
    fn a_starved_consumer_is_waited_for_longer_than_a_hung_one() {
        let (mut tx, rx, beat) = small(1);
        // This very thread, which is running.
        beat.adopt();
        assert_eq!(tx.push(b"one", &mut || ()), Pushed::Queued);
        let mut rounds = 0;
        let pushed = tx.push(b"two", &mut || {
            rounds += 1;
            // Three times the patience without a step, then room.
            if rounds == 3 * PATIENCE.as_micros() / LOOK.as_micros() {
                rx.try_recv().unwrap();
            }
        });
        assert_eq!(pushed, Pushed::Queued);
    }

    #[test]
    fn bytes_bound_the_queue_too_and_are_given_back() {
        let (mut tx, rx, _) = small(100);
        let half = vec![b'x'; INTAKE_BYTES_MAX / 2];
        assert_eq!(tx.push(&half, &mut || ()), Pushed::Queued);
        assert_eq!(tx.push(&half, &mut || ()), Pushed::Queued);
        assert_eq!(tx.push(b"x", &mut || ()), Pushed::Dropped);
        rx.try_recv().unwrap();
        rx.try_recv().unwrap();
        assert_eq!(tx.room.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(tx.room.entries.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_end_of_the_consumer_is_noticed() {
        let (mut tx, rx, _) = small(1);
        drop(rx);
        assert_eq!(tx.push(b"x", &mut || ()), Pushed::Closed);
    }
}
