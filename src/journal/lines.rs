//! Lines on their way to the disk: made in one buffer, written in pieces.

use crate::journal::line;
use crate::process::clock::epoch_seconds;
use crate::stream::batch::Loss;
use crate::stream::event::Seq;

/// Lines on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<LineEnd>,
}

/// Where a line ends, and its last number.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineEnd {
    pub(super) at: usize,
    pub(super) last: Seq,
    pub(super) is_event: bool,
}

impl Lines {
    pub(super) fn end(&mut self, last: Seq, is_event: bool) {
        let at = self.bytes.len();
        self.ends.push(LineEnd { at, last, is_event });
    }

    pub(super) fn put_loss(&mut self, loss: &Loss, time: f64) {
        line::put_loss(&mut self.bytes, loss, time);
        self.end(loss.to, false);
    }

    pub(super) fn put_end(&mut self, seq: Seq) {
        line::put_end(&mut self.bytes, seq, epoch_seconds());
        self.end(seq, false);
    }

    /// Where line `index` begins; the end of the last one for the index behind it.
    pub(super) fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before].at)
    }

    /// The index behind the lines from `from` on that have `bytes_max` bytes together; at least one line.
    pub(super) fn piece(&self, from: usize, bytes_max: usize) -> usize {
        let end = self.start(from) + bytes_max;
        self.ends.partition_point(|line| line.at <= end).max(from + 1)
    }
}
