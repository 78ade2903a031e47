//! The one log-linear scheme of histograms, from the kernel to the screen: eight buckets per power of two.
//!
//! The same arithmetic stands in `src/bpf/hist.bpf.h`. A bucket is at most 1/8 of its lower bound wide, so its middle is
//! within 6.25 % of any value in it.

use serde::{Deserialize, Serialize};

/// Buckets there can be: 8 exact ones for 0…7 and 8 for each of the 61 powers of two from 2^3.
pub const BUCKETS: usize = 8 + 61 * 8;

/// The bucket of a value.
pub const fn bucket_of(value: u64) -> u16 {
    if value < 8 {
        return value as u16;
    }
    let log2 = 63 - value.leading_zeros();
    let sub = (value >> (log2 - 3)) & 7;
    ((log2 - 2) * 8 + sub as u32) as u16
}

/// Smallest value of a bucket.
pub const fn bucket_low(bucket: u16) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let log2 = bucket as u32 / 8 + 2;
    if log2 > 63 {
        return u64::MAX;
    }
    (8 | (bucket as u64 & 7)) << (log2 - 3)
}

/// Largest value of a bucket.
pub const fn bucket_high(bucket: u16) -> u64 {
    bucket_low(bucket.saturating_add(1)).saturating_sub(1)
}

/// The value that stands for a bucket: its middle.
pub const fn bucket_mid(bucket: u16) -> u64 {
    let low = bucket_low(bucket);
    low + bucket_high(bucket).saturating_sub(low) / 2
}

/// Counts by bucket, only those that are not zero, each bucket at most once. In no order where they come from outside;
/// rising where they were added here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hist {
    /// (bucket, count).
    pub counts: Vec<(u16, u64)>,
    /// Largest value, exact.
    pub max: u64,
    /// Sum of all values, exact where the source says so, else from the middles of the buckets.
    pub sum: u64,
}

impl Hist {
    /// A histogram of these values.
    pub fn of(values: impl IntoIterator<Item = u64>) -> Self {
        let mut hist = Hist::default();
        values.into_iter().for_each(|value| hist.record(value));
        hist
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum: u64, &(_, count)| sum.saturating_add(count))
    }

    /// No value.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        self.add(bucket_of(value), 1);
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds `count` to one bucket; `max` and `sum` stay. A bucket that does not exist (a damaged file) counts as the last.
    pub fn add(&mut self, bucket: u16, count: u64) {
        let bucket = bucket.min(BUCKETS as u16 - 1);
        match self.counts.binary_search_by_key(&bucket, |&(at, _)| at) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Hist) {
        let rises = other.counts.is_sorted_by(|a, b| a.0 < b.0);
        if self.counts.is_empty() && rises && other.counts.last().is_none_or(|&(last, _)| usize::from(last) < BUCKETS) {
            self.counts.extend_from_slice(&other.counts);
        } else {
            other.counts.iter().for_each(|&(bucket, count)| self.add(bucket, count));
        }
        self.max = self.max.max(other.max);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The value below or at which a share `q` (0…1) of all values lies, within 6.25 %, never above `max`; `None` without
    /// values.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let mut counts = self.counts.clone();
        counts.sort_unstable();
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in counts {
            seen = count.saturating_add(seen);
            if seen >= rank {
                return Some(bucket_mid(bucket).min(self.max.max(bucket_low(bucket))));
            }
        }
        Some(self.max)
    }

    /// Counts by power of two, as `runqlat` and `biolatency` print: (lower bound, count), rising.
    pub fn powers_of_two(&self) -> Vec<(u64, u64)> {
        let mut powers = std::collections::BTreeMap::new();
        for &(bucket, count) in &self.counts {
            let low = bucket_low(bucket).max(1);
            let sum = powers.entry(1u64 << low.ilog2()).or_insert(0u64);
            *sum = sum.saturating_add(count);
        }
        powers.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_the_numbers() {
        for bucket in 0..BUCKETS as u16 - 1 {
            assert_eq!(bucket_of(bucket_low(bucket)), bucket);
            assert_eq!(bucket_of(bucket_high(bucket)), bucket);
            assert_eq!(bucket_high(bucket) + 1, bucket_low(bucket + 1));
        }
        assert_eq!(bucket_of(u64::MAX) as usize, BUCKETS - 1);
    }

    #[test]
    fn middle_is_within_a_sixteenth() {
        for value in (3..60).map(|shift| (1u64 << shift) + (1 << shift) / 3) {
            let mid = bucket_mid(bucket_of(value)) as f64;
            assert!((mid / value as f64 - 1.0).abs() <= 0.0625, "{value}: {mid}");
        }
    }

    #[test]
    fn quantiles_and_powers() {
        let hist = Hist::of([100, 100, 100, 5000]);
        assert_eq!(hist.quantile(0.5), Some(bucket_mid(bucket_of(100))));
        assert!(hist.quantile(1.0).is_some_and(|max| max.abs_diff(5000) <= 5000 / 16));
        assert_eq!(hist.powers_of_two(), [(64, 3), (4096, 1)]);
        assert_eq!(Hist::default().quantile(0.5), None);
    }
}
