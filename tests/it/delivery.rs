//! Every client gets every event, once and in the one order that all share, whoever comes and goes meanwhile and
//! however the events arrive; who joins begins at the snapshot without a gap.

use crate::support::client::{CLOSE, Options};
use crate::support::{
    DEADLINE, Fleet, TestClient, TestServer, eventually, in_both_shapes, numbered, pause, state_change,
};
use rustix::net::sockopt;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Fails if the server has dropped anything.
#[track_caller]
fn expect_nothing_dropped(server: &TestServer, received: usize) {
    let health = server.health();
    assert_eq!(health["events_received"], received, "{health}");
    let dropped = health["events_dropped"].as_object().unwrap();
    assert!(dropped.values().all(|count| count == 0), "{health}");
}

/// Opens one connection and leaves in one of the ways that browsers, scripts and dying machines leave.
fn come_and_go(server: &TestServer, number: usize) {
    match number % 5 {
        // Shakes hands, and ends in order.
        0 => {
            server.client().close();
        }
        // Shakes hands, and is gone without a word.
        1 => drop(server.client()),
        // Is gone with the handshake under way.
        2 => {
            let mut socket = TcpStream::connect(server.address).unwrap();
            socket.write_all(b"GET /ws/events HTTP/1.1\r\nHost: local").unwrap();
        }
        // Asks for a page.
        3 => assert_eq!(server.http("GET", "/health", &[]).status, 200),
        // Leaves with everything unread, which resets the connection.
        _ => {
            let options = Options {
                receive_buffer: Some(4096),
                ..Options::default()
            };
            let mut client = TestClient::with(server.address, &options);
            client.send(CLOSE, b"");
        }
    }
}

#[test]
fn steady_clients_miss_nothing_while_others_come_and_go() {
    const CLIENTS: usize = 20;
    const COMING: usize = 600;
    const EVERY: Duration = Duration::from_millis(5);
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let fleet = Fleet::start(&server, CLIENTS, 1);
        let (threads, descriptors) = server.footprint();
        let churning = AtomicBool::new(true);
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let sender = server.sender();
                let mut sent = 0;
                while churning.load(Ordering::Relaxed) {
                    sender.send(&numbered(sent, 200)).unwrap();
                    sent += 1;
                    pause(Duration::from_millis(1));
                }
                sent
            });
            let begun = Instant::now();
            let comers: Vec<_> = (0..4)
                .map(|lane| {
                    let server = &server;
                    scope.spawn(move || {
                        for number in (lane..COMING).step_by(4) {
                            // The pace of 200 a second is the subject; a machine that cannot keep it is just slower.
                            pause((EVERY * number as u32).saturating_sub(begun.elapsed()));
                            come_and_go(server, number);
                        }
                    })
                })
                .collect();
            for comer in comers {
                comer.join().unwrap();
            }
            churning.store(false, Ordering::Relaxed);
            sender.join().unwrap()
        });
        fleet.expect(sent);
        expect_nothing_dropped(&server, sent);
        server.comes_back_to(CLIENTS, threads, descriptors);
        fleet.expect_well();
    });
}

#[test]
fn a_burst_from_a_sender_that_does_not_block_loses_nothing() {
    const EVENTS: usize = 500;
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let fleet = Fleet::start(&server, 3, 1);
        let sender = server.sender();
        sender.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + DEADLINE;
        for number in 0..EVENTS {
            let event = numbered(number, 300);
            while let Err(error) = sender.send(&event) {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(Instant::now() < deadline, "the server takes nothing");
                std::thread::yield_now();
            }
        }
        fleet.expect(EVENTS);
        expect_nothing_dropped(&server, EVENTS);
    });
}

/// Sends `count` events to 50 clients with `send`, and expects every one of them at every client. The slowest client is
/// never more than `ahead` events behind, because a busy machine may keep our own readers from reading for a while.
fn fifty_clients_get(count: usize, ahead: usize, flags: &[&str], mut send: impl FnMut(&TestServer, &[u8])) {
    let server = TestServer::start(flags);
    let fleet = Fleet::start(&server, 50, 2);
    for number in 0..count {
        if number % 1000 == 0 {
            fleet.expect_well();
            fleet.wait_for((number + 1000).saturating_sub(ahead));
        }
        send(&server, &numbered(number, 150));
    }
    fleet.expect(count);
    expect_nothing_dropped(&server, count);
}

/// The sender is the original's: a socket of its own for every event, and a send that blocks. All bounds are the
/// defaults.
#[test]
fn a_hundred_thousand_events_reach_fifty_clients() {
    in_both_shapes(|delivery| {
        // Less than a client's backlog of 1 MiB may be.
        fifty_clients_get(100_000, 5_000, &["--delivery", delivery], |server, event| {
            let sender = UnixDatagram::unbound().unwrap();
            sender.send_to(event, server.socket_path()).unwrap();
        });
    });
}

/// This sender hardly ever pauses, and the host's processors copy its events to fifty clients more slowly than it sends
/// them. With the default bound of a backlog some clients would be ended then, because nobody waits for clients for
/// long; here the backlogs may hold the whole stream. What is proved is that nothing is lost or exchanged on the way.
#[test]
fn a_hundred_thousand_events_reach_fifty_clients_as_fast_as_they_can_be_sent() {
    in_both_shapes(|delivery| {
        let mut sender = None;
        let flags = ["--delivery", delivery, "--client-queue-bytes", "64MiB"];
        // Less than a client's backlog may have pieces, should every event be one.
        fifty_clients_get(100_000, 16_000, &flags, |server, event| {
            let sender = sender.get_or_insert_with(|| server.sender());
            sender.send(event).unwrap();
        });
    });
}

#[test]
fn all_clients_see_several_senders_in_the_same_order() {
    const SENDERS: usize = 4;
    const EACH: usize = 1000;
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let mut clients: Vec<_> = (0..6).map(|_| server.client()).collect();
        let orders: Vec<Vec<String>> = std::thread::scope(|scope| {
            let readers: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(|| (0..SENDERS * EACH).map(|_| client.text()).collect::<Vec<_>>()))
                .collect();
            for lane in 0..SENDERS {
                let sender = server.sender();
                scope.spawn(move || {
                    for number in 0..EACH {
                        sender.send(&numbered(lane * EACH + number, 120)).unwrap();
                    }
                });
            }
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        for order in &orders {
            assert!(*order == orders[0], "two clients saw different orders");
        }
        for lane in 0..SENDERS {
            let expected = (lane * EACH..(lane + 1) * EACH).map(|number| numbered(number, 120));
            let expected: Vec<_> = expected.map(|event| String::from_utf8(event).unwrap()).collect();
            let seen: Vec<_> = orders[0].iter().filter(|text| expected.contains(text)).collect();
            assert!(
                seen.iter().copied().eq(expected.iter()),
                "sender {lane} came out of order or not whole"
            );
        }
        for client in &mut clients {
            client.expect_silence(Duration::from_millis(1));
        }
    });
}

/// The state of machine `counter` in a message: an `initial` or its `state_change`.
fn counter_of(message: &str) -> (bool, u64) {
    let value: serde_json::Value = serde_json::from_str(message).unwrap();
    let initial = value["type"] == "initial";
    let state = if initial {
        &value["machines"][0]["current_state"]
    } else {
        &value["payload"]["to_state"]
    };
    (initial, state.as_str().unwrap().parse().unwrap())
}

#[test]
fn a_joining_client_gets_the_state_and_then_exactly_what_follows() {
    const JOINS_PER_LANE: usize = 25;
    const EVENTS_AFTER: u64 = 40;
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let change = |counter: u64| {
            let from = counter.wrapping_sub(1).to_string();
            state_change("counter", &from, &counter.to_string(), counter as f64)
        };
        let sender = server.sender();
        sender.send(&change(0)).unwrap();
        eventually("the first state is in the table", || {
            (server.health()["machines"] == 1).then_some(())
        });
        let joining = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut counter = 0;
                while joining.load(Ordering::Relaxed) {
                    counter += 1;
                    sender.send(&change(counter)).unwrap();
                    // Several events per join, and now and then a burst, so that joins fall inside and between turns.
                    if counter % 64 < 32 {
                        pause(Duration::from_micros(300));
                    }
                }
            });
            let lanes: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..JOINS_PER_LANE {
                            let mut client = TestClient::connect(server.address);
                            let (initial, mut counter) = counter_of(&client.text());
                            assert!(initial, "the first message is the state");
                            let until = counter + EVENTS_AFTER;
                            while counter < until {
                                let (initial, next) = counter_of(&client.text());
                                assert!(!initial, "no initial unasked");
                                assert_eq!(next, counter + 1, "a gap or a repeat after the snapshot");
                                counter = next;
                            }
                            // A refresh is at its exact place in the stream as well.
                            client.send_text("refresh");
                            let mut refreshed = false;
                            let mut after = 0;
                            while after < EVENTS_AFTER {
                                let (initial, next) = counter_of(&client.text());
                                if initial {
                                    assert!(!refreshed, "one initial for one refresh");
                                    assert_eq!(next, counter, "the state is as of the last event before it");
                                } else {
                                    assert_eq!(next, counter + 1, "a gap or a repeat around a refresh");
                                }
                                refreshed |= initial;
                                after += u64::from(refreshed);
                                counter = next;
                            }
                        }
                    })
                })
                .collect();
            let outcomes: Vec<_> = lanes.into_iter().map(|lane| lane.join()).collect();
            joining.store(false, Ordering::Relaxed);
            assert!(outcomes.iter().all(Result::is_ok), "a client failed, see above");
        });
    });
}

#[test]
fn large_events_come_whole_and_too_large_ones_are_counted_and_hold_up_nobody() {
    const WHOLE: [usize; 4] = [100_000, 200_000, 65_535, 65_536];
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let mut clients = vec![server.client(), server.client()];
        let tiny = Options {
            receive_buffer: Some(4096),
            ..Options::default()
        };
        let mut small_window = TestClient::with(server.address, &tiny);
        small_window.text();
        clients.push(small_window);

        let sender = server.sender();
        sockopt::set_socket_send_buffer_size(&*sender, 512 * 1024).unwrap();
        let mut sent = Vec::new();
        for (index, len) in WHOLE.into_iter().enumerate() {
            sent.push(numbered(2 * index, len));
            sent.push(numbered(2 * index + 1, 100));
        }
        std::thread::scope(|scope| {
            let readers: Vec<_> = clients
                .iter_mut()
                .map(|client| {
                    let sent = &sent;
                    scope.spawn(move || {
                        for event in sent {
                            assert!(client.text().as_bytes() == event, "event of {} bytes", event.len());
                        }
                    })
                })
                .collect();
            for (number, event) in sent.iter().enumerate() {
                if number % 2 == 1 {
                    sender.send(&numbered(number, 256 * 1024 + 1)).unwrap();
                }
                sender.send(event).unwrap();
            }
            for reader in readers {
                reader.join().unwrap();
            }
        });
        let exact = numbered(100, 256 * 1024);
        sender.send(&exact).unwrap();
        for client in &mut clients {
            assert!(client.text().as_bytes() == exact, "the largest that is allowed");
        }
        let health = server.health();
        assert_eq!(health["events_dropped"]["too_large"], WHOLE.len(), "{health}");
        assert_eq!(health["events_forwarded"], sent.len() + 1, "{health}");
        server.wait_for_line("dropped an event");
    });
}
