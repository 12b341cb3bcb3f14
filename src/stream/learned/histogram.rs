//! How long dwells took: a histogram with logarithmic buckets, in less than 1 KB whatever it has counted.

use super::usual::Usual;
use std::time::Duration;

/// A bucket's upper end is 2^(1/8) times its lower end: 9 % more.
const BUCKETS_PER_OCTAVE: usize = 8;
/// From 1 µs to 2^45 µs, which is 1.1 years; what is longer counts in the last bucket.
const OCTAVES: usize = 45;
/// Number of buckets.
pub const BUCKETS: usize = BUCKETS_PER_OCTAVE * OCTAVES;
/// When this many dwells count, all counts halve, so that the figures follow work that changes.
pub const DWELLS_MAX: u32 = 2000;

/// The dwells of one state.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u16; BUCKETS]>,
    n: u32,
    /// In microseconds, the largest first.
    largest: [u64; 2],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: Box::new([0; BUCKETS]),
            n: 0,
            largest: [0; 2],
        }
    }
}

impl Histogram {
    /// Memory that it holds, in bytes.
    pub const BYTES: usize = size_of::<Histogram>() + size_of::<[u16; BUCKETS]>();

    /// Counts a dwell.
    pub fn count(&mut self, dwell: Duration) {
        let micros = micros(dwell);
        self.counts[bucket(dwell)] += 1;
        self.n += 1;
        if micros > self.largest[0] {
            self.largest = [micros, self.largest[0]];
        } else if micros > self.largest[1] {
            self.largest[1] = micros;
        }
        if self.n >= DWELLS_MAX {
            self.halve();
        }
    }

    /// Number of dwells that count.
    pub fn n(&self) -> u32 {
        self.n
    }

    /// Its figures. A quantile is the middle of its bucket, so it is wrong by 4.4 % at most.
    pub fn usual(&self) -> Usual {
        if self.n == 0 {
            return Usual::default();
        }
        let ranks = [0.5, 0.95, 0.99].map(|part| (f64::from(self.n) * part).ceil() as u32);
        let [median, p95, p99] = ranks.map(|rank| self.middle(self.bucket_of(rank)));
        let [largest, second_largest] = self.largest.map(Duration::from_micros);
        Usual {
            n: self.n,
            voided: 0,
            median,
            p95,
            p99,
            largest,
            second_largest,
        }
    }

    /// The buckets that are not empty, with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (usize, u16)> {
        let counts = self.counts.iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0)
    }

    /// The two largest dwells, in microseconds, the largest first.
    pub fn largest(&self) -> [u64; 2] {
        self.largest
    }

    /// One that has these counts and largest dwells; `None` if they cannot be those of a histogram.
    pub fn restored(counts: &[(usize, u16)], largest: [u64; 2]) -> Option<Histogram> {
        let mut histogram = Histogram {
            largest,
            ..Histogram::default()
        };
        for (bucket, count) in counts {
            *histogram.counts.get_mut(*bucket)? = *count;
        }
        histogram.n = histogram.counts.iter().copied().map(u32::from).sum();
        (histogram.n < DWELLS_MAX && largest[0] >= largest[1]).then_some(histogram)
    }

    /// The bucket of the dwell that `rank - 1` others are shorter than.
    fn bucket_of(&self, rank: u32) -> usize {
        let mut below = 0;
        let found = self.counts().find(|(_, count)| {
            below += u32::from(*count);
            below >= rank
        });
        found.map_or(BUCKETS - 1, |(bucket, _)| bucket)
    }

    /// The middle of a bucket, but no more than the largest dwell: that may be in its lower half.
    fn middle(&self, bucket: usize) -> Duration {
        middle(bucket).min(Duration::from_micros(self.largest[0]))
    }

    /// Lets each dwell count half. Of the longest, which are alone in their buckets, every second one stays, so that
    /// the end of the distribution does; the longest of all leaves, so that no single dwell stays for ever.
    fn halve(&mut self) {
        let mut carried = 0;
        for count in self.counts.iter_mut().rev() {
            let both = *count + carried;
            (*count, carried) = (both / 2, both % 2);
        }
        self.n = self.counts.iter().copied().map(u32::from).sum();
        self.forget_largest();
    }

    /// The largest dwells that are in no bucket any more give way to the upper ends of those that are.
    fn forget_largest(&mut self) {
        let mut highest = self.counts.iter().copied().enumerate().rev();
        let mut ends = highest
            .by_ref()
            .flat_map(|(bucket, count)| std::iter::repeat_n(end(bucket), usize::from(count.min(2))));
        for largest in &mut self.largest {
            *largest = (*largest).min(ends.next().unwrap_or(0));
        }
    }
}

/// The bucket of a dwell.
pub fn bucket(dwell: Duration) -> usize {
    let octaves = (micros(dwell).max(1) as f64).log2();
    ((octaves * BUCKETS_PER_OCTAVE as f64) as usize).min(BUCKETS - 1)
}

/// The middle of a bucket, on the logarithmic scale.
pub fn middle(bucket: usize) -> Duration {
    at(bucket as f64 + 0.5)
}

/// The upper end of a bucket, in microseconds.
fn end(bucket: usize) -> u64 {
    micros(at(bucket as f64 + 1.0))
}

/// The length at this place of the scale.
fn at(place: f64) -> Duration {
    Duration::from_secs_f64((place / BUCKETS_PER_OCTAVE as f64).exp2() / 1e6)
}

fn micros(dwell: Duration) -> u64 {
    dwell.as_micros().min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn it_takes_less_than_a_kilobyte() {
        const { assert!(Histogram::BYTES < 1000) };
    }

    #[test]
    fn figures_are_right_to_five_percent() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|n| histogram.count(Duration::from_millis(n)));
        let usual = histogram.usual();
        for (figure, right) in [(usual.median, 0.5), (usual.p95, 0.95), (usual.p99, 0.99)] {
            let ratio = figure.as_secs_f64() / right;
            assert!((0.95..1.05).contains(&ratio), "{figure:?} is not {right} s");
        }
        assert_eq!((usual.n, usual.largest), (1000, seconds(1.0)));
        assert_eq!(usual.second_largest, seconds(0.999));
    }

    #[test]
    fn dwells_of_any_length_are_counted() {
        let mut histogram = Histogram::default();
        for dwell in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX, seconds(1e9)] {
            histogram.count(dwell);
        }
        let usual = histogram.usual();
        assert_eq!((usual.n, histogram.counts().count()), (4, 2));
        assert!(usual.p99 > seconds(3e7), "{usual:?}");
    }

    #[test]
    fn figures_follow_work_that_changes() {
        let mut histogram = Histogram::default();
        (0..5000).for_each(|_| histogram.count(seconds(100.0)));
        (0..8000).for_each(|_| histogram.count(seconds(1.0)));
        let usual = histogram.usual();
        assert!(usual.median < seconds(1.1) && usual.p95 < seconds(1.1), "{usual:?}");
        (0..20_000).for_each(|_| histogram.count(seconds(1.0)));
        let usual = histogram.usual();
        assert!(usual.largest < seconds(1.2) && usual.n < DWELLS_MAX, "{usual:?}");
    }

    #[test]
    fn halving_keeps_half_and_the_largest_that_are_left() {
        let mut histogram = Histogram::default();
        for rare in [50.0, 60.0, 70.0, 80.0] {
            histogram.count(seconds(rare));
        }
        (4..DWELLS_MAX).for_each(|_| histogram.count(seconds(1.0)));
        assert_eq!(histogram.n(), DWELLS_MAX / 2);
        let usual = histogram.usual();
        assert!(usual.largest > seconds(50.0), "{usual:?}");
        assert!(usual.second_largest <= usual.largest);
        let counts: Vec<(usize, u16)> = histogram.counts().collect();
        let restored = Histogram::restored(&counts, histogram.largest()).unwrap();
        assert_eq!(restored.usual(), usual);
    }

    #[test]
    fn what_cannot_be_a_histogram_is_none() {
        assert!(Histogram::restored(&[(BUCKETS, 1)], [1, 1]).is_none());
        assert!(Histogram::restored(&[(3, 2000)], [9, 9]).is_none());
        assert!(Histogram::restored(&[(3, 1)], [1, 2]).is_none());
    }
}
