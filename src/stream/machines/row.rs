//! One row of the table: what is known of a machine, and where it comes from.

use std::time::Instant;

/// What is known of a machine.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) current_state: Option<Box<str>>,
    pub(super) config_type: Option<Box<str>>,
    pub(super) metadata: Option<Box<str>>,
    /// A JSON number, or `null`.
    pub(super) last_activity: Box<str>,
    /// The row as snapshots carry it.
    pub(super) json: Vec<u8>,
    /// When it was last heard of; decides who gives way.
    pub(super) heard: Instant,
    /// Where its state and `last_activity` come from.
    pub(super) origin: Origin,
    /// What is known of the process that wrote its row in the engine's database.
    pub(super) process: Process,
    /// It has a row there, as far as was read last.
    pub(super) in_database: bool,
    /// Nothing else was heard of it since the start.
    pub(super) from_database: bool,
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
            origin: Origin::Database,
            process: Process::Unknown,
            in_database: false,
            from_database: false,
        }
    }

    /// An event came from its machine: even if the process of its row is gone, the machine is not.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.from_database = false;
        if self.process == Process::Gone {
            self.process = Process::Unknown;
        }
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
        put_string(json, Some(machine));
        json.extend_from_slice(b",\"current_state\":");
        put_string(json, self.current_state.as_deref());
        json.extend_from_slice(b",\"last_activity\":");
        json.extend_from_slice(self.last_activity.as_bytes());
        json.extend_from_slice(b",\"metadata\":");
        put_string(json, self.metadata.as_deref());
        json.extend_from_slice(b",\"config_type\":");
        put_string(json, self.config_type.as_deref());
        json.extend_from_slice(b",\"id\":");
        put_string(json, Some(machine));
        if self.process == Process::Gone {
            json.extend_from_slice(b",\"stale\":true");
        }
        json.push(b'}');
    }
}

/// The seconds of a JSON number; before everything without one.
pub(super) fn seconds(number: Option<&str>) -> f64 {
    number.and_then(|text| text.parse().ok()).unwrap_or(f64::NEG_INFINITY)
}

fn put_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => serde_json::to_writer(out, text).expect("writing a string to a Vec cannot fail"),
        None => out.extend_from_slice(b"null"),
    }
}
