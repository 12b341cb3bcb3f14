//! What a client that catches up still misses.

use crate::fanout::requests::Missed;
use crate::stream::batch::Batch;
use crate::stream::event::Seq;
use crossbeam_channel::Receiver;
use std::collections::VecDeque;
use std::sync::Arc;

/// A client that catches up. Its `Behind` counts as queued until it is done, so that nothing overtakes what it missed.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// The answer to our question what it misses, while there is none.
    pub(super) asked: Option<Receiver<Missed>>,
    /// What is still to be encoded.
    pub(super) batches: VecDeque<Arc<Batch>>,
    /// The number after which it goes on.
    pub(super) after: Seq,
    /// Behind these batches comes what is in the queue.
    pub(super) complete: bool,
    /// Events replayed.
    pub(super) events: u64,
}
