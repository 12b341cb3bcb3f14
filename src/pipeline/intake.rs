//! The one queue between `ingest` and `fanout`, bounded by entries and by bytes.

use crate::liveness::beat::Beat;
use crate::pipeline::event::DropCause;
use crate::process::clock::pause;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most entries. Full policy: wait while the fan-out moves, then drop, count, and say so in the stream's own order.
pub const INTAKE_LEN_MAX: usize = 65_536;
/// Most bytes of events in the queue.
pub const INTAKE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// After a drop the queue must have run down this far before anything is waited for again.
const HIGH_WATER_PERCENT: usize = 75;
/// How finely a full queue is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// What `ingest` hands on.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// A datagram as it came.
    Datagram(Box<[u8]>),
    /// At this place in the order so many datagrams are missing.
    Lost(u64, DropCause),
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Entry::Datagram(bytes) => bytes.len(),
            Entry::Lost(..) => 0,
        }
    }
}

/// The end of `ingest`.
#[derive(Debug)]
pub struct IntakeTx {
    tx: Sender<Entry>,
    bytes: Arc<AtomicUsize>,
    consumer: Arc<Beat>,
    patience: Duration,
    /// Datagrams dropped since the last entry that got in.
    lost: u64,
}

/// The end of `fanout`.
#[derive(Debug)]
pub struct IntakeRx {
    rx: Receiver<Entry>,
    bytes: Arc<AtomicUsize>,
}

/// How full the queue is, for whoever asks.
#[derive(Clone, Debug)]
pub struct IntakeGauge {
    rx: Receiver<Entry>,
    bytes: Arc<AtomicUsize>,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    Dropped,
    /// `fanout` is over.
    Closed,
}

/// Makes the queue. `consumer` is the beat of `fanout`, whose progress decides whether waiting makes sense.
pub fn intake(consumer: Arc<Beat>, patience: Duration) -> (IntakeTx, IntakeRx, IntakeGauge) {
    intake_of(INTAKE_LEN_MAX, consumer, patience)
}

fn intake_of(len_max: usize, consumer: Arc<Beat>, patience: Duration) -> (IntakeTx, IntakeRx, IntakeGauge) {
    let (tx, rx) = bounded(len_max);
    let bytes = Arc::new(AtomicUsize::new(0));
    let sender = IntakeTx {
        tx,
        bytes: Arc::clone(&bytes),
        consumer,
        patience,
        lost: 0,
    };
    let gauge = IntakeGauge {
        rx: rx.clone(),
        bytes: Arc::clone(&bytes),
    };
    (sender, IntakeRx { rx, bytes }, gauge)
}

impl IntakeTx {
    /// Puts a datagram into the queue.
    ///
    /// Blocks while the queue is full and the fan-out moves; once it has stood still for the patience, drops without
    /// waiting until the queue is below its high-water mark. `waiting` is called while it waits.
    pub fn push(&mut self, datagram: &[u8], waiting: &mut dyn FnMut()) -> Pushed {
        if self.lost > 0 && !self.announce_loss() {
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

    /// While dropping: whether the queue has run down far enough and knows what is missing.
    fn announce_loss(&mut self) -> bool {
        let capacity = self.tx.capacity().unwrap_or(INTAKE_LEN_MAX);
        let low = |now: usize, max: usize| now < max / 100 * HIGH_WATER_PERCENT + max % 100 * HIGH_WATER_PERCENT / 100;
        if !low(self.tx.len(), capacity) || !low(self.bytes.load(Ordering::Relaxed), INTAKE_BYTES_MAX) {
            return false;
        }
        match self.tx.try_send(Entry::Lost(self.lost, DropCause::QueueFull)) {
            Ok(()) => {
                self.lost = 0;
                true
            }
            Err(_) => false,
        }
    }

    /// Tells the fan-out what is missing although no further datagram came; called now and then.
    pub fn settle(&mut self) {
        if self.lost > 0 {
            self.announce_loss();
        }
    }

    fn push_entry(&self, entry: Entry, waiting: &mut dyn FnMut()) -> Pushed {
        let mut entry = match self.try_push(entry) {
            Ok(()) => return Pushed::Queued,
            Err(TrySendError::Disconnected(_)) => return Pushed::Closed,
            Err(TrySendError::Full(entry)) => entry,
        };
        let mut progress = self.consumer.progress();
        let mut still_since = Instant::now();
        loop {
            if still_since.elapsed() >= self.patience {
                return Pushed::Dropped;
            }
            waiting();
            pause(LOOK.min(self.patience));
            entry = match self.try_push(entry) {
                Ok(()) => return Pushed::Queued,
                Err(TrySendError::Disconnected(_)) => return Pushed::Closed,
                Err(TrySendError::Full(entry)) => entry,
            };
            let now = self.consumer.progress();
            if now != progress {
                progress = now;
                still_since = Instant::now();
            }
        }
    }

    fn try_push(&self, entry: Entry) -> Result<(), TrySendError<Entry>> {
        let bytes = entry.bytes();
        // Relaxed: a bound, not an order; the channel orders the entries themselves. Counted before the entry can be
        // taken out, so the count never falls below zero.
        if self.bytes.load(Ordering::Relaxed) + bytes > INTAKE_BYTES_MAX {
            return Err(TrySendError::Full(entry));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tx.try_send(entry).inspect_err(|_| {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        })
    }
}

impl IntakeRx {
    /// The next entry, if one waits.
    ///
    /// # Errors
    /// None waits, or `ingest` is over and everything was taken.
    pub fn try_recv(&self) -> Result<Entry, TryRecvError> {
        self.rx.try_recv().inspect(|entry| self.taken(entry))
    }

    /// The channel itself, to wait on with others; what is received from it must go through [`IntakeRx::taken`].
    pub fn channel(&self) -> &Receiver<Entry> {
        &self.rx
    }

    /// Gives back the room of an entry that was received from [`IntakeRx::channel`].
    pub fn taken(&self, entry: &Entry) {
        self.bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
    }
}

impl IntakeGauge {
    /// Entries in the queue.
    pub fn len(&self) -> usize {
        self.rx.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.rx.is_empty()
    }

    /// Bytes in the queue.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beat::Beats;

    const PATIENCE: Duration = Duration::from_millis(2);

    fn small(len: usize) -> (IntakeTx, IntakeRx, Arc<Beat>) {
        let beat = Beats::default().fanout;
        let (tx, rx, _) = intake_of(len, Arc::clone(&beat), PATIENCE);
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
    fn bytes_bound_the_queue_too_and_are_given_back() {
        let (mut tx, rx, _) = small(100);
        let half = vec![b'x'; INTAKE_BYTES_MAX / 2];
        assert_eq!(tx.push(&half, &mut || ()), Pushed::Queued);
        assert_eq!(tx.push(&half, &mut || ()), Pushed::Queued);
        assert_eq!(tx.push(b"x", &mut || ()), Pushed::Dropped);
        rx.try_recv().unwrap();
        rx.try_recv().unwrap();
        assert_eq!(tx.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_end_of_the_consumer_is_noticed() {
        let (mut tx, rx, _) = small(1);
        drop(rx);
        assert_eq!(tx.push(b"x", &mut || ()), Pushed::Closed);
    }
}
