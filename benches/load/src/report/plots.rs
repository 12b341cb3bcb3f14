//! The plots of the page, as SVG: white ground, dark words, colours that the colour-blind can tell apart, names at the
//! lines.

use super::figure::{self, Figure};
use super::results::Results;
use super::statistics::{cell, spread};
use crate::case::Case;
use crate::generator::PERCENTILES;
use crate::servers;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::path::Path;

/// Titles that plots name, to stand below them.
pub const THROUGHPUT: &str = "Deliveries a second without loss";
pub const COST: &str = "Processor time of a delivery";
pub const LATENCY: &str = "Latency";

const SIZE: (u32, u32) = (860, 480);
/// Room at the right for the names.
const NAMES: u32 = 110;
/// Names are at least so far apart, in pixels.
const APART: i32 = 17;
const DARK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const PALE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// A plot that was drawn.
#[derive(Clone, Debug)]
pub struct Plot {
    pub file: String,
    pub title: String,
    /// Title of the table that it belongs to.
    pub below: &'static str,
}

#[derive(Clone, Debug)]
struct Line {
    server: &'static str,
    points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
struct Axes {
    x: &'static str,
    y: &'static str,
    x_label: fn(&f64) -> String,
}

/// Okabe and Ito's colours; ours is the dark blue.
fn colour(server: &str) -> RGBColor {
    match server {
        "direct" => RGBColor(0x00, 0x72, 0xb2),
        "queued" => RGBColor(0x56, 0xb4, 0xe9),
        "tokio-usual" => RGBColor(0xd5, 0x5e, 0x00),
        "tokio-tuned" => RGBColor(0xe6, 0x9f, 0x00),
        "python" => RGBColor(0x00, 0x9e, 0x73),
        "floor" => RGBColor(0x55, 0x55, 0x55),
        _ => RGBColor(0xcc, 0x79, 0xa7),
    }
}

/// Draws what there are figures for; a plot without any is left out.
pub fn draw(results: &Results, folder: &Path) -> Result<Vec<Plot>, Box<dyn Error>> {
    let mut plots = Vec::new();
    for name in ["rate-100-to-1000", "rate-100-to-50"] {
        let Some(case) = results.case(name) else { continue };
        let plot = Plot {
            file: format!("latency-{name}.svg"),
            title: format!("Latency, {} clients, 100 events/s", case.clients),
            below: LATENCY,
        };
        let axes = Axes {
            x: "part of all deliveries",
            y: "ms, less is better",
            x_label: percentile_label,
        };
        let lines = lines(|server| latencies(results, case, server));
        if one(&folder.join(&plot.file), &plot.title, axes, &lines)? {
            plots.push(plot);
        }
    }
    for (file, title, below, y, prefix, figure) in [
        (
            "deliveries.svg",
            "Deliveries a second without loss",
            THROUGHPUT,
            "deliveries/s, more is better",
            "loop-to-",
            figure::DELIVERIES,
        ),
        (
            "cpu.svg",
            "Processor time of a delivery, 100 events/s",
            COST,
            "us, less is better",
            "rate-100-to-",
            figure::CPU,
        ),
    ] {
        let plot = Plot {
            file: file.to_owned(),
            title: title.to_owned(),
            below,
        };
        let axes = Axes {
            x: "clients",
            y,
            x_label: axis_label,
        };
        let lines = lines(|server| against_clients(results, prefix, server, figure));
        if one(&folder.join(file), title, axes, &lines)? {
            plots.push(plot);
        }
    }
    Ok(plots)
}

fn lines(points: impl Fn(&str) -> Vec<(f64, f64)>) -> Vec<Line> {
    let lines = servers::ALL.iter().map(|kind| Line {
        server: kind.name,
        points: points(kind.name),
    });
    lines.filter(|line| !line.points.is_empty()).collect()
}

/// Where a percentile stands: 90 % at 10, 99 % at 100 and so on, so that a logarithm spreads the tail. The highest of
/// all stands one step behind the last of them.
fn percentile_place(percentile: f64) -> f64 {
    100.0 / (100.0 - percentile).max(0.001)
}

fn percentile_label(place: &f64) -> String {
    match *place {
        place if place > 50_000.0 => "max".to_owned(),
        place => format!("{} %", short(100.0 - 100.0 / place, 100.0)),
    }
}

/// A number beside an axis: those are round.
fn axis_label(value: &f64) -> String {
    match *value {
        value if value >= 1e6 => format!("{} M", short(value / 1e6, 10.0)),
        value if value >= 1e4 => format!("{} k", short(value / 1e3, 10.0)),
        value => short(value, 1000.0).to_string(),
    }
}

/// To so many parts of one, without what binary fractions add.
fn short(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The median over rounds at every percentile.
fn latencies(results: &Results, case: &Case, server: &str) -> Vec<(f64, f64)> {
    let at = |index: usize| {
        let runs = results.of(&case.name, server).filter(|run| run.failed.is_none());
        let values = runs.filter_map(|run| run.figures.as_ref()?.latency_us.get(index).copied());
        spread(values.collect()).map(|spread| spread.median / 1000.0)
    };
    let places = PERCENTILES.iter().enumerate();
    places
        .filter_map(|(index, percentile)| Some((percentile_place(*percentile), at(index)?.max(0.001))))
        .collect()
}

/// One figure of the cases `prefix` + number of clients.
fn against_clients(results: &Results, prefix: &str, server: &str, figure: Figure) -> Vec<(f64, f64)> {
    let plain = |case: &&Case| {
        let rest = case.name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.parse::<usize>().is_ok())
    };
    let cases = results.head.cases.iter().filter(plain);
    let points = cases.filter_map(|case| {
        let median = cell(results, case, server, figure).spread?.median;
        (median > 0.0).then_some((case.clients as f64, median))
    });
    points.collect()
}

/// From the lowest to the highest value, with some room, and never empty.
fn range(values: impl Iterator<Item = f64>, room: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    low / room..high * room
}

/// Draws one plot; whether there was anything to draw.
fn one(file: &Path, title: &str, axes: Axes, lines: &[Line]) -> Result<bool, Box<dyn Error>> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    if points().next().is_none() {
        return Ok(false);
    }
    let words = |size: i32| ("sans-serif", size).into_font().color(&DARK);
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (x, y) = (
        range(points().map(|point| point.0), 1.1),
        range(points().map(|point| point.1), 1.4),
    );
    let mut chart = ChartBuilder::on(&root)
        .caption(title, words(20))
        .margin(12)
        .margin_right(NAMES)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .axis_desc_style(words(14))
        .label_style(words(13))
        .axis_style(DARK)
        .bold_line_style(PALE)
        .light_line_style(WHITE)
        .x_label_formatter(&axes.x_label)
        .y_label_formatter(&axis_label)
        .draw()?;
    let mut names = Vec::new();
    for line in lines {
        let colour = colour(line.server);
        let width = if line.server == super::results::OURS { 4 } else { 2 };
        chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(width)))?;
        chart.draw_series(
            line.points
                .iter()
                .map(|point| Circle::new(*point, width + 1, colour.filled())),
        )?;
        if let Some(last) = line.points.last() {
            names.push((chart.backend_coord(last), line.server));
        }
    }
    name_lines(&root, names)?;
    root.present()?;
    Ok(true)
}

/// Writes each name beside the end of its line, and none over another.
fn name_lines(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    mut names: Vec<((i32, i32), &str)>,
) -> Result<(), Box<dyn Error>> {
    names.sort_by_key(|((_, y), _)| *y);
    let mut lowest = 0;
    for ((x, y), server) in names {
        let at = y.max(lowest);
        lowest = at + APART;
        // Dark: pale words on white are hard to read; the short line has the colour.
        let style = ("sans-serif", 14).into_font().color(&DARK);
        root.draw(&PathElement::new(
            [(x + 4, y), (x + 14, at)],
            colour(server).stroke_width(2),
        ))?;
        root.draw(&Text::new(
            server,
            (x + 17, at),
            style.pos(Pos::new(HPos::Left, VPos::Center)),
        ))?;
    }
    Ok(())
}
