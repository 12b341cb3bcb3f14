//! How many events a machine sends.

use std::time::{Duration, Instant};

/// Slots of one rate. The newest is not over yet, so a rate is of the last 8 to 10 s.
const SLOTS: usize = 5;
/// Time that one slot counts.
const SLOT: Duration = Duration::from_secs(2);
/// The longest time that a rate is of.
pub(super) const RATE_SECONDS: u64 = SLOTS as u64 * SLOT.as_secs();

/// Numbers the slots of all machines, from the first event on.
#[derive(Debug, Default)]
pub(super) struct Slots {
    begun: Option<Instant>,
}

impl Slots {
    /// The number of the slot that `now` is in. Slots begin with the first call.
    pub(super) fn number(&mut self, now: Instant) -> u32 {
        let begun = *self.begun.get_or_insert(now);
        (now.saturating_duration_since(begun).as_secs() / SLOT.as_secs()) as u32
    }

    /// As [`Slots::number`], with the part of that slot that is over.
    pub(super) fn number_and_part(&mut self, now: Instant) -> (u32, Duration) {
        let number = self.number(now);
        let begun = self
            .begun
            .map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        (number, begun.saturating_sub(SLOT * number))
    }
}

/// The events of one machine, counted in slots: 24 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// The newest slot that was counted in.
    newest: u32,
    /// At its number modulo [`SLOTS`] each slot has its count.
    counts: [u32; SLOTS],
}

impl Rate {
    /// Counts an event in slot number `slot`.
    pub(super) fn count(&mut self, slot: u32) {
        self.move_to(slot);
        let count = &mut self.counts[slot as usize % SLOTS];
        *count = count.saturating_add(1);
    }

    /// Events per second, at the moment in which `part` of slot number `slot` is over. 0 after 10 s of silence.
    pub(super) fn per_second(mut self, (slot, part): (u32, Duration)) -> f64 {
        self.move_to(slot);
        let events: f64 = self.counts.iter().copied().map(f64::from).sum();
        let seconds = SLOT * (SLOTS as u32 - 1) + part;
        events / seconds.as_secs_f64()
    }

    /// Empties the slots between the newest one and `slot`.
    fn move_to(&mut self, slot: u32) {
        let passed = slot.saturating_sub(self.newest);
        for passed in 0..passed.min(SLOTS as u32) {
            self.counts[(slot - passed) as usize % SLOTS] = 0;
        }
        self.newest = self.newest.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate of a machine `at` seconds after the start, which sent events at these seconds.
    fn rate(events: impl Iterator<Item = f64>, at: f64) -> f64 {
        let (begun, mut slots, mut rate) = (Instant::now(), Slots::default(), Rate::default());
        slots.number(begun);
        for second in events {
            rate.count(slots.number(begun + Duration::from_secs_f64(second)));
        }
        rate.per_second(slots.number_and_part(begun + Duration::from_secs_f64(at)))
    }

    #[test]
    fn a_steady_rate_is_told_as_it_is() {
        for at in [30.0, 30.5, 31.0, 31.9] {
            let events = (0..)
                .map(|number| f64::from(number) * 0.1)
                .take_while(|second| *second < at);
            let rate = rate(events, at);
            assert!((rate - 10.0).abs() < 0.2, "{rate} at {at}");
        }
    }

    #[test]
    fn the_rate_of_a_silent_machine_falls_to_nothing_within_ten_seconds() {
        let burst = || (0..100).map(|_| 20.5);
        assert!(rate(burst(), 21.0) > 10.0);
        assert!(rate(burst(), 28.0) > 8.0);
        for at in [30.0, 30.5, 40.0, 1e6] {
            assert_eq!(rate(burst(), at), 0.0, "{at}");
        }
    }

    #[test]
    fn a_machine_that_comes_back_begins_anew() {
        let events = (0..50).map(|_| 1.0).chain((0..10).map(|_| 101.0));
        assert!((rate(events, 102.0) - 10.0 / 8.0).abs() < 1e-9);
    }
}
