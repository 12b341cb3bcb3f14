//! The settings of `threadcast serve`: one table from which flags, `--config` and `--help` are made.

use crate::process::address::parse_host;
use crate::process::groups;
use crate::process::web_origin::WebOrigin;
use log::LevelFilter;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How events reach clients that keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// `fanout` sends without blocking; the client's own thread takes over when its socket is full.
    Direct,
    /// The client's own thread does every send.
    Queued,
}

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

/// What the server does when a core thread hangs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnHang {
    /// Report, and go on with what moves.
    #[default]
    Report,
    /// Report, then end the process with SIGABRT, so that a supervisor starts it anew.
    Abort,
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
    /// `None`: a machine stays until it terminates or is forgotten.
    pub machine_ttl: Option<Duration>,
    pub allow_origin: Vec<String>,
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
            machine_ttl: None,
            allow_origin: Vec::new(),
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
    /// Looks at settings that must fit each other.
    ///
    /// # Errors
    /// They do not.
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

/// One setting: its flag is `--name`, its key in the settings file is `name`.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// What stands for the value in `--help`; empty for a switch.
    pub value: &'static str,
    pub help: &'static str,
    /// May be given more than once.
    pub repeats: bool,
    set: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
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

impl Setting {
    /// The setting of that name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Whether it takes no value on the command line.
    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Puts `value` into `config`.
    ///
    /// # Errors
    /// The value cannot be read or is out of bounds; the text says what would be right.
    pub fn set(&self, config: &mut Config, value: &str) -> Result<(), SettingError> {
        (self.set)(config, value).map_err(|wanted| SettingError {
            name: self.name.to_owned(),
            value: value.to_owned(),
            wanted,
        })
    }

    /// The value in force, as it could be given again.
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }
}

macro_rules! setting {
    ($name:literal, $value:literal, $help:literal, $set:expr, $show:expr) => {
        Setting {
            name: $name,
            value: $value,
            help: $help,
            repeats: false,
            set: $set,
            show: $show,
        }
    };
}

/// Every setting, in the order of `--help`.
pub static SETTINGS: [Setting; 36] = [
    setting!(
        "host",
        "ADDRESS",
        "address of HTTP and WebSocket, without port; a name is resolved once",
        |c, v| {
            c.host = parse_host(v)?;
            Ok(())
        },
        |c| c.host.clone()
    ),
    setting!(
        "port",
        "PORT",
        "TCP port of HTTP and WebSocket; 0 takes a free one",
        |c, v| {
            c.port = number(v, 0, u64::from(u16::MAX))? as u16;
            Ok(())
        },
        |c| c.port.to_string()
    ),
    setting!(
        "event-socket-path",
        "PATH",
        "Unix datagram socket that engines send events to",
        |c, v| {
            c.event_socket_path = socket_path(v.as_ref())?;
            Ok(())
        },
        |c| c.event_socket_path.display().to_string()
    ),
    setting!(
        "socket-mode",
        "MODE",
        "permissions of that socket, octal; a sender needs write permission",
        |c, v| {
            c.socket_mode = octal_mode(v)?;
            Ok(())
        },
        |c| format!("{:04o}", c.socket_mode)
    ),
    setting!(
        "log-dir",
        "DIR",
        "folder of websocket-server.log (10 MiB, five older ones kept)",
        |c, v| {
            c.log_dir = not_empty(v)?.into();
            Ok(())
        },
        |c| c.log_dir.display().to_string()
    ),
    setting!(
        "log-level",
        "LEVEL",
        "error, warn, info, debug (every event) or trace",
        |c, v| {
            c.log_level = level(v)?;
            Ok(())
        },
        |c| c.log_level.as_str().to_lowercase()
    ),
    setting!(
        "ping-interval",
        "TIME",
        "how often each client is pinged",
        |c, v| {
            c.ping_interval = duration(v, TEN_MS, HOUR)?;
            Ok(())
        },
        |c| show_duration(c.ping_interval)
    ),
    setting!(
        "pong-timeout",
        "TIME",
        "a client is ended when for this long nothing came from it and it took nothing of a backlog",
        |c, v| {
            c.pong_timeout = duration(v, TEN_MS, HOUR)?;
            Ok(())
        },
        |c| show_duration(c.pong_timeout)
    ),
    setting!(
        "send-timeout",
        "TIME",
        "a client that takes no byte of its backlog for this long is ended",
        |c, v| {
            c.send_timeout = duration(v, TEN_MS, HOUR)?;
            Ok(())
        },
        |c| show_duration(c.send_timeout)
    ),
    setting!(
        "dead-path-timeout",
        "TIME",
        "a client that the network cannot reach is ended only after this long, if the two times before are shorter",
        |c, v| {
            c.dead_path_timeout = duration(v, TEN_MS, HOUR)?;
            Ok(())
        },
        |c| show_duration(c.dead_path_timeout)
    ),
    setting!(
        "max-clients",
        "COUNT",
        "most WebSocket clients at a time; auto: as many as the host's limits allow",
        |c, v| {
            c.max_clients = if v == "auto" {
                None
            } else {
                Some(number(v, 1, 1_000_000)? as usize)
            };
            Ok(())
        },
        |c| c.max_clients.map_or("auto".to_owned(), |count| count.to_string())
    ),
    setting!(
        "client-queue-bytes",
        "SIZE",
        "backlog of one client; one that falls further behind catches up from the history",
        |c, v| {
            c.client_queue_bytes = size(v, 4096, GIB)?;
            Ok(())
        },
        |c| show_size(c.client_queue_bytes)
    ),
    setting!(
        "history-bytes",
        "SIZE",
        "recent events kept for clients that fall behind or come back",
        |c, v| {
            c.history_bytes = size(v, 0, 64 * GIB)?;
            Ok(())
        },
        |c| show_size(c.history_bytes)
    ),
    setting!(
        "max-behind",
        "TIME",
        "a client that catches up for so long is ended",
        |c, v| {
            c.max_behind = duration(v, TEN_MS, HOUR)?;
            Ok(())
        },
        |c| show_duration(c.max_behind)
    ),
    setting!(
        "max-event-bytes",
        "SIZE",
        "largest event; larger ones are dropped and counted; a sender of more than 207 KiB sets SO_SNDBUF",
        |c, v| {
            c.max_event_bytes = size(v, 1024, MAX_EVENT_BYTES_MAX)?;
            Ok(())
        },
        |c| show_size(c.max_event_bytes)
    ),
    setting!(
        "ingest-patience",
        "TIME",
        "how long a sender may be held once the fan-out has stopped moving",
        |c, v| {
            c.ingest_patience = duration(v, Duration::ZERO, Duration::from_millis(250))?;
            Ok(())
        },
        |c| show_duration(c.ingest_patience)
    ),
    setting!(
        "delivery",
        "direct|queued",
        "who sends to clients that keep up: the fan-out, or each client's own thread",
        |c, v| {
            c.delivery = delivery(v)?;
            Ok(())
        },
        |c| match c.delivery {
            Delivery::Direct => "direct",
            Delivery::Queued => "queued",
        }
        .to_owned()
    ),
    setting!(
        "admin-socket",
        "PATH",
        "Unix socket through which forget, diagnose and drill act on the server; auto: admin.sock in $RUNTIME_DIRECTORY, else threadcast-PORT.sock in $XDG_RUNTIME_DIR or the log folder; none: nobody can act",
        |c, v| {
            c.admin_socket = match not_empty(v)?.as_str() {
                "auto" => AdminSocket::Usual,
                "none" => AdminSocket::Off,
                path => AdminSocket::At(file_path(path.as_ref())?),
            };
            Ok(())
        },
        |c| match &c.admin_socket {
            AdminSocket::Usual => "auto".to_owned(),
            AdminSocket::At(path) => path.display().to_string(),
            AdminSocket::Off => "none".to_owned(),
        }
    ),
    setting!(
        "admin-group",
        "GROUP",
        "a group, by name or number, whose members may act on the server as its own user and root may",
        |c, v| {
            c.admin_group = if v == "none" {
                None
            } else {
                Some(groups::number_of(&not_empty(v)?)?)
            };
            Ok(())
        },
        |c| c.admin_group.map_or("none".to_owned(), |group| group.to_string())
    ),
    setting!(
        "state-file",
        "PATH",
        "where machines are kept across restarts; auto: threadcast-state.json in the log folder; none: nowhere",
        |c, v| {
            c.state_file = state_file(v)?;
            Ok(())
        },
        |c| match &c.state_file {
            StateFile::InLogDir => "auto".to_owned(),
            StateFile::At(path) => path.display().to_string(),
            StateFile::Off => "none".to_owned(),
        }
    ),
    setting!(
        "journal",
        "DIR",
        "folder in which every event is kept as a JSON line; one server each; none: nowhere",
        |c, v| {
            c.journal = match not_empty(v)?.as_str() {
                "none" => None,
                folder => Some(folder.into()),
            };
            Ok(())
        },
        |c| match &c.journal {
            Some(folder) => folder.display().to_string(),
            None => "none".to_owned(),
        }
    ),
    setting!(
        "journal-segment-bytes",
        "SIZE",
        "a file of the journal that would pass this is followed by another",
        |c, v| {
            c.journal_segment_bytes = size(v, 64 * 1024, 64 * GIB)?;
            Ok(())
        },
        |c| show_size(c.journal_segment_bytes)
    ),
    setting!(
        "journal-segment-age",
        "TIME",
        "so is one that has become so old",
        |c, v| {
            c.journal_segment_age = duration(v, Duration::from_secs(1), YEAR)?;
            Ok(())
        },
        |c| show_duration(c.journal_segment_age)
    ),
    setting!(
        "journal-keep-bytes",
        "SIZE",
        "the oldest files of the journal go when all together would pass this",
        |c, v| {
            c.journal_keep_bytes = size(v, 64 * 1024, 1024 * GIB)?;
            Ok(())
        },
        |c| show_size(c.journal_keep_bytes)
    ),
    setting!(
        "journal-keep-age",
        "TIME",
        "a file of the journal goes this long after its last event",
        |c, v| {
            c.journal_keep_age = duration(v, Duration::from_secs(1), 100 * YEAR)?;
            Ok(())
        },
        |c| show_duration(c.journal_keep_age)
    ),
    setting!(
        "db",
        "FILE",
        "the engines' database: machines started before the server, and events that could not be sent; never written; none: not read",
        |c, v| {
            c.db = engine_db(v)?;
            c.db_is_given = true;
            Ok(())
        },
        |c| match &c.db {
            Some(path) => path.display().to_string(),
            None => "none".to_owned(),
        }
    ),
    setting!(
        "db-interval",
        "TIME",
        "how often it is looked whether that has changed",
        |c, v| {
            c.db_interval = duration(v, Duration::from_millis(100), HOUR)?;
            Ok(())
        },
        |c| show_duration(c.db_interval)
    ),
    setting!(
        "machine-ttl",
        "TIME",
        "a machine silent for this long leaves the snapshot; never: it stays until it ends",
        |c, v| {
            c.machine_ttl = if v == "never" {
                None
            } else {
                Some(duration(v, TEN_MS, YEAR)?)
            };
            Ok(())
        },
        |c| c.machine_ttl.map_or("never".to_owned(), show_duration)
    ),
    Setting {
        name: "allow-origin",
        value: "ORIGIN",
        help: "a further web origin that may connect, such as https://dash.example.com; may be given again; * for any",
        repeats: true,
        set: |c, v| {
            c.allow_origin.push(origin(v)?);
            Ok(())
        },
        show: |c| {
            if c.allow_origin.is_empty() {
                "none".to_owned()
            } else {
                c.allow_origin.join(",")
            }
        },
    },
    setting!(
        "heartbeat-interval",
        "TIME",
        "how often the log gets a heartbeat line, and the status file is written",
        |c, v| {
            c.heartbeat_interval = duration(v, Duration::from_millis(100), HOUR)?;
            Ok(())
        },
        |c| show_duration(c.heartbeat_interval)
    ),
    setting!(
        "status-file",
        "FILE",
        "JSON that is rewritten with every heartbeat, so that its age shows whether the server lives; none: no file",
        |c, v| {
            c.status_file = match not_empty(v)?.as_str() {
                "none" => None,
                path => Some(path.into()),
            };
            Ok(())
        },
        |c| match &c.status_file {
            Some(path) => path.display().to_string(),
            None => "none".to_owned(),
        }
    ),
    setting!(
        "hang-timeout",
        "TIME",
        "a thread without progress for this long is hung; a third of it: late",
        |c, v| {
            c.hang_timeout = duration(v, Duration::from_secs(1), HOUR)?;
            Ok(())
        },
        |c| show_duration(c.hang_timeout)
    ),
    setting!(
        "on-hang",
        "report|abort",
        "when a core thread hangs: report and go on, or report and end with SIGABRT",
        |c, v| {
            c.on_hang = on_hang(v)?;
            Ok(())
        },
        |c| match c.on_hang {
            OnHang::Report => "report",
            OnHang::Abort => "abort",
        }
        .to_owned()
    ),
    setting!(
        "slow-broadcast",
        "TIME",
        "warn about a broadcast that takes longer",
        |c, v| {
            c.slow_broadcast = duration(v, Duration::from_millis(1), HOUR)?;
            Ok(())
        },
        |c| show_duration(c.slow_broadcast)
    ),
    setting!(
        "slow-snapshot",
        "TIME",
        "warn about a snapshot that takes longer to make or to send",
        |c, v| {
            c.slow_snapshot = duration(v, Duration::from_millis(1), HOUR)?;
            Ok(())
        },
        |c| show_duration(c.slow_snapshot)
    ),
    setting!(
        "allow-drill",
        "",
        "let `threadcast drill` freeze a component for a while, to try the alarms",
        |c, v| {
            c.allow_drill = switch(v)?;
            Ok(())
        },
        |c| c.allow_drill.to_string()
    ),
];

/// The largest `--max-event-bytes`: a message to a client stays below 1 MiB, with what stands around the event.
pub const MAX_EVENT_BYTES_MAX: usize = MIB - 1024;

const MIB: usize = 1024 * 1024;
const GIB: usize = 1024 * MIB;
const TEN_MS: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
/// sun_path holds 108 bytes with its final zero (unix(7)); `.lock` is put behind the same path.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Whether both lead to the same place, as far as their spelling tells.
fn is_same_path(one: &Path, other: &Path) -> bool {
    match (std::path::absolute(one), std::path::absolute(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn engine_db(text: &str) -> Result<Option<PathBuf>, String> {
    match not_empty(text)?.as_str() {
        "none" => Ok(None),
        path if cfg!(feature = "engine-db") => Ok(Some(path.into())),
        _ => Err("this is the minimal build, which reads no database; write none".to_owned()),
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it must not be empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// The path of the event socket's file.
///
/// # Errors
/// As [`file_path`]; or it is longer than 107 bytes.
pub fn socket_path(path: &OsStr) -> Result<PathBuf, String> {
    let bytes = path.as_bytes();
    if bytes.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "a socket path has at most {SOCKET_PATH_BYTES_MAX} bytes, this one has {}",
            bytes.len()
        ));
    }
    file_path(path)
}

/// The path of a socket's file.
///
/// # Errors
/// It is empty, or means something else to other programs; the text says what would be right.
pub fn file_path(path: &OsStr) -> Result<PathBuf, String> {
    let bytes = path.as_bytes();
    if bytes.is_empty() {
        return Err("it must not be empty".to_owned());
    }
    // Other programs (ss, socat, systemd) write so what unix(7) calls an abstract socket. One of these has no
    // permissions, so any user could connect, and no file to lock or to watch.
    if bytes.starts_with(b"@") {
        return Err(format!(
            "a name that begins with @ stands for an abstract socket, which has neither permissions nor a file, and is \
             not supported; write the path of a file, and ./{} for a file of that name",
            path.display()
        ));
    }
    Ok(path.into())
}

/// Reads a whole number.
///
/// # Errors
/// It is none, or out of bounds; the text says what would be right.
pub fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(value) if is_digits && (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("write a whole number from {least} to {most}")),
    }
}

fn octal_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("write an octal mode such as 0660".to_owned()),
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text.parse() {
        Ok(LevelFilter::Off) | Err(_) => Err("write error, warn, info, debug or trace".to_owned()),
        Ok(level) => Ok(level),
    }
}

fn on_hang(text: &str) -> Result<OnHang, String> {
    match text {
        "report" => Ok(OnHang::Report),
        "abort" => Ok(OnHang::Abort),
        _ => Err("it must be report or abort".to_owned()),
    }
}

fn delivery(text: &str) -> Result<Delivery, String> {
    match text {
        "direct" => Ok(Delivery::Direct),
        "queued" => Ok(Delivery::Queued),
        _ => Err("write direct or queued".to_owned()),
    }
}

fn state_file(text: &str) -> Result<StateFile, String> {
    Ok(match not_empty(text)?.as_str() {
        "auto" => StateFile::InLogDir,
        "none" => StateFile::Off,
        path => StateFile::At(path.into()),
    })
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "write true or false".to_owned())
}

/// An origin in its normal form, or `*`.
fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let origin = WebOrigin::parse(text).map_err(|error| error.to_string())?;
    Ok(origin.to_string())
}

/// Reads a time such as `500ms`, `10s` or `2m`.
///
/// # Errors
/// It is none, or out of bounds; the text says what would be right.
pub fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let units = [
        ("ms", 0.001),
        ("us", 0.000_001),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("d", 86_400.0),
    ];
    let value = units.iter().find_map(|(unit, seconds)| {
        let count: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        Duration::try_from_secs_f64(count * seconds).ok()
    });
    match value {
        Some(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!(
            "write a time such as 500ms, 10s or 2m, from {} to {}",
            show_duration(least),
            show_duration(most)
        )),
    }
}

fn size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let units = [("KiB", 1024), ("MiB", MIB), ("GiB", GIB), ("B", 1), ("", 1)];
    let value = units.iter().find_map(|(unit, bytes)| {
        let count: usize = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        count.checked_mul(*bytes)
    });
    match value {
        Some(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!(
            "write a size such as 256KiB or 1MiB, from {} to {}",
            show_size(least),
            show_size(most)
        )),
    }
}

pub fn show_duration(value: Duration) -> String {
    let micros = value.as_micros();
    match micros {
        0 => "0s".to_owned(),
        micros if micros.is_multiple_of(3_600_000_000) => format!("{}h", micros / 3_600_000_000),
        micros if micros.is_multiple_of(60_000_000) => format!("{}m", micros / 60_000_000),
        micros if micros.is_multiple_of(1_000_000) => format!("{}s", micros / 1_000_000),
        micros if micros.is_multiple_of(1000) => format!("{}ms", micros / 1000),
        micros => format!("{micros}us"),
    }
}

/// The size as it could be given again.
pub fn show_size(value: usize) -> String {
    match value {
        value if value >= GIB && value.is_multiple_of(GIB) => format!("{}GiB", value / GIB),
        value if value >= MIB && value.is_multiple_of(MIB) => format!("{}MiB", value / MIB),
        value if value >= 1024 && value.is_multiple_of(1024) => format!("{}KiB", value / 1024),
        value => format!("{value}B"),
    }
}

/// A settings file that could not be used: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub path: PathBuf,
    /// Counted from 1; `None` when it concerns the whole file.
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

impl std::error::Error for FileError {}

/// Reads the TOML file at `path` into `config`.
///
/// # Errors
/// It cannot be read, is not TOML, or has a key or a value that we do not know; with the line.
#[cfg(feature = "config-file")]
pub fn read_file(path: &Path, config: &mut Config) -> Result<(), FileError> {
    let error = |line, message| FileError {
        path: path.to_owned(),
        line,
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(None, format!("cannot read the settings file: {e}")))?;
    let line_at = |offset: usize| Some(text[..offset.min(text.len())].matches('\n').count() + 1);
    let table = toml::de::DeTable::parse(&text).map_err(|e| {
        let line = e.span().and_then(|span| line_at(span.start));
        error(line, e.message().to_owned())
    })?;
    for (key, value) in table.get_ref() {
        let line = line_at(key.span().start);
        let Some(setting) = Setting::find(key.get_ref()) else {
            return Err(error(line, unknown(key.get_ref())));
        };
        for value in scalars(value.get_ref(), setting.repeats)
            .map_err(|wrong| error(line, format!("{} cannot be {wrong}", setting.name)))?
        {
            setting.set(config, &value).map_err(|e| error(line, e.to_string()))?;
        }
    }
    Ok(())
}

/// The minimal build reads no settings file.
///
/// # Errors
/// Always.
#[cfg(not(feature = "config-file"))]
pub fn read_file(path: &std::path::Path, _config: &mut Config) -> Result<(), FileError> {
    Err(FileError {
        path: path.to_owned(),
        line: None,
        message: "this is the minimal build, which reads no settings file; give the settings as flags".to_owned(),
    })
}

/// What to say about a name that is no setting's.
pub fn unknown(name: &str) -> String {
    let nearest = SETTINGS
        .iter()
        .map(|setting| (distance(name, setting.name), setting.name))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match nearest {
        Some((_, nearest)) => format!("there is no setting {name:?}; did you mean {nearest:?}?"),
        None => format!("there is no setting {name:?}; `threadcast serve --help` lists them"),
    }
}

/// Edits (insert, remove, replace) from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(feature = "config-file")]
fn scalars(value: &toml::de::DeValue<'_>, repeats: bool) -> Result<Vec<String>, String> {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Ok(vec![text.to_string()]),
        DeValue::Integer(number) => Ok(vec![number.to_string()]),
        DeValue::Boolean(truth) => Ok(vec![truth.to_string()]),
        DeValue::Array(values) if repeats => {
            let each = values.iter().map(|value| scalars(value.get_ref(), false));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        }
        other => Err(format!("of type {}", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_shows_what_can_be_set_again() {
        let config = Config::default();
        for setting in &SETTINGS {
            if setting.repeats {
                continue;
            }
            let mut again = Config::default();
            setting.set(&mut again, &setting.show(&config)).unwrap();
            assert_eq!(setting.show(&again), setting.show(&config), "{}", setting.name);
        }
    }

    #[test]
    fn values_out_of_bounds_say_what_would_be_right() {
        let mut config = Config::default();
        for (name, value, part) in [
            ("port", "70000", "from 0 to 65535"),
            ("ping-interval", "10", "10s"),
            ("ping-interval", "-1s", "10s"),
            ("client-queue-bytes", "1 byte", "256KiB"),
            ("max-event-bytes", "2MiB", "1023KiB"),
            ("socket-mode", "rw", "0660"),
            ("delivery", "fast", "direct or queued"),
            ("on-hang", "retry", "report or abort"),
            ("log-level", "loud", "debug"),
            ("allow-origin", "dash.example.com/x", "https://"),
            ("event-socket-path", &"x".repeat(108), "107 bytes"),
            ("admin-socket", "@admin", "./@admin"),
            ("admin-group", "4294967295", "from 0 to 4294967294"),
        ] {
            let error = Setting::find(name).unwrap().set(&mut config, value).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn times_and_sizes_are_read_and_shown() {
        let any = |text| duration(text, Duration::ZERO, YEAR).map(show_duration);
        assert_eq!(any("0.5s").unwrap(), "500ms");
        assert_eq!(any("120s").unwrap(), "2m");
        assert_eq!(any("250us").unwrap(), "250us");
        assert_eq!(size("1536KiB", 0, GIB).map(show_size).unwrap(), "1536KiB");
        assert_eq!(size("65536", 0, GIB).map(show_size).unwrap(), "64KiB");
    }

    #[cfg(feature = "config-file")]
    fn file(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("threadcast.toml");
        std::fs::write(&path, text).unwrap();
        let mut config = Config::default();
        read_file(&path, &mut config)
            .map(|()| config)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[cfg(feature = "config-file")]
    #[test]
    fn a_settings_file_sets_what_flags_set() {
        let config = file(
            "port = 8765\nping-interval = \"5s\"\nallow-drill = true\nallow-origin = [\"https://a\", \"https://b\"]",
        )
        .unwrap();
        assert_eq!((config.port, config.ping_interval.as_secs()), (8765, 5));
        assert_eq!(config.allow_origin, ["https://a", "https://b"]);
    }

    #[cfg(feature = "config-file")]
    #[test]
    fn a_fault_in_a_settings_file_comes_with_its_line() {
        let cases = [
            (
                "port = 1\nprot = 2",
                "FILE, line 2: there is no setting \"prot\"; did you mean \"port\"?",
            ),
            (
                "\n\nport = \"x\"",
                "FILE, line 3: port cannot be \"x\": write a whole number from 0 to 65535",
            ),
            ("host = [\"a\"]", "FILE, line 1: host cannot be of type array"),
        ];
        for (text, expected) in cases {
            assert_eq!(file(text).unwrap_err(), expected);
        }
        assert!(file("host = ").unwrap_err().starts_with("FILE, line 1: "));
    }
}
