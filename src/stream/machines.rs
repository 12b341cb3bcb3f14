//! The last state of each machine, and the snapshot made of it.
//!
//! Owned by thread `fanout`. Bounded by the size of its snapshot: clients such as Python's `websockets` end on a
//! message over 1 MiB, so the machines that have been silent longest give way, and are counted.

mod ends;
pub mod merge;
pub mod recovered;
pub mod row;
pub mod saved;
mod snapshot;

pub use self::snapshot::Snapshot;

use self::ends::Ends;
use self::recovered::RecoveredTo;
use self::row::{Origin, Process, Row};
use crate::process::clock::json_seconds;
use crate::stream::batch::Item;
use crate::stream::event::{Event, check};
use crate::stream::history::History;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows of a snapshot together: 1 MiB less the frame around them.
const ROWS_BYTES_MAX: usize = 1024 * 1024 - 1024;
/// Bytes of rows that are left when rows have given way: a sixteenth is freed at once, so that this is not done for
/// every event.
const ROWS_BYTES_AFTER_EVICTION: usize = ROWS_BYTES_MAX / 16 * 15;
/// A longer machine name, state or configuration is no sensible row: such an event is forwarded but not tabled.
const FIELD_BYTES_MAX: usize = 16 * 1024;
/// A snapshot of an unchanged table is given out again for this long; then its `timestamp` is renewed.
const SNAPSHOT_FRESH: Duration = Duration::from_secs(1);

/// The table.
#[derive(Debug, Default)]
pub struct Machines {
    /// By name, in binary order, which is the order of the snapshot.
    rows: BTreeMap<Box<str>, Row>,
    rows_bytes: usize,
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
}

/// What applying an event did that a person may have to be told.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    Nothing,
    /// This many machines had to give way.
    Evicted(usize),
    /// The event names a machine, but the row would be too large.
    Untabled,
}

impl Machines {
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

    /// Notes a change that a snapshot shows; the state file keeps it too.
    fn changed(&mut self) {
        self.shown_version += 1;
        self.kept_version += 1;
    }

    /// Machines that had to give way so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Events so far that named a machine too large for a row.
    pub fn untabled(&self) -> u64 {
        self.untabled
    }

    /// Takes in an event that arrived at `now` (`epoch` seconds on the wall).
    pub fn apply(&mut self, event: &Event<'_>, now: Instant, epoch: f64) -> Applied {
        let Some(machine) = event.machine.as_deref() else {
            return Applied::Nothing;
        };
        if event.kind.as_deref() == Some("machine_terminated") {
            let time = event.time.and_then(|time| time.parse().ok()).unwrap_or(epoch);
            self.end(machine, time);
            return Applied::Nothing;
        }
        let Some(state) = event.state.as_deref() else {
            self.hear(machine, now);
            return Applied::Nothing;
        };
        let config_type = event.config_type.as_deref();
        if event
            .time
            .is_some_and(|time| self.is_overtaken(machine, row::seconds(Some(time))))
        {
            self.hear(machine, now);
            return Applied::Nothing;
        }
        if [machine, state, config_type.unwrap_or("")]
            .iter()
            .any(|text| text.len() > FIELD_BYTES_MAX)
        {
            self.untabled += 1;
            return Applied::Untabled;
        }
        let time = event.time.map_or_else(|| json_seconds(epoch), str::to_owned);
        self.upsert(machine, state, config_type, time.into(), now);
        self.evict()
    }

    fn upsert(&mut self, machine: &str, state: &str, config_type: Option<&str>, time: Box<str>, now: Instant) {
        let row = match self.rows.get_mut(machine) {
            Some(row) => row,
            None => self.rows.entry(machine.into()).or_insert_with(|| Row::new(now)),
        };
        if row.current_state.as_deref() != Some(state) {
            row.current_state = Some(state.into());
        }
        if config_type.is_some() && row.config_type.as_deref() != config_type {
            row.config_type = config_type.map(Into::into);
        }
        row.last_activity = time;
        row.origin = Origin::Event;
        row.hear(now);
        let before = row.json.len();
        row.encode(machine);
        self.rows_bytes = self.rows_bytes - before + row.json.len() + usize::from(before == 0);
        self.changed();
    }

    /// An event without a state came from `machine`.
    fn hear(&mut self, machine: &str, now: Instant) {
        let Some(row) = self.rows.get_mut(machine) else {
            return;
        };
        let was_stale = row.is_stale();
        row.hear(now);
        if was_stale {
            let before = row.json.len();
            row.encode(machine);
            self.rows_bytes = self.rows_bytes - before + row.json.len();
            self.changed();
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
        self.rows_bytes -= row.json.len() + 1;
        self.changed();
        true
    }

    /// The `config_type` of a machine: `None` when there is no such machine.
    pub fn config_type(&self, machine: &str) -> Option<Option<&str>> {
        self.rows.get(machine).map(|row| row.config_type.as_deref())
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

    /// Makes room: the machine that was silent longest leaves first.
    fn evict(&mut self) -> Applied {
        if self.rows_bytes <= ROWS_BYTES_MAX {
            return Applied::Nothing;
        }
        let mut oldest: Vec<(Instant, Box<str>)> =
            self.rows.iter().map(|(name, row)| (row.heard, name.clone())).collect();
        oldest.sort_unstable();
        let before = self.rows.len();
        for (_, name) in oldest {
            // The last one stays: it fits by FIELD_BYTES_MAX, and it is the one just heard of.
            if self.rows_bytes <= ROWS_BYTES_AFTER_EVICTION || self.rows.len() == 1 {
                break;
            }
            self.remove(&name);
        }
        let evicted = before - self.rows.len();
        self.evicted += evicted as u64;
        Applied::Evicted(evicted)
    }

    /// The table now, as everybody who asks now gets it: encoded once per state and second.
    pub fn snapshot(&mut self, now: Instant, epoch: f64) -> Arc<Snapshot> {
        if let Some((version, made, snapshot)) = &self.cached
            && *version == self.shown_version
            && now.saturating_duration_since(*made) < SNAPSHOT_FRESH
        {
            return Arc::clone(snapshot);
        }
        let end = format!("],\"timestamp\":{}}}", json_seconds(epoch));
        let json = self.document("{\"type\":\"initial\",\"machines\":[", &end);
        let snapshot = Arc::new(Snapshot::new(json, self.rows.len()));
        self.cached = Some((self.shown_version, now, Arc::clone(&snapshot)));
        snapshot
    }

    fn document(&self, start: &str, end: &str) -> Vec<u8> {
        let mut json = Vec::with_capacity(start.len() + self.rows_bytes + end.len());
        json.extend_from_slice(start.as_bytes());
        for (index, row) in self.rows.values().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json.extend_from_slice(&row.json);
        }
        json.extend_from_slice(end.as_bytes());
        json
    }
}

impl Machines {
    /// Takes in what the recovered `history` has and the state file does not: what was published after the last save,
    /// or everything when there was none. Silence counts up to the last event, `now`, so that machines that were gone
    /// by `ttl` do not come back. Returns whether anything has changed.
    pub fn catch_up(&mut self, history: &History, ttl: Option<Duration>, now: Instant) -> bool {
        let (before, saved) = (self.version(), self.saved);
        let batches = history.all();
        let last = batches.back().map_or(0.0, |batch| batch.time());
        for batch in batches.iter().filter(|batch| batch.time() >= saved) {
            let age = Duration::try_from_secs_f64(last - batch.time()).unwrap_or_default();
            let heard = now.checked_sub(age).unwrap_or(now);
            for item in batch.items() {
                if let Item::Event(event) = item
                    && let Ok(checked) = check(event.payload)
                {
                    if event.recovered.is_some() {
                        self.apply_late(&checked, batch.time(), heard);
                    } else {
                        self.apply(&checked, heard, batch.time());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::batch::BatchBuilder;

    pub(super) fn apply(machines: &mut Machines, text: &str) -> Applied {
        machines.apply(&check(text.as_bytes()).unwrap(), Instant::now(), 100.5)
    }

    pub(super) fn change(machine: &str, state: &str) -> String {
        format!(
            r#"{{"machine_name":"{machine}","type":"state_change","payload":{{"to_state":"{state}","timestamp":1.25}}}}"#
        )
    }

    pub(super) fn initial(machines: &mut Machines) -> String {
        String::from_utf8(machines.snapshot(Instant::now(), 2.5).json.clone()).unwrap()
    }

    #[test]
    fn an_empty_table_is_the_original_empty_answer() {
        assert_eq!(
            initial(&mut Machines::default()),
            r#"{"type":"initial","machines":[],"timestamp":2.5}"#
        );
    }

    #[test]
    fn rows_have_the_original_keys_then_id_and_are_in_binary_order() {
        let mut machines = Machines::default();
        apply(&mut machines, &change("a\\\"ä", "x"));
        apply(
            &mut machines,
            r#"{"machine_name":"Z","type":"machine_registered","payload":{"config_type":"c","current_state":"s","timestamp":7}}"#,
        );
        assert_eq!(
            initial(&mut machines),
            concat!(
                r#"{"type":"initial","machines":["#,
                r#"{"machine_name":"Z","current_state":"s","last_activity":7,"metadata":null,"config_type":"c","id":"Z"},"#,
                r#"{"machine_name":"a\"ä","current_state":"x","last_activity":1.25,"metadata":null,"config_type":null,"id":"a\"ä"}"#,
                r#"],"timestamp":2.5}"#
            )
        );
    }

    #[test]
    fn a_state_change_keeps_the_configuration_and_an_end_removes() {
        let mut machines = Machines::default();
        apply(
            &mut machines,
            r#"{"machine_name":"m","type":"machine_registered","payload":{"config_type":"c","current_state":"s"}}"#,
        );
        assert!(initial(&mut machines).contains("\"last_activity\":100.5"));
        apply(&mut machines, &change("m", "t"));
        assert!(
            initial(&mut machines)
                .contains(r#""current_state":"t","last_activity":1.25,"metadata":null,"config_type":"c""#)
        );
        apply(
            &mut machines,
            r#"{"type":"machine_terminated","payload":{"machine_name":"m"}}"#,
        );
        assert!(machines.is_empty());
        assert_eq!(machines.rows_bytes, 0);
    }

    #[test]
    fn events_without_a_state_make_no_row() {
        let mut machines = Machines::default();
        apply(
            &mut machines,
            r#"{"machine_name":"cli","type":"activity_log","payload":{"message":"x"}}"#,
        );
        apply(&mut machines, r#"{"type":"state_change","payload":{"to_state":"x"}}"#);
        assert!(machines.is_empty());
    }

    #[test]
    fn the_snapshot_is_made_once_per_state() {
        let mut machines = Machines::default();
        let now = Instant::now();
        let first = machines.snapshot(now, 1.0);
        assert!(Arc::ptr_eq(&first, &machines.snapshot(now, 1.5)));
        assert!(!Arc::ptr_eq(&first, &machines.snapshot(now + SNAPSHOT_FRESH, 2.0)));
        let second = machines.snapshot(now, 3.0);
        apply(&mut machines, &change("m", "s"));
        assert!(!Arc::ptr_eq(&second, &machines.snapshot(now, 3.0)));
    }

    #[test]
    fn the_longest_silent_give_way_to_a_million_names() {
        let mut machines = Machines::default();
        let start = Instant::now();
        let mut evicted = 0;
        for number in 0..30_000u64 {
            let text = change(&format!("machine-{number}"), "s");
            let now = start + Duration::from_millis(number);
            if let Applied::Evicted(count) = machines.apply(&check(text.as_bytes()).unwrap(), now, 1.0) {
                evicted += count;
            }
            assert!(machines.rows_bytes <= ROWS_BYTES_MAX);
        }
        assert_eq!(machines.len() + evicted, 30_000);
        assert_eq!(machines.evicted(), evicted as u64);
        assert!(initial(&mut machines).len() < 1024 * 1024);
        assert!(machines.rows.contains_key("machine-29999"));
        assert!(!machines.rows.contains_key("machine-0"));
        let sum: usize = machines.rows.values().map(|row| row.json.len() + 1).sum();
        assert_eq!(machines.rows_bytes, sum);
    }

    #[test]
    fn a_huge_name_is_not_tabled() {
        let mut machines = Machines::default();
        assert_eq!(
            apply(&mut machines, &change(&"n".repeat(10_000), "s")),
            Applied::Nothing
        );
        assert_eq!(
            apply(&mut machines, &change(&"n".repeat(FIELD_BYTES_MAX + 1), "s")),
            Applied::Untabled
        );
        assert_eq!((machines.len(), machines.untabled()), (1, 1));
    }

    /// One event each second.
    fn history(from: f64, texts: &[String]) -> History {
        let mut history = History::new(1 << 20, 0);
        for (text, time) in texts.iter().zip(0..) {
            let mut builder = BatchBuilder::new(history.newest() + 1, 1, text.len());
            builder.push(text.as_bytes(), None, None);
            history.push(Arc::new(builder.finish(0, from + f64::from(time)).unwrap()));
        }
        history
    }

    #[test]
    fn the_history_completes_what_was_saved() {
        let ended = r#"{"machine_name":"gone","type":"machine_terminated","payload":{}}"#.to_owned();
        let texts = [
            change("m", "a"),
            change("gone", "a"),
            change("m", "b"),
            ended,
            change("m", "c"),
        ];
        let events = history(100.0, &texts);
        let mut expected = Machines::default();
        apply(&mut expected, &texts[4]);
        let expected = initial(&mut expected);
        // Nothing saved; saved in the middle.
        let mut table = Machines::default();
        assert!(table.catch_up(&events, None, Instant::now()));
        assert_eq!(initial(&mut table), expected);
        let mut saved = Machines::default();
        for text in &texts[..3] {
            apply(&mut saved, text);
        }
        let mut table = Machines::restore(&saved.saved(102.5), Instant::now()).unwrap();
        assert!(table.catch_up(&events, None, Instant::now()));
        assert_eq!(initial(&mut table), expected);
        // What the journal lacks is not undone.
        apply(&mut saved, &change("m", "newer"));
        let mut table = Machines::restore(&saved.saved(110.0), Instant::now()).unwrap();
        assert!(!table.catch_up(&events, None, Instant::now()));
        assert_eq!(initial(&mut table), initial(&mut saved));
    }

    #[test]
    fn a_machine_that_was_silent_too_long_does_not_come_back() {
        let texts: Vec<String> = (0..10).map(|number| change(&format!("m{number}"), "s")).collect();
        let mut table = Machines::default();
        table.catch_up(
            &history(100.0, &texts),
            Some(Duration::from_millis(2500)),
            Instant::now(),
        );
        assert_eq!(
            table.rows.keys().map(|name| &**name).collect::<Vec<_>>(),
            ["m7", "m8", "m9"]
        );
    }

    #[test]
    fn silence_expires() {
        let mut machines = Machines::default();
        let start = Instant::now();
        machines.apply(&check(change("old", "s").as_bytes()).unwrap(), start, 1.0);
        let later = start + Duration::from_secs(60);
        machines.apply(&check(change("new", "s").as_bytes()).unwrap(), later, 1.0);
        assert_eq!(machines.expire(Duration::from_secs(30), later), 1);
        assert!(machines.rows.contains_key("new"));
    }
}
