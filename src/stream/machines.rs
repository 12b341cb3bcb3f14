//! The last state of each machine, and the snapshot made of it.
//!
//! Owned by thread `fanout`. Bounded by `--max-machines` and `--machine-bytes`: the machines that have been silent
//! longest leave a full table, and are counted.

mod blocks;
pub mod bounds;
pub mod documents;
pub mod dwell;
mod ends;
pub mod judgement;
mod lessons;
pub mod merge;
mod rate;
pub mod recovered;
pub mod row;
pub mod saved;
pub mod snapshot;
pub mod survey;

pub use self::snapshot::Snapshot;

use self::blocks::Blocks;
use self::bounds::{Size, TableLimits, is_too_long, leaving};
use self::dwell::{Dwells, Verdict};
use self::ends::Ends;
use self::lessons::Lessons;
use self::rate::Slots;
use self::recovered::RecoveredTo;
use self::row::{Arrival, Process, Row};
use self::survey::{SURVEY_FRESH, Survey, Surveying};
use crate::stream::batch::Item;
use crate::stream::event::{Event, check};
use crate::stream::history::History;
use crate::stream::learned::Learned;
use crate::stream::position::Position;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A snapshot of an unchanged table is given out again for this long; then its `timestamp` is renewed.
const SNAPSHOT_FRESH: Duration = Duration::from_secs(1);

/// Without a snapshot for this long, the blocks of the last one are not kept up to date any more.
const BLOCKS_KEPT: Duration = Duration::from_secs(60);

/// What is made of a survey at once: events wait no longer for it.
const SURVEY_SLICE: Duration = Duration::from_millis(1);

/// The table.
#[derive(Debug, Default)]
pub struct Machines {
    /// By name, in binary order, which is the order of the snapshot.
    rows: BTreeMap<Box<str>, Row>,
    limits: TableLimits,
    used: Size,
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
    blocks: Blocks,
    /// When a snapshot was made last.
    copied: Option<Instant>,
    /// The last survey, while it is fresh.
    surveyed: Option<Arc<Survey>>,
    /// The next one, as far as it is made.
    surveying: Option<Surveying>,
    slots: Slots,
    dwells: Dwells,
    /// What the dwells have taught, but for the last of them.
    learned: Learned,
    lessons: Lessons,
    /// Nobody knows what was before: a dwell is judged from here on. `None`: the machines' own times count.
    judged_from: Option<Instant>,
    /// Events came that alone were no reason to write the state file.
    heard_unsaved: bool,
}

/// What applying an event did that a person may have to be told.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    Nothing,
    /// The table was full: this many machines left it.
    Evicted(usize),
    /// The event names a machine, but the row would be too large.
    Untabled,
}

impl Machines {
    /// An empty table with these bounds.
    pub fn new(limits: TableLimits) -> Machines {
        Machines {
            limits,
            ..Machines::default()
        }
    }

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

    /// Notes a change of a machine's row that a snapshot shows; the state file keeps it too.
    fn changed(&mut self, machine: &str) {
        self.blocks.change(machine);
        self.shown_version += 1;
        self.kept_version += 1;
    }

    /// Memory of all rows with the copies that the server makes of them, in bytes; at most `--machine-bytes`.
    pub fn bytes(&self) -> usize {
        self.used.memory
    }

    /// Machines that had to leave the full table so far.
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
        let texts = [machine, state, config_type.unwrap_or(""), event.time.unwrap_or("")];
        if texts.into_iter().any(is_too_long) {
            self.untabled += 1;
            return Applied::Untabled;
        }
        let before = known.as_ref().map(|row| Size::of(machine, row)).unwrap_or_default();
        let row = match known {
            Some(row) => row,
            None => self
                .rows
                .entry(machine.into())
                .or_insert_with(|| Row::new(arrival.heard)),
        };
        let about = (event, state);
        self.dwells
            .step(&mut self.lessons, (machine, row), about, arrival, epoch);
        if self.lessons.are_many() {
            self.lessons.teach(&mut self.learned);
        }
        row.enter(state, event, arrival, epoch);
        row.encode(machine);
        self.used -= before;
        self.used += Size::of(machine, row);
        self.changed(machine);
        self.evict(Some(machine))
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
            self.used -= Size::of(machine, row);
            row.encode(machine);
            self.used += Size::of(machine, row);
            self.changed(machine);
        } else {
            // Which machine was heard of last shows in the order of rows.
            self.blocks.change(machine);
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
        self.used -= Size::of(machine, &row);
        self.changed(machine);
        true
    }

    /// The `config_type` of a machine: `None` when there is no such machine.
    pub fn config_type(&self, machine: &str) -> Option<Option<&str>> {
        self.rows.get(machine).map(|row| row.config_type.as_deref())
    }

    /// What the machines have taught.
    pub fn learned(&mut self) -> &Learned {
        self.lessons.teach(&mut self.learned);
        &self.learned
    }

    /// Goes on from what was learned before the start.
    pub fn set_learned(&mut self, learned: Learned) {
        self.learned = learned;
    }

    /// Something may be missing in the stream: no dwell that lasts now teaches anything.
    pub fn note_loss(&mut self) {
        self.dwells.note_loss();
    }

    /// As [`Machines::note_loss`], of a time that ends `now` in which events may have been lost unseen, because the
    /// server or the host stood still: no machine is judged by what was before.
    pub fn note_standstill(&mut self, now: Instant) {
        self.note_loss();
        self.judged_from = Some(now);
        // One that was begun before would tell otherwise.
        self.renew_survey();
    }

    /// Notes what was found of dwell number `dwell` of `machine`. Returns whether that dwell lasts.
    pub fn judge(&mut self, machine: &str, dwell: u64, verdict: Verdict) -> bool {
        let row = self.rows.get_mut(machine).filter(|row| row.dwell.number == dwell);
        row.map(|row| row.dwell.verdict = Some(verdict)).is_some()
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

    /// Makes room in a full table, where `newest` is the machine just heard of, if there is one.
    fn evict(&mut self, newest: Option<&str>) -> Applied {
        let names = leaving(&self.rows, self.used, self.limits, newest);
        if names.is_empty() {
            return Applied::Nothing;
        }
        for name in &names {
            self.remove(name);
        }
        self.evicted += names.len() as u64;
        Applied::Evicted(names.len())
    }

    /// The table now, of which everybody who asks now gets what is to be seen: made once per state and second. Copies
    /// what has changed since the last one, about 10 ns a machine.
    pub fn snapshot(&mut self, now: Instant, epoch: f64) -> Arc<Snapshot> {
        self.end_snapshot(now);
        if let Some((version, _, snapshot)) = &self.cached
            && *version == self.shown_version
        {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(Snapshot::of(self.blocks.copy(&self.rows), epoch));
        self.copied = Some(now);
        self.cached = Some((self.shown_version, now, Arc::clone(&snapshot)));
        snapshot
    }

    /// Lets go of the last snapshot, if it is not fresh any more, and of its blocks if nobody has asked for long.
    pub fn end_snapshot(&mut self, now: Instant) {
        if self
            .copied
            .take_if(|at| now.saturating_duration_since(*at) >= BLOCKS_KEPT)
            .is_some()
        {
            self.blocks.clear();
        }
        self.cached
            .take_if(|(_, made, _)| now.saturating_duration_since(*made) >= SNAPSHOT_FRESH);
    }

    /// Goes on making the table as `/api/machines` tells of it, as of the event at `as_of`, for a millisecond at most.
    /// Returns it once it is whole; until then the caller calls again. Each is handed out for a second, however many
    /// ask.
    pub fn survey(&mut self, as_of: Position, now: Instant) -> Option<Arc<Survey>> {
        self.end_survey(now);
        if let Some(survey) = &self.surveyed {
            return Some(Arc::clone(survey));
        }
        let moment = self.slots.number_and_part(now);
        let judged_from = self.judged_from;
        let surveying = self
            .surveying
            .get_or_insert_with(|| Surveying::begin(as_of, judged_from));
        surveying.go_on(&self.rows, moment, SURVEY_SLICE);
        let surveying = self.surveying.take_if(|surveying| surveying.is_whole())?;
        let survey = Arc::new(surveying.finish(now, self.evicted, self.learned()));
        self.surveyed = Some(Arc::clone(&survey));
        Some(survey)
    }

    /// Lets go of the last survey, if it is not fresh any more.
    pub fn end_survey(&mut self, now: Instant) {
        self.surveyed
            .take_if(|survey| now.saturating_duration_since(survey.made()) >= SURVEY_FRESH);
    }

    /// The next survey is a new one.
    pub fn renew_survey(&mut self) {
        (self.surveyed, self.surveying) = (None, None);
    }

    /// Returns whether events came of which [`Machines::version`] tells nothing, so that the state file may have older
    /// times than the table.
    pub fn was_heard(&self) -> bool {
        self.heard_unsaved
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
mod dwell_tests;
#[cfg(test)]
mod tests;
