//! The lives of the demonstration's machines, without a clock and without a socket: the caller says what time it is and
//! sends what happens.

use super::kinds::{KINDS, Kind, STARTED, Stay};
use crate::process::clock::json_seconds;
use fastrand::Rng;
use std::time::Duration;

/// How long an ended machine stays away, in seconds.
const AWAY: (f64, f64) = (3.0, 6.0);
/// The machines begin within this time, in seconds.
const BEGIN: (f64, f64) = (0.0, 1.5);

/// A moment of the play.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time since the play began.
    pub since: Duration,
    /// The wall clock, in seconds since 1970: the time that events carry.
    pub epoch: f64,
}

/// An event of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub machine: &'static str,
    /// Its type, such as `state_change`.
    pub kind: &'static str,
    /// Its payload: a JSON object.
    pub payload: String,
}

/// Five machines. The same seed and the same moments make the same events.
#[derive(Debug)]
pub struct Play {
    rng: Rng,
    machines: Vec<Machine>,
    /// What has happened and is not yet taken.
    events: Vec<Event>,
}

#[derive(Debug)]
struct Machine {
    name: &'static str,
    kind: &'static Kind,
    /// `None` while it is away.
    at: Option<&'static Stay>,
    /// When its time in the state is over, since the beginning.
    until: Duration,
    jobs: u32,
}

impl Machine {
    fn count_job(&mut self, trigger: &str) {
        if self.kind.job_begins.contains(&trigger) {
            self.jobs += 1;
        }
    }
}

impl Play {
    /// A play that begins.
    pub fn new(seed: u64) -> Play {
        let mut play = Play {
            rng: Rng::with_seed(seed),
            machines: Vec::new(),
            events: Vec::new(),
        };
        for kind in &KINDS {
            for name in kind.machines {
                let until = play.seconds(BEGIN);
                play.machines.push(Machine {
                    name,
                    kind,
                    at: None,
                    until,
                    jobs: 0,
                });
            }
        }
        play
    }

    /// When something happens next, since the beginning.
    pub fn next(&self) -> Duration {
        let next = self.machines.iter().map(|machine| machine.until).min();
        // There are five machines.
        next.unwrap_or_default()
    }

    /// Goes on to `now`; returns what has happened since the call before, in its order. A machine changes its state at
    /// most once in a call.
    pub fn turn(&mut self, now: Moment) -> Vec<Event> {
        let mut machines = std::mem::take(&mut self.machines);
        for machine in machines.iter_mut().filter(|machine| now.since >= machine.until) {
            self.step(machine, now);
        }
        self.machines = machines;
        std::mem::take(&mut self.events)
    }

    /// Ends every machine, so that nothing of the demonstration stays on anybody's screen.
    pub fn end(mut self, now: Moment) -> Vec<Event> {
        let machines = std::mem::take(&mut self.machines);
        for machine in machines.iter().filter(|machine| machine.at.is_some()) {
            self.terminate(machine, now);
        }
        self.events
    }

    /// What happens when a machine's time in its state is over.
    fn step(&mut self, machine: &mut Machine, now: Moment) {
        let Some(stay) = machine.at else {
            let first = &machine.kind.stays[0];
            self.register(machine, first, now);
            machine.count_job(STARTED);
            return self.enter(machine, first, now);
        };
        let (trigger, state) = self.choose(stay.next);
        self.change(machine, stay.state, state, trigger, now);
        machine.count_job(trigger);
        self.remark(machine, trigger, now);
        match machine.kind.stays.iter().find(|stay| stay.state == state) {
            Some(next) => self.enter(machine, next, now),
            None => {
                self.terminate(machine, now);
                machine.at = None;
                machine.until = now.since + self.seconds(AWAY);
            }
        }
    }

    fn enter(&mut self, machine: &mut Machine, stay: &'static Stay, now: Moment) {
        machine.at = Some(stay);
        machine.until = now.since + self.seconds(stay.seconds);
    }

    fn choose(&mut self, next: &'static [(u32, &'static str, &'static str)]) -> (&'static str, &'static str) {
        let total: u32 = next.iter().map(|(weight, ..)| weight).sum();
        let mut left = self.rng.u32(0..total);
        for (weight, trigger, state) in next {
            if left < *weight {
                return (trigger, state);
            }
            left -= weight;
        }
        // `left` is below the sum of the weights, so one of them was found.
        (next[0].1, next[0].2)
    }

    fn seconds(&mut self, (least, most): (f64, f64)) -> Duration {
        Duration::from_secs_f64(least + (most - least) * self.rng.f64())
    }

    fn register(&mut self, machine: &Machine, first: &Stay, now: Moment) {
        let (name, config, state, at) = (machine.name, machine.kind.config_type, first.state, time(now));
        self.tell(
            machine,
            "machine_registered",
            format!(r#"{{"machine_name": "{name}", "config_type": "{config}", "current_state": "{state}", "timestamp": {at}}}"#),
        );
    }

    fn change(&mut self, machine: &Machine, from: &str, to: &str, trigger: &str, now: Moment) {
        let at = time(now);
        self.tell(
            machine,
            "state_change",
            format!(
                r#"{{"from_state": "{from}", "to_state": "{to}", "event_trigger": "{trigger}", "timestamp": {at}}}"#
            ),
        );
    }

    fn terminate(&mut self, machine: &Machine, now: Moment) {
        let (name, config, at) = (machine.name, machine.kind.config_type, time(now));
        self.tell(
            machine,
            "machine_terminated",
            format!(r#"{{"machine_name": "{name}", "config_type": "{config}", "timestamp": {at}}}"#),
        );
    }

    /// Jobs and errors are told besides the change of state, as engines do.
    fn remark(&mut self, machine: &Machine, trigger: &str, now: Moment) {
        let job = format!("{}-{}", machine.name, machine.jobs);
        let (config, at) = (machine.kind.config_type, time(now));
        match trigger {
            "new_job" | "mail_waiting" => self.tell(
                machine,
                "activity_log",
                format!(r#"{{"message": "Received {trigger}", "level": "info", "type": "{trigger}", "payload_keys": ["job_id"]}}"#),
            ),
            "job_done" | "published" => self.tell(
                machine,
                "job_completed",
                format!(r#"{{"job_id": "{job}", "job_type": "{config}", "timestamp": {at}}}"#),
            ),
            "error" | "give_up" | "refused" => self.tell(
                machine,
                "error",
                format!(r#"{{"error_message": "step ended with {trigger}", "job_id": "{job}", "timestamp": {at}}}"#),
            ),
            _ => {}
        }
    }

    fn tell(&mut self, machine: &Machine, kind: &'static str, payload: String) {
        self.events.push(Event {
            machine: machine.name,
            kind,
            payload,
        });
    }
}

fn time(now: Moment) -> String {
    json_seconds(now.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_job_has_a_number_of_its_own() {
        let mut play = Play::new(1);
        let mut completed: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for _ in 0..10_000 {
            let since = play.next();
            let now = Moment {
                since,
                epoch: since.as_secs_f64(),
            };
            for event in play.turn(now) {
                let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
                if event.kind == "job_completed" {
                    let number = payload["job_id"].as_str().unwrap().rsplit('-').next().unwrap();
                    completed
                        .entry(event.machine)
                        .or_default()
                        .push(number.parse().unwrap());
                }
            }
        }
        assert_eq!(completed.len(), 4, "a mail queue completes no job");
        for (machine, numbers) in completed {
            assert!(numbers.len() > 10, "{machine}: {numbers:?}");
            assert!(
                numbers[0] >= 1 && numbers.is_sorted_by(|a, b| a < b),
                "{machine}: {numbers:?}"
            );
        }
    }
}
