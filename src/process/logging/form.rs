//! How a line of the log looks: for people, for programs, for systemd's journal.
//!
//! Which form a sink has is decided once, before there are threads: the environment, standard error and the zone are
//! read then.

use super::line::{LINE_BYTES_MAX, Line};
use crate::process::clock::push_time;
use crate::process::log_sinks::terminal::ERASE;
use crate::process::tty;
use log::Level;
use rustix::fs::fstat;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use time::{OffsetDateTime, UtcOffset};

/// The setting `log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// What standard error calls for: a status line on a terminal, priorities in systemd's journal, else text.
    #[default]
    Auto,
    /// Lines of text, none of which is rewritten.
    Text,
    /// One JSON object a line, on standard error and in the file.
    Json,
}

/// The forms of the two sinks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forms {
    /// Of what goes to standard error, whatever that is.
    pub terminal: Form,
    /// Of the log's file.
    pub file: Form,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `TIME LEVEL [thread] message`.
    Text(Look),
    /// `{"time":TIME,"level":"info","thread":THREAD,"message":MESSAGE}`, the time in UTC.
    Json,
    /// `<N>LEVEL [thread] message` (sd-daemon(3)): the journal has the time.
    Journal,
}

/// What text depends on. The default is that of the file and of pipes: UTC, all characters, nothing rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    offset: UtcOffset,
    is_ascii: bool,
    /// The newest status line stays at the bottom of the terminal.
    is_live: bool,
}

impl Default for Look {
    fn default() -> Look {
        Look {
            offset: UtcOffset::UTC,
            is_ascii: false,
            is_live: false,
        }
    }
}

impl Default for Form {
    fn default() -> Form {
        Form::Text(Look::default())
    }
}

/// Of whom and when a text of several lines is.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub level: Level,
    pub thread: &'a str,
    pub at: OffsetDateTime,
}

/// What [`Form::pieces`] needs as room: a line of the greatest length, each byte of which is escaped, and its head.
pub const ROOM_BYTES: usize = 3 * LINE_BYTES_MAX;
/// A JSON object that holds several lines of a report ends before this; a pipe takes as much whole (PIPE_BUF, pipe(7)).
const OBJECT_BYTES_MAX: usize = LINE_BYTES_MAX;
/// The end of a JSON object in [`Form::pieces`].
const OBJECT_END: &str = "\"}\n";

impl Forms {
    /// The forms of this process with the setting `format`; with `utc`, times are UTC on a terminal too. Call it while
    /// there is one thread, or local time is taken for UTC.
    pub fn of_process(format: LogFormat, utc: bool) -> Forms {
        let stderr = io::stderr();
        let terminal = match format {
            LogFormat::Json => Form::Json,
            LogFormat::Auto if is_the_journal(&stderr) => Form::Journal,
            LogFormat::Auto | LogFormat::Text if stderr.is_terminal() => Form::Text(Look {
                offset: if utc { UtcOffset::UTC } else { tty::local_offset() },
                is_ascii: tty::is_ascii(),
                is_live: format == LogFormat::Auto && !tty::is_dumb(),
            }),
            LogFormat::Auto | LogFormat::Text => Form::default(),
        };
        let file = match format {
            LogFormat::Json => Form::Json,
            LogFormat::Auto | LogFormat::Text => Form::default(),
        };
        Forms { terminal, file }
    }
}

impl Form {
    /// The zone of the times, if it is another one than UTC.
    pub fn zone(self) -> Option<String> {
        match self {
            Form::Text(look) if !look.offset.is_utc() => Some(tty::offset_name(look.offset)),
            Form::Text(_) | Form::Json | Form::Journal => None,
        }
    }

    /// Returns whether the newest status line stays at the bottom, so that whatever else is written begins with
    /// [`ERASE`].
    pub fn is_live(self) -> bool {
        matches!(self, Form::Text(Look { is_live: true, .. }))
    }

    /// Puts one line behind `out`, without its end. Takes no memory where `out` has room for [`ROOM_BYTES`].
    pub(super) fn push(self, line: &Line, out: &mut String) {
        // A string takes all that is written to it.
        let _ = match self {
            Form::Text(look) => {
                push_time(out, line.at.to_offset(look.offset));
                out.push_str(if look.offset.is_utc() { "Z" } else { "" });
                write!(out, " {:<5} [{}] ", line.level, line.thread())
            }
            Form::Json => {
                push_object(line.level, line.thread(), line.at, out);
                push_escaped(line.message(), out);
                write!(out, "\"}}")
            }
            Form::Journal => write!(out, "<{}>{:<5} {}", priority(line.level), line.level, line.text),
        };
        match self {
            Form::Text(look) => look.push(line.message(), out),
            Form::Json | Form::Journal => {}
        }
    }

    /// The line as it stays at the bottom of a terminal: the time of day, and the message.
    pub(super) fn status(self, line: &Line) -> String {
        let look = match self {
            Form::Text(look) => look,
            Form::Json | Form::Journal => Look::default(),
        };
        let (hour, minute, second) = line.at.to_offset(look.offset).time().as_hms();
        let mut status = format!("{hour:02}:{minute:02}:{second:02} ");
        look.push(line.message(), &mut status);
        status
    }

    /// Hands one line with its end to `emit`. Uses `room`, as [`Form::pieces`] does.
    pub fn one(self, line: &Line, room: &mut String, mut emit: impl FnMut(&str)) {
        self.begin(room);
        self.push(line, room);
        room.push('\n');
        emit(room);
    }

    /// Hands `lines`, finished ones of a report, to `emit`: as they are, or in pieces of whole lines of this form.
    /// Several lines share a JSON object. Takes no memory if `room` has a capacity of [`ROOM_BYTES`].
    pub fn pieces(self, said: Said<'_>, lines: &str, room: &mut String, mut emit: impl FnMut(&str)) {
        match self {
            Form::Text(look) if !look.is_ascii && !look.is_live => emit(lines),
            Form::Json => objects(said, lines, room, emit),
            Form::Text(_) | Form::Journal => {
                self.begin(room);
                for line in lines.lines().map(fitting) {
                    // Its priority and its end.
                    if room.len() + line.len() + 4 > ROOM_BYTES {
                        emit(room);
                        self.begin(room);
                    }
                    match self {
                        Form::Text(look) => look.push(line, room),
                        Form::Json | Form::Journal => {
                            let _ = write!(room, "<{}>{line}", priority(said.level));
                        }
                    }
                    room.push('\n');
                }
                emit(room);
            }
        }
    }

    /// Empties `room` for a piece.
    fn begin(self, room: &mut String) {
        room.clear();
        if self.is_live() {
            room.push_str(ERASE);
        }
    }
}

impl Look {
    fn push(self, text: &str, out: &mut String) {
        if self.is_ascii {
            tty::push_plain(text, out);
        } else {
            out.push_str(text);
        }
    }
}

/// Lines of a report as JSON objects, as many lines in each as fit.
fn objects(said: Said<'_>, lines: &str, room: &mut String, mut emit: impl FnMut(&str)) {
    room.clear();
    for line in lines.lines().map(fitting) {
        // A line end of two bytes is before it.
        let is_full = room.len() + 2 + escaped_len(line) + OBJECT_END.len() > OBJECT_BYTES_MAX;
        if is_full && !room.is_empty() {
            room.push_str(OBJECT_END);
            emit(room);
            room.clear();
        }
        if room.is_empty() {
            push_object(said.level, said.thread, said.at, room);
        } else {
            room.push_str("\\n");
        }
        push_escaped(line, room);
    }
    if !room.is_empty() {
        room.push_str(OBJECT_END);
        emit(room);
    }
}

/// The beginning of a JSON object, up to the message.
fn push_object(level: Level, thread: &str, at: OffsetDateTime, out: &mut String) {
    out.push_str("{\"time\":\"");
    push_time(out, at.to_offset(UtcOffset::UTC));
    out.push_str("Z\",\"level\":\"");
    out.push_str(match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    });
    out.push_str("\",\"thread\":\"");
    push_escaped(thread, out);
    out.push_str("\",\"message\":\"");
}

/// Puts `text` behind `out` as the inside of a JSON string.
fn push_escaped(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
}

/// How many bytes [`push_escaped`] makes of `text`.
fn escaped_len(text: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        ..=0x1f => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(more).sum::<usize>()
}

/// The beginning of a line of a report that would not fit into the room: a third of it, or less where all of it may
/// have to be escaped.
fn fitting(line: &str) -> &str {
    let escapes = line.bytes().filter(|byte| *byte < b' ').count();
    let most = if escapes == 0 {
        LINE_BYTES_MAX
    } else {
        LINE_BYTES_MAX / 4
    };
    &line[..line.floor_char_boundary(most)]
}

/// The priority of sd-daemon(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Returns whether `fd` is the stream to systemd's journal that JOURNAL_STREAM names (systemd.exec(5)). A program that
/// was started with another standard error inherits the variable all the same.
fn is_the_journal(fd: impl AsFd) -> bool {
    let Ok(found) = fstat(fd) else { return false };
    let named = std::env::var("JOURNAL_STREAM").ok();
    named.is_some_and(|stream| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::logging::line::compose;
    use serde_json::Value;

    fn shown(form: Form, message: &str) -> String {
        let line = compose(
            Level::Warn,
            "fanout",
            &format_args!("{message}"),
            OffsetDateTime::UNIX_EPOCH,
        );
        let mut out = String::new();
        form.push(&line, &mut out);
        out
    }

    fn text(hours: i8, is_ascii: bool, is_live: bool) -> Form {
        Form::Text(Look {
            offset: UtcOffset::from_hms(hours, 0, 0).unwrap(),
            is_ascii,
            is_live,
        })
    }

    /// The pieces of a report.
    fn pieces(form: Form, lines: &str) -> Vec<String> {
        let said = Said {
            level: Level::Error,
            thread: "watchdog",
            at: OffsetDateTime::UNIX_EPOCH,
        };
        let mut room = String::with_capacity(ROOM_BYTES);
        let place = room.as_ptr();
        let mut pieces = Vec::new();
        form.pieces(said, lines, &mut room, |piece| pieces.push(piece.to_owned()));
        assert_eq!(room.as_ptr(), place, "no memory is taken");
        pieces
    }

    #[test]
    fn each_form_has_its_line() {
        let message = "⚠️ a \"b\" \\ päivä";
        assert_eq!(
            shown(Form::default(), message),
            "1970-01-01T00:00:00.000Z WARN  [fanout] ⚠️ a \"b\" \\ päivä"
        );
        assert_eq!(
            shown(text(2, true, true), message),
            "1970-01-01T02:00:00.000 WARN  [fanout] a \"b\" \\ päivä"
        );
        assert_eq!(shown(Form::Journal, message), "<4>WARN  [fanout] ⚠️ a \"b\" \\ päivä");
        assert_eq!(
            shown(Form::Json, message),
            r#"{"time":"1970-01-01T00:00:00.000Z","level":"warn","thread":"fanout","message":"⚠️ a \"b\" \\ päivä"}"#
        );
    }

    #[test]
    fn lines_of_a_report_keep_their_form() {
        let report = "📍 fanout  busy\n  #0 main\n";
        assert_eq!(pieces(Form::default(), report), [report]);
        assert_eq!(pieces(Form::Journal, report), ["<3>📍 fanout  busy\n<3>  #0 main\n"]);
        assert_eq!(
            pieces(text(0, true, true), report),
            ["\r\u{1b}[Kfanout  busy\n  #0 main\n"]
        );
        let objects = pieces(Form::Json, report);
        let object: Value = serde_json::from_str(objects[0].trim_end()).unwrap();
        assert_eq!(object["message"], report.trim_end());
        assert_eq!(
            (&object["level"], &object["thread"]),
            (&Value::from("error"), &Value::from("watchdog"))
        );
    }

    #[test]
    fn a_long_report_loses_no_line_in_any_form_and_takes_no_memory() {
        let line = |number: usize| format!("  #{number} \"quoted\\path\" {}\n", "é".repeat(number % 300));
        let report: String = (0..2000).map(line).collect();
        let journal = pieces(Form::Journal, &report).concat();
        assert_eq!(journal.replace("<3>", ""), report);
        assert_eq!(
            pieces(text(0, false, true), &report).concat().replace(ERASE, ""),
            report
        );
        let mut together = String::new();
        for object in pieces(Form::Json, &report) {
            assert!(
                object.len() <= OBJECT_BYTES_MAX && object.ends_with(OBJECT_END),
                "{object}"
            );
            let value: Value = serde_json::from_str(&object).unwrap();
            together.push_str(value["message"].as_str().unwrap());
            together.push('\n');
        }
        assert_eq!(together, report);
    }

    #[test]
    fn lines_that_are_all_escapes_or_too_long_take_no_memory_either() {
        for character in ["\"", "\\", "\t", "é", "\u{1}"] {
            let report = format!("{}\nnext\n", character.repeat(3 * ROOM_BYTES));
            for form in [Form::Json, Form::Journal, text(0, true, true)] {
                let shown = pieces(form, &report).concat();
                assert!(shown.contains("next"), "the rest of the report follows");
                if form == Form::Json {
                    assert!(shown.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
                }
            }
        }
    }
}
