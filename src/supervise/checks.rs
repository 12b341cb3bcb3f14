//! The signs that a service is well: how each is looked at, and when it counts as failed. A look may block on disks and
//! on others' answers, so a thread of its own does it; thread `act` judges.

pub mod elements;
mod files;
pub mod judgement;
mod log_line;
mod server;
pub mod sight;

use crate::process::address::ServerAddress;
use crate::process::words;
use crate::supervise::checks::sight::{Figure, Kind, Sight};
use crate::supervise::children::{Children, Purpose};
use crate::supervise::errand::{self, Errand};
use crate::supervise::probe::{self, Place};
use crate::supervise::settings::plan::{CommandLine, Sign};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the looks at one sign remember from one to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo {
    file: files::FileMemo,
    queue: files::QueueMemo,
    number: (Option<f64>, files::Moves),
    log: log_line::LogMemo,
    events: server::EventMemo,
}

/// What a look needs to know.
#[derive(Debug)]
pub(super) struct With {
    pub(super) place: Place,
    pub(super) children: Children,
    pub(super) url: ServerAddress,
    pub(super) log: PathBuf,
    /// Where the log of this start begins; `None`: nobody knows.
    pub(super) log_bytes: Option<u64>,
    pub(super) timeout: Duration,
}

/// Looks at a sign. Blocks for the timeout and a second more, and on disks.
pub(super) fn look(sign: &Sign, with: &With, memo: &mut Memo, since: Instant) -> Sight {
    let now = Instant::now();
    let times = (since, now);
    match sign {
        Sign::File { path, max_age } => files::look_at_age(path, *max_age, &mut memo.file, times),
        Sign::Queue {
            path,
            format,
            moves_within,
        } => files::look_at_queue(path, format, *moves_within, &mut memo.queue, times),
        Sign::CommandQueue { command, moves_within } => match run(command, with) {
            Ok(said) => files::look_at_number(&said, *moves_within, &mut memo.number, (since, Instant::now())),
            Err(why) => Sight::new(Kind::Failing, why),
        },
        Sign::Probe(probe) => match probe::answers(probe, &with.place, &with.children, with.timeout) {
            Ok(()) => Sight::new(Kind::Well, "it answers"),
            Err(why) => Sight::new(Kind::Failing, why),
        },
        Sign::Log { text, max_age } => {
            log_line::look_at_log((&with.log, text), *max_age, with.log_bytes, &mut memo.log, times)
        }
        Sign::Machine { machine, stuck, silent } => match server::machines(&with.url, machine, with.timeout) {
            Ok(machines) => server::judge_verdicts(&machines, (machine, *stuck, *silent), times),
            Err(why) => is_away(&why),
        },
        Sign::Heartbeat { machine, max_age } => match server::machines(&with.url, machine, with.timeout) {
            Ok(machines) => memo.events.judge(&machines, (machine, *max_age), times),
            Err(why) => {
                memo.events.miss();
                is_away(&why)
            }
        },
        Sign::Memory { .. } => Sight::new(Kind::Open, "not known yet"),
    }
}

fn is_away(why: &str) -> Sight {
    Sight::new(Kind::Blind, format!("the server does not answer: {why}"))
}

fn run(command: &CommandLine, with: &With) -> Result<Vec<u8>, String> {
    let errand = Errand {
        command: &command.words,
        cwd: &with.place.cwd,
        environment: &with.place.environment,
        timeout: with.timeout,
    };
    let begun = with.children.start(Purpose::Errand, || errand::begin(&errand))?;
    errand::finish(begun, &with.children)
}

/// Judges what all processes of a service take together, in bytes; `None`: nobody has looked yet. Never blocks.
pub(super) fn judge_memory(taken: Option<u64>, most: usize) -> Sight {
    let Some(bytes) = taken else {
        return Sight::new(Kind::Open, "not known yet");
    };
    let kind = if bytes > most as u64 { Kind::Failing } else { Kind::Well };
    let text = format!(
        "its processes take {} of {}",
        words::size(bytes as f64),
        words::size(most as f64)
    );
    let figure = Figure {
        bytes: Some(bytes),
        ..Figure::default()
    };
    Sight::new(kind, text).with(figure)
}
