//! Filters against a matcher that tries everything, and their own spelling.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use fastrand::Rng;
use threadcast::stream::filter::Filter;

#[test]
fn a_filter_wants_what_a_plain_matcher_wants_and_reads_back() {
    let seeds = seeds("filter");
    fuzz("filter", 40_000, |rng| {
        let list = if rng.bool() {
            random_list(rng)
        } else {
            seeds[rng.usize(..seeds.len())].clone()
        };
        let mut list = list;
        if rng.bool() {
            mutate(rng, &mut list);
        }
        let list = String::from_utf8_lossy(&list).into_owned();
        let Ok(filter) = Filter::from_lists(Some(&list), None) else {
            return;
        };
        let again = Filter::from_lists(Some(&filter.machines().unwrap().join(",")), None);
        assert_eq!(again.as_ref(), Ok(&filter), "{list}");
        for _ in 0..4 {
            let name = random_name(rng, &list);
            let expected = list.split(',').any(|glob| matches(glob, &name));
            assert_eq!(filter.wants_machine(&name), expected, "{list:?} {name:?}");
        }
    });
}

/// A short list, or one that is as long as lists with wildcards may be.
fn random_list(rng: &mut Rng) -> Vec<u8> {
    let (most, signs) = match rng.u8(..4) {
        0 => (256, ["a", "a", "a", "b", "ü", "*", "?", "a"]),
        _ => (14, ["a", "b", "ü", "û", "*", "?", ",", "-"]),
    };
    let mut list = String::new();
    for _ in 0..rng.usize(1..most) {
        list.push_str(signs[rng.usize(..signs.len())]);
        if most > 14 && rng.u8(..60) == 0 {
            list.push(',');
        }
    }
    list.into_bytes()
}

/// A name near the patterns: one of them with its wildcards filled.
fn random_name(rng: &mut Rng, list: &str) -> String {
    let globs: Vec<&str> = list.split(',').collect();
    let mut name = String::new();
    for sign in globs[rng.usize(..globs.len())].chars() {
        match sign {
            '*' => (0..rng.usize(..4)).for_each(|_| name.push(char::from(rng.u8(b'a'..=b'b')))),
            '?' => name.push(['ü', 'a', '🚀', '?'][rng.usize(..4)]),
            other if rng.u8(..20) > 0 => name.push(other),
            _ => {}
        }
    }
    if rng.u8(..50) == 0 {
        name.push_str(&"a".repeat(300));
    }
    name
}

/// As docs/protocol.md says, by the table of all beginnings.
fn matches(glob: &str, name: &str) -> bool {
    let wild = glob.strip_suffix('*').unwrap_or(glob).contains(['*', '?']);
    if wild && name.len() > 256 {
        return false;
    }
    let name: Vec<char> = name.chars().collect();
    // Which beginnings of the name the pattern so far matches.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for sign in glob.chars() {
        let before = reached;
        reached = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            reached[at] = match sign {
                '*' => before[at] || (at > 0 && reached[at - 1]),
                '?' => at > 0 && before[at - 1],
                sign => at > 0 && before[at - 1] && name[at - 1] == sign,
            };
        }
    }
    reached[name.len()]
}
