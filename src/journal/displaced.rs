//! When the folder of a running server's journal is somebody else's.

use std::fmt;

/// Why a running server has lost its journal's folder to somebody else.
#[derive(Debug)]
pub enum Displaced {
    /// Another server holds the folder's lock; who, if that is known.
    Locked(Option<String>),
    /// There are segments in the folder that this server has not written, or not all of.
    Foreign,
}

impl fmt::Display for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Displaced::Locked(Some(holder)) => write!(f, "its folder is not ours any more: {holder}"),
            Displaced::Locked(None) => f.write_str("its folder is not ours any more: another server has it"),
            Displaced::Foreign => f.write_str("its folder has files that this server does not know"),
        }
    }
}

impl std::error::Error for Displaced {}
