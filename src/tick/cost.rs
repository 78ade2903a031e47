//! What observing cost, by who caused it: programs in the kernel, threads of ours, memory.

use serde::{Deserialize, Serialize};

/// What observing cost in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// CPU time of this process, all its threads.
    pub user_space_ns: u64,
    /// Resident memory of this process.
    pub rss_bytes: u64,
    /// Memory of the maps, as the kernel states it.
    pub map_bytes: u64,
    /// Memory of symbols and debug information that are kept, part of `rss_bytes`.
    pub symbol_bytes: u64,
    /// BPF programs that ran; empty where nothing is known of their time.
    pub programs: Vec<ProgramCost>,
    /// From the end of the interval until the tick was ready.
    pub late_ns: u64,
    /// How the time of `programs` was found.
    pub clockwork: Clockwork,
    /// CPU time of our threads by what they do, most first; what threads used that ended is in none of them.
    pub threads: Vec<ThreadCost>,
    /// What each part of the kernel side did, in a fixed order; those that are off are left out.
    pub collectors: Vec<Collector>,
    /// BPF programs of others that ran, most time first; `None` where or while the kernel does not count.
    pub others: Option<Vec<OtherProgram>>,
}

/// How the time in our BPF programs was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clockwork {
    /// It was not.
    #[default]
    None,
    /// The kernel's statistics (`kernel.bpf_stats_enabled`), which were on throughout the interval: exact, and some 35 ns
    /// of each run are theirs.
    Kernel,
    /// The programs read the clock themselves: switches and wakeups one of 64, all others each time.
    Own,
}

/// What one BPF program cost in the interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// Its name.
    pub name: String,
    /// Runs.
    pub runs: u64,
    /// Time in it.
    pub ns: u64,
}

/// A program of this name we have run ourselves: its time is CPU time of this process already.
pub fn is_run_by_us(program: &str) -> bool {
    matches!(program, "tasks" | "some_tasks" | "nothing" | "mappings" | "name_code")
}

/// What our threads of one kind used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadCost {
    /// What they do.
    pub role: String,
    /// CPU time.
    pub ns: u64,
}

/// What one part of the kernel side did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Collector {
    /// As [`LensStatus::name`](super::LensStatus::name): `sched`, `stacks`, `oncpu`, `life`, `block`, `numa`, `tasks`.
    pub name: String,
    /// Runs of its programs; stacks walked for `stacks`, which are part of the runs of `sched`; threads for `tasks`.
    pub events: u64,
    /// Time in them, without what another collector is charged with; `None` if not known.
    pub ns: Option<u64>,
    /// Memory of its maps, as the kernel states it.
    pub map_bytes: u64,
    /// That time is part of [`Cost::user_space_ns`].
    pub in_user_space: bool,
}

/// A BPF program that is not ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtherProgram {
    /// The kernel's id of it.
    pub id: u32,
    /// Its name, of 15 bytes at most; may hold control characters.
    pub name: String,
    /// Runs.
    pub runs: u64,
    /// Time in it.
    pub ns: u64,
}

impl Cost {
    /// Time in BPF programs, without what is part of `user_space_ns` already; `None` if not known.
    pub fn bpf_ns(&self) -> Option<u64> {
        let theirs = self.programs.iter().filter(|program| !is_run_by_us(&program.name));
        let sum = theirs.fold(0u64, |sum, program| sum.saturating_add(program.ns));
        (!self.programs.is_empty()).then_some(sum)
    }

    /// CPU time of all of it, as far as it is known.
    pub fn total_ns(&self) -> u64 {
        self.user_space_ns.saturating_add(self.bpf_ns().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_run_ourselves_counts_once() {
        let program = |name: &str, ns| ProgramCost { name: name.into(), runs: 1, ns };
        let mut cost = Cost { user_space_ns: 1000, ..Cost::default() };
        assert_eq!((cost.bpf_ns(), cost.total_ns()), (None, 1000));
        cost.programs =
            vec![program("sched_switch", 30), program("tasks", 500), program("name_code", 70), program("sample", 4)];
        assert_eq!((cost.bpf_ns(), cost.total_ns()), (Some(34), 1034));
    }
}
