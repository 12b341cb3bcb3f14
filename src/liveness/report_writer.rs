//! Writes reports of hangs to the emergency file, so that a disk that does not answer never stops the watchdog.
//!
//! Runs on: `reports`, one.
//! Owns: the emergency file.
//! Blocks on: a report (250 ms), the disk under that file.
//! Can be stalled by: that disk; nobody waits for this thread, the watchdog only looks for a second whether it is done.
//! Full queue means: what has no room is cut off, and the watchdog says so.
//! Ends when: asked to; what was left for it then is still written.
//! Watched as: `reports`; not a core thread, a stall makes health `degraded`.

use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::emergency_file::EmergencyFile;
use crate::liveness::operation::Operation;
use crate::process::clock::{pause, timespec};
use crate::process::locks::{lock, try_lock};
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::process::wake::Wake;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest wait for a report.
const TURN: Duration = Duration::from_millis(250);
/// What may wait for the disk. Untouched memory costs nothing, and it is touched in a hang only.
const LEFT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Times that the watchdog tries again a lock that the thread holds for moments: with the pauses between them, 20 ms.
const TRIES: u32 = 20;
/// Pause between two such tries, 1 ms: the watchdog must not spin on a host that is short of processors.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Where the watchdog leaves what it reports.
#[derive(Clone, Debug)]
pub struct Reports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// The watchdog waits for neither of these two locks: it only tries them, and the thread holds them for moments.
    left: Mutex<Vec<u8>>,
    failure: Mutex<Option<String>>,
    /// Pieces that were left, and those that the thread has dealt with.
    asked: AtomicU64,
    done: AtomicU64,
    wake: Wake,
}

/// How the writing of what was left goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it is in the file.
    Yes,
    /// The disk has not answered yet.
    NotYet,
    /// It failed, for this reason.
    No(String),
}

impl Reports {
    /// Makes the way to a file at `path`, and the body of the thread that writes it.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub fn new(path: PathBuf, beat: &'static Beat, stop: Stop) -> io::Result<(Reports, ReportWriter)> {
        let reports = Reports(Arc::new(Inner {
            path: path.clone(),
            left: Mutex::new(Vec::with_capacity(LEFT_BYTES_MAX)),
            failure: Mutex::default(),
            asked: AtomicU64::new(0),
            done: AtomicU64::new(0),
            wake: Wake::new()?,
        }));
        let writer = ReportWriter {
            file: EmergencyFile::new(path),
            taken: Vec::with_capacity(LEFT_BYTES_MAX),
            reports: reports.clone(),
            beat,
            stop,
        };
        Ok((reports, writer))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A new report begins: what failed before is forgotten. Never blocks.
    pub fn begin(&self) {
        if let Some(mut failure) = try_lock(&self.0.failure) {
            *failure = None;
        }
    }

    /// Leaves `bytes` for the file; returns how many had room. Called by one thread. Blocks for 20 ms at
    /// most, and takes no memory.
    pub fn leave(&self, bytes: &[u8]) -> usize {
        let mut tries = 0;
        let mut left = loop {
            match try_lock(&self.0.left) {
                Some(left) => break left,
                // The thread takes what was left at this moment, unless somebody has stopped it there.
                None if tries < TRIES => pause(TRY_AGAIN_AFTER),
                None => return 0,
            }
            tries += 1;
        };
        let taken = bytes.len().min(left.capacity() - left.len());
        left.extend_from_slice(&bytes[..taken]);
        // Release: a thread that reads this number also sees the bytes that were left before.
        self.0.asked.fetch_add(1, Ordering::Release);
        drop(left);
        self.0.wake.wake();
        taken
    }

    /// How the writing goes. Never blocks.
    pub fn written(&self) -> Written {
        if self.0.done.load(Ordering::Acquire) < self.0.asked.load(Ordering::Acquire) {
            return Written::NotYet;
        }
        match try_lock(&self.0.failure) {
            None => Written::NotYet,
            Some(failure) => failure.clone().map_or(Written::Yes, Written::No),
        }
    }
}

/// The thread's own things.
#[derive(Debug)]
pub struct ReportWriter {
    file: EmergencyFile,
    /// The other half of what [`Reports::leave`] fills.
    taken: Vec<u8>,
    reports: Reports,
    beat: &'static Beat,
    stop: Stop,
}

impl ReportWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("reports", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        self.open();
        loop {
            drill::obey(self.beat);
            // Looked at before the reports: what was left before the request is seen after it.
            let last = self.stop.requested();
            self.write();
            if last {
                break;
            }
            self.wait();
        }
        self.beat.turn_to(Operation::Ended);
    }

    /// Opens the file, so that in a hang no descriptor need be free.
    fn open(&mut self) {
        let _doing = self.beat.begin(Operation::Writing);
        if let Err(error) = self.file.open() {
            log::warn!(
                "⚠️  cannot open {}: {error}; reports of hangs go to the terminal and to the log only, unless it can be \
                 opened then",
                self.file.path().display()
            );
        }
    }

    fn wait(&self) {
        let _doing = self.beat.begin(Operation::Waiting);
        let mut fds = [
            PollFd::new(&self.reports.0.wake, PollFlags::IN),
            PollFd::new(&self.stop, PollFlags::IN),
        ];
        // An interrupted poll is one more look.
        let _ = waits::REPORTS.judge(poll(&mut fds, Some(&timespec(TURN))));
        let _ = self.reports.0.wake.quieten();
    }

    /// Writes what was left.
    fn write(&mut self) {
        let inner = Arc::clone(&self.reports.0);
        let mut left = lock(&inner.left);
        let asked = inner.asked.load(Ordering::Acquire);
        std::mem::swap(&mut *left, &mut self.taken);
        drop(left);
        if self.taken.is_empty() {
            return;
        }
        let doing = self.beat.begin(Operation::Writing);
        let failure = self.file.append(&self.taken).err().map(|error| error.to_string());
        drop(doing);
        self.taken.clear();
        if let Some(failure) = failure {
            let mut known = lock(&inner.failure);
            // Freed behind the lock: the allocator may be what hangs.
            let before = known.replace(failure);
            drop(known);
            drop(before);
        }
        inner.done.store(asked, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beats::tests::beats;
    use std::fs;
    use std::time::Instant;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn writer_to(path: &Path) -> (Reports, ReportWriter, Stop) {
        let stop = Stop::new().unwrap();
        let (reports, writer) = Reports::new(path.to_owned(), beats().reports, stop.clone()).unwrap();
        (reports, writer, stop)
    }

    fn settled(reports: &Reports) -> Written {
        let begun = Instant::now();
        while reports.written() == Written::NotYet && begun.elapsed() < DEADLINE {
            pause(Duration::from_millis(5));
        }
        reports.written()
    }

    #[test]
    fn what_is_left_is_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hang-emergency.log");
        let (reports, writer, stop) = writer_to(&path);
        let thread = writer.start().unwrap();
        assert_eq!(reports.leave(b"head\n"), 5);
        assert_eq!(settled(&reports), Written::Yes);
        reports.leave(b"stacks\n");
        // What was left before the request is written after it.
        stop.request();
        thread.join_within(DEADLINE).unwrap();
        assert_eq!(reports.written(), Written::Yes);
        assert_eq!(fs::read_to_string(&path).unwrap(), "head\nstacks\n");
    }

    #[test]
    fn a_file_that_refuses_is_named_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hang-emergency.log");
        fs::create_dir(&path).unwrap();
        let (reports, mut writer, _) = writer_to(&path);
        reports.leave(b"one\n");
        writer.write();
        assert!(matches!(reports.written(), Written::No(why) if why.contains("directory")));
        fs::remove_dir(&path).unwrap();
        reports.begin();
        reports.leave(b"two\n");
        writer.write();
        assert_eq!(reports.written(), Written::Yes);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn what_has_no_room_is_cut_and_never_waits() {
        let (reports, _writer, _) = writer_to(Path::new("/dev/null"));
        let much = vec![b'x'; LEFT_BYTES_MAX - 1];
        assert_eq!(reports.leave(&much), LEFT_BYTES_MAX - 1);
        assert_eq!(reports.leave(b"xx"), 1);
        assert_eq!(reports.written(), Written::NotYet);
        let _held = reports.0.left.lock().unwrap();
        assert_eq!(reports.leave(b"x"), 0);
    }
}
