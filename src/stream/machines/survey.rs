//! The table at one moment, with what was learned, for those who judge it and tell of it.
//!
//! Thread `fanout` only copies what it has of each machine, a slice at a time; the thread that asks makes its document
//! of it (`documents.rs`).

use super::dwell::{Dwell, Verdict};
use super::row::{Process, Row};
use crate::stream::learned::state::State;
use crate::stream::learned::{Forgotten, Learned, Who};
use crate::stream::position::Position;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A survey is given out again for this long, whatever changes meanwhile.
pub const SURVEY_FRESH: Duration = Duration::from_secs(1);

/// The table at one moment, or within the milliseconds that it took to make. Three allocations, whatever the number of
/// machines.
#[derive(Debug)]
pub struct Survey {
    pub(super) as_of: Position,
    made: Instant,
    pub(super) evicted: u64,
    judged_from: Option<Instant>,
    machines: Vec<Machine>,
    /// The texts of all machines, one after the other.
    texts: String,
    learned: Vec<Arc<State>>,
    learned_version: u64,
    pub(super) forgotten: Forgotten,
}

/// What is known of one machine besides its texts.
#[derive(Debug)]
struct Machine {
    /// Bytes of its name, type, state and trigger.
    lens: [Option<u32>; 4],
    entered: Option<Instant>,
    event: Option<Instant>,
    dwell: Dwell,
    events_per_second: f64,
    process: Process,
}

/// One machine of a survey.
#[derive(Clone, Copy, Debug)]
pub struct Surveyed<'a> {
    pub name: &'a str,
    pub config_type: Option<&'a str>,
    pub state: Option<&'a str>,
    pub(super) trigger: Option<&'a str>,
    machine: &'a Machine,
    /// When its stay in this state began, as far as it may be judged.
    pub since: Instant,
}

impl Surveyed<'_> {
    /// The number of its stay: another one, once it has moved.
    pub fn dwell(&self) -> u64 {
        self.machine.dwell.number
    }

    /// What was found of this stay.
    pub fn verdict(&self) -> Option<Verdict> {
        self.machine.dwell.verdict
    }

    /// When it entered its state, if that is known.
    pub(super) fn entered(&self) -> Option<Instant> {
        self.machine.entered
    }

    /// When its last event came, if that is known.
    pub fn event(&self) -> Option<Instant> {
        self.machine.event
    }

    /// Returns whether the process lives that wrote its row in the engine's database.
    pub fn lives(&self) -> bool {
        self.machine.process == Process::Lives
    }

    /// Returns whether that process is gone, and nothing was heard of the machine since.
    pub fn is_stale(&self) -> bool {
        self.machine.process == Process::Gone
    }

    /// Events that come from it.
    pub fn events_per_second(&self) -> f64 {
        self.machine.events_per_second
    }

    /// As what it learns.
    pub fn who(&self) -> Who<'_> {
        Who {
            machine: self.name,
            config_type: self.config_type,
        }
    }
}

/// A slot of rates, and the part of it that is over.
pub(super) type Moment = (u32, Duration);

/// Rows after which the clock is read: they take some 10 µs.
const ROWS_PER_LOOK: usize = 64;

/// A survey in work.
#[derive(Debug)]
pub(super) struct Surveying {
    as_of: Position,
    judged_from: Option<Instant>,
    machines: Vec<Machine>,
    texts: String,
    /// The last machine that is in it.
    reached: Option<Box<str>>,
    is_whole: bool,
}

impl Surveying {
    /// Begins one as of the event at `as_of`.
    pub(super) fn begin(as_of: Position, judged_from: Option<Instant>) -> Surveying {
        Surveying {
            as_of,
            judged_from,
            machines: Vec::new(),
            texts: String::new(),
            reached: None,
            is_whole: false,
        }
    }

    /// Goes on with the rows behind those that are in it, for `slice` at most. `moment` is that of rates.
    pub(super) fn go_on(&mut self, rows: &BTreeMap<Box<str>, Row>, moment: Moment, slice: Duration) {
        let begun = Instant::now();
        let behind = match self.reached.take() {
            Some(name) => (Bound::Excluded(name), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        for (index, (name, row)) in rows.range::<Box<str>, _>(behind).enumerate() {
            self.push(name, row, moment);
            if (index + 1) % ROWS_PER_LOOK == 0 && begun.elapsed() >= slice {
                self.reached = Some(name.clone());
                return;
            }
        }
        self.is_whole = true;
    }

    /// Returns whether every machine is in it.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The survey, finished at `now`.
    pub(super) fn finish(self, now: Instant, evicted: u64, learned: &Learned) -> Survey {
        Survey {
            as_of: self.as_of,
            made: now,
            evicted,
            judged_from: self.judged_from,
            machines: self.machines,
            texts: self.texts,
            learned: learned.copy(),
            learned_version: learned.version(),
            forgotten: learned.forgotten(),
        }
    }

    fn push(&mut self, name: &str, row: &Row, moment: Moment) {
        let lens = texts(name, row).map(|text| {
            let text = text?;
            self.texts.push_str(text);
            Some(text.len() as u32)
        });
        self.machines.push(Machine {
            lens,
            entered: row.entered,
            event: row.event,
            dwell: row.dwell,
            events_per_second: row.rate.per_second(moment),
            process: row.process,
        });
    }
}

impl Survey {
    /// Number of its machines.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// Its machines, by name.
    pub fn machines(&self) -> impl Iterator<Item = Surveyed<'_>> {
        let mut rest = &self.texts[..];
        self.machines.iter().map(move |machine| {
            let [name, config_type, state, trigger] = machine.lens.map(|len| {
                let (text, behind) = rest.split_at(len? as usize);
                rest = behind;
                Some(text)
            });
            let since = machine.dwell.since;
            Surveyed {
                name: name.unwrap_or_default(),
                config_type,
                state,
                trigger,
                machine,
                since: self.judged_from.map_or(since, |from| from.max(since)),
            }
        })
    }

    /// What was learned, in the order of [`learned::find`](crate::stream::learned::find).
    pub fn learned(&self) -> &[Arc<State>] {
        &self.learned
    }

    /// Grows with every change of what was learned.
    pub fn learned_version(&self) -> u64 {
        self.learned_version
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.made
    }
}

/// Its name, type, state and trigger.
fn texts<'a>(name: &'a str, row: &'a Row) -> [Option<&'a str>; 4] {
    [
        Some(name),
        row.config_type.as_deref(),
        row.current_state.as_deref(),
        row.trigger.as_deref(),
    ]
}
