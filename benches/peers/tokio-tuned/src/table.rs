//! The last state of each machine, for the `initial` of whoever connects.

use crate::event::Event;
use std::collections::BTreeMap;

/// The machines by name.
#[derive(Default)]
pub struct Table(BTreeMap<Box<str>, Row>);

/// What `initial` says of a machine. The texts keep their memory, so that a change of state allocates nothing.
#[derive(Default)]
struct Row {
    state: String,
    /// A JSON number as the engine has spelled it; empty if there was none.
    time: String,
    config_type: Option<String>,
}

impl Table {
    /// Takes over what the event says of its machine.
    pub fn apply(&mut self, event: &Event<'_>) {
        let Some(name) = event.machine.as_deref() else {
            return;
        };
        if event.kind.as_deref() == Some("machine_terminated") {
            self.0.remove(name);
            return;
        }
        let Some(state) = event.state.as_deref() else {
            return;
        };
        if !self.0.contains_key(name) {
            self.0.insert(name.into(), Row::default());
        }
        let Some(row) = self.0.get_mut(name) else {
            return;
        };
        replace(&mut row.state, state);
        replace(&mut row.time, event.time.unwrap_or_default());
        if let Some(config_type) = event.config_type.as_deref() {
            replace(row.config_type.get_or_insert_default(), config_type);
        }
    }

    /// The rows of an `initial`, as JSON, with commas between them.
    pub fn rows(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() * 128);
        for (name, row) in &self.0 {
            if !out.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"machine_name":"#);
            append_json(&mut out, &**name);
            out.extend_from_slice(br#","current_state":"#);
            append_json(&mut out, &row.state);
            out.extend_from_slice(br#","last_activity":"#);
            out.extend_from_slice(if row.time.is_empty() {
                b"null"
            } else {
                row.time.as_bytes()
            });
            out.extend_from_slice(br#","metadata":null,"config_type":"#);
            append_json(&mut out, &row.config_type);
            out.push(b'}');
        }
        out
    }
}

fn replace(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}

fn append_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Strings into a vector cannot fail.
    let _ = serde_json::to_writer(out, value);
}
