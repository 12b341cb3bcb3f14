//! The harness: servers on free paths and ports, clients that see every byte, and waiting with a deadline.
#![allow(dead_code, reason = "each file uses its part")]

pub mod client;
pub mod cut_network;
#[cfg(feature = "engine-db")]
pub mod engine_db;
pub mod examples;
pub mod filter;
pub mod fleet;
pub mod http;
pub mod ledger;
pub mod pty;
pub mod screen;
pub mod server;
pub mod stopper;
#[cfg(feature = "config-file")]
pub mod supervised;
pub mod watched;

pub use client::TestClient;
pub use fleet::Fleet;
pub use server::{Sender, TestServer};
pub use watched::{Row, Watched};

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Every wait in the tests ends after this long, by failing. Generous: the machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Calls until no signal interrupts it: the kernel does not start a call anew that has a time limit (signal(7)), and a
/// process that starts and reaps others gets signals.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Waits until `condition` gives something; fails with `what` after [`DEADLINE`].
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, condition)
}

/// As [`eventually`], with a deadline of its own.
#[track_caller]
pub fn within<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        pause(Duration::from_millis(2));
    }
}

/// The only pause of the tests: between two looks at a condition, or where a length of time is itself the subject.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Says which part of a test this host does not allow, and why, in a line that tests/run counts. Writes past the
/// capture of a test that passes, which would swallow it.
pub fn skipped(why: impl Display) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
}

/// Compiles a library for LD_PRELOAD that stands between a process and the system; `None`, said, without a C compiler.
pub fn compile(folder: &Path, name: &str, source: &str) -> Option<PathBuf> {
    let (file, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&file, source).unwrap();
    let compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &file])
        .arg("-ldl")
        .status();
    let compiled = compiler.is_ok_and(|status| status.success());
    if !compiled {
        skipped(format_args!(
            "what {name} does to a process, because there is no C compiler"
        ));
    }
    compiled.then_some(library)
}

/// Runs `test` in both delivery shapes.
pub fn in_both_shapes(test: impl Fn(&str)) {
    for delivery in ["direct", "queued"] {
        eprintln!("--delivery {delivery}");
        test(delivery);
    }
}

/// The same, both at a time: for tests that mostly wait.
pub fn in_both_shapes_at_once(test: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        for delivery in ["direct", "queued"] {
            let test = &test;
            scope.spawn(move || test(delivery));
        }
    });
}

/// An event in the engines' own spelling whose number can be read back by [`number_of`], padded to `len` bytes.
pub fn numbered(number: usize, len: usize) -> Vec<u8> {
    let head = format!("{{\"machine_name\": \"load\", \"type\": \"tick\", \"payload\": {{\"n\": {number}, \"pad\": \"");
    let tail = "\"}}";
    let pad = len.saturating_sub(head.len() + tail.len());
    [head.as_bytes(), "x".repeat(pad).as_bytes(), tail.as_bytes()].concat()
}

/// The number of an event made by [`numbered`]; `None` for any other message.
pub fn number_of(message: &[u8]) -> Option<usize> {
    let start = b"{\"machine_name\": \"load\", \"type\": \"tick\", \"payload\": {\"n\": ";
    let digits = message.strip_prefix(start)?;
    let end = digits.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// A `state_change` in the engines' own spelling.
pub fn state_change(machine: &str, from: &str, to: &str, timestamp: f64) -> Vec<u8> {
    format!(
        "{{\"machine_name\": \"{machine}\", \"type\": \"state_change\", \"payload\": {{\"from_state\": \"{from}\", \
         \"to_state\": \"{to}\", \"event_trigger\": \"t\", \"timestamp\": {timestamp:?}}}}}"
    )
    .into_bytes()
}
