//! The alerts that wait for their command.

use super::alert::Alert;
use crate::vitals::alert_gauges::AlertGauges;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Alerts that wait. At one a second the last of them is a minute old.
const WAITING_MAX: usize = 64;

/// At most 64 alerts, the oldest first.
#[derive(Debug)]
pub(super) struct Waiting {
    alerts: VecDeque<Alert>,
    gauges: Arc<AlertGauges>,
    /// Dropped since [`Waiting::take_dropped`] was last asked.
    dropped: u64,
}

impl Waiting {
    pub(super) fn new(gauges: Arc<AlertGauges>) -> Waiting {
        Waiting {
            alerts: VecDeque::new(),
            gauges,
            dropped: 0,
        }
    }

    /// Adds an alert. If 64 wait already, the oldest is dropped and counted: what is newer says more of now.
    pub(super) fn push(&mut self, alert: Alert) {
        self.alerts.push_back(alert);
        if self.alerts.len() > WAITING_MAX {
            self.alerts.pop_front();
            self.count_dropped(1);
        }
        self.show();
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Alert> {
        let alert = self.alerts.pop_front();
        self.show();
        alert
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alerts.is_empty()
    }

    /// Drops all that wait, and counts them.
    pub(super) fn clear(&mut self) {
        self.count_dropped(self.alerts.len() as u64);
        self.alerts.clear();
        self.show();
    }

    /// How many were dropped since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn count_dropped(&mut self, count: u64) {
        self.dropped += count;
        self.gauges.dropped.fetch_add(count, Ordering::Relaxed);
    }

    fn show(&self) {
        self.gauges.waiting.store(self.alerts.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_the_newest_stay_and_the_others_are_counted() {
        let gauges = Arc::<AlertGauges>::default();
        let mut waiting = Waiting::new(Arc::clone(&gauges));
        for number in 0..200 {
            waiting.push(Alert {
                kind: "stuck",
                subject: number.to_string(),
                text: String::new(),
                lasted: None,
                time: 0.0,
            });
        }
        assert_eq!((waiting.take_dropped(), waiting.take_dropped()), (136, 0));
        assert_eq!(waiting.pop().unwrap().subject, "136");
        let shown = || {
            (
                gauges.waiting.load(Ordering::Relaxed),
                gauges.dropped.load(Ordering::Relaxed),
            )
        };
        assert_eq!(shown(), (63, 136));
        waiting.clear();
        assert_eq!((shown(), waiting.take_dropped()), ((0, 199), 63));
        assert!(waiting.pop().is_none() && waiting.is_empty());
    }
}
