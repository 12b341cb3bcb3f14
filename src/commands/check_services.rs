//! `threadcast services check FILE`: every fault of a file of services, or the phases in which they start.

use crate::commands::{complain, print};
use crate::config::file::FileError;
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::process::words::count;
use crate::supervise::settings;
use crate::supervise::settings::plan::Plan;
use std::path::Path;

/// The command. Blocks on the file, and on the disks of the programs and folders that it names, without a bound.
pub fn run(file: &Path) -> ExitStatus {
    match settings::read(file, &std::env::vars_os().collect()) {
        Ok(plan) => print(&described(file, &plan)),
        Err(faults) => tell(&faults),
    }
}

/// Tells of the faults of a file of services.
pub fn tell(faults: &[FileError]) -> ExitStatus {
    for fault in faults {
        complain(&format!("threadcast: {}\n", visible(&fault.to_string())));
    }
    if faults.iter().any(|fault| fault.place.is_some()) {
        complain("hint: docs/services.md has every key with what it takes\n");
    } else {
        complain("hint: `threadcast services init` writes a file to begin with\n");
    }
    ExitStatus::Failed
}

/// What the file says, in few lines.
fn described(file: &Path, plan: &Plan) -> String {
    let mut text = format!(
        "{}: {}, {}: fine\n",
        visible(&file.display().to_string()),
        count(plan.services.len(), "service"),
        count(plan.needs.len(), "need")
    );
    if !plan.needs.is_empty() {
        let names: Vec<&str> = plan.needs.iter().map(|need| need.name.as_str()).collect();
        text.push_str(&format!("needs: {}\n", names.join(", ")));
    }
    if plan.server.is_some() {
        text.push_str(&format!(
            "before all services: the server ({})\n",
            plan.supervise.url.authority
        ));
    }
    let name = |at: &usize| plan.services[*at].name.as_str();
    for (at, phase) in plan.order.start.iter().enumerate() {
        let names: Vec<&str> = phase.iter().map(name).collect();
        text.push_str(&format!("phase {}: {}\n", at + 1, names.join(", ")));
    }
    let disabled = plan.services.iter().filter(|service| !service.enabled);
    let disabled: Vec<&str> = disabled.map(|service| service.name.as_str()).collect();
    if !disabled.is_empty() {
        text.push_str(&format!("not started by itself: {}\n", disabled.join(", ")));
    }
    text
}
