//! Positions: what is read is written back the same.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use threadcast::pipeline::position::Position;

#[test]
fn a_position_that_is_taken_reads_back_and_anything_else_is_refused() {
    let seeds = seeds("position");
    fuzz("position", 60_000, |rng| {
        let mut bytes = seeds[rng.usize(..seeds.len())].clone();
        if rng.u8(..10) > 0 {
            mutate(rng, &mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let Ok(position) = text.parse::<Position>() else {
            return;
        };
        let written = position.to_string();
        assert_eq!(written.parse(), Ok(position), "{text}");
        let (epoch, seq) = text.split_once(':').unwrap();
        assert_eq!(written.split_once(':').unwrap().0, epoch.to_ascii_lowercase());
        assert_eq!(seq.parse::<u64>().unwrap(), position.seq, "{text}");
    });
}
