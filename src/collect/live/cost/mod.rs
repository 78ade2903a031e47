//! What observing costs, by who causes it: BPF programs by their own clock or the kernel's, our threads, memory.
//!
//! The kernel's statistics are exact, but cost some 35 ns per run of every BPF program on the machine, so they are only used
//! while they are on anyway: because somebody else wants them, or because somebody looks at the screen of costs
//! ([`Meter::look`]). Otherwise the programs time themselves, switches and wakeups one of 64.

mod others;
mod programs;
mod threads;

use std::os::fd::OwnedFd;

use self::others::Others;
use self::programs::{Kernel, Own};
use self::threads::Threads;
use super::maps;
use super::objects::{Objects, Part};
use super::unwind::Unwinder;
use crate::collect::host::OwnCost;
use crate::tick::{Clockwork, Collector, Cost, CpuTick, ProgramCost};

/// What the iterator over all threads did in a tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Iteration {
    /// Threads told of.
    pub threads: u64,
    /// CPU time of the collector's thread in it.
    pub ns: u64,
}

/// What programs did in an interval.
pub struct Closed {
    switches: u64,
    own: programs::Reading,
    kernel: Vec<(Part, ProgramCost)>,
}

/// Reads all of it once per tick.
pub struct Meter {
    process: OwnCost,
    process_ns: u64,
    threads: Threads,
    own: Own,
    kernel: Kernel,
    others: Others,
    /// Keeps the kernel's statistics on.
    statistics: Option<OwnedFd>,
    /// Memory of maps when all was loaded.
    maps: Vec<(Part, u64)>,
    /// The kernel's statistics are not used.
    own_clock: bool,
}

impl Closed {
    /// Threads that were made, but the first of a process.
    pub fn threads(&self) -> u64 {
        self.own.threads
    }
}

impl Meter {
    /// Takes the first readings.
    pub fn new(objects: &Objects, own_clock: bool) -> Self {
        let process = OwnCost::new();
        let mut meter = Meter {
            process_ns: process.cpu_ns(),
            process,
            threads: Threads::default(),
            own: Own::default(),
            kernel: Kernel::new(objects.programs()),
            others: Others::default(),
            statistics: None,
            maps: objects.map_bytes(),
            own_clock,
        };
        meter.threads.since();
        meter.own.since(&objects.sched.maps.costs, 0);
        meter.kernel.since();
        meter
    }

    /// Somebody looks at costs, or no more: the kernel is asked to count, if it lets us.
    pub fn look(&mut self, looked_at: bool) {
        self.statistics = if looked_at { maps::enable_statistics().ok() } else { None };
    }

    /// What programs did in the interval that has just ended: to be read when the CPUs are, whose counts are `cpus`.
    pub fn close(&mut self, objects: &Objects, cpus: &[CpuTick]) -> Closed {
        let switches = cpus.iter().map(|cpu| cpu.switches).sum();
        Closed { switches, own: self.own.since(&objects.sched.maps.costs, switches), kernel: self.kernel.since() }
    }

    /// What observing cost since the last call.
    pub fn read(&mut self, objects: &Objects, closed: Closed, iteration: Iteration) -> Cost {
        let Closed { switches, own, kernel } = closed;
        let process_ns = self.process.cpu_ns();
        let user_space_ns = process_ns.saturating_sub(std::mem::replace(&mut self.process_ns, process_ns));
        let counted = kernel.iter().find(|(part, program)| *part == Part::Sched && program.name.starts_with(SWITCH));
        // Runs that the kernel counted are those of the time when it did.
        let throughout = counted.is_some_and(|(_, program)| program.runs as f64 >= 0.95 * switches as f64);
        let (clockwork, programs) = match throughout && switches > 0 && !self.own_clock {
            true => (Clockwork::Kernel, kernel),
            false => (Clockwork::Own, own.programs(objects)),
        };
        let maps = self.maps(objects);
        Cost {
            user_space_ns,
            rss_bytes: self.process.rss_bytes(),
            map_bytes: maps.iter().map(|(_, bytes)| bytes).sum(),
            collectors: collectors(&maps, &programs, &own, iteration),
            programs: programs.into_iter().map(|(_, program)| program).collect(),
            clockwork,
            threads: self.threads.since(),
            others: (clockwork == Clockwork::Kernel).then(|| self.others.since(&self.kernel)).flatten(),
            ..Cost::default()
        }
    }

    /// Memory of the maps of each part. Only tables grow.
    fn maps(&self, objects: &Objects) -> Vec<(Part, u64)> {
        let rows = objects.unwinder.as_ref().map_or(0, Unwinder::rows_bytes);
        let grown = |&(part, bytes): &(Part, u64)| (part, bytes + if part == Part::Stacks { rows } else { 0 });
        self.maps.iter().map(grown).collect()
    }
}

fn collectors(
    maps: &[(Part, u64)],
    programs: &[(Part, ProgramCost)],
    own: &programs::Reading,
    iteration: Iteration,
) -> Vec<Collector> {
    let collector = |&(part, map_bytes): &(Part, u64)| {
        let mine = || programs.iter().filter(|(of, _)| *of == part).map(|(_, program)| program);
        let (events, ns) = mine().fold((0, 0), |(runs, ns), program| (runs + program.runs, ns + program.ns));
        let known = mine().next().is_some();
        let (events, ns, in_user_space) = match part {
            Part::Sched => (events, known.then(|| ns.saturating_sub(own.walk_ns)), false),
            Part::Stacks => (own.walks, Some(own.walk_ns), false),
            Part::Tasks => (iteration.threads, Some(iteration.ns), true),
            _ => (events, known.then_some(ns), false),
        };
        Collector { name: part.name().to_owned(), events, ns, map_bytes, in_user_space }
    };
    maps.iter().map(collector).collect()
}

/// How the name of the program on switches begins.
const SWITCH: &str = "sched_switch";
