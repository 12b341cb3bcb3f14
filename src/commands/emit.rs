//! `threadcast emit`: sends events from a shell, and says what became of them.

use crate::commands::complain;
use crate::commands::end_signals::{end_after_grace, end_signals};
use crate::commands::sender::{EventSender, Refusal};
use crate::config::{Config, MAX_EVENT_BYTES_MAX};
use crate::process::exit::ExitStatus;
use crate::process::signals::EndSignals;
use crate::process::values::show_size;
use crate::process::visible::visible;
use crate::process::words;
use crate::stream::event::{self, DropCause};
use rustix::io::Errno;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What to send.
#[derive(Debug)]
pub enum Source {
    /// One event.
    Event {
        kind: String,
        machine: String,
        payload: String,
    },
    /// A JSON object per line of standard input, its bytes kept.
    Stdin,
}

/// The command's arguments.
#[derive(Debug)]
pub struct Emit {
    pub source: Source,
    pub path: PathBuf,
    /// How long each event may wait for room in the server's queue; after one that waited in vain, the next lines of
    /// standard input do not wait until one has gone through.
    pub timeout: Duration,
}

/// How many events went out, and how many were refused, by cause.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    /// Sent, but larger than a server takes that was not told otherwise.
    large: u64,
    /// In the order in which they first happened.
    refused: Vec<Refused>,
}

/// The events that were refused for one cause.
#[derive(Debug)]
struct Refused {
    why: Refusal,
    count: u64,
    /// Line of standard input of the first.
    first: u64,
}

/// The command.
pub fn run(emit: &Emit) -> ExitStatus {
    let mut sender = EventSender::new(&emit.path);
    let mut tally = Tally::default();
    let read = match &emit.source {
        Source::Event { kind, machine, payload } => {
            let event = envelope(kind, machine, payload);
            let sent = check_payload(payload)
                .and_then(|()| check(event.as_bytes()))
                .and_then(|()| sender.send(event.as_bytes(), emit.timeout));
            tally.count(1, event.len(), sent);
            Ok(Ended::AtTheEnd)
        }
        Source::Stdin => {
            let signals = end_signals();
            // Not joined: it ends with the process.
            let _last_resort = signals.clone().map(end_after_grace);
            send_lines(&mut sender, signals.as_deref(), emit.timeout, &mut tally)
        }
    };
    if let Err(error) = &read {
        complain(&format!(
            "threadcast: cannot read standard input any further: {error}\n"
        ));
    }
    tally.report(&emit.path, matches!(emit.source, Source::Stdin));
    if let Ok(Ended::Asked { before }) = read {
        complain(&format!("threadcast: ended by a signal before line {before}\n"));
    }
    if tally.refused.is_empty() && read.is_ok() {
        ExitStatus::Fine
    } else {
        ExitStatus::Failed
    }
}

/// An event in the engines' own spelling.
pub fn envelope(kind: &str, machine: &str, payload: &str) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        r#"{{"machine_name": {}, "type": {}, "payload": {payload}}}"#,
        text(machine),
        text(kind)
    )
}

/// A payload is judged alone: `{}, "type": "x"` would be an object only together with the event around it.
fn check_payload(payload: &str) -> Result<(), Refusal> {
    match event::check(payload.as_bytes()) {
        // Inside a payload every type is free, and the names that count are judged with the event around it.
        Ok(_) | Err(DropCause::ReservedType | DropCause::NotUnicode) => Ok(()),
        Err(cause) => Err(Refusal::Payload(cause)),
    }
}

/// The server would only count it among the dropped.
fn check(event: &[u8]) -> Result<(), Refusal> {
    event::check(event).map_err(Refusal::NotAnEvent)?;
    if event.len() > MAX_EVENT_BYTES_MAX {
        Err(Refusal::TooLargeForAll)
    } else {
        Ok(())
    }
}

/// Longest line that is held in memory; no server takes more.
const LINE_BYTES_MAX: usize = MAX_EVENT_BYTES_MAX;
/// What is read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Longest wait for standard input or for room before the next look for a signal; one that comes ends the former at
/// once.
const LOOK: Duration = Duration::from_millis(250);

/// How standard input came to its end.
#[derive(Debug)]
enum Ended {
    AtTheEnd,
    /// A signal asked for it; this line and what comes after it were not sent.
    Asked {
        before: u64,
    },
}

/// Standard input, which seems to end when a signal asks the command to end.
struct Input<'a> {
    signals: Option<&'a EndSignals>,
}

impl Read for Input<'_> {
    /// Blocks until there is something to read, the end, or a signal.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        if let Some(signals) = self.signals {
            while !signals.requested() && !signals.is_readable_within(stdin.as_fd(), LOOK) {}
            if signals.requested() {
                return Ok(0);
            }
        }
        match rustix::io::read(stdin.as_fd(), buffer) {
            // Somebody else with the same pipe was faster.
            Err(Errno::AGAIN) => Err(io::ErrorKind::Interrupted.into()),
            read => Ok(read?),
        }
    }
}

/// Sends each line that is not empty. A line that is not whole when a signal comes is left out.
fn send_lines(
    sender: &mut EventSender,
    signals: Option<&EndSignals>,
    timeout: Duration,
    tally: &mut Tally,
) -> io::Result<Ended> {
    let mut input = BufReader::with_capacity(READ_BYTES, Input { signals });
    let is_asked = || signals.is_some_and(EndSignals::requested);
    let mut patience = Patience::new(timeout);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        number += 1;
        // One byte more than a line may have, and its end.
        let mut start = input.by_ref().take(LINE_BYTES_MAX as u64 + 2);
        let count = start.read_until(b'\n', &mut line)?;
        let whole = line.ends_with(b"\n");
        if count > 0 && !whole {
            input.skip_until(b'\n')?;
        }
        // Without its end it may have been cut by the signal.
        if is_asked() {
            return Ok(Ended::Asked { before: number });
        }
        if count == 0 {
            return Ok(Ended::AtTheEnd);
        }
        let event = line.strip_suffix(b"\n").unwrap_or(&line);
        let event = event.strip_suffix(b"\r").unwrap_or(event);
        let is_too_long = event.len() > LINE_BYTES_MAX;
        if !is_too_long && event.trim_ascii().is_empty() {
            continue;
        }
        let sent = if is_too_long {
            Err(Refusal::TooLargeForAll)
        } else {
            check(event).and_then(|()| send_within(sender, event, patience.wait(), is_asked))
        };
        if sent == Err(Refusal::QueueFull) && is_asked() {
            return Ok(Ended::Asked { before: number });
        }
        patience.learn(&sent);
        tally.count(number, event.len(), sent);
    }
}

/// Sends one event. Blocks while the server's queue is full, at most `timeout`, and not longer than 250 ms once it is
/// asked to end.
fn send_within(
    sender: &mut EventSender,
    event: &[u8],
    timeout: Duration,
    is_asked: impl Fn() -> bool,
) -> Result<(), Refusal> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match sender.send(event, left.min(LOOK)) {
            Err(Refusal::QueueFull) if left > LOOK && !is_asked() => {}
            sent => return sent,
        }
    }
}

/// How long the next line may wait for room: once one has waited in vain, those after it do not wait any more, so that
/// a server that hangs does not hold the program that writes to us; until one goes through again.
#[derive(Debug)]
struct Patience {
    timeout: Duration,
    exhausted: bool,
}

impl Patience {
    fn new(timeout: Duration) -> Patience {
        Patience {
            timeout,
            exhausted: false,
        }
    }

    fn wait(&self) -> Duration {
        if self.exhausted { Duration::ZERO } else { self.timeout }
    }

    fn learn(&mut self, sent: &Result<(), Refusal>) {
        match sent {
            Err(Refusal::QueueFull) => self.exhausted = true,
            // A server that is gone leaves no queue; the next one deserves the whole time.
            Ok(()) | Err(Refusal::NoServer) => self.exhausted = false,
            // These say nothing about the server.
            Err(_) => {}
        }
    }
}

impl Tally {
    fn count(&mut self, line: u64, bytes: usize, outcome: Result<(), Refusal>) {
        match outcome {
            Ok(()) => {
                self.sent += 1;
                self.large += u64::from(bytes > Config::default().max_event_bytes);
            }
            Err(why) => match self.refused.iter_mut().find(|refused| refused.why == why) {
                Some(refused) => refused.count += 1,
                None => self.refused.push(Refused {
                    why,
                    count: 1,
                    first: line,
                }),
            },
        }
    }

    /// Says what happened: always when something was refused, and at the end of standard input.
    fn report(&self, path: &Path, lines: bool) {
        if self.large > 0 {
            complain(&format!(
                "threadcast: {} larger than {}, which a server drops unless its --max-event-bytes is higher; see \
                 events_dropped.too_large in its /health\n",
                words::count(self.large, "event") + words::pick(self.large, " is", " are"),
                show_size(Config::default().max_event_bytes)
            ));
        }
        if self.refused.is_empty() && !lines {
            return;
        }
        let refused: u64 = self.refused.iter().map(|refused| refused.count).sum();
        let mut text = format!(
            "threadcast: {} sent, {refused} refused, at {}\n",
            self.sent,
            visible(&path.display().to_string())
        );
        for Refused { why, count, first } in &self.refused {
            let place = if lines {
                format!(" (first: line {first})")
            } else {
                String::new()
            };
            text.push_str(&format!("  {count}: {why}{place}\n"));
        }
        complain(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_waits_in_vain() {
        let timeout = Duration::from_secs(1);
        let mut patience = Patience::new(timeout);
        for (sent, next) in [
            (Ok(()), timeout),
            (Err(Refusal::QueueFull), Duration::ZERO),
            (Err(Refusal::TooLarge { most: 9 }), Duration::ZERO),
            (Err(Refusal::QueueFull), Duration::ZERO),
            (Ok(()), timeout),
            (Err(Refusal::TooLarge { most: 9 }), timeout),
            (Err(Refusal::QueueFull), Duration::ZERO),
            (Err(Refusal::NoServer), timeout),
        ] {
            patience.learn(&sent);
            assert_eq!(patience.wait(), next, "{sent:?}");
        }
    }
}
