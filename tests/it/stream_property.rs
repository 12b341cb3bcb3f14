//! Nothing is lost silently: whatever clients and servers do, each client's stream is the published one from its start
//! on, less what its filter does not want and what the server has announced as skipped; in order, nothing twice.
//!
//! Random cases: clients of both protocols join, resume, change their filters, pause, leave, while events of random
//! sizes are published and the server is restarted. `support/ledger.rs` is the model that judges each message.
//!
//! `THREADCAST_SEED=N` repeats the case that has failed (threads keep their own timing), `THREADCAST_CASES=N` tries
//! that many per delivery shape instead of [`CASES`].

use crate::support::client::{CLOSE, Options, PING, PONG, TEXT};
use crate::support::ledger::{EVENT_BYTES_MAX, Entry, KINDS, MACHINES, Numbering, Seen, Seq, Start, WISHES, Wish};
use crate::support::{DEADLINE, TestClient, TestServer, eventually, pause};
use fastrand::Rng;
use rustix::net::sockopt;
use rustix::process::Signal;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Cases of each delivery shape; both shapes run at the same time.
const CASES: u64 = 4;
/// Clients of each protocol in a case.
const CLIENTS: usize = 4;
/// Events of one case; pauses of a second fall into the time that they take.
const EVENTS: u64 = 6000;
/// A page that was busy for a second, and how often at most that happens to one client of a case.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES_MAX: usize = 3;
/// Longest that a client waits before it looks at its script again.
const LOOK: Duration = Duration::from_millis(20);

#[test]
fn every_client_gets_or_is_told_to_miss_everything_it_wants_in_order_and_once() {
    let seed: Option<u64> = std::env::var("THREADCAST_SEED").ok().map(|seed| seed.parse().unwrap());
    let cases = std::env::var("THREADCAST_CASES")
        .ok()
        .map(|cases| cases.parse().unwrap());
    let cases = cases.unwrap_or(if seed.is_some() { 1 } else { CASES });
    let first = seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    std::thread::scope(|scope| {
        let shapes = ["direct", "queued"].map(|delivery| {
            scope.spawn(move || {
                (first..first + cases)
                    .map(|seed| (seed, run(delivery, seed)))
                    .collect::<Vec<_>>()
            })
        });
        for (delivery, shape) in ["direct", "queued"].into_iter().zip(shapes) {
            for (seed, tally) in shape.join().expect("its panic is above") {
                eprintln!("--delivery {delivery}, seed {seed}: {tally:?}");
            }
        }
    });
}

/// What a case has shown; that it has shown anything is for a person to see.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "printed")]
struct Tally {
    connections: u64,
    events: u64,
    skipped: u64,
    behinds: u64,
    pings: u64,
}

/// One case.
struct Case {
    seed: u64,
    /// The history is so small that what a client misses can be gone.
    forgetful: bool,
    /// Numbers go on after a restart.
    journal: bool,
    lives: Mutex<Vec<Arc<Life>>>,
    /// Everything is published.
    done: AtomicBool,
    /// Somebody has failed: nobody need go on.
    failed: AtomicBool,
    counts: [AtomicU64; 5],
}

/// One run of the server.
struct Life {
    address: SocketAddr,
    numbering: Arc<Numbering>,
    /// From here on its clients may lose their connections.
    ended: AtomicBool,
    /// The last number that was sent to it, as soon as it ends.
    last: AtomicU64,
}

/// Whoever panics ends the case, and says how to repeat it.
struct Watch<'a>(&'a Case, &'static str);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
            eprintln!("--delivery {}: repeat with THREADCAST_SEED={}", self.1, self.0.seed);
        }
    }
}

fn run(delivery: &'static str, seed: u64) -> Tally {
    let mut rng = Rng::with_seed(seed);
    let history = *rng.choice(&["0", "100KiB", "1MiB", "64MiB"]).unwrap();
    let ping = *rng.choice(&["10ms", "100ms", "30s"]).unwrap();
    let limit = format!("{EVENT_BYTES_MAX}");
    let flags = [
        ["--delivery", delivery],
        ["--history-bytes", history],
        ["--client-queue-bytes", *rng.choice(&["8KiB", "64KiB"]).unwrap()],
        ["--max-event-bytes", &limit],
        ["--ping-interval", ping],
        // Nobody is ended for being slow, however slow this host is.
        ["--pong-timeout", "120s"],
        ["--send-timeout", "120s"],
        ["--max-behind", "120s"],
    ];
    // With a journal the numbers go on after a restart, else they begin anew, and so must the machines' states.
    let memory = if rng.bool() {
        ["--journal", "journal"]
    } else {
        ["--state-file", "none"]
    };
    let flags = [flags.concat(), memory.to_vec()].concat();
    let case = Case {
        seed,
        forgetful: history != "64MiB",
        journal: memory[0] == "--journal",
        lives: Mutex::default(),
        done: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        counts: Default::default(),
    };
    let _watch = Watch(&case, delivery);
    // Outside of the scope: it lives until every client is done.
    let mut server = TestServer::start(&flags);
    case.begin_life(&server);
    std::thread::scope(|scope| {
        for index in 0..2 * CLIENTS {
            let (case, mut rng) = (&case, rng.fork());
            scope.spawn(move || {
                let _watch = Watch(case, delivery);
                case.client(index % 2 == 0, &mut rng);
            });
        }
        let _watch = Watch(&case, delivery);
        let restarts: Vec<u64> = (0..rng.usize(0..3)).map(|_| rng.u64(..EVENTS)).collect();
        let mut sent = 0;
        while sent < EVENTS && !case.failed.load(Ordering::SeqCst) {
            let burst = rng.u64(1..=300);
            if restarts.iter().any(|at| (sent..sent + burst).contains(at)) {
                case.restart(&mut server, &flags, case.journal || rng.bool());
            }
            case.publish(&server, burst, &mut rng);
            sent += burst;
        }
        case.done.store(true, Ordering::SeqCst);
    });
    let counts = case.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    let [connections, events, skipped, behinds, pings] = counts;
    Tally {
        connections,
        events,
        skipped,
        behinds,
        pings,
    }
}

impl Case {
    /// Clients may join this server.
    fn begin_life(&self, server: &TestServer) {
        let mut probe = TestClient::with(server.address, &options(true, "", None));
        let hello = probe.json();
        let epoch = hello["epoch"].as_str().unwrap();
        let mut lives = self.lives.lock().unwrap();
        let numbering = match lives.last().filter(|_| self.journal) {
            Some(life) => Arc::clone(&life.numbering),
            None => Arc::new(Numbering::new(epoch.to_owned())),
        };
        assert_eq!(
            (epoch, hello["seq"].as_u64()),
            (&*numbering.epoch, Some(numbering.newest()))
        );
        lives.push(Arc::new(Life {
            address: server.address,
            numbering,
            ended: AtomicBool::new(false),
            last: AtomicU64::new(0),
        }));
    }

    fn life(&self) -> Arc<Life> {
        Arc::clone(self.lives.lock().unwrap().last().unwrap())
    }

    /// Ends the server in order or by SIGKILL, and starts it again. What a journal has lost after SIGKILL is not known
    /// to this model; `journal.rs` kills servers.
    fn restart(&self, server: &mut TestServer, flags: &[&str], in_order: bool) {
        let life = self.life();
        life.last.store(life.numbering.newest(), Ordering::SeqCst);
        life.ended.store(true, Ordering::SeqCst);
        if in_order {
            assert!(server.stop().success())
        } else {
            server.signal(Signal::KILL);
            server.wait_for_end(DEADLINE);
        }
        *server = TestServer::start_in(server.folder(), flags);
        self.begin_life(server);
    }

    /// Sends `count` numbers in a row, then rests for a moment.
    fn publish(&self, server: &TestServer, count: u64, rng: &mut Rng) {
        let (sender, life) = (server.sender(), self.life());
        let pad_max = *rng.choice(&[1, 300, 3500]).unwrap();
        for _ in 0..count {
            let entry = match rng.u8(..) {
                0..2 => Entry::Loss("too_large"),
                2..4 => Entry::Loss("not_json"),
                _ => Entry::Event {
                    machine: rng.choice(MACHINES).unwrap(),
                    kind: rng.choice(KINDS).unwrap(),
                    pad: rng.usize(..pad_max),
                },
            };
            sender.send(&life.numbering.add(entry)).unwrap();
        }
        // The mixture is the subject: with rests some clients keep up, and one second is not the whole case.
        pause(Duration::from_millis(rng.u64(0..120)));
    }

    /// A client of one protocol: connection after connection, until everything is published and settled.
    fn client(&self, v1: bool, rng: &mut Rng) {
        let mut pauses = PAUSES_MAX;
        let mut last: Option<(String, Seq)> = None;
        while !self.failed.load(Ordering::SeqCst) {
            let life = self.life();
            let (start, since) = start(&life.numbering, last.as_ref(), rng);
            let wish = rng.choice(&WISHES).unwrap();
            let receive_buffer = rng.bool().then_some(16 * 1024);
            let options = Options {
                receive_buffer,
                ..options(v1, wish.query, since)
            };
            let client = match TestClient::try_with(life.address, &options) {
                Ok(client) => client,
                Err(_) if life.ended.load(Ordering::SeqCst) => {
                    // The next life begins in a moment.
                    pause(LOOK);
                    continue;
                }
                Err(error) => panic!("cannot join: {error}"),
            };
            let seen = Seen::new(&life.numbering, v1, self.forgetful, wish, start);
            let mut visit = Visit {
                case: self,
                life: &life,
                client,
                seen,
                v1,
                leaves: rng.usize(1..80),
            };
            let over = visit.run(rng, &mut pauses);
            if let Some(seq) = visit.seen.position() {
                last = Some((life.numbering.epoch.clone(), seq));
            }
            let seen = &visit.seen;
            let counts = [1, seen.events, seen.skipped, seen.behinds, seen.pings];
            for (sum, count) in self.counts.iter().zip(counts) {
                sum.fetch_add(count, Ordering::Relaxed);
            }
            if over {
                return;
            }
        }
    }
}

/// Where a client begins: mostly where it was.
fn start(numbering: &Numbering, last: Option<&(String, Seq)>, rng: &mut Rng) -> (Start, Option<String>) {
    let at = |epoch: &str, seq: Seq| Some(format!("{epoch}:{seq}"));
    let epoch = &numbering.epoch;
    match (rng.u8(0..10), last) {
        (0, _) => (Start::Unknown, at("0123456789abcdef", 3)),
        (1, _) => (Start::Unknown, at(epoch, 1 << 40)),
        // Once more from somewhere before.
        (2, Some((of, seq))) if of == epoch => {
            let seq = rng.u64(..=*seq);
            (Start::After(seq), at(of, seq))
        }
        (3..9, Some((of, seq))) if of == epoch => (Start::After(*seq), at(of, *seq)),
        (3..9, Some((of, seq))) => (Start::Unknown, at(of, *seq)),
        _ => (Start::Now, None),
    }
}

fn options(v1: bool, query: &str, since: Option<String>) -> Options {
    let since = since.map(|since| format!("since={since}"));
    let parts = [Some(query.to_owned()).filter(|query| !query.is_empty()), since];
    let query: Vec<String> = parts.into_iter().flatten().collect();
    let header = v1.then(|| "Sec-WebSocket-Protocol: threadcast.v1".to_owned());
    Options {
        target: format!("/ws/events?{}", query.join("&")),
        headers: header.into_iter().collect(),
        ..Options::default()
    }
}

/// One connection.
struct Visit<'a> {
    case: &'a Case,
    life: &'a Life,
    client: TestClient,
    seen: Seen<'a>,
    v1: bool,
    /// Turns until it leaves by itself.
    leaves: usize,
}

/// What came in a turn.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Messages,
    /// The connection's end, with the close code if there was one.
    End(Option<u16>),
}

impl Visit<'_> {
    /// To its end; whether everything is published and settled.
    fn run(&mut self, rng: &mut Rng, pauses: &mut usize) -> bool {
        self.client.set_patience(LOOK);
        let mut begun_to_wait = None;
        loop {
            let done = self.case.done.load(Ordering::SeqCst);
            if self.case.failed.load(Ordering::SeqCst) {
                return true;
            }
            let newest = self.life.numbering.newest();
            if done && self.seen.is_settled(newest) {
                self.leave_in_order();
                return true;
            }
            if done {
                let begun = *begun_to_wait.get_or_insert_with(Instant::now);
                assert!(
                    begun.elapsed() < DEADLINE,
                    "up to {newest} not within {DEADLINE:?}: {:?}",
                    self.seen
                );
            } else if self.act(rng, pauses) {
                return false;
            }
            if let Came::End(code) = self.read(rng.usize(1..200)) {
                self.judge_end(code);
                return false;
            }
        }
    }

    /// Perhaps says or does something; whether it has left.
    fn act(&mut self, rng: &mut Rng, pauses: &mut usize) -> bool {
        match rng.u8(..) {
            0..5 => {
                self.client.send_text("refresh");
                self.seen.refresh();
            }
            5..15 if self.v1 => self.subscribe(rng.choice(&WISHES).unwrap()),
            15..27 if *pauses > 0 => {
                *pauses -= 1;
                pause(PAUSE);
            }
            _ => {}
        }
        self.leaves = self.leaves.saturating_sub(1);
        if self.leaves > 0 {
            return false;
        }
        if rng.bool() {
            self.leave_in_order()
        } else {
            sockopt::set_socket_linger(self.client.socket(), Some(Duration::ZERO)).unwrap()
        }
        true
    }

    fn subscribe(&mut self, wish: &'static Wish) {
        // A filter that is asked for twice could not be told from the first.
        if self.seen.subscribe(wish) {
            let text = serde_json::json!({"type": "subscribe", "machines": wish.machines, "types": wish.types});
            self.client.send_text(&text.to_string());
        }
    }

    /// Reads up to `count` messages, as long as they come.
    fn read(&mut self, count: usize) -> Came {
        for _ in 0..count {
            match self.client.try_frame() {
                Ok(frame) if frame.opcode == PING => self.client.send(PONG, &frame.payload),
                Ok(frame) if frame.opcode == CLOSE => return Came::End(Some(frame.close().0)),
                Ok(frame) if frame.is_keepalive() && !(self.v1 && frame.opcode == TEXT) => {}
                Ok(frame) => {
                    assert_eq!(frame.opcode, TEXT);
                    self.seen.take(frame.text());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Came::Messages,
                Err(_) => return Came::End(None),
            }
        }
        Came::Messages
    }

    /// Only a server that ends may end the connection, and only one that owes nothing may say so in order.
    fn judge_end(&self, code: Option<u16>) {
        assert!(
            self.life.ended.load(Ordering::SeqCst),
            "ended with {code:?}: {:?}",
            self.seen
        );
        if code == Some(1012) {
            let (pos, newest) = (self.seen.position(), self.life.last.load(Ordering::SeqCst));
            assert!(
                self.seen.owes_nothing(newest),
                "ended in order at {pos:?} of {newest}: {:?}",
                self.seen
            );
        }
    }

    /// Closes, and checks what comes until the server has closed as well.
    fn leave_in_order(&mut self) {
        self.client.send(CLOSE, &1000u16.to_be_bytes());
        eventually("the close frame is answered", || match self.read(usize::MAX) {
            Came::Messages => None,
            Came::End(code) => Some(code),
        });
    }
}
