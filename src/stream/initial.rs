//! `initial` as one client gets it: a plain one in one message, a numbered one in parts.
//!
//! Made by the client's own thread, each part when it is its turn, from a copy of the table that all clients share. So
//! a client that reads nothing holds one part, and a large table costs the fan-out no document.

use crate::stream::chunk::Chunk;
use crate::stream::event::Seq;
use crate::stream::filter::Filter;
use crate::stream::machines::Snapshot;
use crate::stream::machines::snapshot::Rows;
use crate::stream::protocol::{Protocol, v1};
use std::sync::Arc;

/// A part of a numbered `initial` has less than this, in bytes; a row has less.
pub const PART_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a part around its rows: its keys, four numbers and a time.
const AROUND_BYTES: usize = 512;

/// The messages of an `initial`, one after the other.
#[derive(Debug)]
pub struct Initial {
    snapshot: Arc<Snapshot>,
    as_of: Seq,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// The whole message, until it is taken.
    Plain(Option<Arc<Chunk>>),
    Parts {
        rows: Rows,
        /// Behind which of the rows each part ends; one part at least.
        ends: Vec<u32>,
        next: usize,
        /// Other clients get the same.
        is_shared: bool,
    },
}

impl Initial {
    /// Of `snapshot`, the state as of event `as_of`, with the machines that `wanted` wants. Takes milliseconds for a
    /// large table.
    pub fn new(protocol: Protocol, wanted: &Filter, snapshot: Arc<Snapshot>, as_of: Seq) -> Initial {
        let form = match protocol {
            Protocol::Plain if wanted.is_everything() => Form::Plain(Some(Arc::clone(&snapshot.plain().chunk))),
            Protocol::Plain => Form::Plain(Some(snapshot.make_plain(wanted).chunk)),
            Protocol::V1 => {
                let rows = snapshot.wanted(wanted);
                Form::Parts {
                    ends: ends(&snapshot, &rows),
                    rows,
                    next: 0,
                    is_shared: wanted.is_everything(),
                }
            }
        };
        Initial { snapshot, as_of, form }
    }

    /// Returns whether all of its messages were taken.
    pub fn is_over(&self) -> bool {
        match &self.form {
            Form::Plain(message) => message.is_none(),
            Form::Parts { ends, next, .. } => *next == ends.len(),
        }
    }
}

impl Iterator for Initial {
    type Item = Arc<Chunk>;

    fn next(&mut self) -> Option<Arc<Chunk>> {
        let (snapshot, as_of) = (&self.snapshot, self.as_of);
        let (rows, ends, next, is_shared) = match &mut self.form {
            Form::Plain(message) => return message.take(),
            Form::Parts {
                rows,
                ends,
                next,
                is_shared,
            } => (&*rows, &*ends, next, *is_shared),
        };
        let part = *next;
        let end = *ends.get(part)? as usize;
        *next += 1;
        let begin = part.checked_sub(1).map_or(0, |before| ends[before] as usize);
        let make = || {
            let mut json = v1::initial_start(as_of, part + 1, ends.len()).into_bytes();
            snapshot.put(&mut json, (begin..end).map(|index| rows.at(index)), 0);
            debug_assert!(json.len() < PART_BYTES_MAX, "a part of {} bytes", json.len());
            Chunk::message(&json)
        };
        Some(if is_shared {
            snapshot.shared_part(as_of, part, make)
        } else {
            Arc::new(make())
        })
    }
}

/// Behind which of `rows` each part ends.
fn ends(snapshot: &Snapshot, rows: &Rows) -> Vec<u32> {
    const ROOM: usize = PART_BYTES_MAX - AROUND_BYTES;
    let (mut ends, mut bytes) = (Vec::new(), 0);
    for index in 0..rows.len() {
        let row = snapshot.row(rows.at(index)).len() + 1;
        if bytes > 0 && bytes + row > ROOM {
            ends.push(index as u32);
            bytes = 0;
        }
        bytes += row;
    }
    ends.push(rows.len() as u32);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::event::check;
    use crate::stream::machines::Machines;
    use serde_json::Value;
    use std::time::Instant;

    /// Of `machines` machines, each with a state of `state_bytes` bytes.
    fn snapshot(machines: usize, state_bytes: usize) -> Arc<Snapshot> {
        let (mut table, state) = (Machines::default(), "s".repeat(state_bytes));
        for number in 0..machines {
            let text = format!(r#"{{"machine_id":"m{number:03}","type":"state_change","state":"{state}"}}"#);
            table.apply(&check(text.as_bytes()).unwrap(), Instant::now(), 1.5);
        }
        table.snapshot(Instant::now(), 2.5)
    }

    fn parts(snapshot: &Arc<Snapshot>, wanted: Option<&str>) -> Vec<Arc<Chunk>> {
        let wanted = Filter::from_lists(wanted, None).unwrap();
        let mut initial = Initial::new(Protocol::V1, &wanted, Arc::clone(snapshot), 7);
        let parts: Vec<_> = initial.by_ref().collect();
        assert!(initial.is_over() && initial.next().is_none());
        parts
    }

    #[test]
    fn every_row_is_in_one_part_and_no_part_is_too_large() {
        let snapshot = snapshot(100, 16_000);
        let parts = parts(&snapshot, None);
        assert!(parts.len() > 5, "{}", parts.len());
        let mut names = Vec::new();
        for (part, number) in parts.iter().zip(1..) {
            let json = part.payload(0);
            assert!(json.len() < PART_BYTES_MAX, "{}", json.len());
            let document: Value = serde_json::from_slice(json).unwrap();
            let about = ["seq", "part", "parts", "timestamp"].map(|key| document[key].as_f64().unwrap());
            assert_eq!(about, [7.0, f64::from(number), parts.len() as f64, 2.5]);
            let rows = document["machines"].as_array().unwrap();
            names.extend(rows.iter().map(|row| row["machine_name"].as_str().unwrap().to_owned()));
        }
        assert_eq!(
            names,
            (0..100).map(|number| format!("m{number:03}")).collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_initial_without_rows_is_one_part() {
        for (snapshot, wanted) in [(snapshot(0, 1), None), (snapshot(3, 1), Some("nobody"))] {
            let parts = parts(&snapshot, wanted);
            assert_eq!(parts.len(), 1);
            let text = r#"{"type":"initial","seq":7,"part":1,"parts":1,"machines":[],"timestamp":2.5}"#;
            assert_eq!(parts[0].payload(0), text.as_bytes());
        }
    }

    #[test]
    fn a_filter_has_parts_of_its_own() {
        let snapshot = snapshot(100, 16_000);
        let some = parts(&snapshot, Some("m00*,m01*"));
        assert_eq!(some.len(), 2);
        let document: Value = serde_json::from_slice(some[1].payload(0)).unwrap();
        assert_eq!(
            document["machines"].as_array().unwrap().last().unwrap()["machine_name"],
            "m019"
        );
    }

    #[test]
    fn who_sees_everything_shares_the_parts_that_another_one_still_has() {
        let snapshot = snapshot(40, 16_000);
        let (one, other) = (parts(&snapshot, None), parts(&snapshot, None));
        assert!(one.len() > 1 && one.iter().zip(&other).all(|(one, other)| Arc::ptr_eq(one, other)));
        let plain = || Initial::new(Protocol::Plain, &Filter::default(), Arc::clone(&snapshot), 7).next();
        assert!(Arc::ptr_eq(&plain().unwrap(), &plain().unwrap()));
    }

    #[test]
    fn the_largest_row_fits_into_a_part() {
        let text = "\\u0001".repeat(40 * 1024 / 6);
        let time = "1".repeat(16 * 1024);
        let event = format!(
            r#"{{"machine_name":"{text}","type":"machine_registered","payload":{{"config_type":"{text}","current_state":"{text}","timestamp":{time}}}}}"#
        );
        let mut table = Machines::default();
        table.apply(&check(event.as_bytes()).unwrap(), Instant::now(), 1.5);
        assert_eq!(table.len(), 1);
        let parts = parts(&table.snapshot(Instant::now(), 2.5), None);
        assert_eq!(parts.len(), 1);
        assert!((150_000..PART_BYTES_MAX).contains(&parts[0].payload(0).len()));
    }
}
