//! A fan-out with its clients, all of them in one state, and the proof that each has got everything.

use crate::peers::Peers;
use crossbeam_channel::Receiver;
use rustix::net::sockopt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use threadcast::config::Config;
use threadcast::fanout::requests::{FanoutGauges, FanoutHandle, Start};
use threadcast::fanout::{Beginning, Fanout, FanoutSettings, Sources};
use threadcast::intake::IntakeSettings;
use threadcast::intake::queue::{INTAKE_BYTES_MAX, IntakeTx, Pushed, intake};
use threadcast::intake::receiver::FanoutSleep;
use threadcast::liveness::beats::Beats;
use threadcast::liveness::operation::SlowLimits;
use threadcast::outbox::link::{Delivery, Link, OfferLimits, Parcel, Refreshed, Subscriber, outbox};
use threadcast::process::bell::Bell;
use threadcast::process::stop::Stop;
use threadcast::stream::chunk::text_frame;
use threadcast::stream::history::History;
use threadcast::stream::machines::Machines;
use threadcast::stream::position::Epoch;
use threadcast::stream::view::View;

/// Slots of a client's queue (`CLIENT_QUEUE_LEN_MAX` of the outbox).
const QUEUE_SLOTS: usize = 16;
/// What waits for a client whose slots are full: some of it on the fan-out's side.
const FULL: usize = QUEUE_SLOTS + 4;

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing waits for them: the fan-out sends by itself.
    Idle,
    /// Their writers own their sockets; their queues have room.
    Queued,
    /// The slots of their queues are taken.
    Full,
    /// They are to catch up, and left out.
    Behind,
}

/// The fan-out, to be driven turn by turn, and its clients.
pub(crate) struct Crowd {
    state: State,
    event: String,
    intake: IntakeTx,
    fanout: Fanout,
    handle: FanoutHandle,
    gauges: Arc<FanoutGauges>,
    clients: Vec<(Arc<Link>, Receiver<Parcel>)>,
    /// Of idle clients.
    peers: Option<Peers>,
    /// Events pushed, and how many of them nobody has read yet.
    pushed: u64,
    unread: usize,
}

impl Crowd {
    /// Of `count` clients in `state`, who are sent `event`.
    pub(crate) fn new(count: usize, state: State, event: String) -> Crowd {
        let (intake, fanout, handle, gauges) = fanout(state);
        let mut crowd = Crowd {
            state,
            event,
            intake,
            fanout,
            handle,
            gauges,
            clients: Vec::new(),
            peers: None,
            pushed: 0,
            unread: 0,
        };
        let sockets = match (state, count) {
            (_, 0) => Vec::new(),
            (State::Idle, _) => crowd.connect(count),
            // Nothing is sent to these.
            _ => vec![crowd.connect(1).remove(0); count],
        };
        crowd.join(sockets);
        crowd.settle();
        crowd
    }

    /// Real sockets, with the options that the server sets; somebody else has the other ends.
    fn connect(&mut self, count: usize) -> Vec<(Arc<TcpStream>, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        sockopt::set_socket_send_buffer_size(&listener, Config::default().send_buffer_bytes)
            .and_then(|()| sockopt::set_tcp_nodelay(&listener, true))
            .expect("the server sets these too");
        let (peers, sockets) = Peers::connect(count, &listener);
        self.peers = Some(peers);
        let shared = |(socket, peer)| (Arc::new(socket), peer);
        sockets.into_iter().map(shared).collect()
    }

    /// Joins them as handshakes do, from another thread, and brings them to their state.
    fn join(&mut self, sockets: Vec<(Arc<TcpStream>, SocketAddr)>) {
        let count = sockets.len();
        let view = Arc::new(View::default());
        let mut subscribers: Vec<Subscriber> = Vec::new();
        for (id, (socket, peer)) in (1..).zip(sockets) {
            let link = Arc::new(Link::new(id, peer, Arc::clone(&view), socket));
            let (subscriber, queue) = outbox(Arc::clone(&link), Arc::clone(&view));
            subscribers.push(subscriber);
            self.clients.push((link, queue));
        }
        let handle = self.handle.clone();
        thread::scope(|scope| {
            let joining = scope.spawn(move || {
                for subscriber in subscribers {
                    handle.catch_up(subscriber, Start::State).expect("the fan-out answers");
                }
            });
            while self.joined() < count && !joining.is_finished() {
                self.fanout.turn();
            }
        });
        assert_eq!(self.joined(), count);
        if self.state == State::Behind {
            // The `initial` that is still queued leaves no room for it.
            self.step();
        }
        for (link, queue) in &self.clients {
            assert!(matches!(queue.try_recv(), Ok(Parcel::Snapshot(_))), "it comes first");
            assert_eq!(link.initial_written(), Refreshed::Content);
            if self.state == State::Idle {
                link.handover().release();
            }
        }
        if self.state == State::Full {
            (0..FULL).for_each(|_| self.step());
            self.unread = 0;
        }
    }

    fn joined(&self) -> usize {
        self.gauges.clients.load(Ordering::Relaxed)
    }

    /// One event, from the queue to every client.
    pub(crate) fn step(&mut self) {
        self.steps(1);
    }

    /// One turn of `events` events.
    pub(crate) fn steps(&mut self, events: usize) {
        for _ in 0..events {
            let pushed = self.intake.push(self.event.as_bytes(), &mut || ());
            debug_assert_eq!(pushed, Pushed::Queued);
        }
        self.fanout.turn();
        self.pushed += events as u64;
        self.unread += events;
    }

    /// Takes from every client what the last steps gave it, and looks at it.
    pub(crate) fn settle(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        match self.state {
            _ if unread == 0 => {}
            State::Idle => {
                if let Some(peers) = &mut self.peers {
                    let frames = text_frame(&self.event).repeat(unread);
                    assert!(peers.read(frames.len()) == frames, "clients get something else");
                }
            }
            State::Queued | State::Full => {
                let frame = text_frame(&self.event);
                for (link, queue) in &self.clients {
                    for _ in 0..unread {
                        let Ok(Parcel::Events(chunk)) = queue.try_recv() else {
                            panic!("client {} lacks an event", link.id());
                        };
                        assert!(chunk.bytes() == frame, "client {} gets something else", link.id());
                        link.events_written(&chunk);
                    }
                }
            }
            State::Behind => {}
        }
    }

    /// Fails unless every client is in the state that it should be in, after everything that was pushed.
    pub(crate) fn check(mut self) {
        self.settle();
        assert_eq!(self.gauges.offered.load(Ordering::Acquire), self.pushed);
        assert_eq!(self.joined(), self.clients.len(), "some have ended");
        let frame = text_frame(&self.event).len();
        for (link, queue) in &self.clients {
            let seen = link.figures().seen(self.pushed);
            let figures = (seen.delivered(), link.queued_bytes(), seen.times_behind);
            let expected = match self.state {
                State::Idle => (self.pushed, 0, 0),
                State::Queued => (0, 0, 0),
                State::Full => (0, FULL * frame, 0),
                State::Behind => (0, 0, 1),
            };
            assert_eq!(figures, expected, "client {}", link.id());
            if self.state == State::Behind {
                assert!(matches!(queue.try_recv(), Ok(Parcel::Behind(0))));
                assert!(queue.is_empty(), "nothing follows until it asks");
            }
        }
    }
}

fn fanout(state: State) -> (IntakeTx, Fanout, FanoutHandle, Arc<FanoutGauges>) {
    let never = SlowLimits {
        broadcast: Duration::MAX,
        snapshot: Duration::MAX,
    };
    let beat = Beats::new(never, 1).fanout;
    let stop = Stop::new().expect("a descriptor");
    let config = Config::default();
    let bell = Bell::new().expect("a descriptor");
    let intake_settings = IntakeSettings {
        queue_bytes_max: INTAKE_BYTES_MAX,
        patience: config.ingest_patience,
        event_bytes_max: config.max_event_bytes,
        socket_mode: config.socket_mode,
    };
    let (intake, events, _) = intake(intake_settings, beat, bell.clone(), stop.clone());
    let settings = FanoutSettings {
        limits: OfferLimits {
            delivery: Delivery::Direct,
            queue_bytes_max: match state {
                State::Behind => 1,
                _ => config.client_queue_bytes,
            },
        },
        chunk_bytes_max: config.send_buffer_bytes / 2,
        max_behind: Duration::MAX,
        machine_ttl: None,
        addresses_are_limited: false,
    };
    let beginning = Beginning {
        machines: Machines::default(),
        epoch: Epoch::new(),
        history: History::new(config.history_bytes, 0),
        journal: None,
        state_slot: None,
    };
    let (handle, requests) = FanoutHandle::new(bell.clone());
    let sleep = FanoutSleep::new(bell).expect("a descriptor");
    let gauges = Arc::new(FanoutGauges::default());
    let sources = Sources {
        intake: events,
        requests,
        sleep,
    };
    let fanout = Fanout::new(
        settings,
        sources,
        beginning,
        Arc::clone(&gauges),
        Arc::default(),
        beat,
        stop,
    );
    (intake, fanout, handle, gauges)
}
