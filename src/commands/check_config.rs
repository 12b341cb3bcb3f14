//! `threadcast config check FILE`: every fault of a settings file.

use crate::commands::{complain, print};
use crate::config::sources;
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::process::words::count;
use std::path::Path;

/// The command. Blocks on the file, without a bound.
pub fn run(file: &Path) -> ExitStatus {
    match sources::of_file(file) {
        Ok(in_force) => print(&format!(
            "{}: {}, no fault\n",
            visible(&file.display().to_string()),
            count(in_force.given(), "setting")
        )),
        Err(faults) => {
            for fault in faults {
                complain(&format!("threadcast: {}\n", visible(&fault.to_string())));
            }
            complain("hint: `threadcast serve --help` has every setting with what it takes\n");
            ExitStatus::Failed
        }
    }
}
