//! How much CPU time making tables may take.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What may be spent at once: the files of all that runs, at the start.
const MOST: Duration = Duration::from_secs(2);
/// One part of this many of all time is given.
const PART: u32 = 30;
/// What was missed by a stack may overdraw it by so much.
const OVERDRAFT: Duration = Duration::from_secs(2);

/// CPU time of one thread. What stacks have missed may be made on credit, the rest only while there is something left.
pub struct Budget {
    left_ns: i64,
    given: Instant,
    spent_ns: u64,
}

impl Budget {
    /// A full one, of this thread.
    pub fn new(now: Instant) -> Self {
        Budget { left_ns: MOST.as_nanos() as i64, given: now, spent_ns: thread_ns() }
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
        self.left_ns = left.min(MOST.as_nanos() as i64);
    }

    /// Whether what nobody waits for may be done.
    pub fn allows_more(&self) -> bool {
        self.left_ns > 0
    }

    /// Whether what a stack has missed may be done.
    pub fn allows_needed(&self) -> bool {
        self.left_ns > -(OVERDRAFT.as_nanos() as i64)
    }

    /// How long until there is something left.
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
    fn what_is_needed_may_overdraw() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(budget.allows_more() && budget.allows_needed());
        budget.count(3_000_000_000, start);
        assert!(!budget.allows_more() && budget.allows_needed());
        budget.count(1_500_000_000, start);
        assert!(!budget.allows_needed());
        let later = start + budget.rest();
        budget.count(0, later);
        assert!(budget.allows_more());
        budget.count(0, later + Duration::from_secs(3600));
        assert_eq!(budget.left_ns, MOST.as_nanos() as i64);
    }
}
