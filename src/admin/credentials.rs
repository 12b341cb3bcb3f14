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

/// A peer that may not act.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    pub peer: Peer,
    rule: Rule,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peer { pid, uid, .. } = self.peer;
        write!(
            f,
            "user {uid} (process {pid}) may not act on this server: user {} and root may",
            self.rule.own_uid
        )?;
        match self.rule.group {
            Some(group) => write!(f, ", and members of group {group}"),
            None => f.write_str("; --admin-group allows a group"),
        }
    }
}

impl Rule {
    /// Judges who has connected, by what the kernel noted then (SO_PEERCRED and SO_PEERGROUPS, unix(7)). Never blocks.
    ///
    /// # Errors
    /// The kernel does not tell, so the peer may not; or the rule says that it may not.
    pub fn judge(&self, socket: impl AsFd) -> io::Result<Result<Peer, Refused>> {
        let peer = peer::credentials(&socket)?;
        let by_user = peer.uid == 0 || peer.uid == self.own_uid;
        let allowed = by_user
            || match self.group {
                None => false,
                // The credentials name one group only; a person's others are asked for apart.
                Some(group) => peer.gid == group || peer::groups(&socket)?.contains(&group),
            };
        Ok(if allowed {
            Ok(peer)
        } else {
            Err(Refused { peer, rule: *self })
        })
    }
}
