//! What `tail` says on standard error about the stream: losses and new beginnings to everybody, how it goes to people.

use crate::commands::complain;
use crate::commands::tail::lines::Format;
use crate::commands::tail::place::{Heard, Missing};
use crate::journal::line::{DAMAGED, FAILED, QUEUE_FULL, REMOVED, RESTART};
use crate::process::visible::visible;
use crate::process::words::{count, pick};
use crate::stream::position::Position;
use crate::stream::protocol::v1::CAUSE_HISTORY;
use std::time::{Duration, Instant};

/// `tail` says a loss at once, then at most once in this time what was lost since.
const LOSSES_EVERY: Duration = Duration::from_secs(1);
/// `tail` says that it is behind, or how far, at most once in this time.
const LAG_EVERY: Duration = Duration::from_secs(10);

/// Says notices on standard error.
#[derive(Debug)]
pub struct Teller {
    /// The zone of the times on standard output, until the first notice has named it.
    zone: Option<String>,
}

impl Teller {
    /// Its first notice names `zone`, if there is one to name.
    pub fn new(zone: Option<String>) -> Teller {
        Teller { zone }
    }

    /// Says one notice.
    pub fn say(&mut self, text: &str) {
        let zone = self.zone.take().map(|zone| format!(" (times are {zone})"));
        complain(&format!("threadcast: {text}{}\n", zone.unwrap_or_default()));
    }
}

/// Makes the notices, and keeps what is to be said later.
#[derive(Debug)]
pub struct Notices {
    /// How it goes is said too.
    for_people: bool,
    /// Losses may be of events that were not wanted.
    filtered: bool,
    /// Not said yet; of each cause and numbering together.
    losses: Vec<Missing>,
    next_losses: Option<Instant>,
    next_lag: Option<Instant>,
    /// That we were behind has been said, so its end is worth a word.
    behind_said: bool,
}

impl Notices {
    /// For lines of that form, of some of the events or of all.
    pub fn new(format: Format, filtered: bool) -> Notices {
        Notices {
            for_people: format == Format::Human,
            filtered,
            losses: Vec::new(),
            next_losses: None,
            next_lag: None,
            behind_said: false,
        }
    }

    /// What to say now of something that was heard at `now`; losses come from [`Notices::due`].
    pub fn of(&mut self, heard: Heard<'_>, now: Instant) -> Option<String> {
        match heard {
            Heard::Missing(missing) => {
                self.add(missing);
                None
            }
            Heard::Anew { was } => Some(format!(
                "the server's numbering is a new one (it has no journal, or could not go on with it), so what came after \
                 event {} is not known; it begins with the state now",
                was.seq
            )),
            Heard::Unknown { was } => Some(format!(
                "the server has not come to event {} yet, or knows of it no more; it begins with the state now",
                was.seq
            )),
            Heard::Resumed { after, events } => Some(format!(
                "resumed after event {after}, {} replayed",
                count(events, "event")
            )),
            heard if self.for_people => self.of_the_way(heard, now),
            _ => None,
        }
    }

    /// How it goes.
    fn of_the_way(&mut self, heard: Heard<'_>, now: Instant) -> Option<String> {
        match heard {
            Heard::Behind { after } if self.claim_lag(now) => {
                self.behind_said = true;
                Some(format!(
                    "too slow to keep up: what follows event {after} comes from the server's history"
                ))
            }
            Heard::CaughtUp { events, .. } if std::mem::take(&mut self.behind_said) => Some(format!(
                "keeps up again, after {} from the history",
                count(events, "event")
            )),
            Heard::Lag { millis, events } if self.claim_lag(now) => Some(format!(
                "{:.1} s behind: {} newer than what comes now",
                millis as f64 / 1000.0,
                is_or_are(events)
            )),
            Heard::Stall {
                component,
                operation,
                seconds,
            } => Some(format!(
                "the server stands still: {} makes no progress for {seconds:.1} s, {}",
                visible(&component),
                visible(&operation)
            )),
            Heard::Recovered { component, seconds } => Some(format!(
                "the server goes on: {} has stood still for {seconds:.1} s",
                visible(&component)
            )),
            _ => None,
        }
    }

    /// Returns whether to tell of lag now; if so, the time until the next one runs from now.
    fn claim_lag(&mut self, now: Instant) -> bool {
        let is_due = self.next_lag.is_none_or(|next| now >= next);
        if is_due {
            self.next_lag = Some(now + LAG_EVERY);
        }
        is_due
    }

    fn add(&mut self, missing: Missing) {
        let last = self.losses.iter_mut().rev().find(|loss| loss.cause == missing.cause);
        // One that does not follow is of another numbering, and numbers of two make no range.
        match last.filter(|loss| loss.to < missing.from) {
            Some(loss) => {
                loss.to = missing.to;
                let counts = loss.count.zip(missing.count);
                loss.count = counts.map(|(before, more)| before.saturating_add(more));
            }
            None => self.losses.push(missing),
        }
    }

    /// The losses that are to be said at `now`; `all` of them, if it is the last time.
    pub fn due(&mut self, now: Instant, all: bool) -> Vec<String> {
        if self.losses.is_empty() || !all && self.next_losses.is_some_and(|next| now < next) {
            return Vec::new();
        }
        self.next_losses = Some(now + LOSSES_EVERY);
        let losses = std::mem::take(&mut self.losses);
        losses.iter().map(|loss| self.words(loss)).collect()
    }

    fn words(&self, loss: &Missing) -> String {
        let Missing { from, to, count, cause } = loss;
        // Nobody knows how many of the numbers were used: perhaps none.
        let what = count.map_or("events may be".to_owned(), is_or_are);
        let wanted = if self.filtered { ", wanted or not" } else { "" };
        let numbers = match count {
            Some(1) if from == to => format!("number {from}"),
            // A server that counts downwards is no reason to fail.
            Some(count) if to.checked_sub(*from) == count.checked_sub(1) => format!("numbers {from} to {to}"),
            _ => format!("among the numbers {from} to {to}"),
        };
        format!("{what} missing{wanted} ({numbers}): {}", words_of(cause))
    }
}

/// What to say at the end: how to go on from there.
pub fn to_go_on(position: Position) -> String {
    format!("to go on from here: threadcast tail --since {position}")
}

/// What to say when a server that numbers its events has become one that does not.
pub fn without_numbers(was: Position) -> String {
    format!(
        "this server does not number its events, so what came after event {} is not known; it begins with the state now",
        was.seq
    )
}

/// The cause of a loss, for people.
fn words_of(cause: &str) -> String {
    match cause {
        "too_large" => "too large (the server's --max-event-bytes)".to_owned(),
        "not_utf8" => "not UTF-8".to_owned(),
        "not_json" => "not JSON".to_owned(),
        "not_an_object" => "JSON, but not an object".to_owned(),
        "reserved_type" => "of a type that only the server may send".to_owned(),
        "not_unicode" => "with half a character in a name".to_owned(),
        "queue_full" => "the server was overloaded".to_owned(),
        CAUSE_HISTORY => "no longer in the server's history (--history-bytes)".to_owned(),
        RESTART => "the server ended before all was in its journal".to_owned(),
        QUEUE_FULL => "sent before the server's restart, but its journal was too slow to keep it".to_owned(),
        FAILED => "sent before the server's restart, but its journal could not be written".to_owned(),
        REMOVED => "sent before the server's restart, but its journal was removed while it was written".to_owned(),
        DAMAGED => "sent before the server's restart, but its journal is damaged there".to_owned(),
        "unknown" => "for a cause that only a later version of the server knows".to_owned(),
        other => visible(other),
    }
}

fn is_or_are(events: u64) -> String {
    format!("{} {}", count(events, "event"), pick(events, "is", "are"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::event::DropCause;

    fn missing(from: u64, to: u64, count: Option<u64>, cause: &str) -> Heard<'static> {
        let cause = cause.to_owned();
        Heard::Missing(Missing { from, to, count, cause })
    }

    #[test]
    fn a_flood_of_losses_is_said_together_and_none_is_forgotten() {
        let mut notices = Notices::new(Format::Json, false);
        let now = Instant::now();
        let mut lose = |heard| assert_eq!(notices.of(heard, now), None);
        lose(missing(5, 35, Some(31), "too_large"));
        let said = notices.due(now, false);
        assert_eq!(
            said,
            ["31 events are missing (numbers 5 to 35): too large (the server's --max-event-bytes)"]
        );
        let mut lose = |heard| assert_eq!(notices.of(heard, now), None);
        lose(missing(40, 40, Some(1), "not_json"));
        lose(missing(44, 44, Some(1), "not_json"));
        lose(missing(50, 90, None, "restart"));
        assert!(notices.due(now, false).is_empty(), "not yet");
        let said = notices.due(now + LOSSES_EVERY, false);
        assert_eq!(
            said,
            [
                "2 events are missing (among the numbers 40 to 44): not JSON",
                "events may be missing (among the numbers 50 to 90): the server ended before all was in its journal"
            ]
        );
        notices.of(missing(91, 91, Some(1), "a\u{7}"), now);
        assert_eq!(notices.due(now, true), ["1 event is missing (number 91): a\\u{7}"]);
        assert!(notices.due(now, true).is_empty());
    }

    #[test]
    fn losses_of_two_numberings_are_said_apart() {
        let mut notices = Notices::new(Format::Json, false);
        let now = Instant::now();
        for heard in [
            missing(502, 502, Some(1), "too_large"),
            missing(1, 1, Some(1), "too_large"),
            missing(2, 3, Some(u64::MAX), "too_large"),
            missing(600, 600, Some(1), "too_large"),
            missing(9, 5, Some(1), "not_json"),
        ] {
            assert_eq!(notices.of(heard, now), None);
        }
        let said = notices.due(now, true);
        let too_large = "too large (the server's --max-event-bytes)";
        assert_eq!(said[0], format!("1 event is missing (number 502): {too_large}"));
        assert!(
            said[1].ends_with(&format!("missing (among the numbers 1 to 600): {too_large}")),
            "{said:?}"
        );
        assert_eq!(said[2], "1 event is missing (among the numbers 9 to 5): not JSON");
    }

    #[test]
    fn every_cause_has_words() {
        for (cause, name, _) in DropCause::TABLE {
            let said = words_of(name);
            assert!(cause == DropCause::Empty || !said.contains('_'), "{name}: {said}");
        }
        for cause in [QUEUE_FULL, FAILED, REMOVED, DAMAGED, RESTART, "unknown"] {
            assert_ne!(words_of(cause), cause);
        }
    }

    #[test]
    fn how_it_goes_is_for_people_and_not_said_all_the_time() {
        let now = Instant::now();
        let later = now + LAG_EVERY;
        let lag = |events| Heard::Lag { millis: 3210, events };
        assert_eq!(Notices::new(Format::Json, false).of(lag(7), now), None);
        let mut notices = Notices::new(Format::Human, false);
        let said = notices.of(lag(7), now).unwrap();
        assert_eq!(said, "3.2 s behind: 7 events are newer than what comes now");
        assert_eq!(notices.of(lag(8), now), None);
        assert_eq!(notices.of(Heard::Behind { after: 3 }, now), None);
        let caught_up = || Heard::CaughtUp { seq: 9, events: 1 };
        assert_eq!(notices.of(caught_up(), now), None, "its beginning was not said");
        assert!(notices.of(Heard::Behind { after: 3 }, later).is_some());
        let said = notices.of(caught_up(), later).unwrap();
        assert_eq!(said, "keeps up again, after 1 event from the history");
    }

    #[test]
    fn stalls_say_who_and_drive_no_terminal() {
        let mut notices = Notices::new(Format::Human, true);
        let stall = Heard::Stall {
            component: "fan\u{1b}out".to_owned(),
            operation: "broadcasting".to_owned(),
            seconds: 16.2,
        };
        assert_eq!(
            notices.of(stall, Instant::now()).unwrap(),
            "the server stands still: fan\\u{1b}out makes no progress for 16.2 s, broadcasting"
        );
        notices.of(missing(1, 2, Some(2), "history"), Instant::now());
        let said = notices.due(Instant::now(), false);
        assert!(
            said[0].starts_with("2 events are missing, wanted or not (numbers 1 to 2): no longer in"),
            "{said:?}"
        );
    }
}
