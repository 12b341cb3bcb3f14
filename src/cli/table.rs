//! The one table of commands, and the command line that is made of it.

use crate::cli::send::{DEMO, EMIT, REPLAY};
use crate::cli::server::{DIAGNOSE, DOCTOR, DRILL, SERVE};
use crate::cli::services::{SERVICES, UP};
use crate::cli::setup::CONFIG;
use crate::cli::spec::{self, Spec};
use crate::cli::watch::{CLIENTS, FORGET, MACHINES, TAIL};
use std::ffi::OsString;

/// Every command, in the order of the help.
pub static SPECS: [&Spec; 14] = [
    &SERVE, &DOCTOR, &DIAGNOSE, &DRILL, &TAIL, &MACHINES, &CLIENTS, &FORGET, &EMIT, &REPLAY, &DEMO, &UP, &SERVICES,
    &CONFIG,
];

/// The command line as far as `arguments` need it: of commands that they do not name, the parser knows the names only.
/// A server keeps the memory that its parser took, so it takes little.
pub(super) fn command_line_for(arguments: &[OsString]) -> clap::Command {
    let named = |spec: &Spec| arguments.iter().take(2).any(|argument| argument == spec.name);
    let commands = SPECS.iter().map(|spec| {
        if named(spec) {
            spec.command()
        } else {
            clap::Command::new(spec.name)
        }
    });
    spec::program().after_help(spec::overview(&SPECS)).subcommands(commands)
}

/// The whole command line, for completions and the manual.
pub fn command_line() -> clap::Command {
    let commands = SPECS.iter().map(|spec| spec.command());
    spec::program().after_help(spec::overview(&SPECS)).subcommands(commands)
}
