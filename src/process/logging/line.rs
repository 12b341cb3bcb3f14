//! One line of the log, its message made whole on the thread that logs it.

use crate::process::visible::judged;
use crate::process::words::count;
use log::Level;
use std::fmt::{self, Write as _};
use time::OffsetDateTime;

/// Longest thread and message; machine names and messages come from outside. What is cut off says so in some 40 bytes
/// more.
pub const LINE_BYTES_MAX: usize = 4096;

/// A line on its way to the sinks.
#[derive(Debug)]
pub struct Line {
    pub(super) level: Level,
    pub(super) at: OffsetDateTime,
    /// `[thread] message`.
    pub(super) text: String,
    message_at: usize,
    /// It says how the server does: a terminal that can shows only the newest of these.
    pub(super) is_status: bool,
}

impl Line {
    /// The name of the thread that says it.
    pub(super) fn thread(&self) -> &str {
        // Between the brackets, as `compose` writes them.
        &self.text[1..self.message_at - 2]
    }

    /// What it says.
    pub(super) fn message(&self) -> &str {
        &self.text[self.message_at..]
    }
}

/// One line: its message with every unsafe character made visible.
pub fn compose(level: Level, thread: &str, args: &fmt::Arguments<'_>, at: OffsetDateTime) -> Line {
    let mut text = format!("[{thread}] ");
    let message_at = text.len();
    let message = args.to_string();
    for (character, is_treacherous) in judged(&message) {
        if text.len() >= LINE_BYTES_MAX {
            let _ = write!(text, "… (cut, {} in all)", count(message.len(), "byte"));
            break;
        }
        if is_treacherous {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    Line {
        level,
        at,
        text,
        message_at,
        is_status: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &fmt::Arguments<'_>) -> Line {
        compose(Level::Info, "ingest", args, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let line = line(&format_args!("a\nb\u{1b}[31m"));
        assert_eq!(line.text, "[ingest] a\\nb\\u{1b}[31m");
        assert_eq!((line.thread(), line.message()), ("ingest", "a\\nb\\u{1b}[31m"));
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let line = line(&format_args!("{long}")).text;
        assert!(line.len() < LINE_BYTES_MAX + 64);
        assert!(
            line.ends_with("… (cut, 12288 bytes in all)"),
            "{}",
            &line[line.len() - 60..]
        );
    }
}
