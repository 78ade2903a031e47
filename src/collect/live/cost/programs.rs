//! Time in our BPF programs: by the kernel's statistics, and by what the programs time themselves.

use libbpf_rs::MapCore;

use crate::collect::live::maps::{self, ProgramInfo};
use crate::collect::live::objects::{Objects, Part, Program};
use crate::collect::live::wire;
use crate::tick::ProgramCost;

/// As `enum program` in `src/bpf/sberf.h`: part, and the name of the program; `None` for what is no program of its own.
const TIMED: [(Part, Option<&str>); 13] = [
    (Part::Sched, Some("sched_switch")),
    (Part::Sched, Some("sched_wakeup")),
    (Part::Stacks, None),
    (Part::OnCpu, Some("sample")),
    (Part::Life, Some("on_fork")),
    // Of the same program: threads that were made.
    (Part::Life, None),
    (Part::Life, Some("on_exec")),
    (Part::Life, Some("on_exit")),
    (Part::Block, Some("io_start")),
    (Part::Block, Some("rq_insert")),
    (Part::Block, Some("rq_issue")),
    (Part::Block, Some("rq_complete")),
    (Part::Numa, Some("move_numa")),
];
const SWITCH: usize = 0;
const WAKEUP: usize = 1;
const WALK: usize = 2;
const FORK: usize = 4;
const THREAD: usize = 5;
/// One of so many switches and wakeups is timed.
const ONE_OF: u64 = 64;
/// Below so many timed runs in a tick, those of earlier ticks help to tell how long one takes.
const ENOUGH: f64 = 256.0;
/// How much of what was timed before still counts one tick later.
const DECAY: f64 = 0.8;

type Counts = [[u64; 3]; TIMED.len()];

/// What the programs time themselves.
#[derive(Default)]
pub struct Own {
    last: Counts,
    /// Timed runs of the ticks before, and ns in them, fading.
    before: [(f64, f64); TIMED.len()],
}

/// What they did since the last reading.
#[derive(Debug, Default)]
pub struct Reading {
    /// Runs, and time in them if any was timed.
    sums: [(u64, Option<u64>); TIMED.len()],
    /// Stacks of blocked threads that were walked.
    pub walks: u64,
    /// Time in that, part of what switches took.
    pub walk_ns: u64,
    /// Threads made, but the first of a process.
    pub threads: u64,
}

impl Own {
    /// Reads `costs`. `switches`: how many there were since the last call.
    pub fn since(&mut self, costs: &impl MapCore, switches: u64) -> Reading {
        let now = read(costs);
        self.advance(&now, switches)
    }

    fn advance(&mut self, now: &Counts, switches: u64) -> Reading {
        let mut reading = Reading::default();
        let readings = now.iter().zip(self.last).zip(&mut self.before).zip(&mut reading.sums);
        for (at, (((now, last), before), sum)) in readings.enumerate() {
            let [runs, timed] = [0, 1].map(|word: usize| now[word].saturating_sub(last[word]));
            // The beginning of a run may not be read but put together (`clock.bpf.h`): one in which nothing was done can end before it
            // began, and a few of those are less than nothing.
            let ns = now[2].wrapping_sub(last[2]).cast_signed().max(0);
            let runs = match at {
                SWITCH => switches,
                WAKEUP => timed * ONE_OF,
                _ => runs,
            };
            *sum = (runs, time_of(runs, (timed as f64, ns as f64), before));
        }
        self.last = *now;
        (reading.walks, reading.walk_ns) = (reading.sums[WALK].0, reading.sums[WALK].1.unwrap_or(0));
        let thread = std::mem::take(&mut reading.sums[THREAD]);
        reading.threads = thread.0;
        let fork = &mut reading.sums[FORK];
        fork.0 += thread.0;
        fork.1 = fork.1.into_iter().chain(thread.1).reduce(|sum, ns| sum + ns);
        reading
    }
}

/// Time in `runs`, from those of them that were timed, or also from earlier ones where they are few.
fn time_of(runs: u64, (timed, ns): (f64, f64), before: &mut (f64, f64)) -> Option<u64> {
    *before = (before.0 * DECAY + timed, before.1 * DECAY + ns);
    let (timed, ns) = if timed >= ENOUGH { (timed, ns) } else { *before };
    (timed >= 0.5).then(|| (runs as f64 * ns / timed) as u64)
}

/// Sums over CPUs.
fn read(costs: &impl MapCore) -> Counts {
    let mut counts = Counts::default();
    for (index, sums) in counts.iter_mut().enumerate() {
        let key = (index as u32).to_ne_bytes();
        let Ok(Some(values)) = costs.lookup_percpu(&key, libbpf_rs::MapFlags::ANY) else { continue };
        for value in values {
            for (sum, word) in sums.iter_mut().zip(value.chunks_exact(8)) {
                *sum = sum.wrapping_add(wire::read::<u64>(word).unwrap_or(0));
            }
        }
    }
    counts
}

impl Reading {
    /// Programs that ran and of whose time something is known. Their names are those of the programs that were loaded.
    pub fn programs(&self, objects: &Objects) -> Vec<(Part, ProgramCost)> {
        let by_tables = objects.unwinder.is_some();
        let ran = TIMED.iter().zip(&self.sums).filter(|(_, (runs, _))| *runs > 0);
        ran.filter_map(|(&(part, name), &(runs, ns))| {
            let name = match name? {
                "sample" if !by_tables => "sample_fp",
                name => name,
            };
            Some((part, ProgramCost { name: name.to_owned(), runs, ns: ns? }))
        })
        .collect()
    }
}

/// The kernel's statistics of our programs.
pub struct Kernel(Vec<Counted>);

struct Counted {
    program: Program,
    id: u32,
    runs: u64,
    ns: u64,
}

impl Kernel {
    /// Of these programs.
    pub fn new(programs: Vec<Program>) -> Self {
        let counted = |program: Program| {
            let ProgramInfo { id, .. } = maps::program_info(&program.fd)?;
            Some(Counted { program, id, runs: 0, ns: 0 })
        };
        Kernel(programs.into_iter().filter_map(counted).collect())
    }

    /// What was counted since the last call, while it was counted; those that ran.
    pub fn since(&mut self) -> Vec<(Part, ProgramCost)> {
        self.0.iter_mut().filter_map(|counted| Some((counted.program.part, counted.since()?))).collect()
    }

    /// A program of ours has this id.
    pub fn has(&self, id: u32) -> bool {
        self.0.iter().any(|counted| counted.id == id)
    }
}

impl Counted {
    fn since(&mut self) -> Option<ProgramCost> {
        let ProgramInfo { runs, ns, .. } = maps::program_info(&self.program.fd)?;
        let cost = ProgramCost {
            name: self.program.name.clone(),
            runs: runs.saturating_sub(self.runs),
            ns: ns.saturating_sub(self.ns),
        };
        (self.runs, self.ns) = (runs, ns);
        (cost.runs > 0).then_some(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: usize, counts: [u64; 3]) -> Counts {
        let mut all = Counts::default();
        all[index] = counts;
        all
    }

    #[test]
    fn switches_are_counted_elsewhere_and_wakeups_by_chance() {
        let mut own = Own::default();
        let reading = own.advance(&at(SWITCH, [0, 1000, 150_000]), 64_123);
        assert_eq!(reading.sums[SWITCH], (64_123, Some(64_123 * 150)));
        let mut own = Own::default();
        assert_eq!(own.advance(&at(WAKEUP, [0, 500, 40_000]), 0).sums[WAKEUP], (32_000, Some(32_000 * 80)));
        let reading = own.advance(&at(WAKEUP, [0, 500, 40_000]), 0);
        assert_eq!(reading.sums[WAKEUP], (0, Some(0)), "nothing since");
    }

    #[test]
    fn a_run_may_end_before_it_began() {
        let mut own = Own::default();
        let reading = own.advance(&at(SWITCH, [0, 1, 0u64.wrapping_sub(200)]), 64);
        assert_eq!(reading.sums[SWITCH], (64, Some(0)));
        let reading = own.advance(&at(SWITCH, [0, 1001, 99_800]), 64_000);
        assert_eq!(reading.sums[SWITCH], (64_000, Some(64_000 * 100)), "the sum is right in the long run");
    }

    #[test]
    fn walks_are_part_of_switches() {
        let mut own = Own::default();
        let reading = own.advance(&at(WALK, [10, 10, 50_000]), 100);
        assert_eq!((reading.walks, reading.walk_ns), (10, 50_000));
        assert_eq!(reading.sums[SWITCH], (100, None), "nothing was timed yet: not known, not nothing");
    }

    #[test]
    fn few_timed_runs_borrow_from_earlier_ones() {
        let mut own = Own::default();
        own.advance(&at(SWITCH, [0, 4, 4000]), 256);
        let reading = own.advance(&at(SWITCH, [0, 4, 4000]), 100);
        assert_eq!(reading.sums[SWITCH], (100, Some(100_000)), "none was timed: as before");
        let many = own.advance(&at(SWITCH, [0, 1004, 104_000]), 64_000);
        assert_eq!(many.sums[SWITCH], (64_000, Some(6_400_000)), "enough of its own");
    }
}
