//! docs/protocol.md says what the server does: every example is replayed against a real one, and what a server sends
//! that the page does not show is a fault of the page.

use crate::notices::v1_options;
use crate::support::client::{Options, TEXT};
use crate::support::examples::{Page, is_like, kind, parts};
use crate::support::http::raw;
use crate::support::{DEADLINE, TestClient, TestServer, eventually, numbered, pause, state_change};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use threadcast::journal::line::{DAMAGED, FAILED, QUEUE_FULL, REMOVED, RESTART};
use threadcast::stream::event::DropCause;
use threadcast::stream::protocol::EndReason;
use threadcast::stream::protocol::v1::{CAUSE_EPOCH, CAUSE_HISTORY};

/// All that clients of both protocols got in the situations below: a list per connection.
type Seen = Vec<(&'static str, Vec<String>)>;

/// A client that writes down what it gets.
struct Reader {
    client: TestClient,
    protocol: &'static str,
    got: Vec<String>,
}

impl Reader {
    #[track_caller]
    fn join(server: &TestServer, protocol: &'static str, query: &str) -> Reader {
        let target = format!("/ws/events{query}");
        let options = match protocol {
            "v1" => v1_options(&target),
            _ => Options {
                target,
                ..Options::default()
            },
        };
        Reader::with(server, protocol, &options)
    }

    #[track_caller]
    fn with(server: &TestServer, protocol: &'static str, options: &Options) -> Reader {
        Reader {
            client: TestClient::with(server.address, options),
            protocol,
            got: Vec::new(),
        }
    }

    /// Reads to the next message of this kind.
    #[track_caller]
    fn until(&mut self, wanted: &str) -> Value {
        loop {
            let frame = self.client.frame();
            if frame.opcode != TEXT {
                continue;
            }
            let text = frame.text().to_owned();
            let found = kind(self.protocol, &text) == wanted;
            self.got.push(text);
            if found {
                return serde_json::from_str(self.got.last().unwrap()).unwrap();
            }
        }
    }

    fn done(self, seen: &mut Seen) {
        seen.push((self.protocol, self.got));
    }
}

/// The captured event that the page shows.
fn event(page: &Page) -> String {
    let mut events = page
        .messages("plain", "server")
        .filter(|text| kind("plain", text) == "event");
    events.next().unwrap().to_owned()
}

/// Makes the machines that the page's snapshots show.
#[track_caller]
fn make_machines(server: &TestServer) {
    server.send(
        r#"{"machine_name": "capture_worker", "type": "machine_registered", "payload": {"machine_name": "capture_worker", "config_type": "cap_worker", "current_state": "initializing", "timestamp": 1795393481.6718001}}"#,
    );
    server.send(state_change(
        "simple_worker",
        "initializing",
        "waiting",
        1_795_393_481.5,
    ));
    eventually("the machines are known", || {
        (server.health()["machines"] == 2).then_some(())
    });
}

/// Sends what the page says that a client may send, and checks the answer to each.
fn speak(page: &Page, reader: &mut Reader) {
    for text in page.messages(reader.protocol, "client") {
        reader.client.send_text(text);
        let asked: Value = serde_json::from_str(text).unwrap_or_else(|_| json!({ "type": text }));
        let is_list = |key: &str| asked[key].is_null() || asked[key].as_array().is_some_and(|list| !list.is_empty());
        match asked["type"].as_str().unwrap() {
            "ping" => drop(reader.until("pong")),
            "refresh" => drop(reader.until("initial")),
            // Without an answer: the next one is that to something else.
            "pong" => {
                let before = reader.got.len();
                reader.client.send_text("ping");
                reader.until("pong");
                let others = reader.got[before..]
                    .iter()
                    .filter(|text| kind(reader.protocol, text) != "ping");
                assert_eq!(others.count(), 1, "{:?}", &reader.got[before..]);
            }
            "subscribe" if is_list("machines") && is_list("types") => {
                let answer = reader.until("subscribed");
                for key in ["machines", "types", "conflate"] {
                    assert_eq!(answer[key], asked[key], "{text}");
                }
                reader.until("initial");
            }
            "subscribe" => drop(reader.until("error")),
            other => panic!("nobody knows what answers {other}"),
        }
    }
}

/// Joining, events, pings, and what a client may say.
fn everyday(page: &Page, seen: &mut Seen) {
    let server = TestServer::start(&["--ping-interval", "300ms"]);
    make_machines(&server);
    for protocol in ["plain", "v1"] {
        let mut reader = Reader::join(&server, protocol, "");
        reader.until("initial");
        server.send(event(page));
        server.send("{}");
        reader.until("event");
        reader.until("event");
        // What is asked of a ping is its number; one that comes while events wait has none.
        while reader.until("ping")["seq"].is_null() && protocol == "v1" {}
        speak(page, &mut reader);
        reader.done(seen);
    }
}

/// Losses, and a client that comes back, with and without a position that the server knows.
fn losses_and_resuming(page: &Page, seen: &mut Seen) {
    let server = TestServer::start(&["--max-event-bytes", "1KiB"]);
    make_machines(&server);
    let mut witness = Reader::join(&server, "v1", "");
    let hello = witness.until("hello");
    witness.until("initial");
    let too_large = vec![b' '; 2000];
    for datagram in [event(page).as_bytes(), &too_large, b"{}"] {
        server.send(datagram);
    }
    while witness.until("event")["event"] != json!({}) {}
    let position = format!("{}:{}", hello["epoch"].as_str().unwrap(), hello["seq"]);
    for protocol in ["v1", "plain"] {
        let mut reader = Reader::join(&server, protocol, &format!("?since={position}"));
        if protocol == "v1" {
            reader.until("live");
        } else {
            reader.until("event");
            reader.until("event");
            assert_eq!(
                reader.got,
                [&event(page)[..], "{}"],
                "no initial, and nothing but events"
            );
        }
        reader.done(seen);
    }
    let mut latecomer = Reader::join(&server, "v1", "?last=1");
    latecomer.until("live");
    latecomer.done(seen);
    let losses: [(&[u8], DropCause); 5] = [
        (&too_large, DropCause::TooLarge),
        (b"\xff", DropCause::NotUtf8),
        (b"hello", DropCause::NotJson),
        (b"[]", DropCause::NotAnObject),
        (br#"{"type":"pong"}"#, DropCause::ReservedType),
    ];
    for (datagram, cause) in losses {
        server.send(datagram);
        assert_eq!(witness.until("gap")["cause"], cause.name());
    }
    witness.done(seen);
    let (request, _) = &page.exchanges[0];
    let query = request.split(' ').nth(1).unwrap().strip_prefix("/ws/events").unwrap();
    let mut stranger = Reader::join(&server, "v1", query);
    stranger.until("initial");
    stranger.done(seen);
}

/// A client that comes back too late.
fn history_gone(seen: &mut Seen) {
    let server = TestServer::start(&["--history-bytes", "16KiB"]);
    make_machines(&server);
    let epoch = Reader::join(&server, "v1", "").until("hello")["epoch"].clone();
    for number in 0..100 {
        server.send(numbered(number, 1000));
    }
    eventually("all are numbered", || {
        (server.health()["events_forwarded"] == 102).then_some(())
    });
    // It has made a third machine, which the page's snapshots do not need.
    let query = format!(
        "?machine=capture_worker,simple_worker&since={}:1",
        epoch.as_str().unwrap()
    );
    for protocol in ["v1", "plain"] {
        let mut reader = Reader::join(&server, protocol, &query);
        reader.until(if protocol == "v1" { "live" } else { "initial" });
        reader.done(seen);
    }
}

/// A table that is too large for one message.
fn large_table(seen: &mut Seen) {
    let server = TestServer::start(&[]);
    make_machines(&server);
    let state = "s".repeat(15_000);
    for number in 0..80 {
        server.send(state_change(&format!("z{number}"), "a", &state, 1_795_393_481.5));
    }
    eventually("the machines are known", || {
        (server.health()["machines"] == 82).then_some(())
    });
    let mut reader = Reader::join(&server, "plain", "");
    let initial = reader.until("initial");
    assert!(
        initial["machines_left_out"].as_u64().unwrap() > 2,
        "the oldest at least"
    );
    reader.done(seen);
    let mut reader = Reader::join(&server, "v1", "?machine=z*");
    let parts = |initial: &Value| ["part", "parts"].map(|key| initial[key].as_u64().unwrap());
    while let [part, parts] = parts(&reader.until("initial"))
        && part < parts
    {}
    reader.done(seen);
}

/// A client that comes back after a server with a journal was killed.
fn killed_with_journal(page: &Page, seen: &mut Seen) {
    let flags = ["--journal", "journal"];
    let mut server = TestServer::start(&flags);
    let mut reader = Reader::join(&server, "v1", "");
    let hello = reader.until("hello");
    reader.until("initial");
    server.send(event(page));
    reader.until("event");
    reader.done(seen);
    eventually("the event is journaled", || {
        let files = std::fs::read_dir(server.path("journal")).ok()?;
        let mut texts = files
            .flatten()
            .filter_map(|file| std::fs::read_to_string(file.path()).ok());
        texts.any(|text| text.contains("to_state")).then_some(())
    });
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let server = TestServer::start_in(server.folder(), &flags);
    let since = format!("?since={}:{}", hello["epoch"].as_str().unwrap(), hello["seq"]);
    let mut reader = Reader::join(&server, "v1", &since);
    reader.until("event");
    assert_eq!(reader.until("gap")["cause"], "restart");
    reader.until("live");
    reader.done(seen);
}

/// A client that wants at most one state per machine and period.
fn conflating(page: &Page, seen: &mut Seen) {
    let server = TestServer::start(&[]);
    make_machines(&server);
    let mut reader = Reader::join(&server, "v1", "?conflate=300ms");
    reader.until("initial");
    for _ in 0..3 {
        server.send(event(page));
    }
    reader.until("conflated");
    reader.until("event");
    reader.done(seen);
}

/// A client that stops reading, and then goes on.
fn falling_behind(seen: &mut Seen) {
    let flags = ["--client-queue-bytes", "256KiB", "--send-timeout", "60s"];
    let server = TestServer::start(&[&flags[..], &["--ping-interval", "100ms"]].concat());
    make_machines(&server);
    let options = Options {
        receive_buffer: Some(4096),
        ..v1_options("/ws/events")
    };
    let mut reader = Reader::with(&server, "v1", &options);
    reader.until("initial");
    let sender = server.sender();
    for number in 0..4000 {
        sender.send(&numbered(number, 1000)).unwrap();
    }
    server.wait_for_line("is behind after event");
    // What it gets next is to be so old, and a ping is to be due before it has everything.
    pause(Duration::from_millis(400));
    reader.until("live");
    let events = reader.got.iter().filter(|text| kind("v1", text) == "event");
    assert!(events.count() <= 4000);
    reader.done(seen);
}

/// A component hangs, and goes on.
fn hang(page: &Page, seen: &mut Seen) {
    let server = TestServer::start(&["--allow-drill", "--hang-timeout", "1s"]);
    let freeze = |millis: u64| {
        let target = format!("/drill?component=fanout&ms={millis}");
        assert_eq!(server.act(&target).status, 200);
    };
    let mut reader = Reader::join(&server, "v1", "");
    reader.until("hello");
    freeze(60_000);
    reader.until("stall");
    expect_refusal(&server, page, "a server whose fan-out hangs", &proper(&[]));
    freeze(0);
    reader.until("recovered");
    reader.done(seen);
}

/// A proper request to become a WebSocket, with these lines instead of those of the same name.
fn proper(instead: &[&str]) -> String {
    let mut lines = vec![
        "GET /ws/events HTTP/1.1".to_owned(),
        "Host: localhost:3002".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Connection: Upgrade".to_owned(),
        "Sec-WebSocket-Version: 13".to_owned(),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
    ];
    for line in instead {
        match line.split_once(": ") {
            Some((name, _)) => {
                lines.retain(|line| line.split_once(": ").is_none_or(|known| known.0 != name));
                lines.push((*line).to_owned());
            }
            None => lines[0] = format!("{line} HTTP/1.1"),
        }
    }
    format!("{}\r\n\r\n", lines.join("\r\n"))
}

/// The page's row for this reason is what `request` is answered with.
#[track_caller]
fn expect_refusal(server: &TestServer, page: &Page, what: &str, request: &str) {
    let rows = page.table("| request has | status | detail |");
    let row = rows.iter().find(|row| row[0] == what).unwrap();
    let answer = raw(server.address, request.as_bytes());
    assert_eq!(answer.status.to_string(), row[1], "{what}: {}", answer.body);
    assert_eq!(answer.json(), json!({ "detail": row[2] }), "{what}");
    assert_eq!(answer.header("retry-after"), (row[1] == "503").then_some("5"), "{what}");
}

#[test]
fn every_example_of_a_message_is_what_a_server_sends_and_no_other_message_is_sent() {
    let page = Page::read();
    let mut seen = Seen::new();
    everyday(&page, &mut seen);
    losses_and_resuming(&page, &mut seen);
    large_table(&mut seen);
    history_gone(&mut seen);
    killed_with_journal(&page, &mut seen);
    conflating(&page, &mut seen);
    falling_behind(&mut seen);
    hang(&page, &mut seen);
    for block in page.blocks.iter().filter(|block| block.sender == "server") {
        let of_protocol = seen.iter().filter(|(protocol, _)| *protocol == block.protocol);
        let met = of_protocol.clone().any(|(protocol, got)| {
            // Pings and the like come in between at any time, unless the example is one.
            let kinds: Vec<String> = block.messages.iter().map(|text| kind(protocol, text)).collect();
            let at_any_time = |text: &&String| matches!(&kind(protocol, text)[..], "ping" | "pong" | "lag");
            let got: Vec<&String> = got
                .iter()
                .filter(|text| !at_any_time(text) || kinds.contains(&kind(protocol, text)))
                .collect();
            got.windows(block.messages.len()).any(|window| {
                let mut pairs = block.messages.iter().zip(window);
                pairs.all(|(example, text)| is_like(protocol, example, text))
            })
        });
        assert!(
            met,
            "no server sent this: {:#?}\n{:#?}",
            block.messages,
            near(of_protocol, &block.messages[0])
        );
    }
    for (protocol, got) in &seen {
        got.iter().for_each(|text| expect_documented(&page, protocol, text));
    }
}

/// What was seen of the same kind as an example that was not met.
fn near<'a>(seen: impl Iterator<Item = &'a (&'static str, Vec<String>)>, example: &str) -> Vec<&'a str> {
    let texts = seen.flat_map(|(protocol, got)| got.iter().map(move |text| (*protocol, text)));
    let same = texts.filter(|(protocol, text)| kind(protocol, text) == kind(protocol, example));
    same.map(|(_, text)| text.as_str()).take(10).collect()
}

/// Everything in a message is in an example of its kind; a plain event is one of those that were sent.
#[track_caller]
fn expect_documented(page: &Page, protocol: &str, text: &str) {
    let wanted = kind(protocol, text);
    if protocol == "plain" && wanted == "event" {
        assert!(text == "{}" || text.starts_with("{\"machine_name\": \""), "{text}");
        return;
    }
    let examples = page
        .messages(protocol, "server")
        .filter(|example| kind(protocol, example) == wanted);
    let mut known: BTreeSet<String> = examples.flat_map(parts).collect();
    assert!(!known.is_empty(), "the page does not know: {text}");
    if wanted == "gap" {
        known.extend(causes(page).iter().map(|cause| format!(".cause is \"{cause}\"")));
    }
    let unknown: Vec<String> = parts(text).difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "the page does not show that {unknown:?}: {text}");
}

fn causes(page: &Page) -> BTreeSet<String> {
    let rows = page.table("| `cause` | what was lost, and what comes next |");
    let cells = rows.iter().flat_map(|row| row[0].split(", "));
    cells.map(|cause| cause.trim_matches('`').to_owned()).collect()
}

#[test]
fn the_page_knows_every_cause_of_a_loss_and_every_end_of_a_client() {
    let page = Page::read();
    let causes_in_code = DropCause::TABLE.iter().map(|row| row.1).filter(|name| *name != "empty");
    let of_journal = [QUEUE_FULL, FAILED, REMOVED, DAMAGED, RESTART, "unknown"];
    let expected = causes_in_code.chain(of_journal).chain([CAUSE_HISTORY, CAUSE_EPOCH]);
    assert_eq!(causes(&page), expected.map(str::to_owned).collect());
    let rows = page.table("| code | reason | counted as | when | is told |");
    let said: Vec<[&str; 3]> = rows.iter().map(|row| [&row[0][..], &row[1], &row[2]]).collect();
    let ends = EndReason::TABLE.iter();
    let ends: Vec<[String; 3]> = ends
        .map(|end| [end.code.to_string(), end.text.to_owned(), format!("`{}`", end.name)])
        .collect();
    assert_eq!(said, ends);
}

#[test]
fn the_event_of_the_page_is_one_that_an_engine_sent() {
    let event = event(&Page::read());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/datagrams.jsonl");
    let captured = std::fs::read_to_string(path).unwrap();
    let mut lines = captured
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(lines.any(|line| line["text"] == event));
}

#[test]
fn every_request_of_the_page_is_answered_as_it_says() {
    let page = Page::read();
    let server = TestServer::start(&["--max-clients", "2"]);
    for (request, answer) in &page.exchanges {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut got = vec![0; answer.len()];
        let read = socket.read_exact(&mut got);
        // Only the time differs from the example's.
        let undated = |text: &str| {
            let lines = text.split_inclusive("\r\n");
            lines.filter(|line| !line.starts_with("date: ")).collect::<String>()
        };
        assert_eq!(undated(&String::from_utf8_lossy(&got)), undated(answer), "{read:?}");
    }
    for row in page.table("| request has | status | detail |") {
        if let Some(line) = row[0].strip_prefix('`') {
            expect_refusal(&server, &page, &row[0], &proper(&[line.trim_end_matches('`')]));
        }
    }
    eventually("the one that was let in is gone", || {
        (server.health()["connections"] == 0).then_some(())
    });
    let _clients = [server.client(), server.client()];
    expect_refusal(&server, &page, "a client more than `--max-clients 2`", &proper(&[]));
}
