//! `threadcast diagnose`: prints what every thread of a running server is doing, with its stack.

use crate::commands::act::{self, Target};
use crate::commands::{complain, print};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible_lines;
use std::time::Duration;

/// How long to wait for each part of the answer; the server gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// The command.
pub fn run(server: &Target) -> ExitStatus {
    match act::post(server, "/diagnose", PATIENCE) {
        Ok(answer) if answer.status == 200 => print(&visible_lines(&answer.body)),
        Ok(answer) => {
            complain(&format!("threadcast: no report: {}\n", answer.detail()));
            ExitStatus::Failed
        }
        Err(status) => status,
    }
}
