//! Where each kind of knowledge comes from on this machine, and why it does not come from where it would be better.
//!
//! A [`Signal`] lists the sources it can come from, the best first. At most one is in use. `collect` finds out by loading and
//! opening for real; the table of `sberf doctor`, the help of `top` and the columns that are dimmed all read the same verdicts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of knowledge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SignalKind {
    /// Time of every thread by state.
    #[default]
    StateTime,
    /// Which threads there are.
    Threads,
    /// Waits for a CPU.
    RunqLatency,
    /// Samples of what runs.
    Samples,
    /// User part of stacks.
    UserStacks,
    /// Stacks of threads that block.
    BlockedStacks,
    /// Requests to disks and how long they take.
    DiskLatency,
    /// Threads that NUMA balancing moves.
    NumaMoves,
    /// Forks, execs and exits.
    LifeEvents,
    /// Where code is mapped in a process.
    Mappings,
    /// Names of functions of the kernel.
    KernelNames,
    /// Names of functions of programs.
    UserNames,
    /// Command line, program, cgroup, memory of processes.
    ProcessFacts,
    /// What BPF programs cost.
    BpfStatistics,
}

impl SignalKind {
    /// Every kind, in the order in which they are listed.
    pub const ALL: [SignalKind; 14] = [
        SignalKind::StateTime,
        SignalKind::Threads,
        SignalKind::RunqLatency,
        SignalKind::Samples,
        SignalKind::UserStacks,
        SignalKind::BlockedStacks,
        SignalKind::DiskLatency,
        SignalKind::NumaMoves,
        SignalKind::LifeEvents,
        SignalKind::Mappings,
        SignalKind::KernelNames,
        SignalKind::UserNames,
        SignalKind::ProcessFacts,
        SignalKind::BpfStatistics,
    ];

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            SignalKind::StateTime => "time by state",
            SignalKind::Threads => "list of threads",
            SignalKind::RunqLatency => "run-queue latency",
            SignalKind::Samples => "on-CPU samples",
            SignalKind::UserStacks => "user stacks",
            SignalKind::BlockedStacks => "blocked stacks",
            SignalKind::DiskLatency => "disk latency",
            SignalKind::NumaMoves => "NUMA moves",
            SignalKind::LifeEvents => "process events",
            SignalKind::Mappings => "code mappings",
            SignalKind::KernelNames => "kernel names",
            SignalKind::UserNames => "program names",
            SignalKind::ProcessFacts => "process facts",
            SignalKind::BpfStatistics => "cost of BPF",
        }
    }

    /// For machines.
    pub const fn key(self) -> &'static str {
        match self {
            SignalKind::StateTime => "state_time",
            SignalKind::Threads => "threads",
            SignalKind::RunqLatency => "runq_latency",
            SignalKind::Samples => "samples",
            SignalKind::UserStacks => "user_stacks",
            SignalKind::BlockedStacks => "blocked_stacks",
            SignalKind::DiskLatency => "disk_latency",
            SignalKind::NumaMoves => "numa_moves",
            SignalKind::LifeEvents => "life_events",
            SignalKind::Mappings => "mappings",
            SignalKind::KernelNames => "kernel_names",
            SignalKind::UserNames => "user_names",
            SignalKind::ProcessFacts => "process_facts",
            SignalKind::BpfStatistics => "bpf_statistics",
        }
    }

    /// Whether `top` is less than whole without it. What our own programs cost is good to know and not needed.
    pub const fn counts(self) -> bool {
        !matches!(self, SignalKind::BpfStatistics)
    }
}

/// One kind of knowledge on one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signal {
    /// Which.
    pub kind: SignalKind,
    /// Where it can come from, best first.
    pub sources: Vec<Origin>,
    /// Why there is nothing to know here: then no source is in use, and nothing is amiss.
    pub nothing: Option<String>,
}

/// How well a signal is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// All there is to know.
    Full,
    /// There is nothing to know on this machine.
    Nothing,
    /// Less than there is to know.
    Reduced,
    /// Nothing of what there is to know.
    Missing,
}

impl Grade {
    /// The word in tables and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Grade::Full => "full",
            Grade::Nothing => "nothing",
            Grade::Reduced => "reduced",
            Grade::Missing => "missing",
        }
    }
}

impl Signal {
    /// The source in use.
    pub fn in_use(&self) -> Option<&Origin> {
        self.sources.iter().find(|source| matches!(source.standing, Standing::InUse { .. }))
    }

    /// How well it is known.
    pub fn grade(&self) -> Grade {
        match self.in_use() {
            Some(Origin { whole: true, standing: Standing::InUse { less: None }, .. }) => Grade::Full,
            Some(_) => Grade::Reduced,
            None if self.nothing.is_some() => Grade::Nothing,
            None => Grade::Missing,
        }
    }

    /// What keeps it from being known better: why the first source is not in use, or what it lacks.
    pub fn lack(&self) -> Option<&Refusal> {
        match &self.sources.first()?.standing {
            Standing::Refused(refusal) => Some(refusal),
            Standing::InUse { less } => less.as_ref(),
            Standing::Spare => None,
        }
    }
}

/// Where a signal can come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// For people: `sched_switch (BPF)`.
    pub name: String,
    /// All there is to know comes from it.
    pub whole: bool,
    /// Whether it is used.
    pub standing: Standing,
}

/// Whether a source is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Standing {
    /// It works, and nothing better does.
    InUse {
        /// What of it is missing all the same.
        less: Option<Refusal>,
    },
    /// Not tried, or not needed: a better one works.
    #[default]
    Spare,
    /// It does not work.
    Refused(Refusal),
}

/// Why something does not work, and what would mend it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// What was tried, and what went wrong.
    pub why: String,
    /// What the kernel answered, if it was asked.
    pub errno: Option<i32>,
    /// A command, a setting, a package; empty if nothing mends it here.
    pub remedy: String,
}

impl Refusal {
    /// For this reason, which the kernel gave no number for; `remedy` may be empty.
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal { why: why.into(), errno: None, remedy: remedy.into() }
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Refusal::new(why, "")
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Refusal::new(why, "")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.why)?;
        match self.remedy.as_str() {
            "" => Ok(()),
            remedy => write!(out, "; {remedy}"),
        }
    }
}

/// The signal of that kind; `None` where nobody said (older captures).
pub fn signal(signals: &[Signal], kind: SignalKind) -> Option<&Signal> {
    signals.iter().find(|signal| signal.kind == kind)
}

/// Whether nothing is known of that kind here; false where nobody said.
pub fn is_missing(signals: &[Signal], kind: SignalKind) -> bool {
    signal(signals, kind).is_some_and(|signal| signal.grade() == Grade::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(whole: bool, standing: Standing) -> Origin {
        Origin { name: "x".into(), whole, standing }
    }

    #[test]
    fn grades_follow_from_what_is_in_use() {
        let refused = || Standing::Refused(Refusal::new("no", "do"));
        let used = || Standing::InUse { less: None };
        let grade = |sources: Vec<Origin>| Signal { sources, ..Signal::default() }.grade();
        assert_eq!(grade(vec![origin(true, used()), origin(false, Standing::Spare)]), Grade::Full);
        assert_eq!(grade(vec![origin(true, refused()), origin(true, used())]), Grade::Full, "as good");
        assert_eq!(grade(vec![origin(true, refused()), origin(false, used())]), Grade::Reduced);
        let less = Standing::InUse { less: Some(Refusal::new("some", "")) };
        assert_eq!(grade(vec![origin(true, less)]), Grade::Reduced);
        assert_eq!(grade(vec![origin(true, refused())]), Grade::Missing);
        assert_eq!(grade(vec![]), Grade::Missing);
        let nothing = Signal { nothing: Some("one node".into()), ..Signal::default() };
        assert_eq!(nothing.grade(), Grade::Nothing);
    }

    #[test]
    fn every_kind_has_its_own_words() {
        let keys: std::collections::BTreeSet<_> = SignalKind::ALL.iter().map(|kind| kind.key()).collect();
        let titles: std::collections::BTreeSet<_> = SignalKind::ALL.iter().map(|kind| kind.title()).collect();
        assert_eq!((keys.len(), titles.len()), (SignalKind::ALL.len(), SignalKind::ALL.len()));
    }
}
