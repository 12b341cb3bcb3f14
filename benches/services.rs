//! What `threadcast up` costs while nothing happens, with 50 services.
//!
//! `cargo bench --bench services` starts 50 services that sleep and looks at the supervisor for 30 s:
//!
//! - `start`, `stop`: seconds from the call until all run, and from the signal until all are gone.
//! - `processor`: percent of one processor that the supervisor takes, all threads, by the kernel's own count.
//! - `memory`: what it has resident, in MiB.
//!
//! The bench fails if the supervisor takes 1 % of a processor or 12 MiB.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "as in the tests whose harness this is; its output is what a bench is for"
)]

#[path = "../tests/it"]
mod it {
    #[allow(unused_imports, reason = "this uses a part of the harness")]
    pub mod support;
}

use it::support;

#[cfg(feature = "config-file")]
fn main() {
    bench::run();
}

#[cfg(not(feature = "config-file"))]
fn main() {
    // Its parts are used by the other build.
    let _ = support::DEADLINE;
    println!("without feature config-file there is no file of services");
}

#[cfg(feature = "config-file")]
mod bench {
    use super::support;
    use std::fs;
    use std::time::{Duration, Instant};
    use support::supervised::Stack;
    use support::{pause, within};

    const SERVICES: usize = 50;
    const LOOK: Duration = Duration::from_secs(30);
    const PERCENT_MOST: f64 = 1.0;
    const MIB_MOST: f64 = 12.0;
    const PATIENCE: Duration = Duration::from_secs(120);

    pub fn run() {
        let services = (0..SERVICES).map(|number| format!("[service.s{number:02}]\ncommand = [\"sleep\", \"3600\"]\n"));
        let mut stack = Stack::new(&services.collect::<String>());
        let begun = Instant::now();
        stack.start(&[]);
        within(PATIENCE, "all run", || {
            let status = stack.status()?;
            let services = status["services"].as_array()?;
            let running = services.iter().filter(|service| service["state"] == "running");
            (running.count() == SERVICES).then_some(())
        });
        println!("{SERVICES} services: start {:.2} s", begun.elapsed().as_secs_f64());
        let (before, at) = (processor(stack.pid()), Instant::now());
        pause(LOOK);
        let took = processor(stack.pid()) - before;
        let percent = took.as_secs_f64() / at.elapsed().as_secs_f64() * 100.0;
        let mib = resident_mib(stack.pid());
        println!("processor {percent:.2} % of one, memory {mib:.1} MiB");
        let begun = Instant::now();
        assert_eq!(stack.stop(), Some(0), "{}", stack.err());
        println!("stop {:.2} s", begun.elapsed().as_secs_f64());
        assert!(percent < PERCENT_MOST, "{percent} % of a processor");
        assert!(mib < MIB_MOST, "{mib} MiB");
    }

    /// Processor time of all threads of a process so far (proc_pid_schedstat(5)).
    fn processor(pid: i32) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let times = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }

    fn resident_mib(pid: i32) -> f64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: f64 = line.split_ascii_whitespace().next().unwrap().parse().unwrap();
        kib / 1024.0
    }
}
