//! Block requests: by process, by disk, and those that took long.

use serde::{Deserialize, Serialize};

use super::{Hist, ProcessKey};

/// Kinds of block request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum DiskOp {
    /// Data to memory.
    Read,
    /// Data to the disk.
    Write,
    /// Cache flush.
    Flush,
    /// Discard, trim, write zeroes.
    Discard,
}

impl DiskOp {
    /// Every kind.
    pub const ALL: [DiskOp; 4] = [DiskOp::Read, DiskOp::Write, DiskOp::Flush, DiskOp::Discard];

    /// The word on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            DiskOp::Read => "read",
            DiskOp::Write => "write",
            DiskOp::Flush => "flush",
            DiskOp::Discard => "discard",
        }
    }
}

/// Block requests that one process asked for and that completed in the interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessIo {
    /// Who asked. Requests of the kernel's writeback threads stay with those threads: they say "writeback".
    pub process: ProcessKey,
    /// What.
    pub op: DiskOp,
    /// How many.
    pub requests: u64,
    /// How much.
    pub bytes: u64,
    /// Queued and on the device together.
    pub latency: Hist,
}

/// One kind of request on one disk in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskOpTick {
    /// Requests that completed.
    pub requests: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// From entering the queue to being given to the device.
    pub queued: Hist,
    /// From being given to the device to its answer.
    pub device: Hist,
    /// Request sizes, in bytes.
    pub size: Hist,
}

/// One disk in one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskTick {
    /// Device number, `major << 20 | minor`, as in the kernel.
    pub dev: u32,
    /// `vda`, `nvme0n1`, …
    pub name: String,
    /// By [`DiskOp`], in its order.
    pub ops: [DiskOpTick; 4],
    /// Requests issued and not answered at the end of the interval.
    pub in_flight: u64,
    /// Age of the oldest of those, ns.
    pub oldest_ns: u64,
}

/// One block request that took long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowRequest {
    /// When it completed, CLOCK_MONOTONIC ns.
    pub end_ns: u64,
    /// On which disk.
    pub dev: u32,
    /// What.
    pub op: DiskOp,
    /// Where on it, 512-byte sectors.
    pub sector: u64,
    /// How much.
    pub bytes: u64,
    /// Time in the queue.
    pub queued_ns: u64,
    /// Time on the device.
    pub device_ns: u64,
    /// Who asked.
    pub process: ProcessKey,
    /// Name of the thread that asked.
    pub comm: String,
}
