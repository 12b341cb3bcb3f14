//! What `/api/machines` and `/api/graph` answer, made of a [`Survey`] by the thread that asks. docs/http.md has every
//! key.

use super::dwell::Verdict;
use super::judgement::{limit, slow_after};
use super::rate::RATE_SECONDS;
use super::row::put_string;
use super::survey::{Survey, Surveyed};
use crate::process::clock::json_seconds;
use crate::stream::declared::Declared;
use crate::stream::filter::Filter;
use crate::stream::learned::find;
use crate::stream::learned::state::{State, Subject};
use crate::stream::learned::usual::Usual;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a document of machines judges them.
#[derive(Clone, Copy, Debug)]
struct Judge<'a> {
    declared: &'a Declared,
    states: &'a [Arc<State>],
    /// Of each of these.
    usuals: &'a [Usual],
    now: Instant,
}

impl Survey {
    /// The document of machines, at `now` (`epoch` seconds on the wall), with those that `wanted` wants. Takes some
    /// microseconds a machine.
    pub fn machines_json(&self, wanted: &Filter, declared: &Declared, now: Instant, epoch: f64) -> Vec<u8> {
        let usuals: Vec<Usual> = self.learned().iter().map(|state| state.usual()).collect();
        let judge = Judge {
            declared,
            states: self.learned(),
            usuals: &usuals,
            now,
        };
        let mut json = self.machines_head(epoch).into_bytes();
        let mut is_first = true;
        for machine in self.machines().filter(|machine| wanted.wants_machine(machine.name)) {
            if !std::mem::take(&mut is_first) {
                json.push(b',');
            }
            judge.put(&mut json, &machine);
        }
        json.extend_from_slice(b"]}");
        json
    }

    fn machines_head(&self, epoch: f64) -> String {
        let count = |counts: fn(&Surveyed<'_>) -> bool| self.machines().filter(|machine| counts(machine)).count();
        format!(
            "{{\"epoch\":\"{}\",\"seq\":{},\"time\":{},\"rate_seconds\":{RATE_SECONDS},\
             \"totals\":{{\"machines\":{},\"stale\":{},\"evicted\":{},\"stuck\":{},\"silent\":{}}},\"machines\":[",
            self.as_of.epoch,
            self.as_of.seq,
            json_seconds(epoch),
            self.len(),
            count(|machine| machine.is_stale()),
            self.evicted,
            count(|machine| machine.verdict() == Some(Verdict::Stuck)),
            count(|machine| machine.verdict() == Some(Verdict::Silent)),
        )
    }

    /// The document of what was learned, at `epoch` seconds on the wall, of the types that `wanted` wants, as if
    /// they were those of events. Takes some 10 µs a state.
    pub fn graph_json(&self, wanted: &Filter, declared: &Declared, epoch: f64) -> Vec<u8> {
        let mut now = BTreeMap::<(Option<&str>, &str, &str), usize>::new();
        for machine in self.machines() {
            let subject = machine.config_type.unwrap_or(machine.name);
            let state = machine.state.unwrap_or_default();
            *now.entry((machine.config_type, subject, state)).or_default() += 1;
        }
        let mut json = format!(
            "{{\"epoch\":\"{}\",\"seq\":{},\"time\":{},\"totals\":{{\"states\":{},\"transitions\":{},\
             \"states_forgotten\":{},\"transitions_forgotten\":{}}},\"types\":[",
            self.as_of.epoch,
            self.as_of.seq,
            json_seconds(epoch),
            self.learned().len(),
            self.learned().iter().map(|state| state.ways.len()).sum::<usize>(),
            self.forgotten.states,
            self.forgotten.transitions,
        )
        .into_bytes();
        let mut last: Option<&Subject> = None;
        for state in self.learned() {
            let name = state.of.config_type();
            if !wanted.wants(None, name) {
                continue;
            }
            if last == Some(&state.of) {
                json.push(b',');
            } else {
                json.extend_from_slice(if last.is_some() {
                    b"]},{\"type\":"
                } else {
                    b"{\"type\":"
                });
                put_string(&mut json, name);
                json.extend_from_slice(b",\"machine\":");
                put_string(&mut json, name.is_none().then(|| state.of.name()));
                json.extend_from_slice(b",\"states\":[");
                last = Some(&state.of);
            }
            let here = now.get(&(name, state.of.name(), &*state.name)).copied().unwrap_or(0);
            put_state(&mut json, state, here, declared);
        }
        json.extend_from_slice(if last.is_some() { b"]}]}" } else { b"]}" });
        json
    }
}

impl Judge<'_> {
    /// Writes a machine.
    fn put(&self, json: &mut Vec<u8>, machine: &Surveyed<'_>) {
        let since = |then: Option<Instant>| match then {
            Some(then) => seconds(self.now.saturating_duration_since(then)),
            None => "null".to_owned(),
        };
        let keys = [
            ("{\"machine_name\":", Some(machine.name)),
            (",\"config_type\":", machine.config_type),
            (",\"current_state\":", machine.state),
            (",\"last_trigger\":", machine.trigger),
        ];
        for (key, text) in keys {
            json.extend_from_slice(key.as_bytes());
            put_string(json, text);
        }
        let state = machine.state.unwrap_or_default();
        let usual = find(self.states, machine.who(), state).map(|place| &self.usuals[place]);
        let limit = limit(self.declared, machine.config_type, state, usual);
        let rest = format!(
            ",\"state_seconds\":{},\"events_per_second\":{},\"last_event_seconds\":{},\"stale\":{},\"verdict\":\"{}\",\
             \"limit_seconds\":{},\"usual\":{}}}",
            since(machine.entered()),
            rounded(machine.events_per_second()),
            since(machine.event()),
            machine.is_stale(),
            self.verdict(machine, usual),
            limit.map_or("null".to_owned(), |limit| seconds(limit.after)),
            usual.filter(|usual| usual.n > 0).map_or("null".to_owned(), usual_json),
        );
        json.extend_from_slice(rest.as_bytes());
    }

    fn verdict(&self, machine: &Surveyed<'_>, usual: Option<&Usual>) -> &'static str {
        if let Some(verdict) = machine.verdict() {
            return verdict.name();
        }
        let stay = self.now.saturating_duration_since(machine.since);
        let state = machine.state.unwrap_or_default();
        let slow_after = slow_after(self.declared, machine.config_type, state, usual);
        if slow_after.is_some_and(|after| stay > after) {
            "slow"
        } else {
            "ok"
        }
    }
}

fn put_state(json: &mut Vec<u8>, state: &State, here: usize, declared: &Declared) {
    let usual = state.usual();
    let limit = limit(declared, state.of.config_type(), &state.name, Some(&usual));
    json.extend_from_slice(b"{\"state\":");
    put_string(json, Some(&state.name));
    let figures = format!(
        ",\"entered\":{},\"now\":{here},\"limit_seconds\":{},\"usual\":{},\"from\":[",
        state.entered,
        limit.map_or("null".to_owned(), |limit| seconds(limit.after)),
        usual_json(&usual),
    );
    json.extend_from_slice(figures.as_bytes());
    let mut ways: Vec<_> = state.ways.iter().collect();
    ways.sort_unstable_by_key(|way| (std::cmp::Reverse(way.count), way.last));
    for (index, way) in ways.into_iter().enumerate() {
        json.extend_from_slice(if index > 0 { b",{\"state\":" } else { b"{\"state\":" });
        put_string(json, way.from.as_deref());
        json.extend_from_slice(b",\"trigger\":");
        put_string(json, way.trigger.as_deref());
        json.extend_from_slice(format!(",\"count\":{}}}", way.count).as_bytes());
    }
    json.extend_from_slice(b"]}");
}

/// What is usual, as an object.
pub fn usual_json(usual: &Usual) -> String {
    format!(
        "{{\"n\":{},\"median\":{},\"p95\":{},\"p99\":{},\"largest\":{},\"second_largest\":{}}}",
        usual.n,
        seconds(usual.median),
        seconds(usual.p95),
        seconds(usual.p99),
        seconds(usual.largest),
        seconds(usual.second_largest),
    )
}

/// A JSON number of seconds, to the thousandth part.
pub fn seconds(duration: Duration) -> String {
    rounded(duration.as_secs_f64())
}

/// A JSON number, to the thousandth part.
fn rounded(number: f64) -> String {
    json_seconds((number * 1000.0).round() / 1000.0)
}
