//! The check of events against a strict recogniser and against serde_json's own values.

use crate::mutate::{json, mutate};
use crate::strict_json::{Kind, kind_of};
use crate::{fuzz, seeds};
use serde_json::Value;
use threadcast::pipeline::event::{DropCause, Event, check};

#[test]
fn nothing_is_forwarded_that_a_strict_parser_refuses_and_nothing_else_is_dropped_for_it() {
    let seeds = seeds("event");
    fuzz("event", 60_000, |rng| {
        let mut bytes = match rng.u8(..3) {
            0 => seeds[rng.usize(..seeds.len())].clone(),
            _ => json(rng).into_bytes(),
        };
        if rng.bool() {
            mutate(rng, &mut bytes);
        }
        judge(&bytes);
    });
}

/// Panics if the check's verdict is wrong.
pub fn judge(bytes: &[u8]) {
    let verdict = check(bytes);
    let shown = String::from_utf8_lossy(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert_eq!(verdict, Err(DropCause::NotUtf8), "{shown}");
        return;
    };
    match kind_of(text) {
        _ if bytes.is_empty() => assert_eq!(verdict, Err(DropCause::Empty)),
        Kind::NotJson => assert_eq!(verdict, Err(DropCause::NotJson), "{shown}"),
        Kind::Other => assert_eq!(verdict, Err(DropCause::NotAnObject), "{shown}"),
        Kind::Object => match verdict {
            Ok(event) => agrees(&event, text),
            Err(cause) => assert!(
                matches!(cause, DropCause::ReservedType | DropCause::NotUnicode),
                "{cause:?}: {shown}"
            ),
        },
    }
}

/// What was read is what serde_json reads, where that can: it knows no lone surrogates.
fn agrees(event: &Event<'_>, text: &str) {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let text_at = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let payload = &value["payload"];
    let either = |one: &str, other: &str| text_at(&value, one).or_else(|| text_at(&value, other));
    let machine = either("machine_name", "machine_id").or_else(|| text_at(payload, "machine_name"));
    assert_eq!(event.machine.as_deref(), machine.as_deref(), "{text}");
    assert_eq!(event.kind.as_deref(), either("type", "event_type").as_deref(), "{text}");
    assert_eq!(
        event.config_type.as_deref(),
        text_at(payload, "config_type").as_deref(),
        "{text}"
    );
}
