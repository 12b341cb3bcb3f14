//! The values of commands' flags: each is read here, and a fault names its flag and what would be right.

use crate::cli::usage::UsageError;
use crate::commands::replay::Point;
use crate::commands::request::ServerUrl;
use crate::commands::tail::connect::StreamUrl;
use crate::commands::tail::lines::Format;
use crate::config::SettingError;
use crate::liveness::drill::DRILL_MAX;
use crate::process::{address, values};
use crate::stream::filter::Filter;
use crate::stream::position::Position;
use lexopt::{Parser, ValueExt};
use std::path::PathBuf;
use std::time::Duration;

/// How long `replay` waits for a server that is away or takes nothing.
pub(super) const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest time that a command's flag takes, if 0 is none.
pub(super) const TIME_MIN: Duration = Duration::from_millis(1);
/// Longest time that a command's flag takes: a year.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The slowest that a recording may be played, as a factor: a second of it then takes 17 minutes.
const SPEED_MIN: f64 = 0.001;
/// The fastest that a recording may be played, as a factor: a day of it then takes a tenth of a second.
const SPEED_MAX: f64 = 1_000_000.0;
/// Shortest time between two looks of `--watch`: nobody reads faster, and each look is a request.
const WATCH_MIN: Duration = Duration::from_millis(100);

/// The value of `--host`, as `serve` takes it.
pub(super) fn host_value(parser: &mut Parser) -> Result<String, UsageError> {
    let value = parser.value()?.string()?;
    address::parse_host(&value).map_err(|wanted| wrong("host", value, wanted))
}

/// The port of a server that runs: `serve` alone may leave the choice to the system.
pub(super) fn port_value(parser: &mut Parser) -> Result<u16, UsageError> {
    let value = parser.value()?.string()?;
    values::number(&value, 1, u64::from(u16::MAX))
        .map(|port| port as u16)
        .map_err(|wanted| wrong("port", value, wanted))
}

pub(super) fn server_url(parser: &mut Parser) -> Result<ServerUrl, UsageError> {
    let value = parser.value()?.string()?;
    value.parse().map_err(|wanted| wrong("url", value, wanted))
}

pub(super) fn stream_url(value: String) -> Result<StreamUrl, UsageError> {
    value.parse().map_err(|wanted| wrong("url", value, wanted))
}

/// The value of `--event-socket-path`, as `serve` takes it; a sender may also use a path that is not UTF-8.
pub(super) fn event_path(parser: &mut Parser) -> Result<PathBuf, UsageError> {
    let value = parser.value()?;
    values::socket_path(&value)
        .map_err(|wanted| wrong("event-socket-path", value.to_string_lossy().into_owned(), wanted))
}

/// Where the server's admin socket is.
pub(super) fn admin_socket(parser: &mut Parser) -> Result<PathBuf, UsageError> {
    let value = parser.value()?;
    if value.is_empty() {
        let wanted = "write the path of the server's admin socket, as its log and /status name it";
        return Err(wrong("admin-socket", String::new(), wanted.to_owned()));
    }
    values::file_path(&value).map_err(|wanted| wrong("admin-socket", value.to_string_lossy().into_owned(), wanted))
}

/// The value of a flag that is a time.
pub(super) fn time_value(parser: &mut Parser, flag: &str, least: Duration) -> Result<Duration, UsageError> {
    let value = parser.value()?.string()?;
    values::duration(&value, least, TIME_MAX).map_err(|wanted| wrong(flag, value, wanted))
}

/// A time; a bare number is seconds.
pub(super) fn watch_time(value: String) -> Result<Duration, UsageError> {
    let text = match value.parse::<f64>() {
        Ok(_) => format!("{value}s"),
        Err(_) => value.clone(),
    };
    values::duration(&text, WATCH_MIN, TIME_MAX).map_err(|wanted| wrong("watch", value, wanted))
}

pub(super) fn drill_time(value: String) -> Result<Duration, UsageError> {
    values::duration(&value, Duration::ZERO, DRILL_MAX).map_err(|wanted| wrong("duration", value, wanted))
}

pub(super) fn speed_value(parser: &mut Parser) -> Result<f64, UsageError> {
    let value = parser.value()?.string()?;
    match value.parse() {
        Ok(speed) if (SPEED_MIN..=SPEED_MAX).contains(&speed) => Ok(speed),
        _ => Err(UsageError::Setting(SettingError {
            name: "speed".to_owned(),
            value,
            wanted: format!("write how many times faster, from {SPEED_MIN} to {SPEED_MAX}"),
        })),
    }
}

/// The value of a flag that is a number of events.
pub(super) fn count_value(parser: &mut Parser, flag: &str) -> Result<u64, UsageError> {
    let value = parser.value()?.string()?;
    values::number(&value, 0, u64::MAX)
        .map_err(|_| wrong(flag, value, "write how many events, a whole number".to_owned()))
}

/// The number of a client.
pub(super) fn client_id(parser: &mut Parser) -> Result<u64, UsageError> {
    let value = parser.value()?.string()?;
    values::number(&value, 0, u64::MAX).map_err(|_| {
        wrong(
            "end",
            value,
            "write the number of a client, as column ID has it".to_owned(),
        )
    })
}

/// The value of `-n`: how many events of the history come first; 0 for none.
pub(super) fn lines_value(parser: &mut Parser) -> Result<Option<u64>, UsageError> {
    let number = count_value(parser, "lines")?;
    Ok((number > 0).then_some(number))
}

pub(super) fn position(parser: &mut Parser) -> Result<Position, UsageError> {
    let value = parser.value()?.string()?;
    value.parse().map_err(|_| {
        UsageError::Setting(SettingError {
            name: "since".to_owned(),
            value,
            wanted: "write EPOCH:N as tail prints it at its end, 16 hexadecimal digits, a colon and a number"
                .to_owned(),
        })
    })
}

pub(super) fn point(parser: &mut Parser, flag: &str) -> Result<Point, UsageError> {
    let value = parser.value()?.string()?;
    value.parse().map_err(|wanted| wrong(flag, value, wanted))
}

pub(super) fn format(parser: &mut Parser) -> Result<Format, UsageError> {
    let value = parser.value()?.string()?;
    match value.as_str() {
        "human" => Ok(Format::Human),
        "compact" => Ok(Format::Compact),
        "json" => Ok(Format::Json),
        _ => Err(UsageError::Setting(SettingError {
            name: "format".to_owned(),
            value,
            wanted: "write human, compact or json".to_owned(),
        })),
    }
}

/// The filter of the values of --machine and --type.
pub(super) fn filter(machines: Option<String>, kinds: Option<String>) -> Result<Filter, UsageError> {
    let (machines, kinds) = (machines.as_deref(), kinds.as_deref());
    let refused = |name: &str, value: Option<&str>, wanted: String| {
        UsageError::Setting(SettingError {
            name: name.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            wanted,
        })
    };
    // One after the other, so that the fault names its flag.
    Filter::from_lists(machines, None).map_err(|error| refused("machine", machines, error.to_string()))?;
    Filter::from_lists(machines, kinds).map_err(|error| refused("type", kinds, error.to_string()))
}

fn wrong(name: &str, value: String, wanted: String) -> UsageError {
    UsageError::Setting(SettingError {
        name: name.to_owned(),
        value,
        wanted,
    })
}

pub(super) fn wrong_flag(flag: String, wanted: String) -> UsageError {
    UsageError::UnknownFlag(format!("there is no {flag}: {wanted}"))
}
