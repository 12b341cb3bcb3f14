//! Where the admin socket lies, and its file: made, watched, removed.

use crate::admin::folder;
use crate::config::AdminSocket;
use crate::process::files::{LockError, LockFile, lock_path};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, chmodat, chownat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Connections that the kernel holds for thread `admin`.
const BACKLOG: i32 = 16;
/// Mode of a folder that is missing and made.
const FOLDER_MODE: u32 = 0o755;

/// The places at which the socket may lie, the best first. The last two name the port, because servers may share them.
pub fn candidates(setting: &AdminSocket, port: u16, log_dir: &Path) -> Vec<PathBuf> {
    let name = format!("threadcast-{port}.sock");
    let folder = |variable| {
        let value = std::env::var_os(variable).filter(|value| !value.is_empty())?;
        // systemd names several folders with colons between.
        let first = value.to_str()?.split(':').next()?.to_owned();
        Path::new(&first).is_absolute().then(|| PathBuf::from(first))
    };
    match setting {
        AdminSocket::Off => Vec::new(),
        AdminSocket::At(path) => vec![path.clone()],
        AdminSocket::Usual => {
            let runtime = folder("RUNTIME_DIRECTORY").map(|folder| folder.join("admin.sock"));
            let user = folder("XDG_RUNTIME_DIR").map(|folder| folder.join(&name));
            runtime.into_iter().chain(user).chain([log_dir.join(&name)]).collect()
        }
    }
}

/// A socket that listens, with its file and the lock beside it.
#[derive(Debug)]
pub struct Bound {
    pub listener: UnixListener,
    /// Absolute, through no symbolic link.
    pub path: PathBuf,
    file: (u64, u64),
    /// From before the file is made until after it is removed: a server that starts takes a socket at which nobody
    /// listens for a dead server's, and between bind(2) and listen(2) ours is one. `None` only while
    /// [`Bound::make_again`] fails.
    lock: Option<LockFile>,
}

impl Bound {
    /// Listens at `path`, for this user and, if one is given, `group`. Makes the folder if it is missing. Blocks on its
    /// file system.
    ///
    /// # Errors
    /// Somebody else could replace a file of the folder, something else is there, another server has the path, this
    /// user may not give a file to the group, or the system refuses. The text says what to do.
    pub fn new(path: &Path, group: Option<u32>) -> io::Result<Bound> {
        let given = std::path::absolute(path)?;
        let (Some(folder), Some(name)) = (given.parent(), given.file_name()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no file can have this path",
            ));
        };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        // A link could lead elsewhere later, to a folder that was not judged.
        let folder = folder.canonicalize()?;
        folder::judge(&folder)?;
        let path = folder.join(name);
        let lock = LockFile::acquire(&lock_path(&path)).map_err(locked)?;
        clear(&path)?;
        let socket = stream_socket()?;
        let address = Address::of(&path)?;
        bind(&socket, &address.address)?;
        // Before anybody can connect: a socket that does not listen refuses.
        let rights = give(&path, group).and_then(|()| Ok(listen(&socket, BACKLOG)?));
        if let Err(error) = rights {
            // It is ours, and nobody has it yet.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let file = identity(&fs::symlink_metadata(&path)?);
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Bound {
            listener,
            path,
            file,
            lock: Some(lock),
        })
    }

    /// Listens at the same path with a new file, after somebody took ours away. Blocks as [`Bound::new`] does.
    ///
    /// # Errors
    /// As [`Bound::new`]; nobody can connect then.
    pub fn make_again(&mut self, group: Option<u32>) -> io::Result<()> {
        // Its file may be gone too. If another server takes it now, the path is that server's.
        self.lock = None;
        *self = Bound::new(&self.path, group)?;
        Ok(())
    }

    /// Returns whether the file at the path is still ours.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|there| identity(&there) == self.file)
    }
}

/// The file goes with the socket, if it is still ours.
impl Drop for Bound {
    fn drop(&mut self) {
        if self.is_there() {
            // A folder that does not allow it leaves a file that the next start replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Lets this user connect, and members of `group`.
fn give(path: &Path, group: Option<u32>) -> io::Result<()> {
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?;
    let Some(group) = group else { return Ok(()) };
    chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| not_given(group, error))
}

/// Says which right is missing (chown(2)).
fn not_given(group: u32, error: Errno) -> io::Error {
    let why = match error {
        Errno::PERM => {
            "a user other than root can give a file only to a group of its own: make the server's user a member of the group \
             (SupplementaryGroups= in the unit), or leave --admin-group out"
        }
        Errno::INVAL => {
            "this container has no such group: map its number into the container, or leave --admin-group out"
        }
        _ => "choose a folder whose file system has owners, or leave --admin-group out",
    };
    let text = format!("cannot give it to group {group}: {error}; {why}");
    io::Error::new(io::Error::from(error).kind(), text)
}

/// Another server has the lock, or there can be none.
fn locked(error: LockError) -> io::Error {
    let kind = match &error {
        LockError::Held { .. } => io::ErrorKind::AddrInUse,
        LockError::Io { error, .. } => error.kind(),
    };
    match kind {
        io::ErrorKind::AddrInUse => io::Error::new(
            kind,
            format!("another server has this path: {error}; end it, or give another path"),
        ),
        _ => io::Error::new(kind, error.to_string()),
    }
}

/// Removes what a server that has ended left at the path.
fn clear(path: &Path) -> io::Result<()> {
    let exists = |text: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => exists("something that is no socket is there; remove it"),
        Ok(_) if answers(path)? => exists("another server listens there; end it, or give another path"),
        Ok(_) => fs::remove_file(path),
    }
}

/// Returns whether anybody listens there. Never blocks: a full queue of connections is an answer too.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = stream_socket()?;
    let address = Address::of(path)?;
    match connect(&socket, &address.address) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        _ => Ok(true),
    }
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// A path as the address of a socket. One of more than 107 bytes has no room there (unix(7)); it is reached by way of
/// its folder's descriptor, which this holds.
#[derive(Debug)]
pub struct Address {
    pub address: SocketAddrUnix,
    _folder: Option<OwnedFd>,
}

impl Address {
    /// Makes the address of the socket at `path`, by way of its folder where the path is too long for one.
    ///
    /// # Errors
    /// The folder of a long path cannot be opened, or the file's own name is too long.
    pub fn of(path: &Path) -> io::Result<Address> {
        if let Ok(address) = SocketAddrUnix::new(path) {
            return Ok(Address { address, _folder: None });
        }
        let folder = open(
            path.parent().unwrap_or(Path::new(".")),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let name = path.file_name().unwrap_or_default();
        let short = Path::new("/proc/self/fd")
            .join(folder.as_raw_fd().to_string())
            .join(name);
        Ok(Address {
            address: SocketAddrUnix::new(&short)?,
            _folder: Some(folder),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("admin.sock");
        (folder, path)
    }

    /// Between bind(2) and listen(2) a server's socket looks like one that a dead server left.
    #[test]
    fn a_server_that_does_not_listen_yet_keeps_its_path() {
        let (_folder, path) = in_folder();
        let _starting = LockFile::acquire(&lock_path(&path)).unwrap();
        let socket = stream_socket().unwrap();
        bind(&socket, &Address::of(&path).unwrap().address).unwrap();
        let before = identity(&fs::symlink_metadata(&path).unwrap());
        let error = Bound::new(&path, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("another server has this path"), "{error}");
        assert_eq!(identity(&fs::symlink_metadata(&path).unwrap()), before);
    }

    #[test]
    fn it_leaves_nothing_and_can_be_made_again_after_everything_was_taken_away() {
        let (folder, path) = in_folder();
        let mut bound = Bound::new(&path, None).unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(!bound.is_there());
        bound.make_again(None).unwrap();
        assert!(bound.is_there());
        assert!(Bound::new(&path, None).is_err(), "it is locked again");
        // Our lock must not keep ourselves out.
        fs::remove_file(&path).unwrap();
        bound.make_again(None).unwrap();
        drop(bound);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_folder_that_is_judged_is_the_one_that_is_used() {
        let (folder, path) = in_folder();
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        let bound = Bound::new(&folder.path().join("link/admin.sock"), None).unwrap();
        assert_eq!(bound.path, path.parent().unwrap().join("real/admin.sock"));
    }

    #[test]
    fn the_right_that_is_missing_is_named() {
        let said = not_given(7, Errno::PERM).to_string();
        assert!(
            said.contains("group 7") && said.contains("make the server's user a member of the group"),
            "{said}"
        );
    }
}
