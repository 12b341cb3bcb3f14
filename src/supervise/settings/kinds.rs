//! The kinds of values that keys of the file of services take, and the tables that they stand in.

use crate::process::values::{show_duration, show_size};
use std::time::Duration;

/// A kind of table in the file: which keys it has, and which of them go together.
#[derive(Debug)]
pub struct Section {
    /// As its header is written, with `NAME` for names that people choose; empty for the file itself.
    pub header: &'static str,
    /// What it describes: one sentence, without an end.
    pub about: &'static str,
    pub keys: &'static [Key],
    /// The table needs exactly one of these; empty if any keys may stand together.
    pub one_of: &'static [&'static str],
}

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub fallback: Fallback,
    /// The key counts only beside one of these; empty if it always does.
    pub beside: &'static [&'static str],
    /// What it does: one line, without an end.
    pub help: &'static str,
}

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A fault: the table cannot be without it.
    Required,
    /// This value, as the file would have it; of a table, the fallbacks of its keys.
    Is(&'static str),
    /// Something else, or nothing, in words.
    Says(&'static str),
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// True or false.
    Switch,
    /// A time within bounds.
    Time(Duration, Duration),
    /// A number of bytes within bounds.
    Size(usize, usize),
    /// A number within bounds.
    Count(u64, u64),
    /// Numbers within bounds.
    Counts(u64, u64),
    /// A text that is not empty.
    Text,
    /// Texts that are not empty, in a list, or one alone.
    Texts,
    /// A name that can be part of a file's name.
    Name,
    /// A path, relative to the file's folder.
    Path,
    /// Paths, in a list, or one alone.
    Paths,
    /// The path of a socket, or `none`.
    SocketPath,
    /// A program with its arguments: a list of words, or a line that is split as a shell would.
    Command,
    /// The name of a signal.
    Signal,
    /// `HOST:PORT`.
    Address,
    /// `http://HOST:PORT/PATH`.
    Url,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Some of these words, in a list, or one alone; none is an empty list.
    Words(&'static [&'static str]),
    /// Patterns, in a list, or in one text with `|` between them.
    Patterns,
    /// Names and values of an environment.
    Variables,
    /// What a service waits for.
    Dependencies,
    /// Settings of `serve`.
    Server,
    /// One table.
    Table(&'static Section),
    /// A table for each name that people choose.
    Named(&'static Section),
    /// A list of tables.
    Tables(&'static Section),
}

/// Most characters of a name.
pub const NAME_CHARACTERS_MAX: usize = 64;

impl Section {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Kind {
    /// What it takes, for the docs.
    pub fn takes(&self) -> String {
        match self {
            Kind::Switch => "true or false".to_owned(),
            Kind::Time(least, most) => format!("a time, {} to {}", show_duration(*least), show_duration(*most)),
            Kind::Size(least, most) => format!("a size, {} to {}", show_size(*least), show_size(*most)),
            Kind::Count(least, most) => format!("{least} to {most}"),
            Kind::Counts(least, most) => format!("a list of numbers, {least} to {most}"),
            Kind::Text => "a text".to_owned(),
            Kind::Texts => "a text, or a list of texts".to_owned(),
            Kind::Name => format!("a name: letters, digits, `_ - .`, at most {NAME_CHARACTERS_MAX}"),
            Kind::Path => "a path".to_owned(),
            Kind::Paths => "a path, or a list of paths".to_owned(),
            Kind::SocketPath => "a path of at most 107 bytes, or none".to_owned(),
            Kind::Command => "a command: a list of words, or a text".to_owned(),
            Kind::Signal => "the name of a signal, such as TERM".to_owned(),
            Kind::Address => "HOST:PORT".to_owned(),
            Kind::Url => "a URL that begins with http://".to_owned(),
            Kind::Word(words) => alternatives(words, "or"),
            Kind::Words(words) => format!("a list of {}", alternatives(words, "and")),
            Kind::Patterns => "globs with * and ?, in a list or with `|` between them".to_owned(),
            Kind::Variables => "a table: NAME = value".to_owned(),
            Kind::Dependencies => "a table: NAME = present, started or ready; or a list of names".to_owned(),
            Kind::Server => "the keys of `threadcast serve --config`".to_owned(),
            Kind::Table(section) | Kind::Named(section) | Kind::Tables(section) => {
                format!("a table, see `{}`", section.header)
            }
        }
    }

    /// What to write in place of a value of another type, as a text that ends a sentence.
    pub fn wanted(&self) -> String {
        match self {
            Kind::Switch => "write true or false".to_owned(),
            Kind::Time(least, most) => format!(
                "write a time such as \"500ms\", \"10s\" or \"2m\", from {} to {}",
                show_duration(*least),
                show_duration(*most)
            ),
            Kind::Size(least, most) => format!(
                "write a size such as \"256KiB\" or \"1MiB\", from {} to {}",
                show_size(*least),
                show_size(*most)
            ),
            Kind::Count(least, most) => format!("write a whole number from {least} to {most}"),
            Kind::Counts(least, most) => format!("write a list of whole numbers from {least} to {most}"),
            Kind::Text | Kind::Name | Kind::Path => "write a text in quotes".to_owned(),
            Kind::Texts | Kind::Paths | Kind::Patterns => "write a text in quotes, or a list of texts".to_owned(),
            Kind::SocketPath => "write the path of a socket in quotes, or \"none\"".to_owned(),
            Kind::Command => "write a program with its arguments, such as [\"python3\", \"worker.py\"]".to_owned(),
            Kind::Signal => "write the name of a signal in quotes, such as \"TERM\"".to_owned(),
            Kind::Address => "write \"HOST:PORT\", such as \"localhost:6379\"".to_owned(),
            Kind::Url => "write a URL in quotes, such as \"http://localhost:8000/health\"".to_owned(),
            Kind::Word(words) => format!("write {}", alternatives(words, "or")),
            Kind::Words(words) => format!("write a list of {}", alternatives(words, "and")),
            Kind::Variables => "write a table of texts, such as { LOG_LEVEL = \"info\" }".to_owned(),
            Kind::Dependencies => {
                "write a table such as { redis = \"present\", worker = \"ready\" }, or a list of names".to_owned()
            }
            Kind::Server => "write a table [server] with the keys of `threadcast serve --config`".to_owned(),
            Kind::Table(section) | Kind::Tables(section) => format!("write a table {}", section.header),
            Kind::Named(section) => format!("write a table for each of them, {}", section.header),
        }
    }
}

/// The words as a text: `a, b or c`.
pub(super) fn alternatives(words: &[&str], and: &str) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}
