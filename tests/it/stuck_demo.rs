//! The demonstration before a server that knows from a file what is usual: a machine that freezes is found in time and
//! its return told, and one that is killed is silent.

use crate::notices::v1_options;
use crate::stuck::next_own;
use crate::support::{TestClient, TestServer, eventually, pause};
use crate::tail::Running;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use threadcast::commands::demo::play::{Freeze, Moment, Play};
use threadcast::commands::emit::envelope;
use threadcast::stream::event::check;
use threadcast::stream::learned::saved::saved;
use threadcast::stream::machines::Machines;

/// No stay of the demonstration is longer than 4 s, so the shortest limit of all is that of every state.
const LIMIT_S: f64 = 30.0;
/// How late a machine may be found on a host that has time.
const LATE_MAX: Duration = Duration::from_secs(1);

/// What a server learns in three hours of the demonstration, as its file.
fn learned() -> Vec<u8> {
    let (begun, mut machines) = (Instant::now(), Machines::default());
    let mut play = Play::new(7, Freeze::default());
    while play.next() < Duration::from_secs(3 * 3600) {
        let since = play.next();
        let epoch = 1_795_393_481.0 + since.as_secs_f64();
        for event in play.turn(Moment { since, epoch }) {
            let text = envelope(event.kind, event.machine, &event.payload);
            machines.apply(&check(text.as_bytes()).unwrap(), begun + since, epoch);
        }
    }
    saved(&machines.learned().copy(), 1_795_393_481.0)
}

/// A server that has learned all that, and a client that hears of it.
fn server_that_knows(learned: &[u8]) -> (TestServer, TestClient) {
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    fs::create_dir(folder.path().join("logs")).unwrap();
    fs::write(folder.path().join("logs/threadcast-state.json.learned"), learned).unwrap();
    // Other tests take the processors.
    let server = TestServer::start_in(folder, &["--stuck-cpu-pressure", "100"]);
    server.wait_for_line("states learned before");
    let client = TestClient::with(server.address, &v1_options("/ws/events"));
    (server, client)
}

/// The demonstration, whose `machine` freezes in its first state of work.
fn demo(server: &TestServer, machine: &str, more: &[&str]) -> Running {
    let path = server.socket_path();
    let path = path.to_str().unwrap();
    let arguments = [
        "demo",
        "--event-socket-path",
        path,
        "--freeze",
        machine,
        "--freeze-after",
        "0s",
    ];
    Running::start(&[&arguments, more].concat())
}

/// Does `work`, and measures for how long this host has let nobody of us run meanwhile, at most.
fn beside_a_clock<T: Send>(work: impl FnOnce() -> T + Send) -> (T, Duration) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clock = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                pause(Duration::from_millis(10));
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        let worker = scope.spawn(work);
        let result = worker.join();
        is_over.store(true, Ordering::Relaxed);
        (result.unwrap(), clock.join().unwrap())
    })
}

#[track_caller]
fn assert_in_time(found: &Value, held_up: Duration) {
    let payload = &found["payload"];
    assert_eq!(payload["limit"].as_f64(), Some(LIMIT_S), "{found}");
    let late = payload["seconds"].as_f64().unwrap() - LIMIT_S;
    eprintln!("found {late:.3} s after its limit; the host held us up for {held_up:?} at most");
    let most = LATE_MAX + held_up;
    assert!(
        (0.0..=most.as_secs_f64()).contains(&late),
        "{late}, {held_up:?}: {found}"
    );
}

fn a_frozen_machine_is_found_in_time_and_its_return_is_told(learned: &[u8]) {
    let name = "image_worker_001";
    let (server, mut client) = server_that_knows(learned);
    let demo = demo(&server, name, &["--freeze-for", "36s"]);
    let (found, held_up) = beside_a_clock(|| next_own(&mut client));
    assert_eq!(
        (&found["type"], &found["machine_name"]),
        (&"machine_stuck".into(), &name.into()),
        "{found}"
    );
    assert_in_time(&found, held_up);
    let state = found["payload"]["state"].as_str().unwrap();
    demo.wait_until_said(&format!("{name} is frozen in {state}:"));
    let usual = &found["payload"]["usual_median"];
    assert!(
        usual.as_f64().is_some_and(|median| (0.2..4.0).contains(&median)),
        "{found}"
    );
    let over = next_own(&mut client);
    assert_eq!(
        (&over["type"], &over["machine_name"]),
        (&"machine_moves_again".into(), &name.into()),
        "{over}"
    );
    demo.wait_until_said(&format!("{name} moves again"));
    assert!(over["payload"]["seconds"].as_f64() >= Some(36.0), "{over}");
    let health = server.health();
    assert_eq!(
        (&health["machines_stuck"], &health["machines_silent"]),
        (&0.into(), &0.into())
    );
}

fn a_machine_whose_program_is_killed_is_silent(learned: &[u8]) {
    let name = "mail_queue";
    let (server, mut client) = server_that_knows(learned);
    let demo = demo(&server, name, &[]);
    demo.wait_until_said(&format!("{name} is frozen in "));
    demo.signal(Signal::KILL);
    let (found, held_up) = beside_a_clock(|| {
        loop {
            // The others died too; those that wait for work are not judged.
            let found = next_own(&mut client);
            assert_eq!(found["type"], "machine_silent", "{found}");
            if found["machine_name"] == name {
                return found;
            }
        }
    });
    assert_in_time(&found, held_up);
    eventually("it is counted", || {
        (server.health()["machines_silent"].as_u64() >= Some(1)).then_some(())
    });
}

/// Both at a time, because they mostly wait for the shortest limit of all.
#[test]
fn a_frozen_machine_of_the_demonstration_is_found_in_time_and_a_killed_one_is_silent() {
    let learned = learned();
    std::thread::scope(|scope| {
        scope.spawn(|| a_frozen_machine_is_found_in_time_and_its_return_is_told(&learned));
        scope.spawn(|| a_machine_whose_program_is_killed_is_silent(&learned));
    });
}
