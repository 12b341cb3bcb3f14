//! Reads what clients send, all of them on one thread.
//!
//! Runs on: `inbox`, one.
//! Owns: the reading half of every client (tungstenite's state), the epoll instance.
//! Blocks on: readiness (250 ms; 10 ms while a client's answers wait for room).
//! Can be stalled by: nothing but its own work; a client has a bounded amount per turn.
//! Full queue means: of a client's frames: that client is not read until there is room; of joining clients: who joins
//! waits up to 2 s and then ends.
//! Ends when: asked to.
//! Watched as: `inbox`, a core thread.

mod reader;

use self::reader::{Joining, Next, Owed, Reader};
use crate::client::writer::Control;
use crate::fanout::requests::FanoutHandle;
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::outbox::gauges::ClientGauges;
use crate::outbox::link::{Ended, Link};
use crate::process::clock::timespec;
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, Obituaries, ThreadHandle};
use crate::process::waits;
use crate::process::wake::Wake;
use crate::stream::protocol::EndReason;
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for readiness.
const TURN: Duration = Duration::from_millis(250);
/// The same while some client's answers wait for room in its queue.
const TURN_WITH_WAITING: Duration = Duration::from_millis(10);
/// Clients looked at per turn; the rest stays ready.
const EVENTS_PER_TURN: usize = 256;
/// Joining clients that wait. Full policy: who joins waits, at most [`JOIN_TIMEOUT`].
const JOINING_QUEUE_LEN_MAX: usize = 1024;
/// How long a client's thread waits for room among the joining.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The epoll key of the stop request; clients count from 1.
const STOP_KEY: u64 = 0;
/// The epoll key of the wake-up.
const WAKE_KEY: u64 = u64::MAX;

/// Everybody's way to the inbox.
#[derive(Clone, Debug)]
pub struct InboxHandle {
    joining: Sender<Joining>,
    shared: Arc<Shared>,
}

/// The inbox has had no room for a client for [`JOIN_TIMEOUT`], or is over.
#[derive(Clone, Copy, Debug)]
pub struct NotTaken;

#[derive(Debug)]
struct Shared {
    wake: Wake,
    ends: AtomicBool,
    end_all: AtomicBool,
}

impl InboxHandle {
    /// Hands a client's reading half to the inbox. Blocks at most [`JOIN_TIMEOUT`].
    ///
    /// # Errors
    /// [`NotTaken`]: nothing of the client is read, so the caller ends it.
    pub fn join(&self, link: Arc<Link>, control: Sender<Control>, leftover: Vec<u8>) -> Result<(), NotTaken> {
        let joining = Joining {
            link,
            control,
            leftover,
        };
        let sent = self.joining.send_timeout(joining, JOIN_TIMEOUT);
        self.shared.wake.wake();
        sent.map_err(|_| NotTaken)
    }

    /// Makes the inbox let go of clients whose thread is done with them. Never blocks.
    pub fn look_for_ends(&self) {
        // Release: with it the inbox sees which link is over.
        self.shared.ends.store(true, Ordering::Release);
        self.shared.wake.wake();
    }

    /// Makes the inbox end every client because the server stops: the way to them that needs no fan-out. Never blocks.
    pub fn end_all(&self) {
        self.shared.end_all.store(true, Ordering::Release);
        self.shared.wake.wake();
    }
}

/// What a wait for readiness has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It tells who is to be read; nobody, if it was interrupted or its time was over.
    Told,
    /// It tells of nobody, so that anybody may have to be read.
    Failed,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Inbox {
    epoll: OwnedFd,
    joining: Receiver<Joining>,
    shared: Arc<Shared>,
    readers: HashMap<u64, Reader>,
    /// Clients whose answers wait for room.
    waiting: Vec<u64>,
    /// When all clients were last looked at because no wait told of any.
    read_all_at: Instant,
    fanout: FanoutHandle,
    gauges: Arc<ClientGauges>,
    beat: &'static Beat,
    stop: Stop,
}

impl Inbox {
    /// Ready to run, and the way to it.
    ///
    /// # Errors
    /// The process or the host is out of descriptors; the server cannot start then.
    pub fn new(
        fanout: FanoutHandle,
        gauges: Arc<ClientGauges>,
        beat: &'static Beat,
        stop: Stop,
    ) -> io::Result<(Inbox, InboxHandle)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Wake::new()?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE_KEY), EventFlags::IN)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP_KEY), EventFlags::IN)?;
        let (joining_tx, joining) = bounded(JOINING_QUEUE_LEN_MAX);
        let shared = Arc::new(Shared {
            wake,
            ends: AtomicBool::new(false),
            end_all: AtomicBool::new(false),
        });
        let handle = InboxHandle {
            joining: joining_tx,
            shared: Arc::clone(&shared),
        };
        let inbox = Inbox {
            epoll,
            joining,
            shared,
            readers: HashMap::new(),
            waiting: Vec::new(),
            read_all_at: Instant::now(),
            fanout,
            gauges,
            beat,
            stop,
        };
        Ok((inbox, handle))
    }

    /// Starts the thread. `obituaries` gets its name when it ends.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self, obituaries: Obituaries) -> io::Result<ThreadHandle<()>> {
        threads::spawn("inbox", CORE_STACK_BYTES, Some(obituaries), move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        while !self.stop.requested() {
            drill::obey(self.beat);
            let wait = self.wait(&mut events);
            let _doing = self.beat.begin(Operation::Reading);
            for event in &events {
                self.beat.step();
                match event.data.u64() {
                    STOP_KEY => {}
                    WAKE_KEY => drop(self.shared.wake.quieten()),
                    id => self.read(id),
                }
            }
            if wait == Wait::Failed {
                self.read_all();
            }
            self.retry_waiting();
            self.take_joining();
            self.let_go();
        }
        self.beat.turn_to(Operation::Ended);
    }

    /// Blocks until somebody is to be read, at most a turn. `events` are they.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> Wait {
        let _doing = self.beat.begin(Operation::Waiting);
        let turn = if self.waiting.is_empty() {
            TURN
        } else {
            TURN_WITH_WAITING
        };
        events.clear();
        let waited = epoll::wait(&self.epoll, spare_capacity(events), Some(&timespec(turn)));
        // An interrupted wait gives no events; the next turn waits again. A failed one tells of nobody, so everybody is
        // looked at.
        match waits::INBOX.judge(waited) {
            Some(_) => Wait::Told,
            None if waited == Err(Errno::INTR) => Wait::Told,
            None => Wait::Failed,
        }
    }

    fn take_joining(&mut self) {
        for _ in 0..EVENTS_PER_TURN {
            let Ok(joining) = self.joining.try_recv() else {
                return;
            };
            self.beat.step();
            let id = joining.link.id();
            let added = epoll::add(&self.epoll, &*joining.link, EventData::new_u64(id), EventFlags::IN);
            if let Err(error) = added {
                log::error!("🚨 cannot watch client {id}: {error}; it is ended");
                joining.link.end(EndReason::Internal);
                let _ = joining.control.try_send(Control::Wake);
                continue;
            }
            self.readers.insert(id, Reader::new(joining));
            // What came with the handshake will not make the socket ready.
            self.read(id);
        }
        // More may wait than one turn takes.
        self.shared.wake.wake();
    }

    fn read(&mut self, id: u64) {
        let Some(reader) = self.readers.get_mut(&id) else {
            return;
        };
        match reader.read(&self.fanout, &self.gauges) {
            Next::Ready => {}
            Next::Wait => {
                // No interest: errors are still reported, and found by the retry.
                let _ = epoll::modify(&self.epoll, &*reader.link, EventData::new_u64(id), EventFlags::empty());
                self.waiting.push(id);
            }
            Next::Done => self.remove(id),
        }
    }

    /// Looks at every client that may be read, once in a turn's time, because thousands may be there. Without an epoll
    /// that works nothing else tells of them.
    fn read_all(&mut self) {
        if self.read_all_at.elapsed() < TURN {
            return;
        }
        self.read_all_at = Instant::now();
        let ids: Vec<u64> = self.readers.keys().copied().collect();
        for id in ids {
            self.beat.step();
            if !self.waiting.contains(&id) {
                self.read(id);
            }
        }
    }

    /// Goes on with clients whose answers had no room.
    fn retry_waiting(&mut self) {
        for id in std::mem::take(&mut self.waiting) {
            let Some(reader) = self.readers.get_mut(&id) else {
                continue;
            };
            if reader.send_owed() == Owed::NoRoom {
                self.waiting.push(id);
                continue;
            }
            let _ = epoll::modify(&self.epoll, &*reader.link, EventData::new_u64(id), EventFlags::IN);
            // What tungstenite has read already will not make the socket ready.
            self.read(id);
        }
    }

    fn let_go(&mut self) {
        if self.shared.end_all.load(Ordering::Acquire) {
            // Again each turn, for those who join meanwhile; the first reason stands.
            for reader in self.readers.values() {
                if reader.link.end(EndReason::Stopping) == Ended::Now {
                    let _ = reader.control.try_send(Control::Wake);
                }
            }
        }
        if !self.shared.ends.swap(false, Ordering::Acquire) {
            return;
        }
        let over = self.readers.values().filter(|reader| reader.link.is_over());
        let over: Vec<u64> = over.map(|reader| reader.link.id()).collect();
        for id in over {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(reader) = self.readers.remove(&id) {
            let _ = epoll::delete(&self.epoll, &*reader.link);
            reader.link.set_peer_ended();
            let _ = reader.control.try_send(Control::Wake);
        }
    }
}
