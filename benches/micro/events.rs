//! The events that are measured, and their reading back.

use std::io::Cursor;
use threadcast::stream::batch::{Batch, BatchBuilder};
use threadcast::stream::event::{Seq, check};
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

/// A change of state as the engines that are shipped tell it, with `bytes` bytes in all (at least 200). What is over
/// 250 bytes is mostly small objects, as in real payloads.
pub(crate) fn change(machine: usize, bytes: usize) -> String {
    let start = format!(
        r#"{{"machine_name": "worker-{machine:04}", "type": "state_change", "payload": {{"from_state": "idle", "to_state": "working", "event_trigger": "start", "timestamp": 1795393481.6886814, "#
    );
    filled(start, "}}", bytes)
}

/// `start`, what fills it up to `bytes` bytes, and `end`.
pub(crate) fn filled(mut text: String, end: &str, bytes: usize) -> String {
    const STEP: &str = r#"{"step": "load the parts", "ms": 12.5, "tries": 1, "ok": true}, "#;
    const REST: &str = r#""note": """#;
    let room = bytes - end.len();
    if text.len() + 2 * STEP.len() < room {
        text.push_str(r#""steps": ["#);
        while text.len() + 2 * STEP.len() < room {
            text.push_str(STEP);
        }
        text.push_str("{}], ");
    }
    let filling = room - text.len() - REST.len();
    text.push_str(&format!(r#""note": "{}""#, "x".repeat(filling)));
    text.push_str(end);
    assert_eq!(text.len(), bytes);
    text
}

/// The events as one batch that begins with number `first`; none may be refused.
pub(crate) fn batch_of(events: &[String], first: Seq) -> Batch {
    let mut builder = BatchBuilder::new(first, events.len(), events.iter().map(String::len).sum());
    for text in events {
        let event = check(text.as_bytes()).expect("these events are good");
        builder.push(text.as_bytes(), event.machine.as_deref(), event.kind.as_deref());
    }
    builder.finish(1, 1.5).expect("it has events")
}

/// The messages that a client reads from `bytes`, whole frames of a server.
pub(crate) fn messages(bytes: &[u8]) -> Vec<String> {
    let mut client = WebSocket::from_raw_socket(Cursor::new(bytes.to_vec()), Role::Client, None);
    let mut messages = Vec::new();
    // It ends with an error, because there is no close frame; whether all has come is for the caller to compare.
    while let Ok(message) = client.read() {
        messages.push(message.into_text().expect("only text is sent").to_string());
    }
    messages
}
