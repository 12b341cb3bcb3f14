//! From arguments and environment to a command. One table, [`SPECS`], has every command; clap does the parsing.

mod arguments;
mod command;
pub mod completions;
mod reading;
pub mod reference;
mod send;
mod server;
mod services;
mod setup;
mod shell;
mod spec;
mod table;
mod usage;
mod watch;

pub use command::Command;
pub use spec::{Part, Spec};
pub use table::{SPECS, command_line};
pub use usage::{UsageError, WrongUsage};

use crate::cli::arguments::Arguments;
use crate::cli::table::command_line_for;
use crate::config::sources::Environment;
use clap::error::ErrorKind;
use std::ffi::OsString;

/// Reads the arguments after the program's name.
///
/// # Errors
/// The arguments cannot be followed. The text names the one and what would be right; the caller prints it with
/// [`WrongUsage::hint`] and ends with status 2.
pub fn parse<I>(arguments: I, environment: &Environment) -> Result<Command, WrongUsage>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let command = command_line_for(&arguments);
    follow(command, &arguments, environment).map_err(|error| WrongUsage {
        error,
        command: named(&arguments),
    })
}

fn follow(
    mut command: clap::Command,
    arguments: &[OsString],
    environment: &Environment,
) -> Result<Command, UsageError> {
    let program = OsString::from("threadcast");
    let matches = match command.try_get_matches_from_mut(std::iter::once(&program).chain(arguments)) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Command::Print(usage::tidy_help(&error.render().to_string())));
        }
        Err(error) => return Err(usage::explain(&error, &command, arguments, needs(arguments))),
    };
    drop(command);
    let Some((name, matches)) = matches.subcommand() else {
        return Err(UsageError::NoCommand);
    };
    // The parser knows the commands of the table only.
    let spec = SPECS
        .iter()
        .find(|spec| spec.name == name)
        .ok_or(UsageError::NoCommand)?;
    (spec.read)(&Arguments { matches, environment })
}

/// The command that the arguments name, with its part: `serve`, `config show`.
fn named(arguments: &[OsString]) -> Option<String> {
    let (spec, part) = found(arguments)?;
    Some(part.map_or(spec.name.to_owned(), |part| format!("{} {}", spec.name, part.name)))
}

/// What the command that the arguments name cannot do without, in words.
fn needs(arguments: &[OsString]) -> &'static str {
    let needs = |(spec, part): (&Spec, Option<&Part>)| part.map_or(spec.needs, |part| part.needs);
    found(arguments).map_or("", needs)
}

fn found(arguments: &[OsString]) -> Option<(&'static Spec, Option<&'static Part>)> {
    let is = |name: &str, place: usize| arguments.get(place).is_some_and(|argument| argument == name);
    let spec = SPECS.into_iter().find(|spec| is(spec.name, 0))?;
    Some((spec, spec.parts.iter().find(|part| is(part.name, 1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parsed(arguments: &[&str]) -> Result<Command, WrongUsage> {
        parse(arguments, &Environment::new())
    }

    fn served(arguments: &[&str]) -> Config {
        match parsed(arguments).unwrap() {
            Command::Serve(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command_line().debug_assert();
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
        assert_eq!(served(&["serve", "--port", "1", "--port", "2"]).port, 2);
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
            (&["sevre"], "there is no command \"sevre\"; did you mean \"serve\"?"),
            (&["help", "drlil"], "did you mean \"drill\"?"),
            (&["serve", "--prot", "1"], "did you mean --port?"),
            (&["serve", "--port", "x"], "--port cannot be \"x\""),
            (&["serve", "--port", "-1"], "--port cannot be \"-1\""),
            (&["serve", "extra"], "\"extra\""),
            (
                &["serve", "--ping-interval", "30s"],
                "must be longer than ping-interval (30s)",
            ),
            (
                &["serve", "--pong-timeout", "5s"],
                "must be longer than ping-interval (10s)",
            ),
            (&["serve", "--port"], "--port needs a value"),
            (&["replay", "--fast=1", "--journal", "j"], "--fast takes no value"),
            (&["forget"], "name of a machine"),
            (&["tail", "-20"], "write -n 20"),
            (&["config"], "show, check or completions"),
            (&["config", "shwo"], "did you mean \"show\"?"),
            (&["serve", "s"], "serve takes no word \"s\" here"),
            (&["drill", "fanout", "x"], "DURATION cannot be \"x\""),
            (&["machines", "a,,b"], "GLOBS cannot be \"a,,b\""),
            (&["machines", "--watch", "a*"], "goes before --watch"),
            (&["forget", "m", "--url", "h", "--port", "1"], "either --url"),
            (&["serve", "--config", ""], "--config cannot be \"\": write the path"),
        ] {
            let error = parsed(arguments).unwrap_err().to_string();
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn every_command_has_help_an_example_and_is_named_by_the_hint() {
        for spec in SPECS {
            let name = spec.name;
            for arguments in [[name, "--help"], ["help", name]] {
                match parsed(&arguments) {
                    Ok(Command::Print(text)) => assert!(text.contains(&format!("\n  threadcast {name}")), "{text}"),
                    other => panic!("{arguments:?}: {other:?}"),
                }
            }
            let hint = parsed(&[name, "--no-such-flag"]).unwrap_err().hint();
            assert!(hint.contains(&format!("`threadcast {name} --help`")), "{hint}");
        }
        let hint = parsed(&["config", "show", "--prot", "1"]).unwrap_err().hint();
        assert!(hint.contains("`threadcast config show --help`"), "{hint}");
        for arguments in [&["sevre"][..], &["help", "sevre"]] {
            assert!(parsed(arguments).unwrap_err().hint().starts_with("`threadcast --help`"));
        }
    }

    #[test]
    fn the_url_of_the_environment_is_the_default_of_every_command_that_asks_a_server() {
        let environment = vec![("THREADCAST_URL".into(), "http://10.0.0.1:9".into())];
        for arguments in [
            &["clients"][..],
            &["tail"],
            &["diagnose"],
            &["doctor", "--probe"],
            &["forget", "m"],
        ] {
            let command = format!("{:?}", parse(arguments, &environment).unwrap());
            assert!(command.contains("10.0.0.1"), "{command}");
            let given = [arguments, &["--url", "10.0.0.2"]].concat();
            let command = format!("{:?}", parse(given, &environment).unwrap());
            assert!(
                command.contains("10.0.0.2") && !command.contains("10.0.0.1"),
                "{command}"
            );
            let wrong = vec![("THREADCAST_URL".into(), "ftp://x".into())];
            let error = parse(arguments, &wrong).unwrap_err().to_string();
            assert!(
                error.starts_with("THREADCAST_URL in the environment cannot be \"ftp://x\": "),
                "{error}"
            );
        }
    }

    #[test]
    fn commands_find_the_server_of_the_same_environment() {
        for (host, port, expected) in [
            ("0.0.0.0", "8080", ["127.0.0.1", "8080"]),
            ("10.0.0.7", "8080", ["10.0.0.7", "8080"]),
            ("nonsense:", "0", ["127.0.0.1", "3002"]),
        ] {
            let environment = vec![
                ("THREADCAST_SET_HOST".into(), host.into()),
                ("THREADCAST_SET_PORT".into(), port.into()),
            ];
            let command = format!("{:?}", parse(["doctor", "--probe"], &environment).unwrap());
            assert!(expected.iter().all(|part| command.contains(part)), "{command}");
            let command = format!("{:?}", parse(["tail"], &environment).unwrap());
            assert!(command.contains(expected[1]), "{command}");
        }
    }

    #[test]
    fn senders_follow_the_environment_of_the_server() {
        let environment = vec![("THREADCAST_SET_EVENT_SOCKET_PATH".into(), "/run/x.sock".into())];
        for arguments in [&["demo"][..], &["emit", "a", "b"], &["replay", "--journal", "j"]] {
            let command = format!("{:?}", parse(arguments, &environment).unwrap());
            assert!(command.contains("/run/x.sock"), "{command}");
        }
    }
}
