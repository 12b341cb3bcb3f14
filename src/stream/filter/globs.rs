//! A list of globs, made ready so that a name is held against all of them at once.

use super::wild::Wild;

/// Bytes of one pattern.
pub(in crate::stream) const GLOB_BYTES_MAX: usize = 256;

/// Patterns in which `*` stands for any text and `?` for one character; one of them must match the whole name. Never
/// empty.
#[derive(Clone, Debug)]
pub(in crate::stream) struct Globs {
    /// As they came.
    texts: Vec<String>,
    plain: Plain,
    wild: Option<Wild>,
}

/// The texts say it all.
impl PartialEq for Globs {
    fn eq(&self, other: &Globs) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Globs {}

impl Globs {
    /// Of `texts`, at least one, each of at most [`GLOB_BYTES_MAX`] bytes, of which the wild ones (see [`is_wild`]) are
    /// within the bounds of `wild`.
    pub(in crate::stream) fn new(texts: Vec<String>) -> Globs {
        let (wild, plain): (Vec<&str>, Vec<&str>) = texts.iter().map(String::as_str).partition(|text| is_wild(text));
        let plain = Plain::new(plain);
        let wild = (!wild.is_empty()).then(|| Wild::new(&wild));
        Globs { texts, plain, wild }
    }

    /// The patterns, as they came.
    pub(in crate::stream) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Returns whether one of them matches `name`. Takes at most one step for each pattern and two for each byte of a
    /// name of 256, whatever the patterns are.
    pub(in crate::stream) fn match_one(&self, name: &str) -> bool {
        self.plain.match_one(name.as_bytes()) || self.wild.as_ref().is_some_and(|wild| wild.matches(name))
    }
}

/// Returns whether a pattern is more than a name or a beginning.
pub(super) fn is_wild(text: &str) -> bool {
    text.strip_suffix('*').unwrap_or(text).contains(['*', '?'])
}

/// Names and beginnings, sorted. Of each only that is kept which it does not share with the one before it, so that all
/// of them are searched with one look at each byte of the name.
#[derive(Clone, Debug, Default)]
struct Plain {
    patterns: Vec<PlainPattern>,
    /// What the patterns do not share, one after the other.
    bytes: Box<[u8]>,
}

#[derive(Clone, Copy, Debug)]
struct PlainPattern {
    /// The first bytes that it shares with the pattern before it.
    shared: u16,
    /// How many bytes follow them.
    own: u16,
    /// More may follow in the name.
    is_beginning: bool,
}

impl Plain {
    fn new(texts: Vec<&str>) -> Plain {
        let mut sorted: Vec<(&str, bool)> = texts
            .into_iter()
            .map(|text| {
                text.strip_suffix('*')
                    .map_or((text, false), |beginning| (beginning, true))
            })
            .collect();
        sorted.sort_unstable();
        let (mut plain, mut bytes, mut before) = (Plain::default(), Vec::new(), "");
        for (text, is_beginning) in sorted {
            let shared = shared(before.as_bytes(), text.as_bytes());
            let own = &text.as_bytes()[shared..];
            bytes.extend_from_slice(own);
            // A pattern has at most 256 bytes.
            plain.patterns.push(PlainPattern {
                shared: shared as u16,
                own: own.len() as u16,
                is_beginning,
            });
            before = text;
        }
        plain.bytes = bytes.into_boxed_slice();
        plain
    }

    fn match_one(&self, name: &[u8]) -> bool {
        // How many of the name's first bytes are those of the pattern before.
        let mut same = 0;
        let mut rest = &*self.bytes;
        for pattern in &self.patterns {
            let own;
            (own, rest) = rest.split_at(usize::from(pattern.own));
            let already = usize::from(pattern.shared);
            if already < same {
                // The name goes on like the pattern before, which stands before this one; so it stands before all that
                // follow.
                return false;
            }
            if already > same {
                // This pattern differs from the name where the one before did.
                continue;
            }
            let more = shared(own, &name[same..]);
            same += more;
            if more == own.len() && (pattern.is_beginning || same == name.len()) {
                return true;
            }
        }
        false
    }
}

/// How many first bytes are the same in both.
fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_patterns_the_one_that_matches_is_found() {
        let texts = ["b", "a", "ab*", "abc*", "a-*", "é*", "x?", "*z"];
        let globs = Globs::new(texts.map(str::to_owned).to_vec());
        for name in [
            "a", "b", "ab", "abc", "abd", "a-", "a-1", "é", "éa", "x1", "xé", "z", "az", "🚀z",
        ] {
            assert!(globs.match_one(name), "{name}");
        }
        for name in ["", "aa", "ac", "c", "bb", "a.", "x", "x12", "zé", "e", "è"] {
            assert!(!globs.match_one(name), "{name}");
        }
        assert!(Globs::new(vec!["*".to_owned(), "a*".to_owned()]).match_one(""));
    }

    #[test]
    fn names_and_beginnings_are_found_among_any_others() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut text = |most| -> String {
            let len = rng.usize(..=most);
            std::iter::repeat_with(|| rng.char('a'..='c')).take(len).collect()
        };
        for _ in 0..2_000 {
            let beginnings: Vec<String> = (0..text(6).len()).map(|_| text(6)).collect();
            let names: Vec<String> = (0..=text(6).len()).map(|_| text(6)).collect();
            let starred = beginnings.iter().map(|beginning| format!("{beginning}*"));
            let globs = Globs::new(starred.chain(names.clone()).collect());
            for _ in 0..20 {
                let name = text(7);
                let expected = names.contains(&name) || beginnings.iter().any(|beginning| name.starts_with(beginning));
                assert_eq!(globs.match_one(&name), expected, "{name:?} in {:?}", globs.texts());
            }
        }
    }
}
