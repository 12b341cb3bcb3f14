//! What one heartbeat measured: as a line for people, and as fields of the status file.

use crate::fanout::requests::Backlog;
use crate::process::words::{count, size};
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;

/// A backlog that was measured longer ago is said with its age: the fan-out looks ten times a second while it moves.
const BACKLOG_FRESH: Duration = Duration::from_secs(1);

/// Counts by name, in the order of their table.
pub type Counts = Vec<(&'static str, u64)>;

/// The sum of everything since the start, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Datagrams taken from the kernel, whether they became events or were dropped.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams dropped, by cause.
    pub dropped: Counts,
    /// Clients ended, by reason.
    pub ended: Counts,
    /// Connections refused.
    pub refused: u64,
    pub log_lines_lost: u64,
}

impl Totals {
    /// What came since `earlier`. Of the counts by name, those that moved.
    pub fn since(&self, earlier: &Totals) -> Totals {
        Totals {
            events: self.events.saturating_sub(earlier.events),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            dropped: moved(&self.dropped, &earlier.dropped),
            ended: moved(&self.ended, &earlier.ended),
            refused: self.refused.saturating_sub(earlier.refused),
            log_lines_lost: self.log_lines_lost.saturating_sub(earlier.log_lines_lost),
        }
    }
}

fn moved(now: &Counts, earlier: &Counts) -> Counts {
    let before = |name: &str| {
        earlier
            .iter()
            .find(|(other, _)| *other == name)
            .map_or(0, |(_, count)| *count)
    };
    now.iter()
        .map(|(name, count)| (*name, count.saturating_sub(before(name))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// One heartbeat.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// Counted from 1; 0 when the server has only just started.
    pub number: u64,
    /// The time that [`Pulse::since`] covers: the true one, whatever the interval was to be.
    pub covers: Duration,
    /// Clients that receive events.
    pub connections: usize,
    /// Threads of this process, where the kernel tells.
    pub tasks: Option<usize>,
    /// How long ago the last event was forwarded; `None` when none was since the server started.
    pub last_event: Option<Duration>,
    /// Since the last heartbeat.
    pub since: Totals,
    /// What waits between socket and fan-out now: events and bytes.
    pub queue: (usize, usize),
    pub backlog: Backlog,
    /// Clients that catch up from the history.
    pub behind: usize,
    /// How long ago the backlog was measured.
    pub backlog_age: Duration,
    /// `ok`, or a worse word of `/health` and its reasons.
    pub status: &'static str,
    pub reasons: Vec<String>,
}

impl fmt::Display for Pulse {
    /// The log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "💓 Server heartbeat #{} | connections={}",
            self.number, self.connections
        )?;
        match self.tasks {
            Some(tasks) => write!(f, " | tasks={tasks}")?,
            None => write!(f, " | tasks=unknown")?,
        }
        match self.last_event {
            None => write!(f, " | last_event=never")?,
            Some(ago) => write!(f, " | last_event={:.1}s ago", ago.as_secs_f64())?,
        }
        let since = &self.since;
        write!(f, " | events={}{}", since.events, self.shown_rate(since.events, &plain))?;
        write!(
            f,
            " | bytes={}{}",
            size(since.bytes as f64),
            self.shown_rate(since.bytes, &size)
        )?;
        match self.queue {
            (0, _) => write!(f, " | queue=0")?,
            (events, bytes) => write!(f, " | queue={}, {}", count(events, "event"), size(bytes as f64))?,
        }
        self.write_backlog(f)?;
        if self.behind > 0 {
            write!(f, " | behind={}", self.behind)?;
        }
        write_counts(f, "dropped", &since.dropped)?;
        write_counts(f, "ended", &since.ended)?;
        for (name, count) in [("refused", since.refused), ("log_lines_lost", since.log_lines_lost)] {
            if count > 0 {
                write!(f, " | {name}={count}")?;
            }
        }
        match (self.status, self.reasons.as_slice()) {
            ("ok", _) => Ok(()),
            (status, []) => write!(f, " | status={status}"),
            (status, reasons) => write!(f, " | status={status}: {}", reasons.join("; ")),
        }
    }
}

impl Pulse {
    /// What `/health` does not say, for the status file. A rate over no time is none.
    pub fn fields(&self) -> Value {
        let largest = self.backlog.largest;
        json!({
            "number": self.number,
            "covers_seconds": rounded(self.covers.as_secs_f64()),
            "threads": self.tasks,
            "last_event_seconds_ago": self.last_event.map(|ago| rounded(ago.as_secs_f64())),
            "events": self.since.events,
            "bytes": self.since.bytes,
            "events_per_second": self.rate(self.since.events).map(rounded),
            "bytes_per_second": self.rate(self.since.bytes).map(rounded),
            "backlog": {
                "clients": self.backlog.clients,
                "bytes": self.backlog.bytes,
                "largest_bytes": largest.map(|(_, bytes)| bytes),
                "largest_client": largest.map(|(client, _)| client),
                "measured_seconds_ago": rounded(self.backlog_age.as_secs_f64()),
            },
            "dropped": object(&self.since.dropped),
            "ended": object(&self.since.ended),
            "refused": self.since.refused,
            "log_lines_lost": self.since.log_lines_lost,
        })
    }

    fn rate(&self, count: u64) -> Option<f64> {
        let seconds = self.covers.as_secs_f64();
        (seconds > 0.0).then(|| count as f64 / seconds)
    }

    fn shown_rate(&self, count: u64, show: &dyn Fn(f64) -> String) -> String {
        match self.rate(count) {
            Some(rate) if count > 0 => format!(" ({}/s)", show(rate)),
            _ => String::new(),
        }
    }

    fn write_backlog(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.backlog.clients, self.backlog.largest) {
            (1, Some((client, bytes))) => write!(f, " | backlog=client {client}, {}", size(bytes as f64))?,
            (clients, Some((client, bytes))) => write!(
                f,
                " | backlog={clients} clients, {}, largest {} of client {client}",
                size(self.backlog.bytes as f64),
                size(bytes as f64)
            )?,
            (_, None) => write!(f, " | backlog=0")?,
        }
        if self.backlog_age > BACKLOG_FRESH {
            write!(f, " ({:.1}s ago)", self.backlog_age.as_secs_f64())
        } else {
            Ok(())
        }
    }
}

fn write_counts(f: &mut fmt::Formatter<'_>, name: &str, counts: &Counts) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    let counts: Vec<String> = counts.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    write!(f, " | {name}={}", counts.join(", "))
}

fn object(counts: &Counts) -> Value {
    let fields = counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into()));
    fields.collect::<Map<_, _>>().into()
}

/// To the millisecond, or whatever the thousandth part of it is called.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A rate with as many digits as one reads; one that is not zero never looks like zero.
fn plain(rate: f64) -> String {
    match rate {
        rate if rate >= 99.95 => format!("{rate:.0}"),
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate if rate >= 0.01 => format!("{rate:.2}"),
        _ => "under 0.01".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Pulse {
        Pulse {
            number: 1,
            covers: Duration::from_secs(5),
            connections: 0,
            tasks: Some(9),
            last_event: None,
            since: Totals::default(),
            queue: (0, 0),
            backlog: Backlog::default(),
            behind: 0,
            backlog_age: Duration::from_millis(100),
            status: "ok",
            reasons: Vec::new(),
        }
    }

    #[test]
    fn a_quiet_server_says_so_and_claims_nothing_it_did_not_see() {
        assert_eq!(
            quiet().to_string(),
            "💓 Server heartbeat #1 | connections=0 | tasks=9 | last_event=never | events=0 | bytes=0 B | queue=0 | backlog=0"
        );
        let unknown = Pulse { tasks: None, ..quiet() };
        assert!(unknown.to_string().contains(" | tasks=unknown | last_event=never | "));
    }

    #[test]
    fn a_busy_server_says_what_an_operator_asks() {
        let busy = Pulse {
            number: 12,
            covers: Duration::from_millis(5020),
            connections: 2,
            tasks: Some(7),
            last_event: Some(Duration::from_millis(60)),
            since: Totals {
                events: 1250,
                bytes: 300_000,
                dropped: vec![("not_json", 5), ("queue_full", 2)],
                ended: vec![("too_slow", 1)],
                refused: 3,
                log_lines_lost: 4,
            },
            queue: (312, 40_960),
            backlog: Backlog {
                clients: 3,
                bytes: 1_500_000,
                largest: Some((17, 1_048_576)),
                measured_ms: 0,
            },
            behind: 2,
            backlog_age: Duration::from_millis(12_340),
            status: "degraded",
            reasons: vec!["one".to_owned(), "two".to_owned()],
        };
        assert_eq!(
            busy.to_string(),
            "💓 Server heartbeat #12 | connections=2 | tasks=7 | last_event=0.1s ago | events=1250 (249/s) | \
             bytes=293 KiB (58 KiB/s) | queue=312 events, 40 KiB | \
             backlog=3 clients, 1.4 MiB, largest 1.0 MiB of client 17 (12.3s ago) | behind=2 | dropped=5 not_json, 2 queue_full | \
             ended=1 too_slow | refused=3 | log_lines_lost=4 | status=degraded: one; two"
        );
        let fields = busy.fields();
        assert_eq!(fields["events_per_second"], 249.004);
        assert_eq!(fields["dropped"], json!({"not_json": 5, "queue_full": 2}));
        assert_eq!(fields["backlog"]["largest_client"], 17);
    }

    #[test]
    fn a_rate_over_no_time_is_none() {
        let started = Pulse {
            number: 0,
            covers: Duration::ZERO,
            ..quiet()
        };
        assert_eq!(started.fields()["events_per_second"], Value::Null);
    }

    #[test]
    fn only_what_moved_is_said_and_only_once() {
        let first = Totals {
            events: 10,
            dropped: vec![("empty", 0), ("not_json", 2)],
            ..Totals::default()
        };
        assert_eq!(first.since(&Totals::default()).dropped, [("not_json", 2)]);
        let second = Totals {
            events: 12,
            dropped: vec![("empty", 1), ("not_json", 2)],
            ..Totals::default()
        };
        let since = second.since(&first);
        assert_eq!((since.events, since.dropped.as_slice()), (2, &[("empty", 1)][..]));
    }

    #[test]
    fn numbers_have_the_digits_that_one_reads() {
        let rates = [0.004, 0.2, 1.0, 24.04, 99.94, 99.96, 12_345.6].map(plain);
        assert_eq!(rates, ["under 0.01", "0.20", "1.0", "24.0", "99.9", "100", "12346"]);
        let sizes = [0.0, 1023.0, 1024.0, 10_240.0, 1_048_000.0, 1_048_576.0, 5e9].map(size);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1023 KiB", "1.0 MiB", "4.7 GiB"]
        );
    }
}
