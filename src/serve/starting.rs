//! Ends a start that hangs: a signal that asks to end must not wait for a disk that does not answer.

use crate::liveness::voice::Voice;
use crate::process::clock::{monotonic_ms, timespec};
use crate::process::config::Config;
use crate::process::exit::ExitStatus;
use crate::process::logging::LogControl;
use crate::process::signals::StopSignals;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often thread `start` looks for a signal.
const LOOK: Duration = Duration::from_millis(100);
/// A start that was asked to end may go on for this long; one that only waits for its turn is done by then.
const PATIENCE_MS: u64 = 2000;
/// How long the end of the start waits for thread `start`, which wakes at once.
const JOIN: Duration = Duration::from_millis(250);

/// What a start does one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Sockets,
    Journal,
    Files,
    EventSocket,
    Threads,
}

/// Where the start is. One per start.
#[derive(Debug)]
pub struct Progress {
    step: AtomicUsize,
    /// In the order of [`Step`].
    texts: [String; 5],
}

impl Progress {
    /// A start with these settings.
    pub fn new(config: &Config) -> Progress {
        let journal = config.journal.as_deref().map(|folder| folder.display().to_string());
        let state = config.state_path().map(|path| path.display().to_string());
        Progress {
            step: AtomicUsize::new(Step::Sockets as usize),
            texts: [
                "opening the TCP port and the lock of the event socket".to_owned(),
                format!("opening the journal {}", journal.unwrap_or_default()),
                format!("reading the state file {}", state.unwrap_or_default()),
                format!("binding event socket {}", config.event_socket_path.display()),
                "starting its threads".to_owned(),
            ],
        }
    }

    /// Shows that this step begins.
    pub(super) fn begin(&self, step: Step) {
        // Relaxed: read for a message only.
        self.step.store(step as usize, Ordering::Relaxed);
    }

    fn text(&self) -> &str {
        &self.texts[self.step.load(Ordering::Relaxed)]
    }
}

/// Thread `start`, which lives as long as the start.
#[derive(Debug)]
pub(super) struct StartWatch {
    over: Stop,
    thread: ThreadHandle<()>,
}

impl StartWatch {
    /// Starts it. If a signal asks to end and the start goes on for 2 s, it says where the start hangs and ends the process
    /// with status 1.
    ///
    /// # Errors
    /// The process is out of descriptors or threads.
    pub(super) fn begin(
        signals: &Arc<StopSignals>,
        progress: &Arc<Progress>,
        log: LogControl,
    ) -> io::Result<StartWatch> {
        let over = Stop::new()?;
        let (signals, progress, stop) = (Arc::clone(signals), Arc::clone(progress), over.clone());
        let body = move || watch(&signals, &progress, log, &stop);
        let thread = threads::spawn("start", CORE_STACK_BYTES, None, body)?;
        Ok(StartWatch { over, thread })
    }

    /// The start is over. Blocks 250 ms at most.
    pub(super) fn end(self) {
        self.over.request();
        // One that is late ends the same way a moment later; it changes nothing any more.
        let _ = self.thread.join_within(JOIN);
    }
}

fn watch(signals: &StopSignals, progress: &Progress, log: LogControl, over: &Stop) {
    let mut asked = None;
    while !over.requested() {
        // An interrupted poll is one more look.
        let _ = waits::MAIN.judge(poll(&mut [PollFd::new(over, PollFlags::IN)], Some(&timespec(LOOK))));
        signals.take_waiting();
        let Some(signal) = signals.stop() else { continue };
        let since = *asked.get_or_insert_with(monotonic_ms);
        if monotonic_ms().saturating_sub(since) >= PATIENCE_MS && !over.requested() {
            let mut voice = Voice::new(Some(log));
            let text = format!(
                "🚨 {signal} came while the server starts, and the start does not go on: it is {}. Ending without it; look \
                 whether that disk or file answers",
                progress.text()
            );
            voice.say(Level::Error, &text);
            voice.linger();
            signal_hook::low_level::exit(ExitStatus::Failed as i32);
        }
    }
}
