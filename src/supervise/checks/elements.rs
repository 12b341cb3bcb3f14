//! What waits in a queue, as hashes of its elements: enough to see that one of them has left. Nothing of the content is
//! kept.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Elements that are remembered of a queue: 800 KB.
const KEPT_MAX: usize = 100_000;

/// The elements of a queue at one moment, as a multiset of hashes.
///
/// Of more than [`KEPT_MAX`] the smallest hashes are kept. Which ones those are depends on the elements alone, so an
/// element that is kept stays so wherever it moves in the queue, until it leaves or until others push the limit below
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    /// All elements, also those that are not kept.
    count: u64,
    /// In order.
    hashes: Vec<u64>,
    /// If some are not kept: all below it are, and some with it may be.
    limit: Option<u64>,
}

impl Elements {
    /// Reads a JSON list or, with `key`, an object that has one under it.
    ///
    /// # Errors
    /// It is something else, or no whole JSON document; the text says which.
    pub fn of_json(text: &[u8], key: Option<&str>) -> Result<Elements, String> {
        let mut elements = Elements::default();
        let mut reader = serde_json::Deserializer::from_slice(text);
        let read = match key {
            None => List(&mut elements).deserialize(&mut reader),
            Some(key) => Keyed(key, &mut elements).deserialize(&mut reader),
        };
        read.and_then(|()| reader.end()).map_err(|error| error.to_string())?;
        elements.finish();
        Ok(elements)
    }

    /// Reads lines; blank ones are none. A last line without a line feed counts, and is not remembered: it may be half
    /// written.
    pub fn of_lines(text: &[u8]) -> Elements {
        let mut elements = Elements::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match line.strip_suffix(b"\n") {
                Some(whole) => elements.add(hash_of(whole)),
                None => elements.count += 1,
            }
        }
        elements.finish();
        elements
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns whether an element of `before` is not there any more. One of several equal ones counts too.
    pub fn have_lost_one_of(&self, before: &Elements) -> bool {
        if self.count < before.count {
            return true;
        }
        let limit = self.limit.into_iter().chain(before.limit).min();
        let mut now = self.hashes.iter().peekable();
        let known = before.hashes.iter();
        for hash in known.take_while(|hash| limit.is_none_or(|limit| **hash < limit)) {
            while now.next_if(|other| *other < hash).is_some() {}
            if now.next_if(|other| *other == hash).is_none() {
                return true;
            }
        }
        false
    }

    fn add(&mut self, hash: u64) {
        self.count += 1;
        if self.limit.is_some_and(|limit| hash > limit) {
            return;
        }
        self.hashes.push(hash);
        if self.hashes.len() >= 2 * KEPT_MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.hashes.sort_unstable();
        if self.hashes.len() > KEPT_MAX {
            self.hashes.truncate(KEPT_MAX);
            self.limit = self.hashes.last().copied();
        }
    }

    fn finish(&mut self) {
        self.cut();
        self.hashes.shrink_to_fit();
    }
}

fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Reads a list into elements.
struct List<'a>(&'a mut Elements);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list (of an object, `key` says where it has its list)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(Hashed(hash)) = list.next_element()? {
            self.0.add(hash);
        }
        Ok(())
    }
}

/// Reads the list that an object has under a key.
struct Keyed<'a>(&'a str, &'a mut Elements);

impl<'de> DeserializeSeed<'de> for Keyed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keyed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with a list under {:?}", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Keyed(wanted, elements) = self;
        let mut is_found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == wanted && !is_found {
                map.next_value_seed(List(elements))?;
                is_found = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if is_found {
            return Ok(());
        }
        Err(A::Error::custom(format!("there is no list under {wanted:?}")))
    }
}

/// The hash of a JSON value: the same whatever blanks it has, and in whatever order its keys stand.
struct Hashed(u64);

impl<'de> Deserialize<'de> for Hashed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hashed, D::Error> {
        deserializer.deserialize_any(Hashing)
    }
}

struct Hashing;

impl<'de> Visitor<'de> for Hashing {
    type Value = Hashed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Hashed, E> {
        Ok(Hashed(hash_of(0)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Hashed, E> {
        Ok(Hashed(hash_of(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Hashed, E> {
        Ok(Hashed(hash_of((1, value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Hashed, E> {
        Ok(Hashed(hash_of((2, value))))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Hashed, E> {
        Ok(Hashed(hash_of((3, value.to_bits()))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Hashed, E> {
        Ok(Hashed(hash_of(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Hashed, A::Error> {
        let mut all = hash_of((4, 0));
        while let Some(Hashed(hash)) = list.next_element()? {
            all = hash_of((all, hash));
        }
        Ok(Hashed(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hashed, A::Error> {
        // A sum, so that the order of the keys does not count.
        let mut all = hash_of((5, 0));
        while let Some((Hashed(key), Hashed(value))) = map.next_entry()? {
            all = all.wrapping_add(hash_of((key, value)));
        }
        Ok(Hashed(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Elements {
        Elements::of_json(text.as_bytes(), None).unwrap()
    }

    #[track_caller]
    fn lost(before: &str, now: &str) -> bool {
        json(now).have_lost_one_of(&json(before))
    }

    #[test]
    fn growth_and_another_order_are_no_progress() {
        assert!(!lost("[]", r#"["a"]"#));
        assert!(!lost(r#"["a"]"#, r#"["a", "b", "c"]"#));
        assert!(!lost(r#"["a", "b"]"#, r#"["new", "b", "a"]"#));
        assert!(!lost(r#"["a"]"#, r#"["a", "a"]"#));
        assert!(!lost(r#"[{"a": 1, "b": [1, 2]}]"#, "[ {\"b\":[1,2],\n\"a\":1}, null ]"));
    }

    #[test]
    fn an_element_that_left_is_progress_also_while_others_come() {
        assert!(lost(r#"["a", "b"]"#, r#"["b", "c", "d"]"#));
        assert!(lost(r#"["a", "a"]"#, r#"["a", "c", "d"]"#), "one of two equal ones");
        assert!(lost(r#"["a"]"#, "[]"));
        assert!(lost(r#"["a", "b"]"#, r#"["c", "b"]"#), "one came, one went");
        for (before, now) in [
            ("1", "1.0"),
            ("1", "\"1\""),
            ("[1]", "[[1]]"),
            ("null", "false"),
            ("[1,2]", "[2,1]"),
        ] {
            assert!(lost(&format!("[{before}]"), &format!("[{now}]")), "{before} {now}");
        }
        // What was changed in its place is not there any more as it was.
        assert!(lost(r#"[{"id": 1, "done": false}]"#, r#"[{"id": 1, "done": true}]"#));
    }

    #[test]
    fn what_is_no_list_is_named() {
        for (text, key, why) in [
            ("", None, "EOF"),
            ("[1, 2", None, "EOF"),
            ("[1, 2]]", None, "trailing characters"),
            ("[1, 2] x", None, "trailing characters"),
            ("{\"ideas\": []}", None, "`key` says where"),
            ("[]", Some("ideas"), "an object with a list under \"ideas\""),
            ("{\"other\": []}", Some("ideas"), "there is no list under \"ideas\""),
            ("{\"ideas\": {}}", Some("ideas"), "expected a list"),
            ("{\"ideas\": [1}", Some("ideas"), "line 1 column 13"),
            ("\0\0\0", None, "expected value"),
        ] {
            let error = Elements::of_json(text.as_bytes(), key).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(Elements::of_json(deep.as_bytes(), None).is_err());
        let keyed = Elements::of_json(b"{\"a\": {\"b\": []}, \"ideas\": [1, 2], \"z\": 0}", Some("ideas"));
        assert_eq!(keyed.unwrap().count(), 2);
    }

    #[test]
    fn lines_are_elements_and_the_last_may_be_half_written() {
        let (before, now) = (Elements::of_lines(b"a\nb\nhal"), Elements::of_lines(b"a\nb\nhalf\n\n"));
        assert_eq!((before.count(), now.count()), (3, 3));
        assert!(!now.have_lost_one_of(&before));
        assert!(Elements::of_lines(b"b\nhalf\nx\ny\n").have_lost_one_of(&now));
        assert_eq!(Elements::of_lines(b"\n \r\n"), Elements::default());
    }

    #[test]
    fn of_very_many_some_are_remembered_wherever_they_stand() {
        let list = |range: std::ops::Range<u32>| {
            let numbers: Vec<String> = range.map(|number| number.to_string()).collect();
            json(&format!("[{}]", numbers.join(",")))
        };
        let before = list(1000..251_000);
        assert_eq!((before.count(), before.hashes.len()), (250_000, KEPT_MAX));
        assert!(!list(1000..351_000).have_lost_one_of(&before), "it grew at its end");
        assert!(!list(0..251_000).have_lost_one_of(&before), "it grew at its beginning");
        assert!(list(1100..351_000).have_lost_one_of(&before), "a hundred left");
        assert!(list(1001..251_000).have_lost_one_of(&before), "it is shorter");
    }
}
