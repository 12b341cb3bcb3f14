//! The parts of this room together, with real processes.
//!
//! Each test runs in a process of its own ([`alone`]): what it becomes the subreaper of is then its own, and no other
//! test's children are among its.

mod adopting;
mod finding;
mod starting;
mod stopping;

use super::census::Census;
use super::children::{Children, Member};
use super::identity::Identity;
use super::leader::Leader;
use super::mark::{Mark, RunId};
use super::spawn::{self, Launch, SpawnError};
use super::{adopt, launch, orphans, record, run_folder, stop};
use crate::process::clock::pause;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// In the environment of a process that runs one test only.
const ALONE: &str = "SUPERVISE_TEST";
/// Bound of every wait; none comes near it on a host that is not overloaded.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `body` in a process of its own, which runs the test `name` (its path below `tests`) only.
#[track_caller]
fn alone(name: &str, body: impl FnOnce()) {
    let path = format!("supervise::tests::{name}");
    if std::env::var(ALONE).is_ok_and(|test| test == path) {
        spawn::prepare().unwrap();
        body();
        return;
    }
    let status = role(&path, &[]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{path}: {status}");
}

/// The command that runs the test `path` in a process of its own.
fn role(path: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([path, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, path)
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    command
}

/// Past the harness, which shows the output of failed tests only.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        pause(Duration::from_millis(2));
    }
}

/// A run with its folder, its processes, and what is left of them at the end of the test.
struct Run {
    folder: tempfile::TempDir,
    id: RunId,
    children: Children,
    census: Census,
    n: u64,
}

impl Run {
    fn new(id: u8) -> Run {
        // Tests that run at the same time must not see each other's processes.
        let id = RunId((u128::from(std::process::id()) << 64 | u128::from(id)).to_be_bytes());
        Run::of(id)
    }

    fn of(id: RunId) -> Run {
        let children = Children::default();
        Run {
            folder: tempfile::tempdir().unwrap(),
            id,
            census: Census::new(id, children.clone()).unwrap(),
            children,
            n: 0,
        }
    }

    fn log(&self, service: &str) -> PathBuf {
        self.folder.path().join(format!("logs/{service}.log"))
    }

    fn said(&self, service: &str) -> String {
        std::fs::read_to_string(self.log(service)).unwrap_or_default()
    }

    fn try_start(&mut self, service: &str, command: &[&str], env: &[(&str, &str)]) -> Result<Leader, SpawnError> {
        self.n += 1;
        let mark = Mark {
            run: self.id,
            service: service.to_owned(),
            n: self.n,
        };
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let env: Vec<(OsString, OsString)> = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let launch = Launch {
            command: &command,
            cwd: Path::new("/"),
            environment: &env,
            mark: &mark,
            log: &self.log(service),
            is_unbuffered: true,
        };
        spawn::start(&launch, &self.children)
    }

    /// Starts a service that runs `script`.
    fn start(&mut self, service: &str, script: &str) -> Leader {
        self.try_start(service, &["sh", "-c", script], &[]).unwrap()
    }

    /// Looks until `service` has `count` processes, and returns them.
    #[track_caller]
    fn wait_for(&mut self, service: &str, count: usize) -> BTreeSet<Identity> {
        let begun = Instant::now();
        loop {
            self.census.look().unwrap();
            let found: BTreeSet<Identity> = self.census.of(service).map(|process| process.identity()).collect();
            if found.len() == count {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{service} has {found:?}, not {count}");
            pause(Duration::from_millis(2));
        }
    }

    /// Stops a service as a supervisor does.
    #[track_caller]
    fn stop(&mut self, service: &str, wait: Duration) -> stop::Next {
        let how = stop::How {
            signal: Signal::TERM,
            wait,
        };
        let mut stopping = stop::Stopping::begin(stop::Target::Service(service.into()), how, Instant::now());
        let begun = Instant::now();
        loop {
            self.census.look().unwrap();
            orphans::reap(&self.census, &self.children);
            match stopping.step(Instant::now(), &self.census) {
                stop::Next::LookIn(wait) => pause(wait),
                next => return next,
            }
            assert!(begun.elapsed() < PATIENCE, "{stopping:?}");
        }
    }

    /// Returns the member of a service of this run.
    fn member(service: &str, n: u64) -> Member {
        Member {
            service: service.into(),
            n,
        }
    }
}

impl Drop for Run {
    /// Ends what is of the run, whatever the test has found.
    fn drop(&mut self) {
        for _ in 0..100 {
            if self.census.look().is_err() {
                return;
            }
            let left = self.census.processes().iter().filter(|process| {
                !process.stat.has_ended()
                    && (process.member().is_some() || process.whose == super::census::Whose::Unclaimed)
            });
            let left: Vec<Identity> = left.map(|process| process.identity()).collect();
            if left.is_empty() {
                return;
            }
            for process in left {
                let _ = process.signal(Signal::KILL);
            }
            pause(Duration::from_millis(5));
        }
    }
}
