//! The threads beside the path of events: `log`, `journal`, `files` and `watchdog`, and what each is given.

use crate::admin::credentials::Rule;
use crate::admin::listener::Admin;
use crate::admin::place::{self, Bound};
use crate::config::{AdminSocket, Config};
use crate::detector::{Detector, DetectorSettings};
use crate::engine_db::{EngineDbBeginning, EngineDbSettings};
use crate::fanout::state_file::learned_path;
use crate::journal::flush::Flusher;
use crate::journal::queue::JournalGauges;
use crate::journal::{Journal, JournalSettings, Opened, Record};
use crate::liveness::backlog::Backlog;
use crate::liveness::beat::Beat;
use crate::liveness::beats::Beats;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::liveness::report::Reporter;
use crate::liveness::report_writer::Reports;
use crate::liveness::voice::Voice;
use crate::liveness::watchdog::{Watchdog, Ways};
use crate::process::clock::epoch_seconds;
use crate::process::files::{self, Durability, KeptFile, LockError, LockFile, Phase, Slot, lock_path};
use crate::process::logging::form::Forms;
use crate::process::logging::{self, LogControl};
use crate::process::safe_open::{self, is_refusal};
use crate::process::signals;
use crate::process::stop::Stop;
use crate::process::systemd::Notifier;
use crate::process::threads::ThreadHandle;
use crate::process::words::count;
use crate::serve::ground::Ground;
use crate::serve::parts::{Part, Turn};
use crate::serve::settings::Settings;
use crate::serve::start_error::{StartError, new_stop, resource};
use crate::serve::starting::Progress;
use crate::stream::batch::Item;
use crate::stream::history::History;
use crate::stream::machines::Machines;
use crate::stream::machines::recovered::{RecoveredTo, mark};
use crate::vitals::alerts::{AlertSettings, Alerts};
use crate::vitals::heartbeat::{Heartbeat, HeartbeatSettings};
use crate::web::Site;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) fn start_log(
    config: &Config,
    forms: Forms,
    beats: &'static Beats,
) -> Result<(ThreadHandle<()>, LogControl), StartError> {
    let started = logging::start(config.log_level, forms, Some(&config.log_path()));
    let (thread, control) = started.map_err(resource("the log"))?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        log::error!(
            "🚨 thread {} panicked: {panic}",
            thread.name().unwrap_or("without a name")
        );
    }));
    let handle = thread.start(shown_by(beats.log)).map_err(resource("thread log"))?;
    if let Some(zone) = forms.terminal.zone() {
        log::info!("🕐 times on this terminal are {zone}, in the log's file UTC; with --utc they are UTC here too");
    }
    Ok((handle, control))
}

/// Shows the phases of a thread that knows nothing of beats.
fn shown_by(beat: &'static Beat) -> impl FnMut(Phase) {
    move |phase| {
        match phase {
            Phase::Begun => return beat.adopt(),
            Phase::Ended => {}
            Phase::Waiting | Phase::Writing => drill::obey(beat),
        }
        beat.turn_to(match phase {
            Phase::Begun | Phase::Waiting => Operation::Waiting,
            Phase::Writing => Operation::Writing,
            Phase::Ended => Operation::Ended,
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

/// What the fan-out goes on from, what the journal shows of itself, and its threads before they run.
pub(super) struct OpenedJournal {
    pub(super) record: Record,
    pub(super) gauges: Option<Arc<JournalGauges>>,
    pub(super) threads: Option<JournalThreads>,
}

/// `journal` and `journal-sync`, and the request that ends both.
pub(super) struct JournalThreads {
    pub(super) journal: Journal,
    pub(super) flusher: Flusher,
    pub(super) stop: Stop,
}

/// Recovers the journal, if there is to be one. `progress` keeps the way into it. Blocks on the disk.
pub(super) fn open_journal(
    settings: Option<&JournalSettings>,
    history_bytes: usize,
    beats: &'static Beats,
    progress: &Progress,
) -> Result<OpenedJournal, StartError> {
    let Some(settings) = settings else {
        beats.journal.turn_to(Operation::Ended);
        beats.journal_sync.turn_to(Operation::Ended);
        return Ok(OpenedJournal {
            record: Record::unkept(history_bytes),
            gauges: None,
            threads: None,
        });
    };
    let stop = new_stop()?;
    let Opened {
        mut record,
        journal,
        flusher,
        gauges,
    } = Journal::open(settings, beats.journal, beats.journal_sync, stop.clone()).map_err(StartError::Journal)?;
    if let Some(queue) = record.journal.take() {
        progress.keep_journal(queue, beats.journal);
    }
    Ok(OpenedJournal {
        record,
        gauges: Some(gauges),
        threads: Some(JournalThreads { journal, flusher, stop }),
    })
}

pub(super) fn start_journal(journal: Journal, stop: Stop) -> Result<Part, StartError> {
    let thread = journal.start().map_err(resource("thread journal"))?;
    Ok(Part::new(Turn::Journal, stop, thread))
}

pub(super) fn start_journal_sync(flusher: Flusher, stop: Stop) -> Result<Part, StartError> {
    let thread = flusher.start().map_err(resource("thread journal-sync"))?;
    Ok(Part::new(Turn::JournalSync, stop, thread))
}

/// The slots of the files that have a path.
pub(super) struct Slots {
    pub(super) state: Option<Slot>,
    pub(super) learned: Option<Slot>,
    pub(super) status: Option<Slot>,
}

/// Starts `files`, if there is a file to keep.
pub(super) fn start_files(
    state: Option<PathBuf>,
    status: Option<PathBuf>,
    beats: &'static Beats,
) -> Result<(Slots, Option<Part>), StartError> {
    let mut kept = Vec::new();
    let mut keep = |path: Option<PathBuf>, durability, if_not_written| {
        let path = path?;
        let (slot, content) = files::slot();
        kept.push(KeptFile {
            path,
            content,
            durability,
            if_not_written,
        });
        Some(slot)
    };
    let learned = state.as_deref().map(learned_path);
    let slots = Slots {
        state: keep(
            state,
            Durability::Flushed,
            "after a restart what changes from now on would be missing",
        ),
        learned: keep(
            learned,
            Durability::Flushed,
            "after a restart the server would learn anew what machines usually do",
        ),
        status: keep(
            status,
            Durability::Cached,
            "whoever watches it must take this server for hung or dead",
        ),
    };
    if kept.is_empty() {
        beats.files.turn_to(Operation::Ended);
        return Ok((slots, None));
    }
    let stop = new_stop()?;
    let thread = files::start(kept, stop.clone(), shown_by(beats.files)).map_err(resource("thread files"))?;
    Ok((slots, Some(Part::new(Turn::Files, stop, thread))))
}

/// What `enginedb` goes on from.
pub(super) fn engine_db_beginning(history: &History, machines: &Machines) -> EngineDbBeginning {
    let journal_end = history.all().back().map(|batch| batch.time());
    EngineDbBeginning {
        since: journal_end.unwrap_or_else(epoch_seconds),
        recovered_to: recovered_to(history, machines),
        resumes: journal_end.is_some(),
        known: machines.in_database().map(Into::into).collect(),
    }
}

/// Starts `enginedb`, if there is a database to read, and waits a moment for its first look. Blocks 500 ms at most.
#[cfg(feature = "engine-db")]
pub(super) fn start_engine_db(
    ground: &Ground,
    given: Option<(EngineDbSettings, EngineDbBeginning)>,
) -> Result<Option<Part>, StartError> {
    use crate::engine_db::reader::{Reader, START_WAIT};
    let (Some((settings, beginning)), Some(gauges)) = (given, ground.vitals.engine_db.clone()) else {
        ground.beats.enginedb.turn_to(Operation::Ended);
        return Ok(None);
    };
    let stop = new_stop()?;
    let (looked, first_look) = crossbeam_channel::bounded(1);
    let (fanout, beat) = (ground.fanout.clone(), ground.beats.enginedb);
    let reader = Reader::new(settings, beginning, fanout, gauges, looked, beat, stop.clone());
    let thread = reader.start().map_err(resource("thread enginedb"))?;
    // Without it in time, whoever connects now is told when it is there.
    let _ = first_look.recv_timeout(START_WAIT);
    Ok(Some(Part::new(Turn::EngineDb, stop, thread)))
}

#[cfg(not(feature = "engine-db"))]
pub(super) fn start_engine_db(
    ground: &Ground,
    _: Option<(EngineDbSettings, EngineDbBeginning)>,
) -> Result<Option<Part>, StartError> {
    ground.beats.enginedb.turn_to(Operation::Ended);
    Ok(None)
}

pub(super) fn start_detector(
    ground: &Ground,
    settings: DetectorSettings,
    slot: Option<Slot>,
) -> Result<Part, StartError> {
    let stop = new_stop()?;
    let (fanout, gauges) = (ground.fanout.clone(), Arc::clone(&ground.fanout_gauges));
    let findings = Arc::clone(&ground.vitals.findings);
    let beat = ground.beats.detector;
    let detector = Detector::new(settings, fanout, gauges, findings, slot, beat, stop.clone());
    let thread = detector.start().map_err(resource("thread detector"))?;
    Ok(Part::new(Turn::Detector, stop, thread))
}

/// Starts `reports`, and returns the way to it, too.
pub(super) fn start_reports(ground: &Ground, settings: &Settings) -> Result<(Reports, Part), StartError> {
    let stop = new_stop()?;
    let (reports, writer) = Reports::new(settings.report_path.clone(), ground.beats.reports, stop.clone())
        .map_err(resource("a descriptor"))?;
    let thread = writer.start().map_err(resource("thread reports"))?;
    Ok((reports, Part::new(Turn::Reports, stop, thread)))
}

pub(super) fn start_watchdog(
    ground: &Ground,
    settings: &Settings,
    reports: Reports,
    notifier: Arc<Notifier>,
) -> Result<Part, StartError> {
    let (intake, log) = (ground.vitals.intake.clone(), ground.vitals.log.clone());
    let mut backlogs = vec![Backlog {
        beat: ground.beats.fanout,
        waiting: Box::new(move || {
            let (events, kb) = (intake.len(), intake.bytes() / 1024);
            (events > 0).then(|| format!("{}, {kb} KB", count(events, "event")))
        }),
    }];
    if let Some(log) = log.clone() {
        backlogs.push(Backlog {
            beat: ground.beats.log,
            waiting: Box::new(move || log.has_waiting().then(|| "log lines".to_owned())),
        });
    }
    let ways = Ways {
        voice: Voice::new("watchdog", log),
        reporter: Reporter::new(reports),
        notifier,
    };
    let stop = new_stop()?;
    let (demand, beats) = (ground.demand.clone(), ground.beats);
    let watchdog = Watchdog::new(&settings.watchdog, beats, backlogs, ways, demand, stop.clone());
    let thread = watchdog.start().map_err(resource("thread watchdog"))?;
    Ok(Part::new(Turn::Watchdog, stop, thread))
}

pub(super) fn start_heartbeat(
    ground: &Ground,
    settings: HeartbeatSettings,
    status_slot: Option<Slot>,
) -> Result<Part, StartError> {
    let stop = new_stop()?;
    let heartbeat = Heartbeat::new(
        settings,
        Arc::clone(&ground.vitals),
        status_slot,
        ground.beats.heartbeat,
        stop.clone(),
        ground.stopping.clone(),
    );
    let thread = heartbeat.start().map_err(resource("thread heartbeat"))?;
    Ok(Part::new(Turn::Heartbeat, stop, thread))
}

/// Starts `alerts`, if there is a command to run.
pub(super) fn start_alerts(ground: &Ground, settings: Option<AlertSettings>) -> Result<Option<Part>, StartError> {
    let (Some(settings), Some(gauges)) = (settings, ground.vitals.alerts.clone()) else {
        ground.beats.alerts.turn_to(Operation::Ended);
        return Ok(None);
    };
    let stop = new_stop()?;
    signals::heed_children().map_err(resource("a handler of SIGCHLD"))?;
    let alerts = Alerts::new(
        settings,
        Arc::clone(&ground.vitals),
        gauges,
        ground.beats.alerts,
        stop.clone(),
    );
    let thread = alerts.start().map_err(resource("thread alerts"))?;
    Ok(Some(Part::new(Turn::Alerts, stop, thread)))
}

/// Makes the admin socket. Without it at a usual place the server serves all the same, and says so.
pub(super) fn bind_admin(config: &Config, port: u16, progress: &Progress) -> Result<Option<Bound>, StartError> {
    let mut failed = Vec::new();
    for path in place::candidates(&config.admin_socket, port, &config.log_dir) {
        match Bound::new(&path, config.admin_group) {
            Ok(bound) => {
                progress.has_made(&bound.path);
                progress.has_locked(&bound.path);
                return Ok(Some(bound));
            }
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

/// Starts `admin`, if it has a socket. It leaves the threads of requests that still run when it ends.
pub(super) fn start_admin(
    ground: &Ground,
    settings: &Settings,
    bound: Option<Bound>,
    site: Arc<Site>,
) -> Result<Option<Part>, StartError> {
    let Some(bound) = bound else {
        ground.beats.admin.turn_to(Operation::Ended);
        return Ok(None);
    };
    let rule = Rule {
        own_uid: rustix::process::geteuid().as_raw(),
        group: settings.admin_group,
    };
    let stop = new_stop()?;
    let (acting, gauges) = (ground.acting(settings), Arc::clone(&ground.admin_gauges));
    let admin = Admin::new(bound, rule, acting, site, gauges, ground.beats.admin, stop.clone());
    let thread = admin.start().map_err(resource("thread admin"))?;
    Ok(Some(Part::parent(Turn::Admin, stop, thread, Turn::AdminRequests)))
}
