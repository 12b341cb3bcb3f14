//! A folder with services and the supervisors that run there. At the end of a test nothing of it is left: the last
//! supervisor is asked to stop everything, and if there is none, another one takes the services over and stops them.

use super::{DEADLINE, eventually, pause};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_threadcast");

/// A folder with a file of services.
#[derive(Debug)]
pub struct Stack {
    folder: TempDir,
    up: Option<Child>,
    runs: usize,
}

/// How a command ended, and what it wrote.
#[derive(Debug)]
pub struct Said {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Stack {
    /// A new folder with this file of services.
    pub fn new(services: &str) -> Stack {
        let folder = tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap();
        fs::write(folder.path().join("services.toml"), services).unwrap();
        Stack {
            folder,
            up: None,
            runs: 0,
        }
    }

    /// The same with `threadcast up` running.
    pub fn up(services: &str) -> Stack {
        let mut stack = Stack::new(services);
        stack.start(&[]);
        stack
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `threadcast up`.
    pub fn start(&mut self, arguments: &[&str]) {
        self.runs += 1;
        self.up = Some(self.spawn(&[&["up"], arguments].concat()));
    }

    /// Starts another `threadcast up` beside the one of now, which is returned.
    pub fn start_another(&mut self, arguments: &[&str]) -> Child {
        let earlier = self.up.take().unwrap();
        self.start(arguments);
        earlier
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let output = |kind: &str| File::create(self.path().join(format!("{kind}-{}", self.runs))).unwrap();
        self.command(arguments)
            .stdout(output("out"))
            .stderr(output("err"))
            .spawn()
            .unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .env_remove("THREADCAST_URL");
        command
    }

    /// Runs another command of the program in this folder.
    pub fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        Said {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What the supervisor of now has written to standard output.
    pub fn out(&self) -> String {
        fs::read_to_string(self.path().join(format!("out-{}", self.runs))).unwrap()
    }

    /// What the supervisor of now has written to standard error.
    pub fn err(&self) -> String {
        fs::read_to_string(self.path().join(format!("err-{}", self.runs))).unwrap()
    }

    /// Waits until the supervisor has said this on standard error.
    #[track_caller]
    pub fn wait_until_said(&self, text: &str) {
        eventually(&format!("{text:?} is said"), || self.err().contains(text).then_some(()));
    }

    /// The process of the supervisor.
    pub fn pid(&self) -> i32 {
        self.up.as_ref().unwrap().id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// Kills the supervisor, which leaves the services alone.
    pub fn kill(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// Waits until the supervisor has ended by itself. Returns its status.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let mut up = self.up.take().unwrap();
        let status = eventually("the supervisor ends", || up.try_wait().unwrap());
        status.code()
    }

    /// Asks the supervisor to end, and waits until it has. Returns its status.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// The document of `services status`; `None` while nobody answers.
    pub fn status(&self) -> Option<Value> {
        let said = self.run(&["services", "status", "--json"]);
        serde_json::from_str(&said.out).ok()
    }

    /// A service, as `services status` has it.
    pub fn service(&self, name: &str) -> Option<Value> {
        let status = self.status()?;
        let services = status["services"].as_array()?;
        services.iter().find(|service| service["name"] == name).cloned()
    }

    /// Waits until a service is in a state. Returns it.
    #[track_caller]
    pub fn wait_for(&self, name: &str, state: &str) -> Value {
        let begun = Instant::now();
        loop {
            let service = self.service(name);
            if let Some(service) = &service
                && service["state"] == state
            {
                return service.clone();
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{name} is not {state}: {service:?}\n{}",
                self.err()
            );
            pause(Duration::from_millis(20));
        }
    }

    /// A file that services write.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The lines that services have written to a file; none while it is not there.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the supervisor said:\n{}", self.err());
        }
        if self.up.is_none() {
            if !self.path().join("run").exists() {
                return;
            }
            // Something may run that the test has left alone.
            self.start(&[]);
        }
        self.signal(Signal::TERM);
        let mut up = self.up.take().unwrap();
        let begun = Instant::now();
        while up.try_wait().unwrap().is_none() {
            if begun.elapsed() > DEADLINE {
                up.kill().unwrap();
                up.wait().unwrap();
                return;
            }
            pause(Duration::from_millis(10));
        }
    }
}

/// Returns whether there is a process of this id that has not ended.
pub fn lives(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}
