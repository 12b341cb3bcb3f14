//! What each command of the program does, from the person's side: its output, its exit status.

pub mod act;
pub mod check_config;
pub mod check_services;
pub mod clients;
pub mod clients_table;
pub mod demo;
pub mod diagnose;
pub mod doctor;
pub mod drill;
pub mod emit;
pub mod end_signals;
pub mod forget;
pub mod graph;
pub mod graph_dot;
pub mod graph_table;
pub mod init_services;
pub mod machines;
pub mod machines_table;
pub mod painter;
pub mod replay;
pub mod request;
pub mod sender;
pub mod services;
pub mod table;
pub mod tail;
pub mod trouble;
pub mod up;
pub mod watch;

use crate::config::Config;
use crate::process::exit::ExitStatus;
use crate::process::{heap, tty};
use crate::serve;
use std::io::{ErrorKind, Write};

/// Prints `text` to standard output, and ends fine unless it cannot be written, which it says.
pub fn print(text: &str) -> ExitStatus {
    printed(text).unwrap_or(ExitStatus::Fine)
}

/// Prints `text` to standard output, on a terminal of locale C in ASCII but for what comes from others. Returns how to
/// end if nobody reads it any more, which is the reader's choice and no fault, or if it cannot be written, which it
/// says.
pub fn printed(text: &str) -> Option<ExitStatus> {
    let mut out = std::io::stdout().lock();
    let text = tty::shown(text, &out);
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Some(ExitStatus::Fine),
        Err(error) => {
            complain(&format!("threadcast: cannot write to standard output: {error}\n"));
            Some(ExitStatus::Failed)
        }
    }
}

/// Prints what was made, or why it could not be.
pub fn print_made(made: Result<String, String>) -> ExitStatus {
    match made {
        Ok(text) => print(&text),
        Err(why) => {
            complain(&format!("threadcast: {why}\n"));
            ExitStatus::Failed
        }
    }
}

/// Prints `text` to standard error, on a terminal of locale C in ASCII but for what comes from others. If even that is
/// gone, there is nobody to tell.
pub fn complain(text: &str) {
    let mut stderr = std::io::stderr();
    let shown = tty::shown(text, &stderr);
    let _ = stderr.write_all(shown.as_bytes());
}

/// Runs the server until a signal ends it. `reread` reads the settings again.
pub fn serve(config: Config, reread: serve::Reread) -> ExitStatus {
    // What the parser took, a server does not need again.
    heap::give_back();
    match serve::run(config, reread) {
        Ok(status) => status,
        Err(error) => {
            complain(&format!("threadcast: {error}\nhint: {}\n", error.hint()));
            ExitStatus::Failed
        }
    }
}
