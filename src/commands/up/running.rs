//! A supervisor whose threads run, in the hands of thread `main`.

use crate::process::logging::LogControl;
use crate::process::stop::Stop;
use crate::process::threads::ThreadHandle;
use crate::supervise::act::{Handle, Order, Outcome};
use crate::supervise::board::Board;
use crate::supervise::children::Children;
use crate::supervise::guard::Guard;
use crate::supervise::settings::plan::Plan;
use std::sync::Arc;
use std::time::Duration;

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) plan: Arc<Plan>,
    pub(super) board: Board,
    pub(super) children: Children,
    pub(super) act: Handle,
    pub(super) guard: Guard,
    pub(super) act_thread: ThreadHandle<Outcome>,
    /// `look`, `control` and `watch`, with the requests for their ends.
    pub(super) others: Vec<(Stop, ThreadHandle<()>)>,
    pub(super) log: (LogControl, ThreadHandle<()>),
}

impl Running {
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    pub(super) fn children(&self) -> &Children {
        &self.children
    }

    /// Returns whether all services are stopped, or the thread that stops them has failed.
    pub(super) fn is_over(&self) -> bool {
        self.act_thread.is_finished()
    }

    /// Returns whether nothing is going to happen until a process ends or somebody asks for something.
    pub(super) fn is_settled(&self) -> bool {
        self.act.is_settled()
    }

    /// Watches the threads.
    pub(super) fn guard(&mut self) {
        self.guard.look(&self.board);
    }

    /// Asks for the stop of everything.
    pub(super) fn end(&self) {
        self.act.end();
    }

    /// Asks thread `act` to kill what is being stopped.
    pub(super) fn hasten(&self) {
        log::warn!("🛑 a second signal: what is left is killed now");
        if self.act.give(Order::Hasten).is_err() {
            log::error!(
                "❌ the thread that stops services takes no orders; what runs is taken over by the next `threadcast up`"
            );
        }
    }

    /// Ends the threads, each within `bound`. Returns how the services ended.
    pub(super) fn finish(self, bound: Duration) -> Result<Outcome, String> {
        let outcome = self.act_thread.join_within(bound).map_err(|error| error.to_string());
        for (stop, _) in &self.others {
            stop.request();
        }
        for (_, thread) in self.others {
            if let Err(error) = thread.join_within(bound) {
                log::warn!("⚠️ {error}; nobody waits for it");
            }
        }
        let (log, thread) = self.log;
        log.stop();
        // What it could not write is lost with the process.
        let _ = thread.join_within(bound);
        outcome
    }
}
