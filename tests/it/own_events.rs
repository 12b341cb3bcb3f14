//! The server's own events after they were told: in the journal over a restart, in `threadcast replay`, in
//! `threadcast tail`.

use crate::notices::v1_options;
use crate::support::server::run;
use crate::support::{TestClient, TestServer, eventually, state_change};
use crate::tail::Running;
use serde_json::Value;

/// A machine is silent in `odd` after 300 ms; nobody's processors are too busy to judge that.
const FLAGS: [&str; 6] = [
    "--stuck",
    "*/odd=300ms",
    "--stuck-cpu-pressure",
    "100",
    "--journal",
    "journal",
];

fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

/// Reads until the server tells this of a machine.
#[track_caller]
fn until_told(client: &mut TestClient, kind: &str) {
    while client.json()["type"] != kind {}
}

/// Lets machine `m` be silent, and move again; both are told.
#[track_caller]
fn found_and_over(server: &TestServer) {
    let mut client = TestClient::with(server.address, &v1_options("/ws/events"));
    server.send(state_change("m", "a", "odd", now()));
    until_told(&mut client, "machine_silent");
    server.send(state_change("m", "odd", "b", now()));
    until_told(&mut client, "machine_moves_again");
}

#[test]
fn its_own_events_are_no_damage_of_its_journal_and_no_replay_sends_them() {
    let folder = {
        let mut server = TestServer::start(&FLAGS);
        found_and_over(&server);
        assert_eq!(server.stop().code(), Some(0));
        server.folder()
    };
    let server = TestServer::start_in(folder, &FLAGS);
    let mut client = TestClient::with(server.address, &v1_options("/ws/events?last=4"));
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        let message = client.json();
        assert_ne!(message["type"], "gap", "{message}");
        if message["event"].is_object() {
            kinds.push(message["type"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(
        kinds,
        ["state_change", "machine_silent", "state_change", "machine_moves_again"]
    );

    let taker = TestServer::start(&[]);
    let (journal, socket) = (server.path("journal"), taker.socket_path());
    let arguments = ["replay", "--fast", "--journal", journal.to_str().unwrap()];
    let to = ["--event-socket-path", socket.to_str().unwrap()];
    let (status, _, said) = run(&taker.path(""), &[&arguments[..], &to].concat());
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("2 events of ") && said.contains("  2 events of the recording server's own were left out\n"),
        "{said}"
    );
    eventually("both have come", || {
        (taker.health()["events_received"] == 2).then_some(())
    });
    assert_eq!(taker.health()["events_dropped"]["reserved_type"], 0);
}

#[test]
fn tail_tells_people_in_words_and_programs_as_it_came() {
    let server = TestServer::start(&FLAGS[..4]);
    let url = format!("http://{}", server.address);
    let start = |format: &str| {
        let arguments = ["tail", "m", "--url", &url, "--count", "4", "--format", format];
        let tail = Running::start(&arguments);
        eventually("it is connected", || {
            let clients = server.http("GET", "/status", &[]).json()["clients"].take();
            let clients = clients.as_array().unwrap().len();
            (clients >= 1).then_some(())
        });
        tail
    };
    let mut human = start("human");
    let mut json = start("json");
    eventually("both are connected", || {
        let status = server.http("GET", "/status", &[]).json();
        (status["clients"].as_array().unwrap().len() == 2).then_some(())
    });
    found_and_over(&server);
    assert_eq!(human.status(crate::support::DEADLINE), 0);
    let out = human.out();
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[1].contains(" m ") && lines[1].contains(" silent in odd for ") && lines[1].contains("s, since "),
        "{out}"
    );
    assert!(
        lines[1].contains(": nothing is known of its usual time; limit 0.3 s"),
        "{out}"
    );
    assert!(
        lines[3].contains(" moves again after ") && lines[3].ends_with(": it is in \"b\" now"),
        "{out}"
    );
    assert_eq!(json.status(crate::support::DEADLINE), 0);
    let events: Vec<Value> = json
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&events[1]["type"], &events[1]["server"], &events[1]["payload"]["state"]),
        (&"machine_silent".into(), &true.into(), &"odd".into())
    );
}
