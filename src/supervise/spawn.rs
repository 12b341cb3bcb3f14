//! Starts the first process of a service.
//!
//! It outlives us: its output is a file that it writes itself, because a pipe would end it with us, and no signal of
//! our death reaches it. It has a process group of its own, so that Ctrl-C reaches us first.

mod environment;
mod fresh;

use crate::process::refusal::Refusal;
use crate::process::signals::heed_children;
use crate::process::visible::visible;
use crate::supervise::children::{Children, Member, Purpose};
use crate::supervise::identity::Identity;
use crate::supervise::leader::Leader;
use crate::supervise::mark::Mark;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::process::{Pid, set_child_subreaper};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Rights of a folder of logs that is missing and made.
const FOLDER_MODE: u32 = 0o755;
/// Characters of a command that a message shows.
const COMMAND_CHARS_MAX: usize = 120;

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The program and its arguments. A program without a slash comes from the PATH of its environment, a relative path
    /// from below `cwd`.
    pub command: &'a [String],
    pub cwd: &'a Path,
    /// Variables beside those that this process has.
    pub environment: &'a [(OsString, OsString)],
    pub mark: &'a Mark,
    /// The file that gets its output.
    pub log: &'a Path,
    /// Python is to write each line at once.
    pub is_unbuffered: bool,
}

/// Why a service does not start.
#[derive(Debug)]
pub enum SpawnError {
    NoCommand,
    /// Its folder is not there, or is none.
    Cwd {
        command: String,
        cwd: PathBuf,
        error: io::Error,
    },
    Log {
        log: PathBuf,
        error: io::Error,
    },
    /// The kernel does not start the program.
    Program {
        command: String,
        cwd: PathBuf,
        error: io::Error,
        remedy: String,
    },
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::NoCommand => f.write_str("the service has no command; write one: command = [\"program\"]"),
            SpawnError::Cwd { command, cwd, error } => write!(
                f,
                "cannot start `{command}`: its folder {} cannot be entered: {error}; make it, or correct `cwd`",
                cwd.display()
            ),
            SpawnError::Log { log, error } => write!(
                f,
                "cannot open log file {}: {error}; make its folder writable for this user, or give another log_dir",
                log.display()
            ),
            SpawnError::Program {
                command,
                cwd,
                error,
                remedy,
            } => write!(f, "cannot start `{command}` in {}: {error}; {remedy}", cwd.display()),
        }
    }
}

impl std::error::Error for SpawnError {}

/// Prepares this process for being the supervisor: orphans of services become its children, and their ends stay known.
/// To be called once, before the first child.
///
/// # Errors
/// The kernel refuses (it is older than Linux 3.4, or a filter of system calls forbids it).
pub fn prepare() -> io::Result<()> {
    heed_children()?;
    let own = rustix::process::getpid();
    Ok(set_child_subreaper(Some(own))?)
}

/// Starts the first process of a service, in a process group of its own, with /dev/null as its standard input, its log
/// as its output, no other descriptor, default signals, and the mark. Blocks until the kernel has loaded the program,
/// which takes as long as the disks of its program, its folder and its log.
///
/// # Errors
/// Nothing was started. The text says which command, in which folder, why, and what to do.
pub fn start(launch: &Launch<'_>, children: &Children) -> Result<Leader, SpawnError> {
    let [program, arguments @ ..] = launch.command else {
        return Err(SpawnError::NoCommand);
    };
    // Else the kernel's error could be about the folder or about the program, and nobody knows which.
    if let Err(error) = fs::metadata(launch.cwd.join(".")) {
        return Err(SpawnError::Cwd {
            command: shown(launch.command),
            cwd: launch.cwd.to_owned(),
            error,
        });
    }
    let log_error = |error| SpawnError::Log {
        log: launch.log.to_owned(),
        error,
    };
    let log = open_log(launch.log).map_err(log_error)?;
    let errors = log.try_clone().map_err(log_error)?;
    let ours = std::env::vars_os();
    let environment = environment::environment(ours, launch.environment, launch.is_unbuffered, launch.mark);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(launch.cwd)
        .env_clear()
        .envs(&environment)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0);
    fresh::make_fresh(&mut command);
    let member = Member {
        service: launch.mark.service.as_str().into(),
        n: launch.mark.n,
    };
    let started = children.start(Purpose::Service(member), || {
        let child = command.spawn()?;
        let (identity, pidfd) = identify(child)?;
        Ok((identity, Leader::child(identity, pidfd, children.clone())))
    });
    started.map_err(|error| program_error(launch, &environment, error))
}

/// Opens a descriptor of a child that nobody has reaped yet, so that its number is its own. A child for which there is
/// no descriptor is killed; the reaper of orphans finds its remains.
fn identify(mut child: Child) -> io::Result<(Identity, OwnedFd)> {
    let pid = Pid::from_child(&child).as_raw_nonzero().get();
    let found = Identity::of(pid).ok_or(io::Error::from(io::ErrorKind::NotFound));
    let opened = found.and_then(|identity| Ok((identity, identity.open()?)));
    if opened.is_err() {
        let _ = child.kill();
    }
    opened
}

/// Opens a log to append to it, makes it and its folder when they are missing. Only this user can read a new one.
fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    }
    // NONBLOCK: a FIFO in its place is refused below instead of waited for. It means nothing for a regular file.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o600))?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        let text = "it is no regular file, and a service's log has to be one that can be rotated";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(File::from(file))
}

/// A command as a message shows it.
pub fn shown(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| visible(word)).collect();
    let text = words.join(" ");
    match text.char_indices().nth(COMMAND_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Returns whether a folder of `search_path` has a file called `program`.
fn is_in(search_path: &OsStr, program: &str) -> bool {
    std::env::split_paths(search_path).any(|folder| folder.join(program).exists())
}

fn program_error(launch: &Launch<'_>, environment: &BTreeMap<OsString, OsString>, error: io::Error) -> SpawnError {
    let program = launch.command.first().map_or("", String::as_str);
    let path = launch.cwd.join(program);
    let search_path = environment
        .get(OsStr::new("PATH"))
        .map_or(OsStr::new(""), OsString::as_os_str);
    let remedy = match error.raw_os_error() {
        // EACCES: one of the folders may not be entered (execvp(3)), and the program is in none of the others.
        Some(libc::ENOENT | libc::EACCES) if !program.contains('/') && !is_in(search_path, program) => format!(
            "there is no {} in its PATH ({}), as far as this user may look; install it, write its path, or set PATH in its env",
            visible(program),
            visible(&search_path.display().to_string())
        ),
        Some(libc::ENOENT) if path.exists() => {
            "the file is there, but the interpreter in its first line, or the loader that it was built for, is not; correct \
             one of the two"
                .to_owned()
        }
        Some(libc::ENOENT | libc::ENOTDIR) => format!("there is no {}; correct the command", path.display()),
        Some(libc::EACCES | libc::EPERM) => {
            "let this user execute it (chmod +x), on a file system that allows it (not mounted noexec)".to_owned()
        }
        Some(libc::ENOEXEC) => {
            "it is no program of this machine; a script needs a first line such as #!/bin/sh, or its interpreter as the \
             command"
                .to_owned()
        }
        Some(libc::E2BIG) => "make its arguments or its environment smaller".to_owned(),
        Some(libc::ETXTBSY) => "somebody is still writing the program; try again when that is over".to_owned(),
        Some(libc::EINVAL) | None => "leave out NUL characters in its command and env".to_owned(),
        Some(_) => Refusal::of(&error).to_string(),
    };
    SpawnError::Program {
        command: shown(launch.command),
        cwd: launch.cwd.to_owned(),
        error,
        remedy,
    }
}
