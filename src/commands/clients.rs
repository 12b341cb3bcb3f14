//! `threadcast clients`: who is connected to a running server, and how well each keeps up.

use crate::commands::clients_table::table;
use crate::commands::complain;
use crate::commands::end_signals::end_signals;
use crate::commands::painter::Painter;
use crate::commands::request::{self, ServerUrl};
use crate::process::clock::pause;
use crate::process::exit::ExitStatus;
use serde::de::IgnoredAny;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// How long to wait for each part of the answer; the server asks nobody for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Puts the cursor to the top left corner and clears what is there.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// The command's arguments.
#[derive(Debug)]
pub struct Clients {
    pub server: ServerUrl,
    /// The server's document as it is, instead of a table.
    pub json: bool,
    /// Again after each of these times, until a signal.
    pub watch: Option<Duration>,
}

/// The command.
pub fn run(clients: &Clients) -> ExitStatus {
    let painter = Painter::of_stdout();
    let Some(every) = clients.watch else {
        return match look(clients, painter) {
            Ok(text) => show(&text),
            Err(status) => status,
        };
    };
    let signals = end_signals();
    let clears = !clients.json && io::stdout().is_terminal();
    let mut shown = false;
    loop {
        match look(clients, painter) {
            Ok(text) => {
                let between = match (clears, shown && !clients.json) {
                    (true, _) => CLEAR,
                    (false, true) => "\n",
                    (false, false) => "",
                };
                let status = write(&format!("{between}{text}"));
                if let Some(status) = status {
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

/// What the server says now, ready to be shown; else the complaint has been made.
fn look(clients: &Clients, painter: Painter) -> Result<String, ExitStatus> {
    let failed = |why: &str| {
        complain(&format!("threadcast: no figures of clients: {why}\n"));
        ExitStatus::Failed
    };
    let answer = request::get(&clients.server, "/status", PATIENCE)?;
    if answer.status != 200 {
        return Err(failed(&answer.detail()));
    }
    let stranger = "what answers there is no threadcast of this version";
    if clients.json {
        // JSON has control characters as escapes only, so it can drive no terminal.
        return match serde_json::from_str::<IgnoredAny>(&answer.body) {
            Ok(_) => Ok(format!("{}\n", answer.body.trim_end())),
            Err(_) => Err(failed(stranger)),
        };
    }
    table(&answer.body, painter).ok_or_else(|| failed(stranger))
}

fn show(text: &str) -> ExitStatus {
    write(text).unwrap_or(ExitStatus::Fine)
}

/// Writes to standard output; how to end, if nobody reads it or it cannot be written.
fn write(text: &str) -> Option<ExitStatus> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => None,
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Some(ExitStatus::Fine),
        Err(error) => {
            complain(&format!("threadcast: cannot write the table: {error}\n"));
            Some(ExitStatus::Failed)
        }
    }
}
