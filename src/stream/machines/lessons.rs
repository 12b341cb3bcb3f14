//! What a machine's stay teaches when it ends.
//!
//! Lessons wait until somebody looks at what is learned, or until there are many. At 100 events a second, what is
//! learned has left the processor's caches between two events: taken in one by one, a lesson costs 9 µs; many of them
//! together cost 0.4 µs each.

use super::dwell::Dwells;
use super::row::{Arrival, Row, beginning};
use crate::stream::event::Event;
use crate::stream::learned::{Entry, Learned, Who};
use std::time::{Duration, Instant};

/// Lessons that wait at most: taken in together, they take 0.1 ms, and less than 1 ms if each state is a new one.
const LESSONS_MAX: usize = 256;
/// Bytes of their texts at most, and those of one more.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// A sender's own time counts as the time of its event if it differs from the arrival's by no more than this.
const CLOCKS_AGREE: Duration = Duration::from_secs(5);
/// An event whose own time is further behind than this is replayed, and teaches nothing.
const REPLAYED_S: f64 = 60.0;
/// With a longer name of a type, a machine or a state, nothing is learned.
const NAME_BYTES_MAX: usize = 1024;

/// What the last stays teach and is not learned yet.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    lessons: Vec<Lesson>,
    /// The texts of all of them, one after the other.
    texts: String,
}

/// A machine entered a state.
#[derive(Clone, Copy, Debug)]
struct Lesson {
    /// The texts begin with the name of a type, not of a machine.
    is_by_type: bool,
    /// Bytes of that name, of the state, of the state before, and of the trigger.
    lens: [Option<u16>; 4],
    is_way_known: bool,
    before: Before,
}

/// What is known of the stay in the state before.
#[derive(Clone, Copy, Debug)]
enum Before {
    Unknown,
    /// It is not known how long it took, because something was lost meanwhile.
    Void,
    /// It took this time. The second number is there if it was judged stuck: when it ended, seconds since the epoch.
    Took(Duration, Option<f64>),
}

impl Lessons {
    /// Returns whether there is no room for more.
    pub(super) fn are_many(&self) -> bool {
        self.lessons.len() >= LESSONS_MAX || self.texts.len() >= TEXT_BYTES_MAX
    }

    /// Lets `learned` take them in.
    pub(super) fn teach(&mut self, learned: &mut Learned) {
        let mut rest = &self.texts[..];
        for lesson in &self.lessons {
            let [name, state, from, trigger] = lesson.lens.map(|len| {
                let (text, behind) = rest.split_at(usize::from(len?));
                rest = behind;
                Some(text)
            });
            let (name, state) = (name.unwrap_or_default(), state.unwrap_or_default());
            let who = Who {
                machine: name,
                config_type: lesson.is_by_type.then_some(name),
            };
            match (from, lesson.before) {
                (None, _) | (_, Before::Unknown) => {}
                (Some(left), Before::Void) => learned.void(who, left),
                (Some(left), Before::Took(took, late)) => learned.leave(who, left, took, late),
            }
            let entry = if lesson.is_way_known {
                Entry::By(from, trigger)
            } else {
                Entry::Somehow
            };
            learned.enter(who, state, entry);
        }
        self.lessons.clear();
        self.texts.clear();
    }

    /// `who` entered `state`, where `before` is of the state `from`. No text is longer than [`NAME_BYTES_MAX`].
    fn push(&mut self, who: Who<'_>, state: &str, from: Option<&str>, entry: Entry<'_>, before: Before) {
        let (is_way_known, trigger) = match entry {
            Entry::By(_, trigger) => (true, trigger),
            Entry::Somehow => (false, None),
        };
        let lens = [Some(who.name()), Some(state), from, trigger].map(|text| {
            self.texts.push_str(text?);
            Some(text?.len() as u16)
        });
        self.lessons.push(Lesson {
            is_by_type: who.config_type.is_some(),
            lens,
            is_way_known,
            before,
        });
    }
}

impl Dwells {
    /// Ends the dwell of `machine`, if the event moves it into `state`, and begins the next. `row` is still as it was
    /// before the event, which came so, at `epoch` seconds since the epoch.
    pub(super) fn step(
        &mut self,
        lessons: &mut Lessons,
        (machine, row): (&str, &mut Row),
        (event, state): (&Event<'_>, &str),
        arrival: &Arrival,
        epoch: f64,
    ) {
        let left = row.current_state.as_deref();
        // A change into the same state is a step too, and a start of the machine there, unlike word that it is still
        // there.
        let is_registered = event.kind.as_deref() == Some("machine_registered");
        let begins = is_registered || event.kind.as_deref() == Some("state_change");
        if left == Some(state) && !begins {
            return;
        }
        let own_time = event.time.and_then(|time| time.parse::<f64>().ok());
        let now = arrival.happened.unwrap_or(arrival.heard);
        let mut begun = self.begin_unknown(moment(now, epoch, own_time));
        let is_replayed = own_time.is_some_and(|time| time < epoch - REPLAYED_S);
        if !arrival.is_live() || is_replayed {
            row.dwell = begun;
            return;
        }
        begun.losses = (left.is_some() || begins).then_some(self.losses);
        let ended = std::mem::replace(&mut row.dwell, begun);
        let who = Who {
            machine,
            config_type: event.config_type.as_deref().or(row.config_type.as_deref()),
        };
        let from = event.from.as_deref();
        let names = [Some(who.name()), Some(state), from, left];
        if names.into_iter().flatten().any(|name| name.len() > NAME_BYTES_MAX) {
            return;
        }
        let before = match ended.losses.filter(|_| left.is_some() && left == from) {
            None => Before::Unknown,
            Some(losses) if losses == self.losses => Before::Took(
                begun.since.saturating_duration_since(ended.since),
                ended.verdict.map(|_| epoch),
            ),
            Some(_) => Before::Void,
        };
        let trigger = event.trigger.as_deref().map(beginning);
        let entry = if from.is_some() || is_registered || begins && left.is_none() {
            Entry::By(from, trigger.as_deref())
        } else {
            Entry::Somehow
        };
        lessons.push(who, state, from, entry, before);
    }
}

/// When an event happened that arrived at `now` (`epoch` seconds since the epoch), with a time of its sender's.
fn moment(now: Instant, epoch: f64, own_time: Option<f64>) -> Instant {
    let Some(ahead) = own_time.map(|time| time - epoch) else {
        return now;
    };
    if ahead.abs() > CLOCKS_AGREE.as_secs_f64() {
        return now;
    }
    let difference = Duration::from_secs_f64(ahead.abs());
    let moment = if ahead > 0.0 {
        now.checked_add(difference)
    } else {
        now.checked_sub(difference)
    };
    moment.unwrap_or(now)
}
