//! Looking at a past tick: the model as it was then.
//!
//! It is rebuilt from the archive: what was known at a keyframe, and each tick since taken in again. Names and the history
//! are shared with the present, which is put aside meanwhile; the next tick brings it back.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::apply::{ProcessEntry, ThreadEntry};
use rustc_hash::FxHashSet;

use super::archive::{Head, KeptProcess, KeptThread, Keyframe, Record, quiet};
use super::entity::{Process, Samples, Thread};
use super::group::{StackSums, add_stack};
use super::history::{HistoryTick, ON_CPU, StackEntry};
use super::names::EVICTED;
use super::table::Slot;
use super::track::Track;
use super::window::TickRange;
use super::{Limits, Model};
use crate::tick::{Session, ThreadKey, ThreadTick, Tick};

/// Ticks before the one looked at are taken in again as far back as the longest window that is looked through …
const WINDOW: Duration = Duration::from_secs(10);
/// … and farther, up to so many, while that is no more work than so many threads.
const TICKS: u64 = 120;
const THREADS: usize = 20_000;

impl Model {
    /// Ticks that can be looked at, by number; the last is the newest. `None` before the first.
    pub fn kept(&self) -> Option<RangeInclusive<u64>> {
        let present = self.present.as_deref().unwrap_or(self);
        let oldest = present.archive.oldest().unwrap_or(present.ticks);
        (present.ticks > 0).then_some(oldest..=present.ticks)
    }

    /// What is shown is a past tick.
    pub fn is_past(&self) -> bool {
        self.present.is_some()
    }

    /// End of the newest tick, CLOCK_MONOTONIC ns, whichever is looked at.
    pub fn newest_ns(&self) -> u64 {
        self.present.as_deref().unwrap_or(self).span.end_ns
    }

    /// Number of the oldest tick from which on sums of single processes and threads are known.
    pub fn accounts_from(&self) -> u64 {
        if self.is_past() { self.resumed } else { self.history.oldest() }
    }

    /// Shows a past tick, or the newest. False, and the newest, if that one is not kept.
    pub fn look_at(&mut self, tick: u64) -> bool {
        if self.is_past() && (self.ticks + 1..=self.ticks + 16).contains(&tick) && self.go_on(tick) {
            return true;
        }
        self.look_live();
        if tick == self.ticks {
            return true;
        }
        let kept = self.kept().is_some_and(|kept| kept.contains(&tick));
        if kept && let Some(past) = self.rebuilt(tick) {
            let mut present = std::mem::replace(self, past);
            (self.names, self.labels) = (std::mem::take(&mut present.names), std::mem::take(&mut present.labels));
            self.present = Some(Box::new(present));
            return true;
        }
        false
    }

    /// Back to the newest tick.
    pub fn look_live(&mut self) {
        if let Some(present) = self.present.take() {
            let past = std::mem::replace(self, *present);
            (self.names, self.labels) = (past.names, past.labels);
        }
    }

    /// From the past tick that is shown to a later one.
    fn go_on(&mut self, tick: u64) -> bool {
        let Some(present) = self.present.take() else { return false };
        let done = tick < present.ticks && self.replay(&present, tick);
        self.present = Some(present);
        done
    }

    /// The model as it was after a tick, but for its names.
    fn rebuilt(&mut self, tick: u64) -> Option<Model> {
        let first = self.resume_at(tick);
        let segment = self.archive.from(first).next()?;
        let mut past = self.resume(segment.first, &segment.keyframe()?)?;
        // What is complete is told by the names.
        past.names = std::mem::take(&mut self.names);
        let done = past.replay(self, tick);
        self.names = std::mem::take(&mut past.names);
        done.then_some(past)
    }

    /// How far back to begin, to know a tick and the windows that end with it.
    fn resume_at(&self, tick: u64) -> u64 {
        let end_ns = self.history.end_ns(tick);
        let within = |number: &u64| {
            let start_ns = self.history.tick(*number).map_or(0, |(tick, _)| tick.span.start_ns);
            let cheap = (tick - number) < TICKS && (tick - number) as usize * self.threads.len() < THREADS;
            cheap || u128::from(end_ns.saturating_sub(start_ns)) < WINDOW.as_nanos() * 11 / 10
        };
        (self.history.oldest()..=tick).rev().take_while(within).last().unwrap_or(tick)
    }

    /// Knows what a keyframe says, before its first tick.
    fn resume(&self, first: u64, keyframe: &Keyframe<'_>) -> Option<Model> {
        let (tick, _) = self.history.tick(first)?;
        let start_ns = tick.span.start_ns;
        let mut past = Model::resumed(self.session.clone(), self.limits, first, start_ns, keyframe);
        past.groups = self.groups.resumed(&keyframe.groups, first, start_ns);
        past.names_version = self.names_version;
        Some(past)
    }

    pub(super) fn resumed(
        session: Session,
        limits: Limits,
        first: u64,
        start_ns: u64,
        keyframe: &Keyframe<'_>,
    ) -> Model {
        let mut past = Model::new(session, Limits { look_back: false, ..limits });
        past.resumed = first;
        past.ticks = first.saturating_sub(1);
        past.observed_ns = keyframe.observed_ns;
        past.next_serial = keyframe.next_serial;
        past.machine_all = keyframe.machine.clone().into_owned();
        past.machine_all_io = keyframe.machine_io.clone().into_owned();
        past.devices = keyframe.devices.clone().into_owned();
        past.losses = keyframe.losses.to_vec();
        past.slow = keyframe.slow.to_vec();
        for kept in &keyframe.processes {
            past.processes.insert(kept.key, ProcessEntry::resumed(kept, Track::resumed(first, start_ns, kept.all.ns)));
        }
        for kept in &keyframe.threads {
            let Some(process) = past.processes.find(kept.process) else { continue };
            let track = Track::resumed(first, start_ns, kept.all.ns);
            // Who lived after the last tick was seen in it.
            let seen = if kept.now.is_some() { past.ticks } else { 0 };
            let slot = past.threads.insert(kept.key, ThreadEntry::resumed(kept, process, seen, track));
            if let Some(process) = past.processes.at_mut(process) {
                process.threads.push(slot);
            }
        }
        past
    }

    /// Takes in again what the archive of `present` has up to a tick. False if something of it is missing.
    fn replay(&mut self, present: &Model, upto: u64) -> bool {
        // The machine's track of the present has these ticks already: it is not to take them again, in a wrong order.
        self.machine_track = Track::resumed(self.ticks + 1, self.span.end_ns, self.machine_all.ns);
        for segment in present.archive.from(self.ticks + 1) {
            for (number, record) in (segment.first..=upto).zip(segment.records()) {
                let Some((history, block)) = present.history.tick(number) else { return false };
                if number > self.ticks {
                    let Record { head, loud, tail } = record;
                    self.take_in_again(tick_of(head, loud, history), tail, block);
                }
            }
            if self.ticks >= upto {
                break;
            }
        }
        self.history = present.history.up_to(self.ticks);
        self.machine_track = present.machine_track.clone();
        self.ticks == upto
    }

    /// The threads that a record says nothing of, as ticks, of a model as it was before that tick.
    pub(super) fn sleepers(&self, record: &Record, span_ns: u64) -> Vec<ThreadTick> {
        let gone = record.tail.gone.iter().copied();
        let told: FxHashSet<ThreadKey> = record.loud.iter().map(|thread| thread.key).chain(gone).collect();
        let threads = self.threads.iter().map(|entry| &entry.thread);
        let sleepers = threads.filter(|thread| thread.now.is_some() && !told.contains(&thread.key));
        sleepers.map(|thread| quiet(thread, span_ns, self.node_times())).collect()
    }

    /// How many node times a tick of a thread has.
    pub(super) fn node_times(&self) -> usize {
        match self.session.nodes.len() {
            0 | 1 => 0,
            nodes => nodes,
        }
    }

    /// Weight by stack of a process since we first saw it, up to the tick that is looked at.
    pub(super) fn stacks_of<'a>(&self, entry: &'a ProcessEntry) -> Cow<'a, StackSums> {
        let Some(present) = &self.present else { return Cow::Borrowed(&entry.stacks) };
        let ours = |stack: &StackEntry| stack.serial == entry.serial;
        let known = present.processes.get(entry.process.key).filter(|known| known.serial == entry.serial);
        if let Some(known) = known {
            let mut sums = known.stacks.clone();
            present.history.stacks(self.since(), |stack| {
                if ours(&stack) {
                    take_away(&mut sums, &stack);
                }
            });
            return Cow::Owned(sums);
        }
        // It was forgotten since: what the history has of it.
        let mut sums = StackSums::default();
        present.history.stacks(TickRange { first: 0, last: self.ticks }, |stack| {
            if ours(&stack) {
                add_stack(&mut sums, (stack.lens, stack.stack), stack.weight, stack.count);
            }
        });
        let held: u64 = sums.iter().filter(|((lens, _), _)| *lens == ON_CPU).map(|(_, (weight, _))| weight).sum();
        let lost = entry.process.all_samples.saturating_sub(held);
        if lost > 0 {
            add_stack(&mut sums, (ON_CPU, EVICTED), lost, lost);
        }
        Cow::Owned(sums)
    }

    /// Weight by stack of every group since the start, up to the tick that is looked at.
    pub(super) fn stacks_of_groups(&self) -> Vec<Cow<'_, StackSums>> {
        let Some(present) = &self.present else {
            return self.groups.iter().map(|group| Cow::Borrowed(&group.stacks)).collect();
        };
        let mut sums: Vec<StackSums> = present.groups.iter().map(|group| group.stacks.clone()).collect();
        present.history.stacks(self.since(), |stack| {
            if let Some(sums) = sums.get_mut(stack.group as usize) {
                take_away(sums, &stack);
            }
        });
        sums.into_iter().map(Cow::Owned).collect()
    }

    /// Ticks after the one that is looked at.
    fn since(&self) -> TickRange {
        TickRange { first: self.ticks + 1, last: u64::MAX }
    }
}

/// A tick as it came, without names, stacks, and the threads that only went on sleeping.
pub(super) fn tick_of(head: Head, loud: Vec<ThreadTick>, history: &HistoryTick) -> Tick {
    Tick {
        asleep: Vec::new(),
        span: history.span,
        threads: loud,
        cpus: history.cpus.clone(),
        disks: history.disks.clone(),
        host: head.host,
        processes: head.processes,
        io: head.io,
        nodes: head.nodes,
        slow_requests: head.slow_requests,
        quotas: head.quotas,
        stuck: head.stuck,
        events: head.events,
        losses: head.losses,
        cost: head.cost,
        watch: head.watch,
        stacks: Vec::new(),
        names: Default::default(),
    }
}

/// Takes one stack's weight off a sum; what is not there any more was added up under [`EVICTED`].
fn take_away(sums: &mut StackSums, stack: &StackEntry) {
    let (mut weight, mut count) = (stack.weight, stack.count);
    for id in [stack.stack, EVICTED] {
        let key = (stack.lens, id);
        let Some(sum) = sums.get_mut(&key) else { continue };
        let (less, fewer) = (weight.min(sum.0), count.min(sum.1));
        *sum = (sum.0 - less, sum.1 - fewer);
        (weight, count) = (weight - less, count - fewer);
        if *sum == (0, 0) {
            sums.remove(&key);
        }
    }
}

impl ProcessEntry {
    fn resumed(kept: &KeptProcess<'_>, track: Track) -> Self {
        let process = Process {
            key: kept.key,
            facts: kept.facts.clone().into_owned(),
            threads: kept.threads,
            all: kept.all.clone().into_owned(),
            all_io: kept.all_io.clone().into_owned(),
            all_samples: kept.samples.all,
            all_samples_complete: kept.samples.complete,
            exited: kept.exited,
            ..Process::default()
        };
        let (serial, group, has_facts) = (kept.serial, kept.group, kept.has_facts);
        ProcessEntry { serial, group, has_facts, track, ..ProcessEntry::of(process) }
    }

    fn kept(&self) -> KeptProcess<'_> {
        let process = &self.process;
        KeptProcess {
            key: process.key,
            facts: Cow::Borrowed(&process.facts),
            has_facts: self.has_facts,
            serial: self.serial,
            group: self.group,
            threads: process.threads,
            all: Cow::Borrowed(&process.all),
            all_io: Cow::Borrowed(&process.all_io),
            samples: Samples { all: process.all_samples, complete: process.all_samples_complete },
            exited: process.exited,
        }
    }
}

impl ThreadEntry {
    fn resumed(kept: &KeptThread<'_>, process: Slot, seen: u64, track: Track) -> Self {
        let thread = Thread {
            key: kept.key,
            process: kept.process,
            comm: kept.comm.clone().into_owned(),
            now: kept.now,
            since_ns: kept.since_ns,
            cpu: kept.cpu,
            syscall: kept.syscall,
            all: kept.all.clone().into_owned(),
            exited_ns: kept.exited_ns,
            ..Thread::default()
        };
        ThreadEntry { thread, process, seen, quiet: false, track }
    }

    fn kept(&self) -> KeptThread<'_> {
        let thread = &self.thread;
        KeptThread {
            key: thread.key,
            process: thread.process,
            comm: Cow::Borrowed(&thread.comm),
            now: thread.now,
            since_ns: thread.since_ns,
            cpu: thread.cpu,
            syscall: thread.syscall,
            all: Cow::Borrowed(&thread.all),
            exited_ns: thread.exited_ns,
        }
    }
}

impl Model {
    /// All that is known, but for names and history.
    pub(super) fn keyframe(&self) -> Keyframe<'_> {
        Keyframe {
            observed_ns: self.observed_ns,
            next_serial: self.next_serial,
            machine: Cow::Borrowed(&self.machine_all),
            machine_io: Cow::Borrowed(&self.machine_all_io),
            devices: Cow::Borrowed(&self.devices),
            losses: Cow::Borrowed(&self.losses),
            slow: Cow::Borrowed(&self.slow),
            groups: self.groups.iter().map(|group| group.all).collect(),
            processes: self.processes.iter().map(ProcessEntry::kept).collect(),
            threads: self.threads.iter().map(ThreadEntry::kept).collect(),
        }
    }
}
