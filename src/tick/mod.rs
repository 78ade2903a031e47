//! What everything above `collect` knows of the machine: one [`Tick`] per interval.
//!
//! Plain data: no handles, no addresses that only this process understands. A live kernel, a capture file and the
//! invented source of the tests all yield the same types, so whatever stands above is driven by any of them.
//!
//! Kernel times are CLOCK_MONOTONIC nanoseconds; start times of tasks (parts of their identity) are CLOCK_BOOTTIME,
//! as in field 22 of `/proc/PID/stat`. Absent is `None`, never zero.
//!
//! Captures are read by the description of their types that they carry, so they outlive versions as long as fields and
//! variants are only added, and structs say `serde(default)`: that is what a field has in captures older than itself.
#![forbid(unsafe_code)]

mod asleep;
mod cost;
mod disk;
mod hist;
mod loss;
mod names;
mod quota;
mod signals;
mod state;
mod stuck;
mod watch;

pub use asleep::Asleep;
pub use cost::{Clockwork, Collector, Cost, OtherProgram, ProgramCost, ThreadCost, is_run_by_us};
pub use disk::{DiskOp, DiskOpTick, DiskTick, ProcessIo, SlowRequest};
pub use hist::{BUCKETS, Hist, bucket_high, bucket_low, bucket_mid, bucket_of};
pub use loss::Loss;
pub use names::{
    Detail, FoundBy, Frame, FrameId, FrameKind, Inlined, Line, Module, ModuleId, ModuleKind, Names, Stack, StackEnd,
    StackId, Symbol, Walk,
};
pub use quota::Quota;
pub use signals::{Grade, Origin, Refusal, Signal, SignalKind, Standing, is_missing, signal};
pub use state::{State, StateNs};
pub use stuck::Stuck;
pub use watch::{Change, Check, Counter, Governor, Lever, LeverKind, Verdict, Watch};

use serde::{Deserialize, Serialize};

/// What a source yields, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Batch {
    /// Everything that happened in one interval.
    Tick(Box<Tick>),
    /// Names that were found between ticks (symbols arrive from a worker when it has them).
    Names(Box<Names>),
}

/// What does not change while a source runs: the machine and how it is observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Version of the sberf that recorded.
    pub version: String,
    /// Command line of that sberf.
    pub command: String,
    /// `uname -n`.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// Ids of the CPUs that were online at the start.
    pub cpus: Vec<u32>,
    /// NUMA nodes with the CPUs on each; one node on most machines.
    pub nodes: Vec<(u32, Vec<u32>)>,
    /// How on-CPU samples are taken.
    pub sampler: Sampler,
    /// Intended length of a tick.
    pub interval_ns: u64,
    /// Unix time when the source started.
    pub started_wall_ns: u64,
    /// CLOCK_BOOTTIME minus CLOCK_MONOTONIC at the start: turns start times of tasks into ages.
    pub boot_offset_ns: u64,
    /// Bytes of one page of memory.
    pub page_bytes: u64,
    /// Most memory that symbols and debug information take; 0: not known.
    pub symbol_limit_bytes: u64,
    /// Each lens, and why it is off if it is.
    pub lenses: Vec<LensStatus>,
    /// What ticks are made from.
    pub basis: Basis,
    /// Where each kind of knowledge comes from; empty in captures that are older than this field.
    pub signals: Vec<Signal>,
}

/// What ticks are made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// BPF programs, beside procfs.
    #[default]
    Bpf,
    /// procfs alone: nothing of BPF could be loaded.
    Procfs,
}

/// Where on-CPU samples come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Sampler {
    /// Nothing is sampled; the text says why.
    #[default]
    Off,
    /// Hardware cycle counter, samples per second and CPU.
    Cycles(u32),
    /// The kernel's cpu-clock timer (no PMU), samples per second and CPU.
    CpuClock(u32),
}

/// One lens (a group of BPF programs) and whether it works here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LensStatus {
    /// `oncpu`, `sched`, `stacks`, `block`, `numa`, `life`, `tasks`, `kernel symbols`.
    pub name: String,
    /// `None`: on. Otherwise why not, and what would mend it.
    pub off: Option<String>,
}

/// Identity of a process: ids are re-used, so the start time belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessKey {
    /// Thread group id; what the screen calls PID.
    pub tgid: u32,
    /// Start of the group's leader, CLOCK_BOOTTIME ns.
    pub start_ns: u64,
}

/// Identity of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadKey {
    /// Thread id; what the screen calls TID.
    pub tid: u32,
    /// CLOCK_BOOTTIME ns.
    pub start_ns: u64,
}

/// The interval that a tick covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Span {
    /// CLOCK_MONOTONIC ns.
    pub start_ns: u64,
    /// CLOCK_MONOTONIC ns; not part of the interval.
    pub end_ns: u64,
    /// Unix time at `start_ns`.
    pub wall_ns: u64,
}

impl Span {
    /// Length in ns.
    pub fn len_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// All that happened on the machine in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tick {
    /// When.
    pub span: Span,
    /// Gauges of the whole machine.
    pub host: Host,
    /// Every thread that lived in the interval, asleep or not, in no order; but for those in `asleep`.
    pub threads: Vec<ThreadTick>,
    /// Threads that did nothing but go on sleeping, in few words, where whoever takes the tick asked for that. Nothing of
    /// a tick that leaves the program is here: see [`Tick::unfold`].
    #[serde(skip)]
    pub asleep: Vec<Asleep>,
    /// Processes seen for the first time, or whose facts changed.
    pub processes: Vec<ProcessFacts>,
    /// Block I/O by process and operation; only who asked for some.
    pub io: Vec<ProcessIo>,
    /// Weights of stacks.
    pub stacks: Vec<StackWeight>,
    /// Every CPU that was online.
    pub cpus: Vec<CpuTick>,
    /// Every NUMA node.
    pub nodes: Vec<NodeTick>,
    /// Every disk that exists or completed a request.
    pub disks: Vec<DiskTick>,
    /// The slowest block requests that completed, slowest first, bounded.
    pub slow_requests: Vec<SlowRequest>,
    /// Forks, execs and exits, oldest first.
    pub events: Vec<Event>,
    /// What could not be handed over, by cause; zero counts are left out.
    pub losses: Vec<(Loss, u64)>,
    /// What observing cost.
    pub cost: Cost,
    /// What was done to stay within the budget, and comparisons with procfs.
    pub watch: Watch,
    /// Names first used in this tick. Learn them before anything else of it.
    pub names: Names,
    /// CPU quotas of cgroups in which something wanted to run, used up most often first.
    pub quotas: Vec<Quota>,
    /// Threads of programs that no signal wakes and that have slept for long, longest first, bounded.
    pub stuck: Vec<Stuck>,
}

/// One thread in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadTick {
    /// Which thread.
    pub key: ThreadKey,
    /// Of which process.
    pub process: ProcessKey,
    /// Its name; raw bytes made valid UTF-8, may hold control characters.
    pub comm: String,
    /// Where its time went. Sums to the part of the interval in which it lived.
    pub ns: StateNs,
    /// State at the end of the interval; `None` if it had exited. Running is [`State::User`] or [`State::Kernel`].
    pub now: Option<State>,
    /// When that state began, CLOCK_MONOTONIC ns.
    pub since_ns: u64,
    /// CPU on which it runs or ran last.
    pub cpu: u32,
    /// System call in which it is blocked now, if it is.
    pub syscall: Option<u32>,
    /// Times it left a CPU because it blocked.
    pub voluntary: u32,
    /// Times it was preempted.
    pub involuntary: u32,
    /// Times it was woken.
    pub wakeups: u32,
    /// Times it went to another CPU.
    pub migrations: u32,
    /// Page faults that needed no I/O.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// Waits for a CPU that ended in the interval.
    pub runq: Hist,
    /// Waits that ended in the interval, from leaving the CPU to block until having one again: blocked, then runnable.
    pub off_cpu: Hist,
    /// Stays on a CPU that ended in the interval.
    pub slice: Hist,
    /// On-CPU ns by node, in the order of [`Session::nodes`]; empty on one node.
    pub node_ns: Vec<u64>,
}

/// What is known of a process beside its threads. Sent whole, whenever any of it changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessFacts {
    /// Which.
    pub key: ProcessKey,
    /// Parent's tgid; 0 for none.
    pub ppid: u32,
    /// Name of the leader; may hold control characters.
    pub comm: String,
    /// Arguments, as they lie in memory but for NULs; `None` until read or when there is none (kernel threads).
    pub cmdline: Option<Vec<String>>,
    /// Real user id.
    pub uid: u32,
    /// Path within the cgroup hierarchy; `None` until read.
    pub cgroup: Option<String>,
    /// A thread of the kernel.
    pub kernel: bool,
    /// Resident memory, bytes.
    pub rss_bytes: Option<u64>,
    /// Virtual memory, bytes.
    pub virtual_bytes: Option<u64>,
    /// Target of `/proc/PID/exe`.
    pub exe: Option<String>,
    /// Pid inside its own pid namespace, where that differs.
    pub inner_pid: Option<u32>,
    /// Resident bytes by node, order of [`Session::nodes`]; only for the process in focus.
    pub node_bytes: Option<Vec<u64>>,
}

/// What the weight of a stack means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lens {
    /// Samples taken on a CPU; weight and count are samples.
    OnCpu,
    /// Time blocked; weight in ns, count of waits that ended.
    Blocked(State),
}

/// How much one stack of one process weighs in the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackWeight {
    /// Whose.
    pub process: ProcessKey,
    /// Of what.
    pub lens: Lens,
    /// Where.
    pub stack: StackId,
    /// Samples or ns, see [`Lens`].
    pub weight: u64,
    /// Samples or waits.
    pub count: u64,
}

/// One CPU in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuTick {
    /// Which.
    pub id: u32,
    /// Its NUMA node.
    pub node: u32,
    /// Time outside the kernel (with nice), from `/proc/stat`.
    pub user_ns: u64,
    /// Time in the kernel, without interrupts.
    pub kernel_ns: u64,
    /// Time in hard interrupts.
    pub irq_ns: u64,
    /// Time in soft interrupts.
    pub softirq_ns: u64,
    /// Time the hypervisor gave to others.
    pub steal_ns: u64,
    /// Time idle, with or without I/O outstanding.
    pub idle_ns: u64,
    /// Context switches.
    pub switches: u64,
    /// Time that threads waited in its run queue before running on it: divided by the interval, its mean length.
    pub runnable_ns: u64,
    /// Waits that ended on it.
    pub runq: Hist,
    /// Samples taken on it.
    pub samples: u64,
    /// Who ran at the end of the interval; `None`: idle or not known.
    pub running: Option<ThreadKey>,
    /// MHz, where the kernel says.
    pub mhz: Option<u32>,
}

/// One NUMA node in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeTick {
    /// Which.
    pub id: u32,
    /// On-CPU time of threads on its CPUs.
    pub on_cpu_ns: u64,
    /// Memory, bytes.
    pub total_bytes: u64,
    /// Memory nobody uses, bytes.
    pub free_bytes: u64,
    /// Threads moved here by NUMA balancing.
    pub moved_in: u64,
    /// Threads moved away by NUMA balancing.
    pub moved_out: u64,
    /// Pages whose allocation was meant for here and was served here (`numastat`).
    pub numa_hit: Option<u64>,
    /// Pages meant for another node and served here.
    pub numa_miss: Option<u64>,
}

/// Something in the life of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// To whom.
    pub process: ProcessKey,
    /// Its name then.
    pub comm: String,
    /// What.
    pub what: Life,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It was made by that process.
    Fork {
        /// Parent's tgid.
        parent: u32,
    },
    /// It became another program.
    Exec,
    /// Its last thread ended.
    Exit {
        /// As `wait(2)` gives it: signal in the low 7 bits, exit status in the next 8.
        status: u32,
    },
}

/// Gauges of the whole machine at the end of an interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// 1, 5 and 15 minutes.
    pub load: [f32; 3],
    /// Memory, bytes.
    pub memory_total: u64,
    /// Memory that could be had without swapping, bytes.
    pub memory_available: u64,
    /// Swap, bytes.
    pub swap_total: u64,
    /// Swap not used, bytes.
    pub swap_free: u64,
    /// Since boot.
    pub uptime_ns: u64,
    /// CLOCK_BOOTTIME minus CLOCK_MONOTONIC: the time that the machine was suspended. 0: as in [`Session::boot_offset_ns`].
    pub boot_offset_ns: u64,
}
