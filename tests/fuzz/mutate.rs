//! Small changes of bytes, and random JSON that is nearly always nearly right.

use fastrand::Rng;

/// Bytes that parsers treat in a way of their own.
const SPECIAL: &[u8] = b"{}[]\":,\\/ \t\r\n\0\x01\x1f\x7f\x80\xc2\xa0\xed\xff*?%&=-+.eE0u";

/// Changes `bytes` in one to four places.
pub fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..7) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 if at < bytes.len() => bytes[at] = SPECIAL[rng.usize(..SPECIAL.len())],
            2 => bytes.insert(at, SPECIAL[rng.usize(..SPECIAL.len())]),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            5 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            _ => {
                let from = rng.usize(..=at);
                let piece = bytes[from..at.min(from + 32)].to_vec();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// A document that is an object more often than not, with the keys that we read more often than others.
pub fn json(rng: &mut Rng) -> String {
    let mut out = String::new();
    space(rng, &mut out);
    if rng.u8(..10) == 0 {
        value(rng, &mut out, 3);
    } else {
        object(rng, &mut out, 4);
    }
    space(rng, &mut out);
    out
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

fn space(rng: &mut Rng, out: &mut String) {
    if rng.u8(..4) == 0 {
        // The last two are no space.
        let most = if rng.u8(..9) == 0 { 8 } else { 6 };
        let spaces = [" ", "\n", "\t", "\r\n", "  ", "", "\u{b}", "\u{a0}"];
        out.push_str(one(rng, &spaces[..most]));
    }
}

fn object(rng: &mut Rng, out: &mut String, depth: usize) {
    out.push('{');
    for index in 0..rng.usize(..5) {
        if index > 0 {
            out.push(',');
        }
        space(rng, out);
        string(rng, out, true);
        space(rng, out);
        out.push(':');
        space(rng, out);
        value(rng, out, depth.saturating_sub(1));
        space(rng, out);
    }
    out.push('}');
}

fn value(rng: &mut Rng, out: &mut String, depth: usize) {
    match rng.u8(..if depth == 0 { 7 } else { 10 }) {
        0..=2 => string(rng, out, false),
        3 | 4 => out.push_str(one(
            rng,
            &[
                "0",
                "-0",
                "1.50",
                "1e9",
                "-12.5E-3",
                "17",
                "1795393481.6886814",
                "1e999",
                "12345678901234567890123456789012.5",
                "01",
                "1.",
                ".5",
                "+1",
                "-",
                "1e",
                "0x1",
            ],
        )),
        5 => out.push_str(one(rng, &["true", "false", "null", "null"])),
        6 => out.push_str(one(
            rng,
            &["true", "NaN", "Infinity", "nul", "True", "''", "\u{feff}", ""],
        )),
        7 => {
            out.push('[');
            for index in 0..rng.usize(..4) {
                if index > 0 {
                    out.push(',');
                }
                value(rng, out, depth - 1);
            }
            out.push(']');
        }
        _ => object(rng, out, depth),
    }
}

/// A string; as a key, mostly one of those that count.
fn string(rng: &mut Rng, out: &mut String, key: bool) {
    out.push('"');
    if key && rng.u8(..4) > 0 {
        out.push_str(one(
            rng,
            &[
                "type",
                "event_type",
                "machine_name",
                "machine_id",
                "state",
                "timestamp",
                "payload",
                "to_state",
                "current_state",
                "config_type",
                "from_state",
                "server",
                "pay\\u006coad",
                "ty\\u0070e",
            ],
        ));
    } else if rng.u8(..6) == 0 {
        // Of these the server makes something of its own, if nothing stands beside them.
        let words = [
            "ping",
            "pong",
            "initial",
            "in\\u0069tial",
            "machine_registered",
            "machine_stuck",
            "machine_s\\u0069lent",
        ];
        out.push_str(one(rng, &words));
    } else {
        for _ in 0..rng.usize(..6) {
            match rng.u8(..24) {
                0 => out.push(char::from(rng.u8(..0x20))),
                1 => out.push_str(one(rng, &["\\x", "\\u12", "\\", "\\u{1}", "\\U0041", "\\'"])),
                2 | 3 => out.push_str(one(rng, &["\\ud83d", "\\udc00", "\\ud83d\\ude00", "\\uDBFF\\uDFFF"])),
                4 | 5 => out.push_str(one(
                    rng,
                    &["\\n", "\\\"", "\\\\", "\\/", "\\b", "\\u0000", "\\u001f", "\\u00e9"],
                )),
                6 => out.push(rng.char(..)),
                7 => out.push_str(one(
                    rng,
                    &["ping", "initial", "machine_registered", "ü", "\u{7f}", "\u{2028}"],
                )),
                _ => out.push(char::from(rng.u8(b'a'..=b'z'))),
            }
        }
    }
    out.push('"');
}
