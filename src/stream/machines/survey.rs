//! The table at one moment, as `/api/machines` tells of it. docs/http.md has every key.
//!
//! Thread `fanout` only copies what it has of each machine; the thread that asks makes the document.

use super::rate::RATE_SECONDS;
use super::row::{Row, put_string};
use crate::process::clock::json_seconds;
use crate::stream::filter::Filter;
use crate::stream::position::Position;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The table at one moment. Two allocations, whatever the number of machines.
#[derive(Debug)]
pub struct Survey {
    as_of: Position,
    made: Instant,
    evicted: u64,
    machines: Vec<Machine>,
    /// The texts of all machines, one after the other.
    texts: String,
}

/// What is known of one machine besides its texts.
#[derive(Debug)]
struct Machine {
    /// Bytes of its name, type, state and trigger.
    lens: [Option<u32>; 4],
    entered: Option<Instant>,
    event: Option<Instant>,
    events_per_second: f64,
    is_stale: bool,
}

/// A slot of rates, and the part of it that is over.
pub(super) type Moment = (u32, Duration);

impl Survey {
    /// Of these rows as of the event at `as_of`, at `now`, which is that moment of rates.
    pub(super) fn of(
        rows: &BTreeMap<Box<str>, Row>,
        as_of: Position,
        evicted: u64,
        now: Instant,
        moment: Moment,
    ) -> Survey {
        let texts = rows.iter().flat_map(|(name, row)| texts(name, row)).flatten();
        let bytes = texts.map(str::len).sum();
        let mut survey = Survey {
            as_of,
            made: now,
            evicted,
            machines: Vec::with_capacity(rows.len()),
            texts: String::with_capacity(bytes),
        };
        for (name, row) in rows {
            survey.push(name, row, moment);
        }
        survey
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
            events_per_second: row.rate.per_second(moment),
            is_stale: row.is_stale(),
        });
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.made
    }

    /// The document, at `now` (`epoch` seconds on the wall), with the machines that `wanted` wants. Takes about a
    /// microsecond a machine.
    pub fn json(&self, wanted: &Filter, now: Instant, epoch: f64) -> Vec<u8> {
        let stale = self.machines.iter().filter(|machine| machine.is_stale).count();
        let mut json = format!(
            "{{\"epoch\":\"{}\",\"seq\":{},\"time\":{},\"rate_seconds\":{RATE_SECONDS},\
             \"totals\":{{\"machines\":{},\"stale\":{stale},\"evicted\":{}}},\"machines\":[",
            self.as_of.epoch,
            self.as_of.seq,
            json_seconds(epoch),
            self.machines.len(),
            self.evicted
        )
        .into_bytes();
        let (mut rest, mut is_first) = (&self.texts[..], true);
        for machine in &self.machines {
            let texts = machine.lens.map(|len| {
                let (text, behind) = rest.split_at(len? as usize);
                rest = behind;
                Some(text)
            });
            if !wanted.wants_machine(texts[0].unwrap_or_default()) {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                json.push(b',');
            }
            machine.put(&mut json, texts, now);
        }
        json.extend_from_slice(b"]}");
        json
    }
}

impl Machine {
    /// Writes it with its texts.
    fn put(&self, json: &mut Vec<u8>, [name, kind, state, trigger]: [Option<&str>; 4], now: Instant) {
        let since = |then: Option<Instant>| match then {
            Some(then) => rounded(now.saturating_duration_since(then).as_secs_f64()),
            None => "null".to_owned(),
        };
        let keys = [
            ("{\"machine_name\":", name),
            (",\"config_type\":", kind),
            (",\"current_state\":", state),
            (",\"last_trigger\":", trigger),
        ];
        for (key, text) in keys {
            json.extend_from_slice(key.as_bytes());
            put_string(json, text);
        }
        let rest = format!(
            ",\"state_seconds\":{},\"events_per_second\":{},\"last_event_seconds\":{},\"stale\":{}}}",
            since(self.entered),
            rounded(self.events_per_second),
            since(self.event),
            self.is_stale
        );
        json.extend_from_slice(rest.as_bytes());
    }
}

/// A JSON number, to the thousandth part.
fn rounded(number: f64) -> String {
    json_seconds((number * 1000.0).round() / 1000.0)
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
