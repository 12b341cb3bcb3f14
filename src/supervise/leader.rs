//! The first process of a service: its end, and who may take notice of it.
//!
//! A leader that has ended stays a zombie until it is reaped here. As long as it is one, the kernel gives its number to
//! nobody, neither as a process nor as a group.

use crate::supervise::children::Children;
use crate::supervise::identity::Identity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A leader, with a descriptor of its process.
#[derive(Debug)]
pub struct Leader {
    identity: Identity,
    /// Readable once the process has ended (pidfd_open(2)).
    pidfd: OwnedFd,
    /// `None`: another process has started it, so its status goes elsewhere.
    children: Option<Children>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Killed {
        signal: i32,
        /// The kernel wrote a core dump.
        dumped: bool,
    },
    /// It was not our child, or the kernel has let go of it.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(status) => write!(f, "exit status {status}"),
            Ending::Killed { signal, dumped } => {
                let dumped = if *dumped { ", core dumped" } else { "" };
                match signal_name(*signal) {
                    Some(name) => write!(f, "signal {signal} ({name}{dumped})"),
                    None => write!(f, "signal {signal}{dumped}"),
                }
            }
            Ending::Unknown => f.write_str("status unknown"),
        }
    }
}

/// Signals of signal(7) that end processes.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

impl Leader {
    /// Takes over a child that was just started and is in the list `children`.
    pub fn child(identity: Identity, pidfd: OwnedFd, children: Children) -> Leader {
        Leader {
            identity,
            pidfd,
            children: Some(children),
        }
    }

    /// Takes over a process that another supervisor has started. Its end will say [`Ending::Unknown`].
    ///
    /// # Errors
    /// SRCH: the process is gone. Else no descriptor is free.
    pub fn adopted(identity: Identity) -> Result<Leader, Errno> {
        Ok(Leader {
            identity,
            pidfd: identity.open()?,
            children: None,
        })
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns whether another supervisor has started it.
    pub fn is_adopted(&self) -> bool {
        self.children.is_none()
    }

    /// Returns how it has ended, or `None` while it lives. Never blocks, and leaves the zombie.
    pub fn ending(&self) -> Option<Ending> {
        match self.children {
            Some(_) => self.waited(WaitIdOptions::NOWAIT),
            None => self.is_readable().then_some(Ending::Unknown),
        }
    }

    /// Takes notice of its end, after which its number may be another's. To be called once all other processes of the
    /// service are gone. Never blocks.
    ///
    /// # Errors
    /// It has not ended; the leader is returned as it was.
    pub fn reap(self) -> Result<Ending, Leader> {
        let ending = match &self.children {
            Some(children) => {
                let ending = self.waited(WaitIdOptions::empty());
                if ending.is_some() {
                    children.forget(self.identity);
                }
                ending
            }
            None => self.ending(),
        };
        ending.ok_or(self)
    }

    fn waited(&self, how: WaitIdOptions) -> Option<Ending> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | how;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(status) => status.as_ref().map(ending_of),
            Err(Errno::INTR) => None,
            // Somebody has reaped it.
            Err(_) => Some(Ending::Unknown),
        }
    }

    fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = crate::process::clock::timespec(std::time::Duration::ZERO);
        matches!(poll(&mut fds, Some(&at_once)), Ok(ready) if ready > 0)
    }
}

/// To wait for its end by poll(2).
impl AsFd for Leader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn ending_of(status: &WaitIdStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, Some(signal)) => Ending::Killed {
            signal,
            dumped: status.dumped(),
        },
        (None, None) => Ending::Unknown,
    }
}
