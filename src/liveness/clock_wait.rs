//! The wait of a thread that works by the clock.

use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::clock::timespec;
use crate::process::stop::Stop;
use crate::process::waits::Wait;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Longest single wait for the clock.
const TURN: Duration = Duration::from_millis(250);

/// Blocks until `due`, at most, and shows on `beat` that the thread lives; a request to end comes through at once. A
/// drill lengthens it. Faults of the kernel count as those of `wait`.
pub fn wait_until(due: Instant, beat: &'static Beat, stop: &Stop, wait: &'static Wait) {
    loop {
        drill::obey(beat);
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.requested() {
            return;
        }
        let _doing = beat.begin(Operation::Waiting);
        let mut fds = [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        // Interrupted or not, the clock tells.
        let _ = wait.judge(poll(&mut fds, Some(&timespec(left.min(TURN)))));
    }
}
