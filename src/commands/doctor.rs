//! `threadcast doctor --probe`: asks a server for its health, for a container's HEALTHCHECK or a script.

use crate::commands::request::{self, ServerUrl};
use crate::commands::{complain, print};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use std::time::Duration;

/// How long to wait for each part of the answer; the server asks nobody for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The command: status 0 if `/health` answers 200. Blocks 5 s for each of the host's addresses and for each part of the
/// answer, at most.
pub fn run(server: &ServerUrl) -> ExitStatus {
    match request::get(server, "/health", PATIENCE) {
        Ok(answer) if answer.status == 200 => print(&format!("{server}: {}\n", word(&answer.body))),
        Ok(answer) => {
            complain(&format!(
                "threadcast: the server at {server} is not well: {} (status {})\nhint: `curl http://{server}/health` says \
                 more, `threadcast diagnose` what each thread does\n",
                word(&answer.body),
                answer.status
            ));
            ExitStatus::Failed
        }
        Err(status) => status,
    }
}

/// The server's own word for its health.
fn word(body: &str) -> String {
    let body: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let status = body.as_ref().and_then(|body| body.get("status")?.as_str());
    visible(status.unwrap_or("it says no status"))
}
