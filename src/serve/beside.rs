//! The threads beside the path of events: `log`, `journal`, `files` and `watchdog`, and what each is given.

use crate::admin::credentials::Rule;
use crate::admin::listener::Admin;
use crate::admin::place::{self, Bound};
use crate::config::{AdminSocket, Config};
use crate::engine_db::{EngineDbGauges, ReaderConfig};
use crate::fanout::requests::FanoutHandle;
use crate::intake::queue::IntakeGauge;
use crate::journal::queue::JournalGauges;
use crate::journal::segments::Limits;
use crate::journal::{Journal, Opened, Record};
use crate::liveness::backlog::Backlog;
use crate::liveness::beat::Beat;
use crate::liveness::beats::Beats;
use crate::liveness::demand::Demand;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::liveness::report::Reporter;
use crate::liveness::report_writer::Reports;
use crate::liveness::voice::Voice;
use crate::liveness::watchdog::{Watchdog, WatchdogConfig};
use crate::process::clock::epoch_seconds;
use crate::process::files::{self, Durability, KeptFile, LockError, LockFile, Phase, Slot, lock_path};
use crate::process::logging::{self, LogControl};
use crate::process::safe_open::{self, is_refusal};
use crate::process::stop::Stop;
use crate::process::systemd::Notifier;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::words::count;
use crate::serve::{StartError, new_stop, resource};
use crate::stream::batch::Item;
use crate::stream::history::History;
use crate::stream::machines::Machines;
use crate::stream::machines::merge::{RecoveredTo, mark};
use crate::vitals::admin_gauges::AdminGauges;
use crate::web::Site;
use crate::web::acting::Acting;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn start_log(config: &Config, beats: &'static Beats) -> Result<(ThreadHandle<()>, LogControl), StartError> {
    let (thread, control) = logging::start(config.log_level, Some(&config.log_path())).map_err(resource("the log"))?;
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

/// The right to the status file, and where it is to be written.
///
/// # Errors
/// What stands there, or at its lock, is no file.
pub(super) fn claim_status_file(
    path: Option<PathBuf>,
) -> Result<(Option<LockFile>, Option<PathBuf>), (PathBuf, io::Error)> {
    let Some(path) = path else {
        return Ok((None, None));
    };
    match safe_open::replaceable(&path) {
        // /dev/null keeps nothing.
        Ok(None) => return Ok((None, None)),
        Err(error) if is_refusal(&error) => return Err((path, error)),
        Ok(Some(_)) | Err(_) => {}
    }
    if let Some(folder) = path.parent() {
        // If it cannot be made, the first write says so.
        let _ = fs::create_dir_all(folder);
    }
    match LockFile::acquire(&lock_path(&path)) {
        Ok(lock) => Ok((Some(lock), Some(path))),
        // Two servers that write one file would each hide that the other one is dead.
        Err(error @ LockError::Held { .. }) => {
            log::error!(
                "🚨 status file {} will not be written: {error}; whoever watches it sees that server, not this one. \
                 Give --status-file a path of its own",
                path.display()
            );
            Ok((None, None))
        }
        Err(LockError::Io { path, error }) if is_refusal(&error) => Err((path, error)),
        // A folder that is full, missing or not ours now may be better later; until then each failed write is said.
        Err(LockError::Io { .. }) => Ok((None, Some(path))),
    }
}

/// What the fan-out goes on from, what the journal shows of itself, and its threads.
pub(super) type KeptRecord = (Record, Option<Arc<JournalGauges>>, Option<JournalThreads>);

/// `journal` and `journal-sync`, in the order in which they end.
pub(super) type JournalThreads = (Stop, [ThreadHandle<()>; 2]);

/// How long a start that failed waits for its journal.
const JOURNAL_WAIT: Duration = Duration::from_secs(1);

/// Recovers the journal, if there is to be one, and starts its thread. Blocks on the disk.
pub(super) fn start_journal(config: &Config, beats: &'static Beats) -> Result<KeptRecord, StartError> {
    let Some(folder) = &config.journal else {
        beats.journal.turn_to(Operation::Ended);
        beats.journal_sync.turn_to(Operation::Ended);
        return Ok((Record::unkept(config.history_bytes), None, None));
    };
    let limits = Limits {
        segment_bytes: config.journal_segment_bytes as u64,
        segment_age: config.journal_segment_age,
        keep_bytes: config.journal_keep_bytes as u64,
        keep_age: config.journal_keep_age,
    };
    let stop = new_stop()?;
    let ours = (beats.journal, beats.journal_sync, stop.clone());
    let Opened {
        record,
        journal,
        flusher,
        gauges,
    } = Journal::open(folder, limits, config.history_bytes, ours).map_err(StartError::Journal)?;
    let journal = threads::spawn("journal", CORE_STACK_BYTES, None, move || journal.run());
    let flusher = threads::spawn("journal-sync", CORE_STACK_BYTES, None, move || flusher.run());
    let threads = [
        journal.map_err(resource("thread journal"))?,
        flusher.map_err(resource("thread journal-sync"))?,
    ];
    Ok((record, Some(gauges), Some((stop, threads))))
}

/// Ends the journal of a server that does not start after all, in order, so that the next one gives no number twice and
/// skips none. Blocks 1 s at most for each thread.
pub(super) fn end_journal(threads: Option<JournalThreads>) {
    let Some((stop, threads)) = threads else { return };
    stop.request();
    for thread in threads {
        // What is not done by then is cut off with the process; the next start skips some numbers.
        let _ = thread.join_within(JOURNAL_WAIT);
    }
}

/// The slots of the state file and of the status file, of those that have a path; and the thread that writes them.
pub(super) type Files = ([Option<Slot>; 2], Option<(Stop, ThreadHandle<()>)>);

pub(super) fn start_files(paths: [Option<PathBuf>; 2], beats: &'static Beats) -> Result<Files, StartError> {
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

/// What `enginedb` goes on from, if there is a database to read.
pub(super) fn engine_db_config(config: &Config, history: &History, machines: &Machines) -> Option<ReaderConfig> {
    let journal_end = history.all().back().map(|batch| batch.time());
    config.db.clone().map(|path| ReaderConfig {
        path,
        is_given: config.db_is_given,
        interval: config.db_interval,
        event_bytes_max: config.max_event_bytes,
        since: journal_end.unwrap_or_else(epoch_seconds),
        recovered_to: recovered_to(history, machines),
        resumes: journal_end.is_some(),
        known: machines.in_database().map(Into::into).collect(),
    })
}

/// How far refused events were recovered: a server that was killed has journaled more than it has saved.
fn recovered_to(history: &History, machines: &Machines) -> Option<RecoveredTo> {
    let saved = machines.recovered_to();
    let journaled = history.all().iter().rev().find_map(|batch| {
        let events = batch.items().filter_map(|item| match item {
            Item::Event(event) => event.recovered.map(|row| (row.get(), mark(event.payload))),
            Item::Loss(_) => None,
        });
        events.last()
    });
    match journaled {
        Some((id, mark)) if saved.is_none_or(|saved| saved.id < id) => Some(RecoveredTo {
            file: saved.map(|saved| saved.file.clone()).unwrap_or_default(),
            id,
            mark,
        }),
        _ => saved.cloned(),
    }
}

/// Starts `enginedb`, and waits a moment for its first look. Blocks 500 ms at most.
#[cfg(feature = "engine-db")]
pub(super) fn start_engine_db(
    config: Option<ReaderConfig>,
    fanout: FanoutHandle,
    gauges: Option<Arc<EngineDbGauges>>,
    beats: &'static Beats,
) -> Result<Option<(Stop, ThreadHandle<()>)>, StartError> {
    use crate::engine_db::reader::{Reader, START_WAIT};
    let (Some(config), Some(gauges)) = (config, gauges) else {
        beats.enginedb.turn_to(Operation::Ended);
        return Ok(None);
    };
    let stop = new_stop()?;
    let (looked, first_look) = crossbeam_channel::bounded(1);
    let reader = Reader::new(config, fanout, gauges, (beats.enginedb, stop.clone()), looked);
    let handle = threads::spawn("enginedb", CORE_STACK_BYTES, None, move || reader.run())
        .map_err(resource("thread enginedb"))?;
    // Without it in time, whoever connects now is told when it is there.
    let _ = first_look.recv_timeout(START_WAIT);
    Ok(Some((stop, handle)))
}

#[cfg(not(feature = "engine-db"))]
pub(super) fn start_engine_db(
    _: Option<ReaderConfig>,
    _: FanoutHandle,
    _: Option<Arc<EngineDbGauges>>,
    beats: &'static Beats,
) -> Result<Option<(Stop, ThreadHandle<()>)>, StartError> {
    beats.enginedb.turn_to(Operation::Ended);
    Ok(None)
}

/// `watchdog` and `reports`, in the order in which they end.
pub(super) type WatchdogThreads = [(Stop, ThreadHandle<()>); 2];

pub(super) fn start_watchdog(
    config: &Config,
    beats: &'static Beats,
    (log, notifier): (Option<LogControl>, Arc<Notifier>),
    intake: IntakeGauge,
    demand: Demand,
) -> Result<WatchdogThreads, StartError> {
    let settings = WatchdogConfig {
        hang_timeout: config.hang_timeout,
        on_hang: config.on_hang,
        ping_interval: config.ping_interval,
    };
    let mut backlogs = vec![Backlog {
        beat: beats.fanout,
        waiting: Box::new(move || {
            let (events, kb) = (intake.len(), intake.bytes() / 1024);
            (events > 0).then(|| format!("{}, {kb} KB", count(events, "event")))
        }),
    }];
    if let Some(log) = log.clone() {
        backlogs.push(Backlog {
            beat: beats.log,
            waiting: Box::new(move || log.has_waiting().then(|| "log lines".to_owned())),
        });
    }
    let reports_stop = new_stop()?;
    let (reports, writer) = Reports::new(config.hang_report_path(), (beats.reports, reports_stop.clone()))
        .map_err(resource("a descriptor"))?;
    let writer =
        threads::spawn("reports", CORE_STACK_BYTES, None, move || writer.run()).map_err(resource("thread reports"))?;
    let ways = (Voice::new("watchdog", log), Reporter::new(reports), notifier);
    let stop = new_stop()?;
    let watchdog = Watchdog::new(&settings, beats, backlogs, ways, (demand, stop.clone()));
    let handle = threads::spawn("watchdog", WATCHDOG_STACK_BYTES, None, move || watchdog.run())
        .map_err(resource("thread watchdog"))?;
    Ok([(stop, handle), (reports_stop, writer)])
}

/// Symbols are looked up on this stack, by code that recurses; only touched pages count.
const WATCHDOG_STACK_BYTES: usize = 4 * 1024 * 1024;

/// Makes the admin socket. Without it at a usual place the server serves all the same, and says so.
pub(super) fn bind_admin(config: &Config, port: u16) -> Result<Option<Bound>, StartError> {
    let mut failed = Vec::new();
    for path in place::candidates(&config.admin_socket, port, &config.log_dir) {
        match Bound::new(&path, config.admin_group) {
            Ok(bound) => return Ok(Some(bound)),
            Err(error) if matches!(config.admin_socket, AdminSocket::At(_)) => {
                return Err(StartError::Admin { path, error });
            }
            Err(error) => failed.push(format!("{}: {error}", path.display())),
        }
    }
    if !failed.is_empty() {
        log::warn!(
            "⚠️ there is no admin socket, so nobody can forget machines or have a report made of this server ({}); give \
             --admin-socket another path, or none",
            failed.join("; ")
        );
    }
    Ok(None)
}

/// `admin`, which gives the threads of requests that still run when it ends.
pub(super) type AdminThread = (Stop, ThreadHandle<Vec<ThreadHandle<()>>>);

/// Starts `admin`, if it has a socket.
pub(super) fn start_admin(
    bound: Option<Bound>,
    config: &Config,
    desk: (Acting, Arc<Site>),
    gauges: Arc<AdminGauges>,
    beats: &'static Beats,
) -> Result<Option<AdminThread>, StartError> {
    let Some(bound) = bound else {
        beats.admin.turn_to(Operation::Ended);
        return Ok(None);
    };
    let rule = Rule {
        own_uid: rustix::process::geteuid().as_raw(),
        group: config.admin_group,
    };
    log::info!("🔑 admin socket {}", bound.path.display());
    let stop = new_stop()?;
    let admin = Admin::new(bound, rule, desk, gauges, (beats.admin, stop.clone()));
    let handle =
        threads::spawn("admin", CORE_STACK_BYTES, None, move || admin.run()).map_err(resource("thread admin"))?;
    Ok(Some((stop, handle)))
}
