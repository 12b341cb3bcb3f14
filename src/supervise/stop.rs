//! Stops a service, which means all of its processes.
//!
//! First each process gets the service's own signal; then, when time is over and some are left, all are stopped
//! (SIGSTOP), so that none can start another one, and killed, over and over until a look finds none. Signals go
//! through pidfds. A service whose leader alone has ended is not stopped: the leader stays a zombie until the rest is
//! gone, and its owner reaps it then.
//!
//! A [`Stopping`] is a machine without a thread: [`Stopping::step`] judges one look at all processes and never waits,
//! so one thread can stop several services at a time.

use crate::process::procfs::process_name;
use crate::process::visible::visible;
use crate::process::words::pick;
use crate::supervise::census::{Census, Process};
use crate::supervise::identity::Identity;
use rustix::io::Errno;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks at first, for a service that ends at once.
const LOOK_FIRST: Duration = Duration::from_millis(5);
/// And at most: each look costs some 10 µs for each process of the host.
const LOOK_MOST: Duration = Duration::from_millis(200);
/// Time for killing, after which what is left is named. A killed process ends within milliseconds, unless it hangs in
/// the kernel, and then nobody knows for how long.
const KILLING_MAX: Duration = Duration::from_secs(10);
/// Rounds of killing, if they come faster than they should.
const ROUNDS_MAX: u32 = 1000;
/// Looks in a row that must find nothing. While one look reads the list, a process can start another one in a place
/// that was read already, and end.
const EMPTY_LOOKS: u32 = 2;

/// How a service is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// The signal that its processes get first.
    pub signal: Signal,
    /// How long they have for it; zero: they are killed at once.
    pub wait: Duration,
}

/// What is to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Service(Arc<str>),
    /// Whatever else is ours: what descends from something that we started, and of which nobody knows the service; and
    /// all processes of services with other names than these. For the end of the supervisor, once these are stopped.
    Rest(BTreeSet<Arc<str>>),
}

/// A service that is being stopped.
#[derive(Debug)]
pub struct Stopping {
    target: Target,
    how: How,
    begun: Instant,
    phase: Phase,
    /// Processes that got the signal, and where the environment of the program was that got it.
    told: BTreeMap<Identity, u64>,
    /// Processes that we may not signal.
    refused: BTreeMap<Identity, Errno>,
    /// The number of the look that was judged last.
    last_look: u64,
    empty_looks: u32,
    /// How long to wait until the next look.
    pause: Duration,
    killed: BTreeSet<Identity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Telling,
    Killing { since: Instant, rounds: u32 },
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look at the processes after this long, then step again.
    LookIn(Duration),
    /// No process of the service is left.
    Gone(Gone),
    /// These processes are left, whatever was tried. The service is not stopped.
    Left(Vec<Left>),
}

/// How a service went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub took: Duration,
    /// Processes that did not heed the signal in time.
    pub killed: usize,
}

/// A process that could not be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub process: Identity,
    /// The letter of proc_pid_stat(5).
    pub state: char,
    /// Its command line, or its short name.
    pub command: String,
    /// Why it got no signal.
    pub refused: Option<Errno>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}), ", self.process.pid, self.command)?;
        match (self.refused, self.state) {
            (Some(Errno::PERM), _) => f.write_str("which belongs to another user; end it as that user or as root"),
            (Some(error), _) => write!(f, "which could not be signaled: {error}"),
            (None, 'D') => {
                f.write_str("which hangs in the kernel (state D), mostly for a disk or a network file system; it ends when that answers")
            }
            (None, state) => write!(f, "in state {state}"),
        }
    }
}

impl Stopping {
    /// Begins to stop `target`. Nothing is signaled before the first step.
    pub fn begin(target: Target, how: How, now: Instant) -> Stopping {
        Stopping {
            target,
            how,
            begun: now,
            phase: Phase::Telling,
            told: BTreeMap::new(),
            refused: BTreeMap::new(),
            last_look: 0,
            empty_looks: 0,
            pause: LOOK_FIRST,
            killed: BTreeSet::new(),
        }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Ends the service's time: the next step kills.
    pub fn hasten(&mut self) {
        self.how.wait = Duration::ZERO;
    }

    /// Returns whether the service's time is over, so that its processes are being killed.
    pub fn is_killing(&self) -> bool {
        matches!(self.phase, Phase::Killing { .. })
    }

    /// Does what the last look of `census` calls for. `now` is a moment after that look. Never blocks.
    pub fn step(&mut self, now: Instant, census: &Census) -> Next {
        if census.looks() == self.last_look {
            // One look must not count twice.
            return Next::LookIn(LOOK_FIRST);
        }
        self.last_look = census.looks();
        let target = self.target.clone();
        let left: Vec<&Process> = match &target {
            Target::Service(service) => census.of(service).collect(),
            Target::Rest(known) => census.beside(known).collect(),
        };
        if left.is_empty() {
            self.empty_looks += 1;
            if self.empty_looks < EMPTY_LOOKS {
                return Next::LookIn(LOOK_FIRST);
            }
            return Next::Gone(Gone {
                took: now.saturating_duration_since(self.begun),
                killed: self.killed.len(),
            });
        }
        self.empty_looks = 0;
        if self.phase == Phase::Telling && now.saturating_duration_since(self.begun) >= self.how.wait {
            self.phase = Phase::Killing { since: now, rounds: 0 };
            self.pause = LOOK_FIRST;
        }
        match self.phase {
            Phase::Telling => self.tell(&left),
            Phase::Killing { since, rounds } => {
                if rounds >= ROUNDS_MAX || now.saturating_duration_since(since) >= KILLING_MAX {
                    return Next::Left(self.name_all(&left));
                }
                self.kill(&left);
                self.phase = Phase::Killing {
                    since,
                    rounds: rounds + 1,
                };
            }
        }
        Next::LookIn(self.next_pause(now))
    }

    /// Tells each process once, also those that were started meanwhile; and again, if it executes another program. A
    /// process between fork(2) and execve(2) has the handler of its parent, and the program that it becomes has not
    /// heard of the signal. (A shell that is stopped right after it began a command showed it.)
    fn tell(&mut self, left: &[&Process]) {
        for process in left {
            let identity = process.identity();
            let program = process.stat.environment_at;
            if self.told.insert(identity, program) == Some(program) {
                continue;
            }
            let told = self.signal(identity, self.how.signal);
            // A process that somebody has stopped could not heed it.
            if told && process.stat.state == b'T' {
                self.signal(identity, Signal::CONT);
            }
            // Somebody new may be about to go.
            self.pause = LOOK_FIRST;
        }
    }

    /// Stops all, so that none of them starts another one, then kills all.
    fn kill(&mut self, left: &[&Process]) {
        for process in left {
            self.signal(process.identity(), Signal::STOP);
        }
        for process in left {
            let identity = process.identity();
            if self.signal(identity, Signal::KILL) {
                self.pause = if self.killed.insert(identity) {
                    LOOK_FIRST
                } else {
                    self.pause
                };
            }
        }
    }

    /// Returns whether the signal was sent.
    fn signal(&mut self, process: Identity, signal: Signal) -> bool {
        match process.signal(signal) {
            Ok(()) => {
                self.refused.remove(&process);
                true
            }
            // It is gone, which the next look will see.
            Err(Errno::SRCH) => false,
            Err(error) => {
                self.refused.insert(process, error);
                false
            }
        }
    }

    /// Each pause is half as long again as the one before. Within the service's time, none goes beyond its end.
    fn next_pause(&mut self, now: Instant) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 3 / 2).min(LOOK_MOST);
        match self.phase {
            Phase::Telling => pause.min((self.begun + self.how.wait).saturating_duration_since(now)),
            Phase::Killing { .. } => pause,
        }
    }

    fn name_all(&self, left: &[&Process]) -> Vec<Left> {
        let named = left.iter().map(|process| self.name(process));
        named.collect()
    }

    fn name(&self, process: &Process) -> Left {
        let stat = &process.stat;
        // A process that hangs in the kernel could hang the reader of its command line too.
        let command = (stat.state != b'D')
            .then(|| process_name(stat.pid as u32))
            .flatten()
            .map_or_else(|| stat.name(), |name| visible(&name.command));
        Left {
            process: process.identity(),
            state: char::from(stat.state),
            command,
            refused: self.refused.get(&process.identity()).copied(),
        }
    }
}

/// What a person reads of processes that are left.
pub fn left_in_words(service: &str, left: &[Left]) -> String {
    let list: Vec<String> = left.iter().map(Left::to_string).collect();
    let (count, are) = (left.len(), pick(left.len(), "process is", "processes are"));
    format!("{service} is not stopped: {count} {are} left: {}", list.join("; "))
}
