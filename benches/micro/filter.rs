//! The verdicts of filters, from the cheapest to the dearest that is taken.

use crate::events::{batch_of, change};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use std::fmt;
use threadcast::client::filter::{Filter, Verdicts};
use threadcast::pipeline::batch::{Batch, Item, Numbered};

const EVENTS: usize = 256;
const MACHINES: usize = 128;

/// A filter, and how many of the events it wants.
struct Case {
    name: &'static str,
    machines: Option<String>,
    wanted: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn cases() -> Vec<Case> {
    let case = |name, machines, wanted| Case { name, machines, wanted };
    let list = |count, pattern: &dyn Fn(usize) -> String| Some((0..count).map(pattern).collect::<Vec<_>>().join(","));
    let each = EVENTS / MACHINES;
    vec![
        case("everything", None, EVENTS),
        case("a name", list(1, &|_| "worker-0007".to_owned()), each),
        case("a beginning", list(1, &|_| "worker-000*".to_owned()), 10 * each),
        case("64 names", list(64, &|index| format!("worker-{index:04}")), 64 * each),
        case("8 wildcards", list(8, &|index| format!("*er-*0{index}?")), 80 * each),
        // As dear as is taken; see `worst_name`.
        case(
            "8 long wildcards",
            list(8, &|index| format!("*{}{index}", "a".repeat(29))),
            0,
        ),
    ]
}

impl Case {
    fn filter(&self) -> Filter {
        Filter::from_lists(self.machines.as_deref(), None).expect("the patterns are good")
    }
}

fn batch() -> Batch {
    let events: Vec<String> = (0..EVENTS).map(|index| change(index % MACHINES, 200)).collect();
    batch_of(&events, 1)
}

fn events(batch: &Batch) -> Vec<Numbered<'_>> {
    let event = |item| match item {
        Item::Event(event) => event,
        Item::Loss(_) => panic!("nothing was lost"),
    };
    batch.items().map(event).collect()
}

/// Every pattern, for every event.
#[divan::bench(args = cases(), sample_size = 20)]
fn asked(bencher: Bencher<'_, '_>, case: &Case) {
    let filter = case.filter();
    measure(bencher, case, |event| filter.wants(event.machine, event.kind));
}

/// As views ask: what is dear is asked once per machine and type.
#[divan::bench(args = cases(), sample_size = 20)]
fn remembered(bencher: Bencher<'_, '_>, case: &Case) {
    let (filter, mut verdicts) = (case.filter(), Verdicts::default());
    measure(bencher, case, |event| verdicts.wants(&filter, event));
}

/// A name that no pattern matches and each must be held against to its end: what one event costs at worst.
#[divan::bench]
fn worst_name(bencher: Bencher<'_, '_>) {
    let filter = cases().last().expect("there are cases").filter();
    let name = "a".repeat(256);
    bencher.bench_local(|| filter.wants_machine(black_box(&name)));
}

fn measure(bencher: Bencher<'_, '_>, case: &Case, mut wants: impl FnMut(&Numbered<'_>) -> bool) {
    let batch = batch();
    let events = events(&batch);
    let mut wanted = || black_box(&events).iter().filter(|event| wants(event)).count();
    assert_eq!(wanted(), case.wanted, "{case}");
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(wanted);
}
