//! The children that this process has started itself, so that nobody else's end is taken for theirs.
//!
//! As a subreaper this process becomes the parent of orphans too (PR_SET_CHILD_SUBREAPER(2const)). Who reaps those must
//! leave alone what somebody here waits for, so everything that starts a process does it through [`Children::start`].

use crate::process::locks::lock;
use crate::supervise::identity::Identity;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Which start of which service a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub service: Arc<str>,
    /// Number of the start, as the mark has it.
    pub n: u64,
}

/// What a child was started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is the first process of a service.
    Service(Member),
    /// It does something for us, a check for example; the thread that started it waits for it.
    Errand,
}

/// All children that were started and not forgotten yet. Copies share one list.
#[derive(Clone, Debug, Default)]
pub struct Children {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Starts that have begun and are not in the list yet.
    starting: AtomicU32,
    /// Held for moments, never while a process starts.
    list: Mutex<BTreeMap<Identity, Purpose>>,
}

/// The children at one moment.
#[derive(Clone, Debug)]
pub struct Listed {
    pub list: BTreeMap<Identity, Purpose>,
    /// No start was on its way: every child that existed before this moment is in the list, or is an orphan.
    pub is_complete: bool,
}

impl Children {
    /// Starts a process by `start`, which returns its identity beside whatever else it has. Blocks as `start` does.
    ///
    /// # Errors
    /// Those of `start`, which must then have left no process.
    pub fn start<T, E>(&self, purpose: Purpose, start: impl FnOnce() -> Result<(Identity, T), E>) -> Result<T, E> {
        let _starting = Starting::begin(&self.shared.starting);
        let (child, result) = start()?;
        lock(&self.shared.list).insert(child, purpose);
        Ok(result)
    }

    /// Forgets `child`, which its owner has reaped.
    pub fn forget(&self, child: Identity) {
        lock(&self.shared.list).remove(&child);
    }

    /// Returns all children of now.
    pub fn listed(&self) -> Listed {
        // In this order: a start that is over now has put its child into the list.
        let is_complete = self.shared.starting.load(Ordering::SeqCst) == 0;
        let list = lock(&self.shared.list).clone();
        Listed { list, is_complete }
    }
}

/// Counts a start for as long as it lasts, also when it panics.
struct Starting<'a>(&'a AtomicU32);

impl Starting<'_> {
    fn begin(count: &AtomicU32) -> Starting<'_> {
        // SeqCst: the fork comes behind it for everybody who sees the child.
        count.fetch_add(1, Ordering::SeqCst);
        Starting(count)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_when_a_start_is_on_its_way() {
        let children = Children::default();
        let child = Identity { pid: 7, start: 1 };
        let inside = children.clone();
        let started: Result<(), ()> = children.start(Purpose::Errand, || {
            assert!(!inside.listed().is_complete);
            Ok((child, ()))
        });
        started.unwrap();
        let listed = children.listed();
        assert!(listed.is_complete);
        assert_eq!(listed.list.get(&child), Some(&Purpose::Errand));
        children
            .start(Purpose::Errand, || Err::<(Identity, ()), _>(()))
            .unwrap_err();
        assert!(children.listed().is_complete, "a start that failed is over");
        children.forget(child);
        assert!(children.listed().list.is_empty());
    }
}
