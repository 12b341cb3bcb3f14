//! Reaps orphans: processes that lost their parents and came to this one as their subreaper.

use crate::supervise::census::Census;
use crate::supervise::children::Children;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::AsFd;

/// Takes notice of the end of every orphan that the last look has found. Never blocks, and never takes the status of a
/// child that somebody here has started: the list `children` has those, and while one of them is being started,
/// nothing is reaped. Returns how many were reaped.
pub fn reap(census: &Census, children: &Children) -> usize {
    // Behind the look, so that each child of the look is in the list or is an orphan.
    let listed = children.listed();
    if !listed.is_complete {
        return 0;
    }
    let ended = census.ended_children().map(|process| process.identity());
    let orphans = ended.filter(|identity| !listed.list.contains_key(identity));
    let reaped = orphans.filter(|identity| {
        let Ok(pidfd) = identity.open() else { return false };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        loop {
            match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
                Err(Errno::INTR) => {}
                waited => return matches!(waited, Ok(Some(_))),
            }
        }
    });
    reaped.count()
}
