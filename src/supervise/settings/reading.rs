//! From the keys of a file to the values of its tables, by the table of keys. Knows no key by name.

use crate::config::file::{Entry, Place, Value};
use crate::process::nearest::nearest;
use crate::supervise::settings::faults::Faults;
use crate::supervise::settings::kinds::{Fallback, Key, Kind, Section, alternatives};
use crate::supervise::settings::scalars::{self, Wrong};
use crate::supervise::settings::values::{Item, Values};
use std::path::Path;

/// Reads tables, and collects what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// The folder that paths are relative to.
    pub(super) folder: &'a Path,
    pub(super) faults: &'a mut Faults,
}

/// Which table is read.
struct Table<'a> {
    section: &'static Section,
    /// Its keys to it, with dots between; empty for the file.
    dotted: &'a str,
    /// One of a list.
    is_listed: bool,
    place: Place,
}

impl Table<'_> {
    fn title(&self) -> String {
        match (self.dotted, self.is_listed) {
            ("", _) => "the file".to_owned(),
            (dotted, false) => format!("[{dotted}]"),
            (dotted, true) => format!("[[{dotted}]]"),
        }
    }

    /// The dotted name of a key of this table.
    fn below(&self, name: &str) -> String {
        match self.dotted {
            "" => name.to_owned(),
            dotted => format!("{dotted}.{name}"),
        }
    }
}

impl Reader<'_> {
    /// Reads the whole file.
    pub(super) fn file(&mut self, section: &'static Section, entries: &[Entry]) -> Values {
        let table = Table {
            section,
            dotted: "",
            is_listed: false,
            place: Place { line: 1, column: 1 },
        };
        self.table(&table, entries)
    }

    fn table(&mut self, table: &Table<'_>, entries: &[Entry]) -> Values {
        let title = table.title();
        let mut values = Values::new(table.section, title.clone(), table.place);
        for entry in entries {
            let Some(key) = table.section.key(&entry.name) else {
                self.faults.add(entry.key, unknown(table.section, &title, &entry.name));
                continue;
            };
            let item = match key.kind {
                Kind::Table(_) | Kind::Named(_) | Kind::Tables(_) => self.tables(table, key, entry),
                _ => self.scalar(&title, key, entry),
            };
            if let Some(item) = item {
                values.give(key.name, entry.key, item);
            }
        }
        self.together(table, &title, entries);
        self.fall_back(table, &mut values, entries);
        values
    }

    /// Looks whether all keys are there that must be, and only those that count.
    fn together(&mut self, table: &Table<'_>, title: &str, entries: &[Entry]) {
        let has = |name: &&str| entries.iter().any(|entry| entry.name == **name);
        for key in table.section.keys {
            if key.fallback == Fallback::Required && !has(&key.name) {
                let wanted = key.kind.wanted();
                let message = format!("{title} has no {} ({}): {wanted}", key.name, key.help);
                self.faults.add(table.place, message);
            }
        }
        for entry in entries {
            let Some(key) = table.section.key(&entry.name) else {
                continue;
            };
            if !key.beside.is_empty() && !key.beside.iter().any(has) {
                let beside = alternatives(key.beside, "or");
                let message = format!(
                    "{} of {title} counts only beside {beside}; take it out, or add that",
                    key.name
                );
                self.faults.add(entry.key, message);
            }
        }
        let one_of = table.section.one_of;
        let given: Vec<&Entry> = entries.iter().filter(|entry| one_of.contains(&&*entry.name)).collect();
        match given.as_slice() {
            [] if !one_of.is_empty() => {
                let message = format!(
                    "{title} does not say what to look at; add one of {}",
                    alternatives(one_of, "or")
                );
                self.faults.add(table.place, message);
            }
            [first, others @ ..] => {
                for other in others {
                    let message = format!(
                        "{title} has {} and {}; it takes only one of them, so take the other out",
                        first.name, other.name
                    );
                    self.faults.add(other.key, message);
                }
            }
            [] => {}
        }
    }

    /// Puts what the table of keys says in the place of keys that are not given.
    fn fall_back(&mut self, table: &Table<'_>, values: &mut Values, entries: &[Entry]) {
        let has = |name: &&str| entries.iter().any(|entry| entry.name == **name);
        for key in table.section.keys {
            let Fallback::Is(text) = key.fallback else {
                continue;
            };
            if has(&key.name) || !(key.beside.is_empty() || key.beside.iter().any(has)) {
                continue;
            }
            if let Kind::Table(section) = key.kind {
                let inner = Table {
                    section,
                    dotted: &table.below(key.name),
                    is_listed: false,
                    place: table.place,
                };
                let inner = self.table(&inner, &[]);
                values.fall_back(key.name, Item::Table(inner));
            } else if let Ok(item) = scalars::of_fallback(&key.kind, text, self.folder) {
                values.fall_back(key.name, item);
            }
        }
    }

    fn scalar(&mut self, title: &str, key: &Key, entry: &Entry) -> Option<Item> {
        match scalars::read(&key.kind, entry, self.folder) {
            Ok(item) => Some(item),
            Err(faults) => {
                for Wrong { place, part, message } in faults {
                    let name = part.map_or(key.name.to_owned(), |part| format!("{}.{part}", key.name));
                    self.faults.add(place, format!("{name} of {title} {message}"));
                }
                None
            }
        }
    }

    fn tables(&mut self, table: &Table<'_>, key: &Key, entry: &Entry) -> Option<Item> {
        let dotted = table.below(key.name);
        let (Kind::Table(section) | Kind::Named(section) | Kind::Tables(section)) = key.kind else {
            return None;
        };
        let is_listed = matches!(key.kind, Kind::Tables(_));
        if matches!(key.kind, Kind::Named(_)) {
            return self.named(&dotted, key, section, entry);
        }
        let mut tables = Vec::new();
        for (place, value) in &entry.values {
            let Value::Table(entries) = value else {
                self.no_table(&dotted, key, *place, value);
                continue;
            };
            let inner = Table {
                section,
                dotted: &dotted,
                is_listed,
                place: *place,
            };
            tables.push(self.table(&inner, entries));
        }
        if is_listed {
            return Some(Item::Tables(tables));
        }
        if entry.is_list {
            let message = format!("there can be only one [{dotted}]; write it once, in single brackets");
            self.faults.add(entry.key, message);
        }
        tables.into_iter().next().map(Item::Table)
    }

    fn named(&mut self, dotted: &str, key: &Key, section: &'static Section, entry: &Entry) -> Option<Item> {
        let [(place, value)] = entry.values.as_slice() else {
            self.faults
                .add(entry.key, format!("{dotted} cannot be a list: {}", key.kind.wanted()));
            return None;
        };
        let Value::Table(entries) = value else {
            self.no_table(dotted, key, *place, value);
            return None;
        };
        if entry.is_list {
            self.faults
                .add(entry.key, format!("{dotted} cannot be a list: {}", key.kind.wanted()));
            return None;
        }
        let mut tables = Vec::new();
        for entry in entries {
            let below = format!("{dotted}.{}", entry.name);
            match entry.values.as_slice() {
                [(_, Value::Table(entries))] if !entry.is_list => {
                    let inner = Table {
                        section,
                        dotted: &below,
                        is_listed: false,
                        place: entry.key,
                    };
                    tables.push((entry.name.clone(), self.table(&inner, entries)));
                }
                _ => {
                    let message = format!("{below} must be a table: {}", key.kind.wanted());
                    self.faults.add(entry.key, message);
                }
            }
        }
        Some(Item::Named(tables))
    }

    fn no_table(&mut self, dotted: &str, key: &Key, place: Place, value: &Value) {
        let message = format!(
            "{dotted} cannot be of type {}: {}",
            value.type_name(),
            key.kind.wanted()
        );
        self.faults.add(place, message);
    }
}

/// What to say about a key that a table cannot have.
fn unknown(section: &Section, title: &str, name: &str) -> String {
    let names = section.keys.iter().map(|key| key.name);
    match nearest(name, names.clone()) {
        Some(nearest) => format!("there is no key {name:?} in {title}; did you mean {nearest:?}?"),
        None => {
            let names: Vec<&str> = names.collect();
            format!(
                "there is no key {name:?} in {title}, only {}",
                alternatives(&names, "and")
            )
        }
    }
}
