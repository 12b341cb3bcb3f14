//! Signs of life: pings to the client, and for how long it may be silent.

use super::Running;
use super::missed::CatchUp;
use crate::process::clock::{epoch_seconds, monotonic_ms};
use crate::process::tcp_path::Way;
use crate::stream::chunk::{ping_frame, text_frame};
use crate::stream::event::Seq;
use crate::stream::protocol::{self, EndReason, v1};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A wait that took this much longer than asked means that this process did not run (suspended, starved).
const OVERSLEPT: Duration = Duration::from_secs(1);
/// A beat of the inbox older than this means that silence is not the client's fault.
const INBOX_STILL: Duration = Duration::from_secs(1);

impl Running {
    /// After a time in which this process did not run, nobody is blamed for it.
    pub(super) fn notice_oversleep(&mut self, asked: Duration, begun: Instant) {
        if begun.elapsed() > asked + OVERSLEPT {
            self.resumed_ms = monotonic_ms();
            self.blocked_since = self.blocked_since.map(|_| Instant::now());
        }
    }

    /// For how long there was no sign of the client while we were listening. Taking bytes is one: our ping lies behind
    /// what it has still to read.
    pub(super) fn silence(&self) -> Duration {
        let since = self.writer.link.heard_ms().max(self.resumed_ms).max(self.reads_ms);
        Duration::from_millis(monotonic_ms().saturating_sub(since))
    }

    /// Pings when it is time, and ends a client that is silent for too long.
    pub(super) fn keep_alive(&mut self) {
        let now = Instant::now();
        if now >= self.next_ping {
            // Never two at once for what a ping was late.
            self.next_ping = now + self.writer.timing.ping_interval;
            self.ping_due = true;
        }
        let silence = self.silence();
        if silence < self.writer.timing.pong_timeout {
            return;
        }
        if self.writer.inbox_beat.sight().age >= INBOX_STILL {
            self.resumed_ms = monotonic_ms();
        } else if self.way(silence) != Way::Dead {
            self.writer.link.end(EndReason::NoPong);
        } else if silence >= self.writer.timing.dead_path_timeout {
            self.writer.link.end(EndReason::DeadPath);
        }
    }

    /// Makes the ping that is due. The socket is ours and at a frame boundary, and no event goes out before the ping,
    /// so what it says of the stream is so when it goes out.
    pub(super) fn put_ping(&mut self) {
        if !std::mem::take(&mut self.ping_due) {
            return;
        }
        let mut frames = text_frame(&if self.writer.is_v1() {
            v1::ping(epoch_seconds(), self.has_all_up_to())
        } else {
            protocol::ping(epoch_seconds())
        });
        frames.extend_from_slice(&ping_frame());
        self.frames.push_back(frames);
        log::debug!("🏓 ping to client {}", self.writer.link.id());
    }

    /// The number up to which the client was sent all that it wants; `None` while something waits for it. For the
    /// socket's owner only.
    fn has_all_up_to(&self) -> Option<Seq> {
        // Acquire, and first: of all that was offered up to there, what was queued is seen below, and so is that the
        // client was left out because it catches up (which counts as queued) or has ended.
        let offered = self.writer.numbers.offered.load(Ordering::Acquire);
        let link = &self.writer.link;
        let rests = |catch_up: &CatchUp| catch_up.rests(Instant::now()).map(|_| catch_up.after);
        if let Some(after) = self.catch_up.as_ref().and_then(rests)
            && self.backlog.is_empty()
            && link.end_reason().is_none()
        {
            return Some(after);
        }
        let waits = !self.backlog.is_empty() || self.catch_up.is_some() || link.handover().queued() > 0;
        if waits || link.end_reason().is_some() {
            return None;
        }
        // Of a batch that others are still to get it may have its part already.
        Some(offered.max(link.sent()))
    }
}
