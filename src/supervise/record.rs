//! What runs, on the disk: so that a supervisor that was killed leaves nothing that the next one would start twice or
//! not see.
//!
//! The record is written before a process is started (`starting`, without a process) and after it (`running`). So a
//! service that the record does not know was not started, and one that is `starting` may have been: the marks in the
//! processes' environments tell.

use crate::process::clock::epoch_seconds;
use crate::supervise::identity::Identity;
use crate::supervise::mark::{RunId, is_service_name};
use crate::supervise::run_folder::RunFolder;
use crate::supervise::write::{Step, replace};
use rustix::fs::{Mode, OFlags, openat, renameat};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

const FILE: &str = "record.json";
const DAMAGED: &str = "record.json.damaged";
/// The only form of the file that there is so far.
const VERSION: u64 = 2;
/// Longest record that is read: some 100 bytes for each service.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where process numbers mean the same process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// Id of this boot of the host (proc_sys_kernel(5), random/boot_id).
    pub boot: String,
    /// Inode of our namespace of processes (pid_namespaces(7)).
    pub pid_namespace: u64,
    /// We are the first process of that namespace: with us, all of it ends.
    pub is_init: bool,
}

impl Here {
    /// Of this process.
    ///
    /// # Errors
    /// /proc does not tell.
    pub fn now() -> io::Result<Here> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Here {
            boot: boot.trim().to_owned(),
            pid_namespace: std::fs::metadata("/proc/self/ns/pid")?.ino(),
            is_init: std::process::id() == 1,
        })
    }
}

/// How far a start of a service has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was about to be started; nobody knows whether it was.
    Starting,
    /// This process was its first one.
    Running(Identity),
    /// It was stopped, or never came to run. What is left is the number of its last start.
    Over,
    /// A person has stopped it, and it is not to run until one starts it.
    Stopped,
    /// It was given up, and is not to run until a person starts it.
    GivenUp,
}

impl State {
    /// Returns whether something of it may run.
    pub fn may_run(self) -> bool {
        matches!(self, State::Starting | State::Running(_))
    }
}

/// The last start of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the start, as the mark has it.
    pub n: u64,
    pub state: State,
    /// Where that was: its process number means something there only.
    pub here: Arc<Here>,
    /// It has shown that it is ready.
    pub is_ready: bool,
    /// Bytes that its log had before the start.
    pub log_bytes: u64,
    /// When that was written, milliseconds since the epoch.
    pub since_ms: u64,
}

/// What a supervisor has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub run: RunId,
    pub services: BTreeMap<String, Entry>,
}

/// Why an earlier record does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// It cannot be read, for this reason.
    Damaged(String),
    /// It was copied with its folder.
    OtherRun(RunId),
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetAside::Damaged(why) => write!(
                f,
                "the record of what runs is damaged ({why}); it is kept as {DAMAGED}, and what runs is found by the marks of \
                 its processes"
            ),
            SetAside::OtherRun(run) => write!(
                f,
                "the record of what runs is that of another run folder ({run}); it is kept as {DAMAGED} and means nothing here"
            ),
        }
    }
}

/// The file, and what it says.
pub struct RecordFile {
    folder: OwnedFd,
    here: Arc<Here>,
    record: Record,
    /// Is called after each step of a write; a test may end the process there.
    done: Box<dyn FnMut(Step) + Send>,
}

impl fmt::Debug for RecordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordFile")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl RecordFile {
    /// Reads the record of `folder`. Returns it as an earlier supervisor has left it, which does
    /// not say that anything of it still runs, or why it does not count. Blocks on the disk.
    ///
    /// # Errors
    /// The file system does not let us read it, or set a damaged one aside.
    pub fn open(folder: &RunFolder, here: Here) -> io::Result<(RecordFile, Result<Option<Record>, SetAside>)> {
        let found = match read(folder)? {
            None => Ok(None),
            Some(bytes) => match parse(&bytes) {
                Ok(record) if record.run == folder.id() => Ok(Some(record)),
                Ok(record) => Err(SetAside::OtherRun(record.run)),
                Err(why) => Err(SetAside::Damaged(why)),
            },
        };
        if found.is_err() {
            renameat(folder.as_fd(), FILE, folder.as_fd(), DAMAGED)?;
        }
        let services = match &found {
            Ok(Some(earlier)) => earlier.services.clone(),
            _ => BTreeMap::new(),
        };
        let record = Record {
            run: folder.id(),
            services,
        };
        let file = RecordFile {
            folder: folder.as_fd().try_clone_to_owned()?,
            here: Arc::new(here),
            record,
            done: Box::new(|_| {}),
        };
        Ok((file, found))
    }

    /// Has `done` called after each step of every write.
    pub fn after_each_step(&mut self, done: impl FnMut(Step) + Send + 'static) {
        self.done = Box::new(done);
    }

    /// Calls what was given to [`RecordFile::after_each_step`].
    pub(in crate::supervise) fn has_done(&mut self, step: Step) {
        (self.done)(step);
    }

    /// What it says now.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns a number for the next start of `service` that no earlier start had, whose processes may still be there.
    /// `seen` is the highest number of its processes.
    pub fn next_n(&self, service: &str, seen: u64) -> u64 {
        let last = self.record.services.get(service).map_or(0, |entry| entry.n);
        last.max(seen) + 1
    }

    /// Writes that start `n` of `service` is about to begin, whose log has `log_bytes` bytes. Blocks on the disk.
    ///
    /// # Errors
    /// The disk does not take it. Nothing may be started then.
    pub fn about_to_start(&mut self, service: &str, n: u64, log_bytes: u64) -> io::Result<()> {
        let entry = self.put(service, n, State::Starting);
        (entry.is_ready, entry.log_bytes) = (false, log_bytes);
        self.write()
    }

    /// Writes that start `n` of `service` runs as `leader`. Blocks on the disk.
    ///
    /// # Errors
    /// The disk does not take it. The process runs all the same, and its mark tells the next supervisor.
    pub fn runs(&mut self, service: &str, n: u64, leader: Identity) -> io::Result<()> {
        self.put(service, n, State::Running(leader));
        self.write()
    }

    /// Writes that `service` has shown that it is ready, so that the next supervisor need not look for the sign again.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The disk does not take it. The next supervisor will look for the sign.
    pub fn is_ready(&mut self, service: &str) -> io::Result<()> {
        if let Some(entry) = self.record.services.get_mut(service) {
            entry.is_ready = true;
        }
        self.write()
    }

    /// Writes that nothing of `service` is left, and whether it is to stay so: `state` is [`State::Over`],
    /// [`State::Stopped`] or [`State::GivenUp`]. Writes nothing if the record says so already. Blocks on the disk.
    ///
    /// # Errors
    /// The disk does not take it. The next supervisor will see that the process is gone.
    pub fn rests(&mut self, service: &str, state: State) -> io::Result<()> {
        let known = self.record.services.get(service).map(|entry| (entry.n, entry.state));
        if known.map_or(State::Over, |(_, state)| state) == state {
            return Ok(());
        }
        self.put(service, known.map_or(0, |(n, _)| n), state);
        self.write()
    }

    /// Returns whether `service` is to stay down until a person starts it.
    pub fn is_at_rest(&self, service: &str) -> bool {
        let entry = self.record.services.get(service);
        entry.is_some_and(|entry| matches!(entry.state, State::Stopped | State::GivenUp))
    }

    fn put(&mut self, service: &str, n: u64, state: State) -> &mut Entry {
        let known = self.record.services.get(service).filter(|known| known.n == n);
        let entry = Entry {
            n,
            state,
            here: Arc::clone(&self.here),
            is_ready: known.is_some_and(|known| known.is_ready),
            log_bytes: known.map_or(0, |known| known.log_bytes),
            // A wall clock before 1970 is 1970.
            since_ms: (epoch_seconds() * 1000.0) as u64,
        };
        let kept = self
            .record
            .services
            .entry(service.to_owned())
            .or_insert_with(|| entry.clone());
        *kept = entry;
        kept
    }

    fn write(&mut self) -> io::Result<()> {
        let text = text_of(&self.record);
        replace(self.folder.as_fd(), FILE, text.as_bytes(), &mut self.done)
    }
}

fn read(folder: &RunFolder) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder.as_fd(), FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn text_of(record: &Record) -> String {
    let services: serde_json::Map<String, Value> = (record.services.iter())
        .map(|(service, entry)| {
            let (state, process) = match entry.state {
                State::Starting => ("starting", None),
                State::Running(process) => ("running", Some(process)),
                State::Over => ("over", None),
                State::Stopped => ("stopped", None),
                State::GivenUp => ("given_up", None),
            };
            let mut value = json!({
                "n": entry.n,
                "state": state,
                "since_ms": entry.since_ms,
                "boot": entry.here.boot,
                "pid_namespace": entry.here.pid_namespace,
                "init": entry.here.is_init,
                "ready": entry.is_ready,
                "log_bytes": entry.log_bytes,
            });
            if let Some(process) = process {
                value["pid"] = process.pid.into();
                value["start"] = process.start.into();
            }
            (service.clone(), value)
        })
        .collect();
    let whole = json!({
        "version": VERSION,
        "run": record.run.to_string(),
        "services": services,
    });
    format!("{whole}\n")
}

/// Reads a record whole, or says what is wrong with it.
fn parse(bytes: &[u8]) -> Result<Record, String> {
    let whole: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let lacks = |what: &str| format!("no {what}");
    match whole["version"].as_u64() {
        Some(VERSION) => {}
        Some(other) => return Err(format!("version {other}, which this program does not know")),
        None => return Err(lacks("version")),
    }
    let run = whole["run"].as_str().and_then(|id| id.parse().ok());
    let mut services = BTreeMap::new();
    for (service, value) in whole["services"].as_object().ok_or_else(|| lacks("services"))? {
        let entry = entry_of(value).filter(|_| is_service_name(service));
        let entry = entry.ok_or_else(|| format!("service {service:?} makes no sense"))?;
        services.insert(service.clone(), entry);
    }
    Ok(Record {
        run: run.ok_or_else(|| lacks("run"))?,
        services,
    })
}

fn entry_of(value: &Value) -> Option<Entry> {
    let state = match value["state"].as_str()? {
        "starting" => State::Starting,
        "running" => State::Running(Identity {
            pid: i32::try_from(value["pid"].as_i64()?).ok().filter(|pid| *pid > 1)?,
            start: value["start"].as_u64()?,
        }),
        "over" => State::Over,
        "stopped" => State::Stopped,
        "given_up" => State::GivenUp,
        _ => return None,
    };
    let here = Here {
        boot: value["boot"].as_str()?.to_owned(),
        pid_namespace: value["pid_namespace"].as_u64()?,
        is_init: value["init"].as_bool()?,
    };
    Some(Entry {
        n: value["n"].as_u64()?,
        state,
        here: here.into(),
        is_ready: value["ready"].as_bool()?,
        log_bytes: value["log_bytes"].as_u64()?,
        since_ms: value["since_ms"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn opened(path: &std::path::Path) -> (RunFolder, RecordFile, Result<Option<Record>, SetAside>) {
        let (folder, _) = RunFolder::open(path).unwrap();
        let (file, found) = RecordFile::open(&folder, Here::now().unwrap()).unwrap();
        (folder, file, found)
    }

    #[test]
    fn the_next_supervisor_reads_what_was_written() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        let (folder, mut file, found) = opened(&path);
        assert_eq!(found, Ok(None));
        let process = Identity { pid: 77, start: 1234 };
        assert_eq!(file.next_n("web", 0), 1);
        file.about_to_start("web", 1, 7).unwrap();
        file.runs("web", 1, process).unwrap();
        file.is_ready("web").unwrap();
        file.about_to_start("worker", 5, 0).unwrap();
        file.about_to_start("gone", 2, 0).unwrap();
        file.rests("gone", State::GivenUp).unwrap();
        let web = &file.record().services["web"];
        assert_eq!((web.is_ready, web.log_bytes), (true, 7));
        let written = file.record().clone();
        drop((folder, file));
        let (_folder, file, found) = opened(&path);
        assert_eq!(found, Ok(Some(written.clone())));
        let states: Vec<State> = written.services.values().map(|entry| entry.state).collect();
        assert_eq!(states, [State::GivenUp, State::Running(process), State::Starting]);
        // A number is given once, whatever became of its start.
        assert_eq!(
            (file.next_n("gone", 0), file.next_n("gone", 9), file.next_n("new", 0)),
            (3, 10, 1)
        );
    }

    #[test]
    fn a_damaged_record_is_set_aside_with_the_reason() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        let (folder, mut file, _) = opened(&path);
        file.about_to_start("web", 1, 0).unwrap();
        let good = fs::read_to_string(path.join(FILE)).unwrap();
        drop((folder, file));
        for (text, why) in [
            (good[..good.len() / 2].to_owned(), "EOF while parsing"),
            (String::new(), "EOF while parsing"),
            (good.replace("\"version\":2", "\"version\":3"), "version 3, which"),
            (good.replace("starting", "flying"), "service \"web\" makes no sense"),
            (good.replace("starting", "running"), "service \"web\" makes no sense"),
            (
                good.replace("\"web\"", "\"../web\""),
                "service \"../web\" makes no sense",
            ),
            (good.replace("\"boot\"", "\"boots\""), "service \"web\" makes no sense"),
            ("[1]".to_owned(), "no version"),
        ] {
            fs::write(path.join(FILE), &text).unwrap();
            let (_folder, file, found) = opened(&path);
            let said = found.unwrap_err().to_string();
            assert!(said.contains("is damaged") && said.contains(why), "{said}");
            assert_eq!(fs::read_to_string(path.join(DAMAGED)).unwrap(), text);
            assert!(!path.join(FILE).exists() && file.record().services.is_empty());
        }
    }

    #[test]
    fn a_copied_record_means_nothing() {
        let base = tempfile::tempdir().unwrap();
        let (first, second) = (base.path().join("first"), base.path().join("second"));
        let (_one, mut file, _) = opened(&first);
        file.about_to_start("web", 1, 0).unwrap();
        let (folder, _, _) = opened(&second);
        drop(folder);
        fs::copy(first.join(FILE), second.join(FILE)).unwrap();
        let (_other, _, found) = opened(&second);
        assert_eq!(found, Err(SetAside::OtherRun(file.record().run)));
    }
}
