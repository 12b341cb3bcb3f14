//! Names a process so that nobody takes another one for it that has got the same number: by id and start time.
//!
//! The start time counts in clock ticks of 10 ms. For a mistake the kernel would have to give all other numbers away
//! within one tick.

use crate::supervise::stat;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// One process of this boot and this process namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks between the host's boot and its start (proc_pid_stat(5)).
    pub start: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

impl Identity {
    /// Identifies the process that has this number now; `None` when there is none, or when it is hidden from us.
    pub fn of(pid: i32) -> Option<Identity> {
        let start = stat::of(pid)?.start;
        Some(Identity { pid, start })
    }

    /// Opens a descriptor of exactly this process (pidfd_open(2)). It stays the same process's, also after its end.
    ///
    /// # Errors
    /// SRCH: the process is gone, and its number may be another's. Else no descriptor is free, or the kernel is older
    /// than Linux 5.3.
    pub fn open(self) -> Result<OwnedFd, Errno> {
        let pid = Pid::from_raw(self.pid).ok_or(Errno::SRCH)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // The process had the number when it was seen. If it has it still, it had it in between too.
        match stat::read_of(self.pid)? {
            Some(now) if now.start == self.start => Ok(pidfd),
            _ => Err(Errno::SRCH),
        }
    }

    /// Returns how long the process has been there, to a clock tick; `None` when the kernel does not tell.
    pub fn age(self) -> Option<Duration> {
        let ticks = rustix::param::clock_ticks_per_second();
        let start = Duration::from_secs_f64(self.start as f64 / ticks as f64);
        // Both clocks count from the host's boot, and while it is suspended (proc_pid_stat(5)).
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?).checked_sub(start)
    }

    /// Sends `signal` to exactly this process.
    ///
    /// # Errors
    /// SRCH: the process is gone. PERM: it belongs to another user. Else as [`Identity::open`].
    pub fn signal(self, signal: Signal) -> Result<(), Errno> {
        pidfd_send_signal(self.open()?, signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn another_process_with_the_same_number_is_not_the_same() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let real = Identity::of(child.id() as i32).unwrap();
        let earlier = Identity {
            start: real.start - 1,
            ..real
        };
        assert_eq!(earlier.signal(Signal::KILL), Err(Errno::SRCH));
        assert!(child.try_wait().unwrap().is_none(), "a stranger was signaled");
        real.signal(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(real.signal(Signal::KILL), Err(Errno::SRCH));
        assert_eq!(Identity { pid: 0, start: 0 }.signal(Signal::KILL), Err(Errno::SRCH));
    }
}
