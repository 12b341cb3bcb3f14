//! What a client that catches up still misses.

use crate::fanout::requests::Missed;
use crate::outbox::link::StateAsOf;
use crate::stream::batch::Batch;
use crate::stream::event::Seq;
use crossbeam_channel::Receiver;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that catches up, or one that conflates, which does so once a period. Its `Behind` counts as queued until it
/// is done, so that nothing overtakes what it missed.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// The answer to our question what it misses, while there is none.
    pub(super) asked: Option<Receiver<Missed>>,
    /// When that was asked first in this period.
    pub(super) asked_at: Option<Instant>,
    /// What is still to be encoded.
    pub(super) batches: VecDeque<Arc<Batch>>,
    /// Events to be left out of them, by their numbers in order. `None` while the client conflates and more of the
    /// period is to come before that is known.
    pub(super) left_out: Option<Vec<Seq>>,
    /// The number after which it goes on.
    pub(super) after: Seq,
    /// Behind these batches comes what is in the queue, or the rest.
    pub(super) complete: bool,
    /// The state behind them.
    pub(super) state: Option<Box<StateAsOf>>,
    /// Events replayed.
    pub(super) events: u64,
    /// The client knows that it is behind, and gets a `live` when it is not any more.
    pub(super) is_told: bool,
    /// It has all it wants, and asks again then.
    pub(super) rest_until: Option<Instant>,
}

impl CatchUp {
    /// It misses what follows number `after`.
    pub(super) fn new(after: Seq) -> CatchUp {
        CatchUp {
            asked: None,
            asked_at: None,
            batches: VecDeque::new(),
            left_out: None,
            after,
            complete: false,
            state: None,
            events: 0,
            is_told: true,
            rest_until: None,
        }
    }

    /// It has everything up to number `after`, and asks for what follows at `until`.
    pub(super) fn resting(after: Seq, until: Instant) -> CatchUp {
        CatchUp {
            is_told: false,
            rest_until: Some(until),
            ..CatchUp::new(after)
        }
    }

    /// For how long from `now` on it rests, if it does.
    pub(super) fn rests(&self, now: Instant) -> Option<Duration> {
        let left = self.rest_until?.checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }

    /// Returns whether there is something to do at `now`, besides waiting for an answer.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        self.asked.is_none() && self.rests(now).is_none()
    }

    /// Memory of the batches in hand, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.memory_bytes()).sum()
    }
}
