//! Why the host refuses this process a thread, a descriptor or memory, and what a person can do about it.

use crate::process::limits;
use rustix::io::Errno;
use std::fmt;
use std::io;

/// What stands behind a refusal, by the number of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This process has as many descriptors as it may have.
    Descriptors,
    /// The whole host has.
    HostDescriptors,
    /// A limit of threads; or, as the C library reports it too, of the addresses for their stacks.
    Threads {
        /// This process has a limit of addresses (RLIMIT_AS).
        addresses: bool,
    },
    Memory,
    /// Not a limit: a filter of system calls, which containers and services have.
    Filter,
    Other,
}

impl Refusal {
    /// Judges an error of making a thread, a descriptor or a mapping.
    pub fn of(error: &io::Error) -> Refusal {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE) => Refusal::Descriptors,
            Some(Errno::NFILE) => Refusal::HostDescriptors,
            // pthread_create(3) has no other number for it, also where mmap(2) refuses the stack.
            Some(Errno::AGAIN) => Refusal::Threads {
                addresses: limits::address_space().is_some(),
            },
            Some(Errno::NOMEM) => Refusal::Memory,
            // None of the calls that make these needs a privilege.
            Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Refusal::Filter,
            _ => Refusal::Other,
        }
    }

    /// Returns whether fewer clients would help.
    pub fn is_limit(self) -> bool {
        !matches!(self, Refusal::Filter | Refusal::Other)
    }
}

/// What to do about it, from the verb on.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Descriptors => "raise the limit of descriptors (ulimit -n, LimitNOFILE=)",
            Refusal::HostDescriptors => {
                "look which process has so many descriptors open: the whole host is out of them (fs.file-max)"
            }
            Refusal::Threads { addresses: false } => {
                "raise the limit of threads of this user, service or container (ulimit -u, TasksMax=, pids.max)"
            }
            Refusal::Threads { addresses: true } => {
                "raise the limit of the address space (ulimit -v, LimitAS=), or that of threads (ulimit -u, TasksMax=, \
                 pids.max)"
            }
            Refusal::Memory => {
                "give this user, service or container more memory (ulimit -v, LimitAS=, MemoryMax=), or look what takes \
                 the host's"
            }
            Refusal::Filter => {
                "let the filter of system calls allow it (the seccomp profile of a container, SystemCallFilter= of a \
                 service): no limit does this. A thread needs clone and clone3"
            }
            Refusal::Other => "look at the host's memory, and at the limits of this user or service",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_told_from_a_limit() {
        let refusal = |errno: Errno| Refusal::of(&io::Error::from(errno));
        for (errno, part) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::AGAIN, "ulimit -u"),
            (Errno::NOMEM, "ulimit -v"),
        ] {
            let refusal = refusal(errno);
            assert!(
                refusal.is_limit() && refusal.to_string().contains(part),
                "{errno:?}: {refusal}"
            );
            assert!(!refusal.to_string().contains("seccomp"), "{errno:?}: {refusal}");
        }
        for errno in [Errno::PERM, Errno::NOSYS] {
            let refusal = refusal(errno);
            assert!(!refusal.is_limit(), "{errno:?}");
            let text = refusal.to_string();
            assert!(
                text.contains("seccomp") && text.contains("SystemCallFilter="),
                "{errno:?}: {text}"
            );
            assert!(!text.contains("ulimit"), "{errno:?}: {text}");
        }
        assert_eq!(Refusal::of(&io::Error::other("x")), Refusal::Other);
        assert!(
            Refusal::Threads { addresses: true }.to_string().contains("ulimit -v"),
            "it may be the stack that has no room"
        );
    }
}
