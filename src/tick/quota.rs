//! What CPU quotas did.

use serde::{Deserialize, Serialize};

/// The CPU quota of one cgroup in one interval: `cpu.max` and `cpu.stat` of cgroup v2, `cpu.cfs_*` and `cpu.stat` of v1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quota {
    /// Path as in [`ProcessFacts::cgroup`](super::ProcessFacts::cgroup); the quota holds for all below it as well.
    pub cgroup: String,
    /// CPU time it may use in each period, ns, of all CPUs together.
    pub quota_ns: u64,
    /// Length of a period, ns.
    pub period_ns: u64,
    /// Periods that ended in the interval and in which a thread of it wanted to run.
    pub periods: u64,
    /// Those of them in which the quota was used up: its threads had to wait for the next.
    pub throttled: u64,
    /// Time for which it was throttled, summed over the CPUs, so that it may exceed the interval.
    pub throttled_ns: u64,
}

impl Quota {
    /// Whether it holds for a cgroup of that path.
    pub fn holds(&self, cgroup: &str) -> bool {
        let rest = cgroup.strip_prefix(self.cgroup.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Share of the periods in which it was used up; `None` if there was none.
    pub fn share(&self) -> Option<f64> {
        (self.periods > 0).then(|| self.throttled as f64 / self.periods as f64)
    }
}
