//! Text of others in a line for people: what could drive a terminal, hide, or turn the reading around becomes visible.
//!
//! The log, `tail` and the other commands share this one definition. Unsafe are control characters (general category
//! Cc), line ends of Unicode (Zl, Zp), marks of direction, and every other character that shows nothing
//! (Default_Ignorable_Code_Point of Unicode 16, DerivedCoreProperties.txt, and U+FFF9 to U+FFFB). Joiners and variation
//! selectors stay behind a character outside ASCII, two of them at most: emoji and words of several languages are
//! spelled with them. Behind an ASCII character they could only make two names look alike, and a row of them could hide
//! a message or fill a line. Marks that combine with the character before stay too, as many as a language may need.

/// Joiners and variation selectors behind one character: an emoji of two parts has one of each between them.
const JOINERS_MAX: usize = 2;
/// Marks and joiners behind one character. Unicode's Stream-Safe Text Format (UAX #15) allows as many, more than any
/// language writes; terminals draw a longer row over the lines above.
const MARKS_MAX: usize = 30;

/// `text` with each unsafe character in Rust's escaped spelling, `\u{202e}`.
pub fn visible(text: &str) -> String {
    escaped(text, |_| false)
}

/// The same for a text of several lines: line feeds and tabs stay.
pub fn visible_lines(text: &str) -> String {
    escaped(text, |character| matches!(character, '\n' | '\t'))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (character, is_treacherous) in judged(text) {
        if is_treacherous && !stays(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// JSON text on a terminal: unsafe characters, which stand inside strings only, become escapes. It stays the same
/// value.
pub fn visible_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for (character, is_treacherous) in judged(json) {
        if is_treacherous && character != '\t' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(character);
        }
    }
    text
}

/// Each character of `text`, and whether it is unsafe where it stands.
pub fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut before = Before::default();
    text.chars().map(move |character| {
        let is_treacherous = is_treacherous(character, &before);
        before.add(character, is_treacherous);
        (character, is_treacherous)
    })
}

/// What a character stands behind.
#[derive(Debug, Default)]
struct Before {
    /// The character that marks and joiners belong to lies outside ASCII.
    is_foreign: bool,
    joiners: usize,
    /// Joiners too.
    marks: usize,
}

impl Before {
    fn add(&mut self, character: char, is_treacherous: bool) {
        match (is_treacherous, is_mark(character)) {
            // A joiner behind an escape joins nothing.
            (true, false) => *self = Before::default(),
            (true, true) => self.is_foreign = false,
            (false, true) => {
                self.marks += 1;
                self.joiners += usize::from(is_joiner(character));
                // A mark behind an ASCII character makes one of another alphabet of it.
                self.is_foreign |= !is_joiner(character);
            }
            (false, false) => {
                *self = Before {
                    is_foreign: !character.is_ascii(),
                    ..Before::default()
                }
            }
        }
    }
}

/// Returns whether `character` must not be shown as it is behind `before`.
fn is_treacherous(character: char, before: &Before) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    if is_joiner(character) {
        return !before.is_foreign || before.joiners >= JOINERS_MAX || before.marks >= MARKS_MAX;
    }
    character.is_control() || shows_nothing(character) || before.marks >= MARKS_MAX && is_mark(character)
}

fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

/// Returns whether it combines with the character before, or joins. The standard library's `Debug` knows the former: it
/// escapes them (Grapheme_Extend) at the beginning of a text and not behind another character, and what cannot be
/// printed in both places.
fn is_mark(character: char) -> bool {
    if is_joiner(character) || character.is_ascii() {
        return is_joiner(character);
    }
    let mut bytes = [b'a'; 5];
    let len = 1 + character.encode_utf8(&mut bytes[1..]).len();
    let behind = str::from_utf8(&bytes[..len]).unwrap_or_default();
    character.escape_debug().len() > 1 && behind.escape_debug().count() == 2
}

/// Line ends, marks of direction and the rest of Default_Ignorable_Code_Point.
fn shows_nothing(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_is_shown() {
        for treacherous in [
            '\0',
            '\u{7}',
            '\t',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e007f}',
            '\u{e0100}',
        ] {
            let shown = visible(&format!("ü{treacherous}b"));
            assert_eq!(shown, format!("ü{}b", treacherous.escape_default()), "{treacherous:?}");
        }
    }

    #[test]
    fn words_and_emoji_stay_as_they_are() {
        for text in [
            "worker 1",
            "päivä",
            "é",
            "e\u{301}",
            "👩\u{200d}🚀",
            "❤\u{fe0f}",
            "می\u{200c}خواهم",
            "工人",
        ] {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn a_joiner_makes_no_second_name_that_looks_the_same() {
        assert_eq!(visible("w\u{200d}1"), "w\\u{200d}1");
        assert_eq!(visible("\u{fe0f}w"), "\\u{fe0f}w");
        assert_eq!(visible("ü\u{200b}\u{200d}"), "ü\\u{200b}\\u{200d}");
    }

    #[test]
    fn a_row_of_joiners_or_marks_has_a_bound() {
        let row = |mark: &str, count: usize| format!("ü{}x", mark.repeat(count));
        assert_eq!(visible(&row("\u{200d}", 3)), "ü\u{200d}\u{200d}\\u{200d}x");
        assert_eq!(
            visible(&row("\u{200d}\u{fe0f}", 2)),
            "ü\u{200d}\u{fe0f}\\u{200d}\\u{fe0f}x"
        );
        assert_eq!(visible(&row("\u{301}", 30)), row("\u{301}", 30));
        assert_eq!(
            visible(&row("\u{301}", 1000)),
            format!("ü{}{}x", "\u{301}".repeat(30), "\\u{301}".repeat(970))
        );
        // Behind a letter of ASCII too, and a joiner between them changes nothing.
        let mixed = visible(&format!("a{}", "\u{301}\u{200d}".repeat(100)));
        assert_eq!(mixed.matches('\u{200d}').count(), 2, "{mixed}");
        assert!(mixed.matches('\u{301}').count() <= 30, "{mixed}");
        // What is no mark has no bound, also where the standard library would not print it.
        for text in ["\u{3000}", "\u{e0b0}", "字"] {
            assert_eq!(visible(&row(text, 100)), row(text, 100));
        }
        // The next character may have its own.
        assert_eq!(visible("ü\u{200d}\u{200d}ü\u{200d}"), "ü\u{200d}\u{200d}ü\u{200d}");
    }

    #[test]
    fn a_text_keeps_its_lines() {
        assert_eq!(visible_lines("a\tb\n\u{1b}[2Jc\r\n"), "a\tb\n\\u{1b}[2Jc\\r\n");
    }
}
