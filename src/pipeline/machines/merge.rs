//! What comes from the engine's database, brought together with what came by the socket: the newest state wins, and what
//! clients were sent is never turned back.

use super::{Applied, FIELD_BYTES_MAX, Machines, Row};
use crate::pipeline::event::Event;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A row that is older than the last wire event by no more than this is of the same step: an engine sends its event first and
/// writes its row then.
const SAME_STEP_S: f64 = 2.0;
/// Ends that are remembered, so that an older row does not bring the machine back; the oldest goes.
const ENDS_MAX: usize = 4096;

/// A row of the engine's `machine_state`, its values as `initial` has them.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineRow {
    pub machine: Box<str>,
    pub state: Option<Box<str>>,
    /// `last_activity`: a JSON number; `None` where the row has no usable one.
    pub time: Option<Box<str>>,
    pub metadata: Option<Box<str>>,
    pub config_type: Option<Box<str>>,
    /// The process that wrote it is gone.
    pub stale: bool,
}

impl EngineRow {
    /// `last_activity`, seconds since the epoch; before everything where there is none.
    pub fn seconds(&self) -> f64 {
        seconds(self.time.as_deref())
    }

    fn is_too_large(&self) -> bool {
        let texts = [&self.state, &self.metadata, &self.config_type];
        let lens = texts.into_iter().flatten().map(|text| text.len());
        lens.chain([self.machine.len()]).any(|len| len > FIELD_BYTES_MAX)
    }
}

/// How far the engine's refused events have been taken from its database. Kept in the state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredTo {
    /// Device and inode of the database, in a text.
    pub file: String,
    /// The last id.
    pub id: i64,
}

/// When machines ended, in seconds since the epoch.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<Box<str>, f64>);

impl Ends {
    /// `machine` ended at `time`.
    pub(super) fn note(&mut self, machine: &str, time: f64) {
        if self.0.len() >= ENDS_MAX {
            let oldest = self.0.iter().min_by(|a, b| a.1.total_cmp(b.1));
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| self.0.remove(&name));
        }
        self.0.insert(machine.into(), time);
    }

    /// Whether `machine` ended at `time` or after it.
    fn is_over(&self, machine: &str, time: f64) -> bool {
        self.0.get(machine).is_some_and(|ended| *ended >= time)
    }
}

/// What an event that came late did.
#[derive(Debug, PartialEq, Eq)]
pub struct Late {
    pub applied: Applied,
    /// Whoever goes by the order of events now has another state of its machine than the table, which has a newer one.
    pub turns_back: bool,
}

impl Machines {
    /// Takes in a row of the engine's database. `now` is `epoch` on the wall; `ttl` is `--machine-ttl`.
    pub fn merge(&mut self, seen: &EngineRow, ttl: Option<Duration>, now: Instant, epoch: f64) -> Applied {
        let time = seen.seconds();
        if self.ends.is_over(&seen.machine, time) {
            return Applied::Nothing;
        }
        if seen.is_too_large() {
            self.untabled += 1;
            return Applied::Untabled;
        }
        let age = Duration::try_from_secs_f64(epoch - time).unwrap_or_default();
        // The process lives, which is a sign of life without an event.
        let lives = ttl.is_some() && !seen.stale;
        let heard = if lives { Some(now) } else { now.checked_sub(age) };
        let Some(row) = self.rows.get_mut(&*seen.machine) else {
            if seen.stale && ttl.is_some_and(|ttl| age > ttl) {
                return Applied::Nothing;
            }
            self.insert(seen, heard.unwrap_or(now));
            return self.evict();
        };
        let before = row.json.len();
        let mut changed = false;
        if time > row.seconds() {
            changed |= replace(&mut row.current_state, &seen.state);
            changed |= replace(&mut row.metadata, &seen.metadata);
            changed |= seen.config_type.is_some() && replace(&mut row.config_type, &seen.config_type);
            changed |= replace_time(&mut row.last_activity, seen.time.as_deref());
            row.by_event = false;
        } else {
            changed |= row.config_type.is_none() && replace(&mut row.config_type, &seen.config_type);
            changed |= row.metadata.is_none() && replace(&mut row.metadata, &seen.metadata);
        }
        // So that it is saved.
        changed |= !std::mem::replace(&mut row.in_database, true);
        let heard_since = row.by_event && row.seconds() > time + SAME_STEP_S;
        let stale = seen.stale && !heard_since;
        changed |= std::mem::replace(&mut row.stale, stale) != stale;
        if lives {
            row.heard = now;
        }
        if !changed {
            return Applied::Nothing;
        }
        row.encode(&seen.machine);
        self.rows_bytes = self.rows_bytes - before + row.json.len();
        self.version += 1;
        self.evict()
    }

    fn insert(&mut self, seen: &EngineRow, heard: Instant) {
        let mut row = Row::new(heard);
        row.current_state.clone_from(&seen.state);
        row.metadata.clone_from(&seen.metadata);
        row.config_type.clone_from(&seen.config_type);
        replace_time(&mut row.last_activity, seen.time.as_deref());
        row.stale = seen.stale;
        row.in_database = true;
        row.from_database = true;
        row.encode(&seen.machine);
        self.rows_bytes += row.json.len() + 1;
        self.rows.insert(seen.machine.clone(), row);
        self.version += 1;
    }

    /// The engine's database has no row of `machine` any more. One that was heard of by an event stays: its end is an event
    /// too.
    pub fn vanish(&mut self, machine: &str) {
        match self.rows.get_mut(machine) {
            Some(row) if row.from_database => {
                self.remove(machine);
            }
            Some(row) => {
                row.in_database = false;
                self.version += 1;
            }
            None => {}
        }
    }

    /// Machines that had a row when the engine's database was read last.
    pub fn in_database(&self) -> impl Iterator<Item = &str> {
        let rows = self.rows.iter().filter(|(_, row)| row.in_database);
        rows.map(|(name, _)| &**name)
    }

    /// After a restart: these had a row. Unless they are heard of again they go with it.
    pub(super) fn restore_database_rows(&mut self, kept: &RawValue) {
        let kept: Value = serde_json::from_str(kept.get()).unwrap_or_default();
        let names = kept["machines"].as_array().into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            if let Some(row) = self.rows.get_mut(name) {
                (row.in_database, row.from_database) = (true, true);
            }
        }
    }

    /// As [`Machines::apply`], of an event that comes late, from the engine's database, into which it was written at `written`
    /// (seconds since the epoch). The table is left alone if it has something newer.
    pub fn apply_late(&mut self, event: &Event<'_>, written: f64, now: Instant) -> Late {
        let nothing = |turns_back| Late {
            applied: Applied::Nothing,
            turns_back,
        };
        let Some(machine) = event.machine.as_deref() else {
            return nothing(false);
        };
        let ends = event.kind.as_deref() == Some("machine_terminated");
        if !ends && event.state.is_none() {
            return nothing(false);
        }
        let time = event.time.map_or(written, |time| seconds(Some(time)));
        if self.ends.is_over(machine, time) {
            return nothing(true);
        }
        if let Some(row) = self.rows.get(machine).filter(|row| row.seconds() > time) {
            return nothing(ends || row.current_state.as_deref() != event.state.as_deref());
        }
        Late {
            applied: self.apply(event, now, written),
            turns_back: false,
        }
    }

    /// How far refused events were recovered.
    pub fn recovered_to(&self) -> Option<&RecoveredTo> {
        self.recovered_to.as_ref()
    }

    /// Refused events were recovered so far.
    pub fn set_recovered_to(&mut self, to: RecoveredTo) {
        if self.recovered_to.as_ref() != Some(&to) {
            self.recovered_to = Some(to);
            // So that it is saved.
            self.version += 1;
        }
    }

    /// Machines whose process is gone.
    pub fn stale(&self) -> usize {
        self.rows.values().filter(|row| row.stale).count()
    }
}

/// How the state file ends.
pub(super) fn saved_end(machines: &Machines) -> String {
    let names: Vec<&str> = machines.in_database().collect();
    if names.is_empty() && machines.recovered_to.is_none() {
        return "]}\n".to_owned();
    }
    let mut kept = json!({ "machines": names });
    if let Some(RecoveredTo { file, id }) = &machines.recovered_to {
        kept["file"] = file.as_str().into();
        kept["events"] = (*id).into();
    }
    format!("],\"engine_db\":{kept}}}\n")
}

/// The position in what [`saved_end`] made.
pub(super) fn saved_position(kept: &RawValue) -> Option<RecoveredTo> {
    let kept: Value = serde_json::from_str(kept.get()).ok()?;
    Some(RecoveredTo {
        file: kept["file"].as_str()?.to_owned(),
        id: kept["events"].as_i64()?,
    })
}

/// The seconds of a JSON number; before everything without one.
pub(super) fn seconds(number: Option<&str>) -> f64 {
    number.and_then(|text| text.parse().ok()).unwrap_or(f64::NEG_INFINITY)
}

/// Whether `to` was another one.
fn replace(to: &mut Option<Box<str>>, from: &Option<Box<str>>) -> bool {
    let differs = to != from;
    if differs {
        to.clone_from(from);
    }
    differs
}

fn replace_time(to: &mut Box<str>, from: Option<&str>) -> bool {
    let from = from.unwrap_or("null");
    let differs = &**to != from;
    if differs {
        *to = from.into();
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::event::check;

    const NOW: f64 = 1000.0;

    fn row(machine: &str, state: &str, time: f64) -> EngineRow {
        EngineRow {
            machine: machine.into(),
            state: Some(state.into()),
            time: Some(time.to_string().into()),
            metadata: None,
            config_type: Some("conf".into()),
            stale: false,
        }
    }

    fn merge(machines: &mut Machines, row: &EngineRow) {
        assert_eq!(machines.merge(row, None, Instant::now(), NOW), Applied::Nothing);
    }

    fn event(machine: &str, kind: &str, state: &str, time: f64) -> String {
        format!(
            r#"{{"machine_name":"{machine}","type":"{kind}","payload":{{"to_state":"{state}","timestamp":{time}}}}}"#
        )
    }

    fn apply(machines: &mut Machines, state: &str, time: f64) {
        let text = event("m", "state_change", state, time);
        machines.apply(&check(text.as_bytes()).unwrap(), Instant::now(), NOW);
    }

    fn shown(machines: &mut Machines) -> String {
        let json = machines.snapshot(Instant::now(), 0.0).json.clone();
        let rows: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let text = |row: &serde_json::Value| {
            format!(
                "{} {} {} {} {}",
                row["machine_name"], row["current_state"], row["last_activity"], row["config_type"], row["stale"]
            )
        };
        let rows: Vec<String> = rows["machines"].as_array().unwrap().iter().map(text).collect();
        rows.join("\n")
    }

    #[test]
    fn the_newest_state_wins_whichever_way_it_came() {
        let mut machines = Machines::default();
        merge(&mut machines, &row("m", "a", 10.0));
        assert_eq!(shown(&mut machines), r#""m" "a" 10 "conf" null"#);
        apply(&mut machines, "b", 11.0);
        merge(&mut machines, &row("m", "a", 10.0));
        assert_eq!(shown(&mut machines), r#""m" "b" 11 "conf" null"#);
        merge(&mut machines, &row("m", "c", 12.0));
        assert_eq!(shown(&mut machines), r#""m" "c" 12 "conf" null"#);
    }

    #[test]
    fn an_older_row_fills_in_what_events_do_not_say() {
        let mut machines = Machines::default();
        apply(&mut machines, "b", 11.0);
        merge(&mut machines, &row("m", "a", 10.0));
        assert_eq!(shown(&mut machines), r#""m" "b" 11 "conf" null"#);
    }

    #[test]
    fn a_machine_that_ended_comes_back_with_a_newer_row_only() {
        let mut machines = Machines::default();
        apply(&mut machines, "b", 11.0);
        let end = event("m", "machine_terminated", "", 12.0);
        machines.apply(&check(end.as_bytes()).unwrap(), Instant::now(), NOW);
        merge(&mut machines, &row("m", "b", 11.5));
        assert_eq!(shown(&mut machines), "");
        merge(&mut machines, &row("m", "c", 12.5));
        assert_eq!(shown(&mut machines), r#""m" "c" 12.5 "conf" null"#);
    }

    #[test]
    fn a_row_that_vanishes_takes_only_what_came_from_it() {
        let mut machines = Machines::default();
        merge(&mut machines, &row("m", "a", 10.0));
        merge(&mut machines, &row("n", "a", 10.0));
        apply(&mut machines, "b", 11.0);
        machines.vanish("m");
        machines.vanish("n");
        assert_eq!(shown(&mut machines), r#""m" "b" 11 "conf" null"#);
    }

    #[test]
    fn a_dead_process_makes_its_row_stale_until_somebody_is_heard() {
        let mut machines = Machines::default();
        let stale = EngineRow {
            stale: true,
            ..row("m", "a", 10.0)
        };
        merge(&mut machines, &stale);
        assert_eq!(
            (machines.stale(), &*shown(&mut machines)),
            (1, r#""m" "a" 10 "conf" true"#)
        );
        apply(&mut machines, "b", 50.0);
        merge(&mut machines, &stale);
        assert_eq!(
            (machines.stale(), &*shown(&mut machines)),
            (0, r#""m" "b" 50 "conf" null"#)
        );
    }

    #[test]
    fn what_is_stale_for_longer_than_the_bound_is_left_out() {
        let mut machines = Machines::default();
        let ttl = Some(Duration::from_secs(60));
        for (machine, time, stale) in [
            ("old", NOW - 61.0, true),
            ("fresh", NOW - 59.0, true),
            ("alive", 1.0, false),
        ] {
            let row = EngineRow {
                stale,
                ..row(machine, "a", time)
            };
            machines.merge(&row, ttl, Instant::now(), NOW);
        }
        machines.expire(Duration::from_secs(60), Instant::now());
        assert_eq!(
            shown(&mut machines),
            "\"alive\" \"a\" 1 \"conf\" null\n\"fresh\" \"a\" 941 \"conf\" true"
        );
    }

    #[test]
    fn a_late_event_never_turns_the_table_back() {
        let mut machines = Machines::default();
        let late = |machines: &mut Machines, state: &str, time: f64| {
            let text = event("m", "state_change", state, time);
            machines
                .apply_late(&check(text.as_bytes()).unwrap(), NOW, Instant::now())
                .turns_back
        };
        assert!(!late(&mut machines, "a", 10.0));
        apply(&mut machines, "c", 12.0);
        assert!(late(&mut machines, "b", 11.0));
        assert_eq!(shown(&mut machines), r#""m" "c" 12 null null"#);
        merge(&mut machines, &row("m", "e", 14.0));
        assert!(late(&mut machines, "d", 13.0));
        assert!(!late(&mut machines, "e", 13.9), "it is the step of the row");
        assert_eq!(shown(&mut machines), r#""m" "e" 14 "conf" null"#);
    }

    #[test]
    fn what_was_read_survives_a_restart_and_goes_with_its_row() {
        let mut machines = Machines::default();
        merge(&mut machines, &row("gone", "a", 10.0));
        merge(&mut machines, &row("stays", "a", 10.0));
        let to = RecoveredTo {
            file: "1:2".to_owned(),
            id: 7,
        };
        machines.set_recovered_to(to.clone());
        apply(&mut machines, "b", 11.0);
        let mut machines = Machines::restore(&machines.saved(1.0), Instant::now()).unwrap();
        assert_eq!(machines.recovered_to(), Some(&to));
        assert_eq!(machines.in_database().collect::<Vec<_>>(), ["gone", "stays"]);
        machines.vanish("gone");
        machines.vanish("m");
        let left = "\"m\" \"b\" 11 null null\n\"stays\" \"a\" 10 \"conf\" null";
        assert_eq!(shown(&mut machines), left);
    }

    #[test]
    fn the_ends_that_are_remembered_are_bounded() {
        let mut ends = Ends::default();
        for n in 0..=ENDS_MAX {
            ends.note(&n.to_string(), n as f64);
        }
        assert_eq!(ends.0.len(), ENDS_MAX);
        assert!(!ends.is_over("0", 0.0));
        assert!(ends.is_over("4096", 4096.0));
    }
}
