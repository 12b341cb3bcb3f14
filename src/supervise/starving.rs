//! A host that is starved of processors: nobody is at fault for being slow there, so checks count no strikes meanwhile.

use crate::process::pressure::{self, Change, Pressure};
use crate::process::words::count;
use crate::supervise::settings::plan::Service;
use std::time::{Duration, Instant};

/// Time between two looks at the pressure, whose average is one of 10 s.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A host that is starved for so many times `wait` is so for good, and a dead worker on it must not stay dead: checks
/// count again.
const POSTPONED_MOST: u32 = 10;

/// Services with the same settings.
#[derive(Debug)]
struct Group {
    cpu: u64,
    wait: Duration,
    /// Their places.
    services: Vec<usize>,
    pressure: Pressure,
    /// When the host began to be starved, while checks count no strikes for it.
    postponed: Option<Instant>,
}

/// What has changed for a service.
#[derive(Debug, Default)]
pub(super) struct Starving {
    groups: Vec<Group>,
    looked: Option<Instant>,
    is_untold_said: bool,
}

impl Starving {
    /// Follows the host for those of `services` that have checks.
    pub(super) fn new(services: &[Service]) -> Starving {
        let mut groups: Vec<Group> = Vec::new();
        for (at, service) in services.iter().enumerate() {
            let (cpu, wait) = (service.restart.pressure_cpu, service.restart.pressure_wait);
            if service.checks.is_empty() || cpu == 0 {
                continue;
            }
            if let Some(group) = groups.iter_mut().find(|group| (group.cpu, group.wait) == (cpu, wait)) {
                group.services.push(at);
                continue;
            }
            let pressure = Pressure::new(cpu as usize, wait);
            if pressure.has_limit() {
                groups.push(Group {
                    cpu,
                    wait,
                    services: vec![at],
                    pressure,
                    postponed: None,
                });
            }
        }
        Starving {
            groups,
            ..Starving::default()
        }
    }

    /// Returns whether the checks of a service count no strikes.
    pub(super) fn is_starved(&self, service: usize) -> bool {
        let mut groups = self.groups.iter().filter(|group| group.postponed.is_some());
        groups.any(|group| group.services.contains(&service))
    }

    /// Looks at the host, if it is time to. Returns the services whose checks are judged by what happens from now on.
    /// Blocks on /proc.
    pub(super) fn look(&mut self, now: Instant) -> Vec<usize> {
        let is_due = self
            .looked
            .is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        if self.groups.is_empty() || !is_due {
            return Vec::new();
        }
        self.looked = Some(now);
        let percent = pressure::of_cpu();
        if percent.is_none() && !std::mem::replace(&mut self.is_untold_said, true) {
            log::info!(
                "this host does not tell its pressure in /proc/pressure/cpu, so checks count strikes also while it is \
                 starved of CPU; set pressure = {{ cpu = 100 }} in restart of each service to go without"
            );
        }
        self.take(percent.unwrap_or(0.0), now)
    }

    fn take(&mut self, percent: f64, now: Instant) -> Vec<usize> {
        let mut forgiven = Vec::new();
        for group in &mut self.groups {
            let change = group.pressure.take(percent, now);
            let services = count(group.services.len(), "service");
            let most = group.wait * POSTPONED_MOST;
            if change == Change::Starved {
                group.postponed = Some(now);
                log::warn!(
                    "⚠️ the host has too little CPU for its work (some avg10 in /proc/pressure/cpu was over {} for {:?}): \
                     the checks of {services} count no strikes until that is over, for {most:?} at most",
                    group.cpu,
                    group.wait
                );
            }
            let Some(since) = group.postponed else {
                continue;
            };
            let is_too_long = now.saturating_duration_since(since) >= most;
            if change == Change::Recovered {
                log::info!("✅ the host has enough CPU again: the checks of {services} count from now on");
            } else if is_too_long {
                log::warn!(
                    "⚠️ the host has too little CPU for its work since {most:?}: the checks of {services} count again all \
                     the same"
                );
            } else {
                continue;
            }
            group.postponed = None;
            forgiven.extend(&group.services);
        }
        forgiven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_are_postponed_while_the_host_is_starved_but_not_for_ever() {
        let wait = Duration::from_secs(60);
        let group = Group {
            cpu: 80,
            wait,
            services: vec![3],
            pressure: Pressure::new(80, wait),
            postponed: None,
        };
        let mut starving = Starving {
            groups: vec![group],
            ..Starving::default()
        };
        let begun = Instant::now();
        let take = |starving: &mut Starving, second, percent| {
            let forgiven = starving.take(percent, begun + Duration::from_secs(second));
            (forgiven, starving.is_starved(3))
        };
        assert_eq!(take(&mut starving, 0, 99.0), (vec![], false));
        assert_eq!(take(&mut starving, 60, 99.0), (vec![], true));
        assert!(!starving.is_starved(2));
        assert_eq!(take(&mut starving, 100, 5.0), (vec![], true));
        assert_eq!(take(&mut starving, 110, 5.0), (vec![3], false), "it is judged anew");
        assert_eq!(take(&mut starving, 200, 99.0), (vec![], false));
        assert_eq!(take(&mut starving, 260, 99.0), (vec![], true));
        assert_eq!(take(&mut starving, 859, 99.0), (vec![], true));
        assert_eq!(take(&mut starving, 860, 99.0), (vec![3], false), "ten times as long");
        assert_eq!(take(&mut starving, 900, 99.0), (vec![], false), "and not again");
    }
}
