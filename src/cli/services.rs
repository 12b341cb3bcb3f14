//! The commands around services: programs of others that threadcast looks after.

use crate::cli::arguments::{Arguments, absent, flag, switch, word, wrong};
use crate::cli::command::Command;
use crate::cli::reading::{watch, watch_flag};
use crate::cli::spec::{Part, Spec};
use crate::cli::usage::UsageError;
use crate::commands::services::logs::Logs;
use crate::commands::services::{Run, Wish};
use crate::commands::up::Up;
use crate::process::values::number;
use crate::supervise::settings::USUAL_FILE;
use clap::{Arg, ArgAction, ValueHint};
use std::path::PathBuf;

/// The run folder that commands ask if they are given none.
const USUAL_RUN_DIR: &str = "run";
/// Lines of each log that `services logs` shows.
const LOG_LINES: usize = 20;
const LOG_LINES_MAX: u64 = 10_000;

pub(super) static UP: Spec = Spec {
    name: "up",
    group: "Services",
    about: "Start services, and look after them",
    more: "Starts what a file of services describes, in the order of depends_on: first it looks for what has to be there \
           ([needs]), then it starts one phase after the other, and prints a table once all of them are started. A \
           service that ends by itself is started again, with a delay that grows. Ctrl-C or SIGTERM stops all of them, \
           the last one first: each gets its stop signal, and what is left of it after its time is killed, with \
           everything that it has started.\n\n\
           When this program is killed, the services go on; the next `threadcast up` of the same folder takes them over. \
           The run folder (run_dir) is for one `threadcast up` at a time.",
    usage: &[
        "threadcast up [FLAGS]",
        "threadcast up --until-ready -- COMMAND [ARGUMENTS...]",
    ],
    examples: &[
        "threadcast up",
        "threadcast up --config deploy/services.toml --replace",
        "threadcast up --until-ready -- make check",
    ],
    needs: "",
    exits: "0 stopped as asked, 1 failed, or a process is left; with --until-ready 1 if its command failed",
    arguments: || {
        vec![
            flag("config", "FILE", format!("the file of services [{USUAL_FILE}]")),
            switch("replace", "stop an earlier run of the same folder first"),
            switch("serve", "start a threadcast server too, if the file has no [server]"),
            switch(
                "until-ready",
                "once all services are ready, run the command behind --, then stop them",
            ),
            word("command", "COMMAND", "the command of --until-ready")
                .num_args(0..)
                .last(true)
                .action(ArgAction::Append),
        ]
    },
    parts: &[],
    read: |arguments| {
        let command = arguments.texts("command")?;
        let wants = arguments.has("until-ready");
        if wants == command.is_empty() {
            let why = if wants {
                "--until-ready needs a command: --until-ready -- COMMAND"
            } else {
                "a command behind -- needs --until-ready"
            };
            return Err(UsageError::Arguments(why.to_owned()));
        }
        Ok(Command::Up(Up {
            file: path(arguments, "config", USUAL_FILE)?,
            replace: arguments.has("replace"),
            until_ready: wants.then_some(command),
            serve: arguments.has("serve"),
        }))
    },
};

pub(super) static SERVICES: Spec = Spec {
    name: "services",
    group: "Services",
    about: "Ask and order services; write their file",
    more: "",
    usage: &["threadcast services status|start|stop|restart|logs|check|init [...]"],
    examples: &[
        "threadcast services status --watch",
        "threadcast services restart worker",
        "threadcast services logs -f",
        "threadcast services check",
    ],
    needs: "one of status, start, stop, restart, logs, check or init after it",
    exits: "0 fine, 1 failed",
    arguments: Vec::new,
    parts: &[STATUS, START, STOP, RESTART, LOGS, CHECK, INIT],
    read: |arguments| match arguments.part() {
        Some(("check", arguments)) => Ok(Command::CheckServices {
            file: path(&arguments, "file", USUAL_FILE)?,
        }),
        Some(("init", arguments)) => Ok(Command::InitServices {
            folder: path(&arguments, "dir", ".")?,
        }),
        Some((name, arguments)) => Ok(Command::Services {
            run: run(&arguments)?,
            wish: wish(name, &arguments)?,
        }),
        None => Err(absent("status, start, stop, restart, logs, check or init")),
    },
};

fn run(arguments: &Arguments<'_>) -> Result<Run, UsageError> {
    match (arguments.raw("config"), arguments.raw("run-dir")) {
        (Some(_), Some(_)) => Err(UsageError::Arguments("either --config or --run-dir".to_owned())),
        (Some(_), None) => Ok(Run::Of(path(arguments, "config", USUAL_FILE)?)),
        _ => Ok(Run::In(path(arguments, "run-dir", USUAL_RUN_DIR)?)),
    }
}

fn wish(name: &str, arguments: &Arguments<'_>) -> Result<Wish, UsageError> {
    let service = || arguments.required("service");
    match name {
        "status" => Ok(Wish::Status {
            watch: watch(arguments)?,
            json: arguments.has("json"),
        }),
        "start" => Ok(Wish::Start(service()?)),
        "stop" => Ok(Wish::Stop(service()?)),
        "restart" => Ok(Wish::Restart(service()?)),
        _ => Ok(Wish::Logs(Logs {
            names: arguments.texts("services")?,
            follow: arguments.has("follow"),
            lines: lines(arguments)?,
        })),
    }
}

fn lines(arguments: &Arguments<'_>) -> Result<usize, UsageError> {
    let Some(text) = arguments.text("lines")? else {
        return Ok(LOG_LINES);
    };
    let lines = number(&text, 0, LOG_LINES_MAX).map_err(|wanted| wrong("lines", &text, wanted))?;
    Ok(lines as usize)
}

/// Which run is meant.
fn run_flags() -> [Arg; 2] {
    [
        flag("config", "FILE", "the file of services, which says where they run"),
        flag("run-dir", "DIR", format!("the run folder [{USUAL_RUN_DIR}]")),
    ]
}

fn with_service() -> Vec<Arg> {
    let service = word("service", "SERVICE", "the name of the service").required(true);
    [service].into_iter().chain(run_flags()).collect()
}

const STATUS: Part = Part {
    name: "status",
    needs: "",
    about: "Show every service",
    more: "UP: since its first process was started. MEMORY: of all its processes together; what several share counts \
           once (Pss). CPU %: of one processor, between the last two looks. RESTARTS: how often it was started again by \
           itself.",
    examples: &[
        "threadcast services status",
        "threadcast services status --watch --config deploy/services.toml",
    ],
    exits: "0 everything is as it should be, 1 something is not, or no services run",
    arguments: || {
        let flags = [switch("json", "the document as it is, on one line"), watch_flag()];
        flags.into_iter().chain(run_flags()).collect()
    },
};

const START: Part = Part {
    name: "start",
    needs: "a service",
    about: "Start a service",
    more: "Also one that was given up after too many restarts, or stopped.",
    examples: &["threadcast services start worker"],
    exits: "0 ordered, 1 there is no such service, or no services run",
    arguments: with_service,
};

const STOP: Part = Part {
    name: "stop",
    needs: "a service",
    about: "Stop a service, with all of its processes",
    more: "It stays stopped until `threadcast services start`. Services that depend on it go on.",
    examples: &["threadcast services stop worker"],
    exits: "0 ordered, 1 there is no such service, or no services run",
    arguments: with_service,
};

const RESTART: Part = Part {
    name: "restart",
    needs: "a service",
    about: "Stop a service, and start it again",
    more: "It is started once nothing is left of it.",
    examples: &["threadcast services restart worker"],
    exits: "0 ordered, 1 there is no such service, or no services run",
    arguments: with_service,
};

const LOGS: Part = Part {
    name: "logs",
    needs: "",
    about: "Show the logs of services",
    more: "The last lines of each, with the service's name before every line. With --config also when nothing runs. Colors on a terminal only, and not with \
           NO_COLOR.",
    examples: &[
        "threadcast services logs",
        "threadcast services logs worker backend -f -n 100",
    ],
    exits: "0 fine, 1 there is no such service, or no services run",
    arguments: || {
        let own = [
            word("services", "SERVICE", "only these services")
                .num_args(0..)
                .action(ArgAction::Append),
            switch("follow", "go on with what comes, until Ctrl-C").short('f'),
            flag("lines", "N", format!("the last N lines of each [{LOG_LINES}]")).short('n'),
        ];
        own.into_iter().chain(run_flags()).collect()
    },
};

const CHECK: Part = Part {
    name: "check",
    needs: "",
    about: "Look for faults in a file of services",
    more: "Prints each fault with its line, its column and what would be right, or the phases in which the services \
           start. Looks also whether programs and folders are there, and reads the files of variables. Starts nothing.",
    examples: &[
        "threadcast services check",
        "threadcast services check deploy/services.toml",
    ],
    exits: "0 the file is sound, 1 it has faults, or cannot be read",
    arguments: || {
        vec![word("file", "FILE", format!("the file of services [{USUAL_FILE}]")).value_hint(ValueHint::FilePath)]
    },
};

const INIT: Part = Part {
    name: "init",
    needs: "",
    about: "Write a file of services for a folder",
    more: "Writes services.toml, with comments, for what it finds in the folder and in those directly below: a \
           Procfile, scripts of package.json, Django's manage.py, Dramatiq in pyproject.toml. Never overwrites a file.",
    examples: &["threadcast services init", "threadcast services init ~/project"],
    exits: "0 written, 1 not written, or there is one already",
    arguments: || vec![word("dir", "DIR", "the folder [.]").value_hint(ValueHint::DirPath)],
};

/// The value of a word that is a path, or what is usual.
fn path(arguments: &Arguments<'_>, name: &str, usual: &str) -> Result<PathBuf, UsageError> {
    match arguments.raw(name) {
        Some(path) if path.is_empty() => Err(UsageError::Arguments(format!(
            "{} cannot be \"\": write a path, or leave it out for {usual}",
            name.to_uppercase()
        ))),
        Some(path) => Ok(path.into()),
        None => Ok(usual.into()),
    }
}
