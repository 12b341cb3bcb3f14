//! Arguments, then a command, then an exit status.

use std::process::ExitCode;
use threadcast::cli::{self, Command, WrongUsage};
use threadcast::commands;
use threadcast::config::Config;
use threadcast::process::exit::ExitStatus;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1), &std::env::vars_os().collect()) {
        Ok(command) => command,
        Err(error) => return wrong_usage(&error),
    };
    let status = match command {
        Command::Serve(config) => commands::serve(*config, serve_settings),
        Command::Forget { machine, server } => commands::forget::run(&machine, &server),
        Command::Drill(drill) => commands::drill::run(&drill),
        Command::Clients(clients) => commands::clients::run(&clients),
        Command::Machines(machines) => commands::machines::run(&machines),
        Command::Diagnose(server) => commands::diagnose::run(&server),
        Command::Emit(emit) => commands::emit::run(&emit),
        Command::Tail(tail) => commands::tail::run(&tail),
        Command::Replay(replay) => commands::replay::run(&replay),
        Command::Probe(server) => commands::doctor::run(&server),
        Command::CheckConfig { file } => commands::check_config::run(&file),
        Command::Up(up) => commands::up::run(&up),
        Command::Services { run, wish } => commands::services::run(&run, &wish),
        Command::CheckServices { file } => commands::check_services::run(&file),
        Command::InitServices { folder } => commands::init_services::run(&folder),
        Command::Demo(demo) => commands::demo::run(&demo),
        Command::Completions(shell) => commands::print_made(cli::completions::script(shell)),
        Command::Print(text) => commands::print(&text),
    };
    status.into()
}

/// The settings of `serve` as this process was started with them, its file as it is now.
fn serve_settings() -> Result<Config, String> {
    match cli::parse(std::env::args_os().skip(1), &std::env::vars_os().collect()) {
        Ok(Command::Serve(config)) => Ok(*config),
        Ok(_) => Err("this process was started with another command".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn wrong_usage(error: &WrongUsage) -> ExitCode {
    for line in error.lines() {
        commands::complain(&format!("threadcast: {line}\n"));
    }
    commands::complain(&format!("hint: {}\n", error.hint()));
    ExitStatus::Usage.into()
}
