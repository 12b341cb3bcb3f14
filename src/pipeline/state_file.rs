//! The machine table across restarts: read at the start, set aside when damaged, left alone when it cannot be read.
//!
//! Runs on `main`, before the threads. While the server runs, `fanout` makes the content and thread `files` writes it.

use crate::pipeline::machines::Machines;
use crate::process::clock::epoch_seconds;
use crate::process::files::{LockFile, lock_path};
use crate::process::words::count;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The machine table as it was kept at `path`, the right to that file, and where the table is kept from now on.
pub fn restore(path: Option<PathBuf>) -> (Machines, Option<LockFile>, Option<PathBuf>) {
    let Some(path) = path else {
        return (Machines::default(), None, None);
    };
    if let Some(folder) = path.parent() {
        // If it cannot be made, the lock says so.
        let _ = fs::create_dir_all(folder);
    }
    let lock = match LockFile::acquire(&lock_path(&path)) {
        Ok(lock) => lock,
        Err(error) => return forgetful(&error),
    };
    match read_state(&path) {
        Ok(machines) => (machines, Some(lock), Some(path)),
        // Whatever is in it, replacing it by what we know would lose it.
        Err(error) => forgetful(&error),
    }
}

/// Goes on without a state file, and says so.
fn forgetful(why: &dyn fmt::Display) -> (Machines, Option<LockFile>, Option<PathBuf>) {
    log::warn!(
        "⚠️ machines will not be remembered across a restart: {why}. Give --state-file a path of its own in a folder that \
         this user may read and write"
    );
    (Machines::default(), None, None)
}

/// The machines in the file; none when it is not there, or damaged and now set aside.
fn read_state(path: &Path) -> Result<Machines, String> {
    let saved = match fs::read(path) {
        Ok(saved) => saved,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Machines::default()),
        Err(error) => return Err(format!("state file {} cannot be read: {error}", path.display())),
    };
    match Machines::restore(&saved, Instant::now()) {
        Ok(machines) => {
            log::info!(
                "📋 {} remembered from {}",
                count(machines.len(), "machine"),
                path.display()
            );
            Ok(machines)
        }
        Err(error) => {
            set_aside(path, &error.to_string());
            Ok(Machines::default())
        }
    }
}

/// Keeps a damaged file for whoever wants to look at it, out of the way of the next one.
fn set_aside(path: &Path, why: &str) {
    let mut aside = path.as_os_str().to_owned();
    // Nanoseconds, so that a second one in the same second does not replace the first.
    aside.push(format!(".damaged-{:.9}", epoch_seconds()));
    let aside = PathBuf::from(aside);
    match fs::rename(path, &aside) {
        Ok(()) => log::warn!(
            "⚠️ state file {} is damaged ({why}); it was set aside as {}, starting with no machines",
            path.display(),
            aside.display()
        ),
        Err(error) => log::warn!(
            "⚠️ state file {} is damaged ({why}) and cannot be set aside: {error}; it will be replaced, starting with no machines",
            path.display()
        ),
    }
}
