//! Takes in connections and gives each a thread.
//!
//! Runs on: `accept`, one.
//! Owns: the listener, the handles of the connections' threads.
//! Blocks on: a connection (250 ms); out of descriptors: a pause of 100 ms.
//! Can be stalled by: the kernel's making of a thread.
//! Full queue means: a connection beyond the bound gets 503 and its end; counted in `connections_failed`.
//! Ends when: asked to; the handles then go to `main`, which joins the threads.
//! Watched as: `accept`, a core thread.

use crate::client::handshake::{Connection, Reception, STACK_BYTES};
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::outbox::gauges::ConnectionFault;
use crate::process::clock::{pause, timespec};
use crate::process::limits;
use crate::process::refusal::Refusal;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, Obituaries, ThreadHandle};
use crate::process::waits;
use crate::web::http::Answer;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait for a connection.
const TURN: Duration = Duration::from_millis(250);
/// How long to stand back when the host is out of something.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Connections taken in before the thread's other duties have their turn.
const ACCEPTS_PER_TURN: usize = 64;
/// How often the thread looks for ended threads.
const REAP_EVERY: Duration = Duration::from_millis(250);

/// The thread's own things.
#[derive(Debug)]
pub struct Accept {
    listener: TcpListener,
    /// SO_SNDBUF of every connection, in bytes as given to setsockopt(2).
    send_buffer_bytes: Option<usize>,
    reception: Arc<Reception>,
    connections_max: usize,
    threads: Vec<ThreadHandle<()>>,
    next_id: u64,
    reaped: Instant,
    /// Since when, and how often, connections could not be taken in.
    failing: Option<(Instant, u64)>,
    beat: &'static Beat,
    stop: Stop,
}

impl Accept {
    /// Ready to run. `listener` must be non-blocking.
    pub fn new(listener: TcpListener, reception: Arc<Reception>, beat: &'static Beat, stop: Stop) -> Accept {
        Accept {
            // Linux sets twice the bytes that a process asks for (socket(7)).
            send_buffer_bytes: sockopt::socket_send_buffer_size(&listener).ok().map(|size| size / 2),
            listener,
            connections_max: reception.settings.connections_max,
            reception,
            threads: Vec::new(),
            next_id: 1,
            reaped: Instant::now(),
            failing: None,
            beat,
            stop,
        }
    }

    /// Starts the thread. `obituaries` gets its name when it ends.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`] says what helps.
    pub fn start(self, obituaries: Obituaries) -> io::Result<ThreadHandle<Vec<ThreadHandle<()>>>> {
        threads::spawn("accept", CORE_STACK_BYTES, Some(obituaries), move || self.run())
    }

    /// The thread's body; returns the threads that still run.
    fn run(mut self) -> Vec<ThreadHandle<()>> {
        self.beat.adopt();
        while !self.stop.requested() {
            drill::obey(self.beat);
            self.wait();
            let _doing = self.beat.begin(Operation::Accepting);
            self.take_in();
            if self.reaped.elapsed() >= REAP_EVERY {
                self.reap();
            }
        }
        self.beat.turn_to(Operation::Ended);
        self.threads
    }

    fn wait(&self) {
        let _doing = self.beat.begin(Operation::Waiting);
        let mut fds = [
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
        ];
        // An interrupted poll costs nothing: accepting does not block, and the next turn polls again.
        let _ = waits::ACCEPT.judge(poll(&mut fds, Some(&timespec(TURN))));
    }

    fn take_in(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            self.beat.step();
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    self.say_recovered();
                    self.receive(socket, peer);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted => {}
                    // The peer left before we came: the next one may be fine.
                    io::ErrorKind::ConnectionAborted => {
                        self.reception.gauges.faults.add(ConnectionFault::Gone);
                    }
                    _ => return self.stand_back(&error),
                },
            }
        }
    }

    /// The host is out of something: counts it, says what to do, and gives it 100 ms.
    fn stand_back(&mut self, error: &io::Error) {
        let (fault, advice) = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE) => (
                ConnectionFault::NoDescriptor,
                "raise the server's limit of descriptors (ulimit -n, LimitNOFILE=) or lower --max-clients",
            ),
            Some(Errno::NFILE) => (
                ConnectionFault::NoDescriptor,
                "the whole host is out of descriptors (fs.file-max): look which process has so many",
            ),
            _ => (ConnectionFault::AcceptFailed, "look at the host's memory and network"),
        };
        self.reception.gauges.faults.add(fault);
        self.failing.get_or_insert((Instant::now(), 0)).1 += 1;
        log::error!(
            "🚨 cannot accept a connection: {error}; newcomers wait, and it is tried again every {BACK_OFF:?}. To mend \
             it, {advice}"
        );
        let _doing = self.beat.begin(Operation::Waiting);
        pause(BACK_OFF);
        self.reap();
    }

    fn say_recovered(&mut self) {
        if let Some((since, attempts)) = self.failing.take() {
            let seconds = since.elapsed().as_secs_f64();
            log::info!("✅ connections are accepted again, after {seconds:.1} s and {attempts} failed attempts");
        }
    }

    fn receive(&mut self, socket: TcpStream, peer: SocketAddr) {
        if self.threads.len() >= self.connections_max {
            self.reap();
        }
        if self.threads.len() >= self.connections_max {
            return self.refuse(&socket, peer, ConnectionFault::TooMany, "too many connections");
        }
        if limits::is_short_of(STACK_BYTES as u64) {
            let why = io::Error::other("the limit of the address space is all but reached");
            return self.refuse_thread(&socket, peer, &why, Refusal::Threads { addresses: true });
        }
        self.set_options(&socket);
        let id = self.next_id;
        self.next_id += 1;
        let socket = Arc::new(socket);
        let connection = Connection {
            id,
            peer,
            socket: Arc::clone(&socket),
        };
        let reception = Arc::clone(&self.reception);
        match connection.start(reception) {
            Ok(handle) => self.threads.push(handle),
            Err(error) => self.refuse_thread(&socket, peer, &error, Refusal::of(&error)),
        }
    }

    /// The host gives no thread for a connection.
    fn refuse_thread(&self, socket: &TcpStream, peer: SocketAddr, error: &io::Error, remedy: Refusal) {
        let fewer = if remedy.is_limit() {
            ", or lower --max-clients"
        } else {
            ""
        };
        log::error!(
            "🚨 cannot start a thread for a client: {error}; it was told to come back. To mend it, {remedy}{fewer}"
        );
        let why = "the server cannot start another thread";
        self.refuse(socket, peer, ConnectionFault::NoThread, why);
    }

    /// Connections inherit these from the listener (tcp(7)), but one that a passed listener took before our start has
    /// not: the listener had no options then.
    fn set_options(&self, socket: &TcpStream) {
        // Neither can fail for a TCP socket that we hold; if one did, the handshake would still be answered.
        let _ = sockopt::set_tcp_nodelay(socket, true);
        if let Some(bytes) = self.send_buffer_bytes {
            let _ = sockopt::set_socket_send_buffer_size(socket, bytes);
        }
    }

    /// Tells a connection to come back later, without waiting for it.
    fn refuse(&self, socket: &TcpStream, peer: SocketAddr, fault: ConnectionFault, why: &str) {
        self.reception.gauges.refused.fetch_add(1, Ordering::Relaxed);
        self.reception.gauges.faults.add(fault);
        log::warn!("⚠️ refused a connection of {peer}: {why}");
        let answer = Answer::detail(503, why).with("retry-after", "5".to_owned());
        // Bytes left unread would make the kernel reset the connection before the peer has read why.
        let _ = recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT);
        // An empty socket takes it at once; a peer that has gone is none of our business.
        let _ = send(socket, &answer.encode("GET"), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Lets go of threads that have ended.
    fn reap(&mut self) {
        self.reaped = Instant::now();
        for handle in self.threads.extract_if(.., |handle| handle.is_finished()) {
            self.beat.step();
            // Finished, so this does not wait.
            if let Err(error) = handle.join_within(REAP_EVERY) {
                log::error!("🚨 {error}; that client is lost, the others are not");
            }
        }
    }
}
