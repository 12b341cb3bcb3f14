//! What the server costs: little when idle, little per idle client, and nothing for clients that have left.

use crate::support::{TestServer, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MIB: usize = 1024 * 1024;

/// The host's kernel stacks in KiB: a thread's own (16 KiB each here) are no part of a process's resident memory.
fn kernel_stacks_kib() -> Option<usize> {
    let facts = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = facts.lines().find_map(|line| line.strip_prefix("KernelStack:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[test]
fn an_idle_server_takes_at_most_10_mib() {
    for delivery in ["direct", "queued"] {
        let server = TestServer::start(&["--delivery", delivery]);
        server.client().close();
        let resident = server.resident_bytes();
        eprintln!("--delivery {delivery}: {} KiB resident", resident / 1024);
        assert!(resident <= 10 * MIB, "{resident}");
    }
}

#[test]
fn a_thousand_idle_clients_add_at_most_20_mib_and_leave_nothing_behind() {
    const CLIENTS: usize = 1000;
    // A descriptor each for us and, before the server raises its own limit, as much again for what else runs here.
    let needed = CLIENTS as u64 + 500;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let raising = setrlimit(Resource::Nofile, raised);
        if raising.is_err() || limit.maximum.is_some_and(|maximum| maximum < needed) {
            eprintln!(
                "left out: {CLIENTS} clients need {needed} descriptors, the hard limit here is lower ({limit:?})"
            );
            return;
        }
    }
    let server = TestServer::start(&[]);
    server.client().close();
    let (resident, (_, descriptors)) = (server.resident_bytes(), server.footprint());
    let threads = eventually("the first client's thread has ended", || {
        let threads = server.threads();
        (server.health()["connections"] == 0 && server.threads() <= threads).then_some(threads)
    });
    let stacks = kernel_stacks_kib();

    let clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    let added = server.resident_bytes().saturating_sub(resident);
    let in_kernel = kernel_stacks_kib()
        .zip(stacks)
        .map(|(now, before)| now.saturating_sub(before));
    eprintln!(
        "{CLIENTS} clients add {} KiB resident; kernel stacks of the host grew by {in_kernel:?} KiB",
        added / 1024
    );
    assert_eq!(server.health()["connections"], CLIENTS);
    assert!(added <= 20 * MIB, "{added}");

    drop(clients);
    eventually("all is given back", || {
        (server.threads() <= threads && server.descriptors() <= descriptors).then_some(())
    });
    assert_eq!(server.health()["connections"], 0);
}
