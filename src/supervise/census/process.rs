//! A process of a look.

use crate::supervise::children::Member;
use crate::supervise::identity::Identity;
use crate::supervise::stat::Stat;

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of this start of a service of our run.
    Service(Member),
    /// Of another run.
    Foreign,
    /// It descends from what we started, and nobody knows of which service it is.
    Unclaimed,
    Nobodys,
}

/// A process, as a look has found it.
#[derive(Clone, Debug)]
pub struct Process {
    pub stat: Stat,
    pub whose: Whose,
}

impl Process {
    pub fn identity(&self) -> Identity {
        Identity {
            pid: self.stat.pid,
            start: self.stat.start,
        }
    }

    /// Returns the start of a service that it belongs to.
    pub fn member(&self) -> Option<&Member> {
        match &self.whose {
            Whose::Service(member) => Some(member),
            _ => None,
        }
    }
}
