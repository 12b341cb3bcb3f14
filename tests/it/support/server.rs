//! The real binary, in a folder of its own, on free ports; ended and reaped whatever happens.

use super::http::{self, Answer};
use super::{DEADLINE, TestClient, eventually, pause, skipped, uninterrupted, within};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running server.
pub struct TestServer {
    child: Child,
    lines: Lines,
    folder: Arc<TempDir>,
    pub address: SocketAddr,
}

/// A blocking sender, connected to a datagram socket, whose sends end.
#[derive(Debug)]
pub struct Sender(UnixDatagram);

impl Sender {
    /// Connected to the socket at `path`.
    #[track_caller]
    pub fn to(path: &Path) -> Sender {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(path).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Sender(socket)
    }

    /// Sends one datagram, whatever signals come meanwhile.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.send(datagram))
    }
}

impl Deref for Sender {
    type Target = UnixDatagram;

    fn deref(&self) -> &UnixDatagram {
        &self.0
    }
}

/// What it has written to standard error so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// The lines that contain `part`.
    pub fn with(&self, part: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// All of them.
    pub fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    fn collect(&self, from: impl std::io::Read + Send + 'static) {
        let lines = self.clone();
        #[expect(clippy::disallowed_methods, reason = "the harness has threads of its own")]
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
            }
        });
    }
}

impl TestServer {
    /// Starts a server with further flags and waits until it serves.
    #[track_caller]
    pub fn start(flags: &[&str]) -> TestServer {
        let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
        TestServer::start_in(folder, flags)
    }

    /// The same in a folder that exists: a restart.
    #[track_caller]
    pub fn start_in(folder: Arc<TempDir>, flags: &[&str]) -> TestServer {
        TestServer::start_command(folder, flags, |_| ())
    }

    /// The same with changes to the command (environment, limits).
    #[track_caller]
    pub fn start_command(folder: Arc<TempDir>, flags: &[&str], change: impl FnOnce(&mut Command)) -> TestServer {
        let fresh = !folder.path().join("logs").exists();
        let mut command = command(folder.path(), flags);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = Lines::default();
        let log = folder.path().join("logs/websocket-server.log");
        if let Some(stderr) = child.stderr.take() {
            lines.collect(stderr);
        }
        let address = eventually("the server listens", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", lines.all());
            }
            let said = lines.with(" listens on http://").pop();
            // Whoever has taken its standard error away finds the address in its log file.
            let said = said.or_else(|| fresh.then(|| std::fs::read_to_string(&log).ok()).flatten())?;
            let address = said.split(" listens on http://").nth(1)?.split(',').next()?;
            address.parse().ok()
        });
        TestServer {
            child,
            lines,
            folder,
            address,
        }
    }

    /// Its folder, kept for a restart.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of its datagram socket.
    pub fn socket_path(&self) -> PathBuf {
        self.path("events.sock")
    }

    /// What it has said so far.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Waits for a line that contains `part`.
    #[track_caller]
    pub fn wait_for_line(&self, part: &str) -> String {
        let lines = &self.lines;
        let described = format!("a line with {part:?}");
        eventually(&described, || lines.with(part).pop())
    }

    /// A blocking sender, connected to its datagram socket.
    pub fn sender(&self) -> Sender {
        Sender::to(&self.socket_path())
    }

    /// Sends one event.
    #[track_caller]
    pub fn send(&self, event: impl AsRef<[u8]>) {
        self.sender().send(event.as_ref()).unwrap();
    }

    /// A client that has read its `initial`.
    #[track_caller]
    pub fn client(&self) -> TestClient {
        let mut client = TestClient::connect(self.address);
        let initial = client.text();
        assert!(initial.starts_with("{\"type\":\"initial\""), "{initial}");
        client
    }

    /// Its admin socket, at the usual place of a server without folders for what runs, unless its folder has one.
    pub fn admin_socket(&self) -> PathBuf {
        let given = self.path("admin.sock");
        if given.exists() {
            return given;
        }
        self.path(&format!("logs/threadcast-{}.sock", self.address.port()))
    }

    /// A request that acts, at the admin socket.
    #[track_caller]
    pub fn act(&self, target: &str) -> Answer {
        http::act(&self.admin_socket(), "POST", target, &[])
    }

    /// A request over TCP.
    pub fn http(&self, method: &str, target: &str, headers: &[&str]) -> Answer {
        http::request(self.address, method, target, headers)
    }

    /// `/health` as JSON, whatever its status.
    pub fn health(&self) -> serde_json::Value {
        self.http("GET", "/health", &[]).json()
    }

    /// `/initial` as JSON.
    pub fn initial(&self) -> serde_json::Value {
        self.http("GET", "/initial", &[]).json()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        within(deadline, "the server ends", || child.try_wait().unwrap())
    }

    /// SIGTERM, and its status.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end(DEADLINE)
    }

    /// SIGSTOP, and waits until every thread stands.
    #[track_caller]
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        eventually("every thread stands", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            let mut stats = tasks
                .flatten()
                .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
            // The state is behind the name (proc_pid_stat(5)).
            stats
                .all(|stat| stat.rsplit(") ").next().unwrap().starts_with('T'))
                .then_some(())
        });
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Threads and descriptors. Waits before until the log has its file, which is made after the start.
    #[track_caller]
    pub fn footprint(&self) -> (usize, usize) {
        eventually("the log has its file, or cannot have it", || {
            let open = self
                .open_files()
                .iter()
                .any(|path| path.ends_with("websocket-server.log"));
            (open || !self.lines.with("⚠️ cannot write ").is_empty()).then_some(())
        });
        (self.threads(), self.descriptors())
    }

    /// Waits until it has no more threads and descriptors than it had, and no clients but `clients`.
    #[track_caller]
    pub fn comes_back_to(&self, clients: usize, threads: usize, descriptors: usize) {
        let begun = Instant::now();
        loop {
            let now = (self.health()["connections"].clone(), self.threads(), self.descriptors());
            if now.0 == clients && now.1 <= threads && now.2 <= descriptors {
                return;
            }
            let wanted = (clients, threads, descriptors);
            assert!(
                begun.elapsed() < DEADLINE,
                "clients, threads, descriptors are not back at {wanted:?}: {now:?}\n{:?}",
                self.open_files()
            );
            pause(Duration::from_millis(10));
        }
    }

    /// What its descriptors are.
    fn open_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        entries
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .collect()
    }

    /// Threads.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's lines:\n{}", self.lines.all());
        }
    }
}

/// What every server is started with; a test's own flags come later and win. On a busy host the server's threads and
/// our own readers may get no processor for a while: neither an event that is dropped nor a client that is ended for
/// that is what a test is about, unless it says so by flags of its own.
pub const STEADY: [(&str, &str); 3] = [
    ("--ingest-patience", "250ms"),
    ("--send-timeout", "30s"),
    // So that tests of the engine's database need not wait for it.
    ("--db-interval", "250ms"),
];

/// The command `threadcast serve` in `folder`, with its socket there and a free port.
fn command(folder: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadcast"));
    command
        .arg("serve")
        .args(["--port", "0", "--event-socket-path"])
        .arg(folder.join("events.sock"))
        .args(STEADY.iter().flat_map(|(flag, value)| [flag, value]))
        .args(flags)
        .current_dir(folder)
        // The admin socket lies in the log folder then, and servers of tests do not meet.
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    clear_environment(&mut command);
    command
}

/// Takes from the command what this environment has for threadcast: settings, and the server that commands ask.
pub fn clear_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"THREADCAST_") {
            command.env_remove(name);
        }
    }
}

/// Runs `script` before the command, in a shell that `shell` starts; the command takes the shell's place.
pub fn in_shell(command: &mut Command, shell: &[&str], script: &str) {
    let mut wrapped = Command::new(shell[0]);
    wrapped
        .args(&shell[1..])
        .arg("-c")
        .arg(format!("{script}; exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    clear_environment(&mut wrapped);
    *command = wrapped;
}

/// Starts a server in `folder` with so many descriptors, tells it to end once it has announced itself, and waits until
/// it has ended: whether it announced itself, and its status.
pub fn start_with_descriptors(descriptors: usize, folder: &Path, flags: &[&str]) -> (bool, ExitStatus) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadcast"));
    command
        .args(["serve", "--port", "0", "--event-socket-path"])
        .arg(folder.join("events.sock"))
        .args(flags)
        .current_dir(folder);
    in_shell(&mut command, &["sh"], &format!("ulimit -n {descriptors}"));
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let announced = said.any(|line| line.contains(" listens on http://"));
    // A server that has come so far fails by itself, or serves until it is told to end.
    if announced {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    }
    said.for_each(drop);
    (announced, child.wait().unwrap())
}

/// A shell in which `mount` changes nothing for anybody else; `None`, said, where this user may not have one.
pub fn mounting_shell() -> Option<&'static [&'static str]> {
    const SHELL: &[&str] = &["unshare", "--mount", "sh"];
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(SHELL[0])
        .args(&SHELL[1..])
        .args(["-c", "mount -t tmpfs -o size=64k tmpfs ."])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .status();
    let allowed = status.is_ok_and(|status| status.success());
    if !allowed {
        skipped("full and read-only disks, because this user may not mount a small one");
    }
    allowed.then_some(SHELL)
}

/// Runs the binary with `arguments` in `folder` to its end: status, standard output, standard error.
pub fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    run_with(folder, arguments, &[])
}

/// As [`run`], with these in the environment.
pub fn run_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadcast"));
    clear_environment(&mut command);
    let output = command
        .args(arguments)
        .current_dir(folder)
        .env_remove("XDG_RUNTIME_DIR")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}
