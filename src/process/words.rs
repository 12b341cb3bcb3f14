//! Words of messages, in one place: singular and plural, and texts that are cut to a size.

use std::fmt::Display;

/// `1 machine`, `2 machines`, `0 machines`. The noun is a regular one, in the singular.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    if number == N::from(1) {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// The form of a word that goes with `number` things: `pick(1, "is", "are")` is `is`.
pub fn pick<N: PartialEq + From<u8>>(number: N, one: &'static str, more: &'static str) -> &'static str {
    if number == N::from(1) { one } else { more }
}

/// The beginning of `text`, whole lines, at most `most` bytes; and how many bytes are left out.
pub fn cut_at_line(text: &str, most: usize) -> (&str, usize) {
    if text.len() <= most {
        return (text, 0);
    }
    let end = text.as_bytes()[..most]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    // A line end is a character of its own, so this is a boundary.
    (&text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_everything_else_plural() {
        for (number, said) in [
            (0_usize, "0 machines"),
            (1, "1 machine"),
            (2, "2 machines"),
            (11, "11 machines"),
        ] {
            assert_eq!(count(number, "machine"), said);
        }
        assert_eq!((pick(1_u64, "is", "are"), pick(0_u64, "is", "are")), ("is", "are"));
    }

    #[test]
    fn a_text_is_cut_between_lines() {
        assert_eq!(cut_at_line("ab\ncd\n", 6), ("ab\ncd\n", 0));
        assert_eq!(cut_at_line("ab\ncd\n", 5), ("ab\n", 3));
        assert_eq!(cut_at_line("äää\n", 3), ("", 7));
    }
}
