//! Answers those who may act, at the admin socket.
//!
//! Runs on: `admin`, one; each request on `admin-request`, at most four at a time for each of root, the server's own
//! user, and the members of `--admin-group`.
//! Owns: the admin socket with its file and lock; some descriptors in reserve; the handles of the requests' threads.
//! Blocks on: a connection (250 ms); a request on its head (5 s), the fan-out (4 s) or a report (10 s), and its answer
//! (5 s).
//! Can be stalled by: the file system of the socket, for a moment each second.
//! Full queue means: a fifth request of the same standing gets 503, counted in `admin_busy`; the kernel holds 16
//! connections, and refuses the next.
//! Ends when: asked to; requests under way are then cut off within 1 s, and `main` joins their threads.
//! Watched as: `admin`; not a core thread, a stall makes health `degraded`. Requests are not watched: each has its
//! bounds.

use crate::admin::credentials::{Rule, Standing};
use crate::admin::place::Bound;
use crate::admin::refusals::{Refusal, Refusals};
use crate::admin::reserve::{Reserve, Room};
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::clock::{pause, timespec};
use crate::process::peer::{self, Peer};
use crate::process::refusal;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::vitals::admin_gauges::AdminGauges;
use crate::web::Site;
use crate::web::acting::Acting;
use crate::web::http::{self, AnswerBounds, HeadError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait for a connection.
const TURN: Duration = Duration::from_millis(250);
/// How often the thread looks for the file of the socket, and makes it again if it is gone.
const LOOK: Duration = Duration::from_secs(1);
/// Requests of one standing at a time: a person, a script, a page's server, and one to spare.
const REQUESTS_MAX: usize = 4;
/// Connections taken in before the thread's other duties have their turn.
const ACCEPTS_PER_TURN: usize = 16;
/// How long to stand back when the host is out of something.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How often the log says again that a fault lasts.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What every request works with.
#[derive(Debug)]
struct Desk {
    acting: Acting,
    site: Arc<Site>,
    stop: Stop,
}

/// A request under way.
#[derive(Debug)]
struct Request {
    standing: Standing,
    thread: ThreadHandle<()>,
    /// Its thread's too.
    socket: Arc<UnixStream>,
}

/// A fault that lasts. The log says so at once, then once a minute.
#[derive(Debug, Default)]
struct Lasting(Option<Instant>);

impl Lasting {
    /// Returns whether it is time to say that it lasts.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .0
            .is_none_or(|said| now.saturating_duration_since(said) >= SAY_EVERY);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }

    /// The fault is over. Returns when the log said so last, if there was a fault.
    fn end(&mut self) -> Option<Instant> {
        self.0.take()
    }
}

/// The thread's own things.
#[derive(Debug)]
pub struct Admin {
    bound: Bound,
    rule: Rule,
    desk: Arc<Desk>,
    gauges: Arc<AdminGauges>,
    requests: Vec<Request>,
    refusals: Refusals,
    reserve: Reserve,
    looked: Instant,
    lost: Lasting,
    deaf: Lasting,
    beat: &'static Beat,
    stop: Stop,
}

impl Admin {
    /// Ready to run.
    pub fn new(
        bound: Bound,
        rule: Rule,
        acting: Acting,
        site: Arc<Site>,
        gauges: Arc<AdminGauges>,
        beat: &'static Beat,
        stop: Stop,
    ) -> Admin {
        let desk = Desk {
            acting,
            site,
            stop: stop.clone(),
        };
        let mut reserve = Reserve::default();
        reserve.fill();
        Admin {
            bound,
            rule,
            desk: Arc::new(desk),
            gauges,
            requests: Vec::new(),
            refusals: Refusals::default(),
            reserve,
            looked: Instant::now(),
            lost: Lasting::default(),
            deaf: Lasting::default(),
            beat,
            stop,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<Vec<ThreadHandle<()>>>> {
        threads::spawn("admin", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body; returns the threads of requests that still run.
    fn run(mut self) -> Vec<ThreadHandle<()>> {
        self.beat.adopt();
        while !self.stop.requested() {
            drill::obey(self.beat);
            self.wait();
            let _doing = self.beat.begin(Operation::Accepting);
            self.reap();
            self.take_in();
            for done in self.refusals.turn(false) {
                self.close(done);
            }
            if self.looked.elapsed() >= LOOK {
                self.look();
            }
        }
        self.refusals.turn(true);
        // Its file goes before the thread is seen to end.
        drop(self.bound);
        self.beat.turn_to(Operation::Ended);
        self.requests.into_iter().map(|request| request.thread).collect()
    }

    fn wait(&self) {
        let _doing = self.beat.begin(Operation::Waiting);
        let mut fds = vec![
            PollFd::new(&self.bound.listener, PollFlags::IN),
            PollFd::new(&self.stop, PollFlags::IN),
        ];
        fds.extend(self.refusals.fds());
        let longest = self.refusals.time_left().map_or(TURN, |left| left.min(TURN));
        // An interrupted poll costs nothing: accepting does not block.
        let _ = waits::ADMIN.judge(poll(&mut fds, Some(&timespec(longest))));
    }

    /// Lets go of requests that have ended.
    fn reap(&mut self) {
        let ended: Vec<Request> = self
            .requests
            .extract_if(.., |request| request.thread.is_finished())
            .collect();
        for request in ended {
            self.beat.step();
            // Finished, so this does not wait.
            if let Err(error) = request.thread.join_within(BACK_OFF) {
                log::error!("🚨 {error}; that request got no answer. Please report it with the lines before this one");
            }
            if let Some(socket) = Arc::into_inner(request.socket) {
                self.close(socket);
            }
        }
        if self.requests.is_empty() && self.refusals.is_empty() {
            self.reserve.fill();
        }
    }

    /// The peer sees the end now, whatever becomes of the descriptor.
    fn close(&mut self, socket: UnixStream) {
        let _ = socket.shutdown(Shutdown::Both);
        self.reserve.keep(socket);
    }

    fn take_in(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            self.beat.step();
            match self.bound.listener.accept() {
                Ok((socket, _)) => {
                    if self.deaf.end().is_some() {
                        log::info!("✅ connections at the admin socket are accepted again");
                    }
                    self.receive(socket);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let is_out = matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE));
                    if !is_out || self.reserve.give_one() == Room::None {
                        return self.stand_back(&error);
                    }
                }
            }
        }
    }

    fn stand_back(&mut self, error: &io::Error) {
        if self.deaf.is_due(Instant::now()) {
            log::error!(
                "🚨 cannot accept a connection at the admin socket: {error}; trying again every {BACK_OFF:?}. To mend it, \
                 {}",
                refusal::Refusal::of(error)
            );
        }
        let _doing = self.beat.begin(Operation::Waiting);
        pause(BACK_OFF);
    }

    fn receive(&mut self, socket: UnixStream) {
        let peer = match peer::credentials(&socket) {
            Ok(peer) => peer,
            Err(error) => return self.refuse(socket, None, 403, format!("the kernel does not tell who asks: {error}")),
        };
        let standing = match self.rule.judge(peer, &socket) {
            Ok(Ok(standing)) => standing,
            Ok(Err(why)) => return self.refuse(socket, Some(peer), 403, why.to_string()),
            Err(error) => {
                let why = format!("the kernel does not tell your groups: {error}");
                return self.refuse(socket, Some(peer), 403, why);
            }
        };
        let under_way = self.requests.iter().filter(|request| request.standing == standing);
        if under_way.count() >= REQUESTS_MAX {
            let why = format!("{REQUESTS_MAX} requests of {standing} are being answered; ask again");
            return self.refuse(socket, Some(peer), 503, why);
        }
        let desk = Arc::clone(&self.desk);
        let socket = Arc::new(socket);
        let own = Arc::clone(&socket);
        let started = socket
            .set_nonblocking(true)
            .and_then(|()| threads::spawn("admin-request", CORE_STACK_BYTES, None, move || desk.answer(&own, peer)));
        match started {
            Ok(thread) => self.requests.push(Request {
                standing,
                thread,
                socket,
            }),
            Err(error) => {
                // The body that was not started is gone, and its part of the socket with it.
                if let Some(socket) = Arc::into_inner(socket) {
                    let remedy = refusal::Refusal::of(&error);
                    let why = format!("the server cannot start another thread: {error}; to mend it, {remedy}");
                    self.refuse(socket, Some(peer), 503, why);
                }
            }
        }
    }

    fn refuse(&mut self, socket: UnixStream, peer: Option<Peer>, status: u16, why: String) {
        let counter = match status {
            403 => &self.gauges.refused,
            _ => &self.gauges.busy,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let refusal = Refusal {
            socket,
            peer,
            status,
            why,
        };
        if let Some(done) = self.refusals.add(refusal) {
            self.close(done);
        }
    }

    /// Makes the file again when somebody has taken it away.
    fn look(&mut self) {
        self.looked = Instant::now();
        if self.bound.is_there() {
            return;
        }
        let made = self.bound.make_again(self.rule.group);
        // Relaxed: a fact by itself.
        self.gauges.lost.store(made.is_err(), Ordering::Relaxed);
        let path = self.bound.path.display();
        match made {
            Ok(()) => {
                self.lost.end();
                log::warn!("⚠️ admin socket {path} was gone; it is there again");
            }
            Err(error) if self.lost.is_due(self.looked) => log::error!(
                "🚨 admin socket {path} is gone and cannot be made again: {error}. Nobody can act on this server until it is \
                 there; trying again every second"
            ),
            Err(_) => {}
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
        http::answer(socket, &method, &answer, AnswerBounds::LOCAL, &self.stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_lasts_is_said_once_a_minute() {
        let begun = Instant::now();
        let mut fault = Lasting::default();
        assert_eq!(fault.end(), None);
        let said: Vec<u64> = (0..150)
            .filter(|second| fault.is_due(begun + Duration::from_secs(*second)))
            .collect();
        assert_eq!(said, [0, 60, 120]);
        assert_ne!(fault.end(), None);
        assert!(fault.is_due(begun), "a new one is said at once");
    }
}
