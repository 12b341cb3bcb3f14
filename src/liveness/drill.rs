//! Makes a thread stand still for a while, so that people and tests can see what the others do then.
//!
//! Asked for by `POST /drill` when the server was started with `--allow-drill`; each thread obeys at the top of its
//! turn, where it holds no lock and is in the middle of nothing.

use crate::liveness::beat::{Beat, Beats, Operation};
use crate::process::clock::{monotonic_ms, pause};
use std::time::Duration;

/// A drill ends by itself after at most this long.
pub const DRILL_MAX: Duration = Duration::from_secs(120);
/// How finely a held thread looks whether its time is over.
const LOOK: Duration = Duration::from_millis(5);

/// Asks the thread called `component` to stand still for `duration`; whether there is one of that name.
pub fn order(beats: &Beats, component: &str, duration: Duration) -> bool {
    let Some(beat) = beats.all().into_iter().find(|beat| beat.name() == component) else {
        return false;
    };
    let millis = duration.min(DRILL_MAX).as_millis() as u64;
    beat.hold_until(monotonic_ms() + millis);
    true
}

/// Stands still if that was asked of this thread; one load when it was not.
pub fn obey(beat: &Beat) {
    if beat.held_until() == 0 {
        return;
    }
    beat.enter(Operation::Drill);
    // The order may be shortened or renewed meanwhile, so it is read anew each time.
    while monotonic_ms() < beat.held_until() {
        pause(LOOK);
    }
    beat.hold_until(0);
    beat.enter(Operation::Turning);
}
