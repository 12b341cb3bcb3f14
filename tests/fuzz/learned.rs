//! The file of what was learned: nothing in it ends the server, and what is read from it is kept as it is.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use fastrand::Rng;
use std::sync::Arc;
use std::time::Duration;
use threadcast::stream::learned::saved::{restore, saved};
use threadcast::stream::learned::state::State;
use threadcast::stream::learned::{Entry, Learned, LearnedLimits, Who};

/// Numbers at which counts, times and places in a histogram may go wrong.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2",
    "359",
    "360",
    "1999",
    "2000",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1.5e308",
];

/// Puts another number into the place of one: what is read is then nearly always a document still.
fn change_a_number(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let is_digit = |at: usize| bytes[at].is_ascii_digit();
    let begins: Vec<usize> = (1..bytes.len())
        .filter(|at| is_digit(*at) && !is_digit(at - 1))
        .collect();
    if begins.is_empty() {
        return;
    }
    let begin = begins[rng.usize(..begins.len())];
    let len = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = if rng.bool() {
        rng.u32(..).to_string()
    } else {
        NUMBERS[rng.usize(..NUMBERS.len())].to_owned()
    };
    bytes.splice(begin..begin + len, number.into_bytes());
}

/// The document of these states without the times of faults, which a reader of JSON may take for their neighbours.
fn without_times(mut states: Vec<Arc<State>>) -> String {
    for state in &mut states {
        Arc::make_mut(state).set_faults([0.0; 2]);
    }
    String::from_utf8(saved(&states, 9.5)).unwrap()
}

/// Goes on learning of every state that was restored, as the server does.
fn go_on(learned: &mut Learned) {
    for state in learned.copy() {
        let who = Who {
            machine: state.of.name(),
            config_type: state.of.config_type(),
        };
        for way in &state.ways {
            learned.enter(who, &state.name, Entry::By(way.from.as_deref(), way.trigger.as_deref()));
        }
        learned.enter(who, &state.name, Entry::By(Some("new"), None));
        learned.leave(who, &state.name, Duration::from_secs(3), None);
        learned.leave(who, &state.name, Duration::from_secs(900), Some(1_795_393_481.0));
    }
}

#[test]
fn a_learned_file_is_restored_and_kept_as_it_is_or_refused() {
    let seeds = seeds("learned");
    let (mut taken, mut refused) = (0_u64, 0_u64);
    fuzz("learned", 20_000, |rng| {
        let mut bytes = seeds[rng.usize(..seeds.len())].clone();
        match rng.u8(..20) {
            0 => {}
            1..8 => mutate(rng, &mut bytes),
            _ => (0..rng.usize(1..4)).for_each(|_| change_a_number(rng, &mut bytes)),
        }
        let limits = LearnedLimits {
            states_max: rng.usize(1..8),
            transitions_max: rng.usize(1..40),
            bytes_max: [2_000, 20_000, usize::MAX][rng.usize(..3)],
        };
        // A start has the limits of its flags, and the file those of a run before it.
        let Ok(mut learned) = restore(&bytes, limits) else {
            refused += 1;
            return;
        };
        taken += 1;
        let (states, transitions, size) = learned.sizes();
        assert!(
            states <= limits.states_max && transitions <= limits.transitions_max && size <= limits.bytes_max,
            "{:?} in {limits:?}: {}",
            learned.sizes(),
            String::from_utf8_lossy(&bytes)
        );
        let copy = learned.copy();
        // Nobody may be judged by figures that are none.
        for state in &copy {
            let usual = state.usual();
            assert!(usual.second_largest <= usual.largest, "{state:?}");
            assert!(usual.median <= usual.p95 && usual.p95 <= usual.p99, "{state:?}");
            let _ = (usual.stuck_after(), usual.slow_after());
        }
        let kept = saved(&copy, 9.5);
        let again =
            restore(&kept, limits).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&kept)));
        assert_eq!(again.sizes(), learned.sizes(), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(without_times(again.copy()), without_times(copy));
        go_on(&mut learned);
    });
    eprintln!("learned: {taken} taken, {refused} refused");
    assert!(taken > 0 && refused > 0, "the generator is of no use");
}
