//! Random input for the parsers that read what others send or a disk has kept: events, heads of requests, filters,
//! positions, settings, files of services, what was learned.
//!
//! Each target starts from the seeds in tests/fuzz/seeds and from a generator of its own, mutates, and checks a
//! property: a parser that only does not panic may still be wrong. `cargo test --test fuzz` runs each for a fixed
//! number of rounds with a fixed seed; `make fuzz` runs each for FUZZ_SECONDS (60) with a new seed, which a failure
//! prints. FUZZ_SEED repeats a run.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what went wrong by panicking"
)]

mod differential;
mod event;
mod filter;
mod head;
mod learned;
mod mutate;
mod position;
#[cfg(feature = "config-file")]
mod services;
mod settings;
mod strict_json;

use fastrand::Rng;
use std::time::{Duration, Instant};
use std::{env, fs, path::Path};

/// The seed of runs that nobody gave one.
const SEED: u64 = 13;

/// Runs `round` on a random number generator, for `rounds` or, with FUZZ_SECONDS, for as many seconds.
fn fuzz(target: &str, rounds: u64, mut round: impl FnMut(&mut Rng)) {
    let number = |name: &str| {
        env::var(name).ok().map(|text| {
            text.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
        })
    };
    let seconds = number("FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("FUZZ_SEED").unwrap_or_else(|| if seconds.is_some() { fastrand::u64(..) } else { SEED });
    // Shown with a failure only, or with --nocapture.
    eprintln!("{target}: FUZZ_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let begun = Instant::now();
    let mut done = 0;
    while seconds.map_or(done < rounds, |seconds| begun.elapsed() < seconds) {
        round(&mut rng);
        done += 1;
    }
    eprintln!(
        "{target}: {done} rounds in {:.1} s, no fault",
        begun.elapsed().as_secs_f64()
    );
}

/// The committed seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/seeds")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // In one order everywhere, so that a seed of the generator repeats a run.
    paths.sort();
    assert!(!paths.is_empty(), "{} has no seeds", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}
