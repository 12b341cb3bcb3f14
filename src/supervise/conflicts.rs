//! Programs that run too often: which processes are of a `[[conflict]]`, whoever started them, and how bad that is.
//!
//! A process is judged once for each program that it executes, by [`program`]; a look at processes that are known costs
//! a look-up in a map each.

pub mod facts;
pub mod glob;
pub mod program;
pub mod telling;

use crate::process::visible::visible;
use crate::process::words::pick;
use crate::supervise::census::{Census, Process, Whose};
use crate::supervise::identity::Identity;
use crate::supervise::settings::plan::Conflict;
use crate::supervise::stat::Proc;
use program::Program;
use rustix::io::Errno;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Characters of a command that people and documents get.
const COMMAND_CHARS_MAX: usize = 160;
/// Processes of one conflict that a document has.
const SHOWN_MAX: usize = 500;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Fine,
    Warning,
    Critical,
}

impl Level {
    /// Of so many processes.
    pub fn of(conflict: &Conflict, many: usize) -> Level {
        let many = many as u64;
        match conflict.critical {
            Some(critical) if many >= critical => Level::Critical,
            _ if many >= conflict.warn => Level::Warning,
            _ => Level::Fine,
        }
    }

    /// Its word in events and documents.
    pub fn name(self) -> &'static str {
        match self {
            Level::Fine => "ok",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

/// A process of a conflict.
#[derive(Clone, Debug)]
pub struct Found {
    pub process: Process,
    /// Its arguments in one line, bounded, fit for a terminal.
    pub command: Arc<str>,
}

/// A conflict, as a look has seen it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    pub expected: u64,
    pub level: Level,
    /// The oldest first.
    pub found: Vec<Found>,
}

impl Seen {
    /// Those that no service of this run has started.
    pub fn strays(&self) -> impl Iterator<Item = &Found> {
        let found = self.found.iter();
        found.filter(|found| found.process.whose == Whose::Nobodys)
    }

    /// What a person reads.
    pub fn in_words(&self) -> String {
        let strays = self.strays().count();
        let many = self.found.len();
        let processes = pick(many, "process", "processes");
        let mut text = format!("{}: {many} {processes}, {} expected", self.name, self.expected);
        if strays > 0 {
            text.push_str(&format!(", {strays} of no service"));
        }
        text
    }

    /// The document.
    pub fn document(&self) -> Value {
        let processes: Vec<Value> = self.found.iter().take(SHOWN_MAX).map(found_document).collect();
        json!({
            "name": self.name, "level": self.level.name(), "ok": self.level == Level::Fine,
            "expected": self.expected, "count": self.found.len(), "strays": self.strays().count(),
            "seen": self.in_words(), "processes": processes,
        })
    }
}

fn found_document(found: &Found) -> Value {
    let identity = found.process.identity();
    let whose = match &found.process.whose {
        Whose::Service(member) => json!(&*member.service),
        _ => Value::Null,
    };
    json!({
        "pid": identity.pid, "start_ticks": identity.start, "parent": found.process.stat.ppid,
        "age_s": identity.age().map(|age| age.as_secs_f64().round()),
        "command": &*found.command, "service": whose, "ours": found.process.member().is_some(),
    })
}

/// What is known of a process.
#[derive(Debug)]
struct Known {
    environment_at: u64,
    /// For each conflict, whether it is one of its.
    is_of: Vec<bool>,
    command: Arc<str>,
}

/// Counts.
#[derive(Debug)]
pub struct Counter {
    conflicts: Vec<Conflict>,
    proc: Proc,
    known: HashMap<Identity, Known>,
}

impl Counter {
    /// For these conflicts. Blocks on the disks of their folders.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn new(mut conflicts: Vec<Conflict>) -> Result<Counter, Errno> {
        for folder in conflicts.iter_mut().flat_map(|conflict| &mut conflict.inside) {
            // The kernel names folders of processes without links.
            *folder = folder.canonicalize().unwrap_or_else(|_| plain(folder));
        }
        Ok(Counter {
            conflicts,
            proc: Proc::open()?,
            known: HashMap::new(),
        })
    }

    /// Returns whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.conflicts.is_empty()
    }

    /// Counts among the processes of the last look of `census`. Blocks as that does.
    pub fn count(&mut self, census: &Census) -> Vec<Seen> {
        if self.conflicts.is_empty() {
            return Vec::new();
        }
        let mut all: Vec<Vec<Found>> = vec![Vec::new(); self.conflicts.len()];
        let mut known = HashMap::with_capacity(self.known.len());
        for process in census.processes().iter().filter(|process| !process.stat.has_ended()) {
            let identity = process.identity();
            let before = self.known.remove(&identity);
            let before = before.filter(|known| known.environment_at == process.stat.environment_at);
            let now = before.unwrap_or_else(|| self.judge(process));
            let of = all.iter_mut().zip(&now.is_of).filter(|(_, is_of)| **is_of);
            for (found, _) in of {
                found.push(Found {
                    process: process.clone(),
                    command: Arc::clone(&now.command),
                });
            }
            known.insert(identity, now);
        }
        self.known = known;
        let seen = self.conflicts.iter().zip(all).map(|(conflict, mut found)| {
            found.sort_by_key(|found| (found.process.stat.start, found.process.stat.pid));
            Seen {
                name: conflict.name.clone(),
                expected: conflict.expected,
                level: Level::of(conflict, found.len()),
                found,
            }
        });
        seen.collect()
    }

    fn judge(&self, process: &Process) -> Known {
        let pid = process.stat.pid;
        let nothing = |is_of| Known {
            environment_at: process.stat.environment_at,
            is_of,
            command: "".into(),
        };
        // The kernel's own threads have no arguments.
        let Some(arguments) = facts::arguments(&self.proc, pid).filter(|arguments| !arguments.is_empty()) else {
            return nothing(Vec::new());
        };
        let words = facts::words(&arguments);
        let executable = facts::link(&self.proc, pid, "exe");
        let program = program::program(executable.as_deref(), &words);
        let is_named = |conflict: &Conflict| {
            let globs = conflict.matches.iter();
            let mut pairs = globs.flat_map(|glob| program.names.iter().map(move |name| (glob, name)));
            pairs.any(|(glob, name)| glob::matches(glob, name))
        };
        let mut is_of: Vec<bool> = self.conflicts.iter().map(is_named).collect();
        if !is_of.contains(&true) {
            return nothing(Vec::new());
        }
        let places = places(executable, facts::link(&self.proc, pid, "cwd"), &program);
        for (is_of, conflict) in is_of.iter_mut().zip(&self.conflicts) {
            let is_inside = |place: &PathBuf| conflict.inside.iter().any(|folder| place.starts_with(folder));
            *is_of &= conflict.inside.is_empty() || places.iter().any(is_inside);
        }
        let line: String = words.join(" ").chars().take(COMMAND_CHARS_MAX).collect();
        Known {
            command: visible(line.trim_end()).into(),
            ..nothing(is_of)
        }
    }
}

/// Where a process is at home: its folder, its executable, its script.
fn places(executable: Option<String>, cwd: Option<String>, program: &Program) -> Vec<PathBuf> {
    let cwd = cwd.map(PathBuf::from);
    let script = program.script.as_ref().map(PathBuf::from);
    let script = script.map(|script| plain(&cwd.as_ref().map_or(script.clone(), |cwd| cwd.join(script))));
    let executable = executable.map(PathBuf::from);
    [cwd, executable, script].into_iter().flatten().collect()
}

/// A path without `.` and `..`, by its text.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::Place;

    #[test]
    fn the_level_is_that_of_the_number() {
        let conflict = Conflict {
            name: "c".to_owned(),
            place: Place { line: 1, column: 1 },
            matches: vec!["x".to_owned()],
            inside: Vec::new(),
            expected: 3,
            warn: 4,
            critical: Some(6),
        };
        let levels = [0, 3, 4, 5, 6, 60].map(|many| Level::of(&conflict, many).name());
        assert_eq!(levels, ["ok", "ok", "warning", "warning", "critical", "critical"]);
    }

    #[test]
    fn a_process_is_at_home_in_its_folder_and_that_of_its_script() {
        let program = Program {
            names: Vec::new(),
            script: Some("../b/w.py".to_owned()),
        };
        let places = places(Some("/usr/bin/python3".to_owned()), Some("/a/c".to_owned()), &program);
        let expected = ["/a/c", "/usr/bin/python3", "/a/b/w.py"].map(PathBuf::from);
        assert_eq!(places, expected);
    }
}
