//! Facts about other processes from /proc: who has a Unix socket open, and what a process is called.

use crate::process::clock::epoch_seconds;
use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process, for messages to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessName {
    /// Its id.
    pub pid: u32,
    /// Its command line, or its short name when it has none.
    pub command: String,
}

impl std::fmt::Display for ProcessName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Longest command line that a message shows.
const COMMAND_CHARS_MAX: usize = 120;

/// Names process `pid`; `None` when there is none.
pub fn process_name(pid: u32) -> Option<ProcessName> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command = match command.trim() {
        "" => fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned(),
        text => text.chars().take(COMMAND_CHARS_MAX).collect(),
    };
    Some(ProcessName { pid, command })
}

/// The short name of process `pid`, of at most 15 bytes (proc_pid_comm(5)); `None` where the kernel does not tell. Its
/// command line lies in its own memory, and a process can make who reads that wait.
pub fn short_name(pid: i32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end_matches('\n').to_owned())
}

/// Finds a process that has a Unix socket bound to `path` open.
///
/// Walks /proc, so it takes milliseconds: for messages to people, not for a data path. `None` when nobody has it, or
/// when the owner belongs to another user whose descriptors we may not see.
pub fn unix_socket_owner(path: &Path) -> Option<ProcessName> {
    owner_of_any(&sockets_bound_to(path))
}

/// The same among sockets that this process does not have open: a socket keeps its name after its file is gone, so
/// a process that lost the path still looks like an owner of it, and so does who passed us our socket and has it open
/// too.
pub fn other_unix_socket_owner(path: &Path) -> Option<ProcessName> {
    owner_of_any(&sockets_of_others_bound_to(path))
}

/// Returns whether a socket that this process does not have open is bound to `path`, in any process.
pub fn is_bound_by_another_socket(path: &Path) -> bool {
    !sockets_of_others_bound_to(path).is_empty()
}

/// The sockets bound to `path`, as the links of descriptors name them (proc_pid_fd(5)).
fn sockets_bound_to(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let inodes = table.lines().filter_map(|line| inode_if_bound_to(line, path));
    inodes.map(|inode| format!("socket:[{inode}]")).collect()
}

fn sockets_of_others_bound_to(path: &Path) -> Vec<String> {
    let mut links = sockets_bound_to(path);
    links.retain(|link| !has_open(std::process::id(), std::slice::from_ref(link)));
    links
}

fn owner_of_any(links: &[String]) -> Option<ProcessName> {
    if links.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter()
        .find(|pid| has_open(*pid, links))
        .and_then(process_name)
}

/// The inode column of a line of /proc/net/unix, if its path column (the eighth, to the end of the line) is `path`.
fn inode_if_bound_to<'a>(line: &'a str, path: &Path) -> Option<&'a str> {
    let mut rest = line;
    let mut inode = "";
    for _ in 0..7 {
        rest = rest.trim_start();
        let end = rest.find(' ')?;
        inode = &rest[..end];
        rest = &rest[end..];
    }
    (Path::new(rest.strip_prefix(' ')?) == path).then_some(inode)
}

fn has_open(pid: u32, links: &[String]) -> bool {
    any_descriptor(pid, |link| {
        fs::read_link(link).is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
    })
}

/// Returns whether process `pid` has the file open that `file` describes; `false` too when we may not look.
///
/// Judged by device and inode, because the process may see the file at another path than we do.
pub fn has_file_open(pid: u32, file: &fs::Metadata) -> bool {
    any_descriptor(pid, |link| {
        // The links of descriptors lead to the open file itself (proc_pid_fd(5)).
        fs::metadata(link).is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
    })
}

fn any_descriptor(pid: u32, is_meant: impl Fn(&Path) -> bool) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .is_ok_and(|descriptors| descriptors.flatten().any(|entry| is_meant(&entry.path())))
}

/// When the host began, by the wall clock: the earliest moment that this clock has ever shown for it.
///
/// The kernel tells when a process began as a time since the host's boot, and rows tell when they were written by the
/// wall clock. What lies between the two clocks changes with every step of the wall clock (a person, NTP on a host
/// without a battery), so one look at both, after a step forward, moves the beginning of every process behind the rows
/// that it wrote before the step. A row was written under one of the differences that were seen, nobody knows which;
/// with the smallest of them a process that lives is never taken for gone. The price: after a step backward and forth
/// again, an id that was given to another process meanwhile may count as the old one. A step before the first look
/// cannot be seen.
#[derive(Debug)]
pub struct HostBegun {
    /// Seconds since the epoch.
    earliest: f64,
}

impl HostBegun {
    /// As both clocks show it now.
    pub fn now() -> HostBegun {
        let mut begun = HostBegun {
            earliest: f64::INFINITY,
        };
        begun.look();
        begun
    }

    /// Looks at both clocks again.
    fn look(&mut self) -> f64 {
        // Not /proc/uptime, which in a container can be that one's own.
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        self.see(epoch_seconds(), up.tv_sec as f64 + up.tv_nsec as f64 / 1e9)
    }

    /// The wall clock shows `wall` when the host has been up for `up` seconds; returns the earliest beginning.
    fn see(&mut self, wall: f64, up: f64) -> f64 {
        self.earliest = self.earliest.min(wall - up);
        self.earliest
    }
}

/// Which processes there are, as each is first asked for; made anew for every moment.
#[derive(Debug)]
pub struct Processes {
    /// When the host began, seconds since the epoch.
    host_begun: f64,
    seen: BTreeMap<i32, Life>,
}

/// What is known of a process id.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Gone,
    /// Seconds since the epoch.
    Since(f64),
    /// Somebody has it, but we may not see who.
    Hidden,
}

/// A process may write its id down in the moment in which it begins, by clocks that are read with 10 ms and rounded.
const BEGUN_SLACK_S: f64 = 2.0;

impl Processes {
    /// Of this moment.
    pub fn now(host: &mut HostBegun) -> Processes {
        Processes {
            host_begun: host.look(),
            seen: BTreeMap::new(),
        }
    }

    /// Returns whether the process is gone that had id `pid` at `at` (seconds since the epoch; `None`: nobody knows
    /// when): there is none, or one that began later. Takes some 10 µs for an id that was not asked for before.
    pub fn is_gone(&mut self, pid: i32, at: Option<f64>) -> bool {
        let host_begun = self.host_begun;
        match self.seen.entry(pid).or_insert_with(|| life(pid, host_begun)) {
            Life::Gone => true,
            Life::Since(begun) => at.is_some_and(|at| *begun > at + BEGUN_SLACK_S),
            Life::Hidden => false,
        }
    }
}

fn life(pid: i32, host_begun: f64) -> Life {
    let is_there = |id| rustix::process::test_kill_process(id) != Err(rustix::io::Errno::SRCH);
    if !Pid::from_raw(pid).is_some_and(is_there) {
        return Life::Gone;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    match stat.as_deref().and_then(state_and_begin) {
        // It has ended, and nobody has asked how.
        Some(("Z" | "X", _)) => Life::Gone,
        Some((_, ticks)) => Life::Since(host_begun + ticks / clock_ticks_per_second() as f64),
        None => Life::Hidden,
    }
}

/// Of a line of proc_pid_stat(5) the state, and when the process began, in ticks since the host did: the third and the
/// 22nd field, counted behind the name, which may itself contain parentheses and spaces.
fn state_and_begin(stat: &str) -> Option<(&str, f64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A process that holds a lock for writing on the file that `file` describes (fcntl(2), as SQLite does); `None` when
/// nobody does, or when the kernel does not tell (proc_locks(5)).
pub fn lock_holder(file: &fs::Metadata) -> Option<ProcessName> {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let meant = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holder = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "POSIX", _, "WRITE", pid, which, ..] if which == meant => pid.parse().ok(),
            _ => None,
        }
    })?;
    process_name(holder)
}

/// How many threads this process has now; `None` where /proc does not tell.
pub fn own_threads() -> Option<usize> {
    // One line of it (proc_pid_status(5)), whereas a walk through /proc/self/task takes longer with every thread.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn finds_ourselves_as_the_owner_of_our_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("with a space.sock");
        assert_eq!(unix_socket_owner(&path), None);
        let _socket = UnixDatagram::bind(&path).unwrap();
        assert_eq!(unix_socket_owner(&path).unwrap().pid, std::process::id());
        assert_eq!(other_unix_socket_owner(&path), None);
    }

    #[test]
    fn an_open_file_is_found_whatever_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = fs::File::create(&path).unwrap();
        let metadata = file.metadata().unwrap();
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        assert!(has_file_open(std::process::id(), &metadata));
        assert!(!has_file_open(std::os::unix::process::parent_id(), &metadata));
        drop(file);
        assert!(!has_file_open(std::process::id(), &metadata));
    }

    #[test]
    fn a_process_is_known_by_its_beginning() {
        let own = std::process::id() as i32;
        let mut processes = Processes::now(&mut HostBegun::now());
        assert!(!processes.is_gone(own, Some(epoch_seconds())));
        assert!(!processes.is_gone(own, None));
        let long_ago = Some(epoch_seconds() - 1e6);
        assert!(processes.is_gone(own, long_ago), "that was another one");
        assert!(processes.is_gone(i32::MAX, Some(epoch_seconds())));
        assert!(processes.is_gone(0, None));
        let line = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4200 20";
        assert_eq!(state_and_begin(line), Some(("S", 4200.0)));
    }

    #[test]
    fn a_step_of_the_wall_clock_makes_nobody_younger() {
        const DAY: f64 = 86_400.0;
        let own = std::process::id() as i32;
        let (up, wall) = (DAY, epoch_seconds());
        let judge = |host_begun| {
            let seen = BTreeMap::from([(own, Life::Since(host_begun + up))]);
            Processes { host_begun, seen }.is_gone(own, Some(wall))
        };
        let mut host = HostBegun {
            earliest: f64::INFINITY,
        };
        assert!(!judge(host.see(wall, up)), "it began when it wrote");
        // The clock goes forward by a day, and the row is the same.
        assert!(judge(wall + DAY - up), "what one look would make of it");
        assert!(!judge(host.see(wall + DAY + 1.0, up + 1.0)));
        // Back, and forth again.
        for step in [0.0, -DAY, DAY] {
            assert!(!judge(host.see(wall + step + 2.0, up + 2.0)), "{step}");
        }
    }

    #[test]
    fn looks_at_the_clocks_keep_the_earliest_beginning() {
        let mut host = HostBegun::now();
        let first = host.earliest;
        assert!(first > 0.0 && first < epoch_seconds(), "{first}");
        host.earliest = first - 1000.0;
        let own = std::process::id() as i32;
        let mut processes = Processes::now(&mut host);
        assert_eq!(host.earliest, first - 1000.0);
        assert!(
            !processes.is_gone(own, Some(epoch_seconds() - 900.0)),
            "by the earliest"
        );
    }

    #[test]
    fn our_threads_are_counted() {
        // Other tests start and end threads meanwhile, so a look may find two different moments.
        let agrees = (0..1000).any(|_| own_threads() == fs::read_dir("/proc/self/task").ok().map(Iterator::count));
        assert!(agrees, "{:?}", own_threads());
    }

    #[test]
    fn a_process_has_a_name() {
        let own = process_name(std::process::id()).unwrap();
        assert!(own.to_string().contains(&format!("process {} (", own.pid)));
        assert_eq!(process_name(u32::MAX), None);
    }
}
