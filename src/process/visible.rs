//! Text of others in a line for people: what could drive a terminal, hide, or turn the reading around becomes visible.
//!
//! The log, `tail` and the other commands share this one definition. Unsafe are control characters (general category Cc),
//! line ends of Unicode (Zl, Zp), marks of direction, and every other character that shows nothing
//! (Default_Ignorable_Code_Point of Unicode 16, DerivedCoreProperties.txt, and U+FFF9 to U+FFFB). Joiners and variation
//! selectors stay behind a character outside ASCII: emoji and words of several languages are spelled with them. Behind an
//! ASCII character they could only make two names look alike.

/// `text` with each unsafe character in Rust's escaped spelling, `\u{202e}`.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (character, is_treacherous) in judged(text) {
        if is_treacherous {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Each character of `text`, and whether it is unsafe where it stands.
pub fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut before = None;
    text.chars().map(move |character| {
        let is_treacherous = is_treacherous(character, before);
        // A joiner behind an escape joins nothing.
        before = (!is_treacherous).then_some(character);
        (character, is_treacherous)
    })
}

/// Whether `character` must not be shown as it is behind `before`.
fn is_treacherous(character: char, before: Option<char>) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    match character {
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => before.is_none_or(|before| before.is_ascii()),
        _ => character.is_control() || shows_nothing(character),
    }
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
}
