//! The model of the stream: what was published under which number, and what one client has been told of it so far. A
//! client's [`Seen`] fails at the first message that does not follow from that.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::RwLock;

/// A number of the stream; the first is 1.
pub type Seq = u64;

/// Longer events are too large for the servers of the model.
pub const EVENT_BYTES_MAX: usize = 4096;

impl fmt::Debug for Numbering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} numbers", self.epoch, self.newest())
    }
}

/// What was published under one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Event {
        machine: Option<&'static str>,
        kind: &'static str,
        pad: usize,
    },
    /// The server must announce it as lost, for this cause.
    Loss(&'static str),
}

/// One epoch: every number that was given in it.
pub struct Numbering {
    pub epoch: String,
    entries: RwLock<Vec<Entry>>,
}

impl Numbering {
    pub fn new(epoch: String) -> Numbering {
        Numbering {
            epoch,
            entries: RwLock::default(),
        }
    }

    /// Notes the next number, before it is sent; gives what is to be sent.
    pub fn add(&self, entry: Entry) -> Vec<u8> {
        let mut entries = self.entries.write().unwrap();
        entries.push(entry);
        match entry {
            Entry::Event { .. } => text(entries.len() as Seq, entry).into_bytes(),
            Entry::Loss("too_large") => vec![b' '; EVENT_BYTES_MAX + 1],
            Entry::Loss(_) => b"no JSON".to_vec(),
        }
    }

    /// The last number.
    pub fn newest(&self) -> Seq {
        self.entries.read().unwrap().len() as Seq
    }

    fn at(&self, seq: Seq) -> Entry {
        let index = usize::try_from(seq).unwrap().checked_sub(1);
        let entry = index.and_then(|index| self.entries.read().unwrap().get(index).copied());
        entry.unwrap_or_else(|| panic!("number {seq} was never given"))
    }

    /// The first number in `after + 1..=to` for which `is` holds.
    fn find(&self, after: Seq, to: Seq, is: impl Fn(Entry) -> bool) -> Option<Seq> {
        let entries = self.entries.read().unwrap();
        let to = (to as usize).min(entries.len());
        let range = after as usize..to.max(after as usize);
        let found = entries.get(range)?.iter().position(|entry| is(*entry))?;
        Some(after + found as Seq + 1)
    }

    /// The last number up to `to` that changed the state of a machine that `wish` shows; 0 for none.
    fn last_state(&self, to: Seq, wish: &Wish, machine: Option<&str>) -> Seq {
        let entries = self.entries.read().unwrap();
        let to = (to as usize).min(entries.len());
        let shows = |entry: &Entry| match entry {
            Entry::Event { machine: Some(of), .. } => wish.shows(of) && machine.is_none_or(|machine| machine == *of),
            _ => false,
        };
        entries[..to]
            .iter()
            .rposition(shows)
            .map_or(0, |index| index as Seq + 1)
    }
}

/// An event as it is sent. It sets the state of its machine to its number.
fn text(seq: Seq, entry: Entry) -> String {
    let Entry::Event { machine, kind, pad } = entry else {
        panic!("number {seq} is no event, but {entry:?}");
    };
    let machine = machine.map_or(String::new(), |machine| format!(r#""machine_name":"{machine}","#));
    let pad = "x".repeat(pad);
    format!(r#"{{{machine}"type":"{kind}","payload":{{"to_state":"{seq}","pad":"{pad}"}}}}"#)
}

/// The machine of a snapshot's row, and the number that set its state.
fn state_of(row: &Value) -> (&str, Seq) {
    let text = |key| row[key].as_str().unwrap();
    (text("machine_name"), text("current_state").parse().unwrap())
}

/// A filter in every spelling, and what it means.
#[derive(Debug)]
pub struct Wish {
    pub query: &'static str,
    pub machines: Option<&'static [&'static str]>,
    pub types: Option<&'static [&'static str]>,
    machine: fn(&str) -> bool,
    kind: fn(&str) -> bool,
}

/// The machines of the model; `None` for events without one.
pub const MACHINES: [Option<&str>; 5] = [
    Some("worker-1"),
    Some("worker-2"),
    Some("worker-10"),
    Some("boss"),
    None,
];
/// The types of the model.
pub const KINDS: [&str; 3] = ["tick", "error", "state_change"];

/// The filters that clients choose from; the first is none.
pub static WISHES: [Wish; 7] = [
    wish("", None, None, |_| true, |_| true),
    wish(
        "machine=worker-*",
        Some(&["worker-*"]),
        None,
        |name| name.starts_with("worker-"),
        |_| true,
    ),
    wish(
        "machine=boss,worker-?",
        Some(&["boss", "worker-?"]),
        None,
        |name| name == "boss" || name.len() == 8,
        |_| true,
    ),
    wish("type=error", None, Some(&["error"]), |_| true, |kind| kind == "error"),
    wish("machine=*", Some(&["*"]), None, |_| true, |_| true),
    wish(
        "machine=*-1&type=tick,s*",
        Some(&["*-1"]),
        Some(&["tick", "s*"]),
        |name| name == "worker-1",
        |kind| kind != "error",
    ),
    wish("machine=nobody", Some(&["nobody"]), None, |_| false, |_| true),
];

const fn wish(
    query: &'static str,
    machines: Option<&'static [&'static str]>,
    types: Option<&'static [&'static str]>,
    machine: fn(&str) -> bool,
    kind: fn(&str) -> bool,
) -> Wish {
    Wish {
        query,
        machines,
        types,
        machine,
        kind,
    }
}

impl Wish {
    fn shows(&self, machine: &str) -> bool {
        (self.machine)(machine)
    }

    fn wants(&self, machine: Option<&str>, kind: &str) -> bool {
        (self.kind)(kind) && self.shows(machine.unwrap_or_default())
    }
}

/// How a client was joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the state as of now.
    Now,
    /// Behind this number, which the server knows, or with what it says instead.
    After(Seq),
    /// From a position that the server cannot know.
    Unknown,
}

/// What one connection has been told so far.
#[derive(Debug)]
pub struct Seen<'a> {
    numbering: &'a Numbering,
    v1: bool,
    /// The history may lose what this client misses.
    forgetful: bool,
    start: Start,
    pub wish: &'static Wish,
    /// Filters asked for and not confirmed yet, oldest first.
    asked: Vec<&'static Wish>,
    /// Snapshots asked for, less those that came.
    refreshes: usize,
    /// Nothing since the last refresh was asked for.
    unanswered: bool,
    /// Everything up to here was delivered, announced or not wanted. `None` before the stream has begun.
    pos: Option<Seq>,
    /// Plain clients, after a snapshot that may be newer than `pos`: events without a machine do not show in it.
    loose: bool,
    /// The number of the `initial` that must come next; `Some(None)` for any.
    initial_due: Option<Option<Seq>>,
    /// Part of an `initial` that came last, if there are further ones, and what all so far have.
    parts: Option<(u64, Vec<Value>)>,
    hello: bool,
    replayed: Option<u64>,
    pub events: u64,
    pub skipped: u64,
    pub behinds: u64,
    /// Pings that said a number.
    pub pings: u64,
}

impl<'a> Seen<'a> {
    /// A client that has asked to be joined like this.
    pub fn new(numbering: &'a Numbering, v1: bool, forgetful: bool, wish: &'static Wish, start: Start) -> Seen<'a> {
        // Without `hello` a plain client learns where it is by what comes first.
        let pos = match start {
            Start::After(seq) if !v1 => Some(seq),
            _ => None,
        };
        Seen {
            numbering,
            v1,
            forgetful,
            start,
            wish,
            asked: Vec::new(),
            refreshes: 0,
            unanswered: false,
            pos,
            loose: false,
            initial_due: None,
            parts: None,
            hello: false,
            replayed: None,
            events: 0,
            skipped: 0,
            behinds: 0,
            pings: 0,
        }
    }

    /// It asks for a new snapshot.
    pub fn refresh(&mut self) {
        self.refreshes += 1;
        self.unanswered = true;
    }

    /// It asks for another filter; whether it may: two wishes for the same could not be told apart.
    pub fn subscribe(&mut self, wish: &'static Wish) -> bool {
        let new = !self.asked.iter().any(|asked| std::ptr::eq(*asked, wish));
        if new {
            self.asked.push(wish);
            self.refreshes += 1;
        }
        new
    }

    /// The last number that is settled.
    pub fn position(&self) -> Option<Seq> {
        self.pos
    }

    /// Whether nothing more is owed, up to number `newest`.
    pub fn is_settled(&self, newest: Seq) -> bool {
        let answered = self.asked.is_empty() && !self.unanswered && self.initial_due.is_none();
        answered && self.replayed.is_none() && self.owes_nothing(newest)
    }

    /// The same of events alone.
    pub fn owes_nothing(&self, newest: Seq) -> bool {
        self.pos.is_some_and(|pos| self.owed(pos, newest).is_none())
    }

    /// The first number in `after + 1..=to` that this client must be told of.
    fn owed(&self, after: Seq, to: Seq) -> Option<Seq> {
        // A plain client's snapshot shows every event but those without a machine.
        let hidden_to = if self.loose {
            self.numbering
                .find(
                    after,
                    to,
                    |entry| matches!(entry, Entry::Event { machine: Some(of), .. } if self.wish.shows(of)),
                )
                .map_or(to, |next| next - 1)
        } else {
            after
        };
        self.numbering.find(hidden_to, to, |entry| match entry {
            Entry::Event { machine, kind, .. } => self.wish.wants(machine, kind),
            Entry::Loss(_) => self.v1,
        })
    }

    /// Everything up to `to` is behind it, and none of it was owed.
    #[track_caller]
    fn pass(&mut self, to: Seq, what: &str) {
        let pos = self.pos.unwrap_or_else(|| panic!("{what} before the stream has begun"));
        assert!(to >= pos, "{what} goes back from {pos} to {to}");
        if let Some(missing) = self.owed(pos, to) {
            let entry = self.numbering.at(missing);
            panic!(
                "after {pos} comes {what}, but number {missing} was owed: {entry:?} to {:?}",
                self.wish
            );
        }
        self.pos = Some(to);
    }

    /// A text that came.
    #[track_caller]
    pub fn take(&mut self, message: &str) {
        if !self.v1 {
            return self.take_plain(message);
        }
        if message.starts_with("{\"seq\":") {
            return self.take_event(message);
        }
        let value: Value = serde_json::from_str(message).unwrap();
        let kind = value["type"]
            .as_str()
            .unwrap_or_else(|| panic!("neither event nor type: {message}"));
        assert!(self.hello || kind == "hello", "`hello` comes first, not {message}");
        if self.initial_due.is_some() || self.parts.is_some() {
            assert!(
                matches!(kind, "initial" | "lag" | "stall" | "recovered") || kind == "ping" && value["seq"].is_null(),
                "`initial` must come, not {message}"
            );
        }
        let number = |key: &str| value[key].as_u64();
        match kind {
            "hello" => self.take_hello(&value),
            "initial" => self.take_initial(&value, number("seq").unwrap()),
            "gap" => self.take_gap(&value, message),
            "behind" => {
                let seq = number("seq").unwrap();
                self.pass(seq, message);
                assert_eq!(self.replayed.replace(0), None, "behind while it is behind");
                self.behinds += 1;
            }
            "live" => {
                self.pass(number("seq").unwrap(), message);
                assert_eq!(self.replayed.take(), number("replayed"), "{message}");
            }
            "subscribed" => self.take_subscribed(&value, message),
            "ping" => self.take_ping(&value, message),
            "lag" | "stall" | "recovered" => {}
            _ => panic!("unexpected: {message}"),
        }
    }

    fn take_hello(&mut self, hello: &Value) {
        assert!(!std::mem::replace(&mut self.hello, true), "`hello` comes once");
        assert_eq!(hello["epoch"], self.numbering.epoch.as_str());
        assert_eq!(hello["machines"], serde_json::json!(self.wish.machines));
        match self.start {
            Start::After(seq) => {
                assert_eq!(hello["after"], seq, "{hello}");
                self.pos = Some(seq);
            }
            _ => {
                assert_eq!(hello["after"], Value::Null);
                self.initial_due = (self.start == Start::Now).then_some(hello["seq"].as_u64());
            }
        }
    }

    fn take_event(&mut self, message: &str) {
        let seq = message["{\"seq\":".len()..].split(',').next().unwrap().parse().unwrap();
        assert!(
            self.initial_due.is_none() && self.parts.is_none(),
            "`initial` must come, not event {seq}"
        );
        let entry = self.numbering.at(seq);
        let Entry::Event { machine, kind, .. } = entry else {
            panic!("number {seq} was lost, and has come as an event");
        };
        self.pass(seq - 1, "an event");
        assert!(self.wish.wants(machine, kind), "{entry:?} to {:?}", self.wish);
        let machine = machine.map_or("null".to_owned(), |machine| format!("\"{machine}\""));
        let event = text(seq, entry);
        assert!(message == format!(r#"{{"seq":{seq},"machine":{machine},"type":"{kind}","event":{event}}}"#));
        self.pos = Some(seq);
        self.events += 1;
        self.replayed = self.replayed.map(|count| count + 1);
    }

    /// What it says is here is here, and it never goes back.
    #[track_caller]
    fn take_ping(&mut self, ping: &Value, message: &str) {
        let Some(seq) = ping["seq"].as_u64() else {
            assert_eq!(ping.get("seq"), Some(&Value::Null), "{message}");
            return;
        };
        assert_eq!(
            self.replayed, None,
            "it knows that what it missed is still to come: {message}"
        );
        assert!(seq <= self.numbering.newest(), "never given: {message}");
        self.pass(seq, message);
        self.pings += 1;
    }

    fn take_gap(&mut self, gap: &Value, message: &str) {
        let (from, to) = (gap["from"].as_u64(), gap["to"].as_u64());
        match gap["cause"].as_str().unwrap() {
            "epoch" => {
                assert_eq!((&self.start, from, to), (&Start::Unknown, None, None), "{message}");
                assert_eq!((self.pos, gap["count"].as_u64()), (None, None), "{message}");
                self.initial_due = Some(None);
            }
            "history" => {
                let (from, to) = (from.unwrap(), to.unwrap());
                assert!(self.forgetful, "nothing can be gone: {message}");
                self.pass(from - 1, message);
                assert_eq!(gap["count"], to - from + 1);
                self.skipped += to - from + 1;
                self.pos = Some(to);
                self.initial_due = Some(Some(to));
            }
            cause => {
                let (from, to) = (from.unwrap(), to.unwrap());
                let pos = self.pos.expect("a gap in the stream comes behind its beginning");
                // A position may lie inside of what is announced as one; then only what follows it is given.
                self.pass(from - 1, message);
                assert_eq!(gap["count"], to - from + 1);
                for seq in from..=to {
                    let Entry::Loss(of) = self.numbering.at(seq) else {
                        panic!("number {seq} was not lost: {message}");
                    };
                    assert_eq!(of, cause, "{message}");
                }
                assert!(from > pos, "announced twice: {message}");
                self.pos = Some(to);
            }
        }
    }

    fn take_subscribed(&mut self, value: &Value, message: &str) {
        let seq = value["seq"].as_u64().unwrap();
        assert_eq!(self.replayed, None, "a filter changes only while the client is live");
        self.pass(seq, message);
        // One that was asked for in the meantime takes the place of those before it.
        let lists = |wish: &Wish| (serde_json::json!(wish.machines), serde_json::json!(wish.types));
        let told = (value["machines"].clone(), value["types"].clone());
        let index = self.asked.iter().position(|wish| lists(wish) == told);
        let index = index.unwrap_or_else(|| panic!("nobody asked for {message}"));
        self.wish = self.asked.drain(..=index).next_back().unwrap();
        self.initial_due = Some(Some(seq));
        self.refreshes -= index;
    }

    fn take_initial(&mut self, initial: &Value, seq: Seq) {
        let (part, parts) = (initial["part"].as_u64().unwrap(), initial["parts"].as_u64().unwrap());
        let (last, mut rows) = self.parts.take().unwrap_or_default();
        assert_eq!(part, last + 1, "{part} of {parts}");
        rows.extend(initial["machines"].as_array().unwrap().iter().cloned());
        if part < parts {
            self.parts = Some((part, rows));
            return;
        }
        match self.initial_due.take() {
            Some(due) if self.pos.is_none() => {
                assert!(due.is_none_or(|due| due == seq), "`initial` as of {due:?}, not {seq}");
                self.pos = Some(seq);
            }
            Some(due) => {
                assert_eq!(due, Some(seq));
                // Of a filter: it counted as a wish for a snapshot.
                if self.replayed.is_none() {
                    self.refreshes = self.refreshes.saturating_sub(1);
                    self.unanswered = false;
                }
            }
            None => {
                assert_eq!(self.replayed, None, "a snapshot has no place among events of then");
                self.pass(seq, "a refreshed `initial`");
                self.refreshes = self.refreshes.checked_sub(1).expect("an `initial` nobody asked for");
                self.unanswered = false;
            }
        }
        let rows: BTreeMap<&str, Seq> = rows.iter().map(state_of).collect();
        let shown = MACHINES.iter().flatten().filter(|machine| self.wish.shows(machine));
        let states = shown.map(|machine| (*machine, self.numbering.last_state(seq, self.wish, Some(machine))));
        let expected: BTreeMap<&str, Seq> = states.filter(|(_, state)| *state > 0).collect();
        assert_eq!(rows, expected, "the state as of {seq} for {:?}", self.wish);
    }

    fn take_plain(&mut self, message: &str) {
        if message.starts_with("{\"type\":\"initial\"") {
            let initial: Value = serde_json::from_str(message).unwrap();
            return self.take_plain_initial(&initial);
        }
        let digits = message
            .split("\"to_state\":\"")
            .nth(1)
            .unwrap_or_else(|| panic!("unexpected: {message}"));
        let seq: Seq = digits.split('"').next().unwrap().parse().unwrap();
        let entry = self.numbering.at(seq);
        assert!(message == text(seq, entry), "event {seq} is not what was sent");
        assert!(
            self.pos.is_some_and(|pos| seq > pos),
            "event {seq} after {:?}",
            self.pos
        );
        self.pass(seq - 1, "an event");
        let Entry::Event { machine, kind, .. } = entry else {
            panic!("number {seq} was lost, and has come as an event");
        };
        assert!(self.wish.wants(machine, kind), "{entry:?} to {:?}", self.wish);
        self.pos = Some(seq);
        self.loose = false;
        self.events += 1;
    }

    /// A plain client cannot tell what it asked for from what takes the place of events that are gone.
    fn take_plain_initial(&mut self, initial: &Value) {
        let states = initial["machines"].as_array().unwrap().iter();
        let state = states.map(|row| state_of(row).1).max().unwrap_or(0);
        let Some(pos) = self.pos else {
            (self.pos, self.loose) = (Some(state), true);
            return;
        };
        let least = self.numbering.last_state(pos, self.wish, None);
        assert!(state >= least, "a snapshot as of {state} after event {pos}");
        self.unanswered = false;
        match self.refreshes.checked_sub(1) {
            Some(left) => self.refreshes = left,
            None => assert!(self.forgetful, "an `initial` nobody asked for"),
        }
        if self.forgetful {
            self.skipped += u64::from(self.owed(pos, state).is_some());
            (self.pos, self.loose) = (Some(pos.max(state)), true);
        } else {
            self.pass(pos.max(state), "a snapshot")
        }
    }
}
