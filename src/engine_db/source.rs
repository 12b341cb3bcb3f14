//! The database file: opened read-only, asked with bounds, and never changed.
//!
//! Reading takes SQLite's shared lock for one statement at a time, so that engines, which wait 5 s for it, are held for
//! milliseconds.

use crate::engine_db::fault::Fault;
use crate::engine_db::values;
use crate::liveness::beat::Beat;
use crate::process::clock::monotonic_ms;
use crate::process::safe_open;
use crate::stream::event::Refused;
use crate::stream::machines::merge::EngineRow;
use crate::stream::machines::recovered::mark;
use crate::stream::machines::row::Process;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params};
use std::fs::{self, FileType};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long SQLite waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest statement: engines cannot write while it runs.
const STATEMENT_MAX: Duration = Duration::from_secs(1);
/// SQLite's steps between two looks at the clock.
const STEPS_PER_LOOK: i32 = 1000;
/// SQLite's own memory for pages, KiB.
const CACHE_KIB: i32 = 512;
/// Most rows that are read; of more, the newest count.
pub(super) const ROWS_MAX: usize = 8192;
/// Texts of all rows together; of more, the newest count.
const ROWS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A longer text is no sensible value: it counts as none, and a machine with such a name as not there.
const TEXT_BYTES_MAX: i64 = 16 * 1024;

/// The file that a connection belongs to: device and inode.
pub(super) type FileId = (u64, u64);

/// What a look at the file found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// No file.
    Absent,
    /// An empty file.
    Empty,
    /// What was read is what is there.
    Nothing,
    /// There is something new.
    Something,
}

/// A row with the process that wrote it.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) row: EngineRow,
    pub(super) pid: Option<i32>,
}

/// What is no regular file, in words.
fn kind_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The database.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    open: Option<(Connection, FileId)>,
    was_open: bool,
    /// `PRAGMA data_version` when it was last read whole.
    seen: Option<i64>,
    version: Option<i64>,
    /// When the statement that runs is interrupted, milliseconds of the monotonic clock.
    deadline_ms: Arc<AtomicU64>,
    beat: &'static Beat,
    event_bytes_max: usize,
}

impl Source {
    /// Opens nothing yet. `beat` steps while statements run.
    pub(super) fn new(path: PathBuf, event_bytes_max: usize, beat: &'static Beat) -> Source {
        Source {
            path,
            open: None,
            was_open: false,
            seen: None,
            version: None,
            deadline_ms: Arc::default(),
            beat,
            event_bytes_max,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that is open.
    pub(super) fn file(&self) -> Option<FileId> {
        self.open.as_ref().map(|(_, id)| *id)
    }

    /// Looks whether there is something to read. Blocks 250 ms if the database is locked.
    pub(super) fn look(&mut self) -> Result<Change, Fault> {
        let file = match fs::metadata(&self.path) {
            Ok(file) if !file.is_file() => {
                self.close();
                return Err(Fault::NotAFile(kind_of(file.file_type())));
            }
            Ok(file) if file.len() > 0 => file,
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(Fault::io(&error));
            }
            nothing => {
                self.close();
                return match (self.was_open, nothing) {
                    (true, _) => Err(Fault::Gone),
                    (false, Ok(_)) => Ok(Change::Empty),
                    (false, Err(_)) => Ok(Change::Absent),
                };
            }
        };
        let id = (file.dev(), file.ino());
        if is_write_ahead(&self.path) {
            self.close();
            return Err(Fault::WriteAhead);
        }
        if self.file() != Some(id) {
            self.close();
            self.open = Some((self.connect()?, id));
            self.was_open = true;
        }
        let version = self.ask(|db| db.pragma_query_value(None, "data_version", |row| row.get(0)))?;
        self.version = Some(version);
        Ok(if self.seen == self.version {
            Change::Nothing
        } else {
            Change::Something
        })
    }

    /// Everything was read as of the last look.
    pub(super) fn note_read(&mut self) {
        self.seen = self.version;
    }

    /// Opens the file anew at the next look.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.seen = None;
    }

    fn connect(&self) -> Result<Connection, Fault> {
        let fault = |error| Fault::of(&error, STATEMENT_MAX);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&self.path, flags).map_err(fault)?;
        db.busy_timeout(BUSY_TIMEOUT).map_err(fault)?;
        let (deadline, beat) = (Arc::clone(&self.deadline_ms), self.beat);
        let interrupt = move || {
            beat.step();
            monotonic_ms() >= deadline.load(Ordering::Relaxed)
        };
        db.progress_handler(STEPS_PER_LOOK, Some(interrupt)).map_err(fault)?;
        // Neither looks at the file.
        db.pragma_update(None, "cache_size", -CACHE_KIB).map_err(fault)?;
        db.pragma_update(None, "temp_store", "memory").map_err(fault)?;
        Ok(db)
    }

    /// Runs one statement, within its bound.
    fn ask<T>(&self, statement: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        let Some((db, _)) = &self.open else {
            return Err(Fault::Gone);
        };
        let most = BUSY_TIMEOUT + STATEMENT_MAX;
        self.deadline_ms
            .store(monotonic_ms() + most.as_millis() as u64, Ordering::Relaxed);
        self.beat.step();
        statement(db).map_err(|error| Fault::of(&error, STATEMENT_MAX))
    }

    /// The rows of all machines, or the newest [`ROWS_MAX`] of them; and whether these are all.
    pub(super) fn machines(&self) -> Result<(Vec<Written>, bool), Fault> {
        // Without an index on the time this sorts all rows, in memory, keeping the newest only.
        const SQL: &str = "SELECT machine_name, \
            CASE WHEN octet_length(current_state) <= ?1 THEN current_state END, last_activity, pid, \
            CASE WHEN octet_length(metadata) <= ?1 THEN metadata END, \
            CASE WHEN octet_length(config_type) <= ?1 THEN config_type END \
            FROM machine_state WHERE octet_length(machine_name) <= ?1 ORDER BY last_activity DESC LIMIT ?2";
        self.ask(|db| {
            let mut statement = db.prepare(SQL)?;
            let mut rows = statement.query(params![TEXT_BYTES_MAX, ROWS_MAX as i64])?;
            let (mut machines, mut count, mut bytes) = (Vec::new(), 0, 0);
            while let Some(row) = rows.next()? {
                count += 1;
                let written = written(row)?;
                bytes += written.as_ref().map_or(0, |written| written.row.bytes());
                if bytes > ROWS_BYTES_MAX {
                    return Ok((machines, false));
                }
                machines.extend(written);
            }
            Ok((machines, count < ROWS_MAX))
        })
    }

    /// The id after which the events begin that were refused at or after `since` (seconds since the epoch), as far as
    /// they are there now.
    pub(super) fn position_at(&self, since: &str) -> Result<u64, Fault> {
        // One statement, so that none is written in between. The plus keeps SQLite from walking through all ids.
        const SQL: &str = "SELECT coalesce(\
            (SELECT min(+id) - 1 FROM realtime_events WHERE consumed = 0 AND created_at >= ?1), \
            (SELECT max(id) FROM realtime_events), 0)";
        self.ask(|db| db.query_row(SQL, params![since], |row| row.get(0)))
            .map(id)
    }

    /// The highest id of a refused event; 0 without any.
    pub(super) fn newest_event(&self) -> Result<u64, Fault> {
        const SQL: &str = "SELECT coalesce(max(id), 0) FROM realtime_events";
        self.ask(|db| db.query_row(SQL, [], |row| row.get(0))).map(id)
    }

    /// The highest id that was ever given to a refused event, whether it is still there or not; 0 where the table does
    /// not keep it.
    pub(super) fn last_given(&self) -> Result<u64, Fault> {
        const SQL: &str = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'realtime_events'";
        match self.ask(|db| db.query_row(SQL, [], |row| row.get(0))) {
            Err(Fault::Schema(_)) => Ok(0),
            given => given.map(id),
        }
    }

    /// [`mark`] of the refused event in row `row`, if there is one.
    pub(super) fn mark_of(&self, row: u64) -> Result<Option<String>, Fault> {
        let events = self.query("id = ?1 AND id <= ?2", (row, row), 1)?;
        Ok(events.first().map(|event| mark(&event.datagram)))
    }

    /// At most `most` refused events with ids after `after` up to `to`, in their order.
    pub(super) fn events(&self, (after, to): (u64, u64), most: usize) -> Result<Vec<Refused>, Fault> {
        // The plus keeps SQLite from using the index on `consumed`, by which it would have to sort.
        self.query("id > ?1 AND id <= ?2 AND +consumed = 0", (after, to), most)
    }

    fn query(&self, which: &str, (from, to): (u64, u64), most: usize) -> Result<Vec<Refused>, Fault> {
        let sql = format!(
            "SELECT id, CASE WHEN octet_length(machine_name) <= ?5 THEN machine_name END, \
             CASE WHEN octet_length(event_type) <= ?5 THEN event_type END, \
             CASE WHEN octet_length(payload) <= ?4 THEN payload END, created_at \
             FROM realtime_events WHERE {which} ORDER BY id LIMIT ?3"
        );
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let values = params![
            number(from),
            number(to),
            number(most as u64),
            number(self.event_bytes_max as u64),
            TEXT_BYTES_MAX
        ];
        self.ask(|db| {
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query(values)?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                events.extend(refused(row)?);
            }
            Ok(events)
        })
    }
}

/// Ids are above 0, unless somebody has given them by hand.
fn id(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(0)
}

/// Returns whether the file has a write-ahead log (its format's section 1.3.4): SQLite cannot read such a one without
/// making two files beside it, which engines of another user then could not write to.
fn is_write_ahead(path: &Path) -> bool {
    let mut head = [0; 20];
    let read = safe_open::read(path).and_then(|mut file| file.read_exact(&mut head));
    // Whatever is wrong with the file, SQLite says it better.
    read.is_ok() && head.starts_with(b"SQLite format 3\0") && head[18..20].contains(&2)
}

/// A machine's row; `None` without a usable name.
fn written(row: &Row<'_>) -> rusqlite::Result<Option<Written>> {
    let Some(machine) = values::text(row.get_ref(0)?) else {
        return Ok(None);
    };
    let row_of_engine = EngineRow {
        machine,
        state: values::text(row.get_ref(1)?),
        time: values::time(row.get_ref(2)?),
        metadata: values::text(row.get_ref(4)?),
        config_type: values::text(row.get_ref(5)?),
        process: Process::Unknown,
    };
    let pid = row.get_ref(3)?.as_i64_or_null().unwrap_or_default();
    Ok(Some(Written {
        row: row_of_engine,
        pid: pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
    }))
}

fn refused(row: &Row<'_>) -> rusqlite::Result<Option<Refused>> {
    let Some(id) = row.get(0).map(id).map(NonZeroU64::new)? else {
        return Ok(None);
    };
    let name = |index| row.get_ref(index).map(values::text);
    let datagram = match (name(1)?, name(2)?, row.get_ref(3)?) {
        // A blob is judged as a datagram is.
        (Some(machine), Some(kind), ValueRef::Text(payload) | ValueRef::Blob(payload)) => {
            values::datagram(&machine, &kind, payload)
        }
        _ => Box::default(),
    };
    let written = values::time(row.get_ref(4)?).and_then(|time| time.parse().ok());
    Ok(Some(Refused {
        row: id,
        datagram,
        written: written.unwrap_or_default(),
    }))
}
