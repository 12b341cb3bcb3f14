//! What the command was asked for.

use std::path::PathBuf;

/// The command's arguments.
#[derive(Debug)]
pub struct Up {
    /// The file of services.
    pub file: PathBuf,
    /// Stop an earlier run of the same folder first.
    pub replace: bool,
    /// Run this once all services are ready, then stop.
    pub until_ready: Option<Vec<String>>,
    /// Start a server too, with its usual settings, if the file has none.
    pub serve: bool,
}
