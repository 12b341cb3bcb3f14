//! Looks for a line in a service's log, in what has come since the look before. Blocks on its disk.

use crate::process::visible::visible;
use crate::supervise::checks::sight::{Figure, Kind, Sight, in_words};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is read of a log at a time.
const PART_BYTES: usize = 64 * 1024;
/// Of more than this since the last look only the end is read: the newest line counts.
const LOOK_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What is known from the looks before.
#[derive(Clone, Debug, Default)]
pub(super) struct LogMemo {
    /// The file, and how far it has been read.
    read: Option<(u64, u64)>,
    /// The end of that, in which the text may begin.
    tail: Vec<u8>,
    /// When the look was that found the text last.
    found: Option<Instant>,
}

/// Looks how old the newest line with `text` is. `first` is where the first look begins; `None`: at the end.
///
/// A log that has become shorter was copied and emptied: it is read from its beginning.
pub(super) fn look_at_log(
    (path, text): (&Path, &str),
    max_age: Duration,
    first: Option<u64>,
    memo: &mut LogMemo,
    (since, now): (Instant, Instant),
) -> Sight {
    match go_on(path, text.as_bytes(), first, memo) {
        Ok(true) => memo.found = Some(now),
        Ok(false) => {}
        Err(error) => return Sight::new(Kind::Blind, format!("its log cannot be read: {error}")),
    }
    let real = memo.found.map(|found| now.saturating_duration_since(found));
    let waited = now.saturating_duration_since(since);
    let kind = match real {
        _ if real.unwrap_or(waited).min(waited) > max_age => Kind::Failing,
        Some(_) if memo.found >= Some(since) => Kind::Well,
        _ => Kind::Open,
    };
    let shown = visible(text);
    let seen = match real {
        Some(real) => format!("the newest {shown:?} in its log is {} old", in_words(real)),
        None => format!("its log has no {shown:?} in {}", in_words(waited)),
    };
    let figure = Figure {
        age: real,
        ..Figure::default()
    };
    Sight::new(kind, seen).with(figure)
}

/// Reads on. Returns whether the text was there.
fn go_on(path: &Path, text: &[u8], first: Option<u64>, memo: &mut LogMemo) -> std::io::Result<bool> {
    let mut log = File::open(path)?;
    let facts = log.metadata()?;
    let (file, length) = (facts.ino(), facts.len());
    let mut from = match memo.read {
        Some((known, read)) if known == file && read <= length => read,
        Some(_) => 0,
        None => first.map_or(length, |first| if first <= length { first } else { 0 }),
    };
    if memo.read != Some((file, from)) {
        memo.tail.clear();
    }
    if length - from > LOOK_BYTES_MAX {
        from = length - LOOK_BYTES_MAX;
        memo.tail.clear();
    }
    log.seek(SeekFrom::Start(from))?;
    let mut is_found = text.is_empty();
    let mut window = std::mem::take(&mut memo.tail);
    while from < length {
        let before = window.len();
        window.resize(before + PART_BYTES, 0);
        let more = log.read(&mut window[before..])?;
        window.truncate(before + more);
        if more == 0 {
            break;
        }
        from += more as u64;
        is_found = is_found || window.windows(text.len()).any(|part| part == text);
        // What may be the beginning of it.
        window.drain(..window.len().saturating_sub(text.len().saturating_sub(1)));
    }
    (memo.read, memo.tail) = (Some((file, from)), window);
    Ok(is_found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    #[test]
    fn a_line_counts_from_the_look_that_finds_it_also_over_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.log");
        fs::write(&path, "of before: done\n").unwrap();
        let (begun, mut memo) = (Instant::now(), LogMemo::default());
        let limit = Duration::from_secs(10);
        let mut look = |second| {
            let now = begun + Duration::from_secs(second);
            look_at_log((&path, "done"), limit, Some(16), &mut memo, (begun, now)).kind
        };
        let append = |text: &str| {
            let mut log = File::options().append(true).open(&path).unwrap();
            log.write_all(text.as_bytes()).unwrap();
        };
        assert_eq!(look(1), Kind::Open);
        append("job 1 do");
        assert_eq!(look(5), Kind::Open);
        append("ne\n");
        assert_eq!(look(6), Kind::Well, "it was written in two parts");
        append("job 2\n");
        assert_eq!(look(16), Kind::Well);
        assert_eq!(look(17), Kind::Failing);
        // Copied and emptied; what it has now is new.
        fs::write(&path, "done\n").unwrap();
        assert_eq!(look(18), Kind::Well);
        assert_eq!(look(29), Kind::Failing);
    }

    #[test]
    fn of_a_service_that_was_taken_over_only_new_lines_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.log");
        fs::write(&path, "done\n").unwrap();
        let (now, mut memo) = (Instant::now(), LogMemo::default());
        let sight = look_at_log((&path, "done"), Duration::from_secs(10), None, &mut memo, (now, now));
        assert_eq!(sight.kind, Kind::Open, "{}", sight.text);
        fs::remove_file(&path).unwrap();
        let sight = look_at_log((&path, "done"), Duration::from_secs(10), None, &mut memo, (now, now));
        assert_eq!(sight.kind, Kind::Blind, "{}", sight.text);
    }
}
