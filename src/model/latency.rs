//! Latencies as `hdrhistogram`s, merged over a window.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::window::Window;
use super::{Model, Totals};
use crate::tick::{CpuTick, DiskOp, DiskTick, Hist, ProcessKey, ThreadKey, bucket_low, bucket_mid, bucket_of};

/// A latency that has a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Latency {
    /// Waits for a CPU.
    RunQueue,
    /// Waits from leaving the CPU to being woken.
    OffCpu,
    /// Stays on a CPU.
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
    /// Everything.
    Machine,
    /// One process.
    Process(ProcessKey),
    /// One thread.
    Thread(ThreadKey),
    /// One CPU; it has [`Latency::RunQueue`] only.
    Cpu(u32),
}

/// Histograms of CPUs and disks since the start.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Devices {
    cpus: FxHashMap<u32, Hist>,
    disks: FxHashMap<u32, [(Hist, Hist); 4]>,
}

impl Devices {
    /// Adds one tick.
    pub fn add(&mut self, cpus: &[CpuTick], disks: &[DiskTick]) {
        for cpu in cpus {
            self.cpus.entry(cpu.id).or_default().merge(&cpu.runq);
        }
        for disk in disks {
            let sums = self.disks.entry(disk.dev).or_default();
            for ((queued, device), op) in sums.iter_mut().zip(&disk.ops) {
                queued.merge(&op.queued);
                device.merge(&op.device);
            }
        }
    }
}

impl Model {
    /// A latency, merged over a window; values in ns. Empty where there is none: a disk has no process, a thread no
    /// requests. Of what [`Latency::DiskQueued`] and [`Latency::DiskDevice`] say, the scope is the disk.
    pub fn latency(&self, what: Latency, of: Scope, window: Window) -> hdrhistogram::Histogram<u64> {
        let mut out = empty();
        self.each_hist(what, of, window, |hist| record(&mut out, hist));
        out
    }

    /// The same as a [`Hist`], whose buckets are those of the kernel.
    pub fn latency_hist(&self, what: Latency, of: Scope, window: Window) -> Hist {
        let mut out = Hist::default();
        self.each_hist(what, of, window, |hist| out.merge(hist));
        out
    }

    fn each_hist(&self, what: Latency, of: Scope, window: Window, mut visit: impl FnMut(&Hist)) {
        match (what, of) {
            (Latency::DiskQueued(dev, op), _) => self.each_disk(dev, op, window, |queued, _| visit(queued)),
            (Latency::DiskDevice(dev, op), _) => self.each_disk(dev, op, window, |_, device| visit(device)),
            (Latency::RunQueue, Scope::Cpu(cpu)) => self.each_cpu(cpu, window, visit),
            (Latency::Disk, Scope::Process(key)) => visit(&self.io_totals(key, window).latency),
            (Latency::Disk, Scope::Machine) => visit(&self.machine_sums(window).io.latency),
            (_, Scope::Process(key)) => visit(of_totals(&self.totals(key, window), what)),
            (_, Scope::Thread(key)) => visit(of_totals(&self.thread_totals(key, window), what)),
            (_, Scope::Machine) => visit(of_totals(&self.machine_sums(window).totals, what)),
            (_, Scope::Cpu(_)) => {}
        }
    }

    fn each_cpu(&self, cpu: u32, window: Window, mut visit: impl FnMut(&Hist)) {
        match self.history.resolve(window) {
            None => self.devices.cpus.get(&cpu).into_iter().for_each(visit),
            Some(range) => {
                let cpus = self.history.range(range).flat_map(|tick| &tick.cpus);
                cpus.filter(|tick| tick.id == cpu).for_each(|tick| visit(&tick.runq));
            }
        }
    }

    fn each_disk(&self, dev: u32, op: Option<DiskOp>, window: Window, mut visit: impl FnMut(&Hist, &Hist)) {
        let wanted = |at: &usize| op.is_none_or(|op| op as usize == *at);
        match self.history.resolve(window) {
            None => {
                let ops = self.devices.disks.get(&dev).into_iter().flatten().enumerate();
                ops.filter(|(at, _)| wanted(at)).for_each(|(_, (queued, device))| visit(queued, device));
            }
            Some(range) => {
                let disks = self.history.range(range).flat_map(|tick| &tick.disks).filter(|disk| disk.dev == dev);
                let ops = disks.flat_map(|disk| disk.ops.iter().enumerate());
                ops.filter(|(at, _)| wanted(at)).for_each(|(_, op)| visit(&op.queued, &op.device));
            }
        }
    }
}

fn of_totals(totals: &Totals, what: Latency) -> &Hist {
    const EMPTY: &Hist = &Hist { counts: Vec::new(), max: 0, sum: 0 };
    match what {
        Latency::RunQueue => &totals.runq,
        Latency::OffCpu => &totals.off_cpu,
        Latency::Slice => &totals.slice,
        _ => EMPTY,
    }
}

/// Two significant digits: finer than the buckets of the kernel. Grows as it must.
#[expect(clippy::expect_used, reason = "constants that it accepts")]
fn empty() -> hdrhistogram::Histogram<u64> {
    let mut histogram = hdrhistogram::Histogram::new_with_max(LONGEST_NS, 2).expect("constants that it accepts");
    histogram.auto(false);
    histogram
}

/// Nothing lasts longer than 36 years.
const LONGEST_NS: u64 = 1 << 60;

/// Adds a histogram by the middles of its buckets; the largest value exactly.
fn record(out: &mut hdrhistogram::Histogram<u64>, hist: &Hist) {
    let top = bucket_of(hist.max);
    for &(bucket, count) in &hist.counts {
        let exact = u64::from(bucket == top && hist.max >= bucket_low(bucket));
        out.saturating_record_n(bucket_mid(bucket).min(hist.max.max(bucket_low(bucket))), count.saturating_sub(exact));
        out.saturating_record_n(hist.max, exact.min(count));
    }
}

/// A histogram as an `hdrhistogram`; values as they are, the largest exactly.
pub fn hdr(hist: &Hist) -> hdrhistogram::Histogram<u64> {
    let mut out = empty();
    record(&mut out, hist);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_counts_and_percentiles() {
        let mut out = empty();
        record(&mut out, &Hist::of((1..=1000).map(|value| value * 1000)));
        record(&mut out, &Hist::of([50_000_000]));
        assert_eq!(out.len(), 1001);
        let p50 = out.value_at_quantile(0.5) as f64;
        assert!((p50 / 500_000.0 - 1.0).abs() < 0.0725, "{p50}");
        assert!((out.max() as f64 / 50e6 - 1.0).abs() < 0.01);
    }

    #[test]
    fn absurd_values_are_clamped() {
        let hist = Hist { counts: vec![(495, u64::MAX), (0, 3), (65535, 1)], max: u64::MAX, sum: 0 };
        let out = hdr(&hist);
        assert!(out.max() >= LONGEST_NS);
    }
}
