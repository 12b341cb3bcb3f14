//! Medians over rounds, ratios within rounds, and what makes a run count.

use super::figure::Figure;
use super::results::Results;
use crate::case::{Case, Pace};
use crate::generator::Figures;
use crate::suite::Run;

/// The middle of some values, and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

/// What one server has shown in one case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// `None`: no run that counts.
    pub spread: Option<Spread>,
    pub runs: usize,
    pub failed: usize,
    /// Runs whose reading clients lost anything.
    pub lossy: usize,
    /// Runs in which the server did not keep up with the rate.
    pub behind: usize,
}

/// Below this part of what a rate asks for, a server has not kept up; the last few events are always under way.
const KEPT_UP: f64 = 0.95;

/// `None` without values. Of an even number the middle two are averaged.
pub fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => return None,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    };
    Some(Spread {
        median,
        min: values[0],
        max: values[values.len() - 1],
        rounds: values.len(),
    })
}

/// Whether a reading client did not get everything, once, unchanged and to the end.
pub fn lost(run: &Figures) -> bool {
    run.missing + run.repeated + run.changed + run.ended > 0 || !run.drained
}

/// Whether less was taken or delivered than the case's rate asks for.
pub fn behind(case: &Case, run: &Figures) -> bool {
    let (Pace::Rate(rate) | Pace::BurstThenRate(rate)) = case.pace else {
        return false;
    };
    let wanted = f64::from(rate) * run.measured_s * KEPT_UP;
    (run.sent as f64) < wanted || (run.deliveries as f64) < wanted * case.clients as f64
}

/// The figure of a run; `None` when the run failed, or lost something where that must not be.
fn value(case: &Case, run: &Run, figure: Figure) -> Option<f64> {
    let figures = run.figures.as_ref().filter(|_| run.failed.is_none())?;
    match figure.lossless && lost(figures) {
        true => None,
        false => (figure.of)(case, figures),
    }
}

pub fn cell(results: &Results, case: &Case, server: &str, figure: Figure) -> Cell {
    let runs: Vec<&Run> = results.of(&case.name, server).collect();
    let figures = || runs.iter().filter_map(|run| run.figures.as_ref());
    Cell {
        spread: spread(runs.iter().filter_map(|run| value(case, run, figure)).collect()),
        runs: runs.len(),
        failed: runs.iter().filter(|run| run.failed.is_some()).count(),
        lossy: figures().filter(|run| lost(run)).count(),
        behind: figures().filter(|run| behind(case, run)).count(),
    }
}

/// One side of a ratio.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    pub case: &'a Case,
    pub server: &'a str,
}

/// How many times `over` has what `under` has: within each round that has both, then the median.
pub fn ratio(results: &Results, over: Side<'_>, under: Side<'_>, figure: Figure) -> Option<Spread> {
    let in_round = |side: Side<'_>, round: usize| {
        let run = results
            .of(&side.case.name, side.server)
            .find(|run| run.round == round)?;
        value(side.case, run, figure)
    };
    let ratios = results.of(&over.case.name, over.server).filter_map(|run| {
        let (over, under) = (value(over.case, run, figure)?, in_round(under, run.round)?);
        Some(over / under)
    });
    spread(ratios.collect())
}
