//! What each command of the program does, from the person's side: its output, its exit status.

pub mod act;
pub mod clients;
pub mod clients_table;
pub mod demo;
pub mod diagnose;
pub mod drill;
pub mod emit;
pub mod end_signals;
pub mod forget;
pub mod machines;
pub mod machines_table;
pub mod painter;
pub mod replay;
pub mod request;
pub mod sender;
pub mod table;
pub mod tail;
pub mod watch;

use crate::config::Config;
use crate::process::exit::ExitStatus;
use crate::serve;
use std::io::Write;

/// Prints `text` to standard output. A closed pipe is the reader's choice, not a fault.
pub fn print(text: &str) -> ExitStatus {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitStatus::Failed,
        _ => ExitStatus::Fine,
    }
}

/// Prints `text` to standard error. If even that is gone, there is nobody to tell.
pub fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Runs the server until a signal ends it. `reread` reads the settings again.
pub fn serve(config: Config, reread: serve::Reread) -> ExitStatus {
    match serve::run(config, reread) {
        Ok(status) => status,
        Err(error) => {
            complain(&format!("threadcast: {error}\nhint: {}\n", error.hint()));
            ExitStatus::Failed
        }
    }
}
