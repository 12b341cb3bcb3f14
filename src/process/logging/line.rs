//! One line of the log, made whole on the thread that logs it.

use crate::process::clock;
use crate::process::visible::judged;
use crate::process::words::count;
use log::Level;
use std::fmt::{self, Write as _};
use time::OffsetDateTime;

/// Longest line; machine names and messages come from outside.
pub(super) const LINE_BYTES_MAX: usize = 4096;

/// A line on its way to the sinks.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) text: String,
}

/// One line without its end: UTC time, level, thread, message with every unsafe character made visible.
pub fn compose(level: Level, thread: &str, args: &fmt::Arguments<'_>, at: OffsetDateTime) -> String {
    let mut text = format!("{} {level:<5} [{thread}] ", clock::rfc3339_of(at));
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
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let line = compose(Level::Info, "ingest", &format_args!("a\nb\u{1b}[31m"), at);
        assert_eq!(line, "1970-01-01T00:00:00.000Z INFO  [ingest] a\\nb\\u{1b}[31m");
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let line = compose(Level::Info, "t", &format_args!("{long}"), OffsetDateTime::UNIX_EPOCH);
        assert!(line.len() < LINE_BYTES_MAX + 64);
        assert!(
            line.ends_with("… (cut, 12288 bytes in all)"),
            "{}",
            &line[line.len() - 60..]
        );
    }
}
