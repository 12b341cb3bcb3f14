//! The messages of the plain protocol, both ways (contract sections 3 and 4), and why clients end.

pub mod v1;

use crate::process::clock::json_seconds;
use crate::process::tally::{Counted, Tally};
use crate::stream::filter::Filter;
use log::Level;
use std::time::Duration;

/// What a client and the server speak with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Exactly the original's messages.
    #[default]
    Plain,
    /// `threadcast.v1`: numbered events, and what became of those that are missing.
    V1,
}

impl Protocol {
    /// As `/status` names it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Plain => "plain",
            Protocol::V1 => v1::NAME,
        }
    }
}

/// What a client asked for in a text message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// Answered with [`PONG`].
    Ping,
    /// Proves that the client lives; no answer.
    Pong,
    /// Answered with a new `initial`.
    Refresh,
    /// From now on only this, and at most one state per machine and period; `threadcast.v1` only.
    Subscribe { filter: Filter, conflate: Option<Duration> },
    /// It cannot be taken, for this reason; `threadcast.v1` only.
    Refused(String),
    /// Ignored.
    Other,
}

/// The answer to a client's `ping`.
pub const PONG: &str = r#"{"type":"pong"}"#;

/// Reads a text message: the bare words exactly, or an object with that `type`.
pub fn read(protocol: Protocol, text: &str) -> ClientMessage {
    match text {
        "ping" => return ClientMessage::Ping,
        "pong" => return ClientMessage::Pong,
        "refresh" => return ClientMessage::Refresh,
        _ => {}
    }
    if !text.trim_start().starts_with('{') {
        return ClientMessage::Other;
    }
    let object: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text).ok();
    let kind = object.as_ref().and_then(|object| object.get("type")?.as_str());
    match kind {
        Some("ping") => ClientMessage::Ping,
        Some("pong") => ClientMessage::Pong,
        Some("refresh") => ClientMessage::Refresh,
        Some("subscribe") if protocol == Protocol::V1 => {
            let object = object.unwrap_or_default();
            match v1::filter(&object).and_then(|filter| Ok((filter, v1::conflate(&object)?))) {
                Ok((filter, conflate)) => ClientMessage::Subscribe { filter, conflate },
                Err(why) => ClientMessage::Refused(format!("subscribe: {why}")),
            }
        }
        _ => ClientMessage::Other,
    }
}

/// The server's own ping; that of `threadcast.v1` is [`v1::ping`].
pub fn ping(epoch: f64) -> String {
    format!("{{\"type\":\"ping\",\"timestamp\":{}}}", json_seconds(epoch))
}

/// Why a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It sent a close frame.
    PeerClosed = 1,
    /// It was gone without a close frame.
    PeerGone,
    /// It had not caught up after `--max-behind`.
    TooSlow,
    /// It took no byte of its backlog for `--send-timeout`.
    SendTimeout,
    /// What was sent to it was not acknowledged for `--dead-path-timeout`.
    DeadPath,
    /// Nothing came from it for `--pong-timeout`.
    NoPong,
    /// It broke the WebSocket protocol.
    Protocol,
    /// It sent text that is not UTF-8.
    NotUtf8,
    /// It sent a message over 64 KiB.
    MessageTooBig,
    /// The server stops.
    Stopping,
    /// The server stops before it had caught up.
    StoppingBehind,
    /// The server could not serve it any further (out of some resource, or a fault of ours).
    Internal,
    /// A person of the host ended it.
    ByHand,
}

/// How an end shows: to the client, in the log, in the counters.
#[derive(Clone, Copy, Debug)]
pub struct EndFacts {
    pub reason: EndReason,
    /// Name in `/health`.
    pub name: &'static str,
    /// Close code (RFC 6455 section 7.4) where the client can still get it.
    pub code: u16,
    /// Close reason and log text.
    pub text: &'static str,
    pub level: Level,
}

const fn facts(reason: EndReason, name: &'static str, code: u16, text: &'static str, level: Level) -> EndFacts {
    EndFacts {
        reason,
        name,
        code,
        text,
        level,
    }
}

impl EndReason {
    /// Every reason, in the order of the enum.
    pub const TABLE: [EndFacts; 13] = [
        facts(
            EndReason::PeerClosed,
            "peer_closed",
            1000,
            "closed by the client",
            Level::Info,
        ),
        facts(
            EndReason::PeerGone,
            "peer_gone",
            1006,
            "the client is gone",
            Level::Info,
        ),
        facts(
            EndReason::TooSlow,
            "too_slow",
            1013,
            "too slow: still behind after --max-behind",
            Level::Warn,
        ),
        facts(
            EndReason::SendTimeout,
            "send_timeout",
            1013,
            "too slow: it took nothing for --send-timeout",
            Level::Warn,
        ),
        facts(
            EndReason::DeadPath,
            "dead_path",
            1013,
            "the network does not reach it: nothing was acknowledged for --dead-path-timeout",
            Level::Warn,
        ),
        facts(
            EndReason::NoPong,
            "no_pong",
            1008,
            "nothing came from it for --pong-timeout",
            Level::Warn,
        ),
        facts(
            EndReason::Protocol,
            "protocol",
            1002,
            "it broke the WebSocket protocol",
            Level::Warn,
        ),
        facts(
            EndReason::NotUtf8,
            "not_utf8",
            1007,
            "it sent text that is not UTF-8",
            Level::Warn,
        ),
        facts(
            EndReason::MessageTooBig,
            "message_too_big",
            1009,
            "it sent a message over 64 KiB",
            Level::Warn,
        ),
        facts(EndReason::Stopping, "stopping", 1012, "server stopping", Level::Info),
        facts(
            EndReason::StoppingBehind,
            "stopping_behind",
            1013,
            "server stopping before it had caught up",
            Level::Warn,
        ),
        facts(EndReason::Internal, "internal", 1011, "internal error", Level::Error),
        facts(
            EndReason::ByHand,
            "by_hand",
            1008,
            "ended by a person of the server's host",
            Level::Info,
        ),
    ];

    /// How it shows.
    pub fn facts(self) -> &'static EndFacts {
        &Self::TABLE[self as usize - 1]
    }

    /// The reason with that number, as [`EndReason`] casts to.
    pub fn from_u8(number: u8) -> Option<EndReason> {
        let index = usize::from(number).checked_sub(1)?;
        Self::TABLE.get(index).map(|facts| facts.reason)
    }
}

const REASONS: usize = EndReason::TABLE.len();

/// How many clients ended, by reason.
pub type EndTally = Tally<EndReason, REASONS>;

impl Counted<REASONS> for EndReason {
    fn names() -> [&'static str; REASONS] {
        EndReason::TABLE.map(|facts| facts.name)
    }

    fn place(self) -> usize {
        self as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_reasons_is_in_the_order_of_the_enum() {
        for (index, facts) in EndReason::TABLE.iter().enumerate() {
            assert_eq!(facts.reason as usize, index + 1);
            assert_eq!(EndReason::from_u8(index as u8 + 1), Some(facts.reason));
        }
        assert_eq!(EndReason::from_u8(0), None);
        assert_eq!(EndReason::from_u8(200), None);
    }

    #[test]
    fn bare_words_and_objects_are_understood_and_all_else_is_ignored() {
        for (text, message) in [
            ("ping", ClientMessage::Ping),
            ("pong", ClientMessage::Pong),
            ("refresh", ClientMessage::Refresh),
            (r#"{"type":"ping"}"#, ClientMessage::Ping),
            (r#" {"type": "pong", "x": 1}"#, ClientMessage::Pong),
            (r#"{"type":"refresh"}"#, ClientMessage::Refresh),
            ("Ping", ClientMessage::Other),
            (" ping", ClientMessage::Other),
            (r#"{"type":1}"#, ClientMessage::Other),
            (r#"{"type":"ping""#, ClientMessage::Other),
            ("[\"ping\"]", ClientMessage::Other),
            ("", ClientMessage::Other),
        ] {
            assert_eq!(read(Protocol::V1, text), message, "{text}");
        }
    }

    #[test]
    fn only_numbered_clients_subscribe() {
        let text = r#"{"type":"subscribe","types":["error"]}"#;
        assert_eq!(read(Protocol::Plain, text), ClientMessage::Other);
        let filter = Filter::from_lists(None, Some("error")).unwrap();
        let conflate = None;
        assert_eq!(read(Protocol::V1, text), ClientMessage::Subscribe { filter, conflate });
        let refused = read(Protocol::V1, r#"{"type":"subscribe","types":7}"#);
        assert!(matches!(refused, ClientMessage::Refused(_)), "{refused:?}");
    }

    #[test]
    fn the_ping_is_compact() {
        assert_eq!(ping(1.5), r#"{"type":"ping","timestamp":1.5}"#);
    }
}
