//! SIGHUP: reads the settings again, and takes over those that can change while the server runs.
//!
//! Runs on: `reload`, one for each reading; the rest on `main`.
//! Owns: nothing; what it reads goes to `main` through a queue of one.
//! Blocks on: the file of settings, without a bound; nobody waits for this thread.
//! Can be stalled by: that file; `main` says so once, after 2 s.
//! Full queue means: nothing; one reading is under way at a time.
//! Ends when: the file is read.
//! Watched as: not watched, because it changes nothing.

use crate::config::Config;
use crate::config::table::settings;
use crate::process::logging::LogControl;
use crate::process::refusal::Refusal;
use crate::process::threads::{self, CORE_STACK_BYTES};
use crate::web::origin::AllowedOrigins;
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use std::time::{Duration, Instant};

/// Reads the settings as at the start: the same arguments, and the file as it is now.
pub type Reread = fn() -> Result<Config, String>;

/// After this long the log says that a file of settings does not answer.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// What can change while the server runs.
pub(super) struct Live {
    /// As they were read last, before passed sockets took the place of some.
    pub(super) config: Config,
    pub(super) reread: Reread,
    pub(super) reading: Option<Reading>,
    pub(super) log: LogControl,
    pub(super) origins: AllowedOrigins,
}

/// Settings that thread `reload` reads, because a file may never answer.
pub(super) struct Reading {
    fresh: Receiver<Result<Config, String>>,
    since: Instant,
    said: bool,
}

impl Live {
    /// SIGHUP: has the settings read. Never blocks.
    pub(super) fn read_again(&mut self) {
        if self.reading.is_some() {
            log::error!("🚨 SIGHUP: the settings are still being read since the last one; their file does not answer");
            return;
        }
        let reread = self.reread;
        let (tx, fresh) = bounded(1);
        // Nobody waits for it any more when the server has ended.
        let started = threads::spawn("reload", CORE_STACK_BYTES, None, move || drop(tx.try_send(reread())));
        match started {
            Ok(_) => {
                self.reading = Some(Reading {
                    fresh,
                    since: Instant::now(),
                    said: false,
                });
            }
            Err(error) => {
                log::error!(
                    "🚨 SIGHUP: cannot start a thread to read the settings, so none has changed: {error}. To mend it, {}",
                    Refusal::of(&error)
                );
            }
        }
    }

    /// Takes over the settings once they are read. Never blocks.
    pub(super) fn look(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        match reading.fresh.try_recv() {
            Ok(Ok(fresh)) => {
                self.reading = None;
                self.take(fresh);
            }
            Ok(Err(error)) => {
                self.reading = None;
                log::error!("🚨 SIGHUP: the settings cannot be read, so none has changed: {error}");
            }
            Err(TryRecvError::Disconnected) => {
                self.reading = None;
                log::error!("🚨 SIGHUP: thread reload has ended without the settings, so none has changed");
            }
            Err(TryRecvError::Empty) => {
                if !reading.said && reading.since.elapsed() >= READ_PATIENCE {
                    reading.said = true;
                    log::error!(
                        "🚨 SIGHUP: the file of settings does not answer, so none has changed; they are taken over when it does"
                    );
                }
            }
        }
    }

    /// Takes over what can change, and says what needs a restart. Settings that cannot be read change nothing.
    fn take(&mut self, fresh: Config) {
        let mut taken = Vec::new();
        let mut later = Vec::new();
        for setting in settings() {
            let (before, now) = (setting.show(&self.config), setting.show(&fresh));
            if before == now {
                continue;
            }
            let (before, now) = (setting.logged(&self.config), setting.logged(&fresh));
            let change = format!("{} is {now} (was {before})", setting.name);
            match setting.name {
                "log-level" | "allow-origin" => taken.push(change),
                _ => later.push(change),
            }
        }
        // A level that hides this line is in force behind it.
        let text = [
            said(
                "",
                &taken,
                "no setting that can change while the server runs has changed",
            ),
            said("with the next start only: ", &later, ""),
        ];
        log::info!(
            "🔄 SIGHUP: log files are opened anew; {}",
            text.into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("; ")
        );
        self.origins.replace(&fresh.allow_origin);
        self.log.set_level(fresh.log_level);
        // What needs a restart is compared with the start's value at the next time too.
        self.config.allow_origin = fresh.allow_origin;
        self.config.log_level = fresh.log_level;
    }
}

fn said(before: &str, changes: &[String], none: &str) -> String {
    match changes {
        [] => none.to_owned(),
        changes => format!("{before}{}", changes.join(", ")),
    }
}
