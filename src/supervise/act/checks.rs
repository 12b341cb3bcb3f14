//! Looks again and again at the signs that services are well, and does what follows. A look may block, so a thread of
//! its own does it.
//!
//! Runs on: `act`; each look on `check-N`, at most one at a time for each check, N as for its service's readiness.
//! Owns: nothing; `check-N` its file, its connection or its command.
//! Blocks on: `act` /proc/pressure; `check-N` the answer of others, for the timeout of the look, and disks.
//! Can be stalled by: `check-N` a disk or a name server that does not answer.
//! Full queue means: nothing; there is room for the one finding of each.
//! Ends when: `check-N` has looked.
//! Watched as: `check-N` is not watched; a look that does not end counts as failed once its timeout is over.

use super::starts::environment;
use super::{Act, Finding};
use crate::process::clock::epoch_seconds;
use crate::process::threads::{self, CORE_STACK_BYTES};
use crate::process::words::count;
use crate::supervise::checks::sight::{Kind, Sight, in_words};
use crate::supervise::checks::{self, Memo, With, judge_memory};
use crate::supervise::probe::Place;
use crate::supervise::settings::plan::{Sign, Then};
use crate::supervise::unit::After;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks at a time, of all services. Those that do not end do not count.
const LOOKS_MAX: usize = 16;
/// When there is no thread for a look, or too many look, it begins this much later.
const LATER: Duration = Duration::from_millis(100);
/// A wait of thread `act` that took this much longer than it should: the host or this process stood still, and nobody
/// could show anything meanwhile.
const OVERSLEPT: Duration = Duration::from_millis(1250);

impl Act {
    /// Looks whether the host is starved of processors.
    pub(super) fn look_at_the_host(&mut self) {
        let now = Instant::now();
        for index in self.starving.look(now) {
            self.units[index].checks.forgive(now);
        }
    }

    /// A wait began at `begun`, and is over.
    pub(super) fn forgive_if_overslept(&mut self, begun: Instant) {
        let now = Instant::now();
        if now.saturating_duration_since(begun) > OVERSLEPT {
            for unit in &mut self.units {
                unit.checks.forgive(now);
            }
        }
    }

    /// Starts the looks at a service that are due.
    pub(super) fn look_at_checks(&mut self, index: usize) {
        let unit = &mut self.units[index];
        if unit.checks.list.is_empty() {
            return;
        }
        if self.ending.is_some() || !unit.is_checked() {
            unit.is_changed |= unit.checks.rest();
            return;
        }
        let now = Instant::now();
        if unit.checks.n != Some(unit.n) {
            let counts_from = unit.started.map_or(now, |(at, _)| at + unit.service.start_wait);
            unit.checks.begin(unit.n, now, counts_from.max(now));
        }
        for at in 0..self.units[index].checks.list.len() {
            let unit = &mut self.units[index];
            let checked = &mut unit.checks.list[at];
            if let Some(flight) = &mut checked.flight {
                if flight.overdue <= now {
                    flight.overdue = now + checked.check.interval;
                    let lasts = in_words(now.saturating_duration_since(flight.begun));
                    // A disk that did not answer before this start says nothing of this one.
                    let is_ours = flight.n == unit.n && !flight.is_void;
                    let kind = if is_ours { Kind::Failing } else { Kind::Blind };
                    self.judge(
                        (index, at),
                        Sight::new(kind, format!("a look has not ended for {lasts}")),
                    );
                }
            } else if checked.due <= now {
                self.begin_look((index, at), now);
            }
            // A check that has failed may have begun to stop it.
            if self.units[index].stopping.is_some() {
                return;
            }
        }
    }

    fn begin_look(&mut self, (index, at): (usize, usize), now: Instant) {
        let looks: usize = self.units.iter().map(|unit| unit.checks.in_flight(now)).sum();
        let unit = &mut self.units[index];
        let (environment, n) = (environment(unit), unit.n);
        let is_adopted = unit.leader.as_ref().is_some_and(|leader| leader.is_adopted());
        let checked = &mut unit.checks.list[at];
        let Some(since) = checked.judged.as_ref().map(|judged| judged.since()) else {
            return;
        };
        let check = checked.check.clone();
        if let Sign::Memory { most } = check.sign {
            checked.due = now + check.interval;
            let taken = self
                .board
                .taken_after(&unit.name, since)
                .map(|taken| taken.memory_bytes);
            self.judge((index, at), judge_memory(taken, most));
            return;
        }
        if looks >= LOOKS_MAX {
            checked.due = now + LATER;
            return;
        }
        let with = With {
            place: Place {
                cwd: unit.service.cwd.clone(),
                environment,
            },
            children: self.children.clone(),
            url: self.plan.supervise.url.clone(),
            log: unit.log.clone(),
            log_bytes: Some(unit.log_bytes).filter(|_| !is_adopted),
            timeout: check.timeout,
        };
        let mut memo = Box::new(std::mem::take(&mut checked.memo));
        let (found, wake) = (self.found.clone(), Arc::clone(&self.wake));
        let name = format!("check-{}", index + self.needs.len());
        let started = threads::spawn(&name, CORE_STACK_BYTES, None, move || {
            let sight = checks::look(&check.sign, &with, &mut memo, since);
            let finding = Finding::Check {
                unit: index,
                at,
                n,
                sight,
                memo,
            };
            // There is room for the one finding of each thread.
            let _ = found.try_send(finding);
            wake.wake();
        });
        match started {
            Ok(_) => checked.take_off(n, now),
            // The host has no thread for it now. Its memory is lost, which costs a queue one look.
            Err(_) => checked.due = now + LATER,
        }
    }

    /// Takes in what a look of start number `n` has seen.
    pub(super) fn take_check(&mut self, (index, at): (usize, usize), n: u64, sight: Sight, memo: Memo) {
        let now = Instant::now();
        let unit = &mut self.units[index];
        let checked = &mut unit.checks.list[at];
        let Some(flight) = checked.flight.take() else {
            return;
        };
        if unit.checks.n != Some(n) {
            checked.due = now;
            return;
        }
        let is_first = checked.judged.as_ref().is_some_and(|judged| judged.last().is_none());
        checked.memo = memo;
        if flight.is_void {
            checked.due = now;
            return;
        }
        // The looks of services that started together part ways.
        let part = if is_first { fastrand::f64() } else { 1.0 };
        checked.due =
            (flight.begun + checked.check.interval.mul_f64(part)).max(now + LATER.min(checked.check.interval));
        self.judge((index, at), sight);
    }

    fn judge(&mut self, (index, at): (usize, usize), sight: Sight) {
        let is_starved = self.starving.is_starved(index);
        let unit = &mut self.units[index];
        let checked = &mut unit.checks.list[at];
        let Some(judged) = &mut checked.judged else {
            return;
        };
        checked.looked = epoch_seconds();
        unit.is_changed = true;
        let (check, name) = (&checked.check, &unit.name);
        let seen = sight.text.clone();
        let news = judged.take(sight, check.strikes, Instant::now(), is_starved);
        match news.is_blind {
            Some(true) => log::warn!(
                "⚠️ {name}: check {} cannot judge, which counts for nothing: {seen}",
                check.name
            ),
            Some(false) => log::info!("✅ {name}: check {} can judge again: {seen}", check.name),
            None => {}
        }
        let often = count(check.strikes, "look");
        match news.fails {
            Some(true) if check.then == Then::Restart && unit.service.restart.on_check => {
                let check = check.name.clone();
                self.restart_by_check(index, &check, &seen);
            }
            Some(true) => {
                let but = if check.then == Then::Restart {
                    "; restart.on has no \"check\", so it runs on"
                } else {
                    ""
                };
                log::warn!("⚠️ {name}: check {} fails ({often} in a row): {seen}{but}", check.name);
            }
            Some(false) => log::info!("✅ {name}: check {} is well again: {seen}", check.name),
            None => {}
        }
    }

    /// Starts a service again, because a check has failed.
    pub(super) fn restart_by_check(&mut self, index: usize, check: &str, why: &str) {
        let unit = &mut self.units[index];
        log::error!("❌ {}: check {check} has failed, it is started again: {why}", unit.name);
        let cause = format!("check {check}: {why}");
        unit.note(cause.clone());
        unit.cause = Some(cause);
        self.begin_stopping(index, After::AsCheckSays, "check");
    }
}
