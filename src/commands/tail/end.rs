//! When `tail` ends, and why.

use crate::process::clock::{pause, timespec};
use crate::process::signals::EndSignals;
use rustix::event::{PollFd, PollFlags, poll};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon `tail` notices a signal, the end of `--duration`, and the end of its reader.
pub const LOOK: Duration = Duration::from_millis(250);

/// Why the showing of events came to an end.
#[derive(Debug)]
pub enum Halt {
    /// Asked to: a signal, `--count`, `--duration`, or the reader of our output is gone.
    Done,
    /// It makes no sense to try again.
    Hopeless(String),
    /// The connection is lost or could not be had.
    Lost(String),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::Done => f.write_str("done"),
            Halt::Hopeless(why) | Halt::Lost(why) => f.write_str(why),
        }
    }
}

/// When it is time to end.
#[derive(Debug)]
pub struct End {
    pub at: Option<Instant>,
    pub signals: Option<Arc<EndSignals>>,
}

impl End {
    /// At the latest then, if there is such a moment.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Returns whether the time is over. Never blocks.
    pub fn is_over(&self) -> bool {
        self.at.is_some_and(|end| Instant::now() >= end)
    }

    /// Returns whether it is time to end. Never blocks.
    pub fn is_here(&self) -> bool {
        self.signals.as_ref().is_some_and(|signals| signals.requested()) || self.is_over() || reader_is_gone()
    }

    /// Waits for `duration`, or until it is time to end. Returns whether that is so.
    pub fn rest(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        while !self.is_here() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            pause(left.min(LOOK));
        }
        true
    }
}

/// Returns whether nobody can read our standard output any more. A write would tell too, but only with the next event.
pub fn reader_is_gone() -> bool {
    let out = io::stdout();
    let mut fds = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::empty())];
    let looked = poll(&mut fds, Some(&timespec(Duration::ZERO)));
    looked.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}
