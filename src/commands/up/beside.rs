//! The command that runs once all services are ready, on this terminal.

use crate::process::exit::ExitStatus;
use crate::supervise::children::{Children, Purpose};
use crate::supervise::identity::Identity;
use std::process::{Child, Command};

/// A command that runs.
#[derive(Debug)]
pub(super) struct Beside {
    child: Child,
    identity: Identity,
    children: Children,
}

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
        })
    }

    /// How it has ended; `None` while it runs. Never blocks.
    pub(super) fn ending(&mut self) -> Option<ExitStatus> {
        let end = self.child.try_wait().ok()??;
        self.children.forget(self.identity);
        Some(if end.success() {
            ExitStatus::Fine
        } else {
            ExitStatus::Failed
        })
    }

    /// Ends it.
    pub(super) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.children.forget(self.identity);
    }
}
