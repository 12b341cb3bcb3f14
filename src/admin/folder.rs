//! Judges the folder of the admin socket: nobody but this user and root may put another file in the place of the
//! socket.
//!
//! OpenSSH judges the folders above a key file in the same way (`StrictModes`, sshd_config(5)).

use crate::process::groups;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Members of the folder's group may write it.
const GROUP_WRITES: u32 = 0o020;
/// Every user may write it.
const OTHERS_WRITE: u32 = 0o002;
/// Only its owner may rename or remove a file of such a folder (inode(7)); /tmp is one.
const STICKY: u32 = 0o1000;

/// What others could do in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It belongs to this user, neither ours nor root.
    Owner(u32),
    /// Members of this group may write it.
    Group(u32),
    Others,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Owner(uid) => write!(f, "user {uid} owns"),
            Fault::Group(gid) => write!(f, "members of group {gid} may write"),
            Fault::Others => f.write_str("every user may write"),
        }
    }
}

/// Judges `folder`, which must be absolute and lead through no symbolic link, and every folder above it. Blocks on
/// their file systems, and on /etc/passwd and /etc/group.
///
/// # Errors
/// PermissionDenied: somebody else could put another socket in the place of ours; the text says who, and what to do. Or
/// the system does not tell about one of the folders.
pub fn judge(folder: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    for (above, place) in folder.ancestors().enumerate() {
        let found = fs::metadata(place)?;
        let parts = (found.uid(), found.gid(), found.mode());
        if let Some(fault) = fault(parts, above > 0, own, |gid| groups::is_private(gid, own)) {
            let remedy = match fault {
                Fault::Owner(_) => "choose one that only this user and root may write".to_owned(),
                Fault::Group(_) => format!("take that right away (chmod g-w {}) or choose another", place.display()),
                Fault::Others => format!("take that right away (chmod o-w {}) or choose another", place.display()),
            };
            let text = format!(
                "{fault} folder {}, and so could put another socket in the place of this one; {remedy}",
                place.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(())
}

/// What is wrong with a folder of this owner, group and mode. In a sticky folder above the socket's own one nobody can
/// replace what belongs to us; but in the socket's own one anybody could take the name while our file is not there.
fn fault(
    (uid, gid, mode): (u32, u32, u32),
    is_above: bool,
    own: u32,
    is_private: impl Fn(u32) -> bool,
) -> Option<Fault> {
    if uid != own && uid != 0 {
        return Some(Fault::Owner(uid));
    }
    if is_above && mode & STICKY != 0 {
        return None;
    }
    if mode & OTHERS_WRITE != 0 {
        return Some(Fault::Others);
    }
    (mode & GROUP_WRITES != 0 && !is_private(gid)).then_some(Fault::Group(gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_this_user_and_root_may_replace_the_socket() {
        const OWN: u32 = 1000;
        const OTHER: u32 = 1001;
        const PRIVATE: u32 = 1000;
        for (uid, gid, mode, in_it, above_it) in [
            (OWN, 7, 0o700, None, None),
            (0, 7, 0o755, None, None),
            (OTHER, 7, 0o700, Some(Fault::Owner(OTHER)), Some(Fault::Owner(OTHER))),
            // A sticky folder of somebody else is theirs all the same.
            (OTHER, 7, 0o1777, Some(Fault::Owner(OTHER)), Some(Fault::Owner(OTHER))),
            (OWN, 7, 0o775, Some(Fault::Group(7)), Some(Fault::Group(7))),
            (0, 7, 0o775, Some(Fault::Group(7)), Some(Fault::Group(7))),
            (OWN, PRIVATE, 0o775, None, None),
            (OWN, PRIVATE, 0o777, Some(Fault::Others), Some(Fault::Others)),
            (0, 0, 0o1777, Some(Fault::Others), None),
            (0, 7, 0o1770, Some(Fault::Group(7)), None),
        ] {
            let judged = |is_above| fault((uid, gid, mode), is_above, OWN, |gid| gid == PRIVATE);
            assert_eq!(judged(false), in_it, "{uid} {gid} {mode:o}");
            assert_eq!(judged(true), above_it, "above: {uid} {gid} {mode:o}");
        }
    }

    #[test]
    fn a_private_folder_below_an_open_one_is_refused_but_below_tmp_it_is_not() {
        let base = tempfile::tempdir().unwrap();
        let open = base.path().canonicalize().unwrap().join("open");
        let private = open.join("private");
        fs::create_dir_all(&private).unwrap();
        let mode = |folder: &Path, mode| fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
        mode(&private, 0o700);
        for (above, part) in [
            (0o777, Some("every user may write folder")),
            (0o1777, None),
            (0o755, None),
        ] {
            mode(&open, above);
            let error = judge(&private).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), part.is_some(), "{above:o}: {error:?}");
            if let (Some(error), Some(part)) = (error, part) {
                let remedy = format!("chmod o-w {}", open.display());
                assert!(error.contains(part) && error.contains(&remedy), "{error}");
            }
        }
    }
}
