//! How the watchdog speaks: standard error without waiting, and the log's file by way of thread `log`.
//!
//! Not by the `log` macros: a line of theirs takes memory from the allocator, which may be what hangs.

use crate::process::log_sinks::Outlet;
use crate::process::logging::{self, LogControl};
use log::Level;
use std::time::Duration;
use time::OffsetDateTime;

/// How long a line waits for a terminal that took the last one.
const PATIENCE: Duration = Duration::from_millis(50);

/// The watchdog's ways to people.
#[derive(Debug)]
pub struct Voice {
    terminal: Outlet,
    /// The terminal did not take the last piece: the next one is tried without patience.
    stuck: bool,
    log: Option<LogControl>,
    level: log::LevelFilter,
}

impl Voice {
    /// Lines graver than or as grave as `level` are said.
    pub fn new(log: Option<LogControl>, level: log::LevelFilter) -> Voice {
        Voice {
            terminal: Outlet::stderr(),
            stuck: false,
            log,
            level,
        }
    }

    /// One line, in the log's own form, to the terminal and to the log's file. Blocks at most 50 ms.
    pub fn say(&mut self, level: Level, text: &str) {
        if level <= self.level {
            let mut line = logging::compose(level, "watchdog", &format_args!("{text}"), OffsetDateTime::now_utc());
            line.push('\n');
            self.put(&line);
        }
    }

    /// Finished lines. Blocks at most 50 ms.
    pub fn put(&mut self, lines: &str) {
        let patience = if self.stuck { Duration::ZERO } else { PATIENCE };
        let taken = self.terminal.write_within(lines.as_bytes(), patience);
        self.stuck = taken < lines.len();
        if let Some(log) = &self.log {
            log.leave(lines);
        }
    }
}
