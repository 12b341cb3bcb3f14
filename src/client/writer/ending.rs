//! A client's end: told why where it can be told, else cut off.

use super::socket::send_slices;
use super::{BUSY, CLOSE_DEADLINE, LAST_ACQUIRE, LAST_FLUSH, Running};
use crate::liveness::operation::Operation;
use crate::process::clock::pause;
use crate::stream::chunk::close_frame;
use crate::stream::protocol::EndReason;
use crossbeam_channel::RecvTimeoutError;
use rustix::io::IoSlice;
use std::time::Instant;

impl Running {
    /// Ends the connection: tells the client why if it can still be told, else cuts it.
    pub(super) fn finish(&mut self, reason: EndReason) {
        let _doing = self.writer.beat.begin(Operation::Closing);
        if reason == EndReason::PeerGone || !self.acquire_at_last() {
            self.writer.link.cut();
            return;
        }
        // What the inbox answers from now on is not waited for.
        self.take_frames();
        let told = match reason {
            // The answer to the client's own close frame is the last of the frames; nothing may follow it.
            _ if self.peer_closed => self.flush_frames_at_once(),
            EndReason::Stopping => self.flush_at_last() && self.send_at_once(&close_bytes(reason)),
            _ => self.finish_frame_at_once() && self.send_at_once(&close_bytes(reason)),
        };
        if !told {
            self.writer.link.cut();
            return;
        }
        self.writer.link.shut_down_writing();
        // When the server stops, what a late reader has not taken yet is the kernel's to deliver, even past our end.
        if !self.peer_ended() && reason != EndReason::Stopping {
            self.writer.link.cut();
        }
    }

    pub(super) fn acquire_at_last(&mut self) -> bool {
        let deadline = Instant::now() + LAST_ACQUIRE;
        while !self.acquire() {
            if Instant::now() >= deadline {
                return false;
            }
            pause(BUSY);
        }
        true
    }

    /// Writes all that is there, within [`LAST_FLUSH`]; whether it could.
    pub(super) fn flush_at_last(&mut self) -> bool {
        self.last_deadline();
        self.write_all_there_is().is_ok()
    }

    /// From the first call on, the time for what is still written runs.
    pub(super) fn last_deadline(&mut self) {
        self.deadline.get_or_insert_with(|| Instant::now() + LAST_FLUSH);
    }

    /// Sends the rest of a frame that the client has begun to receive, if the socket takes it now.
    pub(super) fn finish_frame_at_once(&mut self) -> bool {
        if self.sent_of_frame > 0
            && let Some(frame) = self.frames.pop_front()
        {
            return self.send_at_once(&frame[self.sent_of_frame..]);
        }
        let Some(first) = self.backlog.front().filter(|_| self.sent_of_first > 0) else {
            return true;
        };
        let chunk = &first.chunk;
        let rest = chunk.bytes()[self.sent_of_first..chunk.boundary_from(self.sent_of_first)].to_vec();
        self.send_at_once(&rest)
    }

    pub(super) fn flush_frames_at_once(&mut self) -> bool {
        if self.sent_of_first > 0 && !self.finish_frame_at_once() {
            return false;
        }
        let mut rest: Vec<u8> = self.frames.drain(..).flatten().collect();
        rest.drain(..self.sent_of_frame);
        self.send_at_once(&rest)
    }

    pub(super) fn send_at_once(&self, bytes: &[u8]) -> bool {
        send_slices(&self.writer.link, &[IoSlice::new(bytes)]) == Ok(bytes.len())
    }

    /// Blocks until the peer has ended its direction too, at most [`CLOSE_DEADLINE`]; whether it has.
    pub(super) fn peer_ended(&self) -> bool {
        let deadline = Instant::now() + CLOSE_DEADLINE;
        loop {
            if self.writer.link.peer_ended() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.writer.control.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return self.writer.link.peer_ended(),
                // The inbox has let go of the client: it has read its end, or the server is past reading.
                Err(RecvTimeoutError::Disconnected) => return self.writer.link.peer_ended(),
            }
        }
    }
}

pub(super) fn close_bytes(reason: EndReason) -> Vec<u8> {
    let facts = reason.facts();
    close_frame(facts.code, facts.text)
}
