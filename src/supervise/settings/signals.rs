//! Signals by their names.

use crate::process::nearest::nearest;
use rustix::process::Signal;

/// Signals that ask a program for something, or end it. STOP and its like would leave it there for ever.
const SIGNALS: [(&str, Signal); 10] = [
    ("TERM", Signal::TERM),
    ("INT", Signal::INT),
    ("HUP", Signal::HUP),
    ("QUIT", Signal::QUIT),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("WINCH", Signal::WINCH),
    ("KILL", Signal::KILL),
];

/// The signal of that name, with or without `SIG` before it.
///
/// # Errors
/// There is none that a service can be sent; the text says what would be right.
pub(super) fn of_name(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, signal)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return Ok(*signal);
    }
    let names = SIGNALS.map(|(name, _)| name);
    match nearest(name, names) {
        Some(nearest) => Err(format!("did you mean {nearest:?}?")),
        None => Err(format!("write one of {}", names.join(", "))),
    }
}

/// The name of a signal, without `SIG`.
pub fn name_of(signal: Signal) -> &'static str {
    let known = SIGNALS.iter().find(|(_, known)| *known == signal);
    known.map_or("?", |(name, _)| name)
}
