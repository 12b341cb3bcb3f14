//! Values of keys that are no tables of our own: from the text of the file to what a key takes.

use crate::config::file::{Entry, Place, Value};
use crate::process::address::ServerAddress;
use crate::process::command_line::split;
use crate::process::nearest::nearest;
use crate::process::values::{duration, file_path, not_empty, number, size, socket_path, switch};
use crate::supervise::settings::kinds::{Kind, NAME_CHARACTERS_MAX, alternatives};
use crate::supervise::settings::signals;
use crate::supervise::settings::values::Item;
use std::path::{Path, PathBuf};

/// Why a value cannot be used.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) place: Place,
    /// The key inside the value that is wrong.
    pub(super) part: Option<String>,
    /// Follows the name of the key: what it cannot be, and what to write instead.
    pub(super) message: String,
}

type Read<T> = Result<T, Vec<Wrong>>;

/// Reads the value of a key. Paths are relative to `folder`.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn read(kind: &Kind, entry: &Entry, folder: &Path) -> Read<Item> {
    match kind {
        Kind::Counts(least, most) => {
            let numbers = each(kind, entry, |text| number(text, *least, *most))?;
            Ok(Item::Counts(numbers.into_iter().map(|(_, number)| number).collect()))
        }
        Kind::Texts => Ok(Item::Texts(each(kind, entry, whole)?)),
        Kind::Paths => {
            let paths = each(kind, entry, |text| path_in(folder, text))?;
            Ok(Item::Paths(paths.into_iter().map(|(_, path)| path).collect()))
        }
        Kind::Words(words) => Ok(Item::Texts(each(kind, entry, |text| word_of(words, text))?)),
        Kind::Patterns => patterns(kind, entry),
        Kind::Command => command(kind, entry),
        Kind::Variables => variables(kind, entry),
        Kind::Dependencies => dependencies(kind, entry),
        Kind::Server => match one(kind, entry)? {
            (_, Value::Table(entries)) => Ok(Item::Entries(entries.clone())),
            (place, other) => Err(wrong_type(kind, place, other)),
        },
        _ => {
            let (place, value) = one(kind, entry)?;
            let text = text_of(kind, place, value)?;
            scalar(kind, text, folder).map_err(|wanted| vec![cannot_be(place, text, &wanted)])
        }
    }
}

/// Reads what holds when a key is not given: a text, or several with commas between.
///
/// # Errors
/// The table of keys has a text that its kind does not take; a test looks.
pub(super) fn of_fallback(kind: &Kind, text: &str, folder: &Path) -> Read<Item> {
    let place = Place { line: 1, column: 1 };
    let is_list = matches!(kind, Kind::Words(_) | Kind::Counts(..));
    let texts: Vec<&str> = if is_list { text.split(',').collect() } else { vec![text] };
    let values = texts.into_iter().map(|text| (place, Value::Text(text.to_owned())));
    let entry = Entry {
        name: String::new(),
        key: place,
        values: values.collect(),
        is_list,
    };
    read(kind, &entry, folder)
}

fn scalar(kind: &Kind, text: &str, folder: &Path) -> Result<Item, String> {
    match kind {
        Kind::Switch => switch(text).map(Item::Switch),
        Kind::Time(least, most) => duration(text, *least, *most).map(Item::Time),
        Kind::Size(least, most) => size(text, *least, *most).map(Item::Size),
        Kind::Count(least, most) => number(text, *least, *most).map(Item::Count),
        Kind::Name => name(text).map(|()| Item::Text(text.to_owned())),
        Kind::Word(words) => word_of(words, text).map(Item::Text),
        Kind::Path => path_in(folder, text).map(Item::Path),
        Kind::SocketPath if text == "none" => Ok(Item::SocketPath(None)),
        Kind::SocketPath => {
            let path = path_in(folder, text)?;
            file_path(text.as_ref())?;
            socket_path(path.as_os_str()).map(|path| Item::SocketPath(Some(path)))
        }
        Kind::Signal => signals::of_name(text).map(Item::Signal),
        Kind::Address => address(text).map(Item::Address),
        Kind::Url => url(text).map(Item::Address),
        _ => whole(text).map(Item::Text),
    }
}

/// The only value of a key that takes no list.
fn one<'a>(kind: &Kind, entry: &'a Entry) -> Read<(Place, &'a Value)> {
    match entry.values.as_slice() {
        [(place, value)] if !entry.is_list => Ok((*place, value)),
        _ => Err(vec![Wrong {
            place: entry.key,
            part: None,
            message: format!("cannot be a list: {}", kind.wanted()),
        }]),
    }
}

/// Each value of a key that takes a list or one alone, read by `read`, which says what would be right.
fn each<T>(kind: &Kind, entry: &Entry, read: impl Fn(&str) -> Result<T, String>) -> Read<Vec<(Place, T)>> {
    let (mut items, mut faults) = (Vec::new(), Vec::new());
    for (place, value) in &entry.values {
        match text_of(kind, *place, value) {
            Ok(text) => match read(text) {
                Ok(item) => items.push((*place, item)),
                Err(wanted) => faults.push(cannot_be(*place, text, &wanted)),
            },
            Err(wrong) => faults.extend(wrong),
        }
    }
    if faults.is_empty() { Ok(items) } else { Err(faults) }
}

/// The text of a value; numbers and truths count as texts where there can be no mistake.
fn text_of<'a>(kind: &Kind, place: Place, value: &'a Value) -> Read<&'a str> {
    let takes_bare = matches!(
        kind,
        Kind::Switch
            | Kind::Time(..)
            | Kind::Size(..)
            | Kind::Count(..)
            | Kind::Counts(..)
            | Kind::Command
            | Kind::Variables
    );
    match value {
        Value::Text(text) => Ok(text),
        Value::Bare(_, text) if takes_bare => Ok(text),
        other => Err(wrong_type(kind, place, other)),
    }
}

fn wrong_type(kind: &Kind, place: Place, value: &Value) -> Vec<Wrong> {
    vec![Wrong {
        place,
        part: None,
        message: format!("cannot be of type {}: {}", value.type_name(), kind.wanted()),
    }]
}

fn cannot_be(place: Place, text: &str, wanted: &str) -> Wrong {
    Wrong {
        place,
        part: None,
        message: format!("cannot be {text:?}: {wanted}"),
    }
}

/// A text that is not empty, and that a program or the kernel can be given.
fn whole(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("leave out the character NUL".to_owned());
    }
    not_empty(text)
}

/// Judges a name that becomes part of a file's name.
///
/// # Errors
/// It cannot; the text says what would be right.
pub(super) fn name(text: &str) -> Result<(), String> {
    let is_safe = |character: char| character.is_ascii_alphanumeric() || "_-.".contains(character);
    if text.is_empty() || text.chars().count() > NAME_CHARACTERS_MAX || !text.chars().all(is_safe) {
        return Err(format!(
            "it becomes part of a file's name; write 1 to {NAME_CHARACTERS_MAX} ASCII letters, digits, _, - or ."
        ));
    }
    if text.starts_with(['.', '-']) {
        return Err("a name begins with a letter, a digit or _".to_owned());
    }
    Ok(())
}

fn word_of(words: &[&str], text: &str) -> Result<String, String> {
    if words.contains(&text) {
        return Ok(text.to_owned());
    }
    match nearest(text, words.iter().copied()) {
        Some(nearest) => Err(format!("did you mean {nearest:?}?")),
        None => Err(format!("write {}", alternatives(words, "or"))),
    }
}

fn path_in(folder: &Path, text: &str) -> Result<PathBuf, String> {
    let path = whole(text)?;
    if path == "~" || path.starts_with("~/") {
        return Err("nothing expands ~ here; write the whole path, or one relative to this file".to_owned());
    }
    // Without `.`, which says nothing; `..` may lead through a link, so it stays.
    Ok(folder.join(path).components().collect())
}

fn address(text: &str) -> Result<ServerAddress, String> {
    let wanted = "write HOST:PORT, such as localhost:6379";
    if text.contains("://") || text.contains('/') {
        return Err(format!("it is no URL; {wanted}"));
    }
    let address = ServerAddress::parse(text, 6379)?;
    // A port that is not given is the one that we say.
    if ServerAddress::parse(text, 1)?.authority != address.authority {
        return Err(format!("it has no port; {wanted}"));
    }
    Ok(address)
}

pub(super) fn url(text: &str) -> Result<ServerAddress, String> {
    if text.starts_with("https://") {
        return Err(format!(
            "threadcast speaks no TLS; write command = [\"curl\", \"-fsS\", {text:?}] in its place"
        ));
    }
    if !text.starts_with("http://") {
        return Err("write a URL such as http://localhost:8000/health".to_owned());
    }
    ServerAddress::parse(text, 80)
}

fn patterns(kind: &Kind, entry: &Entry) -> Read<Item> {
    let lists = each(kind, entry, |text| {
        if let Some(globs) = instead_of_expression(text) {
            return Err(format!(
                "match takes globs with * and ?, not regular expressions; write {globs}"
            ));
        }
        let globs: Vec<String> = text.split('|').map(|glob| glob.trim().to_owned()).collect();
        if globs.iter().any(String::is_empty) {
            return Err("write a glob such as worker.py or *worker*, before and behind each |".to_owned());
        }
        Ok(globs)
    })?;
    let globs = lists
        .into_iter()
        .flat_map(|(place, globs)| globs.into_iter().map(move |glob| (place, glob)));
    Ok(Item::Texts(globs.collect()))
}

/// What to write in place of a text that is meant as a regular expression; `None` if it is none.
fn instead_of_expression(text: &str) -> Option<String> {
    let is_one = |part: &str| part.contains('\\') || part.starts_with('^') || part.ends_with('$');
    if !text.split('|').any(is_one) {
        return None;
    }
    let globs: Vec<String> = text.split('|').map(|part| format!("{:?}", glob_of(part))).collect();
    Some(format!("[{}]", globs.join(", ")))
}

/// The glob that comes near to a regular expression.
fn glob_of(expression: &str) -> String {
    let (mut glob, mut rest) = (String::new(), expression.trim());
    rest = rest.strip_prefix('^').unwrap_or(rest);
    rest = rest.strip_suffix('$').unwrap_or(rest);
    let mut characters = rest.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => glob.extend(characters.next()),
            '.' if characters.next_if(|next| matches!(next, '*' | '+')).is_some() => glob.push('*'),
            '.' => glob.push('?'),
            other => glob.push(other),
        }
    }
    // A text of some length is a part of what `-c` is given; a plain word is a program.
    if glob.contains('*') { format!("*{glob}*") } else { glob }
}

/// A command: a list of its words, or a line of them.
fn command(kind: &Kind, entry: &Entry) -> Read<Item> {
    let at = |place, message: String| {
        vec![Wrong {
            place,
            part: None,
            message,
        }]
    };
    let words = match entry.values.as_slice() {
        [(place, Value::Text(line))] if !entry.is_list => {
            line_of(line).map_err(|wanted| at(*place, format!("cannot be {line:?}: {wanted}")))?
        }
        [(place, value)] if !entry.is_list => return Err(wrong_type(kind, *place, value)),
        _ => {
            let words = each(kind, entry, |word| Ok(word.to_owned()))?;
            words.into_iter().map(|(_, word)| word).collect()
        }
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(at(entry.key, format!("has no program: {}", kind.wanted())));
    }
    if words.iter().any(|word| word.contains('\0')) {
        let message = "cannot have the character NUL, which no program can be given: leave it out";
        return Err(at(entry.key, message.to_owned()));
    }
    Ok(Item::Command(words))
}

/// The words of a command that is written as one line.
fn line_of(line: &str) -> Result<Vec<String>, String> {
    let words = split(line)?;
    let as_shell = || format!("write [\"sh\", \"-c\", {line:?}]");
    let is_shells = |word: &&String| {
        ["&&", "||", "|", ";", "&", "<"].contains(&word.as_str()) || word.starts_with('>') || word.starts_with("2>")
    };
    if let Some(word) = words.iter().find(is_shells) {
        return Err(format!(
            "no shell reads it, so {word:?} would be an argument; {}",
            as_shell()
        ));
    }
    if let Some((variable, _)) = words.first().and_then(|first| first.split_once('='))
        && !variable.contains('/')
    {
        return Err(format!("no shell reads it; write the variable {variable:?} in env"));
    }
    Ok(words)
}

fn variables(kind: &Kind, entry: &Entry) -> Read<Item> {
    let (place, value) = one(kind, entry)?;
    let Value::Table(entries) = value else {
        return Err(wrong_type(kind, place, value));
    };
    let (mut pairs, mut faults) = (Vec::new(), Vec::new());
    for entry in entries {
        let read = variable_name(&entry.name)
            .map_err(|message| {
                vec![Wrong {
                    place: entry.key,
                    part: None,
                    message,
                }]
            })
            .and_then(|()| {
                let (place, value) = one(kind, entry)?;
                let text = text_of(kind, place, value)?;
                if text.contains('\0') {
                    return Err(vec![cannot_be(place, text, "leave out the character NUL")]);
                }
                Ok(text.to_owned())
            });
        match read {
            Ok(text) => pairs.push((entry.key, entry.name.clone(), text)),
            Err(wrong) => faults.extend(wrong.into_iter().map(|wrong| Wrong {
                part: Some(entry.name.clone()),
                ..wrong
            })),
        }
    }
    if faults.is_empty() {
        Ok(Item::Variables(pairs))
    } else {
        Err(faults)
    }
}

/// Judges the name of a variable.
///
/// # Errors
/// A process cannot have it, or it is our own; the text follows the name.
pub(super) fn variable_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("is no name of a variable: write one without = and NUL".to_owned());
    }
    if name == "THREADCAST_RUN" {
        return Err("is the mark by which threadcast knows its services: take it out".to_owned());
    }
    Ok(())
}

fn dependencies(kind: &Kind, entry: &Entry) -> Read<Item> {
    let [(_, Value::Table(entries))] = entry.values.as_slice() else {
        let names = each(kind, entry, whole)?;
        let names = names.into_iter().map(|(place, name)| (place, name, None));
        return Ok(Item::Dependencies(names.collect()));
    };
    if entry.is_list {
        return one(kind, entry).map(|_| Item::Dependencies(Vec::new()));
    }
    let words = Kind::Word(&["present", "started", "ready"]);
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    for entry in entries {
        match read(&words, entry, Path::new("")) {
            Ok(Item::Text(word)) => all.push((entry.key, entry.name.clone(), Some(word))),
            Ok(_) => {}
            Err(wrong) => faults.extend(wrong.into_iter().map(|wrong| Wrong {
                part: Some(entry.name.clone()),
                ..wrong
            })),
        }
    }
    if faults.is_empty() {
        Ok(Item::Dependencies(all))
    } else {
        Err(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::settings::kinds::Fallback;
    use crate::supervise::settings::table::SECTIONS;

    #[test]
    fn every_fallback_of_the_table_is_one_that_its_key_takes() {
        for section in SECTIONS {
            for key in section.keys {
                if let (Fallback::Is(text), false) = (key.fallback, matches!(key.kind, Kind::Table(_))) {
                    let read = of_fallback(&key.kind, text, Path::new("/"));
                    assert!(read.is_ok(), "{} {}: {read:?}", section.header, key.name);
                }
            }
        }
    }

    #[test]
    fn names_are_names_of_files_everywhere() {
        for fine in ["a", "worker2", "_x", "a.b-c_d", &"x".repeat(64)] {
            assert_eq!(name(fine), Ok(()), "{fine}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            "a:b",
            &"x".repeat(65),
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
