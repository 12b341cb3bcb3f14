//! What a client missed: asked for, encoded as it sees the stream, and written before anything that came later.

use super::{BUSY, GATHER_BYTES_MAX, GATHER_CHUNKS_MAX, Pending, Running, Source, Supply};
use crate::fanout::requests::{Missed, Unanswered};
use crate::liveness::operation::Operation;
use crate::process::clock::pause;
use crate::process::limits;
use crate::process::words::count;
use crate::stream::protocol::{EndReason, v1};
use crossbeam_channel::{Receiver, TryRecvError};

impl Running {
    /// Goes on with what the client missed, as soon as all before it is written. Never blocks.
    pub(super) fn replay(&mut self) -> Supply {
        let Some(catch_up) = &mut self.catch_up else {
            return Supply::Empty;
        };
        let _doing = self.writer.beat.begin(Operation::Replaying);
        let mut bytes = 0;
        while self.backlog.len() < GATHER_CHUNKS_MAX
            && bytes < GATHER_BYTES_MAX
            && let Some(batch) = catch_up.batches.pop_front()
        {
            self.writer.beat.step();
            if limits::is_short_of(batch.memory_bytes() as u64) {
                self.end_without_room();
                return Supply::Empty;
            }
            if let Some(chunk) = self.writer.view.encode(&batch, catch_up.after) {
                bytes += chunk.bytes().len();
                catch_up.events += chunk.events() as u64;
                let source = Source::Own;
                if self.backlog.is_empty() {
                    self.writer.link.figures().next(chunk.published_us());
                }
                self.backlog.push_back(Pending { chunk, source });
            }
            catch_up.after = batch.last();
        }
        if !self.backlog.is_empty() {
            return Supply::More;
        }
        self.writer.link.figures().reached(catch_up.after);
        if catch_up.complete {
            let (after, events) = (catch_up.after, catch_up.events);
            let live = v1::live(after, events);
            self.catch_up = None;
            self.queue_item_done();
            if let Some(seconds) = self.writer.link.figures().caught_up() {
                log::info!(
                    "🐇 client {} from {} is live again with event {after}, after {seconds:.1} s; {} came from the history",
                    self.writer.link.id(),
                    self.writer.link.peer(),
                    count(events, "event")
                );
            }
            if self.writer.is_v1() {
                self.put_own(&live);
            }
            return self.supply();
        }
        if catch_up.asked.is_none() {
            match self.writer.fanout.ask_missed(self.writer.link.id()) {
                Ok(answer) => catch_up.asked = Some(answer),
                // Later; whatever else there is to do is done first.
                Err(Unanswered::Late) => pause(BUSY),
                Err(Unanswered::Over) => self.end_without_fanout(),
            }
        }
        self.take_answer()
    }

    /// Takes the answer to our question, if it is there.
    pub(super) fn take_answer(&mut self) -> Supply {
        let answer = self.catch_up.as_ref().and_then(|catch_up| catch_up.asked.as_ref());
        match answer.map(Receiver::try_recv) {
            Some(Ok(missed)) => {
                self.take_missed(missed);
                Supply::More
            }
            Some(Err(TryRecvError::Disconnected)) => {
                self.end_without_fanout();
                Supply::Empty
            }
            Some(Err(TryRecvError::Empty)) | None => Supply::Empty,
        }
    }

    pub(super) fn take_missed(&mut self, missed: Missed) {
        let Some(catch_up) = &mut self.catch_up else {
            return;
        };
        catch_up.asked = None;
        match missed {
            Missed::Batches {
                batches,
                after,
                complete,
            } => {
                if let Some(first) = batches.first() {
                    self.writer.link.figures().next(first.published_us());
                }
                catch_up.batches = batches.into();
                catch_up.after = after;
                catch_up.complete = complete;
            }
            Missed::State(state) => {
                catch_up.after = state.as_of;
                catch_up.complete = true;
                log::warn!(
                    "⚠️ client {} was behind further than the history reaches (--history-bytes); it gets the \
                     state as of event {} instead",
                    self.writer.link.id(),
                    state.as_of
                );
                self.put_state(state, Source::Own);
            }
        }
    }

    /// The fan-out does not have this client any more: it has ended, or the server stops while it misses something.
    pub(super) fn end_without_fanout(&mut self) {
        self.catch_up = None;
        self.writer.link.end(EndReason::StoppingBehind);
    }

    /// What was first in the queue is done with.
    pub(super) fn queue_item_done(&mut self) {
        self.in_hand -= 1;
        self.writer.link.handover().written();
    }
}
