//! How many clients fit, and how a limit of the address space (RLIMIT_AS, `ulimit -v`) is divided among them, the
//! history and the queues.
//!
//! Under such a limit, an allocation that finds no room ends the process, in any thread. So whatever can grow is
//! bounded here so that all of it together stays below the limit: the history and the clients' queues are made smaller,
//! and no more connections are taken than have room. Runs on `main`, before any other thread.

use crate::client::handshake::STACK_BYTES;
use crate::config::Config;
use crate::intake::queue::INTAKE_BYTES_MAX;
use crate::journal::queue::QUEUE_BYTES;
use crate::liveness::stacks::arena;
use crate::process::heap::{self, HEAP_BYTES};
use crate::process::limits::{self, ClientRoom};
use crate::process::values::show_size;

const MIB: u64 = 1024 * 1024;
/// Stacks of all threads but those of connections (15 of 1 MiB, `watchdog`'s 4 MiB, four requests at the admin socket),
/// and the queues' slots, which are there from the beginning (4 MiB).
const CORE_BYTES: u64 = 31 * MIB;
/// What nobody has counted: log lines (4 MiB), the engine's database, what clients get of the machine table, pages
/// under way.
const RESERVE_BYTES: u64 = 16 * MIB;
/// The least that the machine table must have: 2,000 machines at least.
const TABLE_BYTES_LEAST: u64 = 3 * MIB;
/// The least for what is learned of machines: 400 states or so.
const LEARNED_BYTES_LEAST: u64 = MIB / 2;
/// What is learned is there, once more while a copy of it is read and all of it changes, and as a document on its way
/// to its file.
const LEARNED_COPIES: u64 = 3;
/// Of a connection besides the stack that we ask for: a guard page, the standard library's stack for handlers of
/// signals with its own guard, and what its thread and the others keep of it. 283 KiB were measured in all; some
/// processors need larger stacks for handlers.
const CONNECTION_BYTES: u64 = STACK_BYTES as u64 + 40 * 1024;
/// The least that a client's queue must have; with less, events of some KiB would have every client catch up all the
/// time.
const QUEUE_BYTES_LEAST: u64 = 64 * 1024;
/// With less than this for received events, clients and history together there is no use in starting: it is 2.4 MiB of
/// events, 3.6 MiB of history and 12 connections.
const USEFUL_BYTES: u64 = 12 * MIB;
/// One heap for so much of the limit, so that all that they reserve is a small part of it.
const BYTES_PER_HEAP: u64 = 1024 * MIB;

/// The limit of the address space is too small for this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    limit: u64,
    needed: u64,
}

impl std::fmt::Display for TooSmall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the limit of the address space (ulimit -v, LimitAS=) is {} KiB; this server needs {} KiB at least",
            self.limit / 1024,
            self.needed.div_ceil(1024)
        )
    }
}

impl TooSmall {
    /// What a person can do about it.
    pub(super) fn hint(self) -> String {
        let kib = self.needed.div_ceil(1024);
        format!(
            "give it more (`ulimit -v {kib}`, LimitAS={kib}K), each client takes 0.4 MiB of it; to bound the memory that is \
             really used, MemoryMax= of systemd or the limit of a container is the better way"
        )
    }
}

/// What a limit of the address space has made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clipped(String);

impl std::fmt::Display for Clipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What fits.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub(super) clients: ClientRoom,
    /// What the queue of received events may hold.
    pub(super) intake_bytes: usize,
}

impl From<ClientRoom> for Room {
    /// Without a limit of the address space.
    fn from(clients: ClientRoom) -> Room {
        Room {
            clients,
            intake_bytes: INTAKE_BYTES_MAX,
        }
    }
}

/// Reads the limits in force, and fits the settings to that of the address space. To be called before other threads
/// start.
///
/// # Errors
/// The address space is too small.
pub(super) fn fit(config: &mut Config) -> Result<(Room, Option<Clipped>), TooSmall> {
    let mut room = Room::from(limits::client_room(limits::raise_descriptors()));
    let Some(limit) = limits::address_space() else {
        return Ok((room, None));
    };
    heap::spare_addresses(heaps(limit));
    // As much as the program itself takes where /proc does not tell.
    let taken = limits::addresses_taken().unwrap_or(16 * MIB);
    let division = Division::new(limit, taken, config, room.clients)?;
    room.clients.by_addresses = division.connections;
    // Both are at most what they were, a usize.
    room.intake_bytes = division.intake_bytes as usize;
    let clipped = division.clip(config).map(|what| {
        Clipped(format!(
            "the address space is limited to {} KiB (ulimit -v, LimitAS=), so {what}; a client that falls further behind \
             is told what it misses. A higher limit gives more room",
            limit / 1024
        ))
    });
    Ok((room, clipped))
}

fn heaps(limit: u64) -> u64 {
    (limit / BYTES_PER_HEAP).max(1)
}

/// What each may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    connections: u64,
    intake_bytes: u64,
    table_bytes: u64,
    learned_bytes: u64,
    history_bytes: u64,
    queue_bytes: u64,
}

impl Division {
    /// Of `limit` bytes of addresses, of which `taken` are taken by the program itself.
    fn new(limit: u64, taken: u64, config: &Config, room: ClientRoom) -> Result<Division, TooSmall> {
        let journal = config.journal.as_ref().map_or(0, |_| QUEUE_BYTES as u64);
        let used = taken
            + CORE_BYTES
            + RESERVE_BYTES
            + with_loss(TABLE_BYTES_LEAST)
            + with_loss(LEARNED_COPIES * LEARNED_BYTES_LEAST)
            + with_loss(journal)
            + arena::size_under(limit)
            + (heaps(limit) - 1) * HEAP_BYTES;
        let left = limit.saturating_sub(used);
        if left < USEFUL_BYTES {
            let needed = used + USEFUL_BYTES;
            return Err(TooSmall { limit, needed });
        }
        let table_bytes = TABLE_BYTES_LEAST + without_loss((left - USEFUL_BYTES) / 8);
        let table_bytes = (config.machine_bytes as u64).min(table_bytes);
        let learned_bytes = LEARNED_BYTES_LEAST + without_loss((left - USEFUL_BYTES) / 16 / LEARNED_COPIES);
        let learned_bytes = (config.learned_bytes as u64).min(learned_bytes);
        let left = left - with_loss(table_bytes.saturating_sub(TABLE_BYTES_LEAST));
        let left = left - with_loss(LEARNED_COPIES * learned_bytes.saturating_sub(LEARNED_BYTES_LEAST));
        let intake_bytes = (INTAKE_BYTES_MAX as u64).min(without_loss(left / 4));
        let left = left - with_loss(intake_bytes);
        // Half at most: without room for clients a history is of no use to anybody.
        let history_bytes = (config.history_bytes as u64).min(without_loss(left / 2));
        let left = left - with_loss(history_bytes);
        let wanted = config
            .max_clients
            .map_or(u64::MAX, |clients| clients as u64 + room.spare() as u64);
        let fitting = left / (CONNECTION_BYTES + with_loss(QUEUE_BYTES_LEAST));
        let connections = room.connections().min(wanted).min(fitting);
        let each = (left / connections.max(1)).saturating_sub(CONNECTION_BYTES);
        let queue_bytes = (config.client_queue_bytes as u64).min(without_loss(each));
        Ok(Division {
            connections: left / (CONNECTION_BYTES + with_loss(queue_bytes)),
            intake_bytes,
            table_bytes,
            learned_bytes,
            history_bytes,
            queue_bytes,
        })
    }

    /// Makes the settings smaller that have no room; says which, if any.
    fn clip(self, config: &mut Config) -> Option<String> {
        let mut said = Vec::new();
        for (name, setting, bytes) in [
            ("--machine-bytes", &mut config.machine_bytes, self.table_bytes),
            ("--learned-bytes", &mut config.learned_bytes, self.learned_bytes),
            ("--history-bytes", &mut config.history_bytes, self.history_bytes),
            ("--client-queue-bytes", &mut config.client_queue_bytes, self.queue_bytes),
        ] {
            // It is at most the setting, a usize.
            let bytes = bytes as usize;
            if bytes < *setting {
                let before = std::mem::replace(setting, bytes);
                said.push(format!(
                    "{name} is {} instead of {}",
                    show_size(bytes),
                    show_size(before)
                ));
            }
        }
        (!said.is_empty()).then(|| said.join(", "))
    }
}

/// What `bytes` of many small pieces take: the allocator's own words, and holes.
fn with_loss(bytes: u64) -> u64 {
    bytes + bytes / 4
}

/// Of so many bytes, what can be used, in whole KiB.
fn without_loss(bytes: u64) -> u64 {
    (bytes - bytes / 5) / 1024 * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: ClientRoom = ClientRoom {
        by_descriptors: 20_000,
        by_threads: 30_000,
        by_mappings: 16_126,
        by_addresses: u64::MAX,
    };
    const TAKEN: u64 = 8 * MIB;

    fn divide(limit: u64, config: &Config) -> Result<Division, TooSmall> {
        Division::new(limit, TAKEN, config, ROOM)
    }

    #[test]
    fn all_that_can_grow_stays_below_the_limit() {
        for mib in 50..3000 {
            let limit = mib * MIB;
            let Ok(division) = divide(limit, &Config::default()) else {
                continue;
            };
            let clients = division.connections * (CONNECTION_BYTES + with_loss(division.queue_bytes));
            let most = TAKEN
                + CORE_BYTES
                + RESERVE_BYTES
                + with_loss(division.intake_bytes)
                + with_loss(division.history_bytes)
                + with_loss(division.table_bytes)
                + with_loss(LEARNED_COPIES * division.learned_bytes)
                + arena::size_under(limit)
                + clients;
            assert!(most <= limit, "{mib} MiB: {most} {division:?}");
            assert!(division.connections >= 10, "{mib} MiB: {division:?}");
            assert!(division.queue_bytes >= QUEUE_BYTES_LEAST, "{mib} MiB: {division:?}");
        }
    }

    #[test]
    fn too_small_a_limit_is_refused_with_one_that_does() {
        let config = Config::default();
        let refused = divide(50_000 * 1024, &config).unwrap_err();
        assert!(refused.to_string().contains("is 50000 KiB"), "{refused}");
        assert!(refused.hint().contains("LimitAS="), "{}", refused.hint());
        divide(refused.needed, &config).unwrap();
        divide(refused.needed - 1, &config).unwrap_err();
        let journal = Config {
            journal: Some("journal".into()),
            ..Config::default()
        };
        assert!(divide(refused.needed, &journal).unwrap_err().needed > refused.needed);
    }

    #[test]
    fn only_a_tight_limit_makes_settings_smaller() {
        let mut config = Config::default();
        let before = config.clone();
        let division = divide(64 * 1024 * MIB, &config).unwrap();
        assert_eq!(division.clip(&mut config), None);
        assert_eq!(config.history_bytes, before.history_bytes);
        let said = divide(200 * MIB, &config).unwrap().clip(&mut config).unwrap();
        assert!(said.starts_with("--machine-bytes is "), "{said}");
        assert!(said.contains("KiB instead of 32MiB, --learned-bytes is "), "{said}");
        assert!(said.contains("KiB instead of 8MiB, --history-bytes is "), "{said}");
        assert!(
            said.contains("KiB instead of 64MiB, --client-queue-bytes is "),
            "{said}"
        );
        // Few clients have room for whole queues.
        let few = Config {
            max_clients: Some(10),
            history_bytes: 1 << 20,
            ..Config::default()
        };
        let division = Division::new(
            300 * MIB,
            TAKEN,
            &few,
            ClientRoom {
                by_descriptors: 100,
                ..ROOM
            },
        )
        .unwrap();
        assert_eq!(division.queue_bytes, 1 << 20);
    }
}
