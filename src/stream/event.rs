//! What travels: one JSON object per datagram, checked here, forwarded byte for byte.
//!
//! The three dialects of the engines (contract section 2.4) are mapped for our own use only: machine table, reserved
//! types, rates. What goes out is always what came in.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;

/// An event's place in the order in which clients see events; the first is 1.
pub type Seq = u64;

/// An event that its engine could not send.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Its row in the database.
    pub row: NonZeroU64,
    /// The datagram that it could not send; empty if it is larger than `--max-event-bytes`.
    pub datagram: Box<[u8]>,
    /// When it was written into the database, seconds since the epoch.
    pub written: f64,
}

/// Why a datagram was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// Longer than `--max-event-bytes`, so it arrived cut.
    TooLarge,
    /// No bytes at all.
    Empty,
    /// Not UTF-8 (RFC 8259 section 8.1).
    NotUtf8,
    /// Not one JSON document: no JSON, NaN, a byte order mark, more than one document.
    NotJson,
    /// JSON, but not an object.
    NotAnObject,
    /// Its type is one that only the server may send.
    ReservedType,
    /// A name that we use has a lone surrogate escape, so that no snapshot could say it.
    NotUnicode,
    /// The fan-out had stopped and the queue was full.
    QueueFull,
}

impl DropCause {
    /// Every cause with its name in `/health` and what a person is told.
    pub const TABLE: [(DropCause, &'static str, &'static str); 8] = [
        (DropCause::TooLarge, "too_large", "larger than --max-event-bytes"),
        (DropCause::Empty, "empty", "empty"),
        (DropCause::NotUtf8, "not_utf8", "not UTF-8"),
        (DropCause::NotJson, "not_json", "not one JSON document"),
        (DropCause::NotAnObject, "not_an_object", "JSON, but not an object"),
        (
            DropCause::ReservedType,
            "reserved_type",
            "its type (ping, pong or initial, or a notice that calls itself the server's) is the server's own",
        ),
        (
            DropCause::NotUnicode,
            "not_unicode",
            "its machine, type, state or config_type has half a character (a lone surrogate such as \\ud83d)",
        ),
        (
            DropCause::QueueFull,
            "queue_full",
            "the fan-out stood still and the queue was full",
        ),
    ];

    /// Its name in `/health` and in a `gap`.
    pub fn name(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    /// What a person is told.
    pub fn text(self) -> &'static str {
        Self::TABLE[self as usize].2
    }
}

/// An event that may be forwarded, with what we use of it; `None` where it has no usable value.
#[derive(Debug, Default, PartialEq)]
pub struct Event<'a> {
    /// `type`, else `event_type`.
    pub kind: Option<Cow<'a, str>>,
    /// `machine_name`, else `machine_id`, else `payload.machine_name`.
    pub machine: Option<Cow<'a, str>>,
    /// `payload.to_state`, else `state`; of a registration also `payload.current_state`.
    pub state: Option<Cow<'a, str>>,
    /// `payload.from_state`: the state that its machine has left.
    pub from: Option<Cow<'a, str>>,
    /// `payload.timestamp`, else `timestamp`: a JSON number in its original spelling, of seconds since the epoch.
    pub time: Option<&'a str>,
    /// `payload.config_type`.
    pub config_type: Option<Cow<'a, str>>,
    /// `payload.event_trigger`.
    pub trigger: Option<Cow<'a, str>>,
}

/// Checks a datagram and reads what we use of it.
///
/// Duplicate keys: the last one counts, as for every browser. Strings are judged as decoded, however they are spelled.
/// A lone surrogate escape is valid JSON text and passes, but not in a name that we use: no UTF-8 text can hold it, so
/// the machine would be missing in every snapshot.
///
/// # Errors
/// The cause for which the datagram must not be forwarded.
pub fn check(bytes: &[u8]) -> Result<Event<'_>, DropCause> {
    match read(bytes)? {
        (_, true) => Err(DropCause::ReservedType),
        (event, false) => Ok(event),
    }
}

/// Reads an event that a server has published, as [`check`] does; one of the server's own passes too.
///
/// # Errors
/// No server publishes such bytes, for this cause.
pub fn check_published(bytes: &[u8]) -> Result<Event<'_>, DropCause> {
    read(bytes).map(|(event, _)| event)
}

/// The event, and whether it is one that only the server may tell.
fn read(bytes: &[u8]) -> Result<(Event<'_>, bool), DropCause> {
    if bytes.is_empty() {
        return Err(DropCause::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DropCause::NotUtf8)?;
    let (top, inner) = read_at_once(text).map_or_else(|| read_twice(text), Ok)?;
    let [kind, event_type, machine_name, machine_id, state, timestamp, server, _] = top;
    let [
        inner_name,
        to_state,
        current_state,
        inner_time,
        config_type,
        trigger,
        from,
    ] = inner;
    let kind = first_string([kind, event_type])?;
    let registered = kind.as_deref() == Some("machine_registered");
    let event = Event {
        machine: first_string([machine_name, machine_id, inner_name])?,
        state: first_string([to_state, state, current_state.filter(|_| registered)])?,
        time: time(inner_time).or_else(|| time(timestamp)),
        config_type: string(config_type)?,
        // No reason to refuse an event: no snapshot has them, so half a character only leaves them out.
        trigger: string(trigger).unwrap_or_default(),
        from: string(from).unwrap_or_default(),
        kind,
    };
    match event.kind.as_deref() {
        Some("ping" | "pong" | "initial") => Err(DropCause::ReservedType),
        kind => {
            let is_own = kind.is_some_and(is_notice) && server.is_some_and(|mark| mark.get() == "true");
            Ok((event, is_own))
        }
    }
}

/// The top-level keys that any dialect uses; the last is [`PAYLOAD`].
const TOP_KEYS: [&str; 8] = [
    "type",
    "event_type",
    "machine_name",
    "machine_id",
    "state",
    "timestamp",
    "server",
    "payload",
];

/// The place of `payload` in [`TOP_KEYS`].
const PAYLOAD: usize = TOP_KEYS.len() - 1;

/// The keys inside `payload` that any dialect uses.
const PAYLOAD_KEYS: [&str; 7] = [
    "machine_name",
    "to_state",
    "current_state",
    "timestamp",
    "config_type",
    "event_trigger",
    "from_state",
];

/// A value that was found but not read.
type Raw<'a> = Option<&'a RawValue>;
type Top<'a> = [Raw<'a>; TOP_KEYS.len()];
type Inner<'a> = [Raw<'a>; PAYLOAD_KEYS.len()];

/// The value as a string, if it is one.
///
/// # Errors
/// [`DropCause::NotUnicode`]: it has a lone surrogate, the only fault that is left in text that was read as JSON.
fn string(raw: Raw<'_>) -> Result<Option<Cow<'_, str>>, DropCause> {
    let Some(quoted) = raw.map(RawValue::get).filter(|text| text.starts_with('"')) else {
        return Ok(None);
    };
    if !quoted.contains('\\') {
        return Ok(Some(Cow::Borrowed(&quoted[1..quoted.len() - 1])));
    }
    let decoded = serde_json::from_str::<String>(quoted);
    decoded
        .map(|text| Some(Cow::Owned(text)))
        .map_err(|_| DropCause::NotUnicode)
}

/// The first of these values that is a string; those behind it do not count.
///
/// # Errors
/// As [`string`].
fn first_string<'a, const N: usize>(values: [Raw<'a>; N]) -> Result<Option<Cow<'a, str>>, DropCause> {
    for value in values {
        let text = string(value)?;
        if text.is_some() {
            return Ok(text);
        }
    }
    Ok(None)
}

/// Longest spelling of a number that we keep; Python's longest float has 24 characters.
const NUMBER_BYTES_MAX: usize = 32;

/// No time is this many seconds after the epoch, the year 5138: a number from here on counts milliseconds, or less. Of
/// any time since March 1973 the milliseconds are more.
const TIME_END: f64 = 1e11;

/// The value as the text of a number, if that can be a time in seconds since the epoch.
fn time(raw: Raw<'_>) -> Option<&str> {
    let text = raw?.get();
    let numeric = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let is_time = || text.parse::<f64>().is_ok_and(|time| (0.0..TIME_END).contains(&time));
    (numeric && text.len() <= NUMBER_BYTES_MAX && is_time()).then_some(text)
}

/// The types of what the server itself tells of machines (`notice.rs`).
pub const NOTICES: [&str; 3] = ["machine_stuck", "machine_silent", "machine_moves_again"];

/// Returns whether events of this type may be the server's own.
fn is_notice(kind: &str) -> bool {
    kind.starts_with("machine_") && NOTICES.contains(&kind)
}

/// Returns whether an event of this type is the server's own: it has `"server":true`. [`check`] refuses one.
pub fn is_own(kind: Option<&str>, datagram: &[u8]) -> bool {
    kind.is_some_and(is_notice) && check(datagram) == Err(DropCause::ReservedType)
}

/// What is used of the event, read in one pass; `None` unless every `payload` in it is an object, as those of engines
/// are.
fn read_at_once(text: &str) -> Option<(Top<'_>, Inner<'_>)> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_map(EventVisitor).ok()?;
    reader.end().ok().map(|()| read)
}

/// The same of any text, in two passes; a fault's cause.
fn read_twice(text: &str) -> Result<(Top<'_>, Inner<'_>), DropCause> {
    let top = read_object(text, TOP_KEYS)?;
    // A payload that is no object has no fields; the event is still an event.
    let inner = top[PAYLOAD].and_then(|payload| read_object(payload.get(), PAYLOAD_KEYS).ok());
    Ok((top, inner.unwrap_or_default()))
}

/// The values of `keys` in the object that `text` is.
fn read_object<'a, const N: usize>(text: &'a str, keys: [&'static str; N]) -> Result<[Raw<'a>; N], DropCause> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_map(ObjectVisitor(keys));
    match read.and_then(|values| reader.end().map(|()| values)) {
        Ok(values) => Ok(values),
        Err(_) if !text.trim_ascii_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            Err(DropCause::NotAnObject)
        }
        Err(_) => Err(DropCause::NotJson),
    }
}

struct ObjectVisitor<const N: usize>([&'static str; N]);

impl<'a, const N: usize> Visitor<'a> for ObjectVisitor<N> {
    type Value = [Raw<'a>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = [None; N];
        while let Some(index) = map.next_key_seed(KeySeed(&self.0))? {
            match index {
                Some(index) => values[index] = Some(map.next_value::<&'a RawValue>()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(values)
    }
}

/// Reads an event, and its payload on the way. Fails where the payload is no object.
struct EventVisitor;

impl<'a> Visitor<'a> for EventVisitor {
    type Value = (Top<'a>, Inner<'a>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let (mut top, mut inner) = (Top::default(), Inner::default());
        while let Some(index) = map.next_key_seed(KeySeed(&TOP_KEYS))? {
            match index {
                Some(PAYLOAD) => inner = map.next_value_seed(PayloadSeed)?,
                Some(index) => top[index] = Some(map.next_value::<&'a RawValue>()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((top, inner))
    }
}

struct PayloadSeed;

impl<'a> DeserializeSeed<'a> for PayloadSeed {
    type Value = Inner<'a>;

    fn deserialize<D: Deserializer<'a>>(self, payload: D) -> Result<Self::Value, D::Error> {
        payload.deserialize_map(ObjectVisitor(PAYLOAD_KEYS))
    }
}

/// Reads a key; gives its place among the wanted ones. An escaped spelling is the same key, and a lone surrogate is no
/// error.
struct KeySeed<'k>(&'k [&'static str]);

impl<'a> DeserializeSeed<'a> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'a>>(self, key: D) -> Result<Self::Value, D::Error> {
        // As raw text first: serde_json lets raw control characters pass in a key that it decodes to bytes.
        let quoted = <&RawValue>::deserialize(key)?.get();
        if quoted.contains('\\') {
            let mut reader = serde_json::Deserializer::from_str(quoted);
            return reader.deserialize_bytes(self).map_err(D::Error::custom);
        }
        Ok(self.place_of(&quoted.as_bytes()[1..quoted.len() - 1]))
    }
}

impl KeySeed<'_> {
    fn place_of(&self, key: &[u8]) -> Option<usize> {
        self.0.iter().position(|wanted| wanted.as_bytes() == key)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E: serde::de::Error>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.place_of(key))
    }
}

/// The first characters of a datagram, for messages; the log makes control characters visible.
pub fn beginning(bytes: &[u8]) -> String {
    const CHARS: usize = 80;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * CHARS)]);
    let mut start: String = text.chars().take(CHARS).collect();
    if start.len() < bytes.len() {
        start.push('…');
    }
    start
}

#[cfg(test)]
mod tests;
