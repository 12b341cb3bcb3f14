//! `threadcast machines --graph [TYPE]`: what machines of each type usually do, as the server has learned it.

use crate::commands::complain;
use crate::commands::graph_dot::dot;
use crate::commands::graph_table::table;
use crate::commands::painter::Painter;
use crate::commands::request::{self, Page, ServerUrl};
use crate::commands::table::width;
use crate::commands::watch::{self, Showing};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::process::words::count;
use crate::stream::filter::Filter;
use crate::web::{GRAPH_PATH, query};
use serde_json::Value;
use std::time::Duration;

/// As many names of types a person gets whose globs match none.
const NAMES_MAX: usize = 5;

/// How a graph is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tables for people.
    Table,
    /// The server's document as it is.
    Json,
    /// A graph in the language of graphviz.
    Dot,
}

/// What to show of what was learned.
#[derive(Debug)]
pub struct Graph {
    /// The types to show.
    pub types: Filter,
    pub form: Form,
}

/// Shows the graph of a server; again after each `every`, until a signal, if there is one. Blocks as
/// [`request::document`] does.
pub fn run(server: &ServerUrl, graph: &Graph, every: Option<Duration>) -> ExitStatus {
    let globs = graph.types.kinds().map(|globs| globs.join(","));
    let query = globs.as_ref().map(|globs| format!("?type={}", query::encode(globs)));
    let target = format!("{GRAPH_PATH}{}", query.unwrap_or_default());
    let painter = Painter::of_stdout();
    let showing = Showing {
        every,
        json: graph.form == Form::Json,
    };
    watch::show(showing, || {
        let page = page(&target);
        let document = request::document(server, &page)?;
        if every.is_none()
            && let Some(globs) = &globs
            && types(&document).is_some_and(|types| types.is_empty())
        {
            complain(&format!("threadcast: {}\n", nothing_matches(server, globs)?));
        }
        match graph.form {
            Form::Json => Ok(request::one_line(&document)),
            Form::Dot => dot(&document).ok_or_else(|| page.is_strange()),
            Form::Table => table(&document, width(), painter).ok_or_else(|| page.is_strange()),
        }
    })
}

fn page(target: &str) -> Page<'_> {
    Page {
        target,
        list: "types",
        what: "no graph of machines",
    }
}

/// The names of the types in a document.
fn types(document: &str) -> Option<Vec<String>> {
    let document: Value = serde_json::from_str(document).ok()?;
    let types = document.get("types")?.as_array()?.iter();
    Some(types.filter_map(|of| Some(of["type"].as_str()?.to_owned())).collect())
}

/// The message for globs that match no type: it names types that there are.
fn nothing_matches(server: &ServerUrl, globs: &str) -> Result<String, ExitStatus> {
    let all = types(&request::document(server, &page(GRAPH_PATH))?).unwrap_or_default();
    let some: Vec<String> = all.iter().take(NAMES_MAX).map(|name| visible(name)).collect();
    let some = some.join(", ");
    let there_are = match all.len() {
        0 => "the server has learned of no type yet".to_owned(),
        known @ 1..=NAMES_MAX => format!("the server knows {}: {some}", count(known, "type")),
        known => format!("the server knows {}, among them {some}", count(known, "type")),
    };
    Ok(format!("no type matches {}; {there_are}", visible(globs)))
}
