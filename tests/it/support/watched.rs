//! A server that ten clients watch, and rows of trouble for it: whatever somebody does, the line that tells of it is
//! there, its counter has moved, and the watching clients have noticed nothing.

use super::{Sender, TestClient, TestServer, eventually, numbered};
use serde_json::Value;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Clients that watch.
const WATCHERS: usize = 10;
/// Events in a row that they must see, and how long it is from one such row to the next.
const EVENTS: usize = 3;
const RHYTHM: Duration = Duration::from_millis(20);

/// One kind of trouble.
pub struct Row<'a> {
    pub what: &'a str,
    /// Makes it, and checks what its maker sees. Must have let go of everything when it returns.
    pub trouble: Box<dyn FnOnce(&TestServer) + Send + 'a>,
    /// Part of the line that tells of it.
    pub line: Option<&'a str>,
    /// The counter in `/health` (a JSON pointer, RFC 6901), and by how much it rises at least.
    pub counter: Option<(String, u64)>,
    /// Descriptors that the server keeps from then on because it is meant to.
    pub kept_descriptors: usize,
}

impl<'a> Row<'a> {
    /// Trouble that is told in `line` and moves `counter` by `by` at least.
    pub fn new(
        what: &'a str,
        line: &'a str,
        counter: &str,
        by: u64,
        trouble: impl FnOnce(&TestServer) + Send + 'a,
    ) -> Row<'a> {
        Row {
            what,
            trouble: Box::new(trouble),
            line: Some(line),
            counter: Some((counter.to_owned(), by)),
            kept_descriptors: 0,
        }
    }

    /// Trouble that is nobody's fault: nothing need be told or counted, only harmless must it be.
    pub fn harmless(what: &'a str, trouble: impl FnOnce(&TestServer) + Send + 'a) -> Row<'a> {
        Row {
            what,
            trouble: Box::new(trouble),
            line: None,
            counter: None,
            kept_descriptors: 0,
        }
    }
}

/// The server with its watchers.
pub struct Watched {
    pub server: TestServer,
    watchers: Watchers,
    threads: usize,
    descriptors: usize,
}

struct Watchers {
    clients: Vec<TestClient>,
    sender: Sender,
    next: usize,
}

impl Watchers {
    /// Sends events and checks that every watcher gets exactly these, in order.
    #[track_caller]
    fn watch(&mut self) {
        let numbers = self.next..self.next + EVENTS;
        for number in numbers.clone() {
            self.sender.send(&numbered(number, 100)).unwrap();
        }
        for client in &mut self.clients {
            client.expect_numbers(numbers.clone());
        }
        self.next = numbers.end;
    }
}

impl Watched {
    /// Ten clients join.
    #[track_caller]
    pub fn new(server: TestServer) -> Watched {
        let mut watchers = Watchers {
            clients: (0..WATCHERS).map(|_| server.client()).collect(),
            sender: server.sender(),
            next: 0,
        };
        watchers.watch();
        let (threads, descriptors) = server.footprint();
        Watched {
            threads,
            descriptors,
            watchers,
            server,
        }
    }

    /// Makes the trouble of `row` and judges what came of it.
    #[track_caller]
    pub fn judge(&mut self, row: Row<'_>) {
        let lines = row.line.map_or(0, |line| said(&self.server, line));
        let count = row.counter.as_ref().map_or(0, |(name, _)| counted(&self.server, name));
        self.judge_from(row, lines, count);
    }

    /// The same for trouble that has been there since the server's start.
    #[track_caller]
    pub fn judge_since_start(&mut self, row: Row<'_>) {
        self.judge_from(row, 0, 0);
    }

    #[track_caller]
    fn judge_from(&mut self, row: Row<'_>, lines: usize, count: u64) {
        self.descriptors += row.kept_descriptors;
        let Watched { server, watchers, .. } = self;
        let server: &TestServer = server;
        let what = row.what;
        eprintln!("{what}");
        thread::scope(|scope| {
            let (over, is_over) = channel::<()>();
            scope.spawn(move || {
                // Dropped, also by a panic, when the trouble is over.
                let _over = over;
                (row.trouble)(server);
            });
            while is_over.recv_timeout(RHYTHM) == Err(RecvTimeoutError::Timeout) {
                watchers.watch();
            }
        });
        watchers.watch();
        if let Some(line) = row.line {
            eventually(&format!("{what}: a line with {line:?}"), || {
                (said(server, line) > lines).then_some(())
            });
        }
        if let Some((name, by)) = row.counter {
            eventually(&format!("{what}: {name} rises by {by} from {count}"), || {
                (counted(server, &name) >= count + by).then_some(())
            });
        }
        self.is_as_before(what);
    }

    /// Waits until nothing is left of the trouble.
    #[track_caller]
    fn is_as_before(&mut self, what: &str) {
        let server = &self.server;
        eventually(&format!("{what}: the server is well, with its watchers alone"), || {
            let health = server.health();
            (health["status"] == "ok" && health["connections"] == WATCHERS).then_some(())
        });
        eventually(&format!("{what}: threads and descriptors come back"), || {
            (server.threads() <= self.threads && server.descriptors() <= self.descriptors).then_some(())
        });
        self.watchers.watch();
    }
}

/// How many lines with `part` there are, on the terminal and in the log file.
fn said(server: &TestServer, part: &str) -> usize {
    let file = std::fs::read(server.path("logs/websocket-server.log")).unwrap_or_default();
    server.lines().with(part).len() + String::from_utf8_lossy(&file).matches(part).count()
}

/// A counter of `/health`.
#[track_caller]
fn counted(server: &TestServer, name: &str) -> u64 {
    let health = server.health();
    let value = health.pointer(name).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no counter {name} in {health}"))
}
