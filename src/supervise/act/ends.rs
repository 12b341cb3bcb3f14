//! The end of a service's first process, and what follows from it.

use super::Act;
use crate::process::words::count;
use crate::supervise::board::State;
use crate::supervise::leader::Ending;
use crate::supervise::record;
use crate::supervise::unit::After;
use std::time::{Duration, Instant};

impl Act {
    /// Takes notice that the first process of a service has ended by itself. What it has left behind is stopped; the
    /// service has ended once all of it is gone.
    pub(super) fn notice_end(&mut self, index: usize) {
        let unit = &mut self.units[index];
        // What could not be ended is nobody's news when it does end; an order looks after it.
        if unit.stopping.is_some() || unit.state == State::Failed {
            return;
        }
        let Some(ending) = unit.leader.as_ref().and_then(|leader| leader.ending()) else {
            return;
        };
        let after = self.ran_for(index);
        let unit = &mut self.units[index];
        // Of one that was taken over nobody knows how it ended; what is to be done once is not done twice for that.
        let may_be_well = matches!(ending, Ending::Exited(0) | Ending::Unknown);
        unit.ended_well = may_be_well && unit.service.oneshot;
        unit.last_exit = Some(ending.to_string());
        if unit.ended_well && ending == Ending::Unknown {
            log::warn!(
                "⚠️ {}: done after {after}, and nobody knows whether well, because an earlier supervisor has started it",
                unit.name
            );
        } else if unit.ended_well {
            log::info!("✅ {}: done after {after}", unit.name);
        } else if unit.service.oneshot || ending != Ending::Exited(0) {
            log::warn!("⚠️ {}: ended by itself after {after}: {ending}", unit.name);
        } else {
            log::warn!(
                "⚠️ {}: ended by itself after {after}, with status 0; a service that is to end needs `oneshot = true`",
                unit.name
            );
        }
        self.begin_stopping(index, After::AsSettingsSay, "exit");
    }

    fn ran_for(&self, index: usize) -> String {
        let ran = self.units[index].started.map_or(Duration::ZERO, |(at, _)| at.elapsed());
        format!("{:.1} s", ran.as_secs_f64())
    }

    /// All processes of a service that has ended are gone: what its settings say comes next.
    pub(super) fn go_on_as_settings_say(&mut self, index: usize) {
        let unit = &mut self.units[index];
        if unit.ended_well {
            unit.is_wanted = false;
            unit.note("");
            unit.go(State::Finished, "exit", &mut self.events);
            return;
        }
        let is_restarted = unit.service.restart.on_exit;
        self.go_on_after_failure(index, "exit", is_restarted);
    }

    /// A service has failed, and has no process: it is started again after a delay, or given up.
    pub(super) fn go_on_after_failure(&mut self, index: usize, trigger: &str, is_restarted: bool) {
        let unit = &mut self.units[index];
        if !unit.is_wanted {
            unit.go(State::Stopped, trigger, &mut self.events);
            return;
        }
        if !is_restarted {
            log::error!(
                "❌ {}: has failed, and restart.on has no \"exit\", so it stays so; `threadcast services start {}` starts \
                 it",
                unit.name,
                unit.name
            );
            unit.go(State::Failed, trigger, &mut self.events);
            return;
        }
        let now = Instant::now();
        let policy = unit.policy();
        match unit.restarts.next(&policy, now, fastrand::f64()) {
            Some(delay) => {
                unit.restarted += 1;
                unit.again = Some(now + delay);
                log::info!("🔁 {}: starts again in {:.1} s", unit.name, delay.as_secs_f64());
                unit.go(State::Restarting, trigger, &mut self.events);
            }
            None => {
                let often = count(policy.times, "restart");
                log::error!(
                    "❌ {}: given up after {often} within {:?}; look at {}, then `threadcast services start {}`",
                    unit.name,
                    policy.within,
                    unit.log.display(),
                    unit.name
                );
                let cause = unit.cause.as_ref();
                let cause = cause.map_or_else(String::new, |cause| format!("; the last cause: {cause}"));
                unit.note(format!("given up after {often} within {:?}{cause}", policy.within));
                unit.go(State::Failed, "gave_up", &mut self.events);
                let name = std::sync::Arc::clone(&unit.name);
                self.note_rest(&name, record::State::GivenUp);
            }
        }
    }
}
