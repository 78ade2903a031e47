//! Threads by procfs alone: two readings of their counters make the account of an interval.
//!
//! What is charged: time on a CPU as the scheduler counts it, split as the kernel's own ticks say; time waiting for a CPU, which
//! procfs tells when the wait ends (a thread that is seen ready at both ends and never ran waited all the time). The rest it
//! was blocked, for reasons that procfs does not tell to everybody: `other`, or `stopped` if that is what it was at both ends.
//! Threads that live between two readings are not seen.

use rustc_hash::FxHashMap;

use super::stat::{SchedStat, Stat, parse_schedstat, parse_stat};
use crate::collect::mappings::ns_per_clock_tick;
use crate::collect::processes::Leader;
use crate::collect::reconcile::numbers_in;
use crate::tick::{ProcessKey, Span, State, StateNs, ThreadKey, ThreadTick};

/// So often who a process belongs to is read again.
const USERS_EVERY: u32 = 30;

/// All threads that are known.
pub struct Threads {
    seen: FxHashMap<u32, Seen>,
    users: FxHashMap<u32, (u64, u32)>,
    tick: u32,
    run_delay: bool,
    page_bytes: u64,
}

/// What was read of a thread last.
#[derive(Clone, Debug)]
struct Seen {
    tick: u32,
    process: ProcessKey,
    stat: Stat,
    /// How far it was read, and how far it was charged.
    read: SchedStat,
    charged: SchedStat,
    since_ns: u64,
    user_share: f64,
}

/// What one pass has shown.
#[derive(Default)]
pub struct Pass {
    pub threads: Vec<ThreadTick>,
    pub leaders: Vec<Leader>,
    /// Processes that became another program, as far as their names tell.
    pub renamed: Vec<ProcessKey>,
}

impl Threads {
    /// None yet.
    pub fn new() -> Self {
        Threads {
            seen: FxHashMap::default(),
            users: FxHashMap::default(),
            tick: 0,
            run_delay: has_run_delay(),
            page_bytes: rustix::param::page_size() as u64,
        }
    }

    /// Whether the scheduler tells how long threads wait for a CPU.
    pub fn run_delay(&self) -> bool {
        self.run_delay
    }

    /// Reads all of them. `boot_offset_ns`: CLOCK_BOOTTIME less CLOCK_MONOTONIC.
    pub fn pass(&mut self, span: Span, boot_offset_ns: u64, wanted: impl Fn(u32) -> bool) -> Pass {
        self.tick += 1;
        let mut pass = Pass::default();
        for pid in numbers_in("/proc") {
            if wanted(pid) {
                self.process(pid, span, boot_offset_ns, &mut pass);
            }
        }
        let tick = self.tick;
        self.seen.retain(|_, seen| seen.tick == tick);
        self.users.retain(|_, (_, seen)| *seen == tick);
        pass
    }

    fn process(&mut self, pid: u32, span: Span, offset: u64, pass: &mut Pass) {
        let Some(stat) = read_stat(pid, pid) else { return };
        let process = ProcessKey { tgid: pid, start_ns: stat.start_ticks.saturating_mul(ns_per_clock_tick()) };
        let uid = self.user(process);
        let user_memory = !stat.kernel && stat.virtual_bytes > 0;
        let former = self.seen.get(&pid).filter(|seen| seen.process == process);
        if former.is_some_and(|seen| seen.stat.comm != stat.comm) {
            pass.renamed.push(process);
        }
        pass.leaders.push(Leader {
            key: process,
            ppid: stat.ppid,
            uid,
            kernel: stat.kernel,
            comm: stat.comm.clone(),
            rss_bytes: user_memory.then(|| stat.rss_pages.saturating_mul(self.page_bytes)),
            virtual_bytes: user_memory.then_some(stat.virtual_bytes),
        });
        let threads = stat.threads;
        self.thread(pid, process, Some(stat), span, offset, pass);
        if threads > 1 {
            for tid in numbers_in(&format!("/proc/{pid}/task")) {
                if tid != pid {
                    self.thread(tid, process, None, span, offset, pass);
                }
            }
        }
    }

    /// One thread. `stat` was read already if it is the first of its process.
    fn thread(&mut self, tid: u32, process: ProcessKey, stat: Option<Stat>, span: Span, offset: u64, pass: &mut Pass) {
        let read = if self.run_delay { read_schedstat(process.tgid, tid) } else { None };
        let former = self.seen.remove(&tid).filter(|seen| seen.process == process);
        // A thread that did not run since is as it was, unless it was ready: then it may have been told to sleep.
        let same = former.as_ref().filter(|seen| read == Some(seen.read) && seen.stat.state != b'R');
        let stat = stat.or_else(|| same.map(|seen| seen.stat.clone())).or_else(|| read_stat(process.tgid, tid));
        let Some(stat) = stat else { return };
        let key = ThreadKey { tid, start_ns: stat.start_ticks.saturating_mul(ns_per_clock_tick()) };
        let former = former.filter(|seen| seen.stat.start_ticks == stat.start_ticks);
        let read = read.unwrap_or_else(|| of_ticks(&stat));
        let born_ns = key.start_ns.saturating_sub(offset).max(span.start_ns);
        let young = key.start_ns.saturating_sub(offset) >= span.start_ns;
        let mut seen = Seen::after(former.as_ref(), read, young, stat);
        let lived_ns = if former.is_some() { span.len_ns() } else { span.end_ns.saturating_sub(born_ns) };
        let ns = seen.charge(former.as_ref(), read, lived_ns);
        let stat = &seen.stat;
        let faults = match (&former, young) {
            (Some(former), _) => (former.stat.minor_faults, former.stat.major_faults),
            (None, true) => (0, 0),
            (None, false) => (stat.minor_faults, stat.major_faults),
        };
        let ran = former.as_ref().is_none_or(|former| former.read.cpu_ns != read.cpu_ns);
        let unchanged =
            former.as_ref().filter(|former| former.stat.state == stat.state && former.read.runs == read.runs);
        seen.since_ns =
            unchanged.map_or(if former.is_some() { span.end_ns } else { born_ns }, |former| former.since_ns);
        pass.threads.push(ThreadTick {
            key,
            process,
            comm: stat.comm.clone(),
            ns,
            now: Some(now(stat.state, ran)),
            since_ns: seen.since_ns,
            cpu: stat.cpu,
            minor_faults: stat.minor_faults.saturating_sub(faults.0),
            major_faults: stat.major_faults.saturating_sub(faults.1),
            ..ThreadTick::default()
        });
        self.seen.insert(tid, Seen { tick: self.tick, process, ..seen });
    }

    /// Real user, read now and then.
    fn user(&mut self, process: ProcessKey) -> u32 {
        let due = self.tick.wrapping_add(process.tgid).is_multiple_of(USERS_EVERY);
        if let Some((start, uid)) = self.users.get(&process.tgid).copied()
            && start == process.start_ns
            && !due
        {
            return uid;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.tgid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let uid = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0);
        self.users.insert(process.tgid, (process.start_ns, uid));
        uid
    }
}

impl Seen {
    /// Where the account goes on. Of a thread that is first seen and is no child of this interval, what it did before does
    /// not count.
    fn after(former: Option<&Seen>, read: SchedStat, young: bool, stat: Stat) -> Seen {
        let (charged, base, known) = match former {
            Some(former) => (former.charged, (former.stat.user_ticks, former.stat.kernel_ticks), former.user_share),
            None => (if young { SchedStat::default() } else { read }, (0, 0), f64::from(u8::from(!stat.kernel))),
        };
        let (user, kernel) = (stat.user_ticks.saturating_sub(base.0), stat.kernel_ticks.saturating_sub(base.1));
        let user_share = share(user, kernel).unwrap_or(known);
        Seen { tick: 0, process: ProcessKey::default(), stat, read, charged, since_ns: 0, user_share }
    }

    /// Charges what was read beyond what was charged to `lived_ns`. Time on a CPU beyond that waits for the next interval (the
    /// readings of a pass are not all of one instant); waits beyond it belong to intervals that are gone.
    fn charge(&mut self, former: Option<&Seen>, read: SchedStat, lived_ns: u64) -> StateNs {
        let mut ns = StateNs::default();
        let on_cpu = read.cpu_ns.saturating_sub(self.charged.cpu_ns).min(lived_ns);
        self.charged.cpu_ns += on_cpu;
        let user = ((on_cpu as f64 * self.user_share) as u64).min(on_cpu);
        (ns[State::User], ns[State::Kernel]) = (user, on_cpu - user);
        let rest = lived_ns - on_cpu;
        let waits_all_along = former.is_some_and(|former| former.waits_on(read, &self.stat));
        let waited = match waits_all_along {
            true => rest,
            false => read.delay_ns.saturating_sub(self.charged.delay_ns).min(rest),
        };
        self.charged.delay_ns = match waits_all_along {
            true => self.charged.delay_ns.saturating_add(waited),
            // What was charged ahead is more than what was told so far: it will be told.
            false => self.charged.delay_ns.max(read.delay_ns),
        };
        ns[State::Woken] = waited;
        let stopped = former.is_some_and(|former| is_stopped(former.stat.state) && on_cpu == 0);
        ns[if stopped { State::Stopped } else { State::Other }] = rest - waited;
        ns
    }

    /// It was ready when it was looked at before, is so now, and did not run.
    fn waits_on(&self, read: SchedStat, now: &Stat) -> bool {
        self.stat.state == b'R' && now.state == b'R' && (self.read.cpu_ns, self.read.runs) == (read.cpu_ns, read.runs)
    }
}

fn share(user: u64, kernel: u64) -> Option<f64> {
    (user + kernel > 0).then(|| user as f64 / (user + kernel) as f64)
}

fn is_stopped(state: u8) -> bool {
    matches!(state, b'T' | b't')
}

/// What it does now. Of a thread that is ready nobody says whether it runs; if it ran in the interval, it is taken to.
fn now(state: u8, ran: bool) -> State {
    match state {
        b'R' if ran => State::User,
        b'R' => State::Woken,
        _ if is_stopped(state) => State::Stopped,
        _ => State::Other,
    }
}

/// Where the scheduler counts nothing, clock ticks must do.
fn of_ticks(stat: &Stat) -> SchedStat {
    let ticks = stat.user_ticks.saturating_add(stat.kernel_ticks);
    SchedStat { cpu_ns: ticks.saturating_mul(ns_per_clock_tick()), ..SchedStat::default() }
}

/// Kernels without CONFIG_SCHED_INFO have no such file, or one of zeros.
fn has_run_delay() -> bool {
    std::fs::read("/proc/self/schedstat")
        .ok()
        .and_then(|bytes| parse_schedstat(&bytes))
        .is_some_and(|read| read.cpu_ns > 0)
}

fn read_stat(pid: u32, tid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?)
}

fn read_schedstat(pid: u32, tid: u32) -> Option<SchedStat> {
    parse_schedstat(&std::fs::read(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn stat(state: u8, user_ticks: u64, kernel_ticks: u64) -> Stat {
        Stat { state, user_ticks, kernel_ticks, ..Stat::default() }
    }

    fn read(cpu_ns: u64, delay_ns: u64, runs: u64) -> SchedStat {
        SchedStat { cpu_ns, delay_ns, runs }
    }

    /// Charges one second after another; yields (user, kernel, runnable, stopped, other) of each but the first.
    fn story(readings: &[(Stat, SchedStat)]) -> Vec<[u64; 5]> {
        let mut former: Option<Seen> = None;
        let mut charged = Vec::new();
        for (stat, read) in readings {
            let mut seen = Seen::after(former.as_ref(), *read, false, stat.clone());
            let ns = seen.charge(former.as_ref(), *read, SECOND);
            assert_eq!(ns.total(), SECOND, "it adds up");
            charged
                .push([State::User, State::Kernel, State::Woken, State::Stopped, State::Other].map(|state| ns[state]));
            former = Some(seen);
        }
        charged.split_off(1)
    }

    #[test]
    fn cpu_time_is_split_as_the_ticks_say_and_the_rest_is_other() {
        let told = story(&[
            (stat(b'S', 10, 10), read(5 * SECOND, 7, 3)),
            (stat(b'S', 13, 11), read(5 * SECOND + 400, 7 + 100, 5)),
            (stat(b'S', 13, 11), read(5 * SECOND + 400, 7 + 100, 5)),
        ]);
        assert_eq!(told[0], [300, 100, 100, 0, SECOND - 500]);
        assert_eq!(told[1], [0, 0, 0, 0, SECOND]);
    }

    #[test]
    fn a_thread_that_is_ready_and_never_runs_is_runnable_now_and_not_twice() {
        let waiting = |delay| (stat(b'R', 0, 0), read(0, delay, 1));
        // Two seconds of waiting, told only when the wait ends half a second into the third.
        let told = story(&[
            waiting(0),
            waiting(0),
            waiting(0),
            (stat(b'S', 1, 0), read(SECOND / 4, 2 * SECOND + SECOND / 2, 2)),
        ]);
        assert_eq!(told[0], [0, 0, SECOND, 0, 0]);
        assert_eq!(told[1], [0, 0, SECOND, 0, 0]);
        assert_eq!(told[2], [SECOND / 4, 0, SECOND / 2, 0, SECOND / 4]);
    }

    #[test]
    fn more_than_an_interval_holds_is_carried_over_or_belongs_to_the_past() {
        let told = story(&[
            (stat(b'R', 0, 0), read(0, 0, 1)),
            (stat(b'R', 100, 0), read(SECOND + 1000, 0, 1)),
            (stat(b'S', 200, 0), read(SECOND + 2000, 3 * SECOND, 2)),
            (stat(b'S', 200, 0), read(SECOND + 2000, 3 * SECOND, 2)),
        ]);
        assert_eq!(told[0], [SECOND, 0, 0, 0, 0]);
        assert_eq!(told[1], [2000, 0, SECOND - 2000, 0, 0]);
        assert_eq!(told[2], [0, 0, 0, 0, SECOND], "a wait that was over is not waited again");
    }

    #[test]
    fn stopped_is_what_was_stopped_and_did_not_run() {
        let told = story(&[
            (stat(b'T', 0, 0), read(0, 0, 1)),
            (stat(b'T', 0, 0), read(0, 0, 1)),
            (stat(b'S', 1, 0), read(500, 0, 2)),
        ]);
        assert_eq!(told[0], [0, 0, 0, SECOND, 0]);
        assert_eq!(told[1], [500, 0, 0, 0, SECOND - 500]);
    }

    #[test]
    fn threads_of_this_process_are_accounted_for() {
        let mut threads = Threads::new();
        let span = |start_ns, end_ns| Span { start_ns, end_ns, wall_ns: 0 };
        let own = std::process::id();
        threads.pass(span(1, 2), 0, |pid| pid == own);
        // The kernel brings the time of a running thread up to date at its tick, every 10 ms at the slowest.
        let used = || crate::collect::host::now_ns(rustix::time::ClockId::ThreadCPUTime);
        let until = used() + 50_000_000;
        while used() < until {}
        let pass = threads.pass(span(2, 2 + 10 * SECOND), 0, |pid| pid == own);
        assert_eq!(pass.leaders.len(), 1);
        assert!(pass.leaders[0].rss_bytes.is_some_and(|rss| rss > 1 << 20));
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let thread = pass.threads.iter().find(|thread| thread.key.tid == tid).unwrap();
        assert_eq!(thread.ns.total(), 10 * SECOND);
        assert!(thread.ns.on_cpu() > 0 || !threads.run_delay(), "{:?}", thread.ns);
    }
}
