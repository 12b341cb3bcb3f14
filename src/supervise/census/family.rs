//! Who belongs to whom by descent.

use super::process::{Process, Whose};
use crate::supervise::children::{Listed, Member, Purpose};
use crate::supervise::identity::Identity;
use std::collections::{BTreeSet, HashMap};

/// Judges every process that shows no sign of its own by its parents, and by whose child it is. `own` is the id of this
/// process, `listed` its children, `earlier` those that it did not start.
pub(super) fn settle(processes: &mut [Process], own: i32, listed: &Listed, earlier: &BTreeSet<Identity>) {
    let places: HashMap<i32, usize> = (processes.iter().enumerate())
        .map(|(at, process)| (process.stat.pid, at))
        .collect();
    let mut is_settled = vec![false; processes.len()];
    // A supervisor that was started inside of a service must not end itself.
    for at in line_of(processes, &places, own) {
        processes[at].whose = Whose::Nobodys;
        is_settled[at] = true;
    }
    claim_orphans(processes, own, listed, earlier);
    for at in 0..processes.len() {
        let mut line = Vec::new();
        let found = walk_up(processes, &places, &is_settled, at, &mut line);
        for at in line {
            processes[at].whose = found.clone();
            is_settled[at] = true;
        }
    }
}

/// Returns the places of process `own` and of its ancestors.
fn line_of(processes: &[Process], places: &HashMap<i32, usize>, own: i32) -> Vec<usize> {
    let mut line = Vec::new();
    let mut next = places.get(&own);
    while let Some(at) = next
        && !line.contains(at)
    {
        line.push(*at);
        next = places.get(&processes[*at].stat.ppid);
    }
    line
}

/// Judges the children of process `own` that it has not started: those that came to it when their parents ended.
fn claim_orphans(processes: &mut [Process], own: i32, listed: &Listed, earlier: &BTreeSet<Identity>) {
    // The number of a leader's group is nobody else's until the leader is reaped and leaves the list.
    let groups: HashMap<i32, &Member> = (listed.list.iter())
        .filter_map(|(child, purpose)| match purpose {
            Purpose::Service(member) => Some((child.pid, member)),
            Purpose::Errand => None,
        })
        .collect();
    let orphans = processes
        .iter_mut()
        .filter(|process| process.stat.ppid == own && process.whose == Whose::Nobodys);
    for process in orphans {
        let identity = process.identity();
        if listed.list.contains_key(&identity) || earlier.contains(&identity) {
            continue;
        }
        match groups.get(&process.stat.pgid) {
            Some(member) => process.whose = Whose::Service((*member).clone()),
            // Else it may be one that is just being started.
            None if listed.is_complete => process.whose = Whose::Unclaimed,
            None => {}
        }
    }
}

/// Finds whose the process at `at` is by the first of its ancestors that is known. `line` gets the places that the
/// answer holds for; none if the process itself is known.
fn walk_up(
    processes: &[Process],
    places: &HashMap<i32, usize>,
    is_settled: &[bool],
    at: usize,
    line: &mut Vec<usize>,
) -> Whose {
    let mut here = at;
    loop {
        let process = &processes[here];
        if is_settled[here] || process.whose != Whose::Nobodys {
            return process.whose.clone();
        }
        line.push(here);
        // Parents are older than their children. A younger one has got the number of a parent that has ended while the
        // list was read.
        let parent = places.get(&process.stat.ppid);
        let parent = parent.filter(|parent| processes[**parent].stat.start <= process.stat.start);
        match parent {
            // A circle of parents cannot be, unless the list was read while they changed.
            Some(parent) if line.len() < processes.len() => here = *parent,
            _ => return Whose::Nobodys,
        }
    }
}
