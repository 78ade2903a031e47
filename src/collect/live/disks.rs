//! Disks: what the `block` programs counted in one interval, and what is in flight.

use std::collections::BTreeMap;

use libbpf_rs::{MapCore, MapFlags};

use super::hists::of_window;
use super::maps::monotonic_ns;
use super::rings::Ring;
use super::skel::block::{
    BlockSkel,
    types::{disk_key, disk_val, inflight, io_key, io_val, slow_rec},
};
use super::{maps, wire};
use crate::tick::{DiskOp, DiskOpTick, DiskTick, ProcessIo, ProcessKey, SlowRequest};

/// Requests slower than this are told of one by one, until the first tick has shown what is slow here.
pub const SLOW_FIRST_NS: u64 = 1_000_000;
/// Slow requests in one tick: enough to see who and where, few enough to read.
const SLOW_KEPT: usize = 32;
const SLOW_LEAST_NS: u64 = 50_000;

/// Disks of one interval.
#[derive(Default)]
pub struct Harvest {
    pub disks: Vec<DiskTick>,
    pub io: Vec<ProcessIo>,
    pub slow: Vec<SlowRequest>,
    pub malformed: u64,
}

/// Drains the `block` object.
pub struct Disks {
    slow: Ring,
    limit_ns: u64,
}

impl Disks {
    /// A reader of this object's maps.
    pub fn new(skel: &BlockSkel<'_>) -> libbpf_rs::Result<Self> {
        Ok(Disks { slow: Ring::new(&skel.maps.slow)?, limit_ns: SLOW_FIRST_NS })
    }

    /// Makes room in the ring.
    pub fn pump(&self) {
        self.slow.pump();
    }

    /// Takes what belongs to interval `generation`. `name_of`: a disk's name by its device number.
    pub fn harvest(
        &mut self,
        skel: &BlockSkel<'_>,
        generation: u64,
        mut name_of: impl FnMut(u32) -> String,
    ) -> libbpf_rs::Result<Harvest> {
        let mut harvest = Harvest::default();
        let mut disks: BTreeMap<u32, DiskTick> = BTreeMap::new();
        for (key, val) in of_generation::<disk_key, disk_val>(&skel.maps.disks, |key| key.r#gen, generation)? {
            let disk = disks.entry(key.dev).or_insert_with(|| DiskTick { dev: key.dev, ..DiskTick::default() });
            if let Some(op) = disk.ops.get_mut(usize::from(key.op)) {
                *op = op_tick(&val);
            }
        }
        for (key, val) in of_generation::<io_key, io_val>(&skel.maps.ios, |key| key.r#gen, generation)? {
            if let Some(&op) = DiskOp::ALL.get(usize::from(key.op)) {
                harvest.io.push(io_of(&key, &val, op));
            }
        }
        self.in_flight(skel, &mut disks)?;
        for (dev, disk) in &mut disks {
            disk.name = name_of(*dev);
        }
        harvest.disks = disks.into_values().collect();
        harvest.slow = self.slow_requests(skel, &mut harvest.malformed);
        Ok(harvest)
    }

    fn in_flight(&self, skel: &BlockSkel<'_>, disks: &mut BTreeMap<u32, DiskTick>) -> libbpf_rs::Result<()> {
        let now = monotonic_ns();
        maps::visit(&skel.maps.requests, |_: u64, request: inflight| {
            if request.issued_ns == 0 {
                return;
            }
            let disk = disks.entry(request.dev).or_insert_with(|| DiskTick { dev: request.dev, ..DiskTick::default() });
            disk.in_flight += 1;
            disk.oldest_ns = disk.oldest_ns.max(now.saturating_sub(request.issued_ns));
        })?;
        Ok(())
    }

    /// The slowest, slowest first. Moves the limit so that a handful passes it in each tick.
    fn slow_requests(&mut self, skel: &BlockSkel<'_>, malformed: &mut u64) -> Vec<SlowRequest> {
        let bytes = self.slow.take();
        let mut rest = bytes.as_slice();
        let mut slow = Vec::new();
        while !rest.is_empty() {
            match wire::take::<slow_rec>(&mut rest) {
                Some(record) => slow.extend(slow_of(&record)),
                None => {
                    *malformed += 1;
                    break;
                }
            }
        }
        let seen = slow.len();
        slow.sort_by_key(|request: &SlowRequest| std::cmp::Reverse(request.queued_ns + request.device_ns));
        slow.truncate(SLOW_KEPT);
        let limit = match seen {
            0..8 => (self.limit_ns / 2).max(SLOW_LEAST_NS),
            8..64 => self.limit_ns,
            _ => slow.last().map_or(self.limit_ns, |last| last.queued_ns + last.device_ns),
        };
        let told = skel.maps.slow_ns.update(&0u32.to_ne_bytes(), &limit.to_ne_bytes(), MapFlags::ANY);
        if told.is_ok() {
            self.limit_ns = limit;
        }
        slow
    }
}

/// Elements whose generation has the parity of `generation`, taken out of the map.
fn of_generation<K: wire::Wire, V: wire::Wire>(
    map: &impl MapCore,
    parity: impl Fn(&K) -> u16,
    generation: u64,
) -> libbpf_rs::Result<Vec<(K, V)>> {
    let mut found = Vec::new();
    maps::visit(map, |key: K, value: V| {
        if u64::from(parity(&key)) == generation & 1 {
            found.push((key, value));
        }
    })?;
    for (key, _) in &found {
        // Gone already: nothing to take out.
        let _ = map.delete(wire::bytes_of(key));
    }
    Ok(found)
}

fn op_tick(val: &disk_val) -> DiskOpTick {
    let hist = |counts: &[u32], max, sum| of_window(counts.iter().map(|&count| u64::from(count)), max, Some(sum));
    DiskOpTick {
        requests: val.requests,
        bytes: val.bytes,
        errors: val.errors,
        queued: hist(&val.queued, val.queued_max, val.queued_sum),
        device: hist(&val.device, val.device_max, val.device_sum),
        size: hist(&val.size, val.size_max, val.size_sum),
    }
}

fn io_of(key: &io_key, val: &io_val, op: DiskOp) -> ProcessIo {
    ProcessIo {
        process: ProcessKey { tgid: key.tgid, start_ns: key.start_ns },
        op,
        requests: val.requests,
        bytes: val.bytes,
        latency: of_window(val.latency.iter().map(|&count| u64::from(count)), val.max, Some(val.sum)),
    }
}

fn slow_of(record: &slow_rec) -> Option<SlowRequest> {
    Some(SlowRequest {
        end_ns: record.end_ns,
        dev: record.dev,
        op: *DiskOp::ALL.get(record.op as usize)?,
        sector: record.sector,
        bytes: record.bytes,
        queued_ns: record.queued_ns,
        device_ns: record.device_ns,
        process: ProcessKey { tgid: record.tgid, start_ns: record.start_ns },
        comm: wire::comm(&record.comm),
    })
}
