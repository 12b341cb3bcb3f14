//! The server's time between start and stop: signals, and threads that end although nobody asked them to.

use crate::config::{Config, SETTINGS};
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::exit::ExitStatus;
use crate::process::logging::LogControl;
use crate::process::refusal::Refusal;
use crate::process::signals::{Heard, StopSignals};
use crate::process::systemd::Notifier;
use crate::process::threads::{self, CORE_STACK_BYTES};
use crate::serve::server::Server;
use crate::web::origin::AllowedOrigins;
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use std::io;
use std::time::{Duration, Instant};

/// Reads the settings as at the start: the same arguments, and the file as it is now.
pub type Reread = fn() -> Result<Config, String>;

/// How often `main` looks whether a core thread has ended.
const LOOK: Duration = Duration::from_millis(250);
/// After this long a file of settings that is still being read is said to give no answer.
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
    fn read_again(&mut self) {
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
    fn look(&mut self) {
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
        for setting in &SETTINGS {
            let (before, now) = (setting.show(&self.config), setting.show(&fresh));
            if before == now {
                continue;
            }
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

pub(super) fn run_until_stopped(
    signals: &StopSignals,
    server: Server,
    beat: &'static Beat,
    notifier: &Notifier,
    mut live: Live,
) -> ExitStatus {
    let mut told = false;
    let cause = loop {
        told = told || tell_ready(notifier, server.status());
        let doing = beat.begin(Operation::Waiting);
        let heard = signals.wait(LOOK);
        drop(doing);
        drill::obey(beat);
        match heard {
            Some(Heard::Stop(signal)) => {
                log::info!(
                    "🛑 {signal}: stopping; a signal that comes more than 500 ms from now ends the process at once"
                );
                break None;
            }
            Some(Heard::Reload) => live.read_again(),
            Some(Heard::Nothing(signal)) => {
                log::info!(
                    "💤 {signal} means nothing to this server; SIGTERM ends it, SIGHUP reads the settings again"
                );
            }
            None => {}
        }
        live.look();
        if let Some(name) = server.ended_thread() {
            log::error!(
                "🚨 thread {name} has ended, without which events do not reach clients; stopping. Please report it with the lines before this one"
            );
            break Some(name);
        }
    };
    // It only shows; without it the manager waits for our end all the same.
    let _ = notifier.stopping();
    let begun = Instant::now();
    let _doing = beat.begin(Operation::Stopping);
    let faults = server.stop();
    for fault in &faults {
        log::error!("🚨 {fault}; it is left behind");
    }
    log::info!("👋 stopped in {:.2} s", begun.elapsed().as_secs_f64());
    if cause.is_none() && faults.is_empty() {
        ExitStatus::Fine
    } else {
        ExitStatus::Failed
    }
}

/// Tells the service manager that we serve; `false` if its queue is full now, and only then.
fn tell_ready(notifier: &Notifier, status: &str) -> bool {
    match notifier.ready(status) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
        Err(error) => log::warn!("⚠️ cannot tell the service manager that we serve: {error}"),
        Ok(()) => {}
    }
    true
}
