//! What a client missed: asked for, encoded as it sees the stream, and written before anything that came later.

use super::missed::CatchUp;
use super::{BUSY, GATHER_BYTES_MAX, GATHER_CHUNKS_MAX, Pending, Running, Source, Supply};
use crate::fanout::requests::{Missed, Unanswered};
use crate::liveness::operation::Operation;
use crate::process::clock::pause;
use crate::process::limits;
use crate::process::words::count;
use crate::stream::conflation::{WINDOW_BYTES_MAX, left_out};
use crate::stream::protocol::{EndReason, v1};
use crossbeam_channel::{Receiver, TryRecvError};
use std::time::Instant;

impl Running {
    /// Goes on with what the client missed, as soon as all before it is written. Never blocks.
    pub(super) fn replay(&mut self) -> Supply {
        let now = Instant::now();
        match &self.catch_up {
            Some(catch_up) if catch_up.rests(now).is_none() => {}
            _ => return Supply::Empty,
        }
        let _doing = self.writer.beat.begin(Operation::Replaying);
        if self.encode_missed() == Supply::More {
            return Supply::More;
        }
        let Some(catch_up) = &mut self.catch_up else {
            return Supply::Empty;
        };
        self.writer.link.figures().reached(catch_up.after);
        if catch_up.complete {
            if let Some(state) = catch_up.state.take() {
                self.put_state(*state, Source::Refreshed);
                return Supply::More;
            }
            return self.caught_up(now);
        }
        if catch_up.asked.is_none() {
            catch_up.asked_at.get_or_insert(now);
            match self.writer.fanout.ask_missed(self.writer.link.id()) {
                Ok(answer) => catch_up.asked = Some(answer),
                // Later; whatever else there is to do is done first.
                Err(Unanswered::Late) => pause(BUSY),
                Err(Unanswered::Over) => self.end_without_fanout(),
            }
        }
        self.take_answer()
    }

    /// Encodes some of the batches in hand, once it is known what is left out of them.
    fn encode_missed(&mut self) -> Supply {
        let Some(catch_up) = &mut self.catch_up else {
            return Supply::Empty;
        };
        let mut bytes = 0;
        while let Some(left_out) = &catch_up.left_out
            && self.backlog.len() < GATHER_CHUNKS_MAX
            && bytes < GATHER_BYTES_MAX
            && let Some(batch) = catch_up.batches.pop_front()
        {
            self.writer.beat.step();
            if limits::is_short_of(batch.memory_bytes() as u64) {
                self.end_without_room();
                return Supply::Empty;
            }
            if let Some(chunk) = self.writer.view.encode_without(&batch, catch_up.after, left_out) {
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
        if catch_up.batches.is_empty() {
            catch_up.left_out = None;
        }
        self.supply()
    }

    /// All that there was at `asked_at` is written: the client is live, or rests to the end of its period.
    fn caught_up(&mut self, now: Instant) -> Supply {
        let Some(catch_up) = &mut self.catch_up else {
            return Supply::Empty;
        };
        let (after, events, is_told) = (catch_up.after, catch_up.events, catch_up.is_told);
        match self.writer.view.conflate {
            Some(period) => {
                let asked = catch_up.asked_at.unwrap_or(now);
                *catch_up = CatchUp::resting(after, asked + period);
            }
            None => {
                self.catch_up = None;
                self.queue_item_done();
            }
        }
        if !is_told {
            return self.supply();
        }
        if let Some(seconds) = self.writer.link.figures().caught_up() {
            log::info!(
                "🐇 client {} from {} is live again with event {after}, after {seconds:.1} s; {} came from the history",
                self.writer.link.id(),
                self.writer.link.peer(),
                count(events, "event")
            );
        }
        if self.writer.is_v1() {
            self.put_own(&v1::live(after, events));
        }
        self.supply()
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
                state,
            } => {
                let conflates = self.writer.view.conflate.is_some();
                if let Some(first) = batches.first().filter(|_| !conflates) {
                    self.writer.link.figures().next(first.published_us());
                }
                if catch_up.batches.is_empty() {
                    catch_up.after = after;
                }
                catch_up.batches.extend(batches);
                (catch_up.complete, catch_up.state) = (complete, state);
                if !conflates {
                    catch_up.left_out = Some(Vec::new());
                } else if complete || catch_up.bytes() >= WINDOW_BYTES_MAX {
                    self.conflate();
                }
            }
            Missed::State(state) => {
                catch_up.batches.clear();
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

    /// Finds out what is left out of the batches in hand, and tells the client.
    fn conflate(&mut self) {
        let Some(catch_up) = &mut self.catch_up else {
            return;
        };
        let out = left_out(catch_up.batches.iter(), catch_up.after, &self.writer.view.filter);
        let told = out.first().zip(out.last()).map(|(from, to)| (*from, *to, out.len()));
        catch_up.left_out = Some(out);
        let Some((from, to, count)) = told else {
            return;
        };
        self.writer.link.figures().conflate(count);
        if self.writer.is_v1() {
            self.put_own(&v1::conflated(from, to, count));
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
