//! Facts about a thread of this process, as the kernel tells them in /proc/self/task (proc_pid_task(5) and its kin).
//!
//! Reading takes no lock of this process and no memory of the C library, so it works while another thread holds any of
//! them; what it allocates comes from Rust's allocator. A file that is missing or forbidden leaves its facts unknown.

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, stat};
use rustix::io::{Errno, read};
use std::borrow::Cow;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Longest file that is read here; `status` is the longest, with some 1,500 bytes.
const FILE_BYTES_MAX: usize = 4096;
/// Kernel ticks per second in `stat`: USER_HZ, which is 100 on every architecture that Rust's std knows on Linux.
const TICK: Duration = Duration::from_millis(10);

/// What the kernel tells about one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFacts {
    /// The kernel's id of the thread.
    pub id: i32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// R running or runnable, S sleeping, D in a wait that signals do not end, T stopped, Z ended; ? unknown.
    pub state: char,
    /// Processor time so far.
    pub cpu: Duration,
    /// Time so far in which it could have run but had no processor (proc_pid_schedstat(5)); 0 if the kernel does not
    /// count.
    pub run_delay: Duration,
    /// The kernel function in which it waits; empty when it does not wait or the kernel does not tell.
    pub wchan: String,
    /// What it asked of the kernel, and where in its program it is.
    pub at: TaskPlace,
    /// Signals that it does not take now: bit n - 1 for signal n.
    pub blocked_signals: u64,
}

/// Where a thread is (proc_pid_syscall(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskPlace {
    /// The kernel does not tell.
    #[default]
    Unknown,
    /// Running or runnable, so its registers are not known.
    Running,
    /// In the kernel. `syscall` is `None` when it got there otherwise, by a page fault for instance.
    Waiting {
        /// The number of the system call.
        syscall: Option<i64>,
        /// The stack pointer on entry.
        sp: u64,
        /// The address to which the kernel returns.
        pc: u64,
    },
}

/// How often the list of threads is read at most.
const LIST_PASSES_MAX: usize = 5;

/// The ids of all threads of this process, ascending. Threads that start or end meanwhile may or may not be among them.
///
/// The kernel goes through the list from thread to thread and stops where the one it stands at ends just then, so one
/// pass may lack others too. The list is read again until it has as many as there are, or for the fifth time.
///
/// # Errors
/// /proc is not there or cannot be read.
pub fn ids() -> io::Result<Vec<i32>> {
    let mut ids = Vec::new();
    for _ in 0..LIST_PASSES_MAX {
        // A folder of threads has a link for each, besides the two of every folder.
        let links = stat("/proc/self/task")?.st_nlink;
        let threads = usize::try_from(links).unwrap_or(0).saturating_sub(2);
        list(&mut ids)?;
        ids.sort_unstable();
        ids.dedup();
        if ids.len() >= threads {
            break;
        }
    }
    Ok(ids)
}

/// Appends the ids of one pass.
fn list(ids: &mut Vec<i32>) -> io::Result<()> {
    let folder = openat(
        CWD,
        c"/proc/self/task",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            entry => entry?,
        };
        ids.extend(
            entry
                .file_name()
                .to_str()
                .ok()
                .and_then(|name| name.parse::<i32>().ok()),
        );
    }
    Ok(())
}

impl TaskFacts {
    /// Reads the facts of thread `id` of this process; `None` when there is no such thread (any more). Some 50 µs. A
    /// thread that reads its own finds itself in the system call that reads.
    pub fn read(id: i32) -> Option<TaskFacts> {
        let mut buffer = [0; FILE_BYTES_MAX];
        let mut facts = TaskFacts {
            id,
            state: '?',
            ..TaskFacts::default()
        };
        facts.take_stat(&read_file(id, "stat", &mut buffer)?);
        facts.take_schedstat(&read_file(id, "schedstat", &mut buffer).unwrap_or_default());
        facts.take_wchan(&read_file(id, "wchan", &mut buffer).unwrap_or_default());
        facts.at = place(&read_file(id, "syscall", &mut buffer).unwrap_or_default());
        facts.blocked_signals = blocked_signals(&read_file(id, "status", &mut buffer).unwrap_or_default());
        Some(facts)
    }

    /// Returns whether signal number `signal` waits until this thread lets it through.
    pub fn blocks(&self, signal: i32) -> bool {
        let bit = u32::try_from(signal - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
        bit.is_some_and(|bit| self.blocked_signals & bit != 0)
    }

    fn take_stat(&mut self, stat: &str) {
        // The name stands in parentheses and may contain some itself.
        let Some((head, tail)) = stat.rsplit_once(')') else {
            return;
        };
        if let Some((_, name)) = head.split_once('(') {
            self.name = name.to_owned();
        }
        let mut fields = tail.split_ascii_whitespace();
        self.state = fields.next().and_then(|state| state.chars().next()).unwrap_or('?');
        // utime and stime are fields 14 and 15; the state is field 3.
        let ticks: u32 = fields
            .skip(10)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u32>().ok())
            .sum();
        self.cpu = TICK * ticks;
    }

    fn take_schedstat(&mut self, schedstat: &str) {
        let mut nanos = schedstat.split_ascii_whitespace().map_while(|nanos| nanos.parse().ok());
        if let Some(cpu) = nanos.next().filter(|nanos| *nanos > 0) {
            self.cpu = Duration::from_nanos(cpu);
        }
        self.run_delay = Duration::from_nanos(nanos.next().unwrap_or(0));
    }

    fn take_wchan(&mut self, wchan: &str) {
        let wchan = wchan.trim();
        if wchan != "0" {
            self.wchan = wchan.to_owned();
        }
    }
}

fn place(syscall: &str) -> TaskPlace {
    let fields: Vec<&str> = syscall.split_ascii_whitespace().collect();
    if fields == ["running"] {
        return TaskPlace::Running;
    }
    let hex = |field: &str| u64::from_str_radix(field.strip_prefix("0x")?, 16).ok();
    match fields[..] {
        [number, .., sp, pc] => match (number.parse::<i64>(), hex(sp), hex(pc)) {
            (Ok(number), Some(sp), Some(pc)) => TaskPlace::Waiting {
                syscall: (number >= 0).then_some(number),
                sp,
                pc,
            },
            _ => TaskPlace::Unknown,
        },
        _ => TaskPlace::Unknown,
    }
}

fn blocked_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Reads a file into `buffer`, which is on the caller's stack: with thousands of threads, memory would add up.
fn read_file<'a>(id: i32, name: &str, buffer: &'a mut [u8; FILE_BYTES_MAX]) -> Option<Cow<'a, str>> {
    let path = format!("/proc/self/task/{id}/{name}");
    let file = openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    drop(path);
    let mut len = 0;
    while len < buffer.len() {
        match read(&file, &mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&buffer[..len]))
}

/// The name of system call `number` on this architecture, for those that a server waits in.
pub fn syscall_name(number: i64) -> Option<&'static str> {
    let known = |(call, name): &(libc::c_long, &'static str)| (*call == number).then_some(*name);
    SYSCALLS.iter().chain(OLD_SYSCALLS).find_map(known)
}

const SYSCALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_accept, "accept"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_brk, "brk"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_close, "close"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_epoll_ctl, "epoll_ctl"),
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_epoll_pwait2, "epoll_pwait2"),
    (libc::SYS_exit, "exit"),
    (libc::SYS_exit_group, "exit_group"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_getdents64, "getdents64"),
    (libc::SYS_getrandom, "getrandom"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_read, "read"),
    (libc::SYS_readv, "readv"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_recvmmsg, "recvmmsg"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_restart_syscall, "restart_syscall"),
    (libc::SYS_rt_sigsuspend, "rt_sigsuspend"),
    (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
    (libc::SYS_sched_yield, "sched_yield"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
];

/// What newer architectures do not have any more.
#[cfg(target_arch = "x86_64")]
const OLD_SYSCALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_epoll_wait, "epoll_wait"),
    (libc::SYS_open, "open"),
    (libc::SYS_pause, "pause"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_select, "select"),
    (libc::SYS_unlink, "unlink"),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_SYSCALLS: &[(libc::c_long, &str)] = &[];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::threads::spawn;
    use crossbeam_channel::bounded;

    fn own_id() -> i32 {
        rustix::thread::gettid().as_raw_nonzero().get()
    }

    #[test]
    fn a_name_may_contain_what_separates_the_fields() {
        let mut facts = TaskFacts::default();
        facts.take_stat("12 (a) R (b) S 1 1 1 0 -1 4194560 9 0 0 0 250 30 0 0 20 0 1 0 5 0\n");
        assert_eq!((facts.name.as_str(), facts.state), ("a) R (b", 'S'));
        assert_eq!(facts.cpu, Duration::from_millis(2800));
        facts.take_schedstat("1500000000 20000000 7\n");
        assert_eq!(facts.cpu, Duration::from_millis(1500));
        assert_eq!(facts.run_delay, Duration::from_millis(20));
        facts.take_schedstat("0 0 0\n");
        assert_eq!(facts.cpu, Duration::from_millis(1500), "a kernel that does not count");
    }

    #[test]
    fn every_kind_of_place_is_understood_and_nothing_else() {
        assert_eq!(place("running\n"), TaskPlace::Running);
        let waiting = |syscall| TaskPlace::Waiting {
            syscall,
            sp: 0x7ff0,
            pc: 0x41,
        };
        assert_eq!(place("202 0x1 0x2 0x3 0x4 0x5 0x6 0x7ff0 0x41\n"), waiting(Some(202)));
        assert_eq!(place("-1 0x7ff0 0x41\n"), waiting(None));
        for odd in ["", "202", "x 0x1 0x2", "1 2 3", "1 0x1"] {
            assert_eq!(place(odd), TaskPlace::Unknown, "{odd}");
        }
    }

    #[test]
    fn blocked_signals_are_found_in_the_status() {
        let facts = TaskFacts {
            blocked_signals: blocked_signals("Name:\tx\nSigBlk:\t0000004000000001\nSigIgn:\t0000000000001000\n"),
            ..TaskFacts::default()
        };
        let blocked: Vec<i32> = (-1..70).filter(|signal| facts.blocks(*signal)).collect();
        assert_eq!(blocked, [1, 39]);
        assert_eq!(blocked_signals(""), 0);
    }

    #[test]
    fn the_running_thread_and_one_that_waits_are_told_apart() {
        let (gate_tx, gate_rx) = bounded::<()>(0);
        let (id_tx, id_rx) = bounded(1);
        let waiting = spawn("waits here", 65_536, None, move || {
            id_tx.send(own_id()).unwrap();
            let _ = gate_rx.recv();
        })
        .unwrap();
        let id = id_rx.recv().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let facts = loop {
            let facts = TaskFacts::read(id).unwrap();
            let in_futex = TaskPlace::Waiting {
                syscall: Some(libc::SYS_futex),
                sp: 0,
                pc: 0,
            };
            if std::mem::discriminant(&facts.at) == std::mem::discriminant(&in_futex) && facts.state == 'S' {
                break facts;
            }
            assert!(std::time::Instant::now() < deadline, "{facts:?}");
        };
        assert_eq!(facts.name, "waits here");
        let TaskPlace::Waiting { syscall, sp, pc } = facts.at else {
            unreachable!("waited for")
        };
        assert_eq!(syscall.and_then(syscall_name), Some("futex"));
        assert!(sp != 0 && pc != 0);
        let own = TaskFacts::read(own_id()).unwrap();
        assert_eq!((own.state, own.cpu > Duration::ZERO), ('R', true));
        assert!(ids().unwrap().contains(&id) && ids().unwrap().contains(&own_id()));
        drop(gate_tx);
        waiting.join_within(Duration::from_secs(30)).unwrap();
    }

    #[test]
    fn threads_that_stay_are_listed_while_others_end() {
        let (gate_tx, gate_rx) = bounded::<()>(0);
        let (id_tx, id_rx) = bounded(16);
        let stays = |_| {
            let (gate_rx, id_tx) = (gate_rx.clone(), id_tx.clone());
            let body = move || {
                id_tx.send(own_id()).unwrap();
                let _ = gate_rx.recv();
            };
            spawn("stays", 65_536, None, body).unwrap()
        };
        for _ in 0..20 {
            // Those that end are in the list before those that stay.
            let ending: Vec<_> = (0..8).map(|_| spawn("ends", 65_536, None, || ()).unwrap()).collect();
            let staying: Vec<_> = (0..4).map(stays).collect();
            let known: Vec<i32> = staying.iter().map(|_| id_rx.recv().unwrap()).collect();
            for _ in 0..10 {
                let listed = ids().unwrap();
                assert!(known.iter().all(|id| listed.contains(id)), "{known:?} {listed:?}");
            }
            for thread in ending {
                thread.join_within(Duration::from_secs(30)).unwrap();
            }
            for _ in staying {
                gate_tx.send(()).unwrap();
            }
        }
    }

    #[test]
    fn no_such_thread_has_no_facts() {
        assert_eq!(TaskFacts::read(i32::MAX), None);
        // Another process's thread is none of ours.
        assert_eq!(
            TaskFacts::read(rustix::process::getppid().unwrap().as_raw_nonzero().get()),
            None
        );
    }
}
