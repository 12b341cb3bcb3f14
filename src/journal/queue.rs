//! What waits for the journal, and what the journal shows of itself.

use crate::journal::displaced::Displaced;
use crate::journal::segments::segment_name;
use crate::stream::batch::Batch;
use crate::stream::event::Seq;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Most batches that wait: a batch may be one event, and a disk that stands still for a tenth of a second must not cost
/// any.
const QUEUE_BATCHES: usize = 65_536;
/// Most memory that these batches hold, 32 MiB; most of it is the history's too.
pub const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// In the place of an error's number: the disk takes nothing, for a reason that the system has no number for.
const TAKES_NOTHING: i32 = -1;
/// In the same place: another server holds the folder's lock ([`Displaced::Locked`]).
const LOCKED: i32 = -2;
/// In the same place: the folder has what this server has not written ([`Displaced::Foreign`]).
const FOREIGN: i32 = -3;

/// The fan-out's end of the queue.
#[derive(Debug)]
pub struct JournalTx {
    tx: Sender<Arc<Batch>>,
    gauges: Arc<JournalGauges>,
}

/// The journal's end of the queue.
#[derive(Debug)]
pub struct JournalRx {
    rx: Receiver<Arc<Batch>>,
    gauges: Arc<JournalGauges>,
}

/// Makes the queue. Full policy: a batch that finds it full is not journaled; its events are counted, and the journal
/// gets a line for their numbers when there is room again.
pub fn queue(gauges: &Arc<JournalGauges>) -> (JournalTx, JournalRx) {
    let (tx, rx) = bounded(QUEUE_BATCHES);
    let tx = JournalTx {
        tx,
        gauges: Arc::clone(gauges),
    };
    let rx = JournalRx {
        rx,
        gauges: Arc::clone(gauges),
    };
    (tx, rx)
}

impl JournalTx {
    /// Leaves `batch` to the journal. Never blocks.
    pub fn offer(&self, batch: &Arc<Batch>) {
        // Relaxed, here and below: the queue itself orders what matters, the rest are counts.
        self.gauges.offered.store(batch.last(), Ordering::Relaxed);
        let bytes = batch.memory_bytes() as u64;
        let queued = self.gauges.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = queued == 0 || queued + bytes <= QUEUE_BYTES as u64;
        if !has_room || self.tx.try_send(Arc::clone(batch)).is_err() {
            self.gauges.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.gauges.drop_events(batch.events());
        }
    }
}

impl JournalRx {
    /// To wait for a batch.
    pub fn channel(&self) -> &Receiver<Arc<Batch>> {
        &self.rx
    }

    /// Says that this batch, taken from the channel, waits no more.
    pub fn took(&self, batch: &Batch) {
        self.gauges
            .queued_bytes
            .fetch_sub(batch.memory_bytes() as u64, Ordering::Relaxed);
    }

    /// The last number that was offered; right once the sender is gone.
    pub fn offered(&self) -> Seq {
        self.gauges.offered.load(Ordering::Relaxed)
    }
}

/// What the journal shows to `/health`. Single values, each read for itself: relaxed.
#[derive(Debug, Default)]
pub struct JournalGauges {
    /// Events written since the start.
    events: AtomicU64,
    /// Events that were sent to clients but are not in the journal.
    dropped: AtomicU64,
    /// The last number that is in the journal.
    last: AtomicU64,
    /// The number in the name of the segment that grows, 0 for none, and its bytes.
    segment: AtomicU64,
    segment_bytes: AtomicU64,
    /// All segments together.
    bytes: AtomicU64,
    /// The error for which nothing can be written, as the system numbers it; 0 for none, below 0 for one of ours.
    error: AtomicI32,
    queued_bytes: AtomicU64,
    offered: AtomicU64,
}

impl JournalGauges {
    pub(super) fn drop_events(&self, events: usize) {
        self.dropped.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Events that were in the journal are not there any more.
    pub(super) fn lose(&self, events: u64) {
        self.events.fetch_sub(events, Ordering::Relaxed);
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, events: u64, last: Seq) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
    }

    pub(super) fn show_segment(&self, (first, segment_bytes): (Seq, u64), bytes: u64) {
        self.segment.store(first, Ordering::Relaxed);
        self.segment_bytes.store(segment_bytes, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn show_error(&self, error: Option<&io::Error>) {
        let number = error.map_or(0, |error| match error.get_ref().and_then(|why| why.downcast_ref()) {
            Some(Displaced::Locked(_)) => LOCKED,
            Some(Displaced::Foreign) => FOREIGN,
            None => error.raw_os_error().unwrap_or(TAKES_NOTHING),
        });
        self.error.store(number, Ordering::Relaxed);
    }

    /// Events that were sent to clients but are not in the journal.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Why nothing can be written, in words; `None` when it can.
    pub fn failure(&self) -> Option<String> {
        match self.error.load(Ordering::Relaxed) {
            0 => None,
            TAKES_NOTHING => Some("the disk takes nothing".to_owned()),
            LOCKED => Some(Displaced::Locked(None).to_string()),
            FOREIGN => Some(Displaced::Foreign.to_string()),
            number => Some(io::Error::from_raw_os_error(number).to_string()),
        }
    }

    /// For `/health`.
    pub fn json(&self) -> Value {
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let segment = Some(number(&self.segment)).filter(|first| *first > 0);
        json!({
            "state": if self.failure().is_none() { "on" } else { "failed" },
            "error": self.failure(),
            "events": number(&self.events),
            "dropped": self.dropped(),
            "last_seq": number(&self.last),
            "segment": segment.map(segment_name),
            "segment_bytes": number(&self.segment_bytes),
            "bytes": number(&self.bytes),
            "queued_bytes": number(&self.queued_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::batch::BatchBuilder;

    fn batch(first: Seq, payload: &[u8]) -> Arc<Batch> {
        let mut builder = BatchBuilder::new(first, 1, payload.len());
        builder.push(payload, None, None);
        Arc::new(builder.finish(0, 0.0).unwrap())
    }

    #[test]
    fn a_full_queue_takes_nothing_and_counts_it() {
        let gauges = Arc::new(JournalGauges::default());
        let (tx, rx) = queue(&gauges);
        let small = batch(1, b"{}");
        assert!(
            small.memory_bytes() * QUEUE_BATCHES < QUEUE_BYTES,
            "bytes are no bound here"
        );
        for _ in 0..QUEUE_BATCHES + 4 {
            tx.offer(&small);
        }
        tx.offer(&batch(QUEUE_BATCHES as u64 + 5, b"{}"));
        assert_eq!((gauges.dropped(), rx.offered()), (5, QUEUE_BATCHES as u64 + 5));
        while let Ok(batch) = rx.channel().try_recv() {
            rx.took(&batch);
        }
        assert_eq!(gauges.json()["queued_bytes"], 0);
        tx.offer(&batch(9999, b"{}"));
        assert_eq!(gauges.dropped(), 5);
    }

    #[test]
    fn bytes_are_a_bound_of_their_own_but_one_batch_always_has_room() {
        let gauges = Arc::new(JournalGauges::default());
        let (tx, rx) = queue(&gauges);
        let large = vec![b'x'; QUEUE_BYTES / 3];
        tx.offer(&batch(1, &vec![b'x'; QUEUE_BYTES + 1]));
        tx.offer(&batch(2, b"{}"));
        assert_eq!(gauges.dropped(), 1);
        rx.took(&rx.channel().recv().unwrap());
        for first in 3..7 {
            tx.offer(&batch(first, &large));
        }
        assert_eq!((gauges.dropped(), rx.channel().len()), (3, 2));
    }
}
