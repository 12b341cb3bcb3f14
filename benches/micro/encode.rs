//! Events into a batch of ready frames, and into what other views see.

use crate::events::{batch_of, change, messages};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use threadcast::config::Config;
use threadcast::stream::batch::{Batch, BatchBuilder};
use threadcast::stream::filter::Filter;
use threadcast::stream::protocol::Protocol;
use threadcast::stream::view::View;

/// 200 B, 2 KB and 50 KB.
const SIZES: [usize; 3] = [200, 2_000, 50_000];
/// Most events of a turn (`TURN_EVENTS_MAX` of the fan-out).
const TURN_EVENTS: usize = 512;
const MACHINES: usize = 100;

/// As many events as one turn takes.
fn turn(bytes: usize) -> Vec<String> {
    let fit = Config::default().send_buffer_bytes / 2 / bytes;
    (0..fit.min(TURN_EVENTS))
        .map(|index| change(index % MACHINES, bytes))
        .collect()
}

#[divan::bench(args = SIZES, sample_size = 20)]
fn one_event(bencher: Bencher<'_, '_>, bytes: usize) {
    measure(bencher, &[change(7, bytes)]);
}

#[divan::bench(args = SIZES, sample_size = 20)]
fn a_turn(bencher: Bencher<'_, '_>, bytes: usize) {
    measure(bencher, &turn(bytes));
}

/// What the fan-out does with events that are checked.
fn measure(bencher: Bencher<'_, '_>, events: &[String]) {
    let bytes = events.iter().map(String::len).sum();
    // As the check gives them.
    let machines: Vec<&str> = events.iter().map(|text| &text[18..29]).collect();
    let encode = || -> Batch {
        let mut builder = BatchBuilder::new(1, events.len(), bytes);
        for (text, machine) in events.iter().zip(&machines) {
            builder.push(text.as_bytes(), Some(machine), Some("state_change"));
        }
        builder.finish(1, 1.5).expect("it has events")
    };
    let batch = encode();
    assert_eq!(messages(batch.chunk().bytes()), events);
    assert!(machines[0].starts_with("worker-"));
    bencher
        .counter(BytesCount::new(bytes))
        .counter(ItemsCount::new(events.len()))
        .bench_local(|| black_box(encode()));
}

#[divan::bench(args = SIZES, sample_size = 20)]
fn numbered(bencher: Bencher<'_, '_>, bytes: usize) {
    let events = turn(bytes);
    let seen = measure_view(bencher, &events, &view(Protocol::V1, None));
    assert_eq!(seen.len(), events.len());
    assert!(seen[0].starts_with(r#"{"seq":1,"machine":"worker-0000","type":"state_change","event":{"#));
}

/// A tenth of it.
#[divan::bench(args = SIZES, sample_size = 20)]
fn filtered(bencher: Bencher<'_, '_>, bytes: usize) {
    let events = turn(bytes);
    let seen = measure_view(bencher, &events, &view(Protocol::Plain, Some("worker-000*")));
    let wanted = |text: &&String| text.contains("\"worker-000");
    assert!(seen.iter().eq(events.iter().filter(wanted)));
}

fn view(protocol: Protocol, machines: Option<&str>) -> View {
    View {
        protocol,
        filter: Filter::from_lists(machines, None).expect("the pattern is good"),
        conflate: None,
        plain_notices: false,
    }
}

/// Gives what the view sees.
fn measure_view(bencher: Bencher<'_, '_>, events: &[String], view: &View) -> Vec<String> {
    let batch = batch_of(events, 1);
    bencher
        .counter(ItemsCount::new(events.len()))
        .bench_local(|| view.encode(black_box(&batch), 0));
    let chunk = view.encode(&batch, 0).expect("it sees some of it");
    messages(chunk.bytes())
}
