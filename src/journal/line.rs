//! The lines of the journal: one JSON document each, written and read back.
//!
//! ```text
//! {"journal":1,"epoch":"0123456789abcdef","first":1,"time":1795393480.5}     a segment or a run of the server begins
//! {"seq":1,"time":1795393480.6,"event":{"type":"x"}}                         an event, byte for byte
//! {"seq":1,"time":1795393480.6,"recovered":7,"event":{"type":"x"}}           one from row 7 of the engine's database
//! {"seq":2,"to":4,"time":1795393480.7,"lost":3,"cause":"too_large"}          numbers without an event
//! {"seq":4,"time":1795393480.8,"end":true}                                   the server stopped in order
//! ```

use crate::process::clock::json_seconds;
use crate::stream::batch::Loss;
use crate::stream::event::{self, DropCause, Event, Seq};
use crate::stream::position::Epoch;
use serde_json::Value;
use std::io::Write;
use std::num::NonZeroU64;

/// The version of the format, in the first line of every segment.
const FORMAT: u64 = 1;
/// Longest line that is read: more than the largest `--max-event-bytes` and what stands around an event.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Largest number that JavaScript can count to (2^53), and by far more than any server gives: a larger one is damage.
pub const SEQ_MAX: Seq = 1 << 53;
/// A time after this, in seconds since the epoch, is damage: the year 5138.
const TIME_MAX: f64 = 1e11;

/// Cause of a loss: the journal's queue was full.
pub const QUEUE_FULL: &str = "journal_queue_full";
/// Cause of a loss: the journal could not be written.
pub const FAILED: &str = "journal_failed";
/// Cause of a loss: somebody has taken the journal's files out of its folder while it was written.
pub const REMOVED: &str = "journal_removed";
/// Cause of a loss: the journal was damaged.
pub const DAMAGED: &str = "journal_damaged";
/// Cause of a loss: nobody knows how many numbers the former run gave that it could not journal any more.
pub const RESTART: &str = "restart";

/// One line, read.
#[derive(Debug, PartialEq)]
pub enum Line<'a> {
    /// From here on numbers are of this epoch, and begin with this one.
    Head { epoch: Epoch, first: Seq, time: f64 },
    /// An event: when it was published, its bytes, and what they say.
    Event {
        seq: Seq,
        time: f64,
        recovered: Option<NonZeroU64>,
        payload: &'a [u8],
        event: Event<'a>,
    },
    /// Numbers that have no event here.
    Loss { loss: Loss, time: f64 },
    /// The last line of a run that ended in order; the last number that was given.
    End { seq: Seq, time: f64 },
    /// JSON that a later version may have written.
    Other,
}

/// Appends the line with which a segment, or a run of the server, begins.
pub fn put_head(out: &mut Vec<u8>, epoch: Epoch, first: Seq, time: f64) {
    let time = json_seconds(time);
    put(
        out,
        format_args!(r#"{{"journal":{FORMAT},"epoch":"{epoch}","first":{first},"time":{time}}}"#),
    );
}

/// Appends an event. Line ends between its tokens become spaces; JSON has none elsewhere (RFC 8259 section 2), so it
/// stays the same document.
pub fn put_event(out: &mut Vec<u8>, seq: Seq, time: &str, recovered: Option<NonZeroU64>, payload: &[u8]) {
    // Writing to a Vec cannot fail, here and below.
    let _ = write!(out, r#"{{"seq":{seq},"time":{time},"#);
    if let Some(row) = recovered {
        let _ = write!(out, r#""recovered":{row},"#);
    }
    out.extend_from_slice(br#""event":"#);
    let start = out.len();
    out.extend_from_slice(payload);
    for byte in out[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    out.extend_from_slice(b"}\n");
}

/// Appends numbers without an event.
pub fn put_loss(out: &mut Vec<u8>, loss: &Loss, time: f64) {
    let Loss { from, to, count, cause } = loss;
    let count = count.map_or("null".to_owned(), |count| count.to_string());
    let time = json_seconds(time);
    put(
        out,
        format_args!(r#"{{"seq":{from},"to":{to},"time":{time},"lost":{count},"cause":"{cause}"}}"#),
    );
}

/// Appends the last line of a run; `seq` is the last number given.
pub fn put_end(out: &mut Vec<u8>, seq: Seq, time: f64) {
    let time = json_seconds(time);
    put(out, format_args!(r#"{{"seq":{seq},"time":{time},"end":true}}"#));
}

fn put(out: &mut Vec<u8>, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

/// Reads a line, without its end; `None` when it is damaged. An event is found only in the spelling in which it was
/// written (which `jq -c` keeps), because its bytes are the promise.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    if let Some((seq, time, recovered, payload)) = event_parts(line) {
        let event = event::check_published(payload).ok()?;
        return Some(Line::Event {
            seq,
            time,
            recovered,
            payload,
            event,
        });
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    let number = |key: &str| {
        let number = value.get(key).and_then(Value::as_u64);
        number.filter(|number| *number <= SEQ_MAX)
    };
    let time = || value.get("time").and_then(Value::as_f64).filter(is_time);
    if value.get("journal").is_some() {
        let epoch = value.get("epoch")?.as_str()?.parse().ok()?;
        let first = number("first").filter(|first| *first > 0)?;
        let time = time()?;
        return Some(Line::Head { epoch, first, time });
    }
    if let Some(lost) = value.get("lost") {
        let (from, to) = (number("seq")?, number("to")?);
        let count = match lost {
            Value::Null => None,
            lost => Some(lost.as_u64()?),
        };
        let cause = known_cause(value.get("cause")?.as_str()?);
        let is_sound = from > 0 && from <= to && count.is_none_or(|count| count == to - from + 1);
        let loss = Loss { from, to, count, cause };
        return is_sound.then_some(Line::Loss { loss, time: time()? });
    }
    if value.get("end").is_some() {
        return Some(Line::End {
            seq: number("seq")?,
            time: time()?,
        });
    }
    (value.is_object() && value.get("event").is_none()).then_some(Line::Other)
}

/// Number, time, mark and bytes of an event.
fn event_parts(line: &[u8]) -> Option<(Seq, f64, Option<NonZeroU64>, &[u8])> {
    let (seq, rest) = until_comma(line.strip_prefix(br#"{"seq":"#)?)?;
    let (time, rest) = until_comma(rest.strip_prefix(br#""time":"#)?)?;
    let (recovered, rest) = match rest.strip_prefix(br#""recovered":"#) {
        None => (None, rest),
        Some(rest) => {
            let (row, rest) = until_comma(rest)?;
            (Some(row.parse().ok()?), rest)
        }
    };
    let payload = rest.strip_prefix(br#""event":"#)?.strip_suffix(b"}")?;
    let seq = seq.parse().ok().filter(|seq| (1..=SEQ_MAX).contains(seq))?;
    Some((seq, time.parse().ok().filter(is_time)?, recovered, payload))
}

fn is_time(time: &f64) -> bool {
    (0.0..=TIME_MAX).contains(time)
}

/// Longest number in front of an event.
const NUMBER_BYTES_MAX: usize = 40;

fn until_comma(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let comma = bytes.iter().take(NUMBER_BYTES_MAX).position(|byte| *byte == b',')?;
    Some((std::str::from_utf8(&bytes[..comma]).ok()?, &bytes[comma + 1..]))
}

fn known_cause(name: &str) -> &'static str {
    let ours = [QUEUE_FULL, FAILED, REMOVED, DAMAGED, RESTART];
    let drops = DropCause::TABLE.iter().map(|row| row.1);
    ours.into_iter()
        .chain(drops)
        .find(|known| *known == name)
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice::<IgnoredAny>(&out).expect("a JSON document");
        out
    }

    #[test]
    fn what_is_written_reads_back() {
        let epoch = Epoch::new();
        let time = 1_795_393_480.585_657_1;
        let head = written(|out| put_head(out, epoch, 7, time));
        assert_eq!(parse(&head), Some(Line::Head { epoch, first: 7, time }));
        for (count, cause) in [
            (Some(3), "too_large"),
            (None, RESTART),
            (None, REMOVED),
            (Some(3), QUEUE_FULL),
        ] {
            let loss = Loss {
                from: 8,
                to: 10,
                count,
                cause,
            };
            let line = written(|out| put_loss(out, &loss, time));
            assert_eq!(parse(&line), Some(Line::Loss { loss, time }));
        }
        let end = written(|out| put_end(out, 10, time));
        assert_eq!(parse(&end), Some(Line::End { seq: 10, time }));
    }

    #[test]
    fn an_event_keeps_its_bytes_but_for_line_ends() {
        for (payload, expected) in [
            (
                " {\"type\" : \"a\", \"n\":1.50, \"n\":1e0} ",
                " {\"type\" : \"a\", \"n\":1.50, \"n\":1e0} ",
            ),
            ("{\"é\":\"\\ud83d}\"}", "{\"é\":\"\\ud83d}\"}"),
            ("{\r\n\t\"a\":\n1}\n", "{  \t\"a\": 1} "),
            ("{}", "{}"),
            (
                r#"{"type":"machine_stuck","server":true}"#,
                r#"{"type":"machine_stuck","server":true}"#,
            ),
        ] {
            for mark in [None, NonZeroU64::new(7)] {
                let line = written(|out| put_event(out, 5, "1.5", mark, payload.as_bytes()));
                match parse(&line) {
                    Some(Line::Event {
                        seq,
                        time,
                        recovered,
                        payload,
                        ..
                    }) => assert_eq!((seq, time, recovered, payload), (5, 1.5, mark, expected.as_bytes())),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        let event = written(|out| put_event(out, 5, "1.5", None, br#"{"type":"a"}"#));
        for len in 0..event.len() {
            assert_eq!(parse(&event[..len]), None, "{}", String::from_utf8_lossy(&event[..len]));
        }
        for text in [
            "\0\0\0\0",
            "text",
            "[]",
            r#"{"seq":0,"time":1.5,"event":{}}"#,
            r#"{"seq":5,"time":1.5,"event":[]}"#,
            r#"{"seq":5,"time":1.5,"recovered":0,"event":{}}"#,
            r#"{"seq":5,"time":1.5,"event":{}}{"seq":6,"time":1.5,"event":{}}"#,
            r#"{"seq": 5, "time": 1.5, "event": {}}"#,
            r#"{"seq":5,"to":4,"time":1.5,"lost":1,"cause":"too_large"}"#,
            r#"{"seq":5,"to":7,"time":1.5,"lost":1,"cause":"too_large"}"#,
            r#"{"journal":1,"epoch":"x","first":1,"time":1.5}"#,
            r#"{"journal":1,"epoch":"0123456789abcdef","first":9007199254740993,"time":1.5}"#,
            r#"{"journal":1,"epoch":"0123456789abcdef","first":1,"time":-1e300}"#,
            r#"{"seq":18446744073709551615,"time":1.5,"event":{}}"#,
            r#"{"seq":5,"time":-1e300,"event":{}}"#,
            r#"{"seq":5,"time":1e300,"event":{}}"#,
            r#"{"seq":5,"time":NaN,"event":{}}"#,
            r#"{"seq":5,"to":18446744073709551615,"time":1.5,"lost":null,"cause":"restart"}"#,
            r#"{"seq":18446744073709551615,"time":1.5,"end":true}"#,
            r#"{"seq":5,"time":1e300,"end":true}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(br#"{"note":"from a later version"}"#), Some(Line::Other));
    }
}
