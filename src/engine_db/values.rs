//! The values of the database as messages have them (contract sections 2.3 and 7).

use crate::process::clock::parse_rfc3339;
use rusqlite::types::ValueRef;
use std::fmt::Write;

/// A text that is one; numbers in a column of texts are their digits.
pub(super) fn text(value: ValueRef<'_>) -> Option<Box<str>> {
    match value {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok().map(Into::into),
        ValueRef::Integer(number) => Some(number.to_string().into()),
        ValueRef::Real(number) => Some(format!("{number:?}").into()),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

/// A time as a JSON number of seconds since the epoch: a number in its shortest form, as Python writes it; SQLite's
/// text (`2026-11-23 00:39:45`, UTC) as seconds.
pub(super) fn time(value: ValueRef<'_>) -> Option<Box<str>> {
    match value {
        ValueRef::Integer(seconds) => Some(seconds.to_string().into()),
        ValueRef::Real(seconds) => seconds.is_finite().then(|| format!("{seconds:?}").into()),
        ValueRef::Text(bytes) => {
            let seconds = seconds_of_text(std::str::from_utf8(bytes).ok()?)?;
            let whole = seconds.fract() == 0.0;
            Some(
                if whole {
                    format!("{seconds:.0}")
                } else {
                    format!("{seconds:?}")
                }
                .into(),
            )
        }
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

/// The seconds since the epoch of a time in SQLite's spelling, in UTC.
pub(super) fn seconds_of_text(text: &str) -> Option<f64> {
    let (date, clock) = text.trim().split_once([' ', 'T'])?;
    parse_rfc3339(&format!("{date}T{}Z", clock.strip_suffix('Z').unwrap_or(clock)))
}

/// The datagram that an engine would have sent, byte for byte: Python's `json.dumps` with its default separators.
/// `payload` is such a text already.
pub(super) fn datagram(machine: &str, kind: &str, payload: &[u8]) -> Box<[u8]> {
    let mut out = String::with_capacity(48 + machine.len() + kind.len() + payload.len());
    out.push_str("{\"machine_name\": ");
    put_python_string(&mut out, machine);
    out.push_str(", \"type\": ");
    put_python_string(&mut out, kind);
    out.push_str(", \"payload\": ");
    let mut out = out.into_bytes();
    out.extend_from_slice(payload);
    out.push(b'}');
    out.into()
}

/// As Python's `json.dumps` spells a string: ASCII only.
fn put_python_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_in_their_shortest_form() {
        for (value, expected) in [
            (ValueRef::Real(1_795_393_481.742_173), Some("1795393481.742173")),
            (ValueRef::Real(1.5e9), Some("1500000000.0")),
            (ValueRef::Integer(1_795_393_481), Some("1795393481")),
            (ValueRef::Text(b"2026-11-23 00:39:45"), Some("1795394385")),
            (ValueRef::Text(b"2026-11-23 00:39:45.25"), Some("1795394385.25")),
            (ValueRef::Text(b"2026-11-23T00:39:45Z"), Some("1795394385")),
            (ValueRef::Text(b"yesterday"), None),
            (ValueRef::Real(f64::INFINITY), None),
            (ValueRef::Blob(b"1"), None),
            (ValueRef::Null, None),
        ] {
            assert_eq!(time(value).as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn a_datagram_is_spelled_as_python_does() {
        let spelled = datagram("pä\"\\\u{7f}\u{1f680}\n", "state_change", br#"{"a": 1.50}"#);
        assert_eq!(
            std::str::from_utf8(&spelled).unwrap(),
            r#"{"machine_name": "p\u00e4\"\\\u007f\ud83d\ude80\n", "type": "state_change", "payload": {"a": 1.50}}"#
        );
    }
}
