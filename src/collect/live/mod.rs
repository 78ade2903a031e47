//! The live kernel as a source: owns the BPF objects, flips their interval once per tick and drains what it closed.
//!
//! One tick, on the collector's thread: advance `flip`; wait until no program can still write the closed interval; run
//! the task iterator; drain the maps of that interval; turn hashes and addresses into names while the processes live.
//! Rings are emptied a few times per tick, nothing is woken per event.

mod cost;
mod cpus;
mod disks;
mod floor;
mod glance;
mod hists;
mod ids;
mod life;
mod machine;
mod maps;
mod names;
mod objects;
mod options;
mod passes;
mod rings;
mod said;
mod sampler;
mod shared;
mod skel;
mod stacks;
mod syscalls;
mod tasks;
mod unwind;
mod watching;
mod wire;

use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustc_hash::FxHashMap;
use rustix::time::ClockId;

pub use self::glance::glance;
pub use self::options::LiveOptions;

use self::cost::{Iteration, Meter};
use self::machine::Machine;
use self::maps::{Closed, FlipPage};
use self::objects::Objects;
use self::passes::Passes;
use self::rings::Ring;
use self::stacks::{Stacks, Weights};
use self::tasks::{Interval, Record, Spilled, Tasks};
use self::unwind::{News, Unwinder};
use self::watching::{Counted, Procfs, Watching};
use super::governor::{self, Policy};
use super::host::{self, Identity};
use super::modules::Resolver;
use super::nodes::nodes;
use super::processes::{Leader, Processes};
use super::procfs_only::DiskStats;
use super::symbols::{self, SymbolWorker, kernel_symbols_off};
use super::watched::{Watched, is_elsewhere, named};
use super::{Request, Source, SourceError, verdicts};
use crate::tick::{
    Basis, Batch, Event, Lens, LensStatus, Life, Loss, Names, ProcessKey, Refusal, Session, StackWeight, State, Tick,
};

/// Frames that the kernel itself walks at most, by frame pointers (`kernel.perf_event_max_stack`).
const MAX_FRAMES: usize = 127;
/// How often rings are emptied within a tick.
const PUMP: Duration = Duration::from_millis(200);

/// The first tick is short, so that there is something to see soon.
const FIRST_TICK: Duration = Duration::from_millis(100);

/// A live kernel. Dropping it detaches everything.
pub struct Live {
    options: LiveOptions,
    watched: Watched,
    session: Session,
    objects: Objects,
    rings: Rings,
    flip: FlipPage,
    sampling: Option<sampler::Events>,
    disks: Option<disks::Disks>,
    /// Where block requests cannot be watched, they are counted by the kernel.
    disk_stats: Option<DiskStats>,
    tasks: Tasks,
    stacks: Stacks,
    resolver: Resolver,
    processes: Processes,
    machine: Machine,
    meter: Meter,
    watching: Watching,
    /// What the governor allows now.
    walks_per_s: u32,
    sample_weight: u32,
    /// What the last pass over threads took.
    iteration: Iteration,
    passes: Passes,
    /// On-CPU time of all threads in the newest interval.
    on_cpu_ns: u64,
    /// How many weights it had of who only slept: about as many as the next.
    weights: usize,
    nodes: Vec<(u32, Vec<u32>)>,
    next_tick: Instant,
    /// Last accounts of threads that ended after the flip: they belong to the next tick.
    early_dead: Vec<Record>,
    lost: Vec<u64>,
    names: Names,
    /// What happened to processes since the last tick.
    events: Vec<Event>,
    /// Records that could not be understood since then.
    malformed: u64,
    /// Not every CPU could be sampled when that was tried last.
    unfollowed: bool,
    /// For a person.
    notes: Vec<String>,
}

/// The rings that `sched` and `life` write.
struct Rings {
    frames: Ring,
    dead: Ring,
    life: Option<Ring>,
}

impl Rings {
    /// From now on they are never emptied.
    fn clog(&mut self) {
        [&mut self.frames, &mut self.dead].into_iter().chain(&mut self.life).for_each(Ring::clog);
    }

    fn pump(&mut self) {
        self.frames.pump();
        self.dead.pump();
        if let Some(life) = &mut self.life {
            life.pump();
        }
    }
}

fn failed<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> SourceError {
    move |error| SourceError(format!("{what} failed: {error}"))
}

impl Live {
    /// Loads and attaches everything this kernel takes, and begins the first interval.
    ///
    /// # Errors
    /// Why nothing of BPF can run here.
    pub fn start(options: LiveOptions) -> Result<Self, Refusal> {
        let nodes = nodes();
        let named = named(&options.pids);
        let mut objects = Objects::load(&options, &named, &nodes)?;
        let (hooks, names) = names::or_list(objects.names.take());
        let maps = &objects.sched.maps;
        let rings = Rings {
            frames: Ring::new(&maps.frames).map_err(failed("opening the ring of frames"))?,
            dead: Ring::new(&maps.dead).map_err(failed("opening the ring of ended threads"))?,
            life: match &objects.life {
                Some(life) => Some(Ring::new(&life.maps.life).map_err(failed("opening the ring of process events"))?),
                None => None,
            },
        };
        let mut rings = rings;
        if options.undrained {
            rings.clog();
        }
        let disks = match &objects.block {
            Some(block) => Some(disks::Disks::new(block).map_err(failed("opening the ring of slow requests"))?),
            None => None,
        };
        let flip = FlipPage::new(&maps.data_flip).map_err(failed("mapping the page of the interval"))?;
        let symbols =
            SymbolWorker::start(names, options.debuginfod.clone()).map_err(failed("starting the symbol worker"))?;
        let mut live = Live {
            watched: Watched::new(&named, options.follow),
            session: Session::default(),
            next_tick: Instant::now() + options.interval.min(FIRST_TICK),
            rings,
            flip,
            disk_stats: disks.is_none().then(DiskStats::new),
            disks,
            sampling: None,
            tasks: Tasks::default(),
            stacks: Stacks::new(hooks),
            resolver: Resolver::new(symbols),
            processes: Processes::new(&nodes.iter().map(|(node, _)| *node).collect::<Vec<_>>()),
            machine: Machine::new(&nodes, &objects),
            meter: Meter::new(&objects, options.own_clock),
            watching: Watching::new(None),
            walks_per_s: options.walks_per_s,
            sample_weight: governor::WEIGHT_ONE,
            iteration: Iteration::default(),
            passes: Passes::new(if objects.ids.are_first() { options.crowd } else { u64::MAX }),
            on_cpu_ns: 0,
            weights: 0,
            nodes,
            early_dead: Vec::new(),
            lost: Vec::new(),
            names: Names { users: host::users(), ..Names::default() },
            events: Vec::new(),
            malformed: 0,
            unfollowed: false,
            notes: Vec::new(),
            objects,
            options,
        };
        live.instruct();
        live.flip.advance();
        // From here on: making all of the above took its time.
        live.next_tick = Instant::now() + live.options.interval.min(FIRST_TICK);
        live.sample();
        let rate_hz = live.sampling.as_ref().map_or(0, |_| live.options.rate_hz);
        let policy = live.options.max_overhead.map(|budget| Policy::new(budget, live.options.walks_per_s, rate_hz));
        live.watching = Watching::new(policy);
        live.describe();
        // The first pass adopts the threads that are there, and tells who that is.
        live.passes.all(&live.objects).map_err(failed("running the task iterator"))?;
        live.processes.expect(tasks::processes(live.passes.told().records));
        Ok(live)
    }
}

impl Source for Live {
    fn session(&self) -> Session {
        self.session.clone()
    }

    fn said(&mut self) -> Vec<String> {
        self.notes.drain(..).chain(self.resolver.symbols().said()).collect()
    }

    fn next(&mut self, requests: &Receiver<Request>) -> Result<Option<Batch>, SourceError> {
        loop {
            let now = Instant::now();
            if now >= self.next_tick {
                return self.tick().map(|tick| Some(Batch::Tick(Box::new(tick))));
            }
            match requests.recv_timeout((self.next_tick - now).min(PUMP)) {
                Ok(request) => self.obey(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
            self.pump();
            self.resolver.found(&mut self.names);
            if !self.names.symbols.is_empty() || !self.names.details.is_empty() {
                return Ok(Some(Batch::Names(Box::new(std::mem::take(&mut self.names)))));
            }
        }
    }
}

impl Live {
    fn obey(&mut self, request: Request) {
        match request {
            Request::Interval(interval) => {
                self.options.interval = interval;
                self.next_tick = self.next_tick.min(Instant::now() + interval);
            }
            Request::Visible(processes) => self.processes.visible(&processes),
            Request::Focus(process) => self.processes.focus(process),
            Request::EndTick => self.next_tick = Instant::now(),
            Request::Statistics(wanted) => self.meter.look(wanted),
            // A live kernel does not wait.
            Request::Hold(_) | Request::Step => {}
            Request::Detail(frames) => self.resolver.detail(frames, &mut self.names),
        }
    }

    fn pump(&mut self) {
        self.rings.pump();
        if let (Some(disks), Some(block)) = (&mut self.disks, &self.objects.block) {
            disks.pump(block);
        }
        self.learn();
    }

    /// Takes in what happened to processes, and new stacks: their addresses are found while the process still lives. A
    /// process that became another program first voids what was known of its memory.
    fn learn(&mut self) {
        let taken = self.rings.life.as_mut().map(Ring::take);
        let (mut events, malformed) = taken.map_or((Vec::new(), 0), |bytes| life::events(&bytes));
        self.objects.ids.events(&mut events);
        for event in events.iter().filter(|event| !is_elsewhere(event.process.tgid)) {
            match event.what {
                Life::Fork { parent } => self.resolver.fork(event.process, parent),
                Life::Exec => self.resolver.exec(event.process),
                Life::Exit { .. } if self.watched.is_named(event.process) => self.objects.let_go(event.process),
                Life::Exit { .. } => {}
            }
        }
        self.watched.learn(&events);
        self.events.extend(events);
        if self.stacks.is_full() && maps::zero(&self.objects.sched.maps.sent).is_ok() {
            self.stacks.forget();
        }
        let frames = self.rings.frames.take();
        let mut walked_later = Vec::new();
        // After that: what these frames are in has been told by now.
        for news in self.objects.unwinder.iter().flat_map(Unwinder::news) {
            match news {
                News::File(tag, file) => self.resolver.tabled_file(tag, *file, &mut self.names),
                News::Vdso(tag) => self.resolver.tabled_vdso(tag, &mut self.names),
                News::Walked(walked) => walked_later.push(walked),
            }
        }
        self.malformed +=
            malformed + self.stacks.learn(&frames, &self.objects.ids, &mut self.resolver, &mut self.names);
        for walked in walked_later {
            self.stacks.complete(walked, &mut self.resolver, &mut self.names);
        }
    }

    /// The next boundary, on the grid that the first one began. Boundaries that have passed are skipped and counted.
    fn schedule(&mut self) -> u64 {
        let now = Instant::now();
        self.next_tick += self.options.interval;
        let mut skipped = 0;
        while self.next_tick <= now {
            self.next_tick += self.options.interval;
            skipped += 1;
        }
        skipped
    }

    fn tick(&mut self) -> Result<Tick, SourceError> {
        let started = Instant::now();
        let closed = self.flip.advance();
        let wall = wall_ns();
        let cpus = self.machine.read_cpus(&self.objects, closed.generation);
        let programs = self.meter.close(&self.objects, &cpus);
        let disks = if self.disks.is_some() { self.watching.read_disks() } else { None };
        let procfs = Procfs { stat: self.machine.stat_counters(), disks };
        let maps = &self.objects.sched.maps;
        let nothing = self.objects.sched.progs.nothing.as_fd();
        maps::wait_for_programs(nothing, cpus.iter().map(|cpu| cpu.id), &maps.stacks, &maps.stacks_even)
            .map_err(failed("flipping the interval"))?;
        let late_ticks = self.schedule();

        let mut tick = Tick { cpus, ..Tick::default() };
        tick.span.start_ns = closed.start_ns;
        tick.span.end_ns = closed.end_ns;
        tick.span.wall_ns = wall.saturating_sub(tick.span.len_ns());
        let mut losses = Losses::default();
        losses.add(Loss::LateTick, late_ticks);

        self.learn();
        tick.names = std::mem::take(&mut self.names);
        let mut events = std::mem::take(&mut self.events);
        let forks = events.iter().filter(|event| matches!(event.what, Life::Fork { .. })).count() as u64;
        let happened = events.len();
        events.retain(|event| !is_elsewhere(event.process.tgid));
        self.objects.ids.leave_out((happened - events.len()) as u64);
        losses.add(Loss::Malformed, std::mem::take(&mut self.malformed));
        let (leaders, still) = self.take_threads(closed, &mut tick, &mut losses)?;
        tick.processes = self.processes.update(&leaders, &still, &events);
        (tick.quotas, tick.stuck) = (self.processes.quotas(), self.processes.stuck(&tick));
        if self.watched.all() {
            let tids = tick.threads.iter().map(|thread| thread.key).chain(tick.asleep.iter().map(|slept| slept.key));
            self.processes.reconcile(tids.map(|key| key.tid), host::now_ns(ClockId::Boottime));
        }
        losses.add(Loss::HiddenTasks, self.processes.take_hidden());
        self.take_disks(closed, &mut tick, &mut losses)?;
        for (loss, count) in self.machine.fill(&self.objects, &mut tick) {
            losses.add(loss, count);
        }
        losses.add(Loss::Unsampled, self.follow_cpus(&tick));
        for event in &events {
            if let Life::Exit { .. } = event.what {
                self.resolver.forget(event.process);
            }
        }
        tick.events = events;
        tick.events.retain(|event| self.watched.wants(event.process));
        self.watched.end_tick();
        self.objects.end_tick();
        self.resolver.found(&mut tick.names);
        self.take_losses(&mut losses);
        losses.add(Loss::Evicted, self.resolver.take_unasked());
        losses.add(Loss::Elsewhere, self.objects.ids.take_left_out());
        tick.losses = losses.0.into_iter().filter(|&(_, count)| count > 0).collect();
        tick.losses.sort_by_key(|&(loss, _)| loss as u8);
        let counted = Counted {
            forks: forks + programs.threads(),
            on_cpu_ns: self.on_cpu_ns,
            of_all: self.objects.ids.are_first(),
            sampling: self.sampling_of_all(),
        };
        tick.cost = self.meter.read(&self.objects, programs, self.iteration);
        tick.cost.late_ns = started.elapsed().as_nanos() as u64;
        tick.cost.symbol_bytes = self.resolver.symbols().stats().bytes();
        self.watch(&mut tick, counted, procfs);
        if !self.options.fold {
            tick.unfold();
        }
        Ok(tick)
    }

    /// Threads, and the stacks they were seen at.
    fn take_threads(
        &mut self,
        closed: Closed,
        tick: &mut Tick,
        losses: &mut Losses,
    ) -> Result<(Vec<Leader>, Vec<ProcessKey>), SourceError> {
        self.iteration.ns = self
            .passes
            .run(&self.objects, &self.flip, closed, self.tasks.awake())
            .map_err(failed("running the task iterator"))?;
        let dead = self.take_dead(closed, losses);
        let even = closed.generation & 1 == 0;
        let maps = &self.objects.sched.maps;
        let ids = &self.objects.ids;
        let mut spilled = Spilled::default();
        let spill = |key: skel::sched::types::hist_key, count: u64| {
            let kinds: &mut [Vec<(u16, u64)>; 3] =
                spilled.entry((ids.thread(key.tid, key.start_ns), key.start_ns)).or_default();
            if let Some(kind) = kinds.get_mut(usize::from(key.kind)) {
                kind.push((key.bucket, count));
            }
        };
        let odd_ones = if even { maps::drain(&maps.hists_even, spill) } else { maps::drain(&maps.hists_odd, spill) };
        losses.add(Loss::Malformed, odd_ones.map_err(failed("draining the histograms"))?);

        let mut weights = Weights::with_capacity(self.weights);
        let mut count = |mut key: skel::sched::types::stack_key, val| {
            if let Some(process) = ids.told(ProcessKey { tgid: key.tgid, start_ns: key.start_ns }) {
                key.tgid = process.tgid;
                weights.counted(key, val);
            }
        };
        let drained =
            if even { maps::drain(&maps.stacks_even, &mut count) } else { maps::drain(&maps.stacks_odd, &mut count) };
        losses.add(Loss::Malformed, drained.map_err(failed("draining the stacks"))?);
        let drained = maps::drain(&maps.unrecorded, &mut count);
        losses.add(Loss::Malformed, drained.map_err(failed("draining what was not recorded"))?);

        if self.objects.life.is_none() {
            self.watched.adopt(tasks::parents(self.passes.told().records));
        }
        let watched = &self.watched;
        let wanted = |process: ProcessKey| watched.wants(process);
        let boot_offset_ns = host::boot_offset_ns();
        let interval = Interval { closed, nodes: &self.nodes, spilled: &spilled, boot_offset_ns };
        let told = self.passes.told();
        let harvest = self.tasks.harvest(&interval, dead, &told, &mut weights, wanted);
        self.passes.learn(harvest.told);
        losses.add(Loss::Malformed, harvest.malformed);
        self.iteration.threads = harvest.told;
        self.on_cpu_ns = harvest.on_cpu_ns;
        (tick.threads, tick.asleep) = (harvest.threads, harvest.asleep);
        self.weights = weights.slept();
        tick.stacks = self.stacks.resolve(weights, &mut self.resolver, &mut tick.names);
        tick.stacks.retain(|weight| self.watched.wants(weight.process));
        self.note_untaken(harvest.not_taken, tick);
        Ok((harvest.leaders, harvest.still))
    }

    /// Last accounts that belong to the closed interval; those of threads that ended since wait for the next tick.
    fn take_dead(&mut self, closed: Closed, losses: &mut Losses) -> Vec<Record> {
        let mut bytes = self.rings.dead.take();
        self.objects.ids.records(&mut bytes);
        let mut rest = bytes.as_slice();
        let mut dead = std::mem::take(&mut self.early_dead);
        while !rest.is_empty() {
            let Some(record) = tasks::take(&mut rest) else {
                losses.add(Loss::Malformed, 1);
                break;
            };
            match record.task.r#gen > closed.generation {
                true => self.early_dead.push(record),
                false => dead.push(record),
            }
        }
        dead
    }

    /// Waits whose stack was not taken, as a node of their true weight: what the states have beyond the stacks.
    fn note_untaken(&mut self, not_taken: FxHashMap<(ProcessKey, State), u64>, tick: &mut Tick) {
        let mut left: FxHashMap<(ProcessKey, State), u64> = not_taken.keys().map(|&key| (key, 0)).collect();
        for thread in &tick.threads {
            for state in State::ALL.into_iter().filter(|state| state.is_blocked()) {
                if let Some(ns) = left.get_mut(&(thread.process, state)) {
                    *ns += thread.ns[state];
                }
            }
        }
        for slept in &tick.asleep {
            if let Some(ns) = left.get_mut(&(slept.process, slept.state)) {
                *ns += tick.span.len_ns();
            }
        }
        for weight in &tick.stacks {
            if let Lens::Blocked(state) = weight.lens
                && let Some(ns) = left.get_mut(&(weight.process, state))
            {
                *ns = ns.saturating_sub(weight.weight);
            }
        }
        let stack = self.resolver.note("[stack not taken]", &mut tick.names);
        for ((process, state), count) in not_taken {
            let weight = left.get(&(process, state)).copied().unwrap_or(0);
            tick.stacks.push(StackWeight { process, lens: Lens::Blocked(state), stack, weight, count });
        }
    }

    fn take_disks(&mut self, closed: Closed, tick: &mut Tick, losses: &mut Losses) -> Result<(), SourceError> {
        let (Some(disks), Some(block)) = (&mut self.disks, &self.objects.block) else {
            tick.disks = self.disk_stats.as_mut().map_or_else(Vec::new, DiskStats::read);
            return Ok(());
        };
        let machine = &mut self.machine;
        let harvest = disks
            .harvest(block, closed.generation, |dev| machine.disk_name(dev))
            .map_err(failed("draining the disks"))?;
        losses.add(Loss::Malformed, harvest.malformed);
        tick.disks = harvest.disks;
        tick.io = harvest.io;
        let ids = &self.objects.ids;
        tick.io.retain_mut(|io| {
            ids.told(io.process).is_some_and(|process| {
                io.process = process;
                self.watched.wants(process)
            })
        });
        tick.slow_requests = harvest.slow;
        tick.slow_requests.retain_mut(|slow| ids.told(slow.process).map(|process| slow.process = process).is_some());
        Ok(())
    }

    /// Counts of the kernel side since the last tick.
    fn take_losses(&mut self, losses: &mut Losses) {
        let counts = maps::sum_percpu(&self.objects.sched.maps.losses, KERNEL_LOSSES.len());
        for (index, (&loss, &count)) in KERNEL_LOSSES.iter().zip(&counts).enumerate() {
            let before = self.lost.get(index).copied().unwrap_or(0);
            losses.add(loss, count.saturating_sub(before));
        }
        self.lost = counts;
    }

    fn describe(&mut self) {
        let identity = Identity::read();
        let mut lenses = self.objects.lenses.clone();
        lenses.push(LensStatus { name: "kernel symbols".into(), off: kernel_symbols_off() });
        self.session = Session {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: self.options.command.clone(),
            hostname: identity.hostname,
            kernel: identity.kernel,
            arch: identity.arch,
            cpus: self.machine.online(),
            nodes: self.nodes.clone(),
            sampler: self.sampling.as_ref().map_or_else(Default::default, |events| events.kind().clone()),
            interval_ns: self.options.interval.as_nanos() as u64,
            started_wall_ns: wall_ns(),
            boot_offset_ns: host::boot_offset_ns(),
            page_bytes: rustix::param::page_size() as u64,
            symbol_limit_bytes: symbols::MAX_BYTES,
            lenses,
            basis: Basis::Bpf,
            signals: verdicts::with_bpf(&self.objects.found),
        };
    }
}

fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Causes in the order of `enum loss` in `src/bpf/sberf.h`.
const KERNEL_LOSSES: [Loss; 13] = [
    Loss::StackMapFull,
    Loss::FrameRingFull,
    Loss::HistMapFull,
    Loss::LifeRingFull,
    Loss::DeadRingFull,
    Loss::RequestMapFull,
    Loss::SlowRingFull,
    Loss::Torn,
    Loss::Underflow,
    Loss::NoStorage,
    Loss::Unseen,
    Loss::Node,
    Loss::OtherRequest,
];

/// Losses of one tick.
#[derive(Default)]
struct Losses(FxHashMap<Loss, u64>);

impl Losses {
    fn add(&mut self, loss: Loss, count: u64) {
        *self.0.entry(loss).or_default() += count;
    }
}
