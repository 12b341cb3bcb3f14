//! The fan-out's turn, for crowds of all sizes and states.

use crate::crowd::{Crowd, State};
use crate::events::change;
use divan::Bencher;
use divan::counter::ItemsCount;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The limit of descriptors in force.
pub(crate) static DESCRIPTORS: AtomicU64 = AtomicU64::new(0);
/// Descriptors that are not clients.
const RESERVED: u64 = 64;
const EVENT_BYTES: usize = 200;

/// Crowds that fit the limit of descriptors.
fn sizes() -> Vec<usize> {
    let limit = DESCRIPTORS.load(Ordering::Relaxed);
    let fits = |size: &usize| *size as u64 + RESERVED <= limit;
    [1, 10, 100, 1_000, 10_000].into_iter().filter(fits).collect()
}

// Four passes per sample: what they leave is taken between the samples, and the slots of a queue hold more.
#[divan::bench(args = sizes(), sample_size = 4, max_time = 4)]
fn idle(bencher: Bencher<'_, '_>, clients: usize) {
    measure(bencher, clients, State::Idle);
}

#[divan::bench(args = sizes(), sample_size = 4, max_time = 4)]
fn queued(bencher: Bencher<'_, '_>, clients: usize) {
    measure(bencher, clients, State::Queued);
}

#[divan::bench(args = sizes(), sample_size = 4, max_time = 4)]
fn full(bencher: Bencher<'_, '_>, clients: usize) {
    measure(bencher, clients, State::Full);
}

#[divan::bench(args = sizes(), sample_size = 4, max_time = 4)]
fn behind(bencher: Bencher<'_, '_>, clients: usize) {
    measure(bencher, clients, State::Behind);
}

fn measure(bencher: Bencher<'_, '_>, clients: usize, state: State) {
    let crowd = RefCell::new(Crowd::new(clients, state, change(7, EVENT_BYTES)));
    bencher
        .counter(ItemsCount::new(clients))
        .with_inputs(|| crowd.borrow_mut().settle())
        .bench_local_values(|()| crowd.borrow_mut().step());
    crowd.into_inner().check();
}

/// Turns of so many events; the items are events.
#[divan::bench(args = [1, 16, 512], sample_size = 16, max_time = 4)]
fn nobody(bencher: Bencher<'_, '_>, events: usize) {
    let mut crowd = Crowd::new(0, State::Idle, change(7, EVENT_BYTES));
    bencher
        .counter(ItemsCount::new(events))
        .bench_local(|| crowd.steps(events));
    crowd.check();
}
