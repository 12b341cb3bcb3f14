//! What receiving shows to threads that ask. Relaxed throughout: single facts that order nothing.

use crate::intake::event_socket::PathState;
use crate::stream::drops::DropTally;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// What receiving shows to threads that ask.
#[derive(Debug, Default)]
pub struct IngestGauges {
    /// Datagrams taken from the kernel.
    pub received: AtomicU64,
    /// Their bytes; of one that is too large, those that it was cut to.
    pub received_bytes: AtomicU64,
    /// Datagrams that were not forwarded.
    pub drops: DropTally,
    path_state: AtomicU8,
    /// The permissions of the socket's file, while it has fewer than it was given; [`GIVEN`] else.
    lessened_mode: AtomicU32,
}

/// No permissions were taken away.
const GIVEN: u32 = 0;

/// Added to permissions, so that none at all are not [`GIVEN`].
const LESSENED: u32 = 0o1000;

impl IngestGauges {
    /// What stood at the socket's path when it was last looked at.
    pub fn path_state(&self) -> PathState {
        match self.path_state.load(Ordering::Relaxed) {
            0 => PathState::Ours,
            1 => PathState::Gone,
            2 => PathState::Taken,
            3 => PathState::Blocked,
            _ => PathState::Unseen,
        }
    }

    /// The permissions of the socket's file, while somebody has taken some of those that it was given.
    pub fn lessened_mode(&self) -> Option<u32> {
        let mode = self.lessened_mode.load(Ordering::Relaxed);
        (mode != GIVEN).then_some(mode & !LESSENED)
    }

    pub(super) fn show_path_state(&self, state: PathState) {
        self.path_state.store(state as u8, Ordering::Relaxed);
    }

    /// The socket's file has fewer permissions than it was given, and which; `None`: it has them.
    pub(super) fn show_lessened_mode(&self, mode: Option<u32>) {
        let shown = mode.map_or(GIVEN, |mode| mode | LESSENED);
        self.lessened_mode.store(shown, Ordering::Relaxed);
    }
}
