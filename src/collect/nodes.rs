//! NUMA nodes: which CPUs are on which, their memory, and how often an allocation went elsewhere.

use super::cpus::{online, parse_list};
use super::host::{meminfo_line, read_bounded};
use super::reread::Reread;

const NODES: &str = "/sys/devices/system/node";

/// Memory of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory {
    /// Which node.
    pub id: u32,
    /// Bytes.
    pub total_bytes: u64,
    /// Bytes that nobody uses.
    pub free_bytes: u64,
    /// Pages whose allocation was meant for here and was served here, since the last reading.
    pub numa_hit: Option<u64>,
    /// Pages meant for another node and served here, since the last reading.
    pub numa_miss: Option<u64>,
}

/// Nodes with the online CPUs on each, by rising id. A kernel without NUMA has one node 0 with all CPUs.
pub fn nodes() -> Vec<(u32, Vec<u32>)> {
    let online = online();
    let ids = read_bounded(&format!("{NODES}/online"), 64 << 10).map_or_else(Vec::new, |text| parse_list(&text));
    if ids.is_empty() {
        return vec![(0, online)];
    }
    let cpus = |id: u32| {
        let list = read_bounded(&format!("{NODES}/node{id}/cpulist"), 64 << 10).unwrap_or_default();
        parse_list(&list).into_iter().filter(|cpu| online.binary_search(cpu).is_ok()).collect()
    };
    ids.into_iter().map(|id| (id, cpus(id))).collect()
}

/// Reads the memory of the nodes.
pub struct NodeMemories {
    nodes: Vec<Node>,
}

struct Node {
    id: u32,
    meminfo: Option<Reread>,
    numastat: Option<Reread>,
    last: Option<(u64, u64)>,
}

impl NodeMemories {
    /// Of these nodes; takes the first reading of their counters.
    pub fn of(nodes: &[(u32, Vec<u32>)]) -> Self {
        let node = |&(id, _): &(u32, Vec<u32>)| {
            let open = |name: &str| Reread::open(&format!("{NODES}/node{id}/{name}"), 64 << 10).ok();
            let meminfo = open("meminfo").or_else(|| Reread::open("/proc/meminfo", 64 << 10).ok());
            Node { id, meminfo, numastat: open("numastat"), last: None }
        };
        let mut memories = NodeMemories { nodes: nodes.iter().map(node).collect() };
        memories.read();
        memories
    }

    /// Memory now and counters since the last reading, in the order of the nodes.
    pub fn read(&mut self) -> Vec<NodeMemory> {
        self.nodes.iter_mut().map(Node::read).collect()
    }
}

impl Node {
    fn read(&mut self) -> NodeMemory {
        let mut memory = NodeMemory { id: self.id, ..NodeMemory::default() };
        if let Some(text) = self.meminfo.as_mut().and_then(Reread::read) {
            (memory.total_bytes, memory.free_bytes) = parse_memory(text);
        }
        let now = self.numastat.as_mut().and_then(Reread::read).and_then(parse_numastat);
        if let (Some(now), Some(last)) = (now, self.last) {
            memory.numa_hit = now.0.checked_sub(last.0);
            memory.numa_miss = now.1.checked_sub(last.1);
        }
        self.last = now;
        memory
    }
}

fn parse_memory(text: &str) -> (u64, u64) {
    let find =
        |wanted| text.lines().filter_map(meminfo_line).find(|(name, _)| *name == wanted).map_or(0, |(_, bytes)| bytes);
    (find("MemTotal"), find("MemFree"))
}

fn parse_numastat(text: &str) -> Option<(u64, u64)> {
    let find = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((find("numa_hit ")?, find("numa_miss ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_texts() {
        let text = "Node 0 MemTotal:       2048 kB\nNode 0 MemFree:        1024 kB\nNode 0 MemUsed: 1024 kB\n";
        assert_eq!(parse_memory(text), (2 << 20, 1 << 20));
        assert_eq!(parse_memory("Node 0 MemTo"), (0, 0));
        assert_eq!(parse_numastat("numa_hit 12\nnuma_miss 3\nnuma_foreign 4\n"), Some((12, 3)));
        assert_eq!(parse_numastat("numa_hit 12\nnuma_mi"), None);
    }

    #[test]
    fn every_online_cpu_is_on_one_node() {
        let nodes = nodes();
        let mut cpus: Vec<u32> = nodes.iter().flat_map(|(_, cpus)| cpus).copied().collect();
        cpus.sort_unstable();
        assert_eq!(cpus, online());
        let mut memories = NodeMemories::of(&nodes);
        let read = memories.read();
        assert_eq!(read.len(), nodes.len());
        assert!(read.iter().any(|node| node.total_bytes > node.free_bytes && node.free_bytes > 0));
    }
}
