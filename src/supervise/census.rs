//! One look at all processes, and which of them are of a service of our run.
//!
//! A process is of service X if one of these holds:
//! - we have started it as X's first process;
//! - its environment has our mark with the name X;
//! - its parent is of X, or was when we looked before. Once of X, a process stays of X: its parent may end, and it may
//!   clear its environment.
//!
//! Never of a service are this process, its ancestors, a process with another run's mark, and what descends from that.
//! An orphan that came to us as their subreaper and has no mark is *unclaimed*: something that we started has started
//! it, but nobody knows which service.
//!
//! A look reads one file for each process, and the environment of those only that are new or have executed another
//! program since. Blocks on the kernel, for some 10 µs a process. The environment lies in the memory of its process: in
//! rare cases (a thread of it hangs in the kernel while it executes another program) the kernel makes its reader wait
//! until that is over.

mod family;
mod figures;
mod process;

pub use figures::{Figures, Memory};
pub use process::{Process, Whose};

use crate::supervise::children::{Children, Member, Purpose};
use crate::supervise::identity::Identity;
use crate::supervise::mark::{Mark, RunId};
use crate::supervise::stat::{Proc, Stat};
use rustix::io::{Errno, read};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Longest environment that is searched for the mark; the kernel's own limit is 2 MiB for usual stacks (execve(2)).
const ENVIRONMENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Room that is kept between looks for reading environments.
const SCRATCH_BYTES: usize = 16 * 1024;

/// What is remembered of a process from look to look.
#[derive(Clone, Debug)]
struct Known {
    start: u64,
    environment_at: u64,
    whose: Whose,
}

/// The processes of the last look, and what earlier looks knew of them.
#[derive(Debug)]
pub struct Census {
    run: RunId,
    own: i32,
    children: Children,
    /// Children that this process had before it could start any: those of a shell that became this program.
    earlier_children: BTreeSet<Identity>,
    proc: Proc,
    known: HashMap<i32, Known>,
    processes: Vec<Process>,
    /// One name for all processes of a service.
    names: BTreeSet<Arc<str>>,
    looks: u64,
    scratch: Vec<u8>,
}

impl Census {
    /// Makes the census of run `run`, and looks once, before this process starts anything. `children` are those that it
    /// will start. Blocks as a look does.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn new(run: RunId, children: Children) -> Result<Census, Errno> {
        let own = std::process::id() as i32;
        let mut census = Census {
            run,
            own,
            children,
            earlier_children: BTreeSet::new(),
            proc: Proc::open()?,
            known: HashMap::new(),
            processes: Vec::new(),
            names: BTreeSet::new(),
            looks: 0,
            scratch: Vec::new(),
        };
        census.earlier_children = census
            .stats()?
            .iter()
            .filter(|stat| stat.ppid == own)
            .map(identity_of)
            .collect();
        census.look()?;
        Ok(census)
    }

    /// Looks at all processes anew.
    ///
    /// # Errors
    /// The kernel refuses to list them; the last look is still there.
    pub fn look(&mut self) -> Result<(), Errno> {
        let stats = self.stats()?;
        // Behind the walk: of a child that the walk has seen, the list then knows for sure whether we started it.
        let listed = self.children.listed();
        let mut processes: Vec<Process> = Vec::with_capacity(stats.len());
        for stat in stats {
            let whose = self.own_sign(&stat, &listed.list);
            processes.push(Process { stat, whose });
        }
        family::settle(&mut processes, self.own, &listed, &self.earlier_children);
        self.remember_all(&processes);
        self.processes = processes;
        self.looks += 1;
        self.scratch.truncate(SCRATCH_BYTES);
        self.scratch.shrink_to(SCRATCH_BYTES);
        Ok(())
    }

    fn stats(&self) -> Result<Vec<Stat>, Errno> {
        let pids = self.proc.pids()?;
        pids.into_iter()
            .filter_map(|pid| self.proc.stat(pid).transpose())
            .collect()
    }

    /// Judges a process by what it shows itself and by what was known of it, not yet by its parents.
    fn own_sign(&mut self, stat: &Stat, list: &BTreeMap<Identity, Purpose>) -> Whose {
        match list.get(&identity_of(stat)) {
            Some(Purpose::Service(member)) => return Whose::Service(member.clone()),
            // It may have our own environment, and this process may have a mark itself.
            Some(Purpose::Errand) => return Whose::Nobodys,
            None => {}
        }
        let known = self.known.get(&stat.pid).filter(|known| known.start == stat.start);
        let before = known.map(|known| known.whose.clone());
        let is_same_program = known.is_some_and(|known| known.environment_at == stat.environment_at);
        if is_same_program || stat.has_ended() {
            // Unclaimed is judged at every look.
            return before
                .filter(|whose| *whose != Whose::Unclaimed)
                .unwrap_or(Whose::Nobodys);
        }
        match (self.mark_of(stat.pid), before) {
            (Some(mark), _) if mark.run == self.run => Whose::Service(Member {
                service: self.name(&mark.service),
                n: mark.n,
            }),
            (Some(_), _) => Whose::Foreign,
            (None, Some(member @ Whose::Service(_))) => member,
            (None, _) => Whose::Nobodys,
        }
    }

    /// Reads the mark of a process; `None` where there is none, or where we may not look.
    fn mark_of(&mut self, pid: i32) -> Option<Mark> {
        let file = self.proc.file(pid, "environ").ok()?;
        let mut len = 0;
        loop {
            if self.scratch.len() < len + SCRATCH_BYTES {
                self.scratch.resize(len + SCRATCH_BYTES, 0);
            }
            match read(&file, &mut self.scratch[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(Errno::INTR) => {}
                // It has ended meanwhile.
                Err(_) => break,
            }
            if len >= ENVIRONMENT_BYTES_MAX {
                break;
            }
        }
        Mark::find(&self.scratch[..len])
    }

    fn name(&mut self, service: &str) -> Arc<str> {
        match self.names.get(service) {
            Some(name) => name.clone(),
            None => {
                let name: Arc<str> = service.into();
                self.names.insert(name.clone());
                name
            }
        }
    }

    fn remember_all(&mut self, processes: &[Process]) {
        let mut known = HashMap::with_capacity(processes.len());
        for Process { stat, whose } in processes {
            let entry = Known {
                start: stat.start,
                environment_at: stat.environment_at,
                whose: whose.clone(),
            };
            known.insert(stat.pid, entry);
        }
        self.known = known;
    }

    /// Remembers that `process` is of a service, from the record of an earlier supervisor. The next look finds what
    /// descends from it.
    pub fn remember(&mut self, process: Identity, member: Member) {
        if let Some(known) = self.known.get_mut(&process.pid)
            && known.start == process.start
        {
            known.whose = Whose::Service(member);
        }
    }

    /// How many looks there were: two states of the census with the same number are the same look.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Returns all processes of the last look.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Returns the processes of `service` that have not ended.
    pub fn of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Process> {
        self.living()
            .filter(move |process| process.member().is_some_and(|member| &*member.service == service))
    }

    /// Returns the processes that descend from what we started, whose service is unknown, and that have not ended.
    pub fn unclaimed(&self) -> impl Iterator<Item = &Process> {
        self.living().filter(|process| process.whose == Whose::Unclaimed)
    }

    /// Returns the unclaimed processes, and those of services that are not `known`.
    pub fn beside(&self, known: &BTreeSet<Arc<str>>) -> impl Iterator<Item = &Process> {
        self.living().filter(|process| match process.member() {
            Some(member) => !known.contains(&member.service),
            None => process.whose == Whose::Unclaimed,
        })
    }

    /// Returns the process with this id if the last look has found it and it had not ended.
    pub fn find(&self, process: Identity) -> Option<&Process> {
        self.living().find(|found| found.identity() == process)
    }

    /// Returns the starts of services of which a process has not ended.
    pub fn members(&self) -> BTreeSet<Member> {
        self.living().filter_map(|process| process.member().cloned()).collect()
    }

    fn living(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.stat.has_ended())
    }

    /// Returns what the last look tells of `service`.
    pub fn figures(&self, service: &str) -> Figures {
        figures::figures(self.of(service))
    }

    /// Adds up the memory of `service`. Blocks for up to some milliseconds a process, because the kernel walks through
    /// its pages; and, like every reader of a process's memory, for as long as that process hangs in the kernel with
    /// its memory locked.
    pub fn memory(&self, service: &str) -> Memory {
        figures::memory(&self.proc, self.of(service))
    }

    /// Returns the pids of processes whose parent we are and that have ended.
    pub(in crate::supervise) fn ended_children(&self) -> impl Iterator<Item = &Process> {
        let own = self.own;
        self.processes
            .iter()
            .filter(move |process| process.stat.ppid == own && process.stat.has_ended())
    }
}

fn identity_of(stat: &Stat) -> Identity {
    Identity {
        pid: stat.pid,
        start: stat.start,
    }
}
