//! Where log lines end: a file that is rotated by size, and a terminal that may be stuck.
//!
//! Both run on thread `log` only, below simplelog. Neither ever gives an error back: what cannot be written is counted
//! in [`SinkLosses`], and said as soon as somebody can be told.

pub mod rotating_file;

pub mod terminal;

use crate::process::clock::pause;
use crate::process::locks::lock;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a line waits for a reader that took the last one: 50 ms, because the lines behind it wait as long.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// How long between two tries within the patience, 1 ms. Not poll(2): a terminal polls writable with room for one byte,
/// and refuses the two bytes that it makes of a line end.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// A pipe takes this much whole or not at all, and one that polls writable has room for it (PIPE_BUF, pipe(7)).
const PIPE_BUF: usize = 4096;

/// Lines that a sink could not write.
#[derive(Debug, Default)]
pub struct SinkLosses {
    file: AtomicU64,
    terminal: AtomicU64,
    total: AtomicU64,
    messages: Mutex<Vec<String>>,
}

impl SinkLosses {
    /// All lines that some sink has lost so far.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// What has to be said since the last call. Called by thread `log` only, as are all others here.
    pub fn take_messages(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.messages))
    }

    fn say(&self, message: String) {
        lock(&self.messages).push(message);
    }

    fn lost_by(&self, counter: &AtomicU64) {
        // Relaxed: counts, read for messages only.
        counter.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where whole lines end.
pub trait LineSink {
    /// Writes one line with its end, or counts it as lost in [`SinkLosses`].
    fn write_line(&mut self, line: &[u8]);
}

/// Collects what simplelog writes piecemeal, and hands whole lines to a sink.
#[derive(Debug)]
pub struct WholeLines<S> {
    sink: S,
    begun: Vec<u8>,
}

impl<S: LineSink> WholeLines<S> {
    /// The way to `sink`, with no line begun.
    pub fn to(sink: S) -> WholeLines<S> {
        WholeLines {
            sink,
            begun: Vec::new(),
        }
    }
}

impl<S: LineSink> Write for WholeLines<S> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(piece);
        if self.begun.ends_with(b"\n") {
            let line = std::mem::take(&mut self.begun);
            self.sink.write_line(&line);
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long to wait for a reader: not at all once it has not taken what came last.
fn patience(is_stuck: bool) -> Duration {
    if is_stuck { Duration::ZERO } else { PATIENCE }
}

/// Writes `bytes` by calls of `try_write`, which must not wait, and tries again while there is no room. Returns how
/// many bytes were taken, and the error that stopped it before the last; after `patience` that is `WouldBlock`. Blocks
/// for `patience` at most. Takes no lock and no memory.
fn write_patiently(
    bytes: &[u8],
    patience: Duration,
    mut try_write: impl FnMut(&[u8]) -> io::Result<usize>,
) -> (usize, io::Result<()>) {
    let begun = Instant::now();
    let mut taken = 0;
    while taken < bytes.len() {
        match try_write(&bytes[taken..]) {
            Ok(0) => return (taken, Err(ErrorKind::WriteZero.into())),
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < patience => {
                pause(TRY_AGAIN_AFTER);
            }
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}
