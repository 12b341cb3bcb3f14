//! The numbered past: the recent batches, shared with the threads that replay them.
//!
//! Owned by thread `fanout`. Bounded by memory; the oldest go first. Clients hold nothing of it but what they replay at
//! the moment.

use crate::stream::batch::Batch;
use crate::stream::event::Seq;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most batches of one answer, so that giving it takes microseconds.
const ANSWER_BATCHES_MAX: usize = 256;

/// The recent batches.
#[derive(Debug)]
pub struct History {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    bytes_max: usize,
    /// Every number after this one is here.
    reaches: Seq,
    newest: Seq,
    /// Up to this number nobody knows how many were used.
    uncertain: Seq,
}

/// What follows a number.
#[derive(Debug)]
pub enum Past {
    /// These batches do; the first may begin before it.
    Batches {
        batches: Vec<Arc<Batch>>,
        /// Nothing newer is there.
        complete: bool,
    },
    /// Some of it is not here any more.
    Gone,
}

impl History {
    /// An empty one that keeps `bytes_max` bytes; the last number given so far is `newest`.
    pub fn new(bytes_max: usize, newest: Seq) -> History {
        History {
            batches: VecDeque::new(),
            bytes: 0,
            bytes_max,
            reaches: newest,
            newest,
            uncertain: 0,
        }
    }

    /// The last number given.
    pub fn newest(&self) -> Seq {
        self.newest
    }

    /// Every number after this one is still here.
    pub fn reaches(&self) -> Seq {
        self.reaches
    }

    /// How many events are between `after` and the newest, losses included; `None` when nobody knows.
    pub fn count_after(&self, after: Seq) -> Option<u64> {
        (after >= self.uncertain).then(|| self.newest.saturating_sub(after))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the next batch, and lets go of the oldest beyond the bound.
    pub fn push(&mut self, batch: Arc<Batch>) {
        debug_assert_eq!(batch.seqs().start, self.newest + 1, "numbers follow each other");
        self.newest = batch.last();
        self.uncertain = batch.last_uncertain().unwrap_or(self.uncertain);
        self.bytes += batch.memory_bytes();
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= oldest.memory_bytes();
            self.reaches = oldest.last();
        }
    }

    /// As [`History::push`], but what it takes must leave first: there is no room for more.
    pub fn push_in_exchange(&mut self, batch: Arc<Batch>) {
        let kept = self.bytes_max;
        self.bytes_max = self.bytes.min(kept);
        self.push(batch);
        self.bytes_max = kept;
    }

    /// All batches that are still here, the oldest first.
    pub fn all(&self) -> &VecDeque<Arc<Batch>> {
        &self.batches
    }

    /// Batches that begin before number `before`, the oldest first and the newest of them last: at most 256. None when
    /// the history has nothing before it.
    pub fn before(&self, before: Seq) -> Vec<Arc<Batch>> {
        let end = self.batches.partition_point(|batch| batch.seqs().start < before);
        let start = end.saturating_sub(ANSWER_BATCHES_MAX);
        self.batches.range(start..end).map(Arc::clone).collect()
    }

    /// What follows number `after` (not above the newest): as many batches as have `bytes_max` bytes, at least one.
    pub fn after(&self, after: Seq, bytes_max: usize) -> Past {
        if after < self.reaches {
            return Past::Gone;
        }
        let first = self.batches.partition_point(|batch| batch.last() <= after);
        let mut bytes = 0;
        let batches: Vec<Arc<Batch>> = self
            .batches
            .range(first..)
            .take(ANSWER_BATCHES_MAX)
            .take_while(|batch| {
                let fits = bytes == 0 || bytes + batch.memory_bytes() <= bytes_max;
                bytes += batch.memory_bytes();
                fits
            })
            .map(Arc::clone)
            .collect();
        let complete = batches.last().is_none_or(|batch| batch.last() == self.newest);
        Past::Batches { batches, complete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::batch::BatchBuilder;

    fn batch(first: Seq, count: u64) -> Arc<Batch> {
        let mut builder = BatchBuilder::new(first, 1, 1);
        for _ in 0..count {
            builder.push(b"{}", None, None);
        }
        Arc::new(builder.finish(0, 0.0).unwrap())
    }

    fn firsts(past: Past) -> (Vec<Seq>, bool) {
        match past {
            Past::Batches { batches, complete } => (batches.iter().map(|batch| batch.seqs().start).collect(), complete),
            Past::Gone => panic!("it is gone"),
        }
    }

    #[test]
    fn it_gives_what_follows_and_says_what_is_gone() {
        let size = batch(1, 2).memory_bytes();
        let mut history = History::new(3 * size, 10);
        assert_eq!(firsts(history.after(10, size)), (vec![], true));
        assert!(matches!(history.after(9, size), Past::Gone));
        for first in [11, 13, 15, 17] {
            history.push(batch(first, 2));
        }
        assert_eq!((history.reaches(), history.newest()), (12, 18));
        assert!(matches!(history.after(11, usize::MAX), Past::Gone));
        assert_eq!(firsts(history.after(12, usize::MAX)), (vec![13, 15, 17], true));
        assert_eq!(firsts(history.after(13, 2 * size)), (vec![13, 15], false));
        assert_eq!(firsts(history.after(14, 1)), (vec![15], false));
        assert_eq!(firsts(history.after(18, 1)), (vec![], true));
    }

    #[test]
    fn without_room_it_gives_up_as_much_as_it_takes() {
        let size = batch(1, 2).memory_bytes();
        let mut history = History::new(10 * size, 0);
        for first in [1, 3, 5] {
            history.push(batch(first, 2));
        }
        history.push_in_exchange(batch(7, 2));
        assert_eq!((history.bytes(), history.reaches(), history.newest()), (3 * size, 2, 8));
        history.push(batch(9, 2));
        assert_eq!((history.bytes(), history.reaches()), (4 * size, 2));
    }

    #[test]
    fn it_is_walked_backwards_in_parts() {
        let mut history = History::new(usize::MAX, 0);
        let count = ANSWER_BATCHES_MAX as u64 + 10;
        (0..count).for_each(|number| history.push(batch(1 + 2 * number, 2)));
        let starts = |before| {
            let batches = history.before(before);
            batches.iter().map(|batch| batch.seqs().start).collect::<Vec<_>>()
        };
        let newest = starts(Seq::MAX);
        assert_eq!(newest.len(), ANSWER_BATCHES_MAX);
        assert_eq!(newest.last(), Some(&(2 * count - 1)));
        let oldest = starts(newest[0]);
        assert_eq!((oldest.first(), oldest.last()), (Some(&1), Some(&(newest[0] - 2))));
        assert!(starts(1).is_empty());
    }

    #[test]
    fn nothing_is_kept_with_no_room() {
        let mut history = History::new(0, 0);
        history.push(batch(1, 3));
        assert_eq!((history.reaches(), history.newest(), history.bytes()), (3, 3, 0));
    }
}
