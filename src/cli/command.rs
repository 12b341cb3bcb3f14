//! What the person asked for.

use crate::cli::shell::Shell;
use crate::commands::act::Target;
use crate::commands::clients::Clients;
use crate::commands::demo::Demo;
use crate::commands::drill::Drill;
use crate::commands::emit::Emit;
use crate::commands::machines::Machines;
use crate::commands::replay::Replay;
use crate::commands::request::ServerUrl;
use crate::commands::services::{Run, Wish};
use crate::commands::tail::Tail;
use crate::commands::up::Up;
use crate::config::Config;
use std::path::PathBuf;

/// What the person asked for.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Config>),
    Forget {
        machine: String,
        server: Target,
    },
    Drill(Drill),
    Clients(Clients),
    Machines(Machines),
    Diagnose(Target),
    Probe(ServerUrl),
    Emit(Emit),
    Tail(Tail),
    Replay(Replay),
    Demo(Demo),
    CheckConfig {
        file: PathBuf,
    },
    Up(Up),
    Services {
        run: Run,
        wish: Wish,
    },
    CheckServices {
        file: PathBuf,
    },
    InitServices {
        folder: PathBuf,
    },
    /// Print the completions of this shell.
    Completions(Shell),
    Print(String),
}
