//! Asks one thread to end, whatever it waits for: a flag to look at and a descriptor to poll.

use crate::process::wake::Wake;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to end that any number of threads share.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requested: AtomicBool,
    wake: Wake,
}

impl Stop {
    /// Makes a request that nobody has made yet.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub fn new() -> io::Result<Stop> {
        let wake = Wake::new()?;
        Ok(Stop(Arc::new(Inner {
            requested: AtomicBool::new(false),
            wake,
        })))
    }

    /// Makes the request; may be called any number of times, from any thread, and never blocks.
    pub fn request(&self) {
        // Release: a thread that sees the flag also sees what was written before the request.
        self.0.requested.store(true, Ordering::Release);
        self.0.wake.wake();
    }

    /// Returns whether the request was made.
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }
}

impl AsFd for Stop {
    /// Becomes readable with the request, and stays so.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}
