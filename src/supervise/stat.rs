//! One line of /proc/PID/stat (proc_pid_stat(5)), read without allocating.
//!
//! The kernel answers from its own tables, never from the memory of the process, so a hung process delays nobody here.

use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::io::{Errno, read};
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest line that is read: 52 numbers of at most 20 digits, and a name of at most 64 bytes.
const LINE_BYTES_MAX: usize = 1536;
/// Longest name that is kept; the kernel's names have 15 bytes, those of its own threads up to 63.
const NAME_BYTES_MAX: usize = 16;

/// What the kernel tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    /// Its parent; 0 where that is outside of our process namespace.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    pub session: i32,
    /// The number of its terminal; 0: none.
    pub terminal: i32,
    /// The letter of proc_pid_stat(5): `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`.
    pub state: u8,
    /// Threads that are left, the first one included.
    pub threads: u32,
    /// Clock ticks between the host's boot and the start of the process.
    pub start: u64,
    /// Clock ticks of processor time, with those of children that it has waited for.
    pub cpu_ticks: u64,
    /// Where its environment lies in its memory: changes when it executes another program. 0 where we may not know.
    pub environment_at: u64,
    name: [u8; NAME_BYTES_MAX],
}

/// The open folder /proc.
#[derive(Debug)]
pub struct Proc {
    folder: OwnedFd,
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Proc {
    /// Opens /proc.
    ///
    /// # Errors
    /// /proc is not mounted, or no descriptor is free.
    pub fn open() -> Result<Proc, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open("/proc", flags, Mode::empty())?;
        Ok(Proc { folder })
    }

    /// Lists the ids of all processes that we may see.
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn pids(&self) -> Result<Vec<i32>, Errno> {
        let mut pids = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.first().is_some_and(u8::is_ascii_digit) {
                pids.extend(number::<i32>(name));
            }
        }
        Ok(pids)
    }

    /// Opens a file of process `pid` to read it.
    ///
    /// # Errors
    /// The process is gone (ENOENT, ESRCH), or we may not read the file.
    pub fn file(&self, pid: i32, file: &str) -> Result<OwnedFd, Errno> {
        let mut path = String::with_capacity(32);
        // A string takes all that is written to it.
        let _ = write!(path, "{pid}/{file}");
        openat(
            self.folder.as_fd(),
            path.as_str(),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// Reads what the kernel tells of process `pid`; `None` when there is none, or when it is hidden from us.
    ///
    /// # Errors
    /// No descriptor or memory is free: nobody knows whether there is such a process.
    pub fn stat(&self, pid: i32) -> Result<Option<Stat>, Errno> {
        read_line(self.file(pid, "stat"))
    }
}

/// Reads what the kernel tells of process `pid`; `None` when there is none, or when it is hidden from us.
pub fn of(pid: i32) -> Option<Stat> {
    read_of(pid).ok()?
}

/// The same.
///
/// # Errors
/// No descriptor or memory is free: nobody knows whether there is such a process.
pub fn read_of(pid: i32) -> Result<Option<Stat>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    read_line(openat(CWD, format!("/proc/{pid}/stat"), flags, Mode::empty()))
}

fn read_line(file: Result<OwnedFd, Errno>) -> Result<Option<Stat>, Errno> {
    let file = match file {
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(error),
        Err(_) => return Ok(None),
        Ok(file) => file,
    };
    let mut line = [0; LINE_BYTES_MAX];
    match read(&file, &mut line) {
        Err(error @ Errno::NOMEM) => Err(error),
        Err(_) => Ok(None),
        Ok(len) => Ok(Stat::parse(&line[..len])),
    }
}

impl Stat {
    /// Reads a line; `None` when it is none. The name may contain spaces, parentheses and line ends.
    fn parse(line: &[u8]) -> Option<Stat> {
        let begin = line.iter().position(|byte| *byte == b'(')?;
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let pid = number(line.get(..begin)?.trim_ascii())?;
        let mut name = [0; NAME_BYTES_MAX];
        let said = line.get(begin + 1..end)?;
        let len = said.len().min(NAME_BYTES_MAX);
        name[..len].copy_from_slice(&said[..len]);
        // The fields behind the name, counted from 3 in the manual and from 0 here.
        let mut fields = [&b""[..]; 48];
        let rest = line.get(end + 1..)?.trim_ascii();
        let mut parts = rest.split(u8::is_ascii_whitespace);
        fields.fill_with(|| parts.next().unwrap_or_default());
        let ticks = |field: usize| number::<u64>(fields[field]);
        Some(Stat {
            pid,
            ppid: number(fields[1])?,
            pgid: number(fields[2])?,
            session: number(fields[3])?,
            terminal: number(fields[4]).unwrap_or(0),
            state: *fields[0].first()?,
            threads: number(fields[17])?,
            start: number(fields[19])?,
            cpu_ticks: ticks(11)? + ticks(12)? + ticks(13).unwrap_or(0) + ticks(14).unwrap_or(0),
            environment_at: number(fields[47]).unwrap_or(0),
            name,
        })
    }

    /// Returns whether the process has ended, so that only its parent has still to take notice. A process whose first
    /// thread alone has ended lives.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }

    /// Its short name, as the process has set it: text for people, fit for a terminal.
    pub fn name(&self) -> String {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES_MAX);
        crate::process::visible::visible(&String::from_utf8_lossy(&self.name[..end]))
    }
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_process_calls_itself() {
        let numbers: Vec<String> = (4..=52).map(|field: u32| (field * 10).to_string()).collect();
        let line = format!("7 (a) S 1 (b\n) R {}\n", numbers.join(" "));
        let stat = Stat::parse(line.as_bytes()).unwrap();
        assert_eq!((stat.pid, stat.ppid, stat.pgid, stat.session), (7, 40, 50, 60));
        assert_eq!((stat.state, stat.threads, stat.start), (b'R', 200, 220));
        assert_eq!((stat.cpu_ticks, stat.environment_at), (140 + 150 + 160 + 170, 500));
        assert!(stat.name().starts_with("a) S 1 (b"), "{}", stat.name());
        for (state, threads, has_ended) in [(b'Z', 1, true), (b'X', 0, true), (b'Z', 2, false), (b'S', 1, false)] {
            assert_eq!(Stat { state, threads, ..stat }.has_ended(), has_ended);
        }
        for text in ["", "7", "7 (a", "7 (a)", "7 (a) S 1 2 3", "x (a) S 1"] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_kernel_tells_of_ourselves() {
        let proc = Proc::open().unwrap();
        let own = std::process::id() as i32;
        let stat = proc.stat(own).unwrap().unwrap();
        assert_eq!(stat.ppid, std::os::unix::process::parent_id() as i32);
        assert!(!stat.has_ended() && stat.environment_at > 0 && stat.threads > 0);
        assert!(proc.pids().unwrap().contains(&own));
        assert_eq!(of(own).unwrap().start, stat.start);
        assert_eq!(proc.stat(i32::MAX), Ok(None));
    }
}
