//! Guards what becomes of every datagram, however odd: it goes out with its exact bytes, or it is dropped, counted by
//! cause and told in the log; and no engine can blow up the server.

use crate::support::{Sender, TestClient, TestServer, eventually, in_both_shapes, numbered, state_change};
use rustix::net::sockopt;
use serde_json::Value;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What is to become of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Forwarded,
    /// Dropped and counted under this name.
    Dropped(&'static str),
}
use Fate::{Dropped, Forwarded};

/// The lines of a capture.
fn capture(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The counts of dropped events.
fn dropped(server: &TestServer) -> Value {
    server.health()["events_dropped"].take()
}

/// A valid event of exactly `len` bytes.
fn sized(len: usize) -> Vec<u8> {
    let event = numbered(0, len);
    assert_eq!(event.len(), len);
    event
}

/// A sender that may send more than the usual 208 KiB at once.
fn strong_sender(server: &TestServer) -> Sender {
    let sender = server.sender();
    // What every Linux grants; the kernel doubles it.
    sockopt::set_socket_send_buffer_size(&*sender, 212_992).unwrap();
    sender
}

/// Clients that watch while odd datagrams come.
const WATCHERS: usize = 10;

/// Sends each datagram and checks its fate: in the counters of `/health`, in the log, and with the clients that watch.
fn check_fates(server: &TestServer, rows: &[(&str, Vec<u8>, Fate)]) {
    let mut watchers: Vec<TestClient> = (0..WATCHERS).map(|_| server.client()).collect();
    let sender = strong_sender(server);
    for (index, (what, datagram, fate)) in rows.iter().enumerate() {
        let before = dropped(server);
        let lines = server.lines().with("dropped an event").len();
        sender.send(datagram).unwrap_or_else(|error| panic!("{what}: {error}"));
        let marker = numbered(index, 0);
        sender.send(&marker).unwrap();
        for client in &mut watchers {
            let first = client.text();
            match fate {
                Forwarded => {
                    assert!(first.as_bytes() == datagram, "{what}: {first:.200}");
                    assert_eq!(client.text().as_bytes(), marker, "{what} came twice");
                }
                Dropped(_) => assert!(first.as_bytes() == marker, "{what} reached a client: {first:.200}"),
            }
        }
        let mut expected = before.clone();
        if let Dropped(cause) = fate {
            expected[cause] = (before[cause].as_u64().unwrap() + 1).into();
        }
        assert_eq!(dropped(server), expected, "{what}");
        // An empty datagram is ignored, as by the original; of the others a limited number is told per time.
        if let Dropped(cause) = fate
            && *cause != "empty"
            && lines < 19
        {
            let line = eventually("the log tells of it", || {
                let told = server.lines().with("dropped an event");
                (told.len() > lines).then(|| told.last().cloned().unwrap())
            });
            assert!(line.contains("WARN") && line.contains("it begins "), "{line}");
        }
    }
}

#[test]
fn every_odd_datagram_goes_out_whole_or_is_dropped_for_a_counted_cause() {
    let text = |text: &str| text.as_bytes().to_vec();
    let deep = format!("{{\"deep\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let open = "[".repeat(100_000);
    let rows: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("plain text", text("hello"), Dropped("not_json")),
        (
            "cut JSON",
            text("{\"type\":\"state_change\",\"machine_na"),
            Dropped("not_json"),
        ),
        ("a comma too many", text("{\"a\":1,}"), Dropped("not_json")),
        ("a missing end", text("{\"a\":{}"), Dropped("not_json")),
        ("Python's own spelling", text("{'type': 'x'}"), Dropped("not_json")),
        (
            "two documents",
            text("{\"type\":\"a\"}{\"type\":\"b\"}"),
            Dropped("not_json"),
        ),
        (
            "two documents in lines",
            text("{\"type\":\"a\"}\n{\"type\":\"b\"}"),
            Dropped("not_json"),
        ),
        ("NaN", text("{\"v\":NaN}"), Dropped("not_json")),
        ("Infinity", text("{\"payload\":{\"v\":-Infinity}}"), Dropped("not_json")),
        (
            "a byte order mark",
            text("\u{feff}{\"type\":\"x\"}"),
            Dropped("not_json"),
        ),
        (
            "a raw control character",
            text("{\"v\":\"a\u{1}b\"}"),
            Dropped("not_json"),
        ),
        ("a raw zero byte", text("{\"v\":\"a\0b\"}"), Dropped("not_json")),
        ("zero bytes behind", text("{}\0\0"), Dropped("not_json")),
        ("only space", text(" \n"), Dropped("not_json")),
        ("deep and cut", text(&open), Dropped("not_json")),
        ("an array", text("[1,2,3]"), Dropped("not_an_object")),
        ("a number", text("42"), Dropped("not_an_object")),
        ("null", text("null"), Dropped("not_an_object")),
        ("a string", text("\"initial\""), Dropped("not_an_object")),
    ];
    let more: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("true", text("true"), Dropped("not_an_object")),
        (
            "bytes that are not UTF-8",
            b"{\"v\":\"\xff\xfe\"}".to_vec(),
            Dropped("not_utf8"),
        ),
        (
            "a surrogate in UTF-8",
            b"{\"v\":\"\xed\xa0\xbd\"}".to_vec(),
            Dropped("not_utf8"),
        ),
        ("a cut character", b"{\"v\":\"\xe2\x9c".to_vec(), Dropped("not_utf8")),
        ("nothing", Vec::new(), Dropped("empty")),
        (
            "a forged initial",
            text("{\"type\":\"initial\",\"machines\":[]}"),
            Dropped("reserved_type"),
        ),
        (
            "a forged ping",
            text("{\"type\":\"ping\",\"timestamp\":1}"),
            Dropped("reserved_type"),
        ),
        ("a forged pong", text("{\"type\":\"pong\"}"), Dropped("reserved_type")),
        (
            "an escaped type",
            text("{\"type\":\"in\\u0069tial\"}"),
            Dropped("reserved_type"),
        ),
        (
            "an escaped key",
            text("{\"ty\\u0070e\":\"initial\"}"),
            Dropped("reserved_type"),
        ),
        (
            "the last of two types",
            text("{\"type\":\"x\",\"type\":\"initial\"}"),
            Dropped("reserved_type"),
        ),
        (
            "an older engine's type",
            text("{\"event_type\":\"initial\"}"),
            Dropped("reserved_type"),
        ),
        (
            "one that is over the limit",
            sized(256 * 1024 + 1),
            Dropped("too_large"),
        ),
        ("one that is far over the limit", sized(300_000), Dropped("too_large")),
        ("one of the limit", sized(256 * 1024), Forwarded),
        ("4,096 bytes", sized(4_096), Forwarded),
        ("4,097 bytes", sized(4_097), Forwarded),
        ("100,000 bytes", sized(100_000), Forwarded),
        ("200,000 bytes", sized(200_000), Forwarded),
        ("an empty object", text("{}"), Forwarded),
        (
            "the first of two types",
            text("{\"type\":\"initial\",\"type\":\"x\"}"),
            Forwarded,
        ),
        ("an inner type", text("{\"payload\":{\"type\":\"initial\"}}"), Forwarded),
        ("a type in capitals", text("{\"type\":\"Initial\"}"), Forwarded),
        ("a type that is no string", text("{\"type\":[\"initial\"]}"), Forwarded),
        (
            "a type before the other dialect's",
            text("{\"type\":\"x\",\"event_type\":\"ping\"}"),
            Forwarded,
        ),
        (
            "half a surrogate pair",
            text("{\"payload\":{\"message\":\"\\ud83d\"}}"),
            Forwarded,
        ),
        (
            "half a pair as type and name",
            text("{\"type\":\"\\ud83d\",\"machine_name\":\"\\udc00\"}"),
            Dropped("not_unicode"),
        ),
        (
            "half a pair in names that do not count",
            text(
                "{\"type\":\"t\",\"event_type\":\"\\ud83d\",\"machine_name\":\"m\",\"machine_id\":\"\\ud83d\",\
                 \"payload\":{\"machine_name\":\"\\ud83d\",\"current_state\":\"\\ud83d\"}}",
            ),
            Forwarded,
        ),
        (
            "half a pair in the first name that is a string",
            text("{\"machine_name\":null,\"machine_id\":\"\\ud83d\",\"payload\":{\"machine_name\":\"m\"}}"),
            Dropped("not_unicode"),
        ),
        ("half a pair as key", text("{\"\\ud83d\":1}"), Forwarded),
        (
            "a raw line end in a key",
            text("{\"payload\":{\"a\nb\":1}}"),
            Dropped("not_json"),
        ),
        (
            "a raw control character in a key",
            text("{\"a\u{1}b\":1}"),
            Dropped("not_json"),
        ),
        (
            "an escaped zero byte",
            text("{\"machine_name\":\"a\\u0000b\",\"type\":\"x\"}"),
            Forwarded,
        ),
        ("a line end behind", text("{\"type\":\"nl\"}\n"), Forwarded),
        (
            "space around",
            text(" \t\r\n{ \"type\" :  \"x\" ,  \"n\" : 1.0e3 } "),
            Forwarded,
        ),
        (
            "numbers that nothing holds",
            text("{\"n\":1e999,\"m\":-0,\"o\":1234567890123456789012345}"),
            Forwarded,
        ),
        ("raw UTF-8", text("{\"message\":\"päivää ✓ 📥\"}"), Forwarded),
        ("great depth", text(&deep), Forwarded),
        (
            "a payload that is none",
            text("{\"type\":\"state_change\",\"machine_name\":\"m\",\"payload\":7}"),
            Forwarded,
        ),
    ];
    in_both_shapes(|delivery| {
        // Two servers, so that every dropped one finds its line within what may be told.
        for rows in [&rows, &more] {
            let server = TestServer::start(&["--delivery", delivery]);
            check_fates(&server, rows);
            assert_eq!(server.health()["status"], "ok");
        }
    });
}

#[test]
fn a_limit_of_ones_own_is_kept_to_the_byte() {
    let server = TestServer::start(&["--max-event-bytes", "8KiB"]);
    check_fates(
        &server,
        &[
            ("the limit", sized(8_192), Forwarded),
            ("one more", sized(8_193), Dropped("too_large")),
            ("far more", sized(200_000), Dropped("too_large")),
            ("little", sized(100), Forwarded),
        ],
    );
}

#[test]
fn the_captured_odd_inputs_fare_as_the_contract_says() {
    // By the case's name: what a replacement does (contract section 2.2), where it is not forwarded.
    let fate = |case: &str| match case {
        "truncated json" | "plain text" | "json NaN value" | "NUL inside string" | "utf-8 BOM" | "two documents" => {
            Dropped("not_json")
        }
        "json array" | "json number" | "json null" => Dropped("not_an_object"),
        "non-utf8" => Dropped("not_utf8"),
        "empty datagram" => Dropped("empty"),
        "forged ping" | "forged initial" => Dropped("reserved_type"),
        _ => Forwarded,
    };
    let lines = capture("odd-inputs.jsonl");
    let mut rows = Vec::new();
    for line in &lines {
        let case = line["case"].as_str().unwrap();
        let bytes = match (&line["sent"], &line["sent_b64"]) {
            (Value::String(text), _) => text.as_bytes().to_vec(),
            (_, Value::String(_)) => b"{\"type\":\"x\",\"v\":\"\xff\xfe\"}".to_vec(),
            // The long ones are told by their length alone.
            _ => sized(line["sent_len"].as_u64().unwrap() as usize),
        };
        assert_eq!(bytes.len() as u64, line["sent_len"], "{case}");
        // Whatever parses and was passed on by the original is passed on, but for what only a server may say.
        if fate(case) == Forwarded {
            assert!(
                line["sent_len"].as_u64() > Some(4096) || line["got_parses_strict"] == true,
                "{case}"
            );
        }
        rows.push((case, bytes, fate(case)));
    }
    assert_eq!(rows.len(), 28);
    let server = TestServer::start(&[]);
    check_fates(&server, &rows);
}

#[test]
fn a_datagram_that_its_sender_cannot_send_is_no_loss_of_ours() {
    // The original's engines send with the kernel's default buffer, which refuses this length (contract section 2.1).
    let server = TestServer::start(&[]);
    let error = server.sender().send(&sized(220_000)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(90), "EMSGSIZE");
    assert_eq!(server.health()["events_received"], 0);
}

#[test]
fn a_rush_of_nonsense_is_told_in_few_lines_and_counted_to_the_last() {
    let server = TestServer::start(&[]);
    let begun = Instant::now();
    let mut client = server.client();
    let sender = server.sender();
    for _ in 0..5_000 {
        sender.send(b"nonsense\n\x1b[31m").unwrap();
    }
    sender.send(&numbered(0, 0)).unwrap();
    client.expect_numbers(0..1);
    assert_eq!(dropped(&server)["not_json"], 5_000);
    let health = server.health();
    assert_eq!(
        (&health["events_received"], &health["events_forwarded"]),
        (&5_001.into(), &1.into())
    );
    let lines = server.lines().with("dropped an event");
    // Twenty per window of ten seconds, and one that tells of the rest; a loaded machine needs more than one window.
    let windows = begun.elapsed().as_secs() as usize / 10 + 2;
    assert!((1..=windows * 21).contains(&lines.len()), "{} lines", lines.len());
    assert!(
        lines.iter().all(|line| !line.contains('\u{1b}')),
        "control characters are made visible: {}",
        lines[0]
    );
    let mut server = server;
    server.stop();
    server.wait_for_line("more lines like “⚠️ dropped an event: not one JSON document");
}

#[test]
fn names_of_any_kind_reach_clients_as_they_are_and_the_snapshot_as_json() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let long = "n".repeat(10_000);
    let mut names = vec![
        long.as_str(),
        "<img src=x onerror=alert(1)>",
        "&amp;</script><script>",
        "a\\u0000b\\n\\\"c\\\\",
        "päivää ✓ 📥",
        "\\ud83d\\udce5",
        "",
        " ",
        "../../etc/passwd",
        "{\\\"type\\\":\\\"initial\\\"}",
        "%s%n",
        "\u{202e}gnp",
    ];
    for name in &names {
        let event = state_change(name, "a", "b", 1.5);
        server.send(&event);
        assert!(client.text().as_bytes() == event, "{name}");
    }
    let initial = server.initial();
    let rows = initial["machines"].as_array().unwrap();
    let mut found: Vec<&str> = rows.iter().map(|row| row["machine_name"].as_str().unwrap()).collect();
    let decoded: Vec<String> = names
        .drain(..)
        .map(|name| serde_json::from_str(&format!("\"{name}\"")).unwrap())
        .collect();
    let mut decoded: Vec<&str> = decoded.iter().map(String::as_str).collect();
    assert!(found.is_sorted(), "names come in binary order");
    found.sort_unstable();
    decoded.sort_unstable();
    assert_eq!(found, decoded);
    assert!(
        rows.iter()
            .all(|row| row["id"] == row["machine_name"] && row["current_state"] == "b")
    );
    client.send_text("refresh");
    assert_eq!(client.json()["machines"], initial["machines"]);
}

#[test]
fn a_name_too_large_for_a_row_is_forwarded_and_said_but_not_tabled() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    for name in ["n".repeat(100_000), "\\u0001".repeat(17_000)] {
        let event = state_change(&name, "a", "b", 1.5);
        server.send(&event);
        assert!(client.text().as_bytes() == event);
        server.wait_for_line("too large for the table");
    }
    assert_eq!(server.health()["machines"], 0);
}

#[test]
fn a_flood_of_long_names_takes_no_memory_to_speak_of() {
    let server = TestServer::start(&["--history-bytes", "0"]);
    let mut client = server.client();
    let sender = server.sender();
    let filler = "n".repeat(100_000);
    let before = server.resident_bytes();
    let mut most = 0;
    for number in 0..1_500 {
        let event = state_change(&format!("{filler}{number}"), "a", "b", 1.5);
        sender.send(&event).unwrap();
        assert_eq!(client.text().len(), event.len());
        most = most.max(server.resident_bytes());
    }
    let growth = most.saturating_sub(before);
    assert!(growth < 48 * 1024 * 1024, "{growth} bytes more");
    assert_eq!(server.health()["machines"], 0);
}

/// The text with every number that is a time replaced, and the keys that only this server adds taken out.
fn form(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\"timestamp\":").or_else(|| rest.find("\"last_activity\":")) {
        let first = rest.find("\"last_activity\":").map_or(at, |other| at.min(other));
        let value = first + rest[first..].find(':').unwrap() + 1;
        out.push_str(&rest[..value]);
        out.push('T');
        let end = rest[value..].find([',', '}']).unwrap();
        assert!(rest[value..value + end].parse::<f64>().is_ok(), "{rest:.80}");
        rest = &rest[value + end..];
    }
    out.push_str(rest);
    out
}

#[test]
fn the_captured_conversation_is_held_again_word_for_word() {
    // The client of the capture sees the same here, message by message, but for times and for the answers to object
    // forms, which the contract adds.
    let server = TestServer::start(&["--ping-interval", "3000s", "--pong-timeout", "3600s"]);
    let sender = server.sender();
    let mut client = TestClient::connect(server.address);
    let mut pings = Vec::new();
    for line in capture("ws-client.jsonl") {
        let text = line["text"].as_str().unwrap_or_default();
        match line["dir"].as_str().unwrap() {
            "open" => assert_eq!(line["status"], 101),
            "client->server" => {
                client.send_text(text);
                match text {
                    "{\"type\":\"ping\"}" => assert_eq!(client.text(), "{\"type\":\"pong\"}"),
                    "{\"type\":\"refresh\"}" => assert_eq!(client.json()["type"], "initial"),
                    _ => {}
                }
            }
            _ if text.starts_with("{\"type\":\"ping\"") => pings.push(form(text)),
            _ if text.starts_with("{\"type\":") => {
                let mut got = form(&client.text());
                // Rows carry `id` besides; it is last, so that what comes before is the original's row.
                for name in ["capture_worker", "simple_worker"] {
                    got = got.replace(&format!(",\"id\":\"{name}\"}}"), "}");
                }
                assert_eq!(got, form(text));
            }
            _ => {
                sender.send(text.as_bytes()).unwrap();
                assert_eq!(client.text(), text);
            }
        }
    }
    assert_eq!(pings.len(), 4);
    // The pings' form, from a server that has not to be waited for.
    let server = TestServer::start(&["--ping-interval", "50ms"]);
    let mut client = server.client();
    let frame = client.frame();
    assert!(pings.iter().all(|ping| *ping == form(frame.text())), "{}", frame.text());
    let time = frame
        .text()
        .rsplit(':')
        .next()
        .unwrap()
        .trim_end_matches('}')
        .parse::<f64>();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(
        (now - 120.0..now + 0.1).contains(&time.unwrap()),
        "seconds since the epoch"
    );
}
