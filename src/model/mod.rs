//! What we know of the machine, in memory: entities, histograms and stack trees by window.
//!
//! No file, no clock, no terminal: time comes with each [`Tick`].
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::tick::{
    Cost, CpuTick, DiskOp, DiskTick, Event, Frame, FrameId, FrameKind, Hist, Host, Loss, Module, ModuleId, Names,
    NodeTick, ProcessFacts, ProcessKey, Session, SlowRequest, Span, Stack, StackId, State, StateNs, Symbol, ThreadKey,
    Tick,
};

/// How much of the past a view covers, up to the tick it stands at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Window {
    /// The newest tick only.
    #[default]
    Tick,
    /// The ticks of that many last seconds.
    Last(Duration),
    /// Since the start (or since what memory still holds, which `Model::evicted` tells).
    All,
}

/// Sums over a window, of a thread, a process or the machine.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Time by state; sums to the wall time of the threads in it.
    pub ns: StateNs,
    pub voluntary: u64,
    pub involuntary: u64,
    pub wakeups: u64,
    pub migrations: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub runq: Hist,
    pub off_cpu: Hist,
    pub slice: Hist,
    /// On-CPU ns by node; empty on one node.
    pub node_ns: Vec<u64>,
}

/// Block I/O of a process over a window, by [`DiskOp`] in its order.
#[derive(Clone, Debug, Default)]
pub struct IoTotals {
    pub requests: [u64; 4],
    pub bytes: [u64; 4],
    /// All operations together.
    pub latency: Hist,
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    pub key: ProcessKey,
    pub facts: ProcessFacts,
    /// Live threads at the end of the newest tick.
    pub threads: u32,
    /// The newest tick in which it lived.
    pub tick: Totals,
    pub tick_io: IoTotals,
    /// Since we first saw it.
    pub all: Totals,
    pub all_io: IoTotals,
    /// On-CPU samples in the newest tick, and how many of them had a complete user stack (or need none).
    pub samples: u64,
    pub samples_complete: u64,
    /// Samples since we first saw it, and the complete ones.
    pub all_samples: u64,
    pub all_samples_complete: u64,
    /// When it exited (CLOCK_MONOTONIC) and with which wait status, once it has.
    pub exited: Option<(u64, u32)>,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Thread {
    pub key: ThreadKey,
    pub process: ProcessKey,
    pub comm: String,
    pub now: Option<State>,
    pub since_ns: u64,
    pub cpu: u32,
    pub syscall: Option<u32>,
    pub tick: Totals,
    pub all: Totals,
    /// CLOCK_MONOTONIC, once it has.
    pub exited_ns: Option<u64>,
}

/// Which stacks a tree is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TreeLens {
    /// On-CPU samples.
    #[default]
    OnCpu,
    /// Blocked time by stack, ns; a frame per reason at the root.
    Blocked,
    /// All of it as time: samples scaled so that they sum to the exact on-CPU time, blocked time, and one node for
    /// time spent runnable. Ns.
    All,
}

/// How frames become nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Merge {
    /// Frames of one function are one node.
    #[default]
    Function,
    /// Frames of one module are one node.
    Module,
    /// Each address its own.
    Address,
}

/// What tree is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TreeQuery {
    /// One process, or all (then a node per process at the root).
    pub process: Option<ProcessKey>,
    pub lens: TreeLens,
    pub window: Window,
    pub merge: Merge,
    /// Leaf first.
    pub inverted: bool,
    /// Leave out waits that are idle (timer, poll, and what a kernel thread waits for).
    pub hide_idle: bool,
}

/// A node of a [`CallTree`].
#[derive(Clone, Debug)]
pub struct TreeNode {
    /// What it is called, without control characters. `module+0xoffset` where the function is not known.
    pub name: Arc<str>,
    /// Short name of its module; empty for the root and for notes.
    pub module: Arc<str>,
    pub kind: FrameKind,
    /// In the blocked and all lenses: which state. `None` for samples.
    pub state: Option<State>,
    /// Index of its parent; the root is its own.
    pub parent: u32,
    pub depth: u16,
    /// Weight that ended here.
    pub self_weight: u64,
    /// Weight that passed through or ended here.
    pub total_weight: u64,
    /// Samples or waits that passed through.
    pub count: u64,
    /// Indices of its children, in order of first sight: the picture holds still between ticks.
    pub children: Vec<u32>,
    /// Stable across ticks: the same place in the same query always has the same id.
    pub id: u64,
}

/// Stacks of one query, merged. `nodes[0]` is everything observed; parents precede children.
#[derive(Clone, Debug, Default)]
pub struct CallTree {
    pub nodes: Vec<TreeNode>,
    /// Weight whose stack is complete, and all weight: quality of the view.
    pub complete_weight: u64,
    /// Length of the interval it covers, ns.
    pub span_ns: u64,
}

/// A latency that has a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Latency {
    RunQueue,
    OffCpu,
    Slice,
    /// Queued and on the device, of requests that a process asked for.
    Disk,
    /// Of one disk and operation (`None`: all operations), in the queue.
    DiskQueued(u32, Option<DiskOp>),
    /// Of one disk and operation, on the device.
    DiskDevice(u32, Option<DiskOp>),
}

/// Whose latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Machine,
    Process(ProcessKey),
    Thread(ThreadKey),
    Cpu(u32),
}

/// One column of a history: what one tick (or several, for long windows) says.
#[derive(Clone, Debug, Default)]
pub struct HistoryTick {
    pub span: Span,
    /// State times of the whole machine.
    pub ns: StateNs,
    pub runq: Hist,
    pub cpus: Vec<CpuTick>,
    pub disks: Vec<DiskTick>,
    pub losses: u64,
}

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the ring of past ticks.
    pub history_bytes: usize,
    /// How long the dead stay listed.
    pub keep_exited: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { history_bytes: 32 << 20, keep_exited: Duration::from_secs(10) }
    }
}

/// Everything known.
pub struct Model {
    session: Session,
    limits: Limits,
}

/// The names known so far, by id.
#[derive(Default)]
pub struct NameTable {
    pub users: FxHashMap<u32, String>,
    pub modules: FxHashMap<ModuleId, Module>,
    pub frames: FxHashMap<FrameId, Frame>,
    pub symbols: FxHashMap<FrameId, Symbol>,
    pub stacks: FxHashMap<StackId, Stack>,
}

#[expect(unused_variables, missing_docs, reason = "signatures agreed on first; bodies follow")]
impl Model {
    pub fn new(session: Session, limits: Limits) -> Self {
        Model { session, limits }
    }
    /// Takes in a tick.
    pub fn apply(&mut self, tick: Tick) {
        todo!()
    }
    /// Takes in names that came between ticks.
    pub fn learn(&mut self, names: Names) {
        todo!()
    }

    pub fn session(&self) -> &Session {
        &self.session
    }
    /// Span of the newest tick; `None` before the first.
    pub fn span(&self) -> Option<Span> {
        todo!()
    }
    /// Ticks applied so far: changes whenever a cached view must be made again.
    pub fn ticks(&self) -> u64 {
        todo!()
    }
    /// Changes whenever names change.
    pub fn names_version(&self) -> u64 {
        todo!()
    }
    pub fn names(&self) -> &NameTable {
        todo!()
    }
    /// Live processes and those that exited within `Limits::keep_exited`, in no order.
    pub fn processes(&self) -> Box<dyn Iterator<Item = &Process> + '_> {
        todo!()
    }
    pub fn process(&self, key: ProcessKey) -> Option<&Process> {
        todo!()
    }
    /// Threads of a process, by tid.
    pub fn threads(&self, process: ProcessKey) -> Vec<&Thread> {
        todo!()
    }
    pub fn thread(&self, key: ThreadKey) -> Option<&Thread> {
        todo!()
    }
    pub fn user(&self, uid: u32) -> Option<&str> {
        todo!()
    }
    /// Newest per CPU, node, disk.
    pub fn cpus(&self) -> &[CpuTick] {
        todo!()
    }
    pub fn nodes(&self) -> &[NodeTick] {
        todo!()
    }
    pub fn disks(&self) -> &[DiskTick] {
        todo!()
    }
    pub fn host(&self) -> &Host {
        todo!()
    }
    pub fn cost(&self) -> &Cost {
        todo!()
    }
    /// Sums of the whole machine in the newest tick.
    pub fn machine(&self) -> &Totals {
        todo!()
    }
    /// Losses since the start by cause, zero counts left out.
    pub fn losses(&self) -> &[(Loss, u64)] {
        todo!()
    }
    /// Slowest block requests still remembered, slowest first.
    pub fn slow_requests(&self) -> &[SlowRequest] {
        todo!()
    }
    /// Newest events last.
    pub fn events(&self) -> &VecDeque<Event> {
        todo!()
    }
    /// Past ticks of the machine, newest last.
    pub fn history(&self) -> &VecDeque<HistoryTick> {
        todo!()
    }
    /// Totals of a process over a window.
    pub fn totals(&self, process: ProcessKey, window: Window) -> Totals {
        todo!()
    }
    /// The tree of a query.
    pub fn tree(&self, query: &TreeQuery) -> CallTree {
        todo!()
    }
    /// A latency, merged over a window; values in ns.
    pub fn latency(&self, what: Latency, of: Scope, window: Window) -> hdrhistogram::Histogram<u64> {
        todo!()
    }
}
