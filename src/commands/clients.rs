//! `threadcast clients`: who is connected to a running server, and how well each keeps up; `--end ID` ends one.

use crate::commands::act::{self, Target};
use crate::commands::clients_table::table;
use crate::commands::painter::Painter;
use crate::commands::request::{self, Page, ServerUrl};
use crate::commands::table::width;
use crate::commands::watch::{self, Showing};
use crate::commands::{complain, print};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// How long to wait for each part of the answer about an end, which comes at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// The list of all clients.
const PAGE: Page = Page {
    target: "/status",
    list: "clients",
    what: "no figures of clients",
};

/// The command's arguments.
#[derive(Debug)]
pub struct Clients {
    pub server: ServerUrl,
    /// The server's admin socket, for `end`.
    pub socket: Option<PathBuf>,
    /// The server's document as it is, instead of a table.
    pub json: bool,
    /// Again after each of these times, until a signal.
    pub watch: Option<Duration>,
    /// End the client with this number, and show nothing.
    pub end: Option<u64>,
}

/// The command.
pub fn run(clients: &Clients) -> ExitStatus {
    if let Some(id) = clients.end {
        return end(clients, id);
    }
    let painter = Painter::of_stdout();
    let showing = Showing {
        every: clients.watch,
        json: clients.json,
    };
    watch::show(showing, || {
        let document = request::document(&clients.server, &PAGE)?;
        if clients.json {
            return Ok(request::one_line(&document));
        }
        table(&document, width(), painter).ok_or_else(|| PAGE.is_strange())
    })
}

fn end(clients: &Clients, id: u64) -> ExitStatus {
    let server = Target {
        server: clients.server.clone(),
        socket: clients.socket.clone(),
    };
    match act::post(&server, &format!("/end?client={id}"), PATIENCE) {
        Ok(answer) if answer.status == 200 => {
            let body: Option<Value> = serde_json::from_str(&answer.body).ok();
            let address = body.and_then(|body| Some(body.get("address")?.as_str()?.to_owned()));
            let address = visible(&address.unwrap_or_else(|| "an unknown address".to_owned()));
            print(&format!("client {id} from {address} is ended\n"))
        }
        Ok(answer) => {
            complain(&format!("threadcast: nobody ended: {}\n", answer.detail()));
            ExitStatus::Failed
        }
        Err(status) => status,
    }
}
