//! `/health`: the original's five keys, and a verdict that comes from the data path itself.
//!
//! The answer asks nobody: it reads what each thread shows. So it is given while every other thread stands still, and
//! it cannot say `ok` then.

use crate::detector::findings::Findings;
use crate::engine_db::EngineDbGauges;
use crate::fanout::requests::FanoutGauges;
use crate::intake::event_socket::PathState;
use crate::intake::gauges::IngestGauges;
use crate::intake::queue::IntakeGauge;
use crate::journal::queue::JournalGauges;
use crate::liveness::beat::{Beat, Verdict};
use crate::liveness::beats::Beats;
use crate::outbox::gauges::ClientGauges;
use crate::process::clock::{monotonic_ms, pause};
use crate::process::logging::LogControl;
use crate::process::procfs::other_unix_socket_owner;
use crate::process::waits;
use crate::stream::machines::dwell;
use crate::stream::position::Epoch;
use crate::vitals::alert_gauges::AlertGauges;
use crate::vitals::reason::{Kind, Reason};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Threads that are named; a fault that stalls one client often stalls many.
const STALLS_MAX: usize = 20;
/// The watchdog judges all others, but nobody judges it. Writing a report takes it a second or two.
const WATCHDOG_STILL: Duration = Duration::from_secs(10);
/// When it seems to stand still, it is looked at again after this long, which is more than its turn: after the whole
/// process was stopped for a while, every beat is old and nobody hangs.
const SECOND_LOOK: Duration = Duration::from_millis(400);

/// What the verdict is made of.
#[derive(Debug)]
pub struct Vitals {
    pub beats: &'static Beats,
    pub ingest: Arc<IngestGauges>,
    pub intake: IntakeGauge,
    pub fanout: Arc<FanoutGauges>,
    pub clients: Arc<ClientGauges>,
    pub journal: Option<Arc<JournalGauges>>,
    pub engine_db: Option<Arc<EngineDbGauges>>,
    /// `None`: no command is run for alerts.
    pub alerts: Option<Arc<AlertGauges>>,
    pub log: Option<LogControl>,
    /// Which machines stay too long.
    pub findings: Arc<Findings>,
    pub event_socket_path: PathBuf,
    /// Seconds since the epoch.
    pub started: f64,
    /// The same moment, [`monotonic_ms`].
    pub started_ms: u64,
}

/// A JSON object of these fields, in this order.
pub fn object(fields: &[(&'static str, Value)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// How well the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    Degraded,
    Hung,
}

impl Status {
    /// Its name in `/health`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Hung => "hung",
        }
    }
}

/// What is wrong with the server at one moment.
#[derive(Debug)]
pub struct Finding {
    pub status: Status,
    /// Every reason; none when there is nothing to say.
    pub reasons: Vec<Reason>,
    stalls: Vec<Stall>,
}

impl Finding {
    /// Every reason in words.
    pub fn texts(&self) -> Vec<String> {
        self.reasons.iter().map(|reason| reason.text.clone()).collect()
    }

    /// Of a server of which nobody judges, because it has only just begun or is about to end.
    pub fn none() -> Finding {
        Finding {
            status: Status::Ok,
            reasons: Vec::new(),
            stalls: Vec::new(),
        }
    }
}

/// A thread that makes no progress.
#[derive(Debug)]
struct Stall {
    component: String,
    verdict: Verdict,
    operation: String,
    still: Duration,
    /// Nothing is well while it hangs: a thread of the data path, and the watchdog, who judges all
    /// others.
    is_vital: bool,
}

impl Stall {
    fn of(beat: &'static Beat, verdict: Verdict, still: Duration) -> Stall {
        Stall {
            component: beat.name(),
            verdict,
            operation: beat.sight().text(),
            still,
            is_vital: beat.is_core(),
        }
    }

    fn finding(&self) -> (Status, Reason) {
        let status = if self.is_vital && self.verdict == Verdict::Hung {
            Status::Hung
        } else {
            Status::Degraded
        };
        let text = format!(
            "{} is {}: no progress for {:.1} s in {}",
            self.component,
            self.verdict.name(),
            self.still.as_secs_f64(),
            self.operation
        );
        let kind = match self.verdict {
            Verdict::Hung => Kind::Hung,
            Verdict::Late | Verdict::Alive => Kind::Other,
        };
        let subject = self.component.clone();
        (status, Reason { kind, subject, text })
    }

    fn json(&self) -> Value {
        json!({
            "component": self.component,
            "verdict": self.verdict.name(),
            "operation": self.operation,
            "seconds": (self.still.as_secs_f64() * 10.0).round() / 10.0,
        })
    }
}

/// The process that has the socket at `path`, if it is not this one. Looks through all of /proc.
pub fn owner_of(path: &Path) -> Option<String> {
    other_unix_socket_owner(path).map(|owner| owner.to_string())
}

impl Vitals {
    /// The verdict, and the page as JSON. Blocks 400 ms when the watchdog seems to stand still.
    pub fn page(&self) -> (Status, String) {
        let finding = self.find(pause);
        let page = object(&self.fields(finding.status.name(), &finding));
        (finding.status, page)
    }

    /// Judges. When the watchdog seems to stand still, `pause` is called, once, with the time until the second look;
    /// the caller has it block in the way of its own thread.
    pub fn find(&self, pause: impl FnOnce(Duration)) -> Finding {
        self.find_with(pause, owner_of)
    }

    /// As [`Vitals::find`], for a thread that looks often: it remembers what `owner` finds out of the server that has
    /// taken the event socket, because that takes a look through all of /proc.
    pub fn find_with(&self, pause: impl FnOnce(Duration), owner: impl FnOnce(&Path) -> Option<String>) -> Finding {
        let stalls = self.stalls(pause);
        let mut status = Status::Ok;
        let mut reasons = Vec::new();
        let stalled = stalls.iter().map(Stall::finding);
        let waits = waits::faults().map(|text| {
            let (kind, subject) = (Kind::Other, "waits".to_owned());
            (Status::Degraded, Reason { kind, subject, text })
        });
        for (how, reason) in stalled
            .chain(self.path_finding(owner))
            .chain(self.journal_finding())
            .chain(waits)
            .chain(self.machine_findings())
        {
            status = status.max(how);
            reasons.push(reason);
        }
        Finding {
            status,
            reasons,
            stalls,
        }
    }

    /// What the page says, in its order, under a `status` in a word.
    pub fn fields(&self, status: &str, finding: &Finding) -> Vec<(&'static str, Value)> {
        let last_event = self.fanout.last_event().unwrap_or(self.started);
        let uptime = Duration::from_millis(monotonic_ms().saturating_sub(self.started_ms));
        let since = self.fanout.last_event_age().unwrap_or(uptime).as_secs_f64();
        let tally = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| -> Value {
            counts
                .map(|(name, count)| (name.to_owned(), count.into()))
                .collect::<Map<_, _>>()
                .into()
        };
        // The original's five, in its order, then ours.
        let mut fields = vec![
            ("status", status.into()),
            ("connections", self.fanout.clients.load(Ordering::Relaxed).into()),
            ("last_event_time", last_event.into()),
            ("seconds_since_last_event", ((since * 100.0).round() / 100.0).into()),
            (
                "unix_socket_active",
                (self.ingest.path_state() == PathState::Ours).into(),
            ),
            ("reasons", finding.texts().into()),
            ("stalls", finding.stalls.iter().map(Stall::json).collect()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("uptime_seconds", uptime.as_secs_f64().floor().into()),
            ("events_received", self.ingest.received.load(Ordering::Relaxed).into()),
            ("events_forwarded", self.fanout.events.load(Ordering::Relaxed).into()),
            ("events_dropped", tally(&mut self.ingest.drops.counts())),
            (
                "queue",
                json!({ "events": self.intake.len(), "bytes": self.intake.bytes() }),
            ),
            ("epoch", self.fanout.epoch.get().map(Epoch::to_string).into()),
            ("seq", self.fanout.newest.load(Ordering::Relaxed).into()),
            (
                "history_bytes",
                self.fanout.history_bytes.load(Ordering::Relaxed).into(),
            ),
            ("clients_behind", self.fanout.behind.load(Ordering::Relaxed).into()),
            ("machines", self.fanout.machines.load(Ordering::Relaxed).into()),
            ("machines_stuck", self.findings.counts().0.into()),
            ("machines_silent", self.findings.counts().1.into()),
            ("machines_judged", (!self.findings.is_starved()).into()),
            (
                "machines_evicted",
                self.fanout.machines_evicted.load(Ordering::Relaxed).into(),
            ),
            (
                "machines_left_out",
                self.fanout.machines_left_out.load(Ordering::Relaxed).into(),
            ),
            ("clients_ended", tally(&mut self.clients.ends.counts())),
            (
                "connections_refused",
                self.clients.refused.load(Ordering::Relaxed).into(),
            ),
            ("requests_refused", tally(&mut self.clients.requests.counts())),
            ("connections_failed", tally(&mut self.clients.faults.counts())),
            ("messages_ignored", self.clients.ignored.load(Ordering::Relaxed).into()),
        ];
        fields.extend(self.fields_beside());
        fields
    }

    /// The last fields: of what is beside the path of events.
    fn fields_beside(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("slow_operations", self.slow_operations()),
            (
                "journal",
                self.journal.as_ref().map_or(Value::Null, |journal| journal.json()),
            ),
            ("engine_db", self.engine_db.as_ref().map_or(Value::Null, |db| db.json())),
            (
                "alerts",
                self.alerts.as_ref().map_or(Value::Null, |alerts| alerts.json()),
            ),
            (
                "log_lines_lost",
                self.log.as_ref().map_or(0, LogControl::lines_lost).into(),
            ),
        ]
    }

    /// Machines that stay too long. The server is well all the same.
    fn machine_findings(&self) -> impl Iterator<Item = (Status, Reason)> {
        let shown = self.findings.shown().into_iter();
        shown.map(|shown| {
            let reason = Reason {
                kind: match shown.verdict {
                    dwell::Verdict::Stuck => Kind::Stuck,
                    dwell::Verdict::Silent => Kind::Silent,
                },
                subject: shown.subject,
                text: shown.text,
            };
            (Status::Ok, reason)
        })
    }

    fn slow_operations(&self) -> Value {
        let row = |(name, count, max): (&str, u64, Duration)| {
            let max_ms = max.as_micros() as f64 / 1000.0;
            (name.replace(' ', "_"), json!({ "count": count, "max_ms": max_ms }))
        };
        self.beats.slow.rows().map(row).collect::<Map<_, _>>().into()
    }

    /// What the watchdog says of the threads, and what nobody but us can say of the watchdog.
    fn stalls(&self, pause: impl FnOnce(Duration)) -> Vec<Stall> {
        let judged = self.beats.all().map(|beat| (beat, beat.verdict()));
        let stalled = judged.filter(|(_, (verdict, _))| *verdict != Verdict::Alive);
        // The server's own threads come first.
        let mut stalls: Vec<Stall> = stalled
            .take(STALLS_MAX)
            .map(|(beat, (verdict, still))| Stall::of(beat, verdict, still))
            .collect();
        let watchdog = self.beats.watchdog;
        let seen = watchdog.sight();
        if seen.age >= WATCHDOG_STILL {
            pause(SECOND_LOOK);
            if watchdog.progress() == seen.progress {
                stalls.push(Stall {
                    is_vital: true,
                    ..Stall::of(watchdog, Verdict::Hung, watchdog.sight().age)
                });
            }
        }
        stalls
    }

    fn journal_finding(&self) -> Option<(Status, Reason)> {
        let failure = self.journal.as_ref()?.failure()?;
        let reason = Reason {
            kind: Kind::JournalFailed,
            subject: "journal".to_owned(),
            text: format!("the journal cannot be written: {failure}"),
        };
        Some((Status::Degraded, reason))
    }

    fn path_finding(&self, owner: impl FnOnce(&Path) -> Option<String>) -> Option<(Status, Reason)> {
        let path = self.event_socket_path.display();
        let state = self.ingest.path_state();
        let text = match state {
            PathState::Ours => match self.ingest.lessened_mode() {
                None => return None,
                Some(mode) => {
                    format!("event socket {path} has permissions {mode:03o} now, so some senders are refused")
                }
            },
            PathState::Unseen => format!("event socket {path} cannot be looked at, so senders may not reach it"),
            PathState::Gone => format!("event socket {path} was removed and cannot be bound again yet"),
            PathState::Blocked => format!("event socket {path} was replaced by something that is not a socket"),
            PathState::Taken => match owner(&self.event_socket_path) {
                Some(owner) => format!("another server owns event socket {path}: {owner}"),
                None => format!("another server owns event socket {path}"),
            },
        };
        let kind = match state {
            PathState::Taken | PathState::Gone | PathState::Blocked => Kind::SocketTaken,
            PathState::Ours | PathState::Unseen => Kind::Other,
        };
        let subject = path.to_string();
        Some((Status::Degraded, Reason { kind, subject, text }))
    }
}
