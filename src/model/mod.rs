//! What we know of the machine, in memory: entities, histograms and stack trees by window.
//!
//! No file, no clock, no terminal: time comes with each [`Tick`](crate::tick::Tick). What is kept of the past is bounded
//! by [`Limits`]; what was let go is counted as [`Loss::Evicted`].
#![forbid(unsafe_code)]

mod apply;
mod archive;
mod bound;
mod dense;
mod entity;
pub mod folded;
mod group;
mod hints;
mod history;
pub mod json;
mod latency;
mod names;
mod pack;
mod past;
mod quality;
mod saved;
#[cfg(test)]
mod story;
mod table;
#[cfg(test)]
mod tests;
mod track;
mod tree;
mod window;

pub use entity::{Exit, IoTotals, Process, Samples, Thread, Totals, is_idle_wait};
pub use hints::Hint;
pub use history::HistoryTick;
pub use latency::{Latency, Scope, hdr};
pub use names::{MAX_FRAMES, MAX_NAME_CHARS, NameTable, clean};
pub use quality::EndSum;
pub use saved::Saved;
pub use tree::{Behind, CallTree, Code, Merge, TreeLens, TreeNode, TreeQuery};
pub use window::Window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::apply::{ProcessEntry, ThreadEntry};
use self::archive::{Archive, Recorder};
use self::group::Groups;
use self::history::History;
use self::latency::Devices;
use self::names::Labels;
use self::pack::Sums;
use self::table::{Slot, Table};
use self::track::Track;
use crate::tick::{
    Basis, Cost, CpuTick, DiskTick, Event, Host, Loss, NodeTick, ProcessKey, Quota, Session, SlowRequest, Span, Stuck,
    ThreadKey, Tick, Watch,
};

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the ring of past ticks.
    pub history_bytes: usize,
    /// Bytes of names and stacks, and of their weights since the start.
    pub stacks_bytes: usize,
    /// How long the dead stay listed.
    pub keep_exited: Duration,
    /// Past ticks can be looked at, as far as the history goes.
    pub look_back: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            history_bytes: 32 << 20,
            stacks_bytes: 24 << 20,
            keep_exited: Duration::from_secs(10),
            look_back: true,
        }
    }
}

/// So many events are kept, the newest; more if one tick brought more.
const EVENTS_KEPT: usize = 4096;

/// Who was asleep when watching began is said to be since a moment before or after that.
const FIRST_SIGHT_NS: u64 = 300_000_000;

/// So many of the slowest block requests are kept.
const SLOW_KEPT: usize = 256;

/// Everything known.
pub struct Model {
    session: Session,
    limits: Limits,
    span: Span,
    ticks: u64,
    observed_ns: u64,
    names: NameTable,
    names_version: u64,
    labels: Labels,
    processes: Table<ProcessKey, ProcessEntry>,
    threads: Table<ThreadKey, ThreadEntry>,
    last_thread: Slot,
    groups: Groups,
    next_serial: u32,
    machine: Totals,
    machine_io: IoTotals,
    machine_all: Totals,
    machine_all_io: IoTotals,
    machine_track: Track,
    cpus: Vec<CpuTick>,
    nodes: Vec<NodeTick>,
    disks: Vec<DiskTick>,
    quotas: Vec<Quota>,
    stuck: Vec<Stuck>,
    devices: Devices,
    host: Host,
    cost: Cost,
    watch: Watch,
    losses: Vec<(Loss, u64)>,
    tick_losses: Vec<(Loss, u64)>,
    slow: Vec<SlowRequest>,
    events: VecDeque<Event>,
    tick_events: usize,
    history: History,
    archive: Archive,
    /// The tick that is being taken in, for the archive.
    recorder: Option<Recorder>,
    /// Of a past one: the tick from which on it was rebuilt.
    resumed: u64,
    /// The newest, while this is a past one.
    present: Option<Box<Model>>,
}

impl Model {
    /// Knows nothing but the session.
    pub fn new(session: Session, limits: Limits) -> Self {
        Model {
            session,
            limits,
            span: Span::default(),
            ticks: 0,
            observed_ns: 0,
            names: NameTable::default(),
            names_version: 0,
            labels: Labels::default(),
            processes: Table::default(),
            threads: Table::default(),
            last_thread: 0,
            groups: Groups::default(),
            next_serial: 0,
            machine: Totals::default(),
            machine_io: IoTotals::default(),
            machine_all: Totals::default(),
            machine_all_io: IoTotals::default(),
            machine_track: Track::new(1, 0),
            cpus: Vec::new(),
            nodes: Vec::new(),
            disks: Vec::new(),
            quotas: Vec::new(),
            stuck: Vec::new(),
            devices: Devices::default(),
            host: Host::default(),
            cost: Cost::default(),
            watch: Watch::default(),
            losses: Vec::new(),
            tick_losses: Vec::new(),
            slow: Vec::new(),
            events: VecDeque::new(),
            tick_events: 0,
            history: History::default(),
            archive: Archive::default(),
            recorder: None,
            resumed: 0,
            present: None,
        }
    }

    /// Knows who is there and nothing else, from a tick of no length. Its number is that of no other: what was made from it
    /// is made again from the first that measures.
    pub fn glance(session: Session, limits: Limits, tick: Tick) -> Self {
        let unkept = Limits { look_back: false, ..limits };
        let mut model = Model { ticks: u64::MAX / 2, ..Model::new(session, unkept) };
        model.apply(tick);
        Model { limits, ..model }
    }

    /// Nothing was measured yet, over any time.
    pub fn is_glance(&self) -> bool {
        self.ticks > 0 && self.observed_ns == 0
    }

    /// The machine and how it is observed.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Nobody says what threads wait for: waits may all be idle ones, and are drawn as such.
    pub fn waits_have_no_reasons(&self) -> bool {
        self.session.basis == Basis::Procfs
    }

    /// What bounds the past.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Span of the newest tick; `None` before the first.
    pub fn span(&self) -> Option<Span> {
        (self.ticks > 0).then_some(self.span)
    }

    /// Ticks applied so far, which is the number of the newest (or of the past one that is looked at): changes whenever a cached view must be made again.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Length of all ticks applied so far, ns.
    pub fn observed_ns(&self) -> u64 {
        self.observed_ns
    }

    /// Length of a window, ns, as far as memory holds it.
    pub fn window_ns(&self, window: Window) -> u64 {
        self.history.resolve(window).map_or(self.observed_ns, |range| self.history.len_ns(range))
    }

    /// Changes whenever names change.
    pub fn names_version(&self) -> u64 {
        self.names_version
    }

    /// Names by id, as the source gave them: not fit for the screen before [`clean`].
    pub fn names(&self) -> &NameTable {
        &self.names
    }

    /// Live processes and those that exited within `Limits::keep_exited`, in no order that means anything.
    pub fn processes(&self) -> Box<dyn Iterator<Item = &Process> + '_> {
        Box::new(self.processes.iter().map(|entry| &entry.process))
    }

    /// How many [`Model::processes`] there are.
    pub fn process_count(&self) -> usize {
        self.processes.len()
    }

    /// A process, live or recently exited.
    pub fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(key).map(|entry| &entry.process)
    }

    /// Threads of a process, by tid, with those that exited within `Limits::keep_exited`.
    pub fn threads(&self, process: ProcessKey) -> Vec<&Thread> {
        let slots = self.processes.get(process).map_or(&[][..], |entry| &entry.threads);
        let mut threads: Vec<&Thread> =
            slots.iter().filter_map(|&slot| self.threads.at(slot)).map(|entry| &entry.thread).collect();
        threads.sort_unstable_by_key(|thread| thread.key);
        threads
    }

    /// Every thread, of every process, in no order that means anything.
    pub fn all_threads(&self) -> impl Iterator<Item = &Thread> {
        self.threads.iter().map(|entry| &entry.thread)
    }

    /// A thread, live or recently exited.
    pub fn thread(&self, key: ThreadKey) -> Option<&Thread> {
        self.threads.get(key).map(|entry| &entry.thread)
    }

    /// Name of a user; may hold control characters.
    pub fn user(&self, uid: u32) -> Option<&str> {
        self.names.users.get(&uid).map(String::as_str)
    }

    /// Newest per CPU.
    pub fn cpus(&self) -> &[CpuTick] {
        &self.cpus
    }

    /// Newest per NUMA node.
    pub fn nodes(&self) -> &[NodeTick] {
        &self.nodes
    }

    /// Newest per disk.
    pub fn disks(&self) -> &[DiskTick] {
        &self.disks
    }

    /// CPU quotas of cgroups in which something wanted to run in the newest tick, used up most often first.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// Of the quotas that hold for a process, the one that was used up in the largest share of its periods.
    pub fn quota_of(&self, process: &Process) -> Option<&Quota> {
        let cgroup = process.facts.cgroup.as_deref()?;
        let holding = self.quotas.iter().filter(|quota| quota.holds(cgroup));
        holding.max_by(|a, b| a.share().unwrap_or(0.0).total_cmp(&b.share().unwrap_or(0.0)))
    }

    /// Threads of programs that no signal wakes and that have slept for long, in the newest tick, longest first, bounded.
    pub fn stuck(&self) -> &[Stuck] {
        &self.stuck
    }

    /// How long one of those has slept, ns, and whether it was asleep before it was watched: then it is longer.
    pub fn stuck_for(&self, stuck: &Stuck) -> (u64, bool) {
        let ns = self.span.end_ns.saturating_sub(stuck.since_ns);
        (ns, ns.saturating_add(FIRST_SIGHT_NS) >= self.observed_ns)
    }

    /// Newest gauges of the machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// CLOCK_BOOTTIME minus CLOCK_MONOTONIC now: turns start times of tasks into ages. A suspended machine makes it more.
    pub fn boot_offset_ns(&self) -> u64 {
        match self.host.boot_offset_ns {
            0 => self.session.boot_offset_ns,
            told => told,
        }
    }

    /// What observing cost in the newest tick.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// What was done to stay within the budget in the newest tick, and comparisons with procfs.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Sums of the whole machine in the newest tick.
    pub fn machine(&self) -> &Totals {
        &self.machine
    }

    /// Losses since the start by cause, zero counts left out.
    pub fn losses(&self) -> &[(Loss, u64)] {
        &self.losses
    }

    /// Losses in the newest tick by cause, zero counts left out.
    pub fn tick_losses(&self) -> &[(Loss, u64)] {
        &self.tick_losses
    }

    /// How many of the oldest ticks were let go to stay within the bound.
    pub fn evicted(&self) -> u64 {
        self.history.evicted()
    }

    /// Memory of the past that is kept, bytes, about.
    pub fn history_bytes(&self) -> usize {
        self.history.bytes()
    }

    /// Memory of names and stacks, and of their weights since the start, bytes, about.
    pub fn stacks_bytes(&self) -> usize {
        self.names.bytes() + self.stack_sums() * bound::SUM_BYTES
    }

    /// Slowest block requests since the start, slowest first, bounded.
    pub fn slow_requests(&self) -> &[SlowRequest] {
        &self.slow
    }

    /// Newest events last, bounded.
    pub fn events(&self) -> &VecDeque<Event> {
        &self.events
    }

    /// Events of the newest tick, oldest first; all of them.
    pub fn tick_events(&self) -> impl Iterator<Item = &Event> {
        self.events.range(self.events.len() - self.tick_events..)
    }

    /// Past ticks of the machine, newest last.
    pub fn history(&self) -> &VecDeque<Arc<HistoryTick>> {
        self.history.ticks()
    }

    /// Totals of a process over a window; zero for one that is not known.
    pub fn totals(&self, process: ProcessKey, window: Window) -> Totals {
        self.process_sums(process, window).totals
    }

    /// Block I/O of a process over a window; zero for one that is not known.
    pub fn io_totals(&self, process: ProcessKey, window: Window) -> IoTotals {
        self.process_sums(process, window).io
    }

    /// On-CPU samples of a process over a window; zero for one that is not known.
    pub fn samples(&self, process: ProcessKey, window: Window) -> Samples {
        self.process_sums(process, window).samples
    }

    /// Totals of a thread over a window; zero for one that is not known.
    pub fn thread_totals(&self, thread: ThreadKey, window: Window) -> Totals {
        let Some(entry) = self.threads.get(thread) else { return Totals::default() };
        match (window, self.history.resolve(window)) {
            (Window::Tick, _) => entry.thread.tick.clone(),
            (_, None) => entry.thread.all.clone(),
            (_, Some(range)) => entry.track.sum(range, &entry.thread.all.ns, &self.history).totals,
        }
    }

    /// Totals of the whole machine over a window.
    pub fn machine_totals(&self, window: Window) -> Totals {
        self.machine_sums(window).totals
    }

    fn process_sums(&self, process: ProcessKey, window: Window) -> Sums {
        let Some(entry) = self.processes.get(process) else { return Sums::default() };
        let process = &entry.process;
        match (window, self.history.resolve(window)) {
            (Window::Tick, _) => Sums {
                totals: process.tick.clone(),
                io: process.tick_io.clone(),
                samples: Samples { all: process.samples, complete: process.samples_complete },
            },
            (_, None) => Sums {
                totals: process.all.clone(),
                io: process.all_io.clone(),
                samples: Samples { all: process.all_samples, complete: process.all_samples_complete },
            },
            (_, Some(range)) => entry.track.sum(range, &process.all.ns, &self.history),
        }
    }

    fn machine_sums(&self, window: Window) -> Sums {
        let sums = |totals: &Totals, io: &IoTotals| Sums { totals: totals.clone(), io: io.clone(), ..Sums::default() };
        match (window, self.history.resolve(window)) {
            (Window::Tick, _) => sums(&self.machine, &self.machine_io),
            (_, None) => sums(&self.machine_all, &self.machine_all_io),
            (_, Some(range)) => self.machine_track.sum(range, &self.machine_all.ns, &self.history),
        }
    }
}
