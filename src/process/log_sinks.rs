//! Where log lines end: a file that is rotated by size, and a terminal that may be stuck.
//!
//! Both run on thread `log` only, below simplelog. Neither ever gives an error back: what cannot be written is counted
//! in [`SinkLosses`], and said as soon as somebody can be told.

use crate::process::clock::timespec;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A log file is set aside at this size; with the older ones that makes 60 MiB at most.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Older files that are kept, `.1` the newest.
const OLD_FILES_MAX: u32 = 5;
/// A file that could not be opened or written is tried again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a line waits for a terminal that was fast so far.
const TERMINAL_PATIENCE: Duration = Duration::from_millis(50);
/// POSIX promises that a pipe which polls writable takes this much without blocking (PIPE_BUF, pipe(7)).
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
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn say(&self, message: String) {
        self.messages
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push(message);
    }

    fn lost_by(&self, counter: &AtomicU64) {
        // Relaxed: counts, read for messages only.
        counter.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
    }
}

/// Collects what simplelog writes piecemeal and hands out whole lines.
#[derive(Debug, Default)]
struct LineBuffer(Vec<u8>);

impl LineBuffer {
    /// Adds `piece`; gives the line if it is whole now.
    fn add(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        self.0.extend_from_slice(piece);
        self.0.ends_with(b"\n").then(|| std::mem::take(&mut self.0))
    }
}

/// The log file.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    open: Option<(File, u64)>,
    failed_at: Option<Instant>,
    line: LineBuffer,
    losses: Arc<SinkLosses>,
}

impl RotatingFile {
    /// A log at `path`; its folder is made when it is missing. Opened with the first line.
    pub fn new(path: PathBuf, losses: Arc<SinkLosses>) -> RotatingFile {
        RotatingFile {
            path,
            open: None,
            failed_at: None,
            line: LineBuffer::default(),
            losses,
        }
    }

    fn write_line(&mut self, line: &[u8]) {
        if self.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            self.losses.lost_by(&self.losses.file);
            return;
        }
        match self.try_write(line) {
            Ok(()) => self.recovered(),
            Err(error) => self.failed(&error),
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.gone() {
            self.open = None;
        }
        let (file, size) = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        let (mut file, size) = if size + line.len() as u64 > FILE_BYTES_MAX && size > 0 {
            drop(file);
            self.rotate()?;
            self.open_file()?
        } else {
            (file, size)
        };
        file.write_all(line)?;
        self.open = Some((file, size + line.len() as u64));
        Ok(())
    }

    /// Whether somebody has removed or renamed the file under us (a person, or logrotate).
    fn gone(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Some((file, _)) = &self.open else {
            return false;
        };
        let same = |ours: fs::Metadata, there: fs::Metadata| ours.dev() == there.dev() && ours.ino() == there.ino();
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => !same(ours, there),
            _ => true,
        }
    }

    fn open_file(&self) -> io::Result<(File, u64)> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&self.path)?;
        let mut size = file.metadata()?.len();
        // A line that a full disk or a crash has cut off must not run into the next one.
        let mut last = [b'\n'];
        if size > 0 && file.read_at(&mut last, size - 1)? == 1 && last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok((file, size))
    }

    fn rotate(&self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut path = self.path.as_os_str().to_owned();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..OLD_FILES_MAX).rev() {
            if numbered(number).exists() {
                fs::rename(numbered(number), numbered(number + 1))?;
            }
        }
        fs::rename(&self.path, numbered(1))
    }

    fn failed(&mut self, error: &io::Error) {
        if self.failed_at.is_none() {
            self.losses.say(format!(
                "⚠️ cannot write {}: {error}; lines go to the terminal only until it can be written again",
                self.path.display()
            ));
        }
        self.open = None;
        self.failed_at = Some(Instant::now());
        self.losses.lost_by(&self.losses.file);
    }

    fn recovered(&mut self) {
        if self.failed_at.take().is_some() {
            let lost = self.losses.file.swap(0, Ordering::Relaxed);
            self.losses.say(format!(
                "✅ {} can be written again; {lost} lines are missing in it",
                self.path.display()
            ));
        }
    }
}

impl Write for RotatingFile {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if let Some(line) = self.line.add(piece) {
            self.write_line(&line);
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error, which may be a pipe that nobody reads or a terminal that somebody has stopped.
#[derive(Debug)]
pub struct Terminal {
    line: LineBuffer,
    stuck: bool,
    losses: Arc<SinkLosses>,
}

impl Terminal {
    /// The process's standard error.
    pub fn new(losses: Arc<SinkLosses>) -> Terminal {
        Terminal {
            line: LineBuffer::default(),
            stuck: false,
            losses,
        }
    }

    /// Writes as much as is taken without blocking; what waits longer than the patience is lost.
    fn write_line(&mut self, line: &[u8]) {
        let stderr = io::stderr();
        let patience = if self.stuck { Duration::ZERO } else { TERMINAL_PATIENCE };
        for piece in line.chunks(PIPE_BUF) {
            let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
            let ready = poll(&mut fds, Some(&timespec(patience))).is_ok_and(|count| count > 0);
            if !ready || rustix::io::write(stderr.as_fd(), piece).is_err() {
                self.stuck = true;
                self.losses.lost_by(&self.losses.terminal);
                return;
            }
        }
        if std::mem::take(&mut self.stuck) {
            let lost = self.losses.terminal.swap(0, Ordering::Relaxed);
            self.losses.say(format!(
                "⚠️ the terminal did not take {lost} log lines; they are in the log file only"
            ));
        }
    }
}

impl Write for Terminal {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if let Some(line) = self.line.add(piece) {
            self.write_line(&line);
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_in(folder: &std::path::Path) -> (RotatingFile, Arc<SinkLosses>) {
        let losses = Arc::new(SinkLosses::default());
        let log = RotatingFile::new(folder.join("logs/server.log"), Arc::clone(&losses));
        (log, losses)
    }

    #[test]
    fn pieces_become_lines_and_the_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, losses) = log_in(folder.path());
        for piece in ["one ", "line", "\n", "two\n"] {
            log.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "one line\ntwo\n");
        assert_eq!(losses.total(), 0);
    }

    #[test]
    fn a_large_file_is_set_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = log_in(folder.path());
        let line = [vec![b'x'; 1024 * 1024 - 1], vec![b'\n']].concat();
        for _ in 0..FILE_BYTES_MAX / line.len() as u64 * 7 + 1 {
            log.write_line(&line);
        }
        let mut names: Vec<_> = fs::read_dir(folder.path().join("logs"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = ["", ".1", ".2", ".3", ".4", ".5"].map(|end| format!("server.log{end}"));
        assert_eq!(names, expected);
        assert_eq!(fs::metadata(&log.path).unwrap().len(), line.len() as u64);
    }

    #[test]
    fn a_file_removed_under_us_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = log_in(folder.path());
        log.write_line(b"before\n");
        fs::remove_dir_all(folder.path().join("logs")).unwrap();
        log.write_line(b"after\n");
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "after\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_said_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("logs"), "a file where the folder should be").unwrap();
        let (mut log, losses) = log_in(folder.path());
        log.write_line(b"one\n");
        log.write_line(b"two\n");
        assert_eq!(losses.total(), 2);
        assert_eq!(losses.take_messages().len(), 1);
        fs::remove_file(folder.path().join("logs")).unwrap();
        log.failed_at = Some(Instant::now() - RETRY_AFTER);
        log.write_line(b"three\n");
        assert!(losses.take_messages()[0].contains("2 lines are missing"));
    }
}
