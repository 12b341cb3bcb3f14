//! What the messages of `threadcast.v1` mean to `tail`, and up to which number it has everything.

use crate::stream::event::Seq;
use crate::stream::position::{Epoch, Position};
use crate::stream::protocol::v1::CAUSE_EPOCH;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where `tail` is in the server's numbering.
#[derive(Debug)]
pub struct Place {
    /// Everything up to here was shown, is not wanted, or is known to be gone.
    position: Option<Position>,
    /// The numbering of the connection that there is now.
    epoch: Option<Epoch>,
    /// What we came back for is still on its way: the number after which it begins.
    back_after: Option<Seq>,
    /// The server's history did not reach back to there.
    jumped: bool,
    /// How often the server says that it pings; zero where it does not say so.
    ping_interval: Duration,
}

/// Longest ping interval that is believed; the server's own setting ends here, too.
const PING_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Which part of an `initial` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub is_first: bool,
    pub is_last: bool,
}

impl Part {
    /// All of it.
    pub const WHOLE: Part = Part {
        is_first: true,
        is_last: true,
    };
}

/// What a message means.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard<'a> {
    /// An event, byte for byte. Once it is dealt with, [`Place::seen`] is to be told its number.
    Event { seq: Seq, text: &'a str },
    /// `hello`: what comes begins after this number, or with the state as of now.
    Begins { after: Option<Seq> },
    /// An `initial`, or a part of one.
    State { part: Part },
    /// Events that no client will get any more.
    Missing(Missing),
    /// The numbering that our number is of is over.
    Anew { was: Position },
    /// The server's numbering is the one that we know, but it never gave our number, or has forgotten that it did.
    Unknown { was: Position },
    /// All that we missed while we were away is here.
    Resumed { after: Seq, events: u64 },
    /// The server has begun to send from its history, because we do not keep up.
    Behind { after: Seq },
    /// We keep up again.
    CaughtUp { seq: Seq, events: u64 },
    /// So many events are left out, as was asked for.
    Conflated { count: u64 },
    /// What comes is so old.
    Lag { millis: u64, events: u64 },
    /// A component of the server stands still.
    Stall {
        component: String,
        operation: String,
        seconds: f64,
    },
    /// It goes on.
    Recovered { component: String, seconds: f64 },
    /// Nothing that `tail` has to do with.
    Nothing,
}

/// Events that are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first of their numbers.
    pub from: Seq,
    /// The last of their numbers.
    pub to: Seq,
    /// `None` when nobody knows.
    pub count: Option<u64>,
    pub cause: String,
}

/// The fields of a message, not read yet.
type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

impl Place {
    /// Everything up to `since` is known already; `None` begins with the state as of now.
    pub fn new(since: Option<Position>) -> Place {
        Place {
            position: since,
            epoch: None,
            back_after: None,
            jumped: false,
            ping_interval: Duration::ZERO,
        }
    }

    /// How often the server says that it pings; zero where it does not say so.
    pub fn ping_interval(&self) -> Duration {
        self.ping_interval
    }

    /// Everything up to here was dealt with; `None` without a server that numbers.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// There is a new connection, to a server that numbers its events.
    pub fn begin(&mut self) {
        (self.epoch, self.back_after, self.jumped) = (None, None, false);
        self.ping_interval = Duration::ZERO;
    }

    /// There is a new connection, to a server that does not number its events. Returns where we were: what came since
    /// then stays unknown.
    pub fn begin_without_numbers(&mut self) -> Option<Position> {
        self.begin();
        self.position.take()
    }

    /// Event `seq`, and with it everything before, is dealt with.
    pub fn seen(&mut self, seq: Seq) {
        if let Some(epoch) = self.epoch {
            let seq = seq.max(self.last());
            self.position = Some(Position { epoch, seq });
        }
    }

    /// The last number of this connection's epoch that is dealt with.
    fn last(&self) -> Seq {
        let ours = self.position.filter(|position| Some(position.epoch) == self.epoch);
        ours.map_or(0, |position| position.seq)
    }

    /// What `text` means. What cannot be read or is not known means nothing: newer servers may say more.
    pub fn hear<'a>(&mut self, text: &'a str) -> Heard<'a> {
        let Ok(fields) = serde_json::from_str::<Fields<'a>>(text) else {
            return Heard::Nothing;
        };
        if let Some(event) = fields.get("event") {
            return self.event(text, event, number(&fields, "seq"));
        }
        self.message(&fields).unwrap_or(Heard::Nothing)
    }

    fn event<'a>(&self, text: &'a str, event: &'a RawValue, seq: Option<Seq>) -> Heard<'a> {
        match seq {
            Some(seq) if seq > self.last() => Heard::Event {
                seq,
                text: original(text, event),
            },
            // We have it.
            _ => Heard::Nothing,
        }
    }

    /// `None` for a message that is not known, or not as it should be.
    fn message(&mut self, fields: &Fields<'_>) -> Option<Heard<'static>> {
        let number = |key| number(fields, key);
        Some(match string(fields, "type")?.as_str() {
            "hello" => {
                self.epoch = string(fields, "epoch")?.parse().ok();
                self.back_after = number("after");
                self.ping_interval = ping_interval(fields).unwrap_or_default();
                Heard::Begins { after: self.back_after }
            }
            "initial" => {
                // A server that knows no parts sends one message.
                let (number_of_it, parts) = (number("part").unwrap_or(1), number("parts").unwrap_or(1));
                let part = Part {
                    is_first: number_of_it == 1,
                    is_last: number_of_it == parts,
                };
                if part.is_last {
                    self.seen(number("seq")?);
                }
                Heard::State { part }
            }
            "gap" => self.gap(fields)?,
            "behind" => match self.back_after {
                Some(_) => Heard::Nothing,
                None => Heard::Behind { after: number("seq")? },
            },
            "live" => self.live(number("seq")?, number("replayed").unwrap_or_default()),
            "ping" => {
                self.seen(number("seq")?);
                Heard::Nothing
            }
            "conflated" => Heard::Conflated {
                count: number("count")?,
            },
            "lag" => Heard::Lag {
                millis: number("ms")?,
                events: number("events")?,
            },
            "stall" => Heard::Stall {
                component: string(fields, "component")?,
                operation: string(fields, "operation").unwrap_or_default(),
                seconds: seconds(fields)?,
            },
            "recovered" => Heard::Recovered {
                component: string(fields, "component")?,
                seconds: seconds(fields)?,
            },
            _ => return None,
        })
    }

    fn gap(&mut self, fields: &Fields<'_>) -> Option<Heard<'static>> {
        let cause = string(fields, "cause")?;
        let (Some(from), Some(to)) = (number(fields, "from"), number(fields, "to")) else {
            let was = self.position.filter(|_| cause == CAUSE_EPOCH)?;
            return Some(if self.epoch == Some(was.epoch) {
                // What the server gives from now on may have smaller numbers.
                self.position = None;
                Heard::Unknown { was }
            } else {
                Heard::Anew { was }
            });
        };
        let known = self.last();
        if to <= known {
            return Some(Heard::Nothing);
        }
        // A gap may begin before our number, because earlier versions did not clip it; what we have is not missing.
        let count = number(fields, "count").map(|count| count.min(to - known));
        self.jumped |= self.back_after.is_some();
        self.seen(to);
        Some(Heard::Missing(Missing {
            from: from.max(known + 1),
            to,
            count,
            cause,
        }))
    }

    fn live(&mut self, seq: Seq, events: u64) -> Heard<'static> {
        self.seen(seq);
        match self.back_after.take() {
            // There was nothing to replay, and what is missing has been said.
            Some(_) if self.jumped && events == 0 => Heard::Nothing,
            Some(after) => Heard::Resumed { after, events },
            None => Heard::CaughtUp { seq, events },
        }
    }
}

/// The event as the server got it: white space around it, which is no part of the value, belongs to it.
fn original<'a>(text: &'a str, event: &'a RawValue) -> &'a str {
    // The value is a part of the text, and the last one.
    let start = event.get().as_ptr() as usize - text.as_ptr() as usize;
    let before = text[..start].trim_end().len();
    text[before..].trim_end().strip_suffix('}').unwrap_or(event.get())
}

fn number(fields: &Fields<'_>, key: &str) -> Option<u64> {
    fields.get(key)?.get().parse().ok()
}

fn seconds(fields: &Fields<'_>) -> Option<f64> {
    fields.get("seconds")?.get().parse().ok()
}

fn ping_interval(fields: &Fields<'_>) -> Option<Duration> {
    let limits: Fields<'_> = serde_json::from_str(fields.get("limits")?.get()).ok()?;
    let seconds: f64 = limits.get("ping_interval_s")?.get().parse().ok()?;
    let interval = Duration::try_from_secs_f64(seconds).ok()?;
    Some(interval.min(PING_INTERVAL_MAX))
}

fn string(fields: &Fields<'_>, key: &str) -> Option<String> {
    serde_json::from_str(fields.get(key)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "00000000000000aa";
    const OTHER: &str = "00000000000000bb";

    fn position(epoch: &str, seq: Seq) -> Position {
        format!("{epoch}:{seq}").parse().unwrap()
    }

    fn hello(epoch: &str, after: Option<Seq>) -> String {
        let after = after.map_or("null".to_owned(), |after| after.to_string());
        format!(r#"{{"type":"hello","protocol":"threadcast.v1","epoch":"{epoch}","seq":99,"after":{after},"new":[1]}}"#)
    }

    fn event(seq: Seq) -> String {
        format!(r#"{{"seq":{seq},"machine":"m","type":null,"event":{{"n":{seq}}}}}"#)
    }

    /// Hears `text` and deals with it.
    fn take(place: &mut Place, text: &str) -> String {
        let heard = place.hear(text);
        let said = format!("{heard:?}");
        if let Heard::Event { seq, .. } = heard {
            place.seen(seq);
        }
        said
    }

    fn live(seq: Seq, events: u64) -> String {
        format!(r#"{{"type":"live","seq":{seq},"replayed":{events}}}"#)
    }

    #[test]
    fn it_goes_on_after_the_last_event_and_takes_none_twice() {
        let mut place = Place::new(None);
        place.begin();
        assert_eq!(place.hear(&hello(EPOCH, None)), Heard::Begins { after: None });
        assert_eq!(place.position(), None, "nothing is known before the state is here");
        let initial = r#"{"type":"initial","seq":7,"machines":[],"timestamp":1.5}"#;
        assert_eq!(place.hear(initial), Heard::State { part: Part::WHOLE });
        assert!(take(&mut place, &event(8)).starts_with("Event"));
        assert_eq!(place.position(), Some(position(EPOCH, 8)));
        place.begin();
        place.hear(&hello(EPOCH, Some(8)));
        assert_eq!(place.hear(r#"{"type":"behind","seq":8}"#), Heard::Nothing);
        assert_eq!(take(&mut place, &event(8)), "Nothing");
        assert!(take(&mut place, &event(9)).starts_with("Event"));
        assert_eq!(place.hear(&live(11, 1)), Heard::Resumed { after: 8, events: 1 });
        assert_eq!(place.position(), Some(position(EPOCH, 11)));
        assert_eq!(place.hear(r#"{"type":"behind","seq":11}"#), Heard::Behind { after: 11 });
        assert_eq!(place.hear(&live(12, 1)), Heard::CaughtUp { seq: 12, events: 1 });
    }

    #[test]
    fn an_event_that_was_not_dealt_with_is_still_to_come() {
        let mut place = Place::new(Some(position(EPOCH, 1)));
        place.begin();
        place.hear(&hello(EPOCH, Some(1)));
        assert!(matches!(place.hear(&event(2)), Heard::Event { seq: 2, .. }));
        assert_eq!(place.position(), Some(position(EPOCH, 1)));
    }

    #[test]
    fn another_epoch_begins_with_the_state() {
        let gap = r#"{"type":"gap","from":null,"to":null,"count":null,"cause":"epoch"}"#;
        let was = position(EPOCH, 50);
        let mut place = Place::new(Some(was));
        place.begin();
        place.hear(&hello(OTHER, None));
        assert_eq!(place.hear(gap), Heard::Anew { was });
        assert_eq!(place.position(), Some(was), "until it has the state");
        place.hear(r#"{"type":"initial","seq":3,"machines":[]}"#);
        assert!(take(&mut place, &event(4)).starts_with("Event"), "numbers begin anew");
        assert_eq!(place.position(), Some(position(OTHER, 4)));
        let was = position(EPOCH, 500);
        let mut ahead = Place::new(Some(was));
        ahead.begin();
        ahead.hear(&hello(EPOCH, None));
        assert_eq!(ahead.hear(gap), Heard::Unknown { was });
        ahead.hear(r#"{"type":"initial","seq":99,"machines":[]}"#);
        assert!(take(&mut ahead, &event(100)).starts_with("Event"));
    }

    #[test]
    fn the_state_is_here_with_its_last_part() {
        let mut place = Place::new(Some(position(EPOCH, 4)));
        place.begin();
        place.hear(&hello(EPOCH, None));
        let part = |part, parts| format!(r#"{{"type":"initial","seq":9,"part":{part},"parts":{parts},"machines":[]}}"#);
        for (number, is_first, position_then) in [(1, true, 4), (2, false, 4), (3, false, 9)] {
            let is_last = number == 3;
            let part_heard = Part { is_first, is_last };
            assert_eq!(place.hear(&part(number, 3)), Heard::State { part: part_heard });
            assert_eq!(place.position(), Some(position(EPOCH, position_then)));
        }
    }

    #[test]
    fn what_is_missing_is_passed() {
        let mut place = Place::new(Some(position(EPOCH, 4)));
        place.begin();
        place.hear(&hello(EPOCH, Some(4)));
        let missing = |from, to, count, cause: &str| {
            let cause = cause.to_owned();
            Heard::Missing(Missing { from, to, count, cause })
        };
        let whole = r#"{"type":"gap","from":3,"to":6,"count":4,"cause":"too_large"}"#;
        assert_eq!(place.hear(whole), missing(5, 6, Some(2), "too_large"));
        assert_eq!(place.hear(whole), Heard::Nothing, "it is known");
        let gone = r#"{"type":"gap","from":7,"to":40,"count":null,"cause":"history"}"#;
        assert_eq!(place.hear(gone), missing(7, 40, None, "history"));
        assert_eq!(
            place.hear(r#"{"type":"initial","seq":40,"machines":[]}"#),
            Heard::State { part: Part::WHOLE }
        );
        assert_eq!(place.hear(&live(40, 0)), Heard::Nothing, "nothing was replayed");
        assert_eq!(place.position(), Some(position(EPOCH, 40)));
    }

    #[test]
    fn how_often_the_server_pings_is_known_for_the_connection() {
        let mut place = Place::new(None);
        let hello = |limits: &str| format!(r#"{{"type":"hello","epoch":"{EPOCH}","seq":4,"after":null{limits}}}"#);
        for (limits, seconds) in [
            (r#","limits":{"max_behind_s":30.0,"ping_interval_s":60.0}"#, 60),
            (r#","limits":{"ping_interval_s":1e9}"#, 3600),
            (r#","limits":{"ping_interval_s":-1.0}"#, 0),
            ("", 0),
        ] {
            place.begin();
            place.hear(&hello(limits));
            assert_eq!(place.ping_interval(), Duration::from_secs(seconds), "{limits}");
        }
    }

    #[test]
    fn a_ping_passes_what_is_not_wanted() {
        let mut place = Place::new(Some(position(EPOCH, 4)));
        place.begin();
        place.hear(&hello(EPOCH, Some(4)));
        let ping = |seq: &str| format!(r#"{{"type":"ping","timestamp":1.5,"seq":{seq}}}"#);
        for (seq, expected) in [("null", 4), ("3000", 3000), ("null", 3000), ("2999", 3000)] {
            assert_eq!(place.hear(&ping(seq)), Heard::Nothing);
            assert_eq!(place.position(), Some(position(EPOCH, expected)), "{seq}");
        }
        assert_eq!(take(&mut place, &event(3000)), "Nothing");
        assert!(take(&mut place, &event(3001)).starts_with("Event"));
    }

    #[test]
    fn events_keep_their_bytes() {
        for original in ["{\"n\":8}\n", " {\"a\": \"}\\ud83d\"}", "{}", "\r\n\t{\"event\": {} } "] {
            let text = format!(r#"{{"seq":1,"machine":null,"type":null,"event":{original}}}"#);
            let heard = Place::new(None).hear(&text).clone();
            assert_eq!(heard, Heard::Event { seq: 1, text: original });
        }
    }

    #[test]
    fn stalls_are_understood_and_what_is_not_known_is_nothing() {
        let mut place = Place::new(None);
        let stall =
            r#"{"type":"stall","component":"fanout","verdict":"hung","operation":"broadcasting","seconds":16.2}"#;
        let (component, operation) = ("fanout".to_owned(), "broadcasting".to_owned());
        let seconds = 16.2;
        assert_eq!(
            place.hear(stall),
            Heard::Stall {
                component,
                operation,
                seconds
            }
        );
        for text in [
            r#"{"type":"ping","timestamp":1.5}"#,
            r#"{"type":"of_next_year","seq":5}"#,
            r#"{"type":"gap","from":1}"#,
            r#"{"type":"lag"}"#,
            r#"{"machine":"m","event":{}}"#,
            r#"{"type":7}"#,
            "[1]",
            "pong",
            "",
        ] {
            assert_eq!(place.hear(text), Heard::Nothing, "{text}");
        }
        assert_eq!(place.position(), None);
    }
}
