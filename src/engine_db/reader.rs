//! Reads the engine's database: at the start, and again whenever it has changed.
//!
//! Runs on: `enginedb`, at most one.
//! Owns: the connection to the database, and how far it has been read.
//! Blocks on: the clock (250 ms), a locked database (250 ms), a statement (1 s), the fan-out's answer (in turns of 250
//! ms).
//! Can be stalled by: the disk; the fan-out. Nobody waits for this thread but the start, 500 ms, and the stop, with a
//! bound.
//! Full queue means: of requests to the fan-out: this thread waits; what it has found is still in the database.
//! Ends when: asked to, or the fan-out is over.
//! Watched as: `enginedb`; not a core thread, a stall makes health `degraded`.

use crate::engine_db::fault::Fault;
use crate::engine_db::source::{Change, FileId, Source, Written};
use crate::engine_db::{
    Condition, EngineDbBeginning, EngineDbGauges, EngineDbSettings, STALE_LISTED_MAX, StaleMachine,
};
use crate::fanout::requests::{FanoutHandle, Found};
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::clock::{pause, rfc3339, timespec};
use crate::process::procfs::{HostBegun, Processes};
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::values::show_duration;
use crate::process::waits;
use crate::process::words::{count, pick};
use crate::stream::event::Refused;
use crate::stream::machines::merge::EngineRow;
use crate::stream::machines::recovered::{RecoveredTo, mark};
use crate::stream::machines::row::Process;
use crossbeam_channel::{Receiver, Select, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the database is looked at, at most, if that takes so long that engines would notice.
const SLOW_LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long the thread waits before it shows that it is alive.
const TURN: Duration = Duration::from_millis(250);
/// So many looks in a row must see a fault before it is said: a writer may be in the middle of something.
const LOOKS_BEFORE_WORD: u32 = 2;
/// Rows that the fan-out takes in one turn; more would delay the events behind them.
const ROWS_PER_TURN: usize = 256;
/// Names of machines whose rows are gone that the fan-out takes in one turn; they are smaller than rows.
const NAMES_PER_TURN: usize = 2048;
/// Events that the fan-out takes in one turn.
const EVENTS_PER_TURN: usize = 64;
/// Bytes of these events, 64 KiB together; one event may be larger.
const EVENT_BYTES_PER_TURN: usize = 64 * 1024;
/// The start of the server waits this long for the first look, so that the first client sees what was there before.
pub const START_WAIT: Duration = Duration::from_millis(500);
/// If a process that seems gone has written its row so often, we only cannot see it: it is in a container.
const ROWS_OF_THE_UNSEEN: u32 = 2;

/// A row as it was told to the fan-out, and the process that wrote it.
#[derive(Debug)]
struct Told {
    row: EngineRow,
    pid: Option<i32>,
    /// How often that process has written while it seemed to be gone.
    written_by_unseen: u32,
}

impl Told {
    fn judge(&mut self, processes: &mut Processes) {
        self.row.process = match self.pid {
            None => Process::Unknown,
            Some(_) if self.written_by_unseen >= ROWS_OF_THE_UNSEEN => Process::Unknown,
            Some(pid) => {
                let at = self.row.time.is_some().then(|| self.row.seconds());
                if processes.is_gone(pid, at) {
                    Process::Gone
                } else {
                    Process::Lives
                }
            }
        };
    }
}

/// What the thread does after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It looks again.
    Again,
    /// It was asked to end.
    Over,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Reader {
    settings: EngineDbSettings,
    source: Source,
    fanout: FanoutHandle,
    gauges: Arc<EngineDbGauges>,
    beat: &'static Beat,
    stop: Stop,
    /// Gets word of the first look, for the thread that starts us.
    looked: Option<Sender<()>>,
    machines: BTreeMap<Box<str>, Told>,
    /// By which the beginnings of processes are compared with the times of rows.
    host: HostBegun,
    /// Rows of a former server that were not read yet.
    known: BTreeSet<Box<str>>,
    position: Option<RecoveredTo>,
    /// Refused events count from here on, seconds since the epoch.
    since: f64,
    /// Those that came while no server ran count too.
    resumes: bool,
    /// It is a former server's.
    is_former: bool,
    /// Looks in a row that found a fault, and those that were said.
    faults: (u32, Vec<Fault>),
    /// The file whose rows were said last.
    said: Option<FileId>,
    begun: Instant,
    /// It was not there when it was looked at first.
    was_absent: bool,
    /// That nothing is there was said.
    nothing_said: bool,
    has_read: bool,
}

/// Why a look did not come to its end.
#[derive(Debug)]
enum Interrupted {
    /// The thread is to end: asked to, or the fan-out is over.
    Ending,
    By(Fault),
}

impl From<Fault> for Interrupted {
    fn from(fault: Fault) -> Interrupted {
        Interrupted::By(fault)
    }
}

impl Reader {
    /// Ready to run. `looked` gets word of the first look.
    pub fn new(
        settings: EngineDbSettings,
        beginning: EngineDbBeginning,
        fanout: FanoutHandle,
        gauges: Arc<EngineDbGauges>,
        looked: Sender<()>,
        beat: &'static Beat,
        stop: Stop,
    ) -> Reader {
        Reader {
            source: Source::new(settings.path.clone(), settings.event_bytes_max, beat),
            known: beginning.known.into_iter().collect(),
            position: beginning.recovered_to,
            is_former: true,
            settings,
            since: beginning.since,
            resumes: beginning.resumes,
            fanout,
            gauges,
            beat,
            stop,
            looked: Some(looked),
            machines: BTreeMap::new(),
            host: HostBegun::now(),
            faults: (0, Vec::new()),
            said: None,
            begun: Instant::now(),
            was_absent: false,
            nothing_said: false,
            has_read: false,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("enginedb", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        loop {
            let begun = Instant::now();
            let every = match self.look_and_judge() {
                Err(()) => break,
                Ok(every) => every,
            };
            if let Some(looked) = self.looked.take() {
                // The thread that started us may have given up.
                let _ = looked.try_send(());
            }
            if self.wait_until(begun + every) == Turn::Over {
                break;
            }
        }
        self.beat.turn_to(Operation::Ended);
    }

    /// Blocks until `due`, or until the thread is asked to end.
    fn wait_until(&self, due: Instant) -> Turn {
        loop {
            drill::obey(self.beat);
            let left = due.saturating_duration_since(Instant::now());
            if self.stop.requested() {
                return Turn::Over;
            }
            if left.is_zero() {
                return Turn::Again;
            }
            let _doing = self.beat.begin(Operation::Waiting);
            let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
            // Interrupted or not, the clock tells.
            let _ = waits::ENGINE_DB.judge(poll(&mut fds, Some(&timespec(left.min(TURN)))));
        }
    }

    /// One look; when the next one is due, or an error to end.
    fn look_and_judge(&mut self) -> Result<Duration, ()> {
        match self.look() {
            Ok(()) => {
                self.judge_good();
                Ok(self.settings.interval)
            }
            Err(Interrupted::Ending) => Err(()),
            Err(Interrupted::By(fault)) => {
                // Processes end, and live, all the same.
                if let Err(Interrupted::Ending) = self.tell_of_processes() {
                    return Err(());
                }
                Ok(self.judge(fault))
            }
        }
    }

    /// One look, and what it finds taken in by the fan-out.
    fn look(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let change = self.source.look()?;
        drop(doing);
        if let Change::Absent | Change::Empty = change {
            self.was_absent |= !self.has_read;
            let condition = self.judge_nothing(change);
            self.gauges.looked(condition);
            return Ok(());
        }
        if change == Change::Something {
            // Events first: a row is what the last of them made.
            let recovered = self.recover();
            if !matches!(recovered, Err(Interrupted::Ending)) {
                self.read_machines()?;
            }
            recovered?;
            self.source.note_read();
        } else {
            self.tell_of_processes()?;
        }
        self.gauges.looked(Condition::Fine);
        Ok(())
    }

    /// Nothing is there. Engines make the default path when they start, so that is no fault; a path that somebody gave
    /// may be a wrong one, which the log says once.
    fn judge_nothing(&mut self, change: Change) -> Condition {
        if !self.settings.is_given {
            return Condition::Absent;
        }
        let path = self.source.path();
        let what = match (change, path.parent()) {
            (Change::Empty, _) => "the file is empty",
            (_, Some(folder)) if !folder.as_os_str().is_empty() && !folder.exists() => {
                "there is no such file, and not even its folder"
            }
            _ => "there is no such file",
        };
        let every = show_duration(self.settings.interval);
        if !std::mem::replace(&mut self.nothing_said, true) {
            log::warn!(
                "⚠️ engine database {} (--db): {what}. Machines that run already do not show before their next event. It is \
                 read as soon as an engine has made it: looking again every {every}",
                std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display()
            );
        }
        Condition::Missing(format!("{what}; looking again every {every}"))
    }

    fn judge_good(&mut self) {
        let (_, said) = std::mem::take(&mut self.faults);
        if !said.is_empty() {
            let (path, machines) = (self.source.path().display(), count(self.machines.len(), "machine"));
            log::info!("✅ engine database {path} can be read again: {machines}");
        }
    }

    /// Says a fault once it lasts, each kind once until all is well again; when the next look is due.
    fn judge(&mut self, fault: Fault) -> Duration {
        let path = self.source.path().to_owned();
        // Of a lock and a lost file the connection knows itself; for anything else the next look begins anew.
        if !matches!(fault, Fault::Locked | Fault::Gone) {
            self.source.close();
        }
        let every = match fault {
            Fault::Slow(_) => SLOW_LOOK_EVERY.max(self.settings.interval),
            _ => self.settings.interval,
        };
        self.gauges.looked(fault.condition(&path));
        self.faults.0 = self.faults.0.saturating_add(1);
        if self.faults.0 >= LOOKS_BEFORE_WORD && !self.faults.1.contains(&fault) {
            log::warn!("{}", fault.line(&path, every));
            self.faults.1.push(fault);
        }
        every
    }

    /// Reads all rows and tells the fan-out what is new.
    fn read_machines(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let (written, is_whole) = self.source.machines()?;
        let mut before = std::mem::take(&mut self.machines);
        let mut processes = Processes::now(&mut self.host);
        let mut rows = Vec::new();
        for Written { row, pid } in written {
            self.beat.step();
            let old = before.remove(&row.machine);
            let mut told = Told {
                written_by_unseen: old.as_ref().map_or(0, |old| unseen_writes(old, &row, pid)),
                row,
                pid,
            };
            told.judge(&mut processes);
            if old.is_none_or(|old| old.row != told.row) {
                rows.push(told.row.clone());
            }
            self.machines.insert(told.row.machine.clone(), told);
        }
        drop(doing);
        self.known.retain(|machine| !self.machines.contains_key(machine));
        let mut vanished = Vec::new();
        if is_whole {
            vanished.extend(before.into_keys());
            vanished.extend(std::mem::take(&mut self.known));
        }
        self.tell(rows, vanished)?;
        self.has_read = true;
        let stale = self.show();
        if self.said != self.source.file() {
            self.said = self.source.file();
            let machines = count(self.machines.len(), "machine");
            let stale = match stale {
                0 => String::new(),
                stale => format!(", {stale} of them stale"),
            };
            let more = if is_whole {
                ""
            } else {
                "; it has more, of which the newest count"
            };
            log::info!(
                "🗄️ engine database {}: {machines}{stale}{more}",
                self.source.path().display()
            );
        }
        Ok(())
    }

    /// The database has not changed, or cannot be read, but processes may have ended.
    fn tell_of_processes(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let mut rows = Vec::new();
        let mut processes = Processes::now(&mut self.host);
        for told in self.machines.values_mut() {
            self.beat.step();
            let before = told.row.process;
            told.judge(&mut processes);
            if told.row.process != before {
                rows.push(told.row.clone());
            }
        }
        drop(doing);
        if !rows.is_empty() {
            self.tell(rows, Vec::new())?;
            self.show();
        }
        Ok(())
    }

    /// Leaves rows with the fan-out, as much at a time as a turn should take.
    fn tell(&mut self, rows: Vec<EngineRow>, vanished: Vec<Box<str>>) -> Result<(), Interrupted> {
        let mut rows = rows.into_iter();
        let mut vanished = vanished.into_iter();
        loop {
            let mut found = Found {
                rows: rows.by_ref().take(ROWS_PER_TURN).collect(),
                vanished: vanished.by_ref().take(NAMES_PER_TURN).collect(),
                ..Found::default()
            };
            let is_last = rows.len() + vanished.len() == 0;
            if is_last && !self.has_read && !self.machines.is_empty() {
                found.came_late = !self.was_absent && self.begun.elapsed() > START_WAIT;
            }
            self.hand_over(found)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Shows what was read; returns how many rows are stale.
    fn show(&self) -> usize {
        let is_stale = |told: &&Told| told.row.process == Process::Gone;
        let stale = || self.machines.values().filter(is_stale);
        let listed = stale().take(STALE_LISTED_MAX).map(|told| StaleMachine {
            machine: told.row.machine.clone(),
            pid: told.pid.unwrap_or_default(),
            last_activity: told.row.time.clone(),
        });
        let count = stale().count();
        self.gauges.read(self.machines.len(), (count, listed.collect()));
        count
    }

    /// Feeds the events that engines could not send since the last look.
    fn recover(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let newest = self.source.newest_event()?;
        let mut position = self.position(newest)?;
        drop(doing);
        let mut recovered = 0;
        while position < newest {
            let doing = self.beat.begin(Operation::ReadingDatabase);
            let events = self.source.events((position, newest), EVENTS_PER_TURN)?;
            drop(doing);
            let is_last_page = events.len() < EVENTS_PER_TURN;
            recovered += events.len();
            for part in parts(events) {
                position = self.hand_over_events(part, position)?;
            }
            if is_last_page {
                position = newest;
            }
        }
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let to = RecoveredTo {
            file: self.named_file()?,
            id: position,
            mark: self.source.mark_of(position)?.unwrap_or_default(),
        };
        drop(doing);
        if recovered > 0 || self.position.as_ref() != Some(&to) {
            let found = Found {
                recovered_to: Some(to.clone()),
                all_recovered: true,
                ..Found::default()
            };
            self.hand_over(found)?;
        }
        self.position = Some(to);
        self.is_former = false;
        if recovered > 0 {
            log::info!(
                "↩️ {} that engines could not send {} recovered from {}",
                count(recovered, "event"),
                pick(recovered, "was", "were"),
                self.source.path().display()
            );
        }
        Ok(())
    }

    /// Hands over events, which are not empty; returns the row of the last.
    fn hand_over_events(&mut self, events: Vec<Refused>, before: u64) -> Result<u64, Interrupted> {
        let (count, file) = (events.len() as u64, self.named_file()?);
        let to = events.last().map(|last| RecoveredTo {
            file,
            id: last.row.get(),
            mark: mark(&last.datagram),
        });
        let found = Found {
            events,
            recovered_to: to.clone(),
            ..Found::default()
        };
        self.hand_over(found)?;
        self.gauges.recovered(count);
        let id = to.as_ref().map_or(before, |to| to.id);
        // From here on they are ours, also if the next statement fails.
        self.position = to;
        self.is_former = false;
        Ok(id)
    }

    fn named_file(&self) -> Result<String, Fault> {
        let (device, inode) = self.source.file().ok_or(Fault::Gone)?;
        Ok(format!("{device}:{inode}"))
    }

    /// After which row events are to be recovered: where we were, where a former server was, or by the time.
    fn position(&self, newest: u64) -> Result<u64, Fault> {
        let before = match &self.position {
            Some(before) if self.is_known(before, newest)? => Some(before.id),
            _ => None,
        };
        if let Some(id) = before.filter(|_| !self.is_former || self.resumes) {
            return Ok(id);
        }
        let since = rfc3339(self.since);
        // As SQLite writes it, in whole seconds.
        let by_time = self.source.position_at(&since[..19].replace('T', " "))?;
        Ok(by_time.max(before.unwrap_or(0)))
    }

    /// Returns whether the table is the one in which that row was, or a copy of it.
    fn is_known(&self, before: &RecoveredTo, newest: u64) -> Result<bool, Fault> {
        match self.source.mark_of(before.id)? {
            Some(mark) => Ok(mark == before.mark),
            // Somebody has deleted it, if the table has ever given such an id.
            None => Ok(before.file == self.named_file()? && before.id <= newest.max(self.source.last_given()?)),
        }
    }

    /// Waits until the fan-out has taken it in.
    fn hand_over(&self, found: Found) -> Result<(), Interrupted> {
        let _doing = self.beat.begin(Operation::HandingOver);
        let wait = |answer: Option<&Receiver<()>>| {
            drill::obey(self.beat);
            self.beat.step();
            match answer {
                // What it has given stays in the channel for the next look.
                Some(answer) => {
                    let mut ready = Select::new();
                    ready.recv(answer);
                    let _ = ready.ready_timeout(TURN);
                }
                None => pause(TURN),
            }
            !self.stop.requested()
        };
        if self.fanout.take_in(found, wait) {
            Ok(())
        } else {
            Err(Interrupted::Ending)
        }
    }
}

/// How often the process of `old` has written while it seemed to be gone, the row that is there now included.
fn unseen_writes(old: &Told, row: &EngineRow, pid: Option<i32>) -> u32 {
    let seems_gone = old.row.process == Process::Gone && old.row.time != row.time;
    if old.pid == pid {
        old.written_by_unseen + u32::from(seems_gone)
    } else {
        0
    }
}

/// Events in parts that a turn of the fan-out takes.
fn parts(events: Vec<Refused>) -> Vec<Vec<Refused>> {
    let mut parts: Vec<Vec<Refused>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        bytes += event.datagram.len();
        match parts.last_mut() {
            Some(part) if bytes <= EVENT_BYTES_PER_TURN => part.push(event),
            _ => {
                bytes = event.datagram.len();
                parts.push(vec![event]);
            }
        }
    }
    parts
}
