//! The command that runs once all services are ready, on this terminal.

use crate::process::exit::ExitStatus;
use crate::supervise::children::{Children, Purpose};
use crate::supervise::identity::Identity;
use rustix::process::Signal;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A command that runs.
#[derive(Debug)]
pub(super) struct Beside {
    child: Child,
    identity: Identity,
    children: Children,
    /// When it is killed, once it was asked to end.
    deadline: Option<Instant>,
}

/// Time that the command has to end, once it was asked to.
const PATIENCE: Duration = Duration::from_secs(10);

impl Beside {
    /// Starts it. Blocks until the kernel has loaded the program.
    pub(super) fn begin(command: &[String], children: &Children) -> Result<Beside, String> {
        let [program, arguments @ ..] = command else {
            return Err("there is no command behind --".to_owned());
        };
        let started = children.start(Purpose::Errand, || {
            let mut child = Command::new(program).args(arguments).spawn()?;
            let Some(identity) = Identity::of(child.id() as i32) else {
                let _ = child.kill();
                let _ = child.wait();
                return Err(std::io::ErrorKind::NotFound.into());
            };
            Ok((identity, (child, identity)))
        });
        let (child, identity) = started.map_err(|error: std::io::Error| format!("cannot run {program}: {error}"))?;
        Ok(Beside {
            child,
            identity,
            children: children.clone(),
            deadline: None,
        })
    }

    /// Asks it to end, by SIGTERM. It is killed when it has not after [`PATIENCE`].
    pub(super) fn terminate(&mut self) {
        // One that has ended is seen by the next look.
        let _ = self.identity.signal(Signal::TERM);
        self.deadline = Some(Instant::now() + PATIENCE);
    }

    /// Gives it no more time.
    pub(super) fn hasten(&mut self) {
        let _ = self.child.kill();
    }

    /// How it has ended; `None` while it runs. Never blocks. What it leaves behind is ended with the services.
    pub(super) fn ending(&mut self) -> Option<ExitStatus> {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.deadline = None;
            log::warn!("⚠️ the command of --until-ready did not heed TERM within {PATIENCE:?}, and is killed");
            self.hasten();
        }
        let end = self.child.try_wait().ok()??;
        self.children.forget(self.identity);
        Some(if end.success() {
            ExitStatus::Fine
        } else {
            ExitStatus::Failed
        })
    }
}
