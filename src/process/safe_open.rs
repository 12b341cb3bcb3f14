//! Opens files whose paths other users may be able to change: never waits for somebody at the other end of a FIFO, and
//! never writes through a link that another user could have put there. Logs and reports are opened along their whole
//! path; of any other path only the last part is judged, so its folder must be one that nobody else can move.
//!
//! Blocks on the file system only.

use crate::process::groups::is_private;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawMode, Stat, chmodat, fstat, fstatfs, getxattr, openat, readlinkat, statat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Links on one path, as many as the kernel itself follows (path_resolution(7)).
const LINKS_MAX: u32 = 40;
/// Longest target of a link (PATH_MAX).
const TARGET_BYTES_MAX: usize = 4096;
/// Rights of a new file, less the umask.
const NEW_FILE: RawMode = 0o644;
/// The members of a file's group may write it.
const GROUP_WRITES: RawMode = 0o020;
/// Every user may write a file.
const OTHERS_WRITE: RawMode = 0o002;
/// Major and minor number of /dev/null, which never makes anybody wait (null(4)).
const NULL: (u32, u32) = (1, 3);
/// Those of /dev/full, which never makes anybody wait either (full(4)).
const FULL: (u32, u32) = (1, 7);

/// Opens the file at `path` to append to it and to read it; makes it, not its folder, when it is missing.
///
/// A link is followed only where it is this user's or root's, in a folder that nobody else may write. A file with
/// several names (link(2)) is taken only in such a folder. At the end there may be a regular file, /dev/null,
/// /dev/full, or what this process has open (/dev/stdout, /dev/stderr). Writing to the latter may fail with
/// `WouldBlock`.
///
/// # Errors
/// The path leads to something else, or the kernel refuses it.
pub fn append(path: &Path) -> io::Result<File> {
    walk(path, OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)
}

/// Opens the regular file at `path`, or /dev/null, to read it. Follows links, as reading through one changes nothing.
///
/// # Errors
/// The path leads to something else, or the kernel refuses it.
pub fn read(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    permit(fstat(&file)?, false)?;
    Ok(file)
}

/// Opens the regular file at `path` to read it and to append to it, a new one if `create` says so. Follows no link at
/// its end.
///
/// # Errors
/// The path leads to something else, or the kernel refuses it.
pub fn append_no_link(path: &Path, create: bool) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(create).custom_flags(flags);
    let file = options.open(path).map_err(|error| explained(CWD, path, error))?;
    permit(fstat(&file)?, false)?;
    Ok(file)
}

/// Judges whether the file at the end of `path` is one to replace by another: missing, or a regular file, once links
/// that may be followed are followed. Returns the path with those links resolved, or `None` for /dev/null, which keeps
/// nothing.
///
/// # Errors
/// Something else stands there, or the kernel refuses to look.
pub fn replaceable(path: &Path) -> io::Result<Option<PathBuf>> {
    replaceable_behind(path, 0)
}

/// The same for a path to which `links` links have led.
fn replaceable_behind(path: &Path, links: u32) -> io::Result<Option<PathBuf>> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(path.to_owned())),
        found => found?,
    };
    if !found.is_symlink() {
        let facts = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
        permit(facts, false)?;
        return Ok((file_type(&facts) == FileType::RegularFile).then(|| path.to_owned()));
    }
    let folder = openat(CWD, folder_of(path), FOLDER, Mode::empty())?;
    let link = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    if judge_link(folder.as_fd(), &link, path.as_os_str()).is_err() {
        // It is replaced itself, and what it points to stays as it is.
        return Ok(Some(path.to_owned()));
    }
    let target = folder_of(path).join(std::fs::read_link(path)?);
    // A link to a link is judged as the first one.
    match links {
        LINKS_MAX => Err(Errno::LOOP.into()),
        links => replaceable_behind(&target, links + 1),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Sets the permissions of the file at `path` to `mode` if it is still the one with this device and inode, whatever
/// somebody puts there meanwhile; for files that cannot be opened, such as sockets.
///
/// # Errors
/// It is another file, or the kernel refuses it.
pub fn chmod_same(path: &Path, identity: (u64, u64), mode: u32) -> io::Result<()> {
    let file = openat(
        CWD,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let facts = fstat(&file)?;
    if (facts.st_dev, facts.st_ino) != identity {
        return Err(io::ErrorKind::NotFound.into());
    }
    // fchmod(2) takes no such descriptor; its entry here leads to the very same file (open(2), O_PATH).
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    match chmodat(CWD, same, Mode::from_raw_mode(mode), AtFlags::empty()) {
        // Without /proc there is only the path.
        Err(Errno::NOENT) => Ok(chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?),
        changed => Ok(changed?),
    }
}

/// What every file is opened with: it neither waits, nor becomes our terminal, nor is a child's.
const ALWAYS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// What a folder on the way is opened with: to look up names in it, never to read it.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Goes along `path`, and judges each link that is on it.
fn walk(path: &Path, flags: OFlags) -> io::Result<File> {
    let mut links = 0;
    let mut left: VecDeque<OsString> = parts(path);
    let mut folder = start(path)?;
    while let Some(part) = left.pop_front() {
        let link = if left.is_empty() {
            match end(folder.as_fd(), &part, flags)? {
                End::Opened(file) => return Ok(file),
                End::Link(link) => link,
            }
        } else {
            let next = openat(
                &folder,
                &part,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let facts = fstat(&next)?;
            if file_type(&facts) != FileType::Symlink {
                // Where it is no folder, the next step says so.
                folder = next;
                continue;
            }
            facts
        };
        links += 1;
        if links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&folder, &part, Vec::with_capacity(TARGET_BYTES_MAX))?;
        let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
        if let Some(own) = OWN_OUTPUT
            .iter()
            .find(|own| left.is_empty() && target == Path::new(own.0))
        {
            // Its maker does not matter, because nobody's file is written.
            return own_descriptor(CWD, OsStr::new(own.1), flags);
        }
        judge_link(folder.as_fd(), &link, &part)?;
        if target.is_absolute() {
            folder = start(&target)?;
        }
        for part in parts(&target).into_iter().rev() {
            left.push_front(part);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))
}

fn start(path: &Path) -> io::Result<OwnedFd> {
    let start = if path.is_absolute() { "/" } else { "." };
    Ok(openat(CWD, start, FOLDER, Mode::empty())?)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

/// What is at the last part of a path.
enum End {
    Opened(File),
    Link(Stat),
}

fn end(folder: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<End> {
    let mode = Mode::from_raw_mode(NEW_FILE);
    match openat(folder, name, flags | OFlags::NOFOLLOW | ALWAYS, mode) {
        Ok(file) => {
            let facts = fstat(&file)?;
            permit(facts, false)?;
            // Looked at by its name and behind the opening, so that nobody can take a name away in between.
            let named = || statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let is_one = || named().is_ok_and(|named| (named.st_ino, named.st_nlink) == (facts.st_ino, 1));
            if file_type(&facts) == FileType::RegularFile && !is_ours_alone(folder)? && !is_one() {
                return Err(refused(format!(
                    "{} is another name of a file (a hard link), in a folder that other users may write, so one of them may \
                     have made it; remove it, or take the folder's write permission from them",
                    Path::new(name).display()
                )));
            }
            Ok(End::Opened(File::from(file)))
        }
        Err(Errno::LOOP) if is_own_descriptors(folder)? => own_descriptor(folder, name, flags).map(End::Opened),
        Err(Errno::LOOP) => Ok(End::Link(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?)),
        Err(error) => Err(explained(folder, Path::new(name), error.into())),
    }
}

/// What a link to the process's own output says, and where that is. Container images link their logs there.
const OWN_OUTPUT: [(&str, &str); 4] = [
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/proc/self/fd/1", "/proc/self/fd/1"),
    ("/proc/self/fd/2", "/proc/self/fd/2"),
];

/// Opens anew what this process has open already; a socket cannot be.
fn own_descriptor(folder: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<File> {
    match openat(folder, name, flags | ALWAYS, Mode::from_raw_mode(NEW_FILE)) {
        Ok(file) => {
            permit(fstat(&file)?, true)?;
            Ok(File::from(file))
        }
        Err(Errno::NXIO) => Err(refused("it is a socket, which cannot be opened as a file".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether this folder is /proc/self/fd, whose links lead to what this process has open already.
fn is_own_descriptors(folder: BorrowedFd<'_>) -> io::Result<bool> {
    if fstatfs(folder)?.f_type != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    let (here, own) = (fstat(folder)?, statat(CWD, "/proc/self/fd", AtFlags::empty())?);
    Ok((here.st_dev, here.st_ino) == (own.st_dev, own.st_ino))
}

/// statfs(2).
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// Says what stands there, where the error number does not: a FIFO without a reader and a socket are ENXIO (open(2)).
fn explained(folder: BorrowedFd<'_>, name: &Path, error: io::Error) -> io::Error {
    let facts = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    match (facts.map(|facts| permit(facts, false)), error.raw_os_error()) {
        (Ok(Err(why)), Some(libc::ENXIO | libc::EAGAIN)) => why,
        (Ok(_), Some(libc::ELOOP)) => refused("it is a link, which is not followed here".to_owned()),
        _ => error,
    }
}

/// Judges what was opened: what may keep a reader or writer waiting is refused.
fn permit(facts: Stat, is_own_descriptor: bool) -> io::Result<()> {
    let device = (rustix::fs::major(facts.st_rdev), rustix::fs::minor(facts.st_rdev));
    let what = match file_type(&facts) {
        FileType::RegularFile => return Ok(()),
        FileType::CharacterDevice if device == NULL || device == FULL => return Ok(()),
        FileType::Directory => return Err(Errno::ISDIR.into()),
        _ if is_own_descriptor => return Ok(()),
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a link",
        FileType::Unknown => "no regular file",
    };
    Err(refused(format!(
        "it is {what}, which may never answer; a regular file or /dev/null is needed"
    )))
}

/// A link counts if nobody else can have made it, or moved it to this name.
fn judge_link(folder: BorrowedFd<'_>, link: &Stat, name: &OsStr) -> io::Result<()> {
    let name = Path::new(name).display();
    if !is_trusted(link.st_uid) {
        return Err(refused(format!(
            "{name} is a link that user {} has made, which is not followed; remove it, or have it made by this user or by root",
            link.st_uid
        )));
    }
    if !is_ours_alone(folder)? {
        return Err(refused(format!(
            "{name} is a link in a folder that other users may write, so one of them may have put it there; it is not \
             followed until the folder belongs to this user or root and nobody else may write it (chmod go-w)"
        )));
    }
    Ok(())
}

/// Returns whether only this user and root may write this folder.
fn is_ours_alone(folder: BorrowedFd<'_>) -> io::Result<bool> {
    let facts = fstat(folder)?;
    let is_own_group = || facts.st_gid == getegid().as_raw() && is_private(facts.st_gid, geteuid().as_raw());
    let may_group = facts.st_mode & GROUP_WRITES != 0 && (has_acl(folder) || !is_own_group());
    Ok(is_trusted(facts.st_uid) && facts.st_mode & OTHERS_WRITE == 0 && !may_group)
}

/// Returns whether the folder has an access control list (acl(5)): its group's permissions are then those of others
/// too.
fn has_acl(folder: BorrowedFd<'_>) -> bool {
    // A folder that was opened only to be passed through gives no attributes (open(2), O_PATH).
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let mut value = [0; 1];
    match getxattr(path, "system.posix_acl_access", &mut value) {
        Ok(_) | Err(Errno::RANGE) => true,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
        // Nobody knows.
        Err(_) => true,
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

fn file_type(facts: &Stat) -> FileType {
    FileType::from_raw_mode(facts.st_mode)
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Refused(text))
}

/// Why this program, and not the kernel, does not open a file.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Returns whether this error says that a file is of a kind that is never opened, or a link that is not followed.
pub fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|why| why.is::<Refused>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder_of_mode(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[track_caller]
    fn refuses(path: &Path, why: &str) {
        let error = append(path).unwrap_err();
        assert!(is_refusal(&error) && error.to_string().contains(why), "{error}");
    }

    #[test]
    fn a_path_leads_where_the_kernel_would_lead_it() {
        let folder = folder_of_mode(0o755);
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        symlink("a/b", folder.path().join("short")).unwrap();
        symlink("../../log", inner.join("log")).unwrap();
        // Through a link to a folder, one to a file, and back up.
        let path = folder.path().join("short/../b/./log");
        append(&path).unwrap().write_all(b"one\n").unwrap();
        append(&folder.path().join("log")).unwrap().write_all(b"two\n").unwrap();
        let mut text = String::new();
        read(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
        assert_eq!(fs::metadata(folder.path().join("log")).unwrap().len(), 8);

        symlink("loop", folder.path().join("loop")).unwrap();
        assert_eq!(
            append(&folder.path().join("loop")).unwrap_err().raw_os_error(),
            Some(libc::ELOOP)
        );
        assert_eq!(
            append(&folder.path().join("none/log")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(
            append(&folder.path().join("log/x")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        assert_eq!(append(folder.path()).unwrap_err().raw_os_error(), Some(libc::EISDIR));
        assert_eq!(append(Path::new("/")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn links_count_only_where_nobody_else_writes() {
        let own_group = is_private(rustix::process::getegid().as_raw(), geteuid().as_raw());
        for (mode, counts) in [
            (0o755, true),
            (0o700, true),
            (0o775, own_group),
            (0o777, false),
            (0o1777, false),
        ] {
            let folder = folder_of_mode(mode);
            let (target, link, second) = ("target", folder.path().join("log"), folder.path().join("second"));
            fs::write(folder.path().join(target), "").unwrap();
            symlink(target, &link).unwrap();
            fs::hard_link(folder.path().join(target), &second).unwrap();
            if counts {
                append(&link).unwrap();
                append(&second).unwrap();
            } else {
                refuses(&link, "is a link in a folder that other users may write");
                refuses(&second, "is another name of a file (a hard link)");
            }
            // What is replaced and not written to needs no such care: the link itself goes.
            let expected = if counts {
                folder.path().join(target)
            } else {
                link.clone()
            };
            let got = replaceable(&link).unwrap().unwrap();
            assert_eq!(
                fs::canonicalize(got.parent().unwrap())
                    .unwrap()
                    .join(got.file_name().unwrap()),
                expected
            );
        }
    }

    #[test]
    fn only_what_answers_is_opened() {
        let folder = folder_of_mode(0o755);
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let socket = folder.path().join("socket");
        let _bound = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
        refuses(&fifo, "it is a FIFO");
        refuses(&socket, "it is a socket");
        for path in [&fifo, &socket] {
            assert!(is_refusal(&append_no_link(path, true).unwrap_err()));
            assert!(is_refusal(&replaceable(path).unwrap_err()));
        }
        assert!(is_refusal(&read(&fifo).unwrap_err()));
        refuses(Path::new("/dev/zero"), "it is a device");
        append(Path::new("/dev/null")).unwrap();
        assert_eq!(replaceable(Path::new("/dev/null")).unwrap(), None);
        // What this process has open already, whatever it is.
        append(Path::new("/dev/stderr")).unwrap();
        symlink(folder.path().join("new"), folder.path().join("link")).unwrap();
        assert!(is_refusal(
            &append_no_link(&folder.path().join("link"), true).unwrap_err()
        ));
        assert!(!folder.path().join("new").exists());
    }

    /// What `setfacl -m u:65534:rwx` writes (linux/posix_acl_xattr.h): version 2, then tag, permissions and id of each
    /// entry.
    const ACL_OF_NOBODY: [u8; 44] = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 254, 255, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0,
        7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255,
    ];

    #[test]
    fn a_folder_that_an_access_list_opens_is_not_ours_alone() {
        let folder = folder_of_mode(0o775);
        let link = folder.path().join("log");
        symlink("target", &link).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(folder.path(), "system.posix_acl_access", &ACL_OF_NOBODY, flags).is_err() {
            #[expect(clippy::print_stderr, reason = "so a test says that it did not run")]
            {
                eprintln!("SKIPPED: an access list, which this file system does not have");
            }
            return;
        }
        refuses(&link, "is a link in a folder that other users may write");
    }

    #[test]
    fn a_link_to_ones_own_output_counts_wherever_it_is() {
        let folder = folder_of_mode(0o777);
        let log = folder.path().join("log");
        symlink("/dev/stderr", &log).unwrap();
        append(&log).unwrap();
        fs::remove_file(&log).unwrap();
        symlink("/dev/null", &log).unwrap();
        refuses(&log, "is a link in a folder that other users may write");
    }

    #[test]
    fn every_link_of_a_chain_is_judged() {
        let (open, closed) = (folder_of_mode(0o777), folder_of_mode(0o755));
        fs::write(closed.path().join("precious"), "").unwrap();
        let planted = open.path().join("planted");
        symlink(closed.path().join("precious"), &planted).unwrap();
        symlink(&planted, closed.path().join("state")).unwrap();
        // The one that somebody can have planted is replaced, and not what it leads to.
        assert_eq!(replaceable(&closed.path().join("state")).unwrap(), Some(planted));
        refuses(
            &closed.path().join("state"),
            "is a link in a folder that other users may write",
        );
        symlink("round", closed.path().join("round")).unwrap();
        replaceable(&closed.path().join("round")).unwrap_err();
    }

    #[test]
    fn permissions_go_to_the_file_that_was_meant() {
        let folder = folder_of_mode(0o755);
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&path, "").unwrap();
        fs::write(&other, "").unwrap();
        let facts = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let identity = (facts.st_dev, facts.st_ino);
        chmod_same(&path, identity, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        let before = fs::metadata(&other).unwrap().permissions();
        chmod_same(&path, identity, 0o777).unwrap_err();
        assert_eq!(fs::metadata(&other).unwrap().permissions(), before);
    }
}
