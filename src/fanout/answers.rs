//! What other threads ask of the fan-out, answered in its own turns.

use super::encoding::say_applied;
use super::{Fanout, REFRESH_EVERY, TURN_REQUESTS_MAX};
use crate::fanout::requests::{Found, Joined, Missed, PastPage, Request, Start};
use crate::intake::queue::Entry;
use crate::liveness::operation::{Operation, at_client};
use crate::outbox::link::{Offered, StateAsOf, Subscriber};
use crate::process::clock::{epoch_seconds, json_seconds};
use crate::stream::event::DropCause;
use crate::stream::event::Refused;
use crate::stream::history::Past;
use crate::stream::machines::Snapshot;
use crate::stream::position::Position;
use crate::stream::protocol::Protocol;
use crate::stream::protocol::v1::{CAUSE_EPOCH, CAUSE_HISTORY, Gap};
use crate::stream::view::{View, Views};
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Fanout {
    pub(super) fn answer_requests(&mut self) {
        for _ in 0..TURN_REQUESTS_MAX {
            let Ok(request) = self.requests.rx.try_recv() else {
                return;
            };
            let _doing = self.beat.begin(Operation::Answering);
            match request {
                Request::Nudge => {}
                Request::CatchUp {
                    subscriber,
                    start,
                    reply,
                } => self.catch_up(subscriber, start, &reply),
                Request::Past { before, reply } => {
                    let _ = reply.try_send(PastPage {
                        epoch: self.epoch,
                        batches: self.history.before(before),
                        reaches: self.history.reaches(),
                    });
                }
                Request::Missed { client, reply } => self.answer_missed(client, &reply),
                Request::Snapshot { reply } => {
                    let _ = reply.try_send(self.snapshot());
                }
                Request::Survey { reply } => {
                    self.want_survey(reply);
                }
                Request::Findings { findings, reply } => {
                    let _ = reply.try_send(self.take_findings(findings));
                }
                Request::TakeIn { found, reply } => {
                    self.take_in(found);
                    let _ = reply.try_send(());
                }
                Request::Forget { machine, reply } => {
                    let _ = reply.try_send(self.forget(&machine));
                }
            }
        }
    }

    /// Brings a client to the live stream: it catches up from its position if that is one of ours, else it gets the
    /// state as of now.
    pub(super) fn catch_up(&mut self, mut subscriber: Subscriber, start: Start, reply: &Sender<Joined>) {
        let newest = self.history.newest();
        let since = match start {
            Start::State => None,
            Start::After(position) => Some(position),
            // The oldest may have gone since it was looked for.
            Start::Past(Position { epoch, seq }) => Some(Position {
                epoch,
                seq: seq.max(self.history.reaches()),
            }),
        };
        subscriber.set_view(self.views.place(subscriber.view()));
        let known = since.filter(|since| since.epoch == self.epoch && since.seq <= newest);
        let mut joined = Joined {
            epoch: self.epoch,
            newest,
            after: known.map(|since| since.seq),
            machines: 0,
        };
        // First in its queue, which takes one parcel of any size; every later event comes behind it.
        let offered = match joined.after {
            Some(after) => {
                if let Start::After(_) = start {
                    subscriber.link().figures().tell_return();
                }
                subscriber.fall_behind(after)
            }
            None => {
                let gap = since.map(|_| Gap {
                    range: None,
                    count: None,
                    cause: CAUSE_EPOCH,
                });
                let state = self.state(gap, None);
                joined.machines = state.snapshot.machines();
                let offered = subscriber.offer_state(state);
                if subscriber.conflates() {
                    subscriber.conflate_from(newest)
                } else {
                    offered
                }
            }
        };
        // A client whose thread does not wait any more is not joined.
        if offered != Offered::Ended && reply.try_send(joined).is_ok() {
            self.clients.push(subscriber);
            self.show_clients();
        }
    }

    /// Gives a client that is behind what it misses: the next batches of the history, or the state now.
    pub(super) fn answer_missed(&mut self, id: u64, reply: &Sender<Missed>) {
        let newest = self.history.newest();
        let Some(index) = self.clients.iter().position(|client| client.link().id() == id) else {
            return;
        };
        let Some(after) = self.clients[index].behind() else {
            return;
        };
        let bytes_max = self.settings.limits.queue_bytes_max;
        let mut missed = match self.history.after(after, bytes_max) {
            Past::Batches { batches, complete } => Missed::Batches {
                batches,
                after,
                complete,
                state: None,
            },
            Past::Gone => {
                let gap = Gap {
                    range: Some((after + 1, newest)),
                    count: self.history.count_after(after),
                    cause: CAUSE_HISTORY,
                };
                Missed::State(self.state(Some(gap), None))
            }
        };
        let client = &mut self.clients[index];
        if let Missed::Batches { batches, .. } = &missed
            && client.view().protocol == Protocol::Plain
            && batches.iter().any(|batch| batch.has_recovered())
        {
            // As in `take_in`; it comes when the client is live.
            client.link().want_refresh();
        }
        match &missed {
            Missed::Batches {
                batches,
                complete: false,
                ..
            } => client.set_caught_up_to(batches.last().map_or(after, |batch| batch.last())),
            Missed::Batches { complete: true, .. } | Missed::State(_) => {
                client.set_live(newest);
                if client.awaits_refresh() {
                    // It has asked for that meanwhile.
                    self.requests.attention.store(true, Ordering::Relaxed);
                }
            }
        }
        if let Missed::Batches {
            complete: true, state, ..
        } = &mut missed
            && client.conflates()
            && client.awaits_refresh()
        {
            let view = begin_refresh(client, &mut self.views);
            *state = Some(Box::new(self.state(None, view)));
            self.clients[index].set_live(newest);
        }
        // Only a client that ends does not wait for the answer.
        let _ = reply.try_send(missed);
    }

    /// The state as of now.
    pub(super) fn state(&mut self, gap: Option<Gap>, view: Option<Arc<View>>) -> StateAsOf {
        StateAsOf {
            snapshot: self.snapshot(),
            as_of: self.history.newest(),
            gap,
            view,
        }
    }

    pub(super) fn snapshot(&mut self) -> Arc<Snapshot> {
        let about = (self.machines.len() as u64, 0);
        let _doing = self.beat.begin_about(Operation::Snapshot, about);
        self.machines.snapshot(Instant::now(), epoch_seconds())
    }

    /// Removes a machine by hand. Everybody is told as if it had ended, so that no card stays.
    pub(super) fn forget(&mut self, machine: &str) -> bool {
        let Some(config_type) = self.machines.config_type(machine) else {
            return false;
        };
        // In the engines' own spelling: keys in this order, a space after colons and commas.
        let (name, config_type) = (json_string(Some(machine)), json_string(config_type));
        let time = json_seconds(epoch_seconds());
        let payload = format!(r#"{{"machine_name": {name}, "config_type": {config_type}, "timestamp": {time}}}"#);
        let told = format!(r#"{{"machine_name": {name}, "type": "machine_terminated", "payload": {payload}}}"#);
        log::info!("🧹 machine {machine} forgotten by hand");
        self.publish(&[Entry::Datagram(told.into_bytes().into_boxed_slice())]);
        // A person who looks now looks whether it is gone.
        self.machines.renew_survey();
        true
    }

    /// Takes in what was found in the engine's database.
    fn take_in(&mut self, found: Found) {
        let recovered = found.events.into_iter();
        let entries: Vec<Entry> = recovered.map(|event| self.late_entry(event)).collect();
        if !entries.is_empty() {
            self.publish(&entries);
        }
        let (now, epoch) = (Instant::now(), epoch_seconds());
        for row in &found.rows {
            self.beat.step();
            let applied = self.machines.merge(row, self.settings.machine_ttl, now, epoch);
            say_applied(&applied);
        }
        for machine in &found.vanished {
            self.machines.vanish(machine, now);
        }
        if let Some(to) = found.recovered_to {
            self.machines.set_recovered_to(to);
        }
        if found.all_recovered && !std::mem::take(&mut self.turned_back).is_empty() {
            // Who goes by numbers sees that they came late; to anybody else an older state now looks like the newest.
            self.refresh(|client| client.view().protocol == Protocol::Plain);
        }
        if found.came_late {
            self.refresh(|_| true);
        }
        self.show_machines();
    }

    /// A refused event as an entry of a turn.
    fn late_entry(&self, event: Refused) -> Entry {
        if !event.datagram.is_empty() {
            return Entry::Recovered(Box::new(event));
        }
        let cause = DropCause::TooLarge;
        let total = self.ingest.drops.add(cause);
        log::warn!(
            "⚠️ dropped an event that an engine could not send: {} ({total} so far)",
            cause.text()
        );
        Entry::Lost(1, cause)
    }

    /// Those get the state as of now, as if they had asked for it.
    fn refresh(&self, whom: impl Fn(&Subscriber) -> bool) {
        for client in self.clients.iter().filter(|client| whom(client)) {
            client.link().want_refresh();
        }
        self.requests.attention.store(true, Ordering::Relaxed);
    }

    /// Looks through the clients, if somebody asked for it.
    pub(super) fn attend(&mut self) {
        if !self.requests.attention.swap(false, Ordering::Acquire) {
            return;
        }
        let _doing = self.beat.begin(Operation::Answering);
        self.let_go();
        for client in &mut self.clients {
            client.refill();
            if client.awaits_refresh() {
                client.hurry();
            }
        }
        if !self.clients.iter().any(Subscriber::wants_refresh) {
            return;
        }
        if self.refreshed.elapsed() < REFRESH_EVERY {
            // Soon; `wait` is short as long as this flag is set.
            self.requests.attention.store(true, Ordering::Relaxed);
            return;
        }
        let snapshot = self.snapshot();
        let as_of = self.history.newest();
        for client in self.clients.iter_mut().filter(|client| client.wants_refresh()) {
            let link = client.link();
            self.beat.show(at_client(link.id(), link.queued_bytes()));
            let view = begin_refresh(client, &mut self.views);
            let state = StateAsOf {
                snapshot: Arc::clone(&snapshot),
                as_of,
                gap: None,
                view,
            };
            // A client that ends needs none.
            let _ = client.offer_state(state);
            if client.conflates() {
                let _ = client.conflate_from(as_of);
            }
        }
        self.refreshed = Instant::now();
    }
}

/// Takes in hand that a client wants the state anew. Returns how it sees the stream from here on, if that is another
/// way than before.
fn begin_refresh(client: &mut Subscriber, views: &mut Views) -> Option<Arc<View>> {
    let view = client.begin_refresh()?;
    let placed = views.place(&view);
    client.set_view((placed.0, Arc::clone(&placed.1)));
    Some(placed.1)
}

/// A JSON string, or `null`.
pub(super) fn json_string(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), |text| serde_json::Value::from(text).to_string())
}
