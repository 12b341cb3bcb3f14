//! Guards what is answered to plain HTTP requests: the original's documents in the original's form, and the rules that
//! keep foreign web pages out.

use crate::support::http::{Answer, raw};
use crate::support::{TestServer, eventually, numbered, pause, state_change, uninterrupted};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a browser sends to become a WebSocket.
const UPGRADE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// The captured answers to requests of the original.
fn captures() -> Vec<Value> {
    let text = std::fs::read_to_string(format!("{}/tests/captures/http.jsonl", env!("CARGO_MANIFEST_DIR"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The keys of a JSON object, in the order in which they are written, with the kinds of their values.
fn shape(text: &str) -> Vec<(String, &'static str)> {
    let inner = text.strip_prefix('{').unwrap();
    let object: Value = serde_json::from_str(text).unwrap();
    let mut keys: Vec<(usize, String, &'static str)> = object
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let kind = match value {
                Value::Null => "null",
                Value::Bool(_) => "bool",
                Value::Number(number) if number.is_f64() => "float",
                Value::Number(_) => "int",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            (inner.find(&format!("\"{key}\":")).unwrap(), key.clone(), kind)
        })
        .collect();
    keys.sort();
    keys.into_iter().map(|(_, key, kind)| (key, kind)).collect()
}

/// Now, as the server's timestamps count.
fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A request with a `Host` of one's own, or none.
fn with_host(address: SocketAddr, target: &str, host: Option<&str>, headers: &[&str]) -> Answer {
    let host = host.map(|host| format!("Host: {host}"));
    let lines = host.iter().map(String::as_str).chain(headers.iter().copied());
    let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
    raw(address, format!("GET {target} HTTP/1.1\r\n{lines}\r\n").as_bytes())
}

/// The status of a request to become a WebSocket; the connection is ended as soon as it is known.
fn upgrade_status(address: SocketAddr, host: &str, origin: Option<&str>) -> (u16, String) {
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /ws/events HTTP/1.1\r\nHost: {host}\r\n{origin}{}\r\n\r\n",
        UPGRADE.join("\r\n")
    );
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; 4096];
    let mut len = 0;
    while !answer[..len].windows(4).any(|window| window == b"\r\n\r\n") {
        match uninterrupted(|| socket.read(&mut answer[len..])).unwrap() {
            0 => break,
            read => len += read,
        }
    }
    // Behind a handshake stands the first frame already.
    let mut answer = String::from_utf8_lossy(&answer[..len]).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    if status != 101 {
        socket.read_to_string(&mut answer).unwrap();
    }
    (status, answer)
}

#[test]
fn health_begins_with_the_original_five_keys_and_their_types() {
    let server = TestServer::start(&[]);
    let answer = server.http("GET", "/health", &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for capture in captures().iter().filter(|line| line["request"] == "GET /health") {
        let original = capture["body"].as_str().unwrap();
        assert_eq!(shape(&answer.body)[..5], shape(original));
        let start = "{\"status\":\"ok\",\"connections\":";
        assert!(
            original.starts_with(start) && answer.body.starts_with(start),
            "{}",
            answer.body
        );
    }
    // After an event too, and again with a client.
    let mut client = server.client();
    server.send(numbered(0, 0));
    client.text();
    let answer = server.http("GET", "/health", &[]);
    assert_eq!(shape(&answer.body)[..5], shape(captures()[0]["body"].as_str().unwrap()));
}

#[test]
fn health_counts_joined_clients_and_only_those() {
    let server = TestServer::start(&[]);
    assert_eq!(server.health()["connections"], 0);
    let silent = TcpStream::connect(server.address).unwrap();
    let first = server.client();
    assert_eq!(server.health()["connections"], 1);
    let second = server.client();
    assert_eq!(server.health()["connections"], 2);
    first.close();
    drop(second);
    eventually("both are gone", || (server.health()["connections"] == 0).then_some(()));
    drop(silent);
}

#[test]
fn last_event_time_is_the_start_then_moves_with_each_event_that_goes_out() {
    let before = epoch();
    let server = TestServer::start(&[]);
    let at_start = server.health();
    let started = at_start["last_event_time"].as_f64().unwrap();
    assert!((before - 0.01..epoch() + 0.01).contains(&started), "{started}");
    // What is dropped is no event.
    server.send("nonsense");
    eventually("it is dropped", || {
        (server.health()["events_dropped"]["not_json"] == 1).then_some(())
    });
    assert_eq!(server.health()["last_event_time"], at_start["last_event_time"]);
    let mut last = started;
    for number in 0..3 {
        let sent = epoch();
        server.send(numbered(number, 0));
        let health = eventually("the event is counted", || {
            let health = server.health();
            (health["events_forwarded"] == number + 1).then_some(health)
        });
        let time = health["last_event_time"].as_f64().unwrap();
        assert!(time > last && (sent - 0.01..epoch() + 0.01).contains(&time), "{time}");
        last = time;
    }
    // The time since then grows, and has two decimals as the original's.
    pause(Duration::from_millis(300));
    for _ in 0..20 {
        let (asked, answer) = (epoch(), server.http("GET", "/health", &[]));
        let since = answer.json()["seconds_since_last_event"].as_f64().unwrap();
        assert!((asked - last - 0.02..epoch() - last + 0.02).contains(&since), "{since}");
        let text = answer.body.split("\"seconds_since_last_event\":").nth(1).unwrap();
        let decimals = text.split(',').next().unwrap().split('.').nth(1).unwrap();
        assert!((1..=2).contains(&decimals.len()), "{}", answer.body);
    }
}

#[test]
fn unix_socket_active_tells_whether_the_path_is_ours() {
    let server = TestServer::start(&[]);
    assert_eq!(server.health()["unix_socket_active"], true);
    // The original calls an idle server's socket inactive after 10 s and a removed one active; here only the path
    // counts.
    std::fs::remove_file(server.socket_path()).unwrap();
    eventually("it is bound again", || {
        (server.socket_path().exists() && server.health()["unix_socket_active"] == true).then_some(())
    });
}

#[test]
fn the_initial_page_is_the_document_that_clients_get() {
    let server = TestServer::start(&[]);
    let without_time = |text: &str| {
        let (document, time) = text.rsplit_once(",\"timestamp\":").unwrap();
        let time: f64 = time.strip_suffix('}').unwrap().parse().unwrap();
        assert!((epoch() - 30.0..epoch() + 0.01).contains(&time), "{time}");
        document.to_owned()
    };
    for round in 0..3 {
        let page = server.http("GET", "/initial", &[]);
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some("application/json"));
        let mut client = crate::support::TestClient::connect(server.address);
        let message = client.text();
        assert_eq!(without_time(&page.body), without_time(&message));
        let capture = &captures()[if round == 0 { 2 } else { 3 }];
        assert_eq!(shape(&page.body), shape(capture["body"].as_str().unwrap()));
        assert_eq!(page.json()["machines"].as_array().unwrap().len(), round);
        let event = state_change(&format!("machine \\\"ä{round}"), "a", "b", 1.5);
        server.send(&event);
        assert_eq!(client.text().as_bytes(), event);
    }
}

#[test]
fn other_pages_and_methods_are_answered_as_by_the_original() {
    let server = TestServer::start(&[]);
    for line in captures() {
        let text = line["request"].as_str().unwrap();
        let (method, target) = text.split_once(' ').unwrap();
        let status = line["status"].as_u64().unwrap();
        // The stream without an upgrade is 404 there; here the answer says what is missing.
        if ![404, 405].contains(&status) || target.starts_with("/ws/events") {
            continue;
        }
        let answer = server.http(method, target, &[]);
        assert_eq!(u64::from(answer.status), status, "{text}");
        assert_eq!(answer.body, line["body"].as_str().unwrap(), "{text}");
    }
    for target in [
        "/",
        "/ws",
        "/ws/events/",
        "/health/",
        "/Health",
        "/docs",
        "/..",
        "//health",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = server.http(method, target, &[]);
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (404, "{\"detail\":\"Not Found\"}"),
                "{target}"
            );
            assert_eq!(answer.header("allow"), None);
        }
    }
    for target in ["/health", "/initial"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            let answer = server.http(method, target, &["Content-Length: 4"]);
            assert_eq!(answer.status, 405, "{method} {target}");
            assert_eq!(answer.body, "{\"detail\":\"Method Not Allowed\"}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
        }
        let answer = server.http("HEAD", "/drill", &[]);
        assert_eq!((answer.status, answer.body.as_str()), (405, ""));
        assert_eq!(answer.header("content-length"), Some("31"));
    }
    let answer = server.http("GET", "/health?x=1&y", &[]);
    assert_eq!(answer.status, 200, "a query is no part of the path");
}

#[test]
fn every_answer_varies_by_origin_and_names_only_origins_that_may() {
    let server = TestServer::start(&[]);
    let origin = "http://localhost:3001";
    let header = format!("Origin: {origin}");
    for (method, target) in [
        ("GET", "/health"),
        ("GET", "/initial"),
        ("GET", "/"),
        ("POST", "/health"),
    ] {
        let answer = server.http(method, target, &[]);
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert!(!answer.head.contains("access-control-"), "{}", answer.head);
        let answer = server.http(method, target, &[&header]);
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    }
    let answer = server.http("GET", "/health", &["Origin: https://evil.example"]);
    assert_eq!((answer.status, answer.header("vary")), (403, Some("Origin")));
    assert!(!answer.head.contains("access-control-"), "{}", answer.head);
    for garbage in [&b"garbage\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(raw(server.address, garbage).header("vary"), Some("Origin"));
    }
}

#[test]
fn pages_of_this_machine_and_no_others_may_read_and_stream() {
    let server = TestServer::start(&[]);
    let host = server.address.to_string();
    let own = format!("http://{host}");
    for origin in [
        None,
        Some(own.as_str()),
        Some("http://localhost:3001"),
        Some("https://localhost"),
        Some("HTTP://LOCALHOST:3001"),
        Some("http://ui.localhost:8080"),
        Some("http://127.0.0.1:1"),
        Some("http://127.9.8.7"),
        Some("http://[::1]:3001"),
    ] {
        let header = origin.map(|origin| format!("Origin: {origin}"));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        assert_eq!(server.http("GET", "/health", &headers).status, 200, "{origin:?}");
        assert_eq!(upgrade_status(server.address, &host, origin).0, 101, "{origin:?}");
    }
    for origin in [
        "https://evil.example",
        "http://evil.example:3002",
        "http://localhost.evil.example",
        "http://evil-localhost",
        "http://127.0.0.1.evil.example",
        "http://evil.example/localhost",
        "http://128.0.0.1",
        "http://[::2]",
        "http://10.0.0.1",
        "http://localhost:80@evil.example",
        "http://[::1].evil.example",
        "http://localhost:3001.evil.example",
        "null",
        "file://",
        "localhost",
        "",
    ] {
        let answer = server.http("GET", "/health", &[&format!("Origin: {origin}")]);
        assert_eq!(answer.status, 403, "{origin}: {}", answer.body);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        // A flag helps only where the page could be named by one.
        let well_formed = threadcast::process::web_origin::WebOrigin::parse(origin).is_ok();
        assert_eq!(
            detail.ends_with(&format!("--allow-origin {origin}")),
            well_formed,
            "{detail}"
        );
        assert!(detail.contains(&format!("{origin:?}")), "{detail}");
        let (status, answer) = upgrade_status(server.address, &host, Some(origin));
        assert_eq!(status, 403, "{origin}");
        assert!(answer.contains(&json!(detail).to_string()), "{answer}");
    }
    server.wait_for_line("evil.example");
    assert_eq!(server.health()["connections_refused"], 0, "these were not too many");
}

#[test]
fn allow_origin_opens_exactly_what_it_names() {
    let server = TestServer::start(&[
        "--allow-origin",
        "https://dash.example",
        "--allow-origin",
        "http://other.example:8080",
    ]);
    let host = server.address.to_string();
    for origin in [
        "https://dash.example",
        "HTTPS://Dash.Example",
        "http://other.example:8080",
        "http://localhost:1",
    ] {
        let answer = server.http("GET", "/initial", &[&format!("Origin: {origin}")]);
        assert_eq!(answer.status, 200, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(upgrade_status(server.address, &host, Some(origin)).0, 101, "{origin}");
    }
    for origin in [
        "http://dash.example",
        "https://dash.example:8443",
        "https://a.dash.example",
        "https://dash.example.evil",
        "http://other.example",
        "null",
    ] {
        let answer = server.http("GET", "/initial", &[&format!("Origin: {origin}")]);
        assert_eq!(answer.status, 403, "{origin}");
        assert_eq!(upgrade_status(server.address, &host, Some(origin)).0, 403, "{origin}");
    }
    // The name under which a proxy serves that page is a name of this machine then.
    assert_eq!(
        with_host(server.address, "/health", Some("dash.example"), &[]).status,
        200
    );
    assert_eq!(
        with_host(server.address, "/health", Some("evil.example"), &[]).status,
        403
    );
}

#[test]
fn allow_origin_star_opens_all() {
    let server = TestServer::start(&["--allow-origin", "*"]);
    for origin in ["https://any.example", "null"] {
        let answer = server.http("GET", "/health", &[&format!("Origin: {origin}")]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    }
    assert_eq!(
        with_host(server.address, "/health", Some("any.example"), &[]).status,
        200
    );
}

#[test]
fn a_name_that_was_made_to_point_here_does_not_help() {
    let server = TestServer::start(&[]);
    let port = server.address.port();
    for host in [
        format!("localhost:{port}"),
        "localhost".to_owned(),
        "LocalHost.".to_owned(),
        format!("ui.localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
    ] {
        assert_eq!(
            with_host(server.address, "/health", Some(&host), &[]).status,
            200,
            "{host}"
        );
        assert_eq!(upgrade_status(server.address, &host, None).0, 101, "{host}");
    }
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        "localhost.evil.example".to_owned(),
        "127.0.0.1.evil.example".to_owned(),
        "10.0.0.1".to_owned(),
        String::new(),
    ] {
        // Such a page's origin is the same as its host, which must not open the door.
        for origin in [None, Some(format!("http://{host}"))] {
            let header = origin.as_ref().map(|origin| format!("Origin: {origin}"));
            let headers: Vec<&str> = header.iter().map(String::as_str).collect();
            let answer = with_host(server.address, "/initial", Some(&host), &headers);
            assert_eq!(answer.status, 403, "{host}");
            assert!(
                answer.body.contains("DNS rebinding") && answer.body.contains("--allow-origin"),
                "{}",
                answer.body
            );
            assert_eq!(
                upgrade_status(server.address, &host, origin.as_deref()).0,
                403,
                "{host}"
            );
        }
    }
}

#[test]
fn a_server_on_all_addresses_may_be_called_by_its_own_names_only() {
    let server = TestServer::start(&["--host", "0.0.0.0"]);
    let port = server.address.port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let own = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    for host in [
        format!("{own}:{port}"),
        format!("192.0.2.1:{port}"),
        format!("[2001:db8::1]:{port}"),
    ] {
        let same = format!("http://{host}");
        assert_eq!(with_host(address, "/health", Some(&host), &[]).status, 200);
        assert_eq!(
            with_host(address, "/health", Some(&host), &[&format!("Origin: {same}")]).status,
            200
        );
        assert_eq!(upgrade_status(address, &host, Some(&same)).0, 101);
        assert_eq!(upgrade_status(address, &host, None).0, 101);
        let foreign = with_host(address, "/health", Some(&host), &["Origin: http://evil.example"]);
        assert_eq!(foreign.status, 403);
        let other_port = format!("http://{}:1", host.rsplit_once(':').unwrap().0);
        assert_eq!(upgrade_status(address, &host, Some(&other_port)).0, 403);
    }
    // A page whose name was made to point here.
    let host = format!("evil.example:{port}");
    let origin = format!("Origin: http://{host}");
    for target in ["/health", "/initial", "/status"] {
        for headers in [&[][..], &[&origin[..]]] {
            let answer = with_host(address, target, Some(&host), headers);
            assert_eq!(answer.status, 403, "{target}");
            assert!(
                answer.body.contains(&format!("--allow-origin http://{host}")),
                "{}",
                answer.body
            );
        }
    }
    assert_eq!(upgrade_status(address, &host, Some(&format!("http://{host}"))).0, 403);
    let forget = format!("POST /forget?machine=m HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert_eq!(raw(address, forget.as_bytes()).status, 403);
}

#[test]
fn probes_see_a_server_that_hangs_as_down_and_one_that_goes_on_as_up() {
    let server = TestServer::start(&["--allow-drill", "--hang-timeout", "1s"]);
    let probes = [
        "HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS /ws/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    let are = |up: u16, options: u16| {
        probes.iter().all(|probe| {
            let expected = if probe.starts_with("HEAD") { up } else { options };
            raw(server.address, probe.as_bytes()).status == expected
        })
    };
    assert!(are(200, 204));
    let freeze = |millis: u64| {
        let target = format!("/drill?component=fanout&ms={millis}");
        assert_eq!(server.act(&target).status, 200);
    };
    freeze(60_000);
    eventually("all probes say that it is down", || are(503, 503).then_some(()));
    let answer = raw(server.address, probes[1].as_bytes());
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(answer.json()["status"], "hung");
    let foreign = server.http("OPTIONS", "/health", &["Origin: http://evil.example"]);
    assert_eq!(foreign.status, 403);
    assert!(!foreign.head.contains("access-control-"), "{}", foreign.head);
    freeze(0);
    eventually("all probes say that it is up", || are(200, 204).then_some(()));
}

#[test]
fn a_browser_that_asks_first_may_send_a_page_s_headers_if_the_page_may_connect() {
    let server = TestServer::start(&["--allow-origin", "https://dash.example"]);
    let ask = |origin: &str| {
        let lines = [
            &format!("Origin: {origin}")[..],
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Headers: authorization,x-view",
        ];
        server.http("OPTIONS", "/initial", &lines)
    };
    for origin in ["https://dash.example", "http://localhost:3001"] {
        let answer = ask(origin);
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some("GET, HEAD, OPTIONS"))
        );
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("authorization,x-view")
        );
    }
    for origin in ["https://evil.example", "null", "https://dash.example/", "nonsense"] {
        let answer = ask(origin);
        assert_eq!(answer.status, 403, "{origin}");
        assert!(!answer.head.contains("access-control-"), "{}", answer.head);
    }
}

#[test]
fn head_says_what_get_would_and_sends_no_body() {
    let server = TestServer::start(&[]);
    for target in ["/initial", "/health", "/status", "/nothing", "/ws/events"] {
        let get = server.http("GET", target, &[]);
        let head = server.http("HEAD", target, &[]);
        assert_eq!(
            (head.status == 426, head.body.as_str()),
            (get.status == 426, ""),
            "{target}"
        );
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert!(head.header("content-length").is_some_and(|length| length != "0"));
    }
    assert_eq!(server.http("HEAD", "/health", &[]).status, 200);
}

#[test]
fn the_stream_without_an_upgrade_says_what_is_missing_and_the_lines_that_pass_it_on() {
    let server = TestServer::start(&[]);
    // What nginx sends by default, and with each one of its lines alone.
    for (head, missing) in [
        (
            "HTTP/1.0\r\nHost: localhost\r\nConnection: close",
            "HTTP/1.1 and Upgrade: websocket and Connection: Upgrade.",
        ),
        ("HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade", "HTTP/1.1."),
        (
            "HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: close",
            "Connection: Upgrade.",
        ),
        (
            "HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade",
            "Upgrade: websocket.",
        ),
    ] {
        let answer = raw(server.address, format!("GET /ws/events {head}\r\n\r\n").as_bytes());
        assert_eq!(answer.status, 426, "{head}");
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("connection"), Some("Upgrade, close"));
        assert!(
            answer.body.contains(&format!("the request lacks {missing} A proxy")),
            "{}",
            answer.body
        );
        for line in [
            "proxy_http_version 1.1;",
            "proxy_set_header Upgrade $http_upgrade;",
            "proxy_set_header Connection upgrade;",
        ] {
            assert!(answer.body.contains(line), "{}", answer.body);
        }
    }
    let line = server.wait_for_line("the request lacks Upgrade: websocket.");
    assert!(
        line.contains(" WARN ") && line.contains("⚠️ refused a client from"),
        "{line}"
    );
    assert_eq!(server.health()["requests_refused"]["426"], 4);
}

#[test]
fn nobody_acts_over_tcp_and_drills_are_only_where_allowed() {
    let server = TestServer::start(&[]);
    server.send(state_change("m", "a", "b", 1.5));
    eventually("the machine is known", || {
        (server.health()["machines"] == 1).then_some(())
    });
    for (target, command) in [
        ("/forget?machine=m", "threadcast forget NAME"),
        ("/drill?component=log&ms=1", "threadcast drill"),
        ("/diagnose", "threadcast diagnose"),
    ] {
        // From this host's own loopback, as a proxy on it sends everybody's requests.
        let answer = server.http("POST", target, &[]);
        assert_eq!(answer.status, 403, "{target}");
        assert!(
            answer.body.contains(command) && answer.body.contains("admin socket"),
            "{}",
            answer.body
        );
        for header in ["Origin: http://localhost:3001", "X-Forwarded-For: 127.0.0.1"] {
            assert_eq!(server.http("POST", target, &[header]).status, 403, "{target} {header}");
        }
        for method in ["GET", "PUT", "HEAD"] {
            let answer = server.http(method, target, &[]);
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("POST, OPTIONS")),
                "{method} {target}"
            );
        }
    }
    assert_eq!(server.health()["machines"], 1);
    let answer = server.act("/drill?component=log&ms=1");
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("--allow-drill"), "{}", answer.body);
    assert_eq!(server.act("/forget").status, 400);
    assert_eq!(server.act("/forget?machine=x").status, 404);
    let answer = server.act("/forget?machine=m");
    assert_eq!((answer.status, answer.json()), (200, json!({"forgotten": true})));
    assert_eq!(server.health()["machines"], 0);
}

#[test]
fn drills_obey_only_known_components() {
    let server = TestServer::start(&["--allow-drill"]);
    for target in [
        "/drill",
        "/drill?component=log",
        "/drill?component=log&ms=x",
        "/drill?ms=1",
    ] {
        assert_eq!(server.act(target).status, 400, "{target}");
    }
    let answer = server.act("/drill?component=nobody&ms=1");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("fanout"), "it says what there is: {}", answer.body);
    assert_eq!(server.act("/drill?component=log&ms=1").status, 200);
}

#[test]
fn a_connection_is_for_one_request_and_says_so() {
    let server = TestServer::start(&[]);
    let head = format!("Host: {}\r\nConnection: keep-alive\r\n", server.address);
    let answer = raw(server.address, format!("GET /health HTTP/1.1\r\n{head}\r\n").as_bytes());
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // Two at once: the first is answered, the second is not, and above all not taken for something else.
    let two = format!("GET /initial HTTP/1.1\r\n{head}\r\nPOST /forget?machine=m HTTP/1.1\r\n{head}\r\n");
    server.send(state_change("m", "a", "b", 1.5));
    eventually("the machine is known", || {
        (server.health()["machines"] == 1).then_some(())
    });
    let answer = raw(server.address, two.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-length"),
        Some(answer.body.len().to_string().as_str())
    );
    assert_eq!(answer.json()["type"], "initial");
    assert_eq!(server.health()["machines"], 1);
    // A body is not read as a request either.
    let body = format!("POST /forget?machine=m HTTP/1.1\r\n{head}\r\n");
    let outer = format!(
        "POST /health HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(raw(server.address, outer.as_bytes()).status, 405);
    assert_eq!(server.health()["machines"], 1);
}

#[test]
fn old_clients_are_answered_too() {
    let server = TestServer::start(&[]);
    for request in [
        "GET /health HTTP/1.0\r\n\r\n",
        "GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n",
    ] {
        let answer = raw(server.address, request.as_bytes());
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["status"], "ok");
    }
    let answer = raw(server.address, b"GET /health HTTP/1.0\r\nHost: evil.example\r\n\r\n");
    assert_eq!(answer.status, 403);
    let upgrade = format!(
        "GET /ws/events HTTP/1.0\r\nHost: localhost\r\n{}\r\n\r\n",
        UPGRADE.join("\r\n")
    );
    assert_eq!(raw(server.address, upgrade.as_bytes()).status, 426);
}

#[test]
fn a_slow_reader_gets_the_whole_answer() {
    let server = TestServer::start(&[]);
    let sender = server.sender();
    let count = 4_000;
    for number in 0..count {
        let name = format!("a-machine-with-a-long-name-that-takes-room-{number}");
        sender.send(&state_change(&name, "a", "b", 1.5)).unwrap();
    }
    eventually("all machines are known", || {
        (server.health()["machines"] == count).then_some(())
    });
    let socket: TcpStream = {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        connect(&socket, &server.address).unwrap();
        socket.into()
    };
    socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    let request = format!("GET /initial HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    (&socket).write_all(request.as_bytes()).unwrap();
    // Slowness is the subject: nothing is read for a second, when the answer is far larger than all buffers.
    pause(Duration::from_secs(1));
    let mut answer = Vec::new();
    (&socket).take(100_000).read_to_end(&mut answer).unwrap();
    pause(Duration::from_secs(1));
    (&socket).read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(body.len() > 700_000);
    let document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["machines"].as_array().unwrap().len(), count);
}
