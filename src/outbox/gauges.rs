//! What the clients' side shows to whoever asks: who is there, how clients ended, what was refused and why.
//!
//! Plain counters: any thread adds to them, `/health` reads them, nobody waits. Relaxed throughout, because they order
//! nothing.

use crate::stream::protocol::EndTally;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// All of them.
#[derive(Debug, Default)]
pub struct ClientGauges {
    /// WebSocket clients now, those that are ending included.
    pub open: AtomicUsize,
    /// How they ended.
    pub ends: EndTally,
    /// Connections refused because there were too many, or no thread could be had.
    pub refused: AtomicUsize,
    /// Requests refused, by status.
    pub requests: RequestTally,
    /// Connections that failed without any fault of a request, by cause.
    pub faults: ConnectionTally,
    /// Messages of clients that mean nothing here: binary ones, and text that is no message of the protocol.
    pub ignored: AtomicU64,
}

/// How many requests were refused, by the status of the answer.
#[derive(Debug, Default)]
pub struct RequestTally([AtomicU64; RequestTally::STATUSES.len()]);

impl RequestTally {
    /// Every status that a request is refused with, and its name in `/health`.
    const STATUSES: [(u16, &'static str); 9] = [
        (400, "400"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (408, "408"),
        (426, "426"),
        (431, "431"),
        (503, "503"),
        (505, "505"),
    ];

    /// Whether refusals with this status have a counter.
    pub fn knows(status: u16) -> bool {
        Self::STATUSES.iter().any(|(known, _)| *known == status)
    }

    /// Counts one more.
    pub fn add(&self, status: u16) {
        let place = Self::STATUSES.iter().position(|(known, _)| *known == status);
        debug_assert!(place.is_some(), "status {status} has no counter");
        if let Some(place) = place {
            self.0[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every status with its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Self::STATUSES.iter().map(|(_, name)| *name).zip(counts)
    }
}

/// Why a connection came to nothing, other than by what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionFault {
    /// It sent nothing until the deadline for the head.
    Silent,
    /// It was gone before its request was there in whole.
    Gone,
    /// It did not take its answer.
    AnswerNotTaken,
    /// There were too many connections.
    TooMany,
    /// The host gave no thread for it.
    NoThread,
    /// The process or the host was out of descriptors; counts attempts, since the connection waits in the kernel.
    NoDescriptor,
    /// The kernel could not hand it over for another reason; counts attempts, too.
    AcceptFailed,
}

/// How many connections failed, by cause.
#[derive(Debug, Default)]
pub struct ConnectionTally([AtomicU64; ConnectionTally::NAMES.len()]);

impl ConnectionTally {
    /// The names in `/health`, in the order of the enum.
    const NAMES: [&'static str; 7] = [
        "silent",
        "gone",
        "answer_not_taken",
        "too_many",
        "no_thread",
        "no_descriptor",
        "accept_failed",
    ];

    /// Counts one more.
    pub fn add(&self, fault: ConnectionFault) {
        self.0[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every cause's name with its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Self::NAMES.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_counted_under_its_own_name() {
        let tally = RequestTally::default();
        for (index, (status, name)) in RequestTally::STATUSES.into_iter().enumerate() {
            assert_eq!(name, status.to_string());
            (0..=index).for_each(|_| tally.add(status));
        }
        let counts: Vec<_> = tally.counts().collect();
        assert_eq!((counts[0], counts[8]), (("400", 1), ("505", 9)));
        assert!(RequestTally::knows(431) && !RequestTally::knows(200));
    }

    #[test]
    fn every_fault_has_its_own_name() {
        for (fault, name) in [
            (ConnectionFault::Silent, "silent"),
            (ConnectionFault::Gone, "gone"),
            (ConnectionFault::AnswerNotTaken, "answer_not_taken"),
            (ConnectionFault::TooMany, "too_many"),
            (ConnectionFault::NoThread, "no_thread"),
            (ConnectionFault::NoDescriptor, "no_descriptor"),
            (ConnectionFault::AcceptFailed, "accept_failed"),
        ] {
            let tally = ConnectionTally::default();
            tally.add(fault);
            let counted: Vec<_> = tally.counts().filter(|(_, count)| *count == 1).collect();
            assert_eq!(counted, [(name, 1)]);
        }
    }
}
