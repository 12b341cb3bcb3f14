//! What `run` has measured, read again.

use crate::case::Case;
use crate::suite::{Head, Run};
use std::error::Error;
use std::fs;
use std::path::Path;

/// The server whose ratios to the others are shown.
pub const OURS: &str = "direct";

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

    pub fn parse(text: &str) -> Result<Results, String> {
        let mut lines = text.lines();
        let head = serde_json::from_str(lines.next().unwrap_or_default())
            .map_err(|error| format!("line 1 does not say what was measured: {error}"))?;
        let run = |(index, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {} is not a run: {error}", index + 2))
        };
        let runs = lines.enumerate().map(run).collect::<Result<_, _>>()?;
        Ok(Results { head, runs })
    }

    pub fn of<'a>(&'a self, case: &'a str, server: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs
            .iter()
            .filter(move |run| run.case == case && run.server == server)
    }

    pub fn case(&self, name: &str) -> Option<&Case> {
        self.head.cases.iter().find(|case| case.name == name)
    }

    pub fn has(&self, server: &str) -> bool {
        self.runs.iter().any(|run| run.server == server)
    }
}
