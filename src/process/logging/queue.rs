//! The way of lines to thread `log`, without a lock.

use super::line::Line;
use crate::process::bell::Bell;
use crate::process::pile::Pile;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lines that wait for the disk. At about 200 bytes each this is under 1 MiB, but outsiders can make them longer.
pub(super) const LINES_QUEUE_LEN_MAX: usize = 4096;
/// What these lines may take together. Full policy as for their number.
pub(super) const LINES_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Lines on their way to thread `log`. A thread that stops anywhere in here costs the others one place of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) lines: Pile<Line>,
    /// How many lines wait, and their memory; with those that are tried right now, and those that thread `log` has in
    /// hand.
    pub(super) count: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    count_max: usize,
    pub(super) bell: Bell,
}

/// The queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Queue {
    /// An empty one for `count_max` lines.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub(super) fn new(count_max: usize) -> io::Result<Queue> {
        Ok(Queue {
            lines: Pile::new(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            count_max,
            bell: Bell::new()?,
        })
    }

    /// Leaves the line for thread `log` and wakes it. Never blocks.
    ///
    /// # Errors
    /// There is no room: the line is lost, which the caller counts.
    pub(super) fn leave(&self, line: Line) -> Result<(), Full> {
        let bytes = line.text.capacity();
        // Relaxed: bounds, not an order. Counted before it is in, so that it cannot be counted out first.
        let count_before = self.count.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if count_before >= self.count_max || bytes_before + bytes > LINES_QUEUE_BYTES_MAX {
            self.count_out(bytes);
            return Err(Full);
        }
        self.lines.leave(line);
        self.bell.ring();
        Ok(())
    }

    /// A line was written and its memory freed: there is room for another one.
    pub(super) fn count_out(&self, bytes: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
