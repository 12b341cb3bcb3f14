//! The report of a hang: who hangs in what, what everybody else does, and the stacks of all threads.

use crate::liveness::beat::{Beat, Beats, Role, Verdict};
use crate::liveness::emergency_file::EmergencyFile;
use crate::liveness::stacks::Dumper;
use crate::liveness::standstill::Standstill;
use crate::liveness::voice::Voice;
use crate::process::clock::{epoch_seconds, rfc3339};
use log::Level;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Whole reports within an hour; what hangs beyond that is said in a line each, without stacks, so that a thread that
/// hangs again and again fills no disk.
const REPORTS_PER_HOUR: u32 = 12;
const HOUR: Duration = Duration::from_secs(3600);
/// Of the stacks, what the terminal and the log's file get; the emergency file has all.
const TERMINAL_BYTES_MAX: usize = 256 * 1024;
/// Hanging threads that have a line of their own in a report.
const FINDINGS_MAX: usize = 50;
/// Clients named one by one in the list of components.
const CLIENTS_LISTED_MAX: usize = 20;

/// A thread that hangs.
#[derive(Debug)]
pub struct Finding {
    pub beat: &'static Beat,
    /// For how long it has made no progress.
    pub still: Duration,
    pub standstill: Standstill,
}

/// Writes reports, only so many.
#[derive(Debug)]
pub struct Reporter {
    file: EmergencyFile,
    dumper: Option<Dumper>,
    budget: Budget,
    /// Reports since the start.
    count: u32,
    started: Instant,
}

impl Reporter {
    /// Whose reports go to `file`.
    pub fn new(file: EmergencyFile) -> Reporter {
        Reporter {
            file,
            dumper: None,
            budget: Budget::default(),
            count: 0,
            started: Instant::now(),
        }
    }

    /// To be called once on the thread that reports, when it runs.
    pub fn prepare(&mut self, voice: &mut Voice) {
        match Dumper::install() {
            Ok(dumper) => self.dumper = Some(dumper),
            Err(error) => voice.say(
                Level::Warn,
                &format!("⚠️  reports of hangs will have no stacks: {error}"),
            ),
        }
        if let Err(error) = self.file.open() {
            voice.say(
                Level::Warn,
                &format!(
                    "⚠️  cannot open {}: {error}; reports of hangs go to the terminal and to the log only, unless it can \
                     be opened then",
                    self.file.path().display()
                ),
            );
        }
    }

    /// Reports `findings`: first in the emergency file, then on the terminal and in the log.
    pub fn report(&mut self, findings: &[Finding], beats: &'static Beats, voice: &mut Voice) {
        self.count += 1;
        // The lines that matter most go out before anything that could take time.
        for line in finding_lines(findings) {
            voice.say(Level::Error, &line);
        }
        if !self.budget.take(Instant::now()) {
            voice.say(
                Level::Error,
                &format!("💾 no stacks this time: {REPORTS_PER_HOUR} reports were written within the last hour"),
            );
            return;
        }
        let mut text = self.title(&format!("hang report {} since the start", self.count));
        for line in finding_lines(findings) {
            let _ = writeln!(text, "{line}");
        }
        list_components(beats, &mut text);
        let shown = text.find("📍").unwrap_or(0);
        let first: Vec<i32> = findings.iter().map(|finding| finding.beat.thread_id()).collect();
        self.write_stacks(&first, &mut text);
        let written = self.file.append(text.as_bytes());
        let (shown, cut) = cut_at_line(&text[shown..], TERMINAL_BYTES_MAX);
        voice.put(shown);
        if cut > 0 {
            voice.say(Level::Error, &format!("… {} KB more are in the file", cut / 1024));
        }
        let path = self.file.path().display();
        match written {
            Ok(()) => voice.say(Level::Error, &format!("💾 the whole report was written to {path}")),
            Err(error) => voice.say(
                Level::Error,
                &format!("💾 the report could not be written to {path}: {error}; it is here only"),
            ),
        }
    }

    /// What everybody does right now, for somebody who asks.
    pub fn on_demand(&mut self, beats: &'static Beats) -> String {
        let mut text = self.title("a report on demand");
        list_components(beats, &mut text);
        let still = beats.all().filter(|beat| beat.verdict().0 != Verdict::Alive);
        let first: Vec<i32> = still.map(Beat::thread_id).collect();
        self.write_stacks(&first, &mut text);
        text
    }

    fn title(&self, what: &str) -> String {
        format!(
            "==== threadcast {} (process {}), {}, up {:.0} s: {what}\n",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            rfc3339(epoch_seconds()),
            self.started.elapsed().as_secs_f64(),
        )
    }

    fn write_stacks(&mut self, first: &[i32], text: &mut String) {
        let Some(dumper) = &mut self.dumper else {
            text.push_str("(no stacks: see the first lines of the log)\n");
            return;
        };
        text.push_str("---- all threads, those that hang first\n");
        dumper.dump(first, &mut |piece| text.push_str(&String::from_utf8_lossy(piece)));
    }
}

/// A line for each finding, components before clients; only so many.
fn finding_lines(findings: &[Finding]) -> Vec<String> {
    let mut lines: Vec<String> = findings.iter().take(FINDINGS_MAX).map(finding_line).collect();
    if findings.len() > FINDINGS_MAX {
        let more = findings.len() - FINDINGS_MAX;
        lines.push(format!("🚨 and {more} more threads of clients hang"));
    }
    lines
}

/// `fanout: no progress for 16.2s in broadcast (client 17, 212 KB queued); blocked: ...`
fn finding_line(finding: &Finding) -> String {
    format!(
        "🚨 SERVER HANG DETECTED: {}: no progress for {:.1}s in {}; {}",
        finding.beat.name(),
        finding.still.as_secs_f64(),
        finding.beat.sight().text(),
        finding.standstill
    )
}

/// Where every component is.
fn list_components(beats: &'static Beats, text: &mut String) {
    for beat in beats.permanent().into_iter().filter(|beat| beat.thread_id() != 0) {
        let _ = writeln!(text, "{}", place_line(beat));
    }
    list_clients(beats, text);
}

fn place_line(beat: &'static Beat) -> String {
    let (verdict, still) = beat.verdict();
    let sight = beat.sight();
    let state = match verdict {
        Verdict::Alive => format!("{:.1}s", sight.age.as_secs_f64()),
        verdict => format!("no progress for {:.1}s, {}", still.as_secs_f64(), verdict.name()),
    };
    format!("📍 {:<10} {}, {state}", beat.name(), sight.text())
}

/// Clients that stand still one by one, the others by their number.
fn list_clients(beats: &'static Beats, text: &mut String) {
    let (mut alive, mut listed, mut more) = (0, 0, 0);
    for beat in beats.all().filter(|beat| beat.role() == Role::Client) {
        if beat.verdict().0 == Verdict::Alive {
            alive += 1;
        } else if listed < CLIENTS_LISTED_MAX {
            listed += 1;
            let _ = writeln!(text, "{}", place_line(beat));
        } else {
            more += 1;
        }
    }
    if more > 0 {
        let _ = writeln!(text, "📍 clients    {more} more threads stand still");
    }
    let _ = writeln!(text, "📍 clients    {alive} threads are alive");
}

/// The beginning of `text`, whole lines, at most `most` bytes; and how many bytes are left out.
pub(super) fn cut_at_line(text: &str, most: usize) -> (&str, usize) {
    if text.len() <= most {
        return (text, 0);
    }
    let end = text.as_bytes()[..most]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    // A line end is a character of its own, so this is a boundary.
    (&text[..end], text.len() - end)
}

/// How many reports may be written.
#[derive(Debug, Default)]
struct Budget {
    window: Option<Instant>,
    used: u32,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        if self
            .window
            .is_none_or(|since| now.saturating_duration_since(since) >= HOUR)
        {
            self.window = Some(now);
            self.used = 0;
        }
        self.used += 1;
        self.used <= REPORTS_PER_HOUR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_again_and_again_gets_so_many_reports_an_hour() {
        let mut budget = Budget::default();
        let start = Instant::now();
        let granted = |budget: &mut Budget, at: Duration, tries: u32| -> usize {
            (0..tries).filter(|_| budget.take(start + at)).count()
        };
        assert_eq!(granted(&mut budget, Duration::ZERO, 100) as u32, REPORTS_PER_HOUR);
        assert_eq!(granted(&mut budget, HOUR - Duration::from_secs(1), 100), 0);
        assert_eq!(granted(&mut budget, HOUR, 100) as u32, REPORTS_PER_HOUR);
    }

    #[test]
    fn a_text_is_cut_between_lines() {
        assert_eq!(cut_at_line("ab\ncd\n", 6), ("ab\ncd\n", 0));
        assert_eq!(cut_at_line("ab\ncd\n", 5), ("ab\n", 3));
        assert_eq!(cut_at_line("äää\n", 3), ("", 7));
    }
}
