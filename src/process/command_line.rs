//! A command line as people write it: words, with quotes as a shell has them. Nothing is expanded, and no shell runs.

/// Splits a line into its words: spaces, tabs and line ends lie between them. `'...'` is taken as it is; in `"..."` a
/// backslash before `"`, `\`, `$` or a backquote stands for that character alone; outside of quotes a backslash takes
/// the next character as it is.
///
/// # Errors
/// A quote is not closed, the line ends with a backslash, or a word has a character NUL, which no program can be given;
/// the text says what would be right.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    if line.contains('\0') {
        return Err("a program cannot be given the character NUL; leave it out".to_owned());
    }
    let mut words = Vec::new();
    // `None` between words; quotes alone make an empty one.
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => quoted(&mut rest, word.get_or_insert_default())?,
            '"' => double_quoted(&mut rest, word.get_or_insert_default())?,
            '\\' => {
                let next = rest.next().ok_or("it ends with a backslash; write \\\\ for one")?;
                word.get_or_insert_default().push(next);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(rest: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    let (text, behind) = rest.as_str().split_once('\'').ok_or("a quote ' is not closed")?;
    word.push_str(text);
    *rest = behind.chars();
    Ok(())
}

fn double_quoted(rest: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    loop {
        match rest.next().ok_or("a quote \" is not closed")? {
            '"' => return Ok(()),
            '\\' => match rest.next().ok_or("a quote \" is not closed")? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
}

/// Joins words to a line that [`split`] takes apart into the same words.
pub fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(shown).collect();
    words.join(" ")
}

/// A word as it can be written; in single quotes if it has anything but letters and usual signs.
fn shown(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "-_./:=@%+,".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (line, words) in [
            ("", &[][..]),
            ("  ", &[]),
            ("curl -d @- http://x/y", &["curl", "-d", "@-", "http://x/y"]),
            ("a\t b\n", &["a", "b"]),
            ("sh -c 'echo \"$0\" \\'", &["sh", "-c", "echo \"$0\" \\"]),
            (r#"a "b \"c\" \\ \$x \n" d"#, &["a", r#"b "c" \ $x \n"#, "d"]),
            (r"a\ b \'c", &["a b", "'c"]),
            ("''", &[""]),
            (r#"x""'y'z"#, &["xyz"]),
            ("ä '🚀 b'", &["ä", "🚀 b"]),
            ("$HOME ~ *", &["$HOME", "~", "*"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line:?}");
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for (line, part) in [
            ("a 'b", "' is not closed"),
            ("a \"b", "\" is not closed"),
            ("a \"b\\", "\" is not closed"),
            ("a \\", "ends with a backslash"),
            ("a\0", "NUL"),
        ] {
            let wanted = split(line).unwrap_err();
            assert!(wanted.contains(part), "{line:?}: {wanted}");
        }
    }

    #[test]
    fn joined_words_come_apart_as_they_were() {
        let mut rng = fastrand::Rng::with_seed(1);
        let signs: Vec<char> = "ab'\"\\ $`\n\té🚀=#|;".chars().collect();
        for _ in 0..20_000 {
            let words: Vec<String> = (0..rng.usize(0..4))
                .map(|_| (0..rng.usize(0..6)).map(|_| signs[rng.usize(..signs.len())]).collect())
                .collect();
            let line = join(words.iter().map(String::as_str));
            assert_eq!(split(&line).as_ref(), Ok(&words), "{line}");
        }
    }
}
