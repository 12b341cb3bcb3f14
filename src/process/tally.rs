//! Counts apart by cause, each under a name of its own.
//!
//! Plain counters: any thread adds to them, pages read them, nobody waits. Relaxed throughout, because they order
//! nothing.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// One of `N` things that are counted apart, such as the causes for which something is dropped.
pub trait Counted<const N: usize>: Copy {
    /// The names in `/health`, each at its thing's place.
    fn names() -> [&'static str; N];

    /// Its place among the names, below `N`.
    fn place(self) -> usize;
}

/// How often each of `N` things happened.
#[derive(Debug)]
pub struct Tally<C, const N: usize> {
    counts: [AtomicU64; N],
    counted: PhantomData<C>,
}

impl<C, const N: usize> Default for Tally<C, N> {
    fn default() -> Self {
        Tally {
            counts: [const { AtomicU64::new(0) }; N],
            counted: PhantomData,
        }
    }
}

impl<C: Counted<N>, const N: usize> Tally<C, N> {
    /// Counts one more; returns how many there are now.
    pub fn add(&self, what: C) -> u64 {
        self.add_many(what, 1)
    }

    /// Counts `more` at once; returns how many there are now.
    pub fn add_many(&self, what: C, more: u64) -> u64 {
        self.counts[what.place()].fetch_add(more, Ordering::Relaxed) + more
    }

    /// How often `what` happened.
    pub fn count(&self, what: C) -> u64 {
        self.counts[what.place()].load(Ordering::Relaxed)
    }

    /// Every name with its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        C::names().into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Side(usize);

    impl Counted<2> for Side {
        fn names() -> [&'static str; 2] {
            ["left", "right"]
        }

        fn place(self) -> usize {
            self.0
        }
    }

    #[test]
    fn each_is_counted_under_its_own_name() {
        let tally = Tally::<Side, 2>::default();
        assert_eq!(tally.add(Side(1)), 1);
        assert_eq!(tally.add_many(Side(1), 4), 5);
        assert_eq!((tally.count(Side(0)), tally.count(Side(1))), (0, 5));
        assert_eq!(tally.counts().collect::<Vec<_>>(), [("left", 0), ("right", 5)]);
    }
}
