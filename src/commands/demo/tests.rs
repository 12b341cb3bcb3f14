//! The demonstration before the detector: what it learns of a day of it, and that it finds nothing.

use super::play::{Freeze, Moment, Play};
use crate::commands::emit::envelope;
use crate::detector::judge::{self, Judge, News};
use crate::stream::declared::Declared;
use crate::stream::event::check;
use crate::stream::machines::Machines;
use crate::stream::machines::survey::Survey;
use crate::stream::position::{Epoch, Position};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EPOCH: f64 = 1_795_393_481.0;
/// The shortest limit is 30 s, so nothing that lasts is missed.
const LOOK_EVERY: Duration = Duration::from_secs(3);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A day of the demonstration with a judge. Returns what was found, and what was learned.
fn day(seed: u64, freeze: Freeze) -> (Vec<String>, Arc<Survey>) {
    let begun = Instant::now();
    let (mut machines, mut judge) = (Machines::default(), Judge::new(begun));
    let mut play = Play::new(seed, freeze);
    let (mut found, mut look, declared) = (Vec::new(), LOOK_EVERY, Declared::default());
    let as_of = Position {
        epoch: Epoch::new(),
        seq: 1,
    };
    loop {
        let since = play.next().min(look);
        let epoch = EPOCH + since.as_secs_f64();
        let now = begun + since;
        for event in play.turn(Moment { since, epoch }) {
            let text = envelope(event.kind, event.machine, &event.payload);
            machines.apply(&check(text.as_bytes()).unwrap(), now, epoch);
        }
        if since < look {
            continue;
        }
        look += LOOK_EVERY;
        machines.renew_survey();
        let survey = machines.survey(as_of, now).unwrap();
        for news in judge.look(&survey, &declared, judge::Moment { now, epoch }, true) {
            if let News::Found {
                machines: late, text, ..
            } = news
            {
                for (machine, dwell, verdict) in late {
                    assert!(machines.judge(&machine, dwell, verdict));
                }
                found.push(text);
            }
        }
        if since >= DAY {
            return (found, survey);
        }
    }
}

#[test]
fn a_day_of_the_demonstration_alarms_nobody() {
    for seed in 1..=3 {
        let (found, survey) = day(seed, Freeze::default());
        assert!(found.is_empty(), "seed {seed}: {found:?}");
        // There was something to find: what is usual is known of every state in which a machine stays at all.
        for state in survey.learned().iter().filter(|state| &*state.name != "completed") {
            assert!(state.usual().stuck_after().is_some(), "seed {seed}: {state:?}");
        }
    }
}

#[test]
fn the_frozen_machine_of_such_a_day_is_found_and_no_other() {
    let freeze = Freeze {
        machines: vec!["image_worker_002"],
        after: DAY / 2,
        lasts: Some(Duration::from_secs(600)),
    };
    let (found, _) = day(4, freeze);
    let [text] = &found[..] else { panic!("{found:?}") };
    assert!(
        text.starts_with("machine image_worker_002 (type image_worker) is stuck"),
        "{text}"
    );
}
