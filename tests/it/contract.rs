//! What the original's clients and engines rely on: the captured traffic goes through with the exact bytes, every
//! dialect reaches the snapshot, and every message has the original's form.

use crate::support::{TestServer, in_both_shapes};
use serde_json::{Value, json};
use std::time::Duration;

/// The lines of a capture.
fn capture(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn captured_datagrams_come_out_byte_for_byte() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let mut client = server.client();
        let sender = server.sender();
        for name in ["datagrams.jsonl", "datagrams-cli.jsonl"] {
            for line in capture(name) {
                let text = line["text"].as_str().unwrap();
                assert_eq!(text.len(), line["len"].as_u64().unwrap() as usize);
                sender.send(text.as_bytes()).unwrap();
                assert_eq!(client.text(), text);
            }
        }
    });
}

#[test]
fn the_captured_run_ends_in_the_captured_snapshot() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let until: f64 = 1_795_393_492.953_023_2;
    for line in capture("datagrams.jsonl") {
        if line["t"].as_f64().unwrap() < until {
            server.send(line["text"].as_str().unwrap());
            client.text();
        }
    }
    let rows = server.initial()["machines"].take();
    let facts: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["machine_name"], &row["current_state"], &row["config_type"]))
        .collect();
    assert_eq!(
        facts,
        [
            (&json!("capture_worker"), &json!("waiting"), &json!("cap_worker")),
            (&json!("simple_worker"), &json!("waiting"), &json!("simple_worker")),
        ]
    );
    let keys: Vec<_> = serde_json::from_str::<Value>(&rows[0].to_string())
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys.len(), 6, "the original's five and id: {keys:?}");
}

#[test]
fn all_three_dialects_reach_the_snapshot() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    for event in [
        r#"{"machine_name": "shipped", "type": "state_change", "payload": {"to_state": "a", "timestamp": 1.5}}"#,
        r#"{"machine_name": "older", "event_type": "state_change", "payload": {"to_state": "b", "timestamp": 2.5}}"#,
        r#"{"machine_id": "document", "type": "state_change", "state": "c", "timestamp": 3.5, "data": {}}"#,
    ] {
        server.send(event);
        assert_eq!(client.text(), event);
    }
    client.send_text("refresh");
    let initial = client.text();
    let rows = concat!(
        r#"{"machine_name":"document","current_state":"c","last_activity":3.5,"metadata":null,"config_type":null,"id":"document"},"#,
        r#"{"machine_name":"older","current_state":"b","last_activity":2.5,"metadata":null,"config_type":null,"id":"older"},"#,
        r#"{"machine_name":"shipped","current_state":"a","last_activity":1.5,"metadata":null,"config_type":null,"id":"shipped"}"#
    );
    assert!(
        initial.starts_with(&format!(r#"{{"type":"initial","machines":[{rows}],"timestamp":"#)),
        "{initial}"
    );
}

#[test]
fn pings_come_as_text_and_as_frames_and_silence_is_otherwise_kept() {
    let server = TestServer::start(&["--ping-interval", "100ms"]);
    let mut client = server.client();
    let text = client.frame();
    assert!(text.text().starts_with("{\"type\":\"ping\",\"timestamp\":"), "{text:?}");
    assert_eq!(client.frame().opcode, crate::support::client::PING);
    client.expect_silence(Duration::from_millis(300));
}
