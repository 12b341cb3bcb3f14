//! Limits that people declare: how long a machine of some type may stay in some state before it is stuck.

use super::filter::globs::{GLOB_BYTES_MAX, Globs};
use crate::process::values::{YEAR, duration, show_duration};
use std::sync::Arc;
use std::time::Duration;

/// Rules of one list. Asking tries one after the other; 256 take some 10 µs at most.
pub const RULES_MAX: usize = 256;
/// The shortest limit: a detector looks a few times a second.
const AFTER_MIN: Duration = Duration::from_millis(100);
/// The word for a state that never counts as stuck.
const NEVER: &str = "never";
/// A pattern that matches every name, and a machine without a known type.
const ANY: &str = "*";

/// How long a machine may stay in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At most this long, 100 ms to 366 days.
    After(Duration),
    /// As long as it likes.
    Never,
}

/// The declared limits, in their order. Clones share the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    rules: Arc<Vec<Rule>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    config_type: Globs,
    state: Globs,
    limit: Limit,
}

/// What is wrong with a rule, and with which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    pub part: Part,
    /// What would be right.
    pub wanted: String,
}

/// A part of a rule; each is a key of a `[[stuck]]` table too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Type,
    State,
    After,
}

impl Declared {
    /// The limit of a machine of that type in that state: the first rule that matches counts, `None` if none does.
    /// `config_type` is `None` for a machine without a known type; only the pattern `*` matches it.
    pub fn limit(&self, config_type: Option<&str>, state: &str) -> Option<Limit> {
        let config_type = config_type.unwrap_or_default();
        let matches = |rule: &&Rule| rule.state.match_one(state) && rule.config_type.match_one(config_type);
        self.rules.iter().find(matches).map(|rule| rule.limit)
    }

    /// Returns whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Adds the rule `TYPE/STATE=AFTER` behind the others.
    ///
    /// # Errors
    /// The text is no rule, or there are 256; the rules are unchanged, and the error says what would be right.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let form = || "write TYPE/STATE=AFTER, such as 'face_*/cropping_*=2m' or '*/paused=never'".to_owned();
        let (names, after) = text.rsplit_once('=').ok_or_else(form)?;
        let (config_type, state) = names.split_once('/').ok_or_else(form)?;
        let rule = Rule::new(config_type, state, after).map_err(|error| error.wanted)?;
        if self.rules.len() == RULES_MAX {
            return Err(format!("there may be at most {RULES_MAX} rules"));
        }
        Arc::make_mut(&mut self.rules).push(rule);
        Ok(())
    }

    /// Every rule, as [`Declared::add`] takes it.
    pub fn texts(&self) -> Vec<String> {
        self.rules.iter().map(Rule::text).collect()
    }
}

/// The text of the rule that a `[[stuck]]` table stands for; a missing type or state is any.
///
/// # Errors
/// A part is missing or cannot be used; the error names it and says what would be right.
pub fn rule_text(config_type: Option<&str>, state: Option<&str>, after: Option<&str>) -> Result<String, RuleError> {
    let after = after.ok_or_else(|| RuleError {
        part: Part::After,
        wanted: "is missing; write the time after which a machine is stuck, such as \"2m\", or \"never\"".to_owned(),
    })?;
    Rule::new(config_type.unwrap_or(ANY), state.unwrap_or(ANY), after).map(|rule| rule.text())
}

impl Rule {
    fn new(config_type: &str, state: &str, after: &str) -> Result<Rule, RuleError> {
        let wrong = |part| move |wanted| RuleError { part, wanted };
        // The slash ends the type in the text of a rule.
        if config_type.contains('/') {
            let wanted = "a type is written without a slash; write ? in its place".to_owned();
            return Err(wrong(Part::Type)(wanted));
        }
        Ok(Rule {
            config_type: glob(config_type).map_err(wrong(Part::Type))?,
            state: glob(state).map_err(wrong(Part::State))?,
            limit: limit(after).map_err(wrong(Part::After))?,
        })
    }

    fn text(&self) -> String {
        let after = match self.limit {
            Limit::After(time) => show_duration(time),
            Limit::Never => NEVER.to_owned(),
        };
        let glob = |globs: &Globs| globs.texts().concat();
        format!("{}/{}={after}", glob(&self.config_type), glob(&self.state))
    }
}

fn glob(text: &str) -> Result<Globs, String> {
    match text.len() {
        0 => Err("a pattern must not be empty; * stands for any text".to_owned()),
        1..=GLOB_BYTES_MAX => Ok(Globs::new(vec![text.to_owned()])),
        bytes => Err(format!(
            "a pattern has at most {GLOB_BYTES_MAX} bytes, this one has {bytes}"
        )),
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    if text == NEVER {
        return Ok(Limit::Never);
    }
    let after = duration(text, AFTER_MIN, YEAR).map_err(|wanted| format!("{wanted}, or {NEVER}"))?;
    Ok(Limit::After(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(rules: &[&str]) -> Declared {
        let mut declared = Declared::default();
        rules.iter().for_each(|rule| declared.add(rule).unwrap());
        declared
    }

    fn after(seconds: u64) -> Option<Limit> {
        Some(Limit::After(Duration::from_secs(seconds)))
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let declared = declared(&[
            "face_*/cropping_*=2m",
            "face_*/cropping=3m",
            "face_?/*=never",
            "*/paused=never",
            "*/*=1h",
        ]);
        for (config_type, state, expected) in [
            (Some("face_crop"), "cropping_left", after(120)),
            (Some("face_1"), "cropping_", after(120)),
            (Some("face_1"), "cropping", after(180)),
            (Some("face_1"), "anything", Some(Limit::Never)),
            (Some("face_12"), "anything", after(3600)),
            (Some("pdf"), "paused", Some(Limit::Never)),
            (None, "paused", Some(Limit::Never)),
            (None, "cropping_left", after(3600)),
        ] {
            assert_eq!(declared.limit(config_type, state), expected, "{config_type:?} {state}");
        }
    }

    #[test]
    fn a_machine_without_a_known_type_is_matched_by_the_star_only() {
        let rules = declared(&["?*/*=1s", "face_*/*=2s"]);
        assert_eq!(rules.limit(None, "busy"), None);
        assert_eq!(rules.limit(Some("x"), "busy"), after(1));
        assert_eq!(Declared::default().limit(Some("x"), "busy"), None);
        assert!(Declared::default().is_empty() && !rules.is_empty());
    }

    #[test]
    fn a_state_may_have_what_ends_the_other_parts() {
        let rules = declared(&["a=b/c/d=e=5s"]);
        assert_eq!(rules.limit(Some("a=b"), "c/d=e"), after(5));
        assert_eq!(rules.texts(), ["a=b/c/d=e=5s"]);
    }

    #[test]
    fn what_is_no_rule_changes_nothing_and_says_what_would_be_right() {
        let long = format!("{}/x=1s", "t".repeat(257));
        let mut rules = declared(&["a/b=1500ms"]);
        for (text, part) in [
            ("", "write TYPE/STATE=AFTER"),
            ("face=2m", "write TYPE/STATE=AFTER"),
            ("face/crop", "write TYPE/STATE=AFTER"),
            ("/crop=2m", "* stands for any text"),
            ("face/=2m", "* stands for any text"),
            ("face/crop=", "or never"),
            ("face/crop=50ms", "from 100ms"),
            ("face/crop=2", "2m"),
            (&long, "256 bytes, this one has 257"),
        ] {
            let wanted = rules.add(text).unwrap_err();
            assert!(wanted.contains(part), "{text:?}: {wanted}");
        }
        assert_eq!(rules.texts(), ["a/b=1500ms"]);
        (1..RULES_MAX).for_each(|_| rules.add("a/b=1s").unwrap());
        assert!(rules.add("a/b=1s").unwrap_err().contains("at most 256 rules"));
    }

    #[test]
    fn a_table_stands_for_a_rule_and_names_the_part_that_is_wrong() {
        assert_eq!(rule_text(None, None, Some("120 s")).unwrap(), "*/*=2m");
        assert_eq!(rule_text(Some("a"), Some("b/c"), Some("never")).unwrap(), "a/b/c=never");
        for (config_type, state, after, part) in [
            (None, None, None, Part::After),
            (None, None, Some("soon"), Part::After),
            (Some("a/b"), None, Some("1s"), Part::Type),
            (Some(""), None, Some("1s"), Part::Type),
            (None, Some(""), Some("1s"), Part::State),
        ] {
            assert_eq!(rule_text(config_type, state, after).unwrap_err().part, part);
        }
    }

    /// The detector may ask for each machine of a large table.
    #[test]
    fn the_dearest_rules_are_asked_within_a_few_milliseconds() {
        let mut rules = Declared::default();
        for index in 0..RULES_MAX {
            rules.add(&format!("*a*b{index}/*{}x=1s", "a".repeat(250))).unwrap();
        }
        let name = "a".repeat(256);
        let ask = |_| {
            let begun = std::time::Instant::now();
            assert_eq!(std::hint::black_box(&rules).limit(Some(&name), &name), None);
            begun.elapsed()
        };
        // The fastest, because others use the processor too.
        let took = (0..50).map(ask).min().unwrap();
        assert!(took < Duration::from_millis(3), "{took:?}");
    }
}
