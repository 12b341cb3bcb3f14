//! Globs: `*` stands for any characters, `?` for one.

/// Returns whether `glob` matches the whole of `text`. Takes at most the product of their lengths.
pub fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    // The last star, and where in the text what stands behind it is tried.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(b'?') => {
                g += 1;
                t += 1;
                // One character, not one byte.
                while t < text.len() && text[t] & 0xc0 == 0x80 {
                    t += 1;
                }
            }
            Some(byte) if *byte == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else {
                    return false;
                };
                star = Some((at, from + 1));
                (g, t) = (at + 1, from + 1);
            }
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks_stand_for_what_they_should() {
        for (glob, text, does) in [
            ("dramatiq", "dramatiq", true),
            ("dramatiq", "dramatiq2", false),
            ("*spawn*main*", "from x.spawn import spawn_main; spawn_main(3)", true),
            ("*a*b", "xaybzb", true),
            ("*a*b", "xaybz", false),
            ("?.py", "ä.py", true),
            ("?.py", "ab.py", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(glob, text), does, "{glob} {text}");
        }
    }
}
