//! Answers who may act.
//!
//! Runs on: `admin`, one; each request on `admin-request`, at most four at a time.
//! Owns: the admin socket and its file.
//! Blocks on: a connection (250 ms); a request on its head (5 s), the fan-out (4 s) or a report (10 s), and its answer (20 s).
//! Can be stalled by: the file system of the socket, for a moment each second.
//! Full queue means: a fifth request is told 503; the kernel holds 16 connections, whoever comes then is refused.
//! Ends when: asked to; requests under way are then cut off within their bounds.
//! Watched as: `admin`; not a core thread, a stall makes health `degraded`. Requests are not watched: each has its bounds.

use crate::admin::credentials::Rule;
use crate::admin::place::Bound;
use crate::client::http::{self, Answer, HeadError};
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::clock::{pause, timespec};
use crate::process::peer::Peer;
use crate::process::refusal::Refusal;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::web::Site;
use crate::web::acting::Acting;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a connection.
const TURN: Duration = Duration::from_millis(250);
/// How often the file of the socket is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Requests at a time: a person, a script, a page's server, and one to spare.
const REQUESTS_MAX: usize = 4;
/// How long a peer that is refused has for its request; commands send it at once.
const REFUSAL_WAIT: Duration = Duration::from_millis(50);
/// How long to stand back when the host is out of something.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What the thread shows.
#[derive(Debug, Default)]
pub struct AdminGauges {
    /// Peers that may not act, and asked.
    pub refused: AtomicU64,
}

/// What every request works with.
#[derive(Debug)]
struct Desk {
    acting: Acting,
    site: Arc<Site>,
    stop: Stop,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Admin {
    bound: Bound,
    rule: Rule,
    desk: Arc<Desk>,
    gauges: Arc<AdminGauges>,
    requests: Vec<ThreadHandle<()>>,
    looked: Instant,
    beat: &'static Beat,
    stop: Stop,
}

impl Admin {
    /// Ready to run.
    pub fn new(
        bound: Bound,
        rule: Rule,
        (acting, site): (Acting, Arc<Site>),
        gauges: Arc<AdminGauges>,
        (beat, stop): (&'static Beat, Stop),
    ) -> Admin {
        let desk = Desk {
            acting,
            site,
            stop: stop.clone(),
        };
        Admin {
            bound,
            rule,
            desk: Arc::new(desk),
            gauges,
            requests: Vec::new(),
            looked: Instant::now(),
            beat,
            stop,
        }
    }

    /// The thread's body.
    pub fn run(mut self) {
        self.beat.adopt();
        while !self.stop.requested() {
            drill::obey(self.beat);
            self.wait();
            let _doing = self.beat.begin(Operation::Accepting);
            self.requests.retain(|request| !request.is_finished());
            self.take_in();
            if self.looked.elapsed() >= LOOK {
                self.look();
            }
        }
        // Its file goes before the thread is seen to end.
        drop(self.bound);
        self.beat.turn_to(Operation::Ended);
    }

    fn wait(&self) {
        let _doing = self.beat.begin(Operation::Waiting);
        let mut fds = [
            PollFd::new(&self.bound.listener, PollFlags::IN),
            PollFd::new(&self.stop, PollFlags::IN),
        ];
        // An interrupted poll costs nothing: accepting does not block.
        let _ = waits::ADMIN.judge(poll(&mut fds, Some(&timespec(TURN))));
    }

    fn take_in(&mut self) {
        for _ in 0..=REQUESTS_MAX {
            self.beat.step();
            match self.bound.listener.accept() {
                Ok((socket, _)) => self.receive(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::error!(
                        "🚨 cannot accept a connection at the admin socket: {error}; it is tried again every {BACK_OFF:?}"
                    );
                    let _doing = self.beat.begin(Operation::Waiting);
                    return pause(BACK_OFF);
                }
            }
        }
    }

    fn receive(&mut self, socket: UnixStream) {
        let peer = match self.rule.judge(&socket) {
            Ok(Ok(peer)) => peer,
            Ok(Err(refused)) => return self.refuse(&socket, 403, &refused.to_string()),
            Err(error) => return self.refuse(&socket, 403, &format!("the kernel does not tell who asks: {error}")),
        };
        if self.requests.len() >= REQUESTS_MAX {
            return self.refuse(&socket, 503, "four requests are being answered; ask again");
        }
        let desk = Arc::clone(&self.desk);
        // A request reads and writes only this socket, within its own bounds.
        let socket = Arc::new(socket);
        let own = Arc::clone(&socket);
        let started = socket
            .set_nonblocking(true)
            .and_then(|()| threads::spawn("admin-request", CORE_STACK_BYTES, None, move || desk.answer(&own, peer)));
        match started {
            Ok(handle) => self.requests.push(handle),
            Err(error) => self.refuse(
                &socket,
                503,
                &format!(
                    "the server cannot start another thread: {error}; to mend it, {}",
                    Refusal::of(&error)
                ),
            ),
        }
    }

    /// Tells a peer why not. Blocks 50 ms at most, for what it asks: bytes left unread would make its end a broken connection
    /// instead of an answer.
    fn refuse(&self, socket: &UnixStream, status: u16, why: &str) {
        if status == 403 {
            self.gauges.refused.fetch_add(1, Ordering::Relaxed);
        }
        log::warn!("⚠️ refused a request at the admin socket: {why}");
        let bytes = Answer::detail(status, why).encode("POST");
        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timespec(REFUSAL_WAIT)));
        let _ = recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT);
        // An empty socket takes it at once; whoever has gone need not know.
        let _ = socket.set_nonblocking(true);
        let _ = io::Write::write(&mut &*socket, &bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Makes the file again when somebody has taken it away.
    fn look(&mut self) {
        self.looked = Instant::now();
        if self.bound.is_there() {
            return;
        }
        let made = self.bound.make_again(self.rule.group);
        let path = &self.bound.path;
        match made {
            Ok(()) => log::warn!("⚠️ admin socket {} was gone; it is there again", path.display()),
            Err(error) => log::error!(
                "🚨 admin socket {} is gone and cannot be made again: {error}; nobody can act on this server until it is. It \
                 is tried every second",
                path.display()
            ),
        }
    }
}

impl Desk {
    /// The body of `admin-request`.
    fn answer(&self, socket: &UnixStream, peer: Peer) {
        let (method, answer) = match http::read_head(socket.as_fd(), &self.stop) {
            Ok(head) => {
                let answer = self.acting.answer(&head).unwrap_or_else(|| self.site.answer(&head));
                log::info!(
                    "🔑 {:.20} {:.200} of user {} (process {}) at the admin socket: {}",
                    head.method,
                    head.path,
                    peer.uid,
                    peer.pid,
                    answer.summary()
                );
                (head.method, answer)
            }
            Err(HeadError::Refused(refusal)) => ("POST".to_owned(), refusal),
            Err(_) => return,
        };
        http::answer(socket, &method, &answer, &self.stop);
    }
}
