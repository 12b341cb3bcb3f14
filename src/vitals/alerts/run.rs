//! One run of the alert command: a process in a group of its own, its three pipes, its end. Nothing here blocks but the
//! start, which lasts until the kernel has loaded the program.

use crate::process::systemd::PRIVATE_VARIABLES;
use crate::process::visible::visible;
use crate::process::words::count;
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Bytes that are kept of each of the command's outputs: its first lines.
const SAID_BYTES_MAX: usize = 1024;
/// Lines of it that the log gets.
const LINES_MAX: usize = 5;
/// Bytes that are read of one output in a turn.
const READ_BYTES: usize = 4096;
/// Reads of one output in a turn; a command that writes without an end must not hold the thread.
const READS_PER_TURN: usize = 16;
/// A command that runs.
#[derive(Debug)]
pub(super) struct Run {
    child: Child,
    pid: Pid,
    /// What it is still to get on standard input.
    input: Vec<u8>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// The beginnings of its standard error and of its standard output.
    said: [Vec<u8>; 2],
    begun: Instant,
    deadline: Instant,
    /// Its group was killed.
    is_killed: bool,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) took: Duration,
    /// The first lines that it wrote, fit for the log; empty if it wrote none.
    pub(super) said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(ExitStatus),
    /// It was killed, because it lasted too long or the server stops.
    Killed,
    /// Nobody knows: the kernel has let go of it.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(status) => write!(f, "{status}"),
            End::Killed => write!(f, "killed"),
            End::Unknown => write!(f, "unknown status"),
        }
    }
}

impl Run {
    /// Starts the command with `input` on its standard input. Blocks until the kernel has loaded the program, which
    /// takes as long as its disk.
    ///
    /// # Errors
    /// There is no such program, this user may not start it, or the host refuses a process or descriptors.
    pub(super) fn start(words: &[String], input: String, time_max: Duration) -> io::Result<Run> {
        let [program, arguments @ ..] = words else {
            return Err(io::Error::other("there is no command"));
        };
        let mut command = Command::new(program);
        PRIVATE_VARIABLES.iter().for_each(|name| {
            command.env_remove(name);
        });
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its group is the command and what it starts: a signal for the server's group does not reach it, and the
            // end reaches all of them.
            .process_group(0);
        let mut child = command.spawn()?;
        let begun = Instant::now();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut run = Run {
            pid: Pid::from_child(&child),
            child,
            input: input.into_bytes(),
            stdin,
            stdout,
            stderr,
            said: Default::default(),
            begun,
            deadline: begun + time_max,
            is_killed: false,
        };
        if let Err(error) = run.never_wait() {
            run.kill();
            // Killed, so this takes moments.
            let _ = run.child.wait();
            return Err(error);
        }
        Ok(run)
    }

    /// Our ends of the pipes; those of the command stay as they are.
    fn never_wait(&self) -> io::Result<()> {
        let stdin = self.stdin.as_ref().map(AsFd::as_fd);
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        let stderr = self.stderr.as_ref().map(AsFd::as_fd);
        for end in [stdin, stdout, stderr].into_iter().flatten() {
            ioctl_fionbio(end, true)?;
        }
        Ok(())
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> Vec<PollFd<'_>> {
        let stdin = self.stdin.as_ref().map(|end| PollFd::new(end, PollFlags::OUT));
        let stdout = self.stdout.as_ref().map(|end| PollFd::new(end, PollFlags::IN));
        let stderr = self.stderr.as_ref().map(|end| PollFd::new(end, PollFlags::IN));
        [stdin, stdout, stderr].into_iter().flatten().collect()
    }

    /// Does what can be done without waiting. Returns how the run has ended, once nothing is left of the process.
    ///
    /// It has ended when the command has and nobody holds its outputs any more: a part of it that runs on in the
    /// background belongs to it. What lasts longer than it may is killed with its group.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Outcome> {
        self.feed();
        self.listen();
        let Ok(has_exited) = self.has_exited() else {
            // Its status went to nobody, and its number may be another's by now: no kill.
            return Some(self.outcome(End::Unknown));
        };
        if now >= self.deadline {
            self.kill();
        }
        if !has_exited || self.stdout.is_some() || self.stderr.is_some() {
            return None;
        }
        // The process was a zombie until here, so that the number of its group could not become another's.
        match self.child.try_wait() {
            Ok(Some(_)) if self.is_killed => Some(self.outcome(End::Killed)),
            Ok(Some(status)) => Some(self.outcome(End::Exited(status))),
            Ok(None) => None,
            Err(_) => Some(self.outcome(End::Unknown)),
        }
    }

    /// Kills the command with its group; [`Run::turn`] sees the end. Of no use after that.
    pub(super) fn kill(&mut self) {
        if self.is_killed {
            return;
        }
        self.is_killed = true;
        // The number is its own until `turn` waits for it. ESRCH: it has left its group.
        let _ = kill_process_group(self.pid, Signal::KILL);
        // A process that has made a group of its own may hold the other ends.
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
    }

    /// Returns whether it was killed.
    pub(super) fn is_killed(&self) -> bool {
        self.is_killed
    }

    /// Since its start.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// When it will be killed.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.input.is_empty() {
            match stdin.write(&self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It does not want to know, which is its own affair.
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    fn listen(&mut self) {
        let [errors, others] = &mut self.said;
        if let Some(end) = &mut self.stderr
            && read(end, errors) == Output::Ended
        {
            self.stderr = None;
        }
        if let Some(end) = &mut self.stdout
            && read(end, others) == Output::Ended
        {
            self.stdout = None;
        }
    }

    /// Returns whether the command has ended. It stays a zombie.
    ///
    /// # Errors
    /// It has ended, and the kernel has let go of it.
    fn has_exited(&self) -> Result<bool, Errno> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid), options) {
            Ok(status) => Ok(status.is_some()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn outcome(&mut self, end: End) -> Outcome {
        Outcome {
            end,
            took: self.begun.elapsed(),
            said: first_lines(&self.said.join(&b'\n')),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    MayFollow,
    Ended,
}

/// Reads what is there, and keeps the first of it.
fn read(end: &mut impl Read, said: &mut Vec<u8>) -> Output {
    let mut bytes = [0; READ_BYTES];
    for _ in 0..READS_PER_TURN {
        match end.read(&mut bytes) {
            Ok(0) => return Output::Ended,
            Ok(len) => {
                let room = SAID_BYTES_MAX.saturating_sub(said.len());
                said.extend_from_slice(&bytes[..len.min(room)]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Output::MayFollow,
            Err(_) => return Output::Ended,
        }
    }
    Output::MayFollow
}

/// The first lines of the outputs, on one line. Errors come first, so that other lines do not crowd them out.
fn first_lines(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown: Vec<String> = lines.iter().take(LINES_MAX).map(|line| visible(line)).collect();
    let mut shown = shown.join(" | ");
    if lines.len() > LINES_MAX {
        let more = count(lines.len() - LINES_MAX, "line");
        shown.push_str(&format!(" | (and {more} more at least)"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::clock::pause;

    fn start(script: &str, input: &str, time_max: Duration) -> Run {
        let words = ["sh", "-c", script].map(str::to_owned);
        Run::start(&words, input.to_owned(), time_max).unwrap()
    }

    fn end(run: &mut Run) -> Outcome {
        let begun = Instant::now();
        loop {
            if let Some(outcome) = run.turn(Instant::now()) {
                return outcome;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not end: {run:?}");
            pause(Duration::from_millis(2));
        }
    }

    fn exists(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        // One that waits for its parent, or for init, to take notice has ended.
        stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with(['Z', 'X']))
    }

    #[test]
    fn a_command_gets_its_input_and_its_first_lines_are_kept() {
        // More than a pipe holds.
        let input = format!("{}\n", "x".repeat(300_000));
        let mut run = start(
            "wc -c; echo; echo b >&2; seq 9; exit 3",
            &input,
            Duration::from_secs(20),
        );
        let outcome = end(&mut run);
        assert!(
            matches!(outcome.end, End::Exited(status) if status.code() == Some(3)),
            "{outcome:?}"
        );
        assert_eq!(outcome.said, "b | 300001 | 1 | 2 | 3 | (and 6 lines more at least)");
        assert!(!exists(&run.pid.as_raw_nonzero().to_string()), "a zombie is left");
    }

    #[test]
    fn one_that_reads_nothing_and_writes_without_an_end_is_killed_in_time() {
        let mut run = start("exec yes", &"x".repeat(300_000), Duration::from_millis(200));
        let outcome = end(&mut run);
        assert_eq!(outcome.end, End::Killed);
        assert!(outcome.said.starts_with("y | y | y | y | y | (and "), "{outcome:?}");
        assert!(outcome.took >= Duration::from_millis(200));
    }

    #[test]
    fn what_a_command_leaves_in_the_background_is_killed_with_its_group() {
        let script = "sleep 600 & echo $!; trap '' TERM; sleep 600 & echo $!; exit 0";
        let mut run = start(script, "", Duration::from_millis(400));
        let outcome = end(&mut run);
        assert_eq!(outcome.end, End::Killed, "the background holds its output");
        let pids: Vec<&str> = outcome.said.split(" | ").collect();
        assert_eq!(pids.len(), 2, "{outcome:?}");
        let begun = Instant::now();
        while pids.iter().any(|pid| exists(pid)) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{pids:?}");
            pause(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_program_that_is_not_there_does_not_start() {
        let words = ["/nowhere/program".to_owned()];
        let error = Run::start(&words, String::new(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
