//! Arguments, then a command, then an exit status.

use std::process::ExitCode;
use threadcast::cli::{self, Command, WrongUsage};
use threadcast::commands;
use threadcast::process::exit::ExitStatus;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => return wrong_usage(&error),
    };
    let status = match command {
        Command::Serve(config) => commands::serve(*config),
        Command::Forget { machine, server } => commands::forget::run(&machine, &server),
        Command::Drill(drill) => commands::drill::run(&drill),
        Command::Clients(clients) => commands::clients::run(&clients),
        Command::Diagnose(server) => commands::diagnose::run(&server),
        Command::Emit(emit) => commands::emit::run(&emit),
        Command::Tail(tail) => commands::tail::run(&tail),
        Command::Replay(replay) => commands::replay::run(&replay),
        Command::Demo { path } => commands::demo::run(&path),
        Command::Print(text) => commands::print(&text),
    };
    status.into()
}

fn wrong_usage(error: &WrongUsage) -> ExitCode {
    commands::complain(&format!("threadcast: {error}\nhint: {}\n", error.hint()));
    ExitStatus::Usage.into()
}
