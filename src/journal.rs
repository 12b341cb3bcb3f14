//! Keeps every event on disk: numbered JSON lines in segments, from which the server goes on after a restart.
//!
//! Runs on: `journal`, one, with `--journal`.
//! Owns: the folder of the journal, by its lock; its segments.
//! Blocks on: its queue (250 ms), the disk (one write of at most 1 MiB at a time; flushes are thread `journal-sync`'s).
//! Can be stalled by: the disk; nobody waits for this thread but the stop, and that with a bound.
//! Full queue means: the events of that batch are not journaled: counted, and a line says which numbers are missing.
//! Ends when: `fanout` has ended and the queue is empty, or it is asked to; what is in the queue then is still written.
//! Watched as: `journal`; not a core thread, a stall makes health `degraded`.

pub mod displaced;

mod failing;

pub mod flush;

mod folder;

pub mod line;

mod lines;
mod outage;

pub mod queue;

pub mod reader;

pub mod recover;

pub mod segments;

pub mod store;

use crate::journal::flush::{Flusher, flusher};
use crate::journal::line::QUEUE_FULL;
use crate::journal::lines::Lines;
use crate::journal::outage::Failing;
use crate::journal::queue::{JournalGauges, JournalRx, JournalTx};
use crate::journal::recover::{Recovered, recover};
use crate::journal::segments::Limits;
use crate::journal::store::{Store, WriteError};
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::clock::{epoch_seconds, json_seconds};
use crate::process::files::{LockError, LockFile};
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::words::count;
use crate::stream::batch::{Batch, Item, Loss};
use crate::stream::event::Seq;
use crate::stream::history::History;
use crate::stream::position::Epoch;
use crossbeam_channel::RecvTimeoutError;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for a batch.
const TURN: Duration = Duration::from_millis(250);
/// What was written is on the disk after this long, even if the power fails.
pub const DURABLE_WITHIN: Duration = Duration::from_millis(50);
/// When the flush begins: the other half is the disk's.
const SYNC_AFTER: Duration = Duration::from_millis(DURABLE_WITHIN.as_millis() as u64 / 2);
/// Most bytes of one write; a batch is at most one event more.
const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// How long between two looks whether a flush is done that takes longer than that.
const FLUSH_LOOK: Duration = Duration::from_millis(5);

/// What the fan-out goes on from, and where it leaves what it publishes.
#[derive(Debug)]
pub struct Record {
    pub epoch: Epoch,
    /// Its newest number is the last that counts as given.
    pub history: History,
    pub journal: Option<JournalTx>,
}

impl Record {
    /// Without a journal: a new epoch, numbers from 1, nothing kept.
    pub fn unkept(history_bytes: usize) -> Record {
        Record {
            epoch: Epoch::new(),
            history: History::new(history_bytes, 0),
            journal: None,
        }
    }
}

/// Why there can be no journal in a folder.
#[derive(Debug)]
pub enum JournalError {
    Folder { path: PathBuf, error: io::Error },
    Lock(LockError),
    Read { path: PathBuf, error: io::Error },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Folder { path, error } => {
                write!(f, "cannot make the journal's folder {}: {error}", path.display())
            }
            JournalError::Lock(LockError::Io { path, error }) => {
                write!(
                    f,
                    "cannot write to the journal's folder, at {}: {error}",
                    path.display()
                )
            }
            JournalError::Lock(error) => write!(f, "another server writes this journal: {error}"),
            JournalError::Read { path, error } => {
                write!(f, "cannot read the journal, at {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for JournalError {}

impl JournalError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            JournalError::Lock(LockError::Held { .. }) => {
                "give --journal a folder of its own, or stop the other server"
            }
            _ => {
                "give --journal a folder that this user may read and write, or leave it out to serve without a journal"
            }
        }
    }
}

/// A journal that is ready.
#[derive(Debug)]
pub struct Opened {
    pub record: Record,
    /// For thread `journal`.
    pub journal: Journal,
    /// For thread `journal-sync`.
    pub flusher: Flusher,
    pub gauges: Arc<JournalGauges>,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Journal {
    rx: JournalRx,
    store: Store,
    gauges: Arc<JournalGauges>,
    beat: &'static Beat,
    stop: Stop,
    /// The number that comes next; what is not offered to us was lost to a full queue.
    next: Seq,
    /// Everything up to this number is in the journal; what lies between it and the next is in `lines`, or missing.
    written: Seq,
    lines: Lines,
    write_bytes_max: usize,
    failing: Option<Failing>,
    folder: PathBuf,
    lock: LockFile,
    /// Somebody else has written in the folder, so that this run never does again.
    is_foreign: bool,
    /// When the thread last looked whether folder, lock and segments are still there.
    looked: Instant,
    /// What is missing up to this number was taken away, and no line says so yet.
    taken_to: Option<Seq>,
}

fn lock_path_in(folder: &Path) -> PathBuf {
    folder.join("journal.lock")
}

/// Settings of the journal.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// `--journal`.
    pub folder: PathBuf,
    pub limits: Limits,
    /// How much of what the journal has goes back into the history, in bytes: `--history-bytes`.
    pub history_bytes: usize,
}

impl Journal {
    /// Recovers what is in the folder and begins to write there, with a beat for each of the two threads. Blocks on the
    /// disk, for about a second per 64 MiB of history.
    ///
    /// # Errors
    /// The folder cannot be made, locked or read. A full disk is no error.
    pub fn open(
        settings: &JournalSettings,
        beat: &'static Beat,
        sync_beat: &'static Beat,
        stop: Stop,
    ) -> Result<Opened, JournalError> {
        let JournalSettings {
            folder,
            limits,
            history_bytes,
        } = settings;
        fs::create_dir_all(folder).map_err(|error| JournalError::Folder {
            path: folder.to_owned(),
            error,
        })?;
        let lock = LockFile::acquire(&lock_path_in(folder)).map_err(JournalError::Lock)?;
        let recovered = recover(folder, *history_bytes, epoch_seconds())
            .map_err(|(path, error)| JournalError::Read { path, error })?;
        let gauges = Arc::new(JournalGauges::default());
        let (tx, rx) = queue::queue(&gauges);
        let Recovered {
            epoch,
            history,
            restart,
            segments,
            resumes,
        } = recovered;
        let (flush, flusher) = flusher(sync_beat, stop.clone());
        let first = restart.map_or(history.newest() + 1, |(loss, _)| loss.from);
        let mut journal = Journal {
            rx,
            store: Store::new(folder.to_owned(), *limits, epoch, segments, flush),
            gauges: Arc::clone(&gauges),
            beat,
            stop,
            next: first,
            written: first - 1,
            lines: Lines::default(),
            write_bytes_max: WRITE_BYTES_MAX.min(limits.segment_bytes as usize / 2),
            failing: None,
            folder: folder.to_owned(),
            lock,
            is_foreign: false,
            looked: Instant::now(),
            taken_to: None,
        };
        let mut record = Record {
            epoch,
            history,
            journal: Some(tx),
        };
        if let Err(fault) = journal.begin(resumes, restart) {
            record = journal.give_up_epoch(record, *history_bytes, &fault);
        }
        log::info!(
            "📖 journal in {}: epoch {}, the next number is {}, {} KiB of recent events are back in the history",
            folder.display(),
            record.epoch,
            record.history.newest() + 1,
            record.history.bytes() / 1024
        );
        Ok(Opened {
            record,
            journal,
            flusher,
            gauges,
        })
    }

    /// Begins another epoch: nothing on the disk says that numbers are given from here on, so the next start could give
    /// them again.
    fn give_up_epoch(&mut self, record: Record, history_bytes: usize, fault: &io::Error) -> Record {
        let (epoch, newest) = (Epoch::new(), record.history.newest());
        self.store.begin_epoch(epoch);
        self.next = newest + 1;
        self.written = newest;
        self.fail(fault);
        Record {
            epoch,
            history: History::new(history_bytes, newest),
            journal: record.journal,
        }
    }

    /// The first lines of this run, on the disk before anybody gets a number.
    fn begin(&mut self, resumes: Option<f64>, restart: Option<(Loss, f64)>) -> io::Result<()> {
        if let Some(begun) = resumes {
            self.store.resume(begun, self.next)?;
        }
        self.store.begin_run(self.next).map_err(|fault| fault.error)?;
        if let Some((loss, time)) = restart {
            let mut line = Vec::new();
            line::put_loss(&mut line, &loss, time);
            self.store.append(loss.from, &line).map_err(|fault| fault.error)?;
            self.next = loss.to + 1;
        }
        self.store.sync()?;
        self.wrote(0, self.next - 1);
        Ok(())
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("journal", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        let is_over = loop {
            drill::obey(self.beat);
            // Looked at before the queue: what was in it before the request is seen after it, and its end too.
            let stopping = self.stop.requested();
            let longest = if stopping { Duration::ZERO } else { TURN };
            match self.wait(longest) {
                Ok(batch) => self.gather(batch),
                Err(RecvTimeoutError::Timeout) if stopping => break false,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break true,
            }
            self.write();
            self.flush_if_due();
            self.look_after_folder();
            self.retire();
            self.look_after_failure();
        };
        self.finish(is_over);
        self.beat.turn_to(Operation::Ended);
    }

    fn wait(&self, longest: Duration) -> Result<Arc<Batch>, RecvTimeoutError> {
        let due = self.store.unsynced().map_or(longest, |since| {
            let least = if self.store.is_flushed() {
                Duration::ZERO
            } else {
                FLUSH_LOOK
            };
            SYNC_AFTER.saturating_sub(since.elapsed()).max(least).min(longest)
        });
        let _doing = self.beat.begin(Operation::Waiting);
        self.rx.channel().recv_timeout(due)
    }

    /// Makes lines of `batch` and of what else waits, as much as one write takes.
    fn gather(&mut self, batch: Arc<Batch>) {
        let mut batch = Some(batch);
        while let Some(taken) = batch {
            self.beat.step();
            self.rx.took(&taken);
            self.take(&taken);
            batch = if self.lines.bytes.len() < self.write_bytes_max {
                self.rx.channel().try_recv().ok()
            } else {
                None
            };
        }
    }

    fn take(&mut self, batch: &Batch) {
        let seqs = batch.seqs();
        if seqs.start > self.next {
            self.miss(seqs.start);
        }
        self.next = seqs.end;
        if let Some(failing) = &mut self.failing {
            failing.events += batch.events() as u64;
            self.gauges.drop_events(batch.events());
            return;
        }
        let time = json_seconds(batch.time());
        for item in batch.items() {
            match item {
                Item::Event(event) => {
                    line::put_event(&mut self.lines.bytes, event.seq, &time, event.recovered, event.payload);
                    self.lines.end(event.seq, true);
                }
                Item::Loss(loss) => self.lines.put_loss(&loss, batch.time()),
            }
        }
    }

    /// The numbers from the next one up to `to`, without it, found the queue full.
    fn miss(&mut self, to: Seq) {
        let loss = Loss {
            from: self.next,
            to: to - 1,
            count: Some(to - self.next),
            cause: QUEUE_FULL,
        };
        log::error!(
            "🚨 the numbers {} to {} are not in the journal: its queue was full, because the disk is slower than events come",
            loss.from,
            loss.to
        );
        self.next = to;
        if self.failing.is_none() {
            self.lines.put_loss(&loss, epoch_seconds());
        }
    }

    /// Writes the lines that were made, in pieces that fit into a segment.
    fn write(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        let mut from = 0;
        while from < lines.ends.len() && self.failing.is_none() {
            let to = lines.piece(from, self.write_bytes_max);
            self.write_piece(&lines, from, to);
            from = to;
        }
        if let Some(failing) = &mut self.failing {
            let missing = lines
                .ends
                .iter()
                .filter(|end| end.is_event && end.last > self.written)
                .count();
            failing.events += missing as u64;
            self.gauges.drop_events(missing);
        }
        // Its memory is for the next ones.
        lines.bytes.clear();
        lines.ends.clear();
        self.lines = lines;
    }

    fn write_piece(&mut self, lines: &Lines, from: usize, to: usize) {
        let start = lines.start(from);
        let bytes = &lines.bytes[start..lines.start(to)];
        let about = ((to - from) as u64, bytes.len() as u64);
        let doing = self.beat.begin_about(Operation::Journaling, about);
        let written = self.store.append(self.written + 1, bytes);
        drop(doing);
        let kept = written.as_ref().err().map_or(bytes.len(), |fault| fault.kept);
        let kept = lines.ends[from..to].iter().take_while(|end| end.at <= start + kept);
        let (events, last) = kept.fold((0, self.written), |(events, _), end| {
            (events + u64::from(end.is_event), end.last)
        });
        self.wrote(events, last);
        if let Err(WriteError { error, .. }) = written {
            self.fail(&error);
        }
    }

    /// Everything up to number `last` is in the journal, `events` more events among it.
    fn wrote(&mut self, events: u64, last: Seq) {
        self.written = last;
        self.store.note_events(events);
        self.gauges.wrote(events, last);
        self.show();
    }

    fn show(&self) {
        let current = self.store.current().unwrap_or((0, 0));
        self.gauges.show_segment(current, self.store.bytes());
    }

    fn flush_if_due(&mut self) {
        let is_due = |since: Instant| since.elapsed() >= SYNC_AFTER;
        let mut flushed = self.store.look_after_flush();
        if flushed.is_ok() && self.store.unsynced().is_some_and(is_due) && self.store.is_flushed() {
            flushed = self.store.flush();
        }
        if let Err(error) = flushed {
            self.fail(&error);
        }
    }

    /// Nothing more comes. `is_over`: because the fan-out has ended, so that no number is given any more.
    fn finish(&mut self, is_over: bool) {
        let offered = self.rx.offered();
        if is_over && offered >= self.next {
            self.miss(offered + 1);
        }
        self.write();
        if self.failing.is_some() {
            let tried = self.try_again();
            self.learn(tried);
        }
        if let Some(failing) = &self.failing {
            log::error!(
                "🚨 the journal ends without the last {}, which its disk did not take",
                count(failing.events, "event")
            );
            return;
        }
        if is_over {
            self.lines.put_end(self.next - 1);
            self.write();
        }
        let doing = self.beat.begin(Operation::Flushing);
        let synced = self.store.sync();
        drop(doing);
        if let Err(error) = synced {
            self.fail(&error);
        }
    }
}

#[cfg(test)]
mod tests;
