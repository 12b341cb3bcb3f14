//! `initial` on its way to the client: what comes before it, and one part after the other.

use super::{Running, Source, Supply};
use crate::outbox::link::{Ended, StateAsOf};
use crate::process::limits;
use crate::stream::protocol::{EndReason, v1};
use std::sync::Arc;

/// What making a message of an `initial` as one client sees it takes at most, in bytes: each step makes a copy of 1
/// MiB.
const INITIAL_BYTES: usize = 3 * 1024 * 1024;
/// Addresses that snapshots of one's own leave to events, under a limit: 100 clients of a table of 1 MiB, each with
/// another filter, have 100 MiB of them.
const KEPT_FOR_EVENTS: usize = 12 * 1024 * 1024;
impl Running {
    /// The state as this client sees it, with the messages that come before it.
    pub(super) fn put_state(&mut self, state: StateAsOf, source: Source) {
        if let Some(view) = state.view {
            self.writer.link.figures().set_view(Arc::clone(&view));
            self.writer.view = view;
            if self.writer.is_v1() {
                let view = &self.writer.view;
                self.put_own(&v1::subscribed(state.as_of, &view.filter, view.conflate));
            }
        }
        if let Some(gap) = state.gap {
            self.writer.link.figures().skip(gap.count);
            if self.writer.is_v1() {
                self.put_own(&v1::gap(&gap));
            }
        }
        if self.lacks_room_for_initial() {
            return;
        }
        let initial = self.writer.view.initial(Arc::clone(&state.snapshot), state.as_of);
        self.writer.numbers.show_left_out(&state.snapshot);
        self.initial = Some((initial, source));
        self.put_part();
    }

    /// Makes the next message of an `initial` that has further ones; the last counts as the parcel that it was.
    pub(super) fn put_part(&mut self) -> Supply {
        if self.initial.is_none() || self.lacks_room_for_initial() {
            return Supply::Empty;
        }
        let Some((initial, source)) = &mut self.initial else {
            return Supply::Empty;
        };
        self.writer.beat.step();
        let chunk = initial.next();
        let source = if initial.is_over() { *source } else { Source::Own };
        if initial.is_over() {
            self.initial = None;
        }
        if let Some(chunk) = chunk {
            self.put(chunk, source);
        }
        self.supply()
    }

    /// Returns whether a limit of the address space has no room for a message of an `initial`; then the client ends.
    fn lacks_room_for_initial(&self) -> bool {
        let lacks = limits::is_short_of((INITIAL_BYTES + KEPT_FOR_EVENTS) as u64);
        if lacks {
            self.end_without_room();
        }
        lacks
    }

    /// Ends this client because a limit of the address space has no room for what it is to get: the allocation would
    /// end the process.
    pub(super) fn end_without_room(&self) {
        if self.writer.link.end(EndReason::Internal) == Ended::Now {
            log::error!(
                "🚨 client {} ends, because there is no room for what it is to get: the limit of the address space is all \
                 but reached. Raise it (ulimit -v, LimitAS=), or lower --max-clients",
                self.writer.link.id()
            );
        }
    }
}
