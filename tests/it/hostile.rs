//! Whatever a peer sends to the port, or does not send: one clear line, one counter that moves, and ten clients that
//! watch meanwhile and notice nothing.

use crate::support::client::{BINARY, CLOSE, Options, PING, PONG, TEXT, masked, masked_with};
use crate::support::{
    DEADLINE, Row, TestClient, TestServer, Watched, eventually, in_both_shapes, state_change, uninterrupted,
};
use rustix::net::sockopt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The header lines of a proper request to become a WebSocket, but for `Host`.
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The answer to `ping`, as the original spells it.
const ANSWER: &str = r#"{"type":"pong"}"#;

/// A connection whose waits end.
fn connect(server: &TestServer) -> TcpStream {
    let socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// A proper request with further header lines, each with its end.
fn upgrade(further: &str) -> Vec<u8> {
    format!("GET /ws/events HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{further}\r\n").into_bytes()
}

/// Sends `request` and gives the status of the answer, which must be the only one.
fn status(server: &TestServer, request: &[u8]) -> u16 {
    let mut socket = connect(server);
    // A server that has heard enough may end in the middle of it.
    let _ = socket.write_all(request);
    let mut answer = Vec::new();
    let ended = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{ended:?}: {answer}");
    answer[9..12].parse().unwrap()
}

/// A request that must be refused with `expected`.
fn refused<'a>(what: &'a str, request: Vec<u8>, expected: u16, line: &'a str) -> Row<'a> {
    let counter = format!("/requests_refused/{expected}");
    Row::new(what, line, &counter, 1, move |server| {
        assert_eq!(status(server, &request), expected, "{what}");
    })
}

/// A request that is odd and must become a WebSocket all the same.
fn taken<'a>(what: &'a str, request: Vec<u8>) -> Row<'a> {
    let line = "joined after event";
    Row::new(what, line, "/clients_ended/peer_closed", 1, move |server| {
        let mut socket = connect(server);
        socket
            .write_all(&[request, masked(CLOSE, b"\x03\xe8")].concat())
            .unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{what}: {answer}");
        assert!(answer.contains("{\"type\":\"initial\""), "{what}: {answer}");
    })
}

#[test]
fn heads_that_are_too_much_or_can_be_read_in_two_ways_are_refused() {
    let get = |lines: &str| format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes();
    let long = format!("X: {}\r\n", "a".repeat(1024 * 1024));
    let hidden = "POST /forget?machine=m HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let smuggled = |framing: &str| [get(framing), hidden.as_bytes().to_vec()].concat();
    let mut watched = Watched::new(TestServer::start(&["--log-level", "debug"]));
    for row in [
        refused("a header of 1 MB", get(&long), 431, "head of the request is over 16384"),
        refused(
            "a thousand small headers",
            get(&"a: b\r\n".repeat(1000)),
            431,
            "over 64 header lines",
        ),
        refused(
            "two hosts",
            get("host: localhost\r\n"),
            400,
            "400 header host is there twice",
        ),
        refused(
            "two lengths",
            smuggled("Content-Length: 0\r\nContent-Length: 55\r\n"),
            400,
            "400 header Content-Length is there twice",
        ),
        refused(
            "a list of lengths",
            smuggled("Content-Length: 0, 55\r\n"),
            400,
            "400 Content-Length is no number",
        ),
        refused(
            "a length and an encoding",
            smuggled("Content-Length: 55\r\nTransfer-Encoding: chunked\r\n"),
            400,
            "400 the request has both Content-Length and Transfer-Encoding",
        ),
        refused(
            "a folded line",
            get("X: a\r\n b\r\n"),
            400,
            "this is no HTTP request: invalid header name",
        ),
        refused(
            "a host behind a bare line feed",
            get("X: a\nHost: evil.example\r\n"),
            400,
            "400 a line of the head ends with LF alone",
        ),
        refused("a zero byte", get("X: a\0b\r\n"), 400, "invalid header value"),
        refused(
            "a bare carriage return",
            get("X: a\rHost: b\r\n"),
            400,
            "this is no HTTP request: invalid header value",
        ),
        refused(
            "no HTTP at all",
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec(),
            400,
            "this is no HTTP request: invalid token",
        ),
        // RFC 9112 section 2.2 allows a server to take it, but proxies differ in what they take it for.
        refused(
            "line feeds alone",
            String::from_utf8(upgrade("")).unwrap().replace('\r', "").into_bytes(),
            400,
            "it must end with CR LF (netcat: nc -C)",
        ),
    ] {
        watched.judge(row);
    }
}

#[test]
fn requests_that_must_not_become_a_websocket_are_refused_with_the_remedy() {
    let changed = |from: &str, to: &str| {
        let proper = String::from_utf8(upgrade("")).unwrap();
        assert!(proper.contains(from));
        proper.replace(from, to).into_bytes()
    };
    let mut watched = Watched::new(TestServer::start(&["--log-level", "debug"]));
    for row in [
        refused(
            "two keys",
            upgrade("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"),
            400,
            "400 header Sec-WebSocket-Key is there twice",
        ),
        refused(
            "a body",
            upgrade("Content-Length: 6\r\n"),
            400,
            "400 a request to become a WebSocket has no body",
        ),
        refused(
            "a page from elsewhere",
            upgrade("Origin: https://evil.example\r\n"),
            403,
            "start the server with --allow-origin https://evil.example",
        ),
        refused(
            "a foreign host",
            changed("localhost", "evil.example"),
            403,
            "protection against DNS rebinding",
        ),
        refused(
            "another path",
            changed("/ws/events", "/ws/other"),
            403,
            "403 WebSockets are at /ws/events only",
        ),
        refused(
            "a page that is not there",
            b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            404,
            "answered GET /none of ",
        ),
        refused("another method", changed("GET", "POST"), 405, "405 Method Not Allowed"),
        refused(
            "an old protocol",
            changed("Version: 13", "Version: 8"),
            426,
            "426 this server speaks version 13",
        ),
        refused(
            "an old HTTP",
            changed("HTTP/1.1", "HTTP/1.0"),
            426,
            "426 /ws/events is a WebSocket, and the request lacks HTTP/1.1.",
        ),
        // A list may be given in several lines (RFC 9110 section 5.3).
        taken("two upgrades", upgrade("Upgrade: h2c\r\nUpgrade: websocket\r\n")),
        taken("a body of no length", upgrade("Content-Length: 0\r\n")),
    ] {
        watched.judge(row);
    }
}

/// Half a request from each of `count` connections; each must be told 408.
fn half_handshakes(server: &TestServer, count: usize) {
    let begun = Instant::now();
    let request = upgrade("");
    let open: Vec<TcpStream> = (0..count)
        .map(|number| {
            let mut socket = connect(server);
            let len = [10, 100][number % 2];
            socket.write_all(&request[..len]).unwrap();
            socket
        })
        .collect();
    // Others come and go meanwhile.
    for _ in 0..20 {
        server.client().close().expect("a close frame");
    }
    for mut socket in open {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(4), "ended early, after {took:?}");
}

#[test]
fn two_hundred_half_handshakes_are_ended_at_the_deadline() {
    Watched::new(TestServer::start(&[])).judge(Row::new(
        "200 half handshakes",
        "408 the head of the request did not come within 5s",
        "/requests_refused/408",
        200,
        |server| half_handshakes(server, 200),
    ));
}

#[test]
fn connections_that_say_nothing_are_ended_at_the_deadline() {
    Watched::new(TestServer::start(&[])).judge(Row::new(
        "200 connections that send nothing",
        "sent nothing for 5s; its connection is ended",
        "/connections_failed/silent",
        200,
        |server| {
            let open: Vec<TcpStream> = (0..200).map(|_| connect(server)).collect();
            for mut socket in open {
                let mut answer = String::new();
                socket.read_to_string(&mut answer).unwrap();
                assert_eq!(answer, "", "nobody waits for an answer");
            }
        },
    ));
}

/// Connections that are reset after `bytes`.
fn resets(server: &TestServer, bytes: &[u8], count: usize) {
    for _ in 0..count {
        let mut socket = connect(server);
        socket.write_all(bytes).unwrap();
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn connections_that_are_gone_again_are_counted() {
    let mut watched = Watched::new(TestServer::start(&["--log-level", "debug"]));
    for (what, bytes, line, counter) in [
        (
            "150 that leave at once",
            Vec::new(),
            "connected and left without a word",
            "/connections_failed/gone",
        ),
        (
            "150 that leave with half a request",
            upgrade("")[..50].to_vec(),
            "left in the middle of its request, after 50 bytes",
            "/connections_failed/gone",
        ),
    ] {
        watched.judge(Row::new(what, line, counter, 150, |server| resets(server, &bytes, 150)));
    }
    // How far each of these came is a matter of moments, so only the harmlessness is judged.
    watched.judge(Row::harmless("150 that leave with a whole request", |server| {
        resets(server, &upgrade(""), 150);
    }));
}

/// A server whose snapshot is far larger than all buffers on the way to a client.
fn with_machines(flags: &[&str]) -> TestServer {
    let server = TestServer::start(flags);
    let sender = server.sender();
    let count = 4_000;
    for number in 0..count {
        let name = format!("a-machine-with-a-long-name-that-takes-room-{number}");
        sender.send(&state_change(&name, "a", "b", 1.5)).unwrap();
    }
    eventually("all machines are known", || {
        (server.health()["machines"] == count).then_some(())
    });
    server
}

#[test]
fn answers_that_are_not_taken_are_counted() {
    let server = with_machines(&[]);
    Watched::new(server).judge(Row::new(
        "a peer that leaves in the middle of a large answer",
        " did not take its answer (200, ",
        "/connections_failed/answer_not_taken",
        1,
        |server| {
            let mut socket = connect(server);
            sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
            socket
                .write_all(b"GET /initial HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            socket.read_exact(&mut [0; 100]).unwrap();
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        },
    ));
}

/// Bytes of a client after which it must be ended with `code`, counted as `reason`.
fn ended<'a>(what: &'a str, bytes: Vec<u8>, code: u16, reason: &str, line: &'a str) -> Row<'a> {
    let counter = format!("/clients_ended/{reason}");
    Row::new(what, line, &counter, 1, move |server| {
        let mut client = server.client();
        client.send_bytes(&bytes);
        let close = client.until_close();
        assert_eq!(close.as_ref().map(|close| close.0), Some(code), "{what}: {close:?}");
    })
}

/// The head of a text frame that declares `len` bytes, and nothing of them.
fn declared(len: u64) -> Vec<u8> {
    [&[0x81, 0xff][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

/// A masked frame whose short length is written in two or eight bytes more than it needs.
fn long_length(opcode: u8, bytes: usize, payload: &[u8]) -> Vec<u8> {
    let second = if bytes == 2 { 0xfe } else { 0xff };
    let len = (payload.len() as u64).to_be_bytes();
    // Masked with zeros, which changes nothing.
    [&[0x80 | opcode, second][..], &len[8 - bytes..], &[0; 4], payload].concat()
}

#[test]
fn a_close_frame_is_answered_with_its_own_code_if_that_may_be_sent() {
    let server = TestServer::start(&[]);
    let answer = |payload: &[u8]| {
        let mut client = server.client();
        client.send(CLOSE, payload);
        client.until_close().expect("a close frame").0
    };
    assert_eq!(answer(b""), 1005, "without a code there is none to answer");
    // Those of the registry "WebSocket Close Code Number" of IANA, and its ranges.
    let taken = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3003, 3999, 4000, 4999,
    ];
    for code in taken {
        assert_eq!(answer(&u16::to_be_bytes(code)), code);
    }
    assert_eq!(answer(b"\x03\xf6a gateway's reason"), 1014);
    let refused = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in refused {
        assert_eq!(answer(&u16::to_be_bytes(code)), 1002, "{code}");
    }
    eventually("each is counted as what it was", || {
        let ended = &server.health()["clients_ended"];
        (ended["peer_closed"] == taken.len() + 2 && ended["protocol"] == refused.len()).then_some(())
    });
}

#[test]
fn frames_that_break_the_protocol_end_their_sender_only() {
    let mut watched = Watched::new(TestServer::start(&["--log-level", "debug"]));
    for row in [
        ended(
            "a frame that declares 1 GB",
            declared(1 << 30),
            1009,
            "message_too_big",
            "sent what it must not: Space limit exceeded: Message too long: 1073741824 > 65536",
        ),
        ended(
            "a frame that declares 2^63 - 1 bytes",
            declared(i64::MAX as u64),
            1009,
            "message_too_big",
            "Message too long: 9223372036854775807 > 65536",
        ),
        ended(
            "an unmasked frame",
            b"\x81\x04ping".to_vec(),
            1002,
            "protocol",
            "Received an unmasked frame from client",
        ),
        ended(
            "reserved bits",
            masked_with(0xf0 | TEXT, b"ping"),
            1002,
            "protocol",
            "Reserved bits are non-zero",
        ),
        ended(
            "a reserved opcode of data",
            masked(3, b"x"),
            1002,
            "protocol",
            "Encountered invalid opcode: 3",
        ),
        ended(
            "a reserved opcode of control",
            masked(11, b"x"),
            1002,
            "protocol",
            "Encountered invalid opcode: 11",
        ),
        ended(
            "a ping of 126 bytes",
            masked(PING, &[0; 126]),
            1002,
            "protocol",
            "sent what it must not: a control frame of 126 bytes, more than 125",
        ),
        ended(
            "a ping that declares 1 GB",
            [&[0x80 | PING, 0xff][..], &(1u64 << 30).to_be_bytes(), &[1, 2, 3, 4]].concat(),
            1002,
            "protocol",
            "a control frame of 1073741824 bytes",
        ),
        ended(
            "a ping whose length of 4 takes two bytes more",
            long_length(PING, 2, b"ping"),
            1002,
            "protocol",
            "sent what it must not: a frame whose length of 4 is not written in the fewest bytes",
        ),
        ended(
            "a text whose length of 4 takes eight bytes more",
            [masked(TEXT, b"ping"), long_length(TEXT, 8, b"ping")].concat(),
            1002,
            "protocol",
            "a frame whose length of 4 is not written in the fewest bytes",
        ),
        ended(
            "a text whose length of 200 takes eight bytes",
            long_length(TEXT, 8, &[b'x'; 200]),
            1002,
            "protocol",
            "a frame whose length of 200 is not written in the fewest bytes",
        ),
        ended(
            "a length of 2^63",
            declared(1 << 63),
            1002,
            "protocol",
            "a frame whose length has its highest bit set",
        ),
        ended(
            "a close frame of one byte",
            masked(CLOSE, b"x"),
            1002,
            "protocol",
            "Invalid close sequence",
        ),
        ended(
            "a close frame whose reason is not UTF-8",
            masked(CLOSE, b"\x03\xe8\xff"),
            1007,
            "not_utf8",
            "UTF-8 encoding error",
        ),
        ended(
            "a close frame with code 1005",
            masked(CLOSE, &1005u16.to_be_bytes()),
            1002,
            "protocol",
            "sent what it must not: a close frame with code 1005, which no endpoint may send",
        ),
        ended(
            "a ping in fragments",
            masked_with(PING, b"x"),
            1002,
            "protocol",
            "Fragmented control frame",
        ),
        ended(
            "a continuation of nothing",
            masked_with(0x80, b"ng"),
            1002,
            "protocol",
            "nothing to continue",
        ),
        ended(
            "a text inside another",
            [masked_with(TEXT, b"pi"), masked(TEXT, b"ng")].concat(),
            1002,
            "protocol",
            "While waiting for more fragments received",
        ),
        ended(
            "text that is not UTF-8",
            masked(TEXT, b"\xff\xfe"),
            1007,
            "not_utf8",
            "UTF-8 encoding error",
        ),
    ] {
        watched.judge(row);
    }
}

#[test]
fn messages_that_mean_nothing_are_counted_and_odd_ones_that_mean_something_answered() {
    let mut watched = Watched::new(TestServer::start(&["--log-level", "debug"]));
    for (what, opcode, line) in [
        ("a binary message", BINARY, "ignored a binary message of client"),
        (
            "a text that is no message",
            TEXT,
            "ignored a text that is no message of the protocol of client",
        ),
    ] {
        watched.judge(Row::new(what, line, "/messages_ignored", 1, move |server| {
            let mut client = server.client();
            client.send(opcode, b"hello");
            client.send_text("ping");
            // Events come between; the client stays.
            while client.text() != ANSWER {}
            client.close().expect("a close frame");
        }));
    }
    let joined = "joined after event";
    watched.judge(Row::new(
        "fragments with a ping between",
        joined,
        "/clients_ended/peer_closed",
        1,
        |server| {
            let mut client = server.client();
            client.send_bytes(&masked_with(TEXT, b"pi"));
            client.send(PING, b"between");
            while client.frame().opcode != PONG {}
            client.send_bytes(&masked_with(0x80, b"ng"));
            while client.text() != ANSWER {}
            client.close().expect("a close frame");
        },
    ));
    watched.judge(Row::new(
        "the upgrade and the first message in one segment",
        joined,
        "/clients_ended/peer_closed",
        1,
        |server| {
            let options = Options {
                with_request: masked(TEXT, b"ping"),
                ..Options::default()
            };
            let mut client = TestClient::with(server.address, &options);
            assert!(client.text().starts_with("{\"type\":\"initial\""));
            while client.text() != ANSWER {}
            client.close().expect("a close frame");
        },
    ));
}

/// A client that sends `message` without end and never reads, until it is ended.
fn flood(server: &TestServer, message: &[u8]) {
    let options = Options {
        receive_buffer: Some(4096),
        ..Options::default()
    };
    let flooder = TestClient::with(server.address, &options);
    let mut socket = flooder.socket();
    socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let batch = message.repeat(1_000);
    let begun = Instant::now();
    // A write that waits only shows that the flood is held back.
    while !matches!(uninterrupted(|| socket.write(&batch)), Err(error) if error.kind() != ErrorKind::WouldBlock) {
        assert!(begun.elapsed() < DEADLINE, "the flooder is not ended");
    }
}

#[test]
fn a_flood_from_a_client_that_never_reads_ends_that_client() {
    in_both_shapes(|delivery| {
        let server = with_machines(&["--send-timeout", "500ms", "--delivery", delivery]);
        let mut watched = Watched::new(server);
        for (what, message) in [
            ("a flood of pings", masked(PING, &[b'p'; 125])),
            ("a flood of refreshes", masked(TEXT, b"refresh")),
        ] {
            let line = "too slow: it took nothing for --send-timeout";
            watched.judge(Row::new(what, line, "/clients_ended/send_timeout", 1, move |server| {
                flood(server, &message);
            }));
        }
    });
}
