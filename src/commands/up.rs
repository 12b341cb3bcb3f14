//! `threadcast up`: starts what a file of services describes, watches it, and stops it at Ctrl-C or SIGTERM.

mod arguments;
mod beside;
mod ground;
mod running;
mod shown;

use crate::commands::end_signals::end_signals;
use crate::commands::{check_services, complain, print};
use crate::process::clock::pause;
use crate::process::exit::ExitStatus;
use crate::process::signals::EndSignals;
use crate::supervise::act::Outcome;
use crate::supervise::board::State;
use crate::supervise::settings;
pub use arguments::Up;
use beside::Beside;
use ground::Ground;
use running::Running;
use std::time::Duration;

/// How often the threads are watched.
const TURN: Duration = Duration::from_millis(250);
/// What runs beside the services is asked to end when they are.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// The command. Runs until a signal, or until the command of `until_ready` has ended.
pub fn run(up: &Up) -> ExitStatus {
    let plan = match settings::read(&up.file, &std::env::vars_os().collect()) {
        Ok(plan) => plan,
        Err(faults) => return check_services::tell(&faults),
    };
    let signals = end_signals();
    let ground = match Ground::new(plan, up, signals.as_deref()) {
        Ok(ground) => ground,
        Err(why) => {
            complain(&format!("threadcast: {why}\n"));
            return ExitStatus::Failed;
        }
    };
    print(&shown::phases(ground.plan()));
    let running = match ground.start() {
        Ok(running) => running,
        Err(why) => {
            complain(&format!("threadcast: cannot start: {why}\n"));
            return ExitStatus::Failed;
        }
    };
    attend(running, signals.as_deref(), up.until_ready.as_deref())
}

/// Watches everything until it is over.
fn attend(mut running: Running, signals: Option<&EndSignals>, until_ready: Option<&[String]>) -> ExitStatus {
    let mut is_told = false;
    let (mut is_ending, mut is_hasty) = (false, false);
    let mut beside: Option<Beside> = None;
    // A command that never ran has not succeeded.
    let mut status = match until_ready {
        Some(_) => ExitStatus::Failed,
        None => ExitStatus::Fine,
    };
    while !running.is_over() {
        running.guard();
        let is_asked = signals.map_or_else(
            || {
                pause(TURN);
                false
            },
            |signals| signals.is_requested_within(TURN),
        );
        if is_asked && !is_ending {
            is_ending = true;
            // The command needs the services: it ends before them.
            match &mut beside {
                Some(beside) => beside.terminate(),
                None => running.end(),
            }
        } else if is_asked {
            // A signal stays: the turn must not spin.
            pause(TURN);
            if !is_hasty && signals.is_some_and(EndSignals::requested_again) {
                is_hasty = true;
                beside.iter_mut().for_each(Beside::hasten);
                running.hasten();
            }
        }
        if !is_told && !is_ending && running.is_settled() {
            is_told = true;
            print(&shown::table(&running));
            if let Some(command) = until_ready {
                match begin_beside(&running, command) {
                    Ok(child) => beside = Some(child),
                    Err(why) => {
                        complain(&format!("threadcast: {why}\n"));
                        (status, is_ending) = (ExitStatus::Failed, true);
                        running.end();
                    }
                }
            }
        }
        if let Some(end) = beside.as_mut().and_then(Beside::ending) {
            beside = None;
            (status, is_ending) = (end, true);
            running.end();
        }
    }
    if let Some(mut beside) = beside {
        // The thread that stops services has failed.
        beside.hasten();
        status = ExitStatus::Failed;
    }
    end(running, status)
}

/// Starts the command of `--until-ready`, if all services are as they should be.
fn begin_beside(running: &Running, command: &[String]) -> Result<Beside, String> {
    let rows = running.board().rows();
    let bad = rows.iter().filter(|(_, row)| !row.is_well);
    let bad: Vec<String> = bad
        .map(|(name, row)| match row.state {
            State::Running => format!("{name}: {}", row.note),
            state => format!("{name} is {}", state.name()),
        })
        .collect();
    if !bad.is_empty() {
        return Err(format!("`{}` is not run: {}", command.join(" "), bad.join(", ")));
    }
    Beside::begin(command, running.children())
}

fn end(running: Running, status: ExitStatus) -> ExitStatus {
    match running.finish(LAST_LOOK) {
        Ok(Outcome { left }) if left.is_empty() => status,
        Ok(Outcome { left }) => {
            for why in left {
                complain(&format!("threadcast: {why}\n"));
            }
            ExitStatus::Failed
        }
        Err(why) => {
            complain(&format!("threadcast: {why}\n"));
            ExitStatus::Failed
        }
    }
}
