//! A time in which nothing can be written.

use std::time::Instant;

/// Nothing can be written.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) since: Instant,
    pub(super) tried: Instant,
    pub(super) said: Instant,
    /// Events that are missing.
    pub(super) events: u64,
}
