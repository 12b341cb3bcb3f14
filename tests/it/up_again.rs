//! `threadcast up` after one that was killed, and what is left when it ends: what a person had ordered, what had been
//! given up, services that the file has no more, the command beside them.

use crate::support::supervised::{Stack, lives};
use crate::support::{eventually, within};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use std::fs;
use std::time::Duration;

fn pid_in(stack: &Stack, file: &str) -> i64 {
    eventually(&format!("{file} has an id"), || stack.lines(file).last()?.parse().ok())
}

#[test]
fn what_a_person_has_stopped_or_what_was_given_up_stays_so_until_an_orderly_stop() {
    let mut stack = Stack::up(
        "[service.a]\ncommand = [\"sleep\", \"3600\"]\n\
         [service.flap]\ncommand = [\"sh\", \"-c\", \"echo x >> starts; exit 3\"]\n\
         [service.flap.restart]\ndelay = { first = \"100ms\", most = \"100ms\" }\nmost = { times = 1, within = \"10m\" }\n",
    );
    stack.wait_for("flap", "failed");
    assert_eq!(stack.run(&["services", "stop", "a"]).status, Some(0));
    stack.wait_for("a", "stopped");
    stack.kill();
    stack.start(&[]);
    stack.wait_until_said("flap: was given up before, and stays so");
    stack.wait_until_said("a: stays stopped, as a person has ordered");
    let flap = stack.wait_for("flap", "failed");
    assert_eq!(flap["ok"], false, "{flap}");
    assert_eq!(
        (
            stack.wait_for("a", "stopped")["pid"].is_null(),
            stack.lines("starts").len()
        ),
        (true, 2)
    );
    // A person starts one, and that is kept as well.
    assert_eq!(stack.run(&["services", "start", "a"]).status, Some(0));
    let pid = stack.wait_for("a", "running")["pid"].clone();
    stack.kill();
    stack.start(&[]);
    assert_eq!(stack.wait_for("a", "running")["pid"], pid);
    assert_eq!(stack.run(&["services", "stop", "a"]).status, Some(0));
    stack.wait_for("a", "stopped");
    assert_eq!(stack.stop(), Some(0), "{}", stack.err());
    // An orderly stop ends all that.
    stack.start(&[]);
    stack.wait_for("a", "running");
    stack.wait_for("flap", "failed");
    assert_eq!(stack.lines("starts").len(), 4);
    assert_eq!(stack.stop(), Some(0));
}

#[test]
fn a_service_that_the_file_has_no_more_is_stopped_at_the_end() {
    let mut stack = Stack::up(
        "[service.a]\ncommand = [\"sleep\", \"3600\"]\n\
         [service.old]\ncommand = [\"sh\", \"-c\", \"(setsid sleep 3600 &); echo $$ >> old.pids; exec sleep 3600\"]\n",
    );
    stack.wait_for("old", "running");
    let old = pid_in(&stack, "old.pids");
    stack.kill();
    fs::write(
        stack.file("services.toml"),
        "[service.a]\ncommand = [\"sleep\", \"3600\"]\n",
    )
    .unwrap();
    stack.start(&[]);
    stack.wait_until_said("the file has no such service any more");
    stack.wait_for("a", "running");
    assert!(lives(old));
    assert_eq!(stack.stop(), Some(0), "{}", stack.err());
    assert!(!lives(old), "{}", stack.err());
}

#[test]
fn the_command_beside_the_services_has_time_to_end_before_them() {
    let mut stack = Stack::new("[service.a]\ncommand = [\"sleep\", \"3600\"]\n");
    let script = "trap 'threadcast=1; echo ended >> beside; exit 0' TERM; (setsid sleep 3600 & echo $! >> child.pids); \
                  echo begun >> beside; while :; do sleep 0.05; done";
    stack.start(&["--until-ready", "--", "sh", "-c", script]);
    let child = pid_in(&stack, "child.pids");
    eventually("it runs", || (stack.lines("beside") == ["begun"]).then_some(()));
    assert_eq!(stack.stop(), Some(0), "its status counts: {}", stack.err());
    assert_eq!(stack.lines("beside"), ["begun", "ended"]);
    assert!(!lives(child), "what it has left behind is ended too: {}", stack.err());
}

/// The line of an earlier start, and a file that it wrote, say nothing of the start that was taken over.
#[test]
fn a_service_that_was_taken_over_before_it_was_ready_has_to_become_ready() {
    for ready in ["log = \"at work\"", "file = \"ready\""] {
        let services = format!(
            "[service.a]\ncommand = [\"sh\", \"-c\", \"echo $$ >> a.pids; [ -e first ] || {{ touch first; echo at work; \
             echo > ready; }}; while [ ! -e go ]; do sleep 0.05; done; echo at work; echo > ready; exec sleep 3600\"]\n\
             ready = {{ {ready}, timeout = \"10m\", interval = \"100ms\" }}\n"
        );
        let mut stack = Stack::up(&services);
        stack.wait_for("a", "running");
        assert_eq!(stack.run(&["services", "restart", "a"]).status, Some(0));
        eventually("it was started again", || {
            (stack.lines("a.pids").len() == 2).then_some(())
        });
        stack.wait_for("a", "starting");
        stack.kill();
        stack.start(&[]);
        let a = eventually("it was looked at", || stack.service("a").filter(|a| a["note"] != ""));
        assert_eq!((&a["state"], &a["adopted"]), (&"starting".into(), &true.into()), "{a}");
        fs::write(stack.file("go"), "").unwrap();
        stack.wait_for("a", "running");
        assert_eq!(stack.stop(), Some(0));
    }
}

#[test]
fn a_service_without_its_mark_is_taken_over_with_its_figures_and_its_log_goes_on() {
    let mut stack = Stack::up(
        "[service.a]\ncommand = [\"env\", \"-i\", \"sh\", \"-c\", \"n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done\"]\n",
    );
    let pid = stack.wait_for("a", "running")["pid"].clone();
    let lines = |stack: &Stack| stack.lines("logs/a.log").len();
    stack.kill();
    let before = lines(&stack);
    eventually("its log goes on without us", || {
        (lines(&stack) > before + 3).then_some(())
    });
    stack.start(&[]);
    let a = within(Duration::from_secs(30), "its figures are shown", || {
        stack.service("a").filter(|a| a["memory_bytes"].as_u64() > Some(0))
    });
    assert_eq!((&a["pid"], &a["adopted"]), (&pid, &true.into()), "{a}");
    let all = stack.lines("logs/a.log");
    let expected: Vec<String> = (1..=all.len()).map(|n| format!("line {n}")).collect();
    assert_eq!(all, expected, "no line is missing");
    assert_eq!(stack.stop(), Some(0));
}

/// Without a free descriptor nobody can list processes, so nobody can say that a service is stopped.
#[test]
fn a_stop_ends_and_says_so_when_processes_cannot_be_listed() {
    let mut stack = Stack::up("[service.a]\ncommand = [\"sleep\", \"3600\"]\n");
    stack.wait_for("a", "running");
    let up = Pid::from_raw(stack.pid());
    let is_free = |number: &u64| !fs::exists(format!("/proc/{}/fd/{number}", stack.pid())).unwrap();
    let first_free = (0..).find(is_free).unwrap();
    let limit = Rlimit {
        current: Some(first_free),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(up, Resource::Nofile, limit).unwrap();
    assert!(before.current > Some(first_free));
    stack.signal(Signal::TERM);
    assert_eq!(stack.wait(), Some(1), "{}", stack.err());
    let said = stack.err();
    // A descriptor that was in use at that moment is one more.
    let whys = [
        "the processes of this host could not be listed",
        "which could not be signaled",
    ];
    assert!(
        said.contains("a is not stopped: ") && whys.iter().any(|why| said.contains(why)),
        "{said}"
    );
}

#[test]
fn that_nobody_takes_changes_is_said_while_it_lasts() {
    let mut stack = Stack::up("[supervise]\nevents = \"events.sock\"\n[service.a]\ncommand = [\"sleep\", \"3600\"]\n");
    stack.wait_until_said("changes of services are not told: no server takes them at");
    let socket = std::os::unix::net::UnixDatagram::bind(stack.file("events.sock")).unwrap();
    assert_eq!(stack.run(&["services", "stop", "a"]).status, Some(0));
    stack.wait_until_said("the server takes changes of services again");
    drop(socket);
    assert_eq!(stack.stop(), Some(0));
}
