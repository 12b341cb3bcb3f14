//! Keeps files on disk up to date: a slot in which the latest content wins, and atomic replacement.
//!
//! Runs on: `files`, one.
//! Owns: the paths of the slots.
//! Blocks on: a slot (250 ms), the disk (fdatasync of a file of at most a few MiB).
//! Can be stalled by: the disk; nobody waits for this thread but the stop, and that with a bound.
//! Full queue means: the older content is replaced by the newer one, which is the purpose; nothing is lost.
//! Ends when: the slot's sender is dropped; what is in the slot then is still written.
//! Watched as: `files`; not a core thread, a stall makes health `degraded`.

use crate::process::procfs::{ProcessName, has_file_open, process_name};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the thread waits for content before it shows that it is alive.
const TURN: Duration = Duration::from_millis(250);

/// Content on its way to a file.
pub type Content = Arc<Vec<u8>>;

/// Where a producer leaves the latest content of one file.
#[derive(Clone, Debug)]
pub struct Slot {
    tx: Sender<Content>,
    // The producer takes out what nobody has fetched yet.
    rx: Receiver<Content>,
}

/// Makes a slot: room for one content. Full policy: the newest wins.
pub fn slot() -> (Slot, Receiver<Content>) {
    let (tx, rx) = bounded(1);
    (Slot { tx, rx: rx.clone() }, rx)
}

impl Slot {
    /// Leaves `content` in place of what is still there. Never blocks. One producer per slot.
    pub fn put(&self, content: Content) {
        let mut content = content;
        // With one producer the second try finds room: only `files` takes out besides us.
        while let Err(TrySendError::Full(back)) = self.tx.try_send(content) {
            content = back;
            match self.rx.try_recv() {
                Ok(_) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Whether nothing waits to be fetched.
    pub fn is_empty(&self) -> bool {
        self.tx.is_empty()
    }
}

/// What the thread is about to do, for its beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Writing,
}

/// Writing that failed is tried again after this long, or with newer content.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The thread's body: writes what comes through the slot to `path` until the slot's [`Slot`] is dropped.
///
/// A file that cannot be written is said once, and tried again; `show` is called before every wait and every write.
pub fn keep(path: &Path, slot: &Receiver<Content>, mut show: impl FnMut(Phase)) {
    let mut unwritten: Option<Content> = None;
    let mut failed_at: Option<Instant> = None;
    loop {
        show(Phase::Waiting);
        let over = match slot.recv_timeout(TURN) {
            Ok(content) => {
                unwritten = Some(content);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        let may_try = over || failed_at.is_none_or(|at| at.elapsed() >= RETRY_AFTER);
        if let Some(content) = unwritten.take_if(|_| may_try) {
            show(Phase::Writing);
            match replace_atomically(path, &content) {
                Ok(()) if failed_at.take().is_some() => log::warn!("✅ {} can be written again", path.display()),
                Ok(()) => {}
                Err(error) => {
                    if failed_at.replace(Instant::now()).is_none() {
                        log::error!(
                            "🚨 cannot write {}: {error}; after a restart what changes from now on would be missing. \
                             Make room or make its folder writable; trying again every second",
                            path.display()
                        );
                    }
                    unwritten = Some(content);
                }
            }
        }
        if over {
            return;
        }
    }
}

/// Replaces the file at `path` by `content` so that a reader, or a start after a crash, sees the old or the new one,
/// whole: written beside it, flushed to the disk, then renamed over it.
///
/// Blocks on the disk.
///
/// # Errors
/// The folder is missing, not writable, or full.
pub fn replace_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_data()
    });
    match written.and_then(|()| fs::rename(&beside, path)) {
        Ok(()) => Ok(()),
        Err(error) => {
            // Half a file helps nobody, least of all on a full disk.
            let _ = fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// An advisory lock (flock(2)) that says who holds it; given back by dropping it or by the end of the process.
///
/// Dropping it removes the file too. That is safe because whoever has locked a file looks whether it is still the one
/// at the path, so nobody can hold a removed file and believe that it means something.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

/// How often a lock is tried anew whose file was removed between opening and locking it.
const LOCK_ATTEMPTS: u32 = 16;

/// Why a lock could not be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it.
    Held { path: PathBuf, holder: Option<ProcessName> },
    /// The lock file could not be opened or locked.
    Io { path: PathBuf, error: io::Error },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held {
                path,
                holder: Some(holder),
            } => {
                write!(f, "{} is locked by {holder}", path.display())
            }
            LockError::Held { path, holder: None } => {
                write!(f, "{} is locked by another process", path.display())
            }
            LockError::Io { path, error } => write!(f, "cannot lock {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for LockError {}

impl LockFile {
    /// Takes the lock at `path` and writes our process id into it. Does not wait.
    ///
    /// # Errors
    /// [`LockError::Held`] leaves the file as it was.
    pub fn acquire(path: &Path) -> Result<LockFile, LockError> {
        for _ in 0..LOCK_ATTEMPTS {
            let file = open_lock(path).map_err(|error| LockError::Io {
                path: path.to_owned(),
                error,
            })?;
            if let Some(lock) = LockFile::of(file, path)? {
                return Ok(lock);
            }
        }
        // Others take it and give it back all the time.
        Err(LockError::Held {
            path: path.to_owned(),
            holder: None,
        })
    }

    /// Locks `file`, opened at `path`; `None` when it is not there any more, so that the lock would mean nothing.
    fn of(file: File, path: &Path) -> Result<Option<LockFile>, LockError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    path: path.to_owned(),
                    holder: holder(&file),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(LockError::Io {
                    path: path.to_owned(),
                    error,
                });
            }
        }
        let mut lock = LockFile {
            file,
            path: path.to_owned(),
        };
        if !lock.is_at_its_path() {
            return Ok(None);
        }
        // The id is only for messages; a full disk must not keep a server from starting.
        let _ = lock.file.set_len(0);
        let _ = writeln!(lock.file, "{}", std::process::id());
        Ok(Some(lock))
    }

    fn is_at_its_path(&self) -> bool {
        let identity = |file: io::Result<fs::Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        let ours = identity(self.file.metadata());
        ours.is_some() && ours == identity(fs::symlink_metadata(&self.path))
    }
}

impl Drop for LockFile {
    /// While we hold the lock, nobody else who keeps the rules removes the file or puts another one in its place.
    fn drop(&mut self) {
        if self.is_at_its_path() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // In a shared folder such as /tmp somebody could have left a link to a file of ours.
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Who says in the locked `file` that it holds it, if that process really has it open: an id from another process
/// namespace, or of a holder that could not write its own, would blame an innocent process.
fn holder(file: &File) -> Option<ProcessName> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    let pid = text.trim().parse().ok()?;
    if !has_file_open(pid, &file.metadata().ok()?) {
        return None;
    }
    process_name(pid)
}

/// The path of the lock that belongs to `path`.
pub fn lock_path(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    PathBuf::from(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_content_wins() {
        let (slot, rx) = slot();
        slot.put(Arc::new(b"old".to_vec()));
        slot.put(Arc::new(b"new".to_vec()));
        assert_eq!(*rx.try_recv().unwrap(), b"new");
        assert!(slot.is_empty());
    }

    #[test]
    fn replacing_leaves_nothing_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        replace_atomically(&path, b"one").unwrap();
        replace_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_last_content_is_written_when_the_producer_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let (slot, rx) = slot();
        slot.put(Arc::new(b"last".to_vec()));
        drop(slot);
        keep(&path, &rx, |_| ());
        assert_eq!(fs::read(&path).unwrap(), b"last");
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        replace_atomically(&path, b"one").unwrap();
        fs::create_dir(folder.path().join("state.json.new")).unwrap();
        replace_atomically(&path, b"two").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn a_lock_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let path = folder.path().join("events.sock.lock");
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(matches!(LockFile::acquire(&path), Err(LockError::Io { .. })));
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn a_held_lock_names_its_holder_and_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = lock_path(&folder.path().join("events.sock"));
        let held = LockFile::acquire(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let error = LockFile::acquire(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        drop(held);
        LockFile::acquire(&path).unwrap();
    }

    #[test]
    fn a_process_that_has_not_opened_the_lock_is_not_blamed_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock.lock");
        let _held = LockFile::acquire(&path).unwrap();
        // As if our id came from another process namespace, where it is somebody else's here.
        fs::write(&path, std::os::unix::process::parent_id().to_string()).unwrap();
        let error = LockFile::acquire(&path).unwrap_err().to_string();
        assert!(error.ends_with("is locked by another process"), "{error}");
    }

    #[test]
    fn a_lock_given_back_leaves_no_file_and_removes_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock.lock");
        drop(LockFile::acquire(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let ours = LockFile::acquire(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let other = LockFile::acquire(&path).unwrap();
        drop(ours);
        assert!(other.is_at_its_path());
    }

    /// Whoever opens the file just before its holder removes it gets a lock that nobody else would see.
    #[test]
    fn a_lock_on_a_removed_file_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock.lock");
        let held = LockFile::acquire(&path).unwrap();
        let late = open_lock(&path).unwrap();
        let later = open_lock(&path).unwrap();
        drop(held);
        assert!(LockFile::of(late, &path).unwrap().is_none());
        let next = LockFile::acquire(&path).unwrap();
        assert!(LockFile::of(later, &path).unwrap().is_none());
        assert!(next.is_at_its_path());
    }
}
