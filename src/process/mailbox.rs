//! Queues with one taker, of which nobody needs a lock: a thread that stops anywhere in here, for a debugger, a page on a
//! dead disk or a host without a processor to spare, holds up nobody who sends or takes.
//!
//! Several mailboxes of one thread may share its [`Sleeper`], so that it waits at all of them at a time.

use crate::process::clock::pause;
use crate::process::pile::{Pile, Taken};
use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How finely a sender that waits looks for room.
const LOOK: Duration = Duration::from_millis(2);

/// How one thread sleeps and is woken.
#[derive(Clone, Debug, Default)]
pub struct Sleeper(Arc<Sleep>);

#[derive(Debug, Default)]
struct Sleep {
    asleep: AtomicBool,
    /// Known from its first sleep on.
    thread: OnceLock<Thread>,
}

// As with a `Bell`: the sleeper says that it sleeps and then looks for work; whoever leaves work does so and then looks
// whether it sleeps. All four steps are sequentially consistent (SeqCst), so at least one of the two sees what the other has
// done.
impl Sleeper {
    /// Wakes the sleeper, if it sleeps; called by any thread after it has left work, by an operation that is SeqCst. Never
    /// blocks: what wakes a thread is one exchange and one system call. A thread that is stopped between the two costs the
    /// sleeper the rest of its bound.
    pub fn wake(&self) {
        if self.0.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
    }

    /// The sleeper, always the same thread: blocks while `is_idle`, at most `bound`. `is_idle` looks by operations that are
    /// SeqCst.
    pub fn sleep(&self, bound: Duration, is_idle: impl Fn() -> bool) {
        self.0.thread.get_or_init(std::thread::current);
        let begun = Instant::now();
        self.0.asleep.store(true, Ordering::SeqCst);
        while is_idle() {
            let left = bound.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            // It may return for no reason, or for a wake-up of before.
            std::thread::park_timeout(left);
        }
        self.0.asleep.store(false, Ordering::Relaxed);
    }
}

/// The senders' end. Clones send to the same mailbox.
#[derive(Debug)]
pub struct Post<T: Send>(Arc<Shared<T>>);

/// The taker's end.
#[derive(Debug)]
pub struct Mailbox<T: Send> {
    shared: Arc<Shared<T>>,
    /// Taken from the pile together, and given out one at a time.
    in_hand: RefCell<Taken<T>>,
}

#[derive(Debug)]
struct Shared<T: Send> {
    pile: Pile<T>,
    /// What waits, with what is tried right now.
    len: AtomicUsize,
    len_max: usize,
    senders: AtomicUsize,
    /// Nobody takes any more.
    is_left: AtomicBool,
    sleeper: Sleeper,
}

/// Makes a mailbox for at most `len_max` things. Full policy: the sender gets the thing back.
pub fn mailbox<T: Send>(len_max: usize) -> (Post<T>, Mailbox<T>) {
    mailbox_of(&Sleeper::default(), len_max)
}

/// The same, of a thread that waits at several.
pub fn mailbox_of<T: Send>(sleeper: &Sleeper, len_max: usize) -> (Post<T>, Mailbox<T>) {
    let pile = Pile::new();
    let in_hand = RefCell::new(pile.take());
    let shared = Arc::new(Shared {
        pile,
        len: AtomicUsize::new(0),
        len_max,
        senders: AtomicUsize::new(1),
        is_left: AtomicBool::new(false),
        sleeper: sleeper.clone(),
    });
    (Post(Arc::clone(&shared)), Mailbox { shared, in_hand })
}

impl<T: Send> Post<T> {
    /// Leaves `thing` and wakes the taker. Never blocks.
    ///
    /// # Errors
    /// There is no room, or nobody takes any more; the thing comes back.
    pub fn try_send(&self, thing: T) -> Result<(), TrySendError<T>> {
        let shared = &*self.0;
        if shared.is_left.load(Ordering::Relaxed) {
            return Err(TrySendError::Disconnected(thing));
        }
        // Relaxed: a bound, not an order. Looked at first, because a look is cheaper where it is full for long.
        if shared.len.load(Ordering::Relaxed) >= shared.len_max {
            return Err(TrySendError::Full(thing));
        }
        // Counted before it is in, so that it cannot be counted out first.
        if shared.len.fetch_add(1, Ordering::Relaxed) >= shared.len_max {
            shared.len.fetch_sub(1, Ordering::Relaxed);
            return Err(TrySendError::Full(thing));
        }
        shared.pile.leave(thing);
        shared.sleeper.wake();
        // Either we see that the taker has left, or it sees the thing and drops it.
        if shared.is_left.load(Ordering::SeqCst) {
            drop(shared.pile.take());
        }
        Ok(())
    }

    /// Leaves `thing` as soon as there is room. Blocks at most `bound`.
    ///
    /// # Errors
    /// As [`Post::try_send`].
    pub fn send_within(&self, thing: T, bound: Duration) -> Result<(), TrySendError<T>> {
        let begun = Instant::now();
        let mut thing = thing;
        loop {
            match self.try_send(thing) {
                Err(TrySendError::Full(back)) if begun.elapsed() < bound => thing = back,
                other => return other,
            }
            pause(LOOK);
        }
    }

    /// Things that wait.
    pub fn len(&self) -> usize {
        self.0.len.load(Ordering::Relaxed)
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there is room for.
    pub fn len_max(&self) -> usize {
        self.0.len_max
    }
}

impl<T: Send> Clone for Post<T> {
    fn clone(&self) -> Post<T> {
        // Relaxed: this clone keeps the count above 0.
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Post(Arc::clone(&self.0))
    }
}

impl<T: Send> Drop for Post<T> {
    fn drop(&mut self) {
        // The taker that sees the last one gone sees what all of them have left.
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.sleeper.wake();
        }
    }
}

impl<T: Send> Mailbox<T> {
    /// Takes the oldest thing, if one waits. Never blocks.
    ///
    /// # Errors
    /// None waits, or none will come any more.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut in_hand = self.in_hand.borrow_mut();
        let mut next = in_hand.next();
        if next.is_none() {
            // Looked at before the pile: what was left before the last sender went is taken after it.
            let is_over = self.is_over();
            if self.shared.pile.is_empty() {
                return Err(match is_over {
                    true => TryRecvError::Disconnected,
                    false => TryRecvError::Empty,
                });
            }
            *in_hand = self.shared.pile.take();
            next = in_hand.next();
        }
        let thing = next.ok_or(TryRecvError::Empty)?;
        self.shared.len.fetch_sub(1, Ordering::Relaxed);
        Ok(thing)
    }

    /// Takes the oldest thing as soon as one is there. Blocks at most `bound`.
    ///
    /// # Errors
    /// None came, or none will come any more.
    pub fn recv_timeout(&self, bound: Duration) -> Result<T, RecvTimeoutError> {
        self.wait(bound);
        self.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    /// Blocks until something waits or nothing will come any more, at most `bound`.
    pub fn wait(&self, bound: Duration) {
        self.shared.sleeper.sleep(bound, || self.is_idle());
    }

    /// Whether nothing waits, and something may come.
    pub fn is_idle(&self) -> bool {
        // As in `try_recv`.
        let is_over = self.is_over();
        self.is_empty() && !is_over
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.in_hand.borrow().is_empty() && self.shared.pile.is_empty()
    }

    /// Things that wait, with what is tried right now.
    pub fn len(&self) -> usize {
        self.shared.len.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.shared.senders.load(Ordering::SeqCst) == 0
    }
}

impl<T: Send> Drop for Mailbox<T> {
    fn drop(&mut self) {
        self.shared.is_left.store(true, Ordering::SeqCst);
        drop(self.shared.pile.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_full_mailbox_gives_the_thing_back_and_has_room_for_each_that_is_taken() {
        let (tx, rx) = mailbox(2);
        assert_eq!((tx.len_max(), tx.is_empty(), rx.is_idle()), (2, true, true));
        assert_eq!((tx.try_send(1), tx.try_send(2)), (Ok(()), Ok(())));
        assert_eq!(tx.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(tx.send_within(3, Duration::from_millis(5)), Err(TrySendError::Full(3)));
        assert_eq!(rx.try_recv(), Ok(1));
        assert_eq!((rx.len(), rx.is_empty()), (1, false), "the other one is in hand");
        assert_eq!(tx.try_send(3), Ok(()));
        assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(2), Ok(3)));
        assert_eq!((rx.try_recv(), rx.len()), (Err(TryRecvError::Empty), 0));
    }

    #[test]
    fn the_end_of_all_senders_comes_behind_what_they_have_left() {
        let (tx, rx) = mailbox(2);
        let other = tx.clone();
        drop(tx);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        other.try_send(1).unwrap();
        drop(other);
        assert!(!rx.is_idle());
        assert_eq!(rx.recv_timeout(DEADLINE), Ok(1));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(rx.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn the_end_of_the_taker_drops_what_waits_and_is_told() {
        let thing = Arc::new(());
        let (tx, rx) = mailbox(3);
        for _ in 0..3 {
            tx.try_send(Arc::clone(&thing)).unwrap();
        }
        rx.try_recv().unwrap();
        drop(rx);
        assert_eq!(Arc::strong_count(&thing), 1);
        assert!(matches!(tx.try_send(thing), Err(TrySendError::Disconnected(_))));
    }

    #[test]
    fn what_is_left_while_the_taker_goes_is_dropped_all_the_same() {
        for _ in 0..1000 {
            let thing = Arc::new(());
            let (tx, rx) = mailbox(usize::MAX);
            std::thread::scope(|scope| {
                scope.spawn(|| while tx.try_send(Arc::clone(&thing)).is_ok() {});
                scope.spawn(move || drop(rx));
            });
            assert_eq!(Arc::strong_count(&thing), 1);
        }
    }

    #[test]
    fn a_wait_ends_in_time_without_anything() {
        let (_tx, rx) = mailbox::<()>(1);
        let (begun, bound) = (Instant::now(), Duration::from_millis(20));
        assert_eq!(rx.recv_timeout(bound), Err(RecvTimeoutError::Timeout));
        assert!(begun.elapsed() >= bound);
    }

    #[test]
    fn no_wake_is_lost_however_two_threads_meet() {
        const ROUNDS: u32 = 20_000;
        let (ask, asked) = mailbox(1);
        let (answer, answered) = mailbox(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    assert_eq!(asked.recv_timeout(DEADLINE), Ok(round));
                    answer.try_send(round).unwrap();
                }
            });
            for round in 0..ROUNDS {
                ask.try_send(round).unwrap();
                assert_eq!(answered.recv_timeout(DEADLINE), Ok(round));
            }
        });
    }

    #[test]
    fn who_waits_at_several_is_woken_by_each() {
        let sleeper = Sleeper::default();
        let (one, first) = mailbox_of(&sleeper, 1);
        let (two, second) = mailbox_of(&sleeper, 1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..1000 {
                    if round % 2 == 0 {
                        one.send_within(round, DEADLINE).unwrap();
                    } else {
                        two.send_within(round, DEADLINE).unwrap();
                    }
                }
            });
            let mut seen = 0;
            while seen < 1000 {
                let begun = Instant::now();
                sleeper.sleep(DEADLINE, || first.is_idle() && second.is_idle());
                assert!(begun.elapsed() < DEADLINE);
                seen += usize::from(first.try_recv().is_ok()) + usize::from(second.try_recv().is_ok());
            }
        });
    }
}
