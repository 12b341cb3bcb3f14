//! What one turn takes from the queue, and how the fan-out waits for it.

use super::{Fanout, REFRESH_EVERY, Turn};
use crate::intake::queue::Entry;
use crate::liveness::operation::Operation;
use crate::process::clock::pause;
use crossbeam_channel::TryRecvError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest wait for an event or a request.
const TURN: Duration = Duration::from_millis(250);
/// Pause between two slices of a survey, in which other threads may run.
const BETWEEN_SLICES: Duration = Duration::from_millis(1);
/// Most events of one turn, so that requests are answered soon; more of them would not make sends any cheaper.
const TURN_EVENTS_MAX: usize = 512;
/// If senders send in bursts, the fan-out waits for the rest before a turn, as long as more comes within this time per
/// client: a send costs some 3 µs per client, so it risks a fiftieth of the turn's own work to do that work once
/// instead of twice.
const LINGER_PER_CLIENT: Duration = Duration::from_nanos(50);
/// With fewer clients a timed wait would cost more than it saves: 500 clients are worth 25 µs, and the kernel may end a
/// wait 50 µs late (PR_SET_TIMERSLACK, prctl(2)).
const LINGER_CLIENTS_MIN: usize = 500;
/// With fewer clients than that, how many times in a turn the fan-out lets other threads run instead.
const YIELDS_MAX: u32 = 2;
/// Longest of these waits: that for 10,000 clients.
const LINGER_MAX: Duration = Duration::from_micros(500);
/// Most of these waits in a turn, so that a turn waits 4 ms at most.
const LINGERS_MAX: u32 = 8;

/// What waiting for the rest of a burst has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linger {
    /// More has come, or is about to.
    More,
    /// Nothing has, or no wait was worth it: the turn begins.
    Enough,
}

impl Fanout {
    /// Takes one turn's entries from the queue; waits for the first. Also how many there were when the wait ended, if
    /// there was one, and what follows the turn.
    pub(super) fn gather(&mut self) -> (Vec<Entry>, Option<usize>, Turn) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut waited = false;
        let mut first = None;
        let mut lingers = 0;
        while entries.len() < TURN_EVENTS_MAX {
            let entry = match self.carried.take().map_or_else(|| self.intake.try_recv(), Ok) {
                Ok(entry) => entry,
                Err(TryRecvError::Disconnected) => return (entries, first, Turn::Over),
                Err(TryRecvError::Empty) if entries.is_empty() && !waited => {
                    waited = true;
                    self.wait();
                    continue;
                }
                Err(TryRecvError::Empty) if entries.is_empty() || !waited => break,
                Err(TryRecvError::Empty) => {
                    first.get_or_insert(entries.len());
                    match self.linger(&mut lingers) {
                        Linger::More => continue,
                        Linger::Enough => break,
                    }
                }
            };
            if !entries.is_empty() && bytes + entry.bytes() > self.settings.chunk_bytes_max {
                self.carried = Some(entry);
                break;
            }
            bytes += entry.bytes();
            entries.push(entry);
        }
        (entries, first, Turn::Again)
    }

    /// Where events come in bursts, waits a moment for more of them to come into the same turn.
    fn linger(&mut self, lingers: &mut u32) -> Linger {
        let clients = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        let is_crowd = self.clients.len() >= LINGER_CLIENTS_MIN;
        let most = if is_crowd { LINGERS_MAX } else { YIELDS_MAX };
        if !self.bursts || clients == 0 || *lingers == most {
            return Linger::Enough;
        }
        *lingers += 1;
        let _doing = self.beat.begin(Operation::Waiting);
        if is_crowd {
            pause(LINGER_PER_CLIENT.saturating_mul(clients).min(LINGER_MAX));
        } else {
            std::thread::yield_now();
        }
        if self.intake.is_idle() {
            Linger::Enough
        } else {
            Linger::More
        }
    }

    /// Blocks until an event or a request is there, at most one turn; then an event is in the queue, unless `ingest` is
    /// about to put it there.
    fn wait(&mut self) {
        let doing = self.beat.begin(Operation::Waiting);
        let turn = if !self.surveys_wanted.is_empty() {
            BETWEEN_SLICES
        } else if self.requests.attention.load(Ordering::Relaxed) {
            REFRESH_EVERY
        } else {
            TURN
        };
        let (intake, requests) = (&self.intake, &self.requests.rx);
        self.sleep.wait(turn, || intake.is_idle() && requests.is_empty());
        drop(doing);
        self.sleep.receive(self.beat);
    }
}
