//! What machines usually do, learned from the stream: which states they enter, by which ways, and how long they stay.
//!
//! A directly-follows graph with times, for each type of machines, or for a machine whose type nobody knows. Owned by
//! thread `fanout`, as a part of the machine table. Bounded in states, ways and bytes; the least used leave.

pub mod histogram;
pub mod saved;
pub mod state;
pub mod usual;

use self::state::{State, Subject, Way};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The part of what is there that leaves at once when a bound is reached, so that this is not done for every event.
const LEAVES: usize = 16;

/// How much may be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedLimits {
    /// `--learned-states`.
    pub states_max: usize,
    /// `--learned-transitions`.
    pub transitions_max: usize,
    /// `--learned-bytes`: memory.
    pub bytes_max: usize,
}

impl Default for LearnedLimits {
    fn default() -> LearnedLimits {
        LearnedLimits {
            states_max: 2000,
            transitions_max: 10_000,
            bytes_max: 8 * 1024 * 1024,
        }
    }
}

/// What had to leave for the limits so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub states: u64,
    pub transitions: u64,
}

/// A machine, and its type if that is known.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub machine: &'a str,
    pub config_type: Option<&'a str>,
}

impl Who<'_> {
    fn is_by_type(self) -> usize {
        usize::from(self.config_type.is_some())
    }

    /// Name of its type, else its own.
    pub fn name(&self) -> &str {
        self.config_type.unwrap_or(self.machine)
    }

    fn subject(self) -> Subject {
        match self.config_type {
            Some(name) => Subject::Type(name.into()),
            None => Subject::Machine(self.machine.into()),
        }
    }
}

/// How a machine came into a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// From this state (`None`: it began), by this trigger.
    By(Option<&'a str>, Option<&'a str>),
    /// Nobody knows.
    Somehow,
}

type States = BTreeMap<Box<str>, Arc<State>>;

/// What was learned.
#[derive(Debug, Default)]
pub struct Learned {
    limits: LearnedLimits,
    /// States of machines without a known type, by machine; and of types.
    subjects: [BTreeMap<Box<str>, States>; 2],
    states: usize,
    transitions: usize,
    bytes: usize,
    /// Entries so far; numbers them.
    entries: u64,
    forgotten: Forgotten,
    version: u64,
}

impl Learned {
    /// Knows nothing yet.
    pub fn new(limits: LearnedLimits) -> Learned {
        Learned {
            limits,
            ..Learned::default()
        }
    }

    /// Keeps these limits from now on.
    pub fn set_limits(&mut self, limits: LearnedLimits) {
        self.limits = limits;
        self.keep_limits();
    }

    /// `who` entered `state`.
    pub fn enter(&mut self, who: Who<'_>, state: &str, entry: Entry<'_>) {
        self.entries += 1;
        let number = self.entries;
        self.change(who, state, |state| match entry {
            Entry::By(from, trigger) => state.enter(from, trigger, number),
            Entry::Somehow => state.enter_somehow(number),
        });
    }

    /// `who` left `state` after `dwell`. `late`: when, in seconds since the epoch, if it was judged stuck there.
    pub fn leave(&mut self, who: Who<'_>, state: &str, dwell: Duration, late: Option<f64>) {
        self.change(who, state, |state| match late {
            None => state.leave(dwell),
            Some(epoch) => state.leave_late(dwell, epoch),
        });
    }

    /// `who` left `state`, and nobody knows after how long, because something was lost meanwhile.
    pub fn void(&mut self, who: Who<'_>, state: &str) {
        self.change(who, state, State::void);
    }

    /// What is known of `state` of `who`.
    pub fn state(&self, who: Who<'_>, state: &str) -> Option<&Arc<State>> {
        self.subjects[who.is_by_type()].get(who.name())?.get(state)
    }

    /// Every state as of now, by subject and name; shared, so that this takes some nanoseconds a state. While the copy
    /// lives, the first change of each state costs a copy of that one.
    pub fn copy(&self) -> Vec<Arc<State>> {
        let states = self.subjects.iter().rev().flat_map(BTreeMap::values);
        states.flat_map(BTreeMap::values).map(Arc::clone).collect()
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Number of states, of transitions, and the bytes that they take.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.states, self.transitions, self.bytes)
    }

    /// What had to leave so far.
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// Puts a state back that was kept over a restart.
    fn put_back(&mut self, state: State) {
        let by_type = usize::from(matches!(state.of, Subject::Type(_)));
        self.entries = self.entries.max(state.last);
        self.count_in(&state);
        let states = self.subjects[by_type].entry(state.of.name().into()).or_default();
        if let Some(same) = states.insert(state.name.clone(), Arc::new(state)) {
            self.count_out(&same);
        }
        self.keep_limits();
    }

    fn change(&mut self, who: Who<'_>, name: &str, change: impl FnOnce(&mut State)) {
        self.version += 1;
        let subjects = &mut self.subjects[who.is_by_type()];
        // Looked up first, because an entry would cost its name each time.
        let known = subjects.get_mut(who.name()).and_then(|states| states.get_mut(name));
        let Some(state) = known else {
            let mut state = State::new(who.subject(), name);
            change(&mut state);
            self.put_back(state);
            return;
        };
        let (ways, bytes) = (state.ways.len(), state.bytes());
        let state = Arc::make_mut(state);
        change(state);
        self.transitions = self.transitions + state.ways.len() - ways;
        self.bytes = self.bytes + state.bytes() - bytes;
        self.keep_limits();
    }

    fn count_in(&mut self, state: &State) {
        self.states += 1;
        self.transitions += state.ways.len();
        self.bytes += state.bytes();
    }

    fn count_out(&mut self, state: &State) {
        self.states -= 1;
        self.transitions -= state.ways.len();
        self.bytes -= state.bytes();
    }

    fn keep_limits(&mut self) {
        if self.transitions > self.limits.transitions_max {
            self.forget_transitions();
        }
        if self.states > self.limits.states_max || self.bytes > self.limits.bytes_max {
            self.forget_states();
        }
    }

    /// The least used states leave: those that were entered least often, and among them those that were entered longest
    /// ago. Takes some 0.2 ms of 2,000 states.
    fn forget_states(&mut self) {
        let mut uses: Vec<(u64, u64)> = self.all().map(|state| (state.entered, state.last)).collect();
        uses.sort_unstable();
        let before = self.states;
        let states_left = self.limits.states_max - self.limits.states_max / LEAVES;
        let bytes_left = self.limits.bytes_max - self.limits.bytes_max / LEAVES;
        // With as many as it takes for the states, and more of them while it is not enough for the bytes.
        let mut leaving = before.saturating_sub(states_left).max(1);
        loop {
            let index = leaving.min(uses.len()).saturating_sub(1);
            let Some(last) = uses.get(index).copied() else {
                break;
            };
            self.retain(|state| (state.entered, state.last) > last);
            if self.bytes <= bytes_left || leaving >= uses.len() {
                break;
            }
            leaving += uses.len().div_ceil(LEAVES);
        }
        self.forgotten.states += (before - self.states) as u64;
    }

    /// The least used transitions leave. Takes some 1 ms of 10,000.
    fn forget_transitions(&mut self) {
        let uses = |way: &Way| (way.count, way.last);
        let mut all: Vec<(u32, u64)> = self.all().flat_map(|state| state.ways.iter().map(uses)).collect();
        let left = self.limits.transitions_max - self.limits.transitions_max / LEAVES;
        let leaving = all.len().saturating_sub(left);
        let before = self.transitions;
        if leaving > 0 {
            let (_, last, _) = all.select_nth_unstable(leaving - 1);
            let last = *last;
            for states in self.subjects.iter_mut().flat_map(BTreeMap::values_mut) {
                for state in states.values_mut() {
                    if state.ways.iter().any(|way| uses(way) <= last) {
                        Arc::make_mut(state).ways.retain(|way| uses(way) > last);
                    }
                }
            }
            self.count_anew();
        }
        self.forgotten.transitions += (before - self.transitions) as u64;
    }

    fn retain(&mut self, keep: impl Fn(&State) -> bool) {
        for subjects in &mut self.subjects {
            subjects.retain(|_, states| {
                states.retain(|_, state| keep(state));
                !states.is_empty()
            });
        }
        self.count_anew();
    }

    fn count_anew(&mut self) {
        let (states, ways, bytes) = self.all().fold((0, 0, 0), |(states, ways, bytes), state| {
            (states + 1, ways + state.ways.len(), bytes + state.bytes())
        });
        (self.states, self.transitions, self.bytes) = (states, ways, bytes);
    }

    fn all(&self) -> impl Iterator<Item = &Arc<State>> {
        let states = self.subjects.iter().flat_map(BTreeMap::values);
        states.flat_map(BTreeMap::values)
    }
}

/// The place of a state of `who` in a copy that [`Learned::copy`] made.
pub fn find(copy: &[Arc<State>], who: Who<'_>, state: &str) -> Option<usize> {
    let by_type = who.config_type.is_some();
    let place = copy.binary_search_by(|known| {
        let known_by_type = matches!(known.of, Subject::Type(_));
        // Types stand before machines.
        let kind = by_type.cmp(&known_by_type);
        kind.then_with(|| known.of.name().cmp(who.name()))
            .then_with(|| (*known.name).cmp(state))
    });
    place.ok()
}

#[cfg(test)]
mod tests;
