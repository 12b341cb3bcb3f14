//! Replaces a small file of a folder so that a crash at any moment leaves the old or the new content, whole.

use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

/// What has just been done; tests kill the process behind each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Begun,
    /// The new file is there, empty, under another name.
    Made,
    Written,
    /// Its content is on the disk.
    Flushed,
    /// It has the file's name.
    Renamed,
    /// The name is on the disk.
    Kept,
    /// A process was started, which the record does not know yet.
    Spawned,
}

/// Replaces file `name` of `folder` by `content`, with the rights 0600. Calls `done` after each step. Blocks on the
/// disk, which has to take the content, the name and the flush of both.
///
/// # Errors
/// The folder is not writable or full. The old content is still there, or, if only the last flush failed, the new one.
pub fn replace(folder: BorrowedFd<'_>, name: &str, content: &[u8], done: &mut dyn FnMut(Step)) -> io::Result<()> {
    let beside = format!("{name}.new");
    done(Step::Begun);
    // One that a killed process left.
    match unlinkat(folder, beside.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let written =
        write_anew(folder, &beside, content, done).and_then(|()| Ok(renameat(folder, beside.as_str(), folder, name)?));
    if let Err(error) = written {
        // Half a file helps nobody, least of all on a full disk.
        let _ = unlinkat(folder, beside.as_str(), AtFlags::empty());
        return Err(error);
    }
    done(Step::Renamed);
    match fsync(folder) {
        // Some file systems (FUSE, 9p) flush no folders: their names last as long as they say.
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => {}
        Err(error) => return Err(error.into()),
    }
    done(Step::Kept);
    Ok(())
}

fn write_anew(folder: BorrowedFd<'_>, name: &str, content: &[u8], done: &mut dyn FnMut(Step)) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, name, flags, Mode::from_raw_mode(0o600))?);
    done(Step::Made);
    file.write_all(content)?;
    done(Step::Written);
    file.sync_data()?;
    done(Step::Flushed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;

    #[test]
    fn every_step_leaves_the_old_or_the_new_content() {
        let folder = tempfile::tempdir().unwrap();
        let open = File::open(folder.path()).unwrap();
        let path = folder.path().join("record");
        replace(open.as_fd(), "record", b"old", &mut |_| {}).unwrap();
        // As a process that was killed leaves it.
        fs::write(folder.path().join("record.new"), "ha").unwrap();
        let mut seen = Vec::new();
        replace(open.as_fd(), "record", b"new", &mut |step| {
            seen.push((step, fs::read_to_string(&path).unwrap()));
        })
        .unwrap();
        let texts: Vec<&str> = seen.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["old", "old", "old", "old", "new", "new"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let open = File::open(folder.path()).unwrap();
        fs::create_dir_all(folder.path().join("record/inside")).unwrap();
        replace(open.as_fd(), "record", b"new", &mut |_| {}).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
