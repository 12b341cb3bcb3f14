//! Runs a command for us, bounded in time: a check, a need, a piece of evidence. It is no process of a service, and has
//! a process group of its own, all of which is killed when its time is over.

use crate::process::clock::timespec;
use crate::process::systemd::PRIVATE_VARIABLES;
use crate::process::visible::visible;
use crate::supervise::children::Children;
use crate::supervise::identity::Identity;
use crate::supervise::mark;
use crate::supervise::spawn::shown;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Bytes that are kept of each of its outputs: the first ones.
const SAID_BYTES_MAX: usize = 64 * 1024;
/// A killed process is gone within this time, unless the kernel holds it.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// Characters of what it said that a message shows.
const SHOWN_CHARS: usize = 120;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    pub cwd: &'a Path,
    /// Variables beside those that this process has.
    pub environment: &'a [(OsString, OsString)],
    pub timeout: Duration,
}

/// A command that runs.
#[derive(Debug)]
pub struct Begun {
    identity: Identity,
    pidfd: OwnedFd,
    child: Child,
    name: String,
    deadline: Instant,
    timeout: Duration,
}

/// Starts a command. Blocks until the kernel has loaded the program. To be called by [`Children::start`].
///
/// # Errors
/// Nothing was started. The text says which command, and why.
pub fn begin(errand: &Errand<'_>) -> Result<(Identity, Begun), String> {
    let name = shown(errand.command);
    let [program, arguments @ ..] = errand.command else {
        return Err("there is no command".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(errand.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    for private in PRIVATE_VARIABLES.iter().chain([&mark::VARIABLE]) {
        command.env_remove(private);
    }
    command.envs(errand.environment.iter().cloned());
    let begun = Instant::now();
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot run `{name}`: {error}"))?;
    let identity = Identity::of(Pid::from_child(&child).as_raw_nonzero().get());
    let opened = identity.and_then(|identity| Some((identity, identity.open().ok()?)));
    let Some((identity, pidfd)) = opened else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("cannot follow `{name}`: no descriptor is free"));
    };
    let begun = Begun {
        identity,
        pidfd,
        child,
        name,
        deadline: begun + errand.timeout,
        timeout: errand.timeout,
    };
    Ok((identity, begun))
}

/// Waits for the end of a command, until its time is over and a second more. Returns what it wrote to standard output.
///
/// # Errors
/// It did not end with status 0; the text says how it ended, and what it said last.
pub fn finish(mut begun: Begun, children: &Children) -> Result<Vec<u8>, String> {
    let mut said = [Vec::new(), Vec::new()];
    let is_over = attend(&mut begun, &mut said);
    // The leader is a zombie or alive, so its number is its own, and its group's.
    if let Some(group) = Pid::from_raw(begun.identity.pid) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = end_of(&mut begun);
    children.forget(begun.identity);
    let [out, errors] = said;
    let name = &begun.name;
    match (is_over, status) {
        (false, _) => Err(format!("`{name}` was killed: it took more than {:?}", begun.timeout)),
        (true, Some(status)) if status.success() => Ok(out),
        (true, status) => {
            let end = status.map_or_else(|| "with an unknown status".to_owned(), in_words);
            let last = last_line(&errors).or_else(|| last_line(&out));
            let last = last.map_or_else(String::new, |line| format!(": {line}"));
            Err(format!("`{name}` ended {end}{last}"))
        }
    }
}

/// Reads what the command writes until it ends. Returns whether it did in time.
fn attend(begun: &mut Begun, said: &mut [Vec<u8>; 2]) -> bool {
    let (out, errors) = (begun.child.stdout.take(), begun.child.stderr.take());
    let (Some(mut out), Some(mut errors)) = (out, errors) else {
        return false;
    };
    let _ = ioctl_fionbio(&out, true).and_then(|()| ioctl_fionbio(&errors, true));
    let mut open = [true, true];
    loop {
        let left = begun.deadline.saturating_duration_since(Instant::now());
        let has_ended = {
            let mut fds = vec![PollFd::new(&begun.pidfd, PollFlags::IN)];
            let outputs = open.iter().zip([out.as_fd(), errors.as_fd()]);
            let outputs = outputs.filter(|(is_open, _)| **is_open);
            fds.extend(outputs.map(|(_, fd)| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            // Interrupted or not, what is there tells.
            let _ = poll(&mut fds, Some(&timespec(left)));
            !fds[0].revents().is_empty()
        };
        open[0] = open[0] && take(&mut out, &mut said[0]);
        open[1] = open[1] && take(&mut errors, &mut said[1]);
        if has_ended {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// Reads what is there, bounded. Returns whether there may be more.
fn take(from: &mut impl Read, into: &mut Vec<u8>) -> bool {
    let mut part = [0; 4096];
    for _ in 0..16 {
        match from.read(&mut part) {
            Ok(0) => return false,
            Ok(more) => {
                let room = SAID_BYTES_MAX.saturating_sub(into.len());
                into.extend_from_slice(&part[..more.min(room)]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

fn end_of(begun: &mut Begun) -> Option<ExitStatus> {
    let mut fds = [PollFd::new(&begun.pidfd, PollFlags::IN)];
    let _ = poll(&mut fds, Some(&timespec(GONE_WITHIN)));
    begun.child.try_wait().ok().flatten()
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with status {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "with an unknown status".to_owned(),
    }
}

fn last_line(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(visible(line).chars().take(SHOWN_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::children::Purpose;

    fn run(script: &str, timeout: Duration) -> Result<String, String> {
        let command = ["sh", "-c", script].map(str::to_owned);
        let errand = Errand {
            command: &command,
            cwd: Path::new("/"),
            environment: &[("GREETING".into(), "hello".into())],
            timeout,
        };
        let children = Children::default();
        let begun = children.start(Purpose::Errand, || begin(&errand))?;
        let said = finish(begun, &children).map(|said| String::from_utf8(said).unwrap());
        assert!(children.listed().list.is_empty());
        said
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_command_says_is_returned() {
        assert_eq!(run("echo $GREETING", PATIENCE), Ok("hello\n".to_owned()));
    }

    #[test]
    fn how_it_failed_is_told_with_its_last_line() {
        let error = run("echo one >&2; echo 'it is broken' >&2; exit 3", PATIENCE).unwrap_err();
        assert!(error.ends_with("ended with status 3: it is broken"), "{error}");
        let error = run("kill -9 $$", PATIENCE).unwrap_err();
        assert!(error.ends_with("ended by signal 9"), "{error}");
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_its_children() {
        let begun = Instant::now();
        let error = run("sleep 600 & sleep 600", Duration::from_millis(200)).unwrap_err();
        assert!(error.contains("was killed: it took more than 200ms"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_child_that_keeps_the_output_open_holds_nobody() {
        let said = run("sleep 600 & echo done", PATIENCE);
        assert_eq!(said, Ok("done\n".to_owned()));
    }

    #[test]
    fn one_that_says_too_much_is_read_to_its_end() {
        let said = run("head -c 300000 /dev/zero | tr '\\0' x", PATIENCE).unwrap();
        assert_eq!(said.len(), SAID_BYTES_MAX);
    }
}
