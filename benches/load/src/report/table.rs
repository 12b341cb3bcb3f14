//! One table of the page: rows are cases, columns are servers and ratios.

use super::figure::{Figure, number};
use super::results::{OURS, Results};
use super::statistics::{Cell, Side, Spread, cell, ratio};
use crate::case::Case;
use crate::servers;
use std::fmt::Write;

/// The servers that ours is divided by.
const UNDER: [&str; 5] = ["tokio-usual", "tokio-tuned", "floor", "python", "bare"];

/// A question and the rows that answer it.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    pub title: &'static str,
    pub text: &'static str,
    pub rows: Vec<(&'a Case, Figure)>,
    /// Whether there are columns of ratios.
    pub ratios: bool,
    /// Whether a row says which of several figures it has.
    pub labels: bool,
}

impl Table<'_> {
    /// The table in Markdown; columns that nobody has anything for are left out, and an empty table says so.
    pub fn markdown(&self, results: &Results) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.text);
        let (servers, under) = self.columns(results);
        if servers.is_empty() {
            text.push_str("Not measured in this run.\n");
            return text;
        }
        text.push_str("| case |");
        for server in &servers {
            let _ = write!(text, " {server} |");
        }
        for server in &under {
            let _ = write!(text, " {OURS} / {server} |");
        }
        text.push_str("\n|---|");
        text.push_str(&"--:|".repeat(servers.len() + under.len()));
        text.push('\n');
        for (case, figure) in &self.rows {
            self.row(results, case, *figure, (&servers, &under), &mut text);
        }
        text
    }

    fn row(
        &self,
        results: &Results,
        case: &Case,
        figure: Figure,
        (servers, under): (&[&str], &[&str]),
        text: &mut String,
    ) {
        let _ = write!(text, "| {}", case.name);
        if self.labels {
            let _ = write!(text, ": {}", figure.label);
        }
        text.push_str(" |");
        for server in servers {
            let _ = write!(text, " {} |", words(cell(results, case, server, figure)));
        }
        for server in under {
            let (over, under) = (Side { case, server: OURS }, Side { case, server });
            let _ = write!(text, " {} |", times(ratio(results, over, under, figure)));
        }
        text.push('\n');
    }

    fn columns(&self, results: &Results) -> (Vec<&'static str>, Vec<&'static str>) {
        let any = |server: &str| {
            self.rows
                .iter()
                .any(|(case, figure)| cell(results, case, server, *figure).runs > 0)
        };
        let servers = servers::ALL.iter().map(|kind| kind.name).filter(|name| any(name));
        let has_ratio = |server: &&str| {
            self.rows.iter().any(|(case, figure)| {
                let (over, under) = (Side { case, server: OURS }, Side { case, server });
                ratio(results, over, under, *figure).is_some()
            })
        };
        let under = UNDER.into_iter().filter(|server| self.ratios && has_ratio(server));
        (servers.collect(), under.collect())
    }
}

/// The words in a cell. † is a loss and ‡ a rate that was not kept; the page lists them.
pub fn words(cell: Cell) -> String {
    let lost = if cell.lossy > 0 { " †" } else { "" };
    let behind = if cell.behind > 0 { " ‡" } else { "" };
    match cell.spread {
        Some(spread) => format!("{}{lost}{behind}{}", number(spread.median), reach(spread, "")),
        None if cell.runs == 0 => "–".to_owned(),
        None if cell.failed == cell.runs => "failed".to_owned(),
        None if cell.lossy > 0 => "lost †".to_owned(),
        None => "–".to_owned(),
    }
}

/// The words of a ratio.
pub fn times(ratio: Option<Spread>) -> String {
    match ratio {
        Some(spread) => format!("**{}x**{}", number(spread.median), reach(spread, "x")),
        None => "–".to_owned(),
    }
}

/// From the lowest to the highest round, small; nothing when they are the same.
fn reach(spread: Spread, unit: &str) -> String {
    let (min, max) = (number(spread.min), number(spread.max));
    match min == max {
        true => String::new(),
        false => format!("<br><sub>{min}–{max}{unit}</sub>"),
    }
}
