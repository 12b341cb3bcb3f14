//! The log file: rotated by size, also with other servers that write the same one.

use super::{LineSink, SinkLosses, patience, write_patiently};
use crate::process::files::is_absence;
use crate::process::safe_open;
use crate::process::words::{count, pick};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A log file is set aside at this size; with the older ones that makes 60 MiB, as long as it can be set aside.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Older files that are kept, `.1` the newest.
const OLD_FILES_MAX: u32 = 5;
/// A file that could not be opened or written is tried again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A file that could not be set aside goes on growing; setting it aside is tried again after this long.
const ROTATE_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The log file.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    open: Option<File>,
    failed_at: Option<Instant>,
    not_rotated_at: Option<Instant>,
    /// A pipe in the file's place did not take the last line in time.
    is_stuck: bool,
    losses: Arc<SinkLosses>,
}

/// The path of the log file, after the file was to be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A new file can begin there.
    Free,
    /// The file is still there, and is written on.
    Taken,
}

impl RotatingFile {
    /// A log at `path`; its folder is made when it is missing. Opened with the first line.
    pub fn new(path: PathBuf, losses: Arc<SinkLosses>) -> RotatingFile {
        RotatingFile {
            path,
            open: None,
            failed_at: None,
            not_rotated_at: None,
            is_stuck: false,
            losses,
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut file = match self.open.take() {
            Some(file) if !self.is_gone(&file) => file,
            _ => self.open_file()?,
        };
        // Not what we have written: another server may write the same file.
        let size = file.metadata()?.len();
        let full = size + line.len() as u64 > FILE_BYTES_MAX && size > 0;
        if full && self.set_aside(&file, size) == Place::Free {
            file = self.open_file()?;
        }
        let (_, written) = write_patiently(line, patience(self.is_stuck), |rest| file.write(rest));
        self.open = Some(file);
        written
    }

    /// Returns whether somebody has removed or renamed the file under us (a person, logrotate, or another server).
    fn is_gone(&self, file: &File) -> bool {
        let same = |ours: fs::Metadata, there: fs::Metadata| ours.dev() == there.dev() && ours.ino() == there.ino();
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => !same(ours, there),
            // A folder that we may not look into any more costs no line.
            (Ok(_), Err(error)) => is_absence(&error),
            (Err(_), _) => true,
        }
    }

    fn open_file(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = safe_open::append(&self.path)?;
        let size = file.metadata()?.len();
        // A line that a full disk or a crash has cut off must not run into the next one.
        let mut last = [b'\n'];
        if size > 0 && file.read_at(&mut last, size - 1)? == 1 && last != *b"\n" {
            file.write_all(b"\n")?;
        }
        Ok(file)
    }

    /// Renames the file of `size` bytes away. A folder that does not allow it costs no
    /// line: the file is then used on, and renaming is tried again later.
    fn set_aside(&mut self, file: &File, size: u64) -> Place {
        if self.not_rotated_at.is_some_and(|at| at.elapsed() < ROTATE_AGAIN_AFTER) {
            return Place::Taken;
        }
        // Servers that share a log take turns: the lock goes with the file. Where a file system has none, there is no
        // turn.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Place::Taken;
        }
        if self.is_gone(file) {
            return Place::Free;
        }
        let rotated = self.rotate(file);
        let _ = file.unlock();
        match rotated {
            Ok(()) => {
                if self.not_rotated_at.take().is_some() {
                    self.losses.say(format!(
                        "✅ {} could be rotated again, at {} MiB",
                        self.path.display(),
                        size / (1024 * 1024)
                    ));
                }
                Place::Free
            }
            Err(error) => {
                if self.not_rotated_at.replace(Instant::now()).is_none() {
                    self.losses.say(format!(
                        "⚠️ cannot rotate {} because {error}; it grows until that is possible, which is tried every {} s",
                        self.path.display(),
                        ROTATE_AGAIN_AFTER.as_secs()
                    ));
                }
                Place::Taken
            }
        }
    }

    fn rotate(&self, file: &File) -> io::Result<()> {
        // Where a link leads, not the link: the old files belong beside the file.
        let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_else(|_| self.path.clone());
        let numbered = |number: u32| {
            let mut path = real.as_os_str().to_owned();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        // Only as far as the first free number, so that trying again and again pushes no older file out.
        let mut free = None;
        for number in 1..OLD_FILES_MAX {
            // A file that the system does not show may be there, and must not be replaced.
            if !numbered(number).try_exists()? {
                free = Some(number);
                break;
            }
        }
        for number in (1..free.unwrap_or(OLD_FILES_MAX)).rev() {
            rename(&numbered(number), &numbered(number + 1))?;
        }
        rename(&real, &numbered(1))
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
                "✅ {} can be written again; {} {} missing in it",
                self.path.display(),
                count(lost, "line"),
                pick(lost, "is", "are")
            ));
        }
    }
}

impl LineSink for RotatingFile {
    fn write_line(&mut self, line: &[u8]) {
        if self.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            self.losses.lost_by(&self.losses.file);
            return;
        }
        match self.try_write(line) {
            Ok(()) => {
                self.is_stuck = false;
                self.recovered();
            }
            // It stays open: only what has no room now is lost.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_stuck = true;
                self.losses.lost_by(&self.losses.file);
            }
            Err(error) => self.failed(&error),
        }
    }
}

/// rename(2) with an error that names both paths.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|error| {
        let text = format!("{} cannot be renamed to {}: {error}", from.display(), to.display());
        io::Error::new(error.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::log_sinks::{PIPE_BUF, WholeLines};
    use std::os::fd::AsFd;

    fn log_in(folder: &std::path::Path) -> (RotatingFile, Arc<SinkLosses>) {
        let losses = Arc::new(SinkLosses::default());
        let log = RotatingFile::new(folder.join("logs/server.log"), Arc::clone(&losses));
        (log, losses)
    }

    #[test]
    fn pieces_become_lines_and_the_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let (log, losses) = log_in(folder.path());
        let mut lines = WholeLines::to(log);
        for piece in ["one ", "line", "\n", "two\n"] {
            lines.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&lines.sink.path).unwrap(), "one line\ntwo\n");
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
    fn a_link_stays_and_the_files_behind_it_are_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = log_in(folder.path());
        fs::create_dir_all(folder.path().join("logs")).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink("../elsewhere/real.log", &log.path).unwrap();
        fs::write(elsewhere.join("real.log"), vec![b'\n'; FILE_BYTES_MAX as usize]).unwrap();
        log.write_line(b"new\n");
        assert!(log.path.is_symlink());
        assert_eq!(fs::read_to_string(elsewhere.join("real.log")).unwrap(), "new\n");
        assert_eq!(
            fs::metadata(elsewhere.join("real.log.1")).unwrap().len(),
            FILE_BYTES_MAX
        );
        assert_eq!(fs::read_dir(folder.path().join("logs")).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_in_the_files_place_loses_only_what_it_has_no_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, losses) = log_in(folder.path());
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", writer.as_fd().as_raw_fd());
        log.path = PathBuf::from(pipe);
        // More than any pipe holds (pipe(7)), in lines that it takes whole.
        let line = [vec![b'x'; PIPE_BUF - 1], vec![b'\n']].concat();
        while losses.total() == 0 {
            log.write_line(&line);
        }
        assert!(log.failed_at.is_none() && log.open.is_some(), "it stays open");
        log.write_line(b"lost too\n");
        assert_eq!(losses.total(), 2);
        let mut taken = vec![0; 4 * PIPE_BUF];
        io::Read::read_exact(&mut reader, &mut taken).unwrap();
        log.write_line(b"next\n");
        assert_eq!(losses.total(), 2, "at once, not after a pause");
        drop((log, writer));
        assert!(io::read_to_string(reader).unwrap().ends_with("x\nnext\n"));
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

    /// Fills the file up to its limit but for `room` bytes.
    fn nearly_full(log: &RotatingFile, room: u64) {
        fs::create_dir_all(log.path.parent().unwrap()).unwrap();
        fs::write(&log.path, vec![b'\n'; (FILE_BYTES_MAX - room) as usize]).unwrap();
    }

    fn old(log: &RotatingFile, number: u32) -> PathBuf {
        PathBuf::from(format!("{}.{number}", log.path.display()))
    }

    #[test]
    fn a_file_that_cannot_be_set_aside_grows_and_is_set_aside_later() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, losses) = log_in(folder.path());
        nearly_full(&log, 4);
        for number in 1..OLD_FILES_MAX {
            fs::write(old(&log, number), number.to_string()).unwrap();
        }
        // A folder that is not empty cannot be replaced, not even by root.
        let obstacle = old(&log, OLD_FILES_MAX);
        fs::create_dir_all(obstacle.join("kept")).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            log.write_line(line.as_bytes());
        }
        assert!(fs::read(&log.path).unwrap().ends_with(b"\n\none\ntwo\nthree\n"));
        assert_eq!(losses.total(), 0);
        let said = losses.take_messages();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("cannot rotate") && said[0].contains("server.log.4 cannot be renamed to"));

        // Its time comes, in vain; that is not said again.
        let past = || Instant::now().checked_sub(ROTATE_AGAIN_AFTER);
        log.not_rotated_at = past();
        log.write_line(b"four\n");
        assert_eq!(losses.take_messages(), Vec::<String>::new());

        fs::remove_dir_all(&obstacle).unwrap();
        log.write_line(b"five\n");
        assert!(!obstacle.exists(), "tried before its time");
        log.not_rotated_at = past();
        log.write_line(b"six\n");
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "six\n");
        assert!(fs::read(old(&log, 1)).unwrap().ends_with(b"four\nfive\n"));
        assert_eq!(fs::read_to_string(&obstacle).unwrap(), "4");
        assert!(losses.take_messages()[0].contains("could be rotated again, at 10 MiB"));
    }

    #[test]
    fn older_files_move_only_as_far_as_the_first_free_number() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = log_in(folder.path());
        nearly_full(&log, 1);
        for number in [1, 3, 4, 5] {
            fs::write(old(&log, number), number.to_string()).unwrap();
        }
        log.write_line(b"new\n");
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "new\n");
        let texts = [2, 3, 4, 5].map(|number| fs::read_to_string(old(&log, number)).unwrap());
        assert_eq!(texts, ["1", "3", "4", "5"]);
    }
}
