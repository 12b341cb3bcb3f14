//! Where the admin socket lies, and its file: made, watched, removed.

use crate::process::config::AdminSocket;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, chmodat, chownat, open};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Connections that the kernel holds for thread `admin`.
const BACKLOG: i32 = 16;
/// Others may write a folder with this bit.
const OTHERS_WRITE: u32 = 0o002;

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

/// A socket that listens, with its file.
#[derive(Debug)]
pub struct Bound {
    pub listener: UnixListener,
    /// Absolute.
    pub path: PathBuf,
    file: (u64, u64),
}

impl Bound {
    /// Listens at `path`, for this user and, if one is given, `group`. The folder is made when it is missing. Blocks on its
    /// file system.
    ///
    /// # Errors
    /// The folder belongs to another user or others may write it, something else is there, another server listens there, or
    /// the system refuses.
    pub fn new(path: &Path, group: Option<u32>) -> io::Result<Bound> {
        let path = std::path::absolute(path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        judge_folder(folder, &fs::metadata(folder)?)?;
        clear(&path)?;
        let socket = stream_socket()?;
        let address = Address::of(&path)?;
        bind(&socket, &address.address)?;
        // Before anybody can connect: a socket that does not listen refuses.
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        let rights = chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty()).and_then(|()| match group {
            Some(group) => chownat(CWD, &path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW),
            None => Ok(()),
        });
        if let Err(error) = rights {
            // It is ours, and nobody has it yet.
            let _ = fs::remove_file(&path);
            return Err(error.into());
        }
        listen(&socket, BACKLOG)?;
        let file = identity(&fs::symlink_metadata(&path)?);
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Bound { listener, path, file })
    }

    /// Whether the file at the path is still ours.
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

/// Whoever may write the folder may put another socket in the place of ours.
fn judge_folder(folder: &Path, found: &Metadata) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let error = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    if found.uid() != own && found.uid() != 0 {
        return error(format!(
            "folder {} belongs to user {}, not to this one or root",
            folder.display(),
            found.uid()
        ));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return error(format!(
            "every user may write folder {}; make a folder below it that only this one may write",
            folder.display()
        ));
    }
    Ok(())
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

/// Whether anybody listens there. Never blocks: a full queue of connections is an answer too.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = stream_socket()?;
    let address = Address::of(path)?;
    match connect(&socket, &address.address) {
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(false),
        _ => Ok(true),
    }
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// A path as the address of a socket. One of more than 107 bytes has no room there (unix(7)); it is reached by way of its
/// folder's descriptor, which this holds.
#[derive(Debug)]
pub struct Address {
    pub address: SocketAddrUnix,
    _folder: Option<OwnedFd>,
}

impl Address {
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
