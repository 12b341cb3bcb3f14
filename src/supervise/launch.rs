//! Starts a service so that no crash in between makes the next supervisor start it twice or miss it.

use crate::supervise::children::Children;
use crate::supervise::leader::Leader;
use crate::supervise::record::{RecordFile, State};
use crate::supervise::spawn::{self, Launch, SpawnError};
use crate::supervise::write::Step;
use std::fmt;
use std::io;

/// Why a service was not started.
#[derive(Debug)]
pub enum LaunchError {
    /// The record could not be written, so a crash could have led to a second start.
    Record(io::Error),
    Spawn(SpawnError),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Record(error) => write!(
                f,
                "cannot write the record of what runs: {error}; nothing is started without it; make room in the run folder"
            ),
            LaunchError::Spawn(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LaunchError {}

/// A service that was started.
#[derive(Debug)]
pub struct Launched {
    pub leader: Leader,
    /// Bytes that its log had before.
    pub log_bytes: u64,
    /// The record does not know the process, for this reason. The next supervisor will find it by its mark.
    pub unrecorded: Option<io::Error>,
}

/// Records that a service is about to start, starts it, and records that it runs. Blocks on the disk of the record, and
/// as [`spawn::start`] does.
///
/// # Errors
/// Nothing was started.
pub fn launch(file: &mut RecordFile, launch: &Launch<'_>, children: &Children) -> Result<Launched, LaunchError> {
    let (service, n) = (&launch.mark.service, launch.mark.n);
    let log_bytes = std::fs::metadata(launch.log).map_or(0, |facts| facts.len());
    file.about_to_start(service, n, log_bytes)
        .map_err(LaunchError::Record)?;
    let leader = match spawn::start(launch, children) {
        Ok(leader) => leader,
        Err(error) => {
            // Else the next supervisor looks for it, and finds nothing.
            let _ = file.rests(service, State::Over);
            return Err(LaunchError::Spawn(error));
        }
    };
    file.has_done(Step::Spawned);
    let unrecorded = file.runs(service, n, leader.identity()).err();
    Ok(Launched {
        leader,
        log_bytes,
        unrecorded,
    })
}
