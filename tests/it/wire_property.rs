//! Whatever a client does, its bytes are whole frames, in order, none twice, none missing: random clients against a
//! server whose sockets are so small that nearly every send is a partial one. The server runs in this process, because
//! the size of its sockets is no flag; sockets and threads are real.

use crate::support::client::{BINARY, CLOSE, Frame, PING, PONG, TEXT, masked, parse};
use crate::support::{DEADLINE, Sender, eventually, pause, uninterrupted};
use fastrand::Rng;
use rustix::net::sockopt;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use threadcast::config::{Config, StateFile};
use threadcast::liveness::beats::Beats;
use threadcast::liveness::operation::SlowLimits;
use threadcast::outbox::link::Delivery;
use threadcast::process::limits::{client_room, raise_descriptors};
use threadcast::process::passed_sockets::PassedSockets;
use threadcast::process::systemd::Notifier;
use threadcast::serve::{Given, Progress, Server};
use threadcast::web::origin::AllowedOrigins;

/// Events per run. So small windows make TCP wait for its own timers, so that more of them would take long.
const EVENTS: usize = 400;
/// How far the publisher runs ahead of the slowest steady client; less than a client's queue holds.
const AHEAD: usize = 120;
/// Clients that stay from before the first event to the last.
const STEADY: usize = 4;
/// Threads that join, stay for a while, and leave, again and again.
const PASSING: usize = 3;
/// The smallest that the kernel grants.
const TINY: usize = 4096;

#[test]
fn random_clients_get_whole_frames_in_order_none_twice_none_missing() {
    let seed = std::env::var("THREADCAST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("repeat with THREADCAST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    for delivery in [Delivery::Direct, Delivery::Queued] {
        run(delivery, rng.fork());
    }
}

fn run(delivery: Delivery, mut rng: Rng) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        port: 0,
        event_socket_path: folder.path().join("events.sock"),
        state_file: StateFile::Off,
        ping_interval: Duration::from_millis(15),
        delivery,
        send_buffer_bytes: TINY,
        client_queue_bytes: 64 * 1024 * 1024,
        // Nobody is ended because a busy machine lets its client wait.
        send_timeout: DEADLINE,
        ingest_patience: Duration::from_millis(250),
        ..Config::default()
    };
    let socket_path = config.event_socket_path.clone();
    let room = client_room(raise_descriptors());
    let limits = SlowLimits {
        broadcast: config.slow_broadcast,
        snapshot: config.slow_snapshot,
    };
    let beats = Beats::new(limits, room.clients() + room.spare());
    let given = Given {
        passed: PassedSockets::default(),
        notifier: Arc::new(Notifier::silent()),
        room: room.into(),
        beats,
        log: None,
        origins: AllowedOrigins::default(),
    };
    let server = Server::start(config.clone(), given, &Progress::new(&config)).unwrap();
    let address = server.address();
    let published = Arc::new(AtomicBool::new(false));
    let seen: Vec<Arc<AtomicUsize>> = (0..STEADY).map(|_| Arc::default()).collect();
    let joined = Arc::new(AtomicUsize::new(0));
    #[expect(clippy::disallowed_methods, reason = "the test's own clients and publisher")]
    let clients: Vec<_> = (0..STEADY + PASSING)
        .map(|index| {
            let (rng, published, joined) = (rng.fork(), Arc::clone(&published), Arc::clone(&joined));
            let seen = seen.get(index).cloned();
            std::thread::spawn(move || match seen {
                Some(seen) => stay(address, rng, &seen, &joined),
                None => pass(address, rng, &published),
            })
        })
        .collect();
    eventually("every steady client has its snapshot", || {
        (joined.load(Ordering::SeqCst) == STEADY).then_some(())
    });
    publish(&socket_path, &seen, &mut rng);
    published.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(server.stop(), [], "every thread ends in time");
}

/// Sends the events, never far ahead of the slowest steady client.
fn publish(path: &std::path::Path, seen: &[Arc<AtomicUsize>], rng: &mut Rng) {
    let sender = Sender::to(path);
    for number in 1..=EVENTS {
        eventually("the steady clients follow", || {
            let slowest = seen.iter().map(|seen| seen.load(Ordering::SeqCst)).min()?;
            (slowest + AHEAD >= number).then_some(())
        });
        let pad = match rng.u8(..) {
            0 => rng.usize(0..30_000),
            1..30 => rng.usize(0..3000),
            _ => rng.usize(0..200),
        };
        let event = format!(
            r#"{{"machine_name":"m","type":"state_change","payload":{{"to_state":"{number}","pad":"{}"}}}}"#,
            "x".repeat(pad)
        );
        sender.send(event.as_bytes()).unwrap();
    }
}

/// Reads to the last event, then closes in order and checks that nothing is owed.
fn stay(address: SocketAddr, rng: Rng, seen: &AtomicUsize, joined: &AtomicUsize) {
    let mut client = RandomClient::join(address, rng);
    while client.last.is_none() {
        client.step().unwrap();
    }
    joined.fetch_add(1, Ordering::SeqCst);
    while client.last != Some(EVENTS) {
        client.step().unwrap();
        seen.store(client.last.unwrap_or(0), Ordering::SeqCst);
    }
    client.talkative = false;
    while !client.owed.is_empty() {
        client.step().unwrap();
    }
    client.socket.write_all(&masked(CLOSE, &1000u16.to_be_bytes())).unwrap();
    while !client.closed {
        client.step().unwrap();
    }
}

/// Joins and leaves until everything is published: by a close frame, by a reset, or by reading no more.
fn pass(address: SocketAddr, mut rng: Rng, published: &AtomicBool) {
    while !published.load(Ordering::SeqCst) {
        let mut client = RandomClient::join(address, rng.fork());
        for _ in 0..rng.usize(1..300) {
            if client.step().is_err() || published.load(Ordering::SeqCst) {
                break;
            }
        }
        match rng.u8(0..3) {
            0 => {
                let _ = client.socket.write_all(&masked(CLOSE, &1000u16.to_be_bytes()));
                client.talkative = false;
                while !client.closed && client.step().is_ok() {}
            }
            1 => sockopt::set_socket_linger(&client.socket, Some(Duration::ZERO)).unwrap(),
            // What it has read so far was a prefix of whole frames, checked as it came.
            _ => pause(Duration::from_millis(rng.u64(0..30))),
        }
    }
}

/// A client that reads in random pieces, pauses, and says random things; checks everything that it gets.
struct RandomClient {
    socket: TcpStream,
    received: Vec<u8>,
    rng: Rng,
    /// The state of the snapshot or of the last event.
    last: Option<usize>,
    /// Answers that must come, in order.
    owed: VecDeque<Frame>,
    /// Refreshes asked for, less snapshots that came; several may be answered by one.
    refreshes: usize,
    talkative: bool,
    closed: bool,
}

impl RandomClient {
    fn join(address: SocketAddr, mut rng: Rng) -> RandomClient {
        let mut socket = TcpStream::connect(address).unwrap();
        if rng.bool() {
            sockopt::set_socket_recv_buffer_size(&socket, TINY).unwrap();
        }
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = format!(
            "GET /ws/events HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        RandomClient {
            socket,
            received: Vec::new(),
            rng,
            last: None,
            owed: VecDeque::new(),
            refreshes: 0,
            talkative: true,
            closed: false,
        }
    }

    /// Perhaps says something, perhaps pauses, then reads a piece and checks the frames in it.
    fn step(&mut self) -> std::io::Result<()> {
        if self.talkative {
            self.talk()?;
        }
        if self.rng.u8(..) < 4 {
            pause(Duration::from_millis(self.rng.u64(1..20)));
        }
        let mut piece = vec![0; self.rng.usize(1..9000)];
        let count = uninterrupted(|| self.socket.read(&mut piece))?;
        if count == 0 {
            self.closed = true;
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&piece[..count]);
        let mut start = 0;
        while let Some((frame, len)) = parse(&self.received[start..]) {
            start += len;
            self.check(frame);
        }
        self.received.drain(..start);
        Ok(())
    }

    fn talk(&mut self) -> std::io::Result<()> {
        match self.rng.u8(..) {
            0..8 => {
                let payload: Vec<u8> = (0..self.rng.usize(0..125)).map(|_| self.rng.u8(..)).collect();
                self.socket.write_all(&masked(PING, &payload))?;
                self.owed.push_back(Frame { opcode: PONG, payload });
            }
            8..16 => {
                self.socket.write_all(&masked(TEXT, b"ping"))?;
                let payload = b"{\"type\":\"pong\"}".to_vec();
                self.owed.push_back(Frame { opcode: TEXT, payload });
            }
            16..20 => {
                self.socket.write_all(&masked(TEXT, b"refresh"))?;
                self.refreshes += 1;
            }
            20..24 => self.socket.write_all(&masked(BINARY, b"ignored"))?,
            24..28 => self.socket.write_all(&masked(TEXT, "gibberish ✓".as_bytes()))?,
            _ => {}
        }
        Ok(())
    }

    fn check(&mut self, frame: Frame) {
        match frame.opcode {
            CLOSE => self.closed = true,
            // The server's own keepalive has no payload, ours is answered in order.
            PING => assert_eq!(frame.payload, b""),
            PONG => self.settle(&frame),
            _ if frame.payload == b"{\"type\":\"pong\"}" => self.settle(&frame),
            _ if frame.is_keepalive() => assert!(self.last.is_some(), "`initial` comes first"),
            _ if frame.payload.starts_with(b"{\"type\":\"initial\"") => self.check_snapshot(frame.text()),
            _ => {
                let event: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap();
                let number: usize = event["payload"]["to_state"].as_str().unwrap().parse().unwrap();
                assert_eq!(
                    Some(number),
                    self.last.map(|last| last + 1),
                    "the event after the last one"
                );
                self.last = Some(number);
            }
        }
    }

    /// The first says where the stream begins; a later one must say what the stream has said so far.
    fn check_snapshot(&mut self, text: &str) {
        let initial: serde_json::Value = serde_json::from_str(text).unwrap();
        let state = initial["machines"][0]["current_state"].as_str();
        let number = state.map_or(0, |state| state.parse().unwrap());
        if self.last.is_some() {
            let left = self.refreshes.checked_sub(1);
            self.refreshes = left.expect("an `initial` that nobody asked for");
        }
        assert_eq!(
            self.last.unwrap_or(number),
            number,
            "a snapshot agrees with the stream around it"
        );
        self.last = Some(number);
    }

    /// Text pongs and protocol pongs take two ways through the server, so each kind has an order of its own.
    fn settle(&mut self, frame: &Frame) {
        let first = self.owed.iter().position(|owed| owed.opcode == frame.opcode);
        let first = first.unwrap_or_else(|| panic!("a pong that nobody asked for: {frame:?}"));
        let owed = self.owed.remove(first).unwrap();
        assert_eq!(&owed, frame);
    }
}
