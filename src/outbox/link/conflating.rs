//! The fan-out's hold on a client that asks for what it misses once a period, because it conflates.

use super::{Offered, Parcel, Subscriber};
use crate::stream::event::Seq;
use std::time::{Duration, Instant};

/// A client that conflates counts as behind if it has not asked this long after the end of its period.
const ASKS_WITHIN: Duration = Duration::from_secs(1);

impl Subscriber {
    /// For how long it has been catching up; of a client that conflates, for how long it has not asked when it should
    /// have.
    pub fn behind_for(&self) -> Option<Duration> {
        let (_, since) = self.behind?;
        let due = self
            .view
            .1
            .conflate
            .map_or(Duration::ZERO, |period| period + ASKS_WITHIN);
        since.elapsed().checked_sub(due)
    }

    /// It wants at most one state per machine and period, and so asks for what it misses once a period.
    pub fn conflates(&self) -> bool {
        self.view.1.conflate.is_some()
    }

    /// It has been given everything there is, up to number `newest`: whatever comes from now on is queued behind that,
    /// or a client that conflates asks for it.
    pub fn set_live(&mut self, newest: Seq) {
        self.behind = self.conflates().then(|| (newest, Instant::now()));
        self.hurried = false;
    }

    /// From number `after` on it asks for what it misses once a period, because it conflates. Never blocks.
    pub fn conflate_from(&mut self, after: Seq) -> Offered {
        self.set_live(after);
        self.link.handover.will_queue();
        self.enqueue(Parcel::Conflate(after))
    }

    /// Makes a client that conflates ask now, and not at the end of its period. Never blocks.
    pub fn hurry(&mut self) {
        if self.conflates() && !std::mem::replace(&mut self.hurried, true) {
            self.link.handover.will_queue();
            // A client that ends does not ask.
            let _ = self.enqueue(Parcel::Ask);
        }
    }

    /// Returns whether it misses nothing up to number `newest` that is not in its queue.
    pub fn all_queued(&self, newest: Seq) -> bool {
        let misses = |(after, _)| !self.conflates() || after < newest;
        self.overflow.is_empty() && !self.behind.is_some_and(misses)
    }
}
