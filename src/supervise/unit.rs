//! One service in the hands of thread `act`: where it is in its life, and what comes next.

use crate::process::clock::epoch_seconds;
use crate::supervise::board::{CheckRow, Row, State};
use crate::supervise::checked::Checks;
use crate::supervise::events::Events;
use crate::supervise::leader::Leader;
use crate::supervise::probe::FileState;
use crate::supervise::restarts::{Policy, Restarts};
use crate::supervise::settings::plan::Service;
use crate::supervise::stop::Stopping;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What is done with a service once all of its processes are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It stays down.
    Down,
    /// It is started at once.
    Start,
    /// It had ended by itself: what its settings say of that.
    AsSettingsSay,
    /// A check has failed, and its settings start it again then.
    AsCheckSays,
}

/// Where a look for the sign of being ready is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looking {
    /// When this supervisor began to look: of a service that was taken over, long after its start.
    pub(super) begun: Option<Instant>,
    /// A thread looks.
    pub(super) is_on: bool,
    /// When the next look is due.
    pub(super) due: Option<Instant>,
    /// The log has the line that it is late.
    pub(super) is_late: bool,
}

/// One service.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: Arc<str>,
    pub(super) service: Service,
    pub(super) state: State,
    /// When it came into that state, in seconds since the epoch.
    since: f64,
    /// It is to run.
    pub(super) is_wanted: bool,
    pub(super) leader: Option<Leader>,
    pub(super) stopping: Option<(Stopping, After)>,
    /// When the next look at its processes is due, while they are being stopped.
    pub(super) step_due: Option<Instant>,
    /// Number of its last start.
    pub(super) n: u64,
    /// When its leader was started.
    pub(super) started: Option<(Instant, f64)>,
    /// Bytes of its log when it was started.
    pub(super) log_bytes: u64,
    /// What the file that shows its readiness was before it was started.
    pub(super) file_before: Option<FileState>,
    pub(super) looking: Looking,
    pub(super) checks: Checks,
    /// Why it is started again, since a check has failed.
    pub(super) cause: Option<String>,
    pub(super) restarts: Restarts,
    /// How often it was started again by itself.
    pub(super) restarted: u64,
    /// When it is started again.
    pub(super) again: Option<Instant>,
    pub(super) last_exit: Option<String>,
    /// The last end was a good one.
    pub(super) ended_well: bool,
    pub(super) note: String,
    /// It could not be ended when everything was stopped: the log has that, and nobody tries again.
    pub(super) is_left: bool,
    /// What it waits for has failed, is stopped, or is not there.
    pub(super) waits_in_vain: bool,
    pub(super) log: PathBuf,
    /// The board does not show it as it is.
    pub(super) is_changed: bool,
}

impl Unit {
    pub(super) fn new(service: Service, log: PathBuf) -> Unit {
        Unit {
            name: service.name.as_str().into(),
            state: State::Stopped,
            since: epoch_seconds(),
            is_wanted: service.enabled,
            leader: None,
            stopping: None,
            step_due: None,
            n: 0,
            started: None,
            log_bytes: 0,
            file_before: None,
            looking: Looking::default(),
            checks: Checks::of(&service),
            cause: None,
            restarts: Restarts::default(),
            restarted: 0,
            again: None,
            last_exit: None,
            ended_well: true,
            note: String::new(),
            is_left: false,
            waits_in_vain: false,
            log,
            is_changed: true,
            service,
        }
    }

    /// Goes to another state, and tells the server.
    pub(super) fn go(&mut self, to: State, trigger: &str, events: &mut Events) {
        let now = epoch_seconds();
        let from = std::mem::replace(&mut self.state, to);
        self.is_changed = true;
        if from != to {
            self.since = now;
            events.change(&self.name, (from, to), trigger, now);
        }
    }

    /// Notes what a person should know of it.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.is_changed |= self.note != text;
        self.note = text;
    }

    pub(super) fn policy(&self) -> Policy {
        let restart = &self.service.restart;
        Policy {
            first: restart.delay_first,
            most: restart.delay_most,
            calm: restart.calm,
            times: restart.most_times as usize,
            within: restart.most_within,
        }
    }

    /// Returns whether it has a process, or may have one.
    pub(super) fn is_up(&self) -> bool {
        self.leader.is_some() || self.stopping.is_some()
    }

    /// Returns whether nothing is going to happen with it until its process ends or somebody asks for something.
    pub(super) fn is_settled(&self) -> bool {
        match self.state {
            State::Stopped => !self.is_wanted,
            State::Running | State::Failed | State::Finished => true,
            State::Waiting => self.waits_in_vain,
            State::Starting => self.looking.is_late,
            State::Stopping | State::Restarting => false,
        }
    }

    /// Returns whether its checks are looked at: it runs, and is ready as far as anything shows that.
    pub(super) fn is_checked(&self) -> bool {
        let is_running = match self.state {
            State::Running => true,
            State::Starting => self.service.ready.is_none() || self.looking.is_late,
            _ => false,
        };
        is_running && self.leader.is_some()
    }

    /// What the board shows.
    pub(super) fn row(&self) -> Row {
        let leader = self.leader.as_ref().map(Leader::identity);
        let checks = self.checks.rows();
        let is_well = match self.state {
            State::Running => !checks.iter().any(|check| check.is_bad),
            State::Finished => true,
            State::Stopped => !self.is_wanted,
            State::Waiting | State::Starting => !self.looking.is_late && self.note.is_empty(),
            State::Stopping | State::Restarting | State::Failed => false,
        };
        Row {
            state: self.state,
            is_well,
            since: self.since,
            leader,
            n: self.n,
            started: self.started.filter(|_| leader.is_some()).map(|(_, epoch)| epoch),
            is_adopted: self.leader.as_ref().is_some_and(Leader::is_adopted),
            restarts: self.restarted,
            last_exit: self.last_exit.clone(),
            note: self.shown_note(&checks),
            log: self.log.clone(),
            checks,
        }
    }

    fn shown_note(&self, checks: &[CheckRow]) -> String {
        let bad = checks.iter().filter(|check| check.is_bad);
        let bad = bad.map(|check| format!("check {}: {}", check.name, check.text));
        let own = Some(self.note.clone()).filter(|note| !note.is_empty());
        own.into_iter().chain(bad).collect::<Vec<String>>().join("; ")
    }
}
