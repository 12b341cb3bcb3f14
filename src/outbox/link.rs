//! What the fan-out, the inbox and the writer share of one client, and the fan-out's way of handing it a chunk.

mod conflating;

use crate::outbox::figures::Figures;
use crate::outbox::handover::Handover;
use crate::process::clock::monotonic_ms;
use crate::process::locks::lock;
use crate::process::tcp_path::TcpPath;
use crate::stream::chunk::Chunk;
use crate::stream::event::Seq;
use crate::stream::machines::Snapshot;
use crate::stream::protocol::v1::Gap;
use crate::stream::protocol::{EndReason, Protocol};
use crate::stream::view::View;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::io::Errno;
use rustix::net::{SendFlags, connect_unspec, send, sockopt};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Parcels that the queue between fan-out and writer takes. The slots are there from the beginning, 16 bytes each, so
/// that this is 256 bytes per client. Full policy: what follows waits on the fan-out's side, within the client's
/// bounds.
const CLIENT_QUEUE_LEN_MAX: usize = 16;
/// Chunks that may wait for one client, whatever their size; with events of 100 bytes the bytes are full sooner. Full
/// policy: the client is behind, and catches up from the history.
const CLIENT_CHUNKS_MAX: usize = 16_384;

/// A client that falls behind again and again is named in the log at most this often.
const NAME_EVERY: Duration = Duration::from_secs(10);

/// For how long after its last sign of life the kernel tries to tell a client of its end. It sends again after twice
/// the time of before, for the last time after 204 s, so that every client learns of its end after a cut of up to three
/// minutes.
const KERNEL_TELLS: Duration = Duration::from_secs(300);

/// A client wants a new `initial`. It may come while the last one is still in work: a client that has it in hand is
/// faster than the thread that has just sent it.
const REFRESH_WANTED: u8 = 1;
/// An `initial` is on its way to the client; there is at most one at a time.
const REFRESH_IN_WORK: u8 = 2;

/// How events reach clients that keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// `fanout` sends without blocking; the client's own thread takes over when its socket is full.
    Direct,
    /// The client's own thread does every send.
    Queued,
}

/// What the fan-out hands to a client's writer.
#[derive(Debug)]
pub enum Parcel {
    /// Events as the client sees them.
    Events(Arc<Chunk>),
    /// The state now, of which the client's own thread makes its `initial`.
    Snapshot(Box<StateAsOf>),
    /// The queue was full, or the client came back: its writer asks for what follows this number.
    Behind(Seq),
    /// The client conflates: its writer asks for what follows this number once a period.
    Conflate(Seq),
    /// The writer of a client that conflates asks now.
    Ask,
}

/// A snapshot with its place in the stream.
#[derive(Debug)]
pub struct StateAsOf {
    pub snapshot: Arc<Snapshot>,
    /// The last event in it.
    pub as_of: Seq,
    /// What the client misses before it.
    pub gap: Option<Gap>,
    /// From here on the client sees the stream like this.
    pub view: Option<Arc<View>>,
}

/// One client's connection. Shared by reference count; the descriptor is closed when the last of the three lets go.
#[derive(Debug)]
pub struct Link {
    id: u64,
    peer: SocketAddr,
    protocol: Protocol,
    socket: Arc<TcpStream>,
    handover: Handover,
    queued_bytes: AtomicUsize,
    /// It was sent all that it wants up to this number; it may be more by now. Written and read by the socket's owner.
    sent: AtomicU64,
    /// 0 while it lives, else an [`EndReason`]; the first one stands.
    end: AtomicU8,
    /// Its thread is done with it: everybody may let go.
    over: AtomicBool,
    /// The peer has ended its direction, or the connection is gone.
    peer_ended: AtomicBool,
    /// [`REFRESH_WANTED`] and [`REFRESH_IN_WORK`].
    refresh: AtomicU8,
    /// How the client has asked last to see the stream, if it does not yet; few ever do. Held for the time of a move
    /// only.
    subscription: Mutex<Option<Box<View>>>,
    heard_ms: AtomicU64,
    figures: Figures,
}

/// What a client has come to with an `initial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Refreshed {
    /// It waits for nothing.
    Content,
    /// It has asked for another one meanwhile.
    WantsAnother,
}

/// What a client's wish for a new `initial` is to the fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The fan-out does not know of it yet.
    New,
    /// The same was wanted already, and the fan-out was nudged for it.
    Known,
}

/// When a client got the reason of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this call.
    Now,
    /// Earlier; that reason stands.
    Before,
}

// Orderings: `end`, `over`, `peer_ended`, `refresh` and `heard_ms` are single facts that order nothing else; relaxed.
// `sent` comes with the socket's ownership.
// `queued_bytes` is a bound that only the fan-out compares; a late look makes it stricter for a moment.
impl Link {
    /// For connection number `id` from `peer`, which sees the stream like `view`.
    pub fn new(id: u64, peer: SocketAddr, view: Arc<View>, socket: Arc<TcpStream>) -> Link {
        Link {
            id,
            peer,
            protocol: view.protocol,
            socket,
            handover: Handover::new(),
            queued_bytes: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            end: AtomicU8::new(0),
            over: AtomicBool::new(false),
            peer_ended: AtomicBool::new(false),
            refresh: AtomicU8::new(0),
            subscription: Mutex::new(None),
            heard_ms: AtomicU64::new(monotonic_ms()),
            figures: Figures::new(view),
        }
    }

    /// The number in the names of its thread and its log lines.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it came from.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Who may write.
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    /// What is known of it.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Bytes of events that are queued and not written.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// The socket's owner: `chunk` is sent to its last byte.
    pub fn set_sent(&self, chunk: &Chunk) {
        // What has no number says nothing of the stream.
        if chunk.last() > 0 {
            self.sent.store(chunk.last(), Ordering::Relaxed);
        }
    }

    /// The socket's owner: the number of the last chunk that was sent.
    pub fn sent(&self) -> Seq {
        self.sent.load(Ordering::Relaxed)
    }

    /// Writer: a queued chunk of events is written to its last byte.
    pub fn events_written(&self, chunk: &Chunk) {
        self.queued_bytes.fetch_sub(chunk.bytes().len(), Ordering::Relaxed);
        self.figures.unqueued(chunk);
        self.handover.written();
    }

    /// Writer: a queued `initial` is written to its last byte. If that is [`Refreshed::WantsAnother`], the caller
    /// nudges the fan-out.
    pub fn initial_written(&self) -> Refreshed {
        let refreshed = self.refreshed();
        self.handover.written();
        refreshed
    }

    /// An `initial` that the client has asked for is with it. If that is [`Refreshed::WantsAnother`], the caller nudges
    /// the fan-out.
    pub fn refreshed(&self) -> Refreshed {
        match self.refresh.fetch_and(!REFRESH_IN_WORK, Ordering::Relaxed) & REFRESH_WANTED {
            0 => Refreshed::Content,
            _ => Refreshed::WantsAnother,
        }
    }

    /// Ends the client for `reason`, unless there is a reason already.
    pub fn end(&self, reason: EndReason) -> Ended {
        let end = &self.end;
        match end.compare_exchange(0, reason as u8, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ended::Now,
            Err(_) => Ended::Before,
        }
    }

    /// Why it ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        EndReason::from_u8(self.end.load(Ordering::Relaxed))
    }

    /// Its thread is done with it.
    pub fn set_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Returns whether its thread is done with it.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Inbox: nothing more will come from the peer.
    pub fn set_peer_ended(&self) {
        self.peer_ended.store(true, Ordering::Relaxed);
    }

    /// Returns whether nothing more will come from the peer.
    pub fn peer_ended(&self) -> bool {
        self.peer_ended.load(Ordering::Relaxed)
    }

    /// Inbox: the client wants a new `initial`.
    pub fn want_refresh(&self) -> Wish {
        // Release: the filter that was set before comes with it.
        match self.refresh.fetch_or(REFRESH_WANTED, Ordering::Release) & REFRESH_WANTED {
            0 => Wish::New,
            _ => Wish::Known,
        }
    }

    /// Inbox: the client wants to see the stream like `view`, and the state as it sees it then.
    pub fn want_view(&self, view: View) -> Wish {
        *lock(&self.subscription) = Some(Box::new(view));
        self.want_refresh()
    }

    /// Fan-out: how it wants to see the stream, once.
    fn take_view(&self) -> Option<View> {
        let mut wanted = lock(&self.subscription);
        wanted.take().map(|view| *view)
    }

    /// Inbox: something came from it just now.
    pub fn heard(&self) {
        self.heard_ms.store(monotonic_ms(), Ordering::Relaxed);
    }

    /// When something came from it last, [`monotonic_ms`].
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    /// Cuts the connection at once: the peer sees a reset, unsent data is discarded.
    ///
    /// Closing would not do it: the others still hold the descriptor, and a closed socket stays in FIN-WAIT-1 behind
    /// data that nobody reads. Dissolving the association (connect(2), AF_UNSPEC) resets it for all that hold it.
    fn reset(&self) {
        // It fails only when the connection is gone already.
        let _ = connect_unspec(&self.socket);
    }

    /// Cuts the connection, and lets the peer know as well as can be.
    ///
    /// A peer whose kernel answers is reset. Over a dead path a reset, which is sent once, would be lost, and a client
    /// that sends nothing by itself would wait for ever. So there the kernel keeps what the socket holds (at most
    /// SO_SNDBUF and what it costs, for [`KERNEL_TELLS`]) and sends it again, with our end behind it: once the path is
    /// back, the client reads on to a lost connection. What is sent to it in vain is bounded by the host as well
    /// (net.ipv4.tcp_max_orphans; beyond, the kernel resets). Never blocks.
    pub fn cut(&self) {
        if TcpPath::of(&self.socket).is_some_and(|path| path.is_unanswered()) {
            // They fail only when the connection is gone already.
            let _ = sockopt::set_tcp_user_timeout(&self.socket, KERNEL_TELLS.as_millis() as u32);
            self.shut_down_writing();
        } else {
            self.reset();
        }
    }

    /// Ends our direction; what is in the socket is still sent.
    pub fn shut_down_writing(&self) {
        // It fails only when the connection is gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The bounds that an offer keeps.
#[derive(Clone, Copy, Debug)]
pub struct OfferLimits {
    pub delivery: Delivery,
    pub queue_bytes_max: usize,
}

/// The fan-out's hold on a client.
#[derive(Debug)]
pub struct Subscriber {
    link: Arc<Link>,
    /// How it sees the stream, and where the fan-out keeps what was encoded for that.
    view: (usize, Arc<View>),
    queue: Sender<Parcel>,
    /// What the queue has no slot for, in order behind it. A fast stream makes many small chunks in the time in which
    /// the host does not run the writer, so that slots alone would be a bound of milliseconds.
    overflow: VecDeque<Parcel>,
    /// Events were queued for it since its backlog was last seen to be empty.
    lags: bool,
    /// It catches up: after which number, and since when. Nothing is queued for it meanwhile.
    behind: Option<(Seq, Instant)>,
    /// `Ask` is in its queue, or was taken from it and not answered yet.
    hurried: bool,
    naming: Naming,
}

/// When the log names a slow client.
#[derive(Debug, Default)]
struct Naming {
    /// It has been too slow, and that was not said yet.
    owed: bool,
    last: Option<Instant>,
    /// How often it was too slow since then.
    times: u32,
}

/// What became of an offered chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is in the client's socket.
    Sent,
    /// Its writer will send it.
    Queued,
    /// It was not taken: the client has to catch up.
    Behind,
    /// The client has ended, now or before.
    Ended,
}

/// Makes the fan-out's and the writer's ends of a client's queue. `view` is how the client sees the stream.
pub fn outbox(link: Arc<Link>, view: Arc<View>) -> (Subscriber, Receiver<Parcel>) {
    let (queue, rx) = bounded(CLIENT_QUEUE_LEN_MAX);
    let subscriber = Subscriber {
        link,
        view: (0, view),
        queue,
        overflow: VecDeque::new(),
        lags: false,
        behind: None,
        hurried: false,
        naming: Naming::default(),
    };
    (subscriber, rx)
}

impl Subscriber {
    /// The client.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// How it sees the stream.
    pub fn view(&self) -> &Arc<View> {
        &self.view.1
    }

    /// Where the fan-out keeps what was encoded for that view.
    pub fn view_place(&self) -> usize {
        self.view.0
    }

    /// From now on it sees the stream like `view`, which has that place.
    pub fn set_view(&mut self, view: (usize, Arc<View>)) {
        self.view = view;
    }

    /// After which number it catches up, if it does.
    pub fn behind(&self) -> Option<Seq> {
        self.behind.map(|(after, _)| after)
    }

    /// It has been given everything up to `after` now.
    pub fn set_caught_up_to(&mut self, after: Seq) {
        if let Some((behind, _)) = &mut self.behind {
            *behind = after;
        }
    }

    /// From number `after` on it has to ask for what it misses. Never blocks.
    pub fn fall_behind(&mut self, after: Seq) -> Offered {
        self.behind = Some((after, Instant::now()));
        self.link.figures.fell_behind(after);
        self.link.handover.will_queue();
        self.overflow.push_back(Parcel::Behind(after));
        match self.refill() {
            Offered::Queued => Offered::Behind,
            other => other,
        }
    }

    /// Returns whether the log is to say now that it is behind, and later its return: after which number, and how often
    /// it was behind since the log said so last, this time not counted.
    pub fn name_in_log(&mut self) -> Option<(Seq, u32)> {
        let (after, _) = self.behind?;
        let soon = self.naming.last.is_some_and(|last| last.elapsed() < NAME_EVERY);
        if !self.naming.owed || soon {
            return None;
        }
        self.link.figures.tell_return();
        let unsaid = self.naming.times - 1;
        self.naming = Naming {
            last: Some(Instant::now()),
            ..Naming::default()
        };
        Some((after, unsaid))
    }

    /// Hands `chunk`, the events after number `before`, to the client. Never blocks.
    pub fn offer(&mut self, chunk: &Arc<Chunk>, before: Seq, limits: OfferLimits) -> Offered {
        if self.link.end_reason().is_some() {
            return Offered::Ended;
        }
        if self.behind.is_some() {
            return Offered::Behind;
        }
        if limits.delivery == Delivery::Direct && self.link.handover.try_direct() {
            return self.send(chunk, before);
        }
        if !self.fits(chunk, limits) {
            self.link.figures.was_too_slow();
            self.naming.owed = true;
            self.naming.times += 1;
            return self.fall_behind(before);
        }
        self.count(chunk, before);
        self.enqueue(Parcel::Events(Arc::clone(chunk)))
    }

    /// Hands over what is to become an `initial`. Never blocks.
    pub fn offer_state(&mut self, state: StateAsOf) -> Offered {
        if self.link.end_reason().is_some() {
            return Offered::Ended;
        }
        self.link.handover.will_queue();
        self.enqueue(Parcel::Snapshot(Box::new(state)))
    }

    /// Sends it by ourselves; the socket is ours.
    fn send(&mut self, chunk: &Arc<Chunk>, before: Seq) -> Offered {
        let bytes = chunk.bytes();
        let sent = match send(&self.link, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => {
                self.link.set_sent(chunk);
                self.link.handover.direct_done();
                return Offered::Sent;
            }
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.link.handover.direct_done();
                return self.end(EndReason::PeerGone);
            }
        };
        // The socket took this many bytes of it; the rest is the writer's.
        self.count(chunk, before);
        let queued = self.queue.try_send(Parcel::Events(Arc::clone(chunk)));
        self.link.handover.pass_on(sent);
        match queued {
            Ok(()) => Offered::Queued,
            // It cannot be full, since nothing was queued; so the writer is gone.
            Err(_) => self.end(EndReason::PeerGone),
        }
    }

    fn enqueue(&mut self, parcel: Parcel) -> Offered {
        self.overflow.push_back(parcel);
        self.refill()
    }

    /// Moves what waits on our side into the queue, as far as it has slots. Never blocks.
    pub fn refill(&mut self) -> Offered {
        while let Some(parcel) = self.overflow.pop_front() {
            match self.queue.try_send(parcel) {
                Ok(()) => {}
                Err(TrySendError::Full(parcel)) => {
                    self.overflow.push_front(parcel);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => return self.end(EndReason::PeerGone),
            }
        }
        Offered::Queued
    }

    /// Returns whether there is room; an empty queue takes one chunk of any size.
    fn fits(&self, chunk: &Chunk, limits: OfferLimits) -> bool {
        let after = self.link.queued_bytes() + chunk.bytes().len();
        match self.link.handover.queued() {
            0 => true,
            queued => after <= limits.queue_bytes_max && queued < CLIENT_CHUNKS_MAX,
        }
    }

    /// Bytes of events that wait for the client. Of a client that keeps up, this looks at nothing that others write.
    pub fn backlog_bytes(&mut self) -> usize {
        if !self.lags {
            return 0;
        }
        let bytes = self.link.queued_bytes();
        self.lags = bytes > 0;
        bytes
    }

    /// Before the queueing, as the hand-over wants it.
    fn count(&mut self, chunk: &Chunk, before: Seq) {
        let bytes = chunk.bytes().len();
        self.lags |= bytes > 0;
        self.link.figures.queued(chunk, before);
        self.link.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.link.handover.will_queue();
    }

    fn end(&self, reason: EndReason) -> Offered {
        self.link.end(reason);
        Offered::Ended
    }

    /// Returns whether the client waits for a new `initial`, and none is on its way. One that catches up waits until it
    /// is live, because the state of now has no place before events of then.
    pub fn wants_refresh(&self) -> bool {
        self.behind.is_none() && self.awaits_refresh()
    }

    /// The same, also while it catches up.
    pub fn awaits_refresh(&self) -> bool {
        self.link.refresh.load(Ordering::Relaxed) == REFRESH_WANTED
    }

    /// From here on the client's wish is in work, and any other is a new one. Returns how it wants to see the stream,
    /// if that is to be another way.
    pub fn begin_refresh(&mut self) -> Option<View> {
        // Acquire: a view comes with the wish.
        self.link.refresh.swap(REFRESH_IN_WORK, Ordering::Acquire);
        self.link.take_view()
    }
}
