//! The page as a whole: what was compared and how it went, the tables, the plots, and what has to be known beside them.

use super::figure::{self, Figure, number};
use super::plots::{COST, LATENCY, Plot, THROUGHPUT};
use super::results::{OURS, Results};
use super::statistics::{Side, cell, ratio};
use super::table::Table;
use super::{goals, losses};
use crate::case::{self, Case, Pace};
use crate::servers;
use std::fmt::Write;

/// The page in Markdown.
pub fn page(results: &Results, plots: &[Plot]) -> String {
    let mut text = verdict(results);
    text.push('\n');
    text.push_str(&goals::markdown(results));
    for table in tables(results) {
        text.push('\n');
        text.push_str(&table.markdown(results));
        for plot in plots.iter().filter(|plot| plot.below == table.title) {
            let _ = writeln!(text, "\n![{}]({})", plot.title, plot.file);
        }
    }
    text.push('\n');
    text.push_str(&losses::markdown(results));
    text.push('\n');
    text.push_str(&about_the_runs(results));
    text
}

/// A word where nothing is known.
fn known(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn verdict(results: &Results) -> String {
    let head = &results.head;
    let (met, missed, open) = goals::counts(results);
    let mut text = format!(
        "# Results\n\n*Made by `threadcast-load report`; do not edit. [results.jsonl](results.jsonl) has every run, \
         [benches/README.md](../README.md) says how it was measured and how to read it.*\n\n\
         Of the {} goals of the project, {met} are met, {missed} are missed, {open} were not measured.\n",
        goals::GOALS.len()
    );
    for (case, figure, what) in [
        ("loop-to-50", figure::DELIVERIES, "deliveries a second without loss"),
        ("loop-to-1000", figure::DELIVERIES, "deliveries a second without loss"),
        ("rate-100-to-50", figure::CPU, "us of processor time a delivery"),
        ("rate-100-to-1000", figure::CPU, "us of processor time a delivery"),
    ] {
        if let Some(line) = headline(results, case, figure, what) {
            text.push_str(&line);
        }
    }
    let _ = write!(
        text,
        "\n| | |\n|---|---|\n| machine | {} |\n| commit | {} |\n| date | {} |\n| command | `threadcast-load {}` |\n\
         | rounds | {} of {} s a run, all servers one after the other within each |\n",
        head.machine,
        head.commit,
        known(&head.date),
        head.command,
        head.rounds,
        head.measured_s
    );
    for version in &head.versions {
        let (name, what) = version.split_once(": ").unwrap_or(("compiler", version));
        let _ = writeln!(text, "| {name} | {what} |");
    }
    text.push_str(&absent(results));
    text
}

fn headline(results: &Results, name: &str, figure: Figure, what: &str) -> Option<String> {
    let case = results.case(name)?;
    let ours = cell(results, case, OURS, figure).spread?;
    let others = ["tokio-usual", "tokio-tuned", "floor", "python"]
        .into_iter()
        .filter_map(|server| {
            let ratio = ratio(results, Side { case, server: OURS }, Side { case, server }, figure)?;
            Some(format!("{}x that of {server}", number(ratio.median)))
        });
    let others: Vec<String> = others.collect();
    let others = if others.is_empty() {
        String::new()
    } else {
        format!(": {}", others.join(", "))
    };
    Some(format!("- `{OURS}`, {name}: {} {what}{others}.\n", number(ours.median)))
}

/// What is not in this run at all.
fn absent(results: &Results) -> String {
    let servers = servers::ALL.iter().filter(|kind| !results.has(kind.name));
    let servers: Vec<&str> = servers.map(|kind| kind.name).collect();
    let cases = case::all()
        .into_iter()
        .filter(|case| results.case(&case.name).is_none());
    let cases: Vec<String> = cases.map(|case| case.name).collect();
    let mut text = String::new();
    if !servers.is_empty() {
        let _ = write!(text, "\nServers that were not measured: {}.\n", servers.join(", "));
    }
    if !cases.is_empty() {
        let _ = write!(text, "\nCases that were not measured: {}.\n", cases.join(", "));
    }
    text
}

type Wanted = fn(&Case) -> bool;

fn at_a_rate(case: &Case) -> bool {
    matches!(case.pace, Pace::Rate(_) | Pace::BurstThenRate(_))
}

fn with_deliveries(case: &Case) -> bool {
    at_a_rate(case) || matches!(case.pace, Pace::Loop(_))
}

fn connections(case: &Case) -> bool {
    case.pace == Pace::Idle
}

/// The usual load and idle connections: what memory depends on is the number of clients.
fn for_memory(case: &Case) -> bool {
    connections(case) || (case.pace == Pace::Rate(100) && case.event_bytes == 200)
}

fn with_slow(case: &Case) -> bool {
    case.stopped + case.pausing > 0
}

/// One table a question.
fn tables(results: &Results) -> Vec<Table<'_>> {
    let table = |title, text, wanted: Wanted, figures: &[Figure]| {
        let cases = results.head.cases.iter().filter(|case| wanted(case));
        let rows = cases.flat_map(|case| figures.iter().map(move |figure| (case, *figure)));
        Table {
            title,
            text,
            rows: rows.collect(),
            ratios: true,
            labels: figures.len() > 1,
        }
    };
    vec![
        table(
            THROUGHPUT,
            "At most 256 events are under way: the next one goes when the oldest has reached every client. More is better. A \
             run that lost anything has no rate.",
            |case| matches!(case.pace, Pace::Loop(_)),
            &[figure::DELIVERIES],
        ),
        table(
            COST,
            "Processor time of the server, in microseconds, divided by what was delivered, at a fixed rate. Less is better.",
            at_a_rate,
            &[figure::CPU],
        ),
        table(
            LATENCY,
            "From before an event is sent to after a client has read it, in milliseconds. The generator's own turns are in \
             it, for every server alike. Less is better.",
            at_a_rate,
            &[figure::P50, figure::P99, figure::P999],
        ),
        table(
            "First to last",
            "How long after the first client the last one has the same event. Less is better.",
            |case| at_a_rate(case) && case.clients > 1,
            &[figure::SPREAD_P50, figure::SPREAD_P99],
        ),
        table(
            "Memory",
            "Slab is the kernel's, of the whole host: it has both ends of every connection in it, so also the generator's. \
             Less is better.",
            for_memory,
            &[
                figure::RSS,
                figure::STACKS,
                figure::RSS_AND_STACKS,
                figure::SLAB,
                figure::ALL_MEMORY,
            ],
        ),
        table(
            "Connections",
            "Until every client has its first message; at most 256 wait at a time.",
            connections,
            &[figure::CONNECT_CPU, figure::CONNECT_RATE],
        ),
        table(
            "Ingest only",
            "Nobody is connected; events are sent as fast as the socket takes them. `bare` is a loop of recvmmsg(2).",
            |case| case.pace == Pace::Ingest,
            &[figure::INGEST, figure::INGEST_CPU],
        ),
        Table {
            ratios: false,
            ..table(
                "Slow neighbours",
                "Clients that read nothing (stopped) or stand still for a second in every two (pausing), beside readers. \
                 What the slow lost is no fault by itself; that readers lost anything is.",
                with_slow,
                &[figure::MISSING, figure::ENDED, figure::SLOW_MISSING, figure::SLOW_ENDED],
            )
        },
        table(
            "Context switches",
            "Of all threads of the server, of their own will and not, for each delivery. Threads that have ended are not in it.",
            with_deliveries,
            &[figure::SWITCHES],
        ),
    ]
}

fn about_the_runs(results: &Results) -> String {
    let runs = &results.runs;
    let repeated: usize = runs.iter().map(|run| run.repeated).sum();
    let disturbed: Vec<String> = runs
        .iter()
        .filter(|run| run.disturbed)
        .map(|run| format!("{} {} round {}", run.case, run.server, run.round + 1))
        .collect();
    let mut text = format!(
        "## About the runs\n\n{} runs. A large figure is the median over rounds, the small one below it the lowest and the \
         highest round; a ratio is made within each round, then the median is taken. {repeated} runs were disturbed by \
         others on the host and done again",
        runs.len()
    );
    match disturbed.len() {
        0 => text.push_str("; none that is shown was disturbed.\n"),
        count => {
            let _ = writeln!(
                text,
                "; {count} stayed so to the end and are shown as they are: {}.",
                disturbed.join(", ")
            );
        }
    }
    text
}
