//! What a terminal shows and what its user asks for, as the environment says: TERM, NO_COLOR, the locale, the time
//! zone.
//!
//! The environment is read at each call; nothing in the program changes it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::IsTerminal;
use time::UtcOffset;

/// Returns whether the terminal only prints what comes: TERM is unset, empty or `dumb`. It then gets neither colors nor
/// a line that is rewritten.
pub fn is_dumb() -> bool {
    is_dumb_in(variable)
}

/// Returns whether NO_COLOR is set and not empty (<https://no-color.org>).
pub fn forbids_colors() -> bool {
    variable("NO_COLOR").is_some()
}

/// Returns whether the locale is C or POSIX, and says so: the first of LC_ALL, LC_CTYPE and LANG that is set and not
/// empty counts. A locale that nobody has set is not taken for C, because services and containers often have none and
/// their logs are read elsewhere.
pub fn is_ascii() -> bool {
    is_ascii_in(variable)
}

/// Characters that terminals draw two columns wide: the wide ranges of East Asian Width (Unicode UAX #11), and emoji.
const WIDE: [(char, char); 13] = [
    ('\u{1100}', '\u{115f}'),
    ('\u{2e80}', '\u{303e}'),
    ('\u{3041}', '\u{a4cf}'),
    ('\u{a960}', '\u{a97f}'),
    ('\u{ac00}', '\u{d7a3}'),
    ('\u{f900}', '\u{faff}'),
    ('\u{fe30}', '\u{fe6f}'),
    ('\u{ff00}', '\u{ff60}'),
    ('\u{ffe0}', '\u{ffe6}'),
    ('\u{1f000}', '\u{1f0ff}'),
    ('\u{1f200}', '\u{1f64f}'),
    ('\u{1f680}', '\u{1faff}'),
    ('\u{20000}', '\u{3fffd}'),
];

/// The columns that a terminal draws the character in. A mark that it draws over the one before counts as one.
pub fn columns_of(character: char) -> usize {
    let is_wide = WIDE.iter().any(|(first, last)| (first..=last).contains(&&character));
    if is_wide { 2 } else { 1 }
}

/// The columns that a terminal draws `text` in.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// The first of these characters that `room` columns can hold, each drawn in as many as `columns_of` says.
pub fn first_of(characters: impl Iterator<Item = char>, room: usize, columns_of: impl Fn(char) -> usize) -> String {
    let mut left = room;
    let fits = |character: &char| match left.checked_sub(columns_of(*character)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    characters.take_while(fits).collect()
}

/// The zone of local time, as it is now: a change to or from summer time while the program runs does not move it. UTC
/// if the system does not tell, as it does to a process of several threads.
pub fn local_offset() -> UtcOffset {
    UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC)
}

/// The zone for people: `UTC`, or `UTC+02:00`.
pub fn offset_name(offset: UtcOffset) -> String {
    if offset.is_utc() {
        return "UTC".to_owned();
    }
    let (hours, minutes, _) = offset.as_hms();
    let sign = if offset.is_negative() { '-' } else { '+' };
    format!("UTC{sign}{:02}:{:02}", hours.unsigned_abs(), minutes.unsigned_abs())
}

/// `text` as the stream `out` shows it: on a terminal of locale C in ASCII, as [`plain`] makes it, else as it is.
pub fn shown<'a>(text: &'a str, out: &impl IsTerminal) -> Cow<'a, str> {
    if is_ascii() && out.is_terminal() {
        plain(text)
    } else {
        Cow::Borrowed(text)
    }
}

/// `text` for a terminal that has only ASCII: without the emoji that our lines begin with, and with ASCII for our own
/// punctuation. Names and texts of others stay as they are.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        push_plain(line, &mut out);
    }
    Cow::Owned(out)
}

/// Puts one line behind `out` as [`plain`] shows it. It is never longer than `line`, so this takes no memory where
/// `out` has room for that.
pub fn push_plain(line: &str, out: &mut String) {
    let mut rest = without_marks(line);
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '…' => out.push_str("..."),
            // What is quoted may be the beginning of a line of ours.
            '“' => {
                out.push('"');
                rest = without_marks(rest);
            }
            '”' => out.push('"'),
            other => out.push(other),
        }
    }
}

/// `text` without the emoji that it begins with and the spaces behind them.
fn without_marks(text: &str) -> &str {
    let rest = text.trim_start_matches(|character: char| !character.is_ascii() && !character.is_alphanumeric());
    if rest.len() == text.len() {
        text
    } else {
        rest.trim_start_matches(' ')
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn is_dumb_in(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_none_or(|term| term == "dumb")
}

fn is_ascii_in(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
    locale.is_some_and(|locale| locale == "C" || locale == "POSIX")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        }
    }

    #[test]
    fn only_a_locale_that_says_c_is_ascii() {
        for (variables, expected) in [
            (&[][..], false),
            (&[("LANG", "C")], true),
            (&[("LANG", "POSIX")], true),
            (&[("LANG", "C.UTF-8")], false),
            (&[("LC_CTYPE", "C"), ("LANG", "de_DE.UTF-8")], true),
            (&[("LC_CTYPE", "de_DE.UTF-8"), ("LANG", "C")], false),
            (&[("LC_ALL", "C"), ("LC_CTYPE", "de_DE.UTF-8")], true),
            (&[("LC_ALL", "C.UTF-8"), ("LC_CTYPE", "C")], false),
        ] {
            assert_eq!(is_ascii_in(given(variables)), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_terminal_without_a_name_is_dumb() {
        assert!(is_dumb_in(given(&[])));
        assert!(is_dumb_in(given(&[("TERM", "dumb")])));
        assert!(!is_dumb_in(given(&[("TERM", "xterm")])));
    }

    #[test]
    fn our_marks_go_and_names_stay() {
        for (text, expected) in [
            ("⚠️  fanout is late: 1.0s", "fanout is late: 1.0s"),
            ("🚨 machine päivä 🚀 sends", "machine päivä 🚀 sends"),
            ("… 5 KB more are in the file\n", "5 KB more are in the file\n"),
            (
                "⚠️ 3 more lines like “⚠️ dropped an event…” were left out",
                "3 more lines like \"dropped an event...\" were left out",
            ),
            (
                "  #0 main at a.rs:1\n📍 log  busy\n",
                "  #0 main at a.rs:1\nlog  busy\n",
            ),
        ] {
            assert_eq!(plain(text), expected);
        }
        assert!(plain("“…”").len() <= "“…”".len(), "no memory is taken");
    }

    #[test]
    fn zones_have_names() {
        let name = |hours, minutes| offset_name(UtcOffset::from_hms(hours, minutes, 0).unwrap());
        assert_eq!(name(0, 0), "UTC");
        assert_eq!(name(2, 0), "UTC+02:00");
        assert_eq!(name(-3, -30), "UTC-03:30");
        assert_eq!(name(0, -30), "UTC-00:30");
    }
}
