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
mod tests {
    use super::*;

    fn event(text: &str) -> Event<'_> {
        check(text.as_bytes()).unwrap_or_else(|cause| panic!("{text}: {cause:?}"))
    }

    fn cause(bytes: impl AsRef<[u8]>) -> DropCause {
        check(bytes.as_ref()).unwrap_err()
    }

    #[test]
    fn the_table_of_causes_is_in_the_order_of_the_enum() {
        for (index, (cause, _, _)) in DropCause::TABLE.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
    }

    #[test]
    fn what_is_not_one_json_object_is_refused_with_its_cause() {
        assert_eq!(cause(""), DropCause::Empty);
        assert_eq!(cause(b"{\"type\":\"x\",\"v\":\"\xff\xfe\"}"), DropCause::NotUtf8);
        for text in [
            "hello",
            "{\"type\":\"state_change\",\"machine_na",
            "{\"v\":NaN}",
            "{\"v\":Infinity}",
            "{\"v\":\"a\u{1}b\"}",
            "{} {}",
            "{}x",
            "[1] [2]",
            "\u{feff}{}",
            "{\"a\":1,}",
            "{'a':1}",
            " ",
        ] {
            assert_eq!(cause(text), DropCause::NotJson, "{text}");
        }
        for text in ["[1,2,3]", "42", "null", "\"x\"", " true ", r#""\udc00""#] {
            assert_eq!(cause(text), DropCause::NotAnObject, "{text}");
        }
    }

    /// RFC 8259 section 7: U+0000 to U+001F stand in a string only as escapes.
    #[test]
    fn a_raw_control_character_in_a_string_is_no_json() {
        for control in 0..0x20_u8 {
            let control = char::from(control);
            for text in [
                format!("{{\"a{control}b\":1}}"),
                format!("{{\"payload\":{{\"a{control}b\":1}}}}"),
                format!("{{\"payload\":{{\"\\u0061{control}\":1}}}}"),
                format!("{{\"deep\":[{{\"a{control}b\":1}}]}}"),
                format!("{{\"payload\":{{\"deep\":{{\"a{control}b\":1}}}}}}"),
                format!("{{\"payload\":[{{\"a{control}b\":1}}]}}"),
                format!("{{\"v\":\"a{control}b\"}}"),
                format!("{{\"type\":\"a{control}b\"}}"),
                format!("{{\"payload\":{{\"to_state\":\"a{control}b\"}}}}"),
            ] {
                assert_eq!(check(text.as_bytes()), Err(DropCause::NotJson), "{text:?}");
            }
        }
        event("{\"a\\u0001b\":1,\"payload\":{\"a\\nb\":\"\\u0000\"}}");
        event("\n{\t\"a\"\r\n: 1 , \"payload\" :\t{ \"b\"\n:\r2\t} }\n");
    }

    #[test]
    fn a_name_that_no_snapshot_can_hold_is_refused() {
        for text in [
            r#"{"type":"\ud83d"}"#,
            r#"{"type":"t","machine_name":"m\udcff"}"#,
            r#"{"machine_id":"\udcff\ud83d"}"#,
            r#"{"machine_name":"m","state":"\ud83d"}"#,
            r#"{"machine_name":"m","payload":{"to_state":"\ud83dx"}}"#,
            r#"{"machine_name":"m","payload":{"config_type":"\ud83d\ud83d"}}"#,
        ] {
            assert_eq!(cause(text), DropCause::NotUnicode, "{text}");
        }
        event(r#"{"type":"t","machine_name":"\ud83d\ude00","payload":{"note":"\ud83d"}}"#);
        event(r#"{"type":"t","type2":"\ud83d","\ud83d":1}"#);
        // Of names in several places the first counts.
        event(r#"{"machine_name":"m","machine_id":"\ud83d","type":"t","event_type":"\ud83d"}"#);
        event(r#"{"machine_name":"m","type":"t","payload":{"current_state":"\ud83d"}}"#);
    }

    #[test]
    fn a_trigger_is_no_reason_to_refuse_an_event() {
        let trigger = |value: &str| {
            let text = format!(r#"{{"machine_name":"m","payload":{{"to_state":"s","event_trigger":{value}}}}}"#);
            event(&text).trigger.map(Cow::into_owned)
        };
        assert_eq!(trigger(r#""new\u005fjob""#).as_deref(), Some("new_job"));
        for value in [r#""\ud83d""#, "7", "null", "{}"] {
            assert_eq!(trigger(value), None, "{value}");
        }
    }

    #[test]
    fn reserved_types_are_found_however_they_are_spelled() {
        for text in [
            r#"{"type":"ping"}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"in\u0069tial"}"#,
            r#"{"ty\u0070e":"initial"}"#,
            r#"{"type":"x","type":"initial"}"#,
            r#"{"event_type":"initial"}"#,
            r#"{"type":null,"event_type":"initial"}"#,
        ] {
            assert_eq!(cause(text), DropCause::ReservedType, "{text}");
        }
        assert_eq!(event(r#"{"type":"initial","type":"x"}"#).kind.as_deref(), Some("x"));
        assert_eq!(event(r#"{"payload":{"type":"initial"}}"#).kind, None);
    }

    #[test]
    fn valid_text_passes_however_odd() {
        event(r#"{}"#);
        event("{\"type\":\"nl\"}\n");
        event(r#"{"\ud83d":"\ud83d","payload":{"\udc00":"\ud83d"}}"#);
        event(&format!("{{\"deep\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000)));
        event(r#"{"type":5,"machine_name":[],"payload":"text","timestamp":"noon"}"#);
    }

    #[test]
    fn all_three_dialects_are_mapped() {
        let shipped = event(
            r#"{"machine_name": "m", "type": "state_change", "payload": {"from_state": "a", "to_state": "b", "event_trigger": "t", "timestamp": 1795393481.6886814}}"#,
        );
        assert_eq!(shipped.kind.as_deref(), Some("state_change"));
        assert_eq!(shipped.machine.as_deref(), Some("m"));
        assert_eq!(shipped.state.as_deref(), Some("b"));
        assert_eq!(shipped.trigger.as_deref(), Some("t"));
        assert_eq!(shipped.time, Some("1795393481.6886814"));
        let older = event(r#"{"event_type":"state_change","machine_name":"m","payload":{"to_state":"b"}}"#);
        assert_eq!((older.kind, older.state), (shipped.kind, shipped.state));
        let document = event(r#"{"type":"state_change","machine_id":"m","state":"b","timestamp":17,"data":{}}"#);
        assert_eq!(
            (document.machine.as_deref(), document.state.as_deref()),
            (Some("m"), Some("b"))
        );
        assert_eq!(document.time, Some("17"));
    }

    #[test]
    fn one_pass_reads_what_two_read() {
        let texts = |read: Option<(Top<'_>, Inner<'_>)>| {
            read.map(|(top, inner)| {
                let of = |raw: &Raw<'_>| raw.map(|raw| raw.get().to_owned());
                let top: Vec<_> = top[..PAYLOAD].iter().map(of).collect();
                (top, inner.iter().map(of).collect::<Vec<_>>())
            })
        };
        let inner = [
            r#"{}"#,
            r#"{"machine_name":"m","to_state":"b","timestamp":1e999,"x":[{"to_state":1}],"config_type":null}"#,
            r#"{"to_state":"a","to_st\u0061te":"b","\ud83d":"\udc00"}"#,
            r#" {"to_state" : "a" , "deep":[[[[{"type":"x"}]]]] } "#,
        ];
        for inner in inner {
            for text in [
                format!(r#"{{"type":"t","payload":{inner},"machine_name":"m","timestamp":17,"more":{inner}}}"#),
                format!(r#"{{"payload":{{"to_state":"old"}},"payl\u006fad":{inner}}}"#),
                format!(r#" {{"state":{inner},"payload":{inner}}} "#),
            ] {
                let once = texts(read_at_once(&text));
                assert!(once.is_some(), "{text}");
                assert_eq!(once, texts(read_twice(&text).ok()), "{text}");
                for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                    let begin = &text[..cut];
                    assert_eq!(texts(read_at_once(begin)), texts(read_twice(begin).ok()), "{begin}");
                }
                assert_eq!(check(format!("{text}{text}").as_bytes()), Err(DropCause::NotJson));
            }
        }
        for text in [
            r#"{"payload":"text"}"#,
            r#"{"payload":{"to_state":"b"},"payload":null}"#,
        ] {
            assert!(read_at_once(text).is_none());
            assert_eq!(event(text).state, None);
        }
    }

    #[test]
    fn a_registration_brings_state_and_configuration() {
        let text = r#"{"machine_name":"m","type":"machine_registered","payload":{"machine_name":"m","config_type":"c","current_state":"initializing","timestamp":1.5}}"#;
        let registered = event(text);
        assert_eq!(registered.state.as_deref(), Some("initializing"));
        assert_eq!(registered.config_type.as_deref(), Some("c"));
        let other = text.replace("machine_registered", "note");
        assert_eq!(event(&other).state, None);
    }

    #[test]
    fn a_time_keeps_its_spelling_and_must_be_one_of_seconds() {
        for (time, is_one) in [
            ("1.50e3", true),
            ("0", true),
            ("1795393481.6886814", true),
            ("99999999999.9", true),
            // Milliseconds, microseconds, nanoseconds; the year 57000.
            ("1795393481688", false),
            ("1795393481688681", false),
            ("1795393481688681400", false),
            ("1.7366e12", false),
            ("1e11", false),
            ("1e999", false),
            ("-1", false),
            ("\"1\"", false),
            ("null", false),
        ] {
            let text = format!(r#"{{"timestamp":{time}}}"#);
            assert_eq!(event(&text).time, is_one.then_some(time));
        }
        let both = event(r#"{"timestamp":17,"payload":{"timestamp":1795393481688}}"#);
        assert_eq!(both.time, Some("17"), "what is no time counts as none");
    }

    #[test]
    fn a_sender_cannot_tell_what_the_server_tells() {
        for kind in NOTICES {
            let own = format!(r#"{{"machine_name":"m","type":"{kind}","server":true}}"#);
            assert_eq!(cause(&own), DropCause::ReservedType);
            assert!(is_own(Some(kind), own.as_bytes()));
            assert_eq!(check_published(own.as_bytes()).unwrap().kind.as_deref(), Some(kind));
            let spelled = own
                .replace("machine_s", "machine\\u005fs")
                .replace("server", "s\\u0065rver");
            assert_eq!(cause(&spelled), DropCause::ReservedType);
            // Without the mark, or with another type, it is anybody's.
            for other in [
                own.replace("true", "false"),
                own.replace("true", "\"true\""),
                own.replace("true", "1"),
                own.replace("\"server\"", "\"servers\""),
                own.replace(kind, "machine_change"),
                own.replace("\"server\":true", "\"payload\":{\"server\":true}"),
            ] {
                event(&other);
                assert!(!is_own(Some(kind), other.as_bytes()), "{other}");
            }
        }
    }

    #[test]
    fn a_change_says_which_state_was_left() {
        let from = |value: &str| {
            let text = format!(r#"{{"machine_name":"m","payload":{{"to_state":"s","from_state":{value}}}}}"#);
            event(&text).from.map(Cow::into_owned)
        };
        assert_eq!(from(r#""wai\u0074ing""#).as_deref(), Some("waiting"));
        for value in [r#""\ud83d""#, "7", "null", "{}"] {
            assert_eq!(from(value), None, "{value}");
        }
    }
}
