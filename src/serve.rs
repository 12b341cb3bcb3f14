//! The wiring: every channel and every thread of the server is born here, and ended here, in written order.
//!
//! Start: what the service manager passes, settings, log, TCP port, then the datagram socket, so that a taken port
//! leaves no trace of us; then the threads from the last of the path to the first. Stop: `accept`, `ingest`, `fanout`,
//! clients, `inbox`, `heartbeat`, `files`, `watchdog`, `log`.

use crate::client::accept::Accept;
use crate::client::gauges::ClientGauges;
use crate::client::handshake::Reception;
use crate::client::inbox::{Inbox, InboxHandle};
use crate::client::origin::OriginRules;
use crate::client::outbox::OfferLimits;
use crate::client::writer::Timing;
use crate::liveness::beat::{Beat, Beats};
use crate::liveness::demand::Demand;
use crate::liveness::drill;
use crate::liveness::emergency_file::EmergencyFile;
use crate::liveness::heartbeat::{Heartbeat, HeartbeatConfig};
use crate::liveness::operation::{Operation, SlowLimits};
use crate::liveness::report::Reporter;
use crate::liveness::voice::Voice;
use crate::liveness::watchdog::{Backlog, Watchdog, WatchdogConfig};
use crate::pipeline::event_socket::{self, BindError, EventSocket, PathLock};
use crate::pipeline::fanout::{Fanout, FanoutConfig};
use crate::pipeline::ingest::{Ingest, IngestGauges};
use crate::pipeline::intake::{IntakeGauge, IntakeRx, IntakeTx, intake};
use crate::pipeline::requests::{FanoutGauges, FanoutHandle, FanoutRequests};
use crate::pipeline::state_file;
use crate::process::clock::epoch_seconds;
use crate::process::config::{Config, SETTINGS};
use crate::process::exit::ExitStatus;
use crate::process::files::{self, Durability, KeptFile, LockError, LockFile, Phase, Slot, lock_path};
use crate::process::limits::{self, ClientRoom};
use crate::process::logging::{self, LogControl};
use crate::process::passed_sockets::{PassedError, PassedSockets};
use crate::process::signals::StopSignals;
use crate::process::stop::Stop;
use crate::process::systemd::Notifier;
use crate::process::threads::{self, CORE_STACK_BYTES, JoinError, Obituaries, ThreadHandle};
use crate::web::Site;
use crate::web::health::Vitals;
use crossbeam_channel::{Receiver, bounded};
use rustix::net::{listen, sockopt};
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that the kernel holds for `accept` (listen(2)); the host's own limit is usually the same.
const BACKLOG: i32 = 4096;
/// How often `main` looks whether a core thread has ended.
const LOOK: Duration = Duration::from_millis(250);
/// The whole stop may take so long; the process then ends whatever still runs.
const STOP_DEADLINE: Duration = Duration::from_millis(4400);
/// Parts of it. `accept` and `ingest` wake at once; the latter may need 300 ms for room, 300 ms for what the kernel holds
/// and 100 ms to tell of losses; `fanout` hands on for a second. That leaves clients 2.1 s for what they need at most:
/// 0.1 s to own their socket, 1 s to flush, 1 s to close.
const ACCEPT_WAIT: Duration = Duration::from_millis(250);
const INGEST_WAIT: Duration = Duration::from_millis(750);
const FANOUT_WAIT: Duration = Duration::from_millis(1250);
/// `heartbeat` wakes at once, and makes one line and one content.
const HEARTBEAT_WAIT: Duration = Duration::from_millis(250);
/// `watchdog` wakes at once; in the middle of a report it is left behind.
const WATCHDOG_WAIT: Duration = Duration::from_millis(250);
/// Even when all time is gone, whoever has ended is still seen to have ended.
const LEAST_WAIT: Duration = Duration::from_millis(20);
/// What thread `log` has for its last lines, within the 5 s in all.
const LOG_DEADLINE: Duration = Duration::from_millis(300);

/// Why the server could not start.
#[derive(Debug)]
pub enum StartError {
    Passed(PassedError),
    Listen { address: String, error: io::Error },
    Socket(BindError),
    Resource { what: &'static str, error: io::Error },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Passed(error) => write!(f, "{error}"),
            StartError::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::Socket(error) => write!(f, "{error}"),
            StartError::Resource { what, error } => write!(f, "cannot make {what}: {error}"),
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
            StartError::Resource { .. } => {
                "raise the limits of this user or service (ulimit -n, ulimit -u, TasksMax=)".to_owned()
            }
        }
    }
}

fn resource(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Resource { what, error }
}

/// Runs the server with the process's log and signals until it is told to stop. Blocks until then.
///
/// # Errors
/// It could not start.
pub fn run(config: Config) -> Result<ExitStatus, StartError> {
    // First of all, because nothing may be open yet but what was passed.
    let passed = PassedSockets::from_environment().map_err(StartError::Passed)?;
    let room = limits::client_room(limits::raise_descriptors());
    let slow_limits = SlowLimits {
        broadcast: config.slow_broadcast,
        snapshot: config.slow_snapshot,
    };
    let beats = Beats::new(slow_limits, connections_max(&config, room));
    let (log_thread, log) = start_log(&config, beats)?;
    let notifier = Arc::new(Notifier::from_environment().unwrap_or_else(|error| {
        log::warn!("⚠️ the service manager will not learn from us that we serve: {error}");
        Notifier::silent()
    }));
    let outcome = StopSignals::install()
        .map_err(resource("the signal handlers"))
        .and_then(|signals| {
            let manager = (passed, Arc::clone(&notifier));
            Server::start(config, manager, room, beats, Some(log.clone())).map(|server| (signals, server))
        })
        .map(|(signals, server)| run_until_stopped(&signals, server, beats.main, &notifier));
    log.stop();
    // Whatever it could not write in time is lost with the process; there is nobody left to tell.
    let _ = log_thread.join_within(LOG_DEADLINE);
    outcome
}

fn start_log(config: &Config, beats: &'static Beats) -> Result<(ThreadHandle<()>, LogControl), StartError> {
    let already = |error: log::SetLoggerError| io::Error::other(error.to_string());
    let (thread, control) = logging::start(config.log_level, Some(&config.log_path()))
        .map_err(already)
        .map_err(resource("the log"))?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        log::error!(
            "🚨 thread {} panicked: {panic}",
            thread.name().unwrap_or("without a name")
        );
    }));
    let beat = beats.log;
    let body = move || {
        beat.adopt();
        thread.run(shown_by(beat));
        beat.turn_to(Operation::Ended);
    };
    let handle = threads::spawn("log", CORE_STACK_BYTES, None, body).map_err(resource("thread log"))?;
    Ok((handle, control))
}

/// Shows the phases of a thread that knows nothing of beats.
fn shown_by(beat: &'static Beat) -> impl FnMut(Phase) {
    move |phase| {
        drill::obey(beat);
        beat.turn_to(match phase {
            Phase::Waiting => Operation::Waiting,
            Phase::Writing => Operation::Writing,
        });
    }
}

fn run_until_stopped(signals: &StopSignals, server: Server, beat: &'static Beat, notifier: &Notifier) -> ExitStatus {
    beat.adopt();
    let mut told = false;
    let cause = loop {
        told = told || tell_ready(notifier, &server.status);
        let doing = beat.begin(Operation::Waiting);
        let signal = signals.wait(LOOK);
        drop(doing);
        drill::obey(beat);
        if let Some(signal) = signal {
            log::info!("🛑 {signal}: stopping; a second signal ends the process at once");
            break None;
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
    match cause.is_none() && faults.is_empty() {
        true => ExitStatus::Fine,
        false => ExitStatus::Failed,
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

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Where it serves, in a line for people.
    status: String,
    accept: (Stop, ThreadHandle<Vec<ThreadHandle<()>>>),
    ingest: (Stop, ThreadHandle<()>),
    fanout: (Stop, ThreadHandle<()>),
    inbox: (Stop, ThreadHandle<()>),
    clients: InboxHandle,
    heartbeat: (Stop, ThreadHandle<()>),
    files: Option<(Stop, ThreadHandle<()>)>,
    watchdog: (Stop, ThreadHandle<()>),
    ended: Receiver<String>,
    /// Of the state file and of the status file.
    _locks: [Option<LockFile>; 2],
}

/// The two sockets.
struct Sockets {
    listener: TcpListener,
    address: SocketAddr,
    /// What a client's socket takes, in bytes.
    send_buffer_bytes: usize,
    event_socket: EventSocket,
    path_lock: PathLock,
}

/// The queues between threads, each with both its ends.
struct Queues {
    intake: (IntakeTx, IntakeRx),
    requests: (FanoutHandle, FanoutRequests),
    inbox: (Inbox, InboxHandle),
}

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
        room: ClientRoom,
        beats: &'static Beats,
        log: Option<LogControl>,
    ) -> Result<Server, StartError> {
        let clients_max = clients_max(&config, room);
        let sockets = open_sockets(&mut config, passed)?;
        announce(&config, &sockets, clients_max, room);
        let (obituaries, ended) = bounded(CORE_THREADS);
        let (accept_stop, ingest_stop) = (new_stop()?, new_stop()?);
        let (fanout_stop, inbox_stop) = (new_stop()?, new_stop()?);
        let ingest_gauges = Arc::new(IngestGauges::default());
        let (intake_tx, intake_rx, intake_gauge) = intake(beats.fanout, config.ingest_patience, ingest_stop.clone());
        let requests = FanoutHandle::new();
        let client_gauges = Arc::new(ClientGauges::default());
        let inbox = Inbox::new(
            requests.0.clone(),
            Arc::clone(&client_gauges),
            beats.inbox,
            inbox_stop.clone(),
        )
        .map_err(resource("the inbox"))?;
        let queues = Queues {
            intake: (intake_tx, intake_rx),
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
            log,
            event_socket_path: config.event_socket_path.clone(),
            started: epoch_seconds(),
        };
        if vitals.log.is_none() {
            beats.log.turn_to(Operation::Ended);
        }
        let demand = Demand::new().map_err(resource("a descriptor"))?;
        let (log, intake) = (vitals.log.clone(), vitals.intake.clone());
        let watchdog = start_watchdog(&config, beats, (log, notifier), intake, demand.clone())?;
        let vitals = Arc::new(vitals);
        let (machines, state_lock, state_path) = state_file::restore(config.state_path());
        let (status_lock, status_path) = claim_status_file(config.status_file.clone());
        let ([state_slot, status_slot], files) = start_files([state_path, status_path], beats)?;
        let heartbeat_stop = new_stop()?;
        let heartbeat = Heartbeat::new(
            HeartbeatConfig {
                interval: config.heartbeat_interval,
                address: sockets.address,
            },
            Arc::clone(&vitals),
            status_slot,
            beats.heartbeat,
            (heartbeat_stop.clone(), accept_stop.clone()),
        );
        let heartbeat = threads::spawn("heartbeat", CORE_STACK_BYTES, None, move || heartbeat.run())
            .map_err(resource("thread heartbeat"))?;

        let fanout = Fanout::new(
            fanout_config(&config, sockets.send_buffer_bytes),
            (queues.intake.1, queues.requests.1),
            machines,
            state_slot,
            fanout_gauges,
            Arc::clone(&ingest_gauges),
            (beats.fanout, fanout_stop.clone()),
        );
        let fanout = start("fanout", &obituaries, move || fanout.run())?;
        let (inbox, inbox_handle) = queues.inbox;
        let inbox = start("inbox", &obituaries, move || inbox.run())?;
        let fanout_handle = queues.requests.0;
        let clients = inbox_handle.clone();
        let reception = Reception {
            rules: OriginRules {
                bound_to_loopback: sockets.address.ip().to_canonical().is_loopback(),
                allowed: config.allow_origin.clone(),
            },
            fanout: fanout_handle.clone(),
            inbox: inbox_handle,
            inbox_beat: beats.inbox,
            timing: Timing {
                ping_interval: config.ping_interval,
                pong_timeout: config.pong_timeout,
                send_timeout: config.send_timeout,
                allow_drill: config.allow_drill,
            },
            slow_snapshot: config.slow_snapshot,
            clients_max,
            connections_max: connections_max(&config, room),
            gauges: client_gauges,
            site: Site {
                vitals,
                fanout: fanout_handle,
                beats,
                demand,
                allow_drill: config.allow_drill,
            },
            stop: accept_stop.clone(),
        };
        let accept = Accept::new(sockets.listener, Arc::new(reception), beats.accept, accept_stop.clone());
        let accept = start("accept", &obituaries, move || accept.run())?;
        let ingest = Ingest::new(
            (sockets.event_socket, sockets.path_lock, config.socket_mode),
            config.max_event_bytes,
            queues.intake.0,
            ingest_gauges,
            beats.ingest,
            ingest_stop.clone(),
        );
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
            fanout: (fanout_stop, fanout),
            inbox: (inbox_stop, inbox),
            clients,
            heartbeat: (heartbeat_stop, heartbeat),
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

        self.accept.0.request();
        let clients = keep_faults(self.accept.1.join_within(left(ACCEPT_WAIT)), &mut faults);
        self.ingest.0.request();
        keep_faults(self.ingest.1.join_within(left(INGEST_WAIT)), &mut faults);
        // With the end of `ingest` the queue ends, and with that `fanout`; with that the clients' queues end.
        self.fanout.0.request();
        let fanout = keep_faults(self.fanout.1.join_within(left(FANOUT_WAIT)), &mut faults);
        if fanout.is_none() {
            self.clients.end_all();
        }
        for client in clients.unwrap_or_default() {
            keep_faults(client.join_within(left(STOP_DEADLINE)), &mut faults);
        }
        self.inbox.0.request();
        keep_faults(self.inbox.1.join_within(left(STOP_DEADLINE)), &mut faults);
        self.heartbeat.0.request();
        keep_faults(self.heartbeat.1.join_within(left(HEARTBEAT_WAIT)), &mut faults);
        if let Some((stop, files)) = self.files {
            // Without the end of `fanout` its slot stays open, so that this thread must be told that nothing more comes.
            stop.request();
            keep_faults(files.join_within(left(STOP_DEADLINE)), &mut faults);
        }
        self.watchdog.0.request();
        keep_faults(self.watchdog.1.join_within(left(WATCHDOG_WAIT)), &mut faults);
        faults
    }
}

fn keep_faults<T>(joined: Result<T, JoinError>, faults: &mut Vec<JoinError>) -> Option<T> {
    joined.map_err(|fault| faults.push(fault)).ok()
}

fn clients_max(config: &Config, room: ClientRoom) -> usize {
    config.max_clients.unwrap_or(usize::MAX).min(room.clients())
}

/// Clients, and room besides for pages and for handshakes under way.
fn connections_max(config: &Config, room: ClientRoom) -> usize {
    clients_max(config, room).saturating_add(room.spare())
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

/// Opens what was not passed. What was passed takes the place of the settings that name it.
fn open_sockets(config: &mut Config, passed: PassedSockets) -> Result<Sockets, StartError> {
    let (listener, address) = match passed.listener {
        Some(listener) => adopt_listener(listener, config)?,
        None => bind_listener(config)?,
    };
    let (event_socket, path_lock) = match passed.datagrams {
        Some((socket, path)) => (adopt_event_socket(socket, path, config), PathLock::of_the_manager()),
        None => {
            let lock = event_socket::lock(&config.event_socket_path).map_err(StartError::Socket)?;
            let socket = EventSocket::bind(&config.event_socket_path, config.socket_mode);
            (socket.map_err(StartError::Socket)?, lock)
        }
    };
    // Linux gives twice what was asked for, the second half for its own bookkeeping (socket(7)).
    let send_buffer_bytes =
        sockopt::socket_send_buffer_size(&listener).map_or(config.send_buffer_bytes, |size| size / 2);
    Ok(Sockets {
        listener,
        address,
        send_buffer_bytes,
        event_socket,
        path_lock,
    })
}

/// Serves at a listener that was passed, wherever it listens.
fn adopt_listener(listener: TcpListener, config: &mut Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let (listener, address) = prepare(listener, config).map_err(resource("the passed TCP socket ready"))?;
    let (host, port) = (address.ip().to_string(), address.port());
    if (host.as_str(), port) != (config.host.as_str(), config.port) {
        log::info!(
            "🔌 the service manager passed a socket that listens on {address}; --host {} and --port {} do not matter",
            config.host,
            config.port
        );
    }
    (config.host, config.port) = (host, port);
    Ok((listener, address))
}

/// Receives from a datagram socket that was passed, whatever its path.
fn adopt_event_socket(socket: OwnedFd, path: PathBuf, config: &mut Config) -> EventSocket {
    if path != config.event_socket_path {
        log::info!(
            "🔌 the service manager passed an event socket at {}; --event-socket-path {} does not matter",
            path.display(),
            config.event_socket_path.display()
        );
    }
    config.event_socket_path.clone_from(&path);
    EventSocket::passed(socket, path)
}

/// Listens with the options that every accepted socket inherits (tcp(7)).
fn bind_listener(config: &Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen {
        address: format!("{}:{}", config.host, config.port),
        error,
    };
    let addresses = (config.host.as_str(), config.port).to_socket_addrs().map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpListener::bind(address).and_then(|listener| prepare(listener, config)) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn prepare(listener: TcpListener, config: &Config) -> io::Result<(TcpListener, SocketAddr)> {
    sockopt::set_socket_send_buffer_size(&listener, config.send_buffer_bytes)?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    // The standard library has listened with a shorter backlog already; listening again lengthens it.
    listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn fanout_config(config: &Config, send_buffer_bytes: usize) -> FanoutConfig {
    FanoutConfig {
        limits: OfferLimits {
            delivery: config.delivery,
            queue_bytes_max: config.client_queue_bytes,
        },
        chunk_bytes_max: send_buffer_bytes / 2,
        machine_ttl: config.machine_ttl,
    }
}

/// The right to the status file, and where it is to be written.
fn claim_status_file(path: Option<PathBuf>) -> (Option<LockFile>, Option<PathBuf>) {
    let Some(path) = path else {
        return (None, None);
    };
    if let Some(folder) = path.parent() {
        // If it cannot be made, the first write says so.
        let _ = fs::create_dir_all(folder);
    }
    match LockFile::acquire(&lock_path(&path)) {
        Ok(lock) => (Some(lock), Some(path)),
        // Two servers that write one file would each hide that the other one is dead.
        Err(error @ LockError::Held { .. }) => {
            log::error!(
                "🚨 status file {} will not be written: {error}; whoever watches it sees that server, not this one. \
                 Give --status-file a path of its own",
                path.display()
            );
            (None, None)
        }
        // A folder that is full, missing or not ours now may be better later; until then each failed write is said.
        Err(LockError::Io { .. }) => (None, Some(path)),
    }
}

/// The slots of the state file and of the status file, of those that have a path; and the thread that writes them.
type Files = ([Option<Slot>; 2], Option<(Stop, ThreadHandle<()>)>);

fn start_files(paths: [Option<PathBuf>; 2], beats: &'static Beats) -> Result<Files, StartError> {
    const WORTH: [(Durability, &str); 2] = [
        (
            Durability::Flushed,
            "after a restart what changes from now on would be missing",
        ),
        (
            Durability::Cached,
            "whoever watches it must take this server for hung or dead",
        ),
    ];
    let mut kept = Vec::new();
    let mut slots = [None, None];
    for ((path, (durability, if_not_written)), slot) in paths.into_iter().zip(WORTH).zip(&mut slots) {
        let Some(path) = path else { continue };
        let (tx, content) = files::slot();
        *slot = Some(tx);
        kept.push(KeptFile {
            path,
            content,
            durability,
            if_not_written,
        });
    }
    if kept.is_empty() {
        beats.files.turn_to(Operation::Ended);
        return Ok((slots, None));
    }
    let (stop, beat) = (new_stop()?, beats.files);
    let stopped = stop.clone();
    let body = move || {
        beat.adopt();
        files::keep(kept, &stopped, shown_by(beat));
        beat.turn_to(Operation::Ended);
    };
    let handle = threads::spawn("files", CORE_STACK_BYTES, None, body).map_err(resource("thread files"))?;
    Ok((slots, Some((stop, handle))))
}

fn start_watchdog(
    config: &Config,
    beats: &'static Beats,
    (log, notifier): (Option<LogControl>, Arc<Notifier>),
    intake: IntakeGauge,
    demand: Demand,
) -> Result<(Stop, ThreadHandle<()>), StartError> {
    let settings = WatchdogConfig {
        hang_timeout: config.hang_timeout,
        on_hang: config.on_hang,
    };
    let mut backlogs = vec![Backlog {
        beat: beats.fanout,
        is_waiting: Box::new(move || !intake.is_empty()),
    }];
    if let Some(log) = log.clone() {
        backlogs.push(Backlog {
            beat: beats.log,
            is_waiting: Box::new(move || log.has_waiting()),
        });
    }
    let reporter = Reporter::new(EmergencyFile::new(config.hang_report_path()));
    let ways = (Voice::new(log, config.log_level), reporter, notifier);
    let stop = new_stop()?;
    let watchdog = Watchdog::new(&settings, beats, backlogs, ways, (demand, stop.clone()));
    let handle = threads::spawn("watchdog", WATCHDOG_STACK_BYTES, None, move || watchdog.run())
        .map_err(resource("thread watchdog"))?;
    Ok((stop, handle))
}

/// Symbols are looked up on this stack, by code that recurses; only touched pages count.
const WATCHDOG_STACK_BYTES: usize = 4 * 1024 * 1024;

/// Says what runs here, with every setting in force.
fn announce(config: &Config, sockets: &Sockets, clients_max: usize, room: ClientRoom) {
    let address = sockets.address;
    log::info!(
        "🚀 threadcast {} listens on http://{address}, stream at ws://{address}/ws/events, events to {}",
        env!("CARGO_PKG_VERSION"),
        config.event_socket_path.display()
    );
    let settings = SETTINGS
        .iter()
        .map(|setting| format!("{}={}", setting.name, setting.show(config)));
    log::info!("🔧 {}", settings.collect::<Vec<_>>().join(" "));
    log::info!(
        "🧵 room for {clients_max} clients (the host's limits allow {} connections by descriptors, {} by threads, {} by mappings)",
        room.by_descriptors,
        room.by_threads,
        room.by_mappings
    );
    if config.max_clients.is_some_and(|wanted| wanted > clients_max) {
        log::warn!(
            "⚠️ --max-clients is more than the host's limits allow; raise them (ulimit -n, TasksMax=) or lower it"
        );
    }
    if let Some(warning) = &sockets.path_lock.warning {
        log::warn!("⚠️ {warning}; another server that starts here would find us only by trying to connect");
    }
    match limits::datagram_queue_len() {
        Some(len) if len < DATAGRAM_QUEUE_COMFORT => log::info!(
            "💡 this host holds {len} datagrams for us at a time (net.unix.max_dgram_qlen): an engine that sends more in \
             one burst finds it full; `sysctl net.unix.max_dgram_qlen=512` before the start helps"
        ),
        _ => {}
    }
}

/// Newer distributions set 512; below this a short burst of a sender that does not wait is lost before it reaches us.
const DATAGRAM_QUEUE_COMFORT: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_buffer_size_and_nodelay() {
        let config = Config {
            port: 0,
            send_buffer_bytes: 50_000,
            ..Config::default()
        };
        let (listener, address) = bind_listener(&config).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert_eq!(sockopt::socket_send_buffer_size(&accepted).unwrap(), 100_000);
    }

    #[test]
    fn a_host_that_is_not_ours_is_named_with_a_hint() {
        let config = Config {
            host: "192.0.2.1".to_owned(),
            port: 0,
            ..Config::default()
        };
        let error = bind_listener(&config).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot listen on 192.0.2.1:0: "),
            "{error}"
        );
        assert!(error.hint().contains("--host"));
    }
}
