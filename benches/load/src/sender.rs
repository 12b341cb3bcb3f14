//! The engine of the generator: a thread of its own that sends, as engines are processes of their own, and blocks when
//! the server's socket is full, as they do.

use crate::case::Pace;
use crate::event::Events;
use crate::machine::now_ns;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Thread, park_timeout, sleep};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// Numbers that can be under way.
pub const RING: usize = 1 << 20;
/// A full socket, and a full window, are looked at again after so long, so that the end of the phase is noticed.
const LOOK: Duration = Duration::from_millis(50);
/// An event that is sent later than this after it was due has waited for the ones before it.
const LATE: u64 = SECOND / 1000;

/// What the sending and the receiving thread share.
#[derive(Debug)]
pub struct Shared {
    /// Events sent: the number of the next.
    pub sent: AtomicU64,
    /// All below this number have arrived everywhere.
    pub complete: AtomicU64,
    /// When each was sent.
    sent_ns: Box<[AtomicU64]>,
    /// The sender waits for the window.
    waits: AtomicBool,
}

impl Shared {
    pub fn new() -> Shared {
        Shared {
            sent: AtomicU64::new(0),
            complete: AtomicU64::new(0),
            sent_ns: (0..RING).map(|_| AtomicU64::new(0)).collect(),
            waits: AtomicBool::new(false),
        }
    }

    pub fn sent_at(&self, number: u64) -> u64 {
        self.sent_ns[number as usize % RING].load(Ordering::Relaxed)
    }

    /// Everything below `number` has arrived.
    pub fn completed(&self, number: u64, sender: &Thread) {
        self.complete.store(number, Ordering::SeqCst);
        if self.waits.load(Ordering::SeqCst) && self.waits.swap(false, Ordering::SeqCst) {
            sender.unpark();
        }
    }

    fn under_way(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) - self.complete.load(Ordering::SeqCst)
    }

    /// Blocks until less than `window` is under way, at most a look.
    fn wait_for_window(&self, window: u64) {
        self.waits.store(true, Ordering::SeqCst);
        if self.under_way() >= window {
            park_timeout(LOOK);
        }
        self.waits.store(false, Ordering::SeqCst);
    }
}

/// Sends to one server's socket.
#[derive(Debug)]
pub struct Sender<'a> {
    socket: UnixDatagram,
    events: &'a Events,
    shared: &'a Shared,
}

impl<'a> Sender<'a> {
    pub fn new(path: &Path, events: &'a Events, shared: &'a Shared) -> io::Result<Sender<'a>> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_write_timeout(Some(LOOK))?;
        Ok(Sender { socket, events, shared })
    }

    /// Sends until `deadline`.
    ///
    /// # Errors
    /// The server is not there any more, or refuses an event.
    pub fn run(&self, pace: Pace, deadline: u64) -> io::Result<()> {
        let begun = now_ns();
        let (mut paced, mut text) = (0, Vec::new());
        let mut number = self.shared.sent.load(Ordering::Relaxed);
        loop {
            let now = now_ns();
            if now >= deadline {
                return Ok(());
            }
            let window = match pace {
                Pace::Loop(window) => window,
                Pace::Ingest | Pace::Rate(_) | Pace::BurstThenRate(_) => RING as u64,
                Pace::Idle => return Ok(()),
            };
            if self.shared.under_way() >= window {
                self.shared.wait_for_window(window);
                continue;
            }
            let mut since = None;
            if let Pace::Rate(rate) | Pace::BurstThenRate(rate) = pace {
                let due = begun + paced * SECOND / u64::from(rate);
                if due > now {
                    sleep(Duration::from_nanos(due.min(deadline) - now));
                    continue;
                }
                // What a server that takes no events has held up counts from when it was due; a late timer is ours.
                since = (now > due + LATE).then_some(due);
            }
            self.events.write(number, &mut text);
            // Before the sending: it may have arrived everywhere when the call returns.
            self.shared.sent_ns[number as usize % RING].store(since.unwrap_or_else(now_ns), Ordering::Relaxed);
            match self.socket.send(&text) {
                Ok(_) => {
                    number += 1;
                    paced += 1;
                    self.shared.sent.store(number, Ordering::SeqCst);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
