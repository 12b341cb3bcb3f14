//! `/status`: where the numbering is, and what the server knows of every client. docs/operating.md has every key.
//!
//! The answer asks nobody: it reads what `fanout` and the clients' threads show, so it is given while they stand still.

use crate::engine_db::EngineDbGauges;
use crate::fanout::requests::FanoutGauges;
use crate::outbox::figures::{Latencies, Seen};
use crate::outbox::link::Link;
use crate::outbox::registry::Registry;
use crate::process::clock::{epoch_seconds, monotonic_ms};
use crate::process::values::show_duration;
use crate::stream::event::Seq;
use crate::stream::position::Epoch;
use crate::vitals::admin_gauges::AdminGauges;
use crate::vitals::health::object;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the page is made of.
#[derive(Debug)]
pub struct Status {
    pub clients: Arc<Registry>,
    pub fanout: Arc<FanoutGauges>,
    /// `--history-bytes`.
    pub history_bytes_max: usize,
    pub engine_db: Option<Arc<EngineDbGauges>>,
    /// The path of the admin socket; `None`: there is none.
    pub admin_socket: Option<PathBuf>,
    pub admin: Arc<AdminGauges>,
}

/// One client at one moment.
struct Row {
    fields: String,
    queued_bytes: usize,
    seen: Seen,
}

/// The sums over all rows.
#[derive(Default)]
struct Totals {
    behind: usize,
    queued: (usize, usize),
    lag_us: u64,
    skipped: u64,
    times_behind: u64,
    latencies: [u64; Latencies::BUCKETS],
    slowest_us: u64,
}

impl Status {
    /// The page as JSON: some 600 bytes for each client. Waits for clients that come and go, for moments.
    pub fn page(&self) -> String {
        let newest = self.fanout.newest.load(Ordering::Relaxed);
        let mut totals = Totals::default();
        let rows = self.clients.map(|link| Row::of(link, newest));
        rows.iter().for_each(|row| totals.add(row));
        let clients: Vec<&str> = rows.iter().map(|row| row.fields.as_str()).collect();
        let history = json!({
            "bytes": self.fanout.history_bytes.load(Ordering::Relaxed),
            "bytes_max": self.history_bytes_max,
            "after": self.fanout.history_after.load(Ordering::Relaxed),
        });
        let bounds: Vec<f64> = Latencies::bounds_us().map(millis).collect();
        let head = object(&[
            ("epoch", self.fanout.epoch.get().map(Epoch::to_string).into()),
            ("seq", newest.into()),
            ("time", epoch_seconds().into()),
            (
                "admin_socket",
                self.reachable_admin_socket()
                    .map(|path| path.display().to_string())
                    .into(),
            ),
            ("admin_refused", self.admin.refused.load(Ordering::Relaxed).into()),
            ("admin_busy", self.admin.busy.load(Ordering::Relaxed).into()),
            ("history", history),
            ("delivery_bounds_ms", bounds.into()),
            ("totals", totals.value(rows.len())),
            ("engine_db", self.engine_db.as_ref().map_or(Value::Null, |db| db.json())),
            (
                "stale_machines",
                self.engine_db
                    .as_ref()
                    .map_or(Value::Array(Vec::new()), |db| db.stale_json()),
            ),
        ]);
        // The list comes last, because it is the long one.
        let open = &head[..head.len() - 1];
        format!("{open},\"clients\":[{}]}}", clients.join(","))
    }

    fn reachable_admin_socket(&self) -> Option<&PathBuf> {
        let is_lost = self.admin.lost.load(Ordering::Relaxed);
        self.admin_socket.as_ref().filter(|_| !is_lost)
    }
}

impl Row {
    fn of(link: &Link, newest: Seq) -> Row {
        let seen = link.figures().seen(newest);
        let queued_bytes = link.queued_bytes();
        let filter = &seen.view.filter;
        let state = match (link.end_reason(), seen.behind_s) {
            (Some(_), _) => "ending",
            (None, Some(_)) => "behind",
            (None, None) => "live",
        };
        let silent_ms = monotonic_ms().saturating_sub(link.heard_ms());
        let fields = object(&[
            ("id", link.id().into()),
            ("address", link.peer().to_string().into()),
            ("since", rounded(seen.since).into()),
            ("connected_seconds", rounded(seen.connected_s).into()),
            ("protocol", link.protocol().name().into()),
            ("filter", (!filter.is_everything()).then(|| filter.to_string()).into()),
            ("conflate", seen.view.conflate.map(show_duration).into()),
            ("state", state.into()),
            ("queued_events", seen.queued_events.into()),
            ("queued_bytes", queued_bytes.into()),
            ("lag_events", seen.lag_events.into()),
            ("lag_ms", millis(seen.lag_us).into()),
            ("behind_seconds", seen.behind_s.map(rounded).into()),
            ("times_behind", seen.times_behind.into()),
            ("delivered", seen.delivered().into()),
            ("delivery", seen.latencies.as_slice().into()),
            ("slowest_ms", millis(seen.slowest_us).into()),
            ("skipped", seen.skipped.into()),
            ("skips_unknown", seen.skips_unknown.into()),
            ("conflated", seen.conflated.into()),
            ("last_pong_seconds", rounded(silent_ms as f64 / 1000.0).into()),
        ]);
        Row {
            fields,
            queued_bytes,
            seen,
        }
    }
}

impl Totals {
    fn add(&mut self, row: &Row) {
        let seen = &row.seen;
        self.behind += usize::from(seen.behind_s.is_some());
        self.queued.0 += seen.queued_events;
        self.queued.1 += row.queued_bytes;
        self.lag_us = self.lag_us.max(seen.lag_us);
        self.skipped += seen.skipped;
        self.times_behind += u64::from(seen.times_behind);
        for (sum, count) in self.latencies.iter_mut().zip(seen.latencies) {
            *sum += count;
        }
        self.slowest_us = self.slowest_us.max(seen.slowest_us);
    }

    fn value(&self, clients: usize) -> Value {
        json!({
            "clients": clients,
            "behind": self.behind,
            "queued_events": self.queued.0,
            "queued_bytes": self.queued.1,
            "lag_ms": millis(self.lag_us),
            "times_behind": self.times_behind,
            "delivered": self.latencies.iter().sum::<u64>(),
            "delivery": self.latencies,
            "slowest_ms": millis(self.slowest_us),
            "skipped": self.skipped,
        })
    }
}

fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// To the thousandth part.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
