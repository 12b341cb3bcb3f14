//! Checks with real processes: a worker that lives and does nothing is found and started again, one that works is not.

use crate::support::supervised::{Stack, lives};
use crate::support::{eventually, pause};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// A worker that deadlocks itself after four elements, and a producer that adds one every second.
const DEADLOCK: &str = r#"
[supervise]
interval = "300ms"
[service.producer]
command = ["python3", "deadlock.py", "producer", "--every", "1"]
[service.worker]
command = ["python3", "deadlock.py", "worker", "--after", "2", "--once"]
stop = { wait = "500ms" }
restart = { delay = { first = "100ms" } }
"#;

const STALE_STATUS: &str = r#"
[[service.worker.check]]
name = "status"
file = "status.json"
max_age = "3s"
strikes = 2
"#;

const QUEUE: &str = r#"
[[service.worker.check]]
name = "progress"
queue = "queue.json"
moves_within = "4s"
"#;

fn deadlock(checks: &str) -> Stack {
    let mut stack = Stack::new(&format!("{DEADLOCK}{checks}"));
    fs::write(stack.file("deadlock.py"), include_str!("support/deadlock.py")).unwrap();
    stack.start(&[]);
    stack
}

/// Returns the process that has deadlocked itself.
#[track_caller]
fn wait_for_deadlock(stack: &Stack) -> i64 {
    eventually("the worker deadlocks itself", || {
        stack.lines("deadlocked").first()?.parse().ok()
    })
}

fn check(stack: &Stack, service: &str, name: &str) -> Option<Value> {
    let service = stack.service(service)?;
    let checks = service["checks"].as_array()?;
    checks.iter().find(|check| check["name"] == name).cloned()
}

/// The dead worker is found, killed, as it does not heed SIGTERM, and its next start empties the queue.
fn is_found_and_started_again(checks: &str, cause: &str) {
    let mut stack = deadlock(&format!("{checks}then = \"restart\"\n"));
    let dead = wait_for_deadlock(&stack);
    let begun = Instant::now();
    stack.wait_until_said(cause);
    let found = begun.elapsed();
    let worker = eventually("the worker runs again", || {
        let worker = stack.service("worker")?;
        (worker["state"] == "running" && worker["restarts"] == 1).then_some(worker)
    });
    assert!(found < Duration::from_secs(30), "{found:?}");
    assert!(!lives(dead));
    let err = stack.err();
    assert!(
        err.contains("worker: 1 process did not heed TERM within 500ms"),
        "{err}"
    );
    let alive = worker["pid"].to_string();
    eventually("the queue moves", || {
        let done = stack.lines("done.txt");
        (done.iter().filter(|line| line.starts_with(&alive)).count() > 3).then_some(())
    });
    assert_eq!(stack.stop(), Some(0), "{}", stack.err());
    assert_eq!(stack.lines("deadlocked").len(), 1);
}

#[test]
fn a_deadlocked_worker_is_found_by_its_stale_status_alone() {
    is_found_and_started_again(STALE_STATUS, "worker: check status has failed, it is started again: ");
}

#[test]
fn a_deadlocked_worker_is_found_by_its_queue_alone() {
    is_found_and_started_again(
        QUEUE,
        "worker: check progress has failed, it is started again: nothing has left ",
    );
}

#[test]
fn without_a_check_it_stays_dead_and_a_warning_leaves_it_alone() {
    let stack = deadlock(QUEUE);
    let dead = wait_for_deadlock(&stack);
    let done = stack.lines("done.txt").len();
    stack.wait_until_said("worker: check progress fails (1 look in a row): nothing has left ");
    pause(Duration::from_secs(1));
    let worker = stack.wait_for("worker", "running");
    assert!(worker["pid"] == dead && worker["restarts"] == 0, "{worker}");
    assert_eq!(stack.lines("done.txt").len(), done);
    assert!(worker["ok"] == false && worker["queue"].as_u64() > Some(2), "{worker}");
    let status = stack.run(&["services", "status"]);
    assert_eq!(status.status, Some(1));
    let line = status.out.lines().last().unwrap();
    assert!(
        line.starts_with("worker: check progress fails: nothing has left "),
        "{}",
        status.out
    );
}

#[test]
fn a_worker_that_is_slower_than_its_producer_is_left_alone() {
    let services = DEADLOCK
        .replace("\"--every\", \"1\"", "\"--every\", \"0.1\"")
        .replace("\"--after\", \"2\", \"--once\"", "\"--every\", \"0.5\"");
    let mut stack = Stack::new(&format!("{services}{QUEUE}then = \"restart\"\n"));
    fs::write(stack.file("deadlock.py"), include_str!("support/deadlock.py")).unwrap();
    stack.start(&[]);
    let worker = stack.wait_for("worker", "running");
    let length = eventually("the queue grows", || {
        check(&stack, "worker", "progress")?["length"]
            .as_u64()
            .filter(|length| *length > 10)
    });
    eventually("and goes on growing for longer than the check waits", || {
        check(&stack, "worker", "progress")?["length"]
            .as_u64()
            .filter(|now| *now > length + 40)
    });
    let now = stack.wait_for("worker", "running");
    assert!(now["pid"] == worker["pid"] && now["ok"] == true, "{now}");
}
