//! When a component stands still, nobody else does, nobody is blamed, `/health` says it, and what was lost is counted.

use crate::support::client::{Frame, Options, PING, TEXT};
use crate::support::{
    TestClient, TestServer, eventually, in_both_shapes_at_once, numbered, pause, state_change, within,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Server flags under which a frozen component is noticed soon.
const FLAGS: [&str; 3] = ["--allow-drill", "--hang-timeout", "1s"];
/// `hung` must be said so long after the hang timeout at the latest: a look, a second look, and a machine that is busy
/// with other tests.
const NOTICED: Duration = Duration::from_secs(20);

#[track_caller]
fn freeze(server: &TestServer, component: &str, duration: Duration) {
    let target = format!("/drill?component={component}&ms={}", duration.as_millis());
    let answer = server.act(&target);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Waits until `/health` says that the data path hangs, with 503 and the component's name.
#[track_caller]
fn expect_hung(server: &TestServer, component: &str) {
    let since = Instant::now();
    // A look may show somebody else late, whom a busy machine gives no processor.
    let health = within(NOTICED, "health says hung, and of nobody else", || {
        let answer = server.http("GET", "/health", &[]);
        let health = (answer.status == 503).then(|| answer.json())?;
        health["reasons"][1].is_null().then_some(health)
    });
    assert_eq!(health["status"], "hung", "{health}");
    let reasons = health["reasons"].as_array().unwrap();
    let prefix = format!("{component} is hung");
    let named = |reason: &&serde_json::Value| reason.as_str().unwrap().starts_with(&prefix);
    assert_eq!(reasons.iter().filter(named).count(), 1, "{health}");
    eprintln!("{component}: said after {:?}", since.elapsed());
}

#[track_caller]
fn expect_ok(server: &TestServer) {
    eventually("health says ok again", || {
        let answer = server.http("GET", "/health", &[]);
        (answer.status == 200 && answer.json()["status"] == "ok").then_some(())
    });
}

/// Threads of clients and of pages.
fn client_threads(server: &TestServer) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let names = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("client-")).count()
}

fn is_ping(frame: &Frame) -> bool {
    frame.opcode == TEXT && frame.payload.starts_with(b"{\"type\":\"ping\"")
}

/// Waits for `count` of the server's pings.
#[track_caller]
fn expect_pings(client: &mut TestClient, count: usize) {
    let mut seen = 0;
    while seen < count {
        let frame = client.frame();
        assert!(frame.is_keepalive(), "{frame:?}");
        seen += usize::from(is_ping(&frame));
    }
}

/// With a fan-out that stands still, 8 KiB events fill the 32 MiB of the queue after some 4,100; the rest of 10,000 is
/// dropped. If each drop cost the patience of 5 ms these were 30 s.
#[test]
fn no_sender_is_held_by_a_frozen_fanout_and_what_is_lost_is_counted() {
    const EVENTS: usize = 10_000;
    const AFTER: usize = 200;
    const FROZEN: Duration = Duration::from_secs(60);
    /// Half of what it would take if each drop cost the patience.
    const HELD_MAX: Duration = Duration::from_secs(15);
    in_both_shapes_at_once(|delivery| {
        let flags = [
            "--delivery",
            delivery,
            "--client-queue-bytes",
            "64MiB",
            "--ingest-patience",
            "5ms",
        ];
        let server = TestServer::start(&[&flags[..], &FLAGS].concat());
        let mut client = server.client();
        let sender = server.sender();
        for number in 0..10 {
            sender.send(&numbered(number, 8192)).unwrap();
        }
        client.expect_numbers(0..10);
        freeze(&server, "fanout", FROZEN);
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        for number in 10..EVENTS {
            let before = Instant::now();
            sender.send(&numbered(number, 8192)).unwrap();
            longest = longest.max(before.elapsed());
        }
        let took = begun.elapsed();
        eprintln!("{EVENTS} events in {took:?}, the longest send {longest:?}");
        assert!(took < HELD_MAX, "the senders were held: {took:?}");
        assert!(longest < HELD_MAX / 3, "one sender was held for {longest:?}");
        let count = |health: &serde_json::Value, name: &str| health.pointer(name).unwrap().as_u64().unwrap() as usize;
        let queue_full = |health: &serde_json::Value| count(health, "/events_dropped/queue_full");
        let health = eventually("all are taken from the kernel", || {
            Some(server.health()).filter(|health| count(health, "/events_received") == EVENTS)
        });
        freeze(&server, "fanout", Duration::ZERO);
        assert!(queue_full(&health) > 0, "the queue did not fill: {health}");
        let health = eventually("all are sent or counted as lost", || {
            let health = server.health();
            (count(&health, "/events_forwarded") + queue_full(&health) == EVENTS).then_some(health)
        });
        let lost = queue_full(&health);

        // The queue's content, in order; then, after the gap, whatever follows.
        let first_lost = EVENTS - lost;
        client.expect_numbers(10..first_lost);
        server.wait_for_line(&format!("{lost} events were dropped"));
        for number in EVENTS..EVENTS + AFTER {
            sender.send(&numbered(number, 100)).unwrap();
        }
        client.expect_numbers(EVENTS..EVENTS + AFTER);
        let health = server.health();
        assert_eq!(health["events_received"], EVENTS + AFTER, "{health}");
        assert_eq!(health["events_forwarded"], EVENTS + AFTER - lost, "{health}");
        assert_eq!(health["events_dropped"]["queue_full"], lost, "{health}");
        expect_ok(&server);
    });
}

#[test]
fn pings_flow_and_health_says_hung_while_the_fanout_is_frozen() {
    in_both_shapes_at_once(|delivery| {
        let flags = ["--delivery", delivery, "--ping-interval", "100ms"];
        let server = TestServer::start(&[&flags[..], &FLAGS].concat());
        let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
        freeze(&server, "fanout", Duration::from_secs(60));
        expect_hung(&server, "fanout");
        for client in &mut clients {
            // More than could have been on the way before.
            expect_pings(client, 30);
            client.send_text("ping");
            while client.frame().payload != b"{\"type\":\"pong\"}" {}
        }
        server.send(numbered(0, 100));
        assert_eq!(server.http("GET", "/health", &[]).status, 503, "still");
        freeze(&server, "fanout", Duration::ZERO);
        expect_ok(&server);
        for client in &mut clients {
            client.expect_numbers(0..1);
        }
    });
}

#[test]
fn a_frozen_ingest_leaves_events_clients_and_pages_alone() {
    in_both_shapes_at_once(|delivery| {
        let flags = ["--delivery", delivery, "--ping-interval", "100ms"];
        let server = TestServer::start(&[&flags[..], &FLAGS].concat());
        let mut client = server.client();
        server.send(state_change("m", "a", "b", 1.0));
        client.text();
        freeze(&server, "ingest", Duration::from_secs(60));
        expect_hung(&server, "ingest");
        // The fan-out receives for itself.
        for number in 0..500 {
            server.send(numbered(number, 100));
        }
        client.expect_numbers(0..500);
        expect_pings(&mut client, 10);
        client.send_text("refresh");
        assert_eq!(client.json()["machines"][0]["current_state"], "b");
        assert_eq!(server.initial()["machines"][0]["current_state"], "b");
        let mut late = server.client();
        freeze(&server, "ingest", Duration::ZERO);
        expect_ok(&server);
        server.send(numbered(500, 100));
        client.expect_numbers(500..501);
        late.expect_numbers(500..501);
    });
}

#[test]
fn a_frozen_accept_keeps_newcomers_waiting_and_nobody_else() {
    in_both_shapes_at_once(|delivery| {
        let flags = ["--delivery", delivery, "--ping-interval", "100ms"];
        let server = TestServer::start(&[&flags[..], &FLAGS].concat());
        let mut client = server.client();
        freeze(&server, "accept", Duration::from_secs(6));
        // It obeys at its next turn; whoever comes before that may still be let in.
        server.wait_for_line("accept is late: ");
        let arrived = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut newcomer = server.client();
                arrived.store(true, Ordering::Relaxed);
                newcomer.expect_numbers(100..101);
            });
            for number in 0..100 {
                server.send(numbered(number, 100));
            }
            client.expect_numbers(0..100);
            expect_pings(&mut client, 5);
            assert!(
                !arrived.load(Ordering::Relaxed),
                "accept was not frozen, so this proved nothing"
            );
            eventually("the newcomer is let in", || {
                arrived.load(Ordering::Relaxed).then_some(())
            });
            server.send(numbered(100, 100));
            client.expect_numbers(100..101);
        });
        expect_ok(&server);
    });
}

#[test]
fn nobody_is_ended_for_silence_while_the_inbox_does_not_listen() {
    in_both_shapes_at_once(|delivery| {
        let flags = [
            "--delivery",
            delivery,
            "--ping-interval",
            "200ms",
            "--pong-timeout",
            "4s",
        ];
        let server = TestServer::start(&[&flags[..], &FLAGS].concat());
        let clients: Vec<_> = (0..5).map(|_| server.client()).collect();
        let count = clients.len();
        let answering = AtomicBool::new(true);
        let answered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for mut client in clients {
                let (answering, answered) = (&answering, &answered);
                scope.spawn(move || {
                    client.set_patience(Duration::from_millis(100));
                    while answering.load(Ordering::Relaxed) {
                        match client.try_frame() {
                            Ok(frame) if frame.opcode == PING => {
                                client.send(crate::support::client::PONG, b"");
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(frame) if frame.is_keepalive() => {}
                            Ok(frame) => return eprintln!("ended: {frame:?}"),
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                            Err(error) => return eprintln!("ended: {error}"),
                        }
                    }
                });
            }
            freeze(&server, "inbox", Duration::from_secs(60));
            expect_hung(&server, "inbox");
            // In all longer than the pong timeout deaf, then as long listening again.
            pause(Duration::from_secs(5));
            freeze(&server, "inbox", Duration::ZERO);
            pause(Duration::from_secs(5));
            let health = server.health();
            answering.store(false, Ordering::Relaxed);
            assert_eq!(health["connections"], count, "{health}");
            assert_eq!(health["clients_ended"]["no_pong"], 0, "{health}");
            assert!(answered.load(Ordering::Relaxed) > 5 * count);
        });
        expect_ok(&server);
    });
}

#[test]
fn a_join_that_a_frozen_fanout_cannot_answer_is_refused_in_time_with_the_reason() {
    in_both_shapes_at_once(|delivery| {
        let server = TestServer::start(&[&["--delivery", delivery][..], &FLAGS].concat());
        freeze(&server, "fanout", Duration::from_secs(60));
        expect_hung(&server, "fanout");
        let begun = Instant::now();
        let refused = TestClient::try_with(server.address, &Options::default()).unwrap_err();
        let took = begun.elapsed();
        let text = refused.to_string();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("fan-out") || text.contains("fanout"), "no reason: {text}");
        assert!(text.to_lowercase().contains("retry-after"), "{text}");
        assert!(took < Duration::from_secs(20), "{took:?}");
        let page = server.http("GET", "/initial", &[]);
        assert_eq!(page.status, 503, "{}", page.body);
        freeze(&server, "fanout", Duration::ZERO);
        expect_ok(&server);
        // Whoever was refused is not in the list afterwards, and one who comes now is served.
        let mut client = server.client();
        eventually("only the new client is there", || {
            (server.health()["connections"] == 1).then_some(())
        });
        server.send(numbered(0, 100));
        client.expect_numbers(0..1);
        client.close();
        eventually("the threads come back", || (client_threads(&server) == 0).then_some(()));
    });
}

#[test]
fn a_server_with_a_frozen_fanout_still_ends_in_time() {
    in_both_shapes_at_once(|delivery| {
        let mut server = TestServer::start(&[&["--delivery", delivery][..], &FLAGS].concat());
        let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
        freeze(&server, "fanout", Duration::from_secs(60));
        expect_hung(&server, "fanout");
        server.send(numbered(0, 100));
        let begun = Instant::now();
        server.stop();
        let took = begun.elapsed();
        eprintln!("ended after {took:?}");
        // 5 s are promised; as much again is for a machine that is busy with other tests.
        assert!(took < Duration::from_secs(10), "{took:?}");
        for client in &mut clients {
            client.until_close();
        }
    });
}
