//! What the host allows: descriptors, threads, memory mappings; and how many clients fit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::Path;

/// Descriptors that are not connections: sockets, log, state file, epoll, requests at the admin socket.
const DESCRIPTORS_RESERVED: u64 = 40;
/// Threads that are not connections, ours and what else runs under the same limits.
const THREADS_RESERVED: u64 = 64;
/// Connections beyond the clients, for pages and for handshakes under way: an eighth of all, at most so many.
const SPARE_MAX: u64 = 256;
/// Mappings that are not thread stacks: the binary, libraries, heaps.
const MAPPINGS_RESERVED: u64 = 1024;
/// A thread's stack and its guard page are two mappings.
const MAPPINGS_PER_THREAD: u64 = 2;
/// More than this many threads of one process we have not measured.
const CLIENTS_MEASURED_MAX: u64 = 16_384;

/// How many connections fit by each limit, and how many of them may be clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRoom {
    /// By RLIMIT_NOFILE: one descriptor each.
    pub by_descriptors: u64,
    /// By the smallest of RLIMIT_NPROC, `kernel.threads-max` and the control group's `pids.max`: one thread each.
    pub by_threads: u64,
    /// By `vm.max_map_count`: two mappings each.
    pub by_mappings: u64,
}

impl ClientRoom {
    /// The smallest of the limits less the spare, at least 1.
    pub fn clients(&self) -> usize {
        let clients = self.connections() - spare(self.connections());
        clients.clamp(1, CLIENTS_MEASURED_MAX) as usize
    }

    /// Connections beyond [`ClientRoom::clients`].
    pub fn spare(&self) -> usize {
        spare(self.connections()).max(1) as usize
    }

    fn connections(&self) -> u64 {
        self.by_descriptors.min(self.by_threads).min(self.by_mappings)
    }
}

fn spare(connections: u64) -> u64 {
    (connections / 8).min(SPARE_MAX)
}

/// Raises the soft limit of descriptors to the hard one. Gives the limit now in force.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Reads the limits in force, given the limit of descriptors.
pub fn client_room(descriptors: u64) -> ClientRoom {
    let threads = [
        getrlimit(Resource::Nproc).current,
        read_number("/proc/sys/kernel/threads-max"),
        read_number("/sys/fs/cgroup/pids.max"),
        own_cgroup_pids(),
    ];
    let threads = threads.into_iter().flatten().min().unwrap_or(u64::MAX);
    let mappings = read_number("/proc/sys/vm/max_map_count").unwrap_or(65_530);
    ClientRoom {
        by_descriptors: descriptors.saturating_sub(DESCRIPTORS_RESERVED),
        by_threads: threads.saturating_sub(THREADS_RESERVED),
        by_mappings: mappings.saturating_sub(MAPPINGS_RESERVED) / MAPPINGS_PER_THREAD,
    }
}

/// The limit of this process's addresses in bytes (RLIMIT_AS, `ulimit -v`), if it has one.
pub fn address_space() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// How many datagrams the kernel holds for one receiver (`net.unix.max_dgram_qlen`).
pub fn datagram_queue_len() -> Option<u64> {
    read_number("/proc/sys/net/unix/max_dgram_qlen")
}

fn own_cgroup_pids() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    read_number(folder.join("pids.max"))
}

/// The number in a file of one number; `None` when it is not there or says "max".
fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_decides() {
        let room = ClientRoom {
            by_descriptors: 960,
            by_threads: 30_000,
            by_mappings: 32_000,
        };
        assert_eq!((room.clients(), room.spare()), (840, 120));
        let none = ClientRoom {
            by_descriptors: 0,
            ..room
        };
        assert_eq!(none.clients(), 1);
    }

    #[test]
    fn this_host_has_room_for_somebody() {
        assert!(client_room(raise_descriptors()).clients() > 1);
    }
}
