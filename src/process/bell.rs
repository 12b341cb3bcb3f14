//! Wakes one thread that sleeps on descriptors, and costs next to nothing while that thread is awake.

use crate::process::wake::Wake;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The bell of one sleeper, shared by everybody who leaves work for it.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asleep: AtomicBool,
    wake: Wake,
}

// The sleeper says that it sleeps and then looks for work; a thread that leaves work does so and then looks whether it
// sleeps. With a fence between the two steps of each, at least one of them sees what the other has done.
impl Bell {
    /// One that nobody has rung.
    ///
    /// # Errors
    /// The process or the host is out of descriptors.
    pub fn new() -> io::Result<Bell> {
        let wake = Wake::new()?;
        let asleep = AtomicBool::new(false);
        Ok(Bell(Arc::new(Inner { asleep, wake })))
    }

    /// Wakes the sleeper, if it sleeps; called by any thread after it has left work. Never blocks.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        // Most often it is awake, and then this is a look at a word that nobody writes.
        if self.0.asleep.load(Ordering::Relaxed) && self.0.asleep.swap(false, Ordering::Relaxed) {
            self.0.wake.wake();
        }
    }

    /// The sleeper: calls `sleep` unless there is work. `is_idle` looks for it; `sleep` must end when this bell is
    /// readable, and have a bound of its own.
    pub fn sleep(&self, is_idle: impl FnOnce() -> bool, sleep: impl FnOnce()) {
        self.0.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if is_idle() {
            sleep();
        }
        self.0.asleep.store(false, Ordering::Relaxed);
    }

    /// The sleeper, when it finds the bell readable: makes it quiet.
    pub fn quieten(&self) {
        // A ring that is still on its way costs one more look for work.
        let _ = self.0.wake.quieten();
    }
}

impl AsFd for Bell {
    /// Becomes readable with a ring, until it is made quiet.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::clock::timespec;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Sleeps until there is other work than before; whether it came.
    fn sleep_until_changed(bell: &Bell, work: &AtomicU32, before: u32) -> bool {
        let mut woken = true;
        while woken && work.load(Ordering::Relaxed) == before {
            bell.sleep(
                || work.load(Ordering::Relaxed) == before,
                || {
                    let mut fds = [PollFd::new(bell, PollFlags::IN)];
                    // An interrupted one is as good as a ring.
                    woken = poll(&mut fds, Some(&timespec(DEADLINE))) != Ok(0);
                    bell.quieten();
                },
            );
        }
        woken
    }

    #[test]
    fn no_ring_is_lost_however_two_threads_meet() {
        const ROUNDS: u32 = 20_000;
        let (ping, pong) = (Bell::new().unwrap(), Bell::new().unwrap());
        let (asked, answered) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    assert!(sleep_until_changed(&pong, &asked, round), "round {round}");
                    answered.store(round + 1, Ordering::Relaxed);
                    ping.ring();
                }
            });
            for round in 0..ROUNDS {
                asked.store(round + 1, Ordering::Relaxed);
                pong.ring();
                assert!(sleep_until_changed(&ping, &answered, round), "round {round}");
            }
        });
    }

    #[test]
    fn who_is_awake_is_not_rung_for() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(rustix::io::read(&bell, &mut [0; 8]).is_err());
        bell.sleep(|| false, || panic!("there is work"));
        bell.sleep(
            || true,
            || {
                bell.ring();
                bell.ring();
            },
        );
        assert!(rustix::io::read(&bell, &mut [0; 8]).is_ok());
    }
}
