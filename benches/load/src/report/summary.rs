//! The answer of the quick run, for a terminal.

use super::figure::{main_of, number};
use super::results::{OURS, Results};
use super::statistics::{Side, cell, ratio};
use crate::servers;
use std::fmt::Write;

/// The servers that the ratios of the summary are against.
const UNDER: [&str; 3] = ["tokio-usual", "tokio-tuned", "floor"];
const CASE: usize = 34;
const FIGURE: usize = 22;
const COLUMN: usize = 12;

/// A line a case: its main figure for every server, then ours divided by the others'. `!` is a loss.
pub fn summary(results: &Results) -> String {
    let servers = servers::ALL.iter().map(|kind| kind.name);
    let servers: Vec<&str> = servers.filter(|name| results.has(name)).collect();
    let under: Vec<&str> = UNDER.into_iter().filter(|name| results.has(name)).collect();
    let mut text = format!("{:CASE$} {:FIGURE$}", "case", "");
    for server in &servers {
        let _ = write!(text, "{server:>COLUMN$}");
    }
    for server in &under {
        let _ = write!(text, "{:>1$}", format!("/{server}"), COLUMN + 1);
    }
    text.push('\n');
    for case in &results.head.cases {
        let figure = main_of(case);
        let _ = write!(text, "{:CASE$} {:FIGURE$}", case.name, figure.label);
        for server in &servers {
            let cell = cell(results, case, server, figure);
            let shown = match cell.spread {
                Some(spread) => number(spread.median) + if cell.lossy > 0 { " !" } else { "" },
                None if cell.failed > 0 => "failed".to_owned(),
                None if cell.lossy > 0 => "lost !".to_owned(),
                None => "-".to_owned(),
            };
            let _ = write!(text, "{shown:>COLUMN$}");
        }
        for server in &under {
            let (over, under) = (Side { case, server: OURS }, Side { case, server });
            let ratio = ratio(results, over, under, figure);
            let shown = ratio.map_or("-".to_owned(), |ratio| format!("{}x", number(ratio.median)));
            let _ = write!(text, "{shown:>0$}", COLUMN + 1);
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "Ratios are of {OURS}, made within a round. ! lost events, or a reader was ended."
    );
    text
}
