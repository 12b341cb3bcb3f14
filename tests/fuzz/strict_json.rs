//! A recogniser of RFC 8259, written from its grammar alone, to hold the server's check against, and a reader of
//! members. Slow and plain.

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    /// JSON of another type.
    Other,
    NotJson,
}

/// Judges `text`.
pub fn kind_of(text: &str) -> Kind {
    let mut reader = Reader(text.as_bytes());
    reader.space();
    let is_object = reader.0.first() == Some(&b'{');
    let whole = reader.value().is_some() && {
        reader.space();
        reader.0.is_empty()
    };
    match (whole, is_object) {
        (false, _) => Kind::NotJson,
        (true, true) => Kind::Object,
        (true, false) => Kind::Other,
    }
}

/// The members of an object that [`kind_of`] takes for one, in order: the key as JavaScript has it, and the value's
/// text.
pub fn members(text: &str) -> Vec<(Vec<u16>, &str)> {
    let mut reader = Reader(text.as_bytes());
    reader.space();
    reader.eat(b'{').expect("it is an object");
    reader.space();
    let mut members = Vec::new();
    while reader.eat(b'}').is_none() {
        let _ = reader.eat(b',');
        reader.space();
        let key = reader.text(text, Reader::string);
        reader.space();
        reader.eat(b':').expect("it is an object");
        reader.space();
        let value = reader.text(text, Reader::value);
        reader.space();
        members.push((string(key).expect("a key is a string"), value));
    }
    members
}

/// The characters of a string of JSON as JavaScript has them, where half a character is one too; `None` for another
/// value.
pub fn string(quoted: &str) -> Option<Vec<u16>> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut units = Vec::new();
    let mut signs = inner.chars();
    while let Some(sign) = signs.next() {
        if sign != '\\' {
            units.extend_from_slice(sign.encode_utf16(&mut [0; 2]));
            continue;
        }
        units.push(match signs.next()? {
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'u' => {
                let (digits, rest) = signs.as_str().split_at(4);
                signs = rest.chars();
                u16::from_str_radix(digits, 16).ok()?
            }
            other => other as u16,
        });
    }
    Some(units)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn eat(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// What of `whole`, which it reads, `read` takes.
    fn text<'t>(&mut self, whole: &'t str, read: impl Fn(&mut Self) -> Option<()>) -> &'t str {
        let from = whole.len() - self.0.len();
        read(self).expect("it is JSON");
        &whole[from..whole.len() - self.0.len()]
    }

    /// Section 2: `ws`.
    fn space(&mut self) {
        self.0 = &self.0[self.count(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))..];
    }

    fn count(&self, is: impl Fn(u8) -> bool) -> usize {
        self.0.iter().take_while(|byte| is(**byte)).count()
    }

    /// Section 3. Containers are kept on a list, so that depth costs no stack.
    fn value(&mut self) -> Option<()> {
        let mut open = Vec::new();
        loop {
            self.space();
            let begins = match *self.0.first()? {
                bracket @ (b'{' | b'[') => {
                    self.eat(bracket)?;
                    self.space();
                    let end = bracket + 2;
                    if self.eat(end).is_none() {
                        open.push(end);
                        true
                    } else {
                        false
                    }
                }
                b'"' => self.string().map(|()| false)?,
                b't' => self.literal(b"true").map(|()| false)?,
                b'f' => self.literal(b"false").map(|()| false)?,
                b'n' => self.literal(b"null").map(|()| false)?,
                _ => self.number().map(|()| false)?,
            };
            if !begins && self.after_value(&mut open)? {
                return Some(());
            }
            if open.last() == Some(&b'}') {
                self.space();
                self.string()?;
                self.space();
                self.eat(b':')?;
            }
        }
    }

    /// Closes what ends here; whether that was all. Else another member follows.
    fn after_value(&mut self, open: &mut Vec<u8>) -> Option<bool> {
        while let Some(end) = open.last().copied() {
            self.space();
            if self.eat(b',').is_some() {
                return Some(false);
            }
            self.eat(end)?;
            open.pop();
        }
        Some(true)
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// Section 6.
    fn number(&mut self) -> Option<()> {
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if self.eat(b'e').or_else(|| self.eat(b'E')).is_some() {
            let _ = self.eat(b'+').or_else(|| self.eat(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.count(|byte| byte.is_ascii_digit());
        self.0 = &self.0[count..];
        (count > 0).then_some(())
    }

    /// Section 7.
    fn string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        loop {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            match first {
                b'"' => return Some(()),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    match escaped {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.0.get(..4)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.0 = &self.0[4..];
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }
}

#[test]
fn the_recogniser_itself_is_right() {
    for text in [
        "{}",
        " { } ",
        r#"{"a":[1,2,{"b":null}],"c":"\u00e9\n"}"#,
        r#"{"\ud83d":-0.5e+7}"#,
        "{\"a\":1}\n",
        r#"{"a":{},"a":[[]]}"#,
    ] {
        assert_eq!(kind_of(text), Kind::Object, "{text}");
    }
    for text in ["[]", "17", "-0", "\"x\"", " true ", "null", "[[[]]]", "1e5"] {
        assert_eq!(kind_of(text), Kind::Other, "{text}");
    }
    for text in [
        "",
        " ",
        "{",
        "}",
        "{]",
        "[}",
        "{}{}",
        "{}x",
        "{a:1}",
        "{'a':1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "NaN",
        "Infinity",
        "nul",
        "\"\\x\"",
        "\"\\u12\"",
        "\"a\nb\"",
        "{\"a\u{1}\":1}",
        "\u{feff}{}",
        "\u{a0}{}",
        "[1 2]",
        "{\"a\":1 \"b\":2}",
    ] {
        assert_eq!(kind_of(text), Kind::NotJson, "{text}");
    }
    assert_eq!(kind_of(&("[".repeat(100_000) + &"]".repeat(100_000))), Kind::Other);
}

#[test]
fn members_are_read_as_javascript_has_them() {
    let text = "{ \"a\" : [1, {\"b\":\"}\"}] ,\"\\u00e9\\ud83d\":\"\\n\\/ü🚀\", \"a\":null}";
    let units = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    let read = members(text);
    assert_eq!(read[0], (units("a"), "[1, {\"b\":\"}\"}]"));
    assert_eq!(read[1].0, [0xe9, 0xd83d]);
    assert_eq!(string(read[1].1), Some(units("\n/ü🚀")));
    assert_eq!(read[2], (units("a"), "null"));
    assert_eq!((read.len(), string("null")), (3, None));
}
