//! Makes a thread stand still for a while, so that people and tests can see what the others do then.
//!
//! Asked for by `threadcast drill` when the server was started with `--allow-drill`; each thread obeys at the top of
//! its turn, where it holds no lock and is in the middle of nothing, unless the kind says otherwise.

use crate::liveness::beat::Beat;
use crate::liveness::beats::Beats;
use crate::liveness::operation::Operation;
#[cfg(debug_assertions)]
use crate::liveness::stacks::arena;
use crate::process::clock::{monotonic_ms, pause};
use crate::process::logging;
use std::time::Duration;

/// A drill ends by itself after at most this long.
pub const DRILL_MAX: Duration = Duration::from_secs(120);
/// How finely a held thread looks whether its time is over.
const LOOK: Duration = Duration::from_millis(5);

/// How a thread stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It sleeps, as one that waits for a lock or a disk does.
    Sleep = 0,
    /// It computes without an end.
    Spin,
    /// It sleeps with the log's lock in its hand.
    Log,
    /// It sleeps while no thread of the process gets memory.
    #[cfg(debug_assertions)]
    Malloc,
}

impl Kind {
    const TABLE: &[(Kind, &str)] = &[
        (Kind::Sleep, "sleep"),
        (Kind::Spin, "spin"),
        (Kind::Log, "log"),
        #[cfg(debug_assertions)]
        (Kind::Malloc, "malloc"),
    ];

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Kind::TABLE[self as usize].1
    }

    /// The names of all kinds of this build.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Kind::TABLE.iter().map(|row| row.1)
    }

    fn from_number(number: u8) -> Kind {
        Kind::TABLE.get(usize::from(number)).map_or(Kind::Sleep, |row| row.0)
    }
}

/// Asks the thread called `component` to stand still for `duration`; whether there is one of that name.
pub fn order(beats: &'static Beats, component: &str, duration: Duration, kind: Kind) -> bool {
    let Some(beat) = beats.find(component) else {
        return false;
    };
    let millis = duration.min(DRILL_MAX).as_millis() as u64;
    beat.hold_until(monotonic_ms() + millis, kind as u8);
    true
}

/// Stands still if that was asked of this thread; one load when it was not.
pub fn obey(beat: &'static Beat) {
    if !beat.is_held() {
        return;
    }
    let _doing = beat.begin(Operation::Drill);
    match Kind::from_number(beat.held().1) {
        Kind::Sleep => stand_asleep(beat),
        Kind::Spin => stand_spinning(beat),
        Kind::Log => logging::with_lock_held(|| stand_asleep(beat)),
        #[cfg(debug_assertions)]
        Kind::Malloc => stand_without_memory(beat),
    }
    beat.hold_until(0, 0);
}

// Never inlined: a report must name them.

#[inline(never)]
fn stand_asleep(beat: &Beat) {
    // The order may be shortened or renewed meanwhile, so it is read anew each time.
    while monotonic_ms() < beat.held().0 {
        pause(LOOK);
    }
}

#[inline(never)]
fn stand_spinning(beat: &Beat) {
    while monotonic_ms() < beat.held().0 {
        std::hint::spin_loop();
    }
}

#[cfg(debug_assertions)]
#[inline(never)]
fn stand_without_memory(beat: &Beat) {
    arena::hold_malloc_until(beat.held().0);
    stand_asleep(beat);
    arena::hold_malloc_until(0);
}
