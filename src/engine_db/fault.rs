//! Why the database cannot be read, in words, and what a person can do about it.

use crate::engine_db::Condition;
use crate::process::procfs::lock_holder;
use crate::process::values::show_duration;
use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_READONLY_ROLLBACK;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the database cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// For longer than the busy timeout.
    Locked,
    /// It was there, and has gone.
    Gone,
    Damaged,
    /// A folder, or what else is no file, in words.
    NotAFile(&'static str),
    NotADatabase,
    /// No such table or column.
    Schema(String),
    /// A writer was killed in the middle of a change, which only another writer can undo.
    HotJournal,
    /// It has a write-ahead log, which cannot be read without writing beside it.
    WriteAhead,
    Slow(Duration),
    Other(String),
}

impl Fault {
    pub(super) fn of(error: &rusqlite::Error, slow: Duration) -> Fault {
        let (failure, text) = match error {
            rusqlite::Error::SqliteFailure(failure, text) => (failure, text.as_deref()),
            rusqlite::Error::SqlInputError { error, msg, .. } => (error, Some(&**msg)),
            _ => return Fault::Other(error.to_string()),
        };
        let text = text.map_or_else(|| failure.to_string(), str::to_owned);
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Fault::Locked,
            ErrorCode::DatabaseCorrupt => Fault::Damaged,
            ErrorCode::NotADatabase => Fault::NotADatabase,
            ErrorCode::OperationInterrupted => Fault::Slow(slow),
            _ if failure.extended_code == SQLITE_READONLY_ROLLBACK => Fault::HotJournal,
            _ if text.starts_with("no such table") || text.starts_with("no such column") => Fault::Schema(text),
            _ => Fault::Other(text),
        }
    }

    pub(super) fn io(error: &io::Error) -> Fault {
        Fault::Other(error.to_string())
    }

    /// What is wrong with the database at `path`.
    pub(super) fn what(&self, path: &Path) -> String {
        match self {
            Fault::Locked => match fs::metadata(path).ok().and_then(|file| lock_holder(&file)) {
                Some(holder) => format!("{holder} has locked it"),
                None => "another process has locked it".to_owned(),
            },
            Fault::Gone => "it is gone".to_owned(),
            Fault::Damaged => "it is damaged".to_owned(),
            Fault::NotAFile(kind) => format!("it is {kind} and no file"),
            Fault::NotADatabase => "it is no SQLite database".to_owned(),
            Fault::Schema(what) => format!("it is not the engine's: {what}"),
            Fault::HotJournal => format!(
                "a writer was killed in the middle of a change ({})",
                journal_of(path).display()
            ),
            Fault::WriteAhead => "it has a write-ahead log, which nobody can read without writing beside it".to_owned(),
            Fault::Slow(most) => format!("reading it takes longer than {most:?}"),
            Fault::Other(what) => what.clone(),
        }
    }

    /// What a person can do.
    fn remedy(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Fault::Locked => "end that process if it hangs; engines cannot write either meanwhile".to_owned(),
            Fault::Gone => "engines make it anew when they start; give --db another path if it was moved".to_owned(),
            Fault::Damaged => {
                format!("stop the engines, then `sqlite3 {path} .recover | sqlite3 NEW`, and put NEW in its place")
            }
            Fault::NotAFile(_) | Fault::NotADatabase => {
                "give --db the path of the engines' database, or none".to_owned()
            }
            Fault::Schema(_) => {
                "give --db the path of the engines' database, or none; engines make missing tables when they start"
                    .to_owned()
            }
            Fault::HotJournal => {
                "any engine, or `statemachine-db status`, undoes it when it opens the database".to_owned()
            }
            Fault::WriteAhead => {
                format!("`sqlite3 {path} 'PRAGMA journal_mode=DELETE'` gives it the engines' own kind of journal again")
            }
            Fault::Slow(_) => "delete what is old from machine_state and realtime_events, or give --db none".to_owned(),
            Fault::Other(_) => {
                format!("this user must be able to read {path} and what lies in its folder; or give --db none")
            }
        }
    }

    pub(super) fn condition(&self, path: &Path) -> Condition {
        match self {
            Fault::Locked => Condition::Locked(self.what(path)),
            _ => Condition::Faulty(self.what(path)),
        }
    }

    /// The line for the log.
    pub(super) fn line(&self, path: &Path, every: Duration) -> String {
        let (what, remedy) = (self.what(path), self.remedy(path));
        format!(
            "⚠️ engine database {} cannot be read: {what}; {remedy}. The machines last read stay; looking again every {}",
            path.display(),
            show_duration(every)
        )
    }
}

fn journal_of(path: &Path) -> PathBuf {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    journal.into()
}
