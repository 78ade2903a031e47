//! Whether what we count is what procfs counts. Pure: numbers in, verdicts out.
//!
//! Both sides are read within a millisecond of each other, never at the same moment, and `/proc/stat` counts time in ticks
//! of the clock. So sums over the last few intervals are compared, each with a tolerance of its own.

use std::collections::VecDeque;

use crate::tick::{Check, Counter, Verdict};

/// Intervals whose sums are compared, and so many there must be.
const WINDOW: usize = 5;
const FEWEST: usize = 3;

/// What one interval brought of one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// What we counted.
    pub ours: u64,
    /// What procfs counted, at least and at most.
    pub theirs: (u64, u64),
    /// What is known to be hidden from us, at most.
    pub hidden: u64,
}

/// How everything on CPUs is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Times per second and CPU.
    pub rate_hz: u32,
    /// By hardware cycles, not by a timer.
    pub by_cycles: bool,
    /// sberf itself, too.
    pub include_self: bool,
}

/// CPU time of an interval, for which samples are due.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Of all, by the one account of it or the other: at least and at most.
    pub ns: (u64, u64),
    /// Of that, sberf's own.
    pub own_ns: u64,
    /// What is known to be hidden from us.
    pub hidden_ns: u64,
    /// The length of the interval on all CPUs.
    pub machine_ns: u64,
}

impl Sampling {
    /// So many samples, beside what is due.
    pub fn pair(&self, samples: u64, due: &Due) -> Pair {
        let worth = |ns: u64| (u128::from(ns) * u128::from(self.rate_hz) / 1_000_000_000) as u64;
        let own_ns = if self.include_self { 0 } else { due.own_ns };
        // The kernel aims at a number of cycles by what a CPU went through in a whole clock tick, idle or not: with little to do
        // they come faster than its own time would have it.
        let most_ns = if self.by_cycles { due.ns.1.max(due.machine_ns) } else { due.ns.1 };
        Pair {
            ours: samples,
            theirs: (worth(due.ns.0.saturating_sub(own_ns)), worth(most_ns)),
            hidden: worth(due.hidden_ns),
        }
    }
}

/// How far apart the two sides may be.
struct Tolerance {
    /// Of what procfs counts.
    share: f64,
    /// Beside that, per interval.
    more: u64,
    /// Below this sum nothing can be told.
    fewest: u64,
}

fn tolerance(what: Counter, machine_ns: u64) -> Tolerance {
    match what {
        // Between the two readings pass some 100 us, at a million switches a second.
        Counter::Switches => Tolerance { share: 0.03, more: 200, fewest: 2000 },
        // A clock tick is charged to whoever runs when it strikes.
        Counter::CpuTime => Tolerance { share: 0.10, more: machine_ns / 20, fewest: machine_ns / 4 },
        // Flushes and what drivers send themselves may be counted by one side only.
        Counter::DiskRequests => Tolerance { share: 0.05, more: 5, fewest: 100 },
        Counter::DiskBytes => Tolerance { share: 0.05, more: 1 << 20, fewest: 16 << 20 },
        Counter::Forks => Tolerance { share: 0.05, more: 3, fewest: 50 },
        // A count of events at a fixed distance varies like the time they fall into, by less than its root; a hypervisor that takes
        // time away without saying so takes the samples of that time, too.
        Counter::Samples => Tolerance { share: 0.5, more: 3, fewest: 50 },
    }
}

/// The last intervals of one counter.
#[derive(Debug)]
struct Track {
    what: Counter,
    pairs: VecDeque<Pair>,
}

/// All comparisons.
#[derive(Debug, Default)]
pub struct Checks(Vec<Track>);

impl Checks {
    /// Takes in an interval; counters that are not told of are not compared. `machine_ns`: its length on all CPUs.
    pub fn judge(&mut self, machine_ns: u64, pairs: &[(Counter, Pair)]) -> Vec<Check> {
        self.0.retain(|track| pairs.iter().any(|(what, _)| *what == track.what));
        pairs.iter().map(|&(what, pair)| self.track(what).judge(pair, machine_ns)).collect()
    }

    fn track(&mut self, what: Counter) -> &mut Track {
        let at = self.0.iter().position(|track| track.what == what).unwrap_or_else(|| {
            self.0.push(Track { what, pairs: VecDeque::new() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

impl Track {
    fn judge(&mut self, pair: Pair, machine_ns: u64) -> Check {
        if self.pairs.len() == WINDOW {
            self.pairs.pop_front();
        }
        self.pairs.push_back(pair);
        let sum = |of: fn(&Pair) -> u64| self.pairs.iter().map(of).fold(0u64, u64::saturating_add);
        let sums = Pair {
            ours: sum(|pair| pair.ours),
            theirs: (sum(|pair| pair.theirs.0), sum(|pair| pair.theirs.1)),
            hidden: sum(|pair| pair.hidden),
        };
        let count = self.pairs.len();
        let verdict = match count < FEWEST {
            true => Verdict::TooFew,
            false => verdict(&sums, &tolerance(self.what, machine_ns), count as u64),
        };
        Check { what: self.what, ours: sums.ours, theirs: sums.theirs.0, hidden: sums.hidden, verdict }
    }
}

fn verdict(sums: &Pair, tolerance: &Tolerance, intervals: u64) -> Verdict {
    let Pair { ours, theirs: (least, most), hidden } = *sums;
    if ours.max(least) < tolerance.fewest {
        return Verdict::TooFew;
    }
    let slack = tolerance.more.saturating_mul(intervals);
    let most = (most as f64 * (1.0 + tolerance.share)) as u64;
    let least = (least as f64 * (1.0 - tolerance.share)) as u64;
    let seen = ours.saturating_add(hidden).saturating_add(slack);
    match (seen >= least && ours <= most.saturating_add(slack), ours) {
        (true, _) => Verdict::Agrees,
        (false, 0) => Verdict::Silent,
        (false, _) => Verdict::Disagrees,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE_NS: u64 = 2_000_000_000;

    fn pair(ours: u64, theirs: u64) -> Pair {
        Pair { ours, theirs: (theirs, theirs), hidden: 0 }
    }

    /// The verdicts, interval by interval.
    fn verdicts(what: Counter, pairs: &[Pair]) -> Vec<Verdict> {
        let mut checks = Checks::default();
        pairs.iter().map(|&pair| checks.judge(MACHINE_NS, &[(what, pair)])[0].verdict).collect()
    }

    use Verdict::*;

    #[test]
    fn the_same_on_both_sides_agrees_after_a_while() {
        let got = verdicts(Counter::Switches, &[pair(10_000, 10_050); 4]);
        assert_eq!(got, [TooFew, TooFew, Agrees, Agrees]);
        assert_eq!(verdicts(Counter::Switches, &[pair(100, 90); 4])[3], TooFew);
    }

    #[test]
    fn a_program_that_was_detached_is_noticed_and_forgiven() {
        let mut pairs = vec![pair(10_000, 10_000); 5];
        pairs.extend([pair(0, 10_000); 6]);
        let got = verdicts(Counter::Switches, &pairs);
        assert_eq!(got[4], Agrees);
        assert_eq!(got[5], Disagrees, "a fifth is missing at once");
        assert_eq!(got[9], Silent);
        pairs.extend([pair(10_000, 10_000); 5]);
        assert_eq!(verdicts(Counter::Switches, &pairs).last(), Some(&Agrees));
    }

    #[test]
    fn what_is_known_to_be_hidden_is_no_alarm() {
        let pairs = [Pair { hidden: 4000, ..pair(6_000, 10_000) }; 5];
        assert_eq!(verdicts(Counter::Switches, &pairs)[4], Agrees);
        let pairs = [Pair { hidden: 1000, ..pair(6_000, 10_000) }; 5];
        assert_eq!(verdicts(Counter::Switches, &pairs)[4], Disagrees);
    }

    #[test]
    fn more_than_there_was_is_an_alarm_too() {
        assert_eq!(verdicts(Counter::DiskRequests, &[pair(2000, 1000); 3])[2], Disagrees);
        assert_eq!(verdicts(Counter::DiskBytes, &[pair(64 << 20, 0); 3])[2], Disagrees);
    }

    #[test]
    fn interrupts_and_steal_may_be_on_either_side() {
        let busy = Pair { ours: 1_500_000_000, theirs: (1_200_000_000, 1_700_000_000), hidden: 0 };
        assert_eq!(verdicts(Counter::CpuTime, &[busy; 3])[2], Agrees);
        let blind = Pair { ours: 0, ..busy };
        assert_eq!(verdicts(Counter::CpuTime, &[blind; 3])[2], Silent);
        let idle = Pair { ours: 30_000_000, theirs: (10_000_000, 20_000_000), hidden: 0 };
        assert_eq!(verdicts(Counter::CpuTime, &[idle; 3])[2], TooFew);
    }

    #[test]
    fn a_few_forks_prove_nothing() {
        assert_eq!(verdicts(Counter::Forks, &[pair(0, 5); 3])[2], TooFew);
        assert_eq!(verdicts(Counter::Forks, &[pair(0, 50); 3])[2], Silent);
        assert_eq!(verdicts(Counter::Forks, &[pair(49, 50); 3])[2], Agrees);
    }

    fn sampled(samples: u64, sampling: Sampling, due: Due) -> Verdict {
        verdicts(Counter::Samples, &[sampling.pair(samples, &due); 5])[4]
    }

    #[test]
    fn samples_are_due_for_time_on_cpus() {
        let timer = Sampling { rate_hz: 99, by_cycles: false, include_self: false };
        let second = 1_000_000_000;
        let busy = Due { ns: (second, second), own_ns: 0, hidden_ns: 0, machine_ns: MACHINE_NS };
        assert_eq!(sampled(99, timer, busy), Agrees);
        assert_eq!(sampled(60, timer, busy), Agrees, "a hypervisor took some");
        assert_eq!(sampled(40, timer, busy), Disagrees);
        assert_eq!(sampled(0, timer, busy), Silent);
        assert_eq!(sampled(198, timer, busy), Disagrees, "an event too many");
        let idle = Due { ns: (second / 20, second / 10), ..busy };
        assert_eq!(sampled(0, timer, idle), TooFew, "25 in five seconds");
        assert_eq!(sampled(0, Sampling { rate_hz: 997, ..timer }, idle), Silent);
        let own = Due { own_ns: second, ..busy };
        assert_eq!(sampled(0, timer, own), TooFew, "only we ran");
        assert_eq!(sampled(0, Sampling { include_self: true, ..timer }, own), Silent);
        let hidden = Due { hidden_ns: second, ..busy };
        assert_eq!(sampled(0, timer, hidden), Agrees);
        let cycles = Sampling { by_cycles: true, ..timer };
        let little = Due { ns: (second / 5, second / 5), ..busy };
        assert_eq!(sampled(60, timer, little), Disagrees);
        assert_eq!(sampled(60, cycles, little), Agrees, "they come faster with little to do");
        assert_eq!(sampled(0, cycles, little), Silent);
    }

    #[test]
    fn samples_vary_with_chance() {
        // A stretch of work of any length begins at any moment, between samples at a fixed distance.
        let (mut seed, mut worst) = (7u64, 0);
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let timer = Sampling { rate_hz: 99, by_cycles: false, include_self: false };
        let distance_ns = 1_000_000_000 / 99;
        for _ in 0..2000 {
            let (mut at, mut pairs) = (0, Vec::new());
            for _ in 0..5 {
                let (mut samples, mut ns) = (0, 0);
                let end = at + 1_000_000_000;
                while at < end {
                    let (from, to) = (at + random(20_000_000), at + 20_000_000 + random(4_000_000));
                    samples += to / distance_ns - from / distance_ns;
                    ns += to - from;
                    at = to + random(20_000_000);
                }
                let due = Due { ns: (ns, ns), own_ns: 0, hidden_ns: 0, machine_ns: MACHINE_NS };
                pairs.push(timer.pair(samples, &due));
            }
            worst += verdicts(Counter::Samples, &pairs).iter().filter(|verdict| verdict.is_alarm()).count();
        }
        assert_eq!(worst, 0, "alarms in 2000 windows");
    }

    #[test]
    fn a_counter_that_is_gone_starts_anew() {
        let mut checks = Checks::default();
        let forks = |ours| [(Counter::Forks, pair(ours, 100))];
        (0..5).for_each(|_| drop(checks.judge(MACHINE_NS, &forks(0))));
        assert!(checks.judge(MACHINE_NS, &[]).is_empty());
        assert_eq!(checks.judge(MACHINE_NS, &forks(100))[0].verdict, TooFew);
    }

    #[test]
    fn any_numbers() {
        for what in Counter::ALL {
            let most = Pair { ours: u64::MAX, theirs: (u64::MAX, u64::MAX), hidden: u64::MAX };
            verdicts(what, &[most, Pair::default(), most, most, most, most]);
        }
    }
}
