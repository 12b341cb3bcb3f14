//! Guards what clients may send: every message of the contract is answered, everything else is borne or ended with the
//! right close code, and no client can cost the server or the others anything.

use crate::notices::v1_options;
use crate::support::client::{BINARY, CLOSE, Frame, Options, PING, PONG, TEXT, masked, masked_with};
use crate::support::{
    DEADLINE, TestClient, TestServer, eventually, in_both_shapes, in_both_shapes_at_once, numbered, pause,
    state_change, uninterrupted,
};
use rustix::net::sockopt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// No keepalive disturbs the count of frames.
const CALM: [&str; 4] = ["--ping-interval", "3000s", "--pong-timeout", "3600s"];
/// The answer to `ping`, as the original spells it.
const ANSWER: &str = r#"{"type":"pong"}"#;
/// What a server may grow by while one client misbehaves: its buffers, some snapshots, and the allocator's arenas.
const GROWTH_MAX: usize = 16 * 1024 * 1024;

/// A server that sends no keepalive, with further flags.
fn calm(flags: &[&str]) -> TestServer {
    TestServer::start(&[&CALM[..], flags].concat())
}

fn pong(payload: &[u8]) -> Frame {
    Frame {
        opcode: PONG,
        payload: payload.to_vec(),
    }
}

/// Checks that nothing is under way to this client. Frames of the inbox come in the order of its messages, so the
/// answer to a ping shows that it has none; `initial`s come from the fan-out, which attends to refreshes after each
/// event, so that one would stand between two events that are sent one after the other.
#[track_caller]
fn expect_nothing(server: &TestServer, client: &mut TestClient) {
    client.send(PING, b"fence");
    assert_eq!(client.frame(), pong(b"fence"));
    for number in 1..=2 {
        let event = numbered(number, 0);
        server.send(&event);
        assert_eq!(client.frame().payload, event);
    }
}

/// How many clients ended for `reason`.
fn ended(server: &TestServer, reason: &str) -> u64 {
    server.health()["clients_ended"][reason].as_u64().unwrap()
}

/// Waits until nothing of any client is left but `clients`.
#[track_caller]
fn expect_clients(server: &TestServer, clients: u64) {
    eventually("the other clients are gone", || {
        (server.health()["connections"] == clients).then_some(())
    });
}

#[test]
fn every_form_of_ping_is_answered_once() {
    let server = calm(&[]);
    let mut client = server.client();
    for text in [
        "ping",
        r#"{"type":"ping"}"#,
        r#"{ "type" : "ping" }"#,
        "\n{\"type\":\"ping\"}\n",
        r#"{"type":"ping","timestamp":1.5,"more":{"type":"refresh"}}"#,
        r#"{"ty\u0070e":"p\u0069ng"}"#,
    ] {
        client.send_text(text);
        assert_eq!(client.frame().text(), ANSWER, "{text}");
        expect_nothing(&server, &mut client);
    }
}

#[test]
fn every_form_of_refresh_gives_a_new_initial() {
    in_both_shapes(|delivery| {
        let server = calm(&["--delivery", delivery]);
        let mut client = server.client();
        for text in [
            "refresh",
            r#"{"type":"refresh"}"#,
            r#"{ "x": null, "type": "refresh" }"#,
        ] {
            client.send_text(text);
            let initial = client.json();
            assert_eq!(initial["type"], "initial", "{text}");
            expect_nothing(&server, &mut client);
        }
    });
}

#[test]
fn whatever_is_no_message_of_the_contract_is_ignored_and_the_client_stays() {
    let server = calm(&[]);
    let mut client = server.client();
    let deep = "{\"type\":".repeat(8_000);
    let long = "x".repeat(65_536);
    for text in [
        "pong",
        r#"{"type":"pong"}"#,
        "Ping",
        "PING",
        " ping",
        "ping ",
        "ping\n",
        "pingping",
        "Refresh",
        " refresh",
        "refresh\0",
        "",
        "hello",
        "null",
        "\"ping\"",
        "\"refresh\"",
        "[\"refresh\"]",
        r#"{"type":"Ping"}"#,
        r#"{"type":" refresh"}"#,
        r#"{"Type":"refresh"}"#,
        r#"{"type":["ping"]}"#,
        r#"{"type":null}"#,
        r#"{"event_type":"ping"}"#,
        r#"{"type":"ping""#,
        r#"{"type":"ping"}{"type":"ping"}"#,
        r#"{'type':'ping'}"#,
        r#"{"type":"initial","machines":[]}"#,
        &deep,
        &long,
    ] {
        client.send_text(text);
        expect_nothing(&server, &mut client);
    }
}

#[test]
fn a_binary_message_is_ignored_and_the_client_stays() {
    // The contract leaves the choice between ignoring and closing with 1003; this server ignores.
    let server = calm(&[]);
    let mut client = server.client();
    for payload in [&b"ping"[..], b"refresh", b"", b"\xff\x00\xfe", &[7; 65_536]] {
        client.send(BINARY, payload);
        expect_nothing(&server, &mut client);
    }
}

#[test]
fn a_refresh_reaches_only_who_asked_and_shows_the_state_of_now() {
    in_both_shapes(|delivery| {
        let server = calm(&["--delivery", delivery]);
        let (mut asking, mut other) = (server.client(), server.client());
        for state in ["one", "two", "three"] {
            let event = state_change("m", "before", state, 1.5);
            server.send(&event);
            assert_eq!(asking.frame().payload, event);
            assert_eq!(other.frame().payload, event);
            asking.send_text("refresh");
            let initial = asking.json();
            assert_eq!(initial["machines"][0]["current_state"], state);
            expect_nothing(&server, &mut other);
            for number in 1..=2 {
                assert_eq!(asking.frame().payload, numbered(number, 0));
            }
        }
    });
}

#[test]
fn a_thousand_refreshes_of_a_client_that_does_not_read_cost_a_bounded_amount() {
    in_both_shapes(|delivery| {
        // It reads again before anybody would call it stalled.
        let server = calm(&["--delivery", delivery, "--send-timeout", "60s"]);
        let sender = server.sender();
        let count = 2_000;
        for number in 0..count {
            let name = format!("machine-with-a-rather-long-name-{number:05}");
            sender.send(&state_change(&name, "a", "b", 1.0)).unwrap();
        }
        eventually("all machines are known", || {
            (server.health()["machines"] == count).then_some(())
        });
        let before = server.resident_bytes();
        let options = Options {
            receive_buffer: Some(4096),
            ..Options::default()
        };
        let mut client = TestClient::with(server.address, &options);
        assert!(client.text().len() > 250_000);
        client.send_bytes(&masked(TEXT, b"refresh").repeat(1_000));
        client.send_text("ping");
        // Not reading for a second is the subject.
        pause(Duration::from_secs(1));
        let growth = server.resident_bytes().saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{growth} bytes for one client's refreshes");
        let (mut initials, mut ponged) = (0, false);
        let last = state_change("last", "a", "b", 1.0);
        // The refreshes are all taken in when the ping behind them is; an answer to them is then before the event.
        while !ponged {
            let text = client.text();
            ponged = text == ANSWER;
            initials += usize::from(text.starts_with("{\"type\":\"initial\""));
        }
        for _ in 0..2 {
            server.send(&last);
            loop {
                let text = client.text();
                if text.as_bytes() == last {
                    break;
                }
                assert!(text.starts_with("{\"type\":\"initial\""), "{:.80}", text);
                initials += 1;
            }
        }
        assert!((1..=20).contains(&initials), "{initials} answers");
        client.send_text("refresh");
        let machines = client.json()["machines"].as_array().unwrap().len();
        assert_eq!(machines, count + 1, "the last refresh shows the last state");
    });
}

#[test]
fn a_protocol_ping_is_answered_with_the_same_payload() {
    let server = calm(&[]);
    let mut client = server.client();
    for payload in [&b""[..], b"x", b"\xff\x00\xfe", &[0x81; 125]] {
        client.send(PING, payload);
        assert_eq!(client.frame(), pong(payload));
    }
    // Many in one segment: each is answered, in order.
    let many: Vec<u8> = (0..200u8).flat_map(|number| masked(PING, &[number])).collect();
    client.send_bytes(&many);
    for number in 0..200 {
        assert_eq!(client.frame(), pong(&[number]));
    }
    // A pong that nobody asked for is no offense.
    client.send(PONG, b"unasked");
    expect_nothing(&server, &mut client);
}

#[test]
fn fragments_are_put_together_and_pings_between_them_answered_at_once() {
    let server = calm(&[]);
    let mut client = server.client();
    client.send_bytes(&masked_with(TEXT, b"pi"));
    client.send(PING, b"between");
    assert_eq!(client.frame(), pong(b"between"));
    client.send_bytes(&masked_with(0x80, b"ng"));
    assert_eq!(client.frame().text(), ANSWER);
    // Empty fragments, and one that ends inside a character.
    let text = "{\"ä✓\":0,\"type\":\"ping\"}";
    let mut frames = masked_with(TEXT, b"");
    for byte in text.bytes() {
        frames.extend(masked_with(0, &[byte]));
        frames.extend(masked_with(0, b""));
    }
    frames.extend(masked_with(0x80, b""));
    client.send_bytes(&frames);
    assert_eq!(client.frame().text(), ANSWER);
    // A frame may come in any pieces.
    for byte in masked(TEXT, b"ping") {
        client.send_bytes(&[byte]);
    }
    assert_eq!(client.frame().text(), ANSWER);
    expect_nothing(&server, &mut client);
}

#[test]
fn a_close_is_answered_with_its_own_code_and_ends_the_connection() {
    let server = calm(&[]);
    for (closed, (payload, code)) in (1..).zip([
        (&b""[..], 1005),
        (b"\x03\xe8", 1000),
        (b"\x03\xe9going away", 1001),
        (b"\x0b\xb8", 3000),
        (b"\x0f\xa0bye", 4000),
    ]) {
        let mut client = server.client();
        client.send(CLOSE, payload);
        assert_eq!(client.frame().close().0, code);
        client.try_frame().unwrap_err();
        drop(client);
        eventually("the close is counted", || {
            (ended(&server, "peer_closed") == closed).then_some(())
        });
    }
    expect_clients(&server, 0);
}

#[test]
fn the_answer_to_a_close_comes_after_all_other_answers_however_many_wait() {
    let server = calm(&[]);
    for count in (0..48).chain([64, 65, 100, 200]) {
        let mut client = server.client();
        let mut bytes = masked(TEXT, b"ping").repeat(count / 2);
        bytes.extend(masked(PING, b"p").repeat(count - count / 2));
        bytes.extend(masked(CLOSE, b"\x03\xe8"));
        client.send_bytes(&bytes);
        for number in 0..count {
            let frame = client
                .try_frame()
                .unwrap_or_else(|error| panic!("{number} of {count} answers: {error}"));
            let expected = if number < count / 2 { TEXT } else { PONG };
            assert_eq!(frame.opcode, expected, "{number} of {count}");
        }
        let close = client.try_frame();
        let close = close.unwrap_or_else(|error| panic!("no answer to the close after {count} others: {error}"));
        assert_eq!(close.close().0, 1000);
    }
}

#[test]
fn a_close_with_a_code_that_must_not_be_sent_is_a_protocol_error() {
    let server = calm(&[]);
    for code in [0u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        let mut client = server.client();
        client.send(CLOSE, &code.to_be_bytes());
        assert_eq!(client.until_close().map(|close| close.0), Some(1002), "{code}");
    }
    let mut client = server.client();
    client.send(CLOSE, b"\x03");
    assert_eq!(client.until_close().map(|close| close.0), Some(1002));
    let mut client = server.client();
    client.send(CLOSE, b"\x03\xe8\xff\xff");
    let code = client.until_close().map(|close| close.0);
    assert!(
        matches!(code, Some(1002 | 1007)),
        "a reason that is not UTF-8: {code:?}"
    );
    expect_clients(&server, 0);
}

#[test]
fn whoever_breaks_the_protocol_is_ended_with_the_code_for_it_and_nobody_else() {
    let server = calm(&[]);
    let mut witness = server.client();
    let unmasked = b"\x81\x04ping".to_vec();
    let declared = |len: u64| [&[0x81, 0xff][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let mut cases = vec![
        ("a frame without a mask", unmasked, 1002),
        ("a control frame over 125 bytes", masked(PING, &[0; 126]), 1002),
        ("a ping in fragments", masked_with(PING, b"x"), 1002),
        ("a close in fragments", masked_with(CLOSE, b"\x03\xe8"), 1002),
        ("a continuation of nothing", masked_with(0x80, b"ng"), 1002),
        (
            "a text inside another",
            [masked_with(TEXT, b"pi"), masked(TEXT, b"ng")].concat(),
            1002,
        ),
        ("text that is not UTF-8", masked(TEXT, b"\xff\xfe"), 1007),
        ("text that ends inside a character", masked(TEXT, b"a\xe2\x9c"), 1007),
        (
            "fragments that are not UTF-8",
            [masked_with(TEXT, b"a\xe2"), masked_with(0x80, b"b")].concat(),
            1007,
        ),
        ("a surrogate", masked(TEXT, b"\xed\xa0\xbd"), 1007),
        ("text over 64 KiB", masked(TEXT, &[b'x'; 65_537]), 1009),
        ("bytes over 64 KiB", masked(BINARY, &[0; 100_000]), 1009),
        (
            "fragments over 64 KiB",
            [masked_with(TEXT, &[b'x'; 40_000]), masked_with(0x80, &[b'x'; 40_000])].concat(),
            1009,
        ),
        ("a frame that declares 1 GB", declared(1 << 30), 1009),
        ("a frame that declares all there is", declared(u64::MAX >> 1), 1009),
        // RFC 6455 section 5.2: the most significant bit must be 0.
        ("a frame that declares more than there is", declared(u64::MAX), 1002),
    ];
    for bit in [0x40, 0x20, 0x10, 0x70] {
        cases.push(("a reserved bit", masked_with(0x80 | bit | TEXT, b"ping"), 1002));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("a reserved opcode", masked(opcode, b"x"), 1002));
    }
    let before = server.resident_bytes();
    let count = cases.len() as u64;
    for (what, bytes, code) in cases {
        let mut client = server.client();
        eprintln!("{what}");
        client.send_bytes(&bytes);
        let close = client.until_close();
        assert_eq!(close.as_ref().map(|close| close.0), Some(code), "{what}: {close:?}");
        assert!(!close.unwrap().1.is_empty(), "{what} has no reason");
        witness.send_text("ping");
        assert_eq!(witness.frame().text(), ANSWER);
    }
    expect_clients(&server, 1);
    eventually("all are counted", || {
        let counted = ["protocol", "not_utf8", "message_too_big"].map(|reason| ended(&server, reason));
        (counted.iter().sum::<u64>() == count).then_some(())
    });
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes more");
}

#[test]
fn a_message_of_exactly_64_kib_is_no_offense() {
    let server = calm(&[]);
    let mut client = server.client();
    let head = r#"{"type":"ping","pad":""#;
    let text = format!("{head}{}\"}}", "x".repeat(65_536 - head.len() - 2));
    assert_eq!(text.len(), 65_536);
    client.send_text(&text);
    assert_eq!(client.frame().text(), ANSWER);
    let (first, second) = text.as_bytes().split_at(30_000);
    client.send_bytes(&[masked_with(TEXT, first), masked_with(0x80, second)].concat());
    assert_eq!(client.frame().text(), ANSWER);
}

#[test]
fn a_frame_of_a_declared_gigabyte_is_refused_before_its_bytes_come_and_takes_no_memory() {
    let server = calm(&[]);
    let mut client = server.client();
    let before = server.resident_bytes();
    client.send_bytes(&[&[0x82, 0xff][..], &(1u64 << 30).to_be_bytes(), &[1, 2, 3, 4]].concat());
    // The code comes although nothing of the payload was sent.
    assert_eq!(client.frame().close().0, 1009);
    // What comes all the same is thrown away, for as long as the server bears it.
    for _ in 0..256 {
        if client.socket().write_all(&[0; 65_536]).is_err() {
            break;
        }
    }
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes more");
    expect_clients(&server, 0);
}

#[test]
fn five_thousand_texts_in_a_rush_get_all_their_pongs() {
    in_both_shapes(|delivery| {
        let server = calm(&["--delivery", delivery]);
        let mut client = server.client();
        client.send_bytes(&masked(TEXT, b"ping").repeat(5_000));
        for _ in 0..5_000 {
            assert_eq!(client.frame().text(), ANSWER);
        }
        expect_nothing(&server, &mut client);
    });
}

#[test]
fn a_flood_of_pings_from_a_client_that_does_not_read_is_held_back_and_then_ended() {
    let server = calm(&["--send-timeout", "500ms"]);
    let mut witness = server.client();
    let before = server.resident_bytes();
    for (opcode, payload) in [(TEXT, &b"ping"[..]), (PING, &[b'p'; 125])] {
        let options = Options {
            receive_buffer: Some(4096),
            ..Options::default()
        };
        let flooder = TestClient::with(server.address, &options);
        let timeouts = ended(&server, "send_timeout");
        let batch = masked(opcode, payload).repeat(1_000);
        let mut socket = flooder.socket();
        socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let (mut most, begun) = (0, Instant::now());
        // It goes on until it is ended; a write that waits only shows that it is held back.
        while !matches!(uninterrupted(|| socket.write(&batch)), Err(error) if error.kind() != ErrorKind::WouldBlock) {
            most = most.max(server.resident_bytes());
            assert!(begun.elapsed() < DEADLINE, "the flooder is not ended");
        }
        eventually("the end is counted, for its reason", || {
            (ended(&server, "send_timeout") == timeouts + 1).then_some(())
        });
        expect_nothing(&server, &mut witness);
        let growth = most.saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{growth} bytes for a flooder");
    }
    expect_clients(&server, 1);
}

/// Writes `bytes` again and again until `stop`.
fn flood(mut socket: TcpStream, bytes: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if socket.write_all(bytes).is_err() {
            return;
        }
    }
}

#[test]
fn a_flood_of_pings_from_a_client_that_reads_keeps_memory_bounded_and_starves_nobody() {
    in_both_shapes(|delivery| {
        let server = calm(&["--delivery", delivery]);
        let sender = server.sender();
        let mut witness = server.client();
        let before = server.resident_bytes();
        let (stop, events) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut most = 0;
        thread::scope(|scope| {
            for _ in 0..2 {
                let client = server.client();
                let writing = client.socket().try_clone().unwrap();
                let stop = &stop;
                scope.spawn(move || flood(writing, &masked(TEXT, b"ping").repeat(2_000), stop));
                let events = &events;
                scope.spawn(move || {
                    let mut client = client;
                    while let Ok(text) = client.try_text() {
                        events.fetch_add(usize::from(text != ANSWER), Ordering::Relaxed);
                    }
                });
            }
            // The witness keeps the inbox turning, so that the flooders are read as often as can be.
            let begun = Instant::now();
            let mut sent = 0;
            while begun.elapsed() < Duration::from_secs(2) {
                for _ in 0..50 {
                    witness.send_text("ping");
                    assert_eq!(witness.frame().text(), ANSWER);
                }
                let event = numbered(sent, 100);
                sender.send(&event).unwrap();
                sent += 1;
                assert_eq!(witness.frame().payload, event);
                most = most.max(server.resident_bytes());
            }
            // While the flood goes on, its events come through it.
            let deadline = Instant::now() + DEADLINE;
            while events.load(Ordering::Relaxed) < 2 * sent && Instant::now() < deadline {
                witness.send_text("ping");
                assert_eq!(witness.frame().text(), ANSWER);
            }
            let (seen, health) = (events.load(Ordering::Relaxed), server.health());
            stop.store(true, Ordering::Relaxed);
            drop(server);
            assert_eq!(seen, 2 * sent, "{health}");
        });
        let growth = most.saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{growth} bytes for two flooders");
    });
}

#[test]
fn a_server_whose_clients_flood_it_still_tells_them_when_it_stops() {
    let mut server = calm(&[]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = server.client();
        let writing = client.socket().try_clone().unwrap();
        scope.spawn(|| flood(writing, &masked(TEXT, b"ping").repeat(2_000), &stop));
        let reader = scope.spawn(move || {
            let mut client = client;
            client.until_close()
        });
        pause(Duration::from_millis(200));
        let status = server.stop();
        stop.store(true, Ordering::Relaxed);
        assert!(status.success(), "{status}\n{}", server.lines().all());
        assert_eq!(reader.join().unwrap().map(|close| close.0), Some(1012));
    });
}

#[test]
fn half_closed_and_reset_connections_end_and_leave_nothing_behind() {
    let server = calm(&[]);
    let mut witness = server.client();
    let (threads, descriptors) = server.footprint();
    for round in 0..10 {
        let client = server.client();
        if round % 2 == 0 {
            client.shut_down();
            let mut rest = Vec::new();
            // Whether by an end or by a reset, it is over.
            let _ = client.socket().read_to_end(&mut rest);
            assert_eq!(rest, b"");
        } else {
            sockopt::set_socket_linger(client.socket(), Some(Duration::ZERO)).unwrap();
            drop(client);
        }
    }
    server.comes_back_to(1, threads, descriptors);
    assert_eq!(ended(&server, "peer_gone"), 10);
    expect_nothing(&server, &mut witness);
}

/// Now, as the server's timestamps count.
fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn each_client_is_pinged_twice_over_at_its_own_interval_counted_from_its_initial() {
    let server = TestServer::start(&["--ping-interval", "300ms"]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let connected = epoch();
        clients.push((connected, server.client()));
        // So that they are out of step.
        pause(Duration::from_millis(100));
    }
    for (connected, client) in &mut clients {
        for number in 1..=4 {
            let text = client.frame();
            let at: f64 = text
                .text()
                .strip_prefix("{\"type\":\"ping\",\"timestamp\":")
                .and_then(|rest| rest.strip_suffix('}')?.parse().ok())
                .unwrap_or_else(|| panic!("{text:?}"));
            // The two clocks may differ by a little; that a ping is late is the machine's affair, and does not bring
            // the next one nearer.
            let after = at - *connected;
            assert!(
                after > 0.3 * f64::from(number) - 0.01,
                "ping {number} after {after:.3} s"
            );
            assert!(after < 60.0, "ping {number} after {after:.3} s");
            assert_eq!(client.frame().opcode, PING);
        }
    }
}

#[test]
fn a_client_that_only_sends_is_ended_in_the_end_and_harms_nobody() {
    in_both_shapes(|delivery| {
        let server = calm(&["--delivery", delivery, "--send-timeout", "500ms"]);
        let sender = server.sender();
        let mut witness = server.client();
        let options = Options {
            receive_buffer: Some(4096),
            ..Options::default()
        };
        let deaf = TestClient::with(server.address, &options);
        let stop = AtomicBool::new(false);
        let count = 3_000;
        thread::scope(|scope| {
            let writing = deaf.socket().try_clone().unwrap();
            scope.spawn(|| flood(writing, &masked(TEXT, b"hello there").repeat(50), &stop));
            for number in 0..count {
                sender.send(&numbered(number, 1024)).unwrap();
                if number % 10 == 9 {
                    witness.expect_numbers(number - 9..number + 1);
                }
            }
            eventually("the deaf client is ended", || {
                (ended(&server, "too_slow") + ended(&server, "send_timeout") == 1).then_some(())
            });
            stop.store(true, Ordering::Relaxed);
        });
        expect_clients(&server, 1);
        expect_nothing(&server, &mut witness);
    });
}

#[test]
fn every_refresh_is_answered_however_soon_it_comes_after_the_last() {
    in_both_shapes(|delivery| {
        // Without pings, so that an answer that never comes is noticed.
        let server = TestServer::start(&[&["--delivery", delivery][..], &CALM].concat());
        let sender = server.sender();
        for machine in 0..1000 {
            sender
                .send(&state_change(&format!("machine-{machine}"), "a", "b", 1.0))
                .unwrap();
        }
        eventually("all machines are known", || {
            (server.health()["machines"] == 1000).then_some(())
        });
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = server.client();
                    for _ in 0..150 {
                        client.send_text("refresh");
                        assert!(client.text().starts_with("{\"type\":\"initial\""));
                    }
                });
            }
        });
    });
}

#[test]
fn a_client_that_wants_nothing_of_the_stream_is_told_how_far_it_is() {
    const EVENTS: usize = 3000;
    in_both_shapes_at_once(|delivery| {
        let server = TestServer::start(&["--ping-interval", "100ms", "--delivery", delivery]);
        let mut client = TestClient::with(server.address, &v1_options("/ws/events?type=rare"));
        assert_eq!(client.json()["type"], "hello");
        assert_eq!(client.json()["type"], "initial");
        let sender = server.sender();
        for number in 0..EVENTS {
            sender.send(&numbered(number, 100)).unwrap();
        }
        let mut last = 0;
        eventually("a ping covers all of them", || {
            let frame = client.frame();
            if frame.opcode != TEXT {
                return None;
            }
            let ping: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
            assert_eq!(ping["type"], "ping");
            let seq = ping["seq"].as_u64()?;
            assert!(seq >= last && seq <= EVENTS as u64, "{seq} after {last}");
            last = seq;
            (seq == EVENTS as u64).then_some(())
        });
        server.send(r#"{"type":"rare"}"#);
        assert_eq!(client.json()["seq"], EVENTS + 1);
    });
}
