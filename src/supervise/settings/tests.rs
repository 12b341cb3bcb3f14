//! What files of services mean, and the messages about their mistakes.

use super::*;
use crate::supervise::settings::plan::{Probe, QueueFormat, ReadySign, Sign, Then, Wanted};
use rustix::process::Signal;
use std::time::Duration;

const DEADLOCK: &str = include_str!("../../../tests/fuzz/seeds/services/deadlock");
const STACK: &str = include_str!("../../../tests/fuzz/seeds/services/stack");
const LISTS: &str = include_str!("../../../tests/fuzz/seeds/services/lists");

/// The messages about a text, without the name of the file.
fn said(text: &str) -> Vec<String> {
    match of_text(Path::new("/project/services.toml"), text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults
            .iter()
            .map(|fault| fault.to_string().replace("/project/services.toml, ", ""))
            .collect(),
    }
}

fn plan(text: &str) -> Plan {
    of_text(Path::new("/project/services.toml"), text).unwrap_or_else(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("{}", faults.join("\n"))
    })
}

#[test]
fn workers_that_hand_each_other_files_are_described() {
    let plan = plan(DEADLOCK);
    let names: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["worker2", "retry_manager", "outline"]);
    assert_eq!(plan.order.start, [vec![0], vec![1, 2]]);
    assert_eq!(plan.order.stop, [vec![1, 2], vec![0]]);
    let worker = &plan.services[0];
    assert_eq!(worker.command.words, ["python3", "-u", "worker2.py"]);
    assert_eq!(worker.cwd, Path::new("/project/."));
    assert_eq!(worker.start_wait, Duration::from_secs(60));
    let checks: Vec<(&str, u64, Then)> = worker
        .checks
        .iter()
        .map(|check| (check.name.as_str(), check.strikes, check.then))
        .collect();
    assert_eq!(
        checks,
        [
            ("status", 2, Then::Restart),
            ("ideas", 1, Then::Restart),
            ("qa", 1, Then::Warn)
        ]
    );
    assert_eq!(
        worker.checks[0].sign,
        Sign::File {
            path: "/project/worker2_status.json".into(),
            max_age: Duration::from_secs(120)
        }
    );
    assert_eq!(worker.checks[0].interval, Duration::from_secs(10));
    assert_eq!(worker.evidence.signal, Some(Signal::USR1));
    let restart = &worker.restart;
    assert_eq!((restart.most_times, restart.pressure_cpu), (5, 80));
    assert_eq!(restart.delay_most, Duration::from_secs(60));
    let outline = &plan.services[2];
    assert!(outline.restart.on_exit && !outline.restart.on_check && outline.unbuffered);
    assert_eq!(outline.stop.signal, Signal::TERM);
    assert_eq!(outline.stop.wait, Duration::from_secs(10));
    assert_eq!(plan.supervise.run_dir, Path::new("/project/run"));
    assert_eq!((plan.incidents.keep, plan.watches.len()), (50, 2));
    assert_eq!(plan.watches[1].settle, Duration::from_secs(2));
}

#[test]
fn a_stack_beside_others_databases_is_described() {
    let plan = plan(STACK);
    assert_eq!(plan.order.start, [vec![0], vec![1], vec![2]]);
    let worker = &plan.services[0];
    assert_eq!(worker.cwd, Path::new("/project/../backend"));
    assert_eq!(worker.depends_on[0].wanted, Wanted::Present);
    assert_eq!(worker.memory_warn, Some(500 * 1024 * 1024));
    assert_eq!(worker.env_files[0].1, Path::new("/project/config.env"));
    let ready = worker.ready.as_ref().unwrap();
    assert_eq!(
        ready.sign,
        ReadySign::Log("Worker process is ready for action".to_owned())
    );
    assert!(matches!(&worker.checks[0].sign, Sign::CommandQueue { command, .. } if command.words.len() == 3));
    let Probe::Http { address, status } = &plan.needs[1].probe else {
        panic!("{:?}", plan.needs);
    };
    assert_eq!((address.authority.port(), address.path.as_str()), (54321, "/rest/v1/"));
    assert_eq!(status.as_slice(), [200, 401]);
    assert_eq!(plan.needs[0].interval, Duration::from_secs(30));
    let conflict = &plan.conflicts[0];
    assert_eq!(conflict.matches[0], "dramatiq");
    assert_eq!((conflict.expected, conflict.warn, conflict.critical), (3, 4, Some(6)));
    assert_eq!(plan.cleanup.asks[0].name, "flush Redis");
}

#[test]
fn a_server_stands_beside_the_services_with_the_settings_of_serve() {
    let plan = plan(LISTS);
    let server = plan.server.unwrap();
    assert_eq!(server.config.port, 0);
    assert_eq!(
        server.arguments,
        ["--port=0", "--stuck=*/cropping_*=2m", "--log-dir=/project/logs"]
    );
    assert_eq!(plan.supervise.events, None);
    let lists = &plan.services[0];
    let wanted: Vec<Wanted> = lists.depends_on.iter().map(|other| other.wanted).collect();
    assert_eq!(wanted, [Wanted::Present, Wanted::Started, Wanted::Started]);
    // One that is not enabled has no phase, but is stopped in its turn.
    assert_eq!(
        (plan.order.start, plan.order.stop),
        (vec![vec![1]], vec![vec![0], vec![1]])
    );
    assert_eq!(lists.env[0], ("A".to_owned(), "1".to_owned()));
    assert!(matches!(
        &lists.checks[0].sign,
        Sign::Queue { format: QueueFormat::Lines, moves_within, .. } if moves_within.as_secs() == 300
    ));
    assert_eq!(
        lists.checks[1].sign,
        Sign::Machine {
            machine: "a".to_owned(),
            stuck: false,
            silent: true
        }
    );
    assert!(!plan.services[1].restart.on_exit);
}

#[test]
fn a_server_gets_the_event_socket_of_all_and_keeps_its_own() {
    let both = |more: &str| {
        let text = format!("[supervise]\nevents = \"e.sock\"\n[server]\n{more}");
        let plan = plan(&text);
        (plan.server.unwrap().arguments, plan.supervise.events.unwrap())
    };
    let (arguments, events) = both("");
    assert!(
        arguments.contains(&"--event-socket-path=/project/e.sock".to_owned()),
        "{arguments:?}"
    );
    assert_eq!(events, Path::new("/project/e.sock"));
    let (arguments, _) = both("event-socket-path = \"other.sock\"\nallow-origin = []");
    assert!(
        arguments.contains(&"--event-socket-path=other.sock".to_owned()),
        "{arguments:?}"
    );
    assert!(arguments.contains(&"--allow-origin=none".to_owned()), "{arguments:?}");
    let alone = plan("[server]\nevent-socket-path = \"x.sock\"\nport = 8080");
    assert_eq!(alone.supervise.events.unwrap(), Path::new("/project/x.sock"));
    assert_eq!(alone.supervise.url.authority.to_string(), "127.0.0.1:8080");
}

/// A service with these lines after its command.
fn service(lines: &str) -> String {
    format!("[service.a]\ncommand = \"true\"\n{lines}")
}

/// Files with the messages about each: a line for each fault, in the order of their places.
const MISTAKES: &str = include_str!("mistakes.txt");

#[test]
fn every_mistake_is_told_with_its_place_and_what_would_be_right() {
    let (mut text, mut expected, mut seen) = (String::new(), Vec::new(), 0);
    for line in MISTAKES.lines().chain([""]) {
        match line.strip_prefix("=> ") {
            Some(fault) => expected.push(fault),
            None if line.is_empty() && !expected.is_empty() => {
                assert_eq!(said(&text), expected, "{text}");
                (text, expected, seen) = (String::new(), Vec::new(), seen + 1);
            }
            None => text.push_str(&format!("{line}\n")),
        }
    }
    assert!(seen > 70 && text.is_empty(), "{seen}");
}

#[test]
fn a_service_that_ends_is_ready_then_and_the_server_is_known_by_its_name() {
    let waits = "depends_on = { b = \"ready\" }\n[service.b]\ncommand = \"true\"\noneshot = true";
    assert_eq!(said(&service(waits)), Vec::<String>::new());
    let waits = "depends_on = { server = \"ready\" }\n[server]";
    assert_eq!(said(&service(waits)), Vec::<String>::new());
}

/// Looks at a file in a folder of its own; `HERE` in messages stands for that.
fn looked(folder: &Path, text: &str) -> Vec<String> {
    let path = folder.join("services.toml");
    std::fs::write(&path, text).expect("the folder of a test takes files");
    let ours = [("PATH".into(), "/usr/bin:/bin".into()), ("A".into(), "ours".into())];
    let here = folder.display().to_string();
    match read(&path, &ours.into()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults
            .iter()
            .map(|fault| fault.to_string().replace(&here, "HERE"))
            .collect(),
    }
}

#[test]
fn programs_folders_and_variables_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::write(at("plain"), "").unwrap();
    std::fs::write(at("good.env"), "A=file\nB=file\n").unwrap();
    std::fs::write(at("bad.env"), "A=1\nnonsense\n").unwrap();
    std::os::unix::fs::symlink("/bin/true", at("sub/program")).unwrap();
    for (text, expected) in [
        (service("").as_str(), ""),
        ("[service.a]\ncommand = \"./program\"\ncwd = \"sub\"", ""),
        ("[service.a]\ncommand = \"program\"\nenv = { PATH = \"sub\" }", ""),
        (
            "[service.a]\ncommand = \"program\"\nenv_file = \"good.env\"",
            "line 2, column 1: the command of [service.a] cannot run: there is no \"program\" in PATH (/usr/bin:/bin); install it",
        ),
        (
            "[service.a]\ncommand = \"plain\"",
            "line 2, column 1: the command of [service.a] cannot run: there is no \"plain\" in PATH; write ./plain for",
        ),
        (
            "[service.a]\ncommand = \"./plain\"",
            "line 2, column 1: the command of [service.a] cannot run: HERE/plain may not be executed; try chmod +x",
        ),
        (
            "[service.a]\ncommand = \"./sub\"",
            "line 2, column 1: the command of [service.a] cannot run: HERE/sub is a folder",
        ),
        (
            "[service.a]\ncommand = \"./none\"",
            "line 2, column 1: the command of [service.a] cannot run: there is no HERE/none; threadcast looks for a program with",
        ),
        (
            "[service.a]\ncommand = [\"true x\"]",
            "line 2, column 1: the command of [service.a] cannot run: there is no program \"true x\"; write each word by itself, [\"true\", \"x\"]",
        ),
        (
            "[service.a]\ncommand = \"true\"\ncwd = \"subb\"",
            "line 3, column 1: cwd of [service.a] is not there: HERE/subb; a path is relative",
        ),
        (
            "[service.a]\ncommand = \"true\"\ncwd = \"plain\"",
            "line 3, column 1: cwd of [service.a] is no folder: HERE/plain",
        ),
        (
            "[service.a]\ncommand = \"true\"\nready.command = \"nonsense-1\"",
            "line 3, column 7: the command of [service.a.ready] cannot run: there is no \"nonsense-1\"",
        ),
        (
            "[service.a]\ncommand = \"true\"\n[[service.a.check]]\nname = \"c\"\ncommand = \"nonsense-1\"",
            "line 5, column 1: the command of check \"c\" of [service.a] cannot run: there is no",
        ),
        (
            "[service.a]\ncommand = \"true\"\n[service.a.evidence]\ncommand = \"nonsense-1\"",
            "",
        ),
        (
            "[server]\n[needs.n]\ncommand = \"nonsense-1\"",
            "line 3, column 1: the command of [needs.n] cannot run: there is no",
        ),
        (
            "[server]\n[[cleanup.ask]]\nname = \"f\"\ncommand = \"nonsense-1\"",
            "line 4, column 1: the command of [[cleanup.ask]] \"f\" cannot run",
        ),
        (
            "[service.a]\ncommand = \"true\"\nenv_file = \"bad.env\"",
            "HERE/bad.env, line 2, column 1: this is no variable: write KEY=VALUE",
        ),
        (
            "[service.a]\ncommand = \"true\"\nenv_file = \"goood.env\"",
            "line 3, column 1: env_file cannot be used: HERE/goood.env: No such file",
        ),
    ] {
        let said = looked(folder.path(), text);
        let said: Vec<&str> = said
            .iter()
            .map(|said| said.trim_start_matches("HERE/services.toml, "))
            .collect();
        match expected {
            "" => assert!(said.is_empty(), "{text}\n{said:#?}"),
            expected => assert!(said.len() == 1 && said[0].starts_with(expected), "{text}\n{said:#?}"),
        }
    }
}

#[test]
fn the_environment_wins_over_files_and_the_settings_over_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.toml");
    std::fs::write(folder.path().join("all.env"), "A=all\nB=all\nC=all\nD=all\n").unwrap();
    std::fs::write(folder.path().join("own.env"), "A=own\nB=own\nC=own\n").unwrap();
    let text = "[supervise]\nenv_file = \"all.env\"\nenv = { A = \"common\", E = \"common\" }\n[service.a]\n\
                command = \"true\"\nenv_file = \"own.env\"\nenv = { A = \"set\" }";
    std::fs::write(&path, text).unwrap();
    let pairs = [("PATH", "/usr/bin:/bin"), ("A", "ours"), ("B", "ours")];
    let ours: Environment = pairs.map(|(name, value)| (name.into(), value.into())).into();
    let plan = read(&path, &ours).unwrap();
    let environment = environment::of_service(&plan.services[0], &ours);
    let value = |name: &str| environment[std::ffi::OsStr::new(name)].to_str().unwrap();
    assert_eq!(
        ["A", "B", "C", "D", "E"].map(value),
        ["set", "ours", "own", "all", "common"]
    );
}
