//! How threads speak that must not wait for the log, `watchdog` and `start`: standard error without waiting, and the
//! log's file by way of thread `log`.
//!
//! Not by the `log` macros: a line of theirs takes memory from the allocator, which may be what hangs.

use crate::process::clock::pause;
use crate::process::log_sinks::PATIENCE;
use crate::process::log_sinks::terminal::Outlet;
use crate::process::logging::LogControl;
use crate::process::logging::form::{Forms, ROOM_BYTES, Said};
use crate::process::logging::line::compose;
use log::Level;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// How long last words may take to the log's file: 500 ms, because a disk that does not answer must not keep the
/// process.
const LINGER: Duration = Duration::from_millis(500);
/// How long between two looks for them: 20 ms, which is also the time to write them once thread `log` has taken them.
const LINGER_LOOK: Duration = Duration::from_millis(20);

/// One thread's ways to people.
#[derive(Debug)]
pub struct Voice {
    /// What its lines are labelled with, as the log's are: the name of the thread.
    thread: &'static str,
    terminal: Outlet,
    log: Option<LogControl>,
    forms: Forms,
    /// Lines in the form of the terminal or the file; taken once, so that making them takes no memory.
    room: String,
}

impl Voice {
    /// For thread `thread`. What the log would not write is not said; without a log everything is.
    pub fn new(thread: &'static str, log: Option<LogControl>) -> Voice {
        Voice {
            thread,
            terminal: Outlet::stderr(),
            forms: log.as_ref().map_or_else(Forms::default, LogControl::forms),
            log,
            room: String::with_capacity(ROOM_BYTES),
        }
    }

    /// One line, in the log's own forms, to the terminal and to the log's file. Blocks as [`Voice::put`] does.
    pub fn say(&mut self, level: Level, text: &str) {
        if self.log.as_ref().is_none_or(|log| log.writes(level)) {
            let line = compose(level, self.thread, &format_args!("{text}"), OffsetDateTime::now_utc());
            let (terminal, room) = (&mut self.terminal, &mut self.room);
            let to_terminal = |line: &str| {
                // What the terminal does not take is in the log's file.
                let _ = terminal.write_lines(line.as_bytes());
            };
            self.forms.terminal.one(&line, room, to_terminal);
            if let Some(log) = &self.log {
                self.forms.file.one(&line, room, |line| log.leave(line));
            }
        }
    }

    /// Writes finished lines of a report, whose first lines this voice has said at `level`. Blocks as
    /// [`Outlet::write_lines`] does, for all of them together.
    pub fn put(&mut self, level: Level, lines: &str) {
        let said = Said {
            level,
            thread: self.thread,
            at: OffsetDateTime::now_utc(),
        };
        let begun = Instant::now();
        let (terminal, room) = (&mut self.terminal, &mut self.room);
        let to_terminal = |piece: &str| {
            // What the terminal does not take is in the log's file.
            let _ = terminal.write_lines_within(piece.as_bytes(), PATIENCE.saturating_sub(begun.elapsed()));
        };
        self.forms.terminal.pieces(said, lines, room, to_terminal);
        if let Some(log) = &self.log {
            self.forms.file.pieces(said, lines, room, |piece| log.leave(piece));
        }
    }

    /// Blocks until the log's file has what was said, at most [`LINGER`]; for last words.
    pub fn linger(&self) {
        let begun = Instant::now();
        while self.log.as_ref().is_some_and(LogControl::has_left) && begun.elapsed() < LINGER {
            pause(LINGER_LOOK);
        }
        // Taken by thread `log`, which now writes it.
        pause(LINGER_LOOK);
    }
}
