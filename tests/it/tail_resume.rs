//! `threadcast tail` goes on where it was: whatever happens to the connection, every event is shown once and in order,
//! or what is missing is said.

use crate::notices::v1_options;
use crate::support::client::{TEXT, masked};
use crate::support::{DEADLINE, TestClient, TestServer, eventually, number_of, numbered};
use crate::tail::{Running, tail, url, wait_for_clients};
use rustix::net::sockopt;
use rustix::process::Signal;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tungstenite::handshake::derive_accept_key;

/// Bytes of an event of these tests.
const LEN: usize = 100;

fn send(server: &TestServer, numbers: std::ops::Range<usize>) {
    let sender = server.sender();
    for number in numbers {
        sender.send(&numbered(number, LEN)).unwrap();
    }
}

#[track_caller]
fn wait_until_forwarded(server: &TestServer, count: usize) {
    eventually("the server has them all", || {
        (server.health()["events_forwarded"] == count).then_some(())
    });
}

/// The numbers of the events that it has shown.
fn shown(running: &Running) -> Vec<usize> {
    let numbers = running.out();
    let numbers = numbers.lines().map(|line| number_of(line.as_bytes()).unwrap());
    numbers.collect()
}

#[track_caller]
fn wait_for_events(running: &Running, count: usize) {
    eventually("all events are shown", || {
        (running.out().lines().count() >= count).then_some(())
    });
}

/// What it has said at its end about how to go on.
#[track_caller]
fn position(running: &Running) -> String {
    let said = running.said();
    let mut positions = said
        .lines()
        .filter_map(|line| line.strip_prefix("threadcast: to go on from here: threadcast tail --since "));
    let position = positions.next().unwrap_or_else(|| panic!("{said}")).to_owned();
    assert_eq!(positions.next(), None, "{said}");
    position
}

/// A position that many events after `position`.
fn later(position: &str, events: u64) -> String {
    let (epoch, seq) = position.split_once(':').unwrap();
    format!("{epoch}:{}", seq.parse::<u64>().unwrap() + events)
}

/// What is between `tail` and its server, and can be cut.
struct Proxy {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    links: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn before(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            cut: Arc::new(AtomicBool::new(false)),
            links: Arc::default(),
        };
        let (cut, links) = (Arc::clone(&proxy.cut), Arc::clone(&proxy.links));
        in_background(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let mut links = links.lock().unwrap();
                if cut.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(server) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    in_background(move || pump(from, to));
                }
                links.extend([near, far]);
            }
        });
        proxy
    }

    /// Ends every connection, wherever it is in a message; there are no new ones until [`Proxy::mend`].
    fn cut(&self) {
        let mut links = self.links.lock().unwrap();
        self.cut.store(true, Ordering::Relaxed);
        for link in links.drain(..) {
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

#[expect(clippy::disallowed_methods, reason = "the harness has threads of its own")]
fn in_background(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body);
}

#[test]
fn what_is_sent_while_it_is_away_comes_when_it_is_back() {
    let server = TestServer::start(&[]);
    let proxy = Proxy::before(server.address);
    let mut running = Running::start(&["tail", "--format", "json", "--url", &url(proxy.address)]);
    wait_for_clients(&server, 1);
    send(&server, 0..5);
    wait_for_events(&running, 5);
    proxy.cut();
    running.wait_until_said("connecting again in");
    send(&server, 5..50);
    wait_until_forwarded(&server, 50);
    proxy.mend();
    running.wait_until_said("threadcast: resumed after event 5, 45 events replayed\n");
    send(&server, 50..60);
    wait_for_events(&running, 60);
    running.ends_on_interrupt();
    assert_eq!(shown(&running), (0..60).collect::<Vec<_>>());
    assert!(position(&running).ends_with(":60"), "{}", running.said());
}

#[test]
fn a_connection_that_is_cut_again_and_again_costs_no_event() {
    const EVENTS: usize = 3_000;
    const CUTS: usize = 3;
    let server = TestServer::start(&[]);
    let proxy = Proxy::before(server.address);
    let mut running = Running::start(&["tail", "--format", "json", "--url", &url(proxy.address)]);
    wait_for_clients(&server, 1);
    for part in 0..=CUTS {
        let step = EVENTS / (CUTS + 1);
        send(&server, part * step..part * step + step / 2);
        if part == 0 {
            // Until then it has no place to come back to.
            wait_for_events(&running, 1);
        }
        if part < CUTS {
            // In the middle of whatever is under way.
            proxy.cut();
        }
        send(&server, part * step + step / 2..(part + 1) * step);
        proxy.mend();
        let part_of = |said: String| said.matches("threadcast: resumed after event ").count();
        eventually("it has come back", || {
            (part_of(running.said()) > part || part == CUTS).then_some(())
        });
    }
    wait_for_events(&running, EVENTS);
    running.ends_on_interrupt();
    assert_eq!(shown(&running), (0..EVENTS).collect::<Vec<_>>());
}

#[test]
fn after_a_restart_without_a_journal_it_says_so_and_begins_anew() {
    let mut server = TestServer::start(&[]);
    let mut running = tail(&server, &["--format", "json"]);
    wait_for_clients(&server, 1);
    send(&server, 0..3);
    wait_for_events(&running, 3);
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let port = server.address.port().to_string();
    let server = TestServer::start_in(server.folder(), &["--port", &port]);
    wait_for_clients(&server, 1);
    send(&server, 3..5);
    wait_for_events(&running, 5);
    running.ends_on_interrupt();
    assert_eq!(shown(&running), [0, 1, 2, 3, 4]);
    let said = running.said();
    let anew = "threadcast: the server's numbering is a new one (it has no journal, or could not go on with it), so what \
                came after event 3 is not known; it begins with the state now\n";
    assert_eq!(said.matches(anew).count(), 1, "{said}");
    assert!(!said.contains("resumed"), "{said}");
    assert!(position(&running).ends_with(":2"), "of the new numbering: {said}");
}

/// The numbers that its pings tell say more of a filtered stream than its events do.
#[test]
fn a_tail_that_wants_little_misses_nothing_when_its_server_restarts() {
    const OTHERS: usize = 50;
    let flags = ["--journal", "journal", "--history-bytes", "4KiB"];
    let pings = ["--ping-interval", "100ms", "--log-level", "debug"];
    let flags = [flags, pings].concat();
    let mut server = TestServer::start(&flags);
    let mut running = tail(&server, &["--format", "json", "--type", "rare"]);
    let joined = server.wait_for_line("(threadcast.v1), wants type=rare");
    let id = joined.split("client ").nth(1).unwrap().split(' ').next().unwrap();
    let rare = r#"{"type":"rare"}"#;
    server.send(rare);
    wait_for_events(&running, 1);
    let sender = server.sender();
    for number in 0..OTHERS {
        sender.send(&numbered(number, 1000)).unwrap();
    }
    // Whatever ping is made after this one says as much.
    let mut witness = TestClient::with(server.address, &v1_options("/ws/events?type=rare"));
    eventually("all are offered", || {
        let frame = witness.frame();
        let text = (frame.opcode == TEXT).then(|| frame.text().to_owned())?;
        (text.starts_with(r#"{"type":"ping""#) && text.ends_with(r#","seq":51}"#)).then_some(())
    });
    let pings = || server.lines().with(&format!("ping to client {id}")).len();
    let before = pings();
    eventually("it has got another ping", || (pings() >= before + 2).then_some(()));
    assert!(server.stop().success());
    let port = server.address.port().to_string();
    let server = TestServer::start_in(server.folder(), &[&flags[..], &["--port", &port]].concat());
    running.wait_until_said("threadcast: resumed after event 51, 0 events replayed\n");
    server.send(rare);
    wait_for_events(&running, 2);
    running.ends_on_interrupt();
    assert_eq!(running.out(), format!("{rare}\n").repeat(2));
    assert!(!running.said().contains("missing"), "{}", running.said());
    assert!(position(&running).ends_with(":52"), "{}", running.said());
}

#[test]
fn what_follows_a_position_given_by_hand_is_shown_and_nothing_else() {
    let server = TestServer::start(&[]);
    let mut first = tail(&server, &["--format", "json", "--count", "2"]);
    wait_for_clients(&server, 1);
    send(&server, 0..6);
    assert_eq!(first.status(DEADLINE), 0, "{}", first.said());
    assert_eq!(shown(&first), [0, 1]);
    let since = position(&first);
    let mut second = tail(&server, &["--since", &since, "--format", "json"]);
    second.wait_until_said("threadcast: resumed after event 2, 4 events replayed\n");
    send(&server, 6..8);
    wait_for_events(&second, 6);
    second.ends_on_interrupt();
    assert_eq!(shown(&second), (2..8).collect::<Vec<_>>());
    assert_eq!(position(&second), later(&since, 6));
    // A number that was never given is told from one of another numbering.
    let mut ahead = tail(&server, &["--since", &later(&since, 1000)]);
    ahead.wait_until_said(
        "threadcast: the server has not come to event 1002 yet, or knows of it no more; it begins with",
    );
    ahead.wait_until_said("threadcast: connected to ");
    ahead.ends_on_interrupt();
    assert_eq!(position(&ahead), later(&since, 6));
}

#[test]
fn what_the_history_no_longer_has_is_said() {
    let server = TestServer::start(&["--history-bytes", "0"]);
    let mut first = tail(&server, &["--format", "json", "--count", "1"]);
    wait_for_clients(&server, 1);
    send(&server, 0..1);
    assert_eq!(first.status(DEADLINE), 0, "{}", first.said());
    send(&server, 1..31);
    wait_until_forwarded(&server, 31);
    let mut second = tail(&server, &["--since", &position(&first), "--format", "json"]);
    second.wait_until_said(
        "threadcast: 30 events are missing (numbers 2 to 31): no longer in the server's history (--history-bytes)\n",
    );
    send(&server, 31..33);
    wait_for_events(&second, 2);
    second.ends_on_interrupt();
    assert_eq!(shown(&second), [31, 32]);
    assert!(!second.said().contains("resumed"), "{}", second.said());
}

#[test]
fn an_event_that_the_server_had_to_drop_is_said_with_its_cause() {
    let server = TestServer::start(&[]);
    let mut running = tail(&server, &["--format", "json"]);
    wait_for_clients(&server, 1);
    send(&server, 0..1);
    let sender = server.sender();
    // What every Linux grants; the kernel doubles it.
    sockopt::set_socket_send_buffer_size(&*sender, 212_992).unwrap();
    sender.send(&numbered(1, 300 * 1024)).unwrap();
    send(&server, 2..3);
    wait_for_events(&running, 2);
    running.wait_until_said("threadcast: 1 event is missing (number 2): too large (the server's --max-event-bytes)\n");
    running.ends_on_interrupt();
    assert_eq!(shown(&running), [0, 2]);
    assert!(position(&running).ends_with(":3"), "{}", running.said());
}

#[test]
fn the_server_is_asked_for_what_is_wanted_only() {
    let server = TestServer::start(&[]);
    let flags = [
        "--machine",
        "wo?ker-*,db",
        "--type",
        "error,job_*",
        "--format",
        "compact",
    ];
    let mut running = tail(&server, &flags);
    server.wait_for_line("(threadcast.v1), wants machine=wo?ker-*,db&type=error,job_*");
    wait_for_clients(&server, 1);
    for (machine, kind) in [
        ("worker-1", "error"),
        ("worker-1", "tick"),
        ("web", "error"),
        ("db", "job_started"),
    ] {
        server.send(format!(r#"{{"machine_name":"{machine}","type":"{kind}"}}"#));
    }
    wait_for_events(&running, 2);
    running.ends_on_interrupt();
    assert_eq!(running.out(), "worker-1 error: ?\ndb job_started ?\n");
}

/// A server of our own making.
pub struct Fake(TcpListener);

impl Fake {
    pub fn new() -> (Fake, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (Fake(listener), address)
    }

    /// Takes a connection, answers with `headers` besides the usual ones, and sends `messages`. Gives the request's
    /// head.
    pub fn serve(&self, headers: &str, messages: &[String]) -> (TcpStream, String) {
        let (mut connection, _) = self.0.accept().unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = derive_accept_key(key.unwrap().trim().as_bytes());
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
        )
        .into_bytes();
        answer.extend(messages.iter().flat_map(|message| unmasked(message)));
        connection.write_all(&answer).unwrap();
        (connection, head)
    }
}

/// A text as a server sends it: as a client does, without the mask.
fn unmasked(text: &str) -> Vec<u8> {
    let mut frame = masked(TEXT, text.as_bytes());
    let header = frame.len() - text.len() - 4;
    frame.truncate(header);
    frame[1] &= 0x7f;
    frame.extend_from_slice(text.as_bytes());
    frame
}

pub const V1: &str = "Sec-WebSocket-Protocol: threadcast.v1\r\n";

pub fn hello(epoch: &str, after: &str) -> String {
    format!(r#"{{"type":"hello","protocol":"threadcast.v1","epoch":"{epoch}","seq":9,"after":{after},"client":1}}"#)
}

pub fn event(seq: u64) -> String {
    format!(r#"{{"seq":{seq},"machine":"m","type":"t","event":{{"machine_name":"m","type":"t","n":{seq}}}}}"#)
}

#[test]
fn a_server_that_keeps_its_numbers_over_a_restart_is_asked_for_the_rest() {
    const EPOCH: &str = "0123456789abcdef";
    let (server, address) = Fake::new();
    let mut running = Running::start(&["tail", "--format", "json", "--url", &url(address)]);
    let text = str::to_owned;
    let initial = text(r#"{"type":"initial","seq":4,"machines":[],"timestamp":1.5}"#);
    let messages = [hello(EPOCH, "null"), initial, event(5), event(6)];
    let (connection, head) = server.serve(V1, &messages);
    assert!(head.contains("\r\nSec-WebSocket-Protocol: threadcast.v1\r\n"), "{head}");
    assert!(head.starts_with("GET /ws/events HTTP/1.1\r\n"), "{head}");
    wait_for_events(&running, 2);
    drop(connection);
    // What a newer server may say besides is no matter, and what comes twice is shown once.
    let messages = [
        hello(EPOCH, "6"),
        text(r#"{"type":"behind","seq":6}"#),
        text(r#"{"type":"of_tomorrow","seq":40}"#),
        event(6),
        event(7),
        text(r#"{"type":"gap","from":8,"to":9,"count":null,"cause":"restart"}"#),
        text(r#"{"type":"live","seq":9,"replayed":1}"#),
        event(10),
    ];
    let (connection, head) = server.serve(V1, &messages);
    assert!(
        head.starts_with("GET /ws/events?since=0123456789abcdef%3A6 HTTP/1.1\r\n"),
        "{head}"
    );
    wait_for_events(&running, 4);
    running.wait_until_said("threadcast: resumed after event 6, 1 event replayed\n");
    drop(connection);
    // The server of before, which has no numbers, takes its place.
    let plain = r#"{"machine_name":"m","type":"t","n":11}"#;
    let (_connection, head) = server.serve("", &[text(plain)]);
    assert!(
        head.starts_with("GET /ws/events?since=0123456789abcdef%3A10 HTTP/1.1\r\n"),
        "{head}"
    );
    wait_for_events(&running, 5);
    running.ends_on_interrupt();
    let expected: String = [5, 6, 7, 10, 11]
        .map(|n| plain.replace("11", &n.to_string()) + "\n")
        .concat();
    assert_eq!(running.out(), expected);
    let said = running.said();
    assert!(
        said.contains("threadcast: events may be missing (among the numbers 8 to 9): "),
        "{said}"
    );
    assert!(
        said.contains("threadcast: this server does not number its events, so what came after event 10 is"),
        "{said}"
    );
    assert!(!said.contains("to go on from here"), "nobody can: {said}");
    assert!(!said.contains("of_tomorrow"), "{said}");
}

#[test]
fn a_server_without_the_subprotocol_is_spoken_with_as_before() {
    let (server, address) = Fake::new();
    let mut running = Running::start(&["tail", "--machine", "w*", "--url", &url(address)]);
    let state = r#"{"type":"initial","machines":[{"machine_name":"w1","current_state":"idle"}],"timestamp":1.5}"#;
    let event = |machine: &str| format!(r#"{{"machine_name":"{machine}","type":"t","timestamp":1.0}}"#);
    let ping = r#"{"type":"ping","timestamp":2.5}"#.to_owned();
    let messages = [state.to_owned(), event("w1"), event("x1"), ping, event("w2")];
    for round in 1..=2 {
        let (connection, head) = server.serve("", &messages);
        assert!(head.starts_with("GET /ws/events?machine=w%2A HTTP/1.1\r\n"), "{head}");
        wait_for_events(&running, 2 * round);
        drop(connection);
    }
    running.ends_on_interrupt();
    let line = |machine: &str| format!("00:00:01.000 {machine:<20} t\n");
    assert_eq!(running.out(), [line("w1"), line("w2")].concat().repeat(2));
    let said = running.said();
    let connected = format!("threadcast: connected to ws://{address}/ws/events; 1 machine: w1 idle\n");
    assert_eq!(said.matches(&connected).count(), 2, "{said}");
    assert!(!said.contains("number") && !said.contains("to go on"), "{said}");
}

#[test]
fn stalls_and_lag_are_said_to_people_only() {
    let messages = [
        hello("0123456789abcdef", "null"),
        r#"{"type":"initial","seq":0,"machines":[],"timestamp":1.5}"#.to_owned(),
        r#"{"type":"stall","component":"fanout","verdict":"hung","operation":"broadcasting","seconds":16.2}"#
            .to_owned(),
        r#"{"type":"lag","ms":2500,"events":70}"#.to_owned(),
        r#"{"type":"lag","ms":1500,"events":30}"#.to_owned(),
        r#"{"type":"recovered","component":"fanout","seconds":17.0}"#.to_owned(),
        event(1),
    ];
    let expected = [
        "threadcast: the server stands still: fanout makes no progress for 16.2 s, broadcasting\n",
        "threadcast: 2.5 s behind: 70 events are newer than what comes now\n",
        "threadcast: the server goes on: fanout has stood still for 17.0 s\n",
    ];
    for (format, for_people) in [("human", true), ("compact", false), ("json", false)] {
        let (server, address) = Fake::new();
        let mut running = Running::start(&["tail", "--format", format, "--count", "1", "--url", &url(address)]);
        let _connection = server.serve(V1, &messages);
        assert_eq!(running.status(DEADLINE), 0, "{}", running.said());
        let said = running.said();
        let notices = if for_people {
            format!(
                "threadcast: connected to {}; no machines\n{}",
                url(address),
                expected.concat()
            )
        } else {
            String::new()
        };
        let last = "threadcast: to go on from here: threadcast tail --since 0123456789abcdef:1\n";
        assert_eq!(said, notices + last);
    }
}
