//! Words of messages, in one place: singular and plural, sizes, and texts that are cut to a size.

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

/// `1.5 KiB`: bytes in the unit, a multiple of 1024, in which they have one to four digits.
pub fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1023.5 {
            return match unit {
                "B" => format!("{value:.0} B"),
                unit if value < 9.95 => format!("{value:.1} {unit}"),
                unit => format!("{value:.0} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
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
    fn a_size_has_one_to_four_digits() {
        let shown = [0.0, 1023.0, 1023.6, 1536.0, 1023.4 * 1024.0, 67_108_864.0, 5e12].map(size);
        let sizes = [
            "0 B",
            "1023 B",
            "1.0 KiB",
            "1.5 KiB",
            "1023 KiB",
            "64 MiB",
            "4656.6 GiB",
        ];
        assert_eq!(shown, sizes);
    }

    #[test]
    fn a_text_is_cut_between_lines() {
        assert_eq!(cut_at_line("ab\ncd\n", 6), ("ab\ncd\n", 0));
        assert_eq!(cut_at_line("ab\ncd\n", 5), ("ab\n", 3));
        assert_eq!(cut_at_line("äää\n", 3), ("", 7));
    }
}
