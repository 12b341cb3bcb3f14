//! The invariants of ARCHITECTURE.md that a machine can check by reading: what must not be in the code, and that the
//! pages say what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use threadcast::process::exit::ExitStatus;
use threadcast::process::threads::NAME_BYTES_MAX;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source file below `folder`, by its path from the root; not `tests.rs`, which has a module's unit tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                found.push((
                    path.strip_prefix(root()).unwrap().to_owned(),
                    fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The part of a file before its unit tests, without comments.
fn code(text: &str) -> String {
    let end = ["#[cfg(test)]", "#[cfg(all(test"]
        .iter()
        .filter_map(|tests| text.find(tests))
        .min();
    let text = &text[..end.unwrap_or(text.len())];
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that may contain `unsafe`, and what for; ARCHITECTURE.md says the same.
const UNSAFE: [(&str, &str); 11] = [
    (
        "src/process/peer.rs",
        "SO_PEERGROUPS, which rustix lacks, and SO_PEERCRED with the pid 0",
    ),
    ("src/process/signals.rs", "handlers of signals that look at a clock"),
    ("src/process/recvmmsg.rs", "recvmmsg(2), which rustix lacks"),
    ("src/process/heap.rs", "malloc_trim(3) and mallopt(3)"),
    (
        "src/process/pile.rs",
        "a list that threads leave things on and take whole, without a lock",
    ),
    ("src/process/tcp_path.rs", "TCP_INFO (tcp(7)), which rustix lacks"),
    (
        "src/process/passed_sockets.rs",
        "descriptors that the service manager passes by their numbers",
    ),
    (
        "src/supervise/spawn/fresh.rs",
        "what a child does between fork(2) and execve(2)",
    ),
    ("src/liveness/stacks/arena.rs", "the allocator"),
    (
        "src/liveness/stacks/capture.rs",
        "a handler of a signal, and the slot that it fills",
    ),
    (
        "src/liveness/stacks/memory.rs",
        "process_vm_readv(2), which rustix lacks",
    ),
];

#[test]
fn unsafe_is_where_the_architecture_says_and_for_the_reason_it_says() {
    let page = read("ARCHITECTURE.md");
    for (path, reason) in UNSAFE {
        let row = format!("`{}`: {reason}", path.trim_start_matches("src/"));
        assert!(page.contains(&row), "ARCHITECTURE.md lacks: {row}");
        assert!(
            code(&read(path)).contains("unsafe"),
            "{path} needs no exception any more"
        );
    }
}

#[test]
fn what_must_not_be_in_the_code_is_not() {
    let rules: [(&str, &[&str]); 9] = [
        ("thread::spawn", &["src/process/threads.rs"]),
        ("thread::Builder", &["src/process/threads.rs"]),
        ("thread::sleep", &["src/process/clock.rs"]),
        ("unbounded(", &[]),
        ("println!", &[]),
        ("unsafe {", &UNSAFE.map(|(path, _)| path)),
        ("unsafe impl", &UNSAFE.map(|(path, _)| path)),
        ("unsafe fn", &UNSAFE.map(|(path, _)| path)),
        ("async fn", &[]),
    ];
    for (path, text) in sources("src") {
        for (forbidden, allowed) in rules {
            let excepted = allowed.iter().any(|allowed| path == Path::new(allowed));
            assert!(
                excepted || !code(&text).contains(forbidden),
                "{} has {forbidden}",
                path.display()
            );
        }
    }
}

#[test]
fn the_event_path_knows_of_liveness_only_beats_and_drills() {
    let rooms = ["stream", "intake", "fanout", "journal", "engine_db", "outbox", "client"];
    let of_rooms = |path: &Path| {
        let room = path.components().nth(1).unwrap().as_os_str().to_str().unwrap();
        rooms.contains(&room.trim_end_matches(".rs"))
    };
    for (path, text) in sources("src").into_iter().filter(|(path, _)| of_rooms(path)) {
        for line in code(&text).lines().filter(|line| line.contains("crate::liveness")) {
            let known = [
                "crate::liveness::beat",
                "crate::liveness::operation",
                "crate::liveness::drill",
            ];
            assert!(
                known.iter().any(|known| line.contains(known)) || line.contains("crate::liveness::drill;"),
                "{}: {line}",
                path.display()
            );
        }
    }
}

#[test]
fn no_comment_is_wider_than_the_code_may_be() {
    const COLUMNS: usize = 120;
    let folders = ["src", "tests/it", "tests/fuzz", "benches/micro"];
    for (path, text) in folders.iter().flat_map(|folder| sources(folder)) {
        for (at, line) in text.lines().enumerate() {
            let is_wide = line.trim_start().starts_with("//") && line.chars().count() > COLUMNS;
            assert!(!is_wide, "{}, line {}: {line}", path.display(), at + 1);
        }
    }
}

#[test]
fn no_async_runtime_is_locked() {
    let lock = read("Cargo.lock");
    let names: BTreeSet<&str> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .collect();
    assert!(names.contains("tungstenite"), "the lock file is read as it should be");
    for runtime in [
        "tokio",
        "async-std",
        "smol",
        "mio",
        "async-io",
        "futures-executor",
        "async-executor",
        "glommio",
        "monoio",
    ] {
        assert!(!names.contains(runtime), "{runtime}");
    }
}

/// The first column of the table whose head begins with `| thread |`.
fn thread_table(page: &str) -> BTreeSet<String> {
    let lines = page.lines().map(|line| line.trim_start_matches("//!").trim());
    let table = lines.skip_while(|line| !line.starts_with("| thread |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let names: BTreeSet<String> = rows
        .map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned())
        .collect();
    assert!(!names.is_empty(), "no thread table");
    names
}

/// The threads that each file starts, by the literals behind `threads::spawn(`.
fn threads_by_file() -> Vec<(PathBuf, BTreeSet<String>)> {
    let mut files = Vec::new();
    for (path, text) in sources("src") {
        let text = code(&text).replace(['\n', ' '], "");
        let mut names = BTreeSet::new();
        // Else a thread could start without a trace of `threads::spawn(`.
        let imports = text.split(';').filter(|code| code.contains("process::threads::"));
        assert!(
            imports
                .filter(|code| code.contains("use"))
                .all(|code| !code.contains("spawn")),
            "{}",
            path.display()
        );
        for (at, start) in text.match_indices("threads::spawn(") {
            let argument = &text[at + start.len()..];
            let literal = if let Some(literal) = argument.strip_prefix('"') {
                literal
            } else {
                // The name has a number in it: `let name = format!("client-{}", ..)`.
                let made = text[..at].rsplit("letname=format!(\"").next().unwrap();
                assert_ne!(made, &text[..at], "{}: a thread without a literal name", path.display());
                made
            };
            names.insert(literal.split('"').next().unwrap().replace("{}", "N"));
        }
        if !names.is_empty() {
            files.push((path, names));
        }
    }
    files
}

#[test]
fn the_thread_table_says_what_the_code_starts() {
    let started = threads_by_file().into_iter().flat_map(|(_, names)| names);
    let expected: BTreeSet<String> = started.chain(["main".to_owned()]).collect();
    assert!(
        expected.contains("client-N") && expected.contains("fanout"),
        "{expected:?}"
    );
    assert_eq!(thread_table(&read("ARCHITECTURE.md")), expected, "ARCHITECTURE.md");
    for name in &expected {
        let longest = name.replace('N', "99999999");
        assert!(longest.len() <= NAME_BYTES_MAX, "{longest} would be cut");
    }
}

#[test]
fn every_file_that_starts_a_thread_opens_with_the_seven_lines() {
    const HEADS: [&str; 7] = [
        "//! Runs on: ",
        "//! Owns: ",
        "//! Blocks on: ",
        "//! Can be stalled by: ",
        "//! Full queue means: ",
        "//! Ends when: ",
        "//! Watched as: ",
    ];
    let started: BTreeMap<PathBuf, BTreeSet<String>> = threads_by_file().into_iter().collect();
    assert!(started.len() > 10, "{started:?}");
    for (path, text) in sources("src") {
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let found = head
            .iter()
            .filter_map(|line| HEADS.into_iter().find(|head| line.starts_with(head)));
        let found: Vec<&str> = found.collect();
        // Other files may open with them too, where a thread's life goes on; then with all of them.
        if started.contains_key(&path) || found.len() > 1 {
            assert_eq!(found, HEADS, "{}", path.display());
        }
        let head = head.join(" ");
        for name in started.get(&path).into_iter().flatten() {
            let runs_on = head.split("Runs on: ").nth(1).unwrap().split("Owns: ").next().unwrap();
            assert!(runs_on.contains(&format!("`{name}`")), "{}: `{name}`", path.display());
        }
    }
}

/// Each function of the file with its count of lines, by rustfmt's indentation.
fn functions(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, name)) = code.split_once("fn ") else {
            continue;
        };
        let words = ["pub", "const", "unsafe", "extern", "\"C\""];
        let is_function = before.split_whitespace().all(|word| {
            words.contains(&word) || word.starts_with("pub(") || word.starts_with("crate") || word.ends_with(')')
        });
        if !is_function || code.ends_with('}') || code.ends_with(';') {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[at..].iter().position(|line| **line == end);
        let name = name.split(['(', '<']).next().unwrap().to_owned();
        found.extend(length.map(|length| (length + 1, name)));
    }
    found
}

#[test]
fn no_function_is_longer_than_a_screen() {
    const LINES_MAX: usize = 70;
    let mut seen = 0;
    for (path, text) in sources("src") {
        for (lines, name) in functions(&text) {
            assert!(lines <= LINES_MAX, "{} has {lines} lines: {}", name, path.display());
            seen += 1;
        }
    }
    assert!(seen > 1000, "{seen}");
    let long = format!(
        "impl A {{\n    pub(super) fn b<T>(\n{}    }}\n}}\n",
        "        c();\n".repeat(70)
    );
    assert_eq!(functions(&long), [(72, "b".to_owned())]);
}

#[test]
fn readme_lists_every_exit_status() {
    let readme = read("README.md");
    for (status, text) in ExitStatus::TABLE {
        let row = format!("| {} | {text} |", status as u8);
        assert!(readme.contains(&row), "README.md lacks the row {row}");
    }
}

/// Other builds have other defaults, and help that is not wrapped.
#[cfg(all(feature = "engine-db", feature = "shell-comfort"))]
#[test]
fn the_reference_is_what_the_program_says() {
    assert!(
        read("docs/reference.md") == threadcast::cli::reference::page(),
        "docs/reference.md is not what the tables say; `make reference` writes it anew"
    );
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = read("Cargo.toml");
    let mut before = "";
    let mut inside = false;
    let mut seen = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies]");
        } else if inside && line.contains(" = ") {
            seen += 1;
            assert!(before.starts_with('#'), "{line} has no comment above it");
        }
        before = line;
    }
    assert!(seen > 10);
}

#[test]
fn the_changelog_knows_this_version() {
    assert!(read("CHANGELOG.md").contains(&format!("## {}", env!("CARGO_PKG_VERSION"))));
}
