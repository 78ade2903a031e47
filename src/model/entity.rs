//! Processes and threads, and what they add up to.

use serde::{Deserialize, Serialize};

use crate::tick::{DiskOp, Hist, ProcessFacts, ProcessIo, ProcessKey, State, StateNs, ThreadKey, ThreadTick};

/// Sums over a window, of a thread, a process or the machine. All of them saturate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Time by state; sums to the wall time of the threads in it.
    pub ns: StateNs,
    /// Times a thread left a CPU because it blocked.
    pub voluntary: u64,
    /// Times a thread was preempted.
    pub involuntary: u64,
    /// Times a thread was woken.
    pub wakeups: u64,
    /// Times a thread went to another CPU.
    pub migrations: u64,
    /// Page faults that needed no I/O.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// Waits for a CPU, ns.
    pub runq: Hist,
    /// Waits from leaving the CPU to being woken, ns.
    pub off_cpu: Hist,
    /// Stays on a CPU, ns.
    pub slice: Hist,
    /// On-CPU ns by node, in the order of [`crate::tick::Session::nodes`]; empty on one node.
    pub node_ns: Vec<u64>,
}

impl Totals {
    /// Adds another's, field by field.
    pub fn add(&mut self, other: &Totals) {
        self.ns.add(&other.ns);
        for (mine, theirs) in self.counters_mut().into_iter().zip(other.counters()) {
            *mine = mine.saturating_add(theirs);
        }
        self.runq.merge(&other.runq);
        self.off_cpu.merge(&other.off_cpu);
        self.slice.merge(&other.slice);
        add_each(&mut self.node_ns, &other.node_ns);
    }

    /// Adds what one thread did in one tick.
    pub(super) fn add_thread(&mut self, tick: &ThreadTick) {
        self.ns.add(&tick.ns);
        let counters = [
            tick.voluntary.into(),
            tick.involuntary.into(),
            tick.wakeups.into(),
            tick.migrations.into(),
            tick.minor_faults,
            tick.major_faults,
        ];
        for (mine, theirs) in self.counters_mut().into_iter().zip(counters) {
            *mine = mine.saturating_add(theirs);
        }
        self.runq.merge(&tick.runq);
        self.off_cpu.merge(&tick.off_cpu);
        self.slice.merge(&tick.slice);
        add_each(&mut self.node_ns, &tick.node_ns);
    }

    /// The counters, in the order of their declaration.
    pub(super) fn counters(&self) -> [u64; 6] {
        [self.voluntary, self.involuntary, self.wakeups, self.migrations, self.minor_faults, self.major_faults]
    }

    pub(super) fn counters_mut(&mut self) -> [&mut u64; 6] {
        [
            &mut self.voluntary,
            &mut self.involuntary,
            &mut self.wakeups,
            &mut self.migrations,
            &mut self.minor_faults,
            &mut self.major_faults,
        ]
    }

    /// Did anything but sleep.
    pub(super) fn is_active(&self) -> bool {
        self.ns.on_cpu() | self.ns.runnable() != 0
            || self.counters() != [0; 6]
            || !(self.runq.is_empty() && self.off_cpu.is_empty() && self.slice.is_empty())
    }

    /// Back to nothing, keeping the buffers.
    pub(super) fn clear(&mut self) {
        self.ns = StateNs::default();
        self.counters_mut().into_iter().for_each(|counter| *counter = 0);
        clear(&mut self.runq);
        clear(&mut self.off_cpu);
        clear(&mut self.slice);
        self.node_ns.clear();
    }
}

/// Block I/O of a process over a window, by [`crate::tick::DiskOp`] in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoTotals {
    /// Requests that completed.
    pub requests: [u64; 4],
    /// Bytes of those.
    pub bytes: [u64; 4],
    /// Queued and on the device together, all operations, ns.
    pub latency: Hist,
}

impl IoTotals {
    /// Adds another's, field by field.
    pub fn add(&mut self, other: &IoTotals) {
        for op in 0..4 {
            self.requests[op] = self.requests[op].saturating_add(other.requests[op]);
            self.bytes[op] = self.bytes[op].saturating_add(other.bytes[op]);
        }
        self.latency.merge(&other.latency);
    }

    /// Requests of all operations.
    pub fn all_requests(&self) -> u64 {
        self.requests.iter().fold(0, |sum: u64, &requests| sum.saturating_add(requests))
    }

    /// Bytes read and written. What a discard covers is not moved, and a flush has none.
    pub fn moved_bytes(&self) -> u64 {
        self.bytes[DiskOp::Read as usize].saturating_add(self.bytes[DiskOp::Write as usize])
    }

    pub(super) fn add_requests(&mut self, io: &ProcessIo) {
        let op = io.op as usize;
        self.requests[op] = self.requests[op].saturating_add(io.requests);
        self.bytes[op] = self.bytes[op].saturating_add(io.bytes);
        self.latency.merge(&io.latency);
    }

    pub(super) fn is_active(&self) -> bool {
        self.requests != [0; 4] || self.bytes != [0; 4] || !self.latency.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.requests = [0; 4];
        self.bytes = [0; 4];
        clear(&mut self.latency);
    }
}

/// On-CPU samples, and how many of them had a complete user stack or need none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// All.
    pub all: u64,
    /// Those whose stack is known to its end.
    pub complete: u64,
}

impl Samples {
    /// Adds another's.
    pub fn add(&mut self, other: Samples) {
        self.all = self.all.saturating_add(other.all);
        self.complete = self.complete.saturating_add(other.complete);
    }
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// As `wait(2)` gives it: signal in the low 7 bits, exit status in the next 8. `None`: it is gone and nobody said how.
    pub status: Option<u32>,
}

/// A process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Identity.
    pub key: ProcessKey,
    /// What is known beside its threads. Until that arrives only the key and, from its threads, the name are set.
    pub facts: ProcessFacts,
    /// Live threads at the end of the newest tick.
    pub threads: u32,
    /// The newest tick: the sum of its threads, those that exited in it too. Zero if it did not live in it.
    pub tick: Totals,
    /// Its block requests that completed in the newest tick.
    pub tick_io: IoTotals,
    /// Since we first saw it.
    pub all: Totals,
    /// Since we first saw it.
    pub all_io: IoTotals,
    /// On-CPU samples in the newest tick.
    pub samples: u64,
    /// Those of them whose user stack is complete (or which need none).
    pub samples_complete: u64,
    /// On-CPU samples since we first saw it.
    pub all_samples: u64,
    /// Those of them whose user stack is complete (or which need none).
    pub all_samples_complete: u64,
    /// Once it has.
    pub exited: Option<Exit>,
}

impl Process {
    /// Did more than sleep in the newest tick.
    pub fn is_active(&self) -> bool {
        self.tick.is_active() || self.tick_io.is_active() || self.samples > 0
    }

    /// Adds one tick's samples.
    pub(super) fn add_samples(&mut self, samples: Samples) {
        for (all, complete) in
            [(&mut self.samples, &mut self.samples_complete), (&mut self.all_samples, &mut self.all_samples_complete)]
        {
            *all = all.saturating_add(samples.all);
            *complete = complete.saturating_add(samples.complete);
        }
    }

    pub(super) fn clear_tick(&mut self) {
        self.tick.clear();
        self.tick_io.clear();
        self.samples = 0;
        self.samples_complete = 0;
        self.threads = 0;
    }
}

/// A thread.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// Identity.
    pub key: ThreadKey,
    /// Its process.
    pub process: ProcessKey,
    /// Its name; may hold control characters.
    pub comm: String,
    /// State at the end of the newest tick; `None` once it has exited.
    pub now: Option<State>,
    /// When that state began, CLOCK_MONOTONIC ns.
    pub since_ns: u64,
    /// CPU on which it runs or ran last.
    pub cpu: u32,
    /// System call in which it is blocked now, if it is.
    pub syscall: Option<u32>,
    /// The newest tick; zero if it did not live in it.
    pub tick: Totals,
    /// Since we first saw it.
    pub all: Totals,
    /// CLOCK_MONOTONIC ns, once it has: the end of the tick in which it did.
    pub exited_ns: Option<u64>,
}

/// Whether a wait is idling rather than being held up: a timer, a poll, and whatever a kernel thread waits for unless
/// that is a disk, a lock or a page.
pub fn is_idle_wait(state: State, kernel_thread: bool) -> bool {
    match state {
        State::Timer | State::Poll => true,
        State::Net | State::Pipe | State::Stopped | State::Other => kernel_thread,
        _ => false,
    }
}

fn add_each(mine: &mut Vec<u64>, theirs: &[u64]) {
    if mine.len() < theirs.len() {
        mine.resize(theirs.len(), 0);
    }
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine = mine.saturating_add(*theirs);
    }
}

fn clear(hist: &mut Hist) {
    hist.counts.clear();
    hist.max = 0;
    hist.sum = 0;
}
