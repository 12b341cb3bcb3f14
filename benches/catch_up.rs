//! What clients that catch up cost those that are live.
//!
//! `cargo bench --bench catch_up` runs a server with 10 live clients, to whom 500 events a second are sent, and in turn
//! leaves them alone and lets 200 clients (every second one of them numbered) resume all at once, each 20,000 events
//! back. One row per delivery shape and state, each figure the median of the rounds:
//!
//! - `p50`, `p99`, `most`: from before the sending of an event to after its reading by a live client, in milliseconds.
//!   The readers of all clients and the sender share the host's processors with the server, so this has much of the
//!   bench itself in it: read the row `times`, not the milliseconds.
//! - `worked`, `waited`: what thread `fanout` has run, and what it has waited for a processor although it could have
//!   run (schedstat of proc(5)), in milliseconds per second. Its turns are long when the first grows; the host is full
//!   when the second does.
//! - `slow`: broadcasts of over 50 ms that the server itself has counted, all rounds together.
//!
//! Every live client must get every event, in order; every resuming one all that it missed: else the bench fails.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "as in the tests whose harness this is; its output is what a bench is for"
)]

#[path = "../tests/it"]
mod it {
    #[allow(unused_imports, reason = "this uses a part of the harness")]
    pub mod support;
}

use it::support;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::client::{Options, TEXT, peek};
use support::{TestClient, TestServer, number_of, numbered, pause, within};
use threadcast::process::clock::monotonic_us;

const ROUNDS: usize = 5;
const LIVE: usize = 10;
const RESUMING: usize = 200;
const MISSED: usize = 20_000;
const EVENT_BYTES: usize = 200;
/// One event every 2 ms.
const EVERY: Duration = Duration::from_millis(2);
/// How long the live clients are alone in each round.
const CALM: Duration = Duration::from_secs(2);
/// Events of the whole bench, at most.
const EVENTS_MAX: usize = 200_000;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    println!("           p50 ms   p99 ms   most ms   worked   waited   slow");
    for delivery in ["direct", "queued"] {
        let bench = Bench::new(delivery);
        let stop = AtomicBool::new(false);
        let (mut calm, mut busy) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            let _stops = Stops(&stop);
            let live = bench.live();
            scope.spawn(|| bench.publish(&stop));
            scope.spawn(|| bench.read_live(live, &stop));
            for _ in 0..ROUNDS {
                calm.push(bench.phase(|| pause(CALM)));
                busy.push(bench.phase(|| bench.resume()));
            }
        });
        let (calm, busy) = (Figures::medians(&calm), Figures::medians(&busy));
        calm.print(&format!("{delivery}, calm"));
        busy.print("  resuming");
        busy.over(&calm).print("  times");
        println!(
            "  {RESUMING} clients have resumed over {MISSED} events each in {:.2} s",
            busy.took
        );
    }
}

/// Whatever ends the round ends the others.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Bench {
    server: TestServer,
    epoch: String,
    /// When each event was sent.
    sent_us: Vec<AtomicU64>,
    sent: AtomicUsize,
    /// How many events every live client has.
    read: AtomicUsize,
    /// What they have waited since the beginning of this phase, in microseconds.
    waited: std::sync::Mutex<Vec<u64>>,
}

/// What one phase has shown.
#[derive(Clone, Copy, Default)]
struct Figures {
    p50: f64,
    p99: f64,
    most: f64,
    worked: f64,
    waited: f64,
    slow: f64,
    took: f64,
}

impl Bench {
    /// With what is to be missed published.
    fn new(delivery: &str) -> Bench {
        let server = TestServer::start(&["--delivery", delivery, "--max-behind", "120s", "--send-timeout", "60s"]);
        let hello = TestClient::with(server.address, &options(true, "")).json();
        let bench = Bench {
            server,
            epoch: hello["epoch"].as_str().unwrap().to_owned(),
            sent_us: (0..EVENTS_MAX).map(|_| AtomicU64::new(0)).collect(),
            sent: AtomicUsize::new(0),
            read: AtomicUsize::new(MISSED),
            waited: std::sync::Mutex::default(),
        };
        let sender = bench.server.sender();
        for number in 0..MISSED {
            sender.send(&numbered(number, EVENT_BYTES)).unwrap();
        }
        bench.sent.store(MISSED, Ordering::SeqCst);
        within(PATIENCE, "everything is published", || {
            (bench.server.health()["events_forwarded"] == MISSED).then_some(())
        });
        bench
    }

    fn publish(&self, stop: &AtomicBool) {
        let sender = self.server.sender();
        let begun = Instant::now();
        for number in MISSED..EVENTS_MAX {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let due = EVERY * (number - MISSED) as u32;
            pause(due.saturating_sub(begun.elapsed()));
            self.sent_us[number].store(monotonic_us(), Ordering::SeqCst);
            sender.send(&numbered(number, EVENT_BYTES)).unwrap();
            self.sent.store(number + 1, Ordering::SeqCst);
        }
    }

    fn live(&self) -> Vec<Reader> {
        (0..LIVE).map(|_| Reader::new(self.server.client(), MISSED)).collect()
    }

    fn read_live(&self, mut readers: Vec<Reader>, stop: &AtomicBool) {
        let mut scrap = vec![0; 256 * 1024];
        while !stop.load(Ordering::SeqCst) {
            read_ready(&mut readers, &mut scrap, |number| {
                let took = monotonic_us().saturating_sub(self.sent_us[number].load(Ordering::SeqCst));
                self.waited.lock().unwrap().push(took);
            });
            let least = readers.iter().map(|reader| reader.next).min().unwrap();
            self.read.store(least, Ordering::SeqCst);
        }
    }

    /// The resuming of many at once, to the end of the last.
    fn resume(&self) {
        let first = self.sent.load(Ordering::SeqCst) - MISSED;
        let join = |index: usize| {
            // The number of an event is one more than its place.
            let since = format!("since={}:{first}", self.epoch);
            Reader::new(
                TestClient::with(self.server.address, &options(index.is_multiple_of(2), &since)),
                first,
            )
        };
        let readers: Vec<Reader> = (0..RESUMING).map(join).collect();
        let until = self.sent.load(Ordering::SeqCst);
        let (one, other) = readers.into_iter().enumerate().partition(|(index, _)| index % 4 < 2);
        let read = |readers: Vec<(usize, Reader)>| {
            let mut readers: Vec<Reader> = readers.into_iter().map(|(_, reader)| reader).collect();
            let mut scrap = vec![0; 256 * 1024];
            let begun = Instant::now();
            while !readers.is_empty() {
                read_ready(&mut readers, &mut scrap, |_| ());
                readers.retain(|reader| reader.next < until);
                assert!(
                    begun.elapsed() < PATIENCE,
                    "{} clients have not caught up",
                    readers.len()
                );
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(move || read(other));
            read(one);
        });
    }

    /// The figures of what `during` does, with all that was sent in the meantime.
    fn phase(&self, during: impl FnOnce()) -> Figures {
        let (worked, waited, slow) = self.fanout();
        self.waited.lock().unwrap().clear();
        let begun = Instant::now();
        during();
        let took = begun.elapsed().as_secs_f64();
        let until = self.sent.load(Ordering::SeqCst);
        within(PATIENCE, "the live clients get every event", || {
            (self.read.load(Ordering::SeqCst) >= until).then_some(())
        });
        let (worked_then, waited_then, slow_then) = self.fanout();
        let mut times = std::mem::take(&mut *self.waited.lock().unwrap());
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
        Figures {
            p50: at(0.5),
            p99: at(0.99),
            most: at(1.0),
            worked: (worked_then - worked) / took,
            waited: (waited_then - waited) / took,
            slow: slow_then - slow,
            took,
        }
    }

    /// What thread `fanout` has run and waited, in milliseconds, and its slow broadcasts.
    fn fanout(&self) -> (f64, f64, f64) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.server.pid())).unwrap();
        let name = |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let mut paths = tasks.map(|task| task.unwrap().path());
        let fanout = paths.find(|path| name(path).trim() == "fanout").unwrap();
        let facts = std::fs::read_to_string(fanout.join("schedstat")).unwrap();
        let mut millis = facts.split(' ').map(|nanos| nanos.parse::<f64>().unwrap_or(0.0) / 1e6);
        let slow = self.server.health()["slow_operations"]["broadcast"]["count"].as_f64();
        (millis.next().unwrap(), millis.next().unwrap(), slow.unwrap_or(0.0))
    }
}

impl Figures {
    fn all(&self) -> [f64; 7] {
        [
            self.p50,
            self.p99,
            self.most,
            self.worked,
            self.waited,
            self.slow,
            self.took,
        ]
    }

    fn of([p50, p99, most, worked, waited, slow, took]: [f64; 7]) -> Figures {
        Figures {
            p50,
            p99,
            most,
            worked,
            waited,
            slow,
            took,
        }
    }

    fn medians(rounds: &[Figures]) -> Figures {
        let median = |index: usize| {
            let mut values: Vec<f64> = rounds.iter().map(|round| round.all()[index]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Figures {
            slow: rounds.iter().map(|round| round.slow).sum(),
            ..Figures::of(std::array::from_fn(median))
        }
    }

    fn over(&self, other: &Figures) -> Figures {
        let (ours, theirs) = (self.all(), other.all());
        Figures {
            slow: self.slow - other.slow,
            ..Figures::of(std::array::from_fn(|index| ours[index] / theirs[index]))
        }
    }

    fn print(&self, name: &str) {
        let Figures {
            p50,
            p99,
            most,
            worked,
            waited,
            slow,
            ..
        } = self;
        println!("{name:<14} {p50:6.2} {p99:8.2} {most:9.2} {worked:8.1} {waited:8.1} {slow:6.0}");
    }
}

fn options(v1: bool, query: &str) -> Options {
    Options {
        target: format!("/ws/events?{query}"),
        headers: v1
            .then(|| "Sec-WebSocket-Protocol: threadcast.v1".to_owned())
            .into_iter()
            .collect(),
        ..Options::default()
    }
}

/// A client that checks each number, and nothing else.
struct Reader {
    socket: TcpStream,
    received: Vec<u8>,
    next: usize,
}

impl Reader {
    fn new(client: TestClient, next: usize) -> Reader {
        let (socket, received) = client.into_parts();
        socket.set_nonblocking(true).unwrap();
        Reader { socket, received, next }
    }

    fn read(&mut self, scrap: &mut [u8], mut each: impl FnMut(usize)) {
        match self.socket.read(scrap) {
            Ok(0) => panic!("ended before event {}", self.next),
            Ok(count) => self.received.extend_from_slice(&scrap[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(error) => panic!("{error} before event {}", self.next),
        }
        let mut start = 0;
        while let Some((opcode, payload, len)) = peek(&self.received[start..]) {
            start += len;
            if opcode == TEXT
                && let Some(number) = number_of(event_of(payload))
            {
                assert_eq!(number, self.next);
                self.next += 1;
                each(number);
            }
        }
        self.received.drain(..start);
    }
}

/// The event inside of what a numbered client gets.
fn event_of(payload: &[u8]) -> &[u8] {
    const KEY: &[u8] = b",\"event\":";
    if !payload.starts_with(b"{\"seq\":") {
        return payload;
    }
    let at = payload.windows(KEY.len()).position(|window| window == KEY);
    at.map_or(payload, |at| &payload[at + KEY.len()..])
}

/// Reads those that have something, once each; waits for it at most 50 ms.
fn read_ready(readers: &mut [Reader], scrap: &mut [u8], mut each: impl FnMut(usize)) {
    let mut fds: Vec<PollFd<'_>> = readers
        .iter()
        .map(|reader| PollFd::new(&reader.socket, PollFlags::IN))
        .collect();
    let look = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let _ = poll(&mut fds, Some(&look));
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    for (reader, ready) in readers.iter_mut().zip(ready) {
        if ready {
            reader.read(scrap, &mut each);
        }
    }
}
