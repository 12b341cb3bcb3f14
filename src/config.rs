//! The settings of `threadcast serve`: one table from which flags, `--config` and `--help` are made.

pub mod file;
pub mod kinds;
pub mod rules;
pub mod show;
pub mod sources;
pub mod table;

use crate::liveness::watchdog::OnHang;
use crate::outbox::link::Delivery;
use crate::process::logging::form::LogFormat;
use crate::process::values::{DAY, GIB, HOUR, MIB, show_duration};
use crate::stream::declared::Declared;
use crate::stream::learned::LearnedLimits;
use crate::stream::machines::bounds::TableLimits;
use log::LevelFilter;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the machine table is kept across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFile {
    /// `threadcast-state.json` in the log folder.
    InLogDir,
    /// At this path.
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// Where the admin socket lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// `$RUNTIME_DIRECTORY/admin.sock`, else `threadcast-PORT.sock` in `$XDG_RUNTIME_DIR`, else in the log folder.
    #[default]
    Usual,
    /// At this path.
    At(PathBuf),
    /// Nowhere: nobody can act.
    Off,
}

/// Every setting of the server, with the values in force.
#[derive(Clone, Debug)]
pub struct Config {
    pub host: String,
    pub port: u16,
    pub event_socket_path: PathBuf,
    pub socket_mode: u32,
    pub log_dir: PathBuf,
    pub log_level: LevelFilter,
    pub log_format: LogFormat,
    /// Times on a terminal are UTC, not local.
    pub utc: bool,
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
    pub send_timeout: Duration,
    /// Longer than the two before it where a path is dead; shorter is as long as they.
    pub dead_path_timeout: Duration,
    /// `None`: as many as the host allows.
    pub max_clients: Option<usize>,
    pub client_queue_bytes: usize,
    pub history_bytes: usize,
    pub max_behind: Duration,
    pub max_event_bytes: usize,
    pub ingest_patience: Duration,
    pub delivery: Delivery,
    pub state_file: StateFile,
    /// The folder of the journal; `None`: events are not journaled.
    pub journal: Option<PathBuf>,
    pub journal_segment_bytes: usize,
    pub journal_segment_age: Duration,
    pub journal_keep_bytes: usize,
    pub journal_keep_age: Duration,
    /// The original engine's database; `None`: it is not read.
    pub db: Option<PathBuf>,
    /// Somebody gave its path, so that it is worth a word if there is nothing.
    pub db_is_given: bool,
    pub db_interval: Duration,
    /// At least 1.
    pub max_machines: usize,
    /// Of the machine table, with all copies that the server makes of it.
    pub machine_bytes: usize,
    /// `None`: a machine stays until it terminates or is forgotten.
    pub machine_ttl: Option<Duration>,
    pub learned_states: usize,
    pub learned_transitions: usize,
    pub learned_bytes: usize,
    /// After which time a machine is stuck, where a rule says so.
    pub stuck: Declared,
    /// In percent: while the host is starved of CPU like this, no machine is judged.
    pub stuck_cpu_pressure: usize,
    /// Plain clients see the server's own events too.
    pub plain_notices: bool,
    pub allow_origin: Vec<String>,
    /// The program that is run for alerts, and its arguments; empty: none.
    pub on_alert: Vec<String>,
    /// How long it may run.
    pub on_alert_timeout: Duration,
    pub heartbeat_interval: Duration,
    /// `None`: no status file.
    pub status_file: Option<PathBuf>,
    pub hang_timeout: Duration,
    pub on_hang: OnHang,
    pub slow_broadcast: Duration,
    pub slow_snapshot: Duration,
    pub allow_drill: bool,
    pub admin_socket: AdminSocket,
    /// The group whose members may act, by its number.
    pub admin_group: Option<u32>,
    /// SO_SNDBUF of every client, in bytes as given to setsockopt(2). Not a flag: an operator has no reason to change
    /// it; tests make it tiny so that every send is partial.
    pub send_buffer_bytes: usize,
}

/// 208 KiB, which every Linux grants without privilege (`net.core.wmem_max`); the kernel doubles it for its own
/// bookkeeping. Left alone it would grow to 4 MB per client, some 20,000 events that nobody could see lagging.
const SEND_BUFFER_BYTES: usize = 212_992;

impl Default for Config {
    fn default() -> Self {
        Config {
            host: "127.0.0.1".to_owned(),
            port: 3002,
            event_socket_path: PathBuf::from("/tmp/statemachine-events.sock"),
            socket_mode: 0o660,
            log_dir: PathBuf::from("logs"),
            log_level: LevelFilter::Info,
            log_format: LogFormat::Auto,
            utc: false,
            ping_interval: Duration::from_secs(10),
            pong_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(2),
            // As long as the pong timeout: a client that hears nothing for 25 s connects anew by itself.
            dead_path_timeout: Duration::from_secs(30),
            max_clients: None,
            client_queue_bytes: 1024 * 1024,
            history_bytes: 64 * 1024 * 1024,
            max_behind: Duration::from_secs(30),
            max_event_bytes: 256 * 1024,
            ingest_patience: Duration::from_millis(5),
            delivery: Delivery::Direct,
            state_file: StateFile::InLogDir,
            journal: None,
            journal_segment_bytes: 64 * MIB,
            journal_segment_age: HOUR,
            journal_keep_bytes: GIB,
            journal_keep_age: 7 * DAY,
            db: cfg!(feature = "engine-db").then(|| PathBuf::from("data/pipeline.db")),
            db_is_given: false,
            db_interval: Duration::from_secs(2),
            max_machines: TableLimits::default().machines_max,
            machine_bytes: TableLimits::default().bytes_max,
            machine_ttl: None,
            learned_states: LearnedLimits::default().states_max,
            learned_transitions: LearnedLimits::default().transitions_max,
            learned_bytes: LearnedLimits::default().bytes_max,
            stuck: Declared::default(),
            stuck_cpu_pressure: 80,
            plain_notices: false,
            allow_origin: Vec::new(),
            on_alert: Vec::new(),
            on_alert_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(5),
            status_file: None,
            hang_timeout: Duration::from_secs(15),
            on_hang: OnHang::Report,
            slow_broadcast: Duration::from_millis(50),
            slow_snapshot: Duration::from_millis(200),
            allow_drill: false,
            admin_socket: AdminSocket::Usual,
            admin_group: None,
            send_buffer_bytes: SEND_BUFFER_BYTES,
        }
    }
}

impl Config {
    /// Checks the settings that must fit each other.
    ///
    /// # Errors
    /// The ping interval is not shorter than the pong timeout, or the status file is the state file. The text names the
    /// setting to change and the bound that it breaks; the server must not start with it.
    pub fn check(&self) -> Result<(), SettingError> {
        if self.pong_timeout <= self.ping_interval {
            return Err(SettingError {
                name: "pong-timeout".to_owned(),
                value: show_duration(self.pong_timeout),
                wanted: format!(
                    "it must be longer than ping-interval ({}), or clients are ended before they are asked for a sign of life",
                    show_duration(self.ping_interval)
                ),
            });
        }
        match (&self.status_file, self.state_path()) {
            (Some(status), Some(state)) if is_same_path(status, &state) => Err(SettingError {
                name: "status-file".to_owned(),
                value: status.display().to_string(),
                wanted: "it must not be the state file, which it would replace".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The path of the state file, if there is to be one.
    pub fn state_path(&self) -> Option<PathBuf> {
        match &self.state_file {
            StateFile::InLogDir => Some(self.log_dir.join("threadcast-state.json")),
            StateFile::At(path) => Some(path.clone()),
            StateFile::Off => None,
        }
    }

    /// Where reports of hangs are written.
    pub fn hang_report_path(&self) -> PathBuf {
        self.log_dir.join("hang-emergency.log")
    }

    /// The path of the log file.
    pub fn log_path(&self) -> PathBuf {
        self.log_dir.join("websocket-server.log")
    }
}

/// A setting whose value could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    pub name: String,
    pub value: String,
    pub wanted: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SettingError { name, value, wanted } = self;
        write!(f, "{name} cannot be {value:?}: {wanted}")
    }
}

impl std::error::Error for SettingError {}

/// The largest `--max-event-bytes`: a message to a client stays below 1 MiB, with what stands around the event.
pub const MAX_EVENT_BYTES_MAX: usize = MIB - 1024;

/// Returns whether both lead to the same place, as far as their spelling tells.
fn is_same_path(one: &Path, other: &Path) -> bool {
    match (std::path::absolute(one), std::path::absolute(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
