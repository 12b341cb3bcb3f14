//! The messages of `threadcast.v1`. docs/protocol.md shows each.
//!
//! A message with the key `event` is an event; every other one has a `type`.

use crate::process::clock::json_seconds;
use crate::process::values::show_duration;
use crate::stream::batch::{Loss, Numbered};
use crate::stream::conflation::period;
use crate::stream::event::Seq;
use crate::stream::filter::{Filter, FilterError};
use crate::stream::position::Epoch;
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::Duration;

/// The name of the subprotocol (RFC 6455 section 1.9).
pub const NAME: &str = "threadcast.v1";

/// Appends an event with its number: the original bytes inside what we know of them.
pub fn put_event(out: &mut Vec<u8>, event: &Numbered<'_>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"seq\":{},\"machine\":", event.seq);
    put_string(out, event.machine);
    out.extend_from_slice(b",\"type\":");
    put_string(out, event.kind);
    if event.recovered.is_some() {
        out.extend_from_slice(b",\"recovered\":true");
    }
    out.extend_from_slice(b",\"event\":");
    out.extend_from_slice(event.payload);
    out.push(b'}');
}

fn put_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => serde_json::to_writer(out, text).expect("writing a string to a Vec cannot fail"),
        None => out.extend_from_slice(b"null"),
    }
}

/// Numbers without events for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First and last number of this epoch that are skipped; `None` when the numbers are of another epoch.
    pub range: Option<(Seq, Seq)>,
    /// How many events; `None` when nobody knows.
    pub count: Option<u64>,
    pub cause: &'static str,
}

/// The history no longer has what the client missed.
pub const CAUSE_HISTORY: &str = "history";
/// The client's number is of another epoch, or was never given in this one.
pub const CAUSE_EPOCH: &str = "epoch";

/// `gap`.
pub fn gap(gap: &Gap) -> String {
    // By hand, because the order of keys is for people.
    let number = |number: Option<u64>| number.map_or("null".to_owned(), |number| number.to_string());
    format!(
        r#"{{"type":"gap","from":{},"to":{},"count":{},"cause":"{}"}}"#,
        number(gap.range.map(|(from, _)| from)),
        number(gap.range.map(|(_, to)| to)),
        number(gap.count),
        gap.cause
    )
}

/// The `gap` of a loss in the stream itself.
pub fn gap_of(loss: &Loss) -> String {
    gap(&Gap {
        range: Some((loss.from, loss.to)),
        count: loss.count,
        cause: loss.cause,
    })
}

/// How part `part` (from 1 on) of `parts` of an `initial` begins, up to its rows; `as_of` is the number of the last
/// event in it.
pub fn initial_start(as_of: Seq, part: usize, parts: usize) -> String {
    format!(r#"{{"type":"initial","seq":{as_of},"part":{part},"parts":{parts},"machines":["#)
}

/// What the server tells first.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    pub epoch: Epoch,
    /// The last number given.
    pub newest: Seq,
    /// What follows begins behind this number; `None`: with an `initial`.
    pub after: Option<Seq>,
    pub client: u64,
    pub limits: Limits,
}

/// The limits that a client may want to know.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub queue_bytes: usize,
    pub history_bytes: usize,
    pub max_behind_s: f64,
    pub send_timeout_s: f64,
    pub ping_interval_s: f64,
    pub pong_timeout_s: f64,
}

/// `hello`.
pub fn hello(hello: &Hello, filter: &Filter, conflate: Option<Duration>) -> String {
    let limits = &hello.limits;
    let after = hello.after.map_or("null".to_owned(), |after| after.to_string());
    let limits = json!({
        "client_queue_bytes": limits.queue_bytes,
        "history_bytes": limits.history_bytes,
        "max_behind_s": limits.max_behind_s,
        "send_timeout_s": limits.send_timeout_s,
        "ping_interval_s": limits.ping_interval_s,
        "pong_timeout_s": limits.pong_timeout_s,
    });
    format!(
        r#"{{"type":"hello","protocol":"{NAME}","server":"threadcast","version":"{}","epoch":"{}","seq":{},"after":{after},"client":{},{},"limits":{limits}}}"#,
        env!("CARGO_PKG_VERSION"),
        hello.epoch,
        hello.newest,
        hello.client,
        wishes(filter, conflate),
    )
}

/// `subscribed`: from the event after `seq` on, the filter and the period of conflation are these.
pub fn subscribed(seq: Seq, filter: &Filter, conflate: Option<Duration>) -> String {
    format!(r#"{{"type":"subscribed","seq":{seq},{}}}"#, wishes(filter, conflate))
}

fn wishes(filter: &Filter, conflate: Option<Duration>) -> String {
    format!(
        r#""machines":{},"types":{},"conflate":{}"#,
        json!(filter.machines()),
        json!(filter.kinds()),
        json!(conflate.map(show_duration))
    )
}

/// `conflated`: of the events from number `from` to number `to`, which come next, `count` are left out.
pub fn conflated(from: Seq, to: Seq, count: usize) -> String {
    format!(r#"{{"type":"conflated","from":{from},"to":{to},"count":{count}}}"#)
}

/// `behind`: what follows number `seq` comes from the history.
pub fn behind(seq: Seq) -> String {
    format!(r#"{{"type":"behind","seq":{seq}}}"#)
}

/// `live`: caught up with number `seq`, after `events` events from the history.
pub fn live(seq: Seq, events: u64) -> String {
    format!(r#"{{"type":"live","seq":{seq},"replayed":{events}}}"#)
}

/// `lag`: how old the event is that is sent now, and how many numbers are newer.
pub fn lag(millis: u64, events: u64) -> String {
    format!(r#"{{"type":"lag","ms":{millis},"events":{events}}}"#)
}

/// `stall`: a component makes no progress.
pub fn stall(component: &str, verdict: &str, operation: &str, still: Duration) -> String {
    format!(
        r#"{{"type":"stall","component":{},"verdict":{},"operation":{},"seconds":{}}}"#,
        Value::from(component),
        Value::from(verdict),
        Value::from(operation),
        tenths(still)
    )
}

/// `recovered`: a component of which a `stall` was told goes on, after so long without progress.
pub fn recovered(component: &str, after: Duration) -> String {
    format!(
        r#"{{"type":"recovered","component":{},"seconds":{}}}"#,
        Value::from(component),
        tenths(after)
    )
}

/// Seconds to the tenth, as `/health` has them.
fn tenths(duration: Duration) -> Value {
    Value::from((duration.as_secs_f64() * 10.0).round() / 10.0)
}

/// `ping`: at `epoch`, the client had been sent all that it wants up to number `seq`; `None` while something waits for
/// it.
pub fn ping(epoch: f64, seq: Option<Seq>) -> String {
    let seq = seq.map_or("null".to_owned(), |seq| seq.to_string());
    format!(r#"{{"type":"ping","timestamp":{},"seq":{seq}}}"#, json_seconds(epoch))
}

/// `error`: a message of the client could not be taken.
pub fn error(text: &str) -> String {
    format!(r#"{{"type":"error","message":{}}}"#, Value::from(text))
}

/// The filter that a `subscribe` asks for.
///
/// # Errors
/// What is wrong with its lists, as a text for the client that sent them; its filter stays as it was.
pub fn filter(object: &serde_json::Map<String, Value>) -> Result<Filter, FilterErrorText> {
    let list = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => {
            let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
            texts
                .collect::<Option<Vec<String>>>()
                .map(Some)
                .ok_or_else(|| format!("{key} must be a list of texts"))
        }
        Some(_) => Err(format!("{key} must be a list of texts, or null for everything")),
    };
    let (machines, kinds) = (list("machines")?, list("types")?);
    Filter::new(machines, kinds).map_err(|error: FilterError| error.to_string())
}

/// The period that a `subscribe` asks for.
///
/// # Errors
/// It is no duration within the bounds, as a text for the client that sent it; everything stays as it was.
pub fn conflate(object: &serde_json::Map<String, Value>) -> Result<Option<Duration>, FilterErrorText> {
    match object.get("conflate") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => period(text).map(Some).map_err(|why| format!("conflate: {why}")),
        Some(_) => Err("conflate must be a text, or null for everything".to_owned()),
    }
}

/// What is wrong with a filter, for its sender.
pub type FilterErrorText = String;

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(text: &str) -> Result<Filter, String> {
        filter(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_subscription_says_what_is_wanted() {
        let wanted = subscribe(r#"{"type":"subscribe","machines":["a*","b"],"types":null}"#).unwrap();
        assert_eq!(wanted.to_string(), "machine=a*,b");
        assert!(subscribe(r#"{"type":"subscribe"}"#).unwrap().is_everything());
        for text in [
            r#"{"machines":"a"}"#,
            r#"{"machines":[1]}"#,
            r#"{"types":[]}"#,
            r#"{"types":[""]}"#,
        ] {
            assert!(subscribe(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_subscription_says_how_much_of_each_machine_is_wanted() {
        let wanted = |text: &str| conflate(&serde_json::from_str(text).unwrap());
        assert_eq!(
            wanted(r#"{"conflate":"1500ms"}"#),
            Ok(Some(Duration::from_millis(1500)))
        );
        assert_eq!(wanted(r#"{"conflate":null}"#), Ok(None));
        assert_eq!(wanted("{}"), Ok(None));
        for text in [r#"{"conflate":1}"#, r#"{"conflate":"1"}"#, r#"{"conflate":"2m"}"#] {
            wanted(text).unwrap_err();
        }
    }

    #[test]
    fn a_hang_and_its_end_are_told_in_seconds() {
        assert_eq!(
            stall(
                "fanout",
                "hung",
                "broadcast (2 clients, 1 KB)",
                Duration::from_millis(16_240)
            ),
            r#"{"type":"stall","component":"fanout","verdict":"hung","operation":"broadcast (2 clients, 1 KB)","seconds":16.2}"#
        );
        assert_eq!(
            recovered("fanout", Duration::from_secs(17)),
            r#"{"type":"recovered","component":"fanout","seconds":17.0}"#
        );
    }

    #[test]
    fn what_is_unknown_is_null() {
        let gap = gap(&Gap {
            range: None,
            count: None,
            cause: CAUSE_EPOCH,
        });
        assert_eq!(
            gap,
            r#"{"type":"gap","from":null,"to":null,"count":null,"cause":"epoch"}"#
        );
    }
}
