//! From arguments to a command.

mod flags;
mod help;
pub mod settings_file;
mod usage;

pub use usage::{UsageError, WrongUsage};

use crate::cli::flags::{
    REPLAY_TIMEOUT, TIME_MIN, admin_socket, client_id, count_value, drill_time, event_path, filter, format, host_value,
    lines_value, point, port_value, position, server_url, speed_value, stream_url, time_value, watch_time, wrong_flag,
};
use crate::cli::help::{
    clients_help, demo_help, diagnose_help, drill_help, emit_help, forget_help, machines_help, overview, replay_help,
    serve_help, tail_help,
};
use crate::commands::act::Target;
use crate::commands::clients::Clients;
use crate::commands::drill::Drill;
use crate::commands::emit::{Emit, Source};
use crate::commands::machines::Machines;
use crate::commands::replay::Replay;
use crate::commands::request::ServerUrl;
use crate::commands::tail::Tail;
use crate::commands::tail::connect::StreamUrl;
use crate::commands::tail::lines::Format;
use crate::config::Config;
use crate::config::table::{self, Setting};
use crate::stream::filter::Filter;
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What the person asked for.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Config>),
    Forget { machine: String, server: Target },
    Drill(Drill),
    Clients(Clients),
    Machines(Machines),
    Diagnose(Target),
    Emit(Emit),
    Tail(Tail),
    Replay(Replay),
    Demo { path: PathBuf },
    Print(String),
}

/// The commands that have help of their own.
const COMMANDS: [&str; 10] = [
    "serve", "forget", "emit", "tail", "replay", "machines", "clients", "demo", "diagnose", "drill",
];

/// Reads the arguments after the program's name.
///
/// # Errors
/// The arguments cannot be followed. The text names the one and what would be right; the caller prints it with
/// [`WrongUsage::hint`] and ends with status 2.
pub fn parse<I>(arguments: I) -> Result<Command, WrongUsage>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let first = arguments.first().cloned();
    follow(&mut Parser::from_args(arguments)).map_err(|error| WrongUsage {
        error,
        command: COMMANDS
            .into_iter()
            .find(|command| first.as_deref() == Some(command.as_ref())),
    })
}

fn follow(parser: &mut Parser) -> Result<Command, UsageError> {
    match parser.next()? {
        None => Err(UsageError::NoCommand),
        Some(Arg::Long("help") | Arg::Short('h')) => Ok(Command::Print(overview())),
        Some(Arg::Long("version") | Arg::Short('V')) => {
            Ok(Command::Print(format!("threadcast {}\n", env!("CARGO_PKG_VERSION"))))
        }
        Some(Arg::Value(name)) => match name.to_string_lossy().as_ref() {
            "serve" => serve(parser),
            "forget" => forget(parser),
            "emit" => emit(parser),
            "tail" => tail(parser),
            "replay" => replay(parser),
            "machines" => machines(parser),
            "clients" => clients(parser),
            "demo" => demo(parser),
            "diagnose" => diagnose(parser),
            "drill" => drill(parser),
            "help" => help(parser),
            other => Err(UsageError::UnknownCommand(other.to_owned())),
        },
        Some(other) => Err(other.unexpected().into()),
    }
}

fn help(parser: &mut Parser) -> Result<Command, UsageError> {
    let topic = match parser.next()? {
        None => return Ok(Command::Print(overview())),
        Some(Arg::Value(topic)) => topic.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    match topic.as_str() {
        "serve" => Ok(Command::Print(serve_help())),
        "forget" => Ok(Command::Print(forget_help())),
        "emit" => Ok(Command::Print(emit_help())),
        "tail" => Ok(Command::Print(tail_help())),
        "replay" => Ok(Command::Print(replay_help())),
        "machines" => Ok(Command::Print(machines_help())),
        "clients" => Ok(Command::Print(clients_help())),
        "demo" => Ok(Command::Print(demo_help())),
        "diagnose" => Ok(Command::Print(diagnose_help())),
        "drill" => Ok(Command::Print(drill_help())),
        _ => Err(UsageError::UnknownCommand(topic)),
    }
}

fn serve(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut flags: Vec<(&'static Setting, String)> = Vec::new();
    let mut file: Option<PathBuf> = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(serve_help())),
            Arg::Long("config") => file = Some(parser.value()?.into()),
            Arg::Long(name) => {
                let Some(setting) = Setting::find(name) else {
                    return Err(UsageError::UnknownFlag(table::unknown(name)));
                };
                let value = if setting.is_switch() {
                    parser
                        .optional_value()
                        .map_or(Ok("true".to_owned()), ValueExt::string)?
                } else {
                    parser.value()?.string()?
                };
                flags.push((setting, value));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let mut config = Config::default();
    if let Some(path) = file {
        settings_file::read(&path, &mut config).map_err(UsageError::File)?;
    }
    let repeated = |name| flags.iter().any(|(setting, _)| setting.name == name && setting.repeats);
    if repeated("allow-origin") {
        // Flags win: a list given as flags takes the place of the file's.
        config.allow_origin.clear();
    }
    for (setting, value) in flags {
        setting.set(&mut config, &value).map_err(UsageError::Setting)?;
    }
    config.check().map_err(UsageError::Setting)?;
    Ok(Command::Serve(Box::new(config)))
}

fn forget(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut machine = None;
    let defaults = Config::default();
    let (mut host, mut port, mut socket) = (defaults.host, defaults.port, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(forget_help())),
            Arg::Long("admin-socket") => socket = Some(admin_socket(parser)?),
            Arg::Long("host") => host = host_value(parser)?,
            Arg::Long("port") => port = port_value(parser)?,
            Arg::Value(name) if machine.is_none() => machine = Some(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    match machine {
        Some(machine) => Ok(Command::Forget {
            machine,
            server: Target {
                server: ServerUrl::new(host, port),
                socket,
            },
        }),
        None => Err(UsageError::Missing {
            command: "forget",
            what: "the name of a machine",
        }),
    }
}

/// How long `emit` waits for room in the server's queue.
const EMIT_TIMEOUT: Duration = Duration::from_secs(1);

fn emit(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut words: Vec<String> = Vec::new();
    let mut payload = None;
    let mut stdin = false;
    let mut path = Config::default().event_socket_path;
    let mut timeout = EMIT_TIMEOUT;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(emit_help())),
            Arg::Long("stdin") => stdin = true,
            Arg::Long("payload") => payload = Some(parser.value()?.string()?),
            Arg::Long("event-socket-path") => path = event_path(parser)?,
            Arg::Long("timeout") => timeout = time_value(parser, "timeout", Duration::ZERO)?,
            Arg::Value(word) if words.len() < 2 => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = |what| UsageError::Missing { command: "emit", what };
    let source = match (stdin, <[String; 2]>::try_from(words), payload) {
        (false, Ok(words), _) if words.iter().any(String::is_empty) => {
            return Err(missing("a type and a machine that are not empty"));
        }
        (false, Ok([kind, machine]), payload) => Source::Event {
            kind,
            machine,
            payload: payload.unwrap_or_else(|| "{}".to_owned()),
        },
        (false, Err(_), _) => return Err(missing("the type of the event and the name of its machine, or --stdin")),
        (true, Err(words), None) if words.is_empty() => Source::Stdin,
        (true, ..) => return Err(missing("either --stdin alone, or a type and a machine")),
    };
    Ok(Command::Emit(Emit { source, path, timeout }))
}

fn tail(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut tail = Tail {
        url: StreamUrl::default(),
        filter: Filter::default(),
        since: None,
        last: None,
        format: Format::Human,
        count: None,
        duration: None,
        utc: false,
    };
    let (mut machines, mut kinds) = (Vec::new(), Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(tail_help())),
            Arg::Long("url") => tail.url = stream_url(parser.value()?.string()?)?,
            Arg::Long("machine") => machines.push(parser.value()?.string()?),
            Arg::Value(globs) => machines.push(globs.string()?),
            Arg::Long("type") => kinds.push(parser.value()?.string()?),
            Arg::Long("since") => tail.since = Some(position(parser)?),
            Arg::Long("lines") | Arg::Short('n') => tail.last = lines_value(parser)?,
            // What it does anyway.
            Arg::Long("follow") | Arg::Short('f' | 'F') => {}
            Arg::Short(digit) if digit.is_ascii_digit() => {
                let rest = parser.optional_value().unwrap_or_default();
                let wanted = format!("write -n {digit}{}", rest.to_string_lossy());
                return Err(wrong_flag(format!("-{digit}{}", rest.to_string_lossy()), wanted));
            }
            Arg::Long("format") => tail.format = format(parser)?,
            Arg::Long("count") => tail.count = Some(count_value(parser, "count")?),
            Arg::Long("utc") => tail.utc = true,
            Arg::Long("duration") => tail.duration = Some(time_value(parser, "duration", TIME_MIN)?),
            other => return Err(other.unexpected().into()),
        }
    }
    if tail.since.is_some() && tail.last.is_some() {
        return Err(UsageError::Missing {
            command: "tail",
            what: "either --since or -n, not both",
        });
    }
    // What is given more than once adds up, as commas do.
    let list = |lists: Vec<String>| (!lists.is_empty()).then(|| lists.join(","));
    tail.filter = filter(list(machines), list(kinds))?;
    Ok(Command::Tail(tail))
}

fn replay(parser: &mut Parser) -> Result<Command, UsageError> {
    let missing = |what| UsageError::Missing {
        command: "replay",
        what,
    };
    let mut journal = None;
    let (mut from, mut to, mut speed, mut fast) = (None, None, None, false);
    let mut path = Config::default().event_socket_path;
    let mut timeout = REPLAY_TIMEOUT;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(replay_help())),
            Arg::Long("journal") => journal = Some(parser.value()?.into()),
            Arg::Long("from") => from = Some(point(parser, "from")?),
            Arg::Long("to") => to = Some(point(parser, "to")?),
            Arg::Long("fast") => fast = true,
            Arg::Long("speed") => speed = Some(speed_value(parser)?),
            Arg::Long("event-socket-path") => path = event_path(parser)?,
            Arg::Long("timeout") => timeout = time_value(parser, "timeout", TIME_MIN)?,
            other => return Err(other.unexpected().into()),
        }
    }
    if fast && speed.is_some() {
        return Err(missing("either --fast or --speed, not both"));
    }
    Ok(Command::Replay(Replay {
        journal: journal.ok_or_else(|| missing("--journal, the folder of the recording"))?,
        from,
        to,
        speed: (!fast).then_some(speed.unwrap_or(1.0)),
        path,
        timeout,
    }))
}

/// How often `--watch` looks, if no time is given.
const WATCH_EVERY: Duration = Duration::from_secs(2);

fn clients(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut clients = Clients {
        server: ServerUrl::default(),
        socket: None,
        json: false,
        watch: None,
        end: None,
    };
    // A time may follow --watch, after a space or an equals sign.
    let mut may_be_time = false;
    while let Some(argument) = parser.next()? {
        let follows_watch = std::mem::take(&mut may_be_time);
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(clients_help())),
            Arg::Long("url") => clients.server = server_url(parser)?,
            Arg::Long("admin-socket") => clients.socket = Some(admin_socket(parser)?),
            Arg::Long("end") => clients.end = Some(client_id(parser)?),
            Arg::Long("json") => clients.json = true,
            Arg::Long("watch") => {
                let value = parser.optional_value();
                may_be_time = value.is_none();
                clients.watch = Some(match value {
                    Some(value) => watch_time(value.string()?)?,
                    None => WATCH_EVERY,
                });
            }
            Arg::Value(value) if follows_watch => clients.watch = Some(watch_time(value.string()?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    if clients.end.is_some() && (clients.json || clients.watch.is_some()) {
        return Err(UsageError::Missing {
            command: "clients",
            what: "either --end, or what to show",
        });
    }
    Ok(Command::Clients(clients))
}

fn machines(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut globs = Vec::new();
    let mut machines = Machines {
        server: ServerUrl::default(),
        socket: None,
        wanted: Filter::default(),
        json: false,
        watch: None,
        forget: None,
    };
    // As of `clients`.
    let mut may_be_time = false;
    while let Some(argument) = parser.next()? {
        let follows_watch = std::mem::take(&mut may_be_time);
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(machines_help())),
            Arg::Long("url") => machines.server = server_url(parser)?,
            Arg::Long("admin-socket") => machines.socket = Some(admin_socket(parser)?),
            Arg::Long("forget") => machines.forget = Some(parser.value()?.string()?),
            Arg::Long("json") => machines.json = true,
            Arg::Long("watch") => {
                let value = parser.optional_value();
                may_be_time = value.is_none();
                machines.watch = Some(match value {
                    Some(value) => watch_time(value.string()?)?,
                    None => WATCH_EVERY,
                });
            }
            Arg::Value(value) if follows_watch => machines.watch = Some(watch_time(value.string()?)?),
            Arg::Value(value) => globs.push(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    machines.wanted = filter((!globs.is_empty()).then(|| globs.join(",")), None)?;
    let shows = machines.json || machines.watch.is_some() || !machines.wanted.is_everything();
    if machines.forget.is_some() && shows {
        return Err(UsageError::Missing {
            command: "machines",
            what: "either --forget, or what to show",
        });
    }
    Ok(Command::Machines(machines))
}

fn demo(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut path = Config::default().event_socket_path;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(demo_help())),
            Arg::Long("event-socket-path") => path = event_path(parser)?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Demo { path })
}

fn diagnose(parser: &mut Parser) -> Result<Command, UsageError> {
    let mut server = Target::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(diagnose_help())),
            Arg::Long("url") => server.server = server_url(parser)?,
            Arg::Long("admin-socket") => server.socket = Some(admin_socket(parser)?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Diagnose(server))
}

fn drill(parser: &mut Parser) -> Result<Command, UsageError> {
    let missing = UsageError::Missing {
        command: "drill",
        what: "the name of a component and a time, for instance: drill fanout 20s",
    };
    let (mut component, mut duration) = (None, None);
    let mut kind = "sleep".to_owned();
    let mut server = Target::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(drill_help())),
            Arg::Long("kind") => kind = parser.value()?.string()?,
            Arg::Long("url") => server.server = server_url(parser)?,
            Arg::Long("admin-socket") => server.socket = Some(admin_socket(parser)?),
            Arg::Value(word) if component.is_none() => component = Some(word.string()?),
            Arg::Value(word) if duration.is_none() => duration = Some(drill_time(word.string()?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let (Some(component), Some(duration)) = (component, duration) else {
        return Err(missing);
    };
    Ok(Command::Drill(Drill {
        component,
        duration,
        kind,
        server,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(arguments: &[&str]) -> Config {
        match parse(arguments).unwrap() {
            Command::Serve(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_original_flags_keep_names_and_defaults() {
        let config = served(&["serve"]);
        assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 3002));
        assert_eq!(config.event_socket_path.to_str(), Some("/tmp/statemachine-events.sock"));
        let config = served(&[
            "serve",
            "--host",
            "::1",
            "--port=8765",
            "--event-socket-path",
            "/run/e.sock",
        ]);
        assert_eq!((config.host.as_str(), config.port), ("::1", 8765));
    }

    #[test]
    fn switches_take_no_value_or_one_after_an_equals_sign() {
        assert!(served(&["serve", "--allow-drill", "--port", "0"]).allow_drill);
        assert!(!served(&["serve", "--allow-drill=false"]).allow_drill);
    }

    #[test]
    fn faults_name_the_argument() {
        for (arguments, part) in [
            (&[][..], "no command"),
            (&["sevre"], "sevre"),
            (&["serve", "--prot", "1"], "did you mean \"port\"?"),
            (&["serve", "--port", "x"], "--port cannot be \"x\""),
            (&["serve", "extra"], "extra"),
            (
                &["serve", "--ping-interval", "30s"],
                "must be longer than ping-interval (30s)",
            ),
            (
                &["serve", "--pong-timeout", "5s"],
                "must be longer than ping-interval (10s)",
            ),
            (&["serve", "--port"], "port"),
            (&["forget"], "name of a machine"),
        ] {
            let error = parse(arguments).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[cfg(feature = "config-file")]
    #[test]
    fn flags_win_over_the_file_wherever_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, "port = 1\nhost = \"::1\"\nallow-origin = [\"https://a\"]").unwrap();
        let path = path.to_str().unwrap();
        let config = served(&["serve", "--port", "2", "--config", path, "--allow-origin", "https://b"]);
        assert_eq!((config.host.as_str(), config.port), ("::1", 2));
        assert_eq!(config.allow_origin, ["https://b"]);
    }

    #[test]
    fn every_command_has_help_and_is_named_by_the_hint() {
        for command in COMMANDS {
            for arguments in [[command, "--help"], ["help", command]] {
                assert!(matches!(parse(arguments), Ok(Command::Print(text)) if text.contains(command)));
            }
            let hint = parse([command, "--no-such-flag"]).unwrap_err().hint();
            assert!(hint.starts_with(&format!("`threadcast {command} --help`")), "{hint}");
            assert!(overview().contains(&format!("\n  {command} ")));
        }
        for arguments in [&[][..], &["sevre"], &["help", "sevre"]] {
            assert!(parse(arguments).unwrap_err().hint().starts_with("`threadcast --help`"));
        }
    }
}
