//! Has the disk keep what was written of the journal, so that writing goes on meanwhile: a flush may take a tenth of a
//! second, and what is not written by then would die with the process.
//!
//! Runs on: `journal-sync`, one, with `--journal`.
//! Owns: nothing but the descriptors that it was asked to flush.
//! Blocks on: its queue (250 ms), the disk (one flush at a time).
//! Can be stalled by: the disk; nobody waits for this thread but the stop, and that with a bound.
//! Full queue means: `journal` flushes itself, which it does only between two segments.
//! Ends when: `journal` has ended and the queue is empty, or it is asked to.
//! Watched as: `journal-sync`; not a core thread, a stall makes health `degraded`.

use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// Longest wait for something to flush.
const TURN: Duration = Duration::from_millis(250);
/// Files that wait to be flushed: the one that grows, and those at a change of segments with their folder.
const QUEUE: usize = 8;

/// The journal's end.
#[derive(Debug)]
pub struct FlushTx {
    tx: Sender<File>,
    asked: u64,
    state: Arc<State>,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Flusher {
    rx: Receiver<File>,
    state: Arc<State>,
    beat: &'static Beat,
    stop: Stop,
}

#[derive(Debug, Default)]
struct State {
    done: AtomicU64,
    /// The error of a flush that failed, as the system numbers it; 0 for none.
    error: AtomicI32,
}

/// Makes both ends.
pub fn flusher(beat: &'static Beat, stop: Stop) -> (FlushTx, Flusher) {
    let (tx, rx) = bounded(QUEUE);
    let state = Arc::new(State::default());
    let flusher = Flusher {
        rx,
        state: Arc::clone(&state),
        beat,
        stop,
    };
    (FlushTx { tx, asked: 0, state }, flusher)
}

impl FlushTx {
    /// Asks for a flush of what was written to `file` so far. Blocks on the disk only when there is no room.
    ///
    /// # Errors
    /// The process or the host is out of descriptors; or there was no room, and the flush that was done here instead
    /// has failed. Nobody knows then what the disk has kept of the file, so the caller must give it up.
    pub fn ask(&mut self, file: &File) -> io::Result<()> {
        match self.tx.try_send(file.try_clone()?) {
            Ok(()) => self.asked += 1,
            Err(_) => file.sync_all()?,
        }
        Ok(())
    }

    /// Returns whether everything that was asked for is done.
    pub fn is_idle(&self) -> bool {
        // Acquire: an error that was stored before is seen.
        self.state.done.load(Ordering::Acquire) == self.asked
    }

    /// The error of a flush that has failed since the last call.
    pub fn failure(&self) -> Option<io::Error> {
        match self.state.error.swap(0, Ordering::Relaxed) {
            0 => None,
            number => Some(io::Error::from_raw_os_error(number)),
        }
    }
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("journal-sync", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(self) {
        self.beat.adopt();
        loop {
            drill::obey(self.beat);
            match self.wait() {
                Ok(file) => self.flush(&file),
                Err(RecvTimeoutError::Timeout) if !self.stop.requested() => {}
                Err(_) => break,
            }
        }
        self.beat.turn_to(Operation::Ended);
    }

    fn wait(&self) -> Result<File, RecvTimeoutError> {
        let _doing = self.beat.begin(Operation::Waiting);
        self.rx.recv_timeout(TURN)
    }

    fn flush(&self, file: &File) {
        let doing = self.beat.begin(Operation::Flushing);
        let flushed = file.sync_data();
        drop(doing);
        if let Err(error) = flushed {
            let number = error.raw_os_error().unwrap_or(libc::EIO);
            self.state.error.store(number, Ordering::Relaxed);
        }
        self.state.done.fetch_add(1, Ordering::Release);
    }
}
