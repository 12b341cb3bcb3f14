//! Tests of what dwells teach.

use super::bounds::TableLimits;
use super::*;
use crate::stream::event::check;
use crate::stream::learned::Who;
use crate::stream::learned::usual::Usual;

const EPOCH: f64 = 1_795_393_481.0;

/// A table, and the moment at which its first event came.
struct Table(Machines, Instant);

impl Table {
    fn new() -> Table {
        Table(Machines::default(), Instant::now())
    }

    /// An event that arrives `at` seconds after the first.
    fn take(&mut self, at: f64, text: &str) {
        let event = check(text.as_bytes()).unwrap();
        let now = self.1 + Duration::from_secs_f64(at);
        self.0.apply(&event, now, EPOCH + at);
    }

    /// Machine `m` changes its state at `at`, and says so at once; `own` seconds is the time that it names.
    fn change(&mut self, at: f64, from: &str, to: &str, own: Option<f64>) {
        let time = own.map_or("null".to_owned(), |own| (EPOCH + own).to_string());
        self.take(
            at,
            &format!(
                r#"{{"machine_name":"m","type":"state_change","payload":{{"from_state":"{from}","to_state":"{to}","event_trigger":"t","timestamp":{time}}}}}"#
            ),
        );
    }

    fn usual(&mut self, state: &str) -> Usual {
        let who = Who {
            machine: "m",
            config_type: None,
        };
        let state = self.0.learned().state(who, state);
        state.map(|state| state.usual()).unwrap_or_default()
    }

    fn seconds(&mut self, state: &str) -> Vec<f64> {
        let usual = self.usual(state);
        let seconds = [usual.largest, usual.second_largest].map(|dwell| dwell.as_secs_f64());
        seconds[..seconds.len().min(usual.n as usize)].to_vec()
    }
}

#[test]
fn a_dwell_counts_when_it_is_over() {
    let mut table = Table::new();
    table.change(0.0, "idle", "busy", None);
    assert_eq!(table.seconds("busy"), [0.0; 0]);
    table.change(2.0, "busy", "idle", None);
    assert_eq!(table.seconds("busy"), [2.0]);
    table.change(5.0, "idle", "busy", None);
    assert_eq!(table.seconds("idle"), [3.0]);
}

#[test]
fn a_change_into_the_same_state_is_a_dwell_and_word_of_it_is_none() {
    let mut table = Table::new();
    table.change(0.0, "busy", "busy", None);
    table.take(1.0, r#"{"machine_id":"m","type":"status","state":"busy"}"#);
    table.change(4.0, "busy", "busy", None);
    assert_eq!(table.seconds("busy"), [4.0]);
}

#[test]
fn a_dwell_of_another_state_than_the_one_left_teaches_nothing() {
    let mut table = Table::new();
    table.change(0.0, "idle", "busy", None);
    table.change(2.0, "waiting", "idle", None);
    assert_eq!((table.seconds("busy"), table.seconds("waiting")), (vec![], vec![]));
    // The next one is known again.
    table.change(3.0, "idle", "busy", None);
    assert_eq!(table.seconds("idle"), [1.0]);
}

#[test]
fn a_state_that_the_machine_was_only_seen_in_teaches_nothing() {
    let mut table = Table::new();
    table.take(0.0, r#"{"machine_id":"m","type":"status","state":"busy"}"#);
    table.change(2.0, "busy", "idle", None);
    assert_eq!(table.seconds("busy"), [0.0; 0]);
}

#[test]
fn the_senders_time_counts_while_it_is_within_five_seconds_of_ours() {
    let mut table = Table::new();
    table.change(1.0, "idle", "busy", Some(0.0));
    table.change(4.0, "busy", "idle", Some(2.5));
    assert_eq!(table.seconds("busy"), [2.5]);
    // The sender's clock is an hour ahead: what counts is when its events came.
    table.change(5.0, "idle", "busy", Some(3600.0));
    table.change(12.0, "busy", "idle", Some(3601.0));
    assert_eq!(table.seconds("busy"), [7.0, 2.5]);
    // Milliseconds are no time.
    table.change(20.0, "idle", "busy", Some(1e15));
    table.change(21.0, "busy", "idle", Some(1e15));
    assert_eq!(table.usual("busy").n, 3);
}

#[test]
fn a_replayed_event_teaches_nothing_and_neither_does_what_it_began() {
    let mut table = Table::new();
    table.change(100.0, "idle", "busy", Some(30.0));
    table.change(102.0, "busy", "idle", Some(102.0));
    assert_eq!((table.usual("busy").n, table.usual("idle").n), (0, 0));
    table.change(103.0, "idle", "busy", Some(103.0));
    assert_eq!(table.seconds("idle"), [1.0]);
    // 60 s are not yet too much.
    table.change(104.0, "busy", "idle", Some(45.0));
    assert_eq!(table.seconds("busy"), [1.0]);
}

#[test]
fn no_dwell_counts_over_which_something_was_lost() {
    let mut table = Table::new();
    table.change(0.0, "idle", "busy", None);
    table.0.note_loss();
    table.change(2.0, "busy", "idle", None);
    assert_eq!(table.usual("busy").n, 0);
    table.change(3.0, "idle", "busy", None);
    assert_eq!(table.seconds("idle"), [1.0]);
}

#[test]
fn what_comes_from_the_engines_database_teaches_nothing() {
    let mut table = Table::new();
    table.change(0.0, "idle", "busy", None);
    let late = r#"{"machine_name":"m","type":"state_change","payload":{"from_state":"x","to_state":"busy"}}"#;
    let event = check(late.as_bytes()).unwrap();
    table.0.apply_late(&event, EPOCH - 5.0, table.1, EPOCH + 1.0);
    table.change(2.0, "busy", "idle", None);
    assert_eq!(table.usual("busy").n, 0);
}

#[test]
fn a_restart_is_a_loss() {
    let mut table = Table::new();
    table.change(0.0, "idle", "busy", None);
    let saved = table.0.saved(table.1, EPOCH);
    table.0 = Machines::restore(&saved, TableLimits::default(), table.1, EPOCH).unwrap();
    table.change(2.0, "busy", "idle", None);
    assert_eq!(table.usual("busy").n, 0);
}

#[test]
fn a_type_that_an_event_brings_is_learned_for_at_once() {
    let mut table = Table::new();
    table.take(
        0.0,
        r#"{"machine_name":"m","type":"machine_registered","payload":{"config_type":"worker","current_state":"idle"}}"#,
    );
    table.change(1.0, "idle", "busy", None);
    let who = Who {
        machine: "other",
        config_type: Some("worker"),
    };
    let learned = table.0.learned();
    let known = |name| learned.state(who, name).unwrap();
    assert_eq!((known("idle").dwells.n(), known("busy").entered), (1, 1));
    assert_eq!(known("idle").ways[0].from, None, "it began there");
    assert_eq!(known("busy").ways[0].trigger.as_deref(), Some("t"));
}

/// Where dwells are lost, it is the long ones, so that the others are no measure.
#[test]
fn a_state_of_which_many_dwells_are_lost_has_no_limit() {
    let mut table = Table::new();
    table.change(0.0, "idle", "busy", None);
    let mut at = 0.0;
    for number in 0..400 {
        at += 1.0;
        table.change(at, "busy", "idle", None);
        at += 1.0;
        table.change(at, "idle", "busy", None);
        if number % 5 == 0 {
            table.0.note_loss();
        }
    }
    let usual = table.usual("busy");
    assert_eq!((usual.n, usual.voided), (320, 80));
    assert_eq!(usual.stuck_after(), None);
    assert!(table.usual("idle").stuck_after().is_some(), "nothing was lost there");
}

#[test]
fn a_registration_begins_a_stay_and_the_one_before_teaches_nothing() {
    let register = r#"{"machine_name":"m","type":"machine_registered","payload":{"current_state":"busy"}}"#;
    let mut table = Table::new();
    table.take(0.0, register);
    table.take(3.0, register);
    table.change(5.0, "busy", "idle", None);
    assert_eq!(table.seconds("busy"), [2.0]);
}

#[test]
fn of_a_name_that_is_too_long_nothing_is_learned() {
    let mut table = Table::new();
    table.change(0.0, "idle", "busy", None);
    table.change(1.0, &"x".repeat(2000), "idle", None);
    assert_eq!(table.0.learned().sizes().0, 1);
}
