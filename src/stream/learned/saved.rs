//! What was learned, as its file keeps it, and back.

use super::histogram::Histogram;
use super::state::{State, Subject, Way};
use super::{Learned, LearnedLimits};
use crate::process::clock::json_seconds;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The version of the file that this program writes, and the only one that it reads.
const VERSION: u64 = 1;

/// What was kept cannot be read.
#[derive(Debug)]
pub enum RestoreError {
    /// It is no JSON document of ours.
    Json(serde_json::Error),
    /// It lacks this key, or has something else there.
    Without(&'static str),
    /// Another version of the program wrote it.
    Version,
    /// The state at this place has something that no state has.
    State(usize),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Json(error) => write!(f, "{error}"),
            RestoreError::Without(key) => write!(f, "it has no usable {key}"),
            RestoreError::Version => write!(f, "it is of another version than {VERSION}"),
            RestoreError::State(place) => write!(f, "number {place} of its states is none"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// The document that keeps these states, made at `epoch` seconds since the epoch. Takes some 5 µs a state.
pub fn saved(states: &[Arc<State>], epoch: f64) -> Vec<u8> {
    let saved = json_seconds(epoch);
    let mut json = format!("{{\"threadcast_learned\":{VERSION},\"saved\":{saved},\"states\":[\n").into_bytes();
    for (index, state) in states.iter().enumerate() {
        if index > 0 {
            json.extend_from_slice(b",\n");
        }
        json.extend_from_slice(row(state).to_string().as_bytes());
    }
    json.extend_from_slice(b"\n]}\n");
    json
}

fn row(state: &State) -> Value {
    let ways: Vec<Value> = state
        .ways
        .iter()
        .map(|way| json!([way.from, way.trigger, way.count, way.last]))
        .collect();
    let counts: Vec<(usize, u16)> = state.dwells.counts().collect();
    let kind = match state.of {
        Subject::Type(_) => "type",
        Subject::Machine(_) => "machine",
    };
    json!({
        kind: state.of.name(),
        "state": state.name,
        "entered": state.entered,
        "last": state.last,
        "ways": ways,
        "dwells": counts,
        "largest_us": state.dwells.largest(),
        "voided": state.voided,
        "faults": state.faults(),
    })
}

/// What [`saved`] made, within `limits`.
///
/// # Errors
/// It is no such document, or was damaged. The caller begins with nothing.
pub fn restore(saved: &[u8], limits: LearnedLimits) -> Result<Learned, RestoreError> {
    let top: BTreeMap<String, &RawValue> = serde_json::from_slice(saved).map_err(RestoreError::Json)?;
    let version = top
        .get("threadcast_learned")
        .ok_or(RestoreError::Without("threadcast_learned"))?;
    if version.get().parse() != Ok(VERSION) {
        return Err(RestoreError::Version);
    }
    let rows = top.get("states").ok_or(RestoreError::Without("states"))?;
    let rows: Vec<&RawValue> = serde_json::from_str(rows.get()).map_err(RestoreError::Json)?;
    let mut learned = Learned::new(limits);
    for (place, text) in rows.into_iter().enumerate() {
        let row: Value = serde_json::from_str(text.get()).map_err(RestoreError::Json)?;
        learned.put_back(state(&row).ok_or(RestoreError::State(place))?);
    }
    Ok(learned)
}

/// The state that a row keeps.
fn state(row: &Value) -> Option<State> {
    let of = match (row["type"].as_str(), row["machine"].as_str()) {
        (Some(name), _) => Subject::Type(name.into()),
        (None, name) => Subject::Machine(name?.into()),
    };
    let mut state = State::new(of, row["state"].as_str()?);
    state.entered = row["entered"].as_u64()?;
    state.last = row["last"].as_u64()?;
    for kept in row["ways"].as_array()? {
        state.ways.push(way(kept)?);
    }
    let counts: Option<Vec<(usize, u16)>> = row["dwells"].as_array()?.iter().map(count).collect();
    let largest = [row["largest_us"][0].as_u64()?, row["largest_us"][1].as_u64()?];
    state.dwells = Histogram::restored(&counts?, largest)?;
    // Older files do not have it.
    state.voided = row["voided"].as_u64().unwrap_or(0).try_into().ok()?;
    state.set_faults([row["faults"][0].as_f64()?, row["faults"][1].as_f64()?]);
    state.is_possible().then_some(state)
}

fn way(kept: &Value) -> Option<Way> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(Some(text.as_str().into())),
        Value::Null => Some(None),
        _ => None,
    };
    Some(Way {
        from: text(kept.get(0)?)?,
        trigger: text(kept.get(1)?)?,
        count: kept.get(2)?.as_u64()?.try_into().ok()?,
        last: kept.get(3)?.as_u64()?,
    })
}

fn count(kept: &Value) -> Option<(usize, u16)> {
    let bucket = kept.get(0)?.as_u64()?.try_into().ok()?;
    Some((bucket, kept.get(1)?.as_u64()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Who};
    use super::*;
    use std::time::Duration;

    fn learned() -> Learned {
        let mut learned = Learned::default();
        for number in 0..300 {
            let who = Who {
                machine: "m\"1\"",
                config_type: (number % 3 > 0).then_some("worker"),
            };
            let state = ["busy", "idle\n", "ä"][number % 3];
            learned.enter(who, state, Entry::By((number % 2 > 0).then_some("x"), Some("go")));
            learned.enter(who, "somehow", Entry::Somehow);
            learned.void(who, "somehow");
            learned.leave(who, state, Duration::from_millis(number as u64), None);
            learned.leave(
                who,
                state,
                Duration::from_secs(900),
                (number % 50 == 0).then_some(number as f64),
            );
        }
        learned
    }

    #[test]
    fn what_was_saved_comes_back() {
        let learned = learned();
        let bytes = saved(&learned.copy(), 9.5);
        let restored = restore(&bytes, LearnedLimits::default()).unwrap();
        assert_eq!(restored.sizes(), learned.sizes());
        assert_eq!(saved(&restored.copy(), 9.5), bytes);
    }

    #[test]
    fn what_is_restored_keeps_the_limits() {
        let bytes = saved(&learned().copy(), 9.5);
        let limits = LearnedLimits {
            states_max: 2,
            ..LearnedLimits::default()
        };
        assert_eq!(restore(&bytes, limits).unwrap().sizes().0, 2);
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        let bytes = saved(&learned().copy(), 9.5);
        for len in 0..bytes.len() - 2 {
            restore(&bytes[..len], LearnedLimits::default()).unwrap_err();
        }
        for (from, to) in [
            ("\"threadcast_learned\":1", "\"threadcast_learned\":2"),
            ("\"threadcast_learned\":1", "\"learned\":1"),
            ("\"entered\":", "\"left\":"),
            ("\"entered\":", "\"entered\":-"),
            ("\"entered\":", "\"entered\":18446744073709551"),
            ("\"last\":", "\"last\":18446744073709551"),
            ("\"ways\":[[null,\"go\",", "\"ways\":[[null,\"go\",2000"),
            ("\"largest_us\":[", "\"largest_us\":[1,"),
            ("\"dwells\":[[", "\"dwells\":[[9999,1],["),
            ("\"states\":[", "\"states\":[7,"),
        ] {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let damaged = text.replace(from, to);
            assert_ne!(damaged, text);
            restore(damaged.as_bytes(), LearnedLimits::default()).unwrap_err();
        }
    }
}
