//! What a thread shows of itself: that it moves, since when it does what it does, and what that is.
//!
//! Written by its own thread with plain stores, read by anybody at any time; nobody ever waits for it.

use crate::process::clock::monotonic_ms;
use crate::process::threads::is_thread_runnable;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Not begun, or between two operations.
    Turning = 0,
    /// Waiting for something to do; never longer than its turn.
    Waiting,
    /// Taking datagrams from the socket.
    Receiving,
    /// Looking whether the socket's path is still ours.
    CheckingPath,
    /// Waiting for room in the event queue.
    WaitingForRoom,
    /// Checking, numbering and encoding events.
    Encoding,
    /// Sending to clients.
    Broadcasting,
    /// Answering requests of clients' threads.
    Answering,
    /// Taking in connections.
    Accepting,
    /// Reading from clients.
    Reading,
    /// Writing a file or a log line.
    Writing,
    /// Held by a drill.
    Drill,
    /// Over.
    Ended,
}

impl Operation {
    const TABLE: [(Operation, &'static str); 13] = [
        (Operation::Turning, "turning"),
        (Operation::Waiting, "waiting"),
        (Operation::Receiving, "receiving datagrams"),
        (Operation::CheckingPath, "checking the socket's path"),
        (Operation::WaitingForRoom, "waiting for room in the event queue"),
        (Operation::Encoding, "encoding events"),
        (Operation::Broadcasting, "broadcasting"),
        (Operation::Answering, "answering requests"),
        (Operation::Accepting, "accepting connections"),
        (Operation::Reading, "reading from clients"),
        (Operation::Writing, "writing"),
        (Operation::Drill, "held by a drill"),
        (Operation::Ended, "ended"),
    ];

    fn from_u8(number: u8) -> Operation {
        Self::TABLE
            .get(usize::from(number))
            .map_or(Operation::Turning, |(operation, _)| *operation)
    }

    /// In words.
    pub fn text(self) -> &'static str {
        Self::TABLE[self as usize].1
    }
}

/// One thread's beat, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct Beat {
    /// Grows with every turn and with every step inside a long one.
    progress: AtomicU64,
    /// When the current operation began, [`monotonic_ms`].
    since_ms: AtomicU64,
    operation: AtomicU8,
    /// Until when a drill holds this thread, [`monotonic_ms`]; 0 for never.
    held_until_ms: AtomicU64,
    /// The kernel's id of the thread, 0 before it runs.
    thread_id: AtomicI32,
    name: &'static str,
    core: bool,
}

/// A beat as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub progress: u64,
    pub operation: Operation,
    /// Since the operation began.
    pub age: Duration,
}

// Orderings: all relaxed. Each field is read for itself; a reader that sees two of them from different moments is off
// by one step, which no judgement notices, because it looks twice before it says "hung".
impl Beat {
    fn new(name: &'static str, core: bool) -> Beat {
        Beat {
            progress: AtomicU64::new(0),
            since_ms: AtomicU64::new(monotonic_ms()),
            operation: AtomicU8::new(Operation::Turning as u8),
            held_until_ms: AtomicU64::new(0),
            thread_id: AtomicI32::new(0),
            name,
            core,
        }
    }

    /// The thread's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the data path needs this thread.
    pub fn is_core(&self) -> bool {
        self.core
    }

    /// Makes this the beat of the calling thread.
    pub fn adopt(&self) {
        let id = rustix::thread::gettid().as_raw_nonzero().get();
        self.thread_id.store(id, Ordering::Relaxed);
    }

    /// Whether its thread could run but gets no processor, or is busy: not hung, as far as the kernel can tell. Reads
    /// /proc, some 20 µs.
    pub fn is_runnable(&self) -> bool {
        match self.thread_id.load(Ordering::Relaxed) {
            0 => false,
            id => is_thread_runnable(id),
        }
    }

    /// Begins `operation`; called by the beat's own thread.
    pub fn enter(&self, operation: Operation) {
        self.operation.store(operation as u8, Ordering::Relaxed);
        self.since_ms.store(monotonic_ms(), Ordering::Relaxed);
        self.step();
    }

    /// One step forward inside an operation: a few nanoseconds.
    pub fn step(&self) {
        let next = self.progress.load(Ordering::Relaxed).wrapping_add(1);
        // Only one thread writes, so load and store need not be one operation.
        self.progress.store(next, Ordering::Relaxed);
    }

    /// The count of steps so far.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The beat now.
    pub fn sight(&self) -> Sight {
        let since = self.since_ms.load(Ordering::Relaxed);
        Sight {
            progress: self.progress(),
            operation: Operation::from_u8(self.operation.load(Ordering::Relaxed)),
            age: Duration::from_millis(monotonic_ms().saturating_sub(since)),
        }
    }

    /// Asks the thread to stand still until `until_ms`; see [`super::drill`].
    pub(super) fn hold_until(&self, until_ms: u64) {
        self.held_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Until when the thread is to stand still, 0 for never.
    pub(super) fn held_until(&self) -> u64 {
        self.held_until_ms.load(Ordering::Relaxed)
    }
}

/// The beats of all threads that live as long as the server.
#[derive(Debug)]
pub struct Beats {
    pub ingest: Arc<Beat>,
    pub fanout: Arc<Beat>,
    pub accept: Arc<Beat>,
    pub inbox: Arc<Beat>,
    pub files: Arc<Beat>,
    pub log: Arc<Beat>,
}

impl Default for Beats {
    fn default() -> Self {
        let core = |name| Arc::new(Beat::new(name, true));
        let other = |name| Arc::new(Beat::new(name, false));
        Beats {
            ingest: core("ingest"),
            fanout: core("fanout"),
            accept: core("accept"),
            inbox: core("inbox"),
            files: other("files"),
            log: other("log"),
        }
    }
}

impl Beats {
    /// Every beat, the data path first.
    pub fn all(&self) -> [&Arc<Beat>; 6] {
        [
            &self.ingest,
            &self.fanout,
            &self.accept,
            &self.inbox,
            &self.files,
            &self.log,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_operations_is_in_the_order_of_the_enum() {
        for (index, (operation, _)) in Operation::TABLE.iter().enumerate() {
            assert_eq!(*operation as usize, index);
            assert_eq!(Operation::from_u8(index as u8), *operation);
        }
    }

    #[test]
    fn a_beat_shows_operation_and_steps() {
        let beats = Beats::default();
        let before = beats.fanout.sight();
        beats.fanout.enter(Operation::Broadcasting);
        beats.fanout.step();
        let after = beats.fanout.sight();
        assert_eq!(after.operation, Operation::Broadcasting);
        assert_eq!(after.progress, before.progress + 2);
    }

    #[test]
    fn a_running_thread_is_runnable_and_nobody_is_not() {
        let beat = Beats::default().fanout;
        assert!(!beat.is_runnable());
        beat.adopt();
        assert!(beat.is_runnable());
    }

    #[test]
    fn a_beat_has_a_cache_line_of_its_own() {
        assert_eq!(std::mem::size_of::<Beat>() % 64, 0);
    }
}
