//! How much CPU time making tables may take.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One part of this many of all time is given.
const PART: u32 = 60;

/// CPU time of one thread: some at once, then a small share of all time.
pub struct Budget {
    most_ns: i64,
    left_ns: i64,
    given: Instant,
    spent_ns: u64,
}

impl Budget {
    /// A full one, of this thread.
    pub fn new(at_once: Duration, now: Instant) -> Self {
        let most_ns = at_once.as_nanos() as i64;
        Budget { most_ns, left_ns: most_ns, given: now, spent_ns: thread_ns() }
    }

    /// Takes in what was spent and given since the last call.
    pub fn settle(&mut self, now: Instant) {
        let spent = thread_ns();
        self.count(spent.saturating_sub(self.spent_ns), now);
        self.spent_ns = spent;
    }

    fn count(&mut self, spent_ns: u64, now: Instant) {
        let given = now.saturating_duration_since(self.given) / PART;
        self.given = now;
        let left = self.left_ns.saturating_add(given.as_nanos() as i64).saturating_sub(spent_ns as i64);
        self.left_ns = left.min(self.most_ns);
    }

    /// Whether there is something left.
    pub fn allows(&self) -> bool {
        self.left_ns > 0
    }

    /// Whether more than half is left.
    pub fn is_ample(&self) -> bool {
        self.left_ns > self.most_ns / 2
    }

    /// How long until there is.
    pub fn rest(&self) -> Duration {
        Duration::from_nanos(self.left_ns.min(0).unsigned_abs()) * PART + Duration::from_millis(100)
    }
}

fn thread_ns() -> u64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overdrawn_is_given_back_slowly() {
        let start = Instant::now();
        let mut budget = Budget::new(Duration::from_secs(1), start);
        budget.count(900_000_000, start);
        assert!(budget.allows());
        budget.count(200_000_000, start);
        assert!(!budget.allows());
        budget.count(0, start + Duration::from_secs(5));
        assert!(!budget.allows());
        let later = start + Duration::from_secs(5) + budget.rest();
        budget.count(0, later);
        assert!(budget.allows());
        budget.count(0, later + Duration::from_secs(3600));
        assert_eq!(budget.left_ns, 1_000_000_000);
    }
}
