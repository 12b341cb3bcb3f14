//! What the processes of a service take.

use super::process::Process;
use crate::supervise::stat::Proc;
use rustix::io::{Errno, read};
use std::time::Duration;

/// Longest smaps_rollup that is read; it has some 800 bytes.
const ROLLUP_BYTES_MAX: usize = 4096;

/// What a look tells of a service without asking anything more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Processes that have not ended.
    pub processes: usize,
    pub threads: u64,
    /// Processor time of these processes, and of ended ones that one of them has waited for. It falls when a process
    /// ends that nobody of the service waits for.
    pub cpu: Duration,
    /// Processes that somebody has stopped by a signal or a debugger.
    pub stopped: usize,
    /// Processes that wait in the kernel where no signal ends them (state `D`), mostly for a disk.
    pub uninterruptible: usize,
}

/// The memory of a service's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Proportional set size, in bytes: what several processes share counts once in the sum
    /// (proc_pid_smaps_rollup(5)).
    pub pss_bytes: u64,
    /// Processes whose memory we may not look at, or that have ended meanwhile. They are not in the sum.
    pub unknown: usize,
}

pub(super) fn figures<'a>(processes: impl Iterator<Item = &'a Process>) -> Figures {
    let mut sum = Figures::default();
    let mut ticks = 0;
    for Process { stat, .. } in processes {
        sum.processes += 1;
        sum.threads += u64::from(stat.threads);
        sum.stopped += usize::from(matches!(stat.state, b'T' | b't'));
        sum.uninterruptible += usize::from(stat.state == b'D');
        ticks += stat.cpu_ticks;
    }
    sum.cpu = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    sum
}

pub(super) fn memory<'a>(proc: &Proc, processes: impl Iterator<Item = &'a Process>) -> Memory {
    let mut sum = Memory::default();
    for process in processes {
        match pss(proc, process.stat.pid) {
            Some(bytes) => sum.pss_bytes += bytes,
            None => sum.unknown += 1,
        }
    }
    sum
}

fn pss(proc: &Proc, pid: i32) -> Option<u64> {
    let file = proc.file(pid, "smaps_rollup").ok()?;
    let mut text = [0; ROLLUP_BYTES_MAX];
    let len = loop {
        match read(&file, &mut text) {
            Err(Errno::INTR) => {}
            read => break read.ok()?,
        }
    };
    pss_of(std::str::from_utf8(&text[..len]).ok()?)
}

/// The line `Pss:  1234 kB`, in bytes.
fn pss_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_sum_is_read() {
        let text = "5580-7ffc ---p 00000000 00:00 0 [rollup]\nRss:    884 kB\nPss:    385 kB\nPss_Dirty: 68 kB\n";
        assert_eq!(pss_of(text), Some(385 * 1024));
        assert_eq!(pss_of("Pss_Dirty: 68 kB\n"), None);
        let own = pss(&Proc::open().unwrap(), std::process::id() as i32).unwrap();
        assert!(own > 100_000, "{own}");
    }
}
