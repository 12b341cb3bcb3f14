//! What thread `alerts` shows to threads that ask. Relaxed throughout: single facts that order nothing.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the thread shows.
#[derive(Debug, Default)]
pub struct AlertGauges {
    /// Alerts whose command ended with status 0.
    pub delivered: AtomicU64,
    /// Alerts whose command did not start, ended otherwise, or was killed.
    pub failed: AtomicU64,
    /// Alerts for which no command ran: 64 others waited behind them.
    pub dropped: AtomicU64,
    /// Alerts that wait for their command.
    pub waiting: AtomicU64,
}

impl AlertGauges {
    /// For `/health`.
    pub fn json(&self) -> Value {
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed);
        json!({
            "delivered": number(&self.delivered),
            "failed": number(&self.failed),
            "dropped": number(&self.dropped),
            "waiting": number(&self.waiting),
        })
    }
}
