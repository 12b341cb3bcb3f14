//! Who may act: the server's own user, root, and the members of `--admin-group`.

use crate::process::peer::{self, Peer};
use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// The rule in force.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The user that the server runs as.
    pub own_uid: u32,
    /// Of `--admin-group`.
    pub group: Option<u32>,
}

/// As what a peer may act. Each has places of its own, so that none keeps another one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Root,
    /// The server's own user.
    Own,
    /// A member of `--admin-group`.
    Member,
}

impl Standing {
    /// Every one.
    pub const ALL: [Standing; 3] = [Standing::Root, Standing::Own, Standing::Member];
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Root => "root",
            Standing::Own => "the server's own user",
            Standing::Member => "members of --admin-group",
        })
    }
}

/// Why a user may not act, in words for that user.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    uid: u32,
    rule: Rule,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} may not act on this server: ", self.uid)?;
        match self.rule.own_uid {
            0 => f.write_str("root may")?,
            own => write!(f, "user {own} and root may")?,
        }
        match self.rule.group {
            Some(group) => write!(f, ", and members of group {group}"),
            None => f.write_str("; --admin-group allows a group"),
        }
    }
}

impl Rule {
    /// Judges a peer by what the kernel noted when it connected (SO_PEERCRED and SO_PEERGROUPS, unix(7)). Never blocks.
    ///
    /// # Errors
    /// The kernel does not tell the peer's groups, so it may not act.
    pub fn judge(&self, peer: Peer, socket: impl AsFd) -> io::Result<Result<Standing, Refused>> {
        if peer.uid == 0 {
            return Ok(Ok(Standing::Root));
        }
        if peer.uid == self.own_uid {
            return Ok(Ok(Standing::Own));
        }
        // The credentials name one group only; the kernel tells a process's others apart from them.
        let is_member = match self.group {
            None => false,
            Some(group) => peer.gid == group || peer::groups(&socket)?.contains(&group),
        };
        Ok(if is_member {
            Ok(Standing::Member)
        } else {
            Err(Refused {
                uid: peer.uid,
                rule: *self,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn each_user_has_one_standing() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let rule = Rule {
            own_uid: 1000,
            group: Some(7),
        };
        let judged = |uid, gid| rule.judge(Peer { pid: 1, uid, gid }, &socket).unwrap();
        assert_eq!(judged(0, 0).unwrap(), Standing::Root);
        assert_eq!(judged(1000, 7).unwrap(), Standing::Own);
        assert_eq!(judged(1001, 7).unwrap(), Standing::Member);
        let why = judged(1001, 4_000_000_000).unwrap_err().to_string();
        assert_eq!(
            why,
            "user 1001 may not act on this server: user 1000 and root may, and members of group 7"
        );
        let of_root = Rule {
            own_uid: 0,
            group: None,
        };
        let peer = Peer {
            pid: 1,
            uid: 1001,
            gid: 7,
        };
        let why = of_root.judge(peer, &socket).unwrap().unwrap_err().to_string();
        assert_eq!(
            why,
            "user 1001 may not act on this server: root may; --admin-group allows a group"
        );
    }
}
