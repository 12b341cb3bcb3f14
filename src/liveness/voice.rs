//! How threads speak that must not wait for the log, `watchdog` and `start`: standard error without waiting, and the log's file
//! by way of thread `log`.
//!
//! Not by the `log` macros: a line of theirs takes memory from the allocator, which may be what hangs.

use crate::process::clock::pause;
use crate::process::log_sinks::Outlet;
use crate::process::logging::{self, LogControl};
use log::Level;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// How long a line waits for a terminal that took the last one.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long, and how finely looked, last words may take to the log's file.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_LOOK: Duration = Duration::from_millis(20);

/// One thread's ways to people.
#[derive(Debug)]
pub struct Voice {
    /// What its lines are labelled with, as the log's are: the name of the thread.
    thread: &'static str,
    terminal: Outlet,
    /// The terminal did not take the last piece: the next one is tried without patience.
    stuck: bool,
    /// What it took last was the beginning of a line.
    cut: bool,
    log: Option<LogControl>,
}

impl Voice {
    /// For thread `thread`. What the log would not write is not said; without a log everything is.
    pub fn new(thread: &'static str, log: Option<LogControl>) -> Voice {
        Voice {
            thread,
            terminal: Outlet::stderr(),
            stuck: false,
            cut: false,
            log,
        }
    }

    /// One line, in the log's own form, to the terminal and to the log's file. Blocks as [`Voice::put`] does.
    pub fn say(&mut self, level: Level, text: &str) {
        if self.log.as_ref().is_none_or(|log| log.writes(level)) {
            let mut line = logging::compose(level, self.thread, &format_args!("{text}"), OffsetDateTime::now_utc());
            line.push('\n');
            self.put(&line);
        }
    }

    /// Finished lines. Blocks at most 50 ms, unless standard error is a file: then as long as its disk does.
    pub fn put(&mut self, lines: &str) {
        let patience = if self.stuck { Duration::ZERO } else { PATIENCE };
        if self.cut {
            self.cut = self.terminal.write_within(b"\n", patience) == 0;
        }
        let taken = self.terminal.write_within(lines.as_bytes(), patience);
        self.stuck = taken < lines.len();
        self.cut |= taken > 0 && !lines.as_bytes()[..taken].ends_with(b"\n");
        if let Some(log) = &self.log {
            log.leave(lines);
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
