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
pub mod rates;
pub mod requests;
mod showing;
pub mod state_file;

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
use crate::process::clock::{epoch_seconds, monotonic_us, pause};
use crate::process::files::Slot;
use crate::process::limits;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, Obituaries, ThreadHandle};
use crate::process::words::{count, pick};
use crate::stream::batch::{Batch, BatchBuilder};
use crate::stream::event::Refused;
use crate::stream::event::beginning;
use crate::stream::event::{self, DropCause, Event, Seq};
use crate::stream::history::History;
use crate::stream::machines::{Applied, Machines};
use crate::stream::position::Epoch;
use crate::stream::protocol::EndReason;
use crate::stream::view::Views;
use crossbeam_channel::TryRecvError;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait for an event or a request.
const TURN: Duration = Duration::from_millis(250);
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
/// snapshots of 1 MiB leaves the fan-out to its work.
const REFRESH_EVERY: Duration = Duration::from_millis(10);
/// When the server stops: how long the events that wait are still handed on; the rest is counted and said.
/// Together with [`LAST_HAND_OVER`] it stays below what the stop gives this thread, 1.25 s.
const LAST_EVENTS: Duration = Duration::from_millis(750);
/// How often the backlogs are added up for pages and the heartbeat; of a client that keeps up this reads one byte.
const BACKLOG_EVERY: Duration = Duration::from_millis(100);
/// Sends for which the clock is read once: a delivery time is wrong by what seven of them take, some 40 µs.
const SENDS_PER_LOOK: usize = 8;
/// How often silent machines are looked for.
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
    /// The numbering, and what is still known of it.
    pub epoch: Epoch,
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
    stop: Stop,
    gauges: Arc<FanoutGauges>,
    ingest: Arc<IngestGauges>,
    beat: &'static Beat,
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
        let fanout = Fanout {
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
            stop,
            gauges,
            ingest,
            beat,
        };
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
    /// The host refuses another thread.
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
            if self.turn() {
                break;
            }
        }
        self.hand_over_the_rest();
        self.save();
        // From here on the clients' threads are on their own, and nobody measures their backlogs any more.
        self.clients.clear();
        self.show_clients();
        self.show_backlog();
        self.beat.turn_to(Operation::Ended);
    }

    /// One turn: what waits in the queue goes to everybody, then requests are answered. Waits at most 250 ms for
    /// something to do. Whether nothing more will come. Public for `benches/micro`, which has no thread for it.
    pub fn turn(&mut self) -> bool {
        let (entries, first, over) = self.gather();
        if !entries.is_empty() {
            self.publish(&entries);
        }
        if let Some(first) = first {
            self.bursts = entries.len() - first + self.intake.waiting() >= BURST * first;
        }
        self.answer_requests();
        self.attend();
        self.housekeep();
        over && self.carried.is_none()
    }

    /// When the server stops and more events wait than can be handed on in time.
    fn discard(&mut self) {
        let carried = self.carried.take();
        let waiting = std::iter::from_fn(|| self.intake.try_recv().ok());
        let (mut waited, mut lost) = (0, Vec::new());
        for entry in carried.into_iter().chain(waiting) {
            match entry {
                Entry::Datagram(_) | Entry::Recovered(..) => waited += 1,
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
            for client in &mut self.clients {
                client.refill();
            }
            if self.clients.iter().all(Subscriber::all_queued) {
                return;
            }
            if Instant::now() >= deadline {
                // They are told that they miss something, which a clean end of the server would not say.
                for client in self.clients.iter().filter(|client| !client.all_queued()) {
                    client.link().end(EndReason::StoppingBehind);
                }
                return;
            }
            pause(LAST_LOOK);
        }
    }

    /// Takes one turn's entries from the queue; waits for the first. Also how many there were when the wait ended, if
    /// there was one, and whether there will be no more.
    fn gather(&mut self) -> (Vec<Entry>, Option<usize>, bool) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut waited = false;
        let mut first = None;
        let mut lingers = 0;
        while entries.len() < TURN_EVENTS_MAX {
            let entry = match self.carried.take().map_or_else(|| self.intake.try_recv(), Ok) {
                Ok(entry) => entry,
                Err(TryRecvError::Disconnected) => return (entries, first, true),
                Err(TryRecvError::Empty) if entries.is_empty() && !waited => {
                    waited = true;
                    self.wait();
                    continue;
                }
                Err(TryRecvError::Empty) if entries.is_empty() || !waited => break,
                Err(TryRecvError::Empty) => {
                    first.get_or_insert(entries.len());
                    if self.linger(&mut lingers) { continue } else { break }
                }
            };
            if !entries.is_empty() && bytes + entry.bytes() > self.settings.chunk_bytes_max {
                self.carried = Some(entry);
                break;
            }
            bytes += entry.bytes();
            entries.push(entry);
        }
        (entries, first, false)
    }

    /// Where events come in bursts, waits a moment for more of them to come into the same turn; whether some came.
    fn linger(&mut self, lingers: &mut u32) -> bool {
        let clients = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        let is_crowd = self.clients.len() >= LINGER_CLIENTS_MIN;
        let most = if is_crowd { LINGERS_MAX } else { YIELDS_MAX };
        if !self.bursts || clients == 0 || *lingers == most {
            return false;
        }
        *lingers += 1;
        let _doing = self.beat.begin(Operation::Waiting);
        if is_crowd {
            pause(LINGER_PER_CLIENT.saturating_mul(clients).min(LINGER_MAX));
        } else {
            std::thread::yield_now();
        }
        !self.intake.is_idle()
    }

    /// Blocks until an event or a request is there, at most one turn; then an event is in the queue, unless `ingest` is
    /// about to put it there.
    fn wait(&mut self) {
        let doing = self.beat.begin(Operation::Waiting);
        let turn = if self.requests.attention.load(Ordering::Relaxed) {
            REFRESH_EVERY
        } else {
            TURN
        };
        let (intake, requests) = (&self.intake, &self.requests.rx);
        self.sleep.wait(turn, || intake.is_idle() && requests.is_empty());
        drop(doing);
        self.sleep.receive(self.beat);
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

    fn encode(&mut self, entries: &[Entry]) -> Option<Batch> {
        let (now, time) = (Instant::now(), epoch_seconds());
        let bytes = entries.iter().map(Entry::bytes).sum();
        let about = (entries.len() as u64, bytes as u64);
        let _doing = self.beat.begin_about(Operation::Encoding, about);
        let mut builder = BatchBuilder::new(self.history.newest() + 1, entries.len(), bytes);
        for entry in entries {
            self.beat.step();
            match entry {
                Entry::Lost(count, cause) => lose(&mut builder, *count, *cause),
                Entry::Datagram(datagram) => self.encode_event(&mut builder, datagram, None, (now, time)),
                Entry::Recovered(event) => {
                    self.encode_event(&mut builder, &event.datagram, Some(event), (now, time));
                }
            }
        }
        let published_us = monotonic_us();
        let batch = builder.finish(published_us, time)?;
        if batch.events() > 0 {
            self.gauges.events.fetch_add(batch.events() as u64, Ordering::Relaxed);
            self.gauges.last_event.store(time.to_bits(), Ordering::Relaxed);
            self.gauges
                .last_event_ms
                .store(published_us / 1000 + 1, Ordering::Relaxed);
        }
        Some(batch)
    }

    /// One event; `recovered` is where it comes from if not from the socket.
    fn encode_event(
        &mut self,
        builder: &mut BatchBuilder,
        datagram: &[u8],
        recovered: Option<&Refused>,
        now: (Instant, f64),
    ) {
        match event::check(datagram) {
            Ok(event) => {
                note(&event, builder.next_seq(), datagram.len());
                match recovered {
                    None => say_applied(&self.machines.apply(&event, now.0, now.1)),
                    Some(recovered) => self.apply_late(&event, recovered.written, now.0),
                }
                let (machine, kind) = (event.machine.as_deref(), event.kind.as_deref());
                if recovered.is_none() {
                    self.count_rate(machine, now.0);
                }
                builder.push_as(recovered.map(|event| event.row), datagram, machine, kind);
            }
            Err(cause) => {
                self.refuse(cause, datagram);
                // Nothing at all was sent, so nothing is missing.
                if cause != DropCause::Empty {
                    builder.lose(1, cause.name());
                }
            }
        }
    }

    fn count_rate(&mut self, machine: Option<&str>, now: Instant) {
        if let Some(count) = machine.and_then(|machine| self.rates.count(machine, now)) {
            log::warn!(
                "⚠️ machine {} sends over {} events/s; is it in a loop? (said once a minute)",
                machine.unwrap_or_default(),
                count - 1
            );
        }
    }

    fn apply_late(&mut self, event: &Event<'_>, written: f64, now: Instant) {
        let late = self.machines.apply_late(event, written, now);
        say_applied(&late.applied);
        let has_state = event.state.is_some();
        let Some(machine) = event.machine.as_deref() else {
            return;
        };
        if late.turns_back {
            self.turned_back.insert(machine.into());
        } else if has_state {
            self.turned_back.remove(machine);
        }
    }

    fn refuse(&self, cause: DropCause, datagram: &[u8]) {
        let total = self.ingest.drops.add(cause);
        if cause == DropCause::Empty {
            log::debug!("ignored an empty datagram ({total} so far)");
        } else {
            log::warn!(
                "⚠️ dropped an event: {}; it begins {} ({total} so far)",
                cause.text(),
                beginning(datagram)
            );
        }
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
                    "🧹 {} left the snapshot after --machine-ttl of silence",
                    count(silent, "machine")
                );
                self.show_machines();
            }
        }
        if self.machines.version() != self.saved.0 && now.saturating_duration_since(self.saved.1) >= SAVE_EVERY {
            self.save();
        }
    }

    /// Leaves the table to thread `files`.
    fn save(&mut self) {
        let version = self.machines.version();
        if let Some(slot) = &self.state_slot
            && version != self.saved.0
        {
            slot.put(Arc::new(self.machines.saved(epoch_seconds())));
        }
        self.saved = (version, Instant::now());
    }
}

/// Logs an event as it is taken in.
fn note(event: &Event<'_>, seq: Seq, len: usize) {
    log::debug!(
        "📥 event {seq}: {} of {}, {}",
        event.kind.as_deref().unwrap_or("(no type)"),
        event.machine.as_deref().unwrap_or("(no machine)"),
        count(len, "byte"),
    );
}

/// Logs what applying an event did, where a person may have to act.
fn say_applied(applied: &Applied) {
    match applied {
        Applied::Nothing => {}
        Applied::Evicted(evicted) => log::warn!(
            "⚠️ the snapshot would have passed 1 MiB, which clients do not take: {} that {} silent \
             longest left it; `threadcast forget NAME` removes what nobody needs",
            count(*evicted, "machine"),
            pick(*evicted, "was", "were")
        ),
        Applied::Untabled => log::warn!(
            "⚠️ an event or a row names a machine that is too large for the snapshot (name, state or config_type over \
             16 KiB); an event is forwarded, but the machine is not in the table"
        ),
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

/// Events are missing here: they take their numbers.
fn lose(builder: &mut BatchBuilder, lost: u64, cause: DropCause) {
    builder.lose(lost, cause.name());
    if cause == DropCause::QueueFull {
        log::error!(
            "🚨 {} {} dropped before number {}, because the fan-out had stood still",
            count(lost, "event"),
            pick(lost, "was", "were"),
            builder.next_seq()
        );
    }
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
