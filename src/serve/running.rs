//! The server's time between start and stop: signals, and threads that end although nobody asked them to.

use super::{LOOK, Server};
use crate::client::origin::AllowedOrigins;
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::config::{Config, SETTINGS};
use crate::process::exit::ExitStatus;
use crate::process::logging::LogControl;
use crate::process::signals::{Heard, StopSignals};
use crate::process::systemd::Notifier;
use std::io;
use std::time::Instant;

/// Reads the settings as at the start: the same arguments, and the file as it is now.
pub type Reread<'a> = &'a dyn Fn() -> Result<Config, String>;

/// What can change while the server runs.
pub(super) struct Live<'a> {
    /// As they were read last, before passed sockets took the place of some.
    pub(super) config: Config,
    pub(super) reread: Reread<'a>,
    pub(super) log: LogControl,
    pub(super) origins: AllowedOrigins,
}

impl Live<'_> {
    /// Takes over what can change, and says what needs a restart. Settings that cannot be read change nothing.
    fn reload(&mut self) {
        let fresh = match (self.reread)() {
            Ok(fresh) => fresh,
            Err(error) => {
                log::error!("🚨 SIGHUP: the settings cannot be read, so none has changed: {error}");
                return;
            }
        };
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
    mut live: Live<'_>,
) -> ExitStatus {
    let mut told = false;
    let cause = loop {
        told = told || tell_ready(notifier, &server.status);
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
            Some(Heard::Reload) => live.reload(),
            Some(Heard::Nothing(signal)) => {
                log::info!(
                    "💤 {signal} means nothing to this server; SIGTERM ends it, SIGHUP reads the settings again"
                );
            }
            None => {}
        }
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
