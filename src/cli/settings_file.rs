//! The file of settings, `--config FILE`: TOML with a key for each flag of `serve`.

use crate::config::Config;
#[cfg(feature = "config-file")]
use crate::config::table::{Setting, unknown};
use std::fmt;
use std::path::{Path, PathBuf};

/// A settings file that could not be used: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub path: PathBuf,
    /// Counted from 1; `None` when it concerns the whole file.
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

impl std::error::Error for FileError {}

/// Reads the TOML file at `path` into `config`.
///
/// # Errors
/// It cannot be read, is not TOML, or has a key or a value that we do not know. The text names the file, the line and
/// what would be right, for the person who wrote it.
#[cfg(feature = "config-file")]
pub(super) fn read(path: &Path, config: &mut Config) -> Result<(), FileError> {
    let error = |line, message| FileError {
        path: path.to_owned(),
        line,
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(None, format!("cannot read the settings file: {e}")))?;
    let line_at = |offset: usize| Some(text[..offset.min(text.len())].matches('\n').count() + 1);
    let table = toml::de::DeTable::parse(&text).map_err(|e| {
        let line = e.span().and_then(|span| line_at(span.start));
        error(line, e.message().to_owned())
    })?;
    for (key, value) in table.get_ref() {
        let line = line_at(key.span().start);
        let Some(setting) = Setting::find(key.get_ref()) else {
            return Err(error(line, unknown(key.get_ref())));
        };
        for value in scalars(value.get_ref(), setting.repeats)
            .map_err(|wrong| error(line, format!("{} cannot be {wrong}", setting.name)))?
        {
            setting.set(config, &value).map_err(|e| error(line, e.to_string()))?;
        }
    }
    Ok(())
}

/// The minimal build reads no settings file.
///
/// # Errors
/// Always: the text tells the person to give the settings as flags.
#[cfg(not(feature = "config-file"))]
pub(super) fn read(path: &Path, _config: &mut Config) -> Result<(), FileError> {
    Err(FileError {
        path: path.to_owned(),
        line: None,
        message: "this is the minimal build, which reads no settings file; give the settings as flags".to_owned(),
    })
}

#[cfg(feature = "config-file")]
fn scalars(value: &toml::de::DeValue<'_>, repeats: bool) -> Result<Vec<String>, String> {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Ok(vec![text.to_string()]),
        DeValue::Integer(number) => Ok(vec![number.to_string()]),
        DeValue::Boolean(truth) => Ok(vec![truth.to_string()]),
        DeValue::Array(values) if repeats => {
            let each = values.iter().map(|value| scalars(value.get_ref(), false));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        }
        other => Err(format!("of type {}", other.type_str())),
    }
}

#[cfg(test)]
#[cfg(feature = "config-file")]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("threadcast.toml");
        std::fs::write(&path, text).unwrap();
        let mut config = Config::default();
        read(&path, &mut config)
            .map(|()| config)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_settings_file_sets_what_flags_set() {
        let config = file(
            "port = 8765\nping-interval = \"5s\"\nallow-drill = true\nallow-origin = [\"https://a\", \"https://b\"]",
        )
        .unwrap();
        assert_eq!((config.port, config.ping_interval.as_secs()), (8765, 5));
        assert_eq!(config.allow_origin, ["https://a", "https://b"]);
    }

    #[test]
    fn a_fault_in_a_settings_file_comes_with_its_line() {
        let cases = [
            (
                "port = 1\nprot = 2",
                "FILE, line 2: there is no setting \"prot\"; did you mean \"port\"?",
            ),
            (
                "\n\nport = \"x\"",
                "FILE, line 3: port cannot be \"x\": write a whole number from 0 to 65535",
            ),
            ("host = [\"a\"]", "FILE, line 1: host cannot be of type array"),
        ];
        for (text, expected) in cases {
            assert_eq!(file(text).unwrap_err(), expected);
        }
        assert!(file("host = ").unwrap_err().starts_with("FILE, line 1: "));
    }
}
