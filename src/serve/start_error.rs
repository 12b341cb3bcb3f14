//! Why the server could not start, and what a person can do about it.

use crate::intake::event_socket::BindError;
use crate::journal::JournalError;
use crate::process::passed_sockets::PassedError;
use crate::process::refusal::Refusal;
use crate::process::stop::Stop;
use crate::serve::room::TooSmall;
use crate::serve::starting::GivenUp;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why the server could not start.
#[derive(Debug)]
pub enum StartError {
    Passed(PassedError),
    Listen {
        address: String,
        error: io::Error,
    },
    Socket(BindError),
    Journal(JournalError),
    Admin {
        path: PathBuf,
        error: io::Error,
    },
    File {
        path: PathBuf,
        error: io::Error,
    },
    Resource {
        what: &'static str,
        error: io::Error,
    },
    Addresses(TooSmall),
    /// Thread `start` ends the process, because a signal asked for it long ago.
    GivenUp,
}

impl From<GivenUp> for StartError {
    fn from(_: GivenUp) -> StartError {
        StartError::GivenUp
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Passed(error) => write!(f, "{error}"),
            StartError::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::Socket(error) => write!(f, "{error}"),
            StartError::Journal(error) => write!(f, "{error}"),
            StartError::Admin { path, error } => {
                write!(f, "cannot make the admin socket {}: {error}", path.display())
            }
            StartError::File { path, error } => write!(f, "cannot use {}: {error}", path.display()),
            StartError::Resource { what, error } => write!(f, "cannot make {what}: {error}"),
            StartError::GivenUp => f.write_str("the start took too long after a signal that asked to end"),
            StartError::Addresses(too_small) => write!(f, "cannot start: {too_small}"),
        }
    }
}

impl std::error::Error for StartError {}

impl StartError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            StartError::Listen { error, .. } => match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another server has this port: stop it, or give --port another one; nothing of it was touched"
                        .to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need privileges; give --port a higher one".to_owned()
                }
                _ => "--host must be an address of this machine".to_owned(),
            },
            StartError::Passed(error) => error.hint().to_owned(),
            StartError::Socket(error) => error.hint(),
            StartError::Journal(error) => error.hint().to_owned(),
            StartError::Admin { .. } => {
                "give --admin-socket a path in a folder that only this user may write, or none to serve without one"
                    .to_owned()
            }
            StartError::File { .. } => {
                "give --state-file or --status-file the path of a regular file, or none; nothing of it was touched"
                    .to_owned()
            }
            StartError::Resource { error, .. } => Refusal::of(error).to_string(),
            StartError::Addresses(too_small) => too_small.hint(),
            StartError::GivenUp => "the line before says what it waited for".to_owned(),
        }
    }
}

/// The host refuses `what`.
pub(super) fn resource(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Resource { what, error }
}

pub(super) fn new_stop() -> Result<Stop, StartError> {
    Stop::new().map_err(resource("a stop request"))
}
