//! What could not be told, by cause.

use serde::{Deserialize, Serialize};

/// Why something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Loss {
    /// Samples or waits whose stack found no room in the count map.
    StackMapFull,
    /// Stacks whose frames found no room in the ring (they are sent again when seen again).
    FrameRingFull,
    /// Histogram counts that found no room.
    HistMapFull,
    /// Fork, exec or exit events that found no room in the ring.
    LifeRingFull,
    /// Final accounts of threads that found no room in the ring.
    DeadRingFull,
    /// Block requests that found no room in the table of requests in flight.
    RequestMapFull,
    /// Records of slow requests that found no room in the ring.
    SlowRingFull,
    /// Threads whose record changed under our eyes too often.
    Torn,
    /// Intervals that came out negative and were not counted.
    Underflow,
    /// Records that could not be understood.
    Malformed,
    /// Threads that `/proc` has and the task iterator does not show.
    HiddenTasks,
    /// Threads for which the kernel had no memory for storage.
    NoStorage,
    /// Ticks that were skipped because the machine was too busy.
    LateTick,
    /// Names or ticks that the model let go to stay within its bound.
    Evicted,
    /// Switches and wakeups that the kernel told nobody of (it may exempt a task from tracing, and with it what happens while
    /// that task is current). That a thread runs can be seen all the same; the time of a wakeup stays in the state before, and
    /// its wait may be missing in the histograms.
    Unseen,
    /// CPUs that are known to have had no perf event that works, each counted in every interval: no samples of what ran there.
    Unsampled,
    /// Records of processes outside of the pid namespace that sberf runs in: they have no PID there.
    Elsewhere,
    /// Block requests that are no reads, writes, flushes or discards (of zones, and what drivers send for themselves): in no number of
    /// a disk.
    OtherRequest,
    /// Stays on a CPU of a NUMA node for which a thread had no slot, because it ran on another of the same slot in the same interval (only
    /// where there are more than eight nodes): they are counted to the node where it was last. And moves between nodes that are not counted.
    Node,
}

impl Loss {
    /// What was lost, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::StackMapFull => "stack weights (map full)",
            Loss::FrameRingFull => "stack frames (ring full)",
            Loss::HistMapFull => "histogram counts (map full)",
            Loss::LifeRingFull => "process events (ring full)",
            Loss::DeadRingFull => "exited threads (ring full)",
            Loss::RequestMapFull => "disk requests (map full)",
            Loss::SlowRingFull => "slow requests (ring full)",
            Loss::Torn => "threads read while changing",
            Loss::Underflow => "negative intervals",
            Loss::Malformed => "malformed records",
            Loss::HiddenTasks => "threads hidden from the iterator",
            Loss::NoStorage => "threads without storage",
            Loss::LateTick => "late ticks",
            Loss::Evicted => "evicted from memory",
            Loss::Unseen => "switches hidden from tracing",
            Loss::Unsampled => "CPUs not sampled, by tick",
            Loss::Elsewhere => "records from outside of the pid namespace",
            Loss::OtherRequest => "disk requests of other kinds",
            Loss::Node => "stays on NUMA nodes",
        }
    }
}
