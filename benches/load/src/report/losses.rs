//! The footnotes: what was lost, which rates were not kept, and which runs failed.

use super::results::Results;
use super::statistics::{behind, lost};
use crate::generator::Figures;
use crate::servers;
use crate::suite::Run;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What was lost in the runs of one server in one case.
#[derive(Debug, Default)]
struct Sum {
    runs: usize,
    missing: u64,
    repeated: u64,
    changed: u64,
    ended: u64,
    undrained: u64,
}

impl Sum {
    fn add(&mut self, run: &Figures) {
        self.runs += 1;
        self.missing += run.missing;
        self.repeated += run.repeated;
        self.changed += run.changed;
        self.ended += run.ended;
        self.undrained += u64::from(!run.drained);
    }

    fn words(&self) -> String {
        let counts = [
            (self.missing, "missing"),
            (self.repeated, "repeated"),
            (self.changed, "changed"),
            (self.ended, "readers ended"),
            (self.undrained, "runs whose last events did not all come in time"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The footnotes of † and ‡: what each server lost, in all rounds of a case.
pub fn markdown(results: &Results) -> String {
    let mut text = "## Losses (†), rates that were not kept (‡), failures\n\n".to_owned();
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for run in &results.runs {
        if let Some(figures) = run.figures.as_ref().filter(|figures| lost(figures)) {
            sums.entry((&run.case, &run.server)).or_default().add(figures);
        }
    }
    let all = |case: &str, server: &str| results.of(case, server).count();
    for ((case, server), sum) in &sums {
        let runs = format!("{} of {} runs", sum.runs, all(case, server));
        let _ = writeln!(text, "- † {case}, {server}, {runs}: {}", sum.words());
    }
    for case in &results.head.cases {
        for kind in servers::ALL {
            let runs = results.of(&case.name, kind.name);
            let late = runs.filter(|run| run.figures.as_ref().is_some_and(|figures| behind(case, figures)));
            let late = late.count();
            if late > 0 {
                let runs = format!("{late} of {} runs", all(&case.name, kind.name));
                let _ = writeln!(
                    text,
                    "- ‡ {}, {}, {runs}: did not keep up with the rate",
                    case.name, kind.name
                );
            }
        }
    }
    let failed: Vec<(&Run, &String)> = results
        .runs
        .iter()
        .filter_map(|run| Some((run, run.failed.as_ref()?)))
        .collect();
    for (run, why) in &failed {
        let why = why.replace('\n', " ");
        let _ = writeln!(
            text,
            "- {}, {}, round {} failed: {why}",
            run.case,
            run.server,
            run.round + 1
        );
    }
    if sums.is_empty() && failed.is_empty() {
        text.push_str("None: in every run every reading client got every event, once, unchanged and in order.\n");
    }
    text
}
