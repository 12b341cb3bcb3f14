//! The survey of the machine table, made a slice a turn, and what was found in the last one.

use super::Fanout;
use crate::fanout::requests::Findings;
use crate::intake::queue::Entry;
use crate::liveness::operation::Operation;
use crate::process::clock::suspended;
use crate::stream::machines::survey::Survey;
use crate::stream::position::Position;
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A turn begins at most 250 ms after the one before, and takes milliseconds: if it is this much later, this process or
/// the host stood still, and senders may have given up unseen.
const STANDSTILL: Duration = Duration::from_secs(2);

impl Fanout {
    /// Somebody wants a survey; it comes within the next turns.
    pub(super) fn want_survey(&mut self, reply: Sender<Arc<Survey>>) {
        self.surveys_wanted.push(reply);
    }

    /// Goes on with the survey that somebody waits for, for a millisecond at most.
    pub(super) fn go_on_with_survey(&mut self) {
        if self.surveys_wanted.is_empty() {
            return;
        }
        let about = (self.machines.len() as u64, 0);
        let _doing = self.beat.begin_about(Operation::Snapshot, about);
        let as_of = Position {
            epoch: self.epoch,
            seq: self.history.newest(),
        };
        let Some(survey) = self.machines.survey(as_of, Instant::now()) else {
            return;
        };
        for reply in self.surveys_wanted.drain(..) {
            // Only one that has given up does not take it.
            let _ = reply.try_send(Arc::clone(&survey));
        }
    }

    /// Takes in what was found of machines: notes it at those whose dwell lasts, and tells everybody if there is one.
    /// Returns whether there was.
    pub(super) fn take_findings(&mut self, findings: Findings) -> bool {
        let mut lasts = findings.machines.is_empty();
        for (machine, dwell, verdict) in &findings.machines {
            lasts |= self.machines.judge(machine, *dwell, *verdict);
        }
        // Those who look now see it.
        self.machines.renew_survey();
        if let Some(told) = findings.told.filter(|_| lasts) {
            self.publish(&[Entry::Own(Box::new(told))]);
        }
        lasts
    }

    /// Notes a time in which nothing moved here. Called once a turn, before its events.
    pub(super) fn note_standstill(&mut self) {
        let now = Instant::now();
        let slept = std::mem::replace(&mut self.slept, suspended());
        let stood = now.saturating_duration_since(self.turned) >= STANDSTILL;
        if stood || self.slept.saturating_sub(slept) >= STANDSTILL {
            self.machines.note_standstill(now);
        }
        self.turned = now;
    }
}
