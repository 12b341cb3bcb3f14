//! A network that is cut and comes back: nobody is taken for slow because of it, whoever was ended meanwhile learns of
//! it, and every event comes, once.

use crate::support::cut_network::{Cut, CutNetwork};
use crate::support::{TestClient, TestServer, eventually, number_of, numbered, pause, within};
use crate::tail::{Running, url, wait_for_clients};
use std::time::{Duration, Instant};

const KIB: usize = 1024;
/// From the network's return to that of the last event (the promise).
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// Times by which a slow client would be ended long before a cut is over.
const STRICT: [&str; 6] = [
    "--send-timeout",
    "1s",
    "--pong-timeout",
    "4s",
    "--ping-interval",
    "500ms",
];

fn server(network: &CutNetwork, flags: &[&str]) -> TestServer {
    let host = network.here.to_string();
    TestServer::start(&[&["--host", &host][..], flags].concat())
}

fn client(network: &CutNetwork, server: &TestServer) -> TestClient {
    network.at_the_other_end(|| server.client())
}

fn send(server: &TestServer, numbers: std::ops::Range<usize>, len: usize) {
    let sender = server.sender();
    for number in numbers {
        sender.send(&numbered(number, len)).unwrap();
    }
}

fn ended(server: &TestServer) -> u64 {
    let health = server.health();
    let ended = health["clients_ended"].as_object().unwrap();
    ended.values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn a_link_that_is_down_for_some_seconds_ends_nobody_and_costs_no_event() {
    some_seconds_end_nobody(Cut::Link);
}

#[test]
fn a_path_that_loses_everything_for_some_seconds_ends_nobody_and_costs_no_event() {
    some_seconds_end_nobody(Cut::Silent);
}

fn some_seconds_end_nobody(kind: Cut) {
    const EVENTS: usize = 3_000;
    let Some(network) = CutNetwork::new(kind) else { return };
    let servers = ["direct", "queued"].map(|delivery| {
        let flags = [&["--delivery", delivery][..], &STRICT].concat();
        [server(&network, &flags), server(&network, &flags)]
    });
    let mut clients = servers
        .each_ref()
        .map(|pair| pair.each_ref().map(|server| client(&network, server)));
    for [busy, _idle] in &servers {
        send(busy, 0..10, KIB);
    }
    for [busy, _idle] in &mut clients {
        busy.expect_numbers(0..10);
    }
    network.cut();
    for [busy, _idle] in &servers {
        // More than its socket and its queue take.
        send(busy, 10..EVENTS, KIB);
    }
    // The length of the cut is the subject.
    pause(Duration::from_secs(6));
    network.mend();
    let back = Instant::now();
    // All at once, because who waits for its turn answers no ping.
    std::thread::scope(|scope| {
        for ([busy, idle], pair) in clients.iter_mut().zip(&servers) {
            scope.spawn(move || busy.expect_numbers(10..EVENTS));
            scope.spawn(move || {
                send(&pair[1], 0..1, KIB);
                idle.expect_numbers(0..1);
            });
        }
    });
    let took = back.elapsed();
    eprintln!("everything was there {took:?} after the end of the cut");
    assert!(took < BACK_WITHIN, "{took:?}");
    for server in servers.iter().flatten() {
        assert_eq!(ended(server), 0, "{}", server.health());
    }
}

#[test]
fn a_client_that_was_ended_while_its_link_was_down_learns_of_it() {
    who_was_ended_learns_of_it(Cut::Link);
}

#[test]
fn a_client_that_was_ended_while_its_path_lost_everything_learns_of_it() {
    who_was_ended_learns_of_it(Cut::Silent);
}

fn who_was_ended_learns_of_it(kind: Cut) {
    let Some(network) = CutNetwork::new(kind) else { return };
    let servers = ["direct", "queued"].map(|delivery| {
        let flags = [&["--delivery", delivery, "--dead-path-timeout", "3s"][..], &STRICT].concat();
        [server(&network, &flags), server(&network, &flags)]
    });
    let clients = servers
        .each_ref()
        .map(|pair| pair.each_ref().map(|server| client(&network, server)));
    network.cut();
    for [busy, _idle] in &servers {
        send(busy, 0..1_000, KIB);
    }
    for server in servers.iter().flatten() {
        eventually("it is ended", || (ended(server) == 1).then_some(()));
        assert_eq!(server.health()["clients_ended"]["dead_path"], 1, "{}", server.health());
        eventually("it costs nothing any more", || {
            (server.health()["connections"] == 0).then_some(())
        });
    }
    network.mend();
    let back = Instant::now();
    // They only listen: nothing but the server's kernel can tell them.
    for mut client in clients.into_iter().flatten() {
        client.set_patience(BACK_WITHIN.saturating_sub(back.elapsed()));
        client.until_close();
    }
    eprintln!("all know it {:?} after the end of the cut", back.elapsed());
}

/// Starts `tail` at the other end, and waits until it shows the first event.
fn tail_with_an_event(network: &CutNetwork, server: &TestServer) -> Running {
    let stream = url(server.address);
    let running = network.at_the_other_end(|| Running::start(&["tail", "--format", "json", "--url", &stream]));
    wait_for_clients(server, 1);
    send(server, 0..1, KIB);
    eventually("an event is shown", || (!running.out().is_empty()).then_some(()));
    running
}

/// After a cut in which events up to number `events` were sent: each is shown once, in order, in time.
#[track_caller]
fn expect_all(running: &mut Running, events: usize) {
    within(BACK_WITHIN, "all events are shown", || {
        (running.out().lines().count() >= events).then_some(())
    });
    running.ends_on_interrupt();
    let out = running.out();
    let shown: Vec<usize> = out.lines().map(|line| number_of(line.as_bytes()).unwrap()).collect();
    assert_eq!(shown, (0..events).collect::<Vec<_>>());
    assert!(!running.said().contains("missing"), "{}", running.said());
}

#[test]
fn tail_goes_on_after_it_was_ended_during_a_cut() {
    const EVENTS: usize = 2_000;
    let Some(network) = CutNetwork::new(Cut::Link) else {
        return;
    };
    let server = server(&network, &[&["--dead-path-timeout", "3s"][..], &STRICT].concat());
    let mut running = tail_with_an_event(&network, &server);
    network.cut();
    send(&server, 1..EVENTS, KIB);
    eventually("it is ended", || (ended(&server) == 1).then_some(()));
    network.mend();
    expect_all(&mut running, EVENTS);
    let said = running.said();
    assert!(said.contains("resumed after event "), "{said}");
    assert!(!said.contains("nothing came"), "the kernel has told it before: {said}");
}

#[test]
fn tail_takes_a_connection_for_dead_by_itself() {
    const EVENTS: usize = 100;
    let Some(network) = CutNetwork::new(Cut::Silent) else {
        return;
    };
    let server = server(&network, &["--ping-interval", "1s"]);
    let mut running = tail_with_an_event(&network, &server);
    network.cut();
    send(&server, 1..EVENTS, KIB);
    running.wait_until_said("nothing came from the server for 25s; connecting again in");
    network.mend();
    expect_all(&mut running, EVENTS);
}
