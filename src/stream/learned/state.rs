//! What is learned of one state: how machines come into it, and how long they stay.

use super::histogram::{self, Histogram};
use super::usual::Usual;
use std::sync::Arc;
use std::time::Duration;

/// Most ways into one state that are kept, so that finding one takes a microsecond at most.
const WAYS_MAX: usize = 256;
/// When the ways into a state were taken this often together, the counts of all of them halve.
const WEIGHT_MAX: u32 = 2000;
/// Dwells of which it is remembered how long they took, to see whether a whole type is slower than usual.
pub const RECENT: usize = 16;
/// A dwell that was judged stuck teaches only if it is the third within this time: once or twice, it was a fault.
pub const FAULTS_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// No count of entries comes so far: a million a second would take 285 years.
const ENTRIES_MAX: u64 = 1 << 53;
/// What a state costs besides its own memory, in bytes: its places in two maps, half empty, and the counts of two
/// `Arc`s.
const PLACE_BYTES: usize = 320;

/// What is learned for: a type of machines, or a machine whose type nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Type(Arc<str>),
    Machine(Arc<str>),
}

impl Subject {
    /// Name of the type or of the machine.
    pub fn name(&self) -> &str {
        match self {
            Subject::Type(name) | Subject::Machine(name) => name,
        }
    }

    /// The type's name; `None` of a machine.
    pub fn config_type(&self) -> Option<&str> {
        match self {
            Subject::Type(name) => Some(name),
            Subject::Machine(_) => None,
        }
    }
}

/// A way into a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The state before it; `None`: the machine began with it.
    pub from: Option<Box<str>>,
    pub trigger: Option<Box<str>>,
    /// How often it was taken. Halves, like all others of its state, so that old ones fade.
    pub count: u32,
    /// The table's count of entries when it was taken last.
    pub last: u64,
}

impl Way {
    /// Memory that it holds, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = [&self.from, &self.trigger];
        2 * size_of::<Way>() + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
    }

    fn is(&self, from: Option<&str>, trigger: Option<&str>) -> bool {
        self.from.as_deref() == from && self.trigger.as_deref() == trigger
    }
}

/// The buckets of the last dwells.
#[derive(Clone, Debug, Default)]
struct Recent {
    buckets: [u16; RECENT],
    seen: usize,
}

/// What is learned of one state.
#[derive(Clone, Debug)]
pub struct State {
    pub of: Subject,
    pub name: Box<str>,
    /// How often machines entered it, in all.
    pub entered: u64,
    /// The table's count of entries when it was entered last.
    pub last: u64,
    /// In no order.
    pub ways: Vec<Way>,
    pub dwells: Histogram,
    /// Dwells that do not count, because something was lost meanwhile. Halves with those that do.
    pub voided: u32,
    recent: Recent,
    /// When the last dwells ended that were judged stuck and did not teach, seconds since the epoch; 0 for none.
    faults: [f64; 2],
}

impl State {
    /// A state that nothing is known of.
    pub fn new(of: Subject, name: &str) -> State {
        State {
            of,
            name: name.into(),
            entered: 0,
            last: 0,
            ways: Vec::new(),
            dwells: Histogram::default(),
            voided: 0,
            recent: Recent::default(),
            faults: [0.0; 2],
        }
    }

    /// Memory that it holds, in bytes.
    pub fn bytes(&self) -> usize {
        let ways: usize = self.ways.iter().map(Way::bytes).sum();
        // Each name is a key, too.
        let names = 2 * (self.name.len() + self.of.name().len());
        size_of::<State>() + Histogram::BYTES + names + ways + PLACE_BYTES
    }

    /// A machine entered it, from this state by this trigger. `number` counts the entries of the whole table. Of an
    /// entry whose way nobody knows, [`State::enter_somehow`].
    pub fn enter(&mut self, from: Option<&str>, trigger: Option<&str>, number: u64) {
        self.enter_somehow(number);
        if let Some(way) = self.ways.iter_mut().find(|way| way.is(from, trigger)) {
            way.count += 1;
            way.last = number;
        } else {
            if self.ways.len() >= WAYS_MAX {
                self.forget_the_least_used_way();
            }
            self.ways.push(Way {
                from: from.map(Into::into),
                trigger: trigger.map(Into::into),
                count: 1,
                last: number,
            });
        }
        if self.ways.iter().map(|way| way.count).sum::<u32>() >= WEIGHT_MAX {
            self.halve();
        }
    }

    /// A machine entered it.
    pub fn enter_somehow(&mut self, number: u64) {
        self.entered += 1;
        self.last = number;
    }

    /// A machine left it after `dwell`.
    pub fn leave(&mut self, dwell: Duration) {
        let before = self.dwells.n();
        self.dwells.count(dwell);
        if self.dwells.n() < before {
            self.voided /= 2;
        }
        let place = self.recent.seen % RECENT;
        self.recent.buckets[place] = histogram::bucket(dwell) as u16;
        self.recent.seen += 1;
    }

    /// A machine left it after a `dwell` that was judged stuck, at `epoch` seconds since the epoch. It teaches only as
    /// the third such within a week, because then it is no fault but the way things are now.
    pub fn leave_late(&mut self, dwell: Duration, epoch: f64) {
        let [before, last] = self.faults;
        self.faults = [last, epoch];
        if before > 0.0 && epoch - before <= FAULTS_WITHIN.as_secs_f64() {
            self.leave(dwell);
        }
    }

    /// A machine left it, and nobody knows after how long.
    pub fn void(&mut self) {
        self.voided = self.voided.saturating_add(1);
    }

    /// What is usual of it.
    pub fn usual(&self) -> Usual {
        Usual {
            voided: self.voided,
            ..self.dwells.usual()
        }
    }

    /// The lower quartile and the median of the last [`RECENT`] dwells; `None` while there are fewer.
    pub fn recent(&self) -> Option<(Duration, Duration)> {
        let mut buckets = self.recent.buckets;
        buckets.sort_unstable();
        let dwell = |place: usize| histogram::middle(usize::from(buckets[place]));
        (self.recent.seen >= RECENT).then(|| (dwell(RECENT / 4), dwell(RECENT / 2)))
    }

    /// When its last two dwells ended that were judged stuck, seconds since the epoch; 0 for none.
    pub fn faults(&self) -> [f64; 2] {
        self.faults
    }

    /// As [`State::faults`] had them.
    pub fn set_faults(&mut self, faults: [f64; 2]) {
        self.faults = faults;
    }

    /// Returns whether a table can have come to these numbers. It could not go on counting from others, which a damaged
    /// file may have.
    pub fn is_possible(&self) -> bool {
        let weight: u64 = self.ways.iter().map(|way| u64::from(way.count)).sum();
        let numbers = self.ways.iter().map(|way| way.last).chain([self.entered, self.last]);
        self.ways.len() <= WAYS_MAX
            && weight < u64::from(WEIGHT_MAX)
            && numbers.into_iter().all(|number| number <= ENTRIES_MAX)
    }

    fn forget_the_least_used_way(&mut self) {
        let least = (0..self.ways.len()).min_by_key(|index| (self.ways[*index].count, self.ways[*index].last));
        if let Some(least) = least {
            self.ways.swap_remove(least);
        }
    }

    /// Lets each way count half; those that are left with nothing go.
    fn halve(&mut self) {
        for way in &mut self.ways {
            way.count /= 2;
        }
        self.ways.retain(|way| way.count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(Subject::Type("worker".into()), "busy")
    }

    #[test]
    fn ways_are_told_apart_by_state_and_trigger() {
        let mut state = state();
        for (number, way) in [
            (Some("idle"), Some("go")),
            (Some("idle"), None),
            (None, None),
            (Some("idle"), Some("go")),
        ]
        .into_iter()
        .enumerate()
        {
            state.enter(way.0, way.1, number as u64);
        }
        let counts: Vec<u32> = state.ways.iter().map(|way| way.count).collect();
        assert_eq!((counts, state.entered, state.last), (vec![2, 1, 1], 4, 3));
    }

    #[test]
    fn the_ways_of_a_state_are_bounded_and_the_least_used_goes() {
        let mut state = state();
        state.enter(Some("often"), None, 0);
        state.enter(Some("often"), None, 1);
        (2..2000).for_each(|number| state.enter(Some(&number.to_string()), None, number));
        assert!(state.ways.len() <= WAYS_MAX);
        assert!(state.ways.iter().any(|way| way.from.as_deref() == Some("often")));
    }

    #[test]
    fn ways_that_are_not_taken_any_more_fade() {
        let mut state = state();
        (0..5).for_each(|number| state.enter(Some("old"), None, number));
        (5..30_000).for_each(|number| state.enter(Some("new"), None, number));
        let [way] = &state.ways[..] else {
            panic!("{:?}", state.ways)
        };
        assert_eq!(way.from.as_deref(), Some("new"));
        assert!(way.count < WEIGHT_MAX && state.entered == 30_000);
    }

    #[test]
    fn a_stuck_dwell_teaches_as_the_third_within_a_week_only() {
        let (day, hang) = (24.0 * 3600.0, Duration::from_secs(3600));
        let mut state = state();
        state.leave_late(hang, 1.0);
        state.leave_late(hang, 1.0 + day);
        state.leave_late(hang, 1.0 + 8.0 * day);
        assert_eq!(state.dwells.n(), 0, "the first was more than a week before the third");
        state.leave_late(hang, 1.0 + 8.0 * day);
        assert_eq!(state.dwells.n(), 1);
    }

    #[test]
    fn the_median_of_the_last_dwells_follows_at_once() {
        let mut state = state();
        assert_eq!(state.recent(), None);
        (0..1000).for_each(|_| state.leave(Duration::from_secs(1)));
        (0..RECENT / 2 + 1).for_each(|_| state.leave(Duration::from_secs(3)));
        let (quartile, median) = state.recent().unwrap();
        assert!((2.8..3.2).contains(&median.as_secs_f64()), "{median:?}");
        assert!(quartile < Duration::from_millis(1100), "{quartile:?}");
        assert!(state.usual().median < Duration::from_millis(1100));
    }
}
