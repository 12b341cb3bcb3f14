//! Work that waits for a thread.

use crate::liveness::beat::Beat;
use std::fmt;

/// Something that waits for a thread: with it, the thread's own wait is not idleness.
pub struct Backlog {
    pub beat: &'static Beat,
    /// What waits, in words; `None` when nothing does. Reads atomics only.
    pub waiting: Box<dyn Fn() -> Option<String> + Send>,
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").field("beat", &self.beat.name()).finish()
    }
}
