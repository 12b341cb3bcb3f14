//! `threadcast demo`: five machines that live beside a running server until Ctrl-C or SIGTERM, so that there is
//! something to see.

mod kinds;
pub mod play;

use crate::commands::complain;
use crate::commands::emit::envelope;
use crate::commands::end_signals::end_signals;
use crate::commands::sender::{EventSender, Refusal};
use crate::process::clock::{epoch_seconds, pause};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::process::words::count;
use play::{Event, Freeze, Moment, Note, Play};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A demonstration must not hold itself up.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);
/// How soon Ctrl-C is noticed.
const LOOK: Duration = Duration::from_millis(50);
/// How often a server that does not take events is complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What the command was asked for.
#[derive(Debug)]
pub struct Demo {
    /// The server's event socket.
    pub path: PathBuf,
    pub freeze: Freeze,
}

/// The command. Runs until a signal; blocks 200 ms at most on an event that the server does not take.
pub fn run(demo: &Demo) -> ExitStatus {
    let path = &demo.path;
    let signals = end_signals();
    let mut stage = Stage::new(path);
    let mut play = Play::new(fastrand::u64(..), demo.freeze.clone());
    complain(&format!(
        "threadcast: five machines send events to {}; Ctrl-C ends them\n",
        visible(&path.display().to_string())
    ));
    while !signals.as_ref().is_some_and(|signals| signals.requested()) {
        stage.emit(play.turn(stage.now()));
        play.notes().into_iter().for_each(tell);
        pause(LOOK);
    }
    stage.emit(play.end(stage.now()));
    complain(&format!(
        "threadcast: {} sent, {} refused\n",
        count(stage.sent, "event"),
        stage.refused
    ));
    if stage.sent > 0 {
        ExitStatus::Fine
    } else {
        ExitStatus::Failed
    }
}

fn tell(note: Note) {
    complain(&match note {
        Note::Frozen(name, state) => {
            format!("threadcast: {name} is frozen in {state}: it sends activity, and changes its state no more\n")
        }
        Note::Moves(name) => format!("threadcast: {name} moves again\n"),
    });
}

struct Stage {
    begun: Instant,
    sender: EventSender,
    sent: u64,
    refused: u64,
    complained: Option<Instant>,
}

impl Stage {
    fn new(path: &Path) -> Stage {
        Stage {
            begun: Instant::now(),
            sender: EventSender::new(path),
            sent: 0,
            refused: 0,
            complained: None,
        }
    }

    fn now(&self) -> Moment {
        Moment {
            since: self.begun.elapsed(),
            epoch: epoch_seconds(),
        }
    }

    fn emit(&mut self, events: Vec<Event>) {
        for event in events {
            let envelope = envelope(event.kind, event.machine, &event.payload);
            match self.sender.send(envelope.as_bytes(), SEND_TIMEOUT) {
                Ok(()) => self.sent += 1,
                Err(refusal) => self.complain_of(refusal),
            }
        }
    }

    fn complain_of(&mut self, refusal: Refusal) {
        self.refused += 1;
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            complain(&format!("threadcast: an event was refused: {refusal}; going on\n"));
        }
    }
}

#[cfg(test)]
mod tests;
