//! The commands that set threadcast up: settings and completions.

use crate::cli::arguments::{Arguments, Raw, absent, word};
use crate::cli::command::Command;
use crate::cli::server::{settings_flags, settings_of};
use crate::cli::shell::Shell;
use crate::cli::spec::{Part, Spec};
use crate::cli::usage::UsageError;
use crate::config::show::as_file;

pub(super) static CONFIG: Spec = Spec {
    name: "config",
    group: "Set-up",
    about: "Show and check settings, print completions",
    more: "",
    usage: &["threadcast config show|check|completions [...]"],
    examples: &[
        "threadcast config show > threadcast.toml",
        "threadcast config check threadcast.toml",
        "threadcast config completions bash",
    ],
    needs: "one of show, check or completions after it",
    exits: "0 fine, 1 failed",
    arguments: Vec::new,
    parts: &[SHOW, CHECK, COMPLETIONS],
    read: |arguments| match arguments.part() {
        Some(("show", arguments)) => Ok(Command::Print(as_file(&settings_of(&arguments)?))),
        Some(("check", arguments)) => check(&arguments),
        Some(("completions", arguments)) => completions(&arguments),
        _ => Err(absent("show, check or completions")),
    },
};

const SHOW: Part = Part {
    name: "show",
    needs: "",
    about: "Print the settings in force as a settings file",
    more: "Takes the flags of `serve` and prints the settings that `serve` would have with them, each with where it \
           comes from. A default is a comment, so that the output can be a settings file.",
    examples: &[
        "threadcast config show",
        "threadcast config show --config threadcast.toml --port 8080",
    ],
    exits: "0 fine, 1 nothing could be printed",
    arguments: settings_flags,
};

const CHECK: Part = Part {
    name: "check",
    needs: "the path of a settings file",
    about: "Look for faults in a settings file",
    more: "Prints each fault with its line and column. Reads the file alone, without the environment.",
    examples: &["threadcast config check threadcast.toml"],
    exits: "0 the file is sound, 1 it has faults, or cannot be read",
    arguments: || {
        vec![
            word("file", "FILE", "the settings file")
                .required(true)
                .value_hint(clap::ValueHint::FilePath),
        ]
    },
};

const COMPLETIONS: Part = Part {
    name: "completions",
    needs: "the name of a shell: bash, zsh or fish",
    about: "Print the completions of a shell",
    more: "For bash, add `source <(threadcast config completions bash)` to ~/.bashrc. For zsh, write the output to \
           _threadcast in a folder of $fpath. For fish, write it to ~/.config/fish/completions/threadcast.fish.",
    examples: &["threadcast config completions zsh > ~/.zfunc/_threadcast"],
    exits: "0 fine, 1 this build has none",
    arguments: || {
        vec![
            word("shell", "SHELL", "bash, zsh or fish")
                .required(true)
                .value_parser(Raw(&Shell::NAMES)),
        ]
    },
};

fn check(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let file = arguments.raw("file").ok_or_else(|| absent("file"))?.into();
    Ok(Command::CheckConfig { file })
}

fn completions(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let shell = arguments.read_word("shell", str::parse)?;
    Ok(Command::Completions(shell.ok_or_else(|| absent("shell"))?))
}
