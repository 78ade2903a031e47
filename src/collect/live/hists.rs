//! Histograms as the kernel side keeps them, to [`Hist`].

use super::skel::sched::types::{acc, cell};
use crate::tick::{Hist, bucket_mid};

/// `bucket_of(512)`: first bucket of a windowed array. As `WINDOW_FIRST` in `src/bpf/sberf.h`.
const WINDOW_FIRST: u16 = 56;

/// Histogram of one kind of a thread's account: its cache of cells and what overflowed from it.
pub fn of_cells(account: &acc, kind: usize, spilled: &[(u16, u64)]) -> Hist {
    let mut hist = Hist { counts: Vec::new(), max: account.max_ns[kind], sum: account.sum_ns[kind] };
    for &cell { count, bucket } in &account.hist[kind] {
        if count > 0 {
            hist.add(bucket, u64::from(count));
        }
    }
    for &(bucket, count) in spilled {
        hist.add(bucket, count);
    }
    hist
}

/// Histogram of an array of counts that begins at 512.
pub fn of_window(counts: impl IntoIterator<Item = u64>, max: u64, sum: Option<u64>) -> Hist {
    let counts: Vec<(u16, u64)> = (WINDOW_FIRST..).zip(counts).filter(|&(_, count)| count > 0).collect();
    let sum =
        sum.unwrap_or_else(|| counts.iter().map(|&(bucket, count)| bucket_mid(bucket).saturating_mul(count)).sum());
    Hist { counts, max, sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::bucket_of;

    #[test]
    fn the_window_begins_where_the_kernel_says() {
        assert_eq!(bucket_of(512), WINDOW_FIRST);
        assert_eq!(bucket_of(511), WINDOW_FIRST - 1);
    }

    #[test]
    fn cells_and_spill_add_up() {
        let mut account = acc::default();
        account.hist[1][3] = cell { count: 2, bucket: 99 };
        let hist = of_cells(&account, 1, &[(99, 5), (7, 1)]);
        assert_eq!(hist.count(), 8);
        assert!(hist.counts.contains(&(99, 7)));
    }
}
