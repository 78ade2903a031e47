//! The machine around the BPF maps: CPUs, nodes, disks by name, and gauges.

use super::cpus::Cpus;
use super::maps;
use super::objects::Objects;
use crate::collect::cpus::{CpuTimes, Frequencies, StatCounters, online};
use crate::collect::disks::Disks;
use crate::collect::host::Gauges;
use crate::collect::nodes::{NodeMemories, NodeMemory};
use crate::tick::{CpuTick, DiskTick, Loss, NodeTick, Tick};

/// Readers that belong to the machine, each with its last reading.
pub struct Machine {
    nodes: Vec<(u32, Vec<u32>)>,
    times: CpuTimes,
    frequencies: Frequencies,
    counters: Cpus,
    memories: NodeMemories,
    gauges: Gauges,
    disks: Disks,
    moves: Vec<u64>,
}

impl Machine {
    /// Takes the first readings.
    pub fn new(nodes: &[(u32, Vec<u32>)], objects: &Objects) -> Self {
        let mut machine = Machine {
            nodes: nodes.to_vec(),
            times: CpuTimes::new(),
            frequencies: Frequencies::of(&online()),
            counters: Cpus::default(),
            memories: NodeMemories::of(nodes),
            gauges: Gauges::new(),
            disks: Disks::default(),
            moves: Vec::new(),
        };
        machine.read_cpus(objects, 0);
        machine.fill(objects, &mut Tick::default());
        machine
    }

    /// CPUs that are online.
    pub fn online(&self) -> Vec<u32> {
        online()
    }

    /// CPUs in the interval `generation`, which has just ended: to be read before anything that takes time.
    pub fn read_cpus(&mut self, objects: &Objects, generation: u64) -> Vec<CpuTick> {
        self.frequencies.refresh();
        let mut cpus = self.cpus();
        self.counters.fill(&objects.sched.maps.bss_cpus, generation, &mut cpus);
        if let Some(oncpu) = &objects.oncpu {
            self.counters.fill_samples(&oncpu.maps.sampled, &mut cpus);
        }
        cpus
    }

    /// Fills in who ran on the CPUs, nodes and gauges, and adds disks that did nothing.
    pub fn fill(&mut self, objects: &Objects, tick: &mut Tick) -> Vec<(Loss, u64)> {
        self.counters.fill_running(&mut tick.cpus, &tick.threads, &objects.ids);
        tick.nodes = self.node_ticks(objects, tick);
        tick.host = self.gauges.read();
        for (dev, name) in self.disks.all() {
            if objects.block.is_some() && !tick.disks.iter().any(|disk| disk.dev == dev) {
                tick.disks.push(DiskTick { dev, name, ..DiskTick::default() });
            }
        }
        tick.disks.sort_by_key(|disk| disk.dev);
        vec![(Loss::Underflow, self.times.take_backwards())]
    }

    /// What `/proc/stat` counted in the interval that was read last.
    pub fn stat_counters(&self) -> Option<StatCounters> {
        self.times.counters()
    }

    /// Name of a disk.
    pub fn disk_name(&mut self, dev: u32) -> String {
        self.disks.name(dev)
    }

    fn cpus(&mut self) -> Vec<CpuTick> {
        let times = self.times.read();
        times.into_iter().map(|time| time.tick(&self.nodes, self.frequencies.mhz(time.id))).collect()
    }

    fn node_ticks(&mut self, objects: &Objects, tick: &Tick) -> Vec<NodeTick> {
        let moves = self.moves_since(objects);
        let one = self.nodes.len() == 1;
        let memories = self.memories.read();
        let mut nodes: Vec<NodeTick> =
            (0..).zip(&memories).map(|(index, memory)| node_tick(index, memories.len(), memory, &moves)).collect();
        for thread in &tick.threads {
            if one {
                nodes.iter_mut().for_each(|node| node.on_cpu_ns += thread.ns.on_cpu());
            } else {
                nodes.iter_mut().zip(&thread.node_ns).for_each(|(node, ns)| node.on_cpu_ns += ns);
            }
        }
        nodes
    }

    /// Threads moved between nodes since the last reading, from × to.
    fn moves_since(&mut self, objects: &Objects) -> Vec<u64> {
        let Some(numa) = &objects.numa else { return Vec::new() };
        let counters = maps::counters(&numa.maps.moves, self.nodes.len() * self.nodes.len());
        let since =
            counters.iter().enumerate().map(|(at, now)| now.saturating_sub(self.moves.get(at).copied().unwrap_or(0)));
        let since = since.collect();
        self.moves = counters;
        since
    }
}

/// Node `index` of so many, without its on-CPU time. `moves`: from × to, empty where nothing is moved.
fn node_tick(index: usize, nodes: usize, memory: &NodeMemory, moves: &[u64]) -> NodeTick {
    let moved = |from: usize, to: usize| moves.get(from * nodes + to).copied().unwrap_or(0);
    let others = || (0..nodes).filter(move |&other| other != index);
    NodeTick {
        id: memory.id,
        on_cpu_ns: 0,
        total_bytes: memory.total_bytes,
        free_bytes: memory.free_bytes,
        moved_in: others().map(|from| moved(from, index)).sum(),
        moved_out: others().map(|to| moved(index, to)).sum(),
        numa_hit: memory.numa_hit,
        numa_miss: memory.numa_miss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // On 20 nodes threads moved: 3 from node 2 to node 18, 1 back.
    #[test]
    fn moves_between_many_nodes() {
        let mut moves = vec![0; 20 * 20];
        (moves[2 * 20 + 18], moves[18 * 20 + 2]) = (3, 1);
        let moved = |index| {
            let node = node_tick(index, 20, &NodeMemory::default(), &moves);
            (node.moved_in, node.moved_out)
        };
        assert_eq!((moved(2), moved(18), moved(10)), ((1, 3), (3, 1), (0, 0)));
        let none = node_tick(0, 20, &NodeMemory::default(), &[]);
        assert_eq!((none.moved_in, none.moved_out), (0, 0));
    }
}
