//! The beats of one server: those of the threads that live as long as it does, and the places of connections' threads.

use crate::liveness::beat::{Beat, Role};
use crate::liveness::client_beats::ClientBeats;
use crate::liveness::operation::{SlowLimits, SlowTally};
use std::sync::atomic::{AtomicU64, Ordering};

/// The names of the threads that live as long as the server, the data path first: those of [`Beats::permanent`].
pub const NAMES: [&str; 16] = [
    "ingest",
    "fanout",
    "accept",
    "inbox",
    "main",
    "heartbeat",
    "alerts",
    "files",
    "journal",
    "journal-sync",
    "enginedb",
    "detector",
    "admin",
    "reports",
    "log",
    "watchdog",
];

/// The beats of the threads that live as long as the server.
#[derive(Debug)]
pub struct Beats {
    pub ingest: &'static Beat,
    pub fanout: &'static Beat,
    pub accept: &'static Beat,
    pub inbox: &'static Beat,
    pub main: &'static Beat,
    pub heartbeat: &'static Beat,
    pub alerts: &'static Beat,
    pub files: &'static Beat,
    pub journal: &'static Beat,
    pub journal_sync: &'static Beat,
    pub enginedb: &'static Beat,
    pub detector: &'static Beat,
    pub admin: &'static Beat,
    pub reports: &'static Beat,
    pub log: &'static Beat,
    pub watchdog: &'static Beat,
    pub clients: ClientBeats,
    pub slow: &'static SlowTally,
    /// Grows when the watchdog changes its mind about one of the threads above.
    changes: AtomicU64,
}

impl Beats {
    /// Makes the beats of one server with room for `connections_max` connections. Their memory is never freed.
    pub fn new(limits: SlowLimits, connections_max: usize) -> &'static Beats {
        let slow: &'static SlowTally = Box::leak(Box::new(SlowTally::new(limits)));
        let beat = |name, role| -> &'static Beat { Box::leak(Box::new(Beat::new(name, role, slow))) };
        Box::leak(Box::new(Beats {
            ingest: beat("ingest", Role::Core),
            fanout: beat("fanout", Role::Core),
            accept: beat("accept", Role::Core),
            inbox: beat("inbox", Role::Core),
            main: beat("main", Role::Helper),
            heartbeat: beat("heartbeat", Role::Helper),
            alerts: beat("alerts", Role::Helper),
            files: beat("files", Role::Helper),
            journal: beat("journal", Role::Helper),
            journal_sync: beat("journal-sync", Role::Helper),
            enginedb: beat("enginedb", Role::Helper),
            detector: beat("detector", Role::Helper),
            admin: beat("admin", Role::Helper),
            reports: beat("reports", Role::Helper),
            log: beat("log", Role::Helper),
            watchdog: beat("watchdog", Role::Helper),
            clients: ClientBeats::new(connections_max, move || Beat::new("client", Role::Client, slow)),
            slow,
            changes: AtomicU64::new(0),
        }))
    }

    /// How often the watchdog has changed its mind about the threads that live as long as the server. A
    /// thread that tells of that looks at their beats when this is another number than before.
    pub fn changes(&self) -> u64 {
        // Acquire: with the number comes what the watchdog has written before.
        self.changes.load(Ordering::Acquire)
    }

    /// Watchdog: it has changed its mind.
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The beats of all threads that live as long as the server, the data path first.
    pub fn permanent(&self) -> [&'static Beat; 16] {
        [
            self.ingest,
            self.fanout,
            self.accept,
            self.inbox,
            self.main,
            self.heartbeat,
            self.alerts,
            self.files,
            self.journal,
            self.journal_sync,
            self.enginedb,
            self.detector,
            self.admin,
            self.reports,
            self.log,
            self.watchdog,
        ]
    }

    /// Every beat that a thread has right now, the data path first.
    pub fn all(&'static self) -> impl Iterator<Item = &'static Beat> {
        self.permanent().into_iter().chain(self.clients.taken())
    }

    /// The beat with this name, `client-17` for a client's.
    pub fn find(&'static self, name: &str) -> Option<&'static Beat> {
        self.all().find(|beat| beat.name() == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::liveness::beat::Verdict;
    use crate::liveness::operation::Operation;
    use crate::process::clock::pause;
    use std::time::Duration;

    /// Beats for a test.
    pub(crate) fn beats() -> &'static Beats {
        let limits = SlowLimits {
            broadcast: Duration::from_millis(50),
            snapshot: Duration::from_millis(200),
        };
        Beats::new(limits, 4)
    }

    /// As the watchdog judges.
    pub(crate) fn judge(beats: &'static Beats, beat: &'static Beat, verdict: Verdict, seconds: u64) {
        beat.judge(verdict, Duration::from_secs(seconds));
        beats.note_change();
    }

    #[test]
    fn the_list_of_names_is_that_of_the_threads() {
        assert_eq!(beats().permanent().map(Beat::name), NAMES);
    }

    #[test]
    fn an_operation_that_takes_too_long_is_counted() {
        let limits = SlowLimits {
            broadcast: Duration::from_micros(1),
            snapshot: Duration::MAX,
        };
        let beats = Beats::new(limits, 1);
        let doing = beats.fanout.begin(Operation::Broadcasting);
        pause(Duration::from_millis(1));
        drop(doing);
        let rows: Vec<_> = beats.slow.rows().map(|(name, count, _)| (name, count)).collect();
        assert_eq!(rows, [("broadcast", 1)]);
    }
}
