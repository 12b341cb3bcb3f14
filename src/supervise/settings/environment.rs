//! The environment of a service: its own variables, those of all services, ours, and those of files.

use crate::config::file::{FileError, Place, read};
use crate::process::nearest::nearest;
use crate::supervise::settings::plan::Service;
use crate::supervise::settings::scalars::variable_name;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Names and values of an environment.
pub type Environment = BTreeMap<OsString, OsString>;

/// The environment of a service, where `ours` is that of this process: files' variables, then ours, then those of the
/// file of services; what comes later wins. It has neither the mark of services nor PYTHONUNBUFFERED, if nobody set it.
pub fn of_service(service: &Service, ours: &Environment) -> Environment {
    let pairs = |pairs: &[(String, String)]| -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    };
    let mut environment: Environment = pairs(&service.env_below).into_iter().collect();
    environment.extend(ours.iter().map(|(name, value)| (name.clone(), value.clone())));
    environment.extend(pairs(&service.env));
    environment
}

/// The value of PATH there.
pub(super) fn path_of(environment: &Environment) -> Option<&OsStr> {
    environment.get(OsStr::new("PATH")).map(OsString::as_os_str)
}

/// Reads a file of variables, a line each: `KEY=VALUE`, `KEY="VALUE"` or `export KEY=VALUE`; `#` begins a comment, and
/// nothing is expanded. Blocks on the file, without a bound.
///
/// # Errors
/// The file cannot be read, or a line is no variable; each fault with its place in that file.
pub(super) fn read_file(path: &Path) -> Result<Vec<(String, String)>, Vec<FileError>> {
    let text = read(path).map_err(|error| {
        vec![FileError {
            path: path.to_owned(),
            place: None,
            message: error.to_string(),
        }]
    })?;
    let (mut pairs, mut faults) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        match variable(line) {
            Ok(pair) => pairs.extend(pair),
            Err(message) => faults.push(FileError {
                path: path.to_owned(),
                place: Some(Place {
                    line: at + 1,
                    column: 1,
                }),
                message,
            }),
        }
    }
    if faults.is_empty() { Ok(pairs) } else { Err(faults) }
}

/// The variable of a line, if it has one.
fn variable(line: &str) -> Result<Option<(String, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let Some((name, value)) = line.split_once('=') else {
        return Err("this is no variable: write KEY=VALUE, or # before a comment".to_owned());
    };
    let name = name.trim_end();
    if name.chars().any(char::is_whitespace) {
        return Err(format!("{name:?} is no name of a variable: write KEY=VALUE"));
    }
    variable_name(name).map_err(|message| format!("{name:?} {message}"))?;
    if value.contains('\0') {
        return Err(format!("the value of {name} has the character NUL: leave it out"));
    }
    let value = value.trim();
    let quoted = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    Ok(Some((name.to_owned(), quoted.unwrap_or(value).to_owned())))
}

/// What to say of a variable file that is not there.
pub(super) fn unread(key: &str, fault: &FileError, folder: &Path) -> String {
    let wanted = Path::new(&fault.path)
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            entries
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect()
        })
        .unwrap_or_default();
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(nearest) => format!("{key} cannot be used: {fault}; did you mean {nearest:?}?"),
        None => format!("{key} cannot be used: {fault}; make the file, or take the key out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_variable_file_is_read_as_shells_write_it() {
        for (line, expected) in [
            ("A=1", Some(("A", "1"))),
            ("  export B = x y ", Some(("B", "x y"))),
            ("C=\"a b\"", Some(("C", "a b"))),
            ("D='$HOME'", Some(("D", "$HOME"))),
            ("E=", Some(("E", ""))),
            ("F=a=b", Some(("F", "a=b"))),
            ("# A=1", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(variable(line), Ok(expected), "{line}");
        }
        for line in ["A", "=1", "a b=1", "THREADCAST_RUN=x", "A=\0"] {
            assert!(variable(line).is_err(), "{line:?}");
        }
    }
}
