//! The verdicts of filters, from the cheapest to the dearest that is taken.

use crate::events::{batch_of, change};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use std::cell::Cell;
use std::fmt;
use threadcast::stream::batch::{Batch, BatchBuilder, Item, Numbered};
use threadcast::stream::filter::Filter;
use threadcast::stream::protocol::Protocol;
use threadcast::stream::view::{View, Views};

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

/// Filters of which no two are equal, and the names of events: each is new.
struct Crowd {
    name: &'static str,
    clients: usize,
    filter: fn(usize) -> Filter,
    /// Machine and type.
    names: fn(u64) -> (String, String),
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} clients", self.name, self.clients)
    }
}

fn crowds() -> Vec<Crowd> {
    let sizes = [1, 100, 1_000];
    let crowd = |clients| {
        [
            Crowd {
                name: "ordinary",
                clients,
                filter: ordinary_filter,
                names: ordinary_names,
            },
            Crowd {
                name: "dearest",
                clients,
                filter: dearest_filter,
                names: dearest_names,
            },
            Crowd {
                name: "all bytes",
                clients,
                filter: all_bytes_filter,
                names: all_bytes_names,
            },
        ]
    };
    let mut crowds: Vec<Crowd> = sizes.into_iter().flat_map(crowd).collect();
    crowds.sort_by_key(|crowd| crowd.name);
    crowds
}

fn ordinary_filter(client: usize) -> Filter {
    let machines = format!("*-x{client},?orker-*y{client}");
    Filter::from_lists(Some(&machines), Some("*error*,state_*")).expect("the patterns are good")
}

fn ordinary_names(event: u64) -> (String, String) {
    (format!("worker-{event:06}"), "job_error".to_owned())
}

/// All of both lists that is taken, in the dearest order: every beginning fails at its end, and so does every other
/// pattern at nearly every byte of the name. Only the last pattern for types matches, so that machines are asked too.
fn dearest_filter(client: usize) -> Filter {
    let beginnings = (0..56).map(|index| format!("{}x{client:03}{index:02}*", "a".repeat(247)));
    let wild = |index| format!("*{}{client:03}{index}", "a".repeat(26));
    let machines = beginnings.clone().chain((0..8).map(wild)).collect();
    let last = format!("*{}{}b", "a".repeat(27), "?".repeat(9));
    let kinds = beginnings.chain((0..7).map(wild)).chain([last]).collect();
    Filter::new(Some(machines), Some(kinds)).expect("the patterns are good")
}

fn dearest_names(event: u64) -> (String, String) {
    let start = "a".repeat(246);
    (format!("{start}a{event:09}"), format!("{start}{event:09}b"))
}

/// Patterns of as many different bytes as fit, so that a name of all of them has a look at as much memory as can be.
fn all_bytes_filter(client: usize) -> Filter {
    let patterns = |signs: &[char]| -> Vec<String> {
        let own = char::from_u32(0x100 + client as u32).expect("no surrogate");
        let pattern = |signs: &[char]| format!("*{}{own}", signs.iter().collect::<String>());
        let mut patterns: Vec<String> = signs.chunks(signs.len().div_ceil(8)).map(pattern).collect();
        patterns.push("xxx*".to_owned());
        patterns
    };
    let signs = all_bytes();
    let kinds = patterns(&signs).into_iter().chain(["job_*".to_owned()]).collect();
    Filter::new(Some(patterns(&signs)), Some(kinds)).expect("the patterns are good")
}

fn all_bytes_names(event: u64) -> (String, String) {
    let signs: String = all_bytes().into_iter().rev().collect();
    (format!("{event:09}{signs}"), format!("job_{event:09}{signs}"))
}

/// Characters of one and of two bytes.
fn all_bytes() -> Vec<char> {
    let single = (1..0x7f_u8).map(char::from).filter(|sign| !['*', '?'].contains(sign));
    let double = (0x80..0xb0).map(|number| char::from_u32(number).expect("no surrogate"));
    single.chain(double).collect()
}

/// What one event costs the fan-out because clients have filters, none of which wants it.
#[divan::bench(args = crowds(), sample_size = 4, max_time = 3)]
fn crowd(bencher: Bencher<'_, '_>, crowd: &Crowd) {
    let mut views = Views::default();
    let view = |client| View {
        protocol: Protocol::V1,
        filter: (crowd.filter)(client),
        conflate: None,
        plain_notices: false,
    };
    let held: Vec<_> = (0..crowd.clients).map(|client| views.place(&view(client))).collect();
    let next = Cell::new(1);
    let event = || {
        let number = next.replace(next.get() + 1);
        let (machine, kind) = (crowd.names)(number);
        let mut builder = BatchBuilder::new(number, 1, 2);
        builder.push(b"{}", Some(&machine), Some(&kind));
        builder.finish(1, 1.5).expect("it has an event")
    };
    let types_match = |view: &View| {
        let kinds = view.filter.kinds().expect("every filter has types");
        let only = Filter::new(None, Some(kinds.into_iter().map(str::to_owned).collect()));
        only.expect("they were taken").wants(None, Some(&(crowd.names)(1).1))
    };
    assert!(held.iter().all(|(_, view)| types_match(view)), "machines are not asked");
    bencher
        .counter(ItemsCount::new(crowd.clients))
        .with_inputs(event)
        .bench_local_refs(|batch| {
            let seen = held.iter().filter(|(place, _)| views.encoded(*place, batch).is_some());
            assert_eq!(seen.count(), 0);
        });
}
