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
    /// Each value as a flag would have it, and where it stands; what is no such value is the text that says so.
    pub values: Vec<(Place, Result<String, String>)>,
    /// The values stand in a list.
    pub is_list: bool,
}

/// A larger file is a mistake, such as a log or a device.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn read(path: &Path) -> io::Result<String> {
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
    let text = read(path).map_err(|error| FileError {
        path: path.to_owned(),
        place: None,
        message: format!("cannot read the settings file: {error}"),
    })?;
    parse(&text).map_err(|(place, message)| FileError {
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
    let mut entries: Vec<Entry> = table
        .get_ref()
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
                    .map(|value| (places.of_byte(value.span().start), scalar(value.get_ref())))
                    .collect(),
                is_list,
            }
        })
        .collect();
    entries.sort_by_key(|entry| (entry.key.line, entry.key.column));
    Ok(entries)
}

/// The minimal build reads no settings file.
#[cfg(not(feature = "config-file"))]
fn parse(_text: &str) -> Result<Vec<Entry>, (Option<Place>, String)> {
    let message = "this is the minimal build, which reads no settings file; give the settings as flags, or in the \
                   environment as THREADCAST_SET_PORT and so on";
    Err((None, message.to_owned()))
}

/// A value as a flag would have it.
#[cfg(feature = "config-file")]
fn scalar(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        other => Err(format!("cannot be of type {}", other.type_str())),
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
