//! Reads the engine's database: at the start, and again whenever it has changed.
//!
//! Runs on: `enginedb`, at most one.
//! Owns: the connection to the database, and how far it has been read.
//! Blocks on: the clock (250 ms), a locked database (250 ms), a statement (1 s), the fan-out's answer (in turns of 250 ms).
//! Can be stalled by: the disk; the fan-out. Nobody waits for this thread but the start, 500 ms, and the stop, with a bound.
//! Full queue means: of requests to the fan-out: this thread waits; what it has found is still in the database.
//! Ends when: asked to, or the fan-out is over.
//! Watched as: `enginedb`; not a core thread, a stall makes health `degraded`.

use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::pipeline::engine_db::fault::Fault;
use crate::pipeline::engine_db::source::{Change, FileId, Source, Written};
use crate::pipeline::engine_db::{Condition, EngineDbGauges, STALE_LISTED_MAX, StaleMachine};
use crate::pipeline::machines::merge::{EngineRow, RecoveredTo};
use crate::pipeline::requests::{FanoutHandle, Found};
use crate::process::clock::{pause, rfc3339, timespec};
use crate::process::procfs::Processes;
use crate::process::stop::Stop;
use crossbeam_channel::{Receiver, Select, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the database is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the thread waits before it shows that it is alive.
const TURN: Duration = Duration::from_millis(250);
/// So many looks in a row must see a fault before it is said: a writer may be in the middle of something.
const LOOKS_BEFORE_WORD: u32 = 2;
/// Rows in one turn of the fan-out, some 2 µs each.
const ROWS_PER_TURN: usize = 256;
/// Events in one turn of the fan-out, and their bytes; one event may be larger.
const EVENTS_PER_TURN: usize = 64;
const EVENT_BYTES_PER_TURN: usize = 64 * 1024;
/// The start of the server waits so long for the first look, so that whoever comes first sees what was there before.
pub const START_WAIT: Duration = Duration::from_millis(500);

/// What the thread begins with.
#[derive(Debug)]
pub struct ReaderConfig {
    pub path: PathBuf,
    /// `--max-event-bytes`.
    pub event_bytes_max: usize,
    /// Rows are told again with every look, because a living process is a sign of life.
    pub has_ttl: bool,
    /// Refused events count from here on, seconds since the epoch.
    pub since: f64,
    /// How far they were recovered before, and whether that is exact for the time in which no server ran.
    pub recovered_to: Option<RecoveredTo>,
    pub resumes: bool,
    /// Machines that had a row when a former server read the database last.
    pub known: Vec<Box<str>>,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Reader {
    config: ReaderConfig,
    source: Source,
    fanout: FanoutHandle,
    gauges: Arc<EngineDbGauges>,
    beat: &'static Beat,
    stop: Stop,
    /// The first look is told to whoever starts us.
    looked: Option<Sender<()>>,
    /// The rows as they were told to the fan-out, with the ids of their processes.
    machines: BTreeMap<Box<str>, (EngineRow, Option<i32>)>,
    /// Rows of a former server that were not read yet.
    known: BTreeSet<Box<str>>,
    position: Option<(FileId, i64)>,
    /// How often it was seen in a row.
    fault: Option<(Fault, u32)>,
    /// The file whose rows were said last.
    said: Option<FileId>,
    begun: Instant,
    /// It was not there when it was looked at first.
    was_absent: bool,
    has_read: bool,
}

/// The thread is to end: asked to, or the fan-out is over.
#[derive(Debug)]
enum Interrupted {
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
        config: ReaderConfig,
        fanout: FanoutHandle,
        gauges: Arc<EngineDbGauges>,
        (beat, stop): (&'static Beat, Stop),
        looked: Sender<()>,
    ) -> Reader {
        Reader {
            source: Source::new(config.path.clone(), config.event_bytes_max, beat),
            known: config.known.iter().cloned().collect(),
            config,
            fanout,
            gauges,
            beat,
            stop,
            looked: Some(looked),
            machines: BTreeMap::new(),
            position: None,
            fault: None,
            said: None,
            begun: Instant::now(),
            was_absent: false,
            has_read: false,
        }
    }

    /// The thread's body.
    pub fn run(mut self) {
        self.beat.adopt();
        loop {
            let due = Instant::now() + LOOK_EVERY;
            let outcome = self.look();
            if let Err(Interrupted::Ending) = outcome {
                break;
            }
            self.judge(outcome.err());
            if let Some(looked) = self.looked.take() {
                // Whoever started us may have given up.
                let _ = looked.try_send(());
            }
            if !self.wait_until(due) {
                break;
            }
        }
        self.beat.turn_to(Operation::Ended);
    }

    /// Blocks until `due`; whether the thread is to go on.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            drill::obey(self.beat);
            let left = due.saturating_duration_since(Instant::now());
            if self.stop.requested() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            let _doing = self.beat.begin(Operation::Waiting);
            let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
            // Interrupted or not, the clock tells.
            let _ = poll(&mut fds, Some(&timespec(left.min(TURN))));
        }
    }

    /// One look, and what it finds taken in by the fan-out.
    fn look(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let change = self.source.look()?;
        drop(doing);
        if change == Change::Absent {
            self.was_absent |= !self.has_read;
            self.gauges.looked(Condition::Absent);
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

    /// Says a fault once it lasts, and its end.
    fn judge(&mut self, outcome: Option<Interrupted>) {
        let path = self.source.path().to_owned();
        let fault = match outcome {
            Some(Interrupted::By(fault)) => fault,
            Some(Interrupted::Ending) => return,
            None => {
                if let Some((_, looks)) = self.fault.take()
                    && looks >= LOOKS_BEFORE_WORD
                {
                    let machines = self.machines.len();
                    log::info!(
                        "✅ engine database {} can be read again: {machines} machines",
                        path.display()
                    );
                }
                return;
            }
        };
        // Whatever it was, the next look begins anew; of a lock and a lost file the connection knows itself.
        if fault == Fault::Gone {
            self.position = None;
        } else if fault != Fault::Locked {
            self.source.close();
        }
        self.gauges.looked(fault.condition(&path));
        let looks = match self.fault.take() {
            Some((before, looks)) if before == fault => looks.saturating_add(1),
            Some((_, looks)) if looks < LOOKS_BEFORE_WORD => looks + 1,
            _ => 1,
        };
        if looks == LOOKS_BEFORE_WORD {
            log::warn!("{}", fault.line(&path, LOOK_EVERY));
        }
        self.fault = Some((fault, looks));
    }

    /// Reads all rows and tells the fan-out what is new.
    fn read_machines(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let written = self.source.machines()?;
        drop(doing);
        let mut before = std::mem::take(&mut self.machines);
        let mut processes = Processes::now();
        for Written { mut row, pid } in written {
            row.stale = pid.is_some_and(|pid| processes.is_gone(pid, row.seconds()));
            self.beat.step();
            self.machines.insert(row.machine.clone(), (row, pid));
        }
        let told = |row: &EngineRow, before: &BTreeMap<Box<str>, (EngineRow, Option<i32>)>| {
            before.get(&row.machine).is_some_and(|(told, _)| told == row)
        };
        let again = self.config.has_ttl;
        let rows: Vec<EngineRow> = self.machines.values().map(|(row, _)| row.clone()).collect();
        let rows = rows.into_iter().filter(|row| again || !told(row, &before)).collect();
        let is_whole = self.machines.len() < super::source::ROWS_MAX;
        before.retain(|machine, _| !self.machines.contains_key(machine));
        self.known.retain(|machine| !self.machines.contains_key(machine));
        let mut vanished = Vec::new();
        if is_whole {
            vanished.extend(before.into_keys());
            vanished.extend(std::mem::take(&mut self.known));
        }
        self.tell(rows, vanished)?;
        let stale = self.show();
        if self.said != self.source.file() {
            self.said = self.source.file();
            let machines = self.machines.len();
            let stale = if stale > 0 {
                format!(", {stale} of them stale")
            } else {
                String::new()
            };
            log::info!(
                "🗄️ engine database {}: {machines} machines{stale}",
                self.source.path().display()
            );
        }
        Ok(())
    }

    /// The database has not changed, but processes may have ended.
    fn tell_of_processes(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let mut rows = Vec::new();
        let mut processes = Processes::now();
        for (row, pid) in self.machines.values_mut() {
            self.beat.step();
            let stale = pid.is_some_and(|pid| processes.is_gone(pid, row.seconds()));
            if std::mem::replace(&mut row.stale, stale) != stale || self.config.has_ttl {
                rows.push(row.clone());
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
                vanished: vanished.by_ref().take(ROWS_PER_TURN).collect(),
                ..Found::default()
            };
            let is_last = rows.len() == 0 && vanished.len() == 0;
            if is_last {
                found.came_late = !self.has_read && !self.was_absent && self.begun.elapsed() > START_WAIT;
                self.has_read = true;
            }
            if !found.rows.is_empty() || !found.vanished.is_empty() || found.came_late {
                self.hand_over(found)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Shows what was read; gives how many rows are stale.
    fn show(&self) -> usize {
        let stale = || self.machines.values().filter(|(row, _)| row.stale);
        let listed = stale().take(STALE_LISTED_MAX).map(|(row, pid)| StaleMachine {
            machine: row.machine.clone(),
            pid: pid.unwrap_or_default(),
            last_activity: row.time.clone(),
        });
        let count = stale().count();
        self.gauges.read(self.machines.len(), (count, listed.collect()));
        count
    }

    /// Feeds the events that engines could not send since the last look.
    fn recover(&mut self) -> Result<(), Interrupted> {
        let doing = self.beat.begin(Operation::ReadingDatabase);
        let newest = self.source.newest_event()?;
        let (file, mut position) = self.position(newest)?;
        drop(doing);
        let mut count = 0;
        while position < newest {
            let doing = self.beat.begin(Operation::ReadingDatabase);
            let events = self.source.events((position, newest), EVENTS_PER_TURN)?;
            drop(doing);
            let is_last_page = events.len() < EVENTS_PER_TURN;
            let mut events = events.into_iter().peekable();
            while events.peek().is_some() {
                let mut found = Found::default();
                let mut bytes = 0;
                while let Some((_, event)) = events.peek() {
                    bytes += event.datagram.as_ref().map_or(0, |datagram| datagram.len());
                    if !found.events.is_empty() && bytes > EVENT_BYTES_PER_TURN {
                        break;
                    }
                    // It was just seen.
                    let Some((id, event)) = events.next() else { break };
                    position = id;
                    found.events.push(event);
                }
                count += found.events.len() as u64;
                self.recovered(found, (file, position))?;
            }
            if is_last_page {
                position = newest;
            }
        }
        let found = Found {
            all_recovered: true,
            ..Found::default()
        };
        if self.position != Some((file, position)) || count > 0 {
            self.recovered(found, (file, position))?;
        }
        if count > 0 {
            log::info!(
                "↩️ {count} events that engines could not send were recovered from {}",
                self.source.path().display()
            );
        }
        Ok(())
    }

    /// Hands over events up to `position`, which is then ours.
    fn recovered(&mut self, mut found: Found, position: (FileId, i64)) -> Result<(), Interrupted> {
        let ((device, inode), id) = position;
        found.recovered_to = Some(RecoveredTo {
            file: format!("{device}:{inode}"),
            id,
        });
        let count = found.events.len() as u64;
        self.hand_over(found)?;
        self.gauges.recovered(count);
        self.position = Some(position);
        Ok(())
    }

    /// From where on events are recovered: where we were, where a former server was, or by the time.
    fn position(&mut self, newest: i64) -> Result<(FileId, i64), Fault> {
        let file = self.source.file().ok_or(Fault::Gone)?;
        match self.position {
            // Ids grow; a table that has only smaller ones is another one.
            Some((of, id)) if of == file && id <= newest => return Ok((file, id)),
            _ => {}
        }
        let kept = self.config.recovered_to.as_ref().filter(|kept| {
            let is_same = kept.file == format!("{}:{}", file.0, file.1);
            is_same && kept.id <= newest && self.position.is_none()
        });
        if let Some(kept) = kept.filter(|_| self.config.resumes) {
            return Ok((file, kept.id));
        }
        let since = rfc3339(self.config.since);
        // As SQLite writes it, in whole seconds.
        let since = since[..19].replace('T', " ");
        let by_time = self.source.position_at(&since)?;
        Ok((file, kept.map_or(by_time, |kept| by_time.max(kept.id))))
    }

    /// Waits until the fan-out has taken it in.
    fn hand_over(&self, found: Found) -> Result<(), Interrupted> {
        let _doing = self.beat.begin(Operation::HandingOver);
        let wait = |answer: Option<&Receiver<()>>| {
            drill::obey(self.beat);
            self.beat.step();
            match answer {
                // What it has given stays in the channel for whoever looks next.
                Some(answer) => {
                    let mut ready = Select::new();
                    ready.recv(answer);
                    let _ = ready.ready_timeout(TURN);
                }
                None => pause(TURN),
            }
            !self.stop.requested()
        };
        match self.fanout.take_in(found, wait) {
            true => Ok(()),
            false => Err(Interrupted::Ending),
        }
    }
}
