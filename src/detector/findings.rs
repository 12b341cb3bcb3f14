//! Which machines were found stuck or silent and still are, for pages and alerts.

use crate::process::locks::lock;
use crate::stream::machines::dwell::Verdict;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most findings in the list.
const SHOWN_MAX: usize = 100;

/// One finding: a machine, or several with one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub verdict: Verdict,
    /// The machine; of several, what they have in common.
    pub subject: String,
    /// What was found, for people.
    pub text: String,
}

/// What the detector shows. Read by any thread; nobody holds the lock for longer than a copy of the list.
#[derive(Debug, Default)]
pub struct Findings {
    shown: Mutex<Vec<Shown>>,
    stuck: AtomicUsize,
    silent: AtomicUsize,
    starved: AtomicBool,
}

impl Findings {
    /// What was found and is not over, at most 100 findings.
    pub fn shown(&self) -> Vec<Shown> {
        lock(&self.shown).clone()
    }

    /// Machines that are stuck, and those that are silent.
    pub fn counts(&self) -> (usize, usize) {
        (self.stuck.load(Ordering::Relaxed), self.silent.load(Ordering::Relaxed))
    }

    /// Returns whether nothing is judged, because the host is starved.
    pub fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// Shows these, and how many machines are stuck and silent.
    pub(super) fn show(&self, findings: impl Iterator<Item = Shown>, (stuck, silent): (usize, usize)) {
        let shown = findings.take(SHOWN_MAX).collect();
        *lock(&self.shown) = shown;
        self.stuck.store(stuck, Ordering::Relaxed);
        self.silent.store(silent, Ordering::Relaxed);
    }

    pub(super) fn show_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Relaxed);
    }
}
