//! A server: the list of steps that start it, and its stop.

use crate::config::Config;
use crate::fanout::{Beginning, state_file};
use crate::liveness::beats::Beats;
use crate::process::clock::epoch_seconds;
use crate::process::files::LockFile;
use crate::process::host_names::own_names;
use crate::process::logging::LogControl;
use crate::process::passed_sockets::PassedSockets;
use crate::process::systemd::Notifier;
use crate::process::threads::JoinError;
use crate::serve::ground::Ground;
use crate::serve::parts::{Part, Parts};
use crate::serve::room::Room;
use crate::serve::settings::Settings;
use crate::serve::start_error::StartError;
use crate::serve::starting::{Progress, Step};
use crate::serve::way::Way;
use crate::serve::{beside, path, sockets};
use crate::web::origin::{AllowedOrigins, OriginRules};
use crossbeam_channel::{Receiver, bounded};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What a server is started with besides its settings.
#[derive(Debug)]
pub struct Given {
    /// Sockets that take the place of the server's own.
    pub passed: PassedSockets,
    /// Is only told that the server is alive.
    pub notifier: Arc<Notifier>,
    pub room: Room,
    pub beats: &'static Beats,
    /// Is only asked for its losses.
    pub log: Option<LogControl>,
    pub origins: AllowedOrigins,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    serving: Serving,
    parts: Parts,
}

/// What is known of a server that runs.
#[derive(Debug)]
struct Serving {
    address: SocketAddr,
    status: String,
    ended: Receiver<String>,
    /// Of the state file and of the status file.
    _locks: [Option<LockFile>; 2],
}

/// How many threads live as long as the server; each may announce its end once.
const CORE_THREADS: usize = 4;

impl Server {
    /// Starts a server and returns as soon as it serves. `progress` learns where the start is.
    ///
    /// # Errors
    /// A socket is taken or not allowed, or the host is out of something. Nothing is left behind then: what had begun is
    /// ended as [`Server::stop`] does.
    pub fn start(config: Config, given: Given, progress: &Progress) -> Result<Server, StartError> {
        let mut parts = Parts::default();
        match start_parts(config, given, progress, &mut parts) {
            Ok(serving) => Ok(Server { serving, parts }),
            Err(error) => {
                // The fan-out has the way into the journal if it has begun; else the journal ends with this.
                progress.drop_journal();
                parts.stop();
                Err(error)
            }
        }
    }

    /// Where HTTP and WebSocket are served.
    pub fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// Where it serves, in a line for people.
    pub(super) fn status(&self) -> &str {
        &self.serving.status
    }

    /// The name of a core thread that has ended although nobody asked it to.
    pub fn ended_thread(&self) -> Option<String> {
        self.serving.ended.try_recv().ok()
    }

    /// Stops everything in order. Blocks at most 4.4 s. Returns the threads that did not end as they should.
    pub fn stop(self) -> Vec<JoinError> {
        self.parts.stop()
    }
}

/// The steps of the start. Each one that starts a thread returns a part; what has begun stays in `parts` if a later one fails.
fn start_parts(
    mut config: Config,
    given: Given,
    progress: &Progress,
    parts: &mut Parts,
) -> Result<Serving, StartError> {
    let beats = given.beats;
    let mut sockets = sockets::open(&mut config, given.passed)?;
    progress.has_locked(&config.event_socket_path);
    let admin_socket = beside::bind_admin(&config, sockets.address.port(), progress)?;
    let settings = Settings::new(&config, given.room, &sockets);
    progress.begin(Step::Journal);
    let opened = beside::open_journal(settings.journal.as_ref(), settings.history_bytes, beats, progress)?;
    parts.extend(beside::start_journal(opened.threads)?);
    progress.begin(Step::Files);
    // Before anybody can send: an engine that finds a socket waits for who receives there.
    let unusable = |(path, error)| StartError::File { path, error };
    let (mut machines, state_lock, state_path) = state_file::restore(config.state_path()).map_err(unusable)?;
    let (status_lock, status_path) = beside::claim_status_file(config.status_file.clone()).map_err(unusable)?;
    progress.begin(Step::EventSocket);
    let event_socket = sockets::bind_events(sockets.passed_events.take(), &config)?;
    if !event_socket.is_passed() {
        progress.has_made(&config.event_socket_path);
    }
    sockets::announce(&config, &sockets, settings.clients.clients_max, given.room.clients);

    let (obituaries, ended) = bounded(CORE_THREADS);
    let way = Way::new(settings.intake, event_socket, beats)?;
    let ground = Ground::new(&config, beats, given.log, &way, opened.gauges, obituaries)?;
    let (reports, writer) = beside::start_reports(&ground, &settings)?;
    parts.add(writer);
    parts.add(beside::start_watchdog(&ground, &settings, reports, given.notifier)?);
    let caught_up = machines.catch_up(&opened.record.history, config.machine_ttl, Instant::now());
    let engine_db = beside::engine_db_beginning(&opened.record.history, &machines);
    let (slots, files) = beside::start_files(state_path, status_path, beats)?;
    parts.extend(files);
    if let Some(slot) = slots.state.as_ref().filter(|_| caught_up) {
        // The fan-out saves only what changes from here on.
        slot.put(Arc::new(machines.saved(epoch_seconds())));
    }
    progress.begin(Step::Threads);
    parts.add(beside::start_heartbeat(&ground, settings.heartbeat, slots.status)?);
    let beginning = Beginning {
        machines,
        epoch: opened.record.epoch,
        history: opened.record.history,
        journal: progress.take_journal()?,
        state_slot: slots.state,
    };
    parts.add(path::start_fanout(&ground, settings.fanout, way.sources, beginning)?);
    let (part, inbox) = path::start_inbox(&ground)?;
    parts.add(part);
    parts.add(Part::clients(inbox.clone()));
    parts.extend(beside::start_engine_db(&ground, settings.engine_db.clone(), engine_db)?);
    let site = ground.site(&settings, admin_socket.as_ref().map(|bound| bound.path.clone()));
    let site = Arc::new(site);
    parts.extend(beside::start_admin(
        &ground,
        &settings,
        admin_socket,
        Arc::clone(&site),
    )?);
    let rules = origin_rules(&config, sockets.address, given.origins);
    parts.add(path::start_accept(
        &ground,
        &settings,
        sockets.listener,
        rules,
        inbox,
        site,
    )?);
    parts.add(path::start_ingest(
        &ground,
        settings.intake,
        way.receiver,
        sockets.path_lock,
        way.ingest_stop,
    )?);
    Ok(Serving {
        address: sockets.address,
        status: format!(
            "serving http://{}, events at {}",
            sockets.address,
            config.event_socket_path.display()
        ),
        ended,
        _locks: [state_lock, status_lock],
    })
}

fn origin_rules(config: &Config, address: SocketAddr, allowed: AllowedOrigins) -> OriginRules {
    OriginRules {
        bound_to_loopback: address.ip().to_canonical().is_loopback(),
        own_names: own_names(&config.host),
        allowed,
    }
}
