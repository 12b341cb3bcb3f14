//! The commands around services: programs of others that threadcast looks after.

use crate::cli::arguments::{Arguments, absent, word};
use crate::cli::command::Command;
use crate::cli::spec::{Part, Spec};
use crate::cli::usage::UsageError;
use crate::supervise::settings::USUAL_FILE;
use clap::ValueHint;
use std::path::PathBuf;

pub(super) static SERVICES: Spec = Spec {
    name: "services",
    group: "Services",
    about: "Write and check a file of services",
    more: "",
    usage: &["threadcast services check|init [...]"],
    examples: &["threadcast services init", "threadcast services check"],
    needs: "one of check or init after it",
    exits: "0 fine, 1 failed",
    arguments: Vec::new,
    parts: &[CHECK, INIT],
    read: |arguments| match arguments.part() {
        Some(("check", arguments)) => Ok(Command::CheckServices {
            file: path(&arguments, "file", USUAL_FILE)?,
        }),
        Some(("init", arguments)) => Ok(Command::InitServices {
            folder: path(&arguments, "dir", ".")?,
        }),
        _ => Err(absent("check or init")),
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
