//! What a file of services says, with all fallbacks filled in and all paths absolute.

use crate::config::Config;
use crate::config::file::Place;
use crate::process::address::{Authority, ServerAddress};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// The name of the server of the file's `[server]`, among the services.
pub const SERVER: &str = "server";

/// Everything that a file of services says.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file.
    pub file: PathBuf,
    /// The file's folder, which its paths are relative to.
    pub folder: PathBuf,
    pub supervise: Supervise,
    /// `None`: no server is started.
    pub server: Option<Server>,
    /// In the order of the file, as everything below.
    pub needs: Vec<Need>,
    pub services: Vec<Service>,
    pub watches: Vec<Watch>,
    pub incidents: Incidents,
    pub conflicts: Vec<Conflict>,
    pub cleanup: Cleanup,
    pub order: Order,
}

/// When services start and stop. Numbers are places in [`Plan::services`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Phase after phase, the services that start together: each waits only for services of earlier phases, and for
    /// needs. The server, if there is one, comes before all of them. Services that are not enabled are left out.
    pub start: Vec<Vec<usize>>,
    /// Phase after phase, the services that stop together, all of them; then the server.
    pub stop: Vec<Vec<usize>>,
}

/// What holds for all services.
#[derive(Clone, Debug)]
pub struct Supervise {
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    /// A log that is larger is rotated.
    pub log_bytes: usize,
    /// Older copies of each log.
    pub log_keep: u64,
    /// The event socket to which changes of services are sent; `None`: nowhere.
    pub events: Option<PathBuf>,
    /// The server that checks of machines ask.
    pub url: ServerAddress,
    pub interval: Duration,
    pub poll: Duration,
    /// A file of variables for every service; its content is in [`Service::env_below`] already.
    pub env_file: Option<PathBuf>,
}

/// A server that is started with the services.
///
/// It runs in [`Plan::folder`], which its relative paths start from.
#[derive(Clone, Debug)]
pub struct Server {
    pub config: Box<Config>,
    /// The arguments of `threadcast serve` that make these settings, when it runs in the file's folder.
    pub arguments: Vec<String>,
    pub place: Place,
}

/// A command with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Never empty; the first is the program.
    pub words: Vec<String>,
    pub place: Place,
}

/// How to find out whether something answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Tcp {
        address: Authority,
        send: Option<String>,
        /// What the answer must contain.
        expect: Option<String>,
    },
    Http {
        address: ServerAddress,
        /// Empty: any from 200 to 299.
        status: Vec<u16>,
    },
    /// Fine is status 0.
    Command(CommandLine),
}

/// Something that must be there, and is not ours.
#[derive(Clone, Debug)]
pub struct Need {
    pub name: String,
    pub probe: Probe,
    pub timeout: Duration,
    pub interval: Duration,
    pub hint: Option<String>,
    pub place: Place,
}

/// How far another one must be before a service starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Of a need: it is there.
    Present,
    /// Of a service: it runs.
    Started,
    /// Of a service: its sign of being ready has come.
    Ready,
}

impl Wanted {
    /// Its word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Wanted::Present => "present",
            Wanted::Started => "started",
            Wanted::Ready => "ready",
        }
    }
}

/// What a service waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Of a need if it is to be present, else of a service, or [`SERVER`] of the server.
    pub name: String,
    pub wanted: Wanted,
    pub place: Place,
}

/// A program that is started, watched and stopped.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub place: Place,
    pub command: CommandLine,
    pub cwd: PathBuf,
    pub cwd_place: Place,
    /// Variables that win over the environment; later ones win over earlier ones.
    pub env: Vec<(String, String)>,
    /// Variables over which the environment wins; later ones win over earlier ones.
    pub env_below: Vec<(String, String)>,
    /// Files of further variables, with the places of their keys; `env_below` has what is in them, once they are read.
    pub env_files: Vec<(Place, PathBuf)>,
    pub unbuffered: bool,
    pub enabled: bool,
    pub oneshot: bool,
    pub depends_on: Vec<Dependency>,
    pub start_wait: Duration,
    pub stop: Stop,
    pub ready: Option<Ready>,
    /// More memory than this is worth a warning.
    pub memory_warn: Option<usize>,
    pub restart: Restart,
    pub checks: Vec<Check>,
    pub evidence: Evidence,
}

/// How a service is stopped.
#[derive(Clone, Debug)]
pub struct Stop {
    pub signal: Signal,
    /// What is left after this long is killed.
    pub wait: Duration,
}

/// The sign that a service is ready.
#[derive(Clone, Debug)]
pub struct Ready {
    pub sign: ReadySign,
    pub timeout: Duration,
    pub interval: Duration,
}

/// What shows that a service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadySign {
    /// The file is written since the start.
    File(PathBuf),
    /// A line of the log since the start contains this.
    Log(String),
    Probe(Probe),
}

impl ReadySign {
    /// Where the service answers, for people; `None` of a sign that has no address.
    pub fn address(&self) -> Option<String> {
        match self {
            ReadySign::Probe(Probe::Tcp { address, .. }) => Some(address.to_string()),
            ReadySign::Probe(Probe::Http { address, .. }) => Some(format!("http://{}", address.authority)),
            ReadySign::File(_) | ReadySign::Log(_) | ReadySign::Probe(Probe::Command(_)) => None,
        }
    }
}

/// When a service is started again.
#[derive(Clone, Debug)]
pub struct Restart {
    pub on_exit: bool,
    pub on_check: bool,
    pub delay_first: Duration,
    pub delay_most: Duration,
    pub calm: Duration,
    pub most_times: u64,
    pub most_within: Duration,
    /// In percent, of /proc/pressure/cpu; 100: no pressure counts.
    pub pressure_cpu: u64,
    pub pressure_wait: Duration,
}

/// A sign that a service is well.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub place: Place,
    pub sign: Sign,
    pub interval: Duration,
    pub timeout: Duration,
    /// Looks in a row that must fail before it counts.
    pub strikes: u64,
    pub then: Then,
}

/// What a failed check leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Warn,
    Restart,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The file is at most so old.
    File {
        path: PathBuf,
        max_age: Duration,
    },
    /// While the queue is not empty, something leaves it within this time.
    Queue {
        path: PathBuf,
        format: QueueFormat,
        moves_within: Duration,
    },
    /// The number that the command prints falls within this time, unless it is 0.
    CommandQueue {
        command: CommandLine,
        moves_within: Duration,
    },
    Probe(Probe),
    /// The newest line of the log with this text is at most so old.
    Log {
        text: String,
        max_age: Duration,
    },
    /// The machine is in none of these kinds of trouble.
    Machine {
        machine: String,
        stuck: bool,
        silent: bool,
    },
    /// All its processes together take at most this many bytes (Pss).
    Memory {
        most: usize,
    },
    /// The newest event of this machine is at most so old.
    Heartbeat {
        machine: String,
        max_age: Duration,
    },
}

/// How a file holds what waits for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueFormat {
    /// A JSON list, or an object with one under this key.
    Json { key: Option<String> },
    /// One element a line.
    Lines,
}

/// What is kept of a service before it is killed.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Sent only to a process that handles it.
    pub signal: Option<Signal>,
    pub signal_wait: Duration,
    /// Where the answer comes; `None`: in the log.
    pub signal_file: Option<PathBuf>,
    /// `{pid}` stands for the process.
    pub command: Option<CommandLine>,
    pub command_timeout: Duration,
}

/// A file or folder whose changes are sent as events.
#[derive(Clone, Debug)]
pub struct Watch {
    pub name: String,
    pub path: PathBuf,
    pub every: Duration,
    pub settle: Duration,
}

/// How much evidence is kept.
#[derive(Clone, Debug)]
pub struct Incidents {
    pub keep: u64,
    pub keep_bytes: usize,
}

/// A program that may run a limited number of times.
#[derive(Clone, Debug)]
pub struct Conflict {
    pub name: String,
    pub place: Place,
    /// Globs, one of which the program matches.
    pub matches: Vec<String>,
    /// Empty: anywhere.
    pub inside: Vec<PathBuf>,
    pub expected: u64,
    pub warn: u64,
    /// `None`: never critical.
    pub critical: Option<u64>,
}

/// What a cleanup offers to remove.
#[derive(Clone, Debug, Default)]
pub struct Cleanup {
    /// Names of conflicts.
    pub strays: Vec<String>,
    /// Globs of paths, relative to the file's folder.
    pub files: Vec<String>,
    pub asks: Vec<Ask>,
}

/// A command of the cleanup that runs only when it is named.
#[derive(Clone, Debug)]
pub struct Ask {
    pub name: String,
    pub command: CommandLine,
    pub warning: Option<String>,
    pub timeout: Duration,
}
