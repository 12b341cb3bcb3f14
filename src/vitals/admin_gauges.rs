//! What thread `admin` shows to threads that ask. Relaxed throughout: single facts that order nothing.

use std::sync::atomic::{AtomicBool, AtomicU64};

/// What the thread shows.
#[derive(Debug, Default)]
pub struct AdminGauges {
    /// Requests of peers that may not act.
    pub refused: AtomicU64,
    /// Requests of peers that may, but found all places of their standing taken, or no thread.
    pub busy: AtomicU64,
    /// Nobody can connect: the socket's file is gone, and cannot be made again now.
    pub lost: AtomicBool,
}
