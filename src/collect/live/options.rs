//! What is asked of a live kernel.

use std::time::Duration;

use crate::collect::symbols::Debuginfod;

/// How to observe.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Samples per second and CPU, 1…4999.
    pub rate_hz: u32,
    /// Length of a tick.
    pub interval: Duration,
    /// Only these processes; empty, and none followed: all.
    pub pids: Vec<u32>,
    /// Also this process, and whoever descends from it.
    pub follow: Option<u32>,
    /// Take stacks of sberf itself, too.
    pub include_self: bool,
    /// Stacks of blocked threads that may be walked per second on each CPU; 0: none, only totals.
    pub walks_per_s: u32,
    /// Walk user stacks by tables where this kernel allows it, else by frame pointers.
    pub by_tables: bool,
    /// Where debug information comes from that is not on this machine; `None`: from nowhere.
    pub debuginfod: Option<Debuginfod>,
    /// Command line, for the header of captures.
    pub command: String,
    /// Bytes of the rings of frames and of ended threads, a power of two; `None`: the default. For tests of overflow.
    pub ring_bytes: Option<u32>,
    /// Stacks counted in one interval at most; `None`: the default.
    pub stack_entries: Option<u32>,
    /// Tell the cost of programs by their own clock, even while the kernel counts. For tests.
    pub own_clock: bool,
    /// Bytes of the rows of all unwind tables at most; `None`: the default.
    pub table_bytes: Option<u64>,
    /// CPU time that observing may take, as a share of the machine's; `None`: whatever it takes.
    pub max_overhead: Option<f64>,
    /// Tell threads that only slept in [`Tick::asleep`](crate::tick::Tick::asleep); for whoever keeps the ticks before in mind.
    pub fold: bool,
    /// From so many threads on, those that only sleep are looked at every few seconds.
    pub crowd: u64,
    /// Never empty the rings. For tests of what becomes of that.
    pub undrained: bool,
}

impl Default for LiveOptions {
    fn default() -> Self {
        LiveOptions {
            rate_hz: 99,
            interval: Duration::from_secs(1),
            pids: Vec::new(),
            follow: None,
            include_self: false,
            walks_per_s: 1000,
            by_tables: true,
            debuginfod: None,
            command: String::new(),
            ring_bytes: None,
            stack_entries: None,
            own_clock: false,
            table_bytes: None,
            max_overhead: None,
            fold: false,
            crowd: 1000,
            undrained: false,
        }
    }
}
