//! Runs one case: one thread sends, one receives as all of its clients with one epoll.
//!
//! A latency is from before the sending of an event to after the reading that brought it. One thread reads for
//! everybody, so it has the generator's own turns in it: the same for every server, and the reason to look at ratios
//! only.

use crate::case::{Case, Pace};
use crate::client::{Client, Kind, State};
use crate::cpu_clock::process_cpu;
use crate::event::Events;
use crate::machine::{self, Memory, now_ns};
use crate::sender::{RING, Sender, Shared};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread::{self, Thread};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// Connections that wait for their snapshot at the same time.
const CONNECTING_MAX: usize = 256;
/// All clients must be connected after so long.
const CONNECT_PATIENCE: u64 = 60 * SECOND;
/// Before measuring: everything has been touched once, buffers have grown.
const WARM: u64 = SECOND / 2;
/// After measuring: how long what is under way may take.
const DRAIN_PATIENCE: u64 = 10 * SECOND;
/// A loop in which nobody got anything for so long has lost something.
const STUCK: u64 = 2 * SECOND;
/// Longest single wait of the receiving thread.
const LOOK: u64 = SECOND / 20;
const ROOM: usize = 512 * 1024;
/// Of a burst: so much is under way at a time, some 4 MB; more would be beyond what servers keep for who is late.
const BURST: u64 = 20_000;
/// Reads of a stopped client at the end.
const STOPPED_READS_MAX: usize = 64;
/// A pausing client reads for a second and stands still for one.
const PAUSE_HALF: u64 = SECOND;

/// The percentiles that are kept of a distribution.
pub const PERCENTILES: [f64; 9] = [10.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0];

/// What one run has shown. Times are in seconds unless the name says otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    pub connect_s: f64,
    pub connect_cpu_s: f64,
    /// How long was measured.
    pub measured_s: f64,
    pub sent: u64,
    pub deliveries: u64,
    /// Of the reading clients: what they did not get, got again, or got changed; and how many of them were ended.
    pub missing: u64,
    pub repeated: u64,
    pub changed: u64,
    pub ended: u64,
    /// Of the stopped and pausing clients.
    pub slow_missing: u64,
    pub slow_ended: u64,
    /// Whether all was delivered within the patience.
    pub drained: bool,
    pub server_cpu_s: f64,
    pub generator_cpu_s: f64,
    /// Processor time of others, the kernel's own threads included; and what the host's host took.
    pub foreign_cpu_s: f64,
    pub steal_s: f64,
    pub switches_voluntary: u64,
    pub switches_forced: u64,
    /// In microseconds, at [`PERCENTILES`].
    pub latency_us: Vec<f64>,
    pub spread_us: Vec<f64>,
    pub memory: Memory,
    pub slab_before_kib: u64,
}

/// The moment at which something is measured.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: u64,
    server: f64,
    own: f64,
    host: f64,
    steal: f64,
    switches: (u64, u64),
    sent: u64,
    deliveries: u64,
}

struct Generator<'a> {
    case: &'a Case,
    server: &'a Target,
    epoll: OwnedFd,
    events: &'a Events,
    shared: &'a Shared,
    /// The thread that sends, or whoever did before.
    sender: Thread,
    clients: Vec<Client>,
    room: Vec<u8>,
    ready: Vec<epoll::Event>,
    open: usize,
    deliveries: u64,
    /// All below this number have arrived everywhere.
    complete: u64,
    /// When each event first arrived, and at how many reading clients it has.
    first_ns: Vec<u64>,
    got: Vec<u32>,
    /// The numbers that reading clients wanted next when they were ended.
    gone: Vec<u64>,
    /// When anything last arrived.
    arrived: u64,
    /// Since when is measured; 0 is not.
    measuring: u64,
    latency: Histogram<u64>,
    spread: Histogram<u64>,
    paused: bool,
}

/// A running server.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub socket: PathBuf,
    pub pid: Pid,
    /// Passes the text of an event on as it is.
    pub exact: bool,
}

/// Runs a case against a server; `measure` is how long is measured.
pub fn run(case: &Case, server: &Target, measure: Duration) -> Result<Figures, Box<dyn Error>> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let (events, shared) = (Events::new(case.event_bytes), Shared::new());
    let histogram = || Histogram::<u64>::new_with_bounds(1, 100_000_000, 3);
    let mut generator = Generator {
        case,
        server,
        events: &events,
        shared: &shared,
        sender: thread::current(),
        epoll,
        clients: Vec::new(),
        room: vec![0; ROOM],
        ready: Vec::with_capacity(1024),
        open: 0,
        deliveries: 0,
        complete: 0,
        first_ns: vec![0; RING],
        got: vec![0; RING],
        gone: Vec::new(),
        arrived: 0,
        measuring: 0,
        latency: histogram()?,
        spread: histogram()?,
        paused: false,
    };
    generator.measure(measure.as_nanos() as u64)
}

impl Generator<'_> {
    fn measure(&mut self, measure: u64) -> Result<Figures, Box<dyn Error>> {
        let slab_before_kib = machine::slab_kib();
        let begin = self.mark();
        self.connect()?;
        let connected = self.mark();
        let mut figures = Figures {
            connect_s: seconds(connected.at - begin.at),
            connect_cpu_s: connected.server - begin.server,
            slab_before_kib,
            ..Figures::default()
        };
        let mut pace = self.case.pace;
        if let Pace::BurstThenRate(rate) = pace {
            self.turns(Pace::Loop(BURST), now_ns() + SECOND)?;
            self.drain()?;
            pace = Pace::Rate(rate);
        }
        self.turns(pace, now_ns() + WARM)?;
        let from = self.mark();
        self.measuring = from.at;
        self.turns(pace, from.at + measure)?;
        let to = self.mark();
        self.measuring = 0;
        figures.memory = machine::memory(self.server.pid);
        figures.drained = self.drain()?;
        figures.measured_s = seconds(to.at - from.at);
        figures.sent = to.sent - from.sent;
        figures.deliveries = to.deliveries - from.deliveries;
        figures.server_cpu_s = to.server - from.server;
        figures.generator_cpu_s = to.own - from.own;
        figures.steal_s = to.steal - from.steal;
        figures.foreign_cpu_s = (to.host - from.host - figures.server_cpu_s - figures.generator_cpu_s).max(0.0);
        figures.switches_voluntary = to.switches.0.saturating_sub(from.switches.0);
        figures.switches_forced = to.switches.1.saturating_sub(from.switches.1);
        figures.latency_us = percentiles(&self.latency);
        figures.spread_us = percentiles(&self.spread);
        self.count_faults(&mut figures);
        Ok(figures)
    }

    fn mark(&self) -> Mark {
        let (host, steal) = machine::host_cpu();
        Mark {
            at: now_ns(),
            server: process_cpu(self.server.pid).unwrap_or(0.0),
            own: machine::own_cpu(),
            host,
            steal,
            switches: machine::switches(self.server.pid),
            sent: self.sent(),
            deliveries: self.deliveries,
        }
    }

    fn connect(&mut self) -> Result<(), Box<dyn Error>> {
        let slow = self.case.stopped + self.case.pausing;
        let total = self.case.clients + slow;
        let deadline = now_ns() + CONNECT_PATIENCE;
        while self.open < total {
            let waiting = self.clients.len() - self.open;
            for _ in waiting..CONNECTING_MAX.min(total - self.open) {
                let index = self.clients.len();
                let kind = match index {
                    index if index < self.case.clients => Kind::Reading,
                    index if index < self.case.clients + self.case.stopped => Kind::Stopped,
                    _ => Kind::Pausing,
                };
                let client = Client::connect(self.server.address, kind)?;
                epoll::add(&self.epoll, &client, EventData::new_u64(index as u64), EventFlags::IN)?;
                self.clients.push(client);
            }
            self.receive(SECOND / 10)?;
            if let Some(index) = self.clients.iter().position(|client| client.state == State::Ended) {
                return Err(format!("client {index} of {total} was ended while it connected").into());
            }
            if now_ns() > deadline {
                return Err(format!("{} of {total} clients were connected within 60 s", self.open).into());
            }
        }
        for index in 0..self.clients.len() {
            if self.clients[index].kind == Kind::Stopped {
                epoll::delete(&self.epoll, &self.clients[index])?;
            }
        }
        Ok(())
    }

    /// Sends and receives until `deadline`.
    fn turns(&mut self, pace: Pace, deadline: u64) -> Result<(), Box<dyn Error>> {
        let (events, shared) = (self.events, self.shared);
        let sender = Sender::new(&self.server.socket, events, shared)?;
        thread::scope(|scope| {
            let sending = scope.spawn(move || sender.run(pace, deadline));
            self.sender = sending.thread().clone();
            loop {
                let now = now_ns();
                if now >= deadline && sending.is_finished() {
                    break;
                }
                self.pause_or_go_on(now)?;
                self.receive(deadline.saturating_sub(now).min(LOOK))?;
            }
            let outcome = sending.join().map_err(|_| "the sender has panicked")?;
            outcome.map_err(|error| format!("event {} could not be sent: {error}", self.sent()).into())
        })
    }

    fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Waits at most `wait` nanoseconds for anything, and receives once from every client that has something.
    fn receive(&mut self, wait: u64) -> Result<(), Box<dyn Error>> {
        let timeout = Timespec {
            tv_sec: (wait / SECOND) as i64,
            tv_nsec: (wait % SECOND) as i64,
        };
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for index in 0..self.ready.len() {
            self.read(self.ready[index].data.u64() as usize)?;
        }
        self.settle();
        Ok(())
    }

    /// Notes what has arrived everywhere, and tells the sender.
    fn settle(&mut self) {
        let (before, sent) = (self.complete, self.sent());
        while self.complete < sent {
            let index = self.complete as usize % RING;
            let gone = self.gone.iter().filter(|next| **next <= self.complete).count();
            if (self.got[index] as usize) < self.case.clients - gone {
                break;
            }
            self.got[index] = 0;
            self.first_ns[index] = 0;
            self.complete += 1;
        }
        if self.complete > before {
            self.shared.completed(self.complete, &self.sender);
        }
    }

    fn read(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        let client = &mut self.clients[index];
        let before = client.state;
        let (counts, measuring) = (client.kind == Kind::Reading, self.measuring);
        let (mut now, mut deliveries) = (0, 0);
        client.read(&mut self.room, self.events, self.server.exact, |delivered| {
            if !counts {
                return;
            }
            if now == 0 {
                now = now_ns();
            }
            deliveries += 1;
            let sent = self.shared.sent_at(delivered.number);
            if measuring != 0 && sent >= measuring {
                self.latency.saturating_record((now - sent) / 1000);
            }
            for number in delivered.number - delivered.missing..=delivered.number {
                let index = number as usize % RING;
                if self.first_ns[index] == 0 {
                    self.first_ns[index] = now;
                }
                self.got[index] += 1;
                if self.got[index] as usize == self.case.clients && measuring != 0 && sent >= measuring {
                    self.spread.saturating_record((now - self.first_ns[index]) / 1000);
                }
            }
        });
        self.deliveries += deliveries;
        self.arrived = self.arrived.max(now);
        let (after, next) = (client.state, client.next);
        self.open += usize::from(before != State::Open && after == State::Open);
        if before != State::Ended && after == State::Ended {
            epoll::delete(&self.epoll, &self.clients[index])?;
            if counts {
                // Nobody waits for it any more.
                self.gone.push(next);
            }
        }
        Ok(())
    }

    /// Takes the pausing clients out, and in again.
    fn pause_or_go_on(&mut self, now: u64) -> Result<(), Errno> {
        let pause = self.case.pausing > 0 && (now / PAUSE_HALF) % 2 == 1;
        if pause == self.paused {
            return Ok(());
        }
        self.paused = pause;
        let interest = if pause { EventFlags::empty() } else { EventFlags::IN };
        for (index, client) in self.clients.iter().enumerate() {
            if client.kind == Kind::Pausing && client.state != State::Ended {
                epoll::modify(&self.epoll, client, EventData::new_u64(index as u64), interest)?;
            }
        }
        Ok(())
    }

    /// Receives what is under way; whether that was all of it.
    fn drain(&mut self) -> Result<bool, Box<dyn Error>> {
        let begun = now_ns();
        self.arrived = begun;
        self.pause_or_go_on(0)?;
        loop {
            let behind = |client: &Client| {
                client.kind == Kind::Pausing && client.state == State::Open && client.next < self.sent()
            };
            if self.complete == self.sent() && !self.clients.iter().any(behind) {
                return Ok(true);
            }
            let now = now_ns();
            if now > begun + DRAIN_PATIENCE || (now > self.arrived + STUCK && self.complete < self.sent()) {
                return Ok(false);
            }
            self.receive(SECOND / 10)?;
        }
    }

    fn count_faults(&mut self, figures: &mut Figures) {
        let sent = self.sent();
        for client in &mut self.clients {
            let left = sent - client.next;
            match client.kind {
                Kind::Reading => {
                    figures.missing += client.faults.missing + left;
                    figures.repeated += client.faults.repeated;
                    figures.changed += client.faults.changed;
                    figures.ended += u64::from(client.state == State::Ended);
                }
                Kind::Pausing => {
                    figures.slow_missing += client.faults.missing + left;
                    figures.slow_ended += u64::from(client.state == State::Ended);
                }
                Kind::Stopped => {
                    // Reads what is there, to see whether an end is behind it.
                    for _ in 0..STOPPED_READS_MAX {
                        client.read(&mut self.room, self.events, self.server.exact, |_| {});
                    }
                    figures.slow_ended += u64::from(client.state == State::Ended);
                }
            }
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND as f64
}

fn percentiles(histogram: &Histogram<u64>) -> Vec<f64> {
    if histogram.is_empty() {
        return Vec::new();
    }
    PERCENTILES
        .iter()
        .map(|percentile| histogram.value_at_percentile(*percentile) as f64)
        .collect()
}
