//! What the kernel tells of a process beside its line in stat: arguments, executable, folder, user.

use crate::supervise::stat::Proc;
use rustix::fs::{fstat, readlinkat};
use rustix::io::{Errno, read};

/// Longest list of arguments that is read; what comes behind tells no program.
const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;
const PART_BYTES: usize = 4096;

/// Reads the arguments of process `pid`, each with a NUL behind it (proc_pid_cmdline(5)); `None` when it is gone. They
/// lie in its memory: a process that hangs in the kernel with that locked makes its reader wait.
pub fn arguments(proc: &Proc, pid: i32) -> Option<Vec<u8>> {
    let file = proc.file(pid, "cmdline").ok()?;
    let mut bytes = Vec::new();
    let mut part = [0; PART_BYTES];
    while bytes.len() < ARGUMENTS_BYTES_MAX {
        match read(&file, &mut part) {
            Ok(0) => break,
            Ok(more) => bytes.extend_from_slice(&part[..more]),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(bytes)
}

/// The arguments as texts.
pub fn words(arguments: &[u8]) -> Vec<String> {
    let bytes = arguments.strip_suffix(b"\0").unwrap_or(arguments);
    let words = bytes.split(|byte| *byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Where the link `name` of process `pid` leads, `exe` or `cwd`; `None` where we may not know.
pub fn link(proc: &Proc, pid: i32, name: &str) -> Option<String> {
    let target = readlinkat(proc, format!("{pid}/{name}"), Vec::new()).ok()?;
    Some(target.to_string_lossy().into_owned())
}

/// The user that process `pid` acts as; root for one that may not be looked into (proc_pid(5)).
pub fn user(proc: &Proc, pid: i32) -> Option<u32> {
    let file = proc.file(pid, "stat").ok()?;
    Some(fstat(&file).ok()?.st_uid)
}
