//! What a line of the log costs the thread that says it: to make it, to leave it for thread `log`, and to wake that
//! thread if it sleeps. What thread `log` does with it is another thread's time, and here next to nothing.

use divan::Bencher;
use log::LevelFilter;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use threadcast::process::clock::pause;
use threadcast::process::logging::form::Forms;
use threadcast::process::logging::{self, LogControl};
use threadcast::process::threads::{CORE_STACK_BYTES, spawn};

/// The process's log, without a file.
fn log() -> &'static LogControl {
    static LOG: OnceLock<LogControl> = OnceLock::new();
    LOG.get_or_init(|| {
        let started = logging::start(LevelFilter::Debug, Forms::default(), None);
        let (thread, control) = started.expect("the first logger of this process");
        // It ends with the process.
        spawn("log", CORE_STACK_BYTES, None, || thread.run(|_| ())).expect("a thread");
        control
    })
}

/// As the fan-out says of each event; not for the terminal, which would be what is measured then.
fn say(number: u64) {
    log::debug!(target: "file-only", "📥 event {number}: state_change of worker-0007, 812 bytes");
}

/// Blocks until thread `log` has written what waits.
fn settle(log: &LogControl) {
    let begun = Instant::now();
    while log.has_waiting() {
        assert!(begun.elapsed() < Duration::from_secs(10), "thread log has stopped");
        std::thread::yield_now();
    }
}

/// Many in a row, of which the first wakes it. Fewer than the queue has room for.
#[divan::bench(sample_size = 1_000)]
fn while_the_log_is_awake(bencher: Bencher<'_, '_>) {
    let log = log();
    bencher.with_inputs(|| settle(log)).bench_local_values(|()| say(17));
    settle(log);
    assert_eq!(log.lines_lost(), 0);
}

/// One, after a pause in which it fell asleep.
#[divan::bench(sample_size = 1, sample_count = 1_000)]
fn that_wakes_the_log(bencher: Bencher<'_, '_>) {
    let log = log();
    let asleep = || {
        settle(log);
        pause(Duration::from_micros(500));
    };
    bencher.with_inputs(asleep).bench_local_values(|()| say(17));
    settle(log);
    assert_eq!(log.lines_lost(), 0);
}
