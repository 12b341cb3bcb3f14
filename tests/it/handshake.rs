//! Guards the way in: a WebSocket is made of every proper request, however it comes, and of no other; and whatever
//! comes to the port, or does not come, the clients that are there notice nothing.

use crate::support::client::{CLOSE, Options, PING, PONG, TEXT, masked};
use crate::support::http::raw;
use crate::support::{DEADLINE, TestClient, TestServer, eventually, numbered, uninterrupted, within};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The key of RFC 6455 section 1.3, and the answer that it must have.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";

/// A request with these header lines.
fn lines(target: &str, lines: &[&str]) -> String {
    format!("GET {target} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"))
}

/// A proper request with these header lines more.
fn proper(further: &[&str]) -> String {
    let all = ["Host: localhost", UPGRADE, CONNECTION, KEY, VERSION];
    lines("/ws/events", &[&all[..], further].concat())
}

/// A connection whose waits end.
fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Everything up to the end of the head.
fn read_head(mut socket: &TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        let read = uninterrupted(|| socket.read(&mut byte)).unwrap();
        assert_eq!(read, 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Sends `request` and checks that it becomes a WebSocket.
#[track_caller]
fn expect_accepted(server: &TestServer, request: &str) -> String {
    let mut socket = connect(server.address);
    socket.write_all(request.as_bytes()).unwrap();
    let head = read_head(&socket);
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{request}: {head}"
    );
    let mut start = [0; 19];
    socket.read_exact(&mut start).unwrap();
    assert_eq!(&start[2..], b"{\"type\":\"initial\"", "{request}");
    head
}

/// Checks that a client still gets what is sent.
#[track_caller]
fn expect_alive(server: &TestServer, client: &mut TestClient, number: usize) {
    server.send(numbered(number, 0));
    client.expect_numbers(number..number + 1);
}

#[test]
fn the_answer_is_the_one_of_the_rfc_and_nothing_that_was_not_agreed() {
    let server = TestServer::start(&[]);
    let offers = [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: chat, superchat",
        "User-Agent: test",
        "Cookie: a=b",
    ];
    for further in [&offers[..0], &offers] {
        let head = expect_accepted(&server, &proper(further)).to_lowercase();
        assert!(head.contains(&ACCEPT.to_lowercase()), "{head}");
        assert!(
            head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
            "{head}"
        );
        assert!(
            !head.contains("sec-websocket-protocol") && !head.contains("sec-websocket-extensions"),
            "{head}"
        );
    }
}

#[test]
fn every_spelling_of_a_proper_request_is_accepted() {
    let server = TestServer::start(&[]);
    let proper = proper(&[]);
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "Connection: upgrade,keep-alive"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        ("Upgrade: websocket", "Upgrade: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c, WEBSOCKET"),
        ("Upgrade: websocket", "Upgrade:websocket"),
        ("Upgrade: websocket", "Upgrade: \t websocket \t"),
        ("/ws/events", "/ws/events?view=7&x=%20"),
        (
            "/ws/events",
            "/ws/events?since=0123456789abcdef:7&type=error&machine=a*,b",
        ),
        ("/ws/events", "/ws/events?"),
        (
            "Host: localhost",
            "Host: localhost\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
    ] {
        assert!(proper.contains(from));
        expect_accepted(&server, &proper.replace(from, to));
    }
    // Names of headers in every case; the key keeps its own.
    let changed = |change: fn(&str) -> String| -> String {
        let lines = proper.split("\r\n").map(|line| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", change(name)),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\r\n")
    };
    expect_accepted(&server, &changed(str::to_lowercase));
    expect_accepted(&server, &changed(str::to_uppercase));
}

#[test]
fn a_request_that_is_not_proper_is_refused_with_the_status_for_it() {
    let server = TestServer::start(&[]);
    let mut witness = server.client();
    let many = (0..70)
        .map(|number| format!("X-{number}: y"))
        .collect::<Vec<_>>()
        .join("\r\n");
    let long = format!("X-Long: {}", "a".repeat(17_000));
    let cases: Vec<(&str, &str, String, u16)> = vec![
        ("/ws/events", "another path", "/ws/events/".to_owned(), 403),
        ("/ws/events", "a shorter path", "/ws".to_owned(), 403),
        ("/ws/events", "the root", "/".to_owned(), 403),
        ("/ws/events", "a page's path", "/health?/ws/events".to_owned(), 403),
        ("GET ", "another method", "POST ".to_owned(), 405),
        (VERSION, "an old version", "Sec-WebSocket-Version: 8".to_owned(), 426),
        (VERSION, "no version", "X: y".to_owned(), 426),
        (VERSION, "two versions", format!("{VERSION}\r\n{VERSION}"), 400),
        (KEY, "no key", "X: y".to_owned(), 400),
        (KEY, "an empty key", "Sec-WebSocket-Key:".to_owned(), 400),
        (
            KEY,
            "a short key",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==".to_owned(),
            400,
        ),
        (
            KEY,
            "a long key",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSBpcw==".to_owned(),
            400,
        ),
        (
            KEY,
            "a key that is no base64",
            "Sec-WebSocket-Key: dGhlIHNhbXBs!!Bub25jZQ==".to_owned(),
            400,
        ),
        (
            KEY,
            "a key without padding",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA".to_owned(),
            400,
        ),
        (KEY, "two keys", format!("{KEY}\r\n{KEY}"), 400),
        (
            "Host: localhost",
            "two hosts",
            "Host: localhost\r\nhost: localhost".to_owned(),
            400,
        ),
        ("Host: localhost", "no host", "X: y".to_owned(), 400),
        (
            UPGRADE,
            "two origins",
            format!("{UPGRADE}\r\nOrigin: http://localhost\r\nOrigin: http://localhost"),
            400,
        ),
        (UPGRADE, "no word of an upgrade", "X: y".to_owned(), 426),
        (UPGRADE, "another upgrade", "Upgrade: h2c".to_owned(), 426),
        (
            CONNECTION,
            "a connection that stays",
            "Connection: keep-alive".to_owned(),
            426,
        ),
        (
            CONNECTION,
            "a token that only looks like it",
            "Connection: upgraded".to_owned(),
            426,
        ),
        (KEY, "too many headers", format!("{KEY}\r\n{many}"), 431),
        (KEY, "a head too long", format!("{KEY}\r\n{long}"), 431),
        ("HTTP/1.1", "an unknown version of HTTP", "HTTP/3.7".to_owned(), 505),
        (UPGRADE, "a line folded", format!("{UPGRADE},\r\n h2c"), 400),
        (
            UPGRADE,
            "a space before the colon",
            "Upgrade : websocket".to_owned(),
            400,
        ),
        (UPGRADE, "a zero byte", "Upgrade: web\0socket".to_owned(), 400),
    ];
    let proper = proper(&[]);
    for (from, what, to, status) in cases {
        assert!(proper.contains(from), "{from}");
        let answer = raw(server.address, proper.replacen(from, &to, 1).as_bytes());
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        assert!(
            answer.json()["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{what}"
        );
        let connection = if status == 426 { "Upgrade, close" } else { "close" };
        assert_eq!(answer.header("connection"), Some(connection), "{what}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
    }
    expect_alive(&server, &mut witness, 0);
    assert_eq!(server.health()["connections"], 1);
}

#[test]
fn garbage_of_any_size_is_answered_or_ended_and_costs_nothing() {
    let server = TestServer::start(&[]);
    let mut witness = server.client();
    let before = server.resident_bytes();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20);
    assert_eq!(raw(server.address, &tls).status, 400);
    assert_eq!(raw(server.address, b"\0\0\0\0\r\n\r\n").status, 400);
    assert_eq!(raw(server.address, b"hello\r\n\r\n").status, 400);
    assert_eq!(raw(server.address, &[0xff; 5000]).status, 400);
    assert_eq!(raw(server.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status, 505);
    let header = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "a".repeat(1024 * 1024)
    );
    assert_eq!(raw(server.address, header.as_bytes()).status, 431);
    let target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(1024 * 1024));
    assert_eq!(raw(server.address, target.as_bytes()).status, 431);
    let endless = "\r\n".repeat(100_000);
    assert!(matches!(raw(server.address, endless.as_bytes()).status, 400 | 431));
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < 8 * 1024 * 1024, "{growth} bytes more");
    expect_alive(&server, &mut witness, 0);
}

#[test]
fn a_head_of_just_under_16_kib_and_64_lines_is_taken() {
    let server = TestServer::start(&[]);
    // Five lines are there; 59 more make the 64.
    let lines: Vec<String> = (0..59)
        .map(|number| format!("X-{number}: {}", "a".repeat(260)))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let request = proper(&lines);
    assert!((15_000..16_384).contains(&request.len()), "{}", request.len());
    expect_accepted(&server, &request);
    let request = proper(&[&lines[..], &["X: y"]].concat());
    assert_eq!(raw(server.address, request.as_bytes()).status, 431);
}

#[test]
fn messages_in_the_segment_of_the_handshake_are_not_lost() {
    let server = TestServer::start(&[]);
    let mut client = TestClient::with(
        server.address,
        &Options {
            with_request: [masked(TEXT, b"ping"), masked(PING, b"p"), masked(TEXT, b"ping")].concat(),
            ..Options::default()
        },
    );
    assert!(
        client.frame().text().starts_with("{\"type\":\"initial\""),
        "initial is first all the same"
    );
    assert_eq!(client.frame().text(), "{\"type\":\"pong\"}");
    assert_eq!(client.frame().opcode, PONG);
    assert_eq!(client.frame().text(), "{\"type\":\"pong\"}");
    // Half a message, of which the rest comes later.
    let (start, end) = (masked(TEXT, b"ping")[..3].to_vec(), masked(TEXT, b"ping")[3..].to_vec());
    let mut client = TestClient::with(
        server.address,
        &Options {
            with_request: start,
            ..Options::default()
        },
    );
    assert!(client.frame().text().starts_with("{\"type\":\"initial\""));
    client.send_bytes(&end);
    assert_eq!(client.frame().text(), "{\"type\":\"pong\"}");
    // A message far larger than the buffer for heads.
    let long = format!("{{\"type\":\"ping\",\"pad\":\"{}\"}}", "x".repeat(60_000));
    let mut client = TestClient::with(
        server.address,
        &Options {
            with_request: masked(TEXT, long.as_bytes()),
            ..Options::default()
        },
    );
    client.text();
    assert_eq!(client.text(), "{\"type\":\"pong\"}");
    // A client that leaves with its first words is told so.
    let mut client = TestClient::with(
        server.address,
        &Options {
            with_request: masked(CLOSE, b"\x03\xe8"),
            ..Options::default()
        },
    );
    assert_eq!(client.until_close().map(|close| close.0), Some(1000));
}

#[test]
fn a_handshake_that_comes_byte_by_byte_works() {
    let server = TestServer::start(&[]);
    let mut socket = connect(server.address);
    socket.set_nodelay(true).unwrap();
    for byte in [proper(&[]).as_bytes(), &masked(TEXT, b"ping")].concat() {
        socket.write_all(&[byte]).unwrap();
    }
    assert!(read_head(&socket).starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_head_that_trickles_in_is_ended_at_the_same_deadline() {
    let server = TestServer::start(&[]);
    let mut socket = connect(server.address);
    socket.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    let mut answer = [0; 512];
    let len = within(DEADLINE, "the trickle is ended", || {
        // Always a little more, never the end.
        let _ = socket.write_all(b"X: y\r\n");
        match uninterrupted(|| socket.read(&mut answer)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            other => Some(other.unwrap()),
        }
    });
    assert!(
        answer[..len].starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer[..len])
    );
    assert!(begun.elapsed() > Duration::from_secs(4));
}

#[test]
fn one_client_too_many_is_told_so_and_a_place_that_is_left_is_free_again() {
    let server = TestServer::start(&["--max-clients", "3"]);
    let mut clients: Vec<TestClient> = (0..3).map(|_| server.client()).collect();
    let refused = || server.health()["connections_refused"].as_u64().unwrap();
    for _ in 0..3 {
        let before = refused();
        let answer = raw(server.address, proper(&[]).as_bytes());
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(answer.body.contains("--max-clients"), "{}", answer.body);
        assert_eq!(server.health()["connections"], 3);
        assert_eq!(refused(), before + 1);
        assert_eq!(server.health()["requests_refused"]["503"], before + 1);
        assert_eq!(server.http("GET", "/initial", &[]).status, 200);
        clients.remove(0).close();
        let client = eventually("the place is free", || {
            TestClient::try_with(server.address, &Options::default()).ok()
        });
        clients.push(client);
    }
    let mut last = clients.pop().unwrap();
    last.text();
    expect_alive(&server, &mut last, 0);
}
