//! Every setting of `threadcast serve`: its name, its kind, its help. Flags, the settings file, the environment,
//! `--help`, completions, the manual and docs/reference.md are made from this one table.

use crate::config::kinds::{Field, Kind, Own, alternatives};
use crate::config::rules::STUCK;
use crate::config::{AdminSocket, Config, MAX_EVENT_BYTES_MAX, SettingError, StateFile};
use crate::liveness::watchdog::OnHang;
use crate::outbox::link::Delivery;
use crate::process::address::parse_host;
use crate::process::command_line::join;
use crate::process::groups;
use crate::process::logging::form::LogFormat;
use crate::process::nearest::nearest;
use crate::process::values::{GIB, HOUR, KIB, MIB, YEAR, file_path, not_empty, number, octal_mode, socket_path};
use crate::process::web_origin::WebOrigin;
use log::LevelFilter;
use std::time::Duration;

/// One setting: its flag is `--name`, its key in the settings file is `name`.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// What it does: one line, without an end.
    pub help: &'static str,
    pub kind: Kind,
}

/// The settings of one concern.
#[derive(Debug)]
pub struct Group {
    pub name: &'static str,
    pub settings: &'static [Setting],
}

/// Names in the environment that begin so are settings.
pub const ENVIRONMENT_PREFIX: &str = "THREADCAST_SET_";

impl Setting {
    /// The setting of that name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        settings().find(|setting| setting.name == name)
    }

    /// Returns whether it takes no value on the command line.
    pub fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch(_))
    }

    /// Returns whether it may be given more than once.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List(..) | Kind::Rules(_))
    }

    /// Its name in the environment.
    pub fn environment_name(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// Puts `value` into `config`; a list gets it as one more.
    ///
    /// # Errors
    /// The value cannot be read or is out of bounds; `config` is unchanged, and the text says what would be right.
    pub fn set(&self, config: &mut Config, value: &str) -> Result<(), SettingError> {
        self.kind.set(config, value).map_err(|wanted| SettingError {
            name: self.name.to_owned(),
            value: value.to_owned(),
            wanted,
        })
    }

    /// Puts words into `config`, for a setting that takes a command; the settings file may have them as a list.
    ///
    /// # Errors
    /// As [`Setting::set`].
    pub fn set_words(&self, config: &mut Config, words: Vec<String>) -> Result<(), SettingError> {
        let value = words.join(" ");
        self.kind.set_words(config, words).map_err(|wanted| SettingError {
            name: self.name.to_owned(),
            value,
            wanted,
        })
    }

    /// The value in force for the log, which may be read by more people than the settings: of a command the program,
    /// without its arguments.
    pub fn logged(&self, config: &Config) -> String {
        match &self.kind {
            Kind::Words(_, field) => match (field.of)(config).as_slice() {
                [program, _, ..] => format!("{} ...", join([program.as_str()])),
                _ => self.show(config),
            },
            _ => self.show(config),
        }
    }

    /// Takes away what a list has, before a source sets it anew. Nothing for another kind.
    pub fn begin(&self, config: &mut Config) {
        self.kind.begin(config);
    }

    /// The value in force, as it could be given again; a list's with commas between.
    pub fn show(&self, config: &Config) -> String {
        self.kind.show(config)
    }

    /// The values in force, one for each time that the setting would be given.
    pub fn values(&self, config: &Config) -> Vec<String> {
        self.kind.values(config)
    }
}

/// Every setting, in the order of the help.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings)
}

/// What to say about a name that is no setting's.
pub fn unknown(name: &str) -> String {
    match nearest(name, settings().map(|setting| setting.name)) {
        Some(nearest) => format!("there is no setting {name:?}; did you mean {nearest:?}?"),
        None => format!("there is no setting {name:?}; `threadcast config show` lists them"),
    }
}

/// Rows of the table: `"name" = kind(field, bounds), "help";`.
macro_rules! rows {
    ($($name:literal = $kind:ident($($argument:tt)*), $help:literal;)*) => {
        &[$(Setting { name: $name, help: $help, kind: rows!(@$kind $($argument)*) }),*]
    };
    (@switch $field:ident) => { Kind::Switch(rows!(@field $field)) };
    (@time $field:ident, $least:expr, $most:expr) => { Kind::Time(rows!(@field $field), $least, $most) };
    (@time_or $word:literal, $field:ident, $least:expr, $most:expr) => {
        Kind::TimeOr(rows!(@field $field), $word, $least, $most)
    };
    (@count $field:ident, $least:expr, $most:expr) => { Kind::Count(rows!(@field $field), $least, $most) };
    (@size $field:ident, $least:expr, $most:expr) => { Kind::Size(rows!(@field $field), $least, $most) };
    (@folder $field:ident) => { Kind::Folder(rows!(@field $field)) };
    (@path_or_none $value:literal, $field:ident) => { Kind::PathOrNone($value, rows!(@field $field)) };
    (@list $value:literal, $field:ident, $read:expr) => { Kind::List($value, rows!(@field $field), $read) };
    (@choice $value:literal, $field:ident, $($word:literal => $variant:path),+) => {
        Kind::Own(Own {
            value: $value,
            words: &[$($word),+],
            takes: "",
            set: |config, text| {
                let words = [$(($word, $variant)),+];
                let chosen = words.into_iter().find(|(word, _)| *word == text);
                config.$field = chosen.ok_or_else(|| format!("write {}", alternatives(&[$($word),+])))?.1;
                Ok(())
            },
            show: |config| {
                let words = [$(($word, $variant)),+];
                let shown = words.into_iter().find(|(_, variant)| *variant == config.$field);
                shown.map_or_else(String::new, |(word, _)| word.to_owned())
            },
        })
    };
    (@words $value:literal, $field:ident) => { Kind::Words($value, rows!(@field $field)) };
    (@rules $rules:expr) => { Kind::Rules($rules) };
    (@own $own:expr) => { Kind::Own($own) };
    (@field $field:ident) => { Field { of: |config| &config.$field, of_mut: |config| &mut config.$field } };
}

/// Every setting by its concern, in the order of the help.
pub static GROUPS: [Group; 10] = [
    Group {
        name: "Network",
        settings: NETWORK,
    },
    Group {
        name: "Events",
        settings: EVENTS,
    },
    Group {
        name: "Clients",
        settings: CLIENTS,
    },
    Group {
        name: "Machines and history",
        settings: MACHINES,
    },
    Group {
        name: "Stuck machines",
        settings: STUCK_MACHINES,
    },
    Group {
        name: "Journal",
        settings: JOURNAL,
    },
    Group {
        name: "Engine database",
        settings: ENGINE_DB,
    },
    Group {
        name: "Liveness",
        settings: LIVENESS,
    },
    Group {
        name: "Log and status",
        settings: LOG,
    },
    Group {
        name: "Acting on the server",
        settings: ACTING,
    },
];

const MS: Duration = Duration::from_millis(1);
const TEN_MS: Duration = Duration::from_millis(10);
const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const CENTURY: Duration = YEAR.saturating_mul(100);

const NETWORK: &[Setting] = rows! {
    "host" = own(HOST), "address of HTTP and WebSocket, without port; a name is resolved once";
    "port" = own(PORT), "TCP port of HTTP and WebSocket; 0 takes a free one";
    "allow-origin" = list("ORIGIN", allow_origin, origin),
        "a further web origin that may connect, such as https://dash.example.com, and whose host is a name of the server; may be given again; null for pages without an origin; * for any";
};

const EVENTS: &[Setting] = rows! {
    "event-socket-path" = own(EVENT_SOCKET), "Unix datagram socket that engines send events to; a file, no abstract socket (@name)";
    "socket-mode" = own(SOCKET_MODE), "permissions of that socket, octal; a sender needs write permission: 0666 if engines run as other users";
    "max-event-bytes" = size(max_event_bytes, KIB, MAX_EVENT_BYTES_MAX),
        "largest event; larger ones are dropped and counted; a sender of more than 207 KiB sets SO_SNDBUF";
    "ingest-patience" = time(ingest_patience, Duration::ZERO, Duration::from_millis(250)),
        "how long a sender may be held once the fan-out has stopped moving";
};

const CLIENTS: &[Setting] = rows! {
    "max-clients" = own(MAX_CLIENTS), "most WebSocket clients at a time; auto: as many as the host's limits allow";
    "ping-interval" = time(ping_interval, TEN_MS, HOUR), "how often each client is pinged, by a message and by a protocol ping";
    "pong-timeout" = time(pong_timeout, TEN_MS, HOUR),
        "a client is ended when for this long nothing came from it and it took nothing of a backlog";
    "send-timeout" = time(send_timeout, TEN_MS, HOUR),
        "a client that takes no byte of its backlog for this long is ended";
    "dead-path-timeout" = time(dead_path_timeout, TEN_MS, HOUR),
        "a client that the network cannot reach is ended only after this long, if the two times before are shorter";
    "client-queue-bytes" = size(client_queue_bytes, 4 * KIB, GIB),
        "backlog of one client; one that falls further behind catches up from the history";
    "max-behind" = time(max_behind, TEN_MS, HOUR), "a client that still catches up after this long is ended";
    "delivery" = choice("direct|queued", delivery, "direct" => Delivery::Direct, "queued" => Delivery::Queued),
        "who sends to clients that keep up: the fan-out, or each client's own thread";
};

const MACHINES: &[Setting] = rows! {
    "history-bytes" = size(history_bytes, 0, 64 * GIB), "recent events kept for clients that fall behind or come back";
    "max-machines" = own(MAX_MACHINES),
        "most machines that the server remembers; of more, those that were silent longest leave, a sixteenth at a time";
    "machine-bytes" = size(machine_bytes, MIB, GIB),
        "memory of the remembered machines with all copies of them, such as that for the state file; of more, those that were silent longest leave";
    "machine-ttl" = time_or("never", machine_ttl, TEN_MS, YEAR),
        "a machine silent for this long leaves the snapshot, unless the engines' database says that its process lives; never: it stays until it ends";
    "state-file" = own(STATE_FILE),
        "where machines are kept across restarts; auto: threadcast-state.json in the log folder; none: nowhere";
};

const STUCK_MACHINES: &[Setting] = rows! {
    "stuck" = rules(STUCK),
        "how long a machine may stay in a state, such as 'face_*/cropping_*=2m' or '*/paused=never'; * also matches machines without a known type; the first rule that matches counts; may be given again; [[stuck]] in the settings file";
    "stuck-cpu-pressure" = count(stuck_cpu_pressure, 1, 100),
        "no machine is judged while the host is starved: /proc/pressure/cpu (some avg10, in percent) was over this for 60 s; 100: all are judged always";
    "plain-notices" = switch(plain_notices),
        "send the server's own events (machine_stuck, machine_silent, machine_moves_again) to plain clients too, the original's page among them";
    "learned-states" = count(learned_states, 1, 1_000_000),
        "states of which it is learned how machines enter them and how long they stay; the least used leave";
    "learned-transitions" = count(learned_transitions, 1, 10_000_000), "ways from a state to another that are learned; the least used leave";
    "learned-bytes" = size(learned_bytes, 64 * KIB, GIB), "memory for what is learned";
};

const JOURNAL: &[Setting] = rows! {
    "journal" = path_or_none("DIR", journal),
        "folder in which every event is kept as a JSON line with its number and time; one server each; none: nowhere";
    "journal-segment-bytes" = size(journal_segment_bytes, 64 * KIB, 64 * GIB),
        "a file of the journal that would pass this is followed by another";
    "journal-segment-age" = time(journal_segment_age, SECOND, YEAR), "a file of the journal that is this old is followed by another";
    "journal-keep-bytes" = size(journal_keep_bytes, 64 * KIB, 1024 * GIB),
        "the oldest files of the journal go when all together would pass this";
    "journal-keep-age" = time(journal_keep_age, SECOND, CENTURY),
        "a file of the journal goes this long after its last event";
};

const ENGINE_DB: &[Setting] = rows! {
    "db" = own(DB),
        "the engines' database: machines started before the server, and events that could not be sent; never written; none: not read";
    "db-interval" = time(db_interval, TENTH, HOUR), "how often the server looks for changes in it";
};

const LIVENESS: &[Setting] = rows! {
    "hang-timeout" = time(hang_timeout, SECOND, HOUR),
        "a thread without progress for this long is hung; a third of it: late";
    "on-hang" = choice("report|abort", on_hang, "report" => OnHang::Report, "abort" => OnHang::Abort),
        "when a core thread hangs: report and go on, or report and end with SIGABRT";
    "on-alert" = words("COMMAND", on_alert),
        "a command that is run when a thread hangs, a machine is stuck or silent, the journal fails or the event socket is taken, and when that is over; it gets JSON on standard input; no shell reads it: write sh -c '...' for one; none: nothing is run";
    "on-alert-timeout" = time(on_alert_timeout, TENTH, HOUR), "a command for an alert that still runs after this long is killed with all that it has started";
    "slow-broadcast" = time(slow_broadcast, MS, HOUR), "warn about a broadcast that takes longer";
    "slow-snapshot" = time(slow_snapshot, MS, HOUR), "warn about a snapshot that takes longer to make or to send";
};

const LOG: &[Setting] = rows! {
    "log-dir" = folder(log_dir), "folder of websocket-server.log (10 MiB, five older ones kept) and of hang-emergency.log (16 MiB, one older one kept)";
    "log-level" = choice("LEVEL", log_level, "error" => LevelFilter::Error, "warn" => LevelFilter::Warn,
        "info" => LevelFilter::Info, "debug" => LevelFilter::Debug, "trace" => LevelFilter::Trace),
        "how much the log says; debug: every event";
    "log-format" = choice("auto|text|json", log_format, "auto" => LogFormat::Auto, "text" => LogFormat::Text,
        "json" => LogFormat::Json),
        "auto: a status line on a terminal, priorities in systemd's journal, else text; text: nothing is rewritten; json: an object a line";
    "utc" = switch(utc), "show times in UTC on a terminal too; the log's file always has UTC";
    "heartbeat-interval" = time(heartbeat_interval, TENTH, HOUR),
        "how often the log gets a heartbeat line, and the status file is written";
    "status-file" = path_or_none("FILE", status_file),
        "JSON that is rewritten with every heartbeat, so that its age shows whether the server lives; none: no file";
};

const ACTING: &[Setting] = rows! {
    "admin-socket" = own(ADMIN_SOCKET),
        "Unix socket through which commands act on the server; auto: admin.sock in $RUNTIME_DIRECTORY, else threadcast-PORT.sock in $XDG_RUNTIME_DIR or the log folder; none: nobody can act";
    "admin-group" = own(ADMIN_GROUP),
        "a group, by name or number, whose members may act on the server as its own user and root may";
    "allow-drill" = switch(allow_drill), "let `threadcast drill` freeze a component for a while, to try the alarms";
};

const HOST: Own = Own {
    value: "ADDRESS",
    words: &[],
    takes: "an address or a name, without port",
    set: |c, v| parse_host(v).map(|host| c.host = host),
    show: |c| c.host.clone(),
};

const PORT: Own = Own {
    value: "PORT",
    words: &[],
    takes: "0 to 65535",
    set: |c, v| number(v, 0, u64::from(u16::MAX)).map(|port| c.port = port as u16),
    show: |c| c.port.to_string(),
};

const EVENT_SOCKET: Own = Own {
    value: "PATH",
    words: &[],
    takes: "a path of at most 107 bytes",
    set: |c, v| socket_path(v.as_ref()).map(|path| c.event_socket_path = path),
    show: |c| c.event_socket_path.display().to_string(),
};

const SOCKET_MODE: Own = Own {
    value: "MODE",
    words: &[],
    takes: "0000 to 0777",
    set: |c, v| octal_mode(v).map(|mode| c.socket_mode = mode),
    show: |c| format!("{:04o}", c.socket_mode),
};

const MAX_CLIENTS: Own = Own {
    value: "COUNT",
    words: &[],
    takes: "1 to 1000000, or auto",
    set: |c, v| {
        c.max_clients = match v {
            "auto" => None,
            count => Some(number(count, 1, 1_000_000)? as usize),
        };
        Ok(())
    },
    show: |c| c.max_clients.map_or("auto".to_owned(), |count| count.to_string()),
};

const MAX_MACHINES: Own = Own {
    value: "COUNT",
    words: &[],
    takes: "1 to 200000",
    set: |c, v| number(v, 1, 200_000).map(|count| c.max_machines = count as usize),
    show: |c| c.max_machines.to_string(),
};

const STATE_FILE: Own = Own {
    value: "PATH",
    words: &[],
    takes: "a path, auto, or none",
    set: |c, v| {
        c.state_file = match not_empty(v)?.as_str() {
            "auto" => StateFile::InLogDir,
            "none" => StateFile::Off,
            path => StateFile::At(path.into()),
        };
        Ok(())
    },
    show: |c| match &c.state_file {
        StateFile::InLogDir => "auto".to_owned(),
        StateFile::At(path) => path.display().to_string(),
        StateFile::Off => "none".to_owned(),
    },
};

const DB: Own = Own {
    value: "FILE",
    words: &[],
    takes: "a path, or none",
    set: |c, v| {
        c.db = match not_empty(v)?.as_str() {
            "none" => None,
            path if cfg!(feature = "engine-db") => Some(path.into()),
            _ => return Err("this is the minimal build, which reads no database; write none".to_owned()),
        };
        c.db_is_given = true;
        Ok(())
    },
    show: |c| match &c.db {
        Some(path) => path.display().to_string(),
        None => "none".to_owned(),
    },
};

const ADMIN_SOCKET: Own = Own {
    value: "PATH",
    words: &[],
    takes: "a path, auto, or none",
    set: |c, v| {
        c.admin_socket = match not_empty(v)?.as_str() {
            "auto" => AdminSocket::Usual,
            "none" => AdminSocket::Off,
            path => AdminSocket::At(file_path(path.as_ref())?),
        };
        Ok(())
    },
    show: |c| match &c.admin_socket {
        AdminSocket::Usual => "auto".to_owned(),
        AdminSocket::At(path) => path.display().to_string(),
        AdminSocket::Off => "none".to_owned(),
    },
};

const ADMIN_GROUP: Own = Own {
    value: "GROUP",
    words: &[],
    takes: "a name or a number, or none",
    set: |c, v| {
        c.admin_group = match v {
            "none" => None,
            group => Some(groups::number_of(&not_empty(group)?)?),
        };
        Ok(())
    },
    show: |c| c.admin_group.map_or("none".to_owned(), |group| group.to_string()),
};

/// An origin in its normal form, or `*`.
fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let origin = WebOrigin::parse(text).map_err(|error| error.to_string())?;
    Ok(origin.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_shows_what_can_be_set_again() {
        let config = Config::default();
        for setting in settings() {
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
