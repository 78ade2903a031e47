//! Threads: the records of the task iterator and of threads that ended, to [`ThreadTick`]s, process facts, and the
//! weights of the places where they were blocked.

use rustc_hash::{FxHashMap, FxHashSet};

use super::hists;
use super::maps::Closed;
use super::skel::sched::types::{acc, place_key, task_rec};
use super::stacks::Weights;
use super::wire;
use crate::collect::processes::Leader;
use crate::tick::{Asleep, Hist, ProcessKey, State, StateNs, ThreadKey, ThreadTick};

/// Remembered places per thread, as `PLACES` in `src/bpf/sberf.h`.
pub const PLACES: usize = 4;
/// States as the kernel side numbers them; the first is split into user and kernel here.
const KERNEL_STATES: [State; 12] = [
    State::User,
    State::Woken,
    State::Preempted,
    State::Disk,
    State::Lock,
    State::Net,
    State::Pipe,
    State::Timer,
    State::Poll,
    State::Fault,
    State::Stopped,
    State::Other,
];
const NO_SYSCALL: u16 = 0xFFFF;

/// Counts that found no room in a thread's cache, by thread and kind.
pub type Spilled = FxHashMap<(u32, u64), [Vec<(u16, u64)>; 3]>;

/// One record: of a thread, and what it did if it did anything.
pub struct Record {
    pub task: task_rec,
    pub account: Option<(Box<acc>, [place_key; PLACES])>,
}

/// Takes one record off the front; `None` at the end, or where the rest is too short to be one.
pub fn take(bytes: &mut &[u8]) -> Option<Record> {
    let task: task_rec = wire::take(bytes)?;
    let account = match task.has_acc {
        0 => None,
        _ => {
            let account: acc = wire::take(bytes)?;
            let mut places = [place_key::default(); PLACES];
            for place in &mut places {
                *place = wire::take(bytes)?;
            }
            Some((Box::new(account), places))
        }
    };
    Some(Record { task, account })
}

/// Processes among what the iterator told, those of the kernel left out.
pub fn processes(mut bytes: &[u8]) -> impl Iterator<Item = ProcessKey> {
    std::iter::from_fn(move || take(&mut bytes))
        .filter(|record| record.task.tid == record.task.tgid && record.task.kthread == 0)
        .map(|record| ProcessKey { tgid: record.task.tgid, start_ns: record.task.start_ns })
}

/// (PID, parent's PID) of every process among what the iterator told.
pub fn parents(mut bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> + Clone {
    std::iter::from_fn(move || take(&mut bytes))
        .filter(|record| record.task.tid == record.task.tgid)
        .map(|record| (record.task.tgid, record.task.ppid))
}

/// The process that a record is of the first thread of, as far as the record knows it.
pub fn leader_of(record: &Record) -> Option<Leader> {
    let task = &record.task;
    (task.tid == task.tgid).then(|| leader(process_of(task), task))
}

/// The process that a thread is of.
fn process_of(task: &task_rec) -> ProcessKey {
    ProcessKey { tgid: task.tgid, start_ns: task.leader_start_ns }
}

/// Threads that were seen once, over no time.
pub fn threads_of(mut bytes: &[u8]) -> Vec<ThreadTick> {
    let thread = |record: Record| ThreadTick {
        key: key_of(&record.task),
        process: process_of(&record.task),
        comm: wire::comm(&record.task.comm),
        now: state_of(record.task.state),
        ..ThreadTick::default()
    };
    std::iter::from_fn(|| take(&mut bytes)).map(thread).collect()
}

/// What a thread's own counters read last time; they only grow.
#[derive(Clone, Copy, Default)]
struct Seen {
    tick: u64,
    /// Which task: several may have one key after another, see [`Tasks::formerly`].
    task: u64,
    utime_ns: u64,
    stime_ns: u64,
    minor_faults: u64,
    major_faults: u64,
    /// Share of its CPU time outside the kernel, when last known.
    user_share: f32,
    /// What it slept at when it was last told of; `None` if it did not.
    slept: Option<Slept>,
}

/// What is known of a thread for as long as it goes on sleeping.
#[derive(Clone, Copy)]
struct Slept {
    process: ProcessKey,
    comm: [u8; 16],
    state: u8,
    since_ns: u64,
    cpu: u32,
    syscall: u16,
    stack: u64,
}

impl Slept {
    fn of(task: &task_rec) -> Option<Self> {
        (task.dead == 0 && state_of(task.sleeps_as)?.is_blocked()).then(|| Slept {
            process: process_of(task),
            comm: task.comm.map(i8::cast_unsigned),
            state: task.sleeps_as,
            since_ns: task.since_ns,
            cpu: task.cpu,
            syscall: task.syscall,
            stack: task.stack,
        })
    }

    /// It slept for all of an interval.
    fn on(&self, key: ThreadKey, ns: u64, weights: &mut Weights, harvest: &mut Harvest) {
        match key.tid == self.process.tgid {
            true => weights.slept_on(self.process, self.state, self.stack, ns),
            false => weights.blocked(self.process, u64::from(self.state), self.stack, ns, 0),
        }
        harvest.asleep.push(Asleep {
            key,
            process: self.process,
            comm: self.comm,
            state: state_of(self.state).unwrap_or(State::Other),
            since_ns: self.since_ns,
            cpu: self.cpu,
            syscall: (self.syscall != NO_SYSCALL).then_some(u32::from(self.syscall)),
        });
    }
}

/// The kernel side's number of a state to ours.
fn state_of(number: u8) -> Option<State> {
    KERNEL_STATES.get(usize::from(number)).copied()
}

/// All threads that are known, by key.
#[derive(Default)]
pub struct Tasks {
    seen: FxHashMap<ThreadKey, Seen>,
    tick: u64,
    /// How many slept in the last interval: about as many as in the next.
    slept: usize,
    /// Who had or wanted a CPU when last told of: such a thread may spend an interval without an event, and not sleep.
    awake: Vec<u32>,
}

/// What the kernel side told of the threads of an interval.
pub struct Told<'a> {
    /// Records.
    pub records: &'a [u8],
    /// Of every thread; else of those only that had an event or were awake.
    pub all: bool,
}

/// What the records of one interval are read against.
pub struct Interval<'a> {
    pub closed: Closed,
    /// NUMA nodes and their CPUs.
    pub nodes: &'a [(u32, Vec<u32>)],
    pub spilled: &'a Spilled,
    /// What the clock of start times is ahead of that of intervals: for how long the machine was suspended.
    pub boot_offset_ns: u64,
}

/// Threads of one interval.
#[derive(Default)]
pub struct Harvest {
    pub threads: Vec<ThreadTick>,
    /// Those that did nothing but go on sleeping.
    pub asleep: Vec<Asleep>,
    pub leaders: Vec<Leader>,
    /// Processes of which nothing new was told but that they are still there.
    pub still: Vec<ProcessKey>,
    /// Waits that ended whose stack was not taken, by process.
    pub not_taken: FxHashMap<(ProcessKey, State), u64>,
    /// Bytes that did not make a record.
    pub malformed: u64,
    /// Records, also of those nobody asked for.
    pub told: u64,
    /// On-CPU time in all of those.
    pub on_cpu_ns: u64,
}

impl Harvest {
    /// What the first thread of a process tells of that.
    fn lead(&mut self, process: ProcessKey, task: &task_rec) {
        match task.brief {
            _ if task.tid != task.tgid => {}
            0 => self.leaders.push(leader(process, task)),
            _ => self.still.push(process),
        }
    }

    fn count(&mut self, record: &Record) {
        self.told += 1;
        self.on_cpu_ns += match &record.account {
            Some((account, _)) => account.ns[0],
            None if record.task.state == 0 => record.task.lived_ns,
            None => 0,
        };
    }
}

impl Tasks {
    /// Reads the records of the interval: first the dead, then those that the iterator showed. A thread that ended while
    /// the iterator ran can be in both; it counts once.
    pub fn harvest(
        &mut self,
        interval: &Interval<'_>,
        dead: Vec<Record>,
        alive: &Told<'_>,
        weights: &mut Weights,
        wanted: impl Fn(ProcessKey) -> bool,
    ) -> Harvest {
        self.tick += 1;
        let mut harvest = Harvest { asleep: Vec::with_capacity(self.slept + self.slept / 16), ..Harvest::default() };
        let (mut ended, mut left_word) = (FxHashMap::default(), FxHashSet::default());
        self.awake.clear();
        for record in dead {
            harvest.count(&record);
            if record.task.dead == 0 {
                self.awake.push(record.task.tid);
                // One that comes late is of an interval that is over, and says nothing of this one.
                if record.task.r#gen == interval.closed.generation {
                    left_word.insert(record.task.task);
                }
            }
            if wanted(process_of(&record.task)) {
                if record.task.dead != 0 {
                    ended.insert(key_of(&record.task), record.task.task);
                }
                self.one(interval, &record, weights, &mut harvest);
            }
        }
        let mut rest = alive.records;
        while !rest.is_empty() {
            let Some(record) = take(&mut rest) else {
                harvest.malformed += 1;
                break;
            };
            // It was told of while it executed a program, or ended: under whatever id, that was the same account.
            if left_word.contains(&record.task.task) {
                continue;
            }
            harvest.count(&record);
            if !state_of(record.task.state).is_some_and(State::is_blocked) {
                self.awake.push(record.task.tid);
            }
            if wanted(process_of(&record.task)) && !self.sleeps_on(interval, &record, weights, &mut harvest) {
                self.one(interval, &record, weights, &mut harvest);
            }
        }
        if !alive.all {
            self.sleep_on(interval.closed, weights, &mut harvest);
        }
        self.slept = harvest.asleep.len();
        let tick = self.tick;
        self.seen.retain(|key, seen| seen.tick == tick && ended.get(key) != Some(&seen.task));
        harvest
    }

    /// Threads that may not sleep although nothing happened to them since the last tick.
    pub fn awake(&self) -> &[u32] {
        &self.awake
    }

    /// Nothing happened to who was not told of: those that slept go on.
    fn sleep_on(&mut self, closed: Closed, weights: &mut Weights, harvest: &mut Harvest) {
        for (&key, seen) in self.seen.iter_mut().filter(|(_, seen)| seen.tick + 1 == self.tick) {
            let Some(slept) = seen.slept else { continue };
            seen.tick = self.tick;
            slept.on(key, closed.end_ns - closed.start_ns, weights, harvest);
            if key.tid == slept.process.tgid {
                harvest.still.push(slept.process);
            }
        }
    }

    /// Whether all there is to say of a thread is that it went on sleeping; then that was said.
    fn sleeps_on(
        &mut self,
        interval: &Interval<'_>,
        record: &Record,
        weights: &mut Weights,
        harvest: &mut Harvest,
    ) -> bool {
        let (task, closed) = (&record.task, interval.closed);
        let Some(slept) = Slept::of(task).filter(|_| record.account.is_none()) else { return false };
        if task.lived_ns != closed.end_ns - closed.start_ns || task.r#gen < closed.generation {
            return false;
        }
        let key = key_of(task);
        let Some(seen) = self.seen.get_mut(&key).filter(|seen| seen.tick + 1 == self.tick && seen.is_of(task)) else {
            return false;
        };
        seen.tick = self.tick;
        seen.slept = Some(slept);
        slept.on(key, task.lived_ns, weights, harvest);
        harvest.lead(slept.process, task);
        true
    }

    fn one(&mut self, interval: &Interval<'_>, record: &Record, weights: &mut Weights, harvest: &mut Harvest) {
        let &Interval { closed, nodes, spilled, boot_offset_ns } = interval;
        let task = &record.task;
        let key = key_of(task);
        let process = process_of(task);
        let born_now = key.start_ns >= closed.start_ns + boot_offset_ns;
        let known = self.seen.get(&key).copied();
        let (executed, before) = match known {
            Some(seen) if seen.task != task.task => (true, self.formerly(task.task)),
            _ => (false, known.map(|seen| (key, seen))),
        };
        if !executed && known.is_some_and(|seen| seen.tick == self.tick) {
            return;
        }
        if let Some((former, _)) = before.filter(|_| executed) {
            self.seen.remove(&former);
        }
        let (former, base) = before.unwrap_or_else(|| match born_now && !executed {
            true => (key, Seen::default()),
            false => (key, Seen::of(task)),
        });
        let user_share = share(task, &base);
        let state = if record.account.is_some() { task.state } else { task.sleeps_as };
        let mut tick = ThreadTick {
            key,
            process,
            comm: wire::comm(&task.comm),
            now: if task.dead == 0 { state_of(state) } else { None },
            since_ns: task.since_ns,
            cpu: task.cpu,
            syscall: (task.syscall != NO_SYSCALL && task.dead == 0).then_some(u32::from(task.syscall)),
            minor_faults: task.minor_faults.saturating_sub(base.minor_faults),
            major_faults: task.major_faults.saturating_sub(base.major_faults),
            ..ThreadTick::default()
        };
        match &record.account {
            Some((account, places)) => {
                tick.ns = split(&account.ns[..KERNEL_STATES.len()], user_share);
                tick.voluntary = account.voluntary;
                tick.involuntary = account.involuntary;
                tick.wakeups = account.wakeups;
                tick.migrations = account.migrations;
                let spilled_of = |key: ThreadKey| spilled.get(&(key.tid, key.start_ns));
                let spilled = spilled_of(key);
                let hist = |kind: usize| hists::of_cells(account, kind, spilled.map_or(&[], |all| &all[kind]));
                [tick.runq, tick.off_cpu, tick.slice] = [hist(0), hist(1), hist(2)];
                if let Some(earlier) = spilled_of(former).filter(|_| former != key) {
                    for (hist, counts) in [&mut tick.runq, &mut tick.off_cpu, &mut tick.slice].into_iter().zip(earlier)
                    {
                        counts.iter().for_each(|&(bucket, count)| hist.add(bucket, count));
                    }
                }
                if nodes.len() > 1 {
                    tick.node_ns = by_node(account, task.cpu, nodes);
                }
                for (place, spent) in places.iter().zip(account.place) {
                    weights.blocked(process, place.reason, place.stack, spent.ns, spent.count);
                }
                let untaken = account.place[PLACES].count;
                if untaken > 0 {
                    *harvest.not_taken.entry((process, main_reason(&tick.ns))).or_default() += untaken;
                }
            }
            None => {
                let mut ns = [0; KERNEL_STATES.len()];
                if let Some(slot) = ns.get_mut(usize::from(state)) {
                    *slot = task.lived_ns;
                }
                tick.ns = split(&ns, user_share);
                if state == 0 && nodes.len() > 1 {
                    tick.node_ns = vec![0; nodes.len()];
                    add_to_node(&mut tick.node_ns, task.cpu, nodes, task.lived_ns);
                }
                weights.blocked(process, u64::from(state), task.stack, task.lived_ns, 0);
            }
        }
        let mut seen = Seen::of(task);
        seen.user_share = user_share;
        // A record of the interval before, of a thread that ended in this one: the last record follows.
        seen.tick = if task.r#gen < closed.generation { 0 } else { self.tick };
        self.seen.insert(key, seen);
        harvest.lead(process, task);
        let follows = known.is_some_and(|known| known.tick == 0);
        let near = if task.dead != 0 || seen.tick == 0 { 64 } else { 0 };
        merge(&mut harvest.threads, tick, if executed || follows { usize::MAX } else { near });
    }

    /// What was seen last of a task that another key is given to now: a thread that executes a program becomes the
    /// first of its process, whatever it was. The first has ended then, under the same key.
    fn formerly(&self, task: u64) -> Option<(ThreadKey, Seen)> {
        self.seen.iter().find(|(_, seen)| seen.task == task).map(|(&key, &seen)| (key, seen))
    }
}

/// The reason for which a thread was blocked the longest: how many of its waits without a stack had which is not known.
fn main_reason(ns: &StateNs) -> State {
    let reasons = State::ALL.into_iter().filter(|state| state.is_blocked());
    reasons.max_by_key(|&state| ns[state]).unwrap_or(State::Other)
}

/// The last account of a thread may come as two records, one for each interval it touched, and one key may stand for two
/// tasks in turn: they are one thread. `near`: how far back the other record can be.
fn merge(threads: &mut Vec<ThreadTick>, tick: ThreadTick, near: usize) {
    let Some(twin) = threads.iter_mut().rev().take(near).find(|twin| twin.key == tick.key) else {
        threads.push(tick);
        return;
    };
    let mut sum = tick;
    sum.ns.add(&twin.ns);
    sum.voluntary += twin.voluntary;
    sum.involuntary += twin.involuntary;
    sum.wakeups += twin.wakeups;
    sum.migrations += twin.migrations;
    sum.minor_faults += twin.minor_faults;
    sum.major_faults += twin.major_faults;
    let hists: [(&mut Hist, &Hist); 3] =
        [(&mut sum.runq, &twin.runq), (&mut sum.off_cpu, &twin.off_cpu), (&mut sum.slice, &twin.slice)];
    for (mine, more) in hists {
        mine.merge(more);
    }
    for (mine, more) in sum.node_ns.iter_mut().zip(&twin.node_ns) {
        *mine += more;
    }
    *twin = sum;
}

impl Seen {
    /// It is of that task, and as its counters stand now.
    fn is_of(&self, task: &task_rec) -> bool {
        (self.task, self.utime_ns, self.stime_ns) == (task.task, task.utime_ns, task.stime_ns)
            && (self.minor_faults, self.major_faults) == (task.minor_faults, task.major_faults)
    }

    fn of(task: &task_rec) -> Self {
        Seen {
            tick: 0,
            task: task.task,
            utime_ns: task.utime_ns,
            stime_ns: task.stime_ns,
            minor_faults: task.minor_faults,
            major_faults: task.major_faults,
            user_share: ratio(task.utime_ns, task.stime_ns).unwrap_or(1.0),
            slept: Slept::of(task),
        }
    }
}

fn key_of(task: &task_rec) -> ThreadKey {
    ThreadKey { tid: task.tid, start_ns: task.start_ns }
}

fn ratio(user: u64, kernel: u64) -> Option<f32> {
    (user + kernel > 0).then(|| user as f32 / (user + kernel) as f32)
}

/// Share of its CPU time in the interval that was outside the kernel. The kernel counts that by ticks, so a thread that
/// ran for less than one keeps the share it had.
fn share(task: &task_rec, base: &Seen) -> f32 {
    let user = task.utime_ns.saturating_sub(base.utime_ns);
    let kernel = task.stime_ns.saturating_sub(base.stime_ns);
    ratio(user, kernel).unwrap_or(match base.utime_ns + base.stime_ns {
        0 => {
            if task.kthread != 0 {
                0.0
            } else {
                1.0
            }
        }
        _ => base.user_share,
    })
}

/// The kernel side's states to ours: time on a CPU is split by `user_share`, the rest is as it is.
fn split(ns: &[u64], user_share: f32) -> StateNs {
    let mut states = StateNs::default();
    for (&state, &ns) in KERNEL_STATES.iter().zip(ns) {
        states[state] = ns;
    }
    let on_cpu = states[State::User];
    let user = ((on_cpu as f64 * f64::from(user_share)) as u64).min(on_cpu);
    states[State::User] = user;
    states[State::Kernel] = on_cpu - user;
    states
}

/// On-CPU time by node. What was still running at the end of the interval is not in the kernel side's sums: it belongs to
/// the node of its CPU. So does what found its slot taken, which the kernel side counts (`LOSS_NODE`).
fn by_node(account: &acc, cpu: u32, nodes: &[(u32, Vec<u32>)]) -> Vec<u64> {
    let mut node_ns = vec![0; nodes.len()];
    for slot in account.node_ns {
        let id = (slot >> NODE_SHIFT) as u32;
        if let Some(at) = nodes.iter().position(|(node, _)| *node == id) {
            node_ns[at] += slot & ((1 << NODE_SHIFT) - 1);
        }
    }
    let rest = account.ns[0].saturating_sub(node_ns.iter().sum());
    add_to_node(&mut node_ns, cpu, nodes, rest);
    node_ns
}

/// As in `src/bpf/sberf.h`: a slot of a thread's account is of the node above.
const NODE_SHIFT: u32 = 48;

fn add_to_node(node_ns: &mut [u64], cpu: u32, nodes: &[(u32, Vec<u32>)], ns: u64) {
    let index = nodes.iter().position(|(_, cpus)| cpus.contains(&cpu)).unwrap_or(0);
    if let Some(node) = node_ns.get_mut(index) {
        *node += ns;
    }
}

fn leader(key: ProcessKey, task: &task_rec) -> Leader {
    let page = rustix::param::page_size() as u64;
    let has_mm = task.has_mm != 0;
    Leader {
        key,
        ppid: task.ppid,
        uid: task.uid,
        kernel: task.kthread != 0,
        comm: wire::comm(&task.comm),
        rss_bytes: has_mm.then(|| task.rss_pages.saturating_mul(page)),
        virtual_bytes: has_mm.then(|| task.vm_pages.saturating_mul(page)),
    }
}

#[cfg(test)]
#[path = "tasks_test.rs"]
mod tests;
