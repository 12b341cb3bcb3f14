//! `threadcast services init`: writes a file of services for what lies in a folder.

mod found;
mod text;

use crate::commands::{complain, print};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::process::words::count;
use crate::supervise::settings::USUAL_FILE;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The command. Blocks on the folder's disk, without a bound.
pub fn run(folder: &Path) -> ExitStatus {
    let path = folder.join(USUAL_FILE);
    let shown = visible(&path.display().to_string());
    let services = found::look(folder);
    let text = text::file(&services);
    let written = OpenOptions::new()
        .write(true)
        // What a person has written is never overwritten, also not by two of these at a time.
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => print(&told(&shown, &services)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            complain(&format!(
                "threadcast: {shown} is there already, and stays as it is\nhint: `threadcast services check` looks for \
                 faults in it; move it away to have another one\n"
            ));
            ExitStatus::Failed
        }
        Err(error) => {
            complain(&format!(
                "threadcast: cannot write {shown}: {error}\nhint: name a folder in which you may write: threadcast \
                 services init DIR\n"
            ));
            ExitStatus::Failed
        }
    }
}

/// What a person reads of it.
fn told(path: &str, services: &[found::Found]) -> String {
    let mut text = match services.len() {
        0 => format!("{path}: nothing known is in this folder, so it has one example\n"),
        number => format!("{path}: {}\n", count(number, "service")),
    };
    for service in services {
        text.push_str(&format!("  {} ({})\n", visible(&service.name), visible(&service.from)));
    }
    text.push_str("Look through it, then let `threadcast services check` look for faults.\n");
    text
}
