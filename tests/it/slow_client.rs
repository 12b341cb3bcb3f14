//! A client that is slow, stopped or dead delays no other, costs a bounded amount, and ends with a reason; one that
//! still moves is not ended.

use crate::support::client::{CLOSE, Options, PING, PONG, TEXT, parse};
use crate::support::{
    Fleet, TestClient, TestServer, eventually, in_both_shapes, in_both_shapes_at_once, number_of, numbered, pause,
    state_change, uninterrupted,
};
use rustix::process::Signal;
use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const KIB: usize = 1024;

/// A client with a receive buffer of `bytes` that has read its `initial`.
fn client_with_buffer(server: &TestServer, bytes: usize) -> TestClient {
    let options = Options {
        receive_buffer: Some(bytes),
        ..Options::default()
    };
    let mut client = TestClient::with(server.address, &options);
    assert!(client.text().starts_with("{\"type\":\"initial\""));
    client
}

fn ended(server: &TestServer, reason: &str) -> u64 {
    server.health()["clients_ended"][reason].as_u64().unwrap()
}

#[track_caller]
fn expect_nobody_ended(server: &TestServer) {
    let health = server.health();
    let ended = health["clients_ended"].as_object().unwrap();
    assert!(ended.values().all(|count| count == 0), "{health}");
}

/// Sends events 0 to `count`, `per_second` of them a second. The pace is the subject.
fn send_paced(server: &TestServer, numbers: std::ops::Range<usize>, len: usize, per_second: u32) {
    let sender = server.sender();
    let begun = Instant::now();
    for (index, number) in numbers.enumerate() {
        let due = Duration::from_secs(1) * index as u32 / per_second;
        pause(due.saturating_sub(begun.elapsed()));
        sender.send(&numbered(number, len)).unwrap();
    }
}

/// Reads what an ended client still finds in its socket: events from `next` on, each once, in order, whole; only the
/// last frame may be cut, and only by a reset. Gives the first event that did not come.
fn expect_prefix(client: TestClient, mut next: usize) -> usize {
    let (mut socket, mut received) = client.into_parts();
    let mut scrap = vec![0; 64 * KIB];
    let reset = loop {
        match uninterrupted(|| socket.read(&mut scrap)) {
            Ok(0) => break false,
            Ok(count) => received.extend_from_slice(&scrap[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
            Err(error) => panic!("{error}"),
        }
    };
    let mut rest = received.as_slice();
    let mut closed = false;
    while let Some((frame, len)) = parse(rest) {
        rest = &rest[len..];
        assert!(!closed, "nothing follows a close frame");
        if frame.opcode == CLOSE {
            assert_eq!(frame.close().0, 1013);
            closed = true;
        } else if !frame.is_keepalive() {
            assert_eq!(frame.opcode, TEXT);
            assert_eq!(number_of(&frame.payload), Some(next), "{}", frame.text());
            assert!(frame.payload == numbered(next, frame.payload.len()));
            next += 1;
        }
    }
    assert!(closed || reset, "it was neither told nor reset");
    assert!(reset || rest.is_empty(), "{} bytes of a cut frame", rest.len());
    next
}

#[test]
fn a_stopped_client_delays_no_other_and_leaves_nothing_behind() {
    const EVENTS: usize = 2000;
    const ROUNDS: usize = 3;
    const ROUNDS_MAX: usize = 6;
    in_both_shapes(|delivery| {
        // Of the events of three rounds the history keeps less than one, so that it is full after the first.
        let flags = [
            "--delivery",
            delivery,
            "--history-bytes",
            "1MiB",
            "--send-timeout",
            "3s",
        ];
        let server = TestServer::start(&flags);
        let fleet = Fleet::start(&server, 20, 1);
        let (threads, descriptors) = server.footprint();
        let mut memory = Vec::new();
        // The allocator keeps what the largest backlog so far needed; a further one must not need it once more. How
        // much it keeps varies, but what is lost would be lost in every round.
        let grows = |memory: &[usize]| {
            let (last, earlier) = memory.split_last().unwrap();
            last >= &(earlier.iter().max().unwrap() + 512 * KIB)
        };
        for round in 0..ROUNDS_MAX {
            if round >= ROUNDS && !grows(&memory) {
                break;
            }
            let numbers = round * EVENTS..(round + 1) * EVENTS;
            let stopped = client_with_buffer(&server, 4 * KIB);
            std::thread::scope(|scope| {
                scope.spawn(|| send_paced(&server, numbers.clone(), KIB, 1500));
                eventually("the stopped client is ended", || {
                    let ended = ended(&server, "too_slow") + ended(&server, "send_timeout");
                    (ended == round as u64 + 1).then_some(())
                });
                eprintln!("ended with the others at {}", fleet.least());
            });
            fleet.expect(numbers.end);
            server.comes_back_to(20, threads, descriptors);
            memory.push(server.resident_bytes());
            let next = expect_prefix(stopped, numbers.start);
            assert!(
                next > numbers.start && next < numbers.end,
                "a true prefix, up to {next}"
            );
        }
        eprintln!("resident after each: {memory:?} bytes");
        assert!(!grows(&memory), "its memory did not come back: {memory:?}");
        fleet.expect_well();
    });
}

#[test]
fn a_client_that_takes_nothing_of_its_backlog_is_ended_in_time_at_a_prefix() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery, "--send-timeout", "300ms"]);
        let client = client_with_buffer(&server, 4 * KIB);
        // More than the sockets take, less than the queue does.
        let sender = server.sender();
        for number in 0..900 {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        eventually("it is ended", || (ended(&server, "send_timeout") == 1).then_some(()));
        let got = expect_prefix(client, 0);
        assert!(got > 0 && got < 900, "{got}");
        eventually("it is gone", || (server.health()["connections"] == 0).then_some(()));
    });
}

#[test]
fn a_client_that_stays_behind_is_ended_at_a_prefix() {
    in_both_shapes(|delivery| {
        let flags = [
            "--delivery",
            delivery,
            "--client-queue-bytes",
            "64KiB",
            "--max-behind",
            "1s",
            "--send-timeout",
            "60s",
        ];
        let server = TestServer::start(&flags);
        let mut client = client_with_buffer(&server, 4 * KIB);
        let sender = server.sender();
        sender.send(&numbered(0, KIB)).unwrap();
        client.expect_numbers(0..1);
        for number in 1..2000 {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        eventually("it is ended", || (ended(&server, "too_slow") == 1).then_some(()));
        let got = expect_prefix(client, 1);
        assert!(got < 2000, "{got}");
    });
}

/// Thousands of small events in chunks of their own are a few milliseconds of a fast stream.
#[test]
fn a_backlog_is_bounded_by_its_bytes_however_many_pieces_it_comes_in() {
    const EVENTS: usize = 12_000;
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery, "--send-timeout", "60s"]);
        // Small, so that most of it waits in the server; not so small that the kernel makes reading it take half a
        // minute, as it does now and then with 4 KiB.
        let mut client = client_with_buffer(&server, 32 * KIB);
        let sender = server.sender();
        for number in 0..EVENTS {
            sender.send(&numbered(number, 80)).unwrap();
        }
        eventually("all is in the backlog", || {
            (server.health()["events_forwarded"] == EVENTS).then_some(())
        });
        client.expect_numbers(0..EVENTS);
        expect_nobody_ended(&server);
    });
}

/// How often the only client's thread has gone to sleep: it is woken for what the fan-out does not send by itself.
fn sleeps_of_the_client(server: &TestServer) -> u64 {
    eventually("one client, and no page any more", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let mut sleeps = tasks.flatten().filter_map(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            name.starts_with("client-").then(|| line.trim().parse::<u64>().unwrap())
        });
        let own = sleeps.next()?;
        sleeps.next().is_none().then_some(own)
    })
}

#[test]
fn a_reader_that_pauses_and_recovers_loses_nothing_and_is_sent_to_directly_again() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery, "--history-bytes", "0"]);
        let mut client = client_with_buffer(&server, 16 * KIB);
        let sender = server.sender();
        let before = sleeps_of_the_client(&server);
        for part in 0..4 {
            // More than its socket takes, less than its backlog may be; it reads only afterwards, as a busy browser
            // tab.
            let numbers = part * 500..(part + 1) * 500;
            for number in numbers.clone() {
                sender.send(&numbered(number, 2 * KIB)).unwrap();
            }
            eventually("all are sent or in the backlog", || {
                (server.health()["events_forwarded"] == numbers.end).then_some(())
            });
            client.expect_numbers(numbers);
        }
        let paused = sleeps_of_the_client(&server) - before;
        let calm = sleeps_of_the_client(&server);
        for number in 2000..2400 {
            sender.send(&numbered(number, KIB)).unwrap();
            client.expect_numbers(number..number + 1);
        }
        let woken = sleeps_of_the_client(&server) - calm;
        eprintln!("slept {paused} times while it had a backlog, {woken} times for 400 events afterwards");
        if delivery == "direct" {
            assert!(paused > 0, "the pauses made no backlog, so this proved nothing");
            assert!(woken < 40, "woken {woken} times for 400 events: not sent to directly");
        } else {
            assert!(woken > 40, "the measure itself is wrong: {woken}");
        }
        expect_nobody_ended(&server);
    });
}

#[test]
fn a_client_that_trickles_is_not_ended_while_it_takes_bytes() {
    in_both_shapes_at_once(|delivery| {
        // The pings lie behind what it has still to read, so it cannot answer any in time.
        let times = [
            "--ping-interval",
            "300ms",
            "--pong-timeout",
            "3s",
            "--send-timeout",
            "2s",
        ];
        let server = TestServer::start(&[&["--delivery", delivery][..], &times].concat());
        let client = client_with_buffer(&server, 8 * KIB);
        let sender = server.sender();
        for number in 0..1000 {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        let (mut socket, mut received) = client.into_parts();
        let begun = Instant::now();
        let mut scrap = [0; 2 * KIB];
        // 2 KiB every 100 ms, for longer than both timeouts.
        while begun.elapsed() < Duration::from_secs(5) {
            match uninterrupted(|| socket.read(&mut scrap)) {
                Ok(0) => panic!("ended after {:?}", begun.elapsed()),
                Ok(count) => received.extend_from_slice(&scrap[..count]),
                Err(error) => panic!("{error} after {:?}", begun.elapsed()),
            }
            pause(Duration::from_millis(100));
        }
        expect_nobody_ended(&server);
        // Then it hurries, and finds everything.
        let mut next = 0;
        let mut scrap = vec![0; 64 * KIB];
        while next < 1000 {
            while let Some((frame, len)) = parse(&received) {
                received.drain(..len);
                if !frame.is_keepalive() {
                    assert_eq!(number_of(&frame.payload), Some(next));
                    next += 1;
                }
            }
            if next < 1000 {
                let count = uninterrupted(|| socket.read(&mut scrap)).unwrap();
                assert_ne!(count, 0, "ended before event {next}");
                received.extend_from_slice(&scrap[..count]);
            }
        }
        expect_nobody_ended(&server);
    });
}

#[test]
fn a_client_that_never_answers_is_ended_and_one_that_answers_protocol_pings_is_not() {
    in_both_shapes_at_once(|delivery| {
        let flags = [
            "--delivery",
            delivery,
            "--ping-interval",
            "200ms",
            "--pong-timeout",
            "3s",
        ];
        let server = TestServer::start(&flags);
        let mut silent = server.client();
        let mut answering = server.client();
        let answers = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                answering.set_patience(Duration::from_millis(100));
                while answers.load(Ordering::Relaxed) {
                    match answering.try_frame() {
                        Ok(frame) if frame.opcode == PING => answering.send(PONG, &frame.payload),
                        Ok(frame) => assert!(frame.is_keepalive(), "{frame:?}"),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
                    }
                }
            });
            let begun = Instant::now();
            let end = silent.until_close();
            let took = begun.elapsed();
            // Two timeouts in all for the other: it answers with nothing but pong frames.
            pause(Duration::from_secs(6).saturating_sub(took));
            answers.store(false, Ordering::Relaxed);
            let (code, reason) = end.expect("a close frame");
            assert_eq!(code, 1008, "{reason}");
            assert!(took >= Duration::from_millis(2500), "ended too early, after {took:?}");
        });
        let health = server.health();
        assert_eq!(health["clients_ended"]["no_pong"], 1, "{health}");
        assert_eq!(health["connections"], 1, "{health}");
    });
}

#[test]
fn nobody_is_blamed_for_a_time_in_which_the_server_was_suspended() {
    const CLIENTS: usize = 12;
    in_both_shapes_at_once(|delivery| {
        let server = TestServer::start(&[
            "--delivery",
            delivery,
            "--ping-interval",
            "300ms",
            "--pong-timeout",
            "4s",
            "--send-timeout",
            "3s",
        ]);
        let fleet = Fleet::start(&server, CLIENTS, 1);
        // One with a backlog that begins to read again only after the suspension.
        let mut paused = client_with_buffer(&server, 32 * KIB);
        let sender = server.sender();
        for number in 0..700 {
            sender.send(&numbered(number, KIB)).unwrap();
        }
        fleet.expect(700);
        server.suspend();
        pause(Duration::from_millis(5500));
        server.signal(Signal::CONT);
        paused.expect_numbers(0..700);
        // Longer than the pong timeout, with traffic.
        std::thread::scope(|scope| {
            scope.spawn(|| send_paced(&server, 700..1700, 200, 200));
            paused.expect_numbers(700..1700);
        });
        fleet.expect(1700);
        expect_nobody_ended(&server);
        assert_eq!(server.health()["connections"], CLIENTS + 1);
    });
}

#[test]
fn nobody_is_ended_for_the_size_of_a_snapshot() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery, "--client-queue-bytes", "256KiB"]);
        let sender = server.sender();
        for machine in 0..3000 {
            sender
                .send(&state_change(&format!("machine-{machine}"), "a", "b", 1.0))
                .unwrap();
        }
        eventually("all machines are known", || {
            (server.health()["machines"] == 3000).then_some(())
        });
        let stop = AtomicBool::new(false);
        let (sent, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Bounded, so that a failure below is not waited for; never far ahead of the reader, so that it is not
                // the events that are too many.
                for number in 0..20_000 {
                    while sent.load(Ordering::Relaxed) > read.load(Ordering::Relaxed) + 100 {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        pause(Duration::from_millis(1));
                    }
                    sender.send(&numbered(number, KIB)).unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
            for _ in 0..10 {
                let mut client = client_with_buffer(&server, 64 * KIB);
                read.store(sent.load(Ordering::Relaxed), Ordering::Relaxed);
                for _ in 0..5 {
                    client.send_text("refresh");
                    while !client.text().starts_with("{\"type\":\"initial\"") {
                        read.fetch_add(1, Ordering::Relaxed);
                    }
                }
                client.close().expect("it was not ended before");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(ended(&server, "too_slow"), 0);
    });
}
