//! What the clients' side shows to pages and the heartbeat: who is there, how clients ended, what was refused and why.
//!
//! Plain counters: any thread adds to them, `/health` reads them, nobody waits. Relaxed throughout, because they order
//! nothing.

use crate::process::tally::{Counted, Tally};
use crate::stream::protocol::EndTally;
use std::sync::atomic::{AtomicU64, AtomicUsize};

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

/// A status with which requests are refused; each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalStatus {
    /// In [`RefusalStatus::ALL`].
    place: usize,
}

/// How many requests were refused, by the status of the answer.
pub type RequestTally = Tally<RefusalStatus, STATUSES>;

const STATUSES: usize = RefusalStatus::ALL.len();

impl RefusalStatus {
    /// Every status with which a request is refused, and its name in `/health`.
    const ALL: [(u16, &'static str); 9] = [
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

    /// The one with this number; `None` for a status with which no request is refused.
    pub fn of(number: u16) -> Option<RefusalStatus> {
        let place = Self::ALL.iter().position(|(known, _)| *known == number)?;
        Some(RefusalStatus { place })
    }
}

impl Counted<STATUSES> for RefusalStatus {
    fn names() -> [&'static str; STATUSES] {
        Self::ALL.map(|(_, name)| name)
    }

    fn place(self) -> usize {
        self.place
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

const FAULTS: usize = 7;

/// How many connections failed, by cause.
pub type ConnectionTally = Tally<ConnectionFault, FAULTS>;

impl Counted<FAULTS> for ConnectionFault {
    /// In the order of the enum.
    fn names() -> [&'static str; FAULTS] {
        [
            "silent",
            "gone",
            "answer_not_taken",
            "too_many",
            "no_thread",
            "no_descriptor",
            "accept_failed",
        ]
    }

    fn place(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_counted_under_its_own_name() {
        let tally = RequestTally::default();
        for (index, (number, name)) in RefusalStatus::ALL.into_iter().enumerate() {
            assert_eq!(name, number.to_string());
            tally.add_many(RefusalStatus::of(number).unwrap(), index as u64 + 1);
        }
        let counts: Vec<_> = tally.counts().collect();
        assert_eq!((counts[0], counts[8]), (("400", 1), ("505", 9)));
        assert!(RefusalStatus::of(431).is_some() && RefusalStatus::of(200).is_none());
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
