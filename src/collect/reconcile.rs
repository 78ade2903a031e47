//! A second look at which threads there are, through procfs: an iterator that shows nothing, or not all, must be noticed.

use std::fs;

use super::mappings::{ns_per_clock_tick, start_ticks};

/// Threads that began so shortly before the list was made may have missed it.
const FORGIVEN_NS: u64 = 100_000_000;

/// Threads that procfs has, that `tids` lacks and that began well before `at_ns` (CLOCK_BOOTTIME ns).
pub fn hidden_threads(mut tids: Vec<u32>, at_ns: u64) -> Vec<u32> {
    tids.sort_unstable();
    let missing = all_threads().into_iter().filter(|tid| tids.binary_search(tid).is_err());
    missing.filter(|&tid| began(tid).is_some_and(|began| began.saturating_add(FORGIVEN_NS) < at_ns)).collect()
}

/// Ids of all threads that procfs shows, in no order.
pub fn all_threads() -> Vec<u32> {
    numbers_in("/proc").into_iter().flat_map(|pid| numbers_in(&format!("/proc/{pid}/task"))).collect()
}

/// Entries of a directory whose names are numbers, in no order.
pub fn numbers_in(dir: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// When a thread began, if it still lives.
fn began(tid: u32) -> Option<u64> {
    start_ticks(&fs::read(format!("/proc/{tid}/stat")).ok()?)?.checked_mul(ns_per_clock_tick())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_this_process_are_there() {
        let own = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert!(all_threads().contains(&own));
        assert!(hidden_threads(all_threads(), 0).is_empty(), "nothing began before the machine");
        assert!(hidden_threads(Vec::new(), u64::MAX).len() > 1);
    }
}
