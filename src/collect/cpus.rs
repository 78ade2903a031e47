//! What each CPU did, from `/proc/stat`, and which CPUs there are.

use rustc_hash::FxHashMap;

use super::host::read_bounded;
use super::mappings::ns_per_clock_tick;
use super::reread::Reread;
use crate::tick::CpuTick;

/// Ids beyond this are not believed (the kernel's own limit is 8192).
const MAX_ID: u32 = 65_535;
/// Frequencies read in one tick; each may cost a look at another CPU.
const FREQUENCIES_PER_TICK: usize = 16;

/// Where the time of one CPU went, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Which CPU.
    pub id: u32,
    /// Outside the kernel, with nice and guests.
    pub user_ns: u64,
    /// In the kernel, without interrupts.
    pub kernel_ns: u64,
    /// In hard interrupts.
    pub irq_ns: u64,
    /// In soft interrupts.
    pub softirq_ns: u64,
    /// Given to others by the hypervisor.
    pub steal_ns: u64,
    /// Idle, with or without I/O outstanding.
    pub idle_ns: u64,
}

impl CpuTime {
    /// As a part of a tick. `nodes`: NUMA nodes and their CPUs; a CPU of none is counted to node 0.
    pub fn tick(self, nodes: &[(u32, Vec<u32>)], mhz: Option<u32>) -> CpuTick {
        CpuTick {
            id: self.id,
            node: nodes.iter().find(|(_, cpus)| cpus.contains(&self.id)).map_or(0, |(node, _)| *node),
            user_ns: self.user_ns,
            kernel_ns: self.kernel_ns,
            irq_ns: self.irq_ns,
            softirq_ns: self.softirq_ns,
            steal_ns: self.steal_ns,
            idle_ns: self.idle_ns,
            mhz,
            ..CpuTick::default()
        }
    }
}

/// Columns of a line of `/proc/stat` that are counted; guest time is in user and nice already.
const COLUMNS: usize = 8;
type Counters = [u64; COLUMNS];

/// Reads `/proc/stat`, whose counters step by USER_HZ (10 ms).
pub struct CpuTimes {
    stat: Option<Reread>,
    last: FxHashMap<u32, Counters>,
    backwards: u64,
    counters: Option<StatCounters>,
    last_counters: Option<StatCounters>,
}

/// Counters of the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatCounters {
    /// Context switches.
    pub switches: u64,
    /// Threads and processes that were made.
    pub forks: u64,
}

impl CpuTimes {
    /// Takes the first reading.
    pub fn new() -> Self {
        // Each line of a CPU is below 250 bytes, what follows them is not needed.
        let stat = Reread::open("/proc/stat", 4 << 20).ok();
        let mut times =
            CpuTimes { stat, last: FxHashMap::default(), backwards: 0, counters: None, last_counters: None };
        times.read();
        times
    }

    /// Time of every online CPU since the last reading, by rising id. A CPU that came online since is left out once.
    pub fn read(&mut self) -> Vec<CpuTime> {
        match self.stat.as_mut().and_then(Reread::read).map(|text| (parse_stat(text), parse_counters(text))) {
            Some((now, counters)) => {
                self.counters = difference(counters, self.last_counters);
                self.last_counters = counters;
                self.since(now)
            }
            None => Vec::new(),
        }
    }

    /// What the last reading counted beyond the one before; `None` if either could not be read.
    pub fn counters(&self) -> Option<StatCounters> {
        self.counters
    }

    /// How many counters went backwards since the last call (idle and iowait do in some kernels); they counted as 0.
    pub fn take_backwards(&mut self) -> u64 {
        std::mem::take(&mut self.backwards)
    }

    fn since(&mut self, now: Vec<(u32, Counters)>) -> Vec<CpuTime> {
        let mut times = Vec::with_capacity(now.len());
        for (id, counters) in &now {
            let Some(last) = self.last.get(id) else { continue };
            let mut ns = [0; COLUMNS];
            for (ns, (now, last)) in ns.iter_mut().zip(counters.iter().zip(last)) {
                self.backwards += u64::from(now < last);
                *ns = now.saturating_sub(*last).saturating_mul(ns_per_clock_tick());
            }
            let [user, nice, kernel_ns, idle, iowait, irq_ns, softirq_ns, steal_ns] = ns;
            let (user_ns, idle_ns) = (user.saturating_add(nice), idle.saturating_add(iowait));
            times.push(CpuTime { id: *id, user_ns, kernel_ns, irq_ns, softirq_ns, steal_ns, idle_ns });
        }
        times.sort_unstable_by_key(|time| time.id);
        self.last = now.into_iter().collect();
        times
    }
}

impl Default for CpuTimes {
    fn default() -> Self {
        Self::new()
    }
}

fn difference(now: Option<StatCounters>, last: Option<StatCounters>) -> Option<StatCounters> {
    let (now, last) = (now?, last?);
    Some(StatCounters {
        switches: now.switches.saturating_sub(last.switches),
        forks: now.forks.saturating_sub(last.forks),
    })
}

/// The lines `ctxt` and `processes`.
fn parse_counters(text: &str) -> Option<StatCounters> {
    let value = |name: &str| text.lines().rev().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some(StatCounters { switches: value("ctxt ")?, forks: value("processes ")? })
}

fn parse_stat(text: &str) -> Vec<(u32, Counters)> {
    text.lines().take_while(|line| line.starts_with("cpu")).filter_map(parse_stat_line).collect()
}

fn parse_stat_line(line: &str) -> Option<(u32, Counters)> {
    let mut fields = line.strip_prefix("cpu")?.split(' ');
    let id = fields.next()?.parse().ok().filter(|&id| id <= MAX_ID)?;
    let mut counters = [0; COLUMNS];
    for counter in &mut counters {
        *counter = fields.next()?.parse().ok()?;
    }
    Some((id, counters))
}

/// Ids of the CPUs that are online, rising; there may be holes.
pub fn online() -> Vec<u32> {
    let list = read_bounded("/sys/devices/system/cpu/online", 64 << 10);
    let listed = list.map_or_else(Vec::new, |text| parse_list(&text));
    if listed.is_empty() {
        (0..std::thread::available_parallelism().map_or(1, |n| n.get() as u32)).collect()
    } else {
        listed
    }
}

/// One more than the largest id that a CPU can have until the next boot.
pub fn possible() -> u32 {
    let list = read_bounded("/sys/devices/system/cpu/possible", 64 << 10);
    let ids = list.map_or_else(Vec::new, |text| parse_list(&text));
    ids.last().or(online().last()).map_or(1, |last| last + 1)
}

/// A list such as `0-3,7,9-10`, rising; what cannot be understood is left out.
pub(super) fn parse_list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        (last <= MAX_ID).then_some(first..=last)
    };
    let mut ids: Vec<u32> = text.trim().split(',').take(MAX_ID as usize).filter_map(range).flatten().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Current frequencies, where cpufreq says them.
#[derive(Default)]
pub struct Frequencies {
    cpus: Vec<(u32, Reread, Option<u32>)>,
    next: usize,
}

impl Frequencies {
    /// Of these CPUs.
    pub fn of(cpus: &[u32]) -> Self {
        let file = |&id: &u32| {
            let path = format!("/sys/devices/system/cpu/cpu{id}/cpufreq/scaling_cur_freq");
            Some((id, Reread::open(&path, 64).ok()?, None))
        };
        Frequencies { cpus: cpus.iter().filter_map(file).collect(), next: 0 }
    }

    /// Reads the next few; on large machines every CPU gets its turn within some ticks.
    pub fn refresh(&mut self) {
        for _ in 0..self.cpus.len().min(FREQUENCIES_PER_TICK) {
            self.next = (self.next + 1) % self.cpus.len();
            let (_, file, mhz) = &mut self.cpus[self.next];
            *mhz = file.read().and_then(|text| text.trim().parse().ok()).map(|khz: u32| khz / 1000);
        }
    }

    /// MHz of one CPU when last read; `None` where the kernel does not say.
    pub fn mhz(&self, cpu: u32) -> Option<u32> {
        let at = self.cpus.binary_search_by_key(&cpu, |(id, ..)| *id).ok()?;
        self.cpus[at].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 10 1 5 100 7 2 3 4 0 0\ncpu3 1 0 0 50 0 0 0 0 0 0\nintr 5 cpu9\nctxt 7\n";

    fn times() -> CpuTimes {
        CpuTimes { stat: None, last: FxHashMap::default(), backwards: 0, counters: None, last_counters: None }
    }

    #[test]
    fn time_between_two_readings() {
        let mut times = times();
        assert_eq!(times.since(parse_stat(STAT)), [], "nothing to compare with");
        let ns = ns_per_clock_tick();
        let later = "cpu  0\ncpu3 1 0 0 51 0 0 0 0\ncpu0 12 2 8 104 6 3 5 4 9 9\ncpu5 1 1 1 1 1 1 1 1\n";
        let [zero, three] = times.since(parse_stat(later))[..] else { panic!("CPU 5 came just now") };
        let expected = CpuTime {
            id: 0,
            user_ns: 3 * ns,
            kernel_ns: 3 * ns,
            irq_ns: ns,
            softirq_ns: 2 * ns,
            steal_ns: 0,
            idle_ns: 4 * ns,
        };
        assert_eq!(zero, expected);
        assert_eq!((three.id, three.idle_ns), (3, ns));
        assert_eq!(times.take_backwards(), 1, "iowait of CPU 0");
        assert_eq!(times.take_backwards(), 0);
        // CPU 0 goes offline and comes back with smaller counters.
        times.since(parse_stat("cpu3 1 0 0 51 0 0 0 0\n"));
        assert!(times.since(parse_stat(STAT)).iter().all(|time| time.id == 3));
    }

    #[test]
    fn torn_and_hostile_texts() {
        for cut in 0..STAT.len() {
            parse_stat(&STAT[..cut]);
        }
        assert!(parse_stat("cpu99999999999 1 1 1 1 1 1 1 1\ncpu1 -1 1 1 1 1 1 1 1\ncpu2 1 2\ncpux\n").is_empty());
        let mut times = times();
        times.since(parse_stat("cpu0 0 0 0 0 0 0 0 0\n"));
        times.since(parse_stat("cpu0 18446744073709551615 1 1 18446744073709551615 1 1 1 1\n"));
    }

    #[test]
    fn lists_with_holes() {
        assert_eq!(parse_list("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse_list("3,1,1-2"), [1, 2, 3]);
        assert!(parse_list("").is_empty());
        assert!(parse_list("5-1,a-b,-,0-4294967295,4294967296").is_empty());
    }

    #[test]
    fn counters_of_the_whole_machine() {
        let text = "cpu0 1 2 3 4 5 6 7 8\nintr 5 0\nctxt 1234\nbtime 9\nprocesses 77\nprocs_running 1\n";
        let counters = parse_counters(text);
        assert_eq!(counters, Some(StatCounters { switches: 1234, forks: 77 }));
        let later = Some(StatCounters { switches: 1300, forks: 70 });
        assert_eq!(difference(later, counters), Some(StatCounters { switches: 66, forks: 0 }));
        assert_eq!((difference(later, None), parse_counters("ctxt 5\n")), (None, None));
    }

    #[test]
    fn this_machine() {
        let online = online();
        assert!(!online.is_empty());
        let mut times = CpuTimes::new();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let ids: Vec<u32> = times.read().iter().map(|time| time.id).collect();
        assert_eq!(ids, online);
        let mut frequencies = Frequencies::of(&online);
        frequencies.refresh();
        assert!(frequencies.mhz(online[0]).is_none_or(|mhz| (100..10_000).contains(&mhz)));
    }
}
