//! Who is at the other end of a Unix stream socket (unix(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A process as it was when it connected, or when it began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0 if it is in another PID namespace, such as a container's.
    pub pid: i32,
    pub uid: u32,
    /// Its first group; [`groups`] has the others.
    pub gid: u32,
}

/// Most groups that are asked for: NGROUPS_MAX of Linux.
const GROUPS_MAX: usize = 65_536;

/// Who has connected, or listens (SO_PEERCRED).
///
/// # Errors
/// The descriptor is no Unix stream socket, or it has no peer; the caller must not let such a peer act.
pub fn credentials(socket: impl AsFd) -> io::Result<Peer> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
    get_option(
        socket.as_fd().as_raw_fd(),
        libc::SO_PEERCRED,
        std::ptr::from_mut(&mut peer).cast(),
        &mut bytes,
    )?;
    Ok(Peer {
        pid: peer.pid,
        uid: peer.uid,
        gid: peer.gid,
    })
}

/// The supplementary groups of who has connected (SO_PEERGROUPS, Linux 4.13).
///
/// # Errors
/// As [`credentials`].
pub fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut room = 64;
    loop {
        let mut groups = vec![0u32; room];
        let mut bytes = (room * size_of::<u32>()) as libc::socklen_t;
        let given = get_option(
            socket.as_fd().as_raw_fd(),
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &mut bytes,
        );
        let count = bytes as usize / size_of::<u32>();
        match given {
            Ok(()) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // It has said how many there are.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && count > room && count <= GROUPS_MAX => {
                room = count
            }
            Err(error) => return Err(error),
        }
    }
}

/// getsockopt(2) of the level SOL_SOCKET into `bytes` bytes at `to`. Private, and both callers own that memory: `to` is
/// valid for `bytes` bytes of plain numbers.
#[expect(
    unsafe_code,
    reason = "rustix has no SO_PEERGROUPS, and its SO_PEERCRED cannot hold the pid 0"
)]
fn get_option(socket: i32, option: i32, to: *mut libc::c_void, bytes: &mut libc::socklen_t) -> io::Result<()> {
    // SAFETY: the kernel writes at most `bytes` bytes to `to`, which both callers have there, and then the length that
    // it has written or needs to `bytes`. Both outlive the call, and any bytes are valid values of u32 and of ucred's
    // numbers.
    let outcome = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, option, to, std::ptr::from_mut(bytes)) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn we_are_our_own_peer() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = credentials(&one).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let expected: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        assert_eq!(groups(&one).unwrap(), expected);
    }
}
