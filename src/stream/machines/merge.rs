//! What comes from the engine's database, brought together with what came by the socket: the newest state wins, and
//! what clients were sent is never turned back.

use super::bounds::{Size, is_too_long};
use super::recovered::RecoveredTo;
use super::row::{Arrival, Origin, Process, Row, seconds};
use super::{Applied, Machines, instant};
use crate::stream::event::Event;
use std::time::{Duration, Instant};

/// A row that is older than the last wire event by no more than this is of the same step: an engine sends its event
/// first and writes its row then.
const SAME_STEP_S: f64 = 2.0;

/// A row of the engine's `machine_state`, its values as `initial` has them.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineRow {
    pub machine: Box<str>,
    pub state: Option<Box<str>>,
    /// `last_activity`: a JSON number; `None` where the row has no usable one.
    pub time: Option<Box<str>>,
    pub metadata: Option<Box<str>>,
    pub config_type: Option<Box<str>>,
    pub process: Process,
}

impl EngineRow {
    /// `last_activity`, seconds since the epoch; before everything where there is none.
    pub fn seconds(&self) -> f64 {
        seconds(self.time.as_deref())
    }

    /// Bytes of its texts, and of what holds them.
    pub fn bytes(&self) -> usize {
        let texts = [&self.state, &self.time, &self.metadata, &self.config_type];
        let bytes: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        size_of::<EngineRow>() + self.machine.len() + bytes
    }

    fn is_too_large(&self) -> bool {
        let texts = [&self.state, &self.time, &self.metadata, &self.config_type];
        let mut texts = texts.into_iter().flatten().map(|text| &**text);
        is_too_long(&self.machine) || texts.any(is_too_long)
    }
}

/// What an event that came late did.
#[derive(Debug, PartialEq, Eq)]
pub struct Late {
    pub applied: Applied,
    /// A client that goes by the order of events now has another state of its machine than the table, which has a newer
    /// one.
    pub turns_back: bool,
}

impl Machines {
    /// Takes in a row of the engine's database. `now` is `epoch` on the wall; `ttl` is `--machine-ttl`.
    pub fn merge(&mut self, seen: &EngineRow, ttl: Option<Duration>, now: Instant, epoch: f64) -> Applied {
        let time = seen.seconds();
        if self.ends.is_over(&seen.machine, time) {
            self.kept_version += u64::from(self.ends.set_row(&seen.machine, true));
            return Applied::Nothing;
        }
        if seen.is_too_large() {
            self.untabled += 1;
            return Applied::Untabled;
        }
        let Some(row) = self.rows.get_mut(&*seen.machine) else {
            return self.merge_new(seen, ttl, now, epoch);
        };
        let before = Size::of(&seen.machine, row);
        let mut changed = false;
        let counts = match row.origin {
            Origin::Database => true,
            Origin::Event | Origin::LateEvent => time > row.seconds(),
        };
        if counts {
            let is_other_state = replace(&mut row.current_state, &seen.state);
            if is_other_state {
                // The row says when it was written last, which may be long after it entered this state.
                row.entered = None;
                row.dwell = self.dwells.begin_unknown(instant(time, now, epoch).unwrap_or(now));
            }
            changed |= is_other_state;
            row.event = row.event.max(instant(time, now, epoch));
            changed |= replace(&mut row.metadata, &seen.metadata);
            changed |= seen.config_type.is_some() && replace(&mut row.config_type, &seen.config_type);
            changed |= replace_time(&mut row.last_activity, seen.time.as_deref());
            row.origin = Origin::Database;
        } else {
            changed |= row.config_type.is_none() && replace(&mut row.config_type, &seen.config_type);
            changed |= row.metadata.is_none() && replace(&mut row.metadata, &seen.metadata);
        }
        let had_row = std::mem::replace(&mut row.in_database, true);
        self.kept_version += u64::from(!had_row);
        let heard_since = row.origin == Origin::Event && row.seconds() > time + SAME_STEP_S;
        let process = match seen.process {
            Process::Gone if heard_since => Process::Unknown,
            process => process,
        };
        let was_stale = row.is_stale();
        row.set_process(process, now);
        changed |= row.is_stale() != was_stale;
        if !changed {
            return Applied::Nothing;
        }
        row.encode(&seen.machine);
        self.used -= before;
        self.used += Size::of(&seen.machine, row);
        self.changed(&seen.machine);
        self.evict(None)
    }

    /// Of a machine that is not in the table.
    fn merge_new(&mut self, seen: &EngineRow, ttl: Option<Duration>, now: Instant, epoch: f64) -> Applied {
        let age = match seen.time {
            Some(_) => Duration::try_from_secs_f64(epoch - seen.seconds()).unwrap_or_default(),
            // Nobody knows; if its process lives, that does not matter.
            None => Duration::MAX,
        };
        // A process that lives is a sign of life without an event.
        let lives = seen.process == Process::Lives;
        if !lives && ttl.is_some_and(|ttl| age > ttl) {
            return Applied::Nothing;
        }
        let heard = if lives { None } else { now.checked_sub(age) };
        let mut row = Row::new(heard.unwrap_or(now));
        row.current_state.clone_from(&seen.state);
        row.metadata.clone_from(&seen.metadata);
        row.config_type.clone_from(&seen.config_type);
        replace_time(&mut row.last_activity, seen.time.as_deref());
        row.event = instant(seen.seconds(), now, epoch);
        row.process = seen.process;
        row.in_database = true;
        row.from_database = true;
        row.encode(&seen.machine);
        self.used += Size::of(&seen.machine, &row);
        self.rows.insert(seen.machine.clone(), row);
        self.changed(&seen.machine);
        self.evict(None)
    }

    /// The engine's database has no row of `machine` any more. One that was heard of by an event stays: its end is an
    /// event too.
    pub fn vanish(&mut self, machine: &str, now: Instant) {
        match self.rows.get_mut(machine) {
            Some(row) if row.from_database => {
                self.remove(machine);
            }
            Some(row) => {
                row.in_database = false;
                if row.process == Process::Lives {
                    row.set_process(Process::Unknown, now);
                }
                self.kept_version += 1;
            }
            None => self.kept_version += u64::from(self.ends.set_row(machine, false)),
        }
    }

    /// Machines that had a row when the engine's database was read last.
    pub fn in_database(&self) -> impl Iterator<Item = &str> {
        let rows = self.rows.iter().filter(|(_, row)| row.in_database);
        rows.map(|(name, _)| &**name)
    }

    /// As [`Machines::apply`], of an event that comes late, from the engine's database, into which it was written at
    /// `written` (seconds since the epoch); `now` is `epoch` on the wall. The table is left alone if it has something
    /// newer.
    pub fn apply_late(&mut self, event: &Event<'_>, written: f64, now: Instant, epoch: f64) -> Late {
        let arrival = Arrival {
            heard: now,
            happened: instant(written, now, epoch),
            slot: None,
        };
        self.apply_late_as(event, written, &arrival)
    }

    pub(super) fn apply_late_as(&mut self, event: &Event<'_>, written: f64, arrival: &Arrival) -> Late {
        let nothing = |turns_back| Late {
            applied: Applied::Nothing,
            turns_back,
        };
        let Some(machine) = event.machine.as_deref() else {
            return nothing(false);
        };
        if let Some(row) = self.rows.get_mut(machine) {
            // Its engine could not send some events, so nobody knows how long it was in this state.
            row.dwell.losses = None;
        }
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
        let applied = self.apply_as(event, arrival, written);
        if let Some(row) = self.rows.get_mut(machine) {
            row.origin = Origin::LateEvent;
        }
        Late {
            applied,
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
            self.kept_version += 1;
        }
    }
}

/// Replaces `to` by `from`. Returns whether it was another one.
fn replace(to: &mut Option<Box<str>>, from: &Option<Box<str>>) -> bool {
    let differs = to != from;
    if differs {
        to.clone_from(from);
    }
    differs
}

fn replace_time(to: &mut String, from: Option<&str>) -> bool {
    let from = from.unwrap_or("null");
    let differs = *to != from;
    if differs {
        *to = from.into();
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::super::bounds::TableLimits;
    use super::super::recovered::mark;
    use super::*;
    use crate::stream::event::check;

    const NOW: f64 = 1000.0;

    fn row(machine: &str, state: &str, time: f64) -> EngineRow {
        EngineRow {
            machine: machine.into(),
            state: Some(state.into()),
            time: Some(time.to_string().into()),
            metadata: None,
            config_type: Some("conf".into()),
            process: Process::Unknown,
        }
    }

    fn restored(machines: &Machines) -> Machines {
        let now = Instant::now();
        Machines::restore(&machines.saved(now, 1.0), TableLimits::default(), now, 1.0).unwrap()
    }

    fn count_stale(machines: &Machines) -> usize {
        machines.rows.values().filter(|row| row.is_stale()).count()
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
        let snapshot = machines.snapshot(Instant::now(), 0.0);
        let json = snapshot.plain().chunk.payload(0);
        let rows: serde_json::Value = serde_json::from_slice(json).unwrap();
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
        machines.vanish("m", Instant::now());
        machines.vanish("n", Instant::now());
        assert_eq!(shown(&mut machines), r#""m" "b" 11 "conf" null"#);
    }

    #[test]
    fn a_dead_process_makes_its_row_stale_until_somebody_is_heard() {
        let mut machines = Machines::default();
        let stale = EngineRow {
            process: Process::Gone,
            ..row("m", "a", 10.0)
        };
        merge(&mut machines, &stale);
        assert_eq!(
            (count_stale(&machines), &*shown(&mut machines)),
            (1, r#""m" "a" 10 "conf" true"#)
        );
        apply(&mut machines, "b", 50.0);
        merge(&mut machines, &stale);
        assert_eq!(
            (count_stale(&machines), &*shown(&mut machines)),
            (0, r#""m" "b" 50 "conf" null"#)
        );
    }

    #[test]
    fn what_is_stale_for_longer_than_the_bound_is_left_out() {
        let mut machines = Machines::default();
        let ttl = Some(Duration::from_secs(60));
        for (machine, time, process) in [
            ("old", Some(NOW - 61.0), Process::Gone),
            ("fresh", Some(NOW - 59.0), Process::Gone),
            ("alive", Some(1.0), Process::Lives),
            ("nobody's", Some(NOW - 61.0), Process::Unknown),
            ("timeless", None, Process::Gone),
        ] {
            let row = EngineRow {
                process,
                time: time.map(|time| time.to_string().into()),
                ..row(machine, "a", 0.0)
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
    fn who_lives_may_be_silent_and_silence_counts_from_its_death() {
        let mut machines = Machines::default();
        let ttl = Duration::from_secs(60);
        let begun = Instant::now();
        let later = begun + ttl * 3;
        let mut seen = row("m", "a", NOW);
        seen.process = Process::Lives;
        machines.merge(&seen, Some(ttl), begun, NOW);
        assert_eq!(machines.expire(ttl, later), 0);
        seen.process = Process::Gone;
        machines.merge(&seen, Some(ttl), later, NOW);
        assert_eq!(machines.expire(ttl, later + ttl / 2), 0);
        assert_eq!(machines.expire(ttl, later + ttl * 2), 1);
    }

    #[test]
    fn a_late_event_never_turns_the_table_back() {
        let mut machines = Machines::default();
        let late = |machines: &mut Machines, state: &str, time: f64| {
            let text = event("m", "state_change", state, time);
            machines
                .apply_late(&check(text.as_bytes()).unwrap(), NOW, Instant::now(), NOW)
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
            mark: mark(b"{}"),
        };
        machines.set_recovered_to(to.clone());
        apply(&mut machines, "b", 11.0);
        let mut machines = restored(&machines);
        assert_eq!(machines.recovered_to(), Some(&to));
        assert_eq!(machines.in_database().collect::<Vec<_>>(), ["gone", "stays"]);
        machines.vanish("gone", Instant::now());
        machines.vanish("m", Instant::now());
        let left = "\"m\" \"b\" 11 null null\n\"stays\" \"a\" 10 \"conf\" null";
        assert_eq!(shown(&mut machines), left);
    }

    #[test]
    fn what_was_forgotten_stays_so_after_a_restart_as_long_as_its_row_is_the_same() {
        let mut machines = Machines::default();
        merge(&mut machines, &row("m", "a", 10.0));
        machines.end("m", 20.0);
        merge(&mut machines, &row("m", "a", 10.0));
        let mut machines = restored(&machines);
        merge(&mut machines, &row("m", "a", 10.0));
        assert_eq!(shown(&mut machines), "");
        merge(&mut machines, &row("m", "b", 21.0));
        assert_eq!(shown(&mut machines), r#""m" "b" 21 "conf" null"#);
    }

    #[test]
    fn a_row_says_when_its_machine_was_heard_and_not_since_when_it_is_in_its_state() {
        let (mut machines, now) = (Machines::default(), Instant::now());
        machines.merge(&row("m", "a", NOW - 50.0), None, now, NOW);
        let of = |machines: &Machines| {
            let row = &machines.rows["m"];
            let seconds = |then: Instant| now.saturating_duration_since(then).as_secs();
            (row.entered.map(seconds), row.event.map(seconds))
        };
        assert_eq!(of(&machines), (None, Some(50)));
        let text = event("m", "state_change", "b", NOW - 40.0);
        machines.apply(&check(text.as_bytes()).unwrap(), now, NOW);
        assert_eq!(of(&machines), (Some(0), Some(0)));
        // Of the same step; then a newer one of which no event came.
        machines.merge(&row("m", "b", NOW - 39.0), None, now, NOW);
        assert_eq!(of(&machines), (Some(0), Some(0)));
        machines.merge(&row("m", "c", NOW - 30.0), None, now, NOW);
        assert_eq!(of(&machines), (None, Some(0)));
        let late = event("m", "state_change", "d", NOW - 20.0);
        machines.apply_late(&check(late.as_bytes()).unwrap(), NOW - 20.0, now, NOW);
        assert_eq!(of(&machines), (Some(20), Some(0)));
    }

    #[test]
    fn a_row_that_is_written_twice_in_a_second_shows_what_it_says_last() {
        let mut machines = Machines::default();
        merge(&mut machines, &row("m", "a", 10.0));
        merge(&mut machines, &row("m", "b", 10.0));
        assert_eq!(shown(&mut machines), r#""m" "b" 10 "conf" null"#);
    }

    #[test]
    fn an_event_that_was_on_its_way_does_not_turn_back_what_overtook_it() {
        let mut machines = Machines::default();
        merge(&mut machines, &row("m", "c", 12.0));
        apply(&mut machines, "b", 11.0);
        assert_eq!(shown(&mut machines), r#""m" "c" 12 "conf" null"#);
        let late = event("m", "state_change", "d", 13.0);
        machines.apply_late(&check(late.as_bytes()).unwrap(), NOW, Instant::now(), NOW);
        apply(&mut machines, "b", 11.5);
        merge(&mut machines, &row("m", "c", 12.5));
        assert_eq!(shown(&mut machines), r#""m" "d" 13 "conf" null"#);
        apply(&mut machines, "e", 14.0);
        assert_eq!(shown(&mut machines), r#""m" "e" 14 "conf" null"#);
    }
}
