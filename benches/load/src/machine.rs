//! What the kernel tells of a process and of the host.

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::read_to_string;

/// Kernel stack of one thread on 64-bit Linux.
const KERNEL_STACK_KIB: u64 = 16;
/// Ticks of /proc/stat a second (USER_HZ, fixed for programs).
const TICKS: f64 = 100.0;

/// Nanoseconds on the monotonic clock.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Processor seconds that this process has used.
pub fn own_cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Processor seconds that the whole host has used for anything, and those that its own host took away.
pub fn host_cpu() -> (f64, f64) {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map(|word| word.parse().unwrap_or(0.0))
        .collect();
    let at = |index: usize| ticks.get(index).copied().unwrap_or(0.0);
    // user, nice, system, irq, softirq; then steal. Guests are in user already.
    ((at(0) + at(1) + at(2) + at(5) + at(6)) / TICKS, at(7) / TICKS)
}

/// Memory of a process, and of the kernel for it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub rss_kib: u64,
    pub most_rss_kib: u64,
    pub threads: u64,
    pub kernel_stacks_kib: u64,
    /// All of the host's: what it holds for both ends of every connection, and for everything else.
    pub slab_kib: u64,
}

fn field(text: &str, key: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

pub fn slab_kib() -> u64 {
    field(&read_to_string("/proc/meminfo").unwrap_or_default(), "Slab:")
}

pub fn memory(pid: Pid) -> Memory {
    let status = read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default();
    let threads = field(&status, "Threads:");
    Memory {
        rss_kib: field(&status, "VmRSS:"),
        most_rss_kib: field(&status, "VmHWM:"),
        threads,
        kernel_stacks_kib: threads * KERNEL_STACK_KIB,
        slab_kib: slab_kib(),
    }
}

/// Context switches of all threads that live: of their own will, and not.
pub fn switches(pid: Pid) -> (u64, u64) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())) else {
        return (0, 0);
    };
    let mut sum = (0, 0);
    for task in tasks.flatten() {
        let status = read_to_string(task.path().join("status")).unwrap_or_default();
        sum.0 += field(&status, "voluntary_ctxt_switches:");
        sum.1 += field(&status, "nonvoluntary_ctxt_switches:");
    }
    sum
}

/// One line that says what this was measured on.
pub fn description() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("an unnamed processor");
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = rustix::system::uname();
    let memory = field(&read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:") / 1024 / 1024;
    format!(
        "{model}, {count} processors, {memory} GiB, Linux {}",
        kernel.release().to_string_lossy()
    )
}
