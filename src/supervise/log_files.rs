//! Rotates the log of a service, which the service has open and goes on writing: by copying and truncating it.
//!
//! What is written between the last byte that was copied and the truncation is lost, and nobody can know how much that
//! is; a line may be cut there. So the copy is brought up to date right before the truncation, and the log then begins
//! with a line that says how long that moment was. Nothing is truncated before its copy has its name.

use crate::process::words::{pick, size};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// A service that writes while its log is copied has at most this much more of it copied.
const MORE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How much of a service's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// A log is rotated once it is larger than this, in bytes.
    pub bytes: u64,
    /// Older files, `.1` the newest. Zero: what is in the log is thrown away.
    pub files: u32,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The newest older file; `None` when none is kept.
    pub to: Option<PathBuf>,
    pub copied_bytes: u64,
    /// What was in the log and was not copied: the service wrote faster than that could be done, or no file is kept.
    pub lost_bytes: u64,
    /// Time between the end of the copy and the end of the truncation. What was written then is lost too.
    pub moment: Duration,
}

/// The line with which the log begins anew.
impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.moment.as_micros().max(1);
        match &self.to {
            Some(to) => {
                let name = to.file_name().unwrap_or_default().display();
                write!(
                    f,
                    "threadcast has rotated this log: {} are in {name}; ",
                    size(self.copied_bytes as f64)
                )?;
                if self.lost_bytes > 0 {
                    write!(
                        f,
                        "{} more were written too fast to be copied, and are lost; ",
                        size(self.lost_bytes as f64)
                    )?;
                }
            }
            None => write!(
                f,
                "threadcast has emptied this log: {} {} gone, as no older file is to be kept; ",
                size(self.lost_bytes as f64),
                pick(self.lost_bytes, "is", "are")
            )?,
        }
        write!(
            f,
            "what was written in the {micros} µs before this line is lost, if anything was"
        )
    }
}

/// Why a log was not rotated. It is as it was, and grows.
#[derive(Debug)]
pub struct RotateError {
    doing: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for RotateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} {}: {}; the log is not rotated and grows; make room, or make its folder writable",
            self.doing,
            self.path.display(),
            self.error
        )
    }
}

impl std::error::Error for RotateError {}

/// Rotates the log at `path` if it is larger than `keep` says; `None` when it is not, or when there is none. Blocks on
/// the disk while it copies the log.
///
/// # Errors
/// The log cannot be opened, or not be copied. Nothing is lost.
pub fn rotate(path: &Path, keep: Keep) -> Result<Option<Rotated>, RotateError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| RotateError { doing, path, error }
    };
    let mut log = match open_log(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", path))?,
    };
    let before = log.metadata().map_err(failed("look at", path))?.len();
    if before <= keep.bytes {
        return Ok(None);
    }
    let mut copied_bytes = 0;
    let mut to = None;
    if keep.files > 0 {
        let beside = numbered(path, "1.new");
        let copy = make_anew(&beside).and_then(|mut copy| {
            copied_bytes = append(&mut log, &mut copy, before)?;
            shift(path, keep.files)?;
            fs::rename(&beside, numbered(path, "1"))?;
            Ok(copy)
        });
        let mut copy = copy.map_err(|error| {
            let _ = fs::remove_file(&beside);
            failed("copy the log to", &beside)(error)
        })?;
        // What was written meanwhile.
        copied_bytes += append(&mut log, &mut copy, MORE_BYTES_MAX).map_err(failed("copy the rest of", path))?;
        to = Some(numbered(path, "1"));
    }
    let copied = Instant::now();
    let now = log.metadata().map_err(failed("look at", path))?.len();
    log.set_len(0).map_err(failed("truncate", path))?;
    let rotated = Rotated {
        to,
        copied_bytes,
        lost_bytes: now.saturating_sub(copied_bytes),
        moment: copied.elapsed(),
    };
    // The line is worth no failure: what counts has been done.
    let _ = log.write_all(format!("{rotated}\n").as_bytes());
    Ok(Some(rotated))
}

/// Opens the log to read it and to append to it; only a regular file, and through no link.
fn open_log(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(File::from(file))
}

/// Makes a file that only this user can read, in place of one that a killed supervisor left.
fn make_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, path, flags, Mode::from_raw_mode(0o600))?))
}

/// Copies what follows in `log`, at most `most` bytes of it. Returns how much that was.
fn append(log: &mut File, copy: &mut File, most: u64) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    while copied < most {
        let len = match log.read(&mut chunk) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        copy.write_all(&chunk[..len])?;
        copied += len as u64;
    }
    Ok(copied)
}

/// Renames every older file to the next number. The oldest of `files` goes.
fn shift(path: &Path, files: u32) -> io::Result<()> {
    for number in (1..files).rev() {
        let (from, to) = (
            numbered(path, &number.to_string()),
            numbered(path, &(number + 1).to_string()),
        );
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn numbered(path: &Path, number: &str) -> PathBuf {
    let mut numbered = path.as_os_str().to_owned();
    numbered.push(".");
    numbered.push(number);
    PathBuf::from(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn older_files_move_on_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let keep = Keep { bytes: 10, files: 2 };
        assert_eq!(rotate(&path, keep).unwrap(), None, "there is none");
        for (round, text) in ["first first", "second second", "third third"].into_iter().enumerate() {
            let mut log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            log.set_len(0).unwrap();
            log.write_all(text.as_bytes()).unwrap();
            let rotated = rotate(&path, keep).unwrap().unwrap();
            assert_eq!(
                (rotated.copied_bytes, rotated.lost_bytes),
                (text.len() as u64, 0),
                "{round}"
            );
            // The service goes on in the same file.
            log.write_all(b"more\n").unwrap();
            let said = fs::read_to_string(&path).unwrap();
            assert!(said.starts_with("threadcast has rotated this log: 1"), "{said}");
            assert!(
                said.contains("web.log.1;") && said.ends_with("if anything was\nmore\n"),
                "{said}"
            );
        }
        assert_eq!(names(folder.path()), ["web.log", "web.log.1", "web.log.2"]);
        assert_eq!(fs::read_to_string(numbered(&path, "1")).unwrap(), "third third");
        assert_eq!(fs::read_to_string(numbered(&path, "2")).unwrap(), "second second");
        let mode = fs::metadata(numbered(&path, "1")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "small").unwrap();
        assert_eq!(rotate(&path, keep).unwrap(), None);
    }

    #[test]
    fn a_log_of_which_nothing_is_kept_is_emptied_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        fs::write(&path, "x".repeat(2048)).unwrap();
        let rotated = rotate(&path, Keep { bytes: 10, files: 0 }).unwrap().unwrap();
        assert_eq!((rotated.copied_bytes, rotated.lost_bytes, rotated.to), (0, 2048, None));
        let said = fs::read_to_string(&path).unwrap();
        assert!(
            said.starts_with("threadcast has emptied this log: 2.0 KiB are gone"),
            "{said}"
        );
        assert_eq!(names(folder.path()), ["web.log"]);
    }

    #[test]
    fn a_log_that_cannot_be_copied_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        fs::write(&path, "all of it").unwrap();
        fs::create_dir_all(numbered(&path, "1.new").join("inside")).unwrap();
        let error = rotate(&path, Keep { bytes: 1, files: 2 }).unwrap_err().to_string();
        assert!(error.contains("the log is not rotated and grows"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "all of it");
        let link = folder.path().join("link.log");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        rotate(&link, Keep { bytes: 1, files: 2 }).unwrap_err();
    }

    /// Lines are missing only where a file begins, which a line in it says, and only the last line of a file is cut.
    #[test]
    fn what_a_running_service_loses_is_said() {
        const LINES: u32 = 40_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let script = format!("i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); done");
        let mut service = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .unwrap();
        let keep = Keep {
            bytes: 4096,
            files: 1000,
        };
        let begun = Instant::now();
        let mut rotations = 0;
        while service.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            rotations += usize::from(rotate(&path, keep).unwrap().is_some());
        }
        assert!(rotations > 0 && rotations < 1000, "{rotations}");
        let older = (1..=rotations).rev().map(|number| numbered(&path, &number.to_string()));
        let mut next = 0;
        for file in older.chain([path.clone()]) {
            let text = fs::read_to_string(&file).unwrap();
            // A write that goes on in the next page can be seen, and copied, in part.
            let text = text.rfind('\n').map_or("", |end| &text[..end]);
            let mut is_first = true;
            for line in text.lines().filter(|line| !line.starts_with("threadcast ")) {
                let number: u32 = line.parse().unwrap_or_else(|_| panic!("{}: {line:?}", file.display()));
                let is_right = number == next || is_first && number > next;
                assert!(is_right, "{}: {number} instead of {next}", file.display());
                (next, is_first) = (number + 1, false);
            }
        }
        assert!(next > LINES / 2, "{next}");
    }
}
