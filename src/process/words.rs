//! Numbers in sentences: singular and plural in one place.

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
}
