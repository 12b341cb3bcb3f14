//! What is known of the services, for people who ask: thread `act` writes it, thread `look` adds figures, thread
//! `control` reads it. Its lock is held for moments, never while anything else happens.

use crate::process::locks::lock;
use crate::supervise::conflicts::Seen;
use crate::supervise::identity::Identity;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not to run.
    Stopped,
    /// It waits for what it depends on.
    Waiting,
    /// It runs, and has not shown yet that it is ready.
    Starting,
    /// It runs, and is ready as far as it has a sign of that.
    Running,
    /// Its processes are being ended.
    Stopping,
    /// It has ended, and is started again after a delay.
    Restarting,
    /// It has ended for good: a person has to look at it.
    Failed,
    /// It was to end, and has ended well.
    Finished,
}

impl State {
    /// Its name, as the tables, the events and `--json` have it.
    pub fn name(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Waiting => "waiting",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Restarting => "restarting",
            State::Failed => "failed",
            State::Finished => "finished",
        }
    }
}

/// One check of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRow {
    pub name: String,
    /// `None`: nobody knows.
    pub is_well: Option<bool>,
    /// A person should know: it fails, or nothing can be said.
    pub is_bad: bool,
    /// Failing looks in a row.
    pub strikes: u64,
    /// What was seen last.
    pub text: String,
    /// When, in seconds since the epoch.
    pub looked: f64,
    /// The age of the status file, of a check of one.
    pub status_age: Option<Duration>,
    /// How old the newest sign was.
    pub age: Option<Duration>,
    /// How much waited.
    pub length: Option<u64>,
    /// Memory.
    pub bytes: Option<u64>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Row {
    pub state: State,
    /// It is as it should be.
    pub is_well: bool,
    /// When it came into this state, in seconds since the epoch.
    pub since: f64,
    /// Its first process, while that runs.
    pub leader: Option<Identity>,
    /// Number of its last start.
    pub n: u64,
    /// When that was started, in seconds since the epoch.
    pub started: Option<f64>,
    /// An earlier supervisor has started it.
    pub is_adopted: bool,
    /// How often it was started again by itself.
    pub restarts: u64,
    /// How it ended last.
    pub last_exit: Option<String>,
    /// What a person should know: what it waits for, why it has failed.
    pub note: String,
    pub log: PathBuf,
    pub checks: Vec<CheckRow>,
}

impl Row {
    /// The age of its status file in seconds, of the oldest of several, now; `None` without such a check.
    pub fn status_age_s(&self, now: f64) -> Option<f64> {
        let ages = self.checks.iter();
        let ages = ages.filter_map(|check| Some(check.status_age?.as_secs_f64() + (now - check.looked).max(0.0)));
        ages.max_by(f64::total_cmp)
    }

    /// How much waits for it in all queues that its checks look at; `None` without one.
    pub fn queue(&self) -> Option<u64> {
        let lengths = self.checks.iter().filter_map(|check| check.length);
        lengths.reduce(u64::saturating_add)
    }
}

/// What a service takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Taken {
    pub processes: usize,
    /// Proportional set size of all its processes.
    pub memory_bytes: u64,
    /// Processor time a second, in percent of one processor; `None` after the first look.
    pub cpu_percent: Option<f64>,
}

/// Everything that is known.
#[derive(Clone, Debug, Default)]
pub struct Board {
    shared: Arc<Mutex<Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    /// In the order of the file.
    names: Vec<Arc<str>>,
    rows: BTreeMap<Arc<str>, Row>,
    taken: BTreeMap<Arc<str>, Taken>,
    /// When the look began that has seen this.
    taken_at: Option<Instant>,
    needs: Vec<(Arc<str>, Option<bool>, String)>,
    conflicts: Vec<Seen>,
    is_ending: bool,
    /// Why `act` or `look` do not move.
    hung: Vec<String>,
}

impl Board {
    /// Shows a service.
    pub fn show(&self, name: &Arc<str>, row: Row) {
        let mut shown = lock(&self.shared);
        if shown.rows.insert(Arc::clone(name), row).is_none() {
            shown.names.push(Arc::clone(name));
        }
    }

    /// Shows what the services take, as a look has seen it that began at `begun`.
    pub fn show_taken(&self, taken: BTreeMap<Arc<str>, Taken>, begun: Instant) {
        let mut shown = lock(&self.shared);
        (shown.taken, shown.taken_at) = (taken, Some(begun));
    }

    /// What a service takes, if a look has seen it that began after `since`.
    pub fn taken_after(&self, name: &str, since: Instant) -> Option<Taken> {
        let shown = lock(&self.shared);
        shown.taken_at.filter(|at| *at > since)?;
        shown.taken.get(name).copied().filter(|taken| taken.processes > 0)
    }

    /// Shows the needs: name, whether it is there (`None`: not known yet), and what was seen.
    pub fn show_needs(&self, needs: Vec<(Arc<str>, Option<bool>, String)>) {
        lock(&self.shared).needs = needs;
    }

    /// Shows how often programs run.
    pub fn show_conflicts(&self, conflicts: Vec<Seen>) {
        lock(&self.shared).conflicts = conflicts;
    }

    /// Everything is being stopped.
    pub fn show_ending(&self) {
        lock(&self.shared).is_ending = true;
    }

    /// Shows which of our own threads do not move.
    pub fn show_hung(&self, hung: Vec<String>) {
        lock(&self.shared).hung = hung;
    }

    /// Returns whether there is a service of this name.
    pub fn has(&self, name: &str) -> bool {
        lock(&self.shared).rows.contains_key(name)
    }

    /// Returns the names of all services, in the order of the file.
    pub fn names(&self) -> Vec<Arc<str>> {
        lock(&self.shared).names.clone()
    }

    /// Returns the services, in the order of the file.
    pub fn rows(&self) -> Vec<(Arc<str>, Row)> {
        let shown = lock(&self.shared);
        let rows = shown.names.iter().filter_map(|name| {
            let row = shown.rows.get(name)?;
            Some((Arc::clone(name), row.clone()))
        });
        rows.collect()
    }

    /// The document of `services status`.
    pub fn document(&self, now: f64) -> Value {
        let shown = lock(&self.shared);
        let services: Vec<Value> = shown
            .names
            .iter()
            .filter_map(|name| {
                let row = shown.rows.get(name)?;
                Some(service(name, row, shown.taken.get(name), now))
            })
            .collect();
        let needs: Vec<Value> = (shown.needs.iter())
            .map(|(name, there, seen)| json!({"name": &**name, "present": there, "seen": seen}))
            .collect();
        json!({
            "pid": std::process::id(),
            "ending": shown.is_ending,
            "hung": shown.hung,
            "needs": needs,
            "conflicts": shown.conflicts.iter().map(Seen::document).collect::<Vec<Value>>(),
            "services": services,
        })
    }
}

fn service(name: &str, row: &Row, taken: Option<&Taken>, now: f64) -> Value {
    let taken = taken.filter(|taken| taken.processes > 0);
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let checks: Vec<Value> = (row.checks.iter())
        .map(|check| {
            json!({
                "name": check.name, "ok": check.is_well, "bad": check.is_bad, "strikes": check.strikes,
                "seen": check.text, "looked": check.looked, "age_s": seconds(check.age), "length": check.length,
                "memory_bytes": check.bytes,
            })
        })
        .collect();
    json!({
        "name": name,
        "state": row.state.name(),
        "ok": row.is_well,
        "state_seconds": (now - row.since).max(0.0),
        "pid": row.leader.map(|leader| leader.pid),
        "uptime_seconds": row.started.map(|started| (now - started).max(0.0)),
        "adopted": row.is_adopted,
        "restarts": row.restarts,
        "last_exit": row.last_exit,
        "note": row.note,
        "log": row.log.display().to_string(),
        "checks": checks,
        "status_age_s": row.status_age_s(now),
        "queue": row.queue(),
        "processes": taken.map_or(0, |taken| taken.processes),
        "memory_bytes": taken.map(|taken| taken.memory_bytes),
        "cpu_percent": taken.and_then(|taken| taken.cpu_percent),
    })
}
