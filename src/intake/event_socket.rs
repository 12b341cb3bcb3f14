//! The Unix datagram socket: taking its path without hurting a live owner, noticing when somebody else takes it from
//! us, and leaving nothing behind; or one that the service manager passes us, whose file is not ours to touch.

use crate::process::files::{LockError, LockFile, is_absence, lock_path};
use crate::process::procfs::{ProcessName, is_bound_by_another_socket, unix_socket_owner};
use crate::process::safe_open;
use rustix::fs::{Access, Mode, access};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// A bound socket and the identity of its file. Dropping it removes the file if it is still ours and we have made it.
#[derive(Debug)]
pub struct EventSocket {
    socket: OwnedFd,
    path: PathBuf,
    // Stays unique while we hold the socket: the kernel keeps the inode of a bound socket (unix(7)). `None`: of a
    // passed socket whose file was lost before we came.
    identity: Option<(u64, u64)>,
    passed: bool,
    /// The permissions that we have given the file; 0 for a passed socket's.
    mode: u32,
}

/// What stands at a socket's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Our file.
    Ours = 0,
    /// Nothing.
    Gone,
    /// A socket that is not ours.
    Taken,
    /// Something that is no socket.
    Blocked,
    /// The file system does not say.
    Unseen,
}

/// Why the socket could not be had.
#[derive(Debug)]
pub enum BindError {
    /// A server is running there. Finding out who it is takes tens of milliseconds, so only the start does.
    Owned { path: PathBuf, owner: Option<ProcessName> },
    /// A socket that this user may not connect to, so a server may be running there.
    Closed { path: PathBuf, uid: u32, mode: u32 },
    /// Something that is no socket stands there.
    NotASocket { path: PathBuf },
    /// The socket was passed to us, and only who made it may make it anew.
    Passed { path: PathBuf },
    /// A system call failed.
    Io {
        path: PathBuf,
        step: &'static str,
        error: io::Error,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::Owned { path, owner } => {
                write!(f, "event socket {} belongs to a running server", path.display())?;
                match owner {
                    Some(owner) => write!(f, ": {owner}"),
                    None => Ok(()),
                }
            }
            BindError::Closed { path, uid, mode } => {
                write!(
                    f,
                    "event socket {} belongs to user {uid}, and its mode {mode:03o} does not let this user find out \
                     whether a server is running there",
                    path.display()
                )
            }
            BindError::NotASocket { path } => {
                write!(f, "{} exists and is not a socket", path.display())
            }
            BindError::Passed { path } => {
                write!(
                    f,
                    "event socket {} was passed to us by the service manager, so only that one can make it anew",
                    path.display()
                )
            }
            BindError::Io { path, step, error } => {
                write!(f, "cannot {step} event socket {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for BindError {}

impl BindError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            BindError::Owned { owner: Some(owner), .. } => {
                format!(
                    "stop process {} first, or give --event-socket-path another path; nothing of it was touched",
                    owner.pid
                )
            }
            BindError::Owned { owner: None, .. } => {
                "stop that server first, or give --event-socket-path another path; nothing of it was touched".to_owned()
            }
            BindError::Closed { uid, .. } => {
                format!(
                    "stop the server of user {uid} first, or have that user or root remove the file if there is none; \
                     or give --event-socket-path another path; nothing of it was touched"
                )
            }
            BindError::NotASocket { .. } => {
                "remove it if nobody needs it, or give --event-socket-path another path".to_owned()
            }
            BindError::Passed { .. } => "stop whoever did that, then `systemctl stop threadcast.socket` and \
                 `systemctl start threadcast.socket threadcast.service`"
                .to_owned(),
            // In a folder with the sticky bit, such as /tmp, being allowed to write is not enough.
            BindError::Io { step, error, .. } if *step == REMOVE_STALE && error.raw_os_error() == Some(libc::EPERM) => {
                "no server is running there, but only the owner of the file or root may remove it; \
                 or give --event-socket-path another path"
                    .to_owned()
            }
            BindError::Io { path, error, .. } => match error.kind() {
                io::ErrorKind::NotFound => format!("make the folder {} first", folder(path).display()),
                io::ErrorKind::NotADirectory => {
                    format!(
                        "{} is not a folder; give --event-socket-path another path",
                        folder(path).display()
                    )
                }
                io::ErrorKind::PermissionDenied => {
                    format!(
                        "{} must be writable for this user; or give --event-socket-path another path",
                        folder(path).display()
                    )
                }
                _ => "give --event-socket-path another path".to_owned(),
            },
        }
    }
}

/// The step that may fail although the folder is writable.
const REMOVE_STALE: &str = "remove the stale";

impl BindError {
    /// Names the owner, if there is one. Walks /proc, so not for a data path.
    fn with_owner(self) -> BindError {
        match self {
            BindError::Owned { path, owner: None } => BindError::Owned {
                owner: unix_socket_owner(&path),
                path,
            },
            other => other,
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The right to the path among servers that take the lock; held as long as the server lives.
#[derive(Debug)]
pub struct PathLock {
    _lock: Option<LockFile>,
    /// Why there is no lock, for the log.
    pub warning: Option<String>,
}

impl PathLock {
    /// For a path that is the service manager's: it binds it once, and nobody else does.
    pub fn of_the_manager() -> PathLock {
        PathLock {
            _lock: None,
            warning: None,
        }
    }
}

/// Takes the lock beside `path`, touching nothing of a live owner.
///
/// # Errors
/// Another server holds it, or the folder is missing.
pub fn lock(path: &Path) -> Result<PathLock, BindError> {
    match LockFile::acquire(&lock_path(path)) {
        Ok(lock) => Ok(PathLock {
            _lock: Some(lock),
            warning: None,
        }),
        Err(LockError::Held { holder, .. }) => Err(BindError::Owned {
            path: path.to_owned(),
            owner: holder,
        }
        .with_owner()),
        // A lock file left by another user in a shared folder cannot be opened; the connect test still protects.
        Err(error @ LockError::Io { .. }) if folder(path).is_dir() => Ok(PathLock {
            _lock: None,
            warning: Some(error.to_string()),
        }),
        Err(LockError::Io { error, .. }) => Err(BindError::Io {
            path: path.to_owned(),
            step: "lock the path of",
            error,
        }),
    }
}

/// Returns whether a server receives at `path`: connecting a datagram socket succeeds only then (connect(2)).
fn is_alive(path: &Path) -> io::Result<bool> {
    let probe = UnixDatagram::unbound()?;
    match probe.connect(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(false),
            // Somebody listens, but for another type of socket.
            Some(libc::EPROTOTYPE) => Ok(true),
            _ => Err(error),
        },
    }
}

/// What became of the file of an event socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was ours, and is gone.
    Done,
    /// It is not ours to remove, or could not be removed.
    Left,
}

impl EventSocket {
    /// Binds `path` with permissions `mode`, replacing a stale socket file. The caller holds the [`PathLock`].
    ///
    /// # Errors
    /// A live server, which is named, is bound there, something else stands there, or the folder does not allow it.
    pub fn bind(path: &Path, mode: u32) -> Result<EventSocket, BindError> {
        EventSocket::bind_to(path, mode).map_err(BindError::with_owner)
    }

    /// Finds out whether `path` can be bound, and removes a stale socket file, so that what takes long can be done
    /// before anybody can send. The caller holds the [`PathLock`].
    ///
    /// # Errors
    /// As [`EventSocket::bind`].
    pub fn prepare(path: &Path) -> Result<(), BindError> {
        remove_stale(path).map_err(BindError::with_owner)?;
        access(folder(path), Access::WRITE_OK | Access::EXEC_OK).map_err(|error| BindError::Io {
            path: path.to_owned(),
            step: "bind",
            error: error.into(),
        })
    }

    /// A socket that the service manager has bound to `path`, keeps open, and passes to our successor too. Its file is
    /// neither made, changed nor removed here.
    pub fn passed(socket: OwnedFd, path: PathBuf) -> EventSocket {
        // The kernel does not tell which file a socket is bound to. Where another socket has the same path, that one
        // took it later, for ours has had it since before we began; where nobody receives, the file is not ours, for we
        // would.
        let lost = is_bound_by_another_socket(&path) || matches!(is_alive(&path), Ok(false));
        EventSocket {
            identity: identity(&path).ok().filter(|_| !lost),
            socket,
            path,
            passed: true,
            mode: 0,
        }
    }

    /// Returns whether it belongs to the service manager.
    pub fn is_passed(&self) -> bool {
        self.passed
    }

    /// Binds the path anew after its file was lost. Quick, because senders wait meanwhile.
    ///
    /// # Errors
    /// As [`EventSocket::bind`], but a live server is not named; always [`BindError::Passed`] for a passed socket.
    pub fn bind_again(&self, mode: u32) -> Result<EventSocket, BindError> {
        if self.passed {
            return Err(BindError::Passed {
                path: self.path.clone(),
            });
        }
        EventSocket::bind_to(&self.path, mode)
    }

    fn bind_to(path: &Path, mode: u32) -> Result<EventSocket, BindError> {
        remove_stale(path)?;
        let failed = |step| {
            move |error: io::Error| BindError::Io {
                path: path.to_owned(),
                step,
                error,
            }
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .map_err(|error| failed("make")(error.into()))?;
        // The file is born with the socket's own mode less the umask, so nobody gets in before the next step.
        let _ = rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode));
        let address = SocketAddrUnix::new(path).map_err(|error| failed("name")(error.into()))?;
        bind(&socket, &address).map_err(|error| failed("bind")(error.into()))?;
        // From here on the file is ours and goes with `bound`.
        let identity = match identity(path) {
            Ok(identity) if is_socket(path) => identity,
            // Somebody has put something else in its place at this very moment.
            Ok(_) => return Err(BindError::NotASocket { path: path.to_owned() }),
            Err(error) => return Err(failed("look at")(error)),
        };
        let bound = EventSocket {
            socket,
            path: path.to_owned(),
            identity: Some(identity),
            passed: false,
            mode,
        };
        safe_open::chmod_same(path, identity, mode).map_err(failed("set the permissions of"))?;
        Ok(bound)
    }

    /// What stands at the path now.
    pub fn path_state(&self) -> PathState {
        match identity(&self.path) {
            Ok(found) if Some(found) == self.identity => PathState::Ours,
            Ok(_) if is_socket(&self.path) => PathState::Taken,
            Ok(_) => PathState::Blocked,
            Err(error) if is_absence(&error) => PathState::Gone,
            Err(_) => PathState::Unseen,
        }
    }

    /// The permissions of the file, if somebody has taken some of those that we have given it.
    pub fn lessened_mode(&self) -> Option<u32> {
        let now = fs::symlink_metadata(&self.path).ok()?.mode() & 0o777;
        (now & self.mode != self.mode && self.path_state() == PathState::Ours).then_some(now)
    }

    /// Returns the error with which the file system hides what stands at the path; `None` if it shows it.
    pub fn unseen(&self) -> Option<io::Error> {
        identity(&self.path).err().filter(|error| !is_absence(error))
    }

    /// The path it was bound to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file if it is ours and we have made it.
    pub fn remove_file(&self) -> Removal {
        if !self.passed && self.path_state() == PathState::Ours && fs::remove_file(&self.path).is_ok() {
            Removal::Done
        } else {
            Removal::Left
        }
    }
}

impl Drop for EventSocket {
    /// Fields are dropped after this, so the socket still keeps its inode from being given to somebody else's file.
    fn drop(&mut self) {
        self.remove_file();
    }
}

impl AsFd for EventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Removes a socket file that nobody receives at; leaves everything else alone.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |step, error| BindError::Io {
        path: path.to_owned(),
        step,
        error,
    };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(metadata) => metadata,
    };
    match is_alive(path) {
        Ok(false) => {}
        Ok(true) => {
            return Err(BindError::Owned {
                path: path.to_owned(),
                owner: None,
            });
        }
        // We could look at the file, so it is the file itself that keeps us out, not its folder.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            return Err(BindError::Closed {
                path: path.to_owned(),
                uid: metadata.uid(),
                mode: metadata.mode() & 0o777,
            });
        }
        Err(error) => return Err(failed("find out who owns", error)),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(REMOVE_STALE, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl EventSocket {
        /// One that is always ready and from which nothing can be received.
        pub(in crate::intake) fn broken() -> EventSocket {
            EventSocket {
                socket: fs::File::open("/dev/zero").unwrap().into(),
                mode: 0,
                path: PathBuf::from("/nowhere/events.sock"),
                identity: None,
                passed: false,
            }
        }
    }

    #[test]
    fn a_path_that_cannot_be_looked_at_is_not_called_replaced() {
        let mut unseen = EventSocket::broken();
        // As an error of a disk, this is none of absence.
        unseen.path = PathBuf::from("x".repeat(300));
        assert_eq!(unseen.path_state(), PathState::Unseen);
        assert_eq!(EventSocket::broken().path_state(), PathState::Gone);
    }

    fn in_folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock");
        (folder, path)
    }

    #[test]
    fn a_stale_file_is_replaced_and_ours_is_removed() {
        let (_folder, path) = in_folder();
        drop(UnixDatagram::bind(&path).unwrap());
        let socket = EventSocket::bind(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(socket.path_state(), PathState::Ours);
        assert_eq!(socket.remove_file(), Removal::Done);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_owner_is_named_and_not_touched() {
        let (_folder, path) = in_folder();
        let owner = UnixDatagram::bind(&path).unwrap();
        let before = identity(&path).unwrap();
        let error = EventSocket::bind(&path, 0o660).unwrap_err();
        assert!(
            error.to_string().contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert!(error.hint().contains("nothing of it was touched"));
        assert_eq!(identity(&path).unwrap(), before);
        UnixDatagram::unbound().unwrap().send_to(b"x", &path).unwrap();
        drop(owner);
    }

    #[test]
    fn binding_again_does_not_spend_time_on_who_owns_the_path() {
        let (_folder, path) = in_folder();
        let socket = EventSocket::bind(&path, 0o660).unwrap();
        fs::remove_file(&path).unwrap();
        let _owner = UnixDatagram::bind(&path).unwrap();
        let error = socket.bind_again(0o660).unwrap_err();
        assert!(matches!(error, BindError::Owned { owner: None, .. }), "{error}");
    }

    #[test]
    fn the_file_goes_with_the_socket_but_not_a_younger_one() {
        let (_folder, path) = in_folder();
        let former = EventSocket::bind(&path, 0o660).unwrap();
        fs::remove_file(&path).unwrap();
        let socket = former.bind_again(0o660).unwrap();
        drop(former);
        assert_eq!(socket.path_state(), PathState::Ours);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_passed_socket_is_watched_but_its_file_is_not_touched() {
        let (_folder, path) = in_folder();
        let manager = UnixDatagram::bind(&path).unwrap();
        let before = (identity(&path).unwrap(), fs::metadata(&path).unwrap().mode());
        let take = || EventSocket::passed(manager.try_clone().unwrap().into(), path.clone());
        let socket = take();
        assert_eq!(socket.path_state(), PathState::Ours);
        assert!(matches!(socket.bind_again(0o600), Err(BindError::Passed { .. })));
        assert_eq!(socket.remove_file(), Removal::Left);
        drop(socket);
        assert_eq!((identity(&path).unwrap(), fs::metadata(&path).unwrap().mode()), before);

        fs::remove_file(&path).unwrap();
        assert_eq!(take().path_state(), PathState::Gone);
        fs::write(&path, "").unwrap();
        assert_eq!(take().path_state(), PathState::Blocked);
    }

    #[test]
    fn what_is_no_socket_stays() {
        let (_folder, path) = in_folder();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            EventSocket::bind(&path, 0o660),
            Err(BindError::NotASocket { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_missing_folder_is_named_in_the_hint() {
        let (folder, _) = in_folder();
        let path = folder.path().join("no/events.sock");
        let error = lock(&path).unwrap_err();
        assert!(
            error.hint().contains(folder.path().join("no").to_str().unwrap()),
            "{}",
            error.hint()
        );
    }

    #[test]
    fn a_lost_path_is_seen_and_another_file_is_left_alone() {
        let (_folder, path) = in_folder();
        let socket = EventSocket::bind(&path, 0o660).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(socket.path_state(), PathState::Gone);
        let _other = UnixDatagram::bind(&path).unwrap();
        assert_eq!(socket.path_state(), PathState::Taken);
        assert_eq!(socket.remove_file(), Removal::Left);
        assert!(path.exists());
    }

    #[test]
    fn a_held_lock_says_that_a_server_is_running() {
        let (_folder, path) = in_folder();
        let _held = lock(&path).unwrap();
        let error = lock(&path).unwrap_err();
        assert!(
            error.to_string().contains("belongs to a running server: process"),
            "{error}"
        );
    }
}
