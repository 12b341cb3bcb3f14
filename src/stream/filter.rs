//! Which events a client wants: patterns for the machine and for the type.

pub(in crate::stream) mod globs;
mod wild;

use globs::{GLOB_BYTES_MAX, Globs, is_wild};
use std::fmt;
use std::sync::Arc;

/// Patterns of one list. More would make every event dear; a page that shows everything needs none.
const PATTERNS_MAX: usize = 64;

/// What a client wants; a list that is missing wants everything. Asking about one event takes at most some 2 µs (5 µs
/// in a crowd whose filters do not fit the processor's caches), as much as sending it to that client would. Clones
/// share their lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    machines: Option<Arc<Globs>>,
    kinds: Option<Arc<Globs>>,
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
    /// A list is empty, has over 64 patterns, over 8 that are more than a name or a beginning or over 256 bytes of
    /// these, or one that is empty or over 256 bytes.
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

    /// Returns whether it wants everything.
    pub fn is_everything(&self) -> bool {
        self.machines.is_none() && self.kinds.is_none()
    }

    /// Returns whether it wants an event of that machine and type. What has no name has the empty one, which only `*`
    /// matches.
    pub fn wants(&self, machine: Option<&str>, kind: Option<&str>) -> bool {
        any(&self.kinds, kind.unwrap_or_default()) && any(&self.machines, machine.unwrap_or_default())
    }

    /// Returns whether it wants that machine in a snapshot.
    pub fn wants_machine(&self, machine: &str) -> bool {
        any(&self.machines, machine)
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

fn texts(globs: &Option<Arc<Globs>>) -> Option<Vec<&str>> {
    let globs = globs.as_ref()?;
    Some(globs.texts().iter().map(String::as_str).collect())
}

fn any(globs: &Option<Arc<Globs>>, name: &str) -> bool {
    globs.as_ref().is_none_or(|globs| globs.match_one(name))
}

fn globs(name: &str, patterns: Option<Vec<String>>) -> Result<Option<Arc<Globs>>, FilterError> {
    let error = |text: String| Err(FilterError(text));
    let Some(patterns) = patterns else {
        return Ok(None);
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
    if patterns.iter().any(|pattern| pattern.len() > GLOB_BYTES_MAX) {
        return error(format!("a pattern for {name} is over {GLOB_BYTES_MAX} bytes"));
    }
    let wild = || patterns.iter().filter(|pattern| is_wild(pattern));
    let are_wild = "with a wildcard that is not a single `*` at the end";
    if wild().count() > wild::PATTERNS_MAX {
        return error(format!(
            "the list for {name} has over {} patterns {are_wild}",
            wild::PATTERNS_MAX
        ));
    }
    if wild().map(String::len).sum::<usize>() > wild::BYTES_MAX {
        return error(format!(
            "the patterns {are_wild} in the list for {name} have over {} bytes together",
            wild::BYTES_MAX
        ));
    }
    Ok(Some(Arc::new(Globs::new(patterns))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

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

    /// One client's 8 and 8 patterns of 250 bytes took 135 ms for a name of 120,000 bytes, and a hundred of them 17 s.
    #[test]
    fn a_long_name_costs_a_wild_pattern_nothing() {
        let longest = "a".repeat(wild::NAME_BYTES_MAX);
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

    /// A hundred clients with a filter like this one took 10 ms of the fan-out for each event with new names.
    #[test]
    fn the_dearest_filter_is_asked_within_microseconds() {
        let beginnings = (10..66).map(|index| format!("{}{index}*", "a".repeat(250)));
        let wild = (0..8).map(|index| format!("*{}{index}", "a".repeat(30)));
        let filter = Filter::new(Some(beginnings.chain(wild).collect()), None).unwrap();
        let name = "a".repeat(256);
        let ask = |_| {
            let begun = Instant::now();
            assert!(!filter.wants_machine(std::hint::black_box(&name)));
            begun.elapsed()
        };
        // The fastest, because others use the processor too.
        let took = (0..200).map(ask).min().unwrap();
        assert!(took < Duration::from_micros(25), "{took:?}");
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
