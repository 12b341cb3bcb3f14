//! What a command is on the command line: its name, its texts, its arguments, how it is read.

use crate::cli::arguments::Arguments;
use crate::cli::command::Command;
use crate::cli::usage::UsageError;
use clap::{Arg, ArgAction};

/// Help is at most this wide, in columns; on a narrower terminal it is as wide as that.
const HELP_COLUMNS_MAX: usize = 100;

/// The groups of the commands, in the order of the help.
pub(super) const GROUPS: [&str; 5] = ["Server", "Watch", "Send", "Services", "Set-up"];

/// One command.
#[derive(Debug)]
pub struct Spec {
    pub name: &'static str,
    /// One of [`GROUPS`]; empty for one that the overview leaves out.
    pub group: &'static str,
    /// What it does, for the overview: at most 44 characters.
    pub about: &'static str,
    /// What else a person should know, for `--help`.
    pub more: &'static str,
    /// The lines of its usage after the program's name, if the parser's own would say too little.
    pub usage: &'static [&'static str],
    /// Commands to try.
    pub examples: &'static [&'static str],
    /// What it cannot do without, for the message that it is missing; empty if there is nothing.
    pub needs: &'static str,
    /// What its exit statuses mean.
    pub exits: &'static str,
    pub arguments: fn() -> Vec<Arg>,
    /// Commands below it.
    pub parts: &'static [Part],
    pub read: fn(&Arguments<'_>) -> Result<Command, UsageError>,
}

/// A command below another one.
#[derive(Debug)]
pub struct Part {
    pub name: &'static str,
    pub about: &'static str,
    pub more: &'static str,
    /// As [`Spec::needs`].
    pub needs: &'static str,
    pub examples: &'static [&'static str],
    /// As [`Spec::exits`].
    pub exits: &'static str,
    pub arguments: fn() -> Vec<Arg>,
}

impl Spec {
    /// Makes it as the parser has it.
    pub fn command(&self) -> clap::Command {
        let texts = Texts {
            about: self.about,
            more: self.more,
            examples: self.examples,
            exits: self.exits,
        };
        let mut command = texts.put(clap::Command::new(self.name)).args((self.arguments)());
        if !self.usage.is_empty() {
            command = command.override_usage(self.usage.join("\n       "));
        }
        if !self.parts.is_empty() {
            let parts = self.parts.iter().map(Part::command);
            command = command
                .subcommands(parts)
                .subcommand_required(true)
                .subcommand_value_name("WHAT");
        }
        command
    }
}

impl Part {
    fn command(&self) -> clap::Command {
        let texts = Texts {
            about: self.about,
            more: self.more,
            examples: self.examples,
            exits: self.exits,
        };
        texts.put(clap::Command::new(self.name)).args((self.arguments)())
    }
}

/// The texts around a command's arguments.
struct Texts {
    about: &'static str,
    more: &'static str,
    examples: &'static [&'static str],
    exits: &'static str,
}

impl Texts {
    fn put(&self, command: clap::Command) -> clap::Command {
        let examples: Vec<String> = self.examples.iter().map(|example| format!("\n  {example}")).collect();
        let after = format!("Examples:{}", examples.concat());
        let long = match self.more {
            "" => self.about.to_owned(),
            more => format!(
                "{}.

{more}",
                self.about
            ),
        };
        command
            .about(self.about)
            .long_about(long)
            .after_help(after.clone())
            .after_long_help(format!("{after}\n\nExit status: {}, 2 wrong usage.", self.exits))
            .max_term_width(HELP_COLUMNS_MAX)
            .args_override_self(true)
            .disable_version_flag(true)
            .disable_help_subcommand(true)
            .disable_help_flag(true)
            .arg(help_flag("print this help, or with --help more of it"))
    }
}

fn help_flag(help: &'static str) -> Arg {
    Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .help(help)
}

/// The program, without its commands.
pub(super) fn program() -> clap::Command {
    clap::Command::new("threadcast")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Shows people what their local workers are doing, live.")
        .help_template("{about-with-newline}\nUsage: threadcast COMMAND [FLAGS]{after-help}")
        .max_term_width(HELP_COLUMNS_MAX)
}

/// The commands by group, for the program's help.
pub(super) fn overview(specs: &[&Spec]) -> String {
    let mut text = String::new();
    for group in GROUPS {
        text.push_str(&format!("{group}:\n"));
        for spec in specs.iter().filter(|spec| spec.group == group) {
            text.push_str(&format!("  {:<10}  {}\n", spec.name, spec.about));
        }
        text.push('\n');
    }
    text.push_str(
        "`threadcast COMMAND -h` lists its flags, `--help` explains them.\n`threadcast --version` prints the version.\n\n\
         Exit status: 0 fine, 1 failed, 2 wrong usage.",
    );
    text
}
