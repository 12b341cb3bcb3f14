//! What the fan-out shows without being asked, for pages and the heartbeat.

use super::{Fanout, name_if_slow};
use crate::fanout::requests::Backlog;
use crate::outbox::link::Ended;
use crate::process::clock::monotonic_ms;
use crate::stream::protocol::EndReason;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Fanout {
    pub(super) fn show_clients(&self) {
        self.gauges.clients.store(self.clients.len(), Ordering::Relaxed);
    }

    pub(super) fn show_backlog(&mut self) {
        let mut backlog = Backlog {
            measured_ms: monotonic_ms(),
            ..Backlog::default()
        };
        let (mut behind, mut ended) = (0, false);
        for client in &mut self.clients {
            match client.backlog_bytes() {
                0 => {}
                bytes => backlog.add(client.link().id(), bytes),
            }
            if let Some(time) = client.behind_for() {
                behind += 1;
                // Who is behind again soon after it was named is named when it still is.
                name_if_slow(client);
                ended |= time >= self.settings.max_behind && client.link().end(EndReason::TooSlow) == Ended::Now;
            }
        }
        self.gauges.behind.store(behind, Ordering::Relaxed);
        if ended {
            self.let_go();
        }
        if self.gauges.try_show_backlog(backlog) {
            self.backlog_shown = Instant::now();
        }
    }

    pub(super) fn show_history(&self) {
        let history = &self.history;
        self.gauges.newest.store(history.newest(), Ordering::Relaxed);
        self.gauges.history_bytes.store(history.bytes(), Ordering::Relaxed);
        self.gauges.history_after.store(history.reaches(), Ordering::Relaxed);
    }

    pub(super) fn show_machines(&self) {
        self.gauges.machines.store(self.machines.len(), Ordering::Relaxed);
        self.gauges
            .machines_evicted
            .store(self.machines.evicted(), Ordering::Relaxed);
        self.gauges
            .machines_untabled
            .store(self.machines.untabled(), Ordering::Relaxed);
    }
}
