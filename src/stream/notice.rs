//! What the server itself tells of machines, as events of its own in the stream. docs/protocol.md has every key.
//!
//! They change no row, no dwell, no time-to-live and no sign of life; `"server":true` tells them from those of senders,
//! which may not have it ([`check`](crate::stream::event::check)).

use crate::process::clock::json_seconds;
use crate::stream::learned::usual::Usual;
use crate::stream::machines::documents::seconds;
use crate::stream::machines::dwell::Verdict;
use crate::stream::machines::judgement::Limit;
use crate::stream::machines::row::put_string;
use std::time::Duration;

/// Machines of one finding that are named; of more, their number tells.
pub const NAMED_MAX: usize = 100;

/// Their names together, in bytes.
const NAMES_BYTES_MAX: usize = 8 * 1024;

/// What a notice tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    Found(Verdict),
    /// What was found is over.
    MovesAgain,
}

impl NoticeKind {
    /// Its type.
    pub fn name(self) -> &'static str {
        match self {
            NoticeKind::Found(Verdict::Stuck) => "machine_stuck",
            NoticeKind::Found(Verdict::Silent) => "machine_silent",
            NoticeKind::MovesAgain => "machine_moves_again",
        }
    }
}

/// An event of the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub kind: NoticeKind,
    /// The machine that it is about; `None` if they are several.
    pub machine: Option<Box<str>>,
    /// The event.
    pub json: Box<[u8]>,
}

/// What the server tells of a machine, or of several with one cause.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub kind: NoticeKind,
    /// Their names; one, unless they have a common cause.
    pub machines: &'a [Box<str>],
    pub config_type: Option<&'a str>,
    /// The state that they are in; of [`NoticeKind::MovesAgain`], that they were in.
    pub state: &'a str,
    /// How long the first of them has been, or was, in it.
    pub stay: Duration,
    pub usual: Option<&'a Usual>,
    pub limit: Option<Limit>,
    /// The reason, for people.
    pub why: &'a str,
}

impl Notice {
    /// The event that tells this, at `epoch` seconds since the epoch.
    pub fn new(told: &Told<'_>, epoch: f64) -> Notice {
        let machine = match told.machines {
            [machine] => Some(machine.clone()),
            _ => None,
        };
        let mut json = Vec::with_capacity(512);
        put(&mut json, "{\"machine_name\":", machine.as_deref());
        let kind = told.kind.name();
        json.extend_from_slice(format!(",\"type\":\"{kind}\",\"server\":true,\"payload\":").as_bytes());
        put(&mut json, "{\"machine_name\":", machine.as_deref());
        if machine.is_none() {
            json.extend_from_slice(b",\"machines\":[");
            let mut bytes = 0;
            let fits = |name: &&str| {
                bytes += name.len();
                bytes <= NAMES_BYTES_MAX
            };
            let names = told.machines.iter().map(|name| &**name).take(NAMED_MAX);
            for (index, name) in names.take_while(fits).enumerate() {
                put(&mut json, if index > 0 { "," } else { "" }, Some(name));
            }
            json.extend_from_slice(format!("],\"count\":{}", told.machines.len()).as_bytes());
        }
        put(&mut json, ",\"config_type\":", told.config_type);
        put(&mut json, ",\"state\":", Some(told.state));
        let null = || "null".to_owned();
        let usual = |figure: fn(&Usual) -> Duration| told.usual.map_or_else(null, |usual| seconds(figure(usual)));
        let figures = format!(
            ",\"seconds\":{},\"usual_median\":{},\"usual_p99\":{},\"n\":{},\"limit\":{}",
            seconds(told.stay),
            usual(|usual| usual.median),
            usual(|usual| usual.p99),
            told.usual.map_or_else(null, |usual| usual.n.to_string()),
            told.limit.map_or_else(null, |limit| seconds(limit.after)),
        );
        json.extend_from_slice(figures.as_bytes());
        put(&mut json, ",\"why\":", Some(told.why));
        json.extend_from_slice(format!(",\"timestamp\":{}}}}}", json_seconds(epoch)).as_bytes());
        Notice {
            kind: told.kind,
            machine,
            json: json.into_boxed_slice(),
        }
    }
}

/// Writes what stands before a text, and the text.
fn put(json: &mut Vec<u8>, before: &str, text: Option<&str>) {
    json.extend_from_slice(before.as_bytes());
    put_string(json, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::event::{DropCause, check, is_own};
    use serde_json::{Value, json};

    fn notice(machines: &[&str], kind: NoticeKind) -> Notice {
        let machines: Vec<Box<str>> = machines.iter().map(|name| (*name).into()).collect();
        let told = Told {
            kind,
            machines: &machines,
            config_type: Some("worker"),
            state: "encoding",
            stay: Duration::from_millis(31_204),
            usual: None,
            limit: None,
            why: "it \"stays\"",
        };
        Notice::new(&told, 9.5)
    }

    #[test]
    fn no_sender_could_have_sent_it() {
        for kind in [
            NoticeKind::Found(Verdict::Stuck),
            NoticeKind::Found(Verdict::Silent),
            NoticeKind::MovesAgain,
        ] {
            let notice = notice(&["m"], kind);
            assert_eq!(check(&notice.json), Err(DropCause::ReservedType));
            assert!(is_own(Some(kind.name()), &notice.json));
        }
    }

    #[test]
    fn several_machines_are_one_notice_that_names_them() {
        let names: Vec<String> = (0..150).map(|number| format!("m{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let notice = notice(&names, NoticeKind::Found(Verdict::Stuck));
        let event: Value = serde_json::from_slice(&notice.json).unwrap();
        assert_eq!(
            (&event["machine_name"], &event["payload"]["count"]),
            (&Value::Null, &json!(150))
        );
        assert_eq!(event["payload"]["machines"].as_array().unwrap().len(), NAMED_MAX);
        // At its end it names none.
        for machines in [&[][..], &[&*"x".repeat(NAMES_BYTES_MAX + 1), "y"]] {
            let event: Value = serde_json::from_slice(&self::notice(machines, NoticeKind::MovesAgain).json).unwrap();
            assert_eq!(event["payload"]["machines"], json!([]));
        }
    }
}
