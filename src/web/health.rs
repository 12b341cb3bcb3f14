//! `/health`: the original's five keys, and a verdict that comes from the data path itself.
//!
//! The answer asks nobody: it reads what each thread shows. So it is given while every other thread stands still, and
//! it cannot say `ok` then.

use crate::client::handshake::ClientGauges;
use crate::client::http::Answer;
use crate::liveness::beat::{Beat, Beats, Operation};
use crate::pipeline::event_socket::PathState;
use crate::pipeline::ingest::IngestGauges;
use crate::pipeline::intake::IntakeGauge;
use crate::pipeline::requests::FanoutGauges;
use crate::process::clock::{epoch_seconds, pause};
use crate::process::logging::LogControl;
use crate::process::procfs::other_unix_socket_owner;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A thread that seems to stand still is looked at again after this long, which is more than the longest turn: after
/// the whole process was stopped for a while, every beat is old and nobody hangs.
const SECOND_LOOK: Duration = Duration::from_millis(400);
/// A thread is late after this part of the hang timeout.
const LATE_PART: u32 = 3;

/// What the verdict is made of.
#[derive(Debug)]
pub struct Vitals {
    pub beats: Arc<Beats>,
    pub ingest: Arc<IngestGauges>,
    pub intake: IntakeGauge,
    pub fanout: Arc<FanoutGauges>,
    pub clients: Arc<ClientGauges>,
    pub log: Option<LogControl>,
    pub hang_timeout: Duration,
    pub event_socket_path: PathBuf,
    /// Seconds since the epoch.
    pub started: f64,
}

/// How well the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Ok,
    Degraded,
    Hung,
}

impl Vitals {
    /// The page. Blocks 400 ms when something seems to stand still; 503 when the data path does.
    pub fn answer(&self) -> Answer {
        let (status, reasons) = self.verdict();
        let code = if status == Status::Hung { 503 } else { 200 };
        let name = match status {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Hung => "hung",
        };
        Answer::json(code, self.document(name, &reasons).into_bytes())
    }

    fn document(&self, status: &str, reasons: &[String]) -> String {
        let last_event = self.fanout.last_event().unwrap_or(self.started);
        let since = (epoch_seconds() - last_event).max(0.0);
        let tally = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| -> Value {
            counts
                .map(|(name, count)| (name.to_owned(), count.into()))
                .collect::<Map<_, _>>()
                .into()
        };
        // The original's five, in its order, then ours.
        let fields: [(&str, Value); 17] = [
            ("status", status.into()),
            ("connections", self.fanout.clients.load(Ordering::Relaxed).into()),
            ("last_event_time", last_event.into()),
            ("seconds_since_last_event", ((since * 100.0).round() / 100.0).into()),
            (
                "unix_socket_active",
                (self.ingest.path_state() == PathState::Ours).into(),
            ),
            ("reasons", reasons.into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            (
                "uptime_seconds",
                ((epoch_seconds() - self.started).max(0.0).floor()).into(),
            ),
            ("events_received", self.ingest.received.load(Ordering::Relaxed).into()),
            ("events_forwarded", self.fanout.events.load(Ordering::Relaxed).into()),
            ("events_dropped", tally(&mut self.ingest.drops.counts())),
            (
                "queue",
                json!({ "events": self.intake.len(), "bytes": self.intake.bytes() }),
            ),
            ("machines", self.fanout.machines.load(Ordering::Relaxed).into()),
            (
                "machines_evicted",
                self.fanout.machines_evicted.load(Ordering::Relaxed).into(),
            ),
            ("clients_ended", tally(&mut self.clients.ends.counts())),
            (
                "connections_refused",
                self.clients.refused.load(Ordering::Relaxed).into(),
            ),
            (
                "log_lines_lost",
                self.log.as_ref().map_or(0, LogControl::lines_lost).into(),
            ),
        ];
        let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", fields.join(","))
    }

    /// The worst finding, and every finding in words.
    fn verdict(&self) -> (Status, Vec<String>) {
        let late_after = self.hang_timeout / LATE_PART;
        let suspects: Vec<(&Arc<Beat>, u64)> = self
            .beats
            .all()
            .into_iter()
            .map(|beat| (beat, beat.sight()))
            .filter(|(beat, sight)| beat.is_core() || sight.operation != Operation::Ended)
            .filter(|(_, sight)| sight.age >= late_after)
            .map(|(beat, sight)| (beat, sight.progress))
            .collect();
        let mut findings = Vec::new();
        if !suspects.is_empty() {
            pause(SECOND_LOOK);
            let still = suspects.iter().filter(|(beat, progress)| beat.progress() == *progress);
            findings.extend(still.map(|(beat, _)| self.finding(beat)));
        }
        findings.extend(self.path_finding());
        let status = findings.iter().map(|(status, _)| *status).max().unwrap_or(Status::Ok);
        (status, findings.into_iter().map(|(_, text)| text).collect())
    }

    fn finding(&self, beat: &Beat) -> (Status, String) {
        let sight = beat.sight();
        let hung = sight.age >= self.hang_timeout;
        let status = if hung && beat.is_core() {
            Status::Hung
        } else {
            Status::Degraded
        };
        let text = format!(
            "{} is {}: {} for {:.1} s without progress",
            beat.name(),
            if hung { "hung" } else { "late" },
            sight.operation.text(),
            sight.age.as_secs_f64()
        );
        (status, text)
    }

    fn path_finding(&self) -> Option<(Status, String)> {
        let path = self.event_socket_path.display();
        let text = match self.ingest.path_state() {
            PathState::Ours => return None,
            PathState::Gone => format!("event socket {path} was removed and cannot be bound again yet"),
            PathState::Blocked => format!("event socket {path} was replaced by something that is not a socket"),
            PathState::Taken => match other_unix_socket_owner(&self.event_socket_path) {
                Some(owner) => format!("another server owns event socket {path}: {owner}"),
                None => format!("another server owns event socket {path}"),
            },
        };
        Some((Status::Degraded, text))
    }
}
