//! One alert: a reason of `/health` that begins or ends, and its JSON.

use crate::process::clock::rfc3339;
use serde_json::{Value, json};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of one alert's text; a longer one is cut. A reason names a path or a machine, whose name may be long.
const TEXT_BYTES_MAX: usize = 4096;

/// A reason that begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alert {
    /// The name of its kind.
    pub(super) kind: &'static str,
    /// A thread, a path, a machine.
    pub(super) subject: String,
    pub(super) text: String,
    /// Of an alert that ends: how long it lasted. `None`: it begins.
    pub(super) lasted: Option<Duration>,
    /// When it began or ended, in seconds since the epoch.
    pub(super) time: f64,
}

/// The server that raises it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where HTTP and WebSocket are served.
    pub address: SocketAddr,
    /// The host's name.
    pub host: String,
}

/// For the log: `hung of fanout begins`.
impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.kind, self.subject, self.state())
    }
}

impl Alert {
    fn state(&self) -> &'static str {
        if self.lasted.is_none() { "begins" } else { "ends" }
    }

    /// What the command gets: one line.
    pub(super) fn json(&self, origin: &Origin) -> String {
        let mut text = self.text.as_str();
        if text.len() > TEXT_BYTES_MAX {
            text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        }
        let mut alert = json!({
            "alert": self.kind,
            "state": self.state(),
            "subject": self.subject,
            "text": text,
            "time": self.time,
            "time_rfc3339": rfc3339(self.time),
            "server": {
                "version": env!("CARGO_PKG_VERSION"),
                "url": format!("http://{}", origin.address),
                "host": origin.host,
                "pid": std::process::id(),
            },
        });
        if let (Some(lasted), Value::Object(fields)) = (self.lasted, &mut alert) {
            let seconds = (lasted.as_secs_f64() * 10.0).round() / 10.0;
            fields.insert("seconds".to_owned(), seconds.into());
        }
        format!("{alert}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let alert = Alert {
            kind: "stuck",
            subject: "m".to_owned(),
            text: "ä".repeat(3000),
            lasted: Some(Duration::from_millis(1234)),
            time: 1.5,
        };
        let origin = Origin {
            address: "127.0.0.1:1".parse().unwrap(),
            host: "h".to_owned(),
        };
        let line = alert.json(&origin);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["text"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!((&read["seconds"], &read["state"]), (&1.2.into(), &"ends".into()));
        assert_eq!(line.lines().count(), 1);
        assert_eq!(alert.to_string(), "stuck of m ends");
    }
}
