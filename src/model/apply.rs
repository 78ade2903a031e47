//! Taking in a tick: entities are found or made, their sums renewed, the ring moved on.

use rustc_hash::{FxHashMap, FxHashSet};

use super::archive::{Recorder, Tail, is_quiet, quiet};
use super::entity::{Exit, IoTotals, Process, Samples, Thread, Totals};
use super::group::{StackSums, add_stack};
use super::history::{Block, HistoryTick, LensCode, ON_CPU, StackEntry, blocked_code};
use super::table::Slot;
use super::track::Track;
use super::{EVENTS_KEPT, Model, SLOW_KEPT};
use crate::tick::{
    Asleep, Event, FrameId, Lens, Life, Loss, Names, ProcessFacts, ProcessIo, ProcessKey, SlowRequest, StackId,
    StackWeight, StateNs, ThreadKey, ThreadTick, Tick,
};

/// A process and what belongs to it.
pub(super) struct ProcessEntry {
    pub process: Process,
    /// Never re-used.
    pub serial: u32,
    /// By its name.
    pub group: u32,
    /// The last tick in which a thread of it lived.
    pub seen: u64,
    /// Whether its facts have arrived; until then its name is that of a thread.
    pub has_facts: bool,
    /// Its threads, in no order.
    pub threads: Vec<Slot>,
    pub track: Track,
    /// Since we first saw it.
    pub stacks: StackSums,
}

/// A thread and what belongs to it.
pub(super) struct ThreadEntry {
    pub thread: Thread,
    pub process: Slot,
    /// The last tick in which it lived.
    pub seen: u64,
    /// It did nothing in that tick but go on sleeping, and is not in its record.
    pub quiet: bool,
    pub track: Track,
}

impl ProcessEntry {
    /// Of a process of which nothing else is known.
    pub fn of(process: Process) -> Self {
        ProcessEntry {
            process,
            serial: 0,
            group: 0,
            seen: 0,
            has_facts: false,
            threads: Vec::new(),
            track: Track::new(0, 0),
            stacks: StackSums::default(),
        }
    }
}

impl Model {
    /// Takes in a tick. If a past one was looked at, that is over.
    pub fn apply(&mut self, mut tick: Tick) {
        self.look_live();
        self.learn(std::mem::take(&mut tick.names));
        self.begin_record(&tick);
        let losses = tick.losses.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        let mut stacks = Vec::new();
        self.take_in(tick, None, |model, weights| stacks = model.stacks(weights));
        self.push_history(losses, &mut stacks);
        self.end_record();
        self.expire();
        self.stay_bounded();
    }

    /// Takes in a tick again, in a model as it was before it: of its threads only those that are loud, see [`Record`].
    pub(super) fn take_in_again(&mut self, tick: Tick, tail: Tail, stacks: &Block) {
        let Tail { gone, strangers, .. } = tail;
        self.take_in(tick, Some(&gone), |model, _| {
            strangers.into_iter().for_each(|key| {
                model.process_slot(key);
            });
            model.sample_again(stacks);
        });
        self.expire();
    }

    /// All of a tick but its names. With `gone`, threads that it does not tell of go on sleeping, but for those. `weigh`
    /// adds its stacks.
    fn take_in(&mut self, tick: Tick, gone: Option<&[ThreadKey]>, weigh: impl FnOnce(&mut Self, &[StackWeight])) {
        self.ticks += 1;
        self.span = tick.span;
        self.observed_ns = self.observed_ns.saturating_add(tick.span.len_ns());
        self.begin();
        tick.processes.into_iter().for_each(|facts| self.facts(facts));
        tick.threads.into_iter().for_each(|thread| self.thread_tick(thread));
        tick.asleep.iter().for_each(|slept| self.asleep(slept));
        if let Some(gone) = gone {
            self.sleep_on(gone);
        }
        tick.io.iter().for_each(|io| self.io(io));
        weigh(self, &tick.stacks);
        self.end_threads();
        self.end_processes();
        self.end_groups();
        self.tick_events = tick.events.len();
        tick.events.into_iter().for_each(|event| self.event(event));
        self.remember_slow(tick.slow_requests);
        (self.host, self.cost, self.watch) = (tick.host, tick.cost, tick.watch);
        (self.cpus, self.nodes, self.disks) = (tick.cpus, tick.nodes, tick.disks);
        (self.quotas, self.stuck) = (tick.quotas, tick.stuck);
        self.devices.add(&self.cpus, &self.disks);
        for (loss, count) in tick.losses {
            self.lose(loss, count);
        }
    }

    /// Begins the record of a tick for the archive, and a segment if one is due.
    fn begin_record(&mut self, tick: &Tick) {
        if !self.limits.look_back {
            return;
        }
        if self.archive.is_due() {
            let mut archive = std::mem::take(&mut self.archive);
            self.history.charge(archive.begin(self.ticks + 1, &self.keyframe()));
            self.archive = archive;
        }
        self.recorder = Some(Recorder::begin(tick));
    }

    fn end_record(&mut self) {
        let Some(recorder) = self.recorder.take() else { return };
        let (before, after) = self.archive.push(recorder.finish(), self.limits.history_bytes / 16);
        self.history.refund(before);
        self.history.charge(after);
    }

    /// Takes in names that came between ticks.
    pub fn learn(&mut self, names: Names) {
        if names.is_empty() {
            return;
        }
        self.look_live();
        let changed: Vec<FrameId> = self.names.learn(names);
        changed.into_iter().for_each(|frame| self.labels.update(frame, &self.names));
        self.names_version += 1;
        let proved = self.names.take_proved();
        if !proved.is_empty() {
            self.count_proved(&proved);
        }
    }

    /// Counts samples as complete whose stacks were not known to be when they were counted.
    fn count_proved(&mut self, proved: &[StackId]) {
        for entry in self.processes.iter_mut() {
            let process = &mut entry.process;
            if process.all_samples_complete < process.all_samples {
                let weights = proved.iter().filter_map(|&stack| entry.stacks.get(&(ON_CPU, stack)));
                let weight = weights.fold(0u64, |sum, &(weight, _)| sum.saturating_add(weight));
                let complete = process.all_samples_complete.saturating_add(weight);
                process.all_samples_complete = complete.min(process.all_samples);
            }
        }
    }

    fn begin(&mut self) {
        self.tick_losses.clear();
        self.machine.clear();
        self.machine_io.clear();
        self.groups.iter_mut().for_each(|group| group.tick = StateNs::default());
        self.processes.iter_mut().for_each(|entry| entry.process.clear_tick());
    }

    fn facts(&mut self, facts: ProcessFacts) {
        let slot = self.process_slot(facts.key);
        let (tick, span) = (self.ticks, self.span);
        let Some(entry) = self.processes.at_mut(slot) else { return };
        if !entry.has_facts || entry.process.facts.comm != facts.comm {
            entry.group = self.groups.of(&facts.comm, facts.kernel, tick, span);
        }
        entry.process.facts = facts;
        entry.has_facts = true;
    }

    /// Where a process is; makes one that is known by its key only if it is not there yet.
    fn process_slot(&mut self, key: ProcessKey) -> Slot {
        if let Some(slot) = self.processes.find(key) {
            return slot;
        }
        let facts = ProcessFacts { key, ..ProcessFacts::default() };
        let entry = ProcessEntry {
            serial: self.next_serial,
            group: self.groups.of("", false, self.ticks, self.span),
            track: Track::new(self.ticks, self.span.start_ns),
            ..ProcessEntry::of(Process { key, facts, ..Process::default() })
        };
        self.next_serial = self.next_serial.wrapping_add(1);
        self.processes.insert(key, entry)
    }

    fn thread_tick(&mut self, tick: ThreadTick) {
        let slot = self.thread_slot(&tick);
        let (span_ns, nodes) = (self.span.len_ns(), self.node_times());
        let Some(entry) = self.threads.at_mut(slot) else { return };
        match &mut self.recorder {
            Some(recorder) => entry.record(recorder, &tick, self.ticks, span_ns, nodes),
            None => entry.quiet = false,
        }
        if entry.seen != self.ticks {
            entry.seen = self.ticks;
            entry.thread.tick.clear();
        }
        entry.thread.tick.add_thread(&tick);
        if let Some(process) = self.processes.at_mut(entry.process) {
            process.seen = self.ticks;
            process.process.tick.add_thread(&tick);
            process.process.threads += u32::from(tick.now.is_some());
            let comm = &mut process.process.facts.comm;
            let names_it = tick.key.tid == process.process.key.tgid || comm.is_empty();
            if !process.has_facts && names_it && *comm != tick.comm {
                comm.clone_from(&tick.comm);
                process.group = self.groups.of(comm, false, self.ticks, self.span);
            }
        }
        entry.thread.update(tick, self.span.end_ns);
    }

    /// A thread that slept all the time: what [`Model::thread_tick`] would make of it, and nothing that it would leave as it is.
    fn asleep(&mut self, slept: &Asleep) {
        let (now, span_ns) = (self.ticks, self.span.len_ns());
        let slot = self.known_slot(slept.key).filter(|_| self.node_times() == 0);
        let entry = slot.and_then(|slot| self.threads.at_mut(slot)).filter(|entry| entry.sleeps_on(slept, now));
        let Some(entry) = entry else { return self.thread_tick(slept.unfold(span_ns)) };
        // What slept in the tick before as well has nothing else in it.
        if !std::mem::replace(&mut entry.quiet, true) {
            entry.thread.tick.clear();
        }
        entry.seen = now;
        entry.thread.tick.ns[slept.state] = span_ns;
        if let Some(process) = self.processes.at_mut(entry.process) {
            process.seen = now;
            process.process.threads += 1;
            let ns = &mut process.process.tick.ns[slept.state];
            *ns = ns.saturating_add(span_ns);
        }
    }

    /// Every thread that lives and was not told of in this tick goes on sleeping, but for those that are gone.
    fn sleep_on(&mut self, gone: &[ThreadKey]) {
        let (now, span_ns, nodes) = (self.ticks, self.span.len_ns(), self.node_times());
        let gone: FxHashSet<ThreadKey> = gone.iter().copied().collect();
        for entry in self.threads.iter_mut() {
            let thread = &mut entry.thread;
            let Some(state) = thread.now.filter(|_| entry.seen != now && !gone.contains(&thread.key)) else { continue };
            (entry.seen, entry.quiet) = (now, false);
            thread.tick.clear();
            thread.tick.ns[state] = span_ns;
            thread.tick.node_ns.resize(nodes, 0);
            if let Some(process) = self.processes.at_mut(entry.process) {
                process.seen = now;
                process.process.threads += 1;
                let ns = &mut process.process.tick.ns[state];
                *ns = ns.saturating_add(span_ns);
                let node_ns = &mut process.process.tick.node_ns;
                node_ns.resize(node_ns.len().max(nodes), 0);
            }
        }
    }

    /// Where a thread is, with its process made sure of.
    fn thread_slot(&mut self, tick: &ThreadTick) -> Slot {
        if let Some(slot) = self.known_slot(tick.key) {
            match self.threads.at(slot) {
                Some(entry) if entry.thread.process == tick.process => return slot,
                _ => self.remove_thread(tick.key),
            }
        }
        let process = self.process_slot(tick.process);
        let thread = Thread { key: tick.key, process: tick.process, ..Thread::default() };
        let track = Track::new(self.ticks, self.span.start_ns);
        let slot = self.threads.insert(tick.key, ThreadEntry { thread, process, seen: 0, quiet: false, track });
        if let Some(process) = self.processes.at_mut(process) {
            process.threads.push(slot);
        }
        slot
    }

    /// Where a thread is, if it is known.
    fn known_slot(&mut self, key: ThreadKey) -> Option<Slot> {
        // Threads come in the same order tick after tick: look there before asking the index.
        let next = self.last_thread.wrapping_add(1);
        let here = self.threads.at(next).is_some_and(|entry| entry.thread.key == key);
        let slot = if here { next } else { self.threads.find(key)? };
        self.last_thread = slot;
        Some(slot)
    }

    fn io(&mut self, io: &ProcessIo) {
        let slot = self.process_slot(io.process);
        if let Some(entry) = self.processes.at_mut(slot) {
            entry.process.tick_io.add_requests(io);
        }
    }

    /// Adds stack weights to their processes and groups; returns them as the ring wants them.
    fn stacks(&mut self, weights: &[StackWeight]) -> Vec<StackEntry> {
        let mut entries = Vec::with_capacity(weights.len());
        let (mut last, mut strangers) = (None, Vec::new());
        for weight in weights {
            // Weights of one process mostly come together.
            let next = last.map_or(0, |(_, slot)| slot + 1);
            let slot = match last {
                Some((process, slot)) if process == weight.process => slot,
                // So do those of processes that were met one after the other.
                _ if self.processes.at(next).is_some_and(|entry| entry.process.key == weight.process) => next,
                _ => {
                    let serial = self.next_serial;
                    let slot = self.process_slot(weight.process);
                    strangers.extend((serial != self.next_serial).then_some(weight.process));
                    slot
                }
            };
            last = Some((weight.process, slot));
            let Some(entry) = self.processes.at_mut(slot) else { continue };
            let lens = code_of(weight.lens);
            if lens == ON_CPU {
                let complete = if self.names.is_complete(weight.stack) { weight.weight } else { 0 };
                entry.process.add_samples(Samples { all: weight.weight, complete });
            }
            let key = (lens, weight.stack);
            add_stack(&mut entry.stacks, key, weight.weight, weight.count);
            if let Some(group) = self.groups.get_mut(entry.group) {
                add_stack(&mut group.stacks, key, weight.weight, weight.count);
            }
            let StackWeight { stack, weight, count, .. } = *weight;
            entries.push(StackEntry { group: entry.group, serial: entry.serial, lens, stack, weight, count });
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.strangers(strangers);
        }
        entries
    }

    /// Adds the samples of a tick that is taken in again to their processes.
    fn sample_again(&mut self, stacks: &Block) {
        let mut samples: FxHashMap<u32, Samples> = FxHashMap::default();
        let names = &self.names;
        stacks.each_sampled(&mut |stack: StackEntry| {
            let complete = if names.is_complete(stack.stack) { stack.weight } else { 0 };
            samples.entry(stack.serial).or_default().add(Samples { all: stack.weight, complete });
        });
        for entry in self.processes.iter_mut() {
            if let Some(samples) = samples.get(&entry.serial) {
                entry.process.add_samples(*samples);
            }
        }
    }

    /// Adds the tick of every thread to what came before. Who was not in it is gone.
    fn end_threads(&mut self) {
        let (now, span, one_node) = (self.ticks, self.span, self.node_times() == 0);
        for entry in self.threads.iter_mut() {
            let thread = &mut entry.thread;
            if let Some(state) = thread.now.filter(|_| entry.quiet && entry.seen == now && one_node) {
                let ns = &mut thread.all.ns[state];
                *ns = ns.saturating_add(thread.tick.ns[state]);
                continue;
            }
            if entry.seen != now {
                if let Some(recorder) = self.recorder.as_mut().filter(|_| thread.now.is_some()) {
                    recorder.gone(thread.key);
                }
                if entry.seen + 1 == now {
                    thread.tick.clear();
                }
                thread.leave(span.start_ns);
                continue;
            }
            if thread.tick.is_active() {
                let sums = (&thread.tick, &IoTotals::default(), Samples::default());
                self.history.charge(entry.track.push(now, span, &thread.all.ns, sums));
            }
            thread.all.add(&thread.tick);
        }
    }

    fn end_processes(&mut self) {
        let (now, span) = (self.ticks, self.span);
        for entry in self.processes.iter_mut() {
            let process = &mut entry.process;
            if process.threads == 0 && process.exited.is_none() {
                let at_ns = if entry.seen == now { span.end_ns } else { span.start_ns };
                process.exited = Some(Exit { at_ns, status: None });
            } else if process.threads > 0 {
                process.exited = None;
            }
            let is_busy = process.is_active();
            if is_busy {
                let samples = Samples { all: process.samples, complete: process.samples_complete };
                let sums = (&process.tick, &process.tick_io, samples);
                self.history.charge(entry.track.push(now, span, &process.all.ns, sums));
            }
            if entry.seen == now {
                if is_busy || !process.tick.node_ns.is_empty() {
                    process.all.add(&process.tick);
                    self.machine.add(&process.tick);
                } else {
                    process.all.ns.add(&process.tick.ns);
                    self.machine.ns.add(&process.tick.ns);
                }
                if let Some(group) = self.groups.get_mut(entry.group) {
                    group.tick.add(&process.tick.ns);
                }
            }
            if is_busy {
                process.all_io.add(&process.tick_io);
                self.machine_io.add(&process.tick_io);
            }
        }
        let sums = (&self.machine, &self.machine_io, Samples::default());
        self.history.charge(self.machine_track.push(now, span, &self.machine_all.ns, sums));
        self.machine_all.add(&self.machine);
        self.machine_all_io.add(&self.machine_io);
    }

    fn end_groups(&mut self) {
        for group in self.groups.iter_mut() {
            if group.tick.on_cpu() | group.tick.runnable() != 0 {
                let totals = Totals { ns: group.tick, ..Totals::default() };
                let sums = (&totals, &IoTotals::default(), Samples::default());
                self.history.charge(group.track.push(self.ticks, self.span, &group.all, sums));
            }
            group.all.add(&group.tick);
        }
    }

    fn event(&mut self, event: Event) {
        if let (Life::Exit { status }, Some(slot)) = (event.what, self.processes.find(event.process))
            && let Some(entry) = self.processes.at_mut(slot)
        {
            entry.process.exited = Some(Exit { at_ns: event.at_ns, status: Some(status) });
        }
        self.events.push_back(event);
        if self.events.len() > EVENTS_KEPT.max(self.tick_events) {
            self.events.pop_front();
        }
    }

    fn remember_slow(&mut self, requests: Vec<SlowRequest>) {
        let latency = |request: &SlowRequest| request.queued_ns.saturating_add(request.device_ns);
        self.slow.extend(requests);
        self.slow.sort_by_key(|request| std::cmp::Reverse(latency(request)));
        self.slow.truncate(SLOW_KEPT);
    }

    fn push_history(&mut self, losses: u64, stacks: &mut [StackEntry]) {
        let tick = HistoryTick {
            number: self.ticks,
            span: self.span,
            ns: self.machine.ns,
            runq: self.machine.runq.clone(),
            cpus: self.cpus.clone(),
            disks: self.disks.clone(),
            losses,
        };
        self.history.push(tick, stacks);
    }

    pub(super) fn lose(&mut self, loss: Loss, count: u64) {
        for losses in [&mut self.losses, &mut self.tick_losses] {
            match losses.iter_mut().find(|(have, _)| *have == loss) {
                Some((_, sum)) => *sum = sum.saturating_add(count),
                None if count > 0 => losses.push((loss, count)),
                None => {}
            }
        }
    }

    /// Forgets who has been dead for long enough.
    fn expire(&mut self) {
        let keep_ns = u64::try_from(self.limits.keep_exited.as_nanos()).unwrap_or(u64::MAX);
        let end_ns = self.span.end_ns;
        let old = |at_ns: u64| end_ns.saturating_sub(at_ns) > keep_ns;
        let processes = self.processes.iter().map(|entry| &entry.process);
        let gone: Vec<ProcessKey> = processes
            .filter(|p| p.threads == 0 && p.exited.is_some_and(|exit| old(exit.at_ns)))
            .map(|p| p.key)
            .collect();
        let threads = self.threads.iter().map(|entry| &entry.thread);
        let dead: Vec<ThreadKey> = threads.filter(|t| t.exited_ns.is_some_and(old)).map(|t| t.key).collect();
        dead.into_iter().for_each(|key| self.remove_thread(key));
        gone.into_iter().for_each(|key| self.remove_process(key));
    }

    fn remove_thread(&mut self, key: ThreadKey) {
        let Some(slot) = self.threads.find(key) else { return };
        let Some(entry) = self.threads.remove(key) else { return };
        self.history.refund(entry.track.bytes());
        if let Some(process) = self.processes.at_mut(entry.process) {
            process.threads.retain(|&thread| thread != slot);
        }
    }

    fn remove_process(&mut self, key: ProcessKey) {
        let Some(entry) = self.processes.at_mut(self.processes.find(key).unwrap_or(Slot::MAX)) else { return };
        let threads: Vec<ThreadKey> =
            entry.threads.iter().filter_map(|&slot| self.threads.at(slot)).map(|entry| entry.thread.key).collect();
        threads.into_iter().for_each(|key| self.remove_thread(key));
        if let Some(entry) = self.processes.remove(key) {
            self.history.refund(entry.track.bytes());
        }
    }
}

impl ThreadEntry {
    /// It did nothing since it was told of but sleep, as it did then.
    fn sleeps_on(&self, slept: &Asleep, number: u64) -> bool {
        let thread = &self.thread;
        self.seen + 1 == number
            && (thread.now, thread.process) == (Some(slept.state), slept.process)
            && (thread.since_ns, thread.cpu, thread.syscall) == (slept.since_ns, slept.cpu, slept.syscall)
            && thread.comm.as_bytes() == slept.name()
    }

    /// Adds what it did in a tick to the record of it, unless that goes without saying.
    fn record(&mut self, recorder: &mut Recorder, tick: &ThreadTick, number: u64, span_ns: u64, nodes: usize) {
        if self.seen == number && std::mem::take(&mut self.quiet) {
            // Told twice: then nothing goes without saying.
            recorder.loud(&quiet(&self.thread, span_ns, nodes));
        }
        self.quiet = self.seen + 1 == number && is_quiet(&self.thread, tick, span_ns, nodes);
        if !self.quiet {
            recorder.loud(tick);
        }
    }
}

impl Thread {
    /// Takes over where a thread stands at the end of a tick.
    fn update(&mut self, tick: ThreadTick, end_ns: u64) {
        if self.comm != tick.comm {
            self.comm = tick.comm;
        }
        self.now = tick.now;
        self.since_ns = tick.since_ns;
        self.cpu = tick.cpu;
        self.syscall = tick.syscall;
        self.exited_ns = tick.now.is_none().then_some(end_ns);
    }

    /// It was in the tick before and is not in this one.
    fn leave(&mut self, at_ns: u64) {
        self.now = None;
        self.syscall = None;
        self.exited_ns.get_or_insert(at_ns);
    }
}

fn code_of(lens: Lens) -> LensCode {
    match lens {
        Lens::OnCpu => ON_CPU,
        Lens::Blocked(state) => blocked_code(state),
    }
}
