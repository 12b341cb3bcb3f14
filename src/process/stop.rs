//! Asks one thread to end, whatever it waits for: a flag to look at and a descriptor to poll.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to end that any number of threads share.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requested: AtomicBool,
    wake: OwnedFd,
}

impl Stop {
    /// Makes a request that nobody has made yet.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub fn new() -> io::Result<Stop> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop(Arc::new(Inner {
            requested: AtomicBool::new(false),
            wake,
        })))
    }

    /// Makes the request; may be called any number of times, from any thread, and never blocks.
    pub fn request(&self) {
        // Release: whoever sees the flag also sees what was written before the request.
        self.0.requested.store(true, Ordering::Release);
        // Cannot fail in a way that matters: the counter of an eventfd is full only after 2^64 - 1 requests,
        // and a poller that misses the wake still looks at the flag within its own bound.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    /// Whether the request was made.
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
