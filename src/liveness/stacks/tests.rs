//! Dumps of threads that are stuck in different ways, as a report shows them.

use super::arena::one_at_a_time;
use super::*;
use crate::process::clock::monotonic_ms;
use crate::process::threads::{ThreadHandle, spawn};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BOUND: Duration = Duration::from_secs(30);
const STACK_BYTES: usize = 256 * 1024;

fn own_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// A dump as text; it must drop nothing that the system's allocator has made.
fn dump(first: &[i32]) -> (String, DumpSummary) {
    let mut text = Vec::with_capacity(4 << 20);
    let mut dumper = Dumper::install().unwrap();
    let before = arena::leaked();
    let summary = dumper.dump(first, &mut |lines| text.extend_from_slice(lines));
    assert_eq!(arena::leaked(), before);
    (String::from_utf8(text).unwrap(), summary)
}

/// The lines about thread `id`, which has an entry of its own.
fn entry(text: &str, id: i32) -> String {
    let head = format!(" (id {id}) ");
    let mut lines = text
        .lines()
        .skip_while(|line| !(line.starts_with("thread ") && line.contains(&head)));
    let head = lines.next().unwrap_or_else(|| panic!("no thread {id} in {text}"));
    let rest = lines.take_while(|line| line.starts_with("  "));
    std::iter::once(head).chain(rest).collect::<Vec<_>>().join("\n")
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        std::thread::yield_now();
    }
}

fn is_asleep(id: i32) -> bool {
    TaskFacts::read(id).is_some_and(|facts| facts.state == 'S')
}

#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
const PARKED_LINE: u32 = line!() + 3;
#[inline(never)]
fn parked_for_the_test(gate: &Receiver<()>) {
    let _ = gate.recv();
    std::hint::black_box(gate);
}

/// A thread that runs `before` and then waits until the sender is dropped.
struct Parked {
    id: i32,
    gate: Sender<()>,
    thread: ThreadHandle<()>,
}

impl Parked {
    fn new(name: &str, before: fn()) -> Parked {
        let (gate, gate_rx) = bounded::<()>(0);
        let (id_tx, id_rx) = bounded(1);
        let body = move || {
            before();
            id_tx.send(own_id()).unwrap();
            parked_for_the_test(&gate_rx);
        };
        let thread = spawn(name, STACK_BYTES, None, body).unwrap();
        let id = id_rx.recv_timeout(BOUND).unwrap();
        Parked { id, gate, thread }
    }

    fn end(self) {
        drop(self.gate);
        self.thread.join_within(BOUND).unwrap();
    }
}

#[test]
fn this_thread_is_there_and_marked() {
    let _alone = one_at_a_time();
    let (text, summary) = dump(&[]);
    let entry = entry(&text, own_id());
    assert!(
        entry.lines().next().unwrap().ends_with("this thread makes the report"),
        "{entry}"
    );
    assert!(summary.threads >= 1);
    assert!(
        text.lines()
            .last()
            .unwrap()
            .starts_with(&format!("{} threads, ", summary.threads))
    );
}

#[test]
fn a_thousand_threads_are_all_there() {
    let _alone = one_at_a_time();
    let crowd: Vec<Parked> = (0..1000).map(|n| Parked::new(&format!("crowd-{n}"), || ())).collect();
    let (text, summary) = dump(&[]);
    for (n, parked) in crowd.iter().enumerate() {
        let name = format!("crowd-{n} (id {})", parked.id);
        assert!(text.contains(&name), "{name} is missing");
    }
    assert!(summary.threads > 1000, "{summary:?}");
    #[cfg(all(feature = "stacks", target_arch = "x86_64"))]
    assert!(summary.complete + 20 > summary.threads, "{summary:?}");
    crowd.into_iter().for_each(Parked::end);
}

#[test]
fn whoever_is_to_be_first_is_first_in_the_order_given() {
    let _alone = one_at_a_time();
    let [one, two] = ["one", "two"].map(|name| Parked::new(name, || ()));
    let (text, _) = dump(&[two.id, one.id]);
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("thread ")).collect();
    assert!(
        heads[0].starts_with(&format!("thread two (id {})", two.id)),
        "{heads:?}"
    );
    assert!(
        heads[1].starts_with(&format!("thread one (id {})", one.id)),
        "{heads:?}"
    );
    // Also somebody who is not there does no harm.
    let (text, _) = dump(&[i32::MAX, one.id]);
    assert!(text.contains("thread one"));
    [one, two].into_iter().for_each(Parked::end);
}

#[test]
fn a_dump_works_while_threads_start_and_end_all_the_time() {
    let _alone = one_at_a_time();
    let stop = Arc::new(AtomicBool::new(false));
    let (id_tx, id_rx) = bounded(2);
    let churn = |n| {
        let (stop, id_tx) = (Arc::clone(&stop), id_tx.clone());
        let body = move || {
            id_tx.send(own_id()).unwrap();
            let mut started = 0;
            while !stop.load(Ordering::Relaxed) {
                let short = spawn("short", 65_536, None, || std::hint::black_box(vec![1; 100]).len());
                short.unwrap().join_within(BOUND).unwrap();
                started += 1;
            }
            started
        };
        spawn(&format!("churn-{n}"), STACK_BYTES, None, body).unwrap()
    };
    let churns: Vec<_> = (0..2).map(churn).collect();
    // Once it runs its body, a thread has its name.
    let ids: Vec<i32> = churns.iter().map(|_| id_rx.recv_timeout(BOUND).unwrap()).collect();
    for _ in 0..5 {
        let (text, summary) = dump(&[]);
        assert!(ids.iter().all(|id| text.contains(&format!("(id {id})"))), "{text}");
        assert!(text.contains("churn-0") && text.contains("churn-1"), "{text}");
        assert!(summary.threads >= 3);
    }
    stop.store(true, Ordering::Relaxed);
    for churn in churns {
        assert!(churn.join_within(BOUND).unwrap() > 0);
    }
}

/// Descriptors, mappings and resident bytes of this process.
fn belongings() -> (usize, usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mappings = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (descriptors, mappings, pages * 4096)
}

#[test]
fn many_dumps_leave_nothing_behind() {
    let _alone = one_at_a_time();
    let mut dumper = Dumper::install().unwrap();
    let mut bytes = 0;
    let mut dump = || dumper.dump(&[], &mut |lines| bytes += lines.len());
    dump();
    let before = belongings();
    for _ in 0..60 {
        dump();
    }
    let after = belongings();
    // Other tests run beside this one and have threads, files and memory of their own; what one dump would leave, 60
    // would leave 60 times.
    assert!(after.0 < before.0 + 30, "descriptors {before:?} {after:?}");
    assert!(after.1 < before.1 + 60, "mappings {before:?} {after:?}");
    assert!(after.2 < before.2 + (24 << 20), "bytes {before:?} {after:?}");
    assert!(bytes > 0);
}

#[cfg(debug_assertions)]
#[test]
fn a_dump_works_while_the_allocator_is_held() {
    let _alone = one_at_a_time();
    let stop = Arc::new(AtomicBool::new(false));
    let (id_tx, id_rx) = bounded(1);
    let own_stop = Arc::clone(&stop);
    let body = move || {
        id_tx.send(own_id()).unwrap();
        while !own_stop.load(Ordering::Relaxed) {
            drop(std::hint::black_box(Box::new(1)));
        }
    };
    let allocates = spawn("allocates", STACK_BYTES, None, body).unwrap();
    let id = id_rx.recv_timeout(BOUND).unwrap();
    let mut text = Vec::with_capacity(4 << 20);
    let mut dumper = Dumper::install().unwrap();
    let until_ms = monotonic_ms() + 20_000;
    arena::hold_malloc_until(until_ms);
    let summary = dumper.dump(&[id], &mut |lines| text.extend_from_slice(lines));
    let done_ms = monotonic_ms();
    arena::hold_malloc_until(0);
    stop.store(true, Ordering::Relaxed);
    assert!(done_ms < until_ms, "it waited for the allocator");
    let text = String::from_utf8(text).unwrap();
    let entry = entry(&text, id);
    assert!(entry.contains("thread allocates"), "{text}");
    assert!(summary.threads >= 2);
    #[cfg(all(feature = "stacks", target_arch = "x86_64"))]
    assert!(entry.contains("arena"), "{entry}");
    allocates.join_within(BOUND).unwrap();
}

#[cfg(not(all(feature = "stacks", target_arch = "x86_64")))]
#[test]
fn a_build_without_stacks_says_so_and_tells_where_each_thread_entered_the_kernel() {
    let _alone = one_at_a_time();
    let parked = Parked::new("parked", || ());
    eventually("it waits", || is_asleep(parked.id));
    let (text, summary) = dump(&[parked.id]);
    assert!(text.starts_with("note: this build has no stacks"), "{text}");
    let entry = entry(&text, parked.id);
    assert!(
        entry.contains("(syscall futex)") && entry.contains("  #0 ") && entry.contains("+0x"),
        "{entry}"
    );
    assert_eq!((summary.complete, summary.symbols), (0, Symbols::ModulesOnly));
    parked.end();
}

#[cfg(all(feature = "stacks", target_arch = "x86_64"))]
mod whole {
    use super::super::capture::trial;
    use super::*;
    use std::sync::atomic::AtomicI32;

    /// The frame that every [`Parked`] stands in.
    fn parked_frame() -> String {
        format!("tests::parked_for_the_test at src/liveness/stacks/tests.rs:{PARKED_LINE}")
    }

    #[test]
    fn a_parked_thread_shows_the_function_the_file_and_the_line() {
        let _alone = one_at_a_time();
        let parked = Parked::new("parked", || ());
        eventually("it waits", || is_asleep(parked.id));
        let (text, summary) = dump(&[parked.id]);
        let entry = entry(&text, parked.id);
        assert!(entry.contains("(syscall futex)"), "{entry}");
        assert!(entry.contains(&parked_frame()), "{entry}");
        assert!(
            entry.contains(" at crossbeam-channel-") && entry.contains(" at std/src/"),
            "{entry}"
        );
        assert!(entry.contains("thread_start"), "down to its beginning: {entry}");
        assert_eq!(summary.symbols, Symbols::Lines);
        parked.end();
    }

    #[inline(never)]
    fn spins_for_the_test(stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_spinning_thread_shows_where_it_spins() {
        let _alone = one_at_a_time();
        let stop = Arc::new(AtomicBool::new(false));
        let (id_tx, id_rx) = bounded(1);
        let own_stop = Arc::clone(&stop);
        let body = move || {
            id_tx.send(own_id()).unwrap();
            spins_for_the_test(&own_stop);
        };
        let spinning = spawn("spins", STACK_BYTES, None, body).unwrap();
        let id = id_rx.recv_timeout(BOUND).unwrap();
        eventually("it spins", || {
            let (text, _) = dump(&[id]);
            let entry = entry(&text, id);
            entry.contains("state R")
                && entry.contains("spins_for_the_test at src/liveness/stacks/tests.rs:")
                && entry.contains("thread_start")
        });
        stop.store(true, Ordering::Relaxed);
        spinning.join_within(BOUND).unwrap();
    }

    #[test]
    fn a_thread_that_blocks_the_signal_is_looked_at_from_outside() {
        let _alone = one_at_a_time();
        let parked = Parked::new("deaf", || trial::block_question(true));
        eventually("it waits", || is_asleep(parked.id));
        let (text, summary) = dump(&[parked.id]);
        let entry = entry(&text, parked.id);
        assert!(
            entry.contains("(it blocks the signal that asks for the stack, so this stack was searched for"),
            "{entry}"
        );
        assert!(entry.contains(&parked_frame()), "{entry}");
        assert_eq!(summary.unanswered, 1, "{text}");
        parked.end();
    }

    static IN_HANDLER: AtomicI32 = AtomicI32::new(0);
    static LEAVE_HANDLER: AtomicBool = AtomicBool::new(false);

    #[inline(never)]
    fn stuck_in_a_handler() {
        IN_HANDLER.store(own_id(), Ordering::Release);
        while !LEAVE_HANDLER.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[inline(never)]
    fn interrupted_for_the_test(alternate_stack: bool) {
        trial::in_a_handler(stuck_in_a_handler, alternate_stack);
        std::hint::black_box(());
    }

    #[test]
    fn a_thread_in_a_handler_shows_what_the_handler_interrupted() {
        let _alone = one_at_a_time();
        for alternate_stack in [false, true] {
            IN_HANDLER.store(0, Ordering::Release);
            LEAVE_HANDLER.store(false, Ordering::Relaxed);
            let thread = spawn("interrupted", STACK_BYTES, None, move || {
                interrupted_for_the_test(alternate_stack)
            });
            eventually("it is in the handler", || IN_HANDLER.load(Ordering::Acquire) != 0);
            let id = IN_HANDLER.load(Ordering::Acquire);
            let (text, _) = dump(&[id]);
            LEAVE_HANDLER.store(true, Ordering::Relaxed);
            let entry = entry(&text, id);
            let places = [
                "stuck_in_a_handler",
                "(a handler of a signal",
                "interrupted_for_the_test",
                "thread_start",
            ];
            let found = places.map(|place| entry.find(place).unwrap_or_else(|| panic!("no {place}: {entry}")));
            assert!(found.is_sorted(), "{entry}");
            thread.unwrap().join_within(BOUND).unwrap();
        }
    }

    #[inline(never)]
    fn goes_deep(depth: u32, gate: &Receiver<()>) -> u32 {
        let room = std::hint::black_box([depth; 64]);
        match depth {
            0 => parked_for_the_test(gate),
            _ => return goes_deep(depth - 1, gate) + room[7],
        }
        room[3]
    }

    #[test]
    fn of_a_runaway_recursion_both_the_innermost_frames_and_that_it_is_cut_are_told() {
        let _alone = one_at_a_time();
        let (gate, gate_rx) = bounded::<()>(0);
        let (id_tx, id_rx) = bounded(1);
        let body = move || {
            id_tx.send(own_id()).unwrap();
            goes_deep(2000, &gate_rx)
        };
        let deep = spawn("deep", 4 << 20, None, body).unwrap();
        let id = id_rx.recv_timeout(BOUND).unwrap();
        eventually("it waits", || is_asleep(id));
        let (text, _) = dump(&[id]);
        let entry = entry(&text, id);
        assert!(entry.contains("deeper than the 256 KiB"), "{entry}");
        assert!(
            entry.contains(&parked_frame()) && entry.contains("frames left out"),
            "{entry}"
        );
        assert!(entry.len() < 64 * 1024, "{} bytes", entry.len());
        drop(gate);
        deep.join_within(BOUND).unwrap();
    }
}
