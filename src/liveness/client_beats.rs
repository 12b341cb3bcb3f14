//! The beats of connections' threads, which come and go: places that are made when they are first needed and never go.
//!
//! The watchdog reads them without a lock. Threads of clients share one for the list of free places, held for moments
//! at their beginning and their end.

use crate::liveness::beat::Beat;
use crate::process::locks::lock;
use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, OnceLock};

/// Places that are made together: 8 KiB.
const PART_LEN: usize = 64;

/// All places.
pub struct ClientBeats {
    parts: Box<[OnceLock<Box<[Beat]>>]>,
    free: Mutex<Free>,
    make: Box<dyn Fn() -> Beat + Send + Sync>,
}

/// The places that nobody has.
#[derive(Debug, Default)]
struct Free {
    /// Given back.
    places: Vec<usize>,
    /// Never taken: from here on.
    untouched: usize,
}

impl fmt::Debug for ClientBeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBeats")
            .field("free", &self.free)
            .finish_non_exhaustive()
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    beats: &'static ClientBeats,
    index: usize,
    beat: &'static Beat,
}

impl ClientBeats {
    pub(super) fn new(connections_max: usize, make: impl Fn() -> Beat + Send + Sync + 'static) -> ClientBeats {
        let parts = connections_max.max(1).div_ceil(PART_LEN);
        ClientBeats {
            parts: (0..parts).map(|_| OnceLock::new()).collect(),
            // All the room that it can need, so that nobody takes memory with the lock in hand.
            free: Mutex::new(Free {
                places: Vec::with_capacity(parts * PART_LEN),
                untouched: 0,
            }),
            make: Box::new(make),
        }
    }

    /// How many connections can have one at a time.
    pub fn room(&self) -> usize {
        self.parts.len() * PART_LEN
    }

    /// A place for the calling thread, which serves connection `number` (not 0); `None` when there are more threads
    /// than there can be connections. Waits for other clients' threads for moments.
    pub fn take(&'static self, number: u64) -> Option<Place> {
        let index = {
            let mut free = lock(&self.free);
            match free.places.pop() {
                Some(index) => index,
                None if free.untouched < self.room() => {
                    free.untouched += 1;
                    free.untouched - 1
                }
                None => return None,
            }
        };
        let part = self.parts[index / PART_LEN].get_or_init(|| (0..PART_LEN).map(|_| (self.make)()).collect());
        let beat = &part[index % PART_LEN];
        beat.take_place(number);
        Some(Place {
            beats: self,
            index,
            beat,
        })
    }

    /// The beats that a connection has right now. Takes no lock.
    pub fn taken(&'static self) -> impl Iterator<Item = &'static Beat> {
        self.places().filter(|beat| beat.number() != 0)
    }

    /// Every place that somebody has or has had, in an order that does not change; there are at most
    /// [`ClientBeats::room`]. Takes no lock.
    pub fn places(&'static self) -> impl Iterator<Item = &'static Beat> {
        let parts = self.parts.iter().map_while(OnceLock::get);
        parts.flat_map(|part| part.iter())
    }
}

impl Deref for Place {
    type Target = &'static Beat;

    fn deref(&self) -> &&'static Beat {
        &self.beat
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.beat.leave_place();
        let mut free = lock(&self.beats.free);
        free.places.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beat::Role;
    use crate::liveness::operation::{SlowLimits, SlowTally};
    use std::time::Duration;

    fn beats() -> &'static ClientBeats {
        let limits = SlowLimits {
            broadcast: Duration::from_millis(50),
            snapshot: Duration::from_millis(200),
        };
        let slow: &'static SlowTally = Box::leak(Box::new(SlowTally::new(limits)));
        Box::leak(Box::new(ClientBeats::new(4, move || {
            Beat::new("client", Role::Client, slow)
        })))
    }

    #[test]
    fn places_are_named_found_and_used_again() {
        let clients = beats();
        let first = clients.take(17).unwrap();
        let second = clients.take(18).unwrap();
        let names = || -> Vec<String> { clients.taken().map(|beat| beat.name()).collect() };
        assert_eq!(names(), ["client-17", "client-18"]);
        drop(first);
        assert_eq!(names(), ["client-18"]);
        let third = clients.take(19).unwrap();
        assert_eq!(names(), ["client-19", "client-18"]);
        drop((second, third));
        assert!(names().is_empty());
    }

    #[test]
    fn there_are_places_for_all_and_no_more() {
        let clients = beats();
        let places: Vec<_> = (1..=clients.room() as u64)
            .map(|id| clients.take(id).unwrap())
            .collect();
        assert!(clients.take(1000).is_none());
        assert_eq!(clients.taken().count(), places.len());
    }
}
