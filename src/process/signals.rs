//! SIGTERM and SIGINT: the first asks for an ordered stop, the second ends the process at once.

use crate::process::clock::timespec;
use crate::process::exit::ExitStatus;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
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
