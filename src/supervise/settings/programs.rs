//! Programs and folders that a plan names: whether they are there.

use crate::config::file::Place;
use crate::process::command_line::join;
use crate::supervise::settings::environment::{self, Environment};
use crate::supervise::settings::faults::Faults;
use crate::supervise::settings::plan::{CommandLine, Plan, Probe, ReadySign, Service, Sign};
use rustix::fs::{Access, access};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The PATH of an environment that has none (execvp(3)).
const USUAL_PATH: &str = "/bin:/usr/bin";

/// Looks for every program and every folder that the plan needs; `ours` is the environment of this process. Blocks on
/// the disks that they are on, without a bound.
pub(super) fn look(plan: &Plan, ours: &Environment, faults: &mut Faults) {
    let here = Looker {
        what: String::new(),
        cwd: &plan.folder,
        environment: ours,
    };
    for need in &plan.needs {
        let looker = here.of(format!("[needs.{}]", need.name));
        looker.probe(&need.probe, faults);
    }
    for service in &plan.services {
        look_at_service(service, ours, faults);
    }
    for ask in &plan.cleanup.asks {
        let looker = here.of(format!("[[cleanup.ask]] {:?}", ask.name));
        looker.command(&ask.command, faults);
    }
}

fn look_at_service(service: &Service, ours: &Environment, faults: &mut Faults) {
    let what = format!("[service.{}]", service.name);
    if !service.cwd.is_dir() {
        let is = if service.cwd.exists() { "no folder" } else { "not there" };
        let message = format!(
            "cwd of {what} is {is}: {}; a path is relative to this file; make the folder, or correct the path",
            service.cwd.display()
        );
        faults.add(service.cwd_place, message);
        // We would look for programs in the wrong place.
        return;
    }
    let environment = environment::of_service(service, ours);
    let looker = Looker {
        what,
        cwd: &service.cwd,
        environment: &environment,
    };
    looker.command(&service.command, faults);
    if let Some(ready) = &service.ready
        && let ReadySign::Probe(probe) = &ready.sign
    {
        looker
            .of(format!("[service.{}.ready]", service.name))
            .probe(probe, faults);
    }
    for check in &service.checks {
        let looker = looker.of(format!("check {:?} of {}", check.name, looker.what));
        match &check.sign {
            Sign::Probe(probe) => looker.probe(probe, faults),
            Sign::CommandQueue { command, .. } => looker.command(command, faults),
            _ => {}
        }
    }
}

/// Looks for programs as one that runs there would.
struct Looker<'a> {
    /// Whose they are, for messages.
    what: String,
    cwd: &'a Path,
    environment: &'a Environment,
}

impl Looker<'_> {
    fn of(&self, what: String) -> Looker<'_> {
        Looker { what, ..*self }
    }

    fn probe(&self, probe: &Probe, faults: &mut Faults) {
        if let Probe::Command(command) = probe {
            self.command(command, faults);
        }
    }

    fn command(&self, command: &CommandLine, faults: &mut Faults) {
        let Some(program) = command.words.first() else {
            return;
        };
        if let Err(message) = self.find(program, command) {
            faults.add(
                command.place,
                format!("the command of {} cannot run: {message}", self.what),
            );
        }
    }

    /// Looks for a program as execvp(3) does.
    fn find(&self, program: &str, command: &CommandLine) -> Result<(), String> {
        if program.contains('/') {
            let path: PathBuf = self.cwd.join(program).components().collect();
            return match state_of(&path) {
                State::Runs => Ok(()),
                State::Folder => Err(format!("{} is a folder; write the program in it", path.display())),
                State::Refused => Err(format!("{0} may not be executed; try chmod +x {0}", path.display())),
                State::Absent => Err(format!(
                    "there is no {}; threadcast looks for a program with a slash from cwd ({})",
                    path.display(),
                    self.cwd.display()
                )),
            };
        }
        let path = environment::path_of(self.environment).unwrap_or(OsStr::new(USUAL_PATH));
        let places: Vec<PathBuf> = std::env::split_paths(path)
            .map(|folder| self.cwd.join(folder).join(program))
            .collect();
        if places.iter().any(|place| state_of(place) == State::Runs) {
            return Ok(());
        }
        if let Some(refused) = places.iter().find(|place| state_of(place) == State::Refused) {
            return Err(format!("{0} may not be executed; try chmod +x {0}", refused.display()));
        }
        if program.contains(' ') && command.words.len() == 1 {
            let words: Vec<&str> = program.split(' ').collect();
            return Err(format!(
                "there is no program {program:?}; write each word by itself, {words:?}"
            ));
        }
        if state_of(&self.cwd.join(program)) != State::Absent {
            return Err(format!(
                "there is no {program:?} in PATH; write ./{program} for the one in its folder"
            ));
        }
        Err(format!(
            "there is no {program:?} in PATH ({}); install it, write its whole path, or set PATH in env ({})",
            path.to_string_lossy(),
            join(command.words.iter().map(String::as_str))
        ))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Folder,
    /// A file that this user may not execute.
    Refused,
    Absent,
}

fn state_of(path: &Path) -> State {
    match std::fs::metadata(path) {
        Err(_) => State::Absent,
        Ok(metadata) if metadata.is_dir() => State::Folder,
        Ok(_) if access(path, Access::EXEC_OK).is_ok() => State::Runs,
        Ok(_) => State::Refused,
    }
}

/// Reads the variable files of every service into its environment. Blocks on them, without a bound.
pub(super) fn read_variables(plan: &mut Plan, faults: &mut Faults) {
    let mut told: Vec<Place> = Vec::new();
    for service in &mut plan.services {
        for (place, path) in &service.env_files {
            match environment::read_file(path) {
                Ok(pairs) => service.env_below.extend(pairs),
                // The file of all services is one fault.
                Err(_) if told.contains(place) => {}
                Err(list) => {
                    told.push(*place);
                    for fault in list {
                        match fault.place {
                            Some(_) => faults.push(fault),
                            None => faults.add(*place, environment::unread("env_file", &fault, &plan.folder)),
                        }
                    }
                }
            }
        }
    }
}
