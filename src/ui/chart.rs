//! Histograms as columns: geometry only. Latency runs to the right on a logarithmic axis, counts upward.

use super::heat::Range;
use crate::tick::Hist;

/// Which buckets one column shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// Eight columns per power of two where there is room, else four, two or one.
    #[default]
    Fine,
    /// One column per power of two, as `runqlat` and `biolatency` print.
    Powers,
}

/// One column: values from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Smallest value, ns.
    pub low: u64,
    /// Largest value, ns.
    pub high: u64,
    /// Values in it.
    pub count: u64,
}

/// Counts by bucket, lowest bucket first.
pub fn counts_of(hist: &Hist) -> Vec<(u16, u64)> {
    let mut counts = hist.counts.clone();
    counts.sort_unstable();
    counts
}

/// At most `room` columns that tile `range`; counts outside it go to the nearest column.
pub fn columns(counts: &[(u16, u64)], range: Range, resolution: Resolution, room: usize) -> Vec<Column> {
    if room == 0 {
        return Vec::new();
    }
    let number = match resolution {
        Resolution::Powers => (range.buckets() / 8).clamp(1, room),
        Resolution::Fine => fine(range.buckets(), room),
    };
    let mut columns: Vec<Column> =
        (0..number).map(|at| range.band(at, number)).map(|(low, high)| Column { low, high, count: 0 }).collect();
    for &(bucket, count) in counts {
        let at = range.band_of(bucket, number);
        columns[at].count += count;
    }
    columns
}

/// The most columns that fit and of which each holds as many buckets as any other.
fn fine(buckets: usize, room: usize) -> usize {
    let equal = [1, 2, 4, 8, 16, 32].map(|each| buckets.div_ceil(each));
    equal.into_iter().find(|&number| number <= room).unwrap_or(room)
}

/// Height of a bar in eighths of a character, `rows` high at most: never 0 for a count, so that what is rare shows.
pub fn height(count: u64, max: u64, rows: usize) -> usize {
    if count == 0 || max == 0 {
        return 0;
    }
    let full = rows as u128 * 8;
    ((u128::from(count) * full / u128::from(max)) as usize).clamp(1, full as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::bucket_of;

    fn range(low: u64, high: u64) -> Range {
        Range::of([bucket_of(low), bucket_of(high)]).unwrap()
    }

    #[test]
    fn columns_tile_the_range_and_keep_the_sum() {
        let hist = Hist::of((0..5000).map(|at| at * at));
        let counts = counts_of(&hist);
        let range = Range::of(counts.iter().map(|&(at, _)| at)).unwrap();
        for room in 1..300 {
            for resolution in [Resolution::Fine, Resolution::Powers] {
                let columns = columns(&counts, range, resolution, room);
                assert!(columns.len() <= room);
                assert!(columns.windows(2).all(|pair| pair[0].high + 1 == pair[1].low));
                assert_eq!(columns.iter().map(|column| column.count).sum::<u64>(), 5000);
            }
        }
    }

    #[test]
    fn powers_are_what_runqlat_prints() {
        let hist = Hist::of([1000, 1030, 2100, 5000]);
        let powers = columns(&counts_of(&hist), range(512, 5000), Resolution::Powers, 80);
        let drawn: Vec<_> = powers.iter().map(|column| (column.low, column.high, column.count)).collect();
        assert_eq!(drawn, [(512, 1023, 1), (1024, 2047, 1), (2048, 4095, 1), (4096, 8191, 1)]);
    }

    #[test]
    fn finer_where_there_is_room() {
        let number = |room| columns(&[], range(1024, 4095), Resolution::Fine, room).len();
        assert_eq!([100, 16, 15, 8, 5, 2, 1, 0].map(number), [16, 16, 8, 8, 4, 2, 1, 0]);
    }

    #[test]
    fn rare_values_show() {
        assert_eq!(height(0, 100, 4), 0);
        assert_eq!(height(1, 1_000_000, 4), 1);
        assert_eq!(height(100, 100, 4), 32);
        assert_eq!(height(u64::MAX, u64::MAX, 4), 32);
    }
}
