//! The page of the results: tables for people, plots, and the lines that all of it was made from.
//!
//! Every figure of a table is a median over rounds. A ratio is made within each round, of two runs that stood beside
//! each other, and the median of those ratios is shown: what disturbs the host for minutes disturbs both sides.

mod figure;
mod goals;
mod losses;
mod page;
mod plots;
mod results;
mod statistics;
mod summary;
mod table;

use results::Results;
use std::error::Error;
use std::fs;
use std::path::Path;

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
