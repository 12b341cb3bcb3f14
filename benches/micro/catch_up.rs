//! What one client missed, taken from the history and encoded as it sees it.

use crate::events::{batch_of, change, messages};
use divan::Bencher;
use divan::counter::ItemsCount;
use std::sync::Arc;
use threadcast::config::Config;
use threadcast::stream::chunk::Chunk;
use threadcast::stream::filter::Filter;
use threadcast::stream::history::{History, Past};
use threadcast::stream::protocol::Protocol;
use threadcast::stream::view::View;

const MISSED: usize = 20_000;
const EVENT_BYTES: usize = 200;
const MACHINES: usize = 100;
/// How many events each batch has: as a quiet stream makes them, and as a busy one does.
const PER_BATCH: [usize; 3] = [1, 16, 512];

fn history(per_batch: usize) -> History {
    let mut history = History::new(Config::default().history_bytes, 0);
    for first in (0..MISSED).step_by(per_batch) {
        let machines = first..(first + per_batch).min(MISSED);
        let events: Vec<String> = machines.map(|index| change(index % MACHINES, EVENT_BYTES)).collect();
        history.push(Arc::new(batch_of(&events, first as u64 + 1)));
    }
    assert_eq!((history.newest(), history.reaches()), (MISSED as u64, 0));
    history
}

/// The history's answers to a client that asks until there is no more, each batch as `view` sees it.
fn replay(history: &History, view: &View, mut each: impl FnMut(Arc<Chunk>)) {
    let mut after = 0;
    loop {
        let Past::Batches { batches, complete } = history.after(after, Config::default().client_queue_bytes) else {
            panic!("the history reaches");
        };
        for batch in batches {
            if let Some(chunk) = view.encode(&batch, after) {
                each(chunk);
            }
            after = batch.last();
        }
        if complete {
            return;
        }
    }
}

/// The batches' own bytes.
#[divan::bench(args = PER_BATCH)]
fn plain(bencher: Bencher<'_, '_>, per_batch: usize) {
    measure(bencher, per_batch, Protocol::Plain, None, MISSED);
}

#[divan::bench(args = PER_BATCH)]
fn numbered(bencher: Bencher<'_, '_>, per_batch: usize) {
    measure(bencher, per_batch, Protocol::V1, None, MISSED);
}

/// A tenth of the events, numbered.
#[divan::bench(args = PER_BATCH)]
fn filtered(bencher: Bencher<'_, '_>, per_batch: usize) {
    measure(bencher, per_batch, Protocol::V1, Some("worker-000*"), MISSED / 10);
}

fn measure(bencher: Bencher<'_, '_>, per_batch: usize, protocol: Protocol, wanted: Option<&str>, expected: usize) {
    let history = history(per_batch);
    let view = View {
        protocol,
        filter: Filter::from_lists(wanted, None).expect("the pattern is good"),
        conflate: None,
        plain_notices: false,
    };
    let mut wire = Vec::new();
    replay(&history, &view, |chunk| wire.extend_from_slice(chunk.bytes()));
    let seen = messages(&wire);
    assert_eq!(seen.len(), expected);
    assert!(seen.iter().all(|text| text.contains("\"to_state\": \"working\"")));
    let number = |text: &String| -> Option<u64> { text.strip_prefix("{\"seq\":")?.split(',').next()?.parse().ok() };
    if protocol == Protocol::V1 {
        assert!(
            seen.iter()
                .map(number)
                .is_sorted_by(|one, next| one.is_some() && one < next)
        );
    }
    bencher.counter(ItemsCount::new(MISSED)).bench_local(|| {
        let mut bytes = 0;
        replay(&history, &view, |chunk| bytes += chunk.bytes().len());
        assert_eq!(bytes, wire.len());
    });
}
