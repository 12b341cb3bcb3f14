//! The layers of ARCHITECTURE.md, held against the source: each room uses only rooms of layers below its own, and no
//! files use each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module that is a file, by its path, `stream::event`; and the modules that its text names.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The modules below `folder` with their texts, unit tests and comments included.
fn modules(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(&inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(folder).unwrap().with_extension("");
                let parts: Vec<_> = module.iter().map(|part| part.to_str().unwrap()).collect();
                found.insert(parts.join("::"), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The module that a path leads into: the longest beginning that is a file.
fn file_of(path: &[String], modules: &BTreeMap<String, String>) -> Option<String> {
    let beginnings = (1..=path.len()).rev().map(|length| path[..length].join("::"));
    beginnings.into_iter().find(|module| modules.contains_key(module))
}

/// Reads what stands behind `crate::`, `super::` or `self::`: one path, or several in braces. `*` and a new name behind
/// `as` are no part of a path. Returns what is left of the text.
fn read_tree<'a>(text: &'a str, before: &[String], paths: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = read_tree(rest, before, paths).trim_start();
            if let Some(renamed) = rest.strip_prefix("as ") {
                rest = renamed
                    .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                    .trim_start();
            }
            rest = match rest.strip_prefix(',') {
                Some(rest) if !rest.trim_start().starts_with('}') => rest,
                Some(rest) => return rest.trim_start().trim_start_matches('}'),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            };
        }
    }
    if let Some(rest) = text.strip_prefix('*') {
        paths.push(before.to_vec());
        return rest;
    }
    let length = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    let path = [before, &[name.to_owned()]].concat();
    match rest.strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| c.is_alphabetic() || "{_*".contains(c)) => {
            read_tree(rest, &path, paths)
        }
        _ => {
            paths.push(path);
            rest
        }
    }
}

/// For each line, how many modules inside the file it stands in, such as `mod tests { ... }`. rustfmt's indentation
/// tells.
fn depths(text: &str) -> Vec<usize> {
    let mut open: Vec<String> = Vec::new();
    let mut depths = Vec::new();
    for line in text.lines() {
        if open.last().is_some_and(|end| line == end) {
            open.pop();
        }
        depths.push(open.len());
        let code = line.trim_start();
        let is_module = code.strip_prefix("pub ").unwrap_or(code).starts_with("mod ")
            || (code.starts_with("pub(") && code.contains(") mod "));
        if is_module && code.ends_with('{') {
            open.push(format!("{}}}", &line[..line.len() - code.len()]));
        }
    }
    depths
}

/// The modules that the text of `module` names by paths that begin with `crate::`, `super::` or `self::`.
fn paths_of(module: &str, text: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let own: Vec<String> = module.split("::").map(str::to_owned).collect();
    let depths = depths(text);
    let mut found = BTreeSet::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c)) {
                continue;
            }
            let mut rest = &text[at + start.len()..];
            let mut ups = usize::from(start == "super::");
            while let Some(further) = rest.strip_prefix("super::").filter(|_| ups > 0) {
                (rest, ups) = (further, ups + 1);
            }
            let base = if start == "crate::" {
                &[][..]
            } else {
                let depth = depths[text[..at].matches('\n').count()];
                &own[..(own.len() + depth).saturating_sub(ups).min(own.len())]
            };
            let mut paths = Vec::new();
            read_tree(rest, base, &mut paths);
            for path in paths {
                match file_of(&path, modules) {
                    Some(file) if file != module => found.extend([file]),
                    Some(_) => {}
                    // The roots of the crates hold rooms and nothing else, so a path into one of them leads to a room.
                    None => panic!("{module} names {start}{}, which is in no room", path.join("::")),
                }
            }
        }
    }
    found
}

/// Every module that `text`, that of `module`, names.
fn all_paths(module: &str, text: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut paths = paths_of(module, text, modules);
    paths.extend(declared(module, text, modules));
    paths
}

/// The modules that `text` declares and names without `crate::`, as `mod part;` and `part::item()` do.
fn declared(module: &str, text: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let declaration = line.strip_suffix(';').and_then(|line| line.split_once("mod "));
        let Some((visible, part)) = declaration.filter(|(visible, _)| visible.is_empty() || visible.starts_with("pub"))
        else {
            continue;
        };
        assert!(visible.is_empty() || visible.ends_with(' '), "{line}");
        let start = format!("{part}::");
        let is_named = text.match_indices(&start).any(|(at, _)| {
            let before = &text[..at];
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        });
        let part = format!("{module}::{part}");
        if is_named && modules.contains_key(&part) {
            found.insert(part);
        }
    }
    found
}

fn uses(folder: &Path) -> Uses {
    let modules = modules(folder);
    assert!(modules.len() > 10, "{}", folder.display());
    modules
        .iter()
        // The roots of the crates declare the rooms.
        .filter(|(module, _)| !["lib", "main"].contains(&module.as_str()))
        .map(|(module, text)| (module.clone(), all_paths(module, text, &modules)))
        .collect()
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap()
}

/// The layer of each room, counted from the top, as ARCHITECTURE.md has them.
fn layers(page: &str) -> BTreeMap<String, usize> {
    let rows = page
        .lines()
        .skip_while(|line| *line != "## Layers")
        .skip_while(|line| !line.starts_with("| rooms |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut layers = BTreeMap::new();
    for (layer, row) in rows.enumerate() {
        for room in row.split('|').nth(1).unwrap().split(',') {
            let room = room.trim().trim_matches('`').to_owned();
            assert_eq!(layers.insert(room.clone(), layer), None, "{room} is in two layers");
        }
    }
    layers
}

/// Uses of a room by one that does not stand above it, each in words.
fn upward(uses: &Uses, layers: &BTreeMap<String, usize>) -> Vec<String> {
    let mut found = Vec::new();
    for (module, used) in uses {
        for used in used.iter().filter(|used| room(used) != room(module)) {
            if layers[room(module)] >= layers[room(used)] {
                found.push(format!("{module} uses {used}"));
            }
        }
    }
    found
}

/// A circle of files, each of which uses the next; empty if there is none.
fn circle(uses: &Uses) -> Vec<String> {
    let mut left = uses.clone();
    // A file that uses none of those that are left is in no circle.
    while let Some(module) = left
        .iter()
        .find(|(_, used)| used.is_empty())
        .map(|(module, _)| module.clone())
    {
        left.remove(&module);
        left.values_mut().for_each(|used| {
            used.remove(&module);
        });
    }
    let Some(mut at) = left.keys().next().cloned() else {
        return Vec::new();
    };
    let mut way: Vec<String> = Vec::new();
    while !way.contains(&at) {
        way.push(at.clone());
        at = left[&at].first().unwrap().clone();
    }
    way.split_off(way.iter().position(|module| *module == at).unwrap())
}

#[test]
fn each_room_uses_only_rooms_below_it() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (layers, uses) = (layers(&page), uses(&root().join("src")));
    let rooms: BTreeSet<&str> = uses.keys().map(|module| room(module)).collect();
    let listed: BTreeSet<&str> = layers.keys().map(String::as_str).collect();
    assert_eq!(listed, rooms, "the rooms of ARCHITECTURE.md and of src");
    let upward = upward(&uses, &layers);
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    for folder in ["src", "benches/load/src"] {
        let circle = circle(&uses(&root().join(folder)));
        assert!(circle.is_empty(), "{folder}: {}", circle.join(" -> "));
    }
}

/// The checks above must be able to fail.
#[test]
fn an_arrow_that_runs_up_and_a_circle_are_seen() {
    let modules = |texts: &[(&str, &str)]| -> BTreeMap<String, String> {
        let texts = texts.iter();
        texts
            .map(|(module, text)| ((*module).to_owned(), (*text).to_owned()))
            .collect()
    };
    let modules = modules(&[
        ("above", "use crate::{below as b, below::part::{self, *}, beside};\n"),
        (
            "below",
            "/// See [`crate::above::Thing`].\nmod part;\npub(super) mod other;\nuse other::Item;\nuse self::part::A;\n",
        ),
        (
            "below::part",
            "use super::Item;\nmod tests {\n    use super::*;\n    use super::super::other;\n}\nlet x = super::other::y();\n",
        ),
        ("below::other", "fn f() { $crate::below::part::g() }\n"),
        ("beside", ""),
    ]);
    let uses: Uses = modules
        .iter()
        .map(|(module, text)| (module.clone(), all_paths(module, text, &modules)))
        .collect();
    let named = |module: &str| uses[module].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(named("above"), ["below", "below::part", "beside"]);
    assert_eq!(named("below"), ["above", "below::other", "below::part"]);
    assert_eq!(named("below::part"), ["below", "below::other"]);
    assert_eq!(named("below::other"), ["below::part"]);
    let layers = layers("## Layers\n\n| rooms | what |\n|---|---|\n| `above` | a |\n| `beside`, `below` | b |\n");
    assert_eq!(upward(&uses, &layers), ["below uses above"]);
    assert_eq!(circle(&uses), ["above", "below"]);
}
