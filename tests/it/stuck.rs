//! Machines that stay too long in a state: who is told, how, and what is learned of them over restarts.

use crate::notices::v1_options;
use crate::support::client::Options;
use crate::support::examples::parts;
use crate::support::{TestClient, TestServer, eventually, pause, state_change};
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// A machine is stuck in `odd` after 300 ms; nobody's processors are too busy to judge that.
const FLAGS: [&str; 4] = ["--stuck", "*/odd=300ms", "--stuck-cpu-pressure", "100"];

const LIFE: &str = r#"{"machine_name": "m", "type": "activity_log", "payload": {"message": "still here"}}"#;

fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

/// Puts machine `m` into that state, and has it show life until the server has found it.
fn get_stuck(server: &TestServer) {
    server.send(state_change("m", "a", "odd", now()));
    eventually("m is stuck", || {
        server.send(LIFE);
        (server.health()["machines_stuck"] == 1).then_some(())
    });
}

/// The next event of the server's own that a client of `threadcast.v1` gets, as it came.
#[track_caller]
fn next_own_text(client: &mut TestClient) -> String {
    loop {
        let text = client.text();
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["event"]["server"] == true {
            assert_eq!(message["machine"], message["event"]["machine_name"]);
            assert_eq!(message["type"], message["event"]["type"]);
            let (_, event) = text.strip_suffix('}').unwrap().split_once(",\"event\":").unwrap();
            return event.to_owned();
        }
    }
}

#[track_caller]
pub fn next_own(client: &mut TestClient) -> Value {
    serde_json::from_str(&next_own_text(client)).unwrap()
}

/// Every event that a client has got when the server has answered it.
#[track_caller]
fn all_of(client: &mut TestClient) -> Vec<Value> {
    client.send_text("ping");
    let mut all = Vec::new();
    loop {
        let message = client.json();
        if message["type"] == "pong" {
            return all;
        }
        all.push(message);
    }
}

#[test]
fn a_stuck_machine_is_told_once_and_its_return_too_and_plain_clients_see_nothing_odd() {
    let server = TestServer::start(&FLAGS);
    let mut numbered = TestClient::with(server.address, &v1_options("/ws/events"));
    let mut plain = server.client();
    get_stuck(&server);
    let found = next_own(&mut numbered);
    assert_eq!(
        (&found["type"], &found["machine_name"]),
        (&"machine_stuck".into(), &"m".into())
    );
    let payload = &found["payload"];
    assert_eq!((&payload["state"], &payload["limit"]), (&"odd".into(), &0.3.into()));
    assert!(payload["seconds"].as_f64().unwrap() >= 0.3, "{payload}");
    let health = eventually("it is shown", || {
        let health = server.health();
        (health["machines_stuck"] == 1).then_some(health)
    });
    assert_eq!(
        (&health["status"], &health["machines_silent"]),
        (&"ok".into(), &0.into())
    );
    let reason = health["reasons"][0].as_str().unwrap();
    assert!(
        reason.starts_with("machine m (no known type) is stuck: in \"odd\" since "),
        "{reason}"
    );
    server.wait_for_line("🧊 machine m (no known type) is stuck");
    let row = server.http("GET", "/api/machines", &[]).json()["machines"][0].take();
    assert_eq!((&row["verdict"], &row["limit_seconds"]), (&"stuck".into(), &0.3.into()));
    server.send(state_change("m", "odd", "b", now()));
    let over = next_own(&mut numbered);
    assert_eq!(over["type"], "machine_moves_again");
    assert_eq!(over["payload"]["why"], "it is in \"b\" now");
    eventually("it is not shown any more", || {
        (server.health()["reasons"] == serde_json::json!([])).then_some(())
    });
    server.wait_for_line("✅ machine m moves again");
    assert_eq!(server.lines().with("is stuck:").len(), 1, "told once");
    let seen = all_of(&mut plain);
    assert!(seen.iter().all(|message| message["server"].is_null()), "{seen:?}");
    assert!(
        seen.iter().any(|message| message["payload"]["to_state"] == "b"),
        "{seen:?}"
    );
}

#[test]
fn without_a_sign_of_life_it_is_silent() {
    let server = TestServer::start(&FLAGS);
    let mut numbered = TestClient::with(server.address, &v1_options("/ws/events"));
    server.send(state_change("m", "a", "odd", now()));
    assert_eq!(next_own(&mut numbered)["type"], "machine_silent");
    eventually("it is shown", || {
        let health = server.health();
        (health["machines_stuck"] == 0 && health["machines_silent"] == 1).then_some(())
    });
    server.send(r#"{"machine_name": "m", "type": "machine_terminated", "payload": {}}"#);
    let over = next_own(&mut numbered);
    assert_eq!(
        over["payload"]["why"],
        "it is gone: it ended, was forgotten, or left the table"
    );
}

#[test]
fn plain_notices_bring_them_to_plain_clients_too() {
    let server = TestServer::start(&[&FLAGS[..], &["--plain-notices"]].concat());
    let mut plain = server.client();
    server.send(state_change("m", "a", "odd", now()));
    loop {
        let message = plain.json();
        if message["type"] == "machine_silent" {
            assert_eq!(
                (&message["server"], &message["machine_name"]),
                (&true.into(), &"m".into())
            );
            break;
        }
    }
}

/// Nothing that the server says of a machine may look like a sign of its life, and no sender may say it.
#[test]
fn its_own_events_change_nothing_and_a_senders_are_refused() {
    let server = TestServer::start(&FLAGS);
    let mut numbered = TestClient::with(server.address, &v1_options("/ws/events"));
    server.send(state_change("m", "a", "odd", now()));
    let seq = loop {
        let message = numbered.json();
        if message["event"]["server"] == true {
            break message["seq"].clone();
        }
    };
    // The row is that of the event before, and the time of the last event too.
    let document = server.http("GET", "/api/machines", &[]).json();
    let row = &document["machines"][0];
    assert_eq!(row["current_state"], "odd");
    assert!(row["last_event_seconds"].as_f64().unwrap() >= 0.3, "{row}");
    let health = server.health();
    assert!(health["seconds_since_last_event"].as_f64().unwrap() >= 0.3, "{health}");
    for kind in ["machine_stuck", "machine_silent", "machine_moves_again"] {
        server.send(format!(r#"{{"machine_name":"m","type":"{kind}","server":true}}"#));
        let gap = numbered.json();
        assert_eq!(
            (&gap["type"], &gap["cause"]),
            (&"gap".into(), &"reserved_type".into()),
            "{gap}"
        );
        // Without the mark it is an event like any other.
        server.send(format!(r#"{{"machine_name":"m","type":"{kind}"}}"#));
        assert_eq!(numbered.json()["type"], kind);
    }
    assert_eq!(server.health()["events_dropped"]["reserved_type"], 3);
    assert!(seq.as_u64() > Some(1));
}

#[test]
fn they_are_kept_like_events_and_come_to_those_who_come_back() {
    let folder = {
        let journal = ["--journal", "journal"];
        let mut server = TestServer::start(&[&FLAGS[..], &journal].concat());
        server.send(state_change("m", "a", "odd", now()));
        eventually("m is silent", || {
            (server.health()["machines_silent"] == 1).then_some(())
        });
        assert_eq!(server.stop().code(), Some(0));
        server.folder()
    };
    // This one finds nothing by itself.
    let never = ["--stuck", "*/*=never", "--journal", "journal"];
    let server = TestServer::start_in(folder, &never);
    let mut numbered = TestClient::with(server.address, &v1_options("/ws/events?last=2"));
    let mut kinds = Vec::new();
    while kinds.last() != Some(&"live".into()) {
        kinds.push(numbered.json()["type"].take());
    }
    assert_eq!(kinds, ["hello", "behind", "state_change", "machine_silent", "live"]);
    assert_eq!(server.lines().with("cannot be read"), [""; 0]);
    // A plain client asks for its last two events: what it does not see does not count.
    server.send(r#"{"machine_name": "m", "type": "note"}"#);
    let options = Options {
        target: "/ws/events?last=2".to_owned(),
        ..Options::default()
    };
    let mut plain = TestClient::with(server.address, &options);
    let kinds: Vec<Value> = (0..2).map(|_| plain.json()["type"].take()).collect();
    assert_eq!(kinds, ["state_change", "note"]);
}

#[test]
fn the_notices_of_the_page_are_what_a_server_sends() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).unwrap();
    let (_, block) = page.split_once("```json notice\n").unwrap();
    let examples: Vec<&str> = block.split("```").next().unwrap().lines().collect();
    let server = TestServer::start(&FLAGS);
    let mut numbered = TestClient::with(server.address, &v1_options("/ws/events"));
    // So that its usual time is known.
    for _ in 0..3 {
        server.send(state_change("m", "odd", "a", now()));
        server.send(state_change("m", "a", "odd", now()));
    }
    eventually("m is stuck", || {
        server.send(LIFE);
        (server.health()["machines_stuck"] == 1).then_some(())
    });
    server.send(state_change("m", "odd", "a", now()));
    let register = |name: &str| {
        format!(
            r#"{{"machine_name": "{name}", "type": "machine_registered", "payload": {{"config_type": "worker", "current_state": "a"}}}}"#
        )
    };
    for name in ["e1", "e2", "e3"] {
        server.send(register(name));
        for _ in 0..3 {
            server.send(state_change(name, "a", "odd", now()));
            server.send(state_change(name, "odd", "a", now()));
        }
    }
    for name in ["e1", "e2", "e3"] {
        server.send(state_change(name, "a", "odd", now()));
    }
    for example in examples {
        let seen = next_own_text(&mut numbered);
        // The type of the first two machines' examples is known, that of `m` is not.
        let known = |text: &str| {
            let mut parts = parts(text);
            parts.retain(|part| !part.contains("config_type is"));
            parts
        };
        assert_eq!(known(&seen), known(example), "{seen}");
    }
}

#[test]
fn what_was_learned_outlives_a_restart_and_a_damaged_file_is_set_aside() {
    let graph = |server: &TestServer| server.http("GET", "/api/graph", &[]).json();
    let folder = {
        let mut server = TestServer::start(&[]);
        for _ in 0..50 {
            server.send(state_change("m", "a", "b", now()));
            server.send(state_change("m", "b", "a", now()));
        }
        eventually("it is learned", || {
            (graph(&server)["types"][0]["states"][1]["entered"] == 50).then_some(())
        });
        assert_eq!(server.stop().code(), Some(0));
        server.folder()
    };
    let mut server = TestServer::start_in(folder, &[]);
    server.wait_for_line("2 states learned before");
    let state = graph(&server)["types"][0]["states"][1].take();
    assert_eq!(
        (&state["state"], &state["entered"], &state["usual"]["n"]),
        (&"b".into(), &50.into(), &50.into())
    );
    assert_eq!(state["from"][0]["count"], 50);
    assert_eq!(server.stop().code(), Some(0));
    let path = server.path("logs/threadcast-state.json.learned");
    fs::write(&path, "{\"threadcast_learned\":1,\"states\":[{}]}").unwrap();
    let server = TestServer::start_in(server.folder(), &[]);
    server.wait_for_line("is damaged (number 0 of its states is none); it was set aside as");
    assert_eq!(graph(&server)["types"], serde_json::json!([]));
    assert!(!path.exists());
}

/// A suspended server does not see what happens meanwhile: neither a stay nor a lesson.
#[test]
fn a_suspended_server_takes_its_own_sleep_for_no_stay() {
    let server = TestServer::start(&["--stuck", "*/odd=3s", "--stuck-cpu-pressure", "100"]);
    server.send(state_change("m", "a", "odd", now()));
    eventually("m is known", || (server.health()["machines"] == 1).then_some(()));
    server.suspend();
    pause(Duration::from_secs(4));
    server.signal(rustix::process::Signal::CONT);
    server.send(state_change("m", "odd", "b", now()));
    eventually("m has moved", || {
        let row = server.http("GET", "/api/machines", &[]).json()["machines"][0].take();
        (row["current_state"] == "b").then_some(())
    });
    assert_eq!(server.lines().with("is silent").len(), 0);
    let graph = server.http("GET", "/api/graph", &[]).json();
    let odd = graph["types"][0]["states"]
        .as_array()
        .unwrap()
        .iter()
        .find(|state| state["state"] == "odd");
    assert_eq!(odd.unwrap()["usual"]["n"], 0, "that stay does not count");
}
