//! How `tail` writes an event: for people, for grep, for programs.

use crate::commands::painter::{BOLD, DIM, GREEN, NONE, Painter, RED, YELLOW};
use crate::commands::tail::told::{self, Told};
use crate::process::tty;
use crate::process::visible::{visible, visible_json};
use crate::stream::event::Event;
use serde_json::Value;
use std::io::IsTerminal;
use time::{OffsetDateTime, UtcOffset};

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Time, machine, what happened; colors on a terminal.
    Human,
    /// The same without time and colors, one space between words.
    Compact,
    /// The event as it came.
    Json,
}

/// Makes lines.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    /// True if a terminal reads what we write.
    terminal: bool,
    painter: Painter,
    offset: UtcOffset,
}

impl Lines {
    /// Looks at standard output, its colors and the local time zone. Times are local on a terminal, unless `utc`, and
    /// UTC elsewhere. Call it while there is one thread.
    pub fn new(format: Format, utc: bool) -> Lines {
        let terminal = std::io::stdout().is_terminal();
        Lines {
            format,
            terminal,
            painter: match format {
                Format::Human => Painter::of_stdout(),
                Format::Compact | Format::Json => Painter::default(),
            },
            offset: if terminal && !utc {
                tty::local_offset()
            } else {
                UtcOffset::UTC
            },
        }
    }

    /// The zone of the times that a person reads on a terminal: a pipe always has UTC.
    pub fn zone(&self) -> Option<String> {
        (self.terminal && self.format == Format::Human).then(|| tty::offset_name(self.offset))
    }

    /// The line of one event, whose text is `text`.
    pub fn line(&self, event: &Event<'_>, text: &str) -> String {
        if self.format == Format::Json {
            // A line end inside an event stands between its tokens, where any white space is the same.
            let line = text.trim_end().replace(['\n', '\r'], " ");
            return format!("{}\n", if self.terminal { visible_json(&line) } else { line });
        }
        let value = serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_lone_surrogates(text)));
        let value: Value = value.unwrap_or_default();
        let kind = event.kind.as_deref().unwrap_or("(no type)");
        let machine = event.machine.as_deref().unwrap_or("(no machine)").to_owned();
        let told = told::told(kind, &value, |began| self.since(began));
        let Told { who, color, what } = told.unwrap_or_else(|| {
            let (color, what) = happening(kind, event.state.as_deref(), &value);
            Told {
                who: machine,
                color,
                what,
            }
        });
        let (machine, what) = (visible(&who), visible(&what));
        match self.format {
            Format::Compact => format!("{machine} {what}\n"),
            _ => format!(
                "{} {} {}\n",
                self.painter.paint(DIM, &self.time(event.time)),
                self.painter.paint(BOLD, &format!("{machine:<20}")),
                self.painter.paint(color, &what)
            ),
        }
    }

    fn time(&self, seconds: Option<&str>) -> String {
        let moment = seconds.and_then(|seconds| self.moment(seconds.parse().ok()?));
        let moment = moment.unwrap_or_else(|| OffsetDateTime::now_utc().to_offset(self.offset));
        let (hour, minute, second, milli) = moment.time().as_hms_milli();
        format!("{hour:02}:{minute:02}:{second:02}.{milli:03}")
    }

    /// The moment `seconds` after the epoch, in the zone of the lines; `None` if no calendar has it.
    fn moment(&self, seconds: f64) -> Option<OffsetDateTime> {
        let moment = OffsetDateTime::from_unix_timestamp_nanos((seconds * 1e9) as i128).ok()?;
        moment.checked_to_offset(self.offset)
    }

    /// `, since 10:31:22`, with the date if that was another day. Lines for grep have no times.
    fn since(&self, began: f64) -> String {
        let Some(moment) = self.moment(began).filter(|_| self.format == Format::Human) else {
            return String::new();
        };
        let (hour, minute, second) = moment.time().as_hms();
        let today = OffsetDateTime::now_utc().to_offset(self.offset).date();
        let day = if moment.date() == today {
            String::new()
        } else {
            format!("{} ", moment.date())
        };
        format!(", since {day}{hour:02}:{minute:02}:{second:02}")
    }
}

/// What an event says, and its color.
fn happening(kind: &str, state: Option<&str>, event: &Value) -> (&'static str, String) {
    let payload = event.get("payload").unwrap_or(&Value::Null);
    let field = |name: &str| payload.get(name).and_then(Value::as_str);
    match kind {
        "state_change" => {
            let from = field("from_state").or_else(|| event.get("previous_state")?.as_str());
            let trigger = ["event_trigger", "event", "event_name", "trigger"]
                .into_iter()
                .find_map(field);
            let from = from.map_or(String::new(), |from| format!("{from} "));
            let trigger = trigger.map_or(String::new(), |trigger| format!(" ({trigger})"));
            (NONE, format!("{from}-> {}{trigger}", state.unwrap_or("?")))
        }
        "machine_registered" => (GREEN, format!("registered as {}", state.unwrap_or("?"))),
        "machine_terminated" => (YELLOW, "terminated".to_owned()),
        "error" => {
            let job = field("job_id").map_or(String::new(), |job| format!(" (job {job})"));
            (RED, format!("error: {}{job}", field("error_message").unwrap_or("?")))
        }
        "activity_log" => {
            let color = match field("level").map(str::to_ascii_lowercase).as_deref() {
                Some("error") => RED,
                Some("warning" | "warn") => YELLOW,
                Some("success") => GREEN,
                _ => NONE,
            };
            (color, field("message").unwrap_or("?").to_owned())
        }
        "job_started" | "job_completed" => (GREEN, format!("{kind} {}", field("job_id").unwrap_or("?"))),
        "file_appeared" | "file_changed" | "file_gone" | "file_settled" => {
            let what = kind.trim_start_matches("file_");
            (NONE, format!("{} {what}", field("path").unwrap_or("?")))
        }
        _ if payload.is_null() || payload.as_object().is_some_and(serde_json::Map::is_empty) => (NONE, kind.to_owned()),
        _ => (NONE, format!("{kind} {payload}")),
    }
}

/// `json` with every escape of half a character replaced: such text is JSON, but no string can hold it.
fn without_lone_surrogates(json: &str) -> String {
    let code = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut text = String::with_capacity(json.len());
    let mut at = 0;
    while let Some(found) = json[at..].find('\\') {
        let escape = at + found;
        text.push_str(&json[at..escape]);
        let (len, lone) = match (code(escape), code(escape + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            // A backslash and what it escapes, so that `\\\\u` is not taken for the beginning of one.
            _ => (2, false),
        };
        let end = (escape + len).min(json.len());
        text.push_str(if lone { "\\ufffd" } else { &json[escape..end] });
        at = end;
    }
    text.push_str(&json[at..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::event::{check, check_published};

    fn line(format: Format, text: &str) -> String {
        let lines = Lines {
            format,
            terminal: true,
            painter: Painter::default(),
            offset: UtcOffset::UTC,
        };
        lines.line(&check(text.as_bytes()).unwrap(), text)
    }

    const CHANGE: &str = r#"{"machine_name": "w1", "type": "state_change", "payload": {"from_state": "a", "to_state": "b", "event_trigger": "go", "timestamp": 3661.25}}"#;

    #[test]
    fn people_see_time_machine_and_what_happened() {
        assert_eq!(
            line(Format::Human, CHANGE),
            format!("01:01:01.250 {:<20} a -> b (go)\n", "w1")
        );
        assert_eq!(line(Format::Compact, CHANGE), "w1 a -> b (go)\n");
        assert_eq!(line(Format::Json, CHANGE), format!("{CHANGE}\n"));
    }

    #[test]
    fn every_kind_and_dialect_has_its_words() {
        for (text, expected) in [
            (
                r#"{"machine_id":"m","type":"state_change","state":"b","previous_state":"a"}"#,
                "m a -> b",
            ),
            (
                r#"{"machine_name":"m","event_type":"state_change","payload":{"to_state":"b"}}"#,
                "m -> b",
            ),
            (
                r#"{"machine_name":"watch/ideas","type":"file_settled","payload":{"path":"/p/ideas.json"}}"#,
                "watch/ideas /p/ideas.json settled",
            ),
            (
                r#"{"machine_name":"m","type":"machine_registered","payload":{"current_state":"s"}}"#,
                "m registered as s",
            ),
            (
                r#"{"machine_name":"m","type":"machine_terminated","payload":{}}"#,
                "m terminated",
            ),
            (
                r#"{"machine_name":"m","type":"error","payload":{"error_message":"boom","job_id":"j"}}"#,
                "m error: boom (job j)",
            ),
            (
                r#"{"machine_name":"m","type":"activity_log","payload":{"message":"hi"}}"#,
                "m hi",
            ),
            (
                r#"{"machine_name":"m","type":"job_started","payload":{"job_id":"7"}}"#,
                "m job_started 7",
            ),
            (r#"{"machine_name":"m","type":"new_job","payload":{}}"#, "m new_job"),
            (
                r#"{"machine_name":"m","type":"new_job","payload":{"a":1}}"#,
                r#"m new_job {"a":1}"#,
            ),
            (r#"{}"#, "(no machine) (no type)"),
        ] {
            assert_eq!(line(Format::Compact, text), format!("{expected}\n"));
        }
    }

    /// As docs/protocol.md has them.
    const STUCK: &str = r#"{"machine_name":"encoder-3","type":"machine_stuck","server":true,"payload":{"machine_name":"encoder-3","config_type":"worker","state":"encoding","seconds":31.204,"usual_median":1.146,"usual_p99":2.097,"n":312,"limit":30.0,"why":"usually 1.1 s there; it is alive","timestamp":1795393512.875}}"#;

    #[test]
    fn what_the_server_tells_of_machines_has_words() {
        let shown = |text: &str| {
            let lines = Lines {
                format: Format::Human,
                terminal: false,
                painter: Painter::default(),
                offset: UtcOffset::UTC,
            };
            lines.line(&check_published(text.as_bytes()).unwrap(), text)
        };
        assert_eq!(
            shown(STUCK),
            "00:25:12.875 encoder-3            stuck in encoding for 31.2s, since 2026-11-23 00:24:41: usually 1.1 s \
             there; it is alive\n"
        );
        let spoof = STUCK.replace("\"server\":true", "\"server\":false");
        assert!(
            shown(&spoof).contains(" machine_stuck {"),
            "a sender's has no such words"
        );
        assert_eq!(line(Format::Json, &spoof), format!("{spoof}\n"));
    }

    #[test]
    fn no_event_drives_the_terminal() {
        let text =
            r#"{"machine_name":"m\u001b[31m\u200b","type":"activity_log","payload":{"message":"a\nb\u0007\ufeff"}}"#;
        assert_eq!(
            line(Format::Compact, text),
            "m\\u{1b}[31m\\u{200b} a\\nb\\u{7}\\u{feff}\n"
        );
    }

    #[test]
    fn json_on_a_terminal_keeps_its_value_and_drives_nothing() {
        let text = "{\"a\":\"\u{9b}31m\u{202e}\u{61c}\u{e0001}\",\n\"b\":1}";
        let shown = line(Format::Json, text);
        assert_eq!(shown, "{\"a\":\"\\u009b31m\\u202e\\u061c\\udb40\\udc01\", \"b\":1}\n");
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&shown), value(text));
    }

    #[test]
    fn half_a_character_hides_nothing_else() {
        for (message, shown) in [
            (r"cut \ud83d here", "cut \u{fffd} here"),
            (r"whole \ud83d\ude00", "whole \u{1f600}"),
            (r"\ude00\ud83d\ude00\ud83d", "\u{fffd}\u{1f600}\u{fffd}"),
            (r"no escape: \\ud83d \ud83d", "no escape: \\ud83d \u{fffd}"),
        ] {
            let text = format!(r#"{{"machine_name":"m","type":"activity_log","payload":{{"message":"{message}"}}}}"#);
            assert_eq!(line(Format::Compact, &text), format!("m {shown}\n"));
        }
    }
}
