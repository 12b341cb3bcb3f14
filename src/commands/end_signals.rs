//! How a command ends by a signal: by itself, and if it cannot, a moment later.
//!
//! Runs on: `signals`, one, in `tail` and `emit --stdin`.
//! Owns: nothing.
//! Blocks on: a signal (60 s), then the command's own end (1 s).
//! Can be stalled by: nothing.
//! Full queue means: nothing; it has none.
//! Ends when: the process does, which it ends itself 1 s after a signal.
//! Watched as: not watched; a command has no watchdog.

use crate::commands::complain;
use crate::process::clock::pause;
use crate::process::exit::ExitStatus;
use crate::process::signals::EndSignals;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Takes over the signals that ask a command to end. Without them it ends at once, and not well: `None`, said.
pub fn end_signals() -> Option<Arc<EndSignals>> {
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
pub fn end_after_grace(signals: Arc<EndSignals>) -> io::Result<ThreadHandle<()>> {
    threads::spawn("signals", CORE_STACK_BYTES, None, move || {
        while !signals.is_requested_within(SIGNAL_LOOK) {}
        pause(GRACE);
        std::process::exit(ExitStatus::Fine as i32);
    })
}
