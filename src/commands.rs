//! What each command of the program does, from the person's side: its output, its exit status.

pub mod act;
pub mod clients;
pub mod clients_table;
pub mod demo;
pub mod diagnose;
pub mod drill;
pub mod emit;
pub mod forget;
pub mod replay;
pub mod request;
pub mod sender;
pub mod tail;

use crate::config::Config;
use crate::process::clock::pause;
use crate::process::exit::ExitStatus;
use crate::process::signals::EndSignals;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::serve;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

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

/// Takes over the signals that ask a command to end. Without them it ends at once, and not well: `None`, said.
fn end_signals() -> Option<Arc<EndSignals>> {
    match EndSignals::install() {
        Ok(signals) => Some(Arc::new(signals)),
        Err(error) => {
            complain(&format!(
                "threadcast: cannot catch signals: {error}; Ctrl-C will end this command at once\n"
            ));
            None
        }
    }
}

/// How long after a signal a command may take to end well. Standard input or output can hold it in a system call that
/// nothing else ends.
const GRACE: Duration = Duration::from_secs(1);
/// A thread that only waits must have a bound too.
const SIGNAL_LOOK: Duration = Duration::from_secs(60);

/// Ends the process if it has not ended by itself [`GRACE`] after a signal.
fn end_after_grace(signals: Arc<EndSignals>) -> io::Result<ThreadHandle<()>> {
    threads::spawn("signals", CORE_STACK_BYTES, None, move || {
        while !signals.is_requested_within(SIGNAL_LOOK) {}
        pause(GRACE);
        std::process::exit(ExitStatus::Fine as i32);
    })
}

/// Runs the server until it is told to stop. `reread` reads the settings again.
pub fn serve(config: Config, reread: serve::Reread) -> ExitStatus {
    match serve::run(config, reread) {
        Ok(status) => status,
        Err(error) => {
            complain(&format!("threadcast: {error}\nhint: {}\n", error.hint()));
            ExitStatus::Failed
        }
    }
}
