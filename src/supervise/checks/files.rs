//! Looks at files that a service writes: how old its status file is, and whether something leaves its queue. Blocks on
//! their disks.

use crate::process::clock::pause;
use crate::process::safe_open;
use crate::process::visible::visible;
use crate::process::words::count;
use crate::supervise::checks::elements::Elements;
use crate::supervise::checks::sight::{Figure, Kind, Sight, in_words};
use crate::supervise::probe::{FileState, state_of};
use crate::supervise::settings::plan::QueueFormat;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// A larger queue file is not read.
const QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A file that is half written is read again so often ...
const TRIES: usize = 4;
/// ... after this long.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// The kernel notes the time of a change some milliseconds late. So a file that was changed this shortly before a look
/// may change again and look the same.
const SETTLED: Duration = Duration::from_secs(1);

/// What is known of a status file from the looks before.
#[derive(Clone, Debug, Default)]
pub(super) struct FileMemo {
    state: Option<FileState>,
    /// When that was written, by the clock of looks.
    written: Option<Instant>,
    looked: Option<Instant>,
}

/// Looks how old a file is. Its age counts from `since` at most.
///
/// Time is that of the clock that nobody sets: a new content is no older than the look before, and from then on it ages
/// with us.
pub(super) fn look_at_age(
    path: &Path,
    max_age: Duration,
    memo: &mut FileMemo,
    (since, now): (Instant, Instant),
) -> Sight {
    let state = state_of(path);
    let by_its_clock = || {
        let written = std::fs::metadata(path).and_then(|facts| facts.modified()).ok()?;
        // One of the future was written just now, as far as anybody knows.
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        now.checked_sub(age)
    };
    if state != memo.state || memo.looked.is_none() {
        memo.written = match state {
            Some(_) => Some(by_its_clock().max(memo.looked).unwrap_or(since)),
            None => None,
        };
        memo.state = state;
    }
    memo.looked = Some(now);
    judge_age(path, max_age, memo.written, (since, now))
}

fn judge_age(path: &Path, max_age: Duration, written: Option<Instant>, (since, now): (Instant, Instant)) -> Sight {
    let shown = visible(&path.display().to_string());
    let real = written.map(|written| now.saturating_duration_since(written));
    let is_new = written.is_some_and(|written| written >= since);
    let waited = now.saturating_duration_since(since);
    let age = real.map_or(waited, |real| real.min(waited));
    let (kind, text) = match real {
        Some(real) if is_new => {
            let kind = if age > max_age { Kind::Failing } else { Kind::Well };
            (kind, format!("{shown} is {} old", in_words(real)))
        }
        _ => {
            let kind = if age > max_age { Kind::Failing } else { Kind::Open };
            let what = if real.is_some() {
                "was not written"
            } else {
                "is not there"
            };
            (kind, format!("{shown} {what} in {}", in_words(waited)))
        }
    };
    let figure = Figure {
        age: real,
        ..Figure::default()
    };
    Sight::new(kind, text).with(figure)
}

/// What is known of a queue from the looks before.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueMemo {
    /// What the file was when it was read, if nothing can have changed since without a trace.
    state: Option<FileState>,
    elements: Option<Elements>,
    moves: Moves,
}

/// When something has left last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moves {
    last: Option<Instant>,
    /// Something has left, or nothing waited.
    were_seen: bool,
}

impl Moves {
    /// Something has left, or nothing waits.
    pub(super) fn see(&mut self, now: Instant) {
        (self.last, self.were_seen) = (Some(now), true);
    }

    /// Judges a queue that is not empty.
    pub(super) fn judge(&mut self, what: &str, within: Duration, (since, now): (Instant, Instant)) -> (Kind, String) {
        let last = *self.last.get_or_insert(now);
        let stood = now.saturating_duration_since(last.max(since));
        let kind = match stood > within {
            true => Kind::Failing,
            false if self.were_seen => Kind::Well,
            false => Kind::Open,
        };
        (kind, format!("nothing has left {what} for {}", in_words(stood)))
    }
}

/// Looks whether something leaves a queue. A file that is not there is an empty queue.
pub(super) fn look_at_queue(
    path: &Path,
    format: &QueueFormat,
    within: Duration,
    memo: &mut QueueMemo,
    (since, now): (Instant, Instant),
) -> Sight {
    let shown = visible(&path.display().to_string());
    let state = state_of(path);
    let is_as_before = memo.elements.is_some() && memo.state.is_some() && memo.state == state;
    if !is_as_before {
        let was_empty = memo.elements.as_ref().is_some_and(|elements| elements.count() == 0);
        let now_in_it = match read(path, format, was_empty) {
            Ok(elements) => elements,
            Err(why) => return Sight::new(Kind::Blind, format!("queue damaged: {shown}: {}", visible(&why))),
        };
        let before = memo.elements.replace(now_in_it);
        if let (Some(before), Some(now_in_it)) = (before, &memo.elements)
            && now_in_it.have_lost_one_of(&before)
        {
            memo.moves.see(now);
        }
        memo.state = state.filter(|_| is_settled(path));
    }
    let length = memo.elements.as_ref().map_or(0, Elements::count);
    let figure = Figure {
        length: Some(length),
        ..Figure::default()
    };
    if length == 0 {
        memo.moves.see(now);
        return Sight::new(Kind::Well, format!("{shown} is empty")).with(figure);
    }
    let (kind, text) = memo.moves.judge(&shown, within, (since, now));
    let text = match kind {
        Kind::Failing => format!("{text}, and {} in it", count(length, "element")),
        _ => format!("{} in {shown}", count(length, "element")),
    };
    Sight::new(kind, text).with(figure)
}

/// Looks whether a number falls, which a command has printed.
pub(super) fn look_at_number(
    said: &[u8],
    within: Duration,
    memo: &mut (Option<f64>, Moves),
    (since, now): (Instant, Instant),
) -> Sight {
    let text = String::from_utf8_lossy(said);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let number = match words[..] {
        // As redis-cli shows numbers to people.
        [number] | ["(integer)", number] => number.parse::<f64>().ok().filter(|number| number.is_finite()),
        _ => None,
    };
    let Some(number) = number else {
        let shown: String = visible(text.trim()).chars().take(60).collect();
        return Sight::new(
            Kind::Failing,
            format!("its command printed {shown:?}, which is no number"),
        );
    };
    let (before, moves) = memo;
    if number <= 0.0 || before.replace(number).is_some_and(|before| number < before) {
        moves.see(now);
    }
    let figure = Figure {
        length: Some(number.max(0.0) as u64),
        ..Figure::default()
    };
    if number <= 0.0 {
        *before = Some(number);
        return Sight::new(Kind::Well, "nothing waits").with(figure);
    }
    let (kind, text) = moves.judge("what its command counts", within, (since, now));
    let text = match kind {
        Kind::Failing => format!("{text}, which is {number}"),
        _ => format!("{number} wait"),
    };
    Sight::new(kind, text).with(figure)
}

/// Returns whether a file was changed so long ago that its next change shows.
fn is_settled(path: &Path) -> bool {
    let changed = std::fs::metadata(path).and_then(|facts| facts.modified());
    let age = changed.ok().and_then(|changed| changed.elapsed().ok());
    age.is_some_and(|age| age > SETTLED)
}

/// Reads a queue. One that is being written is read again, because most programs empty the file before they fill it.
fn read(path: &Path, format: &QueueFormat, was_empty: bool) -> Result<Elements, String> {
    let mut last = Err("it changes all the time".to_owned());
    for _ in 0..TRIES {
        let before = state_of(path);
        let text = match contents(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                last = Ok(Elements::default());
                // A file that is replaced in two steps is away for a moment.
                if was_empty {
                    break;
                }
                pause(TRY_AGAIN);
                continue;
            }
            Err(error) => return Err(error.to_string()),
        };
        last = match format {
            QueueFormat::Json { key } => Elements::of_json(&text, key.as_deref()),
            QueueFormat::Lines => Ok(Elements::of_lines(&text)),
        };
        let is_whole = last.is_ok() && (was_empty || !text.is_empty());
        if is_whole && state_of(path) == before {
            break;
        }
        pause(TRY_AGAIN);
    }
    last
}

fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    safe_open::read(path)?
        .take(QUEUE_BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > QUEUE_BYTES_MAX {
        return Err(std::io::Error::other("it has more than 64 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::fs::File;

    const LIMIT: Duration = Duration::from_secs(10);

    fn after(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn a_status_file_ages_from_the_start_and_by_the_clock_of_looks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        fs::write(&path, "{}").unwrap();
        let old = SystemTime::now() - Duration::from_secs(1000);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let (begun, mut memo) = (Instant::now(), FileMemo::default());
        let look = |memo: &mut FileMemo, second| {
            let sight = look_at_age(&path, LIMIT, memo, (begun, after(begun, second)));
            (sight.kind, sight.text, sight.figure.age.unwrap_or_default().as_secs())
        };
        let (kind, text, age) = look(&mut memo, 1);
        assert_eq!(
            (kind, age),
            (Kind::Open, 1000),
            "{text}: nobody had the time to write it"
        );
        let (kind, text, _) = look(&mut memo, 11);
        assert_eq!(kind, Kind::Failing);
        assert!(text.ends_with("status.json was not written in 11 s"), "{text}");
        fs::write(&path, "{\"a\": 1}").unwrap();
        assert_eq!(look(&mut memo, 12).0, Kind::Well);
        // Whatever its own time says: it was seen to change since the look before.
        fs::write(&path, "{\"a\": 10}").unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let (kind, text, age) = look(&mut memo, 14);
        assert_eq!((kind, age), (Kind::Well, 2), "{text}");
        assert_eq!(look(&mut memo, 22).0, Kind::Well);
        assert_eq!(look(&mut memo, 23).0, Kind::Failing);
        fs::remove_file(&path).unwrap();
        let (kind, text, _) = look(&mut memo, 24);
        assert!(
            kind == Kind::Failing && text.ends_with("is not there in 24 s"),
            "{text}"
        );
    }

    fn queue(text: &str, memo: &mut QueueMemo, begun: Instant, second: u64) -> Sight {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.json");
        fs::write(&path, text).unwrap();
        let format = QueueFormat::Json { key: None };
        look_at_queue(&path, &format, LIMIT, memo, (begun, after(begun, second)))
    }

    #[test]
    fn a_queue_that_only_grows_does_not_move() {
        let (begun, mut memo) = (Instant::now(), QueueMemo::default());
        let mut look = |text, second| queue(text, &mut memo, begun, second);
        let first = look("[1]", 0);
        assert_eq!((first.kind, first.figure.length), (Kind::Open, Some(1)));
        assert_eq!(look("[1, 2]", 5).kind, Kind::Open);
        assert_eq!(look("[1, 2, 3]", 10).kind, Kind::Open);
        let sight = look("[1, 2, 3, 4]", 11);
        assert_eq!(sight.kind, Kind::Failing);
        assert!(sight.text.contains("nothing has left") && sight.text.ends_with("for 11 s, and 4 elements in it"));
        assert_eq!(look("[2, 3, 4, 5, 6]", 12).kind, Kind::Well, "one has left");
        assert_eq!(look("[2, 3, 4, 5, 6, 7]", 22).kind, Kind::Well);
        assert_eq!(look("[2, 3, 4, 5, 6, 7]", 23).kind, Kind::Failing);
        assert_eq!(look("[]", 24).kind, Kind::Well);
        assert_eq!(look("[8]", 34).kind, Kind::Well, "it was empty 10 s ago");
        assert_eq!(look("[8]", 35).kind, Kind::Failing);
    }

    #[test]
    fn a_damaged_queue_is_neither_progress_nor_its_end() {
        let (begun, mut memo) = (Instant::now(), QueueMemo::default());
        let mut look = |text, second| queue(text, &mut memo, begun, second);
        assert_eq!(look("[1, 2]", 0).kind, Kind::Open);
        let sight = look("[1, 2", 5);
        assert_eq!(sight.kind, Kind::Blind);
        assert!(sight.text.starts_with("queue damaged: "), "{}", sight.text);
        assert_eq!(look("", 11).kind, Kind::Blind);
        assert_eq!(look("[1, 2, 3]", 12).kind, Kind::Failing, "time went on");
        assert_eq!(look("[2, 3]", 13).kind, Kind::Well);
    }

    #[test]
    fn a_missing_queue_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let (now, mut memo) = (Instant::now(), QueueMemo::default());
        let path = folder.path().join("none");
        let sight = look_at_queue(&path, &QueueFormat::Lines, LIMIT, &mut memo, (now, now));
        assert_eq!((sight.kind, sight.figure.length), (Kind::Well, Some(0)));
        let sight = look_at_queue(folder.path(), &QueueFormat::Lines, LIMIT, &mut memo, (now, now));
        assert_eq!(sight.kind, Kind::Blind, "a folder is none");
    }

    #[test]
    fn a_number_must_fall_unless_it_is_0() {
        let (begun, mut memo) = (Instant::now(), Default::default());
        let mut look =
            |said: &str, second| look_at_number(said.as_bytes(), LIMIT, &mut memo, (begun, after(begun, second)));
        assert_eq!(look("0\n", 0).kind, Kind::Well);
        assert_eq!(look("7", 10).kind, Kind::Well);
        assert_eq!(look("(integer) 9\n", 11).kind, Kind::Failing);
        assert_eq!(look("8", 12).kind, Kind::Well);
        assert_eq!(look("8", 22).kind, Kind::Well);
        assert_eq!(look("8", 23).kind, Kind::Failing);
        for said in ["", "many", "1 2", "nan", "inf"] {
            let sight = look(said, 24);
            assert!(
                sight.kind == Kind::Failing && sight.text.ends_with("which is no number"),
                "{said}"
            );
        }
    }
}
