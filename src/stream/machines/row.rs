//! One row of the table: what is known of a machine, and where it comes from.

use super::dwell::Dwell;
use super::rate::Rate;
use crate::process::clock::json_seconds;
use crate::stream::event::Event;
use std::borrow::Cow;
use std::time::Instant;

/// Longest trigger that is kept; of a longer one, the beginning. Beside the rows, which the snapshot bounds, triggers
/// take 2 MiB at most.
const TRIGGER_BYTES_MAX: usize = 256;

/// What is known of a machine.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) current_state: Option<Box<str>>,
    pub(super) config_type: Option<Box<str>>,
    pub(super) metadata: Option<Box<str>>,
    /// A JSON number, or `null`.
    pub(super) last_activity: String,
    /// The row as snapshots carry it.
    pub(super) json: Vec<u8>,
    /// When it was last heard of; decides who gives way.
    pub(super) heard: Instant,
    /// When it entered its state, if that is known.
    pub(super) entered: Option<Instant>,
    /// Its stay in that state, as it teaches and is judged.
    pub(super) dwell: Dwell,
    /// When its last event happened, if that is known: not the start of the server, as in `heard`.
    pub(super) event: Option<Instant>,
    /// `event_trigger` of its last event that had one.
    pub(super) trigger: Option<Box<str>>,
    pub(super) rate: Rate,
    /// Where its state and `last_activity` come from.
    pub(super) origin: Origin,
    /// What is known of the process that wrote its row in the engine's database.
    pub(super) process: Process,
    /// It has a row there, as far as was read last.
    pub(super) in_database: bool,
    /// Nothing else was heard of it since the start.
    pub(super) from_database: bool,
}

/// When an event came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// From here on its machine is silent.
    pub(super) heard: Instant,
    /// When it happened, if that is known.
    pub(super) happened: Option<Instant>,
    /// The slot in which it counts in the rate of its machine; `None`: it came too late for that.
    pub(super) slot: Option<u32>,
}

impl Arrival {
    /// Returns whether it came by the socket, just now.
    pub(super) fn is_live(&self) -> bool {
        self.slot.is_some()
    }
}

/// Where a state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An event as it happened: a row counts only if it is newer.
    Event,
    /// An event that came late: of both, rows and events that were on their way, only newer ones count.
    LateEvent,
    /// A row: what the database says now counts, and events that are not older.
    Database,
}

/// The process that wrote a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// A sign of life without an event.
    Lives,
    /// The row is stale, unless its machine was heard of since.
    Gone,
    /// The row does not say which it was, or we cannot see it, or there is no row.
    Unknown,
}

impl Row {
    pub(super) fn new(heard: Instant) -> Row {
        Row {
            current_state: None,
            config_type: None,
            metadata: None,
            last_activity: "null".into(),
            json: Vec::new(),
            heard,
            entered: None,
            dwell: Dwell::seen(heard),
            event: None,
            trigger: None,
            rate: Rate::default(),
            origin: Origin::Database,
            process: Process::Unknown,
            in_database: false,
            from_database: false,
        }
    }

    /// An event came from its machine: even if the process of its row is gone, the machine is not.
    pub(super) fn hear(&mut self, arrival: &Arrival) {
        self.heard = arrival.heard;
        // None is before every time.
        self.event = self.event.max(arrival.happened);
        if let Some(slot) = arrival.slot {
            self.rate.count(slot);
        }
        self.from_database = false;
        if self.process == Process::Gone {
            self.process = Process::Unknown;
        }
    }

    /// Returns whether there is something newer here than an event that comes as it happened: it was on its way while
    /// its engine could not send the next one.
    pub(super) fn has_overtaken(&self, event: &Event<'_>) -> bool {
        self.origin != Origin::Event && event.time.is_some_and(|time| self.seconds() > seconds(Some(time)))
    }

    /// Takes in an event with this state, which arrived so, at `epoch` seconds on the wall.
    pub(super) fn enter(&mut self, state: &str, event: &Event<'_>, arrival: &Arrival, epoch: f64) {
        if self.current_state.as_deref() != Some(state) {
            // Of the first event of a machine only its type says whether it has just entered the state.
            let enters = || matches!(event.kind.as_deref(), Some("state_change" | "machine_registered"));
            let is_known = self.current_state.is_some() || enters();
            self.entered = arrival.happened.filter(|_| is_known);
            self.current_state = Some(state.into());
        }
        if let Some(trigger) = event.trigger.as_deref()
            && self.trigger.as_deref() != Some(trigger)
        {
            self.trigger = Some(beginning(trigger).into());
        }
        let config_type = event.config_type.as_deref();
        if config_type.is_some() && self.config_type.as_deref() != config_type {
            self.config_type = config_type.map(Into::into);
        }
        self.last_activity.clear();
        match event.time {
            Some(time) => self.last_activity.push_str(time),
            None => self.last_activity = json_seconds(epoch),
        }
        self.origin = Origin::Event;
        self.hear(arrival);
    }

    /// `process` is what is known of its process now. Silence counts from the death of one that lived.
    pub(super) fn set_process(&mut self, process: Process, now: Instant) {
        let before = std::mem::replace(&mut self.process, process);
        if before == Process::Lives && process != Process::Lives {
            self.heard = now;
        }
    }

    /// Returns whether clients see that its process is gone.
    pub(super) fn is_stale(&self) -> bool {
        self.process == Process::Gone
    }

    /// `last_activity`, seconds since the epoch; before everything where there is none.
    pub(super) fn seconds(&self) -> f64 {
        seconds(Some(&self.last_activity))
    }

    /// Writes the row anew, keys in the original's order with `id` behind them.
    pub(super) fn encode(&mut self, machine: &str) {
        let json = &mut self.json;
        json.clear();
        json.extend_from_slice(b"{\"machine_name\":");
        let name = json.len();
        put_string(json, Some(machine));
        let name = name..json.len();
        json.extend_from_slice(b",\"current_state\":");
        put_string(json, self.current_state.as_deref());
        json.extend_from_slice(b",\"last_activity\":");
        json.extend_from_slice(self.last_activity.as_bytes());
        json.extend_from_slice(b",\"metadata\":");
        put_string(json, self.metadata.as_deref());
        json.extend_from_slice(b",\"config_type\":");
        put_string(json, self.config_type.as_deref());
        json.extend_from_slice(b",\"id\":");
        json.extend_from_within(name);
        if self.process == Process::Gone {
            json.extend_from_slice(b",\"stale\":true");
        }
        json.push(b'}');
    }
}

/// At most [`TRIGGER_BYTES_MAX`] of `trigger`.
pub(super) fn beginning(trigger: &str) -> Cow<'_, str> {
    if trigger.len() <= TRIGGER_BYTES_MAX {
        return trigger.into();
    }
    let end = trigger.floor_char_boundary(TRIGGER_BYTES_MAX - '…'.len_utf8());
    format!("{}…", &trigger[..end]).into()
}

/// The seconds of a JSON number; before everything without one.
pub(super) fn seconds(number: Option<&str>) -> f64 {
    number.and_then(|text| text.parse().ok()).unwrap_or(f64::NEG_INFINITY)
}

/// Writes a JSON string, or `null`.
pub(in crate::stream) fn put_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => serde_json::to_writer(out, text).expect("writing a string to a Vec cannot fail"),
        None => out.extend_from_slice(b"null"),
    }
}
