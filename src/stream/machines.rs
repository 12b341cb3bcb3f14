//! The last state of each machine, and the snapshot made of it.
//!
//! Owned by thread `fanout`. Bounded by the size of its snapshot: clients such as Python's `websockets` end on a
//! message over 1 MiB, so the machines that have been silent longest give way, and are counted.

mod ends;
pub mod merge;
mod rate;
pub mod recovered;
pub mod row;
pub mod saved;
mod snapshot;
pub mod survey;

pub use self::snapshot::Snapshot;

use self::ends::Ends;
use self::rate::Slots;
use self::recovered::RecoveredTo;
use self::row::{Arrival, Process, Row};
use self::survey::Survey;
use crate::process::clock::json_seconds;
use crate::stream::batch::Item;
use crate::stream::event::{Event, check};
use crate::stream::history::History;
use crate::stream::position::Position;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows of a snapshot together: 1 MiB less the frame around them.
const ROWS_BYTES_MAX: usize = 1024 * 1024 - 1024;
/// Bytes of rows that are left when rows have given way: a sixteenth is freed at once, so that this is not done for
/// every event.
const ROWS_BYTES_AFTER_EVICTION: usize = ROWS_BYTES_MAX / 16 * 15;
/// A longer machine name, state or configuration is no sensible row: such an event is forwarded but not tabled.
const FIELD_BYTES_MAX: usize = 16 * 1024;
/// A snapshot of an unchanged table is given out again for this long; then its `timestamp` is renewed.
const SNAPSHOT_FRESH: Duration = Duration::from_secs(1);

/// A survey is given out again for this long, whatever changes meanwhile.
const SURVEY_FRESH: Duration = Duration::from_secs(1);

/// The table.
#[derive(Debug, Default)]
pub struct Machines {
    /// By name, in binary order, which is the order of the snapshot.
    rows: BTreeMap<Box<str>, Row>,
    rows_bytes: usize,
    /// Grows with every change that a snapshot shows.
    shown_version: u64,
    /// Grows with every change that the state file keeps.
    kept_version: u64,
    evicted: u64,
    untabled: u64,
    ends: Ends,
    recovered_to: Option<RecoveredTo>,
    /// When the state file was made that it comes from, in seconds since the epoch; 0 without one.
    saved: f64,
    /// The last snapshot, of which `shown_version`, and when it was made.
    cached: Option<(u64, Instant, Arc<Snapshot>)>,
    /// The last survey, while it is fresh.
    surveyed: Option<Arc<Survey>>,
    slots: Slots,
    /// Events came that alone were no reason to write the state file.
    heard_unsaved: bool,
}

/// What applying an event did that a person may have to be told.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    Nothing,
    /// This many machines had to give way.
    Evicted(usize),
    /// The event names a machine, but the row would be too large.
    Untabled,
}

impl Machines {
    /// Number of machines.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Grows with every change that the state file keeps: of the rows, and of what is known of the engine's database.
    pub fn version(&self) -> u64 {
        self.kept_version
    }

    /// Notes a change that a snapshot shows; the state file keeps it too.
    fn changed(&mut self) {
        self.shown_version += 1;
        self.kept_version += 1;
    }

    /// Machines that had to give way so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Events so far that named a machine too large for a row.
    pub fn untabled(&self) -> u64 {
        self.untabled
    }

    /// Takes in an event that arrived at `now` (`epoch` seconds on the wall).
    pub fn apply(&mut self, event: &Event<'_>, now: Instant, epoch: f64) -> Applied {
        let arrival = Arrival {
            heard: now,
            happened: Some(now),
            slot: Some(self.slots.number(now)),
        };
        self.apply_as(event, &arrival, epoch)
    }

    /// Takes in an event that arrived so, at `epoch` seconds on the wall.
    fn apply_as(&mut self, event: &Event<'_>, arrival: &Arrival, epoch: f64) -> Applied {
        let Some(machine) = event.machine.as_deref() else {
            return Applied::Nothing;
        };
        if event.kind.as_deref() == Some("machine_terminated") {
            let time = event.time.and_then(|time| time.parse().ok()).unwrap_or(epoch);
            self.end(machine, time);
            return Applied::Nothing;
        }
        let Some(state) = event.state.as_deref() else {
            self.hear(machine, arrival);
            return Applied::Nothing;
        };
        // Looked up once, because that is most of what an event costs here.
        let known = self.rows.get_mut(machine);
        if known.as_ref().is_some_and(|row| row.has_overtaken(event)) {
            self.hear(machine, arrival);
            return Applied::Nothing;
        }
        let config_type = event.config_type.as_deref();
        if [machine, state, config_type.unwrap_or("")]
            .iter()
            .any(|text| text.len() > FIELD_BYTES_MAX)
        {
            self.untabled += 1;
            return Applied::Untabled;
        }
        let row = match known {
            Some(row) => row,
            None => self
                .rows
                .entry(machine.into())
                .or_insert_with(|| Row::new(arrival.heard)),
        };
        row.enter(state, event, arrival, epoch);
        let before = row.json.len();
        row.encode(machine);
        self.rows_bytes = self.rows_bytes - before + row.json.len() + usize::from(before == 0);
        self.changed();
        self.evict()
    }

    /// An event without a state came from `machine`.
    fn hear(&mut self, machine: &str, arrival: &Arrival) {
        let Some(row) = self.rows.get_mut(machine) else {
            return;
        };
        let was_stale = row.is_stale();
        row.hear(arrival);
        self.heard_unsaved = true;
        if was_stale {
            let before = row.json.len();
            row.encode(machine);
            self.rows_bytes = self.rows_bytes - before + row.json.len();
            self.changed();
        }
    }

    /// Removes a machine that ended at `time`, seconds since the epoch. Returns whether there was one of that name.
    pub fn end(&mut self, machine: &str, time: f64) -> bool {
        let had_row = self.rows.get(machine).is_some_and(|row| row.in_database);
        self.ends.note(machine, time, had_row);
        self.remove(machine)
    }

    /// Removes a machine. Returns whether there was one of that name.
    pub fn remove(&mut self, machine: &str) -> bool {
        let Some(row) = self.rows.remove(machine) else {
            return false;
        };
        self.rows_bytes -= row.json.len() + 1;
        self.changed();
        true
    }

    /// The `config_type` of a machine: `None` when there is no such machine.
    pub fn config_type(&self, machine: &str) -> Option<Option<&str>> {
        self.rows.get(machine).map(|row| row.config_type.as_deref())
    }

    /// Removes machines that nothing was heard of for `ttl`, and whose process does not live. Returns how many.
    pub fn expire(&mut self, ttl: Duration, now: Instant) -> usize {
        let silent = |row: &Row| row.process != Process::Lives && now.saturating_duration_since(row.heard) > ttl;
        let names: Vec<Box<str>> = self
            .rows
            .iter()
            .filter(|(_, row)| silent(row))
            .map(|(name, _)| name.clone())
            .collect();
        names.iter().filter(|name| self.remove(name)).count()
    }

    /// Makes room: the machine that was silent longest leaves first.
    fn evict(&mut self) -> Applied {
        if self.rows_bytes <= ROWS_BYTES_MAX {
            return Applied::Nothing;
        }
        let mut oldest: Vec<(Instant, Box<str>)> =
            self.rows.iter().map(|(name, row)| (row.heard, name.clone())).collect();
        oldest.sort_unstable();
        let before = self.rows.len();
        for (_, name) in oldest {
            // The last one stays: it fits by FIELD_BYTES_MAX, and it is the one just heard of.
            if self.rows_bytes <= ROWS_BYTES_AFTER_EVICTION || self.rows.len() == 1 {
                break;
            }
            self.remove(&name);
        }
        let evicted = before - self.rows.len();
        self.evicted += evicted as u64;
        Applied::Evicted(evicted)
    }

    /// The table now, as everybody who asks now gets it: encoded once per state and second.
    pub fn snapshot(&mut self, now: Instant, epoch: f64) -> Arc<Snapshot> {
        if let Some((version, made, snapshot)) = &self.cached
            && *version == self.shown_version
            && now.saturating_duration_since(*made) < SNAPSHOT_FRESH
        {
            return Arc::clone(snapshot);
        }
        let end = format!("],\"timestamp\":{}}}", json_seconds(epoch));
        let json = self.document("{\"type\":\"initial\",\"machines\":[", &end);
        let snapshot = Arc::new(Snapshot::new(json, self.rows.len()));
        self.cached = Some((self.shown_version, now, Arc::clone(&snapshot)));
        snapshot
    }

    /// The table as `/api/machines` tells of it, as of the event at `as_of`: made at most once a second, however many
    /// ask. Copies texts of 3 MiB at most, triggers among them.
    pub fn survey(&mut self, as_of: Position, now: Instant) -> Arc<Survey> {
        self.end_survey(now);
        let rows = &self.rows;
        let moment = self.slots.number_and_part(now);
        let survey = self
            .surveyed
            .get_or_insert_with(|| Arc::new(Survey::of(rows, as_of, self.evicted, now, moment)));
        Arc::clone(survey)
    }

    /// Lets go of the last survey, if it is not fresh any more.
    pub fn end_survey(&mut self, now: Instant) {
        self.surveyed
            .take_if(|survey| now.saturating_duration_since(survey.made()) >= SURVEY_FRESH);
    }

    /// The next survey is a new one.
    pub fn renew_survey(&mut self) {
        self.surveyed = None;
    }

    /// Returns whether events came of which [`Machines::version`] tells nothing, so that the state file may have older
    /// times than the table.
    pub fn was_heard(&self) -> bool {
        self.heard_unsaved
    }

    fn document(&self, start: &str, end: &str) -> Vec<u8> {
        let mut json = Vec::with_capacity(start.len() + self.rows_bytes + end.len());
        json.extend_from_slice(start.as_bytes());
        for (index, row) in self.rows.values().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json.extend_from_slice(&row.json);
        }
        json.extend_from_slice(end.as_bytes());
        json
    }
}

impl Machines {
    /// Takes in what the recovered `history` has and the state file does not: what was published after the last save,
    /// or everything when there was none. Silence counts up to the last event, `now`, so that machines that were gone
    /// by `ttl` do not come back. `now` is `epoch` on the wall. Returns whether anything has changed.
    pub fn catch_up(&mut self, history: &History, ttl: Option<Duration>, now: Instant, epoch: f64) -> bool {
        let (before, saved) = (self.version(), self.saved);
        let batches = history.all();
        let last = batches.back().map_or(0.0, |batch| batch.time());
        for batch in batches.iter().filter(|batch| batch.time() >= saved) {
            let age = Duration::try_from_secs_f64(last - batch.time()).unwrap_or_default();
            let arrival = Arrival {
                heard: now.checked_sub(age).unwrap_or(now),
                happened: instant(batch.time(), now, epoch),
                slot: None,
            };
            for item in batch.items() {
                if let Item::Event(event) = item
                    && let Ok(checked) = check(event.payload)
                {
                    if event.recovered.is_some() {
                        self.apply_late_as(&checked, batch.time(), &arrival);
                    } else {
                        self.apply_as(&checked, &arrival, batch.time());
                    }
                }
            }
        }
        if let Some(ttl) = ttl {
            self.expire(ttl, now);
        }
        self.version() != before
    }
}

/// When it was `time` seconds since the epoch, if it is `epoch` now; `None` of a time to come.
fn instant(time: f64, now: Instant, epoch: f64) -> Option<Instant> {
    let age = Duration::try_from_secs_f64(epoch - time).ok()?;
    now.checked_sub(age)
}

#[cfg(test)]
mod tests;
