//! What observing cost, in the object.

use serde::Serialize;

use crate::tick::{Clockwork, Collector, Cost, OtherProgram};

#[derive(Serialize)]
pub struct CostObject<'a> {
    user_space_ns: u64,
    /// `null` where nothing is known of the time in BPF programs.
    bpf_ns: Option<u64>,
    /// How that was found.
    bpf_clock: Option<&'static str>,
    rss_bytes: u64,
    map_bytes: u64,
    symbol_bytes: u64,
    late_ns: u64,
    programs: Vec<ProgramObject<'a>>,
    collectors: Vec<CollectorObject<'a>>,
    threads: Vec<ThreadObject<'a>>,
    /// `null` while the kernel does not count.
    other_programs: Option<Vec<OtherObject<'a>>>,
}

#[derive(Serialize)]
struct ProgramObject<'a> {
    name: &'a str,
    runs: u64,
    ns: u64,
}

#[derive(Serialize)]
struct CollectorObject<'a> {
    name: &'a str,
    events: u64,
    ns: Option<u64>,
    map_bytes: u64,
    in_user_space: bool,
}

#[derive(Serialize)]
struct ThreadObject<'a> {
    role: &'a str,
    ns: u64,
}

#[derive(Serialize)]
struct OtherObject<'a> {
    id: u32,
    name: &'a str,
    runs: u64,
    ns: u64,
}

pub fn object(cost: &Cost) -> CostObject<'_> {
    CostObject {
        user_space_ns: cost.user_space_ns,
        bpf_ns: cost.bpf_ns(),
        bpf_clock: match cost.clockwork {
            Clockwork::None => None,
            Clockwork::Kernel => Some("kernel"),
            Clockwork::Own => Some("own"),
        },
        rss_bytes: cost.rss_bytes,
        map_bytes: cost.map_bytes,
        symbol_bytes: cost.symbol_bytes,
        late_ns: cost.late_ns,
        programs: cost.programs.iter().map(|p| ProgramObject { name: &p.name, runs: p.runs, ns: p.ns }).collect(),
        collectors: cost.collectors.iter().map(collector).collect(),
        threads: cost.threads.iter().map(|thread| ThreadObject { role: &thread.role, ns: thread.ns }).collect(),
        other_programs: cost.others.as_ref().map(|others| others.iter().map(other).collect()),
    }
}

fn collector(collector: &Collector) -> CollectorObject<'_> {
    let Collector { name, events, ns, map_bytes, in_user_space } = collector;
    CollectorObject { name, events: *events, ns: *ns, map_bytes: *map_bytes, in_user_space: *in_user_space }
}

fn other(other: &OtherProgram) -> OtherObject<'_> {
    let OtherProgram { id, name, runs, ns } = other;
    OtherObject { id: *id, name, runs: *runs, ns: *ns }
}
