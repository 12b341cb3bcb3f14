//! Checks with real processes: a worker that lives and does nothing is found and started again, one that works is not.

use crate::support::server::TestServer;
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

/// A service that sleeps, with one check.
fn sleeper(check: &str) -> Stack {
    Stack::up(&format!(
        "[supervise]\ninterval = \"200ms\"\n[service.a]\ncommand = [\"sleep\", \"3600\"]\nstop = {{ wait = \"500ms\" }}\n\
         restart = {{ delay = {{ first = \"100ms\" }} }}\n[[service.a.check]]\nname = \"sign\"\n{check}\n"
    ))
}

#[track_caller]
fn wait_for_check(stack: &Stack, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || check(stack, "a", "sign").filter(&is_it))
}

#[test]
fn a_damaged_queue_is_said_once_and_counts_for_nothing() {
    let stack = sleeper("queue = \"queue.json\"\nmoves_within = \"2s\"\nthen = \"restart\"");
    let sees = |text: &'static str| move |check: &Value| check["seen"].as_str().unwrap().contains(text);
    wait_for_check(
        &stack,
        "a queue that is not there is empty",
        sees("queue.json is empty"),
    );
    fs::write(stack.file("queue.json"), "[{\"id\": 1}, {\"id\"").unwrap();
    let seen = wait_for_check(&stack, "it is damaged", sees("queue damaged: "));
    assert!(seen["ok"].is_null() && seen["bad"] == true, "{seen}");
    let status = stack.run(&["services", "status"]);
    assert_eq!(status.status, Some(1));
    assert!(
        status.out.contains("a: check sign cannot judge: queue damaged: "),
        "{}",
        status.out
    );
    pause(Duration::from_secs(3));
    assert_eq!(stack.service("a").unwrap()["restarts"], 0);
    assert_eq!(stack.err().matches("queue damaged").count(), 1, "{}", stack.err());
    fs::write(stack.file("queue.json"), "[]").unwrap();
    stack.wait_until_said("a: check sign can judge again: ");
    let status = eventually("all is well", || {
        let status = stack.run(&["services", "status"]);
        (status.status == Some(0)).then_some(status)
    });
    assert_eq!(status.out.lines().count(), 2, "{}", status.out);
}

#[test]
fn a_command_that_hangs_has_failed_and_is_killed_with_what_it_started() {
    let stack = sleeper(
        "command = [\"sh\", \"-c\", \"sleep 3600 & echo $! >> child.pids; echo $$ >> child.pids; wait\"]\n\
         timeout = \"500ms\"\nstrikes = 2\nthen = \"restart\"",
    );
    stack.wait_until_said("a: check sign has failed, it is started again: ");
    assert!(
        stack.err().contains("was killed: it took more than 500ms"),
        "{}",
        stack.err()
    );
    eventually("it runs again", || {
        let service = stack.service("a")?;
        (service["restarts"].as_u64() >= Some(1) && service["state"] == "running").then_some(())
    });
    let pids: Vec<i64> = stack
        .lines("child.pids")
        .iter()
        .take(4)
        .map(|pid| pid.parse().unwrap())
        .collect();
    eventually("nothing of the commands is left", || {
        pids.iter().all(|pid| !lives(*pid)).then_some(())
    });
}

#[test]
fn memory_of_all_its_processes_has_a_limit() {
    let stack = Stack::up(
        "[supervise]\ninterval = \"1s\"\n[service.a]\n\
         command = [\"sh\", \"-c\", \"[ -e fat ] && exec sleep 3600; touch fat; python3 -c 'import time; x = b\\\"1\\\" * 100000000; time.sleep(3600)' & wait\"]\n\
         memory = { warn = \"64MiB\" }\nstop = { wait = \"500ms\" }\n\
         [[service.a.check]]\nname = \"sign\"\nmemory = \"80MiB\"\nthen = \"restart\"\n",
    );
    stack.wait_until_said("a: check sign has failed, it is started again: its processes take ");
    let thin = eventually("it runs again, and is thin", || {
        let service = stack.service("a")?;
        let is_well =
            service["state"] == "running" && service["ok"] == true && service["checks"][0]["memory_bytes"].is_u64();
        (service["restarts"] == 1 && is_well).then_some(service)
    });
    assert!(thin["checks"][0]["memory_bytes"].as_u64() < Some(64 << 20), "{thin}");
    assert_eq!(thin["checks"][1]["name"], "memory");
}

#[test]
fn signs_that_come_from_outside_are_missed_and_found_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stack = sleeper(&format!("tcp = \"{address}\"\nstrikes = 3"));
    wait_for_check(&stack, "it takes connections", |check| check["ok"] == true);
    drop(listener);
    stack.wait_until_said("a: check sign fails (3 looks in a row): ");
    let note = stack.service("a").unwrap()["note"].as_str().unwrap().to_owned();
    assert!(note.starts_with("check sign: 127.0.0.1:"), "{note}");
    let _again = std::net::TcpListener::bind(address).unwrap();
    stack.wait_until_said("a: check sign is well again");
    assert_eq!(stack.service("a").unwrap()["note"], "");
}

#[test]
fn a_worker_that_writes_no_line_any_more_is_found_also_over_rotations() {
    let stack = Stack::up(
        "[supervise]\ninterval = \"200ms\"\nlog_bytes = \"64KiB\"\n[service.a]\n\
         command = [\"sh\", \"-c\", \"i=0; while [ $i -lt 30 ]; do i=$((i+1)); head -c 9000 /dev/zero | tr '\\\\0' x; \
         echo; echo job done; sleep 0.1; done; echo end > end; exec sleep 3600\"]\n\
         [[service.a.check]]\nname = \"sign\"\nlog = \"job done\"\nmax_age = \"2s\"\n",
    );
    stack.wait_until_said("a: check sign fails (1 look in a row): the newest \"job done\" in its log is ");
    assert!(stack.file("end").exists(), "{}", stack.err());
    assert!(stack.file("logs/a.log.1").exists(), "it was rotated meanwhile");
}

#[test]
fn what_the_server_says_of_machines_counts_while_it_answers() {
    let mut server = TestServer::start(&["--stuck", "*/working=2s", "--stuck-cpu-pressure", "100"]);
    let check = "heartbeat = \"beat\"\nmax_age = \"2s\"\n[[service.a.check]]\nname = \"machine\"\nmachine = \"job\"\n";
    let url = format!("[supervise]\nurl = \"http://{}\"\n", server.address);
    let services = format!(
        "{url}interval = \"200ms\"\n[service.a]\ncommand = [\"sleep\", \"3600\"]\n[[service.a.check]]\nname = \"sign\"\n{check}"
    );
    let stack = Stack::up(&services);
    stack.wait_for("a", "running");
    server.send(r#"{"machine_name": "job", "type": "state_change", "payload": {"from_state": "waiting", "to_state": "working"}}"#);
    server.send(r#"{"machine_name": "beat", "type": "machine_registered", "payload": {"current_state": "idle"}}"#);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        server.send(r#"{"machine_name": "beat", "type": "activity_log", "payload": {"message": "I live"}}"#);
        pause(Duration::from_millis(300));
    }
    assert!(!stack.err().contains("check sign fails"), "{}", stack.err());
    stack.wait_until_said("a: check machine fails (1 look in a row): job is ");
    stack.wait_until_said("a: check sign fails (1 look in a row): the newest event of beat is ");
    server.stop();
    stack.wait_until_said("a: check sign cannot judge, which counts for nothing: the server does not answer: ");
    stack.wait_until_said("a: check machine cannot judge, which counts for nothing: the server does not answer: ");
}
