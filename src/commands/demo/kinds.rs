//! The machines of the demonstration: the states of each kind, how long they last, and where they lead.

/// What a machine does in a state: how long it stays, in seconds, and where it goes, by weight.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) state: &'static str,
    pub(super) seconds: (f64, f64),
    pub(super) next: &'static [(u32, &'static str, &'static str)],
}

/// A kind of machine: its first state comes first.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) config_type: &'static str,
    /// What begins a job: one of these triggers, or being started ([`STARTED`]).
    pub(super) job_begins: &'static [&'static str],
    pub(super) machines: &'static [&'static str],
    pub(super) stays: &'static [Stay],
}

const fn stay(state: &'static str, seconds: (f64, f64), next: &'static [(u32, &'static str, &'static str)]) -> Stay {
    Stay { state, seconds, next }
}

/// Stands for the start of a machine where triggers are named.
pub(super) const STARTED: &str = "started";

/// The end of a machine; it comes back after a while.
const ENDED: &str = "completed";

pub(super) const KINDS: [Kind; 3] = [
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
