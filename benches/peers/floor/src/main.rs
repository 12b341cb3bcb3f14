//! The least that a process can do to send every event to every client: the machine's limit for this job.
//!
//! One thread and one epoll instance. It receives all waiting datagrams, puts them as frames into one buffer, and calls
//! `send` on each client. It checks no JSON, keeps no state, answers neither pings nor commands. It has no queue for a
//! slow client, only the rest of what the kernel did not take, so that no frame is cut; with more than
//! `REST_BYTES_MAX` of it the client is closed.

#[path = "../../common/frames.rs"]
#[allow(dead_code, reason = "this looks at nothing that follows a request")]
mod frames;
#[path = "../../common/start.rs"]
mod start;

mod client;

use client::{Client, Fate};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use start::Sockets;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::ExitCode;

/// Bytes of frames that one turn sends at most, and so takes at most, apart from the last event.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Connections that one turn accepts at most.
const ACCEPT_MAX: usize = 64;

/// The epoll keys of what is no client; clients count from 0.
const EVENTS_KEY: u64 = u64::MAX;
const LISTENER_KEY: u64 = u64::MAX - 1;
const STOP_KEY: u64 = u64::MAX - 2;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), String> {
    let Sockets { listener, events, file } = start::open()?;
    let mut server = Server::new(listener, events).map_err(|error| error.to_string())?;
    start::say_ready();
    let ended = server.run().map_err(|error| error.to_string());
    drop(file);
    ended
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    events: UnixDatagram,
    /// A byte comes when a signal does; only its readiness is looked at.
    _stop: UnixStream,
    /// By epoll key; the places of those that have ended are in `free`.
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    datagram: Vec<u8>,
    batch: Vec<u8>,
}

impl Server {
    fn new(listener: TcpListener, events: UnixDatagram) -> io::Result<Server> {
        let (stop, signalled) = UnixStream::pair()?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &events, EventData::new_u64(EVENTS_KEY), EventFlags::IN)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER_KEY), EventFlags::IN)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP_KEY), EventFlags::IN)?;
        Ok(Server {
            epoll,
            listener,
            events,
            _stop: stop,
            clients: Vec::new(),
            free: Vec::new(),
            datagram: vec![0; start::EVENT_BYTES_MAX],
            batch: Vec::with_capacity(2 * BATCH_BYTES_MAX),
        })
    }

    /// Runs until a signal comes.
    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::with_capacity(256);
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &ready {
                // The structure is packed, as the kernel's is.
                let (data, flags) = (event.data, event.flags);
                match data.u64() {
                    EVENTS_KEY => self.pass_on()?,
                    LISTENER_KEY => self.accept(),
                    STOP_KEY => return Ok(()),
                    key => self.serve_client(key as usize, flags),
                }
            }
        }
    }

    /// Sends the waiting events to all clients.
    fn pass_on(&mut self) -> io::Result<()> {
        self.batch.clear();
        while self.batch.len() < BATCH_BYTES_MAX {
            match recv(&self.events, &mut self.datagram[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {}
                Ok((_, length)) => frames::append_text(&mut self.batch, &self.datagram[..length]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        for key in 0..self.clients.len() {
            let Some(client) = &mut self.clients[key] else {
                continue;
            };
            let fate = client.send(&self.batch);
            self.settle(key, fate);
        }
        Ok(())
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT_MAX {
            // Whoever has gone again is no concern of ours; without descriptors the next turn tries again.
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let Some(client) = Client::new(stream) else {
                continue;
            };
            let key = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            if epoll::add(
                &self.epoll,
                client.socket(),
                EventData::new_u64(key as u64),
                EventFlags::IN,
            )
            .is_err()
            {
                self.free.push(key);
                continue;
            }
            self.clients[key] = Some(client);
        }
    }

    fn serve_client(&mut self, key: usize, flags: EventFlags) {
        // It can have ended earlier in this turn.
        let Some(Some(client)) = self.clients.get_mut(key) else {
            return;
        };
        let mut fate = Fate::Same;
        if flags.contains(EventFlags::OUT) {
            fate = client.send_rest();
        }
        if fate != Fate::End && flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            fate = fate.or(client.read(&mut self.datagram));
        }
        self.settle(key, fate);
    }

    /// Does what the client's last call asks for.
    fn settle(&mut self, key: usize, fate: Fate) {
        let Some(client) = &self.clients[key] else {
            return;
        };
        let wanted = match fate {
            Fate::Same => return,
            Fate::End => {
                // Closing the descriptor takes it out of the epoll instance.
                self.clients[key] = None;
                self.free.push(key);
                return;
            }
            Fate::WatchWriting => EventFlags::IN | EventFlags::OUT,
            Fate::OnlyReading => EventFlags::IN,
        };
        if epoll::modify(&self.epoll, client.socket(), EventData::new_u64(key as u64), wanted).is_err() {
            self.clients[key] = None;
            self.free.push(key);
        }
    }
}
