//! Arguments that cannot be followed: what is wrong with them, and where help is.

use crate::cli::settings_file::FileError;
use crate::config::SettingError;
use std::fmt;

/// Why the arguments cannot be followed. Exit status 2.
#[derive(Debug)]
pub enum UsageError {
    NoCommand,
    UnknownCommand(String),
    Arguments(lexopt::Error),
    UnknownFlag(String),
    Setting(SettingError),
    File(FileError),
    Missing { command: &'static str, what: &'static str },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::NoCommand => write!(f, "no command given"),
            UsageError::UnknownCommand(name) => write!(f, "there is no command {name:?}"),
            UsageError::Arguments(error) => write!(f, "{error}"),
            UsageError::UnknownFlag(text) => write!(f, "{text}"),
            UsageError::Setting(error) => write!(f, "--{error}"),
            UsageError::File(error) => write!(f, "{error}"),
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
    pub(super) command: Option<&'static str>,
}

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for WrongUsage {}

impl WrongUsage {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self.command {
            Some(command) => format!("`threadcast {command} --help` tells what it takes"),
            None => "`threadcast --help` tells what commands there are".to_owned(),
        }
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        UsageError::Arguments(error)
    }
}
