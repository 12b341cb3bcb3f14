//! Checks, numbers and tables the entries of one turn, and makes a batch of them.

use super::Fanout;
use crate::intake::queue::Entry;
use crate::liveness::operation::Operation;
use crate::process::clock::{epoch_seconds, monotonic_us};
use crate::process::words::{count, pick};
use crate::stream::batch::{Batch, BatchBuilder};
use crate::stream::event::{self, DropCause, Event, Refused, Seq, beginning};
use crate::stream::machines::Applied;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Fanout {
    pub(super) fn encode(&mut self, entries: &[Entry]) -> Option<Batch> {
        let (now, time) = (Instant::now(), epoch_seconds());
        let bytes = entries.iter().map(Entry::bytes).sum();
        let about = (entries.len() as u64, bytes as u64);
        let _doing = self.beat.begin_about(Operation::Encoding, about);
        let mut builder = BatchBuilder::new(self.history.newest() + 1, entries.len(), bytes);
        for entry in entries {
            self.beat.step();
            match entry {
                Entry::Lost(count, cause) => {
                    self.machines.note_loss();
                    lose(&mut builder, *count, *cause);
                }
                // It changes nothing in the table.
                Entry::Own(notice) => builder.push(&notice.json, notice.machine.as_deref(), Some(notice.kind.name())),
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
        }
        // An event of our own is no sign that engines send any.
        if batch.events() > 0 && !batch.has_own() {
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
                    Some(recovered) => self.apply_late(&event, recovered.written, now),
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
                if may_be_a_change(cause) {
                    self.machines.note_loss();
                }
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

    fn apply_late(&mut self, event: &Event<'_>, written: f64, now: (Instant, f64)) {
        let late = self.machines.apply_late(event, written, now.0, now.1);
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
}

/// Returns whether a datagram that was refused for this may have been a machine's change of state.
fn may_be_a_change(cause: DropCause) -> bool {
    match cause {
        DropCause::Empty | DropCause::NotAnObject | DropCause::ReservedType => false,
        DropCause::TooLarge | DropCause::NotUtf8 | DropCause::NotJson => true,
        DropCause::NotUnicode | DropCause::QueueFull => true,
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
pub(super) fn say_applied(applied: &Applied) {
    match applied {
        Applied::Nothing => {}
        Applied::Evicted(evicted) => log::warn!(
            "⚠️ the machine table is full (--max-machines, --machine-bytes): {} that {} silent longest left it; their \
             next events bring them back. Raise the bound, or let silent machines go sooner (--machine-ttl)",
            count(*evicted, "machine"),
            pick(*evicted, "was", "were")
        ),
        Applied::Untabled => log::warn!(
            "⚠️ an event or a row names a machine that is too large for the table (name, state or config_type over 16 KiB, \
             or over 40 KiB as JSON); an event is forwarded, but the machine is not in the table"
        ),
    }
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
