//! Orders of people, and stopping: one service, or all of them in the reverse order of the start.

use super::{Act, Order, Outcome};
use crate::process::words::{count, pick};
use crate::supervise::board::State;
use crate::supervise::record;
use crate::supervise::settings::signals::name_of;
use crate::supervise::stop::{How, Next, Stopping, Target, left_in_words};
use crate::supervise::unit::After;
use rustix::process::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for processes of which nobody knows to which service they belong, before they are killed.
const UNCLAIMED_WAIT: Duration = Duration::from_secs(2);
/// A stop gives up when the processes of the host could not be listed for so long.
const UNLISTED_MAX: Duration = Duration::from_secs(10);
/// Time between two tries to list them.
const UNLISTED_PAUSE: Duration = Duration::from_millis(200);

impl Act {
    /// Does what was ordered.
    pub(super) fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Hasten => {
                    self.is_hasty = true;
                    let all = self.units.iter_mut().filter_map(|unit| unit.stopping.as_mut());
                    all.for_each(|(stopping, _)| stopping.hasten());
                }
                Order::Start(name) => self.order_start(&name),
                Order::Stop(name) => self.order_stop(&name, After::Down, "stop"),
                Order::Restart(name) => self.order_stop(&name, After::Start, "restart"),
            }
        }
    }

    fn place_of(&self, name: &Arc<str>) -> Option<usize> {
        self.units.iter().position(|unit| unit.name == *name)
    }

    /// Begins to stop everything.
    pub(super) fn begin_ending(&mut self) {
        if self.ending.is_some() {
            return;
        }
        log::info!("🛑 stopping {}", count(self.units.len(), "service"));
        self.ending = Some((0, Outcome::default()));
        self.board.show_ending();
        for unit in &mut self.units {
            unit.is_wanted = false;
            unit.again = None;
            unit.is_changed = true;
        }
        // After an orderly stop, the next start starts everything.
        for name in self.units.iter().map(|unit| Arc::clone(&unit.name)).collect::<Vec<_>>() {
            if self.record.is_at_rest(&name) {
                self.note_rest(&name, record::State::Over);
            }
        }
    }

    /// Returns whether a process of a service may be there.
    fn has_processes(&self, index: usize) -> bool {
        let unit = &self.units[index];
        unit.leader.is_some() || self.census.of(&unit.name).next().is_some()
    }

    fn order_start(&mut self, name: &Arc<str>) {
        let Some(index) = self.place_of(name).filter(|_| self.ending.is_none()) else {
            return;
        };
        let has_processes = self.has_processes(index);
        let unit = &mut self.units[index];
        unit.is_wanted = true;
        unit.restarts.forget();
        unit.again = None;
        unit.is_changed = true;
        match (&mut unit.stopping, unit.state) {
            (Some((_, after)), _) => *after = After::Start,
            // It runs already.
            (None, State::Starting | State::Running) => {}
            // What could not be ended before.
            (None, _) if has_processes => self.begin_stopping(index, After::Start, "start"),
            (None, _) => {
                unit.note("");
                unit.go(State::Waiting, "start", &mut self.events);
                self.note_rest(name, record::State::Over);
            }
        }
    }

    fn order_stop(&mut self, name: &Arc<str>, after: After, trigger: &str) {
        let Some(index) = self.place_of(name).filter(|_| self.ending.is_none()) else {
            return;
        };
        let has_processes = self.has_processes(index);
        let unit = &mut self.units[index];
        unit.is_wanted = after == After::Start;
        unit.restarts.forget();
        unit.again = None;
        unit.is_changed = true;
        if let Some((_, planned)) = &mut unit.stopping {
            *planned = after;
        } else if has_processes {
            log::info!("🛑 {}: stopping", unit.name);
            self.begin_stopping(index, after, trigger);
        } else {
            let state = if after == After::Start {
                State::Waiting
            } else {
                State::Stopped
            };
            unit.note("");
            unit.go(state, trigger, &mut self.events);
            let is_to_rest = after == After::Down;
            self.note_rest(
                name,
                if is_to_rest {
                    record::State::Stopped
                } else {
                    record::State::Over
                },
            );
        }
    }

    /// Begins to end all processes of a service.
    pub(super) fn begin_stopping(&mut self, index: usize, after: After, trigger: &str) {
        let unit = &mut self.units[index];
        let how = How {
            signal: unit.service.stop.signal,
            wait: unit.service.stop.wait,
        };
        let now = Instant::now();
        unit.stopping = Some((
            Stopping::begin(Target::Service(Arc::clone(&unit.name)), how, now),
            after,
        ));
        unit.step_due = Some(now);
        unit.go(State::Stopping, trigger, &mut self.events);
    }

    /// Goes on with a stop, if it is time to.
    pub(super) fn go_on_stopping(&mut self, index: usize) {
        let now = Instant::now();
        let unit = &mut self.units[index];
        let Some((stopping, _)) = &mut unit.stopping else {
            return;
        };
        if unit.step_due.is_some_and(|due| due > now) {
            return;
        }
        if let Some(since) = self.unlisted {
            self.stop_unseen(index, since);
            return;
        }
        match stopping.step(now, &self.census) {
            Next::LookIn(pause) => unit.step_due = Some(now + pause),
            Next::Gone(gone) => {
                let after = unit.stopping.take().map_or(After::Down, |(_, after)| after);
                unit.step_due = None;
                self.take_down(index, gone.killed);
                self.go_on_after_stop(index, after);
            }
            Next::Left(left) => {
                let why = left_in_words(&unit.name, &left);
                self.give_up_stopping(index, why);
            }
        }
    }

    /// A stop that did not end everything.
    fn give_up_stopping(&mut self, index: usize, why: String) {
        log::error!("❌ {why}");
        let unit = &mut self.units[index];
        (unit.stopping, unit.step_due) = (None, None);
        unit.is_wanted = false;
        unit.is_left = self.ending.is_some();
        unit.note(why.clone());
        unit.go(State::Failed, "left", &mut self.events);
        if let Some((_, outcome)) = &mut self.ending {
            outcome.left.push(why);
        }
    }

    /// Goes on with a stop while the processes of the host cannot be listed, since `since`: nobody can say then that
    /// nothing is left.
    fn stop_unseen(&mut self, index: usize, since: Instant) {
        let unit = &mut self.units[index];
        if since.elapsed() < UNLISTED_MAX {
            unit.step_due = Some(Instant::now() + UNLISTED_PAUSE);
            return;
        }
        if let Some(leader) = &unit.leader {
            let _ = leader.identity().signal(unit.service.stop.signal);
        }
        let why = format!(
            "{} is not stopped: the processes of this host could not be listed for {UNLISTED_MAX:?}, so only its first \
             process got its signal; look at the limits of open files and memory, then stop it once more",
            unit.name
        );
        self.give_up_stopping(index, why);
    }

    /// Takes notice of the end of a service of which no process is left.
    fn take_down(&mut self, index: usize, killed: usize) {
        let name = Arc::clone(&self.units[index].name);
        self.note_rest(&name, record::State::Over);
        let unit = &mut self.units[index];
        let Some(leader) = unit.leader.take() else {
            return;
        };
        match leader.reap() {
            Ok(ending) => {
                unit.last_exit = Some(ending.to_string());
                if killed > 0 {
                    log::warn!(
                        "⚠️ {}: {killed} {} did not heed {} within {:?}, and had to be killed",
                        unit.name,
                        pick(killed, "process", "processes"),
                        name_of(unit.service.stop.signal),
                        unit.service.stop.wait
                    );
                }
            }
            // The look did not see it, and it lives: the next turn takes notice of its end.
            Err(leader) => unit.leader = Some(leader),
        }
    }

    /// Records that nothing runs of a service, and whether it is to stay so.
    pub(super) fn note_rest(&mut self, service: &str, state: record::State) {
        if let Err(error) = self.record.rests(service, state) {
            log::warn!("⚠️ {service}: the record of what runs cannot be written: {error}");
        }
    }

    fn go_on_after_stop(&mut self, index: usize, after: After) {
        let is_ending = self.ending.is_some();
        let unit = &mut self.units[index];
        match after {
            After::AsSettingsSay if !is_ending => self.go_on_as_settings_say(index),
            After::AsCheckSays if !is_ending => {
                let trigger = if unit.cause.is_some() { "check" } else { "not_ready" };
                self.go_on_after_failure(index, trigger, true);
            }
            After::Start if !is_ending && unit.is_wanted => {
                unit.note("");
                unit.go(State::Waiting, "restart", &mut self.events);
            }
            _ => {
                log::info!("⏹ {}: stopped", unit.name);
                unit.note("");
                unit.go(State::Stopped, "stop", &mut self.events);
                if !is_ending {
                    let name = Arc::clone(&unit.name);
                    self.note_rest(&name, record::State::Stopped);
                }
            }
        }
    }

    /// Goes on with the stop of everything. Returns how it went once it is over.
    pub(super) fn go_on_ending(&mut self) -> Option<Outcome> {
        let phase = self.ending.as_ref()?.0;
        let Some(in_phase) = self.plan.order.stop.get(phase).cloned() else {
            return self.stop_unclaimed();
        };
        let mut is_over = true;
        for index in in_phase {
            let has_processes = self.has_processes(index);
            let unit = &mut self.units[index];
            if let Some((_, after)) = &mut unit.stopping {
                *after = After::Down;
                is_over = false;
            } else if has_processes && !unit.is_left {
                self.begin_stopping(index, After::Down, "stop");
                is_over = false;
            } else if !matches!(unit.state, State::Stopped | State::Failed | State::Finished) {
                unit.go(State::Stopped, "stop", &mut self.events);
            }
        }
        if is_over && let Some((phase, _)) = &mut self.ending {
            *phase += 1;
            self.wake.wake();
        }
        None
    }

    /// Ends the processes that some service has started, nobody knows which, and those of services that the file has no
    /// more: the last step of the stop. Returns how
    /// everything has ended once that is over.
    fn stop_unclaimed(&mut self) -> Option<Outcome> {
        let now = Instant::now();
        if self.unclaimed.is_none() {
            let how = How {
                signal: Signal::TERM,
                wait: UNCLAIMED_WAIT,
            };
            let names = self.units.iter().map(|unit| Arc::clone(&unit.name));
            let mut stopping = Stopping::begin(Target::Rest(names.collect()), how, now);
            if self.is_hasty {
                stopping.hasten();
            }
            self.unclaimed = Some((stopping, now));
        }
        let (stopping, due) = self.unclaimed.as_mut()?;
        if *due > now {
            return None;
        }
        let why = match (self.unlisted, stopping.step(now, &self.census)) {
            (Some(since), _) if since.elapsed() >= UNLISTED_MAX => Some(
                "nobody knows whether something is left that services have started: the processes of this host could not be \
                 listed"
                    .to_owned(),
            ),
            (_, Next::LookIn(pause)) => {
                *due = now + pause;
                return None;
            }
            (_, Next::Gone(_)) => None,
            (_, Next::Left(left)) => Some(left_in_words("what services have started", &left)),
        };
        if let (Some(why), Some((_, outcome))) = (why, &mut self.ending) {
            log::error!("❌ {why}");
            outcome.left.push(why);
        }
        self.ending.take().map(|(_, outcome)| outcome)
    }
}
