//! Looks whether services are ready and needs are there. A look may block, so a thread of its own does it.
//!
//! Runs on: `act`; each look on `check-N`, at most one at a time for each service and each need.
//! Owns: nothing; `check-N` its connection or its command.
//! Blocks on: `act` nothing; `check-N` the answer of others, for the timeout of the look, and disks.
//! Can be stalled by: `check-N` a disk or a name server that does not answer.
//! Full queue means: nothing; there is room for the one finding of each.
//! Ends when: `check-N` has looked.
//! Watched as: `check-N` is not watched; a look that does not end leaves its service `starting`, with its note.

use super::starts::environment;
use super::{Act, Finding};
use crate::process::threads;
use crate::supervise::board::State;
use crate::supervise::leader::Leader;
use crate::supervise::probe::{self, Begun, Place};
use crate::supervise::settings::plan::Ready;
use crate::supervise::unit::After;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Stack of a thread that looks.
const STACK_BYTES: usize = 256 * 1024;
/// One look takes no longer than this, so that the next one finds what was not there yet.
const LOOK_MAX: Duration = Duration::from_secs(5);

impl Act {
    /// Starts a look at a service that has not shown yet that it is ready, if it is time to.
    pub(super) fn look_for_readiness(&mut self, index: usize) {
        let unit = &mut self.units[index];
        if unit.state != State::Starting || unit.looking.is_on || unit.leader.is_none() {
            return;
        }
        let Some(ready) = unit.service.ready.clone() else {
            return;
        };
        let now = Instant::now();
        let looking_since = *unit.looking.begun.get_or_insert(now);
        if unit.looking.due.is_some_and(|due| due > now) {
            return;
        }
        if now.saturating_duration_since(looking_since) >= ready.timeout && !unit.looking.is_late {
            self.note_late(index, &ready);
            return;
        }
        let is_adopted = unit.leader.as_ref().is_some_and(Leader::is_adopted);
        let begun = Begun {
            log: unit.log.clone(),
            log_bytes: unit.log_bytes,
            file_before: unit.file_before,
            adopted: unit.started.filter(|_| is_adopted).map(|(_, epoch)| epoch),
        };
        let place = Place {
            cwd: unit.service.cwd.clone(),
            environment: environment(unit),
        };
        let n = unit.n;
        let children = self.children.clone();
        let (found, wake) = (self.found.clone(), Arc::clone(&self.wake));
        let timeout = ready.timeout.min(LOOK_MAX);
        let name = format!("check-{}", index + self.needs.len());
        let started = threads::spawn(&name, STACK_BYTES, None, move || {
            let seen = probe::is_ready(&ready.sign, &begun, &place, &children, timeout);
            // There is room for the one finding of each thread.
            let _ = found.try_send(Finding::Ready { unit: index, n, seen });
            wake.wake();
        });
        let unit = &mut self.units[index];
        match started {
            Ok(_) => unit.looking.is_on = true,
            // The host has no thread for it now.
            Err(_) => unit.looking.due = Some(now + LOOK_MAX),
        }
    }

    /// A service was not ready in time.
    fn note_late(&mut self, index: usize, ready: &Ready) {
        let unit = &mut self.units[index];
        unit.looking.is_late = true;
        let why = std::mem::take(&mut unit.note);
        log::error!("❌ {}: not ready within {:?}: {why}", unit.name, ready.timeout);
        unit.note(format!("not ready within {:?}: {why}", ready.timeout));
        if unit.service.restart.on_check {
            self.begin_stopping(index, After::AsCheckSays, "not_ready");
        }
    }

    /// Takes in what was found.
    pub(super) fn take_findings(&mut self) {
        while let Ok(finding) = self.findings.try_recv() {
            match finding {
                Finding::Ready { unit, n, seen } => self.take_readiness(unit, n, seen),
                Finding::Check {
                    unit,
                    at,
                    n,
                    sight,
                    memo,
                } => self.take_check((unit, at), n, sight, *memo),
                Finding::Need { need, seen } => self.take_need(need, seen),
            }
        }
    }

    fn take_readiness(&mut self, index: usize, n: u64, seen: Result<(), String>) {
        let unit = &mut self.units[index];
        unit.looking.is_on = false;
        let Some(ready) = unit.service.ready.clone() else {
            return;
        };
        if unit.state != State::Starting || unit.n != n {
            return;
        }
        match seen {
            Ok(()) => {
                let took = unit.started.map_or(Duration::ZERO, |(at, _)| at.elapsed());
                log::info!("✅ {}: ready after {:.1} s", unit.name, took.as_secs_f64());
                unit.note("");
                unit.go(State::Running, "ready", &mut self.events);
                if let Err(error) = self.record.is_ready(&unit.service.name) {
                    log::warn!("⚠️ {}: the record of what runs cannot be written: {error}", unit.name);
                }
                self.tell_all_to_the_server(index);
            }
            Err(why) => {
                unit.looking.due = Some(Instant::now() + ready.interval);
                if !unit.looking.is_late {
                    unit.note(why);
                }
            }
        }
    }

    /// Starts a look at each need of which one is due.
    pub(super) fn look_at_needs(&mut self) {
        let now = Instant::now();
        for index in 0..self.needs.len() {
            let needed = &self.needs[index];
            if needed.is_on || needed.due > now || self.ending.is_some() {
                continue;
            }
            let (probe, timeout) = (needed.need.probe.clone(), needed.need.timeout);
            let place = Place {
                cwd: self.plan.folder.clone(),
                environment: Vec::new(),
            };
            let children = self.children.clone();
            let (found, wake) = (self.found.clone(), Arc::clone(&self.wake));
            let name = format!("check-{}", index);
            let started = threads::spawn(&name, STACK_BYTES, None, move || {
                let seen = probe::answers(&probe, &place, &children, timeout);
                let _ = found.try_send(Finding::Need { need: index, seen });
                wake.wake();
            });
            let needed = &mut self.needs[index];
            needed.is_on = started.is_ok();
            needed.due = now + needed.need.interval;
        }
    }

    fn take_need(&mut self, index: usize, seen: Result<(), String>) {
        let needed = &mut self.needs[index];
        needed.is_on = false;
        needed.due = Instant::now() + needed.need.interval;
        let was = needed.seen.as_ref().map(Result::is_ok);
        if was != Some(seen.is_ok()) {
            match &seen {
                Ok(()) => log::info!("✅ {} is there", needed.name),
                Err(why) => {
                    let hint = needed.need.hint.as_ref();
                    let hint = hint.map_or_else(String::new, |hint| format!("; to start it: {hint}"));
                    log::error!("❌ {} is not there: {why}{hint}", needed.name);
                }
            }
        }
        needed.seen = Some(seen);
        let shown = self.needs.iter().map(|needed| {
            let (is_there, why) = match &needed.seen {
                None => (None, String::new()),
                Some(Ok(())) => (Some(true), String::new()),
                Some(Err(why)) => (Some(false), why.clone()),
            };
            (Arc::clone(&needed.name), is_there, why)
        });
        self.board.show_needs(shown.collect());
    }
}
