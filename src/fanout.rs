//! Takes what waits in the queue, makes one chunk of it, and hands that to every client.
//!
//! Runs on: `fanout`, one.
//! Owns: the list of clients, the machine table, the numbering of events, the history. While it has nothing to do it
//! receives from the socket itself (`receiver`), which saves the wake of `ingest`.
//! Blocks on: an event or a request (250 ms), the rest of a burst (4 ms); never on a client, a log or a disk.
//! Can be stalled by: nothing but its own work; a turn is bounded by 512 events and one chunk.
//! Full queue means: of a client: that client catches up from the history; of requests: the asking thread waits up to 2
//! s.
//! Ends when: `ingest` has ended and the queue is empty; the clients' queues then end too.
//! Watched as: `fanout`, a core thread.

mod answers;
mod encoding;
mod gathering;
pub mod rates;
pub mod requests;
mod showing;
pub mod state_file;
mod surveys;

use crate::fanout::rates::Rates;
use crate::fanout::requests::{FanoutGauges, FanoutRequests};
use crate::intake::gauges::IngestGauges;
use crate::intake::queue::{Entry, IntakeRx};
use crate::intake::receiver::FanoutSleep;
use crate::journal::queue::JournalTx;
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::{Operation, at_client};
use crate::outbox::link::{OfferLimits, Offered, Subscriber};
use crate::process::clock::{epoch_seconds, monotonic_us, pause, suspended};
use crate::process::files::Slot;
use crate::process::limits;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, Obituaries, ThreadHandle};
use crate::process::words::{count, pick};
use crate::stream::batch::Batch;
use crate::stream::event::DropCause;
use crate::stream::history::History;
use crate::stream::machines::Machines;
use crate::stream::machines::survey::Survey;
use crate::stream::position::Epoch;
use crate::stream::protocol::EndReason;
use crate::stream::view::Views;
use crossbeam_channel::Sender;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A wait ended with a burst if, before all clients had what ended it, this many times as many events were there.
const BURST: usize = 4;
/// Most requests of one turn.
const TURN_REQUESTS_MAX: usize = 64;
/// The table is saved at most this often, so that a saved one is at most a second old.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// When the server stops: how long the fan-out waits for slots in the queues of clients with a backlog.
const LAST_HAND_OVER: Duration = Duration::from_millis(400);
/// When the server stops: how long it pauses between two looks for such slots, so that it looks 200 times at most.
const LAST_LOOK: Duration = Duration::from_millis(2);
/// Wishes for a new `initial` are answered together, at most this often: however fast clients ask, the making of
/// shared copies leaves the fan-out to its work.
const REFRESH_EVERY: Duration = Duration::from_millis(10);
/// When the server stops: how long the events that wait are still handed on; the rest is counted and said.
/// Together with [`LAST_HAND_OVER`] it stays below what the stop gives this thread, 1.25 s.
const LAST_EVENTS: Duration = Duration::from_millis(750);
/// How often the backlogs are added up for pages and the heartbeat; of a client that keeps up this reads one byte.
const BACKLOG_EVERY: Duration = Duration::from_millis(100);
/// Sends for which the clock is read once: a delivery time is wrong by what seven of them take, some 40 µs.
const SENDS_PER_LOOK: usize = 8;
/// How often the fan-out looks for silent machines.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Settings of the fan-out.
#[derive(Clone, Copy, Debug)]
pub struct FanoutSettings {
    pub limits: OfferLimits,
    /// Half of what a client's socket takes, so that one chunk never fills it.
    pub chunk_bytes_max: usize,
    /// A client that has not caught up for this long is ended.
    pub max_behind: Duration,
    pub machine_ttl: Option<Duration>,
    /// There is a limit of the address space: the history must not run into it.
    pub addresses_are_limited: bool,
}

/// Where the fan-out's work comes from.
#[derive(Debug)]
pub struct Sources {
    pub intake: IntakeRx,
    pub requests: FanoutRequests,
    /// Where it waits for both, and receives meanwhile.
    pub sleep: FanoutSleep,
}

/// What the fan-out begins with.
#[derive(Debug)]
pub struct Beginning {
    /// What was known before the start.
    pub machines: Machines,
    /// The numbering.
    pub epoch: Epoch,
    /// What is still known of its events.
    pub history: History,
    /// Gets every batch too.
    pub journal: Option<JournalTx>,
    pub state_slot: Option<Slot>,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Fanout {
    settings: FanoutSettings,
    intake: IntakeRx,
    requests: FanoutRequests,
    sleep: FanoutSleep,
    clients: Vec<Subscriber>,
    views: Views,
    /// The client that gets the next chunk first; it moves on, so that nobody is always last.
    first: usize,
    machines: Machines,
    rates: Rates,
    history: History,
    epoch: Epoch,
    journal: Option<JournalTx>,
    /// Taken from the queue but too large for the turn's chunk.
    carried: Option<Entry>,
    /// Machines of which the last event in the stream is an older one than the table's.
    turned_back: BTreeSet<Box<str>>,
    /// The last events that ended a wait were the first of a burst.
    bursts: bool,
    state_slot: Option<Slot>,
    saved: (u64, Instant),
    expired: Instant,
    refreshed: Instant,
    backlog_shown: Instant,
    /// Those who wait for the survey in work.
    surveys_wanted: Vec<Sender<Arc<Survey>>>,
    /// When the last turn began to take in its events, and how long the host had been suspended until then.
    turned: Instant,
    slept: Duration,
    stop: Stop,
    gauges: Arc<FanoutGauges>,
    ingest: Arc<IngestGauges>,
    beat: &'static Beat,
}

/// What follows a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another one.
    Again,
    /// Nothing: `ingest` has ended, and the queue is empty.
    Over,
}

impl Fanout {
    /// Ready to run.
    pub fn new(
        settings: FanoutSettings,
        sources: Sources,
        beginning: Beginning,
        gauges: Arc<FanoutGauges>,
        ingest: Arc<IngestGauges>,
        beat: &'static Beat,
        stop: Stop,
    ) -> Fanout {
        let now = Instant::now();
        let Sources {
            intake,
            requests,
            sleep,
        } = sources;
        let Beginning {
            machines,
            epoch,
            history,
            journal,
            state_slot,
        } = beginning;
        let version = machines.version();
        let mut fanout = Fanout {
            settings,
            intake,
            requests,
            sleep,
            clients: Vec::new(),
            views: Views::default(),
            first: 0,
            machines,
            rates: Rates::new(now),
            history,
            journal,
            epoch,
            carried: None,
            turned_back: BTreeSet::new(),
            bursts: false,
            state_slot,
            saved: (version, now),
            expired: now,
            refreshed: now,
            backlog_shown: now,
            surveys_wanted: Vec::new(),
            turned: now,
            slept: suspended(),
            stop,
            gauges,
            ingest,
            beat,
        };
        // Nobody knows what was while there was no server.
        fanout.machines.note_standstill(now);
        // Nobody else sets it.
        let _ = fanout.gauges.epoch.set(epoch);
        fanout.gauges.offered.store(fanout.history.newest(), Ordering::Release);
        fanout.show_machines();
        fanout.show_history();
        fanout
    }

    /// Starts the thread. `obituaries` gets its name when it ends.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self, obituaries: Obituaries) -> io::Result<ThreadHandle<()>> {
        threads::spawn("fanout", CORE_STACK_BYTES, Some(obituaries), move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        let mut deadline = None;
        loop {
            drill::obey(self.beat);
            if self.stop.requested() && Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + LAST_EVENTS)
            {
                self.discard();
                break;
            }
            if self.turn() == Turn::Over {
                break;
            }
        }
        self.hand_over_the_rest();
        self.save_at_last();
        // From here on the clients' threads are on their own, and nobody measures their backlogs any more.
        self.clients.clear();
        self.show_clients();
        self.show_backlog();
        self.beat.turn_to(Operation::Ended);
    }

    /// One turn: what waits in the queue goes to everybody, then requests are answered. Waits at most 250 ms for
    /// something to do. Public for `benches/micro`, which has no thread for it.
    pub fn turn(&mut self) -> Turn {
        let (entries, first, next) = self.gather();
        self.note_standstill();
        if !entries.is_empty() {
            self.publish(&entries);
        }
        if let Some(first) = first {
            self.bursts = entries.len() - first + self.intake.waiting() >= BURST * first;
        }
        self.answer_requests();
        self.go_on_with_survey();
        self.attend();
        self.housekeep();
        if self.carried.is_some() { Turn::Again } else { next }
    }

    /// When the server stops and more events wait than can be handed on in time.
    fn discard(&mut self) {
        let carried = self.carried.take();
        let waiting = std::iter::from_fn(|| self.intake.try_recv().ok());
        let (mut waited, mut lost) = (0, Vec::new());
        for entry in carried.into_iter().chain(waiting) {
            match entry {
                Entry::Datagram(_) | Entry::Recovered(..) | Entry::Own(_) => waited += 1,
                // Counted where it was lost.
                Entry::Lost(..) => lost.push(entry),
            }
        }
        if waited > 0 {
            self.ingest.drops.add_many(DropCause::QueueFull, waited);
            log::error!(
                "🚨 {} that still waited when the server stopped {} dropped; it was overloaded",
                count(waited, "event"),
                pick(waited, "was", "were")
            );
            lost.push(Entry::Lost(waited, DropCause::QueueFull));
        }
        // They take their numbers, so that clients that come back to the journal's next server learn of the loss.
        if !lost.is_empty() {
            self.publish(&lost);
        }
    }

    /// When the server stops: what waits for clients on our side goes to their writers, which flush it; clients that
    /// catch up go on doing so.
    fn hand_over_the_rest(&mut self) {
        let deadline = Instant::now() + LAST_HAND_OVER;
        let _doing = self.beat.begin(Operation::Broadcasting);
        loop {
            self.beat.step();
            self.answer_requests();
            self.let_go();
            let newest = self.history.newest();
            for client in &mut self.clients {
                client.refill();
                if !client.all_queued(newest) {
                    client.hurry();
                }
            }
            if self.clients.iter().all(|client| client.all_queued(newest)) {
                return;
            }
            if Instant::now() >= deadline {
                // The reason says that they miss something, which a clean end of the server would not.
                for client in self.clients.iter().filter(|client| !client.all_queued(newest)) {
                    client.link().end(EndReason::StoppingBehind);
                }
                return;
            }
            pause(LAST_LOOK);
        }
    }

    /// Checks, numbers, tables and encodes the entries, then hands them to everybody.
    fn publish(&mut self, entries: &[Entry]) {
        let Some(batch) = self.encode(entries) else {
            return;
        };
        self.show_machines();
        let batch = Arc::new(batch);
        if self.settings.addresses_are_limited && limits::is_short_of(batch.memory_bytes() as u64) {
            self.history.push_in_exchange(Arc::clone(&batch));
        } else {
            self.history.push(Arc::clone(&batch));
        }
        if let Some(journal) = &self.journal {
            journal.offer(&batch);
        }
        self.show_history();
        self.broadcast(&batch);
    }

    /// Hands `batch` to every client as it sees it, beginning with another one each time. A client that sees nothing of
    /// it, or catches up, costs nothing.
    fn broadcast(&mut self, batch: &Batch) {
        let clients = self.clients.len();
        let about = (clients as u64, batch.chunk().bytes().len() as u64);
        let doing = self.beat.begin_about(Operation::Broadcasting, about);
        let mut ended = false;
        let (mut sends, mut now_us) = (0, 0);
        let before_it = batch.seqs().start - 1;
        self.first = if clients == 0 { 0 } else { (self.first + 1) % clients };
        let (before, from) = self.clients.split_at_mut(self.first);
        for client in from.iter_mut().chain(before) {
            // Also for a client that sees nothing of it: finding that out takes time too.
            self.beat.step();
            if client.behind().is_some() {
                continue;
            }
            let Some(chunk) = self.views.encoded(client.view_place(), batch) else {
                continue;
            };
            let link = client.link();
            self.beat.show(at_client(link.id(), link.queued_bytes()));
            match client.offer(chunk, before_it, self.settings.limits) {
                Offered::Sent => {
                    if sends % SENDS_PER_LOOK == 0 {
                        now_us = monotonic_us();
                    }
                    sends += 1;
                    client.link().figures().delivered(chunk, now_us);
                }
                Offered::Queued => {}
                Offered::Behind => name_if_slow(client),
                Offered::Ended => ended = true,
            }
        }
        self.gauges.offered.store(batch.last(), Ordering::Release);
        self.views.clear();
        if ended {
            self.let_go();
        }
        log::debug!(
            "🔊 broadcast of {} to {} took {:.2}ms",
            count(batch.events(), "event"),
            count(clients, "client"),
            doing.elapsed().as_secs_f64() * 1000.0
        );
    }

    /// Lets go of clients that have ended; their writers notice by the end of their queues.
    fn let_go(&mut self) {
        self.clients
            .retain(|client| client.link().end_reason().is_none() && !client.link().is_over());
        self.show_clients();
    }

    fn housekeep(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.backlog_shown) >= BACKLOG_EVERY {
            self.show_backlog();
        }
        if let Some(ttl) = self.settings.machine_ttl
            && now.saturating_duration_since(self.expired) >= EXPIRE_EVERY
        {
            self.expired = now;
            let silent = self.machines.expire(ttl, now);
            if silent > 0 {
                log::info!(
                    "🧹 {} left the table after --machine-ttl of silence",
                    count(silent, "machine")
                );
                self.show_machines();
            }
        }
        self.machines.end_survey(now);
        self.machines.end_snapshot(now);
        if self.machines.version() != self.saved.0 && now.saturating_duration_since(self.saved.1) >= SAVE_EVERY {
            self.save();
        }
    }

    /// Leaves the table to thread `files`, also if only times have changed, and what was learned to `detector`.
    fn save_at_last(&mut self) {
        if self.machines.was_heard() {
            // No version of a table.
            self.saved.0 = u64::MAX;
        }
        self.save();
        let learned = self.machines.learned();
        // Nobody else sets it.
        let _ = self.gauges.learned_at_last.set((learned.version(), learned.copy()));
    }

    /// Leaves the table to thread `files`.
    fn save(&mut self) {
        let version = self.machines.version();
        if let Some(slot) = &self.state_slot
            && version != self.saved.0
        {
            slot.put(Arc::new(self.machines.saved(Instant::now(), epoch_seconds())));
        }
        self.saved = (version, Instant::now());
    }
}

/// Names a slow client in the log, if it is time to.
fn name_if_slow(client: &mut Subscriber) {
    let Some((after, unsaid)) = client.name_in_log() else {
        return;
    };
    let again = match unsaid {
        0 => String::new(),
        times => format!(" (and was {} since this was last said)", count(times, "more time")),
    };
    let link = client.link();
    log::info!(
        "🐌 client {} from {} is behind after event {after}{again}; it catches up from the history",
        link.id(),
        link.peer()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::requests::FanoutHandle;
    use crate::intake::IntakeSettings;
    use crate::intake::queue::{INTAKE_BYTES_MAX, IntakeTx, intake};
    use crate::liveness::beats::Beats;
    use crate::liveness::operation::SlowLimits;
    use crate::outbox::link::Delivery;
    use crate::process::bell::Bell;

    fn fanout() -> (Fanout, IntakeTx) {
        let limits = SlowLimits {
            broadcast: Duration::MAX,
            snapshot: Duration::MAX,
        };
        let beat = Beats::new(limits, 1).fanout;
        let stop = Stop::new().unwrap();
        let bell = Bell::new().unwrap();
        let intake_settings = IntakeSettings {
            queue_bytes_max: INTAKE_BYTES_MAX,
            patience: Duration::ZERO,
            event_bytes_max: 1024,
            socket_mode: 0o600,
        };
        let (tx, rx, _) = intake(intake_settings, beat, bell.clone(), stop.clone());
        let settings = FanoutSettings {
            limits: OfferLimits {
                delivery: Delivery::Direct,
                queue_bytes_max: 1,
            },
            chunk_bytes_max: 1024,
            max_behind: Duration::MAX,
            machine_ttl: None,
            addresses_are_limited: false,
        };
        let beginning = Beginning {
            machines: Machines::default(),
            epoch: Epoch::new(),
            history: History::new(1024 * 1024, 0),
            journal: None,
            state_slot: None,
        };
        let (_, requests) = FanoutHandle::new(bell.clone());
        let sleep = FanoutSleep::new(bell).unwrap();
        let sources = Sources {
            intake: rx,
            requests,
            sleep,
        };
        let fanout = Fanout::new(settings, sources, beginning, Arc::default(), Arc::default(), beat, stop);
        (fanout, tx)
    }

    #[test]
    fn what_a_stop_drops_takes_its_numbers_and_is_counted_once() {
        let (mut fanout, mut tx) = fanout();
        for _ in 0..3 {
            tx.push(b"{}", &mut || {});
        }
        tx.lose(DropCause::TooLarge);
        fanout.discard();
        assert_eq!(fanout.history.newest(), 4);
        let drops = &fanout.ingest.drops;
        let counts = (drops.count(DropCause::QueueFull), drops.count(DropCause::TooLarge));
        assert_eq!(counts, (3, 0), "the large one was counted where it was lost");
    }

    #[test]
    fn an_empty_datagram_takes_no_number_and_any_other_does() {
        let (mut fanout, _tx) = fanout();
        let datagram = |bytes: &[u8]| Entry::Datagram(bytes.into());
        fanout.publish(&[datagram(b""), datagram(b"{}"), datagram(b"x"), datagram(b"")]);
        assert_eq!(fanout.history.newest(), 2);
    }
}
