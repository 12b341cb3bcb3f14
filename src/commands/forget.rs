//! `threadcast forget NAME`: removes a machine from a running server.

use crate::commands::act::{self, Target};
use crate::commands::{complain, print};
use crate::process::exit::ExitStatus;
use crate::web::query;
use std::time::Duration;

/// How long to wait for each part of the answer; the server answers within 4 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// The command.
pub fn run(machine: &str, server: &Target) -> ExitStatus {
    let target = format!("/forget?machine={}", query::encode(machine));
    match act::post(server, &target, PATIENCE) {
        Ok(answer) if answer.status == 200 => print(&format!("machine {machine:?} is forgotten\n")),
        Ok(answer) => {
            complain(&format!("threadcast: not forgotten: {}\n", answer.detail()));
            ExitStatus::Failed
        }
        Err(status) => status,
    }
}
