//! Names in a file of services: those that things have, and those by which services wait for each other.

use crate::process::nearest::nearest;
use crate::supervise::settings::faults::Faults;
use crate::supervise::settings::order;
use crate::supervise::settings::plan::{Dependency, Order, Plan, SERVER, Service, Wanted};
use crate::supervise::settings::scalars;

/// Names of files beside the logs of services.
const RESERVED: [&str; 5] = [
    "websocket-server",
    "hang-emergency",
    "monitoring",
    "metrics",
    "incidents",
];

/// Judges all names, and puts the services in order.
pub(super) fn order(plan: &Plan, faults: &mut Faults) -> Order {
    names(plan, faults);
    for service in &plan.services {
        for dependency in &service.depends_on {
            if let Some(message) = wrong(plan, service, dependency) {
                faults.add(dependency.place, message);
            }
        }
    }
    let place_of = |name: &str| plan.services.iter().position(|service| service.name == name);
    let waits_for: Vec<Vec<usize>> = plan
        .services
        .iter()
        .map(|service| {
            service
                .depends_on
                .iter()
                .filter_map(|other| place_of(&other.name))
                .collect()
        })
        .collect();
    match order::phases(&waits_for) {
        Ok(phases) => {
            let stop = phases.iter().rev().cloned().collect();
            let enabled = |phase: Vec<usize>| -> Vec<usize> {
                phase.into_iter().filter(|at| plan.services[*at].enabled).collect()
            };
            let start = phases.into_iter().map(enabled).filter(|phase| !phase.is_empty());
            Order {
                start: start.collect(),
                stop,
            }
        }
        Err(circle) => {
            no_order(plan, &circle, faults);
            Order::default()
        }
    }
}

fn no_order(plan: &Plan, circle: &[usize], faults: &mut Faults) {
    let name = |at: usize| plan.services[at].name.as_str();
    let next = |at: usize| name(circle[(at + 1) % circle.len()]);
    let first = &plan.services[circle[0]];
    let place = first.depends_on.iter().find(|other| other.name == next(0));
    let place = place.map_or(first.place, |dependency| dependency.place);
    if circle.len() == 1 {
        faults.add(
            place,
            format!("{} waits for itself; take it out of its depends_on", first.name),
        );
        return;
    }
    let ways: Vec<String> = (0..circle.len())
        .map(|at| format!("{} waits for {}", name(circle[at]), next(at)))
        .collect();
    let message = format!(
        "these services wait for each other in a circle, so none can start: {}; take one of them out of a depends_on",
        ways.join(", ")
    );
    faults.add(place, message);
}

/// Judges the names of needs and services.
fn names(plan: &Plan, faults: &mut Faults) {
    let needs = plan.needs.iter().map(|need| ("needs", &need.name, need.place));
    let services = plan
        .services
        .iter()
        .map(|service| ("service", &service.name, service.place));
    for (kind, name, place) in needs.chain(services) {
        if let Err(wanted) = scalars::name(name) {
            faults.add(
                place,
                format!("the name of [{kind}.{name}] cannot be {name:?}: {wanted}"),
            );
        }
        if RESERVED.contains(&name.as_str()) {
            let message = format!(
                "the name {name:?} is taken by a file of threadcast in the log folder; give [{kind}.{name}] another one"
            );
            faults.add(place, message);
        }
        if name == SERVER && plan.server.is_some() {
            let message = format!("[server] has the name {name:?}; give [{kind}.{name}] another one");
            faults.add(place, message);
        }
        if kind == "service" && plan.needs.iter().any(|need| need.name == *name) {
            let message = format!("there is [needs.{name}] too, so {name:?} could be either; give one another name");
            faults.add(place, message);
        }
    }
}

/// What is wrong with what a service waits for.
fn wrong(plan: &Plan, service: &Service, dependency: &Dependency) -> Option<String> {
    let Dependency { name, wanted, .. } = dependency;
    let what = format!("depends_on of [service.{}]", service.name);
    if plan.needs.iter().any(|need| need.name == *name) {
        let wanted = wanted.name();
        let message =
            format!("{what} wants {name} {wanted}, and a need is never started from here; write {name} = \"present\"");
        return (wanted != Wanted::Present.name()).then_some(message);
    }
    let other = plan.services.iter().find(|service| service.name == *name);
    let is_server = name == SERVER && plan.server.is_some();
    if other.is_none() && !is_server {
        let needs = plan.needs.iter().map(|need| need.name.as_str());
        let names = needs.chain(plan.services.iter().map(|service| service.name.as_str()));
        let instead = instead(name, names);
        return Some(format!(
            "{what} names {name:?}, which is neither a need nor a service{instead}"
        ));
    }
    if *wanted == Wanted::Present {
        return Some(format!(
            "{what} wants {name} present, and it is a service; write {name} = \"started\" or \"ready\""
        ));
    }
    let other = other?;
    if *wanted == Wanted::Ready && other.ready.is_none() && !other.oneshot {
        return Some(format!(
            "{what} wants {name} ready, and [service.{name}] does not say what shows that; add [service.{name}.ready], or \
             write {name} = \"started\""
        ));
    }
    if service.enabled && !other.enabled {
        return Some(format!(
            "{what} names {name}, which has enabled = false and so does not start; take it out, or enable it"
        ));
    }
    None
}

/// What to do about a name that is unknown; the end of a sentence.
pub(super) fn instead<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match nearest(name, names.iter().copied()) {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None if names.is_empty() => "; there is none in this file, so add it or take the name out".to_owned(),
        None => format!("; there are {}", names.join(", ")),
    }
}
