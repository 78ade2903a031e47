//! Per-CPU counters of the scheduler programs. They only grow; a tick is the difference of two readings.

use std::mem::offset_of;

use libbpf_rs::{MapCore, MapFlags};
use rustc_hash::FxHashMap;

use super::hists::of_window;
use super::ids::Ids;
use super::skel::sched::types::{cpu, cpu_acc};
use super::wire;
use crate::tick::{CpuTick, ThreadTick};

/// The last reading of each CPU.
#[derive(Default)]
pub struct Cpus {
    last: FxHashMap<u32, cpu_acc>,
    samples: FxHashMap<u32, u64>,
}

impl Cpus {
    /// Fills in what the scheduler programs know of `cpus` since the last call. `generation`: the interval that ended.
    pub fn fill(&mut self, map: &impl MapCore, generation: u64, cpus: &mut [CpuTick]) {
        let Ok(Some(values)) = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY) else { return };
        for tick in cpus {
            let at = tick.id as usize * size_of::<cpu>() + offset_of!(cpu, acc);
            let Some(now) = values.get(at..).and_then(wire::read::<cpu_acc>) else { continue };
            if let Some(before) = self.last.get(&tick.id) {
                difference(&now, before, generation, tick);
            }
            self.last.insert(tick.id, now);
        }
    }

    /// Fills in who ran at the last call of `fill`. `threads`: those that lived in the interval.
    pub fn fill_running(&self, cpus: &mut [CpuTick], threads: &[ThreadTick], ids: &Ids) {
        for tick in cpus {
            let tid = self.last.get(&tick.id).map(|last| ids.latest(last.running_tid));
            tick.running = threads.iter().map(|thread| thread.key).find(|key| Some(key.tid) == tid);
        }
    }

    /// Fills in the samples taken on each CPU.
    pub fn fill_samples(&mut self, map: &impl MapCore, cpus: &mut [CpuTick]) {
        let Ok(Some(values)) = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY) else { return };
        for tick in cpus {
            let Some(now) = values.get(tick.id as usize).and_then(|value| wire::read::<u64>(value)) else { continue };
            let before = self.samples.insert(tick.id, now).unwrap_or(0);
            tick.samples = now.saturating_sub(before);
        }
    }
}

fn difference(now: &cpu_acc, before: &cpu_acc, generation: u64, tick: &mut CpuTick) {
    tick.switches = now.switches.saturating_sub(before.switches);
    tick.runnable_ns = now.runnable_ns.saturating_sub(before.runnable_ns);
    let counts = now.runq.iter().zip(before.runq).map(|(now, before)| u64::from(now.wrapping_sub(before)));
    // The kernel side keeps the maximum of the interval that it is in; by the time of the reading that may be the next
    // one already, and then the largest bucket has to do.
    let max = if now.max_gen == generation { now.runq_max_ns } else { 0 };
    tick.runq = of_window(counts, max, Some(tick.runnable_ns));
    if max == 0 {
        tick.runq.max = tick.runq.counts.last().map_or(0, |&(bucket, _)| crate::tick::bucket_high(bucket));
    }
}
