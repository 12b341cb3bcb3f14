//! The original engine's database, which is read and never written: the states of machines that were there before us,
//! and events that engines could not send. Thread `enginedb` in `reader` reads it; this is what it shows.
//!
//! Without the feature `engine-db` nothing is read.

#[cfg(feature = "engine-db")]
mod fault;
#[cfg(feature = "engine-db")]
pub mod reader;
#[cfg(feature = "engine-db")]
mod source;
#[cfg(feature = "engine-db")]
mod values;

use crate::process::clock::monotonic_us;
use crate::process::locks::lock;
use crate::stream::machines::recovered::RecoveredTo;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Settings of thread `enginedb`.
#[derive(Clone, Debug)]
pub struct EngineDbSettings {
    /// `--db`.
    pub path: PathBuf,
    /// The path was given, so that somebody expects a database there.
    pub is_given: bool,
    /// `--db-interval`.
    pub interval: Duration,
    /// `--max-event-bytes`.
    pub event_bytes_max: usize,
}

/// What thread `enginedb` goes on from.
#[derive(Debug)]
pub struct EngineDbBeginning {
    /// Refused events count from here on, seconds since the epoch.
    pub since: f64,
    /// How far a former server has recovered them.
    pub recovered_to: Option<RecoveredTo>,
    /// Those that came while no server ran count too.
    pub resumes: bool,
    /// Machines that had a row when a former server read the database last.
    pub known: Vec<Box<str>>,
}

/// What the last look at the database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nobody has looked yet; or no file, or an empty one, at the default path.
    #[default]
    Absent,
    /// The same at a path that was given.
    Missing(String),
    Fine,
    /// Another process keeps it locked.
    Locked(String),
    Faulty(String),
}

/// A machine whose process is gone, as its row says.
#[derive(Clone, Debug, PartialEq)]
pub struct StaleMachine {
    pub machine: Box<str>,
    pub pid: i32,
    /// A JSON number or null.
    pub last_activity: Option<Box<str>>,
}

/// What `enginedb` shows to threads that ask. It holds the lock for a few assignments only.
#[derive(Debug)]
pub struct EngineDbGauges {
    path: PathBuf,
    shown: Mutex<Shown>,
}

#[derive(Clone, Debug, Default)]
struct Shown {
    condition: Condition,
    read_us: Option<u64>,
    machines: usize,
    stale: usize,
    first_stale: Vec<StaleMachine>,
    recovered: u64,
}

/// As many stale machines are listed.
pub const STALE_LISTED_MAX: usize = 100;

impl EngineDbGauges {
    /// Of the database at `path`, which nobody has looked at yet.
    pub fn new(path: &Path) -> EngineDbGauges {
        EngineDbGauges {
            path: path.to_owned(),
            shown: Mutex::default(),
        }
    }

    fn with<T>(&self, see: impl FnOnce(&mut Shown) -> T) -> T {
        see(&mut lock(&self.shown))
    }

    /// `enginedb`: what a look found.
    pub fn looked(&self, condition: Condition) {
        self.with(|shown| {
            if condition == Condition::Fine {
                shown.read_us = Some(monotonic_us());
            }
            shown.condition = condition;
        });
    }

    /// `enginedb`: how many rows there are, and which of them are stale: the first ones, and how many.
    pub fn read(&self, machines: usize, (stale, first_stale): (usize, Vec<StaleMachine>)) {
        self.with(|shown| (shown.machines, shown.stale, shown.first_stale) = (machines, stale, first_stale));
    }

    /// `enginedb`: so many more events were recovered.
    pub fn recovered(&self, events: u64) {
        self.with(|shown| shown.recovered += events);
    }

    /// As `/health` has it.
    pub fn json(&self) -> Value {
        let shown = self.with(|shown| shown.clone());
        let (state, error) = match &shown.condition {
            Condition::Absent => ("absent", None),
            Condition::Missing(error) => ("absent", Some(error)),
            Condition::Fine => ("ok", None),
            Condition::Locked(error) => ("locked", Some(error)),
            Condition::Faulty(error) => ("fault", Some(error)),
        };
        let since = |us: u64| (monotonic_us().saturating_sub(us) / 100_000) as f64 / 10.0;
        json!({
            "path": self.path.display().to_string(),
            "state": state,
            "error": error,
            "seconds_since_read": shown.read_us.map(since),
            "machines": shown.machines,
            "stale": shown.stale,
            "recovered": shown.recovered,
        })
    }

    /// The first [`STALE_LISTED_MAX`] machines whose process is gone, as `/status` lists them.
    pub fn stale_json(&self) -> Value {
        let stale = self.with(|shown| shown.first_stale.clone());
        // Not by serde_json, which may miss a float's last digit.
        let number = |text: &str| match text.parse::<i64>() {
            Ok(whole) => whole.into(),
            Err(_) => text.parse::<f64>().map_or(Value::Null, Value::from),
        };
        let row = |row: &StaleMachine| {
            json!({
                "machine": row.machine,
                "pid": row.pid,
                "last_activity": row.last_activity.as_deref().map(number),
            })
        };
        stale.iter().map(row).collect()
    }
}
