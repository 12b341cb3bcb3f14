//! The client's socket: whole chunks and frames are written here, and waited for room.

use super::{GATHER_BYTES_MAX, GATHER_CHUNKS_MAX, LOOK, Running, Source};
use crate::liveness::operation::Operation;
use crate::outbox::link::{Link, Refreshed};
use crate::process::clock::{monotonic_ms, monotonic_us, timespec};
use crate::process::tcp_path::{TcpPath, Way};
use crate::process::waits;
use crate::stream::protocol::EndReason;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

impl Running {
    /// Writes the first chunks of the backlog to their last byte.
    pub(super) fn write_chunks(&mut self) -> Result<(), EndReason> {
        let mut count = 0;
        let mut bytes = 0;
        for pending in self.backlog.iter().take(GATHER_CHUNKS_MAX) {
            let len = pending.chunk.bytes().len();
            if count > 0 && bytes + len > GATHER_BYTES_MAX {
                break;
            }
            count += 1;
            bytes += len;
        }
        let target = self.backlog.len() - count;
        while self.backlog.len() > target {
            let left = self.backlog.len() - target;
            let slices: Vec<IoSlice<'_>> = self
                .backlog
                .iter()
                .take(left)
                .enumerate()
                .map(|(index, pending)| {
                    let sent = if index == 0 { self.sent_of_first } else { 0 };
                    IoSlice::new(&pending.chunk.bytes()[sent..])
                })
                .collect();
            let sent = send_slices(&self.writer.link, &slices);
            let sent = self.progress(sent)?;
            self.account(sent);
        }
        Ok(())
    }

    /// Takes `sent` bytes off the front of the backlog.
    pub(super) fn account(&mut self, sent: usize) {
        self.sent_of_first += sent;
        let mut now_us = None;
        while let Some(first) = self.backlog.front() {
            let len = first.chunk.bytes().len();
            if self.sent_of_first < len {
                return;
            }
            self.sent_of_first -= len;
            self.writer.link.set_sent(&first.chunk);
            if !first.chunk.is_message() {
                let figures = self.writer.link.figures();
                figures.delivered(&first.chunk, *now_us.get_or_insert_with(monotonic_us));
                figures.reached(first.chunk.last());
            }
            match first.source {
                Source::Own => {}
                Source::Refreshed => {
                    if self.writer.link.refreshed() == Refreshed::WantsAnother {
                        self.writer.fanout.nudge();
                    }
                }
                Source::Events => {
                    self.in_hand -= 1;
                    self.writer.link.events_written(&first.chunk);
                }
                Source::Initial => {
                    self.in_hand -= 1;
                    if self.writer.link.initial_written() == Refreshed::WantsAnother {
                        self.writer.fanout.nudge();
                    }
                }
            }
            self.backlog.pop_front();
            let next = self.backlog.iter().find(|pending| !pending.chunk.is_message());
            if let Some(next) = next {
                self.writer.link.figures().next(next.chunk.published_us());
            }
        }
    }

    /// Writes the first frame to its last byte.
    pub(super) fn write_frame(&mut self) -> Result<(), EndReason> {
        while let Some(frame) = self.frames.front() {
            if self.sent_of_frame == frame.len() {
                self.sent_of_frame = 0;
                self.frames.pop_front();
                return Ok(());
            }
            let sent = send_slices(&self.writer.link, &[IoSlice::new(&frame[self.sent_of_frame..])]);
            self.sent_of_frame += self.progress(sent)?;
        }
        Ok(())
    }

    /// Judges the outcome of a send; when the socket is full, blocks until it may take more.
    pub(super) fn progress(&mut self, sent: Result<usize, Errno>) -> Result<usize, EndReason> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(EndReason::SendTimeout);
        }
        match sent {
            Ok(sent) => {
                self.writer.beat.step();
                if self.blocked_since.take().is_some() {
                    self.reads_ms = monotonic_ms();
                    self.path_is_dead = false;
                }
                Ok(sent)
            }
            Err(Errno::INTR) => Ok(0),
            Err(Errno::AGAIN) => self.wait_for_room().map(|()| 0),
            Err(_) => Err(EndReason::PeerGone),
        }
    }

    /// Blocks until the socket may take a byte, at most a look; the send timeout counts from the last byte it took. The
    /// kernel shows what a peer reads only in large steps, so that some KiB a second look like nothing.
    pub(super) fn wait_for_room(&mut self) -> Result<(), EndReason> {
        let left = self.patience_left()?;
        let (asked, begun) = (left.min(LOOK), Instant::now());
        let about = (0, self.writer.link.queued_bytes() as u64);
        let _doing = self.writer.beat.begin_about(Operation::WaitingForSocket, about);
        let mut fds = [PollFd::from_borrowed_fd(self.writer.link.as_fd(), PollFlags::OUT)];
        // Interrupted or not, the next send tells.
        let _ = waits::CLIENTS.judge(poll(&mut fds, Some(&timespec(asked))));
        self.notice_oversleep(asked, begun);
        match self.writer.link.end_reason() {
            None => Ok(()),
            // The backlog of a stopping server is still written, within its own bound however long the send timeout is.
            Some(EndReason::Stopping) => {
                self.last_deadline();
                Ok(())
            }
            Some(reason) => Err(reason),
        }
    }
}

impl Running {
    /// How long the socket may still be full; never zero.
    ///
    /// # Errors
    /// The reason to end the client for: [`EndReason::SendTimeout`] if its reader is slow, [`EndReason::DeadPath`] if
    /// the path to it is dead.
    fn patience_left(&mut self) -> Result<Duration, EndReason> {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        let (blocked, timing) = (since.elapsed(), &self.writer.timing);
        let left = timing.send_timeout.saturating_sub(blocked);
        if !left.is_zero() {
            return Ok(left);
        }
        let was_dead = std::mem::take(&mut self.path_is_dead);
        match self.way(blocked) {
            Way::Dead => {
                let left = timing.dead_path_timeout.saturating_sub(blocked);
                self.path_is_dead = true;
                if left.is_zero() {
                    Err(EndReason::DeadPath)
                } else {
                    Ok(left)
                }
            }
            // It is back, and with it the time in which the client may show that it reads.
            Way::Open if was_dead => {
                self.blocked_since = Some(Instant::now());
                Ok(timing.send_timeout)
            }
            Way::Open | Way::Refused => Err(EndReason::SendTimeout),
        }
    }

    /// Asks the kernel about the path to a client that has been silent, or has taken nothing, for `silent`.
    /// Where it says nothing, the client is to blame.
    pub(super) fn way(&self, silent: Duration) -> Way {
        TcpPath::of(&*self.writer.link).map_or(Way::Open, |path| path.way(silent))
    }
}

/// One non-blocking send. Nothing to send is sent.
pub(super) fn send_slices(link: &Link, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(link, slices, &mut SendAncillaryBuffer::default(), flags)
}
