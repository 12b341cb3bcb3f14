//! Arguments that cannot be followed: what is wrong with them, and where help is.

use crate::config::sources::Fault;
use crate::process::nearest::nearest;
use crate::process::visible::visible;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::fmt;

/// Why the arguments cannot be followed. Exit status 2.
#[derive(Debug)]
pub enum UsageError {
    NoCommand,
    UnknownCommand {
        name: String,
        nearest: Option<String>,
    },
    /// What the parser does not take.
    Arguments(String),
    /// Settings, or values of a command's flags.
    Settings(Vec<Fault>),
    Missing {
        command: &'static str,
        what: &'static str,
    },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::NoCommand => write!(f, "no command given"),
            UsageError::UnknownCommand { name, nearest } => {
                write!(f, "there is no command {name:?}{}", did_you_mean(nearest.as_deref()))
            }
            UsageError::Arguments(text) => write!(f, "{text}"),
            UsageError::Settings(faults) => {
                let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
                write!(f, "{}", faults.join("; "))
            }
            UsageError::Missing { command, what } => write!(f, "{command} needs {what}"),
        }
    }
}

impl std::error::Error for UsageError {}

/// The arguments cannot be followed, and which page of help would have told.
#[derive(Debug)]
pub struct WrongUsage {
    pub(super) error: UsageError,
    /// The command that was meant, if there is one of that name.
    pub(super) command: Option<String>,
}

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for WrongUsage {}

impl WrongUsage {
    /// What is wrong, fit for a terminal: a line for each fault. Names and values may be a stranger's.
    pub fn lines(&self) -> Vec<String> {
        match &self.error {
            UsageError::Settings(faults) => faults.iter().map(|fault| visible(&fault.to_string())).collect(),
            error => vec![visible(&error.to_string())],
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match (&self.command, &self.error) {
            (_, UsageError::NoCommand) => "`threadcast serve` starts a server; in another terminal, `threadcast demo` \
                 sends it something to see and `threadcast tail` shows it; `threadcast --help` lists all commands"
                .to_owned(),
            (Some(command), _) => format!("`threadcast {command} --help` tells what it takes"),
            (None, _) => "`threadcast --help` tells what commands there are".to_owned(),
        }
    }
}

/// Says in our words what the parser does not take of `arguments`. `needs` is what their command cannot do without.
pub(super) fn explain(error: &clap::Error, program: &clap::Command, arguments: &[OsString], needs: &str) -> UsageError {
    let command = meant(program, arguments);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = context(error, ContextKind::InvalidSubcommand);
            let names = command.get_subcommands().map(clap::Command::get_name);
            let nearest = nearest(&name, names).map(str::to_owned);
            UsageError::UnknownCommand { name, nearest }
        }
        ErrorKind::UnknownArgument => {
            let argument = context(error, ContextKind::InvalidArg);
            // The parser names one letter of several behind a dash.
            let whole = arguments
                .iter()
                .filter_map(|given| given.to_str())
                .find(|given| given.starts_with(&argument));
            let is_letter = argument.starts_with('-') && !argument.starts_with("--");
            let argument = whole.filter(|_| is_letter).unwrap_or(&argument);
            UsageError::Arguments(unknown(argument, command))
        }
        ErrorKind::InvalidValue => UsageError::Arguments(format!(
            "{} needs a value",
            flag_of(&context(error, ContextKind::InvalidArg))
        )),
        ErrorKind::TooManyValues | ErrorKind::NoEquals => UsageError::Arguments(format!(
            "{} takes no value",
            flag_of(&context(error, ContextKind::InvalidArg))
        )),
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            if !needs.is_empty() =>
        {
            UsageError::Arguments(format!("{} needs {needs}", command.get_name()))
        }
        // What else it refuses, it says well enough in its first line.
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            UsageError::Arguments(line.trim_start_matches("error: ").to_owned())
        }
    }
}

/// An argument that nobody knows.
fn unknown(argument: &str, command: &clap::Command) -> String {
    if let Some(digits) = argument.strip_prefix('-')
        && digits.starts_with(|first: char| first.is_ascii_digit())
        && command.get_name() == "tail"
    {
        return format!("there is no {argument}; write -n {digits}");
    }
    if !argument.starts_with('-') || argument == "-" {
        return format!("{} takes no word {argument:?} here", command.get_name());
    }
    let name = argument.trim_start_matches('-');
    let flags = command.get_arguments().filter(|flag| !flag.is_hide_set());
    let flags: Vec<&str> = flags.filter_map(clap::Arg::get_long).collect();
    let nearest = nearest(name, flags).map(|nearest| format!("--{nearest}"));
    format!("there is no flag {argument}{}", did_you_mean(nearest.as_deref()))
}

/// The command that the arguments name, as far as the program has it.
fn meant<'a>(program: &'a clap::Command, arguments: &[OsString]) -> &'a clap::Command {
    let mut command = program;
    for argument in arguments {
        match argument.to_str().and_then(|name| command.find_subcommand(name)) {
            // Its own parts are copies without their names.
            _ if argument == "help" => {}
            Some(part) => command = part,
            None => break,
        }
    }
    command
}

/// The flag of the parser's `--flag <VALUE>`.
fn flag_of(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or(argument)
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) if name.starts_with("--") => format!("; did you mean {name}?"),
        Some(name) => format!("; did you mean {name:?}?"),
        None => String::new(),
    }
}

/// The parser's help without blanks at the ends of lines, and with one line end at its own.
pub(super) fn tidy_help(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}
