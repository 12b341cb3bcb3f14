//! The cases that are measured, and why.

use serde::{Deserialize, Serialize};

/// How events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// So many a second.
    Rate(u32),
    /// As fast as they arrive: at most so many that not every reading client has.
    Loop(u64),
    /// As fast as the server takes them off its socket; nobody is connected.
    Ingest,
    /// None; connections only.
    Idle,
    /// For a second without any bound, so that every client has a backlog; then so many a second.
    BurstThenRate(u32),
}

/// One row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub name: String,
    /// What it shows.
    pub shows: String,
    pub clients: usize,
    /// Clients that read nothing, besides.
    pub stopped: usize,
    /// Clients that stand still for a second in every two, besides.
    pub pausing: usize,
    pub pace: Pace,
    pub event_bytes: usize,
    /// Whether the quick run has it.
    pub quick: bool,
    /// Whether the original server can do it at all in the time there is.
    pub python: bool,
}

fn case(name: &str, clients: usize, pace: Pace, shows: &str) -> Case {
    Case {
        name: name.to_owned(),
        shows: shows.to_owned(),
        clients,
        stopped: 0,
        pausing: 0,
        pace,
        event_bytes: 200,
        quick: false,
        python: clients <= 50,
    }
}

/// All cases, in the order of the page.
pub fn all() -> Vec<Case> {
    use Pace::{BurstThenRate, Idle, Ingest, Loop, Rate};
    let quick = |case: Case| Case { quick: true, ..case };
    let python = |python: bool, case: Case| Case { python, ..case };
    let bytes = |event_bytes: usize, case: Case| Case { event_bytes, ..case };
    let python_at = |case: Case| python(true, case);
    vec![
        case("rate-100-to-1", 1, Rate(100), "one viewer, as most installations have"),
        quick(case(
            "rate-100-to-50",
            50,
            Rate(100),
            "the usual load of a busy host: what a delivery costs, and how late it is",
        )),
        quick(case(
            "rate-100-to-1000",
            1000,
            Rate(100),
            "the same for a crowd: every event is a thousand sends",
        )),
        case(
            "rate-100-to-10000",
            10_000,
            Rate(100),
            "more sends than the host can do singly: whether events are joined",
        ),
        case("rate-1000-to-1", 1, Rate(1000), "a chatty host, one viewer"),
        case("rate-1000-to-50", 50, Rate(1000), "a chatty host, a team of viewers"),
        case(
            "rate-1000-to-1000",
            1000,
            Rate(1000),
            "a chatty host and a crowd: a million deliveries a second",
        ),
        case("loop-to-1", 1, Loop(256), "most that one viewer can get without loss"),
        quick(case(
            "loop-to-50",
            50,
            Loop(256),
            "most that fifty viewers can get without loss",
        )),
        quick(case(
            "loop-to-1000",
            1000,
            Loop(256),
            "most that a thousand can get without loss",
        )),
        case(
            "loop-to-10000",
            10_000,
            Loop(256),
            "most that ten thousand can get without loss",
        ),
        bytes(
            2000,
            case("rate-100-to-50-of-2KB", 50, Rate(100), "events with a payload"),
        ),
        bytes(
            2000,
            case("loop-to-50-of-2KB", 50, Loop(256), "most events with a payload"),
        ),
        bytes(
            50_000,
            case(
                "loop-to-50-of-50KB",
                50,
                Loop(256),
                "large events: copying and the sockets' buffers rule",
            ),
        ),
        Case {
            stopped: 10,
            ..quick(case(
                "rate-1000-to-50-beside-10-stopped",
                50,
                Rate(1000),
                "whether clients that read nothing are felt by those that do",
            ))
        },
        Case {
            stopped: 10,
            python: false,
            ..case(
                "loop-to-50-beside-10-stopped",
                50,
                Loop(256),
                "the same at the highest load",
            )
        },
        Case {
            pausing: 20,
            python: false,
            ..case(
                "rate-5000-to-50-beside-20-pausing",
                50,
                Rate(5000),
                "clients that fall behind and catch up, beside those that keep up",
            )
        },
        python(
            false,
            case(
                "burst-then-rate-100-to-1000",
                1000,
                BurstThenRate(100),
                "whether what a delivery costs is the usual again after every client had a backlog",
            ),
        ),
        python(
            false,
            case(
                "storm-of-5000",
                5000,
                Idle,
                "what a connection costs while thousands come at once",
            ),
        ),
        python(
            false,
            case("idle-10000", 10_000, Idle, "memory of ten thousand connections"),
        ),
        python_at(quick(case(
            "ingest",
            0,
            Ingest,
            "how fast events are taken off the socket when nobody looks",
        ))),
        bytes(
            2000,
            python_at(case("ingest-of-2KB", 0, Ingest, "the same with a payload")),
        ),
    ]
}
