//! The flags that several commands have, and how their values are read.

use crate::cli::arguments::{Arguments, flag, wrong};
use crate::cli::usage::UsageError;
use crate::commands::act::Target;
use crate::commands::request::ServerUrl;
use crate::commands::tail::connect::StreamUrl;
use crate::config::Config;
use crate::process::{address, values};
use clap::Arg;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The server that commands ask, in the environment.
const URL_IN_ENVIRONMENT: &str = "THREADCAST_URL";
/// The server's setting in the environment, which commands that send follow.
const EVENT_SOCKET_IN_ENVIRONMENT: &str = "THREADCAST_SET_EVENT_SOCKET_PATH";

/// Shortest time that a command's flag takes, if 0 is none.
pub(super) const TIME_MIN: Duration = Duration::from_millis(1);
/// Longest time that a command's flag takes: a year.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Shortest time between two looks of `--watch`: nobody reads faster, and each look is a request.
const WATCH_MIN: Duration = Duration::from_millis(100);
/// How often `--watch` looks, if no time is given.
const WATCH_EVERY: &str = "2s";

/// `--url` of commands that ask.
pub(super) fn url_flag() -> Arg {
    url_flag_with(&ServerUrl::default().to_string())
}

/// `--url` of the command that follows the stream.
pub(super) fn stream_url_flag() -> Arg {
    url_flag_with(&format!("localhost:{}", Config::default().port))
}

fn url_flag_with(default: &str) -> Arg {
    flag(
        "url",
        "URL",
        format!(
            "the server: http://HOST:PORT, ws://HOST:PORT or HOST:PORT [{URL_IN_ENVIRONMENT}, else http://{default}]"
        ),
    )
}

/// `--admin-socket`.
pub(super) fn admin_socket_flag() -> Arg {
    flag(
        "admin-socket",
        "PATH",
        "the server's admin socket [looked for in the places below]",
    )
}

/// Where commands that act on a server look for its admin socket; the end of their help.
pub(super) const ADMIN_SOCKET_PLACES: &str = "\
The command goes through the server's admin socket, which admits its own user, root, and members of its \
--admin-group. It looks for the socket at /run/threadcast/admin.sock, then for threadcast-PORT.sock in \
$XDG_RUNTIME_DIR and in ./logs, then at the path that /status names.";

/// `--event-socket-path`.
pub(super) fn event_socket_flag() -> Arg {
    flag(
        "event-socket-path",
        "PATH",
        format!(
            "the server's socket [{EVENT_SOCKET_IN_ENVIRONMENT}, else {}]",
            Config::default().event_socket_path.display()
        ),
    )
}

/// `--watch`, with or without a time.
pub(super) fn watch_flag() -> Arg {
    flag(
        "watch",
        "TIME",
        "show it again and again until Ctrl-C or SIGTERM, every 2s or as often as given",
    )
    .num_args(0..=1)
    .default_missing_value(WATCH_EVERY)
    .allow_hyphen_values(false)
}

/// The server that a command asks. Without a URL it is the one that these settings of the environment would make, so
/// that a health check in a container needs none of its own.
pub(super) fn server_url(arguments: &Arguments<'_>) -> Result<ServerUrl, UsageError> {
    let url = arguments.read_or("url", URL_IN_ENVIRONMENT, |value| utf8(value)?.parse())?;
    Ok(url.unwrap_or_else(|| {
        let (host, port) = listening(arguments);
        ServerUrl::new(host, port)
    }))
}

/// Where a server with the settings of the environment listens. What these leave open, or say wrong, is as usual.
fn listening(arguments: &Arguments<'_>) -> (String, u16) {
    let setting = |name: &str| {
        let found = arguments.environment.iter().find(|(variable, _)| variable == name);
        found.and_then(|(_, value)| value.to_str())
    };
    let usual = Config::default();
    let host = setting("THREADCAST_SET_HOST").and_then(|host| address::parse_host(host).ok());
    // A server that listens on every address answers on this one too.
    let host = host.filter(|host| !host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()));
    let port = setting("THREADCAST_SET_PORT").and_then(|port| values::number(port, 1, u64::from(u16::MAX)).ok());
    (host.unwrap_or(usual.host), port.map_or(usual.port, |port| port as u16))
}

/// The stream that a command follows.
pub(super) fn stream_url(arguments: &Arguments<'_>) -> Result<StreamUrl, UsageError> {
    let url = arguments.read_or("url", URL_IN_ENVIRONMENT, |value| utf8(value)?.parse())?;
    if let Some(url) = url {
        return Ok(url);
    }
    let (host, port) = listening(arguments);
    let usual = Config::default();
    if (&host, port) == (&usual.host, usual.port) {
        return Ok(StreamUrl::default());
    }
    let address = ServerUrl::new(host, port).to_string();
    address.parse().map_err(|wanted| wrong("url", &address, wanted))
}

/// The server that a command acts on.
pub(super) fn target(arguments: &Arguments<'_>) -> Result<Target, UsageError> {
    Ok(Target {
        server: server_url(arguments)?,
        socket: admin_socket(arguments)?,
    })
}

/// Where the server's admin socket is.
pub(super) fn admin_socket(arguments: &Arguments<'_>) -> Result<Option<PathBuf>, UsageError> {
    const NAME: &str = "admin-socket";
    let Some(value) = arguments.raw(NAME) else {
        return Ok(None);
    };
    if value.is_empty() {
        let wanted = "write the path of the server's admin socket, as its log and /status name it";
        return Err(wrong(NAME, "", wanted.to_owned()));
    }
    match values::file_path(value) {
        Ok(path) => Ok(Some(path)),
        Err(wanted) => Err(wrong(NAME, &value.to_string_lossy(), wanted)),
    }
}

/// The path of the server's event socket, as `serve` takes it; a sender may also use a path that is not UTF-8.
pub(super) fn event_socket(arguments: &Arguments<'_>) -> Result<PathBuf, UsageError> {
    let path = arguments.read_or("event-socket-path", EVENT_SOCKET_IN_ENVIRONMENT, values::socket_path)?;
    Ok(path.unwrap_or_else(|| Config::default().event_socket_path))
}

/// The value of a flag that is a time.
pub(super) fn time(arguments: &Arguments<'_>, name: &str, least: Duration) -> Result<Option<Duration>, UsageError> {
    arguments.read(name, |value| values::duration(value, least, TIME_MAX))
}

/// The value of `--watch`: a time; a bare number is seconds.
pub(super) fn watch(arguments: &Arguments<'_>) -> Result<Option<Duration>, UsageError> {
    arguments.read("watch", |value| {
        let text = match value.parse::<f64>() {
            Ok(_) => format!("{value}s"),
            Err(_) => value.to_owned(),
        };
        values::duration(&text, WATCH_MIN, TIME_MAX)
            .map_err(|wanted| format!("{wanted}; what is no time goes before --watch"))
    })
}

/// The value of a flag that is a number of events.
pub(super) fn count(arguments: &Arguments<'_>, name: &str) -> Result<Option<u64>, UsageError> {
    arguments.read(name, |value| {
        values::number(value, 0, u64::MAX).map_err(|_| "write how many events, a whole number".to_owned())
    })
}

fn utf8(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| "it must be UTF-8".to_owned())
}
