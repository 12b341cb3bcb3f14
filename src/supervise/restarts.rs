//! When a service is started again, and when that is given up. Pure: time comes in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A delay is lengthened by up to this part of it, by chance, so that services that failed together do not come back
/// together.
const JITTER_PART: f64 = 0.25;

/// How often a service may be started again.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The first delay. Each next one is twice as long.
    pub first: Duration,
    /// The longest delay.
    pub most: Duration,
    /// After this time without a restart the delay is the first one again.
    pub calm: Duration,
    /// So many restarts may come ...
    pub times: usize,
    /// ... within this time.
    pub within: Duration,
}

/// The restarts of one service.
#[derive(Debug, Default)]
pub struct Restarts {
    /// When they were, the last `times` of them at most.
    recent: VecDeque<Instant>,
    delay: Duration,
}

impl Restarts {
    /// Returns after how long the service that has just failed is started again; `None`: never, because it was too
    /// often. `chance` is a number from 0 to 1.
    pub fn next(&mut self, policy: &Policy, now: Instant, chance: f64) -> Option<Duration> {
        let is_calm = (self.recent.back()).is_none_or(|last| now.saturating_duration_since(*last) >= policy.calm);
        while (self.recent.front()).is_some_and(|first| now.saturating_duration_since(*first) >= policy.within) {
            self.recent.pop_front();
        }
        if self.recent.len() >= policy.times {
            return None;
        }
        self.delay = if is_calm {
            policy.first
        } else {
            (self.delay * 2).min(policy.most)
        };
        self.recent.push_back(now);
        Some(self.delay.mul_f64(1.0 + JITTER_PART * chance.clamp(0.0, 1.0)))
    }

    /// A person has started the service: what was before does not count any more.
    pub fn forget(&mut self) {
        *self = Restarts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        first: Duration::from_secs(1),
        most: Duration::from_secs(10),
        calm: Duration::from_secs(600),
        times: 6,
        within: Duration::from_secs(600),
    };

    /// The delays of a service that fails at these seconds.
    fn delays(restarts: &mut Restarts, begun: Instant, seconds: &[u64]) -> Vec<Option<f64>> {
        let at = |second: &u64| begun + Duration::from_secs(*second);
        let delays = seconds
            .iter()
            .map(|second| restarts.next(&POLICY, at(second), 0.0).map(|delay| delay.as_secs_f64()));
        delays.collect()
    }

    #[test]
    fn the_delay_doubles_up_to_the_longest_and_begins_anew_after_calm() {
        let (mut restarts, begun) = (Restarts::default(), Instant::now());
        let expected = [1.0, 2.0, 4.0, 8.0, 10.0, 10.0].map(Some);
        assert_eq!(delays(&mut restarts, begun, &[0, 2, 5, 10, 20, 31]), expected);
        assert_eq!(delays(&mut restarts, begun, &[631]), [Some(1.0)]);
    }

    #[test]
    fn too_many_within_the_time_are_given_up_until_a_person_says_otherwise() {
        let (mut restarts, begun) = (Restarts::default(), Instant::now());
        let last = delays(&mut restarts, begun, &[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(last[5..], [Some(10.0), None, None]);
        // The first one is long ago then.
        assert_eq!(
            delays(&mut restarts, begun, &[600, 600]),
            [Some(1.0).map(|_| 10.0), None]
        );
        restarts.forget();
        assert_eq!(delays(&mut restarts, begun, &[601]), [Some(1.0)]);
    }

    #[test]
    fn chance_lengthens_a_delay_by_a_quarter_at_most() {
        let now = Instant::now();
        for (chance, expected) in [(0.0, 1.0), (0.5, 1.125), (1.0, 1.25), (7.0, 1.25)] {
            let delay = Restarts::default().next(&POLICY, now, chance);
            assert_eq!(delay, Some(Duration::from_secs_f64(expected)));
        }
    }
}
