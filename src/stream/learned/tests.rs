//! Tests of what is learned as a whole.

use super::histogram::Histogram;
use super::usual::STUCK_LEAST;
use super::*;

const WORKER: Who<'static> = Who {
    machine: "m",
    config_type: Some("worker"),
};

fn small(states_max: usize, transitions_max: usize, bytes_max: usize) -> Learned {
    Learned::new(LearnedLimits {
        states_max,
        transitions_max,
        bytes_max,
    })
}

#[test]
fn machines_of_a_type_teach_together_and_others_each_for_itself() {
    let mut learned = Learned::default();
    for machine in ["a", "b"] {
        for config_type in [Some("worker"), None] {
            let who = Who { machine, config_type };
            learned.enter(who, "busy", Entry::By(Some("idle"), Some("go")));
            learned.leave(who, "busy", Duration::from_secs(2), None);
        }
    }
    let entered: Vec<(&str, u64, u32)> = learned
        .all()
        .map(|state| (state.of.name(), state.entered, state.dwells.n()))
        .collect();
    assert_eq!(entered, [("a", 1, 1), ("b", 1, 1), ("worker", 2, 2)]);
    assert_eq!(learned.sizes().0, 3);
}

#[test]
fn a_state_is_found_in_a_copy() {
    let mut learned = Learned::default();
    for number in 0..50 {
        let (name, state) = (format!("t{}", number % 7), format!("s{number}"));
        let who = |config_type| Who {
            machine: &name,
            config_type,
        };
        learned.enter(who(Some(name.as_str())), &state, Entry::Somehow);
        learned.enter(who(None), &state, Entry::Somehow);
    }
    let copy = learned.copy();
    assert_eq!(copy.len(), 100);
    for state in &copy {
        let who = Who {
            machine: state.of.name(),
            config_type: state.of.config_type(),
        };
        assert!(Arc::ptr_eq(&copy[find(&copy, who, &state.name).unwrap()], state));
        assert!(find(&copy, who, "nothing").is_none());
    }
}

#[test]
fn a_copy_does_not_change_with_the_table() {
    let mut learned = Learned::default();
    learned.enter(WORKER, "busy", Entry::Somehow);
    let copy = learned.copy();
    learned.enter(WORKER, "busy", Entry::Somehow);
    assert_eq!((copy[0].entered, learned.copy()[0].entered), (1, 2));
}

#[test]
fn states_are_bounded_and_the_least_used_leave() {
    let mut learned = small(100, 1000, usize::MAX);
    for number in 0..10_000 {
        learned.enter(WORKER, "often", Entry::By(None, None));
        learned.enter(WORKER, &format!("s{number}"), Entry::By(Some("often"), None));
        assert!(learned.sizes().0 <= 100);
    }
    assert!(learned.state(WORKER, "often").is_some());
    assert!(learned.state(WORKER, "s9999").is_some(), "the newest stays");
    let (states, _, _) = learned.sizes();
    assert_eq!(learned.forgotten().states as usize + states, 10_001);
}

#[test]
fn bytes_are_bounded() {
    let mut learned = small(usize::MAX, usize::MAX, 100_000);
    for number in 0..2000 {
        let state = format!("{number:0500}");
        learned.enter(WORKER, &state, Entry::By(Some(&state), Some(&state)));
        assert!(learned.sizes().2 <= 100_000, "{:?}", learned.sizes());
    }
    assert!(learned.sizes().0 > 10);
}

#[test]
fn transitions_are_bounded_and_the_least_used_leave() {
    let mut learned = small(1000, 500, usize::MAX);
    for number in 0..5000 {
        learned.enter(WORKER, &format!("s{}", number % 50), Entry::By(Some("often"), None));
        let from = format!("f{number}");
        learned.enter(WORKER, &format!("s{}", number % 50), Entry::By(Some(&from), None));
        assert!(learned.sizes().1 <= 500);
    }
    let often = learned.all().flat_map(|state| &state.ways);
    assert_eq!(often.filter(|way| way.from.as_deref() == Some("often")).count(), 50);
    assert!(learned.forgotten().transitions > 4000);
}

#[test]
fn what_is_counted_is_what_is_there() {
    let mut learned = small(20, 60, 60_000);
    for number in 0..3000_u64 {
        let who = Who {
            machine: ["a", "b", "c"][(number % 3) as usize],
            config_type: (number % 5 > 0).then_some("t"),
        };
        let state = format!("s{}", number * 7 % 31);
        learned.enter(who, &state, Entry::By(Some(&format!("f{}", number % 11)), None));
        learned.leave(who, &state, Duration::from_millis(number), None);
        let counted = learned.sizes();
        learned.count_anew();
        assert_eq!(counted, learned.sizes());
    }
}

/// Dwells with a median of about 100 s, so that the shortest limit plays no part.
type Draw = fn(&mut fastrand::Rng) -> f64;

fn lognormal(rng: &mut fastrand::Rng, sigma: f64) -> f64 {
    // Box and Muller.
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    (sigma * normal).exp()
}

const CONSTANT: Draw = |rng| 80.0 + 40.0 * rng.f64();
const LOGNORMAL: Draw = |rng| 100.0 * lognormal(rng, 0.5);
const EXPONENTIAL: Draw = |rng| -144.3 * (1.0 - rng.f64()).ln();
const TWO_MODES: Draw = |rng| if rng.f64() < 0.05 { 10_000.0 } else { 100.0 };

fn learned(rng: &mut fastrand::Rng, draw: Draw, dwells: usize) -> Histogram {
    let mut histogram = Histogram::default();
    (0..dwells).for_each(|_| histogram.count(Duration::from_secs_f64(draw(rng))));
    histogram
}

/// How many of 10,000 dwells that end by themselves are judged stuck, after 300 dwells; the mean of 100 tables.
fn false_alarms(draw: Draw) -> f64 {
    let mut rng = fastrand::Rng::with_seed(16);
    let (tables, dwells) = (100, 10_000);
    let mut alarms = 0;
    for _ in 0..tables {
        let usual = learned(&mut rng, draw, 300).usual();
        let Some(limit) = usual.stuck_after() else { continue };
        alarms += (0..dwells).filter(|_| draw(&mut rng) > limit.as_secs_f64()).count();
    }
    alarms as f64 / f64::from(tables)
}

#[test]
fn at_most_one_of_10000_usual_dwells_is_called_stuck() {
    for (name, draw) in [
        ("constant", CONSTANT),
        ("lognormal", LOGNORMAL),
        ("exponential", EXPONENTIAL),
    ] {
        let alarms = false_alarms(draw);
        assert!(alarms <= 1.0, "{name}: {alarms}");
    }
}

/// What the rule leaves out would be wrong: the test can see alarms.
#[test]
fn a_simpler_rule_is_wrong_more_often() {
    let mut rng = fastrand::Rng::with_seed(16);
    let limit = learned(&mut rng, EXPONENTIAL, 300).usual().median.as_secs_f64() * 5.0;
    let alarms = (0..10_000).filter(|_| EXPONENTIAL(&mut rng) > limit).count();
    assert!(alarms > 100, "{alarms}");
}

#[test]
fn one_hang_that_was_learned_leaves_the_limit_below_20_medians() {
    let mut rng = fastrand::Rng::with_seed(16);
    let mut limits: Vec<f64> = (0..101)
        .map(|_| {
            let mut histogram = learned(&mut rng, LOGNORMAL, 299);
            // 3,600 medians.
            histogram.count(Duration::from_secs(360_000));
            let usual = histogram.usual();
            usual.stuck_after().unwrap().as_secs_f64() / usual.median.as_secs_f64()
        })
        .collect();
    limits.sort_unstable_by(f64::total_cmp);
    // The largest is that of a table whose own dwells reach so far.
    assert!(limits[50] < 20.0 && limits[100] < 40.0, "{limits:?}");
}

#[test]
fn too_wide_a_spread_or_too_few_dwells_have_no_limit() {
    let mut rng = fastrand::Rng::with_seed(16);
    assert_eq!(learned(&mut rng, TWO_MODES, 1000).usual().stuck_after(), None);
    assert_eq!(learned(&mut rng, CONSTANT, 99).usual().stuck_after(), None);
    assert!(learned(&mut rng, CONSTANT, 100).usual().stuck_after().is_some());
    assert_eq!(learned(&mut rng, CONSTANT, 29).usual().slow_after(), None);
    assert!(learned(&mut rng, CONSTANT, 30).usual().slow_after().is_some());
}

#[test]
fn short_dwells_are_stuck_after_half_a_minute_only() {
    let mut histogram = Histogram::default();
    (0..200).for_each(|_| histogram.count(Duration::from_millis(3)));
    assert_eq!(histogram.usual().stuck_after(), Some(STUCK_LEAST));
}
