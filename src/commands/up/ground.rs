//! What stands before the first service starts: the log, the run folder, the control socket, the list of processes.

use super::arguments::Up;
use super::running::Running;
use crate::commands::complain;
use crate::process::clock::pause;
use crate::process::files::Phase;
use crate::process::logging;
use crate::process::logging::form::{Forms, LogFormat};
use crate::process::signals::EndSignals;
use crate::process::stop::Stop;
use crate::supervise::act::Act;
use crate::supervise::ask;
use crate::supervise::board::Board;
use crate::supervise::census::Census;
use crate::supervise::children::Children;
use crate::supervise::conflicts::Counter;
use crate::supervise::conflicts::telling::Telling;
use crate::supervise::control::Control;
use crate::supervise::events::Events;
use crate::supervise::guard::{Beats, Guard};
use crate::supervise::log_files::Keep;
use crate::supervise::look::Look;
use crate::supervise::record::{Here, RecordFile};
use crate::supervise::run_folder::RunFolder;
use crate::supervise::settings::plan::Plan;
use crate::supervise::settings::server;
use crate::supervise::spawn;
use crate::supervise::watch::Watches;
use log::LevelFilter;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An earlier run ends within this time and that which its services have to stop.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);
/// Time between two looks for it.
const LOOK: Duration = Duration::from_millis(50);
/// The log's file, below the folder of logs.
const LOG_FILE: &str = "monitoring.log";

/// What stands before the first service starts.
#[derive(Debug)]
pub(super) struct Ground {
    plan: Arc<Plan>,
    folder: RunFolder,
}

impl Ground {
    /// Takes the run folder, with `replace` from an earlier run. Blocks until that has ended, or will not.
    ///
    /// # Errors
    /// Another supervisor has the folder, or it cannot be used; the text says why and what to do.
    pub(super) fn new(plan: Plan, up: &Up, signals: Option<&EndSignals>) -> Result<Ground, String> {
        let plan = Arc::new(server::among_services(plan, up.serve)?);
        if up.replace {
            replace_earlier(&plan, signals)?;
        }
        spawn::prepare().map_err(|error| format!("cannot supervise: {error}"))?;
        let opened = RunFolder::open(&plan.supervise.run_dir).map_err(|error| error.to_string())?;
        let (folder, notice) = opened;
        if let Some(notice) = notice {
            complain(&format!("threadcast: {notice}\n"));
        }
        Ok(Ground { plan, folder })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The host refuses something; the text says what.
    pub(super) fn start(self) -> Result<Running, String> {
        let Ground { plan, folder } = self;
        let supervise = &plan.supervise;
        fs::create_dir_all(&supervise.log_dir)
            .map_err(|error| format!("cannot make {}: {error}", supervise.log_dir.display()))?;
        let forms = Forms::of_process(LogFormat::default(), false);
        let file = supervise.log_dir.join(LOG_FILE);
        let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        let (log, log_control) = logging::start(LevelFilter::Info, forms, Some(&file)).map_err(io("the log"))?;
        let log = log.start(|_: Phase| {}).map_err(io("thread log"))?;
        let children = Children::default();
        let census = || Census::new(folder.id(), children.clone()).map_err(|error| format!("/proc: {error}"));
        let (ours, theirs) = (census()?, census()?);
        let here = Here::now().map_err(io("/proc"))?;
        let (record, left) = RecordFile::open(&folder, here).map_err(io("the record of what runs"))?;
        let left = left.unwrap_or_else(|set_aside| {
            log::warn!("⚠️ {set_aside}");
            None
        });
        let unused = unused(&plan);
        if !unused.is_empty() {
            log::warn!("⚠️ this version reads {} and does not act on it yet", unused.join(", "));
        }
        let board = Board::default();
        let beats = Beats::new();
        let listener = folder.listen().map_err(io("the control socket"))?;
        let events = Events::to(supervise.events.as_deref());
        let every = supervise.interval;
        let keep = Keep {
            bytes: supervise.log_bytes as u64,
            files: supervise.log_keep as u32,
        };
        let act = Act::new(
            Arc::clone(&plan),
            (folder, record, left),
            (ours, children.clone()),
            board.clone(),
            events,
            beats.act,
        );
        let (act, handle) = act.map_err(io("thread act"))?;
        let mut others = Vec::new();
        let stop = Stop::new().map_err(io("thread control"))?;
        let control = Control::new(listener, board.clone(), handle.clone(), beats.control, stop.clone());
        others.push((stop, control.start().map_err(io("thread control"))?));
        let stop = Stop::new().map_err(io("thread look"))?;
        let conflicts = telling(&plan)?;
        let (look_beat, look_stop) = (beats.look, stop.clone());
        let look = Look::new(theirs, board.clone(), (every, keep), conflicts, look_beat, look_stop);
        others.push((stop, look.start().map_err(io("thread look"))?));
        let has_watch = !plan.watches.is_empty();
        if has_watch {
            let stop = Stop::new().map_err(io("thread watch"))?;
            let events = Events::to(supervise.events.as_deref());
            let watches = Watches::new(&plan.watches, events, beats.watch, stop.clone());
            others.push((stop, watches.start().map_err(io("thread watch"))?));
        }
        // The last one, so that no service runs if a thread is refused.
        let act_thread = act.start().map_err(io("thread act"))?;
        Ok(Running {
            plan,
            board,
            children,
            act: handle,
            guard: Guard::new(beats, has_watch),
            act_thread,
            others,
            log: (log_control, log),
        })
    }
}

/// What tells of programs that run too often.
fn telling(plan: &Plan) -> Result<Telling, String> {
    let counter = Counter::new(plan.conflicts.clone()).map_err(|error| format!("/proc: {error}"))?;
    Ok(Telling::new(counter, Events::to(plan.supervise.events.as_deref())))
}

/// Asks an earlier run of the same folder to end, and waits until it has.
fn replace_earlier(plan: &Plan, signals: Option<&EndSignals>) -> Result<(), String> {
    let run_dir = &plan.supervise.run_dir;
    let stops: Duration = plan.services.iter().map(|service| service.stop.wait).sum();
    let deadline = Instant::now() + stops + REPLACED_WITHIN;
    let mut is_asked = false;
    loop {
        match ask::ask(run_dir, &serde_json::json!({"do": "end"})) {
            Ok(_) => is_asked = true,
            // Nobody listens there any more, or never did.
            Err(ask::Unanswered::Nobody) => return Ok(()),
            Err(ask::Unanswered::Other(why)) if !is_asked => return Err(why),
            Err(ask::Unanswered::Other(_)) => {}
        }
        if signals.is_some_and(EndSignals::requested) {
            return Err("a signal came before the earlier run had ended; nothing was started".to_owned());
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "the earlier run of {} does not end; `threadcast services status --run-dir {}` says what it does",
                run_dir.display(),
                run_dir.display()
            ));
        }
        pause(LOOK);
    }
}

/// What the file says and nothing follows from.
fn unused(plan: &Plan) -> Vec<&'static str> {
    let services = || plan.services.iter();
    let all = [
        (
            "[service.NAME.evidence]",
            services().any(|service| service.evidence.signal.is_some() || service.evidence.command.is_some()),
        ),
        (
            "[cleanup]",
            !plan.cleanup.files.is_empty() || !plan.cleanup.asks.is_empty(),
        ),
    ];
    all.into_iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(name, _)| name)
        .collect()
}
