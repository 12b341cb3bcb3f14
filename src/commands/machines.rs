//! `threadcast machines`: what is known of the machines of a running server; `--check` tells a script whether one is
//! stuck or silent; `--graph` shows what machines usually do; `--forget NAME` removes one.

use crate::commands::act::Target;
use crate::commands::graph::{self, Graph};
use crate::commands::machines_table::table;
use crate::commands::painter::Painter;
use crate::commands::request::{self, Page, ServerUrl};
use crate::commands::table::width;
use crate::commands::trouble::in_trouble;
use crate::commands::watch::{self, Showing};
use crate::commands::{complain, forget, printed};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::process::words::count;
use crate::stream::filter::Filter;
use crate::web::{MACHINES_PATH, query};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// As many names of machines a person gets whose globs match none.
const NAMES_MAX: usize = 5;

/// The command's arguments.
#[derive(Debug)]
pub struct Machines {
    pub server: ServerUrl,
    /// The server's admin socket, for `forget`.
    pub socket: Option<PathBuf>,
    /// The machines to show.
    pub wanted: Filter,
    /// The server's document as it is, instead of a table.
    pub json: bool,
    /// Again after each of these times, until a signal.
    pub watch: Option<Duration>,
    /// Show those that are stuck or silent only, once, and say by the status whether there are any.
    pub check: bool,
    /// Show what machines usually do, instead of which there are.
    pub graph: Option<Graph>,
    /// Remove this machine, and show nothing.
    pub forget: Option<String>,
}

/// The command.
pub fn run(machines: &Machines) -> ExitStatus {
    if let Some(name) = &machines.forget {
        let server = Target {
            server: machines.server.clone(),
            socket: machines.socket.clone(),
        };
        return forget::run(name, &server);
    }
    if let Some(graph) = &machines.graph {
        return graph::run(&machines.server, graph, machines.watch);
    }
    let globs = machines.wanted.machines().map(|globs| globs.join(","));
    let query = globs.as_ref().map(|globs| format!("?machine={}", query::encode(globs)));
    let target = format!("{MACHINES_PATH}{}", query.unwrap_or_default());
    let page = page(&target);
    let look = || {
        let document = request::document(&machines.server, &page)?;
        if machines.watch.is_none()
            && let Some(globs) = &globs
            && is_empty(&document)
        {
            complain(&format!("threadcast: {}\n", nothing_matches(&machines.server, globs)?));
            if machines.check {
                return Err(ExitStatus::Failed);
            }
        }
        Ok(document)
    };
    if machines.check {
        return look().map_or_else(|status| status, |document| check(&document, &page, machines.json));
    }
    let painter = Painter::of_stdout();
    let showing = Showing {
        every: machines.watch,
        json: machines.json,
    };
    watch::show(showing, || {
        let document = look()?;
        if machines.json {
            return Ok(request::one_line(&document));
        }
        table(&document, "no machines", width(), painter).ok_or_else(|| page.is_strange())
    })
}

/// Shows the machines of a document that are stuck or silent. Fails if there are any.
fn check(document: &str, page: &Page<'_>, json: bool) -> ExitStatus {
    let Some((document, machines)) = in_trouble(document) else {
        return page.is_strange();
    };
    let text = if json {
        request::one_line(&document)
    } else {
        let none = "no machine is stuck or silent";
        match table(&document, none, width(), Painter::of_stdout()) {
            Some(text) => text,
            None => return page.is_strange(),
        }
    };
    match (printed(&text), machines) {
        (Some(ExitStatus::Failed), _) | (_, 1..) => ExitStatus::Failed,
        (status, 0) => status.unwrap_or(ExitStatus::Fine),
    }
}

fn page(target: &str) -> Page<'_> {
    Page {
        target,
        list: "machines",
        what: "no list of machines",
    }
}

/// Returns whether the list of a document is empty.
fn is_empty(document: &str) -> bool {
    names(document).is_some_and(|names| names.is_empty())
}

fn names(document: &str) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(document).ok()?;
    let rows = document.get("machines")?.as_array()?.iter();
    let names = rows.map(|row| {
        row.get("machine_name")
            .and_then(Value::as_str)
            .unwrap_or("?")
            .to_owned()
    });
    Some(names.collect())
}

/// The message for globs that match no machine: it names machines that there are.
fn nothing_matches(server: &ServerUrl, globs: &str) -> Result<String, ExitStatus> {
    let all = names(&request::document(server, &page(MACHINES_PATH))?).unwrap_or_default();
    let some: Vec<String> = all.iter().take(NAMES_MAX).map(|name| visible(name)).collect();
    let some = some.join(", ");
    let there_are = match all.len() {
        0 => "the server knows no machine yet".to_owned(),
        known @ 1..=NAMES_MAX => format!("the server knows {}: {some}", count(known, "machine")),
        known => format!("the server knows {}, among them {some}", count(known, "machine")),
    };
    Ok(format!("no machine matches {}; {there_are}", visible(globs)))
}
