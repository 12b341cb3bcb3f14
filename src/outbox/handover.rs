//! Who may write to a client's socket now: the fan-out, the client's own thread, or nobody yet.
//!
//! Two threads write to one socket: `fanout` sends a whole chunk without blocking when the client keeps up, the
//! client's own thread (here: the writer) does everything else. This module keeps them apart. It knows nothing of
//! sockets and queues, so that a model checker can try every interleaving (`make model`); the proof in words:
//!
//! - **One owner.** `owner` is IDLE, FANOUT or WRITER. Both sides leave IDLE by compare-and-swap, so one of them wins.
//!   Only the fan-out leaves FANOUT, only the writer leaves WRITER. Only the owner of the socket writes.
//! - **Nothing overtakes what is queued.** `queued` counts chunks that were handed to the writer and are not written
//!   yet. Only the fan-out raises it, before it queues; only the writer lowers it, after the last byte is written. The
//!   fan-out sends by itself only if it has read 0, and 0 stays 0 until the fan-out itself raises it.
//! - **No frame is cut open.** After a short send the fan-out puts the chunk into the queue, which is empty then,
//!   records in `tail` how much of it is already written, and passes ownership, in this order. The writer takes `tail`
//!   with the ownership and writes the rest of that chunk before anything else, its own pings and pongs included.
//! - **Nobody waits for the other.** Every call returns at once. If the fan-out stands still while it owns one client,
//!   that client's writer is told "busy" each time, and goes on doing everything else that it does.
//! - **No wake is lost.** The queue itself wakes the writer. A chunk whose ownership is still on its way makes the
//!   writer try again; it does so until it owns the socket, and a chunk in the queue is never left by a writer at rest.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const IDLE: u8 = 0;
const FANOUT: u8 = 1;
const WRITER: u8 = 2;

/// The state that both sides share. See the module's page for the rules.
#[derive(Debug)]
pub struct Handover {
    owner: AtomicU8,
    queued: AtomicUsize,
    tail: AtomicUsize,
}

impl Handover {
    /// For a new client: its writer owns the socket, because it has the handshake and the snapshot to send.
    pub fn new() -> Handover {
        Handover {
            owner: AtomicU8::new(WRITER),
            queued: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        }
    }

    /// Fan-out: may it send to this client by itself? If so it owns the socket until [`Handover::direct_done`] or
    /// [`Handover::pass_on`].
    pub fn try_direct(&self) -> bool {
        // Acquire on both: what the writer wrote to the socket before it gave up queue and ownership comes first.
        self.queued.load(Ordering::Acquire) == 0
            && self
                .owner
                .compare_exchange(IDLE, FANOUT, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Fan-out: the whole chunk is sent.
    pub fn direct_done(&self) {
        // Release: our send comes before whatever the next owner writes.
        self.owner.store(IDLE, Ordering::Release);
    }

    /// Fan-out: the chunk that it has just queued is written up to byte `sent` (0 for not at all); the writer
    /// continues there. Must follow [`Handover::will_queue`] and the queueing itself.
    pub fn pass_on(&self, sent: usize) {
        self.tail.store(sent, Ordering::Relaxed);
        // Release: the queue's content and `tail` are visible to a thread that sees the new owner.
        self.owner.store(WRITER, Ordering::Release);
    }

    /// Fan-out: a chunk is about to be queued. Returns how many were queued before.
    pub fn will_queue(&self) -> usize {
        // Relaxed: only this side raises the count, and the queue orders the chunk itself.
        self.queued.fetch_add(1, Ordering::Relaxed)
    }

    /// Chunks that are queued and not written to the last byte.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Writer: may it write now? `Some(n)` makes it the owner until [`Handover::release`]; n is how many bytes of the
    /// first queued chunk are already written. With n > 0 that chunk is in the queue and must be finished first.
    pub fn try_acquire(&self) -> Option<usize> {
        let taken = self
            .owner
            .compare_exchange(IDLE, WRITER, Ordering::Acquire, Ordering::Acquire);
        match taken {
            Ok(_) => Some(0),
            // Passed on to us, or ours from the beginning. Only the owner touches `tail`.
            Err(WRITER) => Some(self.tail.swap(0, Ordering::Relaxed)),
            Err(_) => None,
        }
    }

    /// Writer: the chunk that was first in the queue is written to its last byte.
    pub fn written(&self) {
        // Release: the writing comes before the fan-out's next direct send.
        self.queued.fetch_sub(1, Ordering::Release);
    }

    /// Writer: it has nothing to write now, and stands at a frame boundary.
    pub fn release(&self) {
        self.owner.store(IDLE, Ordering::Release);
    }
}

impl Default for Handover {
    fn default() -> Self {
        Self::new()
    }
}

/// The model: `cargo test --lib handover` with `--cfg loom`, which `make model` does.
#[cfg(all(test, loom))]
#[allow(
    unsafe_code,
    reason = "loom's cell gives a raw pointer, and panics itself when two threads have one at a time"
)]
mod model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;
    use std::collections::VecDeque;

    /// A frame of two bytes: (chunk, first half), (chunk, second half). Pings are one byte, (255, 0).
    type Byte = (u8, u8);
    const PING: Byte = (255, 0);

    /// The client: shared state, queue, and a socket whose cell loom watches for two writers at once.
    struct Client {
        handover: Handover,
        queue: Mutex<VecDeque<u8>>,
        wire: UnsafeCell<Vec<Byte>>,
    }

    impl Client {
        fn new() -> Arc<Client> {
            Arc::new(Client {
                handover: Handover::new(),
                queue: Mutex::new(VecDeque::new()),
                wire: UnsafeCell::new(Vec::new()),
            })
        }

        fn write(&self, bytes: &[Byte]) {
            // SAFETY: loom's cell panics before it gives a pointer that is not the only one, which is what this model
            // is for; it also demands that our access comes after the other thread's, by the orderings alone.
            self.wire.with_mut(|wire| unsafe { (*wire).extend_from_slice(bytes) });
        }

        fn written(&self) -> Vec<Byte> {
            // SAFETY: as in `write`.
            self.wire.with(|wire| unsafe { (*wire).clone() })
        }

        /// What `outbox::Subscriber::offer` does, with a socket that takes `room` bytes at once.
        fn offer(&self, chunk: u8, room: usize) {
            let bytes = [(chunk, 0), (chunk, 1)];
            if self.handover.try_direct() {
                self.write(&bytes[..room.min(2)]);
                if room >= 2 {
                    self.handover.direct_done();
                    return;
                }
                self.handover.will_queue();
                self.queue.lock().unwrap().push_back(chunk);
                self.handover.pass_on(room);
            } else {
                self.handover.will_queue();
                self.queue.lock().unwrap().push_back(chunk);
            }
        }

        /// One round of the writer: what `writer.rs` does when it was woken. Returns whether it could write.
        fn writer_round(&self, ping: bool) -> bool {
            let Some(mut tail) = self.handover.try_acquire() else {
                return false;
            };
            if tail > 0 {
                self.write_first(tail);
                tail = 0;
            }
            if ping {
                self.write(&[PING]);
            }
            while !self.queue.lock().unwrap().is_empty() {
                self.write_first(tail);
            }
            self.handover.release();
            true
        }

        fn write_first(&self, tail: usize) {
            let chunk = self
                .queue
                .lock()
                .unwrap()
                .pop_front()
                .expect("a passed-on chunk is in the queue");
            self.write(&[(chunk, 0), (chunk, 1)][tail..]);
            self.handover.written();
        }
    }

    /// Runs `rooms.len()` offers against a writer that pings `pings` times and then writes all there is.
    fn run(rooms: &'static [usize], pings: usize) {
        loom::model(move || {
            let client = Client::new();
            let fanout = {
                let client = Arc::clone(&client);
                thread::spawn(move || {
                    for (chunk, room) in rooms.iter().enumerate() {
                        client.offer(chunk as u8, *room);
                    }
                })
            };
            let mut sent_pings = 0;
            for _ in 0..pings {
                sent_pings += usize::from(client.writer_round(true));
            }
            fanout.join().unwrap();
            // The fan-out is at rest, so the writer cannot be told "busy" any more.
            assert!(client.writer_round(false));
            check(&client.written(), rooms.len(), sent_pings);
            assert_eq!(client.handover.queued(), 0);
        });
    }

    /// Every chunk whole, once, in order; every ping between two chunks.
    fn check(wire: &[Byte], chunks: usize, pings: usize) {
        assert_eq!(wire.iter().filter(|byte| **byte == PING).count(), pings, "{wire:?}");
        let events: Vec<Byte> = wire.iter().copied().filter(|byte| *byte != PING).collect();
        let expected: Vec<Byte> = (0..chunks as u8).flat_map(|chunk| [(chunk, 0), (chunk, 1)]).collect();
        assert_eq!(events, expected);
        for pair in wire.windows(2) {
            assert!(
                !(pair[1] == PING && pair[0] != PING && pair[0].1 == 0),
                "a ping inside a frame: {wire:?}"
            );
        }
    }

    #[test]
    fn a_client_that_keeps_up() {
        run(&[2, 2], 2);
    }

    #[test]
    fn a_short_send_is_finished_by_the_writer() {
        run(&[1, 2], 2);
    }

    #[test]
    fn a_refused_send_is_taken_over_by_the_writer() {
        run(&[0, 2], 2);
    }

    #[test]
    fn backlog_again_and_again() {
        run(&[1, 0, 2], 2);
    }

    #[test]
    fn direct_again_after_a_backlog() {
        loom::model(|| {
            let client = Client::new();
            assert!(client.writer_round(false));
            client.offer(0, 1);
            let writer = {
                let client = Arc::clone(&client);
                thread::spawn(move || client.writer_round(true))
            };
            client.offer(1, 2);
            assert!(writer.join().unwrap());
            client.writer_round(false);
            assert!(
                client.handover.try_direct(),
                "an idle client with an empty queue must be direct again"
            );
            client.handover.direct_done();
            check(&client.written(), 2, 1);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_writer_owns_a_new_client_until_it_releases() {
        let handover = Handover::new();
        assert!(!handover.try_direct());
        assert_eq!(handover.try_acquire(), Some(0));
        handover.release();
        assert!(handover.try_direct());
        assert_eq!(handover.try_acquire(), None, "busy, and told so at once");
        handover.direct_done();
    }

    #[test]
    fn a_tail_goes_with_the_ownership_and_a_queue_forbids_direct_sends() {
        let handover = Handover::new();
        handover.release();
        assert!(handover.try_direct());
        handover.will_queue();
        handover.pass_on(17);
        assert!(!handover.try_direct());
        assert_eq!(handover.try_acquire(), Some(17));
        assert_eq!(handover.try_acquire(), Some(0), "the tail is taken once");
        handover.release();
        assert!(!handover.try_direct(), "the chunk is not written yet");
        handover.written();
        assert!(handover.try_direct());
    }
}
