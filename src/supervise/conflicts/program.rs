//! Which program a process is, by its executable and its arguments: never by arguments that the program itself reads,
//! because editors, tails and shells have names of programs there.
//!
//! - Of what no interpreter runs: the file name of the executable, and that of `argv[0]`, which names the applet of a
//!   busybox and the title that a process has given itself.
//! - Of an interpreter: the file name of its script, its `-m` module or its `-c` text, and none of the above.
//! - Programs that start another one and wait for it (`uv run`, `npx`, `poetry run`) are themselves only: what they
//!   start is a process of its own, and would count twice.

use std::path::Path;

/// What globs are held against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub names: Vec<String>,
    /// The path of an interpreter's script, as it was given.
    pub script: Option<String>,
}

/// How an interpreter takes its program: flags are `-x`, and `--xyz` with a value of their own.
struct Interpreter {
    names: &'static [&'static str],
    /// Letters behind which the program's text stands.
    text: &'static str,
    /// Letters behind which a module's name stands.
    module: &'static str,
    /// Letters that take a value.
    valued: &'static str,
    /// Long flags whose value is the next argument; those of a text end with `!`.
    long: &'static [&'static str],
}

const INTERPRETERS: [Interpreter; 6] = [
    Interpreter {
        names: &["python", "pypy"],
        text: "c",
        module: "m",
        valued: "WXQ",
        long: &["--check-hash-based-pycs"],
    },
    Interpreter {
        names: &["node", "nodejs"],
        text: "ep",
        module: "",
        valued: "rC",
        long: &[
            "--eval!",
            "--print!",
            "--require",
            "--import",
            "--loader",
            "--conditions",
            "--title",
        ],
    },
    Interpreter {
        names: &["ruby"],
        text: "e",
        module: "",
        valued: "ICEr",
        long: &[],
    },
    Interpreter {
        names: &["perl"],
        text: "eE",
        module: "",
        valued: "I",
        long: &[],
    },
    Interpreter {
        names: &["php"],
        text: "r",
        module: "",
        valued: "dcSt",
        long: &[],
    },
    Interpreter {
        names: &["sh", "bash", "dash", "ash", "zsh", "ksh"],
        text: "c",
        module: "",
        valued: "oO",
        long: &["--rcfile", "--init-file"],
    },
];

/// Judges a process by the path of its executable, where that may be known, and its arguments.
pub fn program(executable: Option<&str>, arguments: &[String]) -> Program {
    let executable = executable.map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let own: Vec<&str> = executable.map(file_name).into_iter().collect();
    // A login shell has a dash there.
    let called = arguments
        .first()
        .map(|name| file_name(name.strip_prefix('-').unwrap_or(name)));
    let called = called.filter(|name| !name.is_empty());
    let interpreter = own.iter().copied().chain(called).find_map(interpreter);
    if let Some(interpreter) = interpreter
        && let Some(found) = interpreted(interpreter, arguments.get(1..).unwrap_or_default())
    {
        return found;
    }
    let mut names: Vec<String> = own.into_iter().chain(called).map(str::to_owned).collect();
    names.dedup();
    Program { names, script: None }
}

fn file_name(path: &str) -> &str {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    name.unwrap_or(path)
}

/// Finds an interpreter by its name, behind which a version may stand.
fn interpreter(name: &str) -> Option<&'static Interpreter> {
    let bare = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    INTERPRETERS
        .iter()
        .find(|interpreter| interpreter.names.contains(&bare.trim_end_matches('-')))
}

/// What an interpreter runs; `None` if it reads it from elsewhere.
fn interpreted(interpreter: &Interpreter, arguments: &[String]) -> Option<Program> {
    let named = |name: &str| Program {
        names: vec![name.to_owned()],
        script: None,
    };
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        if argument == "--" {
            return rest.next().map(script);
        }
        if let Some((flag, value)) = argument.strip_prefix("--").and_then(|_| argument.split_once('=')) {
            if interpreter.long.contains(&format!("{flag}!").as_str()) {
                return Some(named(value));
            }
        } else if argument.starts_with("--") {
            if interpreter.long.contains(&format!("{argument}!").as_str()) {
                return rest.next().map(named);
            }
            if interpreter.long.contains(&argument) {
                rest.next();
            }
        } else if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            for (at, letter) in letters.char_indices() {
                let behind = &letters[at + letter.len_utf8()..];
                let behind = Some(behind).filter(|behind| !behind.is_empty());
                if interpreter.text.contains(letter) || interpreter.module.contains(letter) {
                    // Of a shell, letters behind it are further flags.
                    let is_shell = interpreter.names.contains(&"sh");
                    return behind.filter(|_| !is_shell).or_else(|| rest.next()).map(named);
                }
                if interpreter.valued.contains(letter) {
                    if behind.is_none() {
                        rest.next();
                    }
                    break;
                }
            }
        } else if argument == "-" {
            return None;
        } else if !argument.is_empty() {
            return Some(script(argument));
        }
    }
    None
}

fn script(path: &str) -> Program {
    Program {
        names: vec![file_name(path).to_owned()],
        script: Some(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_what_runs_and_not_what_its_arguments_name() {
        for (executable, line, expected) in [
            ("/usr/bin/python3.11", "python3|-u|worker.py|--x", "worker.py"),
            ("/usr/bin/python3.11", "python3|/venv/bin/dramatiq|tasks", "dramatiq"),
            ("/usr/bin/python3.11", "python|-m|dramatiq|tasks", "dramatiq"),
            ("/usr/bin/python3.11", "python|-Wignore|-X|dev|-um|a.b", "a.b"),
            (
                "/usr/bin/python3.11",
                "python|-c|from multiprocessing.spawn import spawn_main; spawn_main(1)|--multiprocessing-fork",
                "from multiprocessing.spawn import spawn_main; spawn_main(1)",
            ),
            ("/usr/bin/python3.11", "python3", "python3.11,python3"),
            ("/usr/bin/python3.11", "python3|-", "python3.11,python3"),
            (
                "/usr/bin/python3.11",
                "celeryd: worker 1",
                "python3.11,celeryd: worker 1",
            ),
            ("/usr/bin/vim", "vim|dramatiq", "vim"),
            ("/usr/bin/tail", "tail|-f|logs/dramatiq.log", "tail"),
            (
                "/usr/bin/node",
                "node|--max-old-space-size=9|--require|x|server.js|dramatiq",
                "server.js",
            ),
            ("/usr/bin/node", "node|--eval=a()", "a()"),
            ("/usr/bin/dash", "sh|-ec|dramatiq x", "dramatiq x"),
            ("/usr/bin/bash", "-bash", "bash"),
            ("/usr/bin/bash", "bash|-o|pipefail|run.sh", "run.sh"),
            ("/usr/bin/perl5.36", "perl|-w|-I|lib|job.pl", "job.pl"),
            ("/usr/bin/ruby", "ruby|-rx|bin/sidekiq", "sidekiq"),
            ("/usr/bin/php8.2", "php|-d|x=1|artisan", "artisan"),
            ("/bin/uv", "uv|run|dramatiq|tasks", "uv"),
            ("/bin/busybox (deleted)", "sleep|9", "busybox,sleep"),
            ("", "", ""),
        ] {
            let arguments: Vec<String> = line.split('|').map(str::to_owned).collect();
            let found = program(Some(executable).filter(|path| !path.is_empty()), &arguments);
            assert_eq!(found.names.join(","), expected, "{line}");
        }
        let found = program(None, &["python3".to_owned(), "jobs/w.py".to_owned()]);
        assert_eq!(found.script.as_deref(), Some("jobs/w.py"));
    }
}
