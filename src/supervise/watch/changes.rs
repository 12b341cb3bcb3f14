//! What has happened to the files of a watch between two looks. Pure: times and states come in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// By what a file differs once it is written: inode, bytes, seconds and nanoseconds of its change.
pub(super) type State = (u64, u64, i64, i64);

/// What a look has found: the files by their names, below a folder; a file that is watched itself has the empty name.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) files: BTreeMap<OsString, State>,
    /// There are more files behind the last of these names.
    pub(super) is_cut: bool,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Appeared,
    Changed,
    Gone,
    /// It has not changed for the time that the settings name.
    Settled,
}

impl What {
    /// The type of its event.
    pub(super) fn kind(self) -> &'static str {
        match self {
            What::Appeared => "file_appeared",
            What::Changed => "file_changed",
            What::Gone => "file_gone",
            What::Settled => "file_settled",
        }
    }
}

/// A file, and since when it rests.
#[derive(Clone, Copy, Debug)]
struct Seen {
    state: State,
    /// The look that saw it differ from the one before; `None`: it has settled since.
    differed: Option<Instant>,
}

/// The files of one watch.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// `None` before the first look.
    files: Option<BTreeMap<OsString, Seen>>,
    was_cut: bool,
}

impl Changes {
    /// Takes in a look. Returns what has happened since the one before, each change once: a file that goes on changing
    /// says nothing more before it settles. What was there at the first look is no news.
    pub(super) fn take(&mut self, found: Found, settle: Duration, now: Instant) -> Vec<(OsString, What)> {
        let is_first = self.files.is_none();
        let mut before = self.files.take().unwrap_or_default();
        // Names behind the last one of a folder that is too large are unknown, now or at the look before.
        let cut = |is_cut: bool, last: Option<&OsString>| last.filter(|_| is_cut).cloned();
        let ends = [
            cut(self.was_cut, before.keys().next_back()),
            cut(found.is_cut, found.files.keys().next_back()),
        ];
        let is_known = |name: &OsString| ends.iter().flatten().all(|end| name <= end);
        let mut news = Vec::new();
        let mut files = BTreeMap::new();
        for (name, state) in found.files {
            let seen = match before.remove(&name) {
                Some(seen) if seen.state == state => seen,
                Some(seen) => {
                    if seen.differed.is_none() {
                        news.push((name.clone(), What::Changed));
                    }
                    Seen {
                        state,
                        differed: Some(now),
                    }
                }
                None if is_first || !is_known(&name) => Seen { state, differed: None },
                None => {
                    news.push((name.clone(), What::Appeared));
                    Seen {
                        state,
                        differed: Some(now),
                    }
                }
            };
            let has_settled = seen
                .differed
                .is_some_and(|at| now.saturating_duration_since(at) >= settle);
            if has_settled {
                news.push((name.clone(), What::Settled));
            }
            let differed = seen.differed.filter(|_| !has_settled);
            files.insert(name, Seen { differed, ..seen });
        }
        for name in before.into_keys().filter(is_known) {
            news.push((name, What::Gone));
        }
        (self.files, self.was_cut) = (Some(files), found.is_cut);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use What::{Appeared, Changed, Gone, Settled};

    const SETTLE: Duration = Duration::from_secs(2);

    /// A file that is watched itself, over looks a second apart: its inode and size at each, `None` where it is away.
    fn news(looks: &[Option<(u64, u64)>]) -> Vec<Vec<What>> {
        let (mut changes, begun) = (Changes::default(), Instant::now());
        let looks = looks.iter().enumerate().map(|(second, look)| {
            let files = look.map(|(inode, bytes)| (OsString::new(), (inode, bytes, 0, 0)));
            let found = Found {
                files: files.into_iter().collect(),
                is_cut: false,
            };
            let news = changes.take(found, SETTLE, begun + Duration::from_secs(second as u64));
            news.into_iter().map(|(_, what)| what).collect()
        });
        looks.collect()
    }

    #[test]
    fn an_atomic_replacement_is_seen_once_and_settles_once() {
        let old = Some((1, 10));
        let new = Some((2, 20));
        assert_eq!(
            news(&[old, old, new, new, new, new]),
            [vec![], vec![], vec![Changed], vec![], vec![Settled], vec![]]
        );
    }

    #[test]
    fn a_file_that_grows_settles_when_it_rests() {
        let grown = |bytes| Some((1, bytes));
        assert_eq!(
            news(&[None, grown(1), grown(2), grown(3), grown(3), grown(3), None, None]),
            [
                vec![],
                vec![Appeared],
                vec![],
                vec![],
                vec![],
                vec![Settled],
                vec![Gone],
                vec![]
            ]
        );
    }

    #[test]
    fn of_a_folder_that_is_too_large_only_what_is_known_counts() {
        let (mut changes, now) = (Changes::default(), Instant::now());
        let mut take = |names: &[&str], is_cut| {
            let files = names.iter().map(|name| (OsString::from(name), (1, 1, 0, 0))).collect();
            let news = changes.take(Found { files, is_cut }, SETTLE, now);
            let news = news.into_iter().map(|(name, what)| (name.into_string().unwrap(), what));
            news.collect::<Vec<_>>()
        };
        assert_eq!(take(&["b", "c"], true), []);
        assert_eq!(
            take(&["a", "b"], true),
            [("a".to_owned(), Appeared)],
            "c was pushed out"
        );
        assert_eq!(take(&["a", "c"], true), [("b".to_owned(), Gone)], "and came in again");
        assert_eq!(take(&["a", "c", "d"], false), [], "nobody knew of d");
    }

    #[test]
    fn without_a_time_to_settle_it_settles_at_once() {
        let (mut changes, now) = (Changes::default(), Instant::now());
        changes.take(Found::default(), Duration::ZERO, now);
        let files = BTreeMap::from([(OsString::from("a"), (1, 1, 0, 0))]);
        let news = changes.take(Found { files, is_cut: false }, Duration::ZERO, now);
        assert_eq!(news, [("a".into(), Appeared), ("a".into(), Settled)]);
    }
}
