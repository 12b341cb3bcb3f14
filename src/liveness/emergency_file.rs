//! The file that reports of hangs are written to: opened before it is needed, and bounded.
//!
//! Runs on thread `reports`. Blocks on the disk.

use crate::process::files::is_absence;
use crate::process::safe_open;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file is set aside as `.1`, in place of the last one set aside, before it would be longer than this; so at most
/// twice this much is on the disk.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The file. Its path does not change.
#[derive(Debug)]
pub struct EmergencyFile {
    path: PathBuf,
    bytes_max: u64,
    file: Option<File>,
}

impl EmergencyFile {
    /// Not opened yet.
    pub fn new(path: PathBuf) -> EmergencyFile {
        EmergencyFile {
            path,
            bytes_max: BYTES_MAX,
            file: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it, so that later no descriptor need be free; makes its folder when that is missing.
    ///
    /// # Errors
    /// The folder cannot be made or written, or something else than a file stands there.
    pub fn open(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        self.file = Some(safe_open::append(&self.path)?);
        Ok(())
    }

    /// Writes all of `bytes` at its end. Blocks on the disk.
    ///
    /// # Errors
    /// The disk is full or failing, or the file can neither be written nor opened anew.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_gone() {
            self.open()?;
        }
        if self.len()? + bytes.len() as u64 > self.bytes_max {
            // Where that is not allowed, it grows on; the number of reports is bounded too.
            if self.set_aside().is_ok() {
                self.open()?;
            }
        }
        let mut file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(bytes)
    }

    /// Renames it; where a link leads to it, there and not the link.
    fn set_aside(&self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_else(|_| self.path.clone());
        let mut aside = real.clone().into_os_string();
        aside.push(".1");
        fs::rename(real, aside)
    }

    fn len(&self) -> io::Result<u64> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.metadata().map(|facts| facts.len())
    }

    /// Returns whether it was never opened, or somebody has removed or renamed it since.
    fn is_gone(&self) -> bool {
        let Some(file) = &self.file else { return true };
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) != (there.dev(), there.ino()),
            // A path that the file system does not let us look at costs no report.
            (Ok(_), Err(error)) => is_absence(&error),
            (Err(_), _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_in(folder: &Path) -> EmergencyFile {
        EmergencyFile {
            bytes_max: 10,
            ..EmergencyFile::new(folder.join("logs/hang-emergency.log"))
        }
    }

    #[test]
    fn what_would_make_it_too_long_sets_the_older_part_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = file_in(folder.path());
        file.open().unwrap();
        for report in ["one\n", "two\n", "three\n", "four\n"] {
            file.append(report.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "four\n");
        assert_eq!(
            fs::read_to_string(folder.path().join("logs/hang-emergency.log.1")).unwrap(),
            "three\n"
        );
        let names = fs::read_dir(folder.path().join("logs")).unwrap().count();
        assert_eq!(names, 2);
    }

    #[test]
    fn a_file_that_was_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = file_in(folder.path());
        file.open().unwrap();
        fs::remove_dir_all(folder.path().join("logs")).unwrap();
        file.append(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "after\n");
    }

    #[test]
    fn a_full_disk_is_said() {
        let mut file = EmergencyFile::new("/dev/full".into());
        file.open().unwrap();
        let error = file.append(b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}
