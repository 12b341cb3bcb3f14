//! A disk that takes nothing: what is missing meanwhile is counted, and writing is tried again.

use super::Journal;
use crate::journal::displaced::Displaced;
use crate::journal::line::{self, FAILED, REMOVED};
use crate::journal::outage::Failing;
use crate::liveness::operation::Operation;
use crate::process::clock::epoch_seconds;
use crate::process::words::{count, pick};
use crate::stream::batch::Loss;
use crate::stream::event::Seq;
use std::io;
use std::time::{Duration, Instant};

/// A disk that takes nothing is tried again once a second, so that at most a second of events is missing needlessly.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// The log says once a minute that it still takes nothing.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What a person can do about a journal that cannot be written.
fn remedy(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|why| why.downcast_ref()) {
        Some(Displaced::Locked(_)) => "Stop that server, then restart this one",
        Some(Displaced::Foreign) => "Restart this server to go on there, or give it a folder of its own",
        None => match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => "Make room on its disk",
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => "Make its folder writable",
            _ => "Look after its disk and its folder",
        },
    }
}

impl Journal {
    /// From here on nothing is written until the disk takes something again.
    pub(super) fn fail(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.gauges.show_error(Some(error));
        log::error!(
            "🚨 the journal cannot be written: {error}; clients get their events, but those from number {} on are not kept. \
             {}; trying again every second",
            self.written + 1,
            remedy(error)
        );
        self.failing = Some(Failing {
            since: now,
            tried: now,
            said: now,
            events: 0,
        });
    }

    /// While nothing can be written: tries again, and says so again, when it is time.
    pub(super) fn look_after_failure(&mut self) {
        let Some(failing) = &mut self.failing else {
            return;
        };
        if failing.tried.elapsed() >= RETRY_EVERY {
            failing.tried = Instant::now();
            let tried = self.try_again();
            self.learn(tried);
        }
    }

    pub(super) fn learn(&mut self, tried: io::Result<()>) {
        let Some(failing) = &mut self.failing else {
            return;
        };
        let (seconds, events) = (failing.since.elapsed().as_secs(), failing.events);
        match tried {
            Ok(()) => {
                self.failing = None;
                self.gauges.show_error(None);
                log::warn!(
                    "✅ the journal can be written again; {} of {seconds} s {} missing in it",
                    count(events, "event"),
                    pick(events, "is", "are")
                );
            }
            Err(error) => {
                self.gauges.show_error(Some(&error));
                if failing.said.elapsed() >= SAY_EVERY {
                    failing.said = Instant::now();
                    log::error!(
                        "🚨 the journal still cannot be written: {error}; {} of the last {seconds} s {} not kept. {}",
                        count(events, "event"),
                        pick(events, "is", "are"),
                        remedy(&error)
                    );
                }
            }
        }
    }

    /// Takes the folder back if it is not ours, and goes on there.
    pub(super) fn try_again(&mut self) -> io::Result<()> {
        let _doing = self.beat.begin(Operation::Journaling);
        self.hold_folder()?;
        self.look_for_taken();
        let failed = (self.next - 1, FAILED);
        match self.taken_to {
            Some(to) => self.begin_anew(&[(to, REMOVED), failed]),
            None => self.begin_anew(&[failed]),
        }
    }

    /// Begins a new segment, with a line for each loss: the numbers up to that one, and the cause.
    pub(super) fn begin_anew(&mut self, losses: &[(Seq, &'static str)]) -> io::Result<()> {
        let mut from = self.written + 1;
        self.store.begin_run(from).map_err(|fault| fault.error)?;
        for &(to, cause) in losses {
            if to < from {
                continue;
            }
            let loss = Loss {
                from,
                to,
                // Of what was removed nobody knows how many numbers had an event.
                count: (cause == FAILED).then_some(to + 1 - from),
                cause,
            };
            let mut line = Vec::new();
            line::put_loss(&mut line, &loss, epoch_seconds());
            self.store.append(from, &line).map_err(|fault| fault.error)?;
            from = to + 1;
        }
        self.store.sync_new()?;
        self.taken_to = None;
        self.wrote(0, from - 1);
        Ok(())
    }
}
