//! The live machine where nothing of BPF can be loaded: the same ticks, filled from procfs as far as it goes. No stacks, no
//! latencies, no reasons for waits; what has no source is said in [`Session::signals`], and is left empty here.

mod disks;
mod stat;
mod threads;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::time::ClockId;

pub(super) use self::disks::DiskStats;
use self::threads::Threads;
use super::cpus::{CpuTimes, Frequencies, online};
use super::host::{self, Gauges, Identity, OwnCost};
use super::live::LiveOptions;
use super::nodes::{NodeMemories, nodes};
use super::processes::Processes;
use super::watched::{Watched, named};
use super::{Request, Source, SourceError, verdicts};
use crate::tick::{
    Basis, Batch, Cost, CpuTick, Event, LensStatus, Life, Loss, Names, NodeTick, Refusal, Sampler, Session, Span, Tick,
};

/// The first tick is short, so that there is something to see soon.
const FIRST_TICK: Duration = Duration::from_millis(250);

/// procfs as a source.
pub struct ProcfsOnly {
    interval: Duration,
    session: Session,
    watched: Watched,
    next_tick: Instant,
    /// End of the last tick, CLOCK_MONOTONIC ns.
    ended_ns: u64,
    threads: Threads,
    processes: Processes,
    times: CpuTimes,
    frequencies: Frequencies,
    memories: NodeMemories,
    gauges: Gauges,
    disks: DiskStats,
    own: OwnCost,
    own_cpu_ns: u64,
    names: Names,
}

impl ProcfsOnly {
    /// Takes the first reading. `why` nothing better could be had.
    pub fn start(options: &LiveOptions, why: &Refusal) -> Self {
        let nodes = nodes();
        let own = OwnCost::new();
        let mut source = ProcfsOnly {
            interval: options.interval,
            session: Session::default(),
            watched: Watched::new(&named(&options.pids), options.follow),
            next_tick: Instant::now() + options.interval.min(FIRST_TICK),
            ended_ns: 0,
            threads: Threads::new(),
            processes: Processes::new(&nodes.iter().map(|(node, _)| *node).collect::<Vec<_>>()),
            times: CpuTimes::new(),
            frequencies: Frequencies::of(&online()),
            memories: NodeMemories::of(&nodes),
            gauges: Gauges::new(),
            disks: DiskStats::new(),
            own_cpu_ns: own.cpu_ns(),
            own,
            names: Names { users: host::users(), ..Names::default() },
        };
        source.session = source.describe(options, why, nodes);
        let span = source.next_span();
        let first = source.threads.pass(span, source.session.boot_offset_ns, |_| true);
        source.processes.expect(first.leaders.iter().filter(|leader| !leader.kernel).map(|leader| leader.key));
        source
    }

    fn describe(&self, options: &LiveOptions, why: &Refusal, nodes: Vec<(u32, Vec<u32>)>) -> Session {
        let identity = Identity::read();
        let lens = |name: &str| LensStatus { name: name.to_owned(), off: Some(why.to_string()) };
        Session {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: options.command.clone(),
            hostname: identity.hostname,
            kernel: identity.kernel,
            arch: identity.arch,
            cpus: online(),
            signals: verdicts::without_bpf(why, self.threads.run_delay(), nodes.len() <= 1),
            nodes,
            sampler: Sampler::Off,
            interval_ns: options.interval.as_nanos() as u64,
            started_wall_ns: wall_ns(),
            boot_offset_ns: host::boot_offset_ns(),
            page_bytes: rustix::param::page_size() as u64,
            symbol_limit_bytes: 0,
            lenses: ["sched", "tasks", "unwind", "stacks", "oncpu", "life", "block", "numa"].map(lens).into(),
            basis: Basis::Procfs,
        }
    }

    /// From the end of the last tick until now.
    fn next_span(&mut self) -> Span {
        let end_ns = host::now_ns(ClockId::Monotonic);
        let start_ns = std::mem::replace(&mut self.ended_ns, end_ns);
        let start_ns = if start_ns == 0 { end_ns } else { start_ns };
        Span { start_ns, end_ns, wall_ns: wall_ns().saturating_sub(end_ns - start_ns) }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Interval(interval) => {
                self.interval = interval;
                self.next_tick = self.next_tick.min(Instant::now() + interval);
            }
            Request::Visible(processes) => self.processes.visible(&processes),
            Request::Focus(process) => self.processes.focus(process),
            Request::EndTick => self.next_tick = Instant::now(),
            // There are no frames and no programs, and a live machine does not wait.
            Request::Detail(_) | Request::Statistics(_) | Request::Hold(_) | Request::Step => {}
        }
    }

    /// The next boundary. Boundaries that have passed are skipped and counted.
    fn schedule(&mut self) -> u64 {
        let now = Instant::now();
        self.next_tick += self.interval;
        let mut skipped = 0;
        while self.next_tick <= now {
            self.next_tick += self.interval;
            skipped += 1;
        }
        skipped
    }

    fn tick(&mut self) -> Tick {
        let started = Instant::now();
        let span = self.next_span();
        let mut tick = Tick { span, cpus: self.cpus(), names: std::mem::take(&mut self.names), ..Tick::default() };
        let late = self.schedule();
        // Whoever descends from a process that is followed is known only once all were read.
        let pass = self.threads.pass(span, host::boot_offset_ns(), |_| true);
        self.watched.adopt(pass.leaders.iter().map(|leader| (leader.key.tgid, leader.ppid)));
        tick.threads = pass.threads;
        tick.threads.retain(|thread| self.watched.wants(thread.process));
        let execs: Vec<Event> = pass
            .renamed
            .iter()
            .map(|&process| Event { at_ns: span.end_ns, process, comm: String::new(), what: Life::Exec })
            .collect();
        let watched = &self.watched;
        let leaders: Vec<_> = pass.leaders.into_iter().filter(|leader| watched.wants(leader.key)).collect();
        tick.processes = self.processes.update(&leaders, &[], &execs);
        (tick.quotas, tick.stuck) = (self.processes.quotas(), self.processes.stuck(&tick));
        self.watched.end_tick();
        tick.disks = self.disks.read();
        tick.nodes = self.nodes(&tick.cpus);
        tick.host = self.gauges.read();
        tick.losses = [(Loss::LateTick, late), (Loss::Underflow, self.times.take_backwards())].into();
        tick.losses.retain(|&(_, count)| count > 0);
        tick.cost = self.cost(started);
        tick
    }

    fn cpus(&mut self) -> Vec<CpuTick> {
        self.frequencies.refresh();
        let times = self.times.read();
        times.into_iter().map(|time| time.tick(&self.session.nodes, self.frequencies.mhz(time.id))).collect()
    }

    fn nodes(&mut self, cpus: &[CpuTick]) -> Vec<NodeTick> {
        let on_cpu =
            |node: u32| cpus.iter().filter(|cpu| cpu.node == node).map(|cpu| cpu.user_ns + cpu.kernel_ns).sum();
        let memories = self.memories.read();
        memories
            .into_iter()
            .map(|memory| NodeTick {
                id: memory.id,
                on_cpu_ns: on_cpu(memory.id),
                total_bytes: memory.total_bytes,
                free_bytes: memory.free_bytes,
                numa_hit: memory.numa_hit,
                numa_miss: memory.numa_miss,
                ..NodeTick::default()
            })
            .collect()
    }

    fn cost(&mut self, started: Instant) -> Cost {
        let cpu_ns = self.own.cpu_ns();
        let user_space_ns = cpu_ns.saturating_sub(std::mem::replace(&mut self.own_cpu_ns, cpu_ns));
        let late_ns = started.elapsed().as_nanos() as u64;
        Cost { user_space_ns, rss_bytes: self.own.rss_bytes(), late_ns, ..Cost::default() }
    }
}

impl Source for ProcfsOnly {
    fn session(&self) -> Session {
        self.session.clone()
    }

    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        loop {
            let now = Instant::now();
            if now >= self.next_tick {
                return Ok(Some(Batch::Tick(Box::new(self.tick()))));
            }
            match requests.recv_timeout(self.next_tick - now) {
                Ok(request) => self.obey(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::{Grade, SignalKind, State, signal};

    #[test]
    fn this_machine_without_any_privilege() {
        let options = LiveOptions { interval: Duration::from_millis(100), ..LiveOptions::default() };
        let mut source = ProcfsOnly::start(&options, &Refusal::new("for the test", ""));
        let (_keep, requests) = crossbeam_channel::bounded(1);
        let mut next = || match source.next(&requests) {
            Ok(Some(Batch::Tick(tick))) => tick,
            _ => panic!("a tick"),
        };
        let first = next();
        assert!((0..3_000_000u64).fold(0u64, |sum, i| std::hint::black_box(sum ^ i)) < u64::MAX);
        let second = next();
        assert_eq!(first.span.end_ns, second.span.start_ns, "no gap");
        let own = std::process::id();
        assert!(first.processes.iter().any(|facts| facts.key.tgid == own && facts.rss_bytes.is_some()));
        let on_cpu: u64 = second.threads.iter().filter(|t| t.process.tgid == own).map(|t| t.ns.on_cpu()).sum();
        assert!(on_cpu > 0);
        for thread in second.threads.iter().filter(|thread| thread.key.start_ns < second.span.start_ns / 2) {
            assert_eq!(thread.ns.total(), second.span.len_ns(), "{thread:?}");
            assert_eq!(thread.ns[State::Disk] + thread.ns[State::Poll], 0, "nothing made up");
        }
        assert!(!second.cpus.is_empty() && second.stacks.is_empty());
        let session = source.session();
        assert_eq!(session.basis, Basis::Procfs);
        assert_eq!(
            signal(&session.signals, SignalKind::RunqLatency).map(|signal| signal.grade()),
            Some(Grade::Missing)
        );
    }
}
