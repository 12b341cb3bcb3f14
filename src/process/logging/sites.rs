//! How many lines one place in the code may write: lines that outsiders can cause must not fill a disk.

use crate::process::clock;
use crate::process::locks::try_lock;
use crate::process::words::{count, pick};
use log::{Level, Record};
use std::collections::HashMap;
use std::sync::Mutex;

/// Target of the lines that say how the server does, at our own clock's pace too: they are not limited either, and a
/// terminal that can shows only the newest.
pub const STATUS: &str = "status";
/// Target of lines whose pace is our own clock's, which no outsider can quicken: they are not limited.
pub const SELF_PACED: &str = "self-paced";

/// Lines that one place in the code may write per window.
pub(super) const SITE_LINES_MAX: u32 = 20;
/// Length of such a window.
const SITE_WINDOW_MS: u64 = 10_000;

/// A place in the code that logs, and one of the levels that it logs at: few important lines of a place must not go
/// under in its many others.
pub(super) type SiteKey = (&'static str, u32, Level);

/// What one place in the code has written at one level in the current window.
#[derive(Debug)]
pub(super) struct Site {
    window_start_ms: u64,
    lines: u32,
    pub(super) left_out: u64,
    example: String,
}

/// Every place that has logged.
#[derive(Debug, Default)]
pub(super) struct Sites {
    /// Bounded by the program's text: keys are compiled in, one for each logging macro and level. Nobody waits for this
    /// lock: a thread that finds it taken writes without a limit.
    pub(super) by_place: Mutex<HashMap<SiteKey, Site>>,
}

impl Sites {
    /// Returns whether the place that made `record` may write another line now, and counts it there. Never blocks.
    pub(super) fn admits(&self, record: &Record<'_>) -> bool {
        let (Some(file), Some(line)) = (record.file_static(), record.line()) else {
            return true;
        };
        if record.level() > Level::Info || record.target() == SELF_PACED || record.target() == STATUS {
            return true;
        }
        let now = clock::monotonic_ms();
        let Some(mut sites) = try_lock(&self.by_place) else {
            return true;
        };
        let site = sites.entry((file, line, record.level())).or_insert_with(|| Site {
            window_start_ms: now,
            lines: 0,
            left_out: 0,
            example: String::new(),
        });
        // A window with lines left out is ended by thread `log`, which says so.
        if site.left_out == 0 && now.saturating_sub(site.window_start_ms) >= SITE_WINDOW_MS {
            site.window_start_ms = now;
            site.lines = 0;
        }
        site.lines = site.lines.saturating_add(1);
        if site.lines <= SITE_LINES_MAX {
            return true;
        }
        if site.left_out == 0 {
            site.example = format!("{}", record.args()).chars().take(60).collect();
        }
        site.left_out += 1;
        false
    }

    /// Ends the windows in which lines were left out: those that are over, all of them if `at_end`. Returns a message
    /// for each. Never blocks.
    pub(super) fn end_windows(&self, at_end: bool) -> Vec<String> {
        let now = clock::monotonic_ms();
        let mut messages = Vec::new();
        // Held for microseconds; who finds it taken comes back next turn.
        let Some(mut sites) = try_lock(&self.by_place) else {
            return messages;
        };
        for site in sites.values_mut() {
            let over = now.saturating_sub(site.window_start_ms) >= SITE_WINDOW_MS;
            if site.left_out > 0 && (over || at_end) {
                messages.push(format!(
                    "⚠️ {} like “{}…” {} left out within {:.0} s",
                    count(site.left_out, "more line"),
                    site.example,
                    pick(site.left_out, "was", "were"),
                    now.saturating_sub(site.window_start_ms) as f64 / 1000.0,
                ));
                site.window_start_ms = now;
                site.lines = 0;
                site.left_out = 0;
            }
        }
        messages
    }
}
