//! The page of the results: tables for people, plots, and the lines that all of it was made from.
//!
//! Every figure of a table is a median over rounds. A ratio is made within each round, of two runs that stood beside
//! each other, and the median of those ratios is shown: what disturbs the host for minutes disturbs both sides.

mod figure;
mod goals;
mod losses;
mod page;
mod plots;
mod statistics;
mod summary;
mod table;

use crate::case::Case;
use crate::suite::{Head, Run};
use std::error::Error;
use std::fs;
use std::path::Path;

/// The server whose ratios to the others are shown.
const OURS: &str = "direct";

/// A results file, read.
#[derive(Clone, Debug)]
pub struct Results {
    pub head: Head,
    pub runs: Vec<Run>,
}

impl Results {
    /// Reads what `run` has written. An error names the line.
    pub fn read(path: &Path) -> Result<Results, Box<dyn Error>> {
        let text = fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Results::parse(&text).map_err(|error| format!("{}: {error}; `run` makes such files", path.display()).into())
    }

    fn parse(text: &str) -> Result<Results, String> {
        let mut lines = text.lines();
        let head = serde_json::from_str(lines.next().unwrap_or_default())
            .map_err(|error| format!("line 1 does not say what was measured: {error}"))?;
        let run = |(index, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {} is not a run: {error}", index + 2))
        };
        let runs = lines.enumerate().map(run).collect::<Result<_, _>>()?;
        Ok(Results { head, runs })
    }

    fn of<'a>(&'a self, case: &'a str, server: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs
            .iter()
            .filter(move |run| run.case == case && run.server == server)
    }

    fn case(&self, name: &str) -> Option<&Case> {
        self.head.cases.iter().find(|case| case.name == name)
    }

    fn has(&self, server: &str) -> bool {
        self.runs.iter().any(|run| run.server == server)
    }
}

/// Writes the page, its plots and a copy of the results into `folder`, which is made if it is not there.
pub fn write(results: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    let read = Results::read(results)?;
    fs::create_dir_all(folder)?;
    let plots = plots::draw(&read, folder)?;
    fs::write(folder.join("README.md"), page::page(&read, &plots))?;
    let copy = folder.join("results.jsonl");
    // Copying a file onto itself would leave it empty.
    if !copy.exists() || copy.canonicalize()? != results.canonicalize()? {
        fs::copy(results, copy)?;
    }
    Ok(())
}

/// Cases × servers with the one figure that matters most, for a terminal.
pub fn summary(results: &Path) -> Result<String, Box<dyn Error>> {
    Ok(summary::summary(&Results::read(results)?))
}

#[cfg(test)]
mod tests;
