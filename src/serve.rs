//! The wiring: every part of the server is made here, started here and ended here, in written order.
//!
//! Start: what the service manager passes, signals, log, TCP port, then the datagram socket's path, so that a taken
//! port leaves no trace of us; then the journal and the state file, and only then that socket, because engines wait for
//! a server that does not receive yet; then the threads from the last of the path to the first. Stop: `accept`,
//! `ingest`, `fanout`, clients, `admin` with its requests, `inbox`, `heartbeat`, `alerts`, `journal`, `journal-sync`,
//! `enginedb`, `files`, `watchdog`, `reports`, `log`.

mod beside;
mod ground;
mod parts;
mod path;
mod reload;
mod room;
mod running;
mod server;
mod settings;
mod sockets;
mod start_error;
mod starting;
mod way;

pub use reload::Reread;
pub use room::{Room, TooSmall};
pub use server::{Given, Server};
pub use start_error::StartError;
pub use starting::Progress;

use crate::config::Config;
use crate::liveness::beats::Beats;
use crate::liveness::operation::Operation;
use crate::process::exit::ExitStatus;
use crate::process::logging::form::Forms;
use crate::process::passed_sockets::PassedSockets;
use crate::process::signals::StopSignals;
use crate::process::systemd::Notifier;
use crate::web::origin::AllowedOrigins;
use reload::Live;
use running::run_until_stopped;
use start_error::resource;
use starting::StartWatch;
use std::sync::Arc;
use std::time::Duration;

/// What thread `log` has for its last lines, within the 5 s in all.
const LOG_DEADLINE: Duration = Duration::from_millis(300);

/// Runs the server with the process's log and signals. Blocks until a signal or a fault ends it. On SIGHUP, `reread`
/// reads the settings again.
///
/// # Errors
/// The server could not start: [`StartError::hint`] says what helps.
pub fn run(config: Config, reread: Reread) -> Result<ExitStatus, StartError> {
    // The zone of local time is known only while there is one thread.
    let forms = Forms::of_process(config.log_format, config.utc);
    // First of all, because nothing may be open yet but what was passed.
    let passed = PassedSockets::from_environment().map_err(StartError::Passed)?;
    // Before there is another thread: the first write of the log may meet a limit on the size of files (SIGXFSZ).
    let signals = Arc::new(StopSignals::install().map_err(resource("the signal handlers"))?);
    let as_given = config.clone();
    let mut config = config;
    let (room, clipped) = room::fit(&mut config).map_err(StartError::Addresses)?;
    let beats = Beats::new(settings::slow_limits(&config), settings::connections_max(&config, room));
    beats.main.adopt();
    let starting = beats.main.begin(Operation::Starting);
    let (log_thread, log) = beside::start_log(&config, forms, beats)?;
    if let Some(clipped) = clipped {
        log::warn!("⚠️ {clipped}");
    }
    let notifier = Arc::new(Notifier::from_environment().unwrap_or_else(|error| {
        log::warn!("⚠️ the service manager will not learn from us that we serve: {error}");
        Notifier::silent()
    }));
    let origins = AllowedOrigins::new(&config.allow_origin);
    let live = Live {
        config: as_given,
        reread,
        reading: None,
        log: log.clone(),
        origins: origins.clone(),
    };
    let progress = Arc::new(Progress::new(&config));
    let outcome = StartWatch::begin(&signals, &progress, log.clone())
        .map_err(resource("thread start"))
        .and_then(|watch| {
            let given = Given {
                passed,
                notifier: Arc::clone(&notifier),
                room,
                beats,
                log: Some(log.clone()),
                origins,
            };
            let server = Server::start(config, given, &progress);
            watch.end();
            drop(starting);
            Ok(run_until_stopped(&signals, server?, beats.main, &notifier, live))
        });
    log.stop();
    // Whatever it could not write in time is lost with the process; there is nobody left to tell.
    let _ = log_thread.join_within(LOG_DEADLINE);
    outcome
}
