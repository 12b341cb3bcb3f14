//! The server's time between start and stop: signals, and threads that end although nobody asked them to.

use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::exit::ExitStatus;
use crate::process::signals::{Heard, StopSignals};
use crate::process::systemd::Notifier;
use crate::serve::reload::Live;
use crate::serve::server::Server;
use std::io;
use std::time::{Duration, Instant};

/// How often `main` looks whether a core thread has ended.
const LOOK: Duration = Duration::from_millis(250);

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
