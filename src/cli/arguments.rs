//! Arguments as the parser found them, and how a value becomes what a command takes.
//!
//! The parser only tells flags from values. What a value may be, we judge ourselves, so that a fault of a flag, of the
//! settings file and of the environment has the same words.

use crate::cli::usage::UsageError;
use crate::config::SettingError;
use crate::config::sources::{Environment, Fault};
use clap::builder::{OsStringValueParser, PossibleValue, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, ValueHint};
use std::ffi::{OsStr, OsString};

/// The arguments of one command.
#[derive(Debug)]
pub struct Arguments<'a> {
    pub(super) matches: &'a ArgMatches,
    pub(super) environment: &'a Environment,
}

impl<'a> Arguments<'a> {
    /// The command below this one, with its arguments.
    pub(super) fn part(&self) -> Option<(&'a str, Arguments<'a>)> {
        let (name, matches) = self.matches.subcommand()?;
        Some((
            name,
            Arguments {
                matches,
                environment: self.environment,
            },
        ))
    }

    /// Returns whether the switch is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.matches.get_flag(name)
    }

    /// The last value that is given for `name`, as it is.
    pub(super) fn raw(&self, name: &str) -> Option<&'a OsStr> {
        self.matches
            .get_many::<OsString>(name)?
            .next_back()
            .map(OsString::as_os_str)
    }

    /// Every value that is given for `name`.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, UsageError> {
        let values = self.matches.get_many::<OsString>(name).into_iter().flatten();
        values.map(|value| text(name, value)).collect()
    }

    /// The last value that is given for `name`.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, UsageError> {
        self.raw(name).map(|value| text(name, value)).transpose()
    }

    /// The value of a word that the parser requires.
    pub(super) fn required(&self, name: &str) -> Result<String, UsageError> {
        self.text(name)?.ok_or_else(|| absent(name))
    }

    /// The last value that is given for `name`, read by `read`, which says what would be right.
    pub(super) fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        self.read_as(name, read, |value, wanted| wrong(name, value, wanted))
    }

    /// As [`Arguments::read`], of a word that is known by its place.
    pub(super) fn read_word<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        self.read_as(name, read, |value, wanted| wrong_word(name, value, &wanted))
    }

    fn read_as<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
        fault: impl Fn(&str, String) -> UsageError,
    ) -> Result<Option<T>, UsageError> {
        let Some(value) = self.text(name)? else {
            return Ok(None);
        };
        read(&value).map(Some).map_err(|wanted| fault(&value, wanted))
    }

    /// As [`Arguments::read`], with the value of `variable` in the environment if there is none on the command line.
    pub(super) fn read_or<T>(
        &self,
        name: &str,
        variable: &str,
        read: impl Fn(&OsStr) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        if let Some(value) = self.raw(name) {
            return read(value)
                .map(Some)
                .map_err(|wanted| wrong(name, &value.to_string_lossy(), wanted));
        }
        let Some((_, value)) = self.environment.iter().find(|(name, _)| name == variable) else {
            return Ok(None);
        };
        read(value).map(Some).map_err(|wanted| {
            let message = format!("cannot be {:?}: {wanted}", value.to_string_lossy());
            UsageError::Settings(vec![Fault::Environment(variable.to_owned(), message)])
        })
    }
}

fn text(name: &str, value: &OsStr) -> Result<String, UsageError> {
    match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong(name, &value.to_string_lossy(), "it must be UTF-8".to_owned())),
    }
}

/// The fault of an argument that is not there. The parser refuses most such lines before, in better words.
pub(super) fn absent(name: &str) -> UsageError {
    UsageError::Arguments(format!("{name} is missing"))
}

/// The fault of a word that is known by its place.
pub(super) fn wrong_word(name: &str, value: &str, wanted: &str) -> UsageError {
    UsageError::Arguments(format!("{} cannot be {value:?}: {wanted}", name.to_uppercase()))
}

/// The fault of a flag's value.
pub(super) fn wrong(name: &str, value: &str, wanted: String) -> UsageError {
    UsageError::Settings(vec![Fault::Flag(SettingError {
        name: name.to_owned(),
        value: value.to_owned(),
        wanted,
    })])
}

/// A flag with a value.
pub(super) fn flag(name: &'static str, value: &'static str, help: impl Into<String>) -> Arg {
    valued(Arg::new(name).long(name), value, help)
}

/// A word that is known by its place.
pub(super) fn word(name: &'static str, value: &'static str, help: impl Into<String>) -> Arg {
    Arg::new(name)
        .value_name(value)
        .help(help.into())
        .action(ArgAction::Set)
        .value_parser(Raw(&[]))
        .hide_possible_values(true)
}

/// A flag without a value.
pub(super) fn switch(name: &'static str, help: impl Into<String>) -> Arg {
    Arg::new(name).long(name).help(help.into()).action(ArgAction::SetTrue)
}

fn valued(arg: Arg, value: &'static str, help: impl Into<String>) -> Arg {
    let hint = match value {
        "DIR" => ValueHint::DirPath,
        "FILE" | "PATH" => ValueHint::FilePath,
        "URL" => ValueHint::Url,
        _ => ValueHint::Other,
    };
    arg.value_name(value)
        .help(help.into())
        .action(ArgAction::Append)
        // A value may begin with a dash; the command judges what it must be.
        .allow_hyphen_values(true)
        .value_parser(Raw(&[]))
        .value_hint(hint)
        // The help names them in its own words.
        .hide_possible_values(true)
}

/// Takes any value as it is; the words are for completions only.
#[derive(Clone, Debug)]
pub(super) struct Raw(pub(super) &'static [&'static str]);

impl TypedValueParser for Raw {
    type Value = OsString;

    fn parse_ref(&self, command: &clap::Command, arg: Option<&Arg>, value: &OsStr) -> Result<OsString, clap::Error> {
        OsStringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        if self.0.is_empty() {
            return None;
        }
        Some(Box::new(self.0.iter().map(|word| PossibleValue::new(*word))))
    }
}
