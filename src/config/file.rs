//! The settings file, `--config FILE`: TOML with a key for each setting.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Something in a settings file that cannot be used: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub path: PathBuf,
    /// `None` when it concerns the whole file.
    pub place: Option<Place>,
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}, {place}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

impl std::error::Error for FileError {}

/// A place in a file: line and column, in characters, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One key of a settings file with its values: one, or those of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// Where the key stands.
    pub key: Place,
    /// Each value, and where it stands.
    pub values: Vec<(Place, Value)>,
    /// The values stand in a list.
    pub is_list: bool,
}

/// A value of a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer or a boolean: the name of its type, and the value as a flag would have it.
    Bare(&'static str, String),
    /// A table with its keys, in their order.
    Table(Vec<Entry>),
    /// Of a type that no setting takes: its name.
    Other(&'static str),
}

impl Value {
    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Text(_) => "string",
            Value::Table(_) => "table",
            Value::Bare(name, _) | Value::Other(name) => name,
        }
    }
}

/// A larger file is a mistake, such as a log or a device.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a text of at most 1 MiB. Blocks on the file, without a bound.
///
/// # Errors
/// It cannot be read, is no UTF-8, or is larger.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Reads the keys of the TOML file at `path`, in their order. Blocks on the file, without a bound.
///
/// # Errors
/// It cannot be read, is larger than 1 MiB, or is not TOML. The text names the file, the place and what is wrong.
pub fn entries(path: &Path) -> Result<Vec<Entry>, FileError> {
    entries_of_text(path, &text_of(path)?)
}

/// Reads the text of the settings file at `path`. Blocks on the file, without a bound.
///
/// # Errors
/// It cannot be read, is no UTF-8, or is larger than 1 MiB.
pub fn text_of(path: &Path) -> Result<String, FileError> {
    read(path).map_err(|error| FileError {
        path: path.to_owned(),
        place: None,
        message: format!("cannot read the settings file: {error}"),
    })
}

/// Reads the keys of a TOML text, in their order. `path` names the text in errors.
///
/// # Errors
/// It is not TOML. The text names the file, the place and what is wrong.
pub fn entries_of_text(path: &Path, text: &str) -> Result<Vec<Entry>, FileError> {
    parse(text).map_err(|(place, message)| FileError {
        path: path.to_owned(),
        place,
        message,
    })
}

#[cfg(feature = "config-file")]
fn parse(text: &str) -> Result<Vec<Entry>, (Option<Place>, String)> {
    let places = Places::of(text);
    let table = toml::de::DeTable::parse(text).map_err(|error| {
        let place = error.span().map(|span| places.of_byte(span.start));
        (place, error.message().to_owned())
    })?;
    Ok(entries_of(table.get_ref(), &places))
}

/// The keys of a table, in their order. A nested table nests as deep as the parser lets it.
#[cfg(feature = "config-file")]
fn entries_of(table: &toml::de::DeTable<'_>, places: &Places<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| {
            let is_list = matches!(value.get_ref(), toml::de::DeValue::Array(_));
            let values: Vec<_> = match value.get_ref() {
                toml::de::DeValue::Array(values) => values.iter().collect(),
                _ => vec![value],
            };
            Entry {
                name: key.get_ref().to_string(),
                key: places.of_byte(key.span().start),
                values: values
                    .into_iter()
                    .map(|value| (places.of_byte(value.span().start), value_of(value.get_ref(), places)))
                    .collect(),
                is_list,
            }
        })
        .collect();
    entries.sort_by_key(|entry| (entry.key.line, entry.key.column));
    entries
}

/// The minimal build reads no settings file.
#[cfg(not(feature = "config-file"))]
fn parse(_text: &str) -> Result<Vec<Entry>, (Option<Place>, String)> {
    let message = "this is the minimal build, which reads no settings file; give the settings as flags, or in the \
                   environment as THREADCAST_SET_PORT and so on";
    Err((None, message.to_owned()))
}

#[cfg(feature = "config-file")]
fn value_of(value: &toml::de::DeValue<'_>, places: &Places<'_>) -> Value {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Bare(value.type_str(), number.to_string()),
        DeValue::Boolean(truth) => Value::Bare(value.type_str(), truth.to_string()),
        DeValue::Table(table) => Value::Table(entries_of(table, places)),
        other => Value::Other(other.type_str()),
    }
}

/// The places of a text's bytes.
#[cfg(feature = "config-file")]
struct Places<'a> {
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
}

#[cfg(feature = "config-file")]
impl<'a> Places<'a> {
    fn of(text: &'a str) -> Places<'a> {
        let begins = text.match_indices('\n').map(|(at, _)| at + 1);
        Places {
            text,
            lines: std::iter::once(0).chain(begins).collect(),
        }
    }

    /// The place of a byte.
    fn of_byte(&self, offset: usize) -> Place {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let line = self.lines.partition_point(|begin| *begin <= end);
        Place {
            line,
            column: self.text[self.lines[line - 1]..end].chars().count() + 1,
        }
    }
}
