//! The one table of commands, and the command line that is made of it.

use crate::cli::send::{DEMO, EMIT, REPLAY};
use crate::cli::server::{DIAGNOSE, DOCTOR, DRILL, SERVE};
use crate::cli::setup::CONFIG;
use crate::cli::spec::{self, Spec};
use crate::cli::watch::{CLIENTS, FORGET, MACHINES, TAIL};

/// Every command, in the order of the help.
pub static SPECS: [&Spec; 12] = [
    &SERVE, &DOCTOR, &DIAGNOSE, &DRILL, &TAIL, &MACHINES, &CLIENTS, &FORGET, &EMIT, &REPLAY, &DEMO, &CONFIG,
];

/// The whole command line, for the parser, completions and the manual.
pub fn command_line() -> clap::Command {
    let commands = SPECS.iter().map(|spec| spec.command());
    spec::program().after_help(spec::overview(&SPECS)).subcommands(commands)
}
