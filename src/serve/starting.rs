//! Ends a start that hangs: a signal that asks to end must not wait for a disk that does not answer. What the start has
//! made goes with it, as far as its disks answer.
//!
//! Runs on: `start`, one while the server starts; when it is given up, one more for each file to remove.
//! Owns: what the start has made, so far as it goes with it.
//! Blocks on: the start's end (100 ms); giving up: the disks of what the start has made (500 ms).
//! Can be stalled by: nothing; a file whose disk does not answer is left behind.
//! Full queue means: nothing; it has none.
//! Ends when: the start is over, or with the process.
//! Watched as: not watched; it ends with the start.

use crate::config::Config;
use crate::journal::queue::JournalTx;
use crate::liveness::beat::Beat;
use crate::liveness::operation::Operation;
use crate::liveness::voice::Voice;
use crate::process::clock::{monotonic_ms, pause, timespec};
use crate::process::exit::ExitStatus;
use crate::process::files::lock_path;
use crate::process::logging::LogControl;
use crate::process::procfs::has_file_open;
use crate::process::signals::StopSignals;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often thread `start` looks for a signal.
const LOOK: Duration = Duration::from_millis(100);
/// A start that was asked to end may go on for this long; one that only waits for its turn is done by then.
const PATIENCE_MS: u64 = 2000;
/// How long a start that is given up waits for its disks to take away what it has made.
const CLEANING: Duration = Duration::from_millis(500);
/// How often it looks whether the journal has its last line.
const JOURNAL_LOOK: Duration = Duration::from_millis(10);
/// How long the end of the start waits for thread `start`, which wakes at once.
const JOIN: Duration = Duration::from_millis(250);

/// What a start does one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Sockets,
    Journal,
    Files,
    EventSocket,
    Threads,
}

/// Where the start is. One per start.
#[derive(Debug)]
pub struct Progress {
    step: AtomicUsize,
    /// In the order of [`Step`].
    texts: [String; 5],
    /// Locked for moments.
    made: Mutex<Made>,
}

/// What a start has made, and what ends with it if it is given up.
#[derive(Debug, Default)]
struct Made {
    files: Vec<Trace>,
    /// The way into the journal, until the fan-out has it, and the beat of thread `journal`.
    journal: Option<(JournalTx, &'static Beat)>,
    given_up: bool,
}

/// A file that this start has made.
#[derive(Debug)]
struct Trace {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Trace {
    /// Removes the file, if it is still ours. Blocks on its disk.
    fn remove(&self) {
        if identity(&self.path) == Some(self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// The start was given up while it went on after all.
#[derive(Debug)]
pub(super) struct GivenUp;

impl Progress {
    /// A start with these settings.
    pub fn new(config: &Config) -> Progress {
        let journal = config.journal.as_deref().map(|folder| folder.display().to_string());
        let state = config.state_path().map(|path| path.display().to_string());
        Progress {
            step: AtomicUsize::new(Step::Sockets as usize),
            texts: [
                "opening the TCP port and the lock of the event socket".to_owned(),
                format!("opening the journal {}", journal.unwrap_or_default()),
                format!("reading the state file {}", state.unwrap_or_default()),
                format!("binding event socket {}", config.event_socket_path.display()),
                "starting its threads".to_owned(),
            ],
            made: Mutex::default(),
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This start has made the file at `path`. Blocks on its disk.
    pub(super) fn has_made(&self, path: &Path) {
        if let Some(identity) = identity(path) {
            let path = path.to_owned();
            self.made().files.push(Trace { path, identity });
        }
    }

    /// This start holds the lock that belongs to `path`, unless there could be none. Blocks on its disk.
    pub(super) fn has_locked(&self, path: &Path) {
        let lock = lock_path(path);
        if fs::symlink_metadata(&lock).is_ok_and(|found| has_file_open(std::process::id(), &found)) {
            self.has_made(&lock);
        }
    }

    /// Keeps the way into the journal for [`Progress::take_journal`]. `beat` is thread `journal`'s.
    pub(super) fn keep_journal(&self, journal: JournalTx, beat: &'static Beat) {
        self.made().journal = Some((journal, beat));
    }

    /// The way into the journal, if there is one: numbers are given from here on.
    ///
    /// # Errors
    /// The start was given up, so the journal may have its last line already, and a number would be given twice. Blocks
    /// until thread `start` has ended the process, at most 2 s.
    pub(super) fn take_journal(&self) -> Result<Option<JournalTx>, GivenUp> {
        let mut made = self.made();
        if made.given_up {
            drop(made);
            pause(CLEANING * 4);
            return Err(GivenUp);
        }
        Ok(made.journal.take().map(|(journal, _)| journal))
    }

    /// Lets go of the way into the journal, which then gets its last line.
    pub(super) fn drop_journal(&self) {
        drop(self.made().journal.take());
    }

    /// Shows that this step begins.
    pub(super) fn begin(&self, step: Step) {
        // Relaxed: read for a message only.
        self.step.store(step as usize, Ordering::Relaxed);
    }

    fn text(&self) -> &str {
        &self.texts[self.step.load(Ordering::Relaxed)]
    }
}

/// Thread `start`, which lives as long as the start.
#[derive(Debug)]
pub(super) struct StartWatch {
    over: Stop,
    thread: ThreadHandle<()>,
}

impl StartWatch {
    /// Starts it. If a signal asks to end and the start goes on for 2 s, it says where the start hangs and ends the
    /// process with status 1.
    ///
    /// # Errors
    /// The process is out of descriptors or threads.
    pub(super) fn begin(
        signals: &Arc<StopSignals>,
        progress: &Arc<Progress>,
        log: LogControl,
    ) -> io::Result<StartWatch> {
        let over = Stop::new()?;
        let (signals, progress, stop) = (Arc::clone(signals), Arc::clone(progress), over.clone());
        let body = move || watch(&signals, &progress, log, &stop);
        let thread = threads::spawn("start", CORE_STACK_BYTES, None, body)?;
        Ok(StartWatch { over, thread })
    }

    /// The start is over. Blocks 250 ms at most.
    pub(super) fn end(self) {
        self.over.request();
        // One that is late ends the same way a moment later; it changes nothing any more.
        let _ = self.thread.join_within(JOIN);
    }
}

fn watch(signals: &StopSignals, progress: &Progress, log: LogControl, over: &Stop) {
    let mut asked = None;
    while !over.requested() {
        // An interrupted poll is one more look.
        let _ = waits::MAIN.judge(poll(&mut [PollFd::new(over, PollFlags::IN)], Some(&timespec(LOOK))));
        signals.take_waiting();
        let Some(signal) = signals.stop() else { continue };
        let since = *asked.get_or_insert_with(monotonic_ms);
        if monotonic_ms().saturating_sub(since) >= PATIENCE_MS && !over.requested() {
            let mut voice = Voice::new("start", Some(log));
            let text = format!(
                "🚨 {signal} came while the server starts, and the start does not go on: it is {}. Ending without it; look \
                 whether that disk or file answers",
                progress.text()
            );
            voice.say(Level::Error, &text);
            clean_up(progress);
            voice.linger();
            if over.requested() {
                // It has come to an end after all, and the signal ends what it has begun.
                return;
            }
            signal_hook::low_level::exit(ExitStatus::Failed as i32);
        }
    }
}

/// Takes away what the start has made, and lets the journal have its last line. Blocks [`CLEANING`] at most: each file
/// has a thread of its own, because one of their disks is likely to be the one that does not answer.
fn clean_up(progress: &Progress) {
    let deadline = Instant::now() + CLEANING;
    let (files, journal) = {
        let mut made = progress.made();
        made.given_up = true;
        (std::mem::take(&mut made.files), made.journal.take())
    };
    let removing: Vec<ThreadHandle<()>> = files
        .into_iter()
        .filter_map(|file| threads::spawn("start", CORE_STACK_BYTES, None, move || file.remove()).ok())
        .collect();
    if let Some((queue, beat)) = journal {
        // With the end of its queue the thread writes what it has, and that this is all.
        drop(queue);
        while beat.sight().operation != Operation::Ended && Instant::now() < deadline {
            pause(JOURNAL_LOOK);
        }
    }
    for thread in removing {
        // One that hangs is left behind with the process.
        let _ = thread.join_within(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_this_start_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let progress = Progress::new(&Config::default());
        for name in ["ours", "replaced"] {
            fs::write(path(name), "").unwrap();
            progress.has_made(&path(name));
        }
        progress.has_made(&path("absent"));
        // Both exist at once, so they are two files.
        fs::write(path("other"), "").unwrap();
        fs::rename(path("other"), path("replaced")).unwrap();
        // Nobody here holds it.
        fs::write(path("x.lock"), "").unwrap();
        progress.has_locked(&path("x"));
        let _held = crate::process::files::LockFile::acquire(&path("y.lock")).unwrap();
        progress.has_locked(&path("y"));
        clean_up(&progress);
        assert!(!path("ours").exists() && !path("y.lock").exists());
        assert!(path("replaced").exists() && path("x.lock").exists());
    }
}
