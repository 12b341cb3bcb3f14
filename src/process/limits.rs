//! What the host allows: descriptors, threads, memory mappings, addresses; and how many clients fit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::Path;

/// Descriptors that are not connections. An idle server with every feature has 42 (sockets, event descriptors, logs,
/// locks, journal, database, the admin socket's reserve); 12 are for requests at the admin socket, the others for what
/// is open for moments: refused peers, files that are replaced or rotated, /proc for a report.
const DESCRIPTORS_RESERVED: u64 = 64;
/// Threads that are not connections, ours and what else runs under the same limits.
const THREADS_RESERVED: u64 = 64;
/// Most connections beyond the clients, for pages and for handshakes under way; they are an eighth of all.
const SPARE_MAX: u64 = 256;
/// Fewest connections beyond the clients, unless that is more than half of all: a monitor, a person, and clients that
/// come and are refused.
const SPARE_LEAST: u64 = 4;
/// Mappings that are not thread stacks: the binary, libraries, heaps.
const MAPPINGS_RESERVED: u64 = 1024;
/// A thread's stack, the stack for its handlers of signals that the standard library makes, and a guard page of each.
const MAPPINGS_PER_THREAD: u64 = 4;
/// Addresses that are kept for what cannot be refused: small allocations, and the steps in which a thread that starts
/// takes its own. Without room for one of them the process ends.
const ADDRESSES_KEPT: u64 = 4 * 1024 * 1024;
/// More than this many threads of one process we have not measured.
const CLIENTS_MEASURED_MAX: u64 = 16_384;

/// How many connections fit by each limit, and how many of them may be clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRoom {
    /// By RLIMIT_NOFILE: one descriptor each.
    pub by_descriptors: u64,
    /// By the smallest of RLIMIT_NPROC, `kernel.threads-max` and the control group's `pids.max`: one thread each.
    pub by_threads: u64,
    /// By `vm.max_map_count`: four mappings each.
    pub by_mappings: u64,
    /// By RLIMIT_AS, less what history and queues take; `u64::MAX` without such a limit.
    pub by_addresses: u64,
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

    /// All connections.
    pub fn connections(&self) -> u64 {
        self.limits().map(|(count, _)| count).into_iter().min().unwrap_or(0)
    }

    /// What bounds [`ClientRoom::clients`], for people: what there is too little of, and where to raise it.
    pub fn bound(&self) -> &'static str {
        if self.clients() as u64 == CLIENTS_MEASURED_MAX {
            return "the most that was tried";
        }
        let smallest = self.limits().into_iter().min_by_key(|(count, _)| *count);
        smallest.map_or("", |(_, what)| what)
    }

    fn limits(&self) -> [(u64, &'static str); 4] {
        [
            (self.by_descriptors, "descriptors (ulimit -n, LimitNOFILE=)"),
            (self.by_threads, "threads (ulimit -u, TasksMax=, pids.max)"),
            (self.by_mappings, "mappings (sysctl vm.max_map_count)"),
            (self.by_addresses, "addresses (ulimit -v, LimitAS=)"),
        ]
    }
}

fn spare(connections: u64) -> u64 {
    (connections / 8).clamp(SPARE_LEAST, SPARE_MAX).min(connections / 2)
}

/// Raises the soft limit of descriptors to the hard one. Returns the limit now in force.
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

/// Reads the limits in force, given the limit of descriptors; of addresses none, because that depends on the settings.
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
        by_addresses: u64::MAX,
    }
}

/// The limit of this process's addresses in bytes (RLIMIT_AS, `ulimit -v`), if it has one.
pub fn address_space() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// How many bytes of addresses this process has mapped (proc_pid_statm(5)); `None` where /proc does not tell.
pub fn addresses_taken() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').next()?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// How many bytes of addresses this process may still map; `None` without a limit, or where nobody tells. Takes some 5
/// µs under a limit.
pub fn addresses_left() -> Option<u64> {
    Some(address_space()?.saturating_sub(addresses_taken()?))
}

/// Returns whether a limit of the address space leaves no room for `bytes` more, and for what cannot be refused. To be
/// asked before what one client alone needs: it is better that this client ends.
pub fn is_short_of(bytes: u64) -> bool {
    addresses_left().is_some_and(|left| left < ADDRESSES_KEPT.saturating_add(bytes))
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
            by_addresses: u64::MAX,
        };
        assert!(room.bound().contains("ulimit -n"), "{}", room.bound());
        assert_eq!((room.clients(), room.spare()), (840, 120));
        let none = ClientRoom {
            by_descriptors: 0,
            ..room
        };
        assert_eq!((none.clients(), none.spare()), (1, 1));
        let few = ClientRoom {
            by_descriptors: 13,
            ..room
        };
        assert_eq!((few.clients(), few.spare()), (9, 4));
        let tight = ClientRoom {
            by_addresses: 200,
            ..room
        };
        assert_eq!((tight.clients(), tight.spare()), (175, 25));
        assert!(tight.bound().contains("ulimit -v"), "{}", tight.bound());
        let vast = ClientRoom {
            by_descriptors: 1 << 20,
            ..room
        };
        assert_eq!(vast.bound(), "the most that was tried");
    }

    #[test]
    fn what_is_mapped_is_counted() {
        let before = addresses_taken().unwrap();
        assert!(before > 1024 * 1024, "{before}");
        assert_eq!(address_space().is_some(), addresses_left().is_some());
        assert!(!is_short_of(0));
    }

    #[test]
    fn this_host_has_room_for_somebody() {
        assert!(client_room(raise_descriptors()).clients() > 1);
    }
}
