//! Watches the watcher: keeps the cost within its budget, and compares what was counted with procfs.

use super::{Live, objects};
use crate::collect::checks::{Checks, Due, Pair, Sampling};
use crate::collect::cpus::StatCounters;
use crate::collect::diskstats::{DiskStats, DiskSums};
use crate::collect::governor::{Policy, Spent, sample_weight};
use crate::collect::hidden::Hidden;
use crate::tick::{Check, Counter, DiskOp, Governor, LeverKind, Loss, Tick};

/// What has a budget of its own and a low priority: it takes what is left over, and giving up samples would not stop it soon.
const BACKGROUND: [&str; 4] = ["unwind tables", "symbols", "lines", "files"];

/// What it keeps from tick to tick.
pub struct Watching {
    policy: Option<Policy>,
    checks: Checks,
    diskstats: DiskStats,
    hidden: Hidden,
}

/// What the kernel side counted in the interval that is in no tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Processes that we were told of, and threads.
    pub forks: u64,
    /// On-CPU time of all threads, also of those nobody asked for.
    pub on_cpu_ns: u64,
    /// No thread was left out of it.
    pub of_all: bool,
    /// How all of that is sampled, if it is.
    pub sampling: Option<Sampling>,
}

/// What procfs counted at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Procfs {
    pub stat: Option<StatCounters>,
    pub disks: Option<DiskSums>,
}

impl Watching {
    /// `policy`: `None` without a budget.
    pub fn new(policy: Option<Policy>) -> Self {
        Watching { policy, checks: Checks::default(), diskstats: DiskStats::new(), hidden: Hidden::default() }
    }

    /// To be read when the CPUs are.
    pub fn read_disks(&mut self) -> Option<DiskSums> {
        self.diskstats.since()
    }

    fn govern(&mut self, tick: &Tick, machine_ns: u64) -> Option<Governor> {
        Some(self.policy.as_mut()?.judge(&spent(tick, machine_ns)))
    }

    fn compare(&mut self, tick: &Tick, counted: Counted, procfs: Procfs, machine_ns: u64) -> Vec<Check> {
        let same = |ours, theirs, hidden| Pair { ours, theirs: (theirs, theirs), hidden };
        let hidden = self.hidden.since();
        let mut pairs = Vec::new();
        if let Some(stat) = procfs.stat {
            let unseen = tick.losses.iter().find(|(loss, _)| *loss == Loss::Unseen).map_or(0, |&(_, count)| count);
            let switches = tick.cpus.iter().map(|cpu| cpu.switches).sum();
            pairs.push((Counter::Switches, same(switches, stat.switches, unseen + hidden.switches)));
            // With `idle=poll` and the like procfs knows nothing better than the threads' own time.
            let busy: u64 = tick.cpus.iter().map(|cpu| cpu.user_ns + cpu.kernel_ns).sum();
            let others: u64 = tick.cpus.iter().map(|cpu| cpu.irq_ns + cpu.softirq_ns + cpu.steal_ns).sum();
            let theirs = (busy, busy + others);
            if counted.of_all {
                pairs.push((Counter::CpuTime, Pair { ours: counted.on_cpu_ns, theirs, hidden: hidden.ns }));
            }
            if let Some(sampling) = counted.sampling {
                let samples = tick.cpus.iter().map(|cpu| cpu.samples).sum();
                let most_ns = theirs.1.max(counted.on_cpu_ns);
                let own_ns = tick.cost.user_space_ns;
                let due = Due { ns: (busy.min(counted.on_cpu_ns), most_ns), own_ns, hidden_ns: hidden.ns, machine_ns };
                pairs.push((Counter::Samples, sampling.pair(samples, &due)));
            }
            if self.has_life(tick) {
                pairs.push((Counter::Forks, same(counted.forks, stat.forks, hidden.children(tick))));
            }
        }
        if let Some(disks) = procfs.disks {
            let (ours, flushes) = self.our_disks(tick);
            // A write of nothing that flushes is a write to procfs, and a flush to us; not every flush is one of those.
            let theirs = (disks.requests.saturating_sub(flushes), disks.requests);
            pairs.push((Counter::DiskRequests, Pair { ours: ours.requests, theirs, hidden: 0 }));
            pairs.push((Counter::DiskBytes, same(ours.bytes, disks.bytes, 0)));
        }
        self.checks.judge(machine_ns, &pairs)
    }

    fn has_life(&self, tick: &Tick) -> bool {
        tick.cost.collectors.iter().any(|collector| collector.name == "life")
    }

    /// Reads and writes, and how many flushes.
    fn our_disks(&self, tick: &Tick) -> (DiskSums, u64) {
        let (mut sums, mut flushes) = (DiskSums::default(), 0);
        for disk in &tick.disks {
            if self.diskstats.has_counted(&disk.name) {
                for op in [DiskOp::Read, DiskOp::Write] {
                    sums.requests += disk.ops[op as usize].requests;
                    sums.bytes += disk.ops[op as usize].bytes;
                }
                flushes += disk.ops[DiskOp::Flush as usize].requests;
            }
        }
        (sums, flushes)
    }
}

fn spent(tick: &Tick, machine_ns: u64) -> Spent {
    let collector = |name: &str| tick.cost.collectors.iter().find(|collector| collector.name == name);
    let background: u64 =
        tick.cost.threads.iter().filter(|thread| BACKGROUND.contains(&&*thread.role)).map(|thread| thread.ns).sum();
    let ns = |name| collector(name).and_then(|collector| collector.ns).unwrap_or(0);
    Spent {
        machine_ns,
        total_ns: tick.cost.total_ns().saturating_sub(background),
        walks_ns: ns("stacks"),
        walks: collector("stacks").map_or(0, |collector| collector.events),
        samples_ns: ns("oncpu"),
    }
}

impl Live {
    /// Judges a tick that is whole otherwise, and does what comes of it.
    pub(super) fn watch(&mut self, tick: &mut Tick, counted: Counted, procfs: Procfs) {
        let machine_ns = tick.span.len_ns().saturating_mul(tick.cpus.len().max(1) as u64);
        self.watching.hidden.follow(self.processes.hidden());
        tick.watch.checks = self.watching.compare(tick, counted, procfs, machine_ns);
        tick.watch.governor = self.watching.govern(tick, machine_ns);
        let changed = |what| {
            let mut changes = tick.watch.governor.iter().flat_map(|governor| &governor.changes);
            changes.find(|change| change.what == what).map(|change| change.to)
        };
        if let Some(walks_per_s) = changed(LeverKind::Walks) {
            self.walks_per_s = walks_per_s;
            self.instruct();
        }
        if let Some(rate_hz) = changed(LeverKind::Rate) {
            self.resample(rate_hz, tick);
        }
    }

    /// Samples at another rate. In between none is taken, so each counts for what it was taken for.
    fn resample(&mut self, rate_hz: u32, tick: &Tick) {
        if let Some(sampling) = &mut self.sampling {
            sampling.set_rate(rate_hz);
        }
        self.sample_weight = sample_weight(self.options.rate_hz, rate_hz);
        self.instruct();
        self.follow_cpus(tick);
    }

    /// Tells the programs how to go on.
    pub(super) fn instruct(&self) {
        self.flip.set(objects::settings(&self.options, self.walks_per_s, self.sample_weight));
    }
}
