//! The run folder: what one supervisor keeps while it runs, and its id.
//!
//! It has the rights 0700 and belongs to us, so that nobody else can put a record or a socket there. One supervisor at
//! a time holds its lock. The lock is of the kind that forked processes share until they execute their program
//! (flock(2)): a supervisor that was killed in the middle of a start keeps the next one out until that start is over.

use crate::admin::place::Address;
use crate::process::clock::pause;
use crate::process::files::{LockError, LockFile};
use crate::supervise::mark::RunId;
use crate::supervise::write::replace;
use rustix::fs::{AtFlags, Mode, OFlags, chmodat, fstat, open, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ID_FILE: &str = "id";
const LOCK_FILE: &str = "lock";
const SOCKET_FILE: &str = "control.sock";
/// Rights of the folder.
const FOLDER_MODE: u32 = 0o700;
/// Rights that somebody else may not have.
const OTHERS: u32 = 0o077;
/// Longest id file that is read: an id and two numbers.
const ID_BYTES_MAX: u64 = 128;
/// Connections that the kernel holds for the control socket.
const BACKLOG: i32 = 16;
/// Bound of the wait for the lock of a dead holder, which a process that it was starting keeps until it executes its
/// program.
const DEAD_HOLDER: Duration = Duration::from_secs(1);
/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// A run folder that is ours alone while this lives.
#[derive(Debug)]
pub struct RunFolder {
    /// Absolute, through no symbolic link.
    path: PathBuf,
    folder: OwnedFd,
    id: RunId,
    lock: LockFile,
}

/// Why a run folder cannot be used.
#[derive(Debug)]
pub enum RunFolderError {
    /// It belongs to another user.
    Owner { path: PathBuf, uid: u32 },
    /// Others have rights in it.
    Open { path: PathBuf, mode: u32 },
    /// Another supervisor runs there.
    Held(LockError),
    /// The system refuses a step.
    Io {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

impl fmt::Display for RunFolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunFolderError::Owner { path, uid } => {
                let own = rustix::process::geteuid().as_raw();
                let path = path.display();
                write!(
                    f,
                    "run folder {path} belongs to user {uid}, not to this one ({own}), so that user could change what is \
                     recorded there; give another run_dir, or chown it"
                )
            }
            RunFolderError::Open { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "other users have rights in run folder {path} (mode {mode:04o}); take them away (chmod 700 {path}) or give \
                     another run_dir"
                )
            }
            RunFolderError::Held(error) => {
                write!(
                    f,
                    "another supervisor runs in this run folder: {error}; stop it, or have it replaced (--replace)"
                )
            }
            RunFolderError::Io { doing, path, error } => {
                write!(
                    f,
                    "cannot {doing} {}: {error}; make room or its folder writable, or give another run_dir",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for RunFolderError {}

/// Something about the folder that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The id in the folder was made for another folder.
    Copied { path: PathBuf, earlier: RunId },
    /// What stood in the id file was none.
    IdDamaged { path: PathBuf },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Copied { path, earlier } => write!(
                f,
                "run folder {} is a copy of another one, or its file system was mounted anew: it has a new id; processes that \
                 were started with the earlier one ({earlier}) are left alone",
                path.display()
            ),
            Notice::IdDamaged { path } => write!(
                f,
                "file {ID_FILE} of run folder {} is damaged: the folder has a new id; processes that were started with the \
                 earlier one are left alone, end them by hand if there are any",
                path.display()
            ),
        }
    }
}

impl RunFolder {
    /// Opens the run folder at `path`, makes it when it is missing, and takes its lock. Blocks on its file system; at
    /// most 1 s more, when the supervisor before this one was killed while it started a process.
    ///
    /// # Errors
    /// It is not ours alone, another supervisor has it, or the system refuses. The text says what to do.
    pub fn open(path: &Path) -> Result<(RunFolder, Option<Notice>), RunFolderError> {
        let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
        made.map_err(|error| failed("make run folder", path, error))?;
        let real = path.canonicalize();
        let path = real.map_err(|error| failed("find run folder", path, error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(&path, flags, Mode::empty());
        let folder = folder.map_err(|error| failed("open run folder", &path, error.into()))?;
        judge(folder.as_fd(), &path)?;
        let lock = take_lock(&path)?;
        let (id, notice) = own_id(folder.as_fd(), &path)?;
        let folder = RunFolder { path, folder, id, lock };
        Ok((folder, notice))
    }

    /// The id of the marks of this folder's processes.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Absolute, through no symbolic link.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the folder is still at its path with our lock in it, so that a second supervisor is kept out.
    ///
    /// # Errors
    /// The file system does not tell; the next look may find out.
    pub fn is_still_ours(&self) -> io::Result<bool> {
        self.lock.is_at_its_path()
    }

    /// Listens at the control socket, in place of the file that an earlier supervisor left. Only this user can connect.
    /// The socket does not block.
    ///
    /// # Errors
    /// The folder is not writable, or the system refuses a socket.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let path = control_socket(&self.path);
        match fs::remove_file(&path) {
            // We hold the lock, so nobody listens there.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = stream_socket(SocketFlags::NONBLOCK)?;
        bind(&socket, &Address::of(&path)?.address)?;
        // Nobody can connect before `listen`, and nobody else can enter the folder.
        chmodat(
            self.folder.as_fd(),
            SOCKET_FILE,
            Mode::from_raw_mode(0o600),
            AtFlags::empty(),
        )?;
        listen(&socket, BACKLOG)?;
        Ok(UnixListener::from(socket))
    }
}

impl AsFd for RunFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The path of the control socket of the run folder at `path`.
pub fn control_socket(path: &Path) -> PathBuf {
    path.join(SOCKET_FILE)
}

/// Connects to the supervisor of the run folder at `path`. Blocks while the kernel's queue of connections is full.
///
/// # Errors
/// NotFound or ConnectionRefused: none runs there.
pub fn connect_control(path: &Path) -> io::Result<UnixStream> {
    let socket = stream_socket(SocketFlags::empty())?;
    connect(&socket, &Address::of(&control_socket(path))?.address)?;
    Ok(UnixStream::from(socket))
}

fn stream_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn failed(doing: &'static str, path: &Path, error: io::Error) -> RunFolderError {
    RunFolderError::Io {
        doing,
        path: path.to_owned(),
        error,
    }
}

/// Refuses a folder in which somebody else has rights.
fn judge(folder: BorrowedFd<'_>, path: &Path) -> Result<(), RunFolderError> {
    let facts = fstat(folder).map_err(|error| failed("look at run folder", path, error.into()))?;
    if facts.st_uid != rustix::process::geteuid().as_raw() {
        return Err(RunFolderError::Owner {
            path: path.to_owned(),
            uid: facts.st_uid,
        });
    }
    if facts.st_mode & OTHERS != 0 {
        return Err(RunFolderError::Open {
            path: path.to_owned(),
            mode: facts.st_mode & 0o7777,
        });
    }
    Ok(())
}

fn take_lock(folder: &Path) -> Result<LockFile, RunFolderError> {
    let deadline = Instant::now() + DEAD_HOLDER;
    loop {
        match LockFile::acquire(&folder.join(LOCK_FILE)) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { holder: None, .. }) if Instant::now() < deadline => pause(TRY_AGAIN),
            Err(LockError::Io { path, error }) => return Err(failed("lock", &path, error)),
            Err(error) => return Err(RunFolderError::Held(error)),
        }
    }
}

/// Reads the folder's id, or makes one: at the first start, and in a copy.
fn own_id(folder: BorrowedFd<'_>, path: &Path) -> Result<(RunId, Option<Notice>), RunFolderError> {
    let facts = fstat(folder).map_err(|error| failed("look at run folder", path, error.into()))?;
    let here = format!("{} {}", facts.st_dev, facts.st_ino);
    let id_path = path.join(ID_FILE);
    let text = read_id(folder).map_err(|error| failed("read", &id_path, error))?;
    let notice = match text.as_deref().map(parse_id) {
        None => None,
        Some(Some((id, place))) if place == here => return Ok((id, None)),
        Some(Some((earlier, _))) => Some(Notice::Copied {
            path: path.to_owned(),
            earlier,
        }),
        Some(None) => Some(Notice::IdDamaged { path: path.to_owned() }),
    };
    let id = new_id().map_err(|error| failed("get random bytes for", &id_path, error.into()))?;
    let line = format!("{id} {here}\n");
    let written = replace(folder, ID_FILE, line.as_bytes(), &mut |_| {});
    written.map_err(|error| failed("write", &id_path, error))?;
    Ok((id, notice))
}

/// Returns what the id file says; `None` when there is none.
fn read_id(folder: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, ID_FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(ID_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Splits the line into the id, and device and inode of the folder that it was made for.
fn parse_id(text: &str) -> Option<(RunId, &str)> {
    let (id, place) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((id.parse().ok()?, place))
}

/// Blocks until the kernel has random bytes, which is over long before services start.
fn new_id() -> Result<RunId, Errno> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(RunId(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, chown};

    fn opened(path: &Path) -> (RunFolder, Option<Notice>) {
        RunFolder::open(path).unwrap()
    }

    #[test]
    fn a_folder_keeps_its_id_and_a_copy_gets_another() {
        let base = tempfile::tempdir().unwrap();
        let (first, copy) = (base.path().join("a/run"), base.path().join("copy"));
        let (folder, notice) = opened(&first);
        let (id, mode) = (folder.id(), fs::metadata(&first).unwrap().permissions().mode());
        assert_eq!((notice, mode & 0o7777), (None, 0o700));
        drop(folder);
        let (again, notice) = opened(&first);
        assert_eq!((again.id(), notice), (id, None));

        DirBuilder::new().mode(0o700).create(&copy).unwrap();
        fs::copy(first.join(ID_FILE), copy.join(ID_FILE)).unwrap();
        // The lock file too, with the id of a process that holds another one.
        fs::copy(first.join(LOCK_FILE), copy.join(LOCK_FILE)).unwrap();
        let (copied, notice) = opened(&copy);
        assert_ne!(copied.id(), id);
        let notice = notice.unwrap().to_string();
        assert!(notice.contains("is a copy of another one") && notice.contains(&id.to_string()));

        // A folder that was moved is the same one.
        drop(again);
        let moved = base.path().join("moved");
        fs::rename(&first, &moved).unwrap();
        let (moved, notice) = opened(&moved);
        assert_eq!((moved.id(), notice), (id, None));
    }

    #[test]
    fn a_damaged_id_is_replaced_and_said() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        let (folder, _) = opened(&path);
        let id = folder.id();
        drop(folder);
        fs::write(path.join(ID_FILE), &id.to_string()[..20]).unwrap();
        let (folder, notice) = opened(&path);
        assert_ne!(folder.id(), id);
        assert!(matches!(notice, Some(Notice::IdDamaged { .. })), "{notice:?}");
    }

    #[test]
    fn a_second_supervisor_is_refused_by_name() {
        let base = tempfile::tempdir().unwrap();
        let (folder, _) = opened(base.path().join("run").as_path());
        let error = RunFolder::open(folder.path()).unwrap_err().to_string();
        let own = format!("process {} (", std::process::id());
        assert!(error.contains(&own) && error.contains("--replace"), "{error}");
        assert!(folder.is_still_ours().unwrap());
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(!folder.is_still_ours().unwrap());
    }

    #[test]
    fn a_folder_in_which_others_have_rights_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = RunFolder::open(&path).unwrap_err().to_string();
        let remedy = format!("chmod 700 {}", path.canonicalize().unwrap().display());
        assert!(error.contains("mode 0750") && error.contains(&remedy), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        opened(&path);
        let other = rustix::process::geteuid().as_raw() + 1;
        if chown(&path, Some(other), None).is_err() {
            // Past the harness, which shows the output of failed tests only.
            let _ = writeln!(
                io::stderr(),
                "SKIPPED: a run folder of another user, which only root can make"
            );
            return;
        }
        let error = RunFolder::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("belongs to user {other},")), "{error}");
    }

    #[test]
    fn the_control_socket_answers_at_paths_of_any_length() {
        let base = tempfile::tempdir().unwrap();
        let long = base.path().join("x".repeat(120));
        for path in [base.path().join("run"), long] {
            let (folder, _) = opened(&path);
            assert_eq!(
                connect_control(&path).unwrap_err().kind(),
                io::ErrorKind::NotFound,
                "{}",
                path.display()
            );
            drop(folder.listen().unwrap());
            assert_eq!(
                connect_control(&path).unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused
            );
            // The file of the one before is replaced.
            let listener = folder.listen().unwrap();
            let mode = fs::metadata(control_socket(&path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            connect_control(&path).unwrap().write_all(b"hello").unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    }
}
