//! A small machine that does not exist, for tests and benchmarks: the same seed gives the same ticks, on any machine
//! and without privileges. Nothing of it is reachable from the command line.
//!
//! What it tells is consistent: the states of a thread sum to the time it lived, a CPU is never busier than the interval
//! is long, samples are as many as the on-CPU time makes likely, and names arrive before, or a batch after, their use.

mod machine;
mod programs;
mod random;
mod stacks;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use self::machine::Machine;
use super::{Request, Source, SourceError};
use crate::tick::{Batch, LensStatus, Names, Sampler, Session, Tick};

/// What machine to invent.
#[derive(Clone, Debug)]
pub struct Invention {
    /// The same seed gives the same machine.
    pub seed: u64,
    /// CPUs; at least one.
    pub cpus: u32,
    /// NUMA nodes, over which the CPUs are spread; at least one.
    pub nodes: u32,
    /// Processes of the table of programs, from its start and round again; compilers that are started come on top.
    pub processes: usize,
    /// Processes that do nothing but sleep, on top; a few of them wake up in each tick.
    pub sleepers: usize,
    /// Threads of each of those.
    pub sleeper_threads: u32,
    /// Whether there is a process whose names hold escape sequences, separators and wide characters.
    pub hostile: bool,
    /// How many ticks; `None`: without end.
    pub ticks: Option<u64>,
    /// Length of a tick.
    pub interval: Duration,
    /// How fast they come.
    pub pace: Pace,
}

impl Default for Invention {
    fn default() -> Self {
        Invention {
            seed: 1,
            cpus: 2,
            nodes: 1,
            processes: programs::PROGRAMS.len(),
            sleepers: 0,
            sleeper_threads: 1,
            hostile: false,
            ticks: None,
            interval: Duration::from_secs(1),
            pace: Pace::AsFastAsPossible,
        }
    }
}

/// How fast ticks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Whenever asked for.
    AsFastAsPossible,
    /// One per interval.
    RealTime,
}

/// The source of an [`Invention`].
pub struct Invented {
    options: Invention,
    machine: Machine,
    done: u64,
    held: bool,
    due: Option<Instant>,
    late_names: Option<Names>,
}

impl Invented {
    /// Starts the machine.
    pub fn new(options: Invention) -> Self {
        let machine = Machine::new(&options);
        Invented { options, machine, done: 0, held: false, due: None, late_names: None }
    }

    /// The next tick, whatever the pace and the number of ticks; with every name it needs.
    pub fn tick(&mut self) -> Tick {
        let mut tick = self.machine.tick(self.options.interval.as_nanos() as u64);
        let late = std::mem::take(&mut self.machine.stacks.late);
        tick.names.symbols.extend(late.symbols);
        tick.names.details.extend(late.details);
        self.done += 1;
        tick
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Interval(interval) => self.options.interval = interval,
            Request::Hold(held) => self.held = held,
            Request::Visible(_) | Request::Focus(_) | Request::Detail(_) => {}
            Request::EndTick | Request::Step | Request::Statistics(_) => {}
        }
    }

    /// Waits until the next tick is due. False if the other end is gone.
    fn wait(&mut self, requests: &Receiver<Request>) -> bool {
        let due = *self.due.get_or_insert_with(Instant::now);
        loop {
            let left = match self.options.pace {
                _ if self.held => Duration::MAX,
                Pace::RealTime => due.saturating_duration_since(Instant::now()),
                Pace::AsFastAsPossible => Duration::ZERO,
            };
            if left.is_zero() {
                match requests.try_recv() {
                    Ok(request) => self.obey(request),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return false,
                }
                continue;
            }
            match requests.recv_timeout(left.min(Duration::from_secs(3600))) {
                Ok(request) => self.obey(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        self.due = Some(due + self.options.interval);
        true
    }
}

impl Source for Invented {
    fn session(&self) -> Session {
        let cpus_of =
            |node: u32| (0..self.options.cpus.max(1)).filter(move |cpu| cpu % self.options.nodes.max(1) == node);
        let lens = |name: &str| LensStatus { name: name.to_owned(), off: None };
        Session {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: "sberf (invented)".to_owned(),
            hostname: "invented".to_owned(),
            kernel: "6.18.0".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: (0..self.options.cpus.max(1)).collect(),
            nodes: (0..self.options.nodes.max(1)).map(|node| (node, cpus_of(node).collect())).collect(),
            sampler: Sampler::CpuClock(machine::SAMPLE_HZ),
            interval_ns: self.options.interval.as_nanos() as u64,
            started_wall_ns: machine::STARTED_WALL_NS,
            boot_offset_ns: 0,
            page_bytes: 4096,
            symbol_limit_bytes: 128 << 20,
            lenses: ["oncpu", "sched", "stacks", "block", "numa", "life", "tasks"].map(lens).into(),
            ..Session::default()
        }
    }

    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        if let Some(names) = self.late_names.take() {
            return Ok(Some(Batch::Names(Box::new(names))));
        }
        if self.options.ticks.is_some_and(|ticks| self.done >= ticks) || !self.wait(requests) {
            return Ok(None);
        }
        let tick = self.machine.tick(self.options.interval.as_nanos() as u64);
        self.done += 1;
        let late = std::mem::take(&mut self.machine.stacks.late);
        self.late_names = (!late.is_empty()).then_some(late);
        Ok(Some(Batch::Tick(Box::new(tick))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(options: Invention) -> Vec<Tick> {
        let mut source = Invented::new(options);
        (0..5).map(|_| source.tick()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_ticks() {
        let options = Invention { hostile: true, sleepers: 20, nodes: 2, ..Invention::default() };
        assert_eq!(ticks(options.clone()), ticks(options.clone()));
        assert_ne!(ticks(options.clone()), ticks(Invention { seed: 2, ..options }));
    }

    #[test]
    fn time_adds_up() {
        for tick in ticks(Invention { cpus: 4, nodes: 2, ..Invention::default() }) {
            for thread in
                tick.threads.iter().filter(|thread| thread.now.is_some() && thread.key.start_ns <= tick.span.start_ns)
            {
                assert_eq!(thread.ns.total(), tick.span.len_ns(), "{}", thread.comm);
                assert_eq!(thread.node_ns.iter().sum::<u64>(), thread.ns.on_cpu(), "{}", thread.comm);
            }
            for cpu in &tick.cpus {
                let busy = cpu.user_ns + cpu.kernel_ns + cpu.irq_ns + cpu.softirq_ns + cpu.steal_ns;
                assert_eq!(busy + cpu.idle_ns, tick.span.len_ns());
            }
            let threads: u64 = tick.threads.iter().map(|thread| thread.ns.on_cpu()).sum();
            let cpus: u64 = tick.cpus.iter().map(|cpu| cpu.user_ns + cpu.kernel_ns).sum();
            assert_eq!(threads, cpus);
        }
    }

    #[test]
    fn every_kind_of_thing_happens() {
        let ticks = ticks(Invention::default());
        let seen = |state| ticks.iter().flat_map(|tick| &tick.threads).any(|thread| thread.ns[state] > 0);
        assert!(crate::tick::State::ALL.into_iter().all(seen));
        assert!(ticks.iter().any(|tick| !tick.slow_requests.is_empty()));
        assert!(ticks.iter().any(|tick| tick.threads.iter().any(|thread| thread.now.is_none())));
    }

    #[test]
    fn it_ends_when_it_should() {
        let (sender, requests) = crossbeam_channel::unbounded();
        let mut source = Invented::new(Invention { ticks: Some(2), ..Invention::default() });
        let mut count = 0;
        while let Ok(Some(batch)) = source.next(&requests) {
            count += u32::from(matches!(batch, Batch::Tick(_)));
        }
        assert_eq!(count, 2);
        let mut endless = Invented::new(Invention::default());
        drop(sender);
        assert!(matches!(endless.next(&requests), Ok(None)));
    }
}
