//! `threadcast tail`: shows events as they come, stays with the server through its restarts, and goes on after the last
//! event that it has.

pub mod connect;
pub mod end;
pub mod lines;
mod lookup;
pub mod notices;
pub mod place;
mod states;
mod told;

use crate::commands::complain;
use crate::commands::end_signals::{end_after_grace, end_signals};
use crate::commands::tail::connect::{Connected, Dialer, StreamUrl, filter_pairs};
use crate::commands::tail::end::{End, Halt, reader_is_gone};
use crate::commands::tail::lines::{Format, Lines};
use crate::commands::tail::notices::{Notices, Teller, to_go_on, without_numbers};
use crate::commands::tail::place::{Heard, Part, Place};
use crate::commands::tail::states::States;
use crate::process::exit::ExitStatus;
use crate::process::values::show_duration;
use crate::process::visible::visible;
use crate::process::words::count;
use crate::stream::event::{self, Seq};
use crate::stream::filter::Filter;
use crate::stream::position::Position;
use crate::stream::protocol::Protocol;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tungstenite::{Error, Message};

/// Longest silence on a connection; after it `tail` connects anew: two of the pings that come every 10 s by default are
/// missing.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// The same in intervals of its pings, of a server that says how often it pings and does so less often.
const SILENT_PINGS: f64 = 2.5;
/// The first delay before connecting again; it doubles with each attempt that fails.
const DELAY_FIRST: Duration = Duration::from_millis(500);
/// The longest delay before connecting again. With the 5 s that an attempt takes, `tail` is connected again within 20 s
/// after a cut of any length.
const DELAY_MAX: Duration = Duration::from_secs(15);

/// Said of a server such as the original, which keeps no history.
const NO_HISTORY: &str =
    "this server keeps no history, so none of its last events can be shown; it begins with what comes";
/// Said of a server of before `?last=N`, which begins with the state.
const NO_LAST: &str =
    "this server is of an earlier version, which cannot begin with the last events; it begins with what comes";

/// The command's arguments.
#[derive(Debug)]
pub struct Tail {
    pub url: StreamUrl,
    pub filter: Filter,
    /// What came up to here is known; `None` begins with what comes.
    pub since: Option<Position>,
    /// So many events of the server's history come first, at least 1; not together with `since`.
    pub last: Option<u64>,
    pub format: Format,
    /// At most one state per machine in this time.
    pub conflate: Option<Duration>,
    pub count: Option<u64>,
    pub duration: Option<Duration>,
    /// Times are UTC on a terminal too.
    pub utc: bool,
}

/// The command.
pub fn run(tail: &Tail) -> ExitStatus {
    // The offset of local time can only be asked for while there is one thread.
    let lines = Lines::new(tail.format, tail.utc);
    let teller = Teller::new(lines.zone());
    let signals = end_signals();
    // Not joined: it ends with the process.
    let _last_resort = signals.clone().map(end_after_grace);
    let mut session = Session {
        tail,
        lines,
        teller,
        notices: Notices::new(tail.format, !tail.filter.is_everything()),
        place: Place::new(tail.since),
        shown: 0,
        end: End {
            at: tail.duration.map(|duration| Instant::now() + duration),
            signals,
        },
        dialer: Dialer::new(tail.url.clone()),
        connected: false,
        never_connected: true,
        why_lost: None,
        waits_for_last: None,
        left_out: 0,
        states: States::default(),
        state_shown: false,
    };
    let halt = session.run();
    session.say_last();
    match halt {
        // Whatever has ended it, what was asked for did not happen; a reader that is gone does not ask any more.
        Halt::Done if session.never_connected && !reader_is_gone() => {
            complain(&session.why_never());
            ExitStatus::Failed
        }
        Halt::Done => ExitStatus::Fine,
        halt => {
            complain(&format!("threadcast: {halt}\n"));
            ExitStatus::Failed
        }
    }
}

struct Session<'a> {
    tail: &'a Tail,
    lines: Lines,
    teller: Teller,
    notices: Notices,
    place: Place,
    shown: u64,
    end: End,
    dialer: Dialer,
    /// True if there was a connection since the last delay.
    connected: bool,
    /// True if there was none at all.
    never_connected: bool,
    /// Why there is no connection.
    why_lost: Option<String>,
    /// This connection was asked to begin with so many events of the history, which are not all here yet.
    waits_for_last: Option<u64>,
    /// Events that the server has left out, as it was asked to.
    left_out: u64,
    /// The state that comes, part by part.
    states: States,
    /// True if this connection's first state was shown.
    state_shown: bool,
}

impl Session<'_> {
    fn run(&mut self) -> Halt {
        let mut delay = DELAY_FIRST;
        loop {
            let halt = match self.connect() {
                Ok(connection) => self.show(connection),
                Err(halt) => halt,
            };
            let Halt::Lost(why) = halt else {
                return halt;
            };
            self.why_lost = Some(why.clone());
            if self.end.is_here() {
                return Halt::Done;
            }
            if std::mem::take(&mut self.connected) {
                delay = DELAY_FIRST;
            }
            // Between half and the whole, so that many of us do not come back at the same moment.
            let wait = delay.mul_f64(0.5 + 0.5 * fastrand::f64());
            self.teller
                .say(&format!("{why}; connecting again in {:.1} s", wait.as_secs_f64()));
            if self.end.rest(wait) {
                return Halt::Done;
            }
            delay = (delay * 2).min(DELAY_MAX);
        }
    }

    /// A connection that goes on where the last one was lost.
    fn connect(&mut self) -> Result<Connected, Halt> {
        let mut pairs = filter_pairs(&self.tail.filter);
        let position = self.place.position();
        // Once there is a position, what was asked for is shown, or comes after it.
        self.waits_for_last = self.tail.last.filter(|_| position.is_none() && self.shown == 0);
        pairs.extend(position.map(|position| ("since", position.to_string())));
        pairs.extend(self.waits_for_last.map(|last| ("last", last.to_string())));
        pairs.extend(self.tail.conflate.map(|period| ("conflate", show_duration(period))));
        self.dialer.connect(&pairs, &self.end)
    }

    fn show(&mut self, (mut socket, protocol): Connected) -> Halt {
        (self.connected, self.state_shown) = (true, false);
        self.never_connected = false;
        // What is missing of the numbering before, if this is another one, is said before its end is.
        self.say_losses(true);
        match protocol {
            Protocol::V1 => self.place.begin(),
            Protocol::Plain => {
                if self.waits_for_last.take().is_some() {
                    self.teller.say(NO_HISTORY);
                }
                if let Some(was) = self.place.begin_without_numbers() {
                    self.teller.say(&without_numbers(was));
                }
            }
        }
        let mut heard = Instant::now();
        loop {
            self.say_losses(false);
            if self.end.is_here() || self.is_full() {
                let _ = socket.close(None).and_then(|()| socket.flush());
                return Halt::Done;
            }
            match socket.read() {
                Ok(Message::Close(frame)) => {
                    let why = frame.map_or(String::new(), |frame| {
                        format!(" ({} {})", u16::from(frame.code), visible(&frame.reason))
                    });
                    return Halt::Lost(format!("the server has ended the connection{why}"));
                }
                Ok(message) => {
                    heard = Instant::now();
                    if let Message::Text(text) = message
                        && let Err(error) = self.take(protocol, &text)
                    {
                        return match error.kind() {
                            io::ErrorKind::BrokenPipe => Halt::Done,
                            _ => Halt::Hopeless(format!("cannot write the events: {error}")),
                        };
                    }
                }
                Err(Error::Io(error)) if is_timeout(&error) => {
                    let silence_max = self.silence_max();
                    if heard.elapsed() > silence_max {
                        return Halt::Lost(format!("nothing came from the server for {silence_max:?}"));
                    }
                }
                Err(error) => return Halt::Lost(format!("the connection is lost: {error}")),
            }
        }
    }

    /// After how long without a message the connection is taken for dead.
    fn silence_max(&self) -> Duration {
        let pings = self.place.ping_interval().mul_f64(SILENT_PINGS);
        SILENCE_MAX.max(pings)
    }

    fn is_full(&self) -> bool {
        self.tail.count.is_some_and(|count| self.shown >= count)
    }

    /// Deals with one message.
    fn take(&mut self, protocol: Protocol, text: &str) -> io::Result<()> {
        if protocol == Protocol::Plain {
            // `initial` and `ping` are what no event can be.
            return match event::check_published(text.as_bytes()) {
                Ok(event) => self.show_event(&event, text),
                Err(_) => {
                    self.show_state(text, Part::WHOLE);
                    Ok(())
                }
            };
        }
        match self.place.hear(text) {
            Heard::Event { seq, text } => {
                if let Ok(event) = event::check_published(text.as_bytes()) {
                    self.show_event(&event, text)?;
                }
                self.place.seen(seq);
            }
            Heard::State { part } => self.show_state(text, part),
            Heard::Conflated { count } => self.left_out += count,
            Heard::Begins { after } => self.begin_with_last(after),
            Heard::Resumed { events, .. } if self.waits_for_last.is_some() => self.end_of_last(events),
            heard => {
                if let Some(notice) = self.notices.of(heard, Instant::now()) {
                    self.teller.say(&notice);
                }
            }
        }
        Ok(())
    }

    /// Shows the event if it is wanted: not every server can be asked for a part of the stream.
    fn show_event(&mut self, event: &event::Event<'_>, text: &str) -> io::Result<()> {
        let (machine, kind) = (event.machine.as_deref(), event.kind.as_deref());
        if !self.tail.filter.wants(machine, kind) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(self.lines.line(event, text).as_bytes())?;
        out.flush()?;
        self.shown += 1;
        Ok(())
    }

    /// Says what `initial` has, if `text` is one, or the last part of one.
    fn show_state(&mut self, text: &str, part: Part) {
        if self.tail.format != Format::Human {
            return;
        }
        let Some(machines) = self.states.take(text, part) else {
            return;
        };
        if std::mem::replace(&mut self.state_shown, true) {
            self.teller.say(&format!("the state now: {machines}"))
        } else {
            self.teller.say(&format!("connected to {}; {machines}", self.tail.url))
        }
    }

    /// Says which events are missing; `all` that is not said yet, or what is due.
    fn say_losses(&mut self, all: bool) {
        for loss in self.notices.due(Instant::now(), all) {
            self.teller.say(&loss);
        }
    }

    /// Notes whether the server sends the last events first, if it was asked to, and says so if it does not.
    fn begin_with_last(&mut self, after: Option<Seq>) {
        match (self.waits_for_last, after) {
            (None, _) => {}
            (Some(_), None) => {
                self.waits_for_last = None;
                self.teller.say(NO_LAST);
            }
            (Some(_), Some(_)) if self.tail.format == Format::Human => {
                self.state_shown = true;
                self.teller.say(&format!(
                    "connected to {}; what its history has comes first",
                    self.tail.url
                ));
            }
            (Some(_), Some(_)) => {}
        }
    }

    /// The last events are here, as far as the history has them.
    fn end_of_last(&mut self, events: u64) {
        if let Some(wanted) = self.waits_for_last.take()
            && events < wanted
        {
            self.teller.say(&format!(
                "the server's history has only {} of the last {wanted} (--history-bytes, and --journal over restarts)",
                count(events, "event")
            ));
        }
    }

    /// That there was no connection in all that time, and what to do.
    fn why_never(&self) -> String {
        let why = self.why_lost.as_deref().unwrap_or("nothing answers there");
        format!(
            "threadcast: no server in all that time: {why}\nhint: start one with `threadcast serve`, or say with --url where \
             it is; `threadcast clients --url ...` tells at once whether it answers\n"
        )
    }

    /// Says what is left to say, and how to go on from here. Not when what was shown may never have been read.
    fn say_last(&mut self) {
        self.say_losses(true);
        if self.left_out > 0 {
            let left_out = count(self.left_out, "event");
            self.teller.say(&format!(
                "{left_out} left out for a newer state of the machine (--conflate)"
            ));
        }
        if let Some(position) = self.place.position().filter(|_| !reader_is_gone()) {
            self.teller.say(&to_go_on(position));
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut)
}
