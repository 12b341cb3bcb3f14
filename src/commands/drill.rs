//! `threadcast drill COMPONENT DURATION`: makes a thread of a running server stand still, to see what happens then.

use crate::commands::act::{self, Target};
use crate::commands::{complain, print};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::web::query;
use std::time::Duration;

/// How long to wait for each part of the answer, which comes at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The command's arguments.
#[derive(Debug)]
pub struct Drill {
    pub component: String,
    pub duration: Duration,
    pub kind: String,
    pub server: Target,
}

/// The command.
pub fn run(drill: &Drill) -> ExitStatus {
    let target = format!(
        "/drill?component={}&ms={}&kind={}",
        query::encode(&drill.component),
        drill.duration.as_millis(),
        query::encode(&drill.kind)
    );
    match act::post(&drill.server, &target, PATIENCE) {
        Ok(answer) if answer.status == 200 && drill.duration.is_zero() => {
            print(&format!("the drill of {} is over\n", visible(&drill.component)))
        }
        Ok(answer) if answer.status == 200 => print(&format!(
            "{} stands still for {:?} ({}) from its next turn on; see the server's log, /health, and logs/hang-emergency.log\n",
            visible(&drill.component),
            drill.duration,
            visible(&drill.kind)
        )),
        Ok(answer) => {
            complain(&format!("threadcast: no drill: {}\n", answer.detail()));
            ExitStatus::Failed
        }
        Err(status) => status,
    }
}
