//! The machine table, and what was learned of machines, across restarts: read at the start, set aside when damaged,
//! left alone when it cannot be read.
//!
//! Runs on `main`, before the threads. While the server runs, `fanout` makes the table's content, `detector` that of
//! what was learned, and thread `files` writes both.

use crate::process::clock::epoch_seconds;
use crate::process::files::{LockError, LockFile, lock_path};
use crate::process::safe_open::{self, is_refusal};
use crate::process::words::count;
use crate::stream::learned::{Learned, LearnedLimits, saved};
use crate::stream::machines::Machines;
use crate::stream::machines::bounds::TableLimits;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The machine table as it was kept, the right to its file, and where it is kept from now on.
pub type Kept = (Machines, Option<LockFile>, Option<PathBuf>);

/// Reads the machine table that was kept at `path`. Blocks on the disk.
///
/// # Errors
/// What stands at `path`, or at its lock, is no file (a FIFO, a socket, a device): it may never answer. A file that
/// this user may not read or write is no error; the server then remembers nothing, and says so.
pub fn restore(path: Option<PathBuf>, limits: TableLimits) -> Result<Kept, (PathBuf, io::Error)> {
    let Some(path) = path else {
        return Ok((Machines::new(limits), None, None));
    };
    match safe_open::replaceable(&path) {
        // /dev/null keeps nothing.
        Ok(None) => return Ok((Machines::new(limits), None, None)),
        Err(error) if is_refusal(&error) => return Err((path, error)),
        Ok(Some(_)) | Err(_) => {}
    }
    if let Some(folder) = path.parent() {
        // If it cannot be made, the lock says so.
        let _ = fs::create_dir_all(folder);
    }
    let lock = match LockFile::acquire(&lock_path(&path)) {
        Ok(lock) => lock,
        Err(LockError::Io { path, error }) if is_refusal(&error) => return Err((path, error)),
        Err(error) => return Ok(forgetful(&error, limits)),
    };
    Ok(match read_state(&path, limits) {
        Ok(machines) => (machines, Some(lock), Some(path)),
        // Whatever is in it, replacing it by what we know would lose it.
        Err(error) => forgetful(&error, limits),
    })
}

/// Goes on without a state file, and says so.
fn forgetful(why: &dyn fmt::Display, limits: TableLimits) -> Kept {
    log::warn!(
        "⚠️ machines will not be remembered across a restart: {why}. Give --state-file a path of its own in a folder that \
         this user may read and write"
    );
    (Machines::new(limits), None, None)
}

/// The machines in the file; none when it is not there, or damaged and now set aside.
fn read_state(path: &Path, limits: TableLimits) -> Result<Machines, String> {
    let mut saved = Vec::new();
    let read = safe_open::read(path).and_then(|mut file| file.read_to_end(&mut saved));
    let saved = match read.map(|_| saved) {
        Ok(saved) => saved,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Machines::new(limits)),
        Err(error) => return Err(format!("state file {} cannot be read: {error}", path.display())),
    };
    match Machines::restore(&saved, limits, Instant::now(), epoch_seconds()) {
        Ok(machines) => {
            let more = match machines.evicted() {
                0 => String::new(),
                more => {
                    format!("; {more} more that were silent longest have no room (--max-machines, --machine-bytes)")
                }
            };
            log::info!(
                "📋 {} remembered from {}{more}",
                count(machines.len(), "machine"),
                path.display()
            );
            Ok(machines)
        }
        Err(error) => {
            set_aside("state file", path, &error.to_string(), "with no machines");
            Ok(Machines::new(limits))
        }
    }
}

/// A larger file is not what we wrote: the largest that the settings allow is some GiB of memory, the usual one 8 MiB.
const LEARNED_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Where what was learned is kept beside the state file at `state`.
pub fn learned_path(state: &Path) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(".learned");
    PathBuf::from(path)
}

/// What was learned and kept beside the state file at `state`; nothing where there is none, or it is damaged and now
/// set aside. The right to the state file is the right to this one. Blocks on the disk.
pub fn restore_learned(state: Option<&Path>, limits: LearnedLimits) -> Learned {
    let Some(path) = state.map(learned_path) else {
        return Learned::new(limits);
    };
    let mut kept = Vec::new();
    let read = safe_open::read(&path).and_then(|file| file.take(LEARNED_FILE_BYTES_MAX).read_to_end(&mut kept));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Learned::new(limits),
        Err(error) => {
            log::warn!(
                "⚠️ {} cannot be read ({error}); what machines usually do is learned anew, and the file replaced",
                path.display()
            );
            return Learned::new(limits);
        }
    }
    match saved::restore(&kept, limits) {
        Ok(learned) => {
            log::info!(
                "📋 {} learned before, from {}",
                count(learned.sizes().0, "state"),
                path.display()
            );
            learned
        }
        Err(error) => {
            set_aside(
                "file of what was learned",
                &path,
                &error.to_string(),
                "with nothing learned",
            );
            Learned::new(limits)
        }
    }
}

/// Keeps a damaged file for people to look at, out of the way of the next one.
fn set_aside(what: &str, path: &Path, why: &str, then: &str) {
    let mut aside = path.as_os_str().to_owned();
    // Nanoseconds, so that a second one in the same second does not replace the first.
    aside.push(format!(".damaged-{:.9}", epoch_seconds()));
    let aside = PathBuf::from(aside);
    match fs::rename(path, &aside) {
        Ok(()) => log::warn!(
            "⚠️ {what} {} is damaged ({why}); it was set aside as {}, starting {then}",
            path.display(),
            aside.display()
        ),
        Err(error) => log::warn!(
            "⚠️ {what} {} is damaged ({why}) and cannot be set aside: {error}; it will be replaced, starting {then}",
            path.display()
        ),
    }
}
