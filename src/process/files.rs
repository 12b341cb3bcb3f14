//! Keeps files on disk up to date: slots in which the latest content wins, and atomic replacement.
//!
//! Runs on: `files`, one, if there is any file to keep.
//! Owns: the paths of the slots.
//! Blocks on: the slots (250 ms in all), the disk (one write per file and turn, of at most a few MiB each).
//! Can be stalled by: the disk; nobody waits for this thread but the stop, and that with a bound.
//! Full queue means: the older content is replaced by the newer one, which is the purpose; nothing is lost.
//! Ends when: every slot's sender is dropped, or it is asked to; what is in the slots then is still written.
//! Watched as: `files`; not a core thread, a stall makes health `degraded`.

use crate::process::procfs::{ProcessName, has_file_open, process_name};
use crate::process::safe_open;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, TrySendError, bounded};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
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

    /// Returns whether nothing waits to be fetched.
    pub fn is_empty(&self) -> bool {
        self.tx.is_empty()
    }
}

/// What the thread is about to do, for its beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The thread has begun.
    Begun,
    Waiting,
    Writing,
    /// The thread's work is over.
    Ended,
}

/// Writing that failed is tried again after this long, or with newer content.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A write that takes longer is worth a line: the disk is not well, and the other files had to wait.
const SLOW_WRITE: Duration = Duration::from_secs(1);

/// What a file's content is worth after the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The new content is on the disk before it takes the old one's place, so that a crash of the host leaves one of
    /// the two, whole.
    Flushed,
    /// Replaced as atomically for every reader, but left to the kernel to write out: it means nothing after a crash.
    Cached,
}

/// A file that the thread keeps: where its content comes from, and what it is worth.
#[derive(Debug)]
pub struct KeptFile {
    pub path: PathBuf,
    pub content: Receiver<Content>,
    pub durability: Durability,
    /// What it means that it cannot be written, for the log.
    pub if_not_written: &'static str,
}

/// A kept file, and how its last write went.
struct Keeping {
    file: KeptFile,
    unwritten: Option<Content>,
    failed_at: Option<Instant>,
    /// The sender is gone: nothing newer will come.
    over: bool,
}

/// Starts thread `files`, which runs [`keep`]. `show` is called at its beginning and its end too.
///
/// # Errors
/// The host refuses another thread; `Refusal` says what helps.
pub fn start(
    files: Vec<KeptFile>,
    stop: Stop,
    mut show: impl FnMut(Phase) + Send + 'static,
) -> io::Result<ThreadHandle<()>> {
    threads::spawn("files", CORE_STACK_BYTES, None, move || {
        show(Phase::Begun);
        keep(files, &stop, &mut show);
        show(Phase::Ended);
    })
}

/// The thread's body: writes what comes through each file's slot to its path, until all [`Slot`]s are dropped or `stop`
/// is requested, which is noticed within a turn.
///
/// A file that cannot be written is said once, and tried again, without disturbing the others; each has one write per
/// turn. `show` is called before every wait and every write.
pub fn keep(files: Vec<KeptFile>, stop: &Stop, mut show: impl FnMut(Phase)) {
    let mut files: Vec<Keeping> = files.into_iter().map(Keeping::new).collect();
    loop {
        show(Phase::Waiting);
        wait_for_content(&files);
        // Looked at before the slots: what was left in them before the request is seen after it.
        let last = stop.requested();
        for file in &mut files {
            file.fetch();
            if file.is_due(last) {
                show(Phase::Writing);
                file.write();
            }
        }
        if last || files.iter().all(|file| file.over) {
            return;
        }
    }
}

/// Blocks until there is something in a slot, or a sender is gone; at most one turn.
fn wait_for_content(files: &[Keeping]) {
    let mut ready = Select::new();
    // A slot without a sender is always ready.
    for file in files.iter().filter(|file| !file.over) {
        ready.recv(&file.file.content);
    }
    let _ = ready.ready_timeout(TURN);
}

impl Keeping {
    fn new(file: KeptFile) -> Keeping {
        Keeping {
            file,
            unwritten: None,
            failed_at: None,
            over: false,
        }
    }

    fn fetch(&mut self) {
        match self.file.content.try_recv() {
            Ok(content) => self.unwritten = Some(content),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => self.over = true,
        }
    }

    /// Returns whether it is to be written now: also soon after a failure when this is the `last` chance.
    fn is_due(&self, last: bool) -> bool {
        let may_try = last || self.over || self.failed_at.is_none_or(|at| at.elapsed() >= RETRY_AFTER);
        self.unwritten.is_some() && may_try
    }

    fn write(&mut self) {
        let Some(content) = self.unwritten.take() else {
            return;
        };
        let path = &self.file.path;
        let begun = Instant::now();
        match replace_atomically(path, &content, self.file.durability) {
            Ok(()) => {
                if self.failed_at.take().is_some() {
                    log::warn!("✅ {} can be written again", path.display());
                }
            }
            Err(error) => {
                if self.failed_at.replace(Instant::now()).is_none() {
                    log::error!(
                        "🚨 cannot write {}: {error}; {}. {}; trying again every second",
                        path.display(),
                        self.file.if_not_written,
                        match error.raw_os_error() {
                            // rename(2) over a file that is mounted by itself, as containers do.
                            Some(libc::EBUSY) =>
                                "It is a mount of its own and cannot be replaced: mount its folder instead",
                            _ => "Make room or make its folder writable",
                        }
                    );
                }
                self.unwritten = Some(content);
            }
        }
        let took = begun.elapsed();
        if took >= SLOW_WRITE {
            log::warn!(
                "⚠️  SLOW OPERATION: writing {} took {:.2}ms",
                path.display(),
                took.as_secs_f64() * 1000.0
            );
        }
    }
}

/// Replaces the file at `path` by `content` so that a reader sees the old or the new one, whole: written beside it,
/// then renamed over it. With [`Durability::Flushed`] a start after a crash of the host sees one of them too.
///
/// Through a link that this user or root has put there, where nobody else can have, the file at its end is replaced;
/// any other link is replaced itself. /dev/null takes everything. Blocks on the disk.
///
/// # Errors
/// The folder is missing, not writable, or full; something that is no file stands there; or what stands at the path
/// with `.new` behind it cannot be removed.
pub fn replace_atomically(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let Some(path) = safe_open::replaceable(path)? else {
        return Ok(());
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = create_anew(&beside).and_then(|mut file| {
        file.write_all(content)?;
        match durability {
            Durability::Flushed => file.sync_data(),
            Durability::Cached => Ok(()),
        }
    });
    match written.and_then(|()| fs::rename(&beside, &path)) {
        Ok(()) => Ok(()),
        Err(error) => {
            // Half a file helps nobody, least of all on a full disk.
            let _ = fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// Makes a file that was not there before; one that a killed server left goes first. In a shared folder such as /tmp
/// somebody could have put a link to a file of ours there, or a FIFO that nobody reads: neither is ever opened.
fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::create_new(path),
    }
}

/// An advisory lock (flock(2)) that says who holds it; given back by dropping it or by the end of the process.
///
/// Dropping it removes the file too. That is safe because a process that has locked a file looks whether it is still
/// the one at the path, so nobody can hold a removed file and believe that it means something.
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
        match lock.is_at_its_path() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                return Err(LockError::Io {
                    path: path.to_owned(),
                    error,
                });
            }
        }
        // The id is only for messages; a full disk must not keep a server from starting. A file with other names may be
        // somebody's own, or that of a snapshot.
        if lock.file.metadata().is_ok_and(|facts| facts.nlink() == 1) {
            let _ = lock.file.set_len(0);
            let _ = writeln!(lock.file, "{}", std::process::id());
        }
        Ok(Some(lock))
    }

    /// Returns whether the locked file is still the one at its path, so that the lock means something to others.
    ///
    /// # Errors
    /// The file system does not say what stands at the path (EIO, ESTALE, EACCES); the next look may find out.
    pub fn is_at_its_path(&self) -> io::Result<bool> {
        // A file that does not even know itself any more was removed at its server (ESTALE).
        let Ok(ours) = self.file.metadata() else {
            return Ok(false);
        };
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for LockFile {
    /// While we hold the lock, nobody else who keeps the rules removes the file or puts another one in its place.
    fn drop(&mut self) {
        if let Ok(true) = self.is_at_its_path() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    // In a shared folder such as /tmp somebody could have left a link to a file of ours, or a FIFO.
    safe_open::append_no_link(path, true)
}

/// Returns whether this error of a look at a path says that nothing is there, and not that the look failed.
pub fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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

    /// A kept file of that name in `folder`, and its slot.
    fn kept(folder: &tempfile::TempDir, name: &str) -> (Slot, KeptFile) {
        let (slot, content) = slot();
        let file = KeptFile {
            path: folder.path().join(name),
            content,
            durability: Durability::Cached,
            if_not_written: "a test fails",
        };
        (slot, file)
    }

    fn content(text: &str) -> Content {
        Arc::new(text.as_bytes().to_vec())
    }

    #[test]
    fn replacing_leaves_nothing_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        replace_atomically(&path, b"one", Durability::Flushed).unwrap();
        // As a server that was killed in the middle leaves it.
        fs::write(folder.path().join("state.json.new"), b"ha").unwrap();
        replace_atomically(&path, b"two", Durability::Flushed).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn replacing_writes_through_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let path = folder.path().join("status.json");
        std::os::unix::fs::symlink(&precious, folder.path().join("status.json.new")).unwrap();
        replace_atomically(&path, b"new", Durability::Cached).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn the_last_contents_are_written_when_their_producers_end() {
        let folder = tempfile::tempdir().unwrap();
        let (state_slot, state) = kept(&folder, "state.json");
        let (status_slot, status) = kept(&folder, "status.json");
        state_slot.put(content("last state"));
        status_slot.put(content("last status"));
        drop((state_slot, status_slot));
        keep(vec![state, status], &Stop::new().unwrap(), |_| ());
        assert_eq!(fs::read(folder.path().join("state.json")).unwrap(), b"last state");
        assert_eq!(fs::read(folder.path().join("status.json")).unwrap(), b"last status");
    }

    #[test]
    fn a_request_ends_it_although_a_producer_never_does() {
        let folder = tempfile::tempdir().unwrap();
        let (hung_slot, hung) = kept(&folder, "state.json");
        let (status_slot, status) = kept(&folder, "status.json");
        hung_slot.put(content("state"));
        status_slot.put(content("stopped"));
        let stop = Stop::new().unwrap();
        stop.request();
        keep(vec![hung, status], &stop, |_| ());
        assert_eq!(fs::read(folder.path().join("state.json")).unwrap(), b"state");
        assert_eq!(fs::read(folder.path().join("status.json")).unwrap(), b"stopped");
        drop(hung_slot);
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_no_other_from_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let (bad_slot, bad) = kept(&folder, "missing/state.json");
        let (good_slot, good) = kept(&folder, "status.json");
        bad_slot.put(content("bad"));
        good_slot.put(content("1"));
        let path = good.path.clone();
        let stop = Stop::new().unwrap();
        let (mut turns, asked) = (0, stop.clone());
        keep(vec![bad, good], &stop, |phase| {
            if phase == Phase::Waiting {
                turns += 1;
                match turns {
                    2 => {
                        assert_eq!(fs::read(&path).unwrap(), b"1");
                        good_slot.put(content("2"));
                    }
                    3 => asked.request(),
                    _ => {}
                }
            }
        });
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(bad_slot);
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        replace_atomically(&path, b"one", Durability::Flushed).unwrap();
        fs::create_dir(folder.path().join("state.json.new")).unwrap();
        replace_atomically(&path, b"two", Durability::Flushed).unwrap_err();
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
        assert!(other.is_at_its_path().unwrap());
    }

    /// A process that opens the file just before its holder removes it gets a lock that nobody else would see.
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
        assert!(next.is_at_its_path().unwrap());
    }

    #[test]
    fn a_lock_that_a_snapshot_has_linked_still_locks() {
        let folder = tempfile::tempdir().unwrap();
        let (path, snapshot) = (folder.path().join("x.lock"), folder.path().join("snapshot"));
        fs::write(&path, "17\n").unwrap();
        fs::hard_link(&path, &snapshot).unwrap();
        let lock = LockFile::acquire(&path).unwrap();
        assert!(matches!(LockFile::acquire(&path), Err(LockError::Held { .. })));
        assert_eq!(
            fs::read_to_string(&snapshot).unwrap(),
            "17\n",
            "it may be somebody's file"
        );
        drop(lock);
        LockFile::acquire(&path).unwrap();
    }
}
