//! Which events a client wants: patterns for the machine and for the type.

use crate::pipeline::batch::Numbered;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use wildmatch::WildMatch;

/// Patterns of one list. More would make every event dear; a page that shows everything needs none.
const PATTERNS_MAX: usize = 64;
/// Patterns of one list that are more than a name or a beginning: matching these costs ten times as much.
const WILD_PATTERNS_MAX: usize = 8;
/// Bytes of these patterns together. Matching one takes, at worst, a step for each byte of the pattern and each byte of the
/// name; with [`WILD_NAME_BYTES_MAX`] a list takes at most 65,536 steps, some 20 us, for a name that was not asked before.
const WILD_BYTES_MAX: usize = 256;
/// Bytes of a name that such a pattern can match. The names of machines and types are far shorter; a longer one is matched
/// by exact patterns and beginnings only.
const WILD_NAME_BYTES_MAX: usize = 256;
/// More patterns than this, or any dear one, and verdicts are worth keeping.
const CHEAP_PATTERNS_MAX: usize = 4;
/// Verdicts that are kept for one filter; machines and types repeat.
const VERDICTS_MAX: usize = 4096;
/// Bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 256;

/// What a client wants. An empty list wants everything; without any list there is nothing to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    machines: Vec<Glob>,
    kinds: Vec<Glob>,
}

/// A pattern in which `*` stands for any text and `?` for one character.
#[derive(Clone, Debug)]
struct Glob {
    text: String,
    kind: GlobKind,
}

/// The text says it all.
impl PartialEq for Glob {
    fn eq(&self, other: &Glob) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

/// How it is matched: most patterns are a name or a beginning, which costs a comparison.
#[derive(Clone, Debug)]
enum GlobKind {
    Exact,
    Prefix,
    Wild(WildMatch),
}

/// A filter that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// With these patterns; `None` wants everything.
    ///
    /// # Errors
    /// A list is empty, has over 64 patterns, over 8 that are more than a name or a beginning or over 256 bytes of these, or
    /// one that is empty or over 256 bytes.
    pub fn new(machines: Option<Vec<String>>, kinds: Option<Vec<String>>) -> Result<Filter, FilterError> {
        Ok(Filter {
            machines: globs("machine", machines)?,
            kinds: globs("type", kinds)?,
        })
    }

    /// From texts with commas between the patterns, as URLs have them.
    ///
    /// # Errors
    /// As [`Filter::new`].
    pub fn from_lists(machines: Option<&str>, kinds: Option<&str>) -> Result<Filter, FilterError> {
        let split = |list: &str| list.split(',').map(str::to_owned).collect();
        Filter::new(machines.map(split), kinds.map(split))
    }

    /// Whether it wants everything.
    pub fn is_everything(&self) -> bool {
        self.machines.is_empty() && self.kinds.is_empty()
    }

    /// Whether it wants an event of that machine and type. What has no name has the empty one, which only `*` matches.
    pub fn wants(&self, machine: Option<&str>, kind: Option<&str>) -> bool {
        any(&self.kinds, kind.unwrap_or_default()) && any(&self.machines, machine.unwrap_or_default())
    }

    /// Whether it wants that machine in a snapshot.
    pub fn wants_machine(&self, machine: &str) -> bool {
        any(&self.machines, machine)
    }

    /// Whether asking it costs no more than looking up what it said last time.
    fn is_cheap(&self) -> bool {
        let mut globs = self.machines.iter().chain(&self.kinds);
        self.machines.len() + self.kinds.len() <= CHEAP_PATTERNS_MAX && !globs.any(Glob::is_wild)
    }

    /// The patterns for machines, `None` for everything.
    pub fn machines(&self) -> Option<Vec<&str>> {
        texts(&self.machines)
    }

    /// The patterns for types, `None` for everything.
    pub fn kinds(&self) -> Option<Vec<&str>> {
        texts(&self.kinds)
    }
}

/// As a URL has it: `machine=worker-*&type=error`; empty for everything.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("machine", self.machines()), ("type", self.kinds())];
        let parts = lists.iter().filter_map(|(name, list)| {
            let list = list.as_ref()?.join(",");
            Some(format!("{name}={list}"))
        });
        f.write_str(&parts.collect::<Vec<_>>().join("&"))
    }
}

fn texts(globs: &[Glob]) -> Option<Vec<&str>> {
    (!globs.is_empty()).then(|| globs.iter().map(|glob| glob.text.as_str()).collect())
}

fn any(globs: &[Glob], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
}

fn globs(name: &str, patterns: Option<Vec<String>>) -> Result<Vec<Glob>, FilterError> {
    let error = |text: String| Err(FilterError(text));
    let Some(patterns) = patterns else {
        return Ok(Vec::new());
    };
    if patterns.is_empty() {
        return error(format!("the list for {name} is empty; leave it out to want everything"));
    }
    if patterns.len() > PATTERNS_MAX {
        return error(format!("the list for {name} has over {PATTERNS_MAX} patterns"));
    }
    if patterns.iter().any(String::is_empty) {
        return error(format!("a pattern for {name} is empty; `*` stands for any text"));
    }
    if patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return error(format!("a pattern for {name} is over {PATTERN_BYTES_MAX} bytes"));
    }
    let globs: Vec<Glob> = patterns.into_iter().map(Glob::new).collect();
    let wild = || globs.iter().filter(|glob| glob.is_wild());
    let are_wild = "with a wildcard that is not a single `*` at the end";
    if wild().count() > WILD_PATTERNS_MAX {
        return error(format!(
            "the list for {name} has over {WILD_PATTERNS_MAX} patterns {are_wild}"
        ));
    }
    if wild().map(|glob| glob.text.len()).sum::<usize>() > WILD_BYTES_MAX {
        return error(format!(
            "the patterns {are_wild} in the list for {name} have over {WILD_BYTES_MAX} bytes together"
        ));
    }
    Ok(globs)
}

/// What a filter wants, kept from event to event: however dear its patterns are, the next event of the same machine and
/// type costs a look. Owned by whoever asks often.
#[derive(Debug, Default)]
pub struct Verdicts(HashMap<u64, bool, BuildHasherDefault<KeyHasher>>);

impl Verdicts {
    /// Whether `filter`, always the same one, wants an event with these names. Never holds more than 4,096 verdicts.
    pub fn wants(&mut self, filter: &Filter, event: &Numbered<'_>) -> bool {
        let judge = || filter.wants(event.machine, event.kind);
        if filter.is_cheap() {
            return judge();
        }
        if let Some(verdict) = self.0.get(&event.names_key) {
            return *verdict;
        }
        if self.0.len() >= VERDICTS_MAX {
            self.0.clear();
        }
        let verdict = judge();
        self.0.insert(event.names_key, verdict);
        verdict
    }
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys are one u64 each; anything else would still be a hash, only a poor one.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl Glob {
    fn new(text: String) -> Glob {
        let wild = |text: &str| text.contains(['*', '?']);
        let kind = match text.strip_suffix('*') {
            _ if !wild(&text) => GlobKind::Exact,
            Some(prefix) if !wild(prefix) => GlobKind::Prefix,
            _ => GlobKind::Wild(WildMatch::new(&text)),
        };
        Glob { text, kind }
    }

    fn is_wild(&self) -> bool {
        matches!(self.kind, GlobKind::Wild(_))
    }

    fn matches(&self, name: &str) -> bool {
        match &self.kind {
            GlobKind::Exact => self.text == name,
            // The last character is the star.
            GlobKind::Prefix => name.starts_with(&self.text[..self.text.len() - 1]),
            GlobKind::Wild(pattern) => name.len() <= WILD_NAME_BYTES_MAX && pattern.matches(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::batch::{BatchBuilder, Item};

    #[test]
    fn machine_and_type_must_both_be_wanted() {
        let filter = Filter::from_lists(Some("worker-*,db"), Some("state_change,e?ror,*_done")).unwrap();
        assert!(filter.wants(Some("worker-1"), Some("state_change")));
        assert!(filter.wants(Some("db"), Some("error")));
        assert!(filter.wants(Some("db"), Some("job_done")));
        assert!(!filter.wants(Some("db2"), Some("error")));
        assert!(!filter.wants(Some("my-worker-1"), Some("error")));
        assert!(!filter.wants(Some("db"), Some("other")));
        assert!(!filter.wants(None, Some("error")));
        assert!(!filter.wants(Some("db"), None));
        assert_eq!(filter.to_string(), "machine=worker-*,db&type=state_change,e?ror,*_done");
    }

    #[test]
    fn what_is_not_asked_for_is_wanted() {
        let everything = Filter::default();
        assert!(everything.is_everything() && everything.wants(None, None));
        let types = Filter::from_lists(None, Some("error")).unwrap();
        assert!(types.wants(None, Some("error")) && types.wants_machine("anything"));
        assert!(Filter::from_lists(Some("*"), None).unwrap().wants(None, None));
    }

    #[test]
    fn a_kept_verdict_is_the_filters_own() {
        let filter = Filter::from_lists(Some("*a*,b?"), None).unwrap();
        let mut verdicts = Verdicts::default();
        let mut builder = BatchBuilder::new(1, 1, 1);
        // More pairs than are kept, each twice.
        for number in (0..3000).chain(0..3000) {
            builder.push(b"{}", Some(&format!("{number:x}")), Some("t"));
        }
        for item in builder.finish(0, 0.0).unwrap().items() {
            let Item::Event(event) = item else { unreachable!() };
            let wanted = filter.wants(event.machine, event.kind);
            assert_eq!(verdicts.wants(&filter, &event), wanted, "{event:?}");
        }
        assert!(verdicts.0.len() <= VERDICTS_MAX);
    }

    /// One client's 8 and 8 patterns of 250 bytes took 135 ms for a name of 120,000 bytes, and a hundred of them 17 s.
    #[test]
    fn a_long_name_costs_a_wild_pattern_nothing() {
        let longest = "a".repeat(WILD_NAME_BYTES_MAX);
        let longer = longest.clone() + "a";
        for (pattern, wants_longer) in [("*a", false), ("?*a", false), ("a*", true), ("*", true)] {
            let filter = Filter::from_lists(Some(pattern), None).unwrap();
            assert!(filter.wants_machine(&longest), "{pattern}");
            assert_eq!(filter.wants_machine(&longer), wants_longer, "{pattern}");
        }
        assert!(
            Filter::from_lists(Some(&longest), None)
                .unwrap()
                .wants_machine(&longest)
        );
    }

    #[test]
    fn senseless_filters_are_refused_with_what_is_wrong() {
        for (machines, part) in [
            (String::new(), "is empty"),
            ("a,,b".to_owned(), "is empty"),
            ("x".repeat(257), "over 256 bytes"),
            ("x,".repeat(64) + "x", "over 64 patterns"),
            ("*x,".repeat(8) + "?", "over 8 patterns with a wildcard"),
            (format!("*{0},*{0}", "x".repeat(128)), "over 256 bytes together"),
        ] {
            let error = Filter::from_lists(Some(&machines), None).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Filter::new(Some(Vec::new()), None).is_err());
    }
}
