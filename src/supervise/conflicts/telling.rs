//! Says in the log, as an event and on the board how often programs run. Thread `look` calls it in its turns.

use super::{Counter, Level, Seen};
use crate::process::clock::epoch_seconds;
use crate::supervise::board::Board;
use crate::supervise::census::Census;
use crate::supervise::events::Events;
use crate::supervise::settings::plan::SERVER;

/// What was told last.
#[derive(Debug)]
pub struct Telling {
    counter: Counter,
    events: Events,
    levels: Vec<Level>,
    /// The server has heard of all of them, and when the server was started that we start, if we do.
    registered: Option<Option<f64>>,
}

impl Telling {
    /// Tells of what `counter` counts.
    pub fn new(counter: Counter, events: Events) -> Telling {
        Telling {
            counter,
            events,
            levels: Vec::new(),
            registered: None,
        }
    }

    /// One look, at the processes that `census` has found last.
    pub fn look(&mut self, census: &Census, board: &Board) {
        if self.counter.is_empty() {
            return;
        }
        let seen = self.counter.count(census);
        self.levels.resize(seen.len(), Level::Fine);
        let rows = board.rows();
        let server = rows.iter().find(|(name, _)| **name == *SERVER);
        let server = server.and_then(|(_, row)| row.started);
        if self.registered != Some(server) {
            let told = seen.iter().zip(&self.levels).all(|(seen, level)| {
                let epoch = epoch_seconds();
                self.events.register_conflict(&seen.name, level.name(), epoch)
            });
            self.registered = told.then_some(server);
        }
        for (seen, before) in seen.iter().zip(&mut self.levels) {
            let before = std::mem::replace(before, seen.level);
            if before != seen.level {
                say(seen, before);
                let (from, to) = (before.name(), seen.level.name());
                self.events
                    .change_conflict(&seen.name, (from, to), seen.found.len(), epoch_seconds());
            }
        }
        board.show_conflicts(seen);
    }
}

fn say(seen: &Seen, before: Level) {
    let words = seen.in_words();
    let advice = "`threadcast services status --json` lists them, `threadcast services cleanup` ends strays";
    match seen.level {
        Level::Critical => log::error!("🚨 conflict {words}; {advice}"),
        Level::Warning if before == Level::Critical => log::warn!("⚠️ conflict {words}: critical no more"),
        Level::Warning => log::warn!("⚠️ conflict {words}; {advice}"),
        Level::Fine => log::info!("✅ conflict {words}: it is over"),
    }
}
