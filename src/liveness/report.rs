//! The report of a hang: who hangs in what, what everybody else does, and the stacks of all threads.

use crate::liveness::backlog::Backlog;
use crate::liveness::beat::{Beat, Role, Verdict};
use crate::liveness::beats::Beats;
use crate::liveness::report_writer::{Reports, Written};
use crate::liveness::stacks::Dumper;
use crate::liveness::standstill::Standstill;
use crate::liveness::voice::Voice;
use crate::process::clock::{epoch_seconds, pause, rfc3339};
use crate::process::limits;
use crate::process::words::cut_at_line;
use crate::process::words::{count, pick};
use log::Level;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Reports with stacks within an hour, for the server's own threads and for those of clients each. A hang beyond that
/// gets one line without stacks, so that a thread that hangs again and again fills no disk.
const REPORTS_PER_HOUR: u32 = 12;
/// The window in which reports are counted.
const HOUR: Duration = Duration::from_secs(3600);
/// Of the stacks, what the terminal and the log's file get; the emergency file has all.
const TERMINAL_BYTES_MAX: usize = 256 * 1024;
/// How long the watchdog waits for the file to have the report: 1 s, because its own verdicts wait meanwhile.
const FILE_PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two looks whether the file has it, 20 ms.
const FILE_LOOK: Duration = Duration::from_millis(20);
/// Hanging threads that have a line of their own in a report.
pub(super) const FINDINGS_MAX: usize = 50;
/// Clients named one by one in the list of components.
const CLIENTS_LISTED_MAX: usize = 20;

/// The server's beats, and what waits for whom.
type Watched<'a> = (&'static Beats, &'a [Backlog]);

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
    file: Reports,
    dumper: Option<Dumper>,
    budget: Budget,
    for_clients: Budget,
    /// Reports since the start.
    count: u32,
    started: Instant,
}

impl Reporter {
    /// Whose reports go to `file`.
    pub fn new(file: Reports) -> Reporter {
        Reporter {
            file,
            dumper: None,
            budget: Budget::default(),
            for_clients: Budget::default(),
            count: 0,
            started: Instant::now(),
        }
    }

    /// To be called once on the thread that reports, when it runs.
    pub fn prepare(&mut self, voice: &mut Voice) {
        match Dumper::install() {
            Ok(dumper) => self.dumper = Some(dumper),
            Err(error) => {
                let room = match limits::address_space() {
                    Some(limit) => format!(
                        "; the address space is limited to {} KiB (ulimit -v, LimitAS=), from 524288 on there is room",
                        limit / 1024
                    ),
                    None => String::new(),
                };
                voice.say(
                    Level::Warn,
                    &format!("⚠️  reports of hangs will have no stacks: {error}{room}"),
                );
            }
        }
    }

    /// Reports `findings`. Who hangs goes to the terminal and the log at once, then with everybody's place to the file,
    /// then the stacks to the file, the terminal and the log: what takes time comes after what does not. Thread
    /// `reports` writes the file; at the end this waits [`FILE_PATIENCE`] at most to see whether it has. `is_last`: the
    /// process ends after it, so there are stacks in any case.
    pub fn report(&mut self, findings: &[Finding], server: Watched<'_>, voice: &mut Voice, is_last: bool) {
        self.count += 1;
        for line in finding_lines(findings) {
            voice.say(Level::Error, &line);
        }
        let mut head = self.title(&format!("hang report {} since the start", self.count));
        for line in finding_lines(findings) {
            let _ = writeln!(head, "{line}");
        }
        let title_len = head.len();
        list_components(server, &mut head);
        self.file.begin();
        let mut left = self.file.leave(head.as_bytes());
        voice.put(Level::Error, &head[title_len..]);
        // Clients come and go by the wish of outsiders: theirs must not use up what there is for the server's own
        // threads.
        let of_clients = findings.iter().all(|finding| finding.beat.role() == Role::Client);
        let budget = if of_clients {
            &mut self.for_clients
        } else {
            &mut self.budget
        };
        let grant = budget.take(Instant::now());
        let path = self.file.path().to_owned();
        if grant == Grant::UsedUp && !is_last {
            let why =
                format!("💾 no stacks this time: {REPORTS_PER_HOUR} such reports were written since the hour began");
            voice.say(Level::Error, &why);
            return;
        }
        let first = first_to_show(findings.iter().map(|finding| finding.beat));
        let mut stacks = String::new();
        self.write_stacks(&first, server.0, &mut stacks);
        left += self.file.leave(stacks.as_bytes());
        let (shown, cut) = cut_at_line(&stacks, TERMINAL_BYTES_MAX);
        voice.put(Level::Error, shown);
        if cut > 0 {
            voice.say(Level::Error, &format!("… {} KB more are in the file", cut / 1024));
        }
        let path = path.display();
        let said = match self.wait_for_file(server.0) {
            // A report that the file still waits for has all the room.
            Written::Yes if left == 0 => {
                format!("💾 the report has no room in {path}, whose disk does not answer; it is here only")
            }
            Written::Yes if left == head.len() + stacks.len() => format!("💾 the whole report was written to {path}"),
            Written::Yes => format!("💾 the report was written to {path}, but its end had no room there"),
            Written::No(error) => format!("💾 the report could not be written to {path}: {error}; it is here only"),
            Written::NotYet => format!(
                "💾 the report is not in {path} yet: its disk has not answered for {} s. It is here; thread reports goes on \
                 waiting for that disk",
                FILE_PATIENCE.as_secs()
            ),
        };
        voice.say(Level::Error, &said);
    }

    /// Looks whether what was left for the file is in it, as long as the patience lasts.
    fn wait_for_file(&self, beats: &'static Beats) -> Written {
        let begun = Instant::now();
        loop {
            match self.file.written() {
                Written::NotYet if begun.elapsed() < FILE_PATIENCE => pause(FILE_LOOK),
                written => return written,
            }
            beats.watchdog.step();
        }
    }

    /// What everybody does right now, for somebody who asks.
    pub fn on_demand(&mut self, beats: &'static Beats, backlogs: &[Backlog]) -> String {
        let mut text = self.title("a report on demand");
        list_components((beats, backlogs), &mut text);
        let first = first_to_show(beats.all().filter(|beat| beat.verdict().0 != Verdict::Alive));
        self.write_stacks(&first, beats, &mut text);
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

    fn write_stacks(&mut self, first: &[i32], beats: &'static Beats, text: &mut String) {
        let Some(dumper) = &mut self.dumper else {
            text.push_str("(no stacks: see the first lines of the log)\n");
            return;
        };
        text.push_str("---- all threads, those that hang first\n");
        let mut put = |piece: &[u8]| {
            beats.watchdog.step();
            text.push_str(&String::from_utf8_lossy(piece));
        };
        // It reads what other threads have on their stacks, whatever that is; a fault in that must not end the
        // watchdog.
        let dumped = catch_unwind(AssertUnwindSafe(|| dumper.dump(first, &mut put)));
        if dumped.is_err() {
            text.push_str("(the stacks could not be made; the log has the fault, please report it)\n");
        }
    }
}

/// Whose stacks are shown first, each by itself: the server's own threads, and some of the clients'; the others may be
/// folded with those at the same place.
fn first_to_show(beats: impl Iterator<Item = &'static Beat>) -> Vec<i32> {
    let mut clients = 0;
    beats
        .filter(|beat| {
            clients += usize::from(beat.role() == Role::Client);
            beat.role() != Role::Client || clients <= CLIENTS_LISTED_MAX
        })
        .map(Beat::thread_id)
        .collect()
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
fn list_components((beats, backlogs): Watched<'_>, text: &mut String) {
    for beat in beats.permanent().into_iter().filter(|beat| beat.thread_id() != 0) {
        let mut own = backlogs.iter().filter(|backlog| std::ptr::eq(backlog.beat, beat));
        let waiting = own.find_map(|backlog| (backlog.waiting)());
        let waiting = waiting.map_or(String::new(), |what| format!("; {what} wait for it"));
        let _ = writeln!(text, "{}{waiting}", place_line(beat));
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
        let _ = writeln!(
            text,
            "📍 clients    {more} more {}",
            pick(more, "thread stands still", "threads stand still")
        );
    }
    let _ = writeln!(
        text,
        "📍 clients    {} {} alive",
        count(alive, "thread"),
        pick(alive, "is", "are")
    );
}

/// What a [`Budget`] says to one more report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Given,
    /// The window has had as many as it may have.
    UsedUp,
}

/// How many reports may be written.
#[derive(Debug, Default)]
struct Budget {
    window: Option<Instant>,
    used: u32,
}

impl Budget {
    /// Takes one report of the window that `now` is in.
    fn take(&mut self, now: Instant) -> Grant {
        if self
            .window
            .is_none_or(|since| now.saturating_duration_since(since) >= HOUR)
        {
            self.window = Some(now);
            self.used = 0;
        }
        self.used += 1;
        if self.used <= REPORTS_PER_HOUR {
            Grant::Given
        } else {
            Grant::UsedUp
        }
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
            (0..tries).filter(|_| budget.take(start + at) == Grant::Given).count()
        };
        assert_eq!(granted(&mut budget, Duration::ZERO, 100) as u32, REPORTS_PER_HOUR);
        assert_eq!(granted(&mut budget, HOUR - Duration::from_secs(1), 100), 0);
        assert_eq!(granted(&mut budget, HOUR, 100) as u32, REPORTS_PER_HOUR);
    }
}
