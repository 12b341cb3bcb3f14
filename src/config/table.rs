//! Every setting of `threadcast serve`: its flag, its help, how its value is read and shown.

use crate::config::{AdminSocket, Config, MAX_EVENT_BYTES_MAX, SettingError, StateFile};
use crate::liveness::watchdog::OnHang;
use crate::outbox::link::Delivery;
use crate::process::address::parse_host;
use crate::process::groups;
use crate::process::logging::form::LogFormat;
use crate::process::values::{
    GIB, HOUR, YEAR, duration, file_path, not_empty, number, octal_mode, show_duration, show_size, size, socket_path,
    switch,
};
use crate::process::web_origin::WebOrigin;
use log::LevelFilter;
use std::path::PathBuf;
use std::time::Duration;

/// Shortest time that most settings take.
const TEN_MS: Duration = Duration::from_millis(10);

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

impl Setting {
    /// The setting of that name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Returns whether it takes no value on the command line.
    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Puts `value` into `config`.
    ///
    /// # Errors
    /// The value cannot be read or is out of bounds; `config` is unchanged, and the text says what would be right.
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
pub static SETTINGS: [Setting; 38] = [
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
        "log-format",
        "auto|text|json",
        "auto: a status line on a terminal, priorities in systemd's journal, else text; json: an object a line",
        |c, v| {
            c.log_format = log_format(v)?;
            Ok(())
        },
        |c| match c.log_format {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
        .to_owned()
    ),
    setting!(
        "utc",
        "",
        "show times in UTC on a terminal too; the log's file always has UTC",
        |c, v| {
            c.utc = switch(v)?;
            Ok(())
        },
        |c| c.utc.to_string()
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

fn engine_db(text: &str) -> Result<Option<PathBuf>, String> {
    match not_empty(text)?.as_str() {
        "none" => Ok(None),
        path if cfg!(feature = "engine-db") => Ok(Some(path.into())),
        _ => Err("this is the minimal build, which reads no database; write none".to_owned()),
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text.parse() {
        Ok(LevelFilter::Off) | Err(_) => Err("write error, warn, info, debug or trace".to_owned()),
        Ok(level) => Ok(level),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write auto, text or json".to_owned()),
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

/// An origin in its normal form, or `*`.
fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let origin = WebOrigin::parse(text).map_err(|error| error.to_string())?;
    Ok(origin.to_string())
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
}
