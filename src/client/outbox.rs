//! What the fan-out, the inbox and the writer share of one client, and the fan-out's way of handing it a chunk.

use crate::client::handover::Handover;
use crate::client::protocol::EndReason;
use crate::pipeline::chunk::Chunk;
use crate::process::clock::monotonic_ms;
use crate::process::config::Delivery;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::io::Errno;
use rustix::net::{SendFlags, connect_unspec, send};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Chunks that the queue between fan-out and writer takes. The slots are there from the beginning, 16 bytes each, so
/// that this is 256 bytes per client. Full policy: what follows waits on the fan-out's side, within the client's bounds.
const CLIENT_QUEUE_LEN_MAX: usize = 16;
/// Chunks that may wait for one client, whatever their size; with events of 100 bytes the bytes end it sooner. Full
/// policy: the client ends as too slow.
const CLIENT_CHUNKS_MAX: usize = 16_384;

/// A client wants a new `initial`. It may come while the last one is still in work: a client that has it in hand is
/// faster than the thread that has just sent it.
const REFRESH_WANTED: u8 = 1;
/// An `initial` is on its way to the client; there is at most one at a time.
const REFRESH_IN_WORK: u8 = 2;

/// One client's connection. Shared by reference count; the descriptor is closed when the last of the three lets go.
#[derive(Debug)]
pub struct Link {
    id: u64,
    peer: SocketAddr,
    socket: Arc<TcpStream>,
    handover: Handover,
    queued_bytes: AtomicUsize,
    /// 0 while it lives, else an [`EndReason`]; the first one stands.
    end: AtomicU8,
    /// Its thread is done with it: everybody may let go.
    over: AtomicBool,
    /// The peer has ended its direction, or the connection is gone.
    peer_ended: AtomicBool,
    /// [`REFRESH_WANTED`] and [`REFRESH_IN_WORK`].
    refresh: AtomicU8,
    heard_ms: AtomicU64,
}

// Orderings: `end`, `over`, `peer_ended`, `refresh` and `heard_ms` are single facts that order nothing else; relaxed.
// `queued_bytes` is a bound that only the fan-out compares; a late look makes it stricter for a moment.
impl Link {
    /// For connection number `id` from `peer`.
    pub fn new(id: u64, peer: SocketAddr, socket: Arc<TcpStream>) -> Link {
        Link {
            id,
            peer,
            socket,
            handover: Handover::new(),
            queued_bytes: AtomicUsize::new(0),
            end: AtomicU8::new(0),
            over: AtomicBool::new(false),
            peer_ended: AtomicBool::new(false),
            refresh: AtomicU8::new(0),
            heard_ms: AtomicU64::new(monotonic_ms()),
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

    /// Who may write.
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    /// Bytes of events that are queued and not written.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Writer: a queued chunk is written to its last byte. Whether the fan-out is to be nudged, because the client has
    /// asked for another `initial` meanwhile.
    #[must_use]
    pub fn written(&self, chunk: &Chunk) -> bool {
        self.queued_bytes.fetch_sub(counted_bytes(chunk), Ordering::Relaxed);
        let again = chunk.is_message() && self.refreshed();
        self.handover.written();
        again
    }

    /// An `initial` is with the client; whether it has asked for another one meanwhile.
    fn refreshed(&self) -> bool {
        self.refresh.fetch_and(!REFRESH_IN_WORK, Ordering::Relaxed) & REFRESH_WANTED != 0
    }

    /// Ends the client for `reason`; whether this was the first reason.
    pub fn end(&self, reason: EndReason) -> bool {
        self.end
            .compare_exchange(0, reason as u8, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Why it ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        EndReason::from_u8(self.end.load(Ordering::Relaxed))
    }

    /// Its thread is done with it.
    pub fn set_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether its thread is done with it.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Inbox: nothing more will come from the peer.
    pub fn set_peer_ended(&self) {
        self.peer_ended.store(true, Ordering::Relaxed);
    }

    /// Whether nothing more will come from the peer.
    pub fn peer_ended(&self) -> bool {
        self.peer_ended.load(Ordering::Relaxed)
    }

    /// Inbox: the client wants a new `initial`; whether that is a new wish.
    pub fn want_refresh(&self) -> bool {
        self.refresh.fetch_or(REFRESH_WANTED, Ordering::Relaxed) & REFRESH_WANTED == 0
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
    /// data that nobody reads. Dissolving the association (connect(2), AF_UNSPEC) resets whoever else holds it.
    pub fn reset(&self) {
        // It fails only when the connection is gone already.
        let _ = connect_unspec(&self.socket);
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
    queue: Sender<Arc<Chunk>>,
    /// What the queue has no slot for, in order behind it. A fast stream makes many small chunks in the time in which
    /// the host does not run the writer, so that slots alone would be a bound of milliseconds.
    overflow: VecDeque<Arc<Chunk>>,
    /// Events were queued for it since its backlog was last seen to be empty.
    lags: bool,
}

/// What became of an offered chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is in the client's socket.
    Sent,
    /// Its writer will send it.
    Queued,
    /// The client has ended, now or before.
    Ended,
}

/// Makes the fan-out's and the writer's ends of a client's queue.
pub fn outbox(link: Arc<Link>) -> (Subscriber, Receiver<Arc<Chunk>>) {
    let (queue, rx) = bounded(CLIENT_QUEUE_LEN_MAX);
    let subscriber = Subscriber {
        link,
        queue,
        overflow: VecDeque::new(),
        lags: false,
    };
    (subscriber, rx)
}

impl Subscriber {
    /// The client.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Hands `chunk` to the client. Never blocks.
    pub fn offer(&mut self, chunk: &Arc<Chunk>, limits: OfferLimits) -> Offered {
        if self.link.end_reason().is_some() {
            return Offered::Ended;
        }
        if limits.delivery == Delivery::Queued || !self.link.handover.try_direct() {
            return self.enqueue(chunk, limits);
        }
        let bytes = chunk.bytes();
        match send(&self.link, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => {
                self.link.handover.direct_done();
                Offered::Sent
            }
            Ok(sent) => self.pass_on(chunk, sent),
            Err(Errno::AGAIN | Errno::INTR) => self.pass_on(chunk, 0),
            Err(_) => {
                self.link.handover.direct_done();
                self.end(EndReason::PeerGone)
            }
        }
    }

    /// The socket took `sent` bytes of it; the rest is the writer's.
    fn pass_on(&mut self, chunk: &Arc<Chunk>, sent: usize) -> Offered {
        self.count(chunk);
        let queued = self.queue.try_send(Arc::clone(chunk));
        self.link.handover.pass_on(sent);
        match queued {
            Ok(()) => Offered::Queued,
            // It cannot be full, since nothing was queued; so the writer is gone.
            Err(_) => self.end(EndReason::PeerGone),
        }
    }

    fn enqueue(&mut self, chunk: &Arc<Chunk>, limits: OfferLimits) -> Offered {
        if !self.fits(chunk, limits) {
            return self.end(EndReason::TooSlow);
        }
        self.count(chunk);
        self.overflow.push_back(Arc::clone(chunk));
        self.refill()
    }

    /// Moves what waits on our side into the queue, as far as it has slots. Never blocks.
    pub fn refill(&mut self) -> Offered {
        while let Some(chunk) = self.overflow.pop_front() {
            match self.queue.try_send(chunk) {
                Ok(()) => {}
                Err(TrySendError::Full(chunk)) => {
                    self.overflow.push_front(chunk);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => return self.end(EndReason::PeerGone),
            }
        }
        Offered::Queued
    }

    /// Whether nothing waits on our side of the queue.
    pub fn all_queued(&self) -> bool {
        self.overflow.is_empty()
    }

    /// Whether there is room; an empty queue takes one chunk of any size.
    fn fits(&self, chunk: &Chunk, limits: OfferLimits) -> bool {
        let after = self.link.queued_bytes() + counted_bytes(chunk);
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
    fn count(&mut self, chunk: &Chunk) {
        let bytes = counted_bytes(chunk);
        self.lags |= bytes > 0;
        self.link.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.link.handover.will_queue();
    }

    fn end(&self, reason: EndReason) -> Offered {
        self.link.end(reason);
        Offered::Ended
    }

    /// Whether the client waits for a new `initial`, and none is on its way.
    pub fn wants_refresh(&self) -> bool {
        self.link.refresh.load(Ordering::Relaxed) == REFRESH_WANTED
    }

    /// Hands over the `initial` that the client asked for; whether it has asked for another one meanwhile. Never blocks.
    pub fn offer_refresh(&mut self, chunk: &Arc<Chunk>, limits: OfferLimits) -> bool {
        // A wish until here is answered by this one, which the client gets after it.
        self.link.refresh.store(REFRESH_IN_WORK, Ordering::Relaxed);
        self.offer(chunk, limits) == Offered::Sent && self.link.refreshed()
    }
}

/// What a chunk takes of a client's bound. A snapshot takes nothing: it may be as large as the whole bound, the client
/// has at most one at a time besides its first, and all share its bytes.
fn counted_bytes(chunk: &Chunk) -> usize {
    if chunk.is_message() { 0 } else { chunk.bytes().len() }
}
