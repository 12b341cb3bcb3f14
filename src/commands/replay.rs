//! `threadcast replay`: sends what a journal has recorded into a server's socket again, in its order and with its
//! timing.

use crate::commands::complain;
use crate::commands::end_signals::end_signals;
use crate::commands::sender::{EventSender, Refusal};
use crate::journal::line::{self, Line};
use crate::journal::reader::LineReader;
use crate::journal::segments::{Segment, list};
use crate::process::clock::{parse_rfc3339, pause};
use crate::process::exit::ExitStatus;
use crate::process::signals::EndSignals;
use crate::process::visible::visible;
use crate::process::words::{count, pick};
use crate::stream::event::{Seq, is_own};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one try to send may block, and the pause between two tries: `replay` heeds a wish to end within this time.
const LOOK: Duration = Duration::from_millis(50);

/// The command's arguments.
#[derive(Debug)]
pub struct Replay {
    pub journal: PathBuf,
    pub from: Option<Point>,
    /// Inclusive.
    pub to: Option<Point>,
    /// How many times faster than it happened; `None`: as fast as the server takes it.
    pub speed: Option<f64>,
    pub path: PathBuf,
    /// How long to wait for a server that is away or takes nothing.
    pub timeout: Duration,
}

/// A place in the journal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point {
    /// An event's number: digits alone.
    Seq(Seq),
    /// Seconds since the epoch: with a fraction, or behind an `@`; or a calendar's time in UTC (RFC 3339).
    Time(f64),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse()
                .map(Point::Seq)
                .map_err(|_| "this number is too large".to_owned());
        }
        let seconds = text.strip_prefix('@').unwrap_or(text);
        let time = if is_number(seconds) {
            seconds.parse().ok()
        } else {
            parse_rfc3339(text)
        };
        time.map(Point::Time).ok_or_else(|| {
            "write an event's number (1234), or a time: @1795393480, 1795393480.5 or 2026-11-23T00:24:40Z".to_owned()
        })
    }
}

/// What became of it.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    /// The first and the last number that was sent.
    numbers: Option<(Seq, Seq)>,
    /// Events that the system or the server's rules refuse.
    refused: u64,
    /// The first of them, and why.
    refused_first: Option<(Seq, Refusal)>,
    /// Events of the recording server's own, which are not sent.
    own: u64,
    damaged: u64,
    losses: u64,
    /// Segments that their server removed before we came to them.
    removed: u64,
}

/// Why it did not go on to the end.
#[derive(Debug)]
enum Ended {
    Asked(Option<Seq>),
    NotTaken(Seq, Refusal),
    Unreadable(PathBuf, io::Error),
}

/// The command.
pub fn run(replay: &Replay) -> ExitStatus {
    // What a running server adds from now on is not replayed: it may be what we send.
    let segments = match list(&replay.journal) {
        Ok(segments) if segments.is_empty() => {
            return fail(&replay.journal, "there is no journal: no file events-....jsonl");
        }
        Ok(segments) => segments,
        Err(error) => return fail(&replay.journal, &error.to_string()),
    };
    let begun = Instant::now();
    let mut player = Player {
        replay,
        signals: end_signals(),
        sender: EventSender::new(&replay.path),
        due: begun,
        last_time: None,
        tally: Tally::default(),
    };
    let played = player.play(&segments);
    player.tally.report(replay, begun.elapsed());
    match played {
        Ok(()) | Err(Ended::Asked(None)) => {}
        Err(Ended::Asked(Some(seq))) => complain(&format!("threadcast: ended before event {seq}\n")),
        Err(Ended::NotTaken(seq, why)) => {
            complain(&format!(
                "threadcast: event {seq} was not taken at {}: {why}\nhint: --from {seq} goes on there\n",
                shown(&replay.path)
            ));
            return ExitStatus::Failed;
        }
        Err(Ended::Unreadable(path, error)) => return fail(&path, &error.to_string()),
    }
    match player.tally.refused {
        0 => ExitStatus::Fine,
        _ => ExitStatus::Failed,
    }
}

fn fail(path: &Path, why: &str) -> ExitStatus {
    complain(&format!("threadcast: cannot replay {}: {why}\n", shown(path)));
    ExitStatus::Failed
}

fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

struct Player<'a> {
    replay: &'a Replay,
    signals: Option<Arc<EndSignals>>,
    sender: EventSender,
    /// When the event before was due.
    due: Instant,
    /// When that event was recorded, seconds since the epoch.
    last_time: Option<f64>,
    tally: Tally,
}

impl Player<'_> {
    fn play(&mut self, segments: &[Segment]) -> Result<(), Ended> {
        for (index, segment) in segments.iter().enumerate() {
            let following = segments.get(index + 1).map(|next| next.first);
            if let (Some(Point::Seq(from)), Some(following)) = (self.replay.from, following)
                && following <= from
            {
                continue;
            }
            if matches!(self.replay.to, Some(Point::Seq(to)) if segment.first > to) {
                break;
            }
            self.play_segment(segment)?;
        }
        Ok(())
    }

    fn play_segment(&mut self, segment: &Segment) -> Result<(), Ended> {
        let unreadable = |error| Ended::Unreadable(segment.path.clone(), error);
        let mut reader = match LineReader::open(&segment.path, segment.bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.tally.removed += 1;
                return Ok(());
            }
            opened => opened.map_err(unreadable)?,
        };
        while let Some(line) = reader.next_line().map_err(unreadable)? {
            match line::parse(line.bytes) {
                Some(Line::Event {
                    seq,
                    time,
                    payload,
                    event,
                    ..
                }) => {
                    if !self.is_wanted(seq, time) {
                        continue;
                    }
                    // No server takes these from a sender; it tells what it finds itself.
                    if is_own(event.kind.as_deref(), payload) {
                        self.tally.own += 1;
                    } else {
                        self.wait_until_due(seq, time)?;
                        self.send(seq, payload)?;
                    }
                }
                Some(Line::Loss { loss, time }) if self.is_part_wanted(loss.from..=loss.to, time) => {
                    self.tally.losses += 1
                }
                Some(_) => {}
                None => self.tally.damaged += 1,
            }
        }
        Ok(())
    }

    fn is_wanted(&self, seq: Seq, time: f64) -> bool {
        self.is_part_wanted(seq..=seq, time)
    }

    /// Returns whether some of `seqs`, which one line of that time has, are wanted.
    fn is_part_wanted(&self, seqs: RangeInclusive<Seq>, time: f64) -> bool {
        let after = match self.replay.from {
            Some(Point::Seq(from)) => *seqs.end() >= from,
            Some(Point::Time(from)) => time >= from,
            None => true,
        };
        let before = match self.replay.to {
            Some(Point::Seq(to)) => *seqs.start() <= to,
            Some(Point::Time(to)) => time <= to,
            None => true,
        };
        after && before
    }

    fn asked(&self, seq: Seq) -> Result<(), Ended> {
        if self.signals.as_ref().is_some_and(|signals| signals.requested()) {
            Err(Ended::Asked(Some(seq)))
        } else {
            Ok(())
        }
    }

    /// Blocks until as much time has passed since the event before as had when they were recorded. Where the recording
    /// server's clock was set back, none.
    fn wait_until_due(&mut self, seq: Seq, time: f64) -> Result<(), Ended> {
        let before = self.last_time.replace(time).unwrap_or(time);
        if let Some(speed) = self.replay.speed {
            // A distance that no Duration holds is as good as the longest that one can wait for.
            let distance = Duration::try_from_secs_f64((time - before).max(0.0) / speed).unwrap_or(DISTANCE_MAX);
            self.due += distance.min(DISTANCE_MAX);
        }
        loop {
            self.asked(seq)?;
            let left = self.due.saturating_duration_since(Instant::now()).min(LOOK);
            if left.is_zero() {
                return Ok(());
            }
            self.pause(left);
        }
    }

    fn pause(&self, bound: Duration) {
        match &self.signals {
            Some(signals) => drop(signals.is_requested_within(bound)),
            None => pause(bound),
        }
    }

    /// Sends one event, for at most the timeout; a server that is away may come back in that time.
    fn send(&mut self, seq: Seq, payload: &[u8]) -> Result<(), Ended> {
        let deadline = Instant::now() + self.replay.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.sender.send(payload, left.min(LOOK)) {
                Ok(()) => {
                    self.tally.sent += 1;
                    let first = self.tally.numbers.map_or(seq, |numbers| numbers.0);
                    self.tally.numbers = Some((first, seq));
                    return Ok(());
                }
                Err(why @ (Refusal::NoServer | Refusal::QueueFull)) => {
                    self.asked(seq)?;
                    // A path at which nobody ever was is more likely a mistake than a restart.
                    if left.is_zero() || why == Refusal::NoServer && self.tally.sent == 0 {
                        return Err(Ended::NotTaken(seq, why));
                    }
                    if why == Refusal::NoServer {
                        self.pause(LOOK);
                    }
                }
                Err(why @ Refusal::TooLarge { .. }) => {
                    self.tally.refused += 1;
                    self.tally.refused_first.get_or_insert((seq, why));
                    return Ok(());
                }
                Err(why) => return Err(Ended::NotTaken(seq, why)),
            }
        }
    }
}

/// Longest distance between two events.
const DISTANCE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl Tally {
    fn report(&self, replay: &Replay, took: Duration) {
        let numbers = self
            .numbers
            .map_or(String::new(), |(first, last)| format!(" (numbers {first} to {last})"));
        let mut text = format!(
            "threadcast: {} of {} sent to {}{numbers} in {:.1} s\n",
            count(self.sent, "event"),
            shown(&replay.journal),
            shown(&replay.path),
            took.as_secs_f64()
        );
        for (number, one, more) in [
            (
                self.own,
                "event of the recording server's own was left out",
                "events of the recording server's own were left out",
            ),
            (
                self.damaged,
                "line cannot be read and was left out",
                "lines cannot be read and were left out",
            ),
            (
                self.losses,
                "loss is recorded: events that were missing already",
                "losses are recorded: events that were missing already",
            ),
            (
                self.removed,
                "segment was removed by its server meanwhile",
                "segments were removed by their server meanwhile",
            ),
        ] {
            if number > 0 {
                text.push_str(&format!("  {number} {}\n", pick(number, one, more)));
            }
        }
        if let Some((seq, why)) = self.refused_first {
            text.push_str(&format!("  {} refused: {why} (first: number {seq})\n", self.refused));
        }
        complain(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_time_cannot_be_mixed_up() {
        for (text, point) in [
            ("17", Point::Seq(17)),
            ("1795393480", Point::Seq(1_795_393_480)),
            ("@1795393480", Point::Time(1_795_393_480.0)),
            ("@1795393480.25", Point::Time(1_795_393_480.25)),
            ("1795393480.25", Point::Time(1_795_393_480.25)),
            ("2026-11-23T00:24:40Z", Point::Time(1_795_393_480.0)),
            ("2026-11-23T00:24:40.585Z", Point::Time(1_795_393_480.585)),
        ] {
            assert_eq!(text.parse(), Ok(point), "{text}");
        }
        for text in [
            "",
            "@",
            ".",
            "-1",
            "+1",
            "1e9",
            "inf",
            "nan",
            "1.2.3",
            "today",
            "2026-11-23",
            "2026-11-23T00:24:40",
            "2026-13-23T00:24:40Z",
            "2026-11-23T00:24:40+01:00",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }
}
