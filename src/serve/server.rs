//! A server: the list of steps that start it, and its stop.

use crate::admin::place::Bound;
use crate::config::Config;
use crate::fanout::{Beginning, state_file};
use crate::intake::event_socket::EventSocket;
use crate::journal::Record;
use crate::journal::queue::JournalGauges;
use crate::liveness::beats::Beats;
use crate::process::clock::epoch_seconds;
use crate::process::host_names::own_names;
use crate::process::logging::LogControl;
use crate::process::passed_sockets::PassedSockets;
use crate::process::systemd::Notifier;
use crate::process::threads::JoinError;
use crate::serve::ground::Ground;
use crate::serve::parts::{Part, Parts, Turn};
use crate::serve::room::Room;
use crate::serve::settings::Settings;
use crate::serve::sockets::{Announced, Sockets};
use crate::serve::start_error::StartError;
use crate::serve::starting::{Progress, Step};
use crate::serve::way::Way;
use crate::serve::{beside, path, sockets};
use crate::stream::machines::Machines;
use crate::web::origin::{AllowedOrigins, OriginRules};
use crossbeam_channel::{Receiver, bounded};
use std::net::SocketAddr;
use std::path::PathBuf;
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
}

/// How many threads live as long as the server; each may announce its end once.
const CORE_THREADS: usize = 4;

impl Server {
    /// Starts a server and returns as soon as it serves. `progress` learns where the start is.
    ///
    /// # Errors
    /// A socket is taken or not allowed, or the host is out of something. Nothing is left behind then: what had begun
    /// is ended as [`Server::stop`] does.
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

/// What a start claims before its threads run.
struct Claimed {
    config: Config,
    settings: Settings,
    sockets: Sockets,
    admin_socket: Option<Bound>,
    event_socket: EventSocket,
    record: Record,
    journal: Option<Arc<JournalGauges>>,
    machines: Machines,
    state_path: Option<PathBuf>,
    status_path: Option<PathBuf>,
}

/// The steps of the start. Each one that starts a thread returns a part; what has begun stays in `parts` if a later one
/// fails.
fn start_parts(config: Config, given: Given, progress: &Progress, parts: &mut Parts) -> Result<Serving, StartError> {
    let beats = given.beats;
    let mut claimed = claim(config, given.passed, given.room, beats, progress, parts)?;
    let (config, settings, sockets) = (&claimed.config, &claimed.settings, claimed.sockets);
    let (record, admin_socket) = (claimed.record, claimed.admin_socket);
    let (obituaries, ended) = bounded(CORE_THREADS);
    let way = Way::new(settings.intake, claimed.event_socket, beats)?;
    let ground = Ground::new(settings, beats, given.log, &way, claimed.journal, obituaries)?;
    parts.add(Part::signal(Turn::Accept, ground.stopping.clone()));
    let (reports, writer) = beside::start_reports(&ground, settings)?;
    parts.add(writer);
    parts.add(beside::start_watchdog(&ground, settings, reports, given.notifier)?);
    let (ttl, now) = (settings.fanout.machine_ttl, Instant::now());
    let caught_up = claimed.machines.catch_up(&record.history, ttl, now, epoch_seconds());
    let engine_db = settings.engine_db.clone().map(|settings| {
        let beginning = beside::engine_db_beginning(&record.history, &claimed.machines);
        (settings, beginning)
    });
    let (slots, files) = beside::start_files(claimed.state_path, claimed.status_path, beats)?;
    parts.extend(files);
    if let Some(slot) = slots.state.as_ref().filter(|_| caught_up) {
        // The fan-out saves only what changes from here on.
        slot.put(Arc::new(claimed.machines.saved(Instant::now(), epoch_seconds())));
    }
    progress.begin(Step::Threads);
    parts.add(beside::start_heartbeat(&ground, settings.heartbeat, slots.status)?);
    parts.extend(beside::start_alerts(&ground, settings.alerts.clone())?);
    let beginning = Beginning {
        machines: claimed.machines,
        epoch: record.epoch,
        history: record.history,
        journal: progress.take_journal()?,
        state_slot: slots.state,
    };
    parts.add(path::start_fanout(&ground, settings.fanout, way.sources, beginning)?);
    let (part, inbox) = path::start_inbox(&ground)?;
    parts.add(part);
    parts.add(Part::clients(inbox.clone()));
    parts.extend(beside::start_engine_db(&ground, engine_db)?);
    parts.add(beside::start_detector(
        &ground,
        settings.detector.clone(),
        slots.learned,
    )?);
    let site = Arc::new(ground.site(settings, admin_socket.as_ref().map(|bound| bound.path.clone())));
    parts.extend(beside::start_admin(&ground, settings, admin_socket, Arc::clone(&site))?);
    let rules = origin_rules(config, sockets.address, given.origins);
    parts.add(path::start_accept(
        &ground,
        settings,
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
        status: status_of(config, sockets.address),
        ended,
    })
}

/// Claims sockets, journal and files, in the order in which a taken one leaves the least behind, and starts the
/// journal's threads. Blocks on the disks.
fn claim(
    mut config: Config,
    passed: PassedSockets,
    room: Room,
    beats: &'static Beats,
    progress: &Progress,
    parts: &mut Parts,
) -> Result<Claimed, StartError> {
    let mut sockets = sockets::open(&mut config, passed)?;
    progress.has_locked(&config.event_socket_path);
    let admin_socket = beside::bind_admin(&config, sockets.address.port(), progress)?;
    let settings = Settings::new(&config, room, &sockets);
    progress.begin(Step::Journal);
    let opened = beside::open_journal(settings.journal.as_ref(), settings.history_bytes, beats, progress)?;
    if let Some(threads) = opened.threads {
        parts.add(beside::start_journal(threads.journal, threads.stop.clone())?);
        parts.add(beside::start_journal_sync(threads.flusher, threads.stop)?);
    }
    progress.begin(Step::Files);
    // Before anybody can send: an engine that finds a socket waits for who receives there.
    let unusable = |(path, error)| StartError::File { path, error };
    let (mut machines, state_lock, state_path) =
        state_file::restore(config.state_path(), settings.table).map_err(unusable)?;
    machines.set_learned(state_file::restore_learned(state_path.as_deref(), settings.learned));
    let (status_lock, status_path) = beside::claim_status_file(config.status_file.clone()).map_err(unusable)?;
    parts.hold(state_lock);
    parts.hold(status_lock);
    progress.begin(Step::EventSocket);
    let event_socket = sockets::bind_events(sockets.passed_events.take(), &config)?;
    if !event_socket.is_passed() {
        progress.has_made(&config.event_socket_path);
    }
    let announced = Announced {
        events_are_passed: event_socket.is_passed(),
        admin_socket: admin_socket.as_ref().map(|bound| bound.path.as_path()),
        clients_max: settings.clients.clients_max,
        room: room.clients,
    };
    sockets::announce(&config, &sockets, &announced);
    Ok(Claimed {
        config,
        settings,
        sockets,
        admin_socket,
        event_socket,
        record: opened.record,
        journal: opened.gauges,
        machines,
        state_path,
        status_path,
    })
}

/// Where the server serves, in a line for people.
fn status_of(config: &Config, address: SocketAddr) -> String {
    format!(
        "serving http://{address}, events at {}",
        config.event_socket_path.display()
    )
}

fn origin_rules(config: &Config, address: SocketAddr, allowed: AllowedOrigins) -> OriginRules {
    OriginRules {
        bound_to_loopback: address.ip().to_canonical().is_loopback(),
        own_names: own_names(&config.host),
        allowed,
    }
}
