//! Signals that ask to end: [`StopSignals`] for the server, where a second one ends the process at once, and
//! [`EndSignals`] for the short commands. A process uses one of them.

use crate::process::clock::timespec;
use crate::process::exit::ExitStatus;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Waits for the signals that end the server. One per process.
#[derive(Debug)]
pub struct StopSignals {
    wake: UnixStream,
    last: Arc<AtomicUsize>,
}

impl StopSignals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// From here on the first of them is reported by [`StopSignals::wait`]; any further one ends the process on the
    /// spot with status 1, even if every thread is stuck, because the handler itself does it (signal-safety(7)).
    ///
    /// # Errors
    /// Out of descriptors, or the kernel refuses the handler.
    pub fn install() -> io::Result<StopSignals> {
        let (wake, sender) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        let seen = Arc::new(AtomicBool::new(false));
        let last = Arc::new(AtomicUsize::new(0));
        for signal in [SIGTERM, SIGINT] {
            // The order of registration is the order of running: on the first signal the flag is still false here.
            let status = ExitStatus::Failed as i32;
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&seen))?;
            signal_hook::flag::register(signal, Arc::clone(&seen))?;
            signal_hook::flag::register_usize(signal, Arc::clone(&last), signal as usize)?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(StopSignals { wake, last })
    }

    /// Blocks until a signal has come, at most `bound`. Gives its name.
    pub fn wait(&self, bound: Duration) -> Option<&'static str> {
        let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        // An interrupted poll is as good as one that timed out: the flag decides.
        let _ = poll(&mut fds, Some(&timespec(bound)));
        match self.last.load(Ordering::Acquire) as i32 {
            0 => None,
            SIGINT => Some("SIGINT"),
            _ => Some("SIGTERM"),
        }
    }
}

/// What asks a command to end.
const ASKING_TO_END: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Ctrl-C (SIGINT), SIGTERM and SIGHUP as a wish to end, for a command that stays for a while but is no server. One per
/// process.
#[derive(Debug)]
pub struct EndSignals {
    wake: UnixStream,
    requested: Arc<AtomicBool>,
}

impl EndSignals {
    /// Takes over those of the three signals that the process was not started to ignore.
    ///
    /// A shell starts `command &` in a script with SIGINT ignored, and nohup(1) starts its command with SIGHUP ignored;
    /// this wish of whoever started us stays in force.
    ///
    /// # Errors
    /// Out of descriptors, or the kernel refuses a handler.
    pub fn install() -> io::Result<EndSignals> {
        let (wake, sender) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        let requested = Arc::new(AtomicBool::new(false));
        let ignored = ignored_signals();
        let is_heeded = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
        if ASKING_TO_END.iter().all(is_heeded) {
            let flag = Arc::clone(&requested);
            let heard = move || {
                flag.store(true, Ordering::Release);
                // A full pipe means that whoever waits is woken already.
                let _ = (&sender).write(&[0]);
            };
            ctrlc::try_set_handler(heard).map_err(|error| io::Error::other(error.to_string()))?;
            return Ok(EndSignals { wake, requested });
        }
        // ctrlc takes all of them or none.
        for signal in ASKING_TO_END.into_iter().filter(is_heeded) {
            signal_hook::flag::register(signal, Arc::clone(&requested))?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(EndSignals { wake, requested })
    }

    /// Whether one of them has come; from then on always.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Blocks until one of them has come, at most `bound`. Whether one has.
    pub fn wait(&self, bound: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        // What is there to read stays, so everybody who waits is woken. An interrupted poll costs nothing.
        let _ = poll(&mut fds, Some(&timespec(bound)));
        self.requested()
    }
}

/// The signals that this process ignores, one bit each, the lowest for signal 1 (proc_pid_status(5)); none where /proc
/// cannot be read.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::consts::SIGPIPE;

    #[test]
    fn ignored_signals_are_known() {
        // The standard library ignores SIGPIPE before `main`; nobody ignores SIGSEGV.
        assert_ne!(ignored_signals() & (1 << (SIGPIPE - 1)), 0);
        assert_eq!(ignored_signals() & (1 << (libc::SIGSEGV - 1)), 0);
    }
}
