//! What is taken from a run, and in which unit.

use crate::case::{Case, Pace};
use crate::generator::Figures;

/// One number of a run.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What a row or a column is called; with its unit.
    pub label: &'static str,
    /// Whether a run that lost anything has none.
    pub lossless: bool,
    pub of: fn(&Case, &Figures) -> Option<f64>,
}

const fn figure(label: &'static str, of: fn(&Case, &Figures) -> Option<f64>) -> Figure {
    let lossless = false;
    Figure { label, lossless, of }
}

fn per(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / whole as f64)
}

fn connections(case: &Case) -> u64 {
    (case.clients + case.stopped + case.pausing) as u64
}

fn mib(kib: u64) -> Option<f64> {
    Some(kib as f64 / 1024.0)
}

/// A percentile of a distribution in microseconds, as milliseconds. The index is that of `generator::PERCENTILES`.
fn ms(distribution: &[f64], index: usize) -> Option<f64> {
    distribution.get(index).map(|us| us / 1000.0)
}

pub const DELIVERIES: Figure = Figure {
    lossless: true,
    ..figure("deliveries/s", |_, run| Some(run.deliveries as f64 / run.measured_s))
};
pub const CPU: Figure = figure("CPU per delivery, us", |_, run| {
    per(run.server_cpu_s * 1e6, run.deliveries)
});
pub const P50: Figure = figure("p50, ms", |_, run| ms(&run.latency_us, 1));
pub const P99: Figure = figure("p99, ms", |_, run| ms(&run.latency_us, 5));
pub const P999: Figure = figure("p99.9, ms", |_, run| ms(&run.latency_us, 6));
pub const SPREAD_P50: Figure = figure("p50, ms", |_, run| ms(&run.spread_us, 1));
pub const SPREAD_P99: Figure = figure("p99, ms", |_, run| ms(&run.spread_us, 5));
pub const RSS: Figure = figure("RSS, MiB", |_, run| mib(run.memory.rss_kib));
pub const STACKS: Figure = figure("kernel stacks, MiB", |_, run| mib(run.memory.kernel_stacks_kib));
pub const RSS_AND_STACKS: Figure = figure("RSS + kernel stacks, MiB", |_, run| {
    mib(run.memory.rss_kib + run.memory.kernel_stacks_kib)
});
pub const SLAB: Figure = figure("slab growth, both ends, MiB", |_, run| {
    mib(run.memory.slab_kib.saturating_sub(run.slab_before_kib))
});
/// All three, in the unit of the goal: a million bytes.
pub const ALL_MEMORY: Figure = figure("all, MB", |_, run| {
    let slab = run.memory.slab_kib.saturating_sub(run.slab_before_kib);
    Some((run.memory.rss_kib + run.memory.kernel_stacks_kib + slab) as f64 * 1024.0 / 1e6)
});
pub const CONNECT_CPU: Figure = figure("CPU per connection, us", |case, run| {
    per(run.connect_cpu_s * 1e6, connections(case))
});
pub const CONNECT_RATE: Figure = figure("connections/s", |case, run| {
    Some(connections(case) as f64 / run.connect_s)
});
pub const INGEST: Figure = figure("events/s", |_, run| Some(run.sent as f64 / run.measured_s));
pub const INGEST_CPU: Figure = figure("CPU per event, us", |_, run| per(run.server_cpu_s * 1e6, run.sent));
pub const SWITCHES: Figure = figure("context switches per delivery", |_, run| {
    per((run.switches_voluntary + run.switches_forced) as f64, run.deliveries)
});
pub const MISSING: Figure = figure("events missed by readers", |_, run| Some(run.missing as f64));
pub const ENDED: Figure = figure("readers ended", |_, run| Some(run.ended as f64));
pub const SLOW_MISSING: Figure = figure("events missed by the slow", |_, run| Some(run.slow_missing as f64));
pub const SLOW_ENDED: Figure = figure("slow clients ended", |_, run| Some(run.slow_ended as f64));

/// The figure that says most about a case.
pub fn main_of(case: &Case) -> Figure {
    match case.pace {
        Pace::Loop(_) => DELIVERIES,
        Pace::Rate(_) | Pace::BurstThenRate(_) => CPU,
        Pace::Ingest => INGEST,
        Pace::Idle if case.name.starts_with("storm") => CONNECT_CPU,
        Pace::Idle => RSS_AND_STACKS,
    }
}

/// Three digits that count, as people write them.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 999_500.0 => format!("{:.2} M", value / 1e6),
        size if size >= 99_950.0 => format!("{:.0} k", value / 1e3),
        size if size >= 9_995.0 => format!("{:.1} k", value / 1e3),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.4}"),
    }
}
