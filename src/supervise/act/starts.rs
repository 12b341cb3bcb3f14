//! When a service may start, and its start.

use super::Act;
use crate::liveness::operation::Operation;
use crate::process::clock::epoch_seconds;
use crate::supervise::board::State;
use crate::supervise::launch::{self, Launched};
use crate::supervise::mark::Mark;
use crate::supervise::probe;
use crate::supervise::settings::plan::{ReadySign, SERVER, Wanted};
use crate::supervise::spawn::Launch;
use crate::supervise::unit::{Looking, Unit};
use std::ffi::OsString;
use std::time::Instant;

impl Act {
    /// Starts a service that is to run and does not, once what it depends on is there and its delay is over.
    pub(super) fn start_if_due(&mut self, index: usize) {
        let unit = &self.units[index];
        let is_idle = matches!(unit.state, State::Stopped | State::Waiting | State::Restarting);
        if self.ending.is_some() || !unit.is_wanted || !is_idle || unit.is_up() {
            return;
        }
        if unit.again.is_some_and(|again| again > Instant::now()) {
            return;
        }
        let missing = self.missing(index);
        let (unit, events) = (&mut self.units[index], &mut self.events);
        unit.again = None;
        unit.waits_in_vain = false;
        if let Some((missing, is_in_vain)) = missing {
            if unit.state != State::Waiting {
                unit.go(State::Waiting, "depends", events);
            }
            unit.waits_in_vain = is_in_vain;
            unit.note(format!("waits for {missing}"));
            return;
        }
        self.start_now(index);
    }

    /// What a service waits for, in words, and whether it is in vain: that has failed, is stopped, or was not found.
    fn missing(&self, index: usize) -> Option<(String, bool)> {
        let unit = &self.units[index];
        // Who starts before the server is heard of by nobody. It is no reason to wait for ever.
        let server = self
            .units
            .iter()
            .find(|other| *other.name == *SERVER && *unit.name != *SERVER);
        if let Some(server) = server
            && !matches!(server.state, State::Running | State::Failed)
            && (server.state != State::Stopped || server.is_wanted)
            && !server.looking.is_late
        {
            return Some((format!("{SERVER} to be ready"), false));
        }
        unit.service.depends_on.iter().find_map(|dependency| {
            let (name, wanted) = (&dependency.name, dependency.wanted);
            let is_in_vain = if wanted == Wanted::Present {
                let need = self.needs.iter().find(|need| *need.name == **name)?;
                match need.seen {
                    Some(Ok(())) => return None,
                    Some(Err(_)) => true,
                    None => false,
                }
            } else {
                let other = self.units.iter().find(|other| *other.name == **name)?;
                if has_come_so_far(other, wanted) {
                    return None;
                }
                other.is_settled()
            };
            Some((format!("{name} to be {}", wanted.name()), is_in_vain))
        })
    }

    fn start_now(&mut self, index: usize) {
        let _doing = self.beat.begin(Operation::StartingService);
        let unit = &mut self.units[index];
        unit.n = self.record.next_n(&unit.service.name, unit.n);
        unit.note("");
        unit.cause = None;
        unit.looking = Looking::default();
        unit.file_before = match unit.service.ready.as_ref().map(|ready| &ready.sign) {
            Some(ReadySign::File(path)) => probe::state_of(path),
            _ => None,
        };
        let mark = Mark {
            run: self.folder.id(),
            service: unit.service.name.clone(),
            n: unit.n,
        };
        let environment = environment(unit);
        let launch = Launch {
            command: &unit.service.command.words,
            cwd: &unit.service.cwd,
            environment: &environment,
            mark: &mark,
            log: &unit.log,
            is_unbuffered: unit.service.unbuffered,
        };
        let begun = (Instant::now(), epoch_seconds());
        match launch::launch(&mut self.record, &launch, &self.children) {
            Ok(Launched {
                leader,
                log_bytes,
                unrecorded,
            }) => {
                let pid = leader.identity().pid;
                unit.log_bytes = log_bytes;
                unit.leader = Some(leader);
                unit.started = Some(begun);
                let state = if unit.service.ready.is_some() || unit.service.oneshot {
                    State::Starting
                } else {
                    State::Running
                };
                unit.go(state, "start", &mut self.events);
                log::info!("▶ {}: started, process {pid}", unit.name);
                if let Some(error) = unrecorded {
                    log::warn!("⚠️ {}: the record of what runs cannot be written: {error}", unit.name);
                }
            }
            Err(error) => {
                log::error!("❌ {}: {error}", unit.name);
                unit.last_exit = Some("did not start".to_owned());
                unit.ended_well = false;
                unit.note(error.to_string());
                let is_restarted = unit.service.restart.on_exit;
                self.go_on_after_failure(index, "start_failed", is_restarted);
            }
        }
    }
}

/// Returns whether a service is as far as another one wants it.
fn has_come_so_far(unit: &Unit, wanted: Wanted) -> bool {
    match unit.state {
        State::Running | State::Finished => true,
        State::Starting => wanted == Wanted::Started,
        _ => false,
    }
}

/// The variables of a service that win over the environment, and those of its files that the environment does not have.
pub(super) fn environment(unit: &Unit) -> Vec<(OsString, OsString)> {
    let below = unit.service.env_below.iter();
    let below = below.filter(|(name, _)| std::env::var_os(name).is_none());
    let all = below.chain(&unit.service.env);
    all.map(|(name, value)| (name.into(), value.into())).collect()
}
