//! What a table of the file says: the value of each key, given or by its fallback.

use crate::config::file::{Entry, Place};
use crate::process::address::ServerAddress;
use crate::supervise::settings::kinds::Section;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A value that its key takes.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Switch(bool),
    Time(Duration),
    Size(usize),
    Count(u64),
    Counts(Vec<u64>),
    /// A text, a name or a word.
    Text(String),
    /// Each with its place.
    Texts(Vec<(Place, String)>),
    Path(PathBuf),
    Paths(Vec<PathBuf>),
    /// `None`: `none`.
    SocketPath(Option<PathBuf>),
    Command(Vec<String>),
    Signal(Signal),
    /// An address or a URL.
    Address(ServerAddress),
    /// Names and values, each name with its place.
    Variables(Vec<(Place, String, String)>),
    /// Names, each with its place and the word behind it, if there is one.
    Dependencies(Vec<(Place, String, Option<String>)>),
    /// Keys that another room reads.
    Entries(Vec<Entry>),
    Table(Values),
    /// Tables, each with its name.
    Named(Vec<(String, Values)>),
    Tables(Vec<Values>),
}

/// One table with what it says.
#[derive(Clone, Debug)]
pub(super) struct Values {
    section: &'static Section,
    /// As messages name it, such as `[service.worker]`.
    pub(super) title: String,
    /// Where it begins.
    pub(super) place: Place,
    given: BTreeMap<&'static str, (Place, Item)>,
    fallbacks: BTreeMap<&'static str, Item>,
}

/// Methods that give the value of a key; `None` if it has none.
macro_rules! values {
    ($($name:ident: $variant:ident($type:ty);)*) => {
        $(pub(super) fn $name(&self, key: &str) -> Option<$type> {
            match self.item(key) {
                Some(Item::$variant(value)) => Some(value.clone()),
                _ => None,
            }
        })*
    };
}

impl Values {
    /// A table that says nothing yet.
    pub(super) fn new(section: &'static Section, title: String, place: Place) -> Values {
        Values {
            section,
            title,
            place,
            given: BTreeMap::new(),
            fallbacks: BTreeMap::new(),
        }
    }

    pub(super) fn give(&mut self, key: &'static str, place: Place, item: Item) {
        self.given.insert(key, (place, item));
    }

    pub(super) fn fall_back(&mut self, key: &'static str, item: Item) {
        self.fallbacks.insert(key, item);
    }

    /// Returns whether the file has the key here.
    pub(super) fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Where the key stands; without it, where the table begins.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.given.get(key).map_or(self.place, |(place, _)| *place)
    }

    fn item(&self, key: &str) -> Option<&Item> {
        debug_assert!(self.section.key(key).is_some(), "{} has no key {key}", self.title);
        let given = self.given.get(key).map(|(_, item)| item);
        given.or_else(|| self.fallbacks.get(key))
    }

    values! {
        switch: Switch(bool);
        time: Time(Duration);
        size: Size(usize);
        count: Count(u64);
        counts: Counts(Vec<u64>);
        text: Text(String);
        texts: Texts(Vec<(Place, String)>);
        path: Path(PathBuf);
        paths: Paths(Vec<PathBuf>);
        socket_path: SocketPath(Option<PathBuf>);
        command: Command(Vec<String>);
        signal: Signal(Signal);
        address: Address(ServerAddress);
        variables: Variables(Vec<(Place, String, String)>);
        dependencies: Dependencies(Vec<(Place, String, Option<String>)>);
        entries: Entries(Vec<Entry>);
        table: Table(Values);
        named: Named(Vec<(String, Values)>);
        tables: Tables(Vec<Values>);
    }
}
