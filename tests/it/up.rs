//! `threadcast up` with real processes: the order of the start, the stop of everything, restarts, adoption, orders.

use crate::support::server::TestServer;
use crate::support::stopper::Stopped;
use crate::support::supervised::{Stack, lives};
use crate::support::{eventually, pause, within};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Two services of which one leaves a process in a session of its own that ignores SIGTERM.
const STACK: &str = r#"
[supervise]
interval = "200ms"
[service.worker]
command = ["sh", "-c", "echo hello; echo $$ >> worker.pids; sleep 0.3; echo at work; exec sleep 3600"]
ready = { log = "at work", timeout = "30s" }
[service.web]
command = ["sh", "-c", "(setsid sh -c 'trap \"\" TERM; echo $$ >> child.pids; while :; do sleep 0.2; done' &); echo $$ >> web.pids; exec sleep 3600"]
depends_on = { worker = "ready" }
stop = { wait = "300ms" }
"#;

fn pids(stack: &Stack, file: &str) -> Vec<i64> {
    stack.lines(file).iter().map(|line| line.parse().unwrap()).collect()
}

/// Waits until a file has so many ids.
#[track_caller]
fn wait_for_pids(stack: &Stack, file: &str, many: usize) -> Vec<i64> {
    eventually(&format!("{file} has {many}"), || {
        let pids = pids(stack, file);
        (pids.len() >= many).then_some(pids)
    })
}

#[test]
fn services_start_in_order_and_stop_with_everything_that_they_started() {
    let mut stack = Stack::up(STACK);
    stack.wait_for("web", "running");
    let child = wait_for_pids(&stack, "child.pids", 1)[0];
    let said = eventually("the table is shown", || {
        let out = stack.out();
        out.contains("everything is started").then_some(out)
    });
    assert!(said.contains("phase 1  worker\nphase 2  web\n"), "{said}");
    assert!(said.contains("logs/worker.log"), "{said}");
    let err = stack.err();
    let place = |text: &str| err.find(text).unwrap_or_else(|| panic!("no {text:?} in {err}"));
    assert!(place("worker: ready after") < place("web: started"), "{err}");
    let status = stack.run(&["services", "status"]);
    assert_eq!(status.status, Some(0), "{status:?}");
    assert_eq!(status.out.lines().count(), 3, "{}", status.out);
    let found = within(Duration::from_secs(30), "the double-forked child is counted", || {
        stack.service("web").filter(|web| web["processes"].as_u64() >= Some(2))
    });
    assert!(found["memory_bytes"].as_u64() > Some(0), "{found}");
    let web = found["pid"].as_i64().unwrap();
    assert_eq!(stack.stop(), Some(0), "{}", stack.err());
    assert!(!lives(child) && !lives(web), "{}", stack.err());
    let err = stack.err();
    let place = |text: &str| err.find(text).unwrap_or_else(|| panic!("no {text:?} in {err}"));
    assert!(place("web: stopped") < place("worker: stopped"), "{err}");
    assert!(err.contains("did not heed TERM within 300ms"), "{err}");
    // Nobody answers any more, and that is said.
    let status = stack.run(&["services", "status"]);
    assert!(
        status.status == Some(1) && status.err.contains("no services run in run"),
        "{status:?}"
    );
}

#[test]
fn services_outlive_a_killed_supervisor_and_are_taken_over() {
    let mut stack = Stack::up(STACK);
    stack.wait_for("web", "running");
    let child = wait_for_pids(&stack, "child.pids", 1)[0];
    let before = ["worker", "web"].map(|name| stack.service(name).unwrap()["pid"].as_i64().unwrap());
    stack.kill();
    assert!(before.iter().all(|pid| lives(*pid)));
    stack.start(&[]);
    let web = stack.wait_for("web", "running");
    let worker = stack.wait_for("worker", "running");
    assert_eq!([&worker, &web].map(|service| service["pid"].as_i64().unwrap()), before);
    assert!(worker["adopted"] == true && web["adopted"] == true, "{worker} {web}");
    assert_eq!(
        (pids(&stack, "worker.pids").len(), pids(&stack, "web.pids").len()),
        (1, 1),
        "started twice"
    );
    // The end of an adopted process has no status, and is noticed all the same.
    let pid = rustix::process::Pid::from_raw(before[0] as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    wait_for_pids(&stack, "worker.pids", 2);
    let worker = stack.wait_for("worker", "running");
    assert_eq!(
        (&worker["restarts"], &worker["last_exit"]),
        (&1.into(), &"status unknown".into()),
        "{worker}"
    );
    assert_eq!(stack.stop(), Some(0), "{}", stack.err());
    assert!(
        !lives(child) && before.iter().all(|pid| !lives(*pid)),
        "{}",
        stack.err()
    );
}

/// Whatever the supervisor was doing when it was killed: nothing runs twice, and nothing is forgotten.
#[test]
fn a_supervisor_that_is_killed_at_any_moment_starts_nothing_twice() {
    let mut services = String::from("[supervise]\ninterval = \"200ms\"\n");
    for name in ["a", "b", "c"] {
        services.push_str(&format!(
            "[service.{name}]\ncommand = [\"sh\", \"-c\", \"echo $$ >> {name}.pids; (setsid sleep 3600 &); exec sleep 3600\"]\n"
        ));
    }
    services.push_str("[service.c.depends_on]\na = \"started\"\n");
    let mut stack = Stack::new(&services);
    let mut random = fastrand::Rng::with_seed(16);
    for _ in 0..50 {
        stack.start(&[]);
        pause(Duration::from_millis(random.u64(0..120)));
        stack.kill();
    }
    stack.start(&[]);
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        let service = stack.wait_for(name, "running");
        let file = format!("{name}.pids");
        let running = eventually("the leader has written its id", || {
            let running: Vec<i64> = pids(&stack, &file).into_iter().filter(|pid| lives(*pid)).collect();
            (!running.is_empty()).then_some(running)
        });
        assert_eq!(
            running,
            [service["pid"].as_i64().unwrap()],
            "{name} runs twice\n{}",
            stack.err()
        );
        all.extend(running);
    }
    assert_eq!(stack.stop(), Some(0), "{}", stack.err());
    assert!(all.iter().all(|pid| !lives(*pid)));
    // The children in sessions of their own, too.
    let marked = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let environment = fs::read(entry.unwrap().path().join("environ")).ok()?;
        let cwd = stack.path().to_str().unwrap().to_owned();
        let text = String::from_utf8_lossy(&environment).into_owned();
        (text.contains("THREADCAST_RUN=") && text.contains(&format!("PWD={cwd}"))).then_some(())
    });
    assert_eq!(marked.count(), 0, "{}", stack.err());
}

#[test]
fn a_second_supervisor_of_a_run_folder_is_refused_and_replaces_the_first_if_asked() {
    let mut stack = Stack::up("[service.a]\ncommand = [\"sleep\", \"3600\"]\n");
    let first = stack.wait_for("a", "running")["pid"].as_i64().unwrap();
    let second = stack.run(&["up"]);
    let pid = stack.pid().to_string();
    assert!(second.status == Some(1) && second.err.contains(&pid), "{second:?}");
    assert!(lives(first));
    let mut earlier = stack.start_another(&["--replace"]);
    let status = eventually("the first one ends", || earlier.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let next = stack.wait_for("a", "running");
    assert!(next["pid"].as_i64().unwrap() != first && !lives(first), "{next}");
    assert_eq!(stack.stop(), Some(0));
}

#[test]
fn a_service_that_flaps_is_given_up_until_a_person_starts_it() {
    let stack = Stack::up(
        "[service.flap]\ncommand = [\"sh\", \"-c\", \"echo x >> starts; exit 3\"]\n\
         [service.flap.restart]\ndelay = { first = \"100ms\", most = \"200ms\" }\nmost = { times = 3, within = \"10m\" }\n",
    );
    let flap = stack.wait_for("flap", "failed");
    assert_eq!(
        (stack.lines("starts").len(), &flap["restarts"]),
        (4, &3.into()),
        "{flap}"
    );
    assert_eq!(
        (&flap["last_exit"], &flap["ok"]),
        (&"exit status 3".into(), &false.into())
    );
    stack.wait_until_said("flap: given up after 3 restarts within");
    let status = stack.run(&["services", "status"]);
    assert!(
        status.status == Some(1) && status.out.contains("given up after 3"),
        "{status:?}"
    );
    let started = stack.run(&["services", "start", "flap"]);
    assert_eq!(
        (started.status, started.out.as_str()),
        (Some(0), "flap: start ordered; it was failed\n")
    );
    eventually("it is tried again as often", || {
        (stack.lines("starts").len() == 8).then_some(())
    });
}

#[test]
fn a_service_that_cannot_start_says_why_and_one_that_should_run_must_not_end_well() {
    let mut stack = Stack::new(
        "[service.ends]\ncommand = [\"true\"]\nrestart = { on = [] }\n\
         [service.once]\ncommand = [\"true\"]\noneshot = true\n\
         [service.gone]\ncommand = [\"./program\"]\nrestart = { on = [] }\nenabled = false\n",
    );
    // There, but no program of this machine.
    fs::write(stack.file("program"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(stack.file("program"), fs::Permissions::from_mode(0o755)).unwrap();
    stack.start(&[]);
    stack.wait_for("ends", "failed");
    stack.wait_for("once", "finished");
    stack.wait_until_said("needs `oneshot = true`");
    stack.wait_for("gone", "stopped");
    let said = stack.run(&["services", "start", "gone"]);
    assert_eq!(said.status, Some(0), "{said:?}");
    let gone = stack.wait_for("gone", "failed");
    assert!(
        gone["note"]
            .as_str()
            .unwrap()
            .contains("the interpreter in its first line"),
        "{gone}"
    );
}

#[test]
fn people_stop_start_and_restart_services() {
    let mut stack = Stack::up(STACK);
    stack.wait_for("web", "running");
    let first = wait_for_pids(&stack, "web.pids", 1)[0];
    let child = wait_for_pids(&stack, "child.pids", 1)[0];
    assert_eq!(stack.run(&["services", "restart", "web"]).status, Some(0));
    let second = wait_for_pids(&stack, "web.pids", 2)[1];
    assert!(
        !lives(first) && !lives(child),
        "it is started once nothing is left of it"
    );
    stack.wait_for("web", "running");
    assert_eq!(stack.run(&["services", "stop", "web"]).status, Some(0));
    let web = stack.wait_for("web", "stopped");
    assert!(!lives(second) && web["ok"] == true && web["pid"].is_null(), "{web}");
    let wrong = stack.run(&["services", "stop", "wrker"]);
    assert!(
        wrong.status == Some(1) && wrong.err.contains("did you mean \"worker\"?"),
        "{wrong:?}"
    );
    assert_eq!(stack.run(&["services", "start", "web"]).status, Some(0));
    wait_for_pids(&stack, "web.pids", 3);
    let logs = stack.run(&["services", "logs", "worker", "-n", "1"]);
    assert_eq!((logs.status, logs.out.as_str()), (Some(0), "worker | at work\n"));
    assert_eq!(stack.stop(), Some(0));
}

#[test]
fn a_signal_in_the_middle_of_the_start_stops_what_was_started() {
    let mut stack = Stack::up(
        "[service.first]\ncommand = [\"sh\", \"-c\", \"echo $$ >> first.pids; exec sleep 3600\"]\n\
         ready = { log = \"never\", timeout = \"1h\" }\n\
         [service.second]\ncommand = [\"sh\", \"-c\", \"echo $$ >> second.pids; exec sleep 3600\"]\n\
         depends_on = { first = \"ready\" }\n",
    );
    let first = wait_for_pids(&stack, "first.pids", 1)[0];
    let second = stack.wait_for("second", "waiting");
    assert_eq!(second["note"], "waits for first to be ready", "{second}");
    stack.signal(Signal::INT);
    assert_eq!(stack.wait(), Some(0), "{}", stack.err());
    assert!(!lives(first) && stack.lines("second.pids").is_empty());
}

#[test]
fn a_command_runs_once_all_is_ready_and_its_status_counts() {
    let services = "[service.a]\ncommand = [\"sh\", \"-c\", \"echo up; exec sleep 3600\"]\nready = { log = \"up\" }\n";
    for (script, expected) in [("echo done >> ran", 0), ("echo done >> ran; exit 7", 1)] {
        let mut stack = Stack::new(services);
        stack.start(&["--until-ready", "--", "sh", "-c", script]);
        assert_eq!(stack.wait(), Some(expected), "{}", stack.err());
        assert_eq!(stack.lines("ran"), ["done"]);
        assert!(stack.err().contains("a: stopped"), "{}", stack.err());
    }
    let mut stack = Stack::new("[service.a]\ncommand = [\"false\"]\nrestart = { on = [] }\n");
    stack.start(&["--until-ready", "--", "touch", "ran"]);
    assert_eq!(stack.wait(), Some(1));
    assert!(stack.err().contains("is not run: a is failed"), "{}", stack.err());
    assert!(!stack.file("ran").exists());
}

/// A job that waited for ever would be worse than one that fails.
#[test]
fn a_command_does_not_wait_for_what_cannot_come() {
    for services in [
        "[service.a]\ncommand = [\"false\"]\nrestart = { on = [] }\nready = { log = \"up\" }\n\
         [service.b]\ncommand = [\"true\"]\ndepends_on = { a = \"ready\" }\n",
        "[needs.gone]\ncommand = [\"false\"]\n[service.b]\ncommand = [\"true\"]\ndepends_on = { gone = \"present\" }\n",
        "[service.b]\ncommand = [\"sleep\", \"3600\"]\nready = { log = \"up\", timeout = \"200ms\" }\nrestart = { on = [] }\n",
    ] {
        let mut stack = Stack::new(services);
        stack.start(&["--until-ready", "--", "touch", "ran"]);
        assert_eq!(stack.wait(), Some(1), "{}", stack.err());
        assert!(stack.err().contains("`touch ran` is not run: "), "{}", stack.err());
        assert!(!stack.file("ran").exists());
    }
    // And one that was never run has not succeeded.
    let mut stack =
        Stack::new("[service.a]\ncommand = [\"sleep\", \"3600\"]\nready = { log = \"never\", timeout = \"1h\" }\n");
    stack.start(&["--until-ready", "--", "touch", "ran"]);
    stack.wait_for("a", "starting");
    assert_eq!(stack.stop(), Some(1));
}

#[test]
fn a_second_signal_gives_no_more_time() {
    let mut stack = Stack::up(
        "[service.a]\ncommand = [\"sh\", \"-c\", \"trap : TERM; echo $$ >> a.pids; while :; do sleep 0.1; done\"]\n\
         stop = { wait = \"1h\" }\n",
    );
    let pid = wait_for_pids(&stack, "a.pids", 1)[0];
    stack.wait_for("a", "running");
    stack.signal(Signal::INT);
    stack.wait_for("a", "stopping");
    pause(Duration::from_millis(600));
    stack.signal(Signal::INT);
    assert_eq!(stack.wait(), Some(0), "{}", stack.err());
    assert!(
        !lives(pid) && stack.err().contains("a second signal"),
        "{}",
        stack.err()
    );
}

/// The time to become ready counts from the look of the supervisor that looks, not from a start of long ago.
#[test]
fn a_service_that_is_older_than_its_time_to_become_ready_is_taken_over_as_it_is() {
    let mut stack = Stack::up(
        "[service.a]\ncommand = [\"sh\", \"-c\", \"echo up; echo $$ >> a.pids; exec sleep 3600\"]\n\
         ready = { log = \"up\", timeout = \"1s\" }\nrestart = { on = [\"exit\", \"check\"] }\n",
    );
    let pid = stack.wait_for("a", "running")["pid"].clone();
    eventually("it is older", || {
        let a = stack.service("a").unwrap();
        (a["uptime_seconds"].as_f64() > Some(1.5)).then_some(())
    });
    stack.kill();
    stack.start(&[]);
    let a = stack.wait_for("a", "running");
    assert_eq!((&a["pid"], &a["adopted"]), (&pid, &true.into()), "{a}\n{}", stack.err());
    assert_eq!(stack.lines("a.pids").len(), 1, "{}", stack.err());
    assert_eq!(stack.stop(), Some(0));
}

#[test]
fn what_is_to_be_done_once_is_not_done_again_by_the_next_supervisor() {
    let mut stack = Stack::up(
        "[service.once]\noneshot = true\ncommand = [\"sh\", \"-c\", \"echo x >> runs; while [ ! -e go ]; do sleep 0.05; done\"]\n\
         [service.next]\ncommand = [\"sleep\", \"3600\"]\ndepends_on = { once = \"ready\" }\n",
    );
    stack.wait_for("once", "starting");
    eventually("it runs", || (stack.lines("runs").len() == 1).then_some(()));
    stack.kill();
    stack.start(&[]);
    stack.wait_until_said("once: taken over");
    assert_eq!(stack.wait_for("next", "waiting")["note"], "waits for once to be ready");
    fs::write(stack.file("go"), "").unwrap();
    stack.wait_for("once", "finished");
    stack.wait_for("next", "running");
    assert_eq!(stack.lines("runs").len(), 1);
    assert_eq!(stack.stop(), Some(0));
}

#[test]
fn a_file_that_is_written_at_once_shows_that_a_service_is_ready() {
    let mut stack = Stack::new(
        "[service.a]\ncommand = [\"sh\", \"-c\", \"echo $$ > ready; exec sleep 3600\"]\nready = { file = \"ready\" }\n",
    );
    fs::write(stack.file("ready"), "of an earlier run").unwrap();
    stack.start(&[]);
    stack.wait_for("a", "running");
    assert_eq!(stack.stop(), Some(0));
    // The next one is not ready by the file of the first.
    fs::write(
        stack.file("services.toml"),
        "[service.a]\ncommand = [\"sleep\", \"3600\"]\nready = { file = \"ready\" }\n",
    )
    .unwrap();
    stack.start(&[]);
    let seen = eventually("it was looked at", || stack.service("a").filter(|a| a["note"] != ""));
    assert_eq!(seen["state"], "starting", "{seen}");
    assert!(
        seen["note"]
            .as_str()
            .unwrap()
            .contains("was not written since the start"),
        "{seen}"
    );
}

#[test]
fn people_get_answers_while_the_thread_that_starts_services_stands_still() {
    let mut stack = Stack::up("[service.a]\ncommand = [\"sleep\", \"3600\"]\n");
    stack.wait_for("a", "running");
    let Some(stopped) = Stopped::of(stack.pid() as u32, "act", |_| true) else {
        return;
    };
    let mut longest = Duration::ZERO;
    let hung = within(Duration::from_secs(50), "it is named", || {
        let begun = Instant::now();
        let status = stack.status().unwrap();
        longest = longest.max(begun.elapsed());
        status["hung"].as_array().unwrap().first().cloned()
    });
    let hung = hung.as_str().unwrap();
    assert!(
        hung.starts_with("thread act of this supervisor makes no progress for "),
        "{hung}"
    );
    // The start of the command is in it.
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let status = stack.run(&["services", "status"]);
    assert!(
        status.status == Some(1) && status.out.contains("thread act"),
        "{status:?}"
    );
    assert_eq!(stack.run(&["services", "stop", "a"]).status, Some(0), "the order waits");
    drop(stopped);
    stack.wait_for("a", "stopped");
    stack.wait_until_said("thread act moves again");
    assert!(stack.status().unwrap()["hung"].as_array().unwrap().is_empty());
    assert_eq!(stack.stop(), Some(0));
}

#[test]
fn logs_can_be_read_when_nothing_runs_any_more() {
    let mut stack = Stack::up(
        "[service.a]\ncommand = [\"sh\", \"-c\", \"echo one; echo two; exec sleep 3600\"]\nready = { log = \"two\" }\n",
    );
    stack.wait_for("a", "running");
    assert_eq!(stack.stop(), Some(0));
    let logs = stack.run(&["services", "logs", "--config", "services.toml"]);
    assert_eq!((logs.status, logs.out.as_str()), (Some(0), "a | one\na | two\n"));
    let logs = stack.run(&["services", "logs"]);
    assert!(logs.status == Some(1) && logs.err.contains("--config"), "{logs:?}");
}

#[test]
fn what_must_be_there_is_waited_for_and_its_hint_is_told() {
    let stack = Stack::up(
        "[needs.flag]\ncommand = [\"test\", \"-e\", \"flag\"]\nhint = \"touch flag\"\ninterval = \"100ms\"\n\
         [service.a]\ncommand = [\"sleep\", \"3600\"]\ndepends_on = { flag = \"present\" }\n",
    );
    stack.wait_until_said("flag is not there: `test -e flag` ended with status 1; to start it: touch flag");
    let a = stack.wait_for("a", "waiting");
    assert_eq!(
        (&a["note"], &a["ok"]),
        (&"waits for flag to be present".into(), &false.into())
    );
    let status = stack.run(&["services", "status"]);
    assert!(
        status.status == Some(1) && status.out.contains("flag is not there"),
        "{status:?}"
    );
    fs::write(stack.file("flag"), "").unwrap();
    stack.wait_for("a", "running");
}

#[test]
fn a_faulty_file_starts_nothing() {
    let stack = Stack::new("[service.a]\ncommand = [\"true\"]\ncomand = 1\n");
    let said = stack.run(&["up"]);
    assert!(
        said.status == Some(1) && said.err.contains("services.toml, line 3, column 1"),
        "{said:?}"
    );
    assert!(!stack.file("run").exists());
    let said = stack.run(&["up", "--config", "none.toml"]);
    assert!(said.status == Some(1) && said.err.contains("none.toml"), "{said:?}");
    for wrong in [&["up", "--until-ready"][..], &["up", "--", "true"]] {
        let said = stack.run(wrong);
        assert!(said.status == Some(2) && said.err.contains("--until-ready"), "{said:?}");
    }
}

#[test]
fn changes_of_services_are_events_of_a_server() {
    let server = TestServer::start(&[]);
    let socket = server.socket_path().display().to_string();
    let mut stack = Stack::up(&format!(
        "[supervise]\nevents = {socket:?}\n[service.a]\ncommand = [\"sh\", \"-c\", \"echo up; exec sleep 3600\"]\n\
         ready = {{ log = \"up\" }}\n"
    ));
    let machine = || {
        let machines = server.http("GET", "/api/machines", &[]).json();
        let rows = machines["machines"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["machine_name"] == "service/a")
    };
    let row = eventually("the server knows it", || {
        machine().filter(|row| row["current_state"] == "running")
    });
    assert_eq!(
        (&row["config_type"], &row["last_trigger"]),
        (&"service".into(), &"ready".into()),
        "{row}"
    );
    assert_eq!(stack.stop(), Some(0));
    eventually("it is gone from the table", || machine().is_none().then_some(()));
}

#[test]
fn a_server_of_the_file_is_a_service_before_all_others() {
    let mut stack = Stack::new("");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let services = format!(
        "[supervise]\nevents = \"events.sock\"\n[server]\nport = {port}\nstate-file = \"none\"\n\
         [service.a]\ncommand = [\"sleep\", \"3600\"]\n"
    );
    fs::write(stack.file("services.toml"), services).unwrap();
    stack.start(&[]);
    stack.wait_for("a", "running");
    let err = stack.err();
    let place = |text: &str| err.find(text).unwrap_or_else(|| panic!("no {text:?} in {err}"));
    assert!(place("server: ready after") < place("a: started"), "{err}");
    let url = format!("http://127.0.0.1:{port}");
    let table = eventually("the service is seen there", || {
        let said = stack.run(&["machines", "--url", &url]);
        said.out.contains("service/a").then_some(said.out)
    });
    assert!(table.contains("service/server"), "{table}");
    let out = eventually("the table is shown", || {
        let out = stack.out();
        out.contains("everything is started").then_some(out)
    });
    assert!(out.contains(&url), "{out}");
    assert_eq!(stack.stop(), Some(0), "{}", stack.err());
}

#[test]
fn a_control_socket_with_a_long_path_works() {
    let stack = Stack::new("[supervise]\nrun_dir = \"run\"\n[service.a]\ncommand = [\"sleep\", \"3600\"]\n");
    let deep = "d".repeat(120);
    fs::create_dir(stack.file(&deep)).unwrap();
    fs::rename(stack.file("services.toml"), stack.file(&deep).join("services.toml")).unwrap();
    let file = format!("{deep}/services.toml");
    let mut stack = stack;
    stack.start(&["--config", &file]);
    eventually("it answers", || {
        let said = stack.run(&["services", "status", "--config", &file]);
        said.out.contains("running").then_some(())
    });
    let begun = Instant::now();
    let said = stack.run(&["services", "status", "--run-dir", &format!("{deep}/run")]);
    assert!(
        said.status == Some(0) && begun.elapsed() < Duration::from_secs(30),
        "{said:?}"
    );
    assert_eq!(stack.stop(), Some(0));
}
