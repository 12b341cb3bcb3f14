//! Pages that are busy for a second now and then lose nothing, are not ended, and cost the others nothing.

use crate::support::client::Options;
use crate::support::{Fleet, TestClient, TestServer, in_both_shapes, numbered, pause};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Clients in all, and how many of them pause.
const CLIENTS: usize = 50;
const PAUSING: usize = 5;
/// Each of them reads for four seconds, then pauses for one; every second another one.
const CYCLE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
const PER_SECOND: u32 = 5000;
const EVENT_BYTES: usize = 200;
/// `THREADCAST_SECONDS` makes it longer.
const SECONDS: usize = 6;

#[test]
fn clients_that_pause_for_a_second_lose_nothing_and_nobody_is_ended() {
    let seconds = std::env::var("THREADCAST_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let count = seconds * PER_SECOND as usize;
    in_both_shapes(|delivery| {
        // A pause is more than a queue and the sockets take. Its length is no reason to end anybody, nor is it here.
        let flags = [
            ["--delivery", delivery],
            ["--client-queue-bytes", "128KiB"],
            ["--send-timeout", "60s"],
            ["--max-behind", "60s"],
        ];
        let server = TestServer::start(&flags.concat());
        let fleet = Fleet::start(&server, CLIENTS - PAUSING, 1);
        let sent = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let pausing: Vec<_> = (0..PAUSING)
                .map(|index| {
                    let (client, sent) = (client_with_small_buffer(&server), &sent);
                    scope.spawn(move || read_with_pauses(client, count, PAUSE * index as u32, sent))
                })
                .collect();
            let took = publish(&server, 0..count, &sent);
            fleet.expect(count);
            let _stay: Vec<TestClient> = pausing.into_iter().map(|client| client.join().unwrap()).collect();
            expect_nobody_ended(&server, count);
            let behind = server.lines().with(" is behind after event ").len();
            eprintln!(
                "{:.0} events/s sent; at least {behind} times a client was behind",
                count as f64 / took.as_secs_f64()
            );
        });
        fleet.expect_well();
    });
}

#[track_caller]
fn expect_nobody_ended(server: &TestServer, events: usize) {
    let health = server.health();
    let ended = health["clients_ended"].as_object().unwrap();
    assert!(ended.values().all(|count| count == 0), "{health}");
    assert_eq!(health["connections"], CLIENTS, "{health}");
    assert_eq!(health["events_forwarded"], events, "{health}");
}

fn client_with_small_buffer(server: &TestServer) -> TestClient {
    let options = Options {
        receive_buffer: Some(32 * 1024),
        ..Options::default()
    };
    let mut client = TestClient::with(server.address, &options);
    assert!(client.text().starts_with("{\"type\":\"initial\""));
    client
}

/// As fast as asked for, or as the machine can; gives how long it took.
fn publish(server: &TestServer, numbers: Range<usize>, sent: &AtomicUsize) -> Duration {
    let sender = server.sender();
    let begun = Instant::now();
    for number in numbers {
        // Some at a time: a rest of 200 µs each would be longer than asked for.
        if number.is_multiple_of(10) {
            let due = Duration::from_secs(1) * number as u32 / PER_SECOND;
            pause(due.saturating_sub(begun.elapsed()));
        }
        sender.send(&numbered(number, EVENT_BYTES)).unwrap();
        sent.store(number + 1, Ordering::Relaxed);
    }
    begun.elapsed()
}

/// Reads exactly `count` events, pausing for the first time after `first`; without pauses once all are sent.
fn read_with_pauses(mut client: TestClient, count: usize, first: Duration, sent: &AtomicUsize) -> TestClient {
    let begun = Instant::now();
    let mut next_pause = first;
    for number in 0..count {
        if begun.elapsed() >= next_pause && sent.load(Ordering::Relaxed) < count {
            // The subject.
            pause(PAUSE);
            next_pause += CYCLE;
        }
        client.expect_numbers(number..number + 1);
    }
    client
}
