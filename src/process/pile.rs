//! Where many threads leave things for one, without a lock: a thread that stops anywhere in here, for a debugger, a
//! page on a dead disk or a host without a processor to spare, holds up nobody else.
//!
//! A linked list that grows at its top. Leaving is one exchange of the top, tried again only when somebody else's has
//! succeeded; taking exchanges the top for nothing and has the whole list to itself. Nobody ever takes a part of it. So
//! it does no harm if the top is taken and an address comes back as another thing's (the ABA problem of such lists):
//! what is below the new top is the top that was there.
#![allow(unsafe_code)]

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ptr;

#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};

/// Things that wait to be taken, in the order in which they were left. It has no bound: the threads that leave things
/// count them.
pub struct Pile<T: Send> {
    /// The address of the newest node, or [`NONE`]. An address and not a pointer, because an exchange compares
    /// addresses: the node that it finds may be another one than the node that was loaded.
    top: AtomicUsize,
    things: PhantomData<fn(T) -> T>,
}

struct Node<T> {
    thing: T,
    /// The address of the one left before it, or [`NONE`].
    below: usize,
}

/// Where there is no node.
const NONE: usize = 0;

/// What a [`Pile::take`] has taken, the oldest first. What is not fetched is dropped with it.
pub struct Taken<T: Send> {
    first: usize,
    things: PhantomData<fn(T) -> T>,
}

// INVARIANT: a node is made by `Box::into_raw` and its pointer exposed. At any moment it belongs to one of these: to
// the call of `leave` that made it, until its exchange succeeds; to the pile, whose list is linked by `below`; to one
// `Taken`, the same.
impl<T: Send> Pile<T> {
    /// An empty one.
    pub fn new() -> Pile<T> {
        Pile {
            top: AtomicUsize::new(NONE),
            things: PhantomData,
        }
    }

    /// Leaves `thing`. Never blocks, but takes memory.
    pub fn leave(&self, thing: T) {
        let node = Box::into_raw(Box::new(Node { thing, below: NONE }));
        let address = node.expose_provenance();
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is ours until the exchange succeeds (INVARIANT).
            unsafe { (*node).below = top };
            // Release: who takes the node sees what is in it.
            let exchanged = self
                .top
                .compare_exchange_weak(top, address, Ordering::Release, Ordering::Relaxed);
            match exchanged {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Takes all there is. Never blocks.
    pub fn take(&self) -> Taken<T> {
        // Acquire: the content of the newest node comes with it, and that of the older ones, because every exchange
        // since is part of the release sequence of theirs.
        let mut top = self.top.swap(NONE, Ordering::Acquire);
        let mut first = NONE;
        while top != NONE {
            let node = ptr::with_exposed_provenance_mut::<Node<T>>(top);
            // SAFETY: the list is ours since the exchange, and this is one of its nodes (INVARIANT).
            let below = unsafe { std::mem::replace(&mut (*node).below, first) };
            first = top;
            top = below;
        }
        Taken {
            first,
            things: PhantomData,
        }
    }

    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed) == NONE
    }
}

impl<T: Send> Default for Pile<T> {
    fn default() -> Pile<T> {
        Pile::new()
    }
}

impl<T: Send> Drop for Pile<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T: Send> fmt::Debug for Pile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pile").field("is_empty", &self.is_empty()).finish()
    }
}

impl<T: Send> Iterator for Taken<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.first == NONE {
            return None;
        }
        // SAFETY: the node is ours, was made by `Box::into_raw`, and leaves the list here (INVARIANT).
        let node = unsafe { Box::from_raw(ptr::with_exposed_provenance_mut::<Node<T>>(self.first)) };
        self.first = node.below;
        Some(node.thing)
    }
}

impl<T: Send> FusedIterator for Taken<T> {}

impl<T: Send> Drop for Taken<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<T: Send> fmt::Debug for Taken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_was_left_is_taken_once_and_the_oldest_first() {
        let pile = Pile::new();
        assert!(pile.is_empty());
        for number in 0..5 {
            pile.leave(number);
        }
        assert!(!pile.is_empty());
        assert_eq!(pile.take().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(pile.is_empty());
        assert_eq!(pile.take().next(), None);
    }

    #[test]
    fn what_nobody_fetches_is_dropped() {
        let thing = Arc::new(());
        let pile = Pile::new();
        for _ in 0..5 {
            pile.leave(Arc::clone(&thing));
        }
        let mut taken = pile.take();
        taken.next();
        pile.leave(Arc::clone(&thing));
        assert_eq!(Arc::strong_count(&thing), 6);
        drop(taken);
        assert_eq!(Arc::strong_count(&thing), 2);
        drop(pile);
        assert_eq!(Arc::strong_count(&thing), 1);
    }

    #[test]
    fn nothing_is_lost_between_threads_and_each_ones_things_keep_their_order() {
        const THREADS: usize = 4;
        const EACH: usize = 20_000;
        let pile = Pile::new();
        let mut next = [0; THREADS];
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let pile = &pile;
                scope.spawn(move || (0..EACH).for_each(|number| pile.leave((thread, Box::new(number)))));
            }
            while next != [EACH; THREADS] {
                for (thread, number) in pile.take() {
                    assert_eq!(*number, next[thread], "of thread {thread}");
                    next[thread] += 1;
                }
            }
        });
        assert!(pile.is_empty());
    }
}

/// The model: `cargo test --lib pile` with `--cfg loom`, which `make model` does.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn two_leave_while_one_takes() {
        loom::model(|| {
            let pile = Arc::new(Pile::new());
            let leaving = |of: usize| {
                let pile = Arc::clone(&pile);
                thread::spawn(move || (0..2).for_each(|number| pile.leave(Box::new((of, number)))))
            };
            let threads = [leaving(0), leaving(1)];
            let mut seen = Vec::new();
            seen.extend(pile.take().map(|thing| *thing));
            for thread in threads {
                thread.join().unwrap();
            }
            seen.extend(pile.take().map(|thing| *thing));
            for of in 0..2 {
                let own: Vec<usize> = seen.iter().filter(|thing| thing.0 == of).map(|thing| thing.1).collect();
                assert_eq!(own, [0, 1]);
            }
            assert_eq!(seen.len(), 4);
        });
    }
}
