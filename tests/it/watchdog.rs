//! No hang is silent: whoever stands still is named once, with its operation and its stack, and its return is said; and
//! nobody who merely waits is accused.

use crate::support::client::Options;
use crate::support::server::{in_shell, mounting_shell};
use crate::support::{DEADLINE, Fleet, TestClient, TestServer, eventually, numbered, pause, skipped, uninterrupted};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FLAGS: [&str; 5] = ["--allow-drill", "--hang-timeout", "1s", "--ping-interval", "200ms"];
/// Long enough to be reported at a hang timeout of 1 s on a busy machine; most tests end it as soon as they may.
const DRILL: Duration = Duration::from_secs(60);
/// For drills that cannot be ended, because nobody is there to take the order.
const ENDLESS: Duration = Duration::from_secs(8);
/// Every thread that lives as long as the server and is watched by the watchdog.
const COMPONENTS: &[&str] = &[
    "ingest",
    "fanout",
    "accept",
    "inbox",
    "main",
    "heartbeat",
    "alerts",
    "journal",
    "journal-sync",
    #[cfg(feature = "engine-db")]
    "enginedb",
    "files",
    // Not `reports`: the file has the report of its hang only when it goes on, see below.
    // Not `admin`: who stands still there takes no order that would end the drill.
    "log",
];

#[track_caller]
fn drill(server: &TestServer, component: &str, duration: Duration, kind: &str) {
    let target = format!("/drill?component={component}&ms={}&kind={kind}", duration.as_millis());
    let answer = server.act(&target);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Lines in which `component` is said to be late, to hang, to move again.
fn said_of(server: &TestServer, component: &str) -> [Vec<String>; 3] {
    [
        format!("⚠️  {component} is late: "),
        format!("🚨 SERVER HANG DETECTED: {component}: "),
        format!("✅ {component} moves again "),
    ]
    .map(|part| server.lines().with(&part))
}

fn report(server: &TestServer) -> String {
    std::fs::read_to_string(server.path("logs/hang-emergency.log")).unwrap_or_default()
}

/// The seconds in `... no progress for 1.2s in ...`.
#[track_caller]
fn seconds(line: &str) -> f64 {
    let rest = line
        .split("no progress for ")
        .nth(1)
        .unwrap_or_else(|| panic!("{line}"));
    rest.split('s').next().unwrap().parse().unwrap()
}

/// The entry of the thread called `name` in a report: its line and its frames.
fn stack_of<'a>(report: &'a str, name: &str) -> Option<&'a str> {
    let mut entries = report.split("\nthread ").skip(1);
    entries.find(|entry| entry.starts_with(&format!("{name} (id ")))
}

/// The lines of `src/liveness/drill.rs` that function `name` takes.
fn lines_of_function(name: &str) -> std::ops::RangeInclusive<usize> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/liveness/drill.rs")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines
        .iter()
        .position(|line| line.starts_with(&format!("fn {name}(")))
        .unwrap();
    let len = lines[first..].iter().position(|line| *line == "}").unwrap();
    first + 1..=first + len + 1
}

/// Whether the stack shows `function` of the drill, at one of its lines.
#[track_caller]
fn expect_frame(stack: &str, function: &str) {
    if !cfg!(all(feature = "stacks", target_arch = "x86_64")) {
        skipped("frames, because this build has no stacks");
        return;
    }
    let name = format!("threadcast::liveness::drill::{function}");
    let frame = stack
        .lines()
        .find(|line| line.contains(&name))
        .unwrap_or_else(|| panic!("no {name} in {stack}"));
    let line = frame
        .split("src/liveness/drill.rs:")
        .nth(1)
        .unwrap_or_else(|| panic!("{frame}"));
    let line: usize = line.trim().parse().unwrap();
    assert!(lines_of_function(function).contains(&line), "{frame}");
}

/// One row of the table: `component` stands still in the way of `kind`; what is said of it. Calls `meanwhile` when the
/// hang is said and not over.
#[track_caller]
fn expect_one_hang(server: &TestServer, component: &str, kind: &str, meanwhile: impl FnOnce()) {
    let ordered = Instant::now();
    let no_orders = component == "accept";
    drill(server, component, if no_orders { ENDLESS } else { DRILL }, kind);
    let hung = eventually("the hang is said", || said_of(server, component)[1].pop());
    assert!(ordered.elapsed() >= Duration::from_secs(1), "said before its limit");
    assert!((1.0..DRILL.as_secs_f64()).contains(&seconds(&hung)), "{hung}");
    assert!(hung.contains("s in a drill; "), "{hung}");
    let verdicts = match kind {
        // The second where a busy machine gives it hardly any processor, which is then the truth.
        "spin" => &["busy: it computes", "starved: it could run"][..],
        _ => &["blocked: it waits"],
    };
    assert!(verdicts.iter().any(|verdict| hung.contains(verdict)), "{hung}");
    let place = format!("📍 {component:<10} a drill, no progress for ");
    let report = eventually("the report is in its file", || {
        Some(report(server)).filter(|report| report.contains(&place) && report.contains("made in "))
    });
    let function = if kind == "spin" {
        "stand_spinning"
    } else {
        "stand_asleep"
    };
    // The kernel calls the first thread by the program's name.
    let thread = if component == "main" { "threadcast" } else { component };
    let stack = stack_of(&report, thread).unwrap_or_else(|| panic!("{thread} is not in {report}"));
    expect_frame(stack, function);
    let threads: Vec<&str> = report.split("\nthread ").skip(1).collect();
    assert!(
        threads[0].starts_with(&format!("{thread} (id ")),
        "the hung one is first: {report}"
    );

    meanwhile();
    if !no_orders {
        drill(server, component, Duration::ZERO, kind);
    }
    eventually("its return is said", || said_of(server, component)[2].pop());
    for said in said_of(server, component) {
        assert_eq!(said.len(), 1, "said once: {said:?}");
    }
}

/// A table: every component, in every way of standing still. Each has a server of its own.
fn every_component_stands_still(kind: &'static str, at_once: usize) {
    for components in COMPONENTS.chunks(at_once) {
        std::thread::scope(|scope| {
            for component in components {
                scope.spawn(move || {
                    let server =
                        TestServer::start(&[&FLAGS[..], &["--journal", "journal", "--on-alert", "true"]].concat());
                    let mut client = server.client();
                    server.send(numbered(0, 100));
                    client.expect_numbers(0..1);
                    let pings = is_pinged(&mut client);
                    assert!(pings, "the client is served before");
                    expect_one_hang(&server, component, kind, || {
                        expect_service(&server, component, &mut client);
                    });
                    assert_eq!(report(&server).matches("==== threadcast").count(), 1, "one report");
                    server.send(numbered(1000, 100));
                    client.expect_numbers(1000..1001);
                    expect_ok(&server);
                });
            }
        });
    }
}

fn is_pinged(client: &mut TestClient) -> bool {
    client.frame().is_keepalive()
}

/// What must go on while `component` stands still: pings, and events unless they pass by it.
#[track_caller]
fn expect_service(server: &TestServer, component: &str, client: &mut TestClient) {
    if matches!(component, "ingest" | "fanout") {
        for _ in 0..3 {
            assert!(is_pinged(client));
        }
    } else {
        for number in 1..20 {
            server.send(numbered(number, 100));
        }
        client.expect_numbers(1..20);
    }
}

#[track_caller]
fn expect_ok(server: &TestServer) {
    eventually("health says ok again", || {
        (server.health()["status"] == "ok").then_some(())
    });
}

#[test]
fn whoever_sleeps_is_named_once_with_its_stack_and_its_return_is_said() {
    every_component_stands_still("sleep", COMPONENTS.len());
}

#[test]
fn whoever_computes_without_end_is_named_as_busy() {
    every_component_stands_still("spin", 2);
}

#[test]
fn whoever_stands_still_with_the_logs_lock_holds_up_nobody() {
    every_component_stands_still("log", COMPONENTS.len());
}

#[test]
fn the_writer_of_reports_hangs_and_the_file_has_its_report_afterwards() {
    let server = TestServer::start(&FLAGS);
    drill(&server, "reports", DRILL, "sleep");
    let hung = eventually("the hang is said", || said_of(&server, "reports")[1].pop());
    assert!(hung.contains("s in a drill; blocked: it waits"), "{hung}");
    let said = server.wait_for_line("💾 the report is not in logs/hang-emergency.log yet");
    assert!(said.contains("thread reports goes on waiting"), "{said}");
    assert_eq!(server.health()["status"], "degraded");
    assert_eq!(report(&server), "");
    drill(&server, "reports", Duration::ZERO, "sleep");
    let report = eventually("the report is in its file", || {
        Some(report(&server)).filter(|report| report.contains("made in "))
    });
    assert!(report.contains("SERVER HANG DETECTED: reports"), "{report}");
    expect_frame(stack_of(&report, "reports").unwrap(), "stand_asleep");
    expect_ok(&server);
}

#[test]
fn a_clients_thread_that_stands_still_with_its_socket_is_named_and_hurts_nobody_else() {
    let server = TestServer::start(&FLAGS);
    let mut stuck = server.client();
    let joined = server.wait_for_line(" joined after event");
    let id = joined
        .split("client ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let component = format!("client-{id}");
    let mut other = server.client();
    expect_one_hang(&server, &component, "sleep", || {
        for number in 0..50 {
            server.send(numbered(number, 100));
        }
        other.expect_numbers(0..50);
        let health = eventually("health names it", || {
            let health = server.health();
            (health["stalls"][0]["verdict"] == "hung").then_some(health)
        });
        assert_eq!(health["status"], "degraded", "no core thread hangs: {health}");
        assert_eq!(health["stalls"][0]["component"], component.as_str(), "{health}");
    });
    // Its events waited for it.
    stuck.expect_numbers(0..50);
    expect_ok(&server);
}

#[test]
fn two_that_hang_at_once_are_two_findings_in_one_report() {
    let server = TestServer::start(&FLAGS);
    drill(&server, "inbox", DRILL, "sleep");
    drill(&server, "fanout", DRILL, "sleep");
    eventually("they are reported", || {
        report(&server).contains("made in ").then_some(())
    });
    drill(&server, "inbox", Duration::ZERO, "sleep");
    drill(&server, "fanout", Duration::ZERO, "sleep");
    for component in ["fanout", "inbox"] {
        eventually("its return is said", || said_of(&server, component)[2].pop());
    }
    let report = report(&server);
    assert_eq!(report.matches("==== threadcast").count(), 1, "{report}");
    let findings: Vec<&str> = report
        .lines()
        .filter(|line| line.contains("SERVER HANG DETECTED"))
        .collect();
    assert_eq!(findings.len(), 2, "{report}");
    let first: Vec<&str> = report.split("\nthread ").skip(1).take(2).collect();
    assert!(
        first
            .iter()
            .all(|entry| entry.starts_with("fanout (id ") || entry.starts_with("inbox (id ")),
        "{report}"
    );
}

#[test]
fn a_core_hang_is_503_with_component_operation_and_age_and_another_is_degraded() {
    let server = TestServer::start(&FLAGS);
    for (component, status, word) in [("fanout", 503, "hung"), ("files", 200, "degraded")] {
        drill(&server, component, DRILL, "sleep");
        let answer = eventually("health says it", || {
            let answer = server.http("GET", "/health", &[]);
            (answer.json()["stalls"][0]["verdict"] == "hung").then_some(answer)
        });
        let health = answer.json();
        assert_eq!(
            (answer.status, health["status"].as_str()),
            (status, Some(word)),
            "{health}"
        );
        let stall = &health["stalls"][0];
        assert_eq!(
            (&stall["component"], &stall["operation"]),
            (&component.into(), &"a drill".into())
        );
        let seconds = stall["seconds"].as_f64().unwrap();
        assert!((1.0..DRILL.as_secs_f64()).contains(&seconds), "{health}");
        drill(&server, component, Duration::ZERO, "sleep");
        expect_ok(&server);
    }
}

/// The watchdog judges all others; who judges it is `/health`.
#[test]
fn a_watchdog_that_stands_still_is_said_by_health() {
    let server = TestServer::start(&FLAGS);
    drill(&server, "watchdog", DRILL, "sleep");
    let health = eventually("health says it", || {
        let answer = server.http("GET", "/health", &[]);
        (answer.status == 503).then(|| answer.json())
    });
    assert_eq!(health["status"], "hung", "nobody judges the others: {health}");
    assert_eq!(health["stalls"][0]["component"], "watchdog", "{health}");
    drill(&server, "watchdog", Duration::ZERO, "sleep");
    expect_ok(&server);
    // It has not taken its own absence for everybody's.
    assert_eq!(server.lines().with("SERVER HANG"), [""; 0]);
}

/// Debug builds only: the drill holds what every allocation needs.
#[test]
fn a_hang_with_the_allocators_lock_is_reported_and_its_end_is_said() {
    if !cfg!(debug_assertions) {
        return skipped("only a build with debug assertions has this drill");
    }
    let server = TestServer::start(&FLAGS);
    let mut client = server.client();
    drill(&server, "fanout", ENDLESS, "malloc");
    let report = eventually("the report is there while nobody gets memory", || {
        Some(report(&server)).filter(|report| report.contains("made in "))
    });
    assert_eq!(
        said_of(&server, "fanout")[2],
        [""; 0],
        "the drill was over before the report"
    );
    assert!(
        report.contains("SERVER HANG DETECTED: fanout: no progress for "),
        "{report}"
    );
    expect_frame(stack_of(&report, "fanout").unwrap(), "stand_asleep");
    eventually("its return is said", || said_of(&server, "fanout")[2].pop());
    for number in 0..20 {
        server.send(numbered(number, 100));
    }
    client.expect_numbers(0..20);
    expect_ok(&server);
}

/// Whoever holds the allocator holds up all others, most of them in the middle of what they call a wait for work.
#[test]
fn a_helper_that_holds_the_allocator_hides_no_core_thread() {
    if !cfg!(debug_assertions) {
        return skipped("only a build with debug assertions has this drill");
    }
    let server = TestServer::start(&FLAGS);
    let mut client = server.client();
    drill(&server, "files", ENDLESS, "malloc");
    for component in ["files", "fanout"] {
        eventually("it is named", || said_of(&server, component)[1].pop());
    }
    for component in ["files", "fanout"] {
        eventually("its return is said", || said_of(&server, component)[2].pop());
    }
    server.send(numbered(0, 100));
    client.expect_numbers(0..1);
    expect_ok(&server);
}

#[test]
fn a_second_hang_of_the_same_thread_is_a_second_report() {
    let server = TestServer::start(&FLAGS);
    for time in 1..=2 {
        drill(&server, "fanout", Duration::from_secs(60), "sleep");
        eventually("the hang is said", || {
            (said_of(&server, "fanout")[1].len() == time).then_some(())
        });
        eventually("it is reported", || {
            (report(&server).matches("made in ").count() == time).then_some(())
        });
        drill(&server, "fanout", Duration::ZERO, "sleep");
        eventually("its return is said", || {
            (said_of(&server, "fanout")[2].len() == time).then_some(())
        });
    }
    assert_eq!(report(&server).matches("==== threadcast").count(), 2);
}

/// A client that ends while its thread stands still does not move again; its end is said instead.
#[test]
fn many_clients_that_hang_at_once_are_one_report_in_which_nobody_is_left_out() {
    const CLIENTS: usize = 60;
    let server = TestServer::start(&FLAGS);
    let clients: Vec<TestClient> = (0..CLIENTS).map(|_| server.client()).collect();
    eventually("all are there", || {
        (server.health()["connections"] == CLIENTS).then_some(())
    });
    let ids: Vec<String> = {
        let answer = server.act("/diagnose");
        let named = answer.body.split("client-").skip(1);
        let mut ids: Vec<String> = named
            .filter_map(|rest| rest.split_once(" (id ").map(|(id, _)| id.to_owned()))
            .collect();
        ids.sort();
        ids.dedup();
        ids
    };
    assert!(ids.len() >= CLIENTS, "{ids:?}");
    let mut held = Vec::new();
    for id in ids {
        let target = format!("/drill?component=client-{id}&ms=60000");
        // The one that has asked is gone.
        if server.act(&target).status == 200 {
            held.push(id);
        }
    }
    assert_eq!(held.len(), CLIENTS);
    let report = eventually("a report has them all", || {
        let report = report(&server);
        let all = held.iter().all(|id| report.contains(&format!("client-{id} (id ")));
        (all && report.contains("made in ")).then_some(report)
    });
    assert!(
        report.contains("📍 fanout ") && report.contains("fanout (id "),
        "{report}"
    );
    assert!(!report.contains("stack left out"), "{report}");
    // Every report has at most so many lines that name one each, and says how many it does not name.
    let health = server.health();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["stalls"].as_array().unwrap().len() <= 20, "{health}");
    for id in &held {
        drill(&server, &format!("client-{id}"), Duration::ZERO, "sleep");
    }
    expect_ok(&server);
    drop(clients);
}

#[test]
fn on_hang_abort_ends_the_process_after_the_report() {
    let mut server = TestServer::start(&[&FLAGS[..], &["--on-hang", "abort"]].concat());
    drill(&server, "files", DRILL, "sleep");
    eventually("a hang of no core thread is reported", || {
        report(&server).contains("made in ").then_some(())
    });
    drill(&server, "files", Duration::ZERO, "sleep");
    eventually("it is survived", || said_of(&server, "files")[2].pop());
    drill(&server, "ingest", Duration::from_secs(60), "sleep");
    let status = server.wait_for_end(DEADLINE);
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(Signal::ABORT.as_raw()), "{status}");
    let report = report(&server);
    assert!(report.contains("SERVER HANG DETECTED: ingest: "), "{report}");
    assert_eq!(report.matches("made in ").count(), 2, "both were whole: {report}");
    eventually("it says so", || {
        server.lines().with("aborting, as --on-hang abort asks").pop()
    });
}

#[test]
fn a_report_goes_to_the_terminal_the_logs_file_and_its_own_file() {
    let server = TestServer::start(&FLAGS);
    drill(&server, "files", DRILL, "sleep");
    let written = server.wait_for_line("💾 the whole report was written to ");
    assert!(written.contains("logs/hang-emergency.log"), "{written}");
    let log = server.path("logs/websocket-server.log");
    let in_log = eventually("it is in the log's file", || {
        std::fs::read_to_string(&log)
            .ok()
            .filter(|log| log.contains("💾 the whole report"))
    });
    for part in [
        "SERVER HANG DETECTED: files: ",
        "📍 fanout ",
        "thread files (id ",
        "made in ",
    ] {
        assert!(
            server.lines().with(part).len() == 1,
            "{part} is not once on the terminal"
        );
        assert_eq!(in_log.matches(part).count(), 1, "{part} is not once in the log's file");
        assert_eq!(
            report(&server).matches(part).count(),
            1,
            "{part} is not once in the report's file"
        );
    }
}

#[test]
fn a_report_is_made_on_a_full_disk_and_says_that_it_could_not_be_written() {
    let Some(shell) = mounting_shell() else { return };
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let script = "mkdir logs && mount -t tmpfs -o size=64k tmpfs logs && { dd if=/dev/zero of=logs/fill bs=4k 2>/dev/null; true; }";
    // No socket can be made on a full disk.
    let flags = [&FLAGS[..], &["--admin-socket", "admin.sock"]].concat();
    let server = TestServer::start_command(folder, &flags, |command| in_shell(command, shell, script));
    let mut client = server.client();
    drill(&server, "fanout", DRILL, "sleep");
    server.wait_for_line("💾 the report could not be written to logs/hang-emergency.log");
    for part in ["SERVER HANG DETECTED: fanout: ", "📍 fanout ", "thread fanout (id "] {
        assert_eq!(server.lines().with(part).len(), 1, "{part}: {}", server.lines().all());
    }
    drill(&server, "fanout", Duration::ZERO, "sleep");
    eventually("its return is said", || said_of(&server, "fanout")[2].pop());
    server.send(numbered(0, 100));
    client.expect_numbers(0..1);
}

/// Fills a pipe to its last byte, so that the first line finds no room.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    for piece in [&[b' '; 4096][..], b" "] {
        while std::io::Write::write(&mut &writer, piece).is_ok() {}
    }
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn a_hang_is_reported_although_nobody_reads_the_terminal() {
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let (reader, writer) = full_pipe();
    let server = TestServer::start_command(folder, &FLAGS, |command| {
        command.stderr(writer);
    });
    let mut client = server.client();
    drill(&server, "fanout", DRILL, "sleep");
    let log = server.path("logs/websocket-server.log");
    for part in ["💾 the whole report was written", "✅ fanout moves again after "] {
        eventually("it is in the log's file", || {
            std::fs::read_to_string(&log).ok().filter(|log| log.contains(part))
        });
        // After the report, that is.
        drill(&server, "fanout", Duration::ZERO, "sleep");
    }
    let report = report(&server);
    for part in [
        "SERVER HANG DETECTED: fanout: ",
        "📍 fanout ",
        "thread fanout (id ",
        "made in ",
    ] {
        assert_eq!(report.matches(part).count(), 1, "{part}: {report}");
    }
    server.send(numbered(0, 100));
    client.expect_numbers(0..1);
    drop(reader);
}

/// Ends a helper process, whatever happens.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn busy_processors_are_nobodys_hang() {
    let server = TestServer::start(&["--hang-timeout", "3s"]);
    let mut client = server.client();
    let spinners: Vec<Reaped> = (0..2 * std::thread::available_parallelism().unwrap().get())
        .map(|_| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            Reaped(command.spawn().unwrap())
        })
        .collect();
    // Two limits long; that nothing is said in this time is the subject.
    pause(Duration::from_secs(6));
    drop(spinners);
    server.send(numbered(0, 100));
    client.expect_numbers(0..1);
    for accused in ["is late: ", "SERVER HANG"] {
        assert_eq!(server.lines().with(accused), [""; 0]);
    }
}

#[test]
fn a_server_that_was_stopped_and_goes_on_accuses_nobody() {
    let server = TestServer::start(&["--hang-timeout", "1s"]);
    let mut client = server.client();
    server.suspend();
    // Three limits long.
    pause(Duration::from_secs(3));
    server.signal(Signal::CONT);
    let begun = Instant::now();
    // Two more: whoever was wrongly counted as still would be said by then.
    let mut number = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        server.send(numbered(number, 100));
        client.expect_numbers(number..number + 1);
        number += 1;
        pause(Duration::from_millis(20));
    }
    for accused in ["is late: ", "SERVER HANG", "moves again"] {
        assert_eq!(server.lines().with(accused), [""; 0]);
    }
    assert_eq!(server.health()["status"], "ok");
}

#[test]
fn clients_that_read_little_or_nothing_are_nobodys_hang() {
    let flags = ["--hang-timeout", "1s", "--send-timeout", "60s", "--pong-timeout", "60s"];
    let server = TestServer::start(&flags);
    let small = Options {
        receive_buffer: Some(4096),
        ..Options::default()
    };
    let nothing = TestClient::try_with(server.address, &small).unwrap();
    let little = TestClient::try_with(server.address, &small).unwrap();
    let sender = server.sender();
    for number in 0..900 {
        sender.send(&numbered(number, 1024)).unwrap();
    }
    let (mut socket, _) = little.into_parts();
    let begun = Instant::now();
    let mut scrap = [0; 1024];
    while begun.elapsed() < Duration::from_secs(4) {
        let _ = uninterrupted(|| std::io::Read::read(&mut socket, &mut scrap)).unwrap();
        pause(Duration::from_millis(100));
    }
    for accused in ["is late: ", "SERVER HANG"] {
        assert_eq!(server.lines().with(accused), [""; 0]);
    }
    assert_eq!(server.health()["status"], "ok");
    drop(nothing);
}

/// Mappings, without the stacks of connections' threads and the page before each: of those the C library keeps as many
/// as ever were at a time, which depends on how fast connections come.
fn mappings(server: &TestServer) -> usize {
    const STACK_BYTES: usize = 256 * 1024;
    const GUARD_BYTES: usize = 4096;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap();
    let len = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some(usize::from_str_radix(end, 16).ok()? - usize::from_str_radix(start, 16).ok()?)
    };
    let others = maps.lines().filter(|line| {
        let is_guard = line.contains(" ---p ") && len(line) == Some(GUARD_BYTES);
        !is_guard && len(line) != Some(STACK_BYTES)
    });
    others.count()
}

/// Says that it is over when it is dropped.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reports on demand, one after the other, beside clients that are sent events without a pause.
#[test]
fn two_hundred_reports_under_load_leave_nothing_behind_and_interrupt_nobody() {
    const REPORTS: usize = 200;
    /// What is made once, and the memory that load takes, is there after so many.
    const FIRST: usize = 50;
    /// What each of these many takes for ever would be seen every time; what the C library keeps, only now and then.
    const ROUND: usize = 50;
    const ROUND_BYTES_MAX: usize = 1024 * 1024;
    const CLIENTS: usize = 10;
    const BATCH: usize = 20;
    /// Well under one for each report.
    const MAPPINGS_KEPT: usize = 100;
    let server = TestServer::start(&["--ping-interval", "50ms", "--history-bytes", "0"]);
    let fleet = Fleet::start(&server, CLIENTS, 1);
    let diagnose = || {
        let answer = server.act("/diagnose");
        assert_eq!(answer.status, 200, "{}", answer.body);
        for thread in ["fanout (id ", "ingest (id ", "watchdog (id "] {
            assert!(answer.body.contains(thread), "no {thread} in {}", answer.body);
        }
    };
    let settled = || (server.descriptors(), mappings(&server), server.threads());
    let over = AtomicBool::new(false);
    let (before, grown, events) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let sender = server.sender();
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                for number in count..count + BATCH {
                    sender.send(&numbered(number, 1000)).unwrap();
                }
                count += BATCH;
                // Nobody is to end for being slow.
                eventually("everybody has the batch", || (fleet.least() >= count).then_some(()));
            }
            count
        });
        // However this ends, the load does.
        let ending = Ending(&over);
        (0..FIRST).for_each(|_| diagnose());
        let before = settled();
        let grown: Vec<usize> = (FIRST..REPORTS)
            .step_by(ROUND)
            .map(|_| {
                let memory = server.resident_bytes();
                (0..ROUND).for_each(|_| diagnose());
                server.resident_bytes().saturating_sub(memory)
            })
            .collect();
        drop(ending);
        (before, grown, load.join().unwrap())
    });
    eprintln!("{REPORTS} reports beside {events} events");
    fleet.expect(events);
    let mut after = settled();
    let came_back = |now: (usize, usize, usize)| {
        // The C library makes arenas of memory for threads that meet: some dozens of mappings, however many reports.
        now.0 <= before.0 && now.1 <= before.1 + MAPPINGS_KEPT && now.2 <= before.2
    };
    let begun = Instant::now();
    while !came_back(after) {
        assert!(
            begun.elapsed() < DEADLINE,
            "descriptors, mappings, threads: {before:?}, then {after:?}"
        );
        pause(Duration::from_millis(10));
        after = settled();
    }
    assert!(
        grown.iter().min() < Some(&ROUND_BYTES_MAX),
        "{grown:?} bytes more resident"
    );
    let health = server.health();
    assert_eq!(health["status"], "ok", "{health}");
    assert_eq!(health["connections"], CLIENTS, "{health}");
    for (reason, count) in health["clients_ended"].as_object().unwrap() {
        assert_eq!(count, 0, "{reason}: {health}");
    }
}

#[test]
fn a_slow_operation_is_said_with_what_it_was_about_and_counted_and_its_longest_is_kept() {
    const CLIENTS: usize = 100;
    const BYTES: usize = 100 * 1024;
    let server = TestServer::start(&["--slow-broadcast", "1ms"]);
    let fleet = Fleet::start(&server, CLIENTS, 1);
    let sender = server.sender();
    let mut count = 0;
    let line = eventually("a broadcast of 100 KB to 100 clients takes a millisecond", || {
        sender.send(&numbered(count, BYTES)).unwrap();
        count += 1;
        fleet.expect(count);
        server.lines().with("⚠️  SLOW OPERATION: broadcast took ").pop()
    });
    assert!(
        line.ends_with(&format!("ms ({CLIENTS} clients, {} KB)", BYTES / 1024)),
        "{line}"
    );
    let took = line.split("took ").nth(1).unwrap().split("ms").next().unwrap();
    let took: f64 = took.parse().unwrap();
    let slow = &server.health()["slow_operations"]["broadcast"];
    assert!(slow["count"].as_u64() >= Some(1), "{slow}");
    // The line has two digits after the point, the page three.
    assert!(
        took >= 1.0 && slow["max_ms"].as_f64().unwrap() >= took - 0.01,
        "{line}: {slow}"
    );
}
