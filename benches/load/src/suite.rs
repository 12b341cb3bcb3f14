//! Runs the cases, one server after the other, round after round, so that whatever disturbs the host disturbs all.

use crate::case::{Case, Pace};
use crate::generator::{self, Figures};
use crate::machine;
use crate::servers::{self, Kind, Places, Server};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// A run in which others have used more than this part of a processor is repeated.
const FOREIGN_MAX: f64 = 0.30;
/// The same for time that the host's host took.
const STEAL_MAX: f64 = 0.15;
/// How often a disturbed run is repeated before its last result is kept, with a mark.
const REPEATS_MAX: usize = 2;

/// One line of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub case: String,
    pub server: String,
    pub round: usize,
    /// Runs before this one that were disturbed and are not in the results.
    pub repeated: usize,
    /// Whether this one was disturbed too.
    pub disturbed: bool,
    /// Why there are no figures.
    pub failed: Option<String>,
    pub figures: Option<Figures>,
}

/// The first line of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    pub machine: String,
    pub commit: String,
    /// Day on which the run began, UTC.
    #[serde(default)]
    pub date: String,
    pub command: String,
    pub versions: Vec<String>,
    pub measured_s: f64,
    pub rounds: usize,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug)]
pub struct Suite {
    pub cases: Vec<Case>,
    pub servers: Vec<Kind>,
    pub rounds: usize,
    pub measure: Duration,
    pub places: Places,
    pub command: String,
}

impl Suite {
    /// Writes one line a run to `results`, and progress to standard error.
    pub fn run(&self, results: &Path) -> Result<(), Box<dyn Error>> {
        let mut file = File::create(results)?;
        let head = Head {
            machine: machine::description(),
            commit: commit(&self.places.top),
            date: first_line("date", &["-u", "+%F"], &self.places.top).unwrap_or_default(),
            command: self.command.clone(),
            versions: self.versions(),
            measured_s: self.measure.as_secs_f64(),
            rounds: self.rounds,
            cases: self.cases.clone(),
        };
        writeln!(file, "{}", serde_json::to_string(&head)?)?;
        let total: usize = self
            .cases
            .iter()
            .map(|case| self.measured(case).count() * self.rounds)
            .sum();
        let (begun, mut done) = (Instant::now(), 0);
        for round in 0..self.rounds {
            for case in &self.cases {
                let kinds: Vec<&Kind> = self.measured(case).collect();
                for turn in 0..kinds.len() {
                    // Nobody is always first.
                    let kind = kinds[(turn + round) % kinds.len()];
                    let run = self.one(case, kind, round);
                    writeln!(file, "{}", serde_json::to_string(&run)?)?;
                    done += 1;
                    let left = begun.elapsed().as_secs_f64() / done as f64 * (total - done) as f64;
                    eprintln!("[{done}/{total}, {left:.0} s left] {}", line(&run));
                }
            }
        }
        Ok(())
    }

    /// The servers that a case is for.
    fn measured<'a>(&'a self, case: &'a Case) -> impl Iterator<Item = &'a Kind> {
        self.servers.iter().filter(|kind| {
            let fits = case.clients <= kind.most_clients && (kind.name != "python" || case.python);
            fits && (kind.name != "bare" || case.pace == Pace::Ingest)
        })
    }

    fn one(&self, case: &Case, kind: &Kind, round: usize) -> Run {
        let mut run = Run {
            case: case.name.clone(),
            server: kind.name.to_owned(),
            round,
            repeated: 0,
            disturbed: false,
            failed: None,
            figures: None,
        };
        loop {
            let outcome = Server::start(kind, &self.places).and_then(|server| {
                generator::run(case, &server.target, self.measure)
                    .map_err(|error| format!("{error}; the server's last lines: {}", server.output()).into())
            });
            match outcome {
                Ok(figures) => {
                    run.disturbed = figures.foreign_cpu_s > FOREIGN_MAX * figures.measured_s
                        || figures.steal_s > STEAL_MAX * figures.measured_s;
                    run.figures = Some(figures);
                }
                // What a disturbed run before this one has shown is not this one's.
                Err(error) => {
                    (run.disturbed, run.figures) = (false, None);
                    run.failed = Some(error.to_string());
                }
            }
            if !run.disturbed || run.repeated == REPEATS_MAX {
                return run;
            }
            run.repeated += 1;
        }
    }

    fn versions(&self) -> Vec<String> {
        let rustc = first_line("rustc", &["--version"], &self.places.top);
        rustc
            .into_iter()
            .chain(self.servers.iter().map(|kind| format!("{}: {}", kind.name, kind.what)))
            .collect()
    }
}

/// All servers that can be measured here; those that cannot are named on standard error.
pub fn servers_here(places: &Places, wanted: &[String]) -> Vec<Kind> {
    let mut here = Vec::new();
    for kind in servers::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == kind.name) {
            continue;
        }
        match places.lacks(&kind) {
            None => here.push(kind),
            Some(why) => eprintln!("{} is left out: {why}", kind.name),
        }
    }
    here
}

fn first_line(program: &str, arguments: &[&str], folder: &Path) -> Option<String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

fn commit(top: &Path) -> String {
    let commit = first_line("git", &["rev-parse", "--short=10", "HEAD"], top).unwrap_or_else(|| "unknown".to_owned());
    match first_line(
        "git",
        &["status", "--porcelain", "--", "src", "Cargo.lock", "Cargo.toml"],
        top,
    ) {
        Some(_) => format!("{commit} with changes"),
        None => commit,
    }
}

/// What a person wants to see of a run as it passes.
fn line(run: &Run) -> String {
    let mut text = format!("{:34} {:12}", run.case, run.server);
    match (&run.figures, &run.failed) {
        (Some(figures), _) => {
            let per_second = figures.deliveries as f64 / figures.measured_s;
            if figures.deliveries > 0 {
                text.push_str(&format!(
                    " {:>10.0} deliveries/s, {:6.2} us each",
                    per_second,
                    figures.server_cpu_s * 1e6 / figures.deliveries as f64
                ));
            } else if figures.sent > 0 {
                text.push_str(&format!(" {:>10.0} events/s", figures.sent as f64 / figures.measured_s));
            } else {
                text.push_str(&format!(
                    " connected in {:.2} s, {:.2} s of processor time",
                    figures.connect_s, figures.connect_cpu_s
                ));
            }
            if let Some(p99) = figures.latency_us.get(5) {
                text.push_str(&format!(", p99 {:.2} ms", p99 / 1000.0));
            }
            text.push_str(&format!(
                ", {} MiB",
                (figures.memory.rss_kib + figures.memory.kernel_stacks_kib) / 1024
            ));
            for (count, what) in [
                (figures.missing, "missing"),
                (figures.repeated, "repeated"),
                (figures.changed, "changed"),
                (figures.ended, "ended"),
                (figures.slow_missing, "missed by the slow"),
                (figures.slow_ended, "slow ended"),
            ] {
                if count > 0 {
                    text.push_str(&format!(", {count} {what}"));
                }
            }
        }
        (None, Some(why)) => text.push_str(&format!(" FAILED: {why}")),
        (None, None) => {}
    }
    if run.disturbed {
        text.push_str(", disturbed");
    }
    text
}
