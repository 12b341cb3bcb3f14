//! The threads of a server as a list: each step of the start adds a part, and the stop walks the list.

use crate::client::inbox::InboxHandle;
use crate::process::files::LockFile;
use crate::process::stop::Stop;
use crate::process::threads::{JoinError, ThreadHandle};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The whole stop may take this long; the process then ends what still runs.
const STOP_DEADLINE: Duration = Duration::from_millis(4400);
/// Even when all time is gone, a thread that has ended is still seen to have ended.
const LEAST_WAIT: Duration = Duration::from_millis(20);

/// A thread's turn to end. The stop takes them in this order: along the path of events first, then what serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    Accept,
    Ingest,
    /// With the end of `ingest` the queue ends, and with that `fanout`; with that the clients' queues end.
    Fanout,
    /// The threads that `accept` has left.
    Clients,
    Admin,
    /// The threads that `admin` has left.
    AdminRequests,
    Inbox,
    Heartbeat,
    /// Its command has until here.
    Alerts,
    /// With the end of `fanout` its queue ends; without that, the stop ends it.
    Journal,
    JournalSync,
    #[cfg_attr(
        not(feature = "engine-db"),
        expect(dead_code, reason = "the minimal build reads no database")
    )]
    EngineDb,
    /// What was learned comes to it from `fanout` at the end of that, and goes to `files`.
    Detector,
    /// Without the end of `fanout` its slot stays open, so that the stop must say that nothing more comes.
    Files,
    /// After all others, so that it reports one that hangs.
    Watchdog,
    Reports,
}

impl Turn {
    /// How long the stop waits for the thread at most.
    ///
    /// `accept` to `fanout` leave clients 2.1 s for what they need at most: 0.1 s to own their socket, 1 s to flush,
    /// 1 s to close.
    fn bound(self) -> Duration {
        Duration::from_millis(match self {
            // These wake at once. `heartbeat` makes one line and one content, `admin` removes its file; `watchdog` and
            // `reports` are left behind in the middle of a report.
            Turn::Accept | Turn::Admin | Turn::Heartbeat | Turn::Watchdog | Turn::Reports => 250,
            // 300 ms for room, 300 ms for what the kernel holds, 100 ms to tell of losses.
            Turn::Ingest => 750,
            // It hands on for 1.15 s.
            Turn::Fanout => 1250,
            // One notices the stop within 250 ms, sends for 250 ms more, and waits as long for its peer's end.
            Turn::AdminRequests => 1250,
            // 1 s for the command that runs, 300 ms until a killed one is gone; asked first, so mostly over by now.
            Turn::Alerts => 1500,
            // It wakes at once, or when SQLite has waited 250 ms for a lock. In the middle of a read it is left behind:
            // it changes nothing.
            Turn::EngineDb => 500,
            // It wakes at once, or notices within 100 ms that `fanout` does not answer.
            Turn::Detector => 500,
            Turn::Clients | Turn::Inbox | Turn::Journal | Turn::JournalSync | Turn::Files => return STOP_DEADLINE,
        })
    }

    /// Returns whether the stop asks it before all others: its requests, or its command, end while others do. Threads
    /// that end raise no alert then.
    fn is_asked_first(self) -> bool {
        matches!(self, Turn::Admin | Turn::Alerts)
    }
}

/// How a part is asked to end. Never blocks.
#[derive(Debug)]
enum Signal {
    Stop(Stop),
    /// This way needs no fan-out, and reaches clients that wait for their sockets and not for their queues.
    EndClients(InboxHandle),
    /// The end of the thread that started it asks it.
    None,
}

impl Signal {
    fn send(&self) {
        match self {
            Signal::Stop(stop) => stop.request(),
            Signal::EndClients(inbox) => inbox.end_all(),
            Signal::None => {}
        }
    }
}

/// A part's threads.
#[derive(Debug)]
enum Threads {
    None,
    One(ThreadHandle<()>),
    /// One that leaves others behind when it ends; their turn comes later.
    Parent(ThreadHandle<Vec<ThreadHandle<()>>>, Turn),
}

/// What a step of the start has started.
#[derive(Debug)]
pub(super) struct Part {
    turn: Turn,
    signal: Signal,
    threads: Threads,
}

impl Part {
    /// A thread that ends when `stop` is requested.
    pub(super) fn new(turn: Turn, stop: Stop, thread: ThreadHandle<()>) -> Part {
        Part {
            turn,
            signal: Signal::Stop(stop),
            threads: Threads::One(thread),
        }
    }

    /// One that leaves threads behind, whose turn is `children`.
    pub(super) fn parent(turn: Turn, stop: Stop, thread: ThreadHandle<Vec<ThreadHandle<()>>>, children: Turn) -> Part {
        Part {
            turn,
            signal: Signal::Stop(stop),
            threads: Threads::Parent(thread, children),
        }
    }

    /// What is requested in that turn whether its thread has started or not.
    pub(super) fn signal(turn: Turn, stop: Stop) -> Part {
        Part {
            turn,
            signal: Signal::Stop(stop),
            threads: Threads::None,
        }
    }

    /// The clients' threads, which `accept` starts and leaves behind.
    pub(super) fn clients(inbox: InboxHandle) -> Part {
        Part {
            turn: Turn::Clients,
            signal: Signal::EndClients(inbox),
            threads: Threads::None,
        }
    }
}

/// What has been started of a server.
#[derive(Debug, Default)]
pub(super) struct Parts {
    by_turn: BTreeMap<Turn, Vec<Part>>,
    /// Of files that threads write until their end.
    locks: Vec<LockFile>,
}

impl Parts {
    pub(super) fn add(&mut self, part: Part) {
        self.by_turn.entry(part.turn).or_default().push(part);
    }

    pub(super) fn extend(&mut self, parts: impl IntoIterator<Item = Part>) {
        parts.into_iter().for_each(|part| self.add(part));
    }

    /// Keeps the lock until every thread has ended.
    pub(super) fn hold(&mut self, lock: Option<LockFile>) {
        self.locks.extend(lock);
    }

    /// Ends every thread in its turn. Blocks at most [`STOP_DEADLINE`]. Returns the faults of threads that did not end
    /// as they should.
    pub(super) fn stop(mut self) -> Vec<JoinError> {
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut faults = Vec::new();
        let first = self.by_turn.iter().filter(|(turn, _)| turn.is_asked_first());
        first.flat_map(|(_, parts)| parts).for_each(|part| part.signal.send());
        while let Some((turn, parts)) = self.by_turn.pop_first() {
            for part in parts {
                part.signal.send();
                let left = deadline.saturating_duration_since(Instant::now());
                let bound = left.clamp(LEAST_WAIT, turn.bound());
                let joined = match part.threads {
                    Threads::None => Ok(()),
                    Threads::One(thread) => thread.join_within(bound),
                    Threads::Parent(thread, turn) => thread.join_within(bound).map(|children| {
                        for child in children {
                            self.add(Part {
                                turn,
                                signal: Signal::None,
                                threads: Threads::One(child),
                            });
                        }
                    }),
                };
                faults.extend(joined.err());
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::threads::spawn;
    use crossbeam_channel::{Receiver, Sender, bounded};

    const STACK: usize = 64 * 1024;

    /// A thread that says `name` when it is asked to end.
    fn ending(name: &'static str, ended: &Sender<&'static str>) -> (Stop, ThreadHandle<()>) {
        let (stop, ended) = (Stop::new().unwrap(), ended.clone());
        let own = stop.clone();
        let thread = spawn(name, STACK, None, move || {
            while !own.requested() {
                std::thread::yield_now();
            }
            ended.send(name).unwrap();
        });
        (stop, thread.unwrap())
    }

    fn said(ended: &Receiver<&'static str>) -> Vec<&'static str> {
        ended.try_iter().collect()
    }

    #[test]
    fn each_ends_in_its_turn_whatever_the_order_of_the_start() {
        let (tx, ended) = bounded(8);
        let mut parts = Parts::default();
        for (turn, name) in [
            (Turn::Files, "files"),
            (Turn::Ingest, "ingest"),
            (Turn::Fanout, "fanout"),
        ] {
            let (stop, thread) = ending(name, &tx);
            parts.add(Part::new(turn, stop, thread));
        }
        assert!(parts.stop().is_empty());
        assert_eq!(said(&ended), ["ingest", "fanout", "files"]);
    }

    #[test]
    fn what_a_thread_leaves_behind_ends_in_a_turn_of_its_own() {
        let (tx, ended) = bounded(8);
        let mut parts = Parts::default();
        let (stop, let_go) = (Stop::new().unwrap(), Stop::new().unwrap());
        let (child_tx, child_let_go) = (tx.clone(), let_go.clone());
        let own = stop.clone();
        let parent = spawn("accept", STACK, None, move || {
            while !own.requested() {
                std::thread::yield_now();
            }
            let child = spawn("client-1", STACK, None, move || {
                while !child_let_go.requested() {
                    std::thread::yield_now();
                }
                child_tx.send("client-1").unwrap();
            });
            vec![child.unwrap()]
        });
        parts.add(Part::parent(Turn::Accept, stop, parent.unwrap(), Turn::Clients));
        let fanout_stop = Stop::new().unwrap();
        let own = fanout_stop.clone();
        let fanout = spawn("fanout", STACK, None, move || {
            while !own.requested() {
                std::thread::yield_now();
            }
            tx.send("fanout").unwrap();
            // The end of the fan-out lets the client go: only then does it speak, whichever thread runs first.
            let_go.request();
        });
        parts.add(Part::new(Turn::Fanout, fanout_stop, fanout.unwrap()));
        assert!(parts.stop().is_empty());
        assert_eq!(said(&ended), ["fanout", "client-1"]);
    }

    #[test]
    fn one_that_does_not_end_is_named_and_keeps_no_other_from_its_turn() {
        let (tx, ended) = bounded(8);
        let mut parts = Parts::default();
        let never = Stop::new().unwrap();
        let (release, held) = bounded::<()>(1);
        let stuck = spawn("accept", STACK, None, move || {
            let _ = held.recv();
            Vec::new()
        });
        parts.add(Part::parent(Turn::Accept, never, stuck.unwrap(), Turn::Clients));
        let (stop, thread) = ending("ingest", &tx);
        parts.add(Part::new(Turn::Ingest, stop, thread));
        let faults = parts.stop();
        assert_eq!(said(&ended), ["ingest"]);
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].to_string().starts_with("thread accept did not end"),
            "{}",
            faults[0]
        );
        drop(release);
    }
}
