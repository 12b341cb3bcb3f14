//! The table as a whole: what it applies, shows, keeps, and lets go of.

use super::*;
use crate::stream::batch::BatchBuilder;
use crate::stream::declared::Declared;
use crate::stream::filter::Filter;
use crate::stream::position::Epoch;

pub(super) fn apply(machines: &mut Machines, text: &str) -> Applied {
    machines.apply(&check(text.as_bytes()).unwrap(), Instant::now(), 100.5)
}

pub(super) fn change(machine: &str, state: &str) -> String {
    format!(
        r#"{{"machine_name":"{machine}","type":"state_change","payload":{{"to_state":"{state}","timestamp":1.25}}}}"#
    )
}

pub(super) fn initial(machines: &mut Machines) -> String {
    String::from_utf8(machines.snapshot(Instant::now(), 2.5).plain().chunk.payload(0).to_vec()).unwrap()
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
    assert_eq!(machines.used, Size::default());
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

/// The memory of all rows, counted anew.
fn recounted(machines: &Machines) -> Size {
    let mut size = Size::default();
    machines.rows.iter().for_each(|(name, row)| size += Size::of(name, row));
    size
}

#[test]
fn a_flood_of_names_stays_within_both_bounds_and_those_silent_longest_leave() {
    for limits in [
        TableLimits {
            machines_max: 1000,
            ..TableLimits::default()
        },
        TableLimits {
            bytes_max: 1024 * 1024,
            ..TableLimits::default()
        },
    ] {
        let (mut machines, begun, mut evicted) = (Machines::new(limits), Instant::now(), 0);
        for number in 0..10_000_u64 {
            let text = change(&format!("machine-{number}"), "s");
            let now = begun + Duration::from_millis(number);
            if let Applied::Evicted(count) = machines.apply(&check(text.as_bytes()).unwrap(), now, 1.0) {
                assert!(count >= 30, "a sixteenth at once, not {count}");
                evicted += count;
            }
            assert!(machines.len() <= limits.machines_max && machines.bytes() <= limits.bytes_max);
        }
        assert_eq!((machines.len() + evicted, machines.evicted()), (10_000, evicted as u64));
        assert!(machines.len() > 500, "{}", machines.len());
        let oldest = 10_000 - machines.len();
        assert!((oldest..10_000).all(|number| machines.rows.contains_key(&*format!("machine-{number}"))));
        assert_eq!(machines.used, recounted(&machines));
    }
}

#[test]
fn memory_is_counted_whatever_changes_in_a_row() {
    let mut machines = Machines::default();
    for text in [
        change("m", "a"),
        triggered("b", &"t".repeat(1000)),
        triggered("b", "short"),
        change("m", &"long ".repeat(100)),
        change("n", "a"),
        r#"{"machine_name":"m","type":"machine_registered","payload":{"config_type":"conf","current_state":"s"}}"#
            .to_owned(),
        r#"{"machine_name":"n","type":"note"}"#.to_owned(),
    ] {
        apply(&mut machines, &text);
        assert_eq!(machines.used, recounted(&machines), "{text}");
    }
    machines.remove("m");
    assert_eq!(machines.used, recounted(&machines));
}

#[test]
fn of_a_state_file_with_more_than_has_room_the_newest_stay() {
    let (mut machines, begun) = (Machines::default(), Instant::now());
    for number in 0..100 {
        // Older ones have greater names.
        let text = change(&format!("m{:03}", 99 - number), "s");
        machines.apply(
            &check(text.as_bytes()).unwrap(),
            begun + Duration::from_secs(number),
            1.0,
        );
    }
    let limits = TableLimits {
        machines_max: 32,
        ..TableLimits::default()
    };
    let now = begun + Duration::from_secs(100);
    let restored = Machines::restore(&machines.saved(now, 1000.0), limits, now, 1000.0).unwrap();
    let names: Vec<&str> = restored.rows.keys().map(|name| &**name).collect();
    let newest: Vec<String> = (0..restored.len()).map(|number| format!("m{number:03}")).collect();
    assert!(restored.len() >= 30 && names == newest, "{names:?}");
    assert_eq!(restored.evicted() as usize + restored.len(), 100);
    assert_eq!(restored.used, recounted(&restored));
}

#[test]
fn a_huge_name_is_not_tabled() {
    let mut machines = Machines::default();
    assert_eq!(
        apply(&mut machines, &change(&"n".repeat(10_000), "s")),
        Applied::Nothing
    );
    assert_eq!(
        apply(&mut machines, &change(&"n".repeat(16 * 1024 + 1), "s")),
        Applied::Untabled
    );
    assert_eq!((machines.len(), machines.untabled()), (1, 1));
}

/// The table after a save at `epoch` and a restart.
fn restored(machines: &Machines, epoch: f64) -> Machines {
    let now = Instant::now();
    Machines::restore(&machines.saved(now, epoch), TableLimits::default(), now, epoch).unwrap()
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
    assert!(table.catch_up(&events, None, Instant::now(), 200.0));
    assert_eq!(initial(&mut table), expected);
    let mut saved = Machines::default();
    for text in &texts[..3] {
        apply(&mut saved, text);
    }
    let mut table = restored(&saved, 102.5);
    assert!(table.catch_up(&events, None, Instant::now(), 200.0));
    assert_eq!(initial(&mut table), expected);
    // What the journal lacks is not undone.
    apply(&mut saved, &change("m", "newer"));
    let mut table = restored(&saved, 110.0);
    assert!(!table.catch_up(&events, None, Instant::now(), 200.0));
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
        200.0,
    );
    assert_eq!(
        table.rows.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["m7", "m8", "m9"]
    );
}

/// The rows of a survey, `seconds` after `begun`.
fn surveyed(machines: &mut Machines, begun: Instant, seconds: u64) -> Vec<serde_json::Value> {
    let now = begun + Duration::from_secs(seconds);
    let as_of = Position {
        epoch: Epoch::new(),
        seq: 7,
    };
    let survey = machines.survey(as_of, now).expect("a small table takes one slice");
    let json = survey.machines_json(&Filter::default(), &Declared::default(), now, 9.5);
    let mut document: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&document["seq"], &document["time"]), (&7.into(), &9.5.into()));
    match document["machines"].take() {
        serde_json::Value::Array(rows) => rows,
        other => panic!("{other}"),
    }
}

fn triggered(state: &str, trigger: &str) -> String {
    format!(
        r#"{{"machine_name":"m","type":"state_change","payload":{{"to_state":"{state}","event_trigger":"{trigger}"}}}}"#
    )
}

#[test]
fn a_survey_tells_how_long_a_machine_is_in_its_state_and_what_it_sends() {
    let (mut machines, begun) = (Machines::default(), Instant::now());
    let note = r#"{"machine_name":"m","type":"activity_log","payload":{"event_trigger":"not a change"}}"#.to_owned();
    for (second, text) in [(0, triggered("a", "go")), (2, triggered("a", "again")), (5, note)] {
        let event = check(text.as_bytes()).unwrap();
        machines.apply(&event, begun + Duration::from_secs(second), 1.0);
    }
    let row = &surveyed(&mut machines, begun, 6)[0];
    assert_eq!(row["state_seconds"], 6.0, "a self-loop does not begin it anew");
    assert_eq!(
        (&row["last_trigger"], &row["last_event_seconds"]),
        (&"again".into(), &1.0.into())
    );
    assert_eq!(row["events_per_second"], 0.375);
    let row = &surveyed(&mut machines, begun, 60)[0];
    assert_eq!(
        (&row["state_seconds"], &row["events_per_second"]),
        (&60.0.into(), &0.0.into())
    );
    let event = triggered("b", "done");
    machines.apply(&check(event.as_bytes()).unwrap(), begun + Duration::from_secs(60), 1.0);
    machines.renew_survey();
    assert_eq!(surveyed(&mut machines, begun, 61)[0]["state_seconds"], 1.0);
}

#[test]
fn what_is_not_known_of_a_machine_is_null() {
    let (mut machines, begun) = (Machines::default(), Instant::now());
    // Another type of event may come long after the machine has entered the state.
    let state = r#"{"machine_id":"m","type":"note","state":"s"}"#;
    machines.apply(&check(state.as_bytes()).unwrap(), begun, 1.0);
    let row = &surveyed(&mut machines, begun, 1)[0];
    for key in ["config_type", "state_seconds", "last_trigger"] {
        assert!(row[key].is_null(), "{key}: {row}");
    }
    assert_eq!((&row["current_state"], &row["stale"]), (&"s".into(), &false.into()));
}

#[test]
fn a_survey_is_made_once_a_second_whatever_changes() {
    let mut machines = Machines::default();
    let now = Instant::now();
    let as_of = Position {
        epoch: Epoch::new(),
        seq: 7,
    };
    let survey = |machines: &mut Machines, at| machines.survey(as_of, at).expect("a small table takes one slice");
    let first = survey(&mut machines, now);
    apply(&mut machines, &change("m", "s"));
    assert!(Arc::ptr_eq(&first, &survey(&mut machines, now + SURVEY_FRESH / 2)));
    assert!(!Arc::ptr_eq(&first, &survey(&mut machines, now + SURVEY_FRESH)));
    machines.end_survey(now + SURVEY_FRESH * 2);
    assert!(machines.surveyed.is_none(), "nobody keeps it");
}

#[test]
fn a_long_trigger_is_cut_and_its_event_tabled() {
    let (mut machines, begun) = (Machines::default(), Instant::now());
    assert_eq!(
        apply(&mut machines, &triggered("s", &"ä".repeat(20_000))),
        Applied::Nothing
    );
    let row = &surveyed(&mut machines, begun, 1)[0];
    let trigger = row["last_trigger"].as_str().unwrap();
    assert!(trigger.len() <= 256 && trigger.ends_with("ä…"), "{trigger}");
}

#[test]
fn times_outlive_a_restart_and_a_file_of_an_older_version_is_read() {
    let (mut machines, begun) = (Machines::default(), Instant::now());
    machines.apply(&check(triggered("a", "go").as_bytes()).unwrap(), begun, 1000.0);
    let saved = machines.saved(begun + Duration::from_secs(10), 1010.0);
    // After a boot the monotonic clock is another one.
    let mut restored = Machines::restore(&saved, TableLimits::default(), begun, 1100.0).unwrap();
    let row = &surveyed(&mut restored, begun, 0)[0];
    assert_eq!(
        (&row["state_seconds"], &row["last_event_seconds"]),
        (&100.0.into(), &100.0.into())
    );
    assert_eq!(
        (&row["last_trigger"], &row["events_per_second"]),
        (&"go".into(), &0.0.into())
    );
    let old = r#"{"threadcast_state":1,"saved":9.5,"machines":[{"machine_name":"m","current_state":"s","last_activity":1.25,"metadata":null,"config_type":null,"id":"m"}]}"#;
    let mut restored = Machines::restore(old.as_bytes(), TableLimits::default(), begun, 1100.0).unwrap();
    let row = &surveyed(&mut restored, begun, 0)[0];
    assert!(
        row["state_seconds"].is_null() && row["last_event_seconds"].is_null(),
        "{row}"
    );
    // The clock was set back meanwhile.
    let mut restored = Machines::restore(&saved, TableLimits::default(), begun, 500.0).unwrap();
    assert!(surveyed(&mut restored, begun, 0)[0]["state_seconds"].is_null());
}

#[test]
fn what_the_history_completes_keeps_its_own_time() {
    let events = history(
        100.0,
        &[triggered("a", "go"), triggered("b", "on"), triggered("b", "on")],
    );
    let (mut table, now) = (Machines::default(), Instant::now());
    table.catch_up(&events, None, now, 200.0);
    let row = &surveyed(&mut table, now, 0)[0];
    assert_eq!(
        (&row["state_seconds"], &row["last_event_seconds"]),
        (&99.0.into(), &98.0.into())
    );
    assert_eq!(row["events_per_second"], 0.0);
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

#[test]
fn a_survey_of_many_machines_is_made_in_slices() {
    let mut machines = Machines::default();
    for number in 0..5000 {
        apply(&mut machines, &change(&format!("m{number:05}"), "s"));
    }
    let as_of = Position {
        epoch: Epoch::new(),
        seq: 7,
    };
    let now = Instant::now();
    let mut surveying = Surveying::begin(as_of, None);
    let mut slices = 0;
    while !surveying.is_whole() {
        surveying.go_on(&machines.rows, (0, Duration::ZERO), Duration::ZERO);
        slices += 1;
    }
    assert!(slices > 50, "{slices}");
    let survey = surveying.finish(now, 0, &machines.learned);
    let names: Vec<&str> = survey.machines().map(|machine| machine.name).collect();
    let all: Vec<&str> = machines.rows.keys().map(|name| &**name).collect();
    assert_eq!(names, all);
}

#[test]
fn what_was_found_of_a_dwell_is_over_with_it() {
    let (mut machines, begun) = (Machines::default(), Instant::now());
    let take = |machines: &mut Machines, state: &str| {
        machines.apply(&check(triggered(state, "go").as_bytes()).unwrap(), begun, 1.0);
    };
    take(&mut machines, "a");
    let dwell = machines.rows["m"].dwell.number;
    assert!(machines.judge("m", dwell, Verdict::Stuck));
    assert_eq!(surveyed(&mut machines, begun, 0)[0]["verdict"], "stuck");
    take(&mut machines, "b");
    assert_eq!(surveyed(&mut machines, begun, 1)[0]["verdict"], "ok");
    assert!(!machines.judge("m", dwell, Verdict::Stuck), "that dwell is over");
    assert!(!machines.judge("other", dwell, Verdict::Stuck));
}
