//! Programs that run too often, and `services cleanup`, with real processes. Every test ends what it starts.

use crate::support::eventually;
use crate::support::supervised::Stack;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SERVICES: &str = r#"
[supervise]
interval = "200ms"
events = "none"
[service.a]
command = ["./straggler", "3600"]
[[conflict]]
name = "stragglers"
match = "straggler"
inside = ["."]
expected = 1
warn = 2
critical = 4
[cleanup]
strays = ["stragglers"]
files = ["left/*.pid", "left/*.sock"]
[[cleanup.ask]]
name = "flush"
command = ["sh", "-c", "echo flushed > flushed"]
warning = "removes everything"
"#;

/// Processes that the test has started, and ends.
struct Started(Vec<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Started {
    fn add(&mut self, program: &Path, arguments: &[&str], cwd: &Path) -> u32 {
        let child = Command::new(program)
            .args(arguments)
            .current_dir(cwd)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.0.push(child);
        self.0.last().unwrap().id()
    }
}

/// A stack with a program of its own, `straggler`, that sleeps; and that program.
fn stack() -> (Stack, PathBuf) {
    let stack = Stack::new(SERVICES);
    let program = stack.file("straggler");
    let sleep = ["/bin/sleep", "/usr/bin/sleep"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    std::fs::copy(sleep.unwrap(), &program).unwrap();
    (stack, program)
}

#[test]
fn a_program_that_runs_too_often_is_told_and_listed() {
    let (mut stack, program) = stack();
    stack.start(&[]);
    let ours = stack.wait_for("a", "running")["pid"].as_i64().unwrap();
    let level = |wanted: &str| {
        eventually(&format!("the level is {wanted}"), || {
            let conflict = stack.status()?["conflicts"][0].clone();
            (conflict["level"] == wanted).then_some(conflict)
        })
    };
    level("ok");
    let mut started = Started(Vec::new());
    let stray = started.add(&program, &["3601"], stack.path());
    // The same word in the arguments of another program is no conflict.
    started.add(Path::new("tail"), &["-f", "straggler"], stack.path());
    let warning = level("warning");
    let processes = warning["processes"].as_array().unwrap();
    let pids: Vec<i64> = processes
        .iter()
        .map(|process| process["pid"].as_i64().unwrap())
        .collect();
    assert_eq!(pids, [ours, i64::from(stray)], "{warning}");
    assert_eq!(
        (&processes[0]["service"], &processes[1]["ours"]),
        (&"a".into(), &false.into())
    );
    assert_eq!(processes[1]["parent"], std::process::id());
    assert!(
        processes[1]["command"].as_str().unwrap().ends_with("straggler 3601"),
        "{warning}"
    );
    for _ in 0..2 {
        started.add(&program, &["3601"], stack.path());
    }
    level("critical");
    let status = stack.run(&["services", "status"]);
    assert_eq!(status.status, Some(1), "{status:?}");
    let line = "conflict stragglers: 4 processes, 1 expected, 3 of no service: critical";
    assert!(status.out.contains(line), "{}", status.out);
    drop(started);
    level("ok");
    assert_eq!(stack.run(&["services", "status"]).status, Some(0));
    let said = stack.err();
    for part in ["⚠️ conflict stragglers", "🚨 conflict stragglers", "it is over"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(stack.stop(), Some(0));
}
