//! `threadcast services logs`: the ends of the services' logs, and what comes to them, with the services' names.

use crate::commands::end_signals::end_signals;
use crate::commands::painter::Painter;
use crate::commands::{complain, printed};
use crate::process::clock::pause;
use crate::process::exit::ExitStatus;
use crate::process::nearest::nearest;
use crate::process::visible::visible;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

/// Time between two looks at the logs.
const LOOK: Duration = Duration::from_millis(200);
/// What is read of the end of a log to find its last lines.
const END_BYTES: u64 = 256 * 1024;
/// What is read of one log at a time, so that a loud service does not hide the others.
const PART_BYTES: usize = 64 * 1024;
/// A line that is longer is shown in parts.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// The colors of names, by turns (SGR parameters).
const COLORS: [&str; 6] = ["36", "33", "35", "32", "34", "31"];

/// What is to be shown.
#[derive(Debug)]
pub struct Logs {
    /// Of these services; empty: of all.
    pub names: Vec<String>,
    pub follow: bool,
    /// So many of the last lines of each.
    pub lines: usize,
}

/// A log that is read.
struct Source {
    name: String,
    path: PathBuf,
    color: &'static str,
    offset: u64,
    /// The beginning of a line that is not whole.
    rest: Vec<u8>,
}

/// The command, with the document of the supervisor.
pub fn run(document: &Value, logs: &Logs) -> ExitStatus {
    let services = document["services"].as_array().cloned().unwrap_or_default();
    let known: Vec<(String, PathBuf)> = services
        .iter()
        .filter_map(|service| Some((service["name"].as_str()?.to_owned(), service["log"].as_str()?.into())))
        .collect();
    for name in &logs.names {
        if !known.iter().any(|(known, _)| known == name) {
            let names = known.iter().map(|(name, _)| name.as_str());
            let hint = nearest(name, names).map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
            complain(&format!("threadcast: there is no service {:?}{hint}\n", visible(name)));
            return ExitStatus::Failed;
        }
    }
    let wanted = known.into_iter().enumerate();
    let wanted = wanted.filter(|(_, (name, _))| logs.names.is_empty() || logs.names.contains(name));
    let mut sources: Vec<Source> = wanted
        .map(|(number, (name, path))| Source {
            name,
            path,
            color: COLORS[number % COLORS.len()],
            offset: 0,
            rest: Vec::new(),
        })
        .collect();
    let width = sources.iter().map(|source| source.name.len()).max().unwrap_or(0);
    let painter = Painter::of_stdout();
    let show = |source: &Source, lines: &[String]| {
        let head = painter.paint(source.color, &format!("{:width$} |", source.name));
        let text: String = lines.iter().map(|line| format!("{head} {line}\n")).collect();
        printed(&text)
    };
    for source in &mut sources {
        let lines = source.last_lines(logs.lines);
        if let Some(status) = show(source, &lines) {
            return status;
        }
    }
    if !logs.follow {
        return ExitStatus::Fine;
    }
    let signals = end_signals();
    loop {
        for source in &mut sources {
            let lines = source.new_lines();
            if !lines.is_empty()
                && let Some(status) = show(source, &lines)
            {
                return status;
            }
        }
        match &signals {
            Some(signals) if signals.is_requested_within(LOOK) => return ExitStatus::Fine,
            Some(_) => {}
            None => pause(LOOK),
        }
    }
}

impl Source {
    /// The last lines, after which [`Source::new_lines`] goes on. A log that is not there yet has none.
    fn last_lines(&mut self, most: usize) -> Vec<String> {
        let Ok((bytes, from, end)) = self.end() else {
            return Vec::new();
        };
        self.offset = end;
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // Behind the last line break is the beginning of a line, or nothing.
        self.rest = lines.pop().unwrap_or_default().to_vec();
        if from > 0 && !lines.is_empty() {
            lines.remove(0);
        }
        let first = lines.len().saturating_sub(most);
        lines[first..].iter().map(|line| shown(line)).collect()
    }

    /// The end of the log, where it begins, and the size of the log.
    fn end(&self) -> io::Result<(Vec<u8>, u64, u64)> {
        let mut file = File::open(&self.path)?;
        let size = file.metadata()?.len();
        let from = size.saturating_sub(END_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(size - from).read_to_end(&mut bytes)?;
        let end = from + bytes.len() as u64;
        Ok((bytes, from, end))
    }

    /// Lines that have come since. A log that has become shorter was rotated, and is read from its beginning.
    fn new_lines(&mut self) -> Vec<String> {
        let read = || {
            let mut file = File::open(&self.path)?;
            let size = file.metadata()?.len();
            let offset = if size < self.offset { 0 } else { self.offset };
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(PART_BYTES as u64).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>((offset, bytes))
        };
        let Ok((offset, bytes)) = read() else {
            return Vec::new();
        };
        self.offset = offset + bytes.len() as u64;
        self.rest.extend_from_slice(&bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            lines.push(shown(&line[..end]));
        }
        if self.rest.len() > LINE_BYTES_MAX {
            lines.push(shown(&std::mem::take(&mut self.rest)));
        }
        lines
    }
}

/// A line as a terminal may have it.
fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    visible(&String::from_utf8_lossy(line))
}
