//! The files of the journal: named by their first number, so that their names sort as their content does.

use crate::journal::line;
use crate::process::files::is_absence;
use crate::stream::event::Seq;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// When a segment is full, and how much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub segment_bytes: u64,
    pub segment_age: Duration,
    /// All segments together, the one that grows included.
    pub keep_bytes: u64,
    pub keep_age: Duration,
}

/// A file of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first: Seq,
    pub path: PathBuf,
    pub bytes: u64,
    /// How long ago something was written to it.
    pub age: Age,
    /// Events that this run has written to it.
    pub events: u64,
}

/// An age that grows with the monotonic clock, so that a wall clock that is stepped makes nothing old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    was: Duration,
    at: Instant,
}

impl Age {
    /// Nothing is younger.
    pub(super) fn new() -> Age {
        Age::of(Duration::ZERO)
    }

    /// So old by now.
    pub(super) fn of(was: Duration) -> Age {
        Age {
            was,
            at: Instant::now(),
        }
    }

    pub(super) fn get(self) -> Duration {
        self.was.saturating_add(self.at.elapsed())
    }
}

/// The name of the segment that begins with number `first`.
pub fn segment_name(first: Seq) -> String {
    format!("events-{first:020}.jsonl")
}

/// The segments in `folder`, the oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(first) = first_of(&entry.file_name()) else {
            continue;
        };
        let facts = match entry.metadata() {
            // One that goes while we look was removed by its server.
            Err(error) if is_absence(&error) => continue,
            facts => facts?,
        };
        let modified = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        segments.push(Segment {
            first,
            path: entry.path(),
            bytes: facts.len(),
            // What lies in the future is as young as can be.
            age: Age::of(modified.elapsed().unwrap_or_default()),
            events: 0,
        });
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// The first numbers of the segments in `folder`; none if there is no folder.
pub(super) fn firsts(folder: &Path) -> io::Result<BTreeSet<Seq>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absence(&error) => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut firsts = BTreeSet::new();
    for entry in entries {
        firsts.extend(first_of(&entry?.file_name()));
    }
    Ok(firsts)
}

/// The number in the name of a segment; `None` of any other file.
fn first_of(name: &OsStr) -> Option<Seq> {
    let digits = name.to_str()?.strip_prefix("events-")?.strip_suffix(".jsonl")?;
    let first = Some(digits).filter(|digits| digits.len() == 20)?.parse().ok()?;
    (first <= line::SEQ_MAX).then_some(first)
}
