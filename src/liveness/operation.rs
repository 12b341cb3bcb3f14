//! What threads do, in words, and which of it has been slow.

use crate::process::words::count;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Not begun, or between two operations.
    Turning = 0,
    /// Waiting for something to do: a turn of 250 ms; a client's thread until its next ping is due.
    Waiting,
    /// Taking datagrams from the socket.
    Receiving,
    /// Looking whether the socket's path is still ours.
    CheckingPath,
    /// Waiting for room in the event queue.
    WaitingForRoom,
    /// Checking, numbering and encoding events.
    Encoding,
    /// Sending to clients.
    Broadcasting,
    /// Making a snapshot of the machine table.
    Snapshot,
    /// Answering requests of clients' threads.
    Answering,
    /// Encoding what a client missed.
    Replaying,
    /// Taking in connections.
    Accepting,
    /// Reading from clients.
    Reading,
    /// Writing a file or a log line.
    Writing,
    /// Writing lines of the journal.
    Journaling,
    /// Having the disk keep what was written of the journal.
    Flushing,
    /// Reading the engine's database.
    ReadingDatabase,
    /// Waiting until the fan-out has taken in what was found there.
    HandingOver,
    /// Judging how long machines stay in their states.
    Judging,
    /// Composing the heartbeat.
    Composing,
    /// Giving memory that nobody uses back to the system.
    GivingBack,
    /// Starting the command of `--on-alert`.
    StartingCommand,
    /// Looking at all processes of the host, and what services take of it.
    LookingAtProcesses,
    /// Starting a service.
    StartingService,
    /// Reading the beats of all threads.
    Watching,
    /// Writing a report of a hang.
    Reporting,
    /// A connection's thread: waiting for the request, at most its deadline.
    WaitingForRequest,
    /// A connection's thread: answering a plain HTTP request.
    AnsweringPage,
    /// A connection's thread: asking the fan-out and the inbox to take in its client.
    Joining,
    /// A client's thread: writing its backlog.
    Sending,
    /// A client's thread: waiting until its socket takes a byte, at most the send timeout.
    WaitingForSocket,
    /// A client's thread: telling its peer of the end, and waiting for the answer to that.
    Closing,
    /// Starting the server: settings, sockets, what was kept.
    Starting,
    /// Stopping the server in order.
    Stopping,
    /// Held by a drill.
    Drill,
    /// Over.
    Ended,
}

/// How many operations there are.
const COUNT: usize = Operation::Ended as usize + 1;

/// From when on an operation is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// `--slow-broadcast`.
    Broadcast,
    /// `--slow-snapshot`.
    Snapshot,
    /// [`SLOW_OTHER`].
    Other,
    /// It takes as long as somebody else wants.
    Never,
}

/// What the two numbers of an operation mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Nothing,
    Clients,
    Events,
    Machines,
    Queued,
}

/// The longest that an operation without a setting of its own may take before it is called slow.
pub const SLOW_OTHER: Duration = Duration::from_millis(100);

/// In the first number of an operation: it names one client, at which the operation is right now.
const AT_CLIENT: u64 = 1 << 63;

type Row = (Operation, &'static str, Slow, About);

const TABLE: [Row; COUNT] = {
    use Operation::*;
    [
        (Turning, "a turn", Slow::Never, About::Nothing),
        (Waiting, "a wait for work", Slow::Never, About::Nothing),
        (Receiving, "receive", Slow::Other, About::Nothing),
        (CheckingPath, "path check", Slow::Other, About::Nothing),
        (
            WaitingForRoom,
            "a wait for room in the event queue",
            Slow::Never,
            About::Nothing,
        ),
        (Encoding, "encode", Slow::Other, About::Events),
        (Broadcasting, "broadcast", Slow::Broadcast, About::Clients),
        (Snapshot, "snapshot", Slow::Snapshot, About::Machines),
        (Answering, "answer", Slow::Other, About::Nothing),
        (Replaying, "replaying", Slow::Other, About::Nothing),
        (Accepting, "accept", Slow::Other, About::Nothing),
        (Reading, "read", Slow::Other, About::Nothing),
        (Writing, "write", Slow::Other, About::Nothing),
        (Journaling, "journal write", Slow::Other, About::Events),
        (Flushing, "journal flush", Slow::Other, About::Nothing),
        (ReadingDatabase, "a database read", Slow::Never, About::Nothing),
        (HandingOver, "a wait for the fan-out", Slow::Never, About::Nothing),
        (Judging, "a look at the machines", Slow::Other, About::Machines),
        (Composing, "heartbeat line", Slow::Other, About::Nothing),
        (GivingBack, "giving memory back", Slow::Other, About::Nothing),
        (
            StartingCommand,
            "a start of the alert command",
            Slow::Never,
            About::Nothing,
        ),
        (
            LookingAtProcesses,
            "a look at the processes",
            Slow::Never,
            About::Nothing,
        ),
        (StartingService, "a start of a service", Slow::Never, About::Nothing),
        (Watching, "watch", Slow::Never, About::Nothing),
        (Reporting, "report", Slow::Never, About::Nothing),
        (WaitingForRequest, "a wait for the request", Slow::Never, About::Nothing),
        (AnsweringPage, "page", Slow::Never, About::Nothing),
        (Joining, "join", Slow::Never, About::Nothing),
        (Sending, "send", Slow::Never, About::Queued),
        (WaitingForSocket, "a wait for the socket", Slow::Never, About::Queued),
        (Closing, "close", Slow::Never, About::Nothing),
        (Starting, "start", Slow::Never, About::Nothing),
        (Stopping, "stop", Slow::Never, About::Nothing),
        (Drill, "a drill", Slow::Never, About::Nothing),
        (Ended, "nothing: it has ended", Slow::Never, About::Nothing),
    ]
};

impl Operation {
    /// The operation with this number, as [`Operation::number`] gave it.
    pub(super) fn from_number(number: u8) -> Operation {
        TABLE.get(usize::from(number)).map_or(Operation::Turning, |row| row.0)
    }

    pub(super) fn number(self) -> u8 {
        self as u8
    }

    /// Its name, as it stands in log lines and reports: "no progress in ...".
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// How long it may last without a step because it is declared to be a wait: for work, for a peer, for another
    /// thread. Each wait has a bound of its own, which is shorter; one that outlasts it by the hang timeout is a hang
    /// after all. `None` for work. A client's wait for work lasts until its next ping besides.
    pub fn wait_bound(self) -> Option<Duration> {
        use Operation::*;
        match self {
            Waiting | WaitingForRoom | WaitingForSocket | HandingOver => Some(Duration::from_secs(1)),
            Closing => Some(Duration::from_secs(3)),
            Stopping | WaitingForRequest => Some(Duration::from_secs(6)),
            // Twice the fan-out, and the inbox, 2 s each, and the peer, 2 s.
            Joining => Some(Duration::from_secs(8)),
            // A report on demand takes 10 s at most, its reader 20 s.
            AnsweringPage => Some(Duration::from_secs(32)),
            Ended => Some(Duration::MAX),
            _ => None,
        }
    }

    /// What the two numbers say, in parentheses behind a space; nothing when they say nothing.
    pub fn about(self, (a, b): Numbers) -> String {
        let kb = b / 1024;
        if a & AT_CLIENT != 0 {
            return format!(" (client {}, {kb} KB queued)", a & !AT_CLIENT);
        }
        match TABLE[self as usize].3 {
            About::Clients => format!(" ({}, {kb} KB)", count(a, "client")),
            About::Events => format!(" ({}, {kb} KB)", count(a, "event")),
            About::Machines => format!(" ({})", count(a, "machine")),
            About::Queued => format!(" ({kb} KB queued)"),
            About::Nothing => String::new(),
        }
    }
}

/// What an operation is about: how many, and how many bytes.
pub type Numbers = (u64, u64);

/// The numbers of an operation that is at client `id` right now, for which so many bytes are queued.
pub fn at_client(id: u64, queued_bytes: usize) -> Numbers {
    (id | AT_CLIENT, queued_bytes as u64)
}

/// From when on operations are slow.
#[derive(Clone, Copy, Debug)]
pub struct SlowLimits {
    pub broadcast: Duration,
    pub snapshot: Duration,
}

/// How slow operations have been, those of all threads together. Counters only: relaxed.
#[derive(Debug)]
pub struct SlowTally {
    limits_us: [u64; COUNT],
    rows: [SlowRow; COUNT],
}

#[derive(Debug, Default)]
struct SlowRow {
    count: AtomicU64,
    max_us: AtomicU64,
}

/// How long an operation took, measured by its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Usual,
    Slow,
}

impl SlowTally {
    pub fn new(limits: SlowLimits) -> SlowTally {
        let micros = |limit: Duration| limit.as_micros() as u64;
        let limits_us = TABLE.map(|(_, _, slow, _)| match slow {
            Slow::Broadcast => micros(limits.broadcast),
            Slow::Snapshot => micros(limits.snapshot),
            Slow::Other => micros(SLOW_OTHER),
            Slow::Never => u64::MAX,
        });
        SlowTally {
            limits_us,
            rows: std::array::from_fn(|_| SlowRow::default()),
        }
    }

    /// Notes that `operation` took `took_us`, and judges it.
    pub(super) fn note(&self, operation: Operation, took_us: u64) -> Pace {
        let index = operation as usize;
        let row = &self.rows[index];
        // The look first: almost always nothing is to be written, and the line is shared by all threads.
        if took_us > row.max_us.load(Ordering::Relaxed) {
            row.max_us.fetch_max(took_us, Ordering::Relaxed);
        }
        if took_us <= self.limits_us[index] {
            return Pace::Usual;
        }
        row.count.fetch_add(1, Ordering::Relaxed);
        Pace::Slow
    }

    /// For each operation that can be slow and has been seen: its name, how often it was slow, and its longest.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64, Duration)> {
        let rows = TABLE.iter().zip(&self.rows).zip(self.limits_us);
        rows.filter(|(_, limit)| *limit != u64::MAX)
            .map(|(((_, name, ..), row), _)| {
                let max = Duration::from_micros(row.max_us.load(Ordering::Relaxed));
                (*name, row.count.load(Ordering::Relaxed), max)
            })
            .filter(|(_, _, max)| !max.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, (operation, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*operation as usize, index);
            assert_eq!(Operation::from_number(operation.number()), *operation);
        }
    }

    #[test]
    fn the_numbers_are_said_as_people_read_them() {
        assert_eq!(Operation::Broadcasting.about((50, 48 * 1024)), " (50 clients, 48 KB)");
        let at = at_client(17, 212 * 1024);
        assert_eq!(Operation::Broadcasting.about(at), " (client 17, 212 KB queued)");
        assert_eq!(Operation::Accepting.about((0, 0)), "");
    }

    #[test]
    fn slow_ones_are_counted_and_the_longest_is_kept() {
        let limits = SlowLimits {
            broadcast: Duration::from_millis(50),
            snapshot: Duration::from_millis(200),
        };
        let tally = SlowTally::new(limits);
        assert_eq!(tally.note(Operation::Broadcasting, 50_000), Pace::Usual);
        assert_eq!(tally.note(Operation::Broadcasting, 61_000), Pace::Slow);
        assert_eq!(tally.note(Operation::Broadcasting, 51_000), Pace::Slow);
        assert_eq!(tally.note(Operation::Waiting, 10_000_000), Pace::Usual);
        let rows: Vec<_> = tally.rows().collect();
        assert_eq!(rows, [("broadcast", 2, Duration::from_micros(61_000))]);
    }
}
