//! The file of services: TOML that says what runs, in which order, how it is watched, and what follows from that.
//!
//! [`table`] describes every key once. Reading goes by that table ([`kinds`] says what a value may be), then the tables
//! become a [`Plan`], then names are held against each other. All of that looks at the text alone; [`read`] also looks
//! whether the programs and folders are there.

mod building;
mod checks;
pub mod environment;
mod faults;
pub mod kinds;
mod order;
pub mod plan;
mod programs;
mod reading;
pub mod reference;
mod references;
mod scalars;
pub mod server;
mod services;
pub mod signals;
pub mod table;
#[cfg(all(test, feature = "config-file"))]
mod tests;
mod values;

use crate::config::file::{self, FileError, Place};
use crate::supervise::settings::environment::Environment;
use crate::supervise::settings::faults::Faults;
use crate::supervise::settings::plan::Plan;
use crate::supervise::settings::reading::Reader;
use std::path::Path;

/// The file of services that commands read if they are given none.
pub const USUAL_FILE: &str = "services.toml";

/// Reads the file of services at `path`, and looks whether the programs and folders that it names are there, and reads
/// its variable files. `ours` is the environment of this process. Blocks on the disks that all of these are on, without
/// a bound.
///
/// # Errors
/// Everything that is wrong with it, in the order of the places in the file.
pub fn read(path: &Path, ours: &Environment) -> Result<Plan, Vec<FileError>> {
    let text = file::text_of(path).map_err(|fault| vec![fault])?;
    let mut faults = Faults::of(path.to_owned());
    let mut plan = understood(path, &text, &mut faults)?;
    if let Some(plan) = &mut plan {
        programs::read_variables(plan, &mut faults);
        programs::look(plan, ours, &mut faults);
    }
    whole(plan, faults)
}

/// Reads the text of a file of services, which would lie at `path`. Looks at nothing else.
///
/// # Errors
/// Everything that is wrong with the text, in the order of the places.
pub fn of_text(path: &Path, text: &str) -> Result<Plan, Vec<FileError>> {
    let mut faults = Faults::of(path.to_owned());
    let plan = understood(path, text, &mut faults)?;
    whole(plan, faults)
}

/// The plan of a text, as far as it can be made. An error is a text that is not TOML.
fn understood(path: &Path, text: &str, faults: &mut Faults) -> Result<Option<Plan>, Vec<FileError>> {
    let entries = file::entries_of_text(path, text).map_err(|fault| vec![fault])?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let values = Reader { folder, faults }.file(&table::FILE, &entries);
    let plan = building::plan(path, folder, &values, faults);
    let is_empty = plan
        .as_ref()
        .is_some_and(|plan| plan.services.is_empty() && plan.server.is_none());
    if is_empty && faults.is_empty() {
        let message = "there is no service in it; write [service.NAME] with a command, or [server]; `threadcast services \
                       init` writes a file to begin with";
        faults.add(Place { line: 1, column: 1 }, message);
    }
    Ok(plan)
}

fn whole(plan: Option<Plan>, faults: Faults) -> Result<Plan, Vec<FileError>> {
    match (plan, faults.into_list()) {
        (Some(plan), list) if list.is_empty() => Ok(plan),
        (_, list) => Err(list),
    }
}
