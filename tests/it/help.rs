//! What a person reads who asks for help: every command's, at three widths, held against pictures in tests/help.
//!
//! After a change of a text, `THREADCAST_BLESS=1 cargo test --test it -- help::` draws them anew; look at them.

use crate::support::server::{clear_environment, run};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use threadcast::cli::SPECS;

/// Every command with its arguments, and its name as a file has it.
fn commands() -> Vec<(String, Vec<&'static str>)> {
    let mut commands = vec![("threadcast".to_owned(), Vec::new())];
    for spec in SPECS {
        commands.push((spec.name.to_owned(), vec![spec.name]));
        let parts = spec.parts.iter();
        commands.extend(parts.map(|part| (format!("{}-{}", spec.name, part.name), vec![spec.name, part.name])));
    }
    commands
}

/// The help, on a terminal of that many columns.
fn help(arguments: &[&str], flag: &str, columns: usize) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadcast"));
    clear_environment(&mut command);
    let output = command
        .args(arguments)
        .arg(flag)
        .env("COLUMNS", columns.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?} {flag}");
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_help_of_every_command_fits_and_is_as_drawn() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let bless = std::env::var_os("THREADCAST_BLESS").is_some();
    let mut expected: Vec<String> = Vec::new();
    for columns in [60, 80, 100] {
        for (name, arguments) in commands() {
            let mut drawn = String::new();
            for flag in ["-h", "--help"] {
                let text = help(&arguments, flag, columns);
                for line in text.lines() {
                    // A word alone, such as a path, is never broken.
                    let fits = line.chars().count() <= columns || line.split_whitespace().count() == 1;
                    // Examples and usage are to be copied.
                    assert!(
                        fits || line.contains("threadcast "),
                        "{name} {flag} at {columns}: {line}"
                    );
                    assert_eq!(line.trim_end(), line, "{name} {flag}");
                }
                let line = [&["threadcast"], arguments.as_slice(), &[flag]].concat().join(" ");
                drawn.push_str(&format!("$ {line}\n{text}\n"));
            }
            let file = format!("{name}-{columns}.txt");
            let path = folder.join(&file);
            if bless {
                fs::write(&path, &drawn).unwrap();
            }
            let was = fs::read_to_string(&path).unwrap_or_default();
            assert!(was == drawn, "tests/help/{file} is another; now it is:\n{drawn}");
            expected.push(file);
        }
    }
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "a picture of every help, and no other");
}

#[test]
fn wider_terminals_get_no_wider_help() {
    for (name, arguments) in commands() {
        assert_eq!(
            help(&arguments, "--help", 172),
            help(&arguments, "--help", 100),
            "{name}"
        );
    }
}

#[test]
fn every_example_is_a_command_line_that_the_program_takes() {
    let folder = tempfile::tempdir().unwrap();
    for spec in SPECS {
        let examples = spec
            .examples
            .iter()
            .chain(spec.parts.iter().flat_map(|part| part.examples));
        for example in examples.filter(|example| example.starts_with("threadcast ")) {
            // To parse it is enough; its last word makes sure that it is not followed.
            let (words, _) = example.split_once(" > ").unwrap_or((example, ""));
            // Behind -- stands another program's command.
            let (own, others) = words.split_once(" -- ").unwrap_or((words, ""));
            let dashes = if others.is_empty() { "" } else { "-- " };
            let script = format!("{own} --help {dashes}{others}");
            let script = script.replacen("threadcast", env!("CARGO_BIN_EXE_threadcast"), 1);
            let output = Command::new("sh")
                .args(["-c", &script])
                .current_dir(folder.path())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{example}");
        }
    }
    // So that the check above can fail.
    assert_eq!(run(folder.path(), &["tail", "--nonsense", "--help"]).0, 2);
}
