//! How sberf watches itself: what it did to stay within its budget, and whether what it counts is what procfs counts.

use serde::{Deserialize, Serialize};

/// Both, of one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// `None` without a budget.
    pub governor: Option<Governor>,
    /// Comparisons with procfs, over the last few intervals; none where there is nothing to compare with.
    pub checks: Vec<Check>,
}

impl Watch {
    /// Comparisons that make something less believable.
    pub fn alarms(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.verdict.is_alarm())
    }
}

/// The budget, what was spent of it, and what was given up for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Governor {
    /// CPU time that observing may take, in millionths of the machine's.
    pub budget_ppm: u32,
    /// What it took in the interval, without what has a budget of its own and a low priority (tables, symbols).
    pub cost_ppm: u32,
    /// What can be adjusted, as it was in the interval.
    pub levers: Vec<Lever>,
    /// What was changed at its end.
    pub changes: Vec<Change>,
    /// It costs more than the budget, and nothing is left that would bring it down.
    pub exhausted: bool,
}

impl Governor {
    /// Something is less than was asked for.
    pub fn is_governing(&self) -> bool {
        self.levers.iter().any(|lever| lever.now < lever.asked)
    }

    /// How a lever stood.
    pub fn lever(&self, what: LeverKind) -> Option<&Lever> {
        self.levers.iter().find(|lever| lever.what == what)
    }
}

/// What can be adjusted. Totals cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeverKind {
    /// Blocked stacks that may be walked per second and CPU; 0: none.
    #[default]
    Walks,
    /// Samples per second and CPU; 0: the lens is off. Each counts for as many as were asked for.
    Rate,
}

impl LeverKind {
    /// The word on the screen and in exports.
    pub const fn name(self) -> &'static str {
        match self {
            LeverKind::Walks => "blocked_stacks_per_s",
            LeverKind::Rate => "samples_per_s",
        }
    }
}

/// One of those.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lever {
    /// Which.
    pub what: LeverKind,
    /// As it was.
    pub now: u32,
    /// As it should be.
    pub asked: u32,
}

/// A step of one of those.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Which.
    pub what: LeverKind,
    /// Before.
    pub from: u32,
    /// From now on.
    pub to: u32,
}

/// One comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Of what.
    pub what: Counter,
    /// What we counted.
    pub ours: u64,
    /// What procfs counted in the same time, at the least.
    pub theirs: u64,
    /// What we know to be hidden from us, at the most.
    pub hidden: u64,
    /// What comes of it.
    pub verdict: Verdict,
}

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Counter {
    /// Context switches, with `ctxt` of `/proc/stat`.
    #[default]
    Switches,
    /// ns of all threads on CPUs, with the `cpu` lines of `/proc/stat`.
    CpuTime,
    /// Reads and writes that completed, with `/proc/diskstats`.
    DiskRequests,
    /// Bytes of those.
    DiskBytes,
    /// Threads and processes that were made, with `processes` of `/proc/stat`.
    Forks,
    /// Samples, with what the time on CPUs is worth at the rate of the interval: the least of our own account of that time and of the
    /// `cpu` lines of `/proc/stat`.
    Samples,
}

impl Counter {
    /// Every one.
    pub const ALL: [Counter; 6] = [
        Counter::Switches,
        Counter::CpuTime,
        Counter::DiskRequests,
        Counter::DiskBytes,
        Counter::Forks,
        Counter::Samples,
    ];

    /// The words on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::Switches => "context switches",
            Counter::CpuTime => "CPU time",
            Counter::DiskRequests => "disk requests",
            Counter::DiskBytes => "disk bytes",
            Counter::Forks => "forks",
            Counter::Samples => "samples",
        }
    }

    /// The lens that counts it, as [`LensStatus::name`](super::LensStatus::name).
    pub const fn lens(self) -> &'static str {
        match self {
            Counter::Switches | Counter::CpuTime => "sched",
            Counter::DiskRequests | Counter::DiskBytes => "block",
            Counter::Forks => "life",
            Counter::Samples => "oncpu",
        }
    }
}

/// What comes of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Too little happened to tell.
    #[default]
    TooFew,
    /// Within the tolerance.
    Agrees,
    /// We count something else than procfs does.
    Disagrees,
    /// We count nothing, and there was something.
    Silent,
}

impl Verdict {
    /// What we count is not to be believed.
    pub const fn is_alarm(self) -> bool {
        matches!(self, Verdict::Disagrees | Verdict::Silent)
    }
}
