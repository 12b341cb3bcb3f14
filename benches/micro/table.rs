//! The table of machines, and its snapshot in every form.

use crate::events::{change, messages};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use std::sync::Arc;
use std::time::{Duration, Instant};
use threadcast::stream::declared::Declared;
use threadcast::stream::event::{Event, check};
use threadcast::stream::filter::Filter;
use threadcast::stream::machines::bounds::TableLimits;
use threadcast::stream::machines::survey::Survey;
use threadcast::stream::machines::{Applied, Machines};
use threadcast::stream::position::{Epoch, Position};
use threadcast::stream::protocol::Protocol;
use threadcast::stream::view::View;

/// As many as a table holds by default.
const MACHINES: usize = 20_000;

fn events() -> Vec<String> {
    (0..MACHINES).map(|machine| change(machine, 200)).collect()
}

fn table() -> Machines {
    let mut machines = Machines::default();
    for text in events() {
        let event = check(text.as_bytes()).expect("these events are good");
        assert_eq!(machines.apply(&event, Instant::now(), 1.5), Applied::Nothing);
    }
    assert_eq!(machines.len(), MACHINES);
    machines
}

/// How many machines an `initial` has.
fn rows(json: &[u8]) -> usize {
    let document: serde_json::Value = serde_json::from_slice(json).expect("it is JSON");
    document["machines"].as_array().map_or(0, Vec::len)
}

/// One event after the other, each of another machine.
#[divan::bench(sample_size = 500)]
fn apply(bencher: Bencher<'_, '_>) {
    let events = events();
    let checked: Vec<Event<'_>> = events
        .iter()
        .map(|text| check(text.as_bytes()).expect("these events are good"))
        .collect();
    let mut checked = checked.iter().cycle();
    let mut machines = table();
    let (before, now) = (machines.version(), Instant::now());
    let mut applied = 0;
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let event = checked.next().expect("they begin anew");
        applied += 1;
        machines.apply(event, now, 1.5)
    });
    assert_eq!(machines.version(), before + applied, "each changes its row");
}

/// What the fan-out copies for the first who joins after a minute: all rows.
#[divan::bench]
fn snapshot(bencher: Bencher<'_, '_>) {
    let mut machines = table();
    let mut now = Instant::now();
    let snapshot = machines.snapshot(now, 1.5);
    assert_eq!(snapshot.machines(), MACHINES);
    bencher.counter(ItemsCount::new(MACHINES)).bench_local(|| {
        now += Duration::from_secs(100);
        machines.snapshot(now, 2.5)
    });
    assert!(
        !Arc::ptr_eq(&snapshot, &machines.snapshot(now, 2.5)),
        "it was made anew"
    );
}

/// The same, where one machine has changed its state since.
#[divan::bench]
fn snapshot_of_a_change(bencher: Bencher<'_, '_>) {
    let (mut machines, now) = (table(), Instant::now());
    machines.snapshot(now, 1.5);
    let text = change(MACHINES / 2, 200);
    let event = check(text.as_bytes()).expect("this event is good");
    bencher.counter(ItemsCount::new(MACHINES)).bench_local(|| {
        machines.apply(&event, now, 1.5);
        machines.snapshot(now, black_box(2.5))
    });
}

/// In parts, with the number of the last event; every pass is another number, so that none is shared.
#[divan::bench]
fn numbered(bencher: Bencher<'_, '_>) {
    initial(bencher, Protocol::V1, None, MACHINES);
}

/// A tenth of the machines.
#[divan::bench]
fn filtered(bencher: Bencher<'_, '_>) {
    initial(bencher, Protocol::Plain, Some("worker-0*,worker-2*"), 2_000);
}

/// The newest of them, as many as 1 MiB holds.
#[divan::bench]
fn plain(bencher: Bencher<'_, '_>) {
    let snapshot = table().snapshot(Instant::now(), 1.5);
    let message = snapshot.make_plain(&Filter::default());
    assert_eq!(
        rows(messages(message.chunk.bytes())[0].as_bytes()) + message.left_out,
        MACHINES
    );
    bencher
        .counter(ItemsCount::new(MACHINES))
        .bench_local(|| black_box(&snapshot).make_plain(&Filter::default()));
}

/// An event of a new machine, into a full table: every 1,250th finds those that were silent longest.
#[divan::bench(sample_size = 2500)]
fn flood(bencher: Bencher<'_, '_>) {
    let mut machines = table();
    let mut number = MACHINES;
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(|| {
            number += 1;
            change(number, 200)
        })
        .bench_local_values(|text| {
            let event = check(text.as_bytes()).expect("these events are good");
            machines.apply(&event, Instant::now(), 1.5)
        });
    assert!(machines.len() <= MACHINES && machines.evicted() > 0);
}

fn initial(bencher: Bencher<'_, '_>, protocol: Protocol, wanted: Option<&str>, expected: usize) {
    let snapshot = table().snapshot(Instant::now(), 1.5);
    let view = View {
        protocol,
        filter: Filter::from_lists(wanted, None).expect("the patterns are good"),
        conflate: None,
        plain_notices: false,
    };
    let parts = view.initial(Arc::clone(&snapshot), 7);
    let seen = parts.map(|part| rows(messages(part.bytes())[0].as_bytes()));
    assert_eq!(seen.sum::<usize>(), expected);
    let mut as_of = 100;
    bencher.counter(ItemsCount::new(MACHINES)).bench_local(|| {
        as_of += 1;
        view.initial(black_box(Arc::clone(&snapshot)), as_of)
            .map(|part| part.bytes().len())
            .sum::<usize>()
    });
}

/// The whole survey, in as many slices as it takes.
fn whole_survey(machines: &mut Machines, now: Instant) -> Arc<Survey> {
    let as_of = Position {
        epoch: Epoch::new(),
        seq: 7,
    };
    loop {
        if let Some(survey) = machines.survey(as_of, now) {
            return survey;
        }
    }
}

/// As `/api/machines` tells of it: what the fan-out copies.
#[divan::bench]
fn survey(bencher: Bencher<'_, '_>) {
    let (mut machines, now) = (table(), Instant::now());
    bencher.counter(ItemsCount::new(MACHINES)).bench_local(|| {
        machines.renew_survey();
        whole_survey(&mut machines, black_box(now))
    });
}

/// The document that a page's thread makes of it.
#[divan::bench]
fn survey_json(bencher: Bencher<'_, '_>) {
    let (mut machines, now) = (table(), Instant::now());
    let survey = whole_survey(&mut machines, now);
    let json = |epoch| survey.machines_json(&Filter::default(), &Declared::default(), now, epoch);
    assert_eq!(rows(&json(1.5)), MACHINES);
    bencher
        .counter(ItemsCount::new(MACHINES))
        .bench_local(|| json(black_box(1.5)));
}

/// As the state file keeps it.
#[divan::bench]
fn saved(bencher: Bencher<'_, '_>) {
    let machines = table();
    let now = Instant::now();
    let saved = machines.saved(now, 1.5);
    let restored = Machines::restore(&saved, TableLimits::default(), now, 1.5).expect("what is saved can be read");
    assert_eq!(restored.len(), MACHINES);
    bencher
        .counter(ItemsCount::new(MACHINES))
        .bench_local(|| machines.saved(now, black_box(1.5)));
}
