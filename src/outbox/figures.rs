//! What the server knows of one client, as figures that anybody may read while everything else stands still.
//!
//! Written by `fanout` (what it sends or queues itself) and by the client's own thread (what it writes), read by pages.
//! Relaxed throughout, because they order nothing: a reader may see one figure a moment before another.

use crate::process::clock::{epoch_seconds, monotonic_us};
use crate::process::locks::lock;
use crate::stream::chunk::Chunk;
use crate::stream::event::Seq;
use crate::stream::view::View;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The delivery times of events, counted by powers of two: the first bucket takes what is under 64 µs, the last what
/// takes a second and more.
#[derive(Debug, Default)]
pub struct Latencies {
    counts: [AtomicU64; Latencies::BUCKETS],
    slowest_us: AtomicU64,
}

impl Latencies {
    /// How many buckets there are.
    pub const BUCKETS: usize = 16;
    /// The first bucket ends below two to the power of this, in µs.
    const FIRST_BITS: u32 = 6;

    /// Where each bucket ends, in µs; the last one has no end.
    pub fn bounds_us() -> impl Iterator<Item = u64> {
        (0..Self::BUCKETS as u32 - 1).map(|index| 1 << (Self::FIRST_BITS + index))
    }

    fn bucket(us: u64) -> usize {
        let bits = u64::BITS - us.leading_zeros();
        (bits.saturating_sub(Self::FIRST_BITS) as usize).min(Self::BUCKETS - 1)
    }

    /// Counts `events` that took `us` each.
    fn add(&self, events: u64, us: u64) {
        // One writer at a time: the fan-out counts what it has sent itself before it queues anything, and the client's
        // thread before it says that nothing is queued any more. So a load and a store do.
        let count = &self.counts[Self::bucket(us)];
        count.store(count.load(Ordering::Relaxed) + events, Ordering::Relaxed);
        if us > self.slowest_us.load(Ordering::Relaxed) {
            self.slowest_us.store(us, Ordering::Relaxed);
        }
    }
}

/// One client's figures.
#[derive(Debug)]
pub struct Figures {
    /// When it joined, seconds since the epoch.
    since: f64,
    /// The same on the monotonic clock, [`monotonic_us`].
    since_us: u64,
    /// Every event delivered is in one of the buckets.
    latencies: Latencies,
    /// Events in its queue.
    queued_events: AtomicUsize,
    /// While something waits for it: when the oldest of that was published, [`monotonic_us`].
    oldest_us: AtomicU64,
    /// While something waits for it: the number up to which it has all.
    after: AtomicU64,
    /// How many times it has fallen behind and not caught up: 0 or 1, and 2 for moments.
    behind: AtomicU32,
    /// Since when it is behind, [`monotonic_us`].
    behind_since_us: AtomicU64,
    /// The log has said that it is behind, so it says its return too.
    told: AtomicBool,
    /// How many times it was too slow for its queue.
    times_behind: AtomicU32,
    /// Events that it was not sent, because the history no longer had them.
    skipped: AtomicU64,
    /// How many times nobody knew how many such events there were.
    skips_unknown: AtomicU32,
    /// Events left out because it conflates.
    conflated: AtomicU64,
    /// How it sees the stream now. Held for the time of a move only.
    view: Mutex<Arc<View>>,
}

/// The figures at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it joined, seconds since the epoch.
    pub since: f64,
    /// For how long it has been there, in seconds.
    pub connected_s: f64,
    pub view: Arc<View>,
    /// Events in its queue.
    pub queued_events: usize,
    /// Numbers after the last event that it has, while something waits for it; its filter is not asked.
    pub lag_events: u64,
    /// Age of the oldest event that waits for it.
    pub lag_us: u64,
    /// For how long it has been behind, in seconds, if it is.
    pub behind_s: Option<f64>,
    pub times_behind: u32,
    /// Events delivered, by the time that took; see [`Latencies::bounds_us`].
    pub latencies: [u64; Latencies::BUCKETS],
    pub slowest_us: u64,
    /// Events that it was not sent because the history no longer had them.
    pub skipped: u64,
    /// How often nobody knows how many these were.
    pub skips_unknown: u32,
    /// Events left out because it conflates.
    pub conflated: u64,
}

impl Seen {
    /// Events written to its socket in whole.
    pub fn delivered(&self) -> u64 {
        self.latencies.iter().sum()
    }
}

impl Figures {
    /// Of a client that joins now.
    pub fn new(view: Arc<View>) -> Figures {
        Figures {
            since: epoch_seconds(),
            since_us: monotonic_us(),
            latencies: Latencies::default(),
            queued_events: AtomicUsize::new(0),
            oldest_us: AtomicU64::new(0),
            after: AtomicU64::new(0),
            behind: AtomicU32::new(0),
            behind_since_us: AtomicU64::new(0),
            told: AtomicBool::new(false),
            times_behind: AtomicU32::new(0),
            skipped: AtomicU64::new(0),
            skips_unknown: AtomicU32::new(0),
            conflated: AtomicU64::new(0),
            view: Mutex::new(view),
        }
    }

    /// The events of `chunk` are in the client's socket, at `now_us`. What is older than the client counts from its
    /// joining: before that, nothing waited for it.
    pub fn delivered(&self, chunk: &Chunk, now_us: u64) {
        if chunk.events() > 0 {
            let from = chunk.published_us().max(self.since_us);
            self.latencies.add(chunk.events() as u64, now_us.saturating_sub(from));
        }
    }

    /// Fan-out: `chunk`, the events after number `before`, waits in the queue.
    pub fn queued(&self, chunk: &Chunk, before: Seq) {
        let waiting = self.queued_events.fetch_add(chunk.events(), Ordering::Relaxed);
        if waiting == 0 && self.behind.load(Ordering::Relaxed) == 0 {
            self.next(chunk.published_us());
            self.reached(before);
        }
    }

    /// Writer: the events of a queued chunk are written.
    pub fn unqueued(&self, chunk: &Chunk) {
        self.queued_events.fetch_sub(chunk.events(), Ordering::Relaxed);
    }

    /// What it gets next was published then.
    pub fn next(&self, published_us: u64) {
        self.oldest_us.store(published_us, Ordering::Relaxed);
    }

    /// It has everything up to number `seq`.
    pub fn reached(&self, seq: Seq) {
        self.after.store(seq, Ordering::Relaxed);
    }

    /// Fan-out: what follows number `after` comes from the history.
    pub fn fell_behind(&self, after: Seq) {
        if self.behind.fetch_add(1, Ordering::Relaxed) == 0 {
            let now_us = monotonic_us();
            self.behind_since_us.store(now_us, Ordering::Relaxed);
            if self.queued_events.load(Ordering::Relaxed) == 0 {
                self.next(now_us);
                self.reached(after);
            }
        }
    }

    /// Fan-out: it was too slow for its queue.
    pub fn was_too_slow(&self) {
        self.times_behind.fetch_add(1, Ordering::Relaxed);
    }

    /// Fan-out: the log is to say its return.
    pub fn tell_return(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Writer: it has got what it missed. Returns for how long it was behind, in seconds, if the log is to say so.
    pub fn caught_up(&self) -> Option<f64> {
        let since_us = self.behind_since_us.load(Ordering::Relaxed);
        // It may have fallen behind once more before it was through.
        let is_live = self.behind.fetch_sub(1, Ordering::Relaxed) == 1;
        let told = is_live && self.told.swap(false, Ordering::Relaxed);
        told.then(|| seconds(monotonic_us().saturating_sub(since_us)))
    }

    /// Writer: `count` events are skipped; `None` when nobody knows how many.
    pub fn skip(&self, count: Option<u64>) {
        match count {
            Some(count) => self.skipped.fetch_add(count, Ordering::Relaxed),
            None => u64::from(self.skips_unknown.fetch_add(1, Ordering::Relaxed)),
        };
    }

    /// Writer: `count` events are left out because it conflates.
    pub fn conflate(&self, count: usize) {
        self.conflated.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Writer: from now on it sees the stream like that.
    pub fn set_view(&self, view: Arc<View>) {
        *lock(&self.view) = view;
    }

    /// All of them now; the last number given is `newest`.
    pub fn seen(&self, newest: Seq) -> Seen {
        let now_us = monotonic_us();
        let queued_events = self.queued_events.load(Ordering::Relaxed);
        let is_behind = self.behind.load(Ordering::Relaxed) > 0;
        let waits = is_behind || queued_events > 0;
        let oldest_us = self.oldest_us.load(Ordering::Relaxed).max(self.since_us);
        let behind_us = now_us.saturating_sub(self.behind_since_us.load(Ordering::Relaxed));
        let lag = (
            newest.saturating_sub(self.after.load(Ordering::Relaxed)),
            now_us.saturating_sub(oldest_us),
        );
        let (lag_events, lag_us) = if waits { lag } else { (0, 0) };
        Seen {
            since: self.since,
            connected_s: seconds(now_us.saturating_sub(self.since_us)),
            view: Arc::clone(&lock(&self.view)),
            queued_events,
            lag_events,
            lag_us,
            behind_s: is_behind.then(|| seconds(behind_us)),
            times_behind: self.times_behind.load(Ordering::Relaxed),
            latencies: std::array::from_fn(|index| self.latencies.counts[index].load(Ordering::Relaxed)),
            slowest_us: self.latencies.slowest_us.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            skips_unknown: self.skips_unknown.load(Ordering::Relaxed),
            conflated: self.conflated.load(Ordering::Relaxed),
        }
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::chunk::ChunkBuilder;

    fn chunk(events: usize, published_us: u64, last: Seq) -> Chunk {
        let mut builder = ChunkBuilder::new(events, events);
        (0..events).for_each(|_| builder.push(b"{}"));
        builder.finish(published_us, last)
    }

    fn figures() -> Figures {
        Figures::new(Arc::new(View::default()))
    }

    #[test]
    fn every_time_has_its_bucket() {
        let bounds: Vec<u64> = Latencies::bounds_us().collect();
        assert_eq!((bounds.len(), bounds[0], bounds[14]), (15, 64, 1 << 20));
        for (index, bound) in bounds.iter().enumerate() {
            assert_eq!(Latencies::bucket(bound - 1), index, "under {bound}");
            assert_eq!(Latencies::bucket(*bound), index + 1, "{bound}");
        }
        assert_eq!((Latencies::bucket(0), Latencies::bucket(u64::MAX)), (0, 15));
    }

    #[test]
    fn what_is_delivered_is_counted_once_with_its_time() {
        let figures = figures();
        let (since, now) = (figures.since_us, figures.since_us + 5_000_000);
        figures.delivered(&chunk(3, now - 100, 3), now);
        figures.delivered(&chunk(2, now - 2_000_000, 5), now);
        figures.delivered(&Chunk::message(b"hello"), now);
        let seen = figures.seen(5);
        assert_eq!((seen.delivered(), seen.latencies[1], seen.latencies[15]), (5, 3, 2));
        assert_eq!(seen.slowest_us, 2_000_000);
        // What was published before it joined has waited for it since then.
        figures.delivered(&chunk(1, 0, 6), since + 10);
        assert_eq!(figures.seen(6).latencies[0], 1);
    }

    #[test]
    fn nothing_that_waits_is_no_lag() {
        let figures = figures();
        assert_eq!((figures.seen(100).lag_events, figures.seen(100).lag_us), (0, 0));
        let waiting = chunk(4, monotonic_us(), 100);
        figures.queued(&waiting, 96);
        figures.queued(&chunk(1, monotonic_us() + 1_000_000, 101), 100);
        let seen = figures.seen(101);
        assert_eq!((seen.queued_events, seen.lag_events), (5, 5));
        figures.unqueued(&waiting);
        figures.reached(100);
        assert_eq!((figures.seen(101).queued_events, figures.seen(101).lag_events), (1, 1));
        figures.unqueued(&chunk(1, 0, 101));
        assert_eq!((figures.seen(101).lag_events, figures.seen(101).lag_us), (0, 0));
    }

    #[test]
    fn falling_behind_twice_needs_catching_up_twice_and_is_told_when_it_was_told() {
        let figures = figures();
        figures.fell_behind(7);
        assert_eq!(figures.seen(10).lag_events, 3);
        figures.tell_return();
        figures.fell_behind(9);
        assert_eq!(figures.caught_up(), None, "not yet");
        assert!(figures.seen(10).behind_s.is_some());
        assert!(figures.caught_up().is_some());
        figures.fell_behind(9);
        assert_eq!(figures.caught_up(), None, "nobody was told");
        assert_eq!(figures.seen(10).behind_s, None);
        figures.skip(Some(4));
        figures.skip(None);
        let seen = figures.seen(10);
        assert_eq!((seen.skipped, seen.skips_unknown, seen.times_behind), (4, 1, 0));
    }
}
