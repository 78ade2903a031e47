//! Heat maps of latency over time: geometry only. Time runs to the right, latency upward, the newest column is the last.

use crate::tick::{BUCKETS, Hist, bucket_high, bucket_low};

/// Rows of a heat map or columns of a chart cover these buckets, both ends included.
///
/// It only ever grows, to whole powers of two: a picture whose axis moved with every tick could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Lowest bucket.
    pub low: u16,
    /// Highest bucket.
    pub high: u16,
}

impl Range {
    /// The powers of two that hold these buckets; `None` of none.
    pub fn of(buckets: impl IntoIterator<Item = u16>) -> Option<Self> {
        let (low, high) = buckets.into_iter().fold((u16::MAX, 0), |(low, high), at| (low.min(at), high.max(at)));
        (low <= high).then(|| Range { low: low / 8 * 8, high: (high / 8 * 8 + 7).min(BUCKETS as u16 - 1) })
    }

    /// Both together.
    pub fn with(self, other: Option<Range>) -> Self {
        let Some(other) = other else { return self };
        Range { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// How many buckets.
    pub fn buckets(&self) -> usize {
        usize::from(self.high - self.low) + 1
    }

    /// Smallest and largest value in band `at` of `bands` equal ones, lowest first.
    pub fn band(&self, at: usize, bands: usize) -> (u64, u64) {
        let bands = bands.max(1);
        let edge = |at: usize| self.low + (at * self.buckets() / bands) as u16;
        let (low, next) = (edge(at), edge(at + 1));
        (bucket_low(low), bucket_high(next.saturating_sub(1).max(low)))
    }

    /// Which of `bands` a bucket is in; outside the range, the nearest.
    pub fn band_of(&self, bucket: u16, bands: usize) -> usize {
        let at = usize::from(bucket.clamp(self.low, self.high) - self.low);
        // The inverse of `band`, whose edges are floors.
        ((at + 1) * bands.max(1)).div_ceil(self.buckets()).saturating_sub(1)
    }
}

/// Counts by (row, column): row 0 holds the highest latencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    rows: usize,
    columns: usize,
    counts: Vec<u64>,
    /// Largest of the counts.
    pub max: u64,
}

impl Grid {
    /// One column per histogram, oldest first; if there are fewer than `columns`, those on the left stay empty, if there
    /// are more, the newest are taken.
    pub fn new<'a>(ticks: impl ExactSizeIterator<Item = &'a Hist>, range: Range, rows: usize, columns: usize) -> Self {
        let rows = rows.min(range.buckets());
        let mut grid = Grid { rows, columns, counts: vec![0; rows * columns], max: 0 };
        let (skip, pad) = (ticks.len().saturating_sub(columns), columns.saturating_sub(ticks.len()));
        for (at, hist) in ticks.skip(skip).enumerate() {
            for &(bucket, count) in &hist.counts {
                grid.add(range.band_of(bucket, rows), pad + at, count);
            }
        }
        grid.max = grid.counts.iter().copied().max().unwrap_or(0);
        grid
    }

    fn add(&mut self, band: usize, column: usize, count: u64) {
        if band < self.rows && column < self.columns {
            self.counts[(self.rows - 1 - band) * self.columns + column] += count;
        }
    }

    /// Rows it has: as many as asked for, unless the range has fewer buckets.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What was counted there; 0 outside.
    pub fn count(&self, row: usize, column: usize) -> u64 {
        if column >= self.columns {
            return 0;
        }
        self.counts.get(row * self.columns + column).copied().unwrap_or(0)
    }
}

/// Step 1…`steps` of a count that is not 0, by its logarithm against the largest; 0 is step 0.
///
/// Counts of latencies span magnitudes: on a linear scale all but the commonest band would be blank.
pub fn shade(count: u64, max: u64, steps: usize) -> usize {
    if count == 0 || steps == 0 {
        return 0;
    }
    if count >= max {
        return steps;
    }
    let share = (count as f64).ln_1p() / (max as f64).ln_1p();
    (share * steps as f64).ceil().clamp(1.0, steps as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::bucket_of;

    #[test]
    fn ranges_are_whole_powers_of_two_and_grow() {
        let range = Range::of([bucket_of(5000), bucket_of(9000)]).unwrap();
        assert_eq!((bucket_low(range.low), bucket_high(range.high)), (4096, 16383));
        let grown = range.with(Range::of([bucket_of(100)]));
        assert_eq!((bucket_low(grown.low), bucket_high(grown.high)), (64, 16383));
        assert_eq!(range.with(None), range);
        assert_eq!(Range::of([]), None);
        assert_eq!(Range::of([BUCKETS as u16 - 1]).unwrap().buckets(), 8);
    }

    #[test]
    fn bands_tile_the_range() {
        let range = Range::of([bucket_of(1), bucket_of(1_000_000)]).unwrap();
        for bands in 1..=range.buckets() {
            for at in 0..bands {
                let (low, high) = range.band(at, bands);
                assert!(low <= high);
                assert_eq!(range.band_of(bucket_of(low), bands), at);
                assert_eq!(range.band_of(bucket_of(high), bands), at);
                if at + 1 < bands {
                    assert_eq!(high + 1, range.band(at + 1, bands).0);
                }
            }
        }
    }

    #[test]
    fn newest_is_rightmost_and_slowest_on_top() {
        let ticks = [Hist::of([100, 100]), Hist::of([4000])];
        let range = Range::of(ticks.iter().flat_map(|hist| hist.counts.iter().map(|&(at, _)| at))).unwrap();
        let grid = Grid::new(ticks.iter(), range, 6, 4);
        let drawn: Vec<Vec<u64>> =
            (0..grid.rows()).map(|row| (0..4).map(|column| grid.count(row, column)).collect()).collect();
        assert_eq!(drawn, [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0]]);
        assert_eq!(grid.max, 2);
        let narrow = Grid::new(ticks.iter(), range, 6, 1);
        assert_eq!((narrow.count(0, 0), narrow.count(5, 0), narrow.count(9, 9)), (1, 0, 0));
    }

    #[test]
    fn shades_use_all_steps() {
        assert_eq!(shade(0, 100, 5), 0);
        assert_eq!(shade(1, 1_000_000, 5), 1);
        assert_eq!(shade(1_000_000, 1_000_000, 5), 5);
        assert_eq!(shade(1, 1, 5), 5);
        let steps: Vec<_> = [1, 10, 100, 1000, 10_000].map(|count| shade(count, 10_000, 5)).into();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    }
}
