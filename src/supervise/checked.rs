//! The checks of one service, with what is known of each.

use crate::supervise::board::CheckRow;
use crate::supervise::checks::Memo;
use crate::supervise::checks::judgement::Judged;
use crate::supervise::settings::plan::{Check, Service, Sign, Then};
use std::time::{Duration, Instant};

/// Memory is looked at this often for `memory = { warn = .. }`. The figures come from thread `look`.
const MEMORY_EVERY: Duration = Duration::from_secs(5);
/// A look may take this much longer than its timeout, to end its command and to answer.
const MARGIN: Duration = Duration::from_secs(2);

/// A look that is on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) begun: Instant,
    /// Number of the start that it is of.
    pub(super) n: u64,
    /// What it finds does not count.
    pub(super) is_void: bool,
    /// When it counts as one that does not end, or does so again.
    pub(super) overdue: Instant,
}

/// One check.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) check: Check,
    /// `None` while its service does not run.
    pub(super) judged: Option<Judged>,
    pub(super) memo: Memo,
    pub(super) due: Instant,
    pub(super) flight: Option<Flight>,
    /// When it was looked at last, in seconds since the epoch.
    pub(super) looked: f64,
}

impl Checked {
    fn new(check: Check) -> Checked {
        Checked {
            check,
            judged: None,
            memo: Memo::default(),
            due: Instant::now(),
            flight: None,
            looked: 0.0,
        }
    }

    /// A look begins, of start number `n`.
    pub(super) fn take_off(&mut self, n: u64, now: Instant) {
        self.flight = Some(Flight {
            begun: now,
            n,
            is_void: false,
            overdue: now + self.check.timeout + MARGIN,
        });
    }

    fn row(&self) -> CheckRow {
        let judged = self.judged.as_ref();
        let last = judged.and_then(Judged::last);
        let figure = last.map(|sight| sight.figure).unwrap_or_default();
        CheckRow {
            name: self.check.name.clone(),
            is_well: judged.and_then(Judged::is_well),
            is_bad: judged.is_some_and(Judged::is_bad),
            strikes: judged.map_or(0, Judged::strikes),
            text: last.map_or_else(String::new, |sight| sight.text.clone()),
            looked: self.looked,
            status_age: figure.age.filter(|_| matches!(self.check.sign, Sign::File { .. })),
            age: figure.age,
            length: figure.length,
            bytes: figure.bytes,
        }
    }
}

/// All checks of a service.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) list: Vec<Checked>,
    /// Number of the start whose looks count; `None` while the service does not run.
    pub(super) n: Option<u64>,
}

impl Checks {
    /// Those that the settings name. `memory = { warn = .. }` is one more.
    pub(super) fn of(service: &Service) -> Checks {
        let mut list: Vec<Checked> = service.checks.iter().cloned().map(Checked::new).collect();
        if let Some(most) = service.memory_warn {
            let is_taken = service.checks.iter().any(|check| check.name == "memory");
            list.push(Checked::new(Check {
                name: if is_taken { "memory.warn" } else { "memory" }.to_owned(),
                place: service.place,
                sign: Sign::Memory { most },
                interval: MEMORY_EVERY,
                timeout: Duration::ZERO,
                strikes: 1,
                then: Then::Warn,
            }));
        }
        Checks { list, n: None }
    }

    /// The service runs: its start number `n` is looked at from now on.
    pub(super) fn begin(&mut self, n: u64, now: Instant, counts_from: Instant) {
        self.n = Some(n);
        for checked in &mut self.list {
            checked.judged = Some(Judged::new(now, counts_from));
            checked.memo = Memo::default();
            checked.due = now;
        }
    }

    /// The service does not run. Returns whether it did.
    pub(super) fn rest(&mut self) -> bool {
        for checked in &mut self.list {
            checked.judged = None;
        }
        self.n.take().is_some()
    }

    /// What was before does not count.
    pub(super) fn forgive(&mut self, now: Instant) {
        for checked in &mut self.list {
            if let Some(judged) = &mut checked.judged {
                judged.forgive(now);
            }
            if let Some(flight) = &mut checked.flight {
                flight.is_void = true;
            }
        }
    }

    /// When the next look is due, or one that does not end.
    pub(super) fn due(&self) -> Option<Instant> {
        self.n?;
        let dues = self.list.iter();
        dues.map(|checked| checked.flight.map_or(checked.due, |flight| flight.overdue))
            .min()
    }

    /// Looks that are on and not overdue.
    pub(super) fn in_flight(&self, now: Instant) -> usize {
        let ends = self
            .list
            .iter()
            .filter_map(|checked| Some(checked.flight?.begun + checked.check.timeout + MARGIN));
        ends.filter(|end| *end > now).count()
    }

    pub(super) fn rows(&self) -> Vec<CheckRow> {
        self.list.iter().map(Checked::row).collect()
    }
}
