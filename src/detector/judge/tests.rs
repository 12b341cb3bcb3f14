//! The judge, led through hours of machines' lives.

use super::*;
use crate::stream::event::check;
use crate::stream::filter::Filter;
use crate::stream::machines::Machines;
use crate::stream::position::{Epoch, Position};

const EPOCH: f64 = 1_795_393_481.0;

/// A table with its judge, at a time that a test sets.
struct World {
    machines: Machines,
    judge: Judge,
    declared: Declared,
    begun: Instant,
    told: Vec<String>,
}

impl World {
    fn new() -> World {
        let begun = Instant::now();
        World {
            machines: Machines::default(),
            judge: Judge::new(begun),
            declared: Declared::default(),
            begun,
            told: Vec::new(),
        }
    }

    fn take(&mut self, at: f64, text: &str) {
        let now = self.begun + Duration::from_secs_f64(at);
        self.machines.apply(&check(text.as_bytes()).unwrap(), now, EPOCH + at);
    }

    fn register(&mut self, at: f64, machine: &str, config_type: &str) {
        self.take(
            at,
            &format!(
                r#"{{"machine_name":"{machine}","type":"machine_registered","payload":{{"config_type":"{config_type}","current_state":"idle"}}}}"#
            ),
        );
    }

    fn change(&mut self, at: f64, machine: &str, from: &str, to: &str) {
        self.take(
            at,
            &format!(
                r#"{{"machine_name":"{machine}","type":"state_change","payload":{{"from_state":"{from}","to_state":"{to}"}}}}"#
            ),
        );
    }

    fn show_life(&mut self, at: f64, machine: &str) {
        self.take(at, &format!(r#"{{"machine_name":"{machine}","type":"activity_log"}}"#));
    }

    /// A look at `at`. Returns how many findings were told, begun or over.
    fn look_as(&mut self, at: f64, judges: bool) -> usize {
        let now = self.begun + Duration::from_secs_f64(at);
        let as_of = Position {
            epoch: Epoch::new(),
            seq: 1,
        };
        self.machines.renew_survey();
        let survey = loop {
            if let Some(survey) = self.machines.survey(as_of, now) {
                break survey;
            }
        };
        let moment = Moment { now, epoch: EPOCH + at };
        let news = self.judge.look(&survey, &self.declared, moment, judges);
        let before = self.told.len();
        for news in news {
            let (machines, notice, text) = match news {
                News::Found {
                    id,
                    machines,
                    notice,
                    text,
                } => {
                    self.judge.confirm(id);
                    (machines, Some(notice), Some(text))
                }
                News::Noted { machines, .. } => (machines, None, None),
                News::Over { notice, text } => (Vec::new(), Some(notice), Some(text)),
            };
            for (machine, dwell, verdict) in machines {
                assert!(self.machines.judge(&machine, dwell, verdict));
            }
            if let Some(notice) = notice {
                let event: serde_json::Value = serde_json::from_slice(&notice.json).unwrap();
                assert_eq!(
                    (&event["type"], &event["server"]),
                    (&notice.kind.name().into(), &true.into())
                );
            }
            self.told.extend(text);
        }
        self.told.len() - before
    }

    fn look(&mut self, at: f64) -> usize {
        self.look_as(at, true)
    }

    /// `machine` is in `busy` for `dwell` again and again, `times` times, with a second in `idle` between. Returns when
    /// that ends, in `busy`.
    fn learn(&mut self, from: f64, machine: &str, dwells: impl Iterator<Item = f64>) -> f64 {
        let mut at = from;
        self.change(at, machine, "idle", "busy");
        for dwell in dwells {
            at += dwell;
            self.change(at, machine, "busy", "idle");
            at += 1.0;
            self.change(at, machine, "idle", "busy");
        }
        at
    }

    /// The first machine, as pages show it.
    fn row(&mut self, at: f64) -> serde_json::Value {
        let now = self.begun + Duration::from_secs_f64(at);
        let as_of = Position {
            epoch: Epoch::new(),
            seq: 1,
        };
        self.machines.renew_survey();
        let survey = self.machines.survey(as_of, now).unwrap();
        let json = survey.machines_json(&Filter::default(), &self.declared, now, EPOCH + at);
        let mut document: serde_json::Value = serde_json::from_slice(&json).unwrap();
        document["machines"][0].take()
    }

    fn last(&self) -> &str {
        self.told.last().map_or("", String::as_str)
    }
}

#[test]
fn a_machine_that_stays_too_long_is_told_once_and_its_return_too() {
    let mut world = World::new();
    world.register(0.0, "m", "worker");
    let at = world.learn(1.0, "m", std::iter::repeat_n(2.0, 150));
    world.show_life(at + 29.0, "m");
    assert_eq!(world.look(at + 29.9), 0);
    assert_eq!(world.look(at + 30.1), 1);
    assert!(
        world
            .last()
            .starts_with("machine m (type worker) is stuck: in \"busy\" since "),
        "{}",
        world.last()
    );
    assert!(world.last().contains("usually 2.0 s there"), "{}", world.last());
    for later in [31.0, 40.0, 400.0] {
        assert_eq!(world.look(at + later), 0, "once per dwell");
    }
    world.change(at + 500.0, "m", "busy", "idle");
    assert_eq!(world.look(at + 500.5), 1);
    assert_eq!(
        world.last(),
        "machine m moves again after 8 min 20 s in \"busy\"; it is in \"idle\" now"
    );
    assert_eq!(world.look(at + 501.0), 0);
    world.change(at + 501.5, "m", "idle", "busy");
    assert_eq!(world.look(at + 540.0), 1, "the next dwell is judged anew");
}

#[test]
fn without_a_sign_of_life_it_is_silent() {
    let mut world = World::new();
    let at = world.learn(1.0, "m", std::iter::repeat_n(2.0, 150));
    // It had shown life in this state, and then no more.
    world.show_life(at + 1.0, "m");
    assert_eq!(world.look(at + 30.1), 1);
    assert!(
        world.last().starts_with("machine m (no known type) is silent"),
        "{}",
        world.last()
    );
    assert_eq!(world.judge.counts(), (0, 1));
    world.take(at + 60.0, r#"{"machine_name":"m","type":"machine_terminated"}"#);
    assert_eq!(world.look(at + 60.5), 1);
    assert!(
        world
            .last()
            .ends_with("it is gone: it ended, was forgotten, or left the table"),
        "{}",
        world.last()
    );
}

#[test]
fn too_few_dwells_or_too_wide_a_spread_are_no_usual_time() {
    let mut world = World::new();
    let at = world.learn(1.0, "m", std::iter::repeat_n(2.0, 99));
    assert_eq!(world.look(at + 1e6), 0, "99 dwells");
    let mut world = World::new();
    let wide = (0..300).map(|number| if number % 20 == 0 { 100.0 } else { 1.0 });
    let at = world.learn(1.0, "m", wide);
    assert_eq!(world.look(at + 1e6), 0, "a spread of 100 medians");
}

#[test]
fn a_declared_limit_wins() {
    let mut world = World::new();
    for rule in ["slow_*/busy=10m", "*/idle=never", "*/odd=5s"] {
        world.declared.add(rule).unwrap();
    }
    world.register(0.0, "m", "slow_worker");
    let at = world.learn(1.0, "m", std::iter::repeat_n(2.0, 150));
    assert_eq!(world.look(at + 599.0), 0);
    assert_eq!(world.look(at + 601.0), 1);
    assert!(
        world.last().contains("limit 10 min 0 s: a declared limit"),
        "{}",
        world.last()
    );
    let mut world = World {
        declared: world.declared,
        ..World::new()
    };
    let at = world.learn(1.0, "n", std::iter::repeat_n(2.0, 150));
    world.change(at + 2.0, "n", "busy", "idle");
    assert_eq!(world.look(at + 1e6), 0, "never");
    // Nothing is known of that state, nor of a type.
    world.change(at + 2e6, "n", "idle", "odd");
    assert_eq!(world.look(at + 2e6 + 5.1), 1);
}

/// An engine's worker has worked all day long. At night nobody sends jobs: its process lives, and it says nothing.
#[test]
fn the_engines_own_waiting_alarms_nobody_however_long_it_lasts() {
    for dwells in [1.5, 20.0] {
        let mut world = World::new();
        world.register(0.0, "m", "worker");
        world.change(0.5, "m", "idle", "waiting");
        let mut at = 0.5;
        for round in 0..300 {
            at += dwells * (0.5 + f64::from(round % 10) / 10.0);
            world.change(at, "m", "waiting", "busy");
            at += 1.0;
            world.change(at, "m", "busy", "waiting");
        }
        for hour in 1..=24 {
            // A person asks it something at noon.
            if hour == 12 {
                world.show_life(at + 12.0 * 3600.0 - 1.0, "m");
            }
            assert_eq!(world.look(at + f64::from(hour) * 3600.0), 0, "{:?}", world.told);
        }
        assert_eq!(world.row(at + 25.0 * 3600.0)["verdict"], "ok", "nor is it slow");
        world.change(at + 26.0 * 3600.0, "m", "waiting", "busy");
        assert_eq!(world.look(at + 26.0 * 3600.0 + 31.0), 1, "where it works it is judged");
        // A person who wants to hear of a night without work says so.
        world.declared.add("worker/waiting=1h").unwrap();
        let at = at + 28.0 * 3600.0;
        world.change(at, "m", "busy", "waiting");
        assert_eq!(world.look(at + 3599.0), 1, "it has left busy");
        assert_eq!(world.look(at + 3601.0), 1, "{:?}", world.told);
    }
}

#[test]
fn most_of_a_type_together_are_one_finding() {
    let mut world = World::new();
    let names: Vec<String> = (0..5).map(|number| format!("m{number}")).collect();
    let mut at = 0.0;
    for name in &names {
        world.register(at, name, "worker");
        at = world.learn(at + 1.0, name, std::iter::repeat_n(2.0, 60));
        world.change(at + 1.0, name, "busy", "idle");
    }
    // Four of five stop within four seconds of each other; all are alive.
    let stop = at + 100.0;
    for (index, name) in names[..4].iter().enumerate() {
        world.change(stop + index as f64, name, "idle", "busy");
    }
    let mut told = Vec::new();
    for tenth in 0..600 {
        let now = stop + f64::from(tenth) / 10.0;
        for name in &names {
            world.show_life(now, name);
        }
        if world.look(now) > 0 {
            told.push(now - stop);
        }
    }
    assert_eq!(world.told.len(), 1, "{:?}", world.told);
    assert!((30.0..=33.2).contains(&told[0]), "{told:?}");
    assert!(
        world.last().starts_with("3 machines (type worker) are stuck"),
        "{}",
        world.last()
    );
    assert_eq!(world.judge.counts(), (4, 0), "the last one has joined");
    for name in &names[..3] {
        world.change(stop + 70.0, name, "busy", "idle");
    }
    assert_eq!(world.look(stop + 70.5), 0, "one is still there");
    world.change(stop + 80.0, "m3", "busy", "idle");
    assert_eq!(world.look(stop + 80.5), 1);
    assert!(
        world.last().starts_with("4 machines of type worker move again"),
        "{}",
        world.last()
    );
}

/// What comes later, or in another type, is another finding.
#[test]
fn a_common_cause_hides_no_later_finding() {
    let mut world = World::new();
    world.declared.add("*/idle=never").unwrap();
    let mut at = 0.0;
    for name in ["a", "b", "c", "d", "e"] {
        world.register(at, name, "worker");
        at = world.learn(at + 1.0, name, std::iter::repeat_n(2.0, 60));
        world.change(at + 1.0, name, "busy", "idle");
    }
    for name in ["a", "b", "c"] {
        world.change(at + 100.0, name, "idle", "busy");
    }
    assert_eq!(world.look(at + 130.5), 1, "{:?}", world.told);
    for name in ["b", "c"] {
        world.change(at + 140.0, name, "busy", "idle");
    }
    world.change(at + 150.0, "e", "idle", "busy");
    assert_eq!(world.look(at + 181.0), 1, "{:?}", world.told);
    assert!(
        world.last().starts_with("machine e (type worker) is"),
        "{}",
        world.last()
    );
    assert_eq!(world.judge.counts(), (0, 2), "a and e");
}

#[test]
fn machines_without_a_known_type_have_nothing_in_common() {
    let mut world = World::new();
    world.declared.add("*/odd=20s").unwrap();
    for name in ["camera", "printer", "mailer"] {
        world.change(1.0, name, "a", "odd");
    }
    assert_eq!(world.look(21.5), 3, "{:?}", world.told);
}

/// With a short limit, everybody who works is near it all the time.
#[test]
fn one_of_many_is_found_at_once_where_the_limit_is_short() {
    let mut world = World::new();
    world.declared.add("worker/busy=2s").unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        world.register(0.0, name, "worker");
        world.change(1.0, name, "idle", "busy");
    }
    let mut found = None;
    for tenth in 11..80 {
        let at = f64::from(tenth) / 10.0;
        for name in ["a", "b", "c", "d"] {
            if tenth % 3 == 0 {
                world.change(at, name, "busy", "busy");
            }
        }
        if world.look(at) > 0 {
            found.get_or_insert(at - 1.0);
        }
    }
    assert!(found.is_some_and(|after| (2.0..3.0).contains(&after)), "{found:?}");
    assert_eq!(world.told.len(), 1, "{:?}", world.told);
}

#[test]
fn a_machine_of_which_nothing_was_heard_since_the_start_is_not_judged() {
    let mut world = World::new();
    world.declared.add("*/odd=20s").unwrap();
    world.change(1.0, "m", "a", "odd");
    let now = world.begun + Duration::from_secs(5);
    let saved = world.machines.saved(now, EPOCH + 5.0);
    world.machines = Machines::restore(&saved, Default::default(), now, EPOCH + 5.0).unwrap();
    world.judge = Judge::new(now);
    assert_eq!(world.look(100.0), 0);
    world.show_life(101.0, "m");
    assert_eq!(world.look(102.0), 1, "its stay counts from the start of the server");
}

#[test]
fn a_machine_that_shows_life_later_is_stuck_and_not_silent() {
    let mut world = World::new();
    world.declared.add("*/odd=20s").unwrap();
    world.change(1.0, "m", "a", "odd");
    assert_eq!(world.look(21.5), 1);
    assert_eq!(world.judge.counts(), (0, 1));
    world.show_life(25.0, "m");
    assert_eq!(world.look(26.0), 0, "told once");
    assert_eq!(world.judge.counts(), (1, 0));
    let shown = world.judge.findings().next().unwrap().shown();
    assert!(
        shown.contains(" is stuck: ") && shown.ends_with("it is alive"),
        "{shown}"
    );
}

#[test]
fn the_time_in_which_the_host_was_starved_counts_for_no_stay() {
    let mut world = World::new();
    world.declared.add("*/odd=20s").unwrap();
    world.change(1.0, "m", "a", "odd");
    assert_eq!(world.look_as(50.0, false), 0);
    world.judge.judge_from(world.begun + Duration::from_secs(51));
    assert_eq!(world.look(52.0), 0);
    assert_eq!(world.look(71.5), 1);
}

#[test]
fn a_worker_that_starts_again_in_the_same_state_moves_again() {
    let mut world = World::new();
    world.declared.add("worker/idle=20s").unwrap();
    world.register(0.0, "m", "worker");
    assert_eq!(world.look(20.5), 1);
    world.register(30.0, "m", "worker");
    assert_eq!(world.look(30.5), 1, "{:?}", world.told);
    assert_eq!(world.look(49.0), 0);
    assert_eq!(world.look(50.5), 1, "its new stay is judged anew");
}

#[test]
fn two_that_stop_together_are_two_findings_at_once() {
    let mut world = World::new();
    let mut at = 0.0;
    for name in ["a", "b", "c", "d", "e"] {
        world.register(at, name, "worker");
        at = world.learn(at + 1.0, name, std::iter::repeat_n(2.0, 60));
        world.change(at + 1.0, name, "busy", "idle");
    }
    for name in ["a", "b"] {
        world.change(at + 100.0, name, "idle", "busy");
    }
    assert_eq!(world.look(at + 130.5), 2, "{:?}", world.told);
}

#[test]
fn nothing_is_found_while_the_host_is_starved_and_what_is_over_is_told() {
    let mut world = World::new();
    let at = world.learn(1.0, "m", std::iter::repeat_n(2.0, 150));
    assert_eq!(world.look_as(at + 100.0, false), 0);
    assert_eq!(world.look(at + 101.0), 1, "told when it is over");
    world.change(at + 102.0, "m", "busy", "idle");
    assert_eq!(world.look_as(at + 103.0, false), 1);
}

#[test]
fn a_standstill_of_the_server_is_no_stay_of_a_machine() {
    let mut world = World::new();
    let at = world.learn(1.0, "m", std::iter::repeat_n(2.0, 150));
    let back = at + 1000.0;
    world
        .machines
        .note_standstill(world.begun + Duration::from_secs_f64(back));
    assert_eq!(world.look(back + 29.0), 0);
    assert_eq!(world.look(back + 31.0), 1);
}

/// Lives of machines with random dwells. Returns the findings within `seconds` of dwells that take `slower` times those
/// that the table has learned.
fn live(seed: u64, machines: usize, learned: usize, slower: f64, seconds: f64) -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut lognormal = move || {
        let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        20.0 * (0.5 * normal).exp()
    };
    let mut world = World::new();
    let mut next: Vec<(f64, String)> = (0..machines).map(|number| (0.0, format!("m{number:02}"))).collect();
    for (_, name) in &next {
        world.register(0.0, name, "worker");
        world.change(0.0, name, "idle", "busy");
    }
    let (mut dwells, mut begun) = (0, f64::MAX);
    let (mut at, mut looked) = (0.0, 0.0);
    while at < begun + seconds {
        if dwells >= learned && begun == f64::MAX {
            begun = at;
        }
        next.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (due, name) = next[0].clone();
        while begun < f64::MAX && looked + 1.0 < due {
            looked = f64::max(looked + 1.0, at);
            world.look(looked);
        }
        at = due;
        world.change(at, &name, "busy", "busy");
        dwells += 1;
        let times = if begun < f64::MAX { slower } else { 1.0 };
        next[0].0 = at + times * lognormal();
    }
    world.told
}

#[test]
fn a_day_of_usual_work_alarms_nobody() {
    let told = live(5, 10, 300, 1.0, 24.0 * 3600.0);
    assert!(told.is_empty(), "{told:?}");
}

/// While nobody declares a limit, the table follows slower work before a dwell passes its limit.
#[test]
fn work_that_becomes_three_times_slower_is_one_finding_at_most() {
    for seed in 1..20 {
        let told = live(seed, 20, 300, 3.0, 1800.0);
        let begins = told.iter().filter(|text| !text.contains("again")).count();
        assert!(begins <= 1, "seed {seed}: {told:?}");
    }
}

#[test]
fn machines_that_all_become_three_times_slower_are_one_finding() {
    let mut world = World::new();
    world.declared.add("worker/busy=200s").unwrap();
    let mut rng = fastrand::Rng::with_seed(16);
    let names: Vec<String> = (0..10).map(|number| format!("m{number}")).collect();
    for name in &names {
        world.register(0.0, name, "worker");
    }
    // They work in step: a round begins for all of them at once.
    let mut at = 1.0;
    let mut told = 0;
    for round in 0..40 {
        let slower = if round < 30 { 1.0 } else { 3.0 };
        for name in &names {
            world.change(at, name, "idle", "busy");
        }
        let mut ends: Vec<(f64, &String)> = names
            .iter()
            .map(|name| (at + slower * (80.0 + 40.0 * rng.f64()), name))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut looked = at;
        for (end, name) in ends {
            while looked + 1.0 < end {
                looked += 1.0;
                told += world.look(looked);
            }
            world.change(end, name, "busy", "idle");
            at = end;
        }
        at += 1.0;
        told += world.look(at);
        assert!(round >= 30 || told == 0, "usual work alarms nobody");
        if round == 30 {
            assert_eq!(told, 2, "one finding, and its end: {:?}", world.told);
            assert!(
                world.told[0].starts_with("10 machines (type worker) are"),
                "{:?}",
                world.told
            );
        }
    }
}

/// After 16 slow dwells the next machine over its limit is no finding of its own.
#[test]
fn a_type_that_is_slow_as_a_whole_is_one_finding_while_it_lasts() {
    let mut world = World::new();
    for rule in ["worker/busy=100s", "*/idle=never"] {
        world.declared.add(rule).unwrap();
    }
    for name in ["a", "b", "c", "d"] {
        world.register(0.0, name, "worker");
    }
    let at = world.learn(1.0, "a", std::iter::repeat_n(20.0, 300));
    let mut at = world.learn(at, "a", std::iter::repeat_n(60.0, 16));
    world.change(at, "a", "busy", "idle");
    for round in 0..5 {
        // One after the other, so that they are never over their limit together.
        let name = ["b", "c"][round % 2];
        world.change(at, name, "idle", "busy");
        let told = world.look(at + 101.0);
        assert_eq!(told, usize::from(round == 0), "{:?}", world.told);
        world.change(at + 120.0, name, "busy", "idle");
        assert_eq!(world.look(at + 121.0), 0, "the type is slow still");
        at += 200.0;
    }
    assert!(
        world.last().contains("times the usual, so all of that type are slow"),
        "{}",
        world.last()
    );
    let at = world.learn(at, "d", std::iter::repeat_n(20.0, 16));
    world.change(at, "d", "busy", "idle");
    assert_eq!(world.look(at + 1.0), 1);
    assert!(world.last().contains("of type worker move again"), "{}", world.last());
}

#[test]
fn a_finding_of_one_machine_names_it_at_its_end_too() {
    let mut world = World::new();
    for rule in ["worker/busy=100s", "*/idle=never"] {
        world.declared.add(rule).unwrap();
    }
    for name in ["a", "b", "c"] {
        world.register(0.0, name, "worker");
    }
    let at = world.learn(1.0, "a", std::iter::repeat_n(20.0, 300));
    let at = world.learn(at, "a", std::iter::repeat_n(60.0, 16));
    world.change(at, "a", "busy", "idle");
    world.change(at, "b", "idle", "busy");
    assert_eq!(world.look(at + 101.0), 1);
    world.change(at + 110.0, "b", "busy", "idle");
    assert_eq!(world.look(at + 111.0), 0, "the type is slow still");
    let at = world.learn(at + 120.0, "c", std::iter::repeat_n(20.0, 16));
    world.change(at, "c", "busy", "idle");
    assert_eq!(world.look(at + 1.0), 1);
    assert!(world.last().starts_with("machine b moves again"), "{}", world.last());
}

#[test]
fn what_is_told_is_what_pages_show() {
    let mut world = World::new();
    let at = world.learn(1.0, "m", std::iter::repeat_n(2.0, 150));
    world.look(at + 31.0);
    let now = world.begun + Duration::from_secs_f64(at + 32.0);
    let as_of = Position {
        epoch: Epoch::new(),
        seq: 1,
    };
    world.machines.renew_survey();
    let survey = world.machines.survey(as_of, now).unwrap();
    let json = survey.machines_json(&Filter::default(), &world.declared, now, EPOCH);
    let document: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let row = &document["machines"][0];
    assert_eq!(
        (&row["verdict"], &row["limit_seconds"]),
        (&"silent".into(), &30.0.into())
    );
    assert_eq!(row["usual"]["n"], 150);
    assert_eq!(document["totals"]["silent"], 1);
    let graph: serde_json::Value =
        serde_json::from_slice(&survey.graph_json(&Filter::default(), &world.declared, EPOCH)).unwrap();
    assert_eq!(graph["types"][0]["machine"], "m");
    let busy = &graph["types"][0]["states"][0];
    assert_eq!(
        (&busy["state"], &busy["now"], &busy["entered"]),
        (&"busy".into(), &1.into(), &151.into())
    );
    assert_eq!(
        (&busy["from"][0]["state"], &busy["from"][0]["count"]),
        (&"idle".into(), &151.into())
    );
}
