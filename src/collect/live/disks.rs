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
    /// Of this tick: how many were told of, the slowest of them, and records that could not be understood.
    heard: usize,
    slowest: Vec<SlowRequest>,
    malformed: u64,
}

impl Disks {
    /// A reader of this object's maps.
    pub fn new(skel: &BlockSkel<'_>) -> std::io::Result<Self> {
        let slow = Ring::new(&skel.maps.slow)?;
        Ok(Disks { slow, limit_ns: SLOW_FIRST_NS, heard: 0, slowest: Vec::new(), malformed: 0 })
    }

    /// Makes room in the ring.
    pub fn pump(&mut self, skel: &BlockSkel<'_>) {
        self.hear(skel);
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

    /// Takes in what was told of one by one. More than a tick can show raises the limit at once: a burst would fill the ring.
    fn hear(&mut self, skel: &BlockSkel<'_>) {
        let bytes = self.slow.take();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match wire::take::<slow_rec>(&mut rest) {
                Some(record) => {
                    self.heard += 1;
                    self.slowest.extend(slow_of(&record));
                }
                None => {
                    self.malformed += 1;
                    break;
                }
            }
        }
        if self.slowest.len() <= SLOW_KEPT {
            return;
        }
        self.slowest.sort_by_key(|request| std::cmp::Reverse(took(request)));
        self.slowest.truncate(SLOW_KEPT);
        if self.heard > 2 * SLOW_KEPT {
            let last = self.slowest.last().map_or(self.limit_ns, took);
            self.set_limit(skel, last.max(self.limit_ns));
        }
    }

    /// The slowest, slowest first. Lowers the limit when too few passed it in this tick.
    fn slow_requests(&mut self, skel: &BlockSkel<'_>, malformed: &mut u64) -> Vec<SlowRequest> {
        self.hear(skel);
        *malformed += std::mem::take(&mut self.malformed);
        if std::mem::take(&mut self.heard) < 8 {
            self.set_limit(skel, (self.limit_ns / 2).max(SLOW_LEAST_NS));
        }
        self.slowest.sort_by_key(|request| std::cmp::Reverse(took(request)));
        std::mem::take(&mut self.slowest)
    }

    fn set_limit(&mut self, skel: &BlockSkel<'_>, limit: u64) {
        if skel.maps.slow_ns.update(&0u32.to_ne_bytes(), &limit.to_ne_bytes(), MapFlags::ANY).is_ok() {
            self.limit_ns = limit;
        }
    }
}

fn took(request: &SlowRequest) -> u64 {
    request.queued_ns.saturating_add(request.device_ns)
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
