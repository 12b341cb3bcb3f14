//! The project's goals of speed, and whether they are met. Their source is the text of the issue that asked for the
//! bench.

use super::figure::{self, Figure, number};
use super::results::{OURS, Results};
use super::statistics::{Side, Spread, cell, ratio};
use std::fmt::Write;

/// What our figure is held against.
#[derive(Clone, Copy, Debug)]
pub enum Against {
    /// That of another server in the same case.
    Server(&'static str),
    /// Our own in another case.
    Case(&'static str),
    /// Nothing: the figure itself.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub what: &'static str,
    pub case: &'static str,
    pub figure: Figure,
    pub against: Against,
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

const fn goal(what: &'static str, case: &'static str, figure: Figure, against: Against, bound: Bound) -> Goal {
    Goal {
        what,
        case,
        figure,
        against,
        bound,
    }
}

use Against::{Case, Nothing, Server};
use Bound::{AtLeast, AtMost};
use figure::{ALL_MEMORY, CONNECT_CPU, CPU, DELIVERIES, INGEST, P99, RSS_AND_STACKS, SPREAD_P50, SPREAD_P99};

const LOOP: &str = "deliveries/s without loss";
const COST: &str = "CPU per delivery";
const LATE: &str = "p99 latency";
const USUAL: Against = Server("tokio-usual");
const TUNED: Against = Server("tokio-tuned");
const FLOOR: Against = Server("floor");
const BARE: Against = Server("bare");

/// Every goal, in the order of the issue. The issue asks for the recovery after a burst without a number, and for the
/// spread without a percentile: those bounds are the bench's own, and the page says so.
pub const GOALS: &[Goal] = &[
    goal(LOOP, "loop-to-50", DELIVERIES, USUAL, AtLeast(15.0)),
    goal(LOOP, "loop-to-1000", DELIVERIES, USUAL, AtLeast(15.0)),
    goal(LOOP, "loop-to-10000", DELIVERIES, USUAL, AtLeast(5.0)),
    goal(LOOP, "loop-to-50", DELIVERIES, TUNED, AtLeast(1.5)),
    goal(LOOP, "loop-to-1000", DELIVERIES, TUNED, AtLeast(1.5)),
    goal(LOOP, "loop-to-10000", DELIVERIES, TUNED, AtLeast(0.9)),
    goal(LOOP, "loop-to-50", DELIVERIES, Server("python"), AtLeast(200.0)),
    goal(COST, "rate-100-to-50", CPU, USUAL, AtMost(0.5)),
    goal(COST, "rate-100-to-1000", CPU, USUAL, AtMost(0.5)),
    goal(COST, "rate-100-to-50", CPU, TUNED, AtMost(0.8)),
    goal(COST, "rate-100-to-1000", CPU, TUNED, AtMost(0.8)),
    goal(COST, "rate-100-to-50", CPU, FLOOR, AtMost(1.25)),
    goal(COST, "rate-100-to-1000", CPU, FLOOR, AtMost(1.25)),
    goal(LATE, "rate-100-to-50", P99, USUAL, AtMost(0.75)),
    goal(LATE, "rate-100-to-1000", P99, USUAL, AtMost(0.4)),
    goal(LATE, "rate-100-to-50", P99, TUNED, AtMost(1.15)),
    goal(LATE, "rate-100-to-1000", P99, TUNED, AtMost(0.7)),
    goal(
        "RSS and kernel stacks",
        "rate-100-to-1000",
        RSS_AND_STACKS,
        USUAL,
        AtMost(0.4),
    ),
    goal(
        "MB of 10,000 idle clients in all",
        "idle-10000",
        ALL_MEMORY,
        Nothing,
        AtMost(450.0),
    ),
    goal("CPU per connection", "storm-of-5000", CONNECT_CPU, TUNED, AtMost(1.0)),
    goal("events/s, ingest only", "ingest", INGEST, BARE, AtLeast(0.9)),
    goal("events/s, ingest only", "ingest-of-2KB", INGEST, BARE, AtLeast(0.9)),
    goal(
        "first-to-last spread, p50",
        "rate-100-to-1000",
        SPREAD_P50,
        TUNED,
        AtMost(1.0),
    ),
    goal(
        "first-to-last spread, p99",
        "rate-100-to-1000",
        SPREAD_P99,
        TUNED,
        AtMost(1.0),
    ),
    goal(
        "CPU per delivery after a burst",
        "burst-then-rate-100-to-1000",
        CPU,
        Case("rate-100-to-1000"),
        AtMost(1.25),
    ),
    goal(
        "p99 latency after a burst",
        "burst-then-rate-100-to-1000",
        P99,
        Case("rate-100-to-1000"),
        AtMost(1.25),
    ),
];

/// What was measured for a goal, and what that means for it.
pub fn verdict(results: &Results, goal: &Goal) -> (Option<Spread>, Verdict) {
    let Some(case) = results.case(goal.case) else {
        return (None, Verdict::NotMeasured);
    };
    let ours = cell(results, case, OURS, goal.figure);
    let over = Side { case, server: OURS };
    let measured = match goal.against {
        Nothing => ours.spread,
        Server(server) => ratio(results, over, Side { case, server }, goal.figure),
        Case(other) => results
            .case(other)
            .and_then(|case| ratio(results, over, Side { case, server: OURS }, goal.figure)),
    };
    // Who loses, or does not keep up, has not done the work, however cheap or quick.
    if ours.lossy + ours.failed + ours.behind > 0 {
        return (measured, Verdict::Missed);
    }
    let verdict = match (measured, goal.bound) {
        (None, _) => Verdict::NotMeasured,
        (Some(spread), AtLeast(bound)) if spread.median >= bound => Verdict::Met,
        (Some(spread), AtMost(bound)) if spread.median <= bound => Verdict::Met,
        (Some(_), _) => Verdict::Missed,
    };
    (measured, verdict)
}

/// How many goals are met, missed and not measured.
pub fn counts(results: &Results) -> (usize, usize, usize) {
    let count = |wanted| {
        let verdicts = GOALS.iter().map(|goal| verdict(results, goal).1);
        verdicts.filter(|verdict| *verdict == wanted).count()
    };
    (count(Verdict::Met), count(Verdict::Missed), count(Verdict::NotMeasured))
}

/// The table of the goals, in Markdown.
pub fn markdown(results: &Results) -> String {
    let mut text = "## The goals and what was measured\n\n\
        The goals are the project's own, set before measuring. All are of `direct`, against the server that is named; a goal \
        is missed also when `direct` lost an event, failed, or did not keep up in that case. That direct mode recovers after a \
        burst, and the spread, were asked for without a number: the bound 1.25 and the percentiles are the bench's own choice.\n\n\
        | what | case | against | goal | measured | |\n|---|---|---|--:|--:|---|\n"
        .to_owned();
    for goal in GOALS {
        let (measured, verdict) = verdict(results, goal);
        let (against, unit) = match goal.against {
            Server(server) => (server, "x"),
            Case(case) => (case, "x"),
            Nothing => ("", ""),
        };
        let bound = match goal.bound {
            AtLeast(bound) => format!("at least {bound}{unit}"),
            AtMost(bound) => format!("at most {bound}{unit}"),
        };
        let shown = measured.map_or("–".to_owned(), |spread| format!("{}{unit}", number(spread.median)));
        let verdict = match verdict {
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::NotMeasured => "not measured",
        };
        let (what, case) = (goal.what, goal.case);
        let _ = writeln!(text, "| {what} | {case} | {against} | {bound} | {shown} | {verdict} |");
    }
    text
}
