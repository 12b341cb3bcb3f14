//! What an earlier supervisor of this run folder has left running is taken over instead of started twice.

use super::Act;
use crate::process::clock::epoch_seconds;
use crate::supervise::adopt::{Adopted, Remains, Unverifiable, adopt};
use crate::supervise::board::State;
use crate::supervise::leader::Leader;
use crate::supervise::record::Here;
use crate::supervise::unit::After;
use std::time::{Duration, Instant};

impl Act {
    /// Takes over what runs. What cannot be judged is not started.
    pub(super) fn adopt(&mut self) {
        let record = self.left.take();
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
        for unverifiable in adoption.unverifiable {
            self.give_up_unverifiable(&unverifiable);
        }
        for remains in adoption.remains {
            self.stop_remains(&remains);
        }
        for adopted in adoption.adopted {
            self.take_over(&adopted);
        }
        for gone in adoption.gone {
            log::info!(
                "👻 {}: ran when the earlier supervisor ended, and is gone",
                gone.service
            );
        }
    }

    fn unit_of(&self, service: &str, pid: i32) -> Option<usize> {
        let index = self.units.iter().position(|unit| *unit.name == *service);
        if index.is_none() {
            log::warn!(
                "⚠️ {service} runs since an earlier run (process {pid}), and the file has no such service any more: nobody \
                 watches or stops it; put it back into the file to stop it, or end it by hand"
            );
        }
        index
    }

    fn give_up_unverifiable(&mut self, found: &Unverifiable) {
        log::error!("❌ {found}");
        let Some(index) = self.unit_of(&found.member.service, found.process.pid) else {
            return;
        };
        let unit = &mut self.units[index];
        unit.is_wanted = false;
        unit.note(found.to_string());
        unit.go(State::Failed, "unverifiable", &mut self.events);
    }

    /// The first process of a service is gone, and others of it are there: they are stopped, then it is started.
    fn stop_remains(&mut self, remains: &Remains) {
        let pid = remains.processes.first().map_or(0, |process| process.pid);
        let Some(index) = self.unit_of(&remains.service, pid) else {
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

    fn take_over(&mut self, adopted: &Adopted) {
        let Some(index) = self.unit_of(&adopted.member.service, adopted.leader.pid) else {
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
        // Its log may have been rotated since; all of it counts. A file or an answer tells as at the start.
        let is_open = unit.service.oneshot || unit.service.ready.is_some();
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
