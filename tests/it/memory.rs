//! What the server costs: little when idle, little per idle client, and nothing for clients that have left.

use crate::support::client::Options;
use crate::support::{TestClient, TestServer, eventually, numbered, skipped};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MIB: usize = 1024 * 1024;

/// The host's kernel stacks in KiB: a thread's own (16 KiB each here) are no part of a process's resident memory.
fn kernel_stacks_kib() -> Option<usize> {
    let facts = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = facts.lines().find_map(|line| line.strip_prefix("KernelStack:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Whether this process may open so many sockets, after raising its limit; says so if not.
fn has_room_for(clients: usize) -> bool {
    // A descriptor each for us and, before the server raises its own limit, as much again for what else runs here.
    let needed = clients as u64 + 500;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return true;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let raising = setrlimit(Resource::Nofile, raised);
    let allowed = raising.is_ok() && limit.maximum.is_none_or(|maximum| maximum >= needed);
    if !allowed {
        skipped(format_args!(
            "{clients} clients need {needed} descriptors, the hard limit here is lower ({limit:?})"
        ));
    }
    allowed
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
    if !has_room_for(CLIENTS) {
        return;
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

/// Every kind of client: plain and numbered, from now on or from the beginning, with and without a filter.
fn stopped_client(server: &TestServer, epoch: &str, index: usize) -> TestClient {
    let since = format!("since={epoch}:0");
    let queries = ["", &since, "machine=l*", &format!("{since}&machine=l*")];
    let header = (index % 8 >= 4).then(|| "Sec-WebSocket-Protocol: threadcast.v1".to_owned());
    let options = Options {
        target: format!("/ws/events?{}", queries[index % 4]),
        receive_buffer: Some(4096),
        headers: header.into_iter().collect(),
        ..Options::default()
    };
    TestClient::with(server.address, &options)
}

#[test]
fn a_thousand_clients_that_read_nothing_cost_their_bounds_and_give_it_back() {
    const CLIENTS: usize = 1000;
    const EVENTS: usize = 20_000;
    const HISTORY: usize = 8 * MIB;
    const QUEUE: usize = 64 * 1024;
    // What 1,000 idle clients may take, by the test above.
    const IDLE: usize = 20 * MIB;
    // Pages that hold a little of what is in use, and what the allocator keeps for each thread.
    const KEPT: usize = 32 * MIB;
    // An allocation takes a little more than was asked for.
    const ROUNDED: usize = CLIENTS * QUEUE / 8;
    if !has_room_for(CLIENTS) {
        return;
    }
    let flags = [
        ["--history-bytes", "8MiB"],
        ["--client-queue-bytes", "64KiB"],
        ["--send-timeout", "600s"],
        ["--max-behind", "600s"],
        ["--pong-timeout", "600s"],
        ["--heartbeat-interval", "1s"],
    ];
    let server = TestServer::start(&flags.concat());
    let hello = TestClient::with(
        server.address,
        &Options {
            headers: vec!["Sec-WebSocket-Protocol: threadcast.v1".to_owned()],
            ..Options::default()
        },
    )
    .json();
    let epoch = hello["epoch"].as_str().unwrap();
    let threads = eventually("the first client's thread has ended", || {
        (server.health()["connections"] == 0).then(|| server.threads())
    });
    let (resident, descriptors) = (server.resident_bytes(), server.descriptors());
    for crowd in ["first", "second"] {
        let most = crowd_of_stopped_clients(&server, epoch, CLIENTS, EVENTS);
        // The second begins with what the first has left.
        let bound = resident + IDLE + HISTORY + CLIENTS * QUEUE + ROUNDED + if crowd == "second" { KEPT } else { 0 };
        assert!(most <= bound, "{most} of at most {bound} bytes with the {crowd} crowd");
        // What is not the history's goes back with a heartbeat; some of it lies between what is.
        let left = eventually("all is given back", || {
            let left = server.resident_bytes();
            let ended = server.threads() <= threads && server.descriptors() <= descriptors;
            (ended && left <= resident + HISTORY + KEPT).then_some(left)
        });
        eprintln!("bytes: {resident} at first, {most} with the {crowd} crowd, {left} afterwards");
    }
}

/// Clients that read nothing join while the stream runs, so that some replay from the beginning, and some begin when it
/// is gone; then all of them leave. Gives the most memory that was resident.
fn crowd_of_stopped_clients(server: &TestServer, epoch: &str, count: usize, events: usize) -> usize {
    let sender = server.sender();
    let published = || server.health()["events_forwarded"].as_u64().unwrap();
    let before = published();
    let mut clients = Vec::new();
    let mut most = 0;
    for number in 0..events {
        sender.send(&numbered(number, 1000)).unwrap();
        if number.is_multiple_of(events / count / 2) && clients.len() < count {
            clients.push(stopped_client(server, epoch, clients.len()));
        }
        if number.is_multiple_of(200) {
            most = most.max(server.resident_bytes());
        }
    }
    eventually("everything is published", || {
        (published() == before + events as u64).then_some(())
    });
    let health = server.health();
    assert_eq!(health["connections"], count, "nobody is ended: {health}");
    most.max(server.resident_bytes())
}
