//! `threadcast config check FILE`: every fault of a settings file.

use crate::commands::{complain, print};
use crate::config::sources::{self, Fault};
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
            for fault in &faults {
                complain(&format!("threadcast: {}\n", visible(&fault.to_string())));
            }
            if faults.iter().any(has_place) {
                complain("hint: `threadcast serve --help` has every setting with what it takes\n");
            }
            ExitStatus::Failed
        }
    }
}

/// Returns whether the fault is in the file's text, not the file itself.
fn has_place(fault: &Fault) -> bool {
    matches!(fault, Fault::File(error) if error.place.is_some())
}
