//! `threadcast demo`: five machines that live beside a running server until Ctrl-C or SIGTERM, so that there is
//! something to see.

use crate::commands::complain;
use crate::commands::emit::envelope;
use crate::commands::end_signals::end_signals;
use crate::commands::sender::{EventSender, Refusal};
use crate::process::clock::{epoch_seconds, json_seconds, pause};
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::process::words::count;
use fastrand::Rng;
use std::path::Path;
use std::time::{Duration, Instant};

/// A demonstration must not hold itself up.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);
/// How soon Ctrl-C is noticed.
const LOOK: Duration = Duration::from_millis(50);
/// How often a server that does not take events is complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What a machine does in a state: how long it stays, in seconds, and where it goes, by weight.
struct Stay {
    state: &'static str,
    seconds: (f64, f64),
    next: &'static [(u32, &'static str, &'static str)],
}

/// A kind of machine: its first state comes first.
struct Kind {
    config_type: &'static str,
    /// What begins a job: one of these triggers, or being started ([`STARTED`]).
    job_begins: &'static [&'static str],
    machines: &'static [&'static str],
    stays: &'static [Stay],
}

const fn stay(state: &'static str, seconds: (f64, f64), next: &'static [(u32, &'static str, &'static str)]) -> Stay {
    Stay { state, seconds, next }
}

/// Stands for the start of a machine where triggers are named.
const STARTED: &str = "started";

/// The end of a machine; it comes back after a while.
const ENDED: &str = "completed";

const KINDS: [Kind; 3] = [
    Kind {
        config_type: "image_worker",
        job_begins: &["new_job"],
        machines: &["image_worker_001", "image_worker_002", "image_worker_003"],
        stays: &[
            stay(
                "waiting",
                (0.5, 3.0),
                &[(20, "new_job", "fetching"), (1, "stop", ENDED)],
            ),
            stay(
                "fetching",
                (0.2, 1.0),
                &[(9, "fetched", "resizing"), (1, "timeout", "retrying")],
            ),
            stay(
                "resizing",
                (0.5, 2.5),
                &[(8, "job_done", "waiting"), (2, "error", "failing")],
            ),
            stay(
                "retrying",
                (1.0, 2.0),
                &[(3, "retry", "fetching"), (1, "give_up", "failing")],
            ),
            stay("failing", (0.5, 1.0), &[(1, "error_handled", "waiting")]),
        ],
    },
    Kind {
        config_type: "mail_queue",
        job_begins: &["mail_waiting", "next_mail"],
        machines: &["mail_queue"],
        stays: &[
            stay("idle", (1.0, 4.0), &[(1, "mail_waiting", "sending")]),
            stay(
                "sending",
                (0.2, 0.6),
                &[
                    (6, "sent", "idle"),
                    (2, "next_mail", "sending"),
                    (1, "refused", "backing_off"),
                ],
            ),
            stay("backing_off", (2.0, 4.0), &[(1, "retry", "sending")]),
        ],
    },
    Kind {
        config_type: "nightly_report",
        job_begins: &[STARTED],
        machines: &["nightly_report"],
        stays: &[
            stay("collecting", (1.0, 3.0), &[(1, "collected", "rendering")]),
            stay(
                "rendering",
                (1.0, 2.0),
                &[(5, "rendered", "publishing"), (1, "error", "failing")],
            ),
            stay("failing", (1.0, 2.0), &[(1, "retry", "collecting")]),
            stay("publishing", (0.5, 1.0), &[(1, "published", ENDED)]),
        ],
    },
];

/// How long an ended machine stays away, in seconds.
const AWAY: (f64, f64) = (3.0, 6.0);

struct Machine {
    name: &'static str,
    kind: &'static Kind,
    /// `None` while it is away.
    at: Option<&'static Stay>,
    until: Instant,
    jobs: u32,
}

impl Machine {
    fn count_job(&mut self, trigger: &str) {
        if self.kind.job_begins.contains(&trigger) {
            self.jobs += 1;
        }
    }
}

/// The command.
pub fn run(path: &Path) -> ExitStatus {
    let signals = end_signals();
    let mut stage = Stage::new(path);
    let now = Instant::now();
    let kinds = KINDS
        .iter()
        .flat_map(|kind| kind.machines.iter().map(move |name| (kind, *name)));
    let mut machines: Vec<Machine> = Vec::new();
    for (kind, name) in kinds {
        machines.push(Machine {
            name,
            kind,
            at: None,
            until: now + stage.seconds((0.0, 1.5)),
            jobs: 0,
        });
    }
    complain(&format!(
        "threadcast: five machines send events to {}; Ctrl-C ends them\n",
        visible(&path.display().to_string())
    ));
    while !signals.as_ref().is_some_and(|signals| signals.requested()) {
        for machine in machines.iter_mut().filter(|machine| Instant::now() >= machine.until) {
            stage.turn(machine);
        }
        pause(LOOK);
    }
    // So that nothing of the demonstration stays on anybody's screen.
    for machine in machines.iter().filter(|machine| machine.at.is_some()) {
        stage.terminate(machine);
    }
    complain(&format!(
        "threadcast: {} sent, {} refused\n",
        count(stage.sent, "event"),
        stage.refused
    ));
    if stage.sent > 0 {
        ExitStatus::Fine
    } else {
        ExitStatus::Failed
    }
}

struct Stage {
    sender: EventSender,
    rng: Rng,
    sent: u64,
    refused: u64,
    complained: Option<Instant>,
}

impl Stage {
    fn new(path: &Path) -> Stage {
        Stage {
            sender: EventSender::new(path),
            rng: Rng::new(),
            sent: 0,
            refused: 0,
            complained: None,
        }
    }

    /// What happens when a machine's time in its state is over.
    fn turn(&mut self, machine: &mut Machine) {
        let Some(stay) = machine.at else {
            let first = &machine.kind.stays[0];
            self.register(machine, first);
            machine.count_job(STARTED);
            return self.enter(machine, first);
        };
        let (trigger, state) = self.choose(stay.next);
        self.change(machine, stay.state, state, trigger);
        machine.count_job(trigger);
        self.remark(machine, trigger);
        match machine.kind.stays.iter().find(|stay| stay.state == state) {
            Some(next) => self.enter(machine, next),
            None => {
                self.terminate(machine);
                machine.at = None;
                machine.until = Instant::now() + self.seconds(AWAY);
            }
        }
    }

    fn enter(&mut self, machine: &mut Machine, stay: &'static Stay) {
        machine.at = Some(stay);
        machine.until = Instant::now() + self.seconds(stay.seconds);
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

    fn register(&mut self, machine: &Machine, first: &Stay) {
        let (name, config, state) = (machine.name, machine.kind.config_type, first.state);
        self.emit(
            machine,
            "machine_registered",
            &format!(r#"{{"machine_name": "{name}", "config_type": "{config}", "current_state": "{state}", "timestamp": {}}}"#, now()),
        );
    }

    fn change(&mut self, machine: &Machine, from: &str, to: &str, trigger: &str) {
        self.emit(
            machine,
            "state_change",
            &format!(
                r#"{{"from_state": "{from}", "to_state": "{to}", "event_trigger": "{trigger}", "timestamp": {}}}"#,
                now()
            ),
        );
    }

    fn terminate(&mut self, machine: &Machine) {
        let (name, config) = (machine.name, machine.kind.config_type);
        self.emit(
            machine,
            "machine_terminated",
            &format!(
                r#"{{"machine_name": "{name}", "config_type": "{config}", "timestamp": {}}}"#,
                now()
            ),
        );
    }

    /// Jobs and errors are told besides the change of state, as engines do.
    fn remark(&mut self, machine: &Machine, trigger: &str) {
        let job = format!("{}-{}", machine.name, machine.jobs);
        match trigger {
            "new_job" | "mail_waiting" => {
                let text = format!(
                    r#"{{"message": "Received {trigger}", "level": "info", "type": "{trigger}", "payload_keys": ["job_id"]}}"#
                );
                self.emit(machine, "activity_log", &text);
            }
            "job_done" | "published" => {
                let text = format!(
                    r#"{{"job_id": "{job}", "job_type": "{}", "timestamp": {}}}"#,
                    machine.kind.config_type,
                    now()
                );
                self.emit(machine, "job_completed", &text);
            }
            "error" | "give_up" | "refused" => {
                let text = format!(
                    r#"{{"error_message": "step ended with {trigger}", "job_id": "{job}", "timestamp": {}}}"#,
                    now()
                );
                self.emit(machine, "error", &text);
            }
            _ => {}
        }
    }

    fn emit(&mut self, machine: &Machine, kind: &str, payload: &str) {
        match self
            .sender
            .send(envelope(kind, machine.name, payload).as_bytes(), SEND_TIMEOUT)
        {
            Ok(()) => self.sent += 1,
            Err(refusal) => self.complain_of(refusal),
        }
    }

    fn complain_of(&mut self, refusal: Refusal) {
        self.refused += 1;
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            complain(&format!("threadcast: an event was refused: {refusal}; going on\n"));
        }
    }
}

fn now() -> String {
    json_seconds(epoch_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn every_way_leads_to_a_state_or_to_the_end() {
        for kind in &KINDS {
            for (_, _, state) in kind.stays.iter().flat_map(|stay| stay.next) {
                let known = kind.stays.iter().any(|stay| stay.state == *state);
                assert!(known || *state == ENDED, "{}: {state}", kind.config_type);
            }
        }
        assert_eq!(KINDS.iter().map(|kind| kind.machines.len()).sum::<usize>(), 5);
    }

    #[test]
    fn every_job_has_a_number_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock");
        let events = UnixDatagram::bind(&path).unwrap();
        events.set_nonblocking(true).unwrap();
        let mut stage = Stage::new(&path);
        for kind in &KINDS {
            let mut machine = Machine {
                name: kind.machines[0],
                kind,
                at: None,
                until: Instant::now(),
                jobs: 0,
            };
            let mut completed = Vec::new();
            for _ in 0..1000 {
                stage.turn(&mut machine);
                // A turn is at most three events, and the kernel holds ten.
                let mut bytes = [0; 1000];
                while let Ok(len) = events.recv(&mut bytes) {
                    let event: serde_json::Value = serde_json::from_slice(&bytes[..len]).unwrap();
                    if event["type"] == "job_completed" {
                        completed.push(event["payload"]["job_id"].as_str().unwrap().to_owned());
                    }
                }
            }
            assert!(machine.jobs > 10, "{}: {}", machine.name, machine.jobs);
            let numbers: Vec<u32> = completed
                .iter()
                .map(|job| job.rsplit('-').next().unwrap().parse().unwrap())
                .collect();
            assert!(numbers.iter().all(|number| *number >= 1), "{completed:?}");
            assert!(numbers.is_sorted_by(|a, b| a < b), "{completed:?}");
        }
    }
}
