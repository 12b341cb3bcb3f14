//! What a machine's stay teaches when it ends.

use super::dwell::Dwells;
use super::row::{Arrival, Row, beginning};
use crate::stream::event::Event;
use crate::stream::learned::{Entry, Learned, Who};
use std::time::{Duration, Instant};

/// A sender's own time counts as the time of its event if it differs from the arrival's by no more than this.
const CLOCKS_AGREE: Duration = Duration::from_secs(5);
/// An event whose own time is further behind than this is replayed, and teaches nothing.
const REPLAYED_S: f64 = 60.0;
/// With a longer name of a type, a machine or a state, nothing is learned.
const NAME_BYTES_MAX: usize = 1024;

impl Dwells {
    /// Ends the dwell of `machine`, if the event moves it into `state`, and begins the next. `row` is still as it was
    /// before the event, which came so, at `epoch` seconds since the epoch.
    pub(super) fn step(
        &mut self,
        learned: &mut Learned,
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
        if let Some(left) = left.filter(|left| from == Some(*left)) {
            match ended.losses {
                Some(losses) if losses == self.losses => {
                    let took = begun.since.saturating_duration_since(ended.since);
                    learned.leave(who, left, took, ended.verdict.map(|_| epoch));
                }
                Some(_) => learned.void(who, left),
                None => {}
            }
        }
        let trigger = event.trigger.as_deref().map(beginning);
        let entry = match from {
            Some(from) => Entry::By(Some(from), trigger.as_deref()),
            None if is_registered || begins && left.is_none() => Entry::By(None, trigger.as_deref()),
            None => Entry::Somehow,
        };
        learned.enter(who, state, entry);
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
