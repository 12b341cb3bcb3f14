//! A client's end: with the reason in a close frame where that can still be sent, else cut off.

use super::socket::send_slices;
use super::{BUSY, CLOSE_DEADLINE, LAST_ACQUIRE, LAST_FLUSH, Running, Socket};
use crate::liveness::operation::Operation;
use crate::process::clock::pause;
use crate::stream::chunk::close_frame;
use crate::stream::protocol::EndReason;
use crossbeam_channel::RecvTimeoutError;
use rustix::io::IoSlice;
use std::time::Instant;

/// The socket did not take all of what was to be the last of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotTaken;

/// What a peer has done with its own direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Ended,
    /// Not within [`CLOSE_DEADLINE`].
    StillOpen,
}

impl Running {
    /// Ends the connection: tells the client why if it can still be told, else cuts it.
    pub(super) fn finish(&mut self, reason: EndReason) {
        let _doing = self.writer.beat.begin(Operation::Closing);
        if reason == EndReason::PeerGone || self.acquire_at_last() == Socket::Busy {
            self.writer.link.cut();
            return;
        }
        // What the inbox answers from now on is not waited for.
        self.take_frames();
        let told = match reason {
            // The answer to the client's own close frame is the last of the frames; nothing may follow it.
            _ if self.peer_closed => self.flush_frames_at_once(),
            EndReason::Stopping => self
                .flush_at_last()
                .and_then(|()| self.send_at_once(&close_bytes(reason))),
            _ => self
                .finish_frame_at_once()
                .and_then(|()| self.send_at_once(&close_bytes(reason))),
        };
        if told.is_err() {
            self.writer.link.cut();
            return;
        }
        self.writer.link.shut_down_writing();
        // When the server stops, what a late reader has not taken yet is the kernel's to deliver, even past our end.
        if self.wait_for_peer() == Peer::StillOpen && reason != EndReason::Stopping {
            self.writer.link.cut();
        }
    }

    /// Takes the socket. Blocks until the fan-out gives it up, at most [`LAST_ACQUIRE`].
    pub(super) fn acquire_at_last(&mut self) -> Socket {
        let deadline = Instant::now() + LAST_ACQUIRE;
        while self.acquire() == Socket::Busy {
            if Instant::now() >= deadline {
                return Socket::Busy;
            }
            pause(BUSY);
        }
        Socket::Ours
    }

    /// Writes all that is there, within [`LAST_FLUSH`].
    ///
    /// # Errors
    /// The socket did not take it in this time; the caller cuts the connection, here and below.
    pub(super) fn flush_at_last(&mut self) -> Result<(), NotTaken> {
        self.last_deadline();
        self.write_all_there_is().map_err(|_| NotTaken)
    }

    /// From the first call on, the time for what is still written runs.
    pub(super) fn last_deadline(&mut self) {
        self.deadline.get_or_insert_with(|| Instant::now() + LAST_FLUSH);
    }

    /// Sends the rest of a frame that the client has begun to receive.
    ///
    /// # Errors
    /// The socket does not take it now.
    pub(super) fn finish_frame_at_once(&mut self) -> Result<(), NotTaken> {
        if self.sent_of_frame > 0
            && let Some(frame) = self.frames.pop_front()
        {
            return self.send_at_once(&frame[self.sent_of_frame..]);
        }
        let Some(first) = self.backlog.front().filter(|_| self.sent_of_first > 0) else {
            return Ok(());
        };
        let chunk = &first.chunk;
        let rest = chunk.bytes()[self.sent_of_first..chunk.boundary_from(self.sent_of_first)].to_vec();
        self.send_at_once(&rest)
    }

    /// Sends all frames of the inbox, behind the rest of a frame of events.
    ///
    /// # Errors
    /// The socket does not take them now.
    pub(super) fn flush_frames_at_once(&mut self) -> Result<(), NotTaken> {
        if self.sent_of_first > 0 {
            self.finish_frame_at_once()?;
        }
        let mut rest: Vec<u8> = self.frames.drain(..).flatten().collect();
        rest.drain(..self.sent_of_frame);
        self.send_at_once(&rest)
    }

    /// Sends `bytes` with one call.
    ///
    /// # Errors
    /// The socket does not take all of them now.
    pub(super) fn send_at_once(&self, bytes: &[u8]) -> Result<(), NotTaken> {
        match send_slices(&self.writer.link, &[IoSlice::new(bytes)]) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            _ => Err(NotTaken),
        }
    }

    /// Blocks until the peer has ended its direction too, at most [`CLOSE_DEADLINE`].
    pub(super) fn wait_for_peer(&self) -> Peer {
        let deadline = Instant::now() + CLOSE_DEADLINE;
        loop {
            if self.writer.link.peer_ended() {
                return Peer::Ended;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.writer.control.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break,
                // The inbox has let go of the client: it has read its end, or the server is past reading.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.writer.link.peer_ended() {
            Peer::Ended
        } else {
            Peer::StillOpen
        }
    }
}

pub(super) fn close_bytes(reason: EndReason) -> Vec<u8> {
    let facts = reason.facts();
    close_frame(facts.code, facts.text)
}
