//! What a supervisor finds of the one before it: which processes it takes over.
//!
//! A recorded process counts if its number and start time are those of a process of this boot and this process
//! namespace, and it has no other run's mark. What the record does not know is found by its mark. Nothing that may
//! still run is taken for gone.

use crate::supervise::census::{Census, Process, Whose};
use crate::supervise::children::Member;
use crate::supervise::identity::Identity;
use crate::supervise::record::{Entry, Here, Record, State};
use crate::supervise::stat;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A service that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    pub member: Member,
    pub leader: Identity,
    /// The record knows the process; else its mark alone does.
    pub is_recorded: bool,
}

/// Processes of a start of a service whose leader is gone. They have to be stopped before the service is started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    pub service: Arc<str>,
    pub processes: Vec<Identity>,
}

/// A service of which nobody can say whether it runs. It must not be started before a person has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverifiable {
    pub member: Member,
    /// Its first process, if it came so far.
    pub process: Option<Identity>,
    pub why: Why,
}

/// Why a recorded process is neither there nor gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was started in another namespace of processes, whose numbers mean nothing here.
    OtherNamespace,
    /// It is there, and has the mark of another run or of another service.
    OtherMark,
    /// Somebody has its number, and /proc does not show us who.
    Hidden,
}

impl fmt::Display for Unverifiable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, pid) = (&self.member.service, self.process.map_or(0, |process| process.pid));
        match self.why {
            Why::OtherNamespace => write!(
                f,
                "service {service} was started in another container or process namespace (as process {pid} there), where \
                 this one cannot look; make sure that it is gone there, then start it by `threadcast services start {service}`"
            ),
            Why::OtherMark => write!(
                f,
                "service {service} was recorded as process {pid}, which now has the mark of another run or service; look what \
                 it is, and end it by hand if it is in the way"
            ),
            Why::Hidden => write!(
                f,
                "service {service} was recorded as process {pid}; somebody has that number, and /proc hides who (hidepid); \
                 look as root"
            ),
        }
    }
}

/// What was found of all services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adoption {
    pub adopted: Vec<Adopted>,
    pub remains: Vec<Remains>,
    pub unverifiable: Vec<Unverifiable>,
    /// Starts that were recorded and of which nothing is left.
    pub gone: Vec<Member>,
}

/// Judges what the earlier supervisor has left. `record` is `None` when there is no record that counts. Looks twice
/// through `census`, which remembers what was adopted. Blocks as these looks do.
///
/// # Errors
/// The kernel refuses to list the processes.
pub fn adopt(record: Option<&Record>, here: &Here, census: &mut Census) -> Result<Adoption, Errno> {
    census.look()?;
    let mut adoption = Adoption::default();
    let nothing = BTreeMap::new();
    let entries = record.map_or(&nothing, |record| &record.services);
    let mut leaders: BTreeMap<&str, Identity> = BTreeMap::new();
    for (service, entry) in entries {
        let process = match entry.state {
            State::Running(process) => Some(process),
            State::Starting => None,
            State::Over | State::Stopped | State::GivenUp => continue,
        };
        let member = Member {
            service: service.as_str().into(),
            n: entry.n,
        };
        match (judge(&entry.here, here, census, &member, process), process) {
            (Judged::There, Some(process)) => {
                census.remember(process, member);
                leaders.insert(service, process);
            }
            (Judged::There, None) | (Judged::Gone, _) => {}
            (Judged::Unknown(why), _) => adoption.unverifiable.push(Unverifiable { member, process, why }),
        }
    }
    // What descends from those that are remembered.
    census.look()?;
    let members = census.members();
    let services: BTreeSet<&str> = members.iter().map(|member| &*member.service).collect();
    for service in services {
        let found: Vec<&Process> = census.of(service).collect();
        let leader = match leaders.get(service) {
            Some(leader) => Some((*leader, true)),
            None => leader_by_mark(&found, entries.get(service)).map(|leader| (leader, false)),
        };
        sort_in(&mut adoption, &found, leader);
    }
    let is_known = |service: &str| {
        let unverifiable = adoption.unverifiable.iter().map(|found| &found.member);
        members
            .iter()
            .chain(unverifiable)
            .any(|member| &*member.service == service)
    };
    let recorded = entries.iter().filter(|(_, entry)| entry.state.may_run());
    let gone = recorded
        .filter(|(service, _)| !is_known(service))
        .map(|(service, entry)| Member {
            service: service.as_str().into(),
            n: entry.n,
        });
    let gone: Vec<Member> = gone.collect();
    adoption.gone = gone;
    // What the marks have found runs, and can be stopped; there is nothing to doubt any more.
    let found = services_of(&adoption);
    adoption
        .unverifiable
        .retain(|doubt| doubt.why != Why::OtherNamespace || !found.contains(&doubt.member.service));
    Ok(adoption)
}

fn services_of(adoption: &Adoption) -> BTreeSet<Arc<str>> {
    let adopted = adoption.adopted.iter().map(|adopted| adopted.member.service.clone());
    let remains = adoption.remains.iter().map(|remains| remains.service.clone());
    adopted.chain(remains).collect()
}

enum Judged {
    There,
    Gone,
    Unknown(Why),
}

/// Judges whether the process that was recorded at `at` as the leader of `member` is there.
fn judge(at: &Here, here: &Here, census: &Census, member: &Member, process: Option<Identity>) -> Judged {
    let is_elsewhere = at.pid_namespace != here.pid_namespace;
    if at.boot != here.boot || is_elsewhere && at.is_init {
        // No process outlives its boot, nor the first process of its namespace, which has left us the run folder.
        return Judged::Gone;
    }
    if is_elsewhere {
        return Judged::Unknown(Why::OtherNamespace);
    }
    let Some(process) = process else {
        // Its mark tells, if it came so far.
        return Judged::Gone;
    };
    match census.find(process).map(|found| &found.whose) {
        Some(Whose::Foreign) => Judged::Unknown(Why::OtherMark),
        Some(Whose::Service(other)) if other.service != member.service => Judged::Unknown(Why::OtherMark),
        // A program that writes its title over its environment has no mark any more.
        Some(_) => Judged::There,
        None if stat::of(process.pid).is_none() && is_number_taken(process.pid) => Judged::Unknown(Why::Hidden),
        None => Judged::Gone,
    }
}

fn is_number_taken(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Finds the first process of a service that the record does not name: in a group of its own, as a leader is, and not
/// the child of another one. `None`: the leader of the recorded start is gone.
fn leader_by_mark(found: &[&Process], entry: Option<&Entry>) -> Option<Identity> {
    let numbers = found
        .iter()
        .filter_map(|process| process.member().map(|member| member.n));
    let n = match entry.map(|entry| (entry.n, entry.state)) {
        Some((n, State::Starting)) => n,
        Some((_, State::Running(_) | State::Over | State::Stopped | State::GivenUp)) => return None,
        None => numbers.max()?,
    };
    let pids: BTreeSet<i32> = found.iter().map(|process| process.stat.pid).collect();
    let candidates = found.iter().filter(|process| {
        let is_of_start = process.member().is_some_and(|member| member.n == n);
        is_of_start && process.stat.pgid == process.stat.pid && !pids.contains(&process.stat.ppid)
    });
    candidates
        .map(|process| process.identity())
        .min_by_key(|process| (process.start, process.pid))
}

/// Puts the processes of one service where they belong.
fn sort_in(adoption: &mut Adoption, found: &[&Process], leader: Option<(Identity, bool)>) {
    let Some(first) = found.first().and_then(|process| process.member()) else {
        return;
    };
    let member_of = |leader: Identity| {
        let process = found.iter().find(|process| process.identity() == leader);
        process.and_then(|process| process.member()).cloned()
    };
    let adopted = leader.and_then(|(leader, is_recorded)| {
        Some(Adopted {
            member: member_of(leader)?,
            leader,
            is_recorded,
        })
    });
    match adopted {
        Some(adopted) => adoption.adopted.push(adopted),
        None => adoption.remains.push(Remains {
            service: first.service.clone(),
            processes: found.iter().map(|process| process.identity()).collect(),
        }),
    }
}
