//! What an earlier supervisor of this run folder has left running is taken over instead of started twice.

use super::Act;
use crate::process::clock::epoch_seconds;
use crate::supervise::adopt::{Adopted, Remains, Unverifiable, adopt};
use crate::supervise::board::State;
use crate::supervise::identity::Identity;
use crate::supervise::leader::Leader;
use crate::supervise::record::{self, Entry, Here};
use crate::supervise::unit::After;
use std::time::{Duration, Instant};

impl Act {
    /// Takes over what runs. What cannot be judged is not started.
    pub(super) fn adopt(&mut self) {
        let record: Option<record::Record> = self.left.take();
        let here = Here::now().map_err(|error| error.to_string());
        let found = here.and_then(|here| {
            let found = adopt(record.as_ref(), &here, &mut self.census);
            found.map_err(|error| error.to_string())
        });
        let adoption = match found {
            Ok(adoption) => adoption,
            Err(error) => {
                log::error!(
                    "❌ /proc does not tell what an earlier run has left ({error}), so nothing is started and this ends; try \
                     again"
                );
                self.begin_ending();
                return;
            }
        };
        let entries = record.map(|record| record.services).unwrap_or_default();
        for unverifiable in adoption.unverifiable {
            self.give_up_unverifiable(&unverifiable);
        }
        for remains in adoption.remains {
            self.stop_remains(&remains);
        }
        for adopted in adoption.adopted {
            self.take_over(&adopted, entries.get(&*adopted.member.service));
        }
        for gone in adoption.gone {
            log::info!(
                "👻 {}: ran when the earlier supervisor ended, and is gone",
                gone.service
            );
            self.note_rest(&gone.service, record::State::Over);
        }
        for (service, entry) in &entries {
            self.leave_at_rest(service, entry.state);
        }
    }

    /// Leaves a service alone that was stopped by a person, or given up, when the earlier supervisor died.
    fn leave_at_rest(&mut self, service: &str, state: record::State) {
        let is_given_up = match state {
            record::State::Stopped => false,
            record::State::GivenUp => true,
            record::State::Over | record::State::Starting | record::State::Running(_) => return,
        };
        let at_rest = self.units.iter_mut().find(|unit| *unit.name == *service);
        let Some(unit) = at_rest.filter(|unit| unit.leader.is_none() && unit.stopping.is_none()) else {
            return;
        };
        unit.is_wanted = false;
        if !is_given_up {
            log::info!("⏹ {service}: stays stopped, as a person has ordered; `threadcast services start {service}`");
            return;
        }
        log::error!("❌ {service}: was given up before, and stays so; `threadcast services start {service}` starts it");
        unit.note("given up by an earlier supervisor, which then died");
        unit.go(State::Failed, "gave_up", &mut self.events);
    }

    /// Finds a service of the file, or warns that it is none.
    fn unit_of(&self, service: &str, process: Option<Identity>) -> Option<usize> {
        let index = self.units.iter().position(|unit| *unit.name == *service);
        if index.is_none() {
            let process = process.map_or_else(String::new, |process| format!(" (process {})", process.pid));
            log::warn!(
                "⚠️ {service} was started by an earlier run{process}, and the file has no such service any more: nobody \
                 watches it; what runs of it is stopped at the end of this one"
            );
        }
        index
    }

    fn give_up_unverifiable(&mut self, found: &Unverifiable) {
        log::error!("❌ {found}");
        let Some(index) = self.unit_of(&found.member.service, found.process) else {
            return;
        };
        let unit = &mut self.units[index];
        unit.is_wanted = false;
        unit.note(found.to_string());
        unit.go(State::Failed, "unverifiable", &mut self.events);
    }

    /// The first process of a service is gone, and others of it are there: they are stopped, then it is started.
    fn stop_remains(&mut self, remains: &Remains) {
        let Some(index) = self.unit_of(&remains.service, remains.processes.first().copied()) else {
            return;
        };
        log::warn!(
            "⚠️ {}: its first process ended while no supervisor was there, and {} of its processes are left; stopping them",
            remains.service,
            remains.processes.len()
        );
        let after = self.after_remains(index);
        self.begin_stopping(index, after, "remains");
    }

    fn after_remains(&self, index: usize) -> After {
        if self.units[index].is_wanted {
            After::Start
        } else {
            After::Down
        }
    }

    /// Takes over a service that runs. `entry` is what was recorded of it.
    fn take_over(&mut self, adopted: &Adopted, entry: Option<&Entry>) {
        let Some(index) = self.unit_of(&adopted.member.service, Some(adopted.leader)) else {
            return;
        };
        let Ok(leader) = Leader::adopted(adopted.leader) else {
            // It has just ended: what it may have left is stopped, then it is started anew.
            let after = self.after_remains(index);
            self.begin_stopping(index, after, "remains");
            return;
        };
        let unit = &mut self.units[index];
        unit.n = adopted.member.n;
        unit.leader = Some(leader);
        unit.is_wanted = true;
        let ran = adopted.leader.age().unwrap_or(Duration::ZERO);
        let now = Instant::now();
        unit.started = Some((now.checked_sub(ran).unwrap_or(now), epoch_seconds() - ran.as_secs_f64()));
        let entry = entry.filter(|entry| entry.n == unit.n);
        unit.log_bytes = entry.map_or(0, |entry| entry.log_bytes);
        let is_ready = entry.is_some_and(|entry| entry.is_ready);
        let is_open = unit.service.oneshot || unit.service.ready.is_some() && !is_ready;
        let state = if is_open { State::Starting } else { State::Running };
        unit.go(state, "adopted", &mut self.events);
        log::info!(
            "🤝 {}: taken over from an earlier run, process {}",
            unit.name,
            adopted.leader.pid
        );
        if let Err(error) = self
            .record
            .runs(&adopted.member.service, adopted.member.n, adopted.leader)
        {
            log::warn!("⚠️ the record of what runs cannot be written: {error}");
        }
    }
}
