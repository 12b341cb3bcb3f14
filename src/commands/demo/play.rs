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

/// How often a frozen machine shows that it lives.
const ACTIVITY: Duration = Duration::from_secs(1);

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

/// Machines that stop changing their state, as a worker does that hangs and lives.
///
/// Each of them freezes in the first state of work that it enters once `after` is over: not where it waits for work,
/// because there a long stay means nothing. It then sends an `activity_log` once a second, and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Freeze {
    /// Names of machines, from [`names`].
    pub machines: Vec<&'static str>,
    /// Since the play began.
    pub after: Duration,
    /// How long it lasts; `None`: to the end. Afterwards the machine goes on as if nothing had been.
    pub lasts: Option<Duration>,
}

/// What a person should know who watches the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// This machine stays in this state from now on.
    Frozen(&'static str, &'static str),
    /// It moves again.
    Moves(&'static str),
}

/// The names of the machines.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().flat_map(|kind| kind.machines).copied()
}

/// Five machines. The same seed and the same moments make the same events.
#[derive(Debug)]
pub struct Play {
    rng: Rng,
    machines: Vec<Machine>,
    freeze: Freeze,
    /// What has happened and is not yet taken.
    events: Vec<Event>,
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Machine {
    name: &'static str,
    kind: &'static Kind,
    /// `None` while it is away.
    at: Option<&'static Stay>,
    /// When its time in the state is over, since the beginning.
    until: Duration,
    frozen: Frozen,
    jobs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    NotYet,
    /// Since then, counted from the beginning.
    Since(Duration),
    /// It was, and is not again.
    Over,
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
    pub fn new(seed: u64, freeze: Freeze) -> Play {
        let mut play = Play {
            rng: Rng::with_seed(seed),
            machines: Vec::new(),
            freeze,
            events: Vec::new(),
            notes: Vec::new(),
        };
        for kind in &KINDS {
            for name in kind.machines {
                let until = play.seconds(BEGIN);
                play.machines.push(Machine {
                    name,
                    kind,
                    at: None,
                    until,
                    frozen: Frozen::NotYet,
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

    /// What to tell the person of the turns before.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
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
        if self.is_frozen(machine, stay, now) {
            return;
        }
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
        let is_work = stay.state != machine.kind.stays[0].state;
        if is_work
            && machine.frozen == Frozen::NotYet
            && now.since >= self.freeze.after
            && self.freeze.machines.contains(&machine.name)
        {
            machine.frozen = Frozen::Since(now.since);
            self.notes.push(Note::Frozen(machine.name, stay.state));
        }
    }

    /// Returns whether the machine stays where it is. It then shows that it lives; once its time is over it moves.
    fn is_frozen(&mut self, machine: &mut Machine, stay: &Stay, now: Moment) -> bool {
        let Frozen::Since(since) = machine.frozen else {
            return false;
        };
        let end = self.freeze.lasts.map(|lasts| since + lasts);
        if end.is_some_and(|end| now.since >= end) {
            machine.frozen = Frozen::Over;
            self.notes.push(Note::Moves(machine.name));
            return false;
        }
        let next = now.since + ACTIVITY;
        machine.until = end.map_or(next, |end| end.min(next));
        let payload = format!(
            r#"{{"message": "Still {}", "level": "info", "type": "activity"}}"#,
            stay.state
        );
        self.tell(machine, "activity_log", payload);
        true
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

    /// Tells of jobs and errors besides the change of state, as engines do.
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

    /// What happens next.
    fn step(play: &mut Play) -> Vec<Event> {
        let since = play.next();
        let epoch = since.as_secs_f64();
        play.turn(Moment { since, epoch })
    }

    #[test]
    fn a_frozen_machine_shows_that_it_lives_and_moves_when_its_time_is_over() {
        for (seed, name) in (0..20).flat_map(|seed| names().map(move |name| (seed, name))) {
            let seconds = Duration::from_secs;
            let freeze = Freeze {
                machines: vec![name],
                after: seconds(10),
                lasts: Some(seconds(30)),
            };
            let mut play = Play::new(seed, freeze);
            let (mut activities, mut others, mut notes) = (0, 0, Vec::new());
            while play.next() < seconds(120) {
                let now = play.next();
                for event in step(&mut play) {
                    let is_between = matches!(notes.as_slice(), [(_, Note::Frozen(..))]);
                    match (event.machine == name && is_between, event.kind) {
                        (false, _) => others += 1,
                        (true, "activity_log") => activities += 1,
                        // This change comes together with the note that it moves.
                        (true, _) => assert!(play.notes.contains(&Note::Moves(name)), "{event:?}"),
                    }
                }
                notes.extend(play.notes().into_iter().map(|note| (now, note)));
            }
            let [(begun, Note::Frozen(frozen, state)), (moved, Note::Moves(moves))] = notes[..] else {
                panic!("seed {seed}: {notes:?}");
            };
            assert_eq!((frozen, moves, moved - begun), (name, name, seconds(30)), "seed {seed}");
            assert!(begun >= seconds(10) && !["waiting", "idle", "collecting"].contains(&state));
            assert!((26..=30).contains(&activities), "seed {seed}, {name}: {activities}");
            assert!(others > 50, "the others live on");
        }
    }

    #[test]
    fn every_job_has_a_number_of_its_own() {
        let mut play = Play::new(1, Freeze::default());
        let mut completed: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for _ in 0..10_000 {
            for event in step(&mut play) {
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
