//! A descriptor by which any thread ends the wait of one that polls it.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One thread's wake-up (eventfd(2)): readable from a [`Wake::wake`] until it is made quiet.
#[derive(Debug)]
pub struct Wake(OwnedFd);

/// What [`Wake::quieten`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Some thread has called [`Wake::wake`] since the last time.
    Woken,
    /// No thread has, or its call is still on its way.
    Quiet,
}

impl Wake {
    /// Makes one that is quiet.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub fn new() -> io::Result<Wake> {
        Ok(Wake(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes the descriptor readable; called by any thread, any number of times. Never blocks.
    pub fn wake(&self) {
        // It cannot fail in a way that matters: the counter is full after 2^64 - 2 calls, and is readable then too.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor quiet; called by the thread that polls it. Never blocks.
    pub fn quieten(&self) -> Found {
        // One read takes all calls so far; it fails when there were none.
        match rustix::io::read(&self.0, &mut [0; 8]) {
            Ok(_) => Found::Woken,
            Err(_) => Found::Quiet,
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_calls_is_one_wake_up() {
        let wake = Wake::new().unwrap();
        assert_eq!(wake.quieten(), Found::Quiet);
        wake.wake();
        wake.wake();
        assert_eq!(wake.quieten(), Found::Woken);
        assert_eq!(wake.quieten(), Found::Quiet);
    }
}
