//! The control socket: what a person asks of a running `threadcast up`.
//!
//! Runs on: `control`, one, in `threadcast up`.
//! Owns: the control socket, and its connections.
//! Blocks on: connections and their requests (250 ms a turn).
//! Can be stalled by: nothing; it reads what other threads have shown, and leaves orders without waiting.
//! Full queue means: of connections, the kernel refuses the next one; of orders, the answer says so.
//! Ends when: asked to.
//! Watched as: `control`, by thread `main`.
//!
//! A request is one line of JSON, an answer too: `{"do":"status"}`, `{"do":"stop","service":"NAME"}`.

use crate::liveness::beat::Beat;
use crate::liveness::operation::Operation;
use crate::process::clock::{epoch_seconds, pause, timespec};
use crate::process::nearest::nearest;
use crate::process::peer;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::visible::visible;
use crate::process::waits;
use crate::supervise::act::{Handle, Order};
use crate::supervise::board::Board;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest single wait.
const TURN: Duration = Duration::from_millis(250);
/// Connections at a time; the kernel holds some more.
const CONNECTIONS_MAX: usize = 16;
/// A request is a line of some 100 bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// The thread's rest after a fault of the kernel.
const STAND_BACK: Duration = Duration::from_millis(100);
/// A connection may last this long, so that those that say nothing make room.
const CONNECTION_LASTS: Duration = Duration::from_secs(2);

/// A connection whose request is not whole, or whose answer is not sent.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    request: Vec<u8>,
    /// What is left of the answer, once there is one.
    answer: Option<Vec<u8>>,
    until: Instant,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    connections: Vec<Connection>,
    board: Board,
    act: Handle,
    beat: &'static Beat,
    stop: Stop,
}

impl Control {
    /// Ready to run at a socket that does not block.
    pub fn new(listener: UnixListener, board: Board, act: Handle, beat: &'static Beat, stop: Stop) -> Control {
        Control {
            listener,
            connections: Vec::new(),
            board,
            act,
            beat,
            stop,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; `Refusal` says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("control", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        while !self.stop.requested() {
            self.wait();
            let _doing = self.beat.begin(Operation::Answering);
            self.accept();
            let now = Instant::now();
            let (board, act) = (&self.board, &self.act);
            self.connections
                .retain_mut(|connection| connection.until > now && connection.go_on(board, act));
        }
        self.beat.turn_to(Operation::Ended);
    }

    fn wait(&self) {
        let mut fds = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        if self.connections.len() < CONNECTIONS_MAX {
            fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        for connection in &self.connections {
            let wanted = match connection.answer {
                None => PollFlags::IN,
                Some(_) => PollFlags::OUT,
            };
            fds.push(PollFd::from_borrowed_fd(connection.stream.as_fd(), wanted));
        }
        let _doing = self.beat.begin(Operation::Waiting);
        // Interrupted or not, the turn looks at everything.
        let _ = waits::CONTROL.judge(poll(&mut fds, Some(&timespec(TURN))));
    }

    /// Takes in the connections that wait, of this user and of root.
    fn accept(&mut self) {
        while self.connections.len() < CONNECTIONS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Without a free descriptor the listener stays readable; a turn later there may be one.
                    if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                        pause(STAND_BACK);
                    }
                    return;
                }
            };
            let own = rustix::process::geteuid().as_raw();
            let is_ours = peer::credentials(&stream).is_ok_and(|peer| peer.uid == own || peer.uid == 0);
            if is_ours && stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection {
                    stream,
                    request: Vec::new(),
                    answer: None,
                    until: Instant::now() + CONNECTION_LASTS,
                });
            }
        }
    }
}

impl Connection {
    /// Reads, answers, writes, as far as nothing blocks. Returns whether there is more to do.
    fn go_on(&mut self, board: &Board, act: &Handle) -> bool {
        if self.answer.is_none() {
            match self.read() {
                Ok(false) => return true,
                Ok(true) => {
                    let mut answer = answer(&self.request, board, act).to_string().into_bytes();
                    answer.push(b'\n');
                    self.answer = Some(answer);
                }
                Err(_) => return false,
            }
        }
        let Some(rest) = &mut self.answer else {
            return true;
        };
        match self.stream.write(rest) {
            Ok(written) => {
                rest.drain(..written);
                !rest.is_empty()
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Reads what is there. Returns whether the request is whole.
    fn read(&mut self) -> io::Result<bool> {
        let mut part = [0; 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(more) => self.request.extend_from_slice(&part[..more]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.request.contains(&b'\n') || self.request.len() > REQUEST_BYTES_MAX {
                return Ok(true);
            }
        }
    }
}

/// The answer to a request.
fn answer(request: &[u8], board: &Board, act: &Handle) -> Value {
    let refused = |why: String| json!({"ok": false, "error": why});
    let Ok(request) = serde_json::from_slice::<Value>(request) else {
        return refused("the request is not one line of JSON".to_owned());
    };
    let wanted = request.get("do").and_then(Value::as_str).unwrap_or_default();
    match wanted {
        "status" => {
            let mut document = board.document(epoch_seconds());
            document["ok"] = true.into();
            return document;
        }
        "end" => {
            act.end();
            return json!({"ok": true, "text": "stopping everything", "pid": std::process::id()});
        }
        "start" | "stop" | "restart" => {}
        _ => return refused(format!("there is no {:?}", visible(wanted))),
    }
    let name = request.get("service").and_then(Value::as_str).unwrap_or_default();
    let names = board.names();
    let Some(service) = names.iter().find(|known| ***known == *name) else {
        return refused(unknown(name, &names));
    };
    let order = match wanted {
        "start" => Order::Start(Arc::clone(service)),
        "stop" => Order::Stop(Arc::clone(service)),
        _ => Order::Restart(Arc::clone(service)),
    };
    let before = board.rows().into_iter().find(|(known, _)| known == service);
    let before = before.map_or("unknown", |(_, row)| row.state.name());
    match act.give(order) {
        Ok(()) => json!({"ok": true, "text": format!("{service}: {wanted} ordered; it was {before}")}),
        Err(_) => refused(too_busy()),
    }
}

fn too_busy() -> String {
    "too many orders wait: the thread that starts and stops services does not move; `threadcast services status` says \
     what it does"
        .to_owned()
}

fn unknown(name: &str, names: &[Arc<str>]) -> String {
    let known: Vec<&str> = names.iter().map(|name| &**name).collect();
    match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("there is no service {:?}; did you mean {nearest:?}?", visible(name)),
        None => format!("there is no service {:?}, only {}", visible(name), known.join(", ")),
    }
}
