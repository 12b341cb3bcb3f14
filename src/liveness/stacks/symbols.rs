//! Function, file and line of an address, from the modules' own files: symbol tables and DWARF line tables.
//!
//! Files are mapped when the first address of theirs is asked for and unmapped when the dump ends: keeping them would
//! cost an idle server megabytes, mapping them anew costs each dump some milliseconds.

use super::arena;
use super::stack::Symbols;
use super::unwind::{Code, is_trampoline};
use addr2line::Loader;
use rustix::fs::stat;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The program's own file, also when it has been replaced or removed since.
const OWN_FILE: &str = "/proc/self/exe";
/// Longer names, of closures in generic functions, are cut.
const NAME_CHARS_MAX: usize = 240;
/// Reading a file's tables takes less than this many times its size, even if they are compressed.
const ROOM_PER_FILE_BYTE: u64 = 4;

/// The symbols of all modules, for one dump.
pub(super) struct Symbolizer {
    files: Vec<File>,
    known: BTreeMap<u64, Vec<String>>,
    /// Addresses were left without a name to save memory.
    pub(super) ran_out: bool,
}

/// The file of a module.
struct File {
    start: u64,
    end: u64,
    bias: u64,
    name: String,
    path: String,
    /// `None` before it was tried.
    loader: Option<Option<Loader>>,
}

impl Symbolizer {
    pub(super) fn new(codes: &[Code]) -> Symbolizer {
        let own = Symbolizer::new as *const () as u64;
        let file = |code: &Code| File {
            start: code.module.start,
            end: code.module.end,
            bias: code.bias,
            name: code.module.name().to_owned(),
            path: if code.module.contains(own) {
                OWN_FILE.to_owned()
            } else {
                code.module.path.clone()
            },
            loader: None,
        };
        Symbolizer {
            files: codes.iter().map(file).collect(),
            known: BTreeMap::new(),
            ran_out: false,
        }
    }

    /// What this program's own file tells. Loads it.
    pub(super) fn quality(&mut self) -> Symbols {
        let own = self.files.iter_mut().find(|file| file.path == OWN_FILE);
        let Some(loader) = own.and_then(File::load) else {
            return Symbols::ModulesOnly;
        };
        match (
            loader.get_section_range(b".debug_line"),
            loader.get_section_range(b".symtab"),
        ) {
            (Some(_), _) => Symbols::Lines,
            (None, Some(_)) => Symbols::Names,
            (None, None) => Symbols::ModulesOnly,
        }
    }

    /// Appends a line for each function at `pc`, the innermost first: several when some were inlined.
    pub(super) fn describe(&mut self, pc: u64, lines: &mut Vec<String>) {
        if !self.known.contains_key(&pc) {
            let found = self.look_up(pc);
            self.known.insert(pc, found);
        }
        if let Some(known) = self.known.get(&pc) {
            lines.extend_from_slice(known);
        }
    }

    fn look_up(&mut self, pc: u64) -> Vec<String> {
        if is_trampoline(pc) {
            return vec!["(a handler of a signal was called here)".to_owned()];
        }
        let Some(file) = self.files.iter_mut().find(|file| (file.start..file.end).contains(&pc)) else {
            return vec![format!("{pc:#x}, in no module")];
        };
        let address = pc.wrapping_sub(file.bias);
        let place = format!("{}+{address:#x}", file.name);
        if !arena::has_room() {
            self.ran_out = true;
            return vec![place];
        }
        let Some(loader) = file.load() else { return vec![place] };
        let lines = functions(loader, address);
        if !lines.is_empty() {
            return lines;
        }
        match loader.find_symbol_info(address) {
            Some(symbol) => vec![format!(
                "{}+{:#x} in {}",
                demangled(symbol.name()),
                address.wrapping_sub(symbol.address()),
                file.name
            )],
            None => vec![place],
        }
    }
}

impl File {
    fn load(&mut self) -> Option<&Loader> {
        let path = &self.path;
        let load = || {
            let len = u64::try_from(stat(path.as_str()).ok()?.st_size).ok()?;
            let fits = len.checked_mul(ROOM_PER_FILE_BYTE)? <= arena::room() as u64;
            // Of a file that was replaced, the path leads to another one.
            let is_there = path.starts_with('/') && !path.ends_with(" (deleted)");
            (fits && is_there).then(|| Loader::new(path).ok()).flatten()
        };
        self.loader.get_or_insert_with(load).as_ref()
    }
}

/// The functions at `address` by the line tables; none when there are no tables for it.
fn functions(loader: &Loader, address: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let Ok(mut frames) = loader.find_frames(address) else {
        return lines;
    };
    let mut last = None;
    while let Ok(Some(frame)) = frames.next() {
        let Some(function) = &frame.function else { continue };
        let name = function.demangle().map(|name| short_name(&name)).unwrap_or_default();
        let mut place = String::new();
        if let Some((file, line)) = frame
            .location
            .as_ref()
            .and_then(|place| Some((place.file?, place.line)))
        {
            let _ = write!(place, " at {}:{}", short_path(file), line.unwrap_or(0));
        }
        if let Some((name, place)) = last.replace((name, place)) {
            lines.push(format!("{name}{place} (inlined)"));
        }
    }
    if let Some((name, place)) = last {
        // Line tables alone name a function without its module; the symbol has the whole name.
        let whole = loader.find_symbol_info(address).map(|symbol| demangled(symbol.name()));
        let name = whole.filter(|whole| whole.contains("::")).unwrap_or(name);
        lines.push(format!("{name}{place}"));
    }
    lines
}

fn demangled(name: &str) -> String {
    short_name(&addr2line::demangle_auto(name.into(), None))
}

/// A name that line tables alone give, which has no module, goes without its type arguments, which have: they would
/// be many times as long as the name. Any other is only cut.
fn short_name(name: &str) -> String {
    let name = match name.find('<') {
        Some(at @ 1..) if !name[..at].contains("::") => &name[..at],
        _ => name,
    };
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

/// A source path without what differs from host to host: from the crate's folder on, for this crate from `src` on.
fn short_path(path: &str) -> &str {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let after = |mark: &str| path.find(mark).map(|at| &path[at + mark.len()..]);
    let below = |path: &'static str| after(path).and_then(|rest| rest.split_once('/'));
    if let Some(rest) = path.strip_prefix(own).or_else(|| path.strip_prefix("./")) {
        return rest;
    }
    // The standard library: /rustc/HASH/library/std/src/..., and what it depends on: /rust/deps/CRATE/src/...
    if let Some(rest) = after("/library/").filter(|_| path.starts_with("/rustc/")) {
        return rest;
    }
    // A registry's crates: .../registry/src/NAME-OF-THE-REGISTRY/CRATE-VERSION/src/...
    below("/registry/src/")
        .map(|(_, rest)| rest)
        .or_else(|| after("/rust/deps/"))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_from_their_crate_on() {
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src/fanout.rs");
        for (path, short) in [
            (own, "src/fanout.rs"),
            ("./src/process/task.rs", "src/process/task.rs"),
            ("/rustc/0123abcd/library/std/src/thread/mod.rs", "std/src/thread/mod.rs"),
            (
                "/home/u/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crossbeam-channel-0.5.17/src/waker.rs",
                "crossbeam-channel-0.5.17/src/waker.rs",
            ),
            ("/rust/deps/hashbrown-0.15.2/src/map.rs", "hashbrown-0.15.2/src/map.rs"),
            ("/build/glibc/nptl/futex.c", "/build/glibc/nptl/futex.c"),
        ] {
            assert_eq!(short_path(path), short);
        }
    }

    #[test]
    fn names_are_whole_or_cut_where_a_character_ends() {
        assert_eq!(short_name("ä::b"), "ä::b");
        assert_eq!(short_name("try_with<core::cell::Cell<u8>, ()>"), "try_with");
        for whole in ["<a::B<C>>::new", "a::b::<c::D>"] {
            assert_eq!(short_name(whole), whole);
        }
        let long = "ä".repeat(NAME_CHARS_MAX + 1);
        assert_eq!(short_name(&long), format!("{}...", "ä".repeat(NAME_CHARS_MAX)));
        assert_eq!(demangled("_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(demangled("__clone3"), "__clone3");
    }
}
