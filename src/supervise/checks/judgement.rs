//! From looks to verdicts: when a check has failed, and when it is well again. Pure: time comes in.

use crate::supervise::checks::sight::{Kind, Sight};
use std::time::Instant;

/// What has changed with a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The check fails from now on, or does no more.
    pub fails: Option<bool>,
    /// Nothing can be said from now on, or something can again.
    pub is_blind: Option<bool>,
}

/// One check of one start of a service.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Ages count from then on at most: nobody could have shown anything before.
    since: Instant,
    /// Looks count from then on, or from the first one that is well.
    counts_from: Instant,
    was_well: bool,
    /// Failing looks in a row.
    strikes: u64,
    is_failing: bool,
    is_blind: bool,
    last: Option<Sight>,
}

impl Judged {
    /// A check that is looked at from `since` on, and counts from `counts_from` on.
    pub fn new(since: Instant, counts_from: Instant) -> Judged {
        Judged {
            since,
            counts_from,
            was_well: false,
            strikes: 0,
            is_failing: false,
            is_blind: false,
            last: None,
        }
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    pub fn strikes(&self) -> u64 {
        self.strikes
    }

    /// Returns whether a person should know: it fails, or nothing can be said.
    pub fn is_bad(&self) -> bool {
        self.is_failing || self.is_blind
    }

    /// The last look.
    pub fn last(&self) -> Option<&Sight> {
        self.last.as_ref()
    }

    /// Returns whether it is well; `None` if nobody knows.
    pub fn is_well(&self) -> Option<bool> {
        match &self.last {
            _ if self.is_failing => Some(false),
            None => None,
            Some(_) if self.is_blind => None,
            Some(_) => Some(true),
        }
    }

    /// What was before does not count: nobody had the time to do anything then. What fails goes on failing until it is
    /// well.
    pub fn forgive(&mut self, now: Instant) {
        self.since = now;
        self.strikes = 0;
    }

    /// Takes in a look. `most` strikes are enough; a host that is starved counts none.
    pub fn take(&mut self, sight: Sight, most: u64, now: Instant, is_starved: bool) -> News {
        let mut news = News::default();
        let kind = sight.kind;
        self.last = Some(sight);
        if self.is_blind != (kind == Kind::Blind) {
            self.is_blind = !self.is_blind;
            news.is_blind = Some(self.is_blind);
        }
        match kind {
            Kind::Well => {
                self.strikes = 0;
                self.was_well = true;
                news.fails = std::mem::take(&mut self.is_failing).then_some(false);
            }
            Kind::Failing if !is_starved && (self.was_well || now >= self.counts_from) => {
                self.strikes += 1;
                if self.strikes >= most && !self.is_failing {
                    self.is_failing = true;
                    news.fails = Some(true);
                }
            }
            Kind::Failing | Kind::Open | Kind::Blind => {}
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NONE: News = News {
        fails: None,
        is_blind: None,
    };
    const FAILS: News = News {
        fails: Some(true),
        ..NONE
    };
    const RECOVERS: News = News {
        fails: Some(false),
        ..NONE
    };

    /// Looks at these kinds a second apart, with two strikes and ten seconds of patience.
    fn news_of(kinds: &[Kind], is_starved: bool) -> (Judged, Vec<News>) {
        let begun = Instant::now();
        let mut judged = Judged::new(begun, begun + Duration::from_secs(10));
        let news = kinds.iter().enumerate().map(|(at, kind)| {
            let now = begun + Duration::from_secs(at as u64);
            judged.take(Sight::new(*kind, ""), 2, now, is_starved)
        });
        let news = news.collect();
        (judged, news)
    }

    use Kind::{Blind, Failing, Open, Well};

    #[test]
    fn so_many_strikes_in_a_row_count_and_one_good_look_ends_it() {
        let (judged, news) = news_of(&[Well, Failing, Well, Failing, Failing, Failing, Open, Well], false);
        assert_eq!(news, [NONE, NONE, NONE, NONE, FAILS, NONE, NONE, RECOVERS]);
        assert_eq!(judged.is_well(), Some(true));
    }

    #[test]
    fn before_the_first_success_nothing_counts_until_the_wait_is_over() {
        let (judged, news) = news_of(&[Failing; 10], false);
        assert_eq!((news, judged.strikes()), (vec![NONE; 10], 0));
        let (_, news) = news_of(&[Failing; 12], false);
        assert_eq!(news.last(), Some(&FAILS));
        assert_eq!(news[..11], [NONE; 11]);
    }

    #[test]
    fn what_cannot_be_seen_is_neither_a_strike_nor_a_success_and_said_once() {
        let (judged, news) = news_of(&[Well, Failing, Blind, Blind, Open, Failing], false);
        let is_blind = |is_blind| News {
            is_blind: Some(is_blind),
            ..NONE
        };
        assert_eq!(news, [NONE, NONE, is_blind(true), NONE, is_blind(false), FAILS]);
        assert_eq!(judged.is_well(), Some(false));
        let (judged, _) = news_of(&[Well, Blind], false);
        assert_eq!(judged.is_well(), None);
    }

    #[test]
    fn a_starved_host_counts_no_strike() {
        let (mut judged, news) = news_of(&[Well, Failing, Failing, Failing], true);
        assert_eq!((news, judged.strikes()), (vec![NONE; 4], 0));
        let now = judged.since() + Duration::from_secs(100);
        judged.forgive(now);
        assert_eq!(judged.since(), now);
    }
}
