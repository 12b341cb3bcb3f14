//! The wiring: every channel and every thread of the server is born here, and ended here, in written order.
//!
//! Start: what the service manager passes, signals, log, TCP port, then the datagram socket's path, so that a taken port
//! leaves no trace of us; then the journal and the state file, and only then that socket, because engines wait for who
//! does not receive yet;
//! then the threads from the last of the path to the first. Stop: `accept`, `ingest`, `fanout`,
//! clients, `admin` with its requests, `inbox`, `heartbeat`, `journal`, `journal-sync`, `enginedb`, `files`, `watchdog`, `reports`,
//! `log`.

mod beside;
mod room;
mod running;
mod sockets;
mod starting;

pub use room::{Room, TooSmall};
pub use running::Reread;
pub use starting::Progress;

use crate::client::accept::Accept;
use crate::client::handshake::Reception;
use crate::client::inbox::{Inbox, InboxHandle};
use crate::client::writer::Timing;
use crate::config::Config;
use crate::engine_db::EngineDbGauges;
use crate::fanout::requests::{FanoutGauges, FanoutHandle, FanoutRequests};
use crate::fanout::state_file;
use crate::fanout::{Beginning, Fanout, FanoutConfig};
use crate::intake::event_socket::BindError;
use crate::intake::gauges::IngestGauges;
use crate::intake::ingest::Ingest;
use crate::intake::queue::{IntakeRx, intake};
use crate::intake::receiver::{self, FanoutSleep};
use crate::journal::queue::JournalGauges;
use crate::journal::{JournalError, Record};
use crate::liveness::beats::Beats;
use crate::liveness::demand::Demand;
use crate::liveness::operation::{Operation, SlowLimits};
use crate::outbox::gauges::ClientGauges;
use crate::outbox::link::OfferLimits;
use crate::outbox::registry::Registry;
use crate::process::bell::Bell;
use crate::process::clock::{epoch_seconds, monotonic_ms};
use crate::process::exit::ExitStatus;
use crate::process::files::{LockFile, Slot};
use crate::process::host_names::own_names;
use crate::process::limits;
use crate::process::logging::LogControl;
use crate::process::passed_sockets::{PassedError, PassedSockets};
use crate::process::refusal::Refusal;
use crate::process::signals::StopSignals;
use crate::process::stop::Stop;
use crate::process::systemd::Notifier;
use crate::process::threads::{self, CORE_STACK_BYTES, JoinError, Obituaries, ThreadHandle};
use crate::stream::protocol::v1::Limits;
use crate::vitals::admin_gauges::AdminGauges;
use crate::vitals::health::Vitals;
use crate::vitals::heartbeat::{Heartbeat, HeartbeatConfig};
use crate::vitals::status::Status;
use crate::web::Site;
use crate::web::acting::Acting;
use crate::web::origin::{AllowedOrigins, OriginRules};
use crossbeam_channel::{Receiver, bounded};
use running::{Live, run_until_stopped};
use sockets::Sockets;
use starting::{GivenUp, StartWatch, Step};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often `main` looks whether a core thread has ended.
const LOOK: Duration = Duration::from_millis(250);
/// The whole stop may take so long; the process then ends whatever still runs.
const STOP_DEADLINE: Duration = Duration::from_millis(4400);
/// Parts of it. `accept` and `ingest` wake at once; the latter may need 300 ms for room, 300 ms for what the kernel holds
/// and 100 ms to tell of losses; `fanout` hands on for 1.15 s. That leaves clients 2.1 s for what they need at most:
/// 0.1 s to own their socket, 1 s to flush, 1 s to close.
const ACCEPT_WAIT: Duration = Duration::from_millis(250);
const INGEST_WAIT: Duration = Duration::from_millis(750);
const FANOUT_WAIT: Duration = Duration::from_millis(1250);
/// `heartbeat` wakes at once, and makes one line and one content.
const HEARTBEAT_WAIT: Duration = Duration::from_millis(250);
/// `admin` wakes at once and removes its file. It is asked first of all, so that its requests end while others do: one notices
/// within 250 ms, sends for 250 ms more, and waits as long for its peer's end.
const ADMIN_WAIT: Duration = Duration::from_millis(250);
const ADMIN_REQUEST_WAIT: Duration = Duration::from_millis(1250);
/// `enginedb` wakes at once, or when SQLite has waited 250 ms for a lock.
const ENGINE_DB_WAIT: Duration = Duration::from_millis(500);
/// `watchdog` and `reports` wake at once, each; in the middle of a report they are left behind.
const WATCHDOG_WAIT: Duration = Duration::from_millis(250);
/// Even when all time is gone, whoever has ended is still seen to have ended.
const LEAST_WAIT: Duration = Duration::from_millis(20);
/// What thread `log` has for its last lines, within the 5 s in all.
const LOG_DEADLINE: Duration = Duration::from_millis(300);

/// Why the server could not start.
#[derive(Debug)]
pub enum StartError {
    Passed(PassedError),
    Listen {
        address: String,
        error: io::Error,
    },
    Socket(BindError),
    Journal(JournalError),
    Admin {
        path: PathBuf,
        error: io::Error,
    },
    File {
        path: PathBuf,
        error: io::Error,
    },
    Resource {
        what: &'static str,
        error: io::Error,
    },
    Addresses(TooSmall),
    /// Thread `start` ends the process, because a signal asked for it long ago.
    GivenUp,
}

impl From<GivenUp> for StartError {
    fn from(_: GivenUp) -> StartError {
        StartError::GivenUp
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Passed(error) => write!(f, "{error}"),
            StartError::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::Socket(error) => write!(f, "{error}"),
            StartError::Journal(error) => write!(f, "{error}"),
            StartError::Admin { path, error } => {
                write!(f, "cannot make the admin socket {}: {error}", path.display())
            }
            StartError::File { path, error } => write!(f, "cannot use {}: {error}", path.display()),
            StartError::Resource { what, error } => write!(f, "cannot make {what}: {error}"),
            StartError::GivenUp => f.write_str("the start took too long after a signal that asked to end"),
            StartError::Addresses(too_small) => write!(f, "cannot start: {too_small}"),
        }
    }
}

impl std::error::Error for StartError {}

impl StartError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            StartError::Listen { error, .. } => match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another server has this port: stop it, or give --port another one; nothing of it was touched"
                        .to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need privileges; give --port a higher one".to_owned()
                }
                _ => "--host must be an address of this machine".to_owned(),
            },
            StartError::Passed(error) => error.hint().to_owned(),
            StartError::Socket(error) => error.hint(),
            StartError::Journal(error) => error.hint().to_owned(),
            StartError::Admin { .. } => {
                "give --admin-socket a path in a folder that only this user may write, or none to serve without one"
                    .to_owned()
            }
            StartError::File { .. } => {
                "give --state-file or --status-file the path of a regular file, or none; nothing of it was touched"
                    .to_owned()
            }
            StartError::Resource { error, .. } => Refusal::of(error).to_string(),
            StartError::Addresses(too_small) => too_small.hint(),
            StartError::GivenUp => "the line before says what it waited for".to_owned(),
        }
    }
}

fn resource(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Resource { what, error }
}

/// Runs the server with the process's log and signals until it is told to stop. Blocks until then. SIGHUP has the settings
/// read again by `reread`.
///
/// # Errors
/// It could not start.
pub fn run(config: Config, reread: Reread) -> Result<ExitStatus, StartError> {
    // First of all, because nothing may be open yet but what was passed.
    let passed = PassedSockets::from_environment().map_err(StartError::Passed)?;
    // Before there is another thread: the first write of the log may meet a limit on the size of files (SIGXFSZ).
    let signals = Arc::new(StopSignals::install().map_err(resource("the signal handlers"))?);
    let as_given = config.clone();
    let mut config = config;
    let (room, clipped) = room::fit(&mut config)?;
    let slow_limits = SlowLimits {
        broadcast: config.slow_broadcast,
        snapshot: config.slow_snapshot,
    };
    let beats = Beats::new(slow_limits, connections_max(&config, room));
    beats.main.adopt();
    let starting = beats.main.begin(Operation::Starting);
    let (log_thread, log) = beside::start_log(&config, beats)?;
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
            let manager = (passed, Arc::clone(&notifier));
            let server = Server::start(config, manager, room, beats, Some(log.clone()), (&progress, origins));
            watch.end();
            drop(starting);
            Ok(run_until_stopped(&signals, server?, beats.main, &notifier, live))
        });
    log.stop();
    // Whatever it could not write in time is lost with the process; there is nobody left to tell.
    let _ = log_thread.join_within(LOG_DEADLINE);
    outcome
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Where it serves, in a line for people.
    status: String,
    accept: (Stop, ThreadHandle<Vec<ThreadHandle<()>>>),
    ingest: (Stop, ThreadHandle<()>),
    fanout: Option<FanoutThread>,
    inbox: (Stop, ThreadHandle<()>),
    clients: InboxHandle,
    heartbeat: (Stop, ThreadHandle<()>),
    journal: Option<beside::JournalThreads>,
    engine_db: Option<(Stop, ThreadHandle<()>)>,
    admin: Option<beside::AdminThread>,
    files: Option<(Stop, ThreadHandle<()>)>,
    watchdog: beside::WatchdogThreads,
    ended: Receiver<String>,
    /// Of the state file and of the status file.
    _locks: [Option<LockFile>; 2],
}

/// The queues between threads, each with both its ends.
struct Queues {
    intake: (IntakeRx, FanoutSleep),
    requests: (FanoutHandle, FanoutRequests),
    inbox: (Inbox, InboxHandle),
}

type FanoutThread = (Stop, ThreadHandle<()>);

/// How many threads live as long as the server; each may announce its end once.
const CORE_THREADS: usize = 4;

impl Server {
    /// Starts a server and returns as soon as it serves, with the sockets that were passed instead of its own. The
    /// notifier is only told that the server is alive. `log` is only asked for its losses.
    ///
    /// # Errors
    /// A socket is taken or not allowed, or the host is out of something. Nothing is left behind then.
    pub fn start(
        mut config: Config,
        (passed, notifier): (PassedSockets, Arc<Notifier>),
        room: Room,
        beats: &'static Beats,
        log: Option<LogControl>,
        (progress, origins): (&Progress, AllowedOrigins),
    ) -> Result<Server, StartError> {
        let mut sockets = sockets::open(&mut config, passed)?;
        progress.has_locked(&config.event_socket_path);
        sockets.admin = beside::bind_admin(&config, sockets.address.port())?;
        if let Some(bound) = &sockets.admin {
            progress.has_made(&bound.path);
            progress.has_locked(&bound.path);
        }
        progress.begin(Step::Journal);
        let (mut record, journal_gauges, journal) = beside::start_journal(&config, beats)?;
        if let Some(queue) = record.journal.take() {
            progress.keep_journal(queue, beats.journal);
        }
        let mut fanout = None;
        let started = Server::start_beside_journal(
            &config,
            sockets,
            (record, journal_gauges),
            room,
            (beats, notifier, log),
            (progress, origins),
            &mut fanout,
        );
        match started {
            Ok(server) => Ok(Server {
                journal,
                fanout,
                ..server
            }),
            Err(error) => {
                progress.drop_journal();
                // If it has begun, it has the way into the journal.
                if let Some((stop, fanout)) = fanout {
                    stop.request();
                    let _ = fanout.join_within(FANOUT_WAIT);
                }
                beside::end_journal(journal);
                Err(error)
            }
        }
    }

    /// Starts all but the journal. `begun` is the fan-out's thread from its beginning on, also if something fails after that.
    fn start_beside_journal(
        config: &Config,
        mut sockets: Sockets,
        (record, journal_gauges): (Record, Option<Arc<JournalGauges>>),
        room: Room,
        (beats, notifier, log): (&'static Beats, Arc<Notifier>, Option<LogControl>),
        (progress, origins): (&Progress, AllowedOrigins),
        begun: &mut Option<FanoutThread>,
    ) -> Result<Server, StartError> {
        let clients_max = clients_max(config, room);
        progress.begin(Step::Files);
        // Before anybody can send: an engine that finds a socket waits for who receives there.
        let unusable = |(path, error)| StartError::File { path, error };
        let (mut machines, state_lock, state_path) = state_file::restore(config.state_path()).map_err(unusable)?;
        let (status_lock, status_path) = beside::claim_status_file(config.status_file.clone()).map_err(unusable)?;
        progress.begin(Step::EventSocket);
        let event_socket = sockets::bind_events(sockets.passed_events.take(), config)?;
        if !event_socket.is_passed() {
            progress.has_made(&config.event_socket_path);
        }
        sockets::announce(config, &sockets, clients_max, room.clients);
        let (obituaries, ended) = bounded(CORE_THREADS);
        let (accept_stop, ingest_stop) = (new_stop()?, new_stop()?);
        let (fanout_stop, inbox_stop) = (new_stop()?, new_stop()?);
        let ingest_gauges = Arc::new(IngestGauges::default());
        let bell = Bell::new().map_err(resource("a descriptor"))?;
        let consumer = (beats.fanout, bell.clone());
        let (intake_tx, intake_rx, intake_gauge) =
            intake(room.intake_bytes, consumer, config.ingest_patience, ingest_stop.clone());
        let requests = FanoutHandle::new(bell.clone());
        let mut sleep = FanoutSleep::new(bell).map_err(resource("a descriptor"))?;
        let gauges = Arc::clone(&ingest_gauges);
        let receiver = receiver::Receiver::new(event_socket, config.max_event_bytes, intake_tx, gauges, &sleep)
            .map_err(resource("a descriptor"))?;
        let receiver = Arc::new(Mutex::new(receiver));
        sleep.receive_with(&receiver);
        let client_gauges = Arc::new(ClientGauges::default());
        let inbox = Inbox::new(
            requests.0.clone(),
            Arc::clone(&client_gauges),
            beats.inbox,
            inbox_stop.clone(),
        )
        .map_err(resource("the inbox"))?;
        let queues = Queues {
            intake: (intake_rx, sleep),
            requests,
            inbox,
        };
        let fanout_gauges = Arc::new(FanoutGauges::default());
        let vitals = Vitals {
            beats,
            ingest: Arc::clone(&ingest_gauges),
            intake: intake_gauge,
            fanout: Arc::clone(&fanout_gauges),
            clients: Arc::clone(&client_gauges),
            journal: journal_gauges,
            engine_db: config.db.as_deref().map(|path| Arc::new(EngineDbGauges::new(path))),
            log,
            event_socket_path: config.event_socket_path.clone(),
            started: epoch_seconds(),
            started_ms: monotonic_ms(),
        };
        if vitals.log.is_none() {
            beats.log.turn_to(Operation::Ended);
        }
        let demand = Demand::new().map_err(resource("a descriptor"))?;
        let (log, intake) = (vitals.log.clone(), vitals.intake.clone());
        let watchdog = beside::start_watchdog(config, beats, (log, notifier), intake, demand.clone())?;
        let vitals = Arc::new(vitals);
        let caught_up = machines.catch_up(&record.history, config.machine_ttl, Instant::now());
        let engine_db = beside::engine_db_config(config, &record.history, &machines);
        let ([state_slot, status_slot], files) = beside::start_files([state_path, status_path], beats)?;
        if let Some(slot) = state_slot.as_ref().filter(|_| caught_up) {
            // The fan-out saves only what changes from here on.
            slot.put(Arc::new(machines.saved(epoch_seconds())));
        }
        let stopping = accept_stop.clone();
        progress.begin(Step::Threads);
        let heartbeat = start_heartbeat(config, sockets.address, &vitals, status_slot, stopping)?;
        let fanout = Fanout::new(
            fanout_config(config, sockets.send_buffer_bytes),
            (queues.intake.0, queues.requests.1, queues.intake.1),
            Beginning {
                machines,
                epoch: record.epoch,
                history: record.history,
                journal: progress.take_journal()?,
                state_slot,
            },
            Arc::clone(&fanout_gauges),
            Arc::clone(&ingest_gauges),
            (beats.fanout, fanout_stop.clone()),
        );
        *begun = Some((fanout_stop, start("fanout", &obituaries, move || fanout.run())?));
        let (inbox, inbox_handle) = queues.inbox;
        let inbox = start("inbox", &obituaries, move || inbox.run())?;
        let fanout_handle = queues.requests.0;
        let engine_db = beside::start_engine_db(engine_db, fanout_handle.clone(), vitals.engine_db.clone(), beats)?;
        let clients = inbox_handle.clone();
        let registry = Arc::new(Registry::default());
        let admin_gauges = Arc::new(AdminGauges::default());
        let bound = sockets.admin.take();
        let site = Arc::new(Site {
            status: Status {
                clients: Arc::clone(&registry),
                fanout: Arc::clone(&fanout_gauges),
                history_bytes_max: config.history_bytes,
                engine_db: vitals.engine_db.clone(),
                admin_socket: bound.as_ref().map(|bound| bound.path.clone()),
                admin: Arc::clone(&admin_gauges),
            },
            vitals,
            fanout: fanout_handle.clone(),
        });
        let acting = Acting {
            fanout: fanout_handle.clone(),
            beats,
            demand,
            stop: accept_stop.clone(),
            allow_drill: config.allow_drill,
            address: sockets.address,
        };
        let admin = beside::start_admin(bound, config, (acting, Arc::clone(&site)), admin_gauges, beats)?;
        let reception = Reception {
            rules: origin_rules(config, sockets.address, origins),
            fanout: fanout_handle.clone(),
            numbers: Arc::clone(&fanout_gauges),
            inbox: inbox_handle,
            inbox_beat: beats.inbox,
            timing: timing(config),
            limits: client_limits(config),
            slow_snapshot: config.slow_snapshot,
            clients_max,
            connections_max: connections_max(config, room),
            gauges: client_gauges,
            registry: Arc::clone(&registry),
            site: Arc::clone(&site),
            beats,
            stop: accept_stop.clone(),
        };
        let accept = Accept::new(sockets.listener, Arc::new(reception), beats.accept, accept_stop.clone());
        let accept = start("accept", &obituaries, move || accept.run())?;
        let ingest = Ingest::new(
            receiver,
            (sockets.path_lock, config.socket_mode),
            ingest_gauges,
            beats.ingest,
            ingest_stop.clone(),
        )
        .map_err(resource("a descriptor"))?;
        let ingest = start("ingest", &obituaries, move || ingest.run())?;
        Ok(Server {
            status: format!(
                "serving http://{}, events at {}",
                sockets.address,
                config.event_socket_path.display()
            ),
            address: sockets.address,
            accept: (accept_stop, accept),
            ingest: (ingest_stop, ingest),
            fanout: None,
            inbox: (inbox_stop, inbox),
            clients,
            heartbeat,
            journal: None,
            engine_db,
            admin,
            files,
            watchdog,
            ended,
            _locks: [state_lock, status_lock],
        })
    }

    /// Where HTTP and WebSocket are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of a core thread that has ended although nobody asked it to.
    pub fn ended_thread(&self) -> Option<String> {
        self.ended.try_recv().ok()
    }

    /// Stops everything in order. Blocks at most [`STOP_DEADLINE`]. Gives the threads that did not end as they should.
    pub fn stop(self) -> Vec<JoinError> {
        let deadline = Instant::now() + STOP_DEADLINE;
        let left = |most: Duration| {
            deadline
                .saturating_duration_since(Instant::now())
                .clamp(LEAST_WAIT, most)
        };
        let mut faults = Vec::new();

        if let Some((stop, _)) = &self.admin {
            stop.request();
        }
        self.accept.0.request();
        let clients = keep_faults(self.accept.1.join_within(left(ACCEPT_WAIT)), &mut faults);
        self.ingest.0.request();
        keep_faults(self.ingest.1.join_within(left(INGEST_WAIT)), &mut faults);
        // With the end of `ingest` the queue ends, and with that `fanout`; with that the clients' queues end.
        if let Some((stop, fanout)) = self.fanout {
            stop.request();
            keep_faults(fanout.join_within(left(FANOUT_WAIT)), &mut faults);
        }
        // By this way too, which needs no fan-out, and reaches those that wait for their sockets and not for their queues.
        self.clients.end_all();
        for client in clients.unwrap_or_default() {
            keep_faults(client.join_within(left(STOP_DEADLINE)), &mut faults);
        }
        if let Some((_, admin)) = self.admin {
            let requests = keep_faults(admin.join_within(left(ADMIN_WAIT)), &mut faults);
            for request in requests.unwrap_or_default() {
                keep_faults(request.join_within(left(ADMIN_REQUEST_WAIT)), &mut faults);
            }
        }
        self.inbox.0.request();
        keep_faults(self.inbox.1.join_within(left(STOP_DEADLINE)), &mut faults);
        self.heartbeat.0.request();
        keep_faults(self.heartbeat.1.join_within(left(HEARTBEAT_WAIT)), &mut faults);
        if let Some((stop, threads)) = self.journal {
            // With the end of `fanout` its queue ends; without it these threads must be told.
            stop.request();
            for thread in threads {
                keep_faults(thread.join_within(left(STOP_DEADLINE)), &mut faults);
            }
        }
        if let Some((stop, reader)) = self.engine_db {
            stop.request();
            // In the middle of a read it is left behind: it changes nothing.
            keep_faults(reader.join_within(left(ENGINE_DB_WAIT)), &mut faults);
        }
        if let Some((stop, files)) = self.files {
            // Without the end of `fanout` its slot stays open, so that this thread must be told that nothing more comes.
            stop.request();
            keep_faults(files.join_within(left(STOP_DEADLINE)), &mut faults);
        }
        for (stop, thread) in self.watchdog {
            stop.request();
            keep_faults(thread.join_within(left(WATCHDOG_WAIT)), &mut faults);
        }
        faults
    }
}

fn keep_faults<T>(joined: Result<T, JoinError>, faults: &mut Vec<JoinError>) -> Option<T> {
    joined.map_err(|fault| faults.push(fault)).ok()
}

fn clients_max(config: &Config, room: Room) -> usize {
    config.max_clients.unwrap_or(usize::MAX).min(room.clients.clients())
}

/// Clients, and room besides for pages and for handshakes under way.
fn connections_max(config: &Config, room: Room) -> usize {
    clients_max(config, room).saturating_add(room.clients.spare())
}

fn new_stop() -> Result<Stop, StartError> {
    Stop::new().map_err(resource("a stop request"))
}

fn start<T: Send + 'static>(
    name: &'static str,
    obituaries: &Obituaries,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<ThreadHandle<T>, StartError> {
    threads::spawn(name, CORE_STACK_BYTES, Some(obituaries.clone()), body).map_err(resource("a core thread"))
}

/// `stopping` is requested when the server begins to stop.
fn start_heartbeat(
    config: &Config,
    address: SocketAddr,
    vitals: &Arc<Vitals>,
    status_slot: Option<Slot>,
    stopping: Stop,
) -> Result<(Stop, ThreadHandle<()>), StartError> {
    let settings = HeartbeatConfig {
        interval: config.heartbeat_interval,
        address,
    };
    let stop = new_stop()?;
    let beat = vitals.beats.heartbeat;
    let stops = (stop.clone(), stopping);
    let heartbeat = Heartbeat::new(settings, Arc::clone(vitals), status_slot, beat, stops);
    let handle = threads::spawn("heartbeat", CORE_STACK_BYTES, None, move || heartbeat.run())
        .map_err(resource("thread heartbeat"))?;
    Ok((stop, handle))
}

fn origin_rules(config: &Config, address: SocketAddr, allowed: AllowedOrigins) -> OriginRules {
    OriginRules {
        bound_to_loopback: address.ip().to_canonical().is_loopback(),
        own_names: own_names(&config.host),
        allowed,
    }
}

fn timing(config: &Config) -> Timing {
    Timing {
        ping_interval: config.ping_interval,
        pong_timeout: config.pong_timeout,
        send_timeout: config.send_timeout,
        dead_path_timeout: config.dead_path_timeout,
        allow_drill: config.allow_drill,
    }
}

/// What clients are told of the settings that concern them.
fn client_limits(config: &Config) -> Limits {
    Limits {
        queue_bytes: config.client_queue_bytes,
        history_bytes: config.history_bytes,
        max_behind_s: config.max_behind.as_secs_f64(),
        send_timeout_s: config.send_timeout.as_secs_f64(),
        ping_interval_s: config.ping_interval.as_secs_f64(),
        pong_timeout_s: config.pong_timeout.as_secs_f64(),
    }
}

fn fanout_config(config: &Config, send_buffer_bytes: usize) -> FanoutConfig {
    FanoutConfig {
        limits: OfferLimits {
            delivery: config.delivery,
            queue_bytes_max: config.client_queue_bytes,
        },
        chunk_bytes_max: send_buffer_bytes / 2,
        max_behind: config.max_behind,
        machine_ttl: config.machine_ttl,
        addresses_are_limited: limits::address_space().is_some(),
    }
}
