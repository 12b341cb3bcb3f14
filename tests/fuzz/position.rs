//! Positions against their grammar, written by hand: what is taken, what is refused, and that they read back.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use threadcast::stream::position::Position;

#[test]
fn a_position_that_is_taken_reads_back_and_anything_else_is_refused() {
    let seeds = seeds("position");
    let (mut taken, mut refused) = (0_u64, 0_u64);
    fuzz("position", 60_000, |rng| {
        let mut bytes = seeds[rng.usize(..seeds.len())].clone();
        if rng.u8(..10) > 0 {
            mutate(rng, &mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let position = text.parse::<Position>();
        let Some((epoch, seq)) = expected(&text) else {
            refused += 1;
            assert!(position.is_err(), "{text:?} is taken as {position:?}");
            return;
        };
        taken += 1;
        let position = position.unwrap_or_else(|error| panic!("{text:?} is refused: {error}"));
        assert_eq!(position.seq, seq, "{text}");
        let written = position.to_string();
        assert_eq!(written, format!("{epoch}:{seq}"), "{text}");
        assert_eq!(written.parse(), Ok(position), "{text}");
    });
    eprintln!("position: {taken} taken, {refused} refused");
    assert!(taken > 0 && refused > 0, "the generator is of no use");
}

/// Epoch, in lower case, and number of a text that is 16 hexadecimal digits, a colon, and decimal digits that fit 64
/// bits.
fn expected(text: &str) -> Option<(String, u64)> {
    let (epoch, seq) = text.as_bytes().split_at_checked(16)?;
    let digits = seq.strip_prefix(b":").filter(|digits| !digits.is_empty())?;
    let mut number = 0_u128;
    for digit in digits {
        let value = b"0123456789".iter().position(|known| known == digit)?;
        number = (number * 10 + value as u128).min(1 << 64);
    }
    let known = epoch.iter().all(|digit| b"0123456789abcdefABCDEF".contains(digit));
    let epoch = known.then(|| String::from_utf8_lossy(epoch).to_ascii_lowercase())?;
    Some((epoch, number.try_into().ok()?))
}
