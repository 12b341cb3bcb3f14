//! What `--watch` does: shows a document of the server again and again, until a signal.

use crate::commands::end_signals::end_signals;
use crate::commands::{print, printed};
use crate::process::clock::pause;
use crate::process::exit::ExitStatus;
use crate::process::tty;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Puts the cursor to the top left corner and clears what is on the screen; what scrolled out before stays.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// How a command shows what it has seen.
#[derive(Clone, Copy, Debug)]
pub struct Showing {
    /// Again after each of these times; `None`: once.
    pub every: Option<Duration>,
    /// For programs: one document a line, and nothing between.
    pub json: bool,
}

/// Shows what `look` returns. Blocks as `look` does, and with `every` until a signal. A look that fails has told the
/// person why; only the first one ends the command.
pub fn show(showing: Showing, mut look: impl FnMut() -> Result<String, ExitStatus>) -> ExitStatus {
    let Some(every) = showing.every else {
        return match look() {
            Ok(text) => print(&text),
            Err(status) => status,
        };
    };
    let signals = end_signals();
    let clears = !showing.json && io::stdout().is_terminal() && !tty::is_dumb();
    let mut shown = false;
    loop {
        match look() {
            Ok(text) => {
                let between = match (clears, shown && !showing.json) {
                    (true, _) => CLEAR,
                    (false, true) => "\n",
                    (false, false) => "",
                };
                if let Some(status) = printed(&format!("{between}{text}")) {
                    return status;
                }
                shown = true;
            }
            // A server that was there may come back; a wrong address will not.
            Err(status) if !shown => return status,
            Err(_) => {}
        }
        let over = match &signals {
            Some(signals) => signals.is_requested_within(every),
            None => {
                pause(every);
                false
            }
        };
        if over {
            return ExitStatus::Fine;
        }
    }
}
