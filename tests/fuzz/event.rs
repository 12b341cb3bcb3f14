//! The check of events against a strict recogniser, and what is read of them against that recogniser's own reading.

use crate::mutate::{json, mutate};
use crate::strict_json::{Kind, kind_of, members, string};
use crate::{fuzz, seeds};
use std::collections::BTreeMap;
use threadcast::stream::event::{DropCause, Event, check};

#[test]
fn nothing_is_forwarded_that_a_strict_parser_refuses_and_nothing_else_is_dropped_for_it() {
    let seeds = seeds("event");
    let mut verdicts = BTreeMap::new();
    fuzz("event", 60_000, |rng| {
        let mut bytes = match rng.u8(..3) {
            0 => seeds[rng.usize(..seeds.len())].clone(),
            _ => json(rng).into_bytes(),
        };
        if rng.bool() {
            mutate(rng, &mut bytes);
        }
        let expected = expected(&bytes);
        let verdict = expected.as_ref().map_or_else(|cause| cause.name(), |_| "forwarded");
        *verdicts.entry(verdict).or_insert(0_u64) += 1;
        assert_eq!(check(&bytes), expected, "{}", String::from_utf8_lossy(&bytes));
    });
    eprintln!("event: {verdicts:?}");
    for verdict in [
        "forwarded",
        "not_utf8",
        "not_json",
        "not_an_object",
        "reserved_type",
        "not_unicode",
    ] {
        assert!(
            verdicts.contains_key(verdict),
            "no input is {verdict}: the generator is of no use"
        );
    }
}

/// The verdict by the rules of docs/protocol.md, with every field that we use.
fn expected(bytes: &[u8]) -> Result<Event<'_>, DropCause> {
    if bytes.is_empty() {
        return Err(DropCause::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DropCause::NotUtf8)?;
    match kind_of(text) {
        Kind::NotJson => return Err(DropCause::NotJson),
        Kind::Other => return Err(DropCause::NotAnObject),
        Kind::Object => {}
    }
    let top = members(text);
    let payload = last(&top, "payload").filter(|payload| payload.starts_with('{'));
    let inner = payload.map(members).unwrap_or_default();
    let kind = first(&[last(&top, "type"), last(&top, "event_type")])?;
    let registered = kind.as_deref() == Some("machine_registered");
    let current = last(&inner, "current_state").filter(|_| registered);
    let names = [
        last(&top, "machine_name"),
        last(&top, "machine_id"),
        last(&inner, "machine_name"),
    ];
    let machine = first(&names)?;
    let state = first(&[last(&inner, "to_state"), last(&top, "state"), current])?;
    let config_type = first(&[last(&inner, "config_type")])?;
    // Half a character is no fault here.
    let trigger = first(&[last(&inner, "event_trigger")]).unwrap_or_default();
    let from = first(&[last(&inner, "from_state")]).unwrap_or_default();
    // Only now: half a character is said first.
    let word = kind.as_deref().unwrap_or_default();
    let is_marked = last(&top, "server") == Some("true");
    if ["ping", "pong", "initial"].contains(&word)
        || is_marked && ["machine_stuck", "machine_silent", "machine_moves_again"].contains(&word)
    {
        return Err(DropCause::ReservedType);
    }
    Ok(Event {
        kind: kind.map(Into::into),
        machine: machine.map(Into::into),
        state: state.map(Into::into),
        time: time(last(&inner, "timestamp")).or_else(|| time(last(&top, "timestamp"))),
        config_type: config_type.map(Into::into),
        trigger: trigger.map(Into::into),
        from: from.map(Into::into),
    })
}

/// The raw value of the last member of that name.
fn last<'a>(members: &[(Vec<u16>, &'a str)], name: &str) -> Option<&'a str> {
    let is_it = |(key, _): &&(Vec<u16>, &str)| key.iter().copied().eq(name.encode_utf16());
    members.iter().rfind(is_it).map(|(_, value)| *value)
}

/// The first of the values that is a string, unless it has half a character.
fn first(values: &[Option<&str>]) -> Result<Option<String>, DropCause> {
    let text = values.iter().flatten().find_map(|value| string(value));
    let text = text.map(|units| String::from_utf16(&units));
    text.transpose().map_err(|_| DropCause::NotUnicode)
}

/// A number of seconds before the year 5138, in at most 32 characters.
fn time(value: Option<&str>) -> Option<&str> {
    let value = value.filter(|value| {
        value.len() <= 32 && value.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
    })?;
    let seconds: f64 = value.parse().ok()?;
    (0.0..100_000_000_000.0).contains(&seconds).then_some(value)
}
