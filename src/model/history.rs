//! The past, tick by tick, within a bound: what the machine did, and which stacks weighed what.

use std::collections::VecDeque;
use std::sync::Arc;

use super::pack::{put, take};
use super::window::{TickRange, Window, resolve};
use crate::tick::{CpuTick, DiskTick, Hist, Span, StackId, State, StateNs};

/// One column of a history: what one tick says of the whole machine.
#[derive(Clone, Debug, Default)]
pub struct HistoryTick {
    /// The first tick applied is number 1.
    pub number: u64,
    /// When.
    pub span: Span,
    /// State times of the whole machine.
    pub ns: StateNs,
    /// Waits for a CPU that ended, ns.
    pub runq: Hist,
    /// Every CPU that was online.
    pub cpus: Vec<CpuTick>,
    /// Every disk.
    pub disks: Vec<DiskTick>,
    /// Records that were lost, all causes.
    pub losses: u64,
}

impl HistoryTick {
    /// Memory it occupies, about.
    fn bytes(&self) -> usize {
        let cpus: usize = self.cpus.iter().map(|cpu| size_of::<CpuTick>() + hist_bytes(&cpu.runq)).sum();
        let disk = |disk: &DiskTick| {
            let ops = disk.ops.iter().map(|op| hist_bytes(&op.queued) + hist_bytes(&op.device) + hist_bytes(&op.size));
            size_of::<DiskTick>() + disk.name.len() + ops.sum::<usize>()
        };
        size_of::<Self>() + hist_bytes(&self.runq) + cpus + self.disks.iter().map(disk).sum::<usize>()
    }
}

fn hist_bytes(hist: &Hist) -> usize {
    size_of_val(hist.counts.as_slice())
}

/// A lens as one byte: 0 for samples, else 1 + the state.
pub(super) type LensCode = u8;

/// On-CPU samples.
pub(super) const ON_CPU: LensCode = 0;

/// Time blocked in a state. What claims to be blocked in a state that is none counts as blocked for another reason.
pub(super) fn blocked_code(state: State) -> LensCode {
    1 + if state.is_blocked() { state } else { State::Other } as u8
}

/// What one stack of one process weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StackEntry {
    /// The group (name of the command) of the process at the time.
    pub group: u32,
    /// Serial number of the process.
    pub serial: u32,
    pub lens: LensCode,
    pub stack: StackId,
    pub weight: u64,
    pub count: u64,
}

impl StackEntry {
    fn run(&self) -> (u32, u32, LensCode) {
        (self.group, self.serial, self.lens)
    }
}

/// The stack weights of one tick: sorted, packed. Most are of threads that slept all the time, so a weight that is a
/// multiple of the interval is written as that multiple. Samples stand apart: they are few, and looked at all the time.
#[derive(Clone, Default)]
pub(super) struct Block {
    sampled: Arc<[u8]>,
    waited: Arc<[u8]>,
}

impl Block {
    fn new(entries: &mut [StackEntry], span_ns: u64) -> Self {
        // They mostly come sorted but for a few, which this makes use of.
        entries.sort_by(|a, b| (a.lens != ON_CPU).cmp(&(b.lens != ON_CPU)).then_with(|| a.cmp(b)));
        let (sampled, waited) = entries.split_at(entries.partition_point(|entry| entry.lens == ON_CPU));
        Block { sampled: pack(sampled, span_ns.max(1)), waited: pack(waited, span_ns.max(1)) }
    }

    fn bytes(&self) -> usize {
        self.sampled.len() + self.waited.len()
    }

    /// Visits them, samples first, each kind sorted.
    pub fn each(&self, mut visit: impl FnMut(StackEntry)) {
        self.each_sampled(&mut visit);
        unpack(&self.waited, &mut visit);
    }

    /// Visits the samples, sorted.
    pub fn each_sampled(&self, visit: &mut impl FnMut(StackEntry)) {
        unpack(&self.sampled, visit);
    }
}

/// Sorted entries as bytes; none as none.
fn pack(entries: &[StackEntry], span_ns: u64) -> Arc<[u8]> {
    if entries.is_empty() {
        return Arc::default();
    }
    let mut out = Vec::with_capacity(entries.len() * 6 + 8);
    put(&mut out, span_ns);
    let mut group = 0;
    for run in entries.chunk_by(|a, b| a.run() == b.run()) {
        put(&mut out, (run[0].group - group).into());
        group = run[0].group;
        put(&mut out, run[0].serial.into());
        put(&mut out, (run.len() as u64) << 4 | u64::from(run[0].lens));
        let mut before = 0;
        for entry in run {
            put(&mut out, (entry.stack.0 - before).into());
            before = entry.stack.0;
            let whole = entry.weight.is_multiple_of(span_ns);
            put(&mut out, entry.count.min(u64::MAX >> 1) << 1 | u64::from(whole));
            put(&mut out, if whole { entry.weight / span_ns } else { entry.weight });
        }
    }
    out.into()
}

fn unpack(mut bytes: &[u8], visit: &mut impl FnMut(StackEntry)) {
    if bytes.is_empty() {
        return;
    }
    let span_ns = take(&mut bytes);
    let mut group = 0;
    while !bytes.is_empty() {
        group += take(&mut bytes) as u32;
        let serial = take(&mut bytes) as u32;
        let run = take(&mut bytes);
        let lens = (run & 15) as LensCode;
        let mut stack = StackId(0);
        for _ in 0..run >> 4 {
            stack.0 += take(&mut bytes) as u32;
            let count = take(&mut bytes);
            let unit = if count & 1 == 1 { span_ns } else { 1 };
            let weight = take(&mut bytes) * unit;
            visit(StackEntry { group, serial, lens, stack, weight, count: count >> 1 });
        }
    }
}

/// The ring of past ticks. A copy costs two pointers for each.
#[derive(Clone, Default)]
pub(super) struct History {
    ticks: VecDeque<Arc<HistoryTick>>,
    blocks: VecDeque<Block>,
    /// Memory of all that is kept, tracks and archive included.
    bytes: usize,
    evicted: u64,
}

impl History {
    /// Past ticks, newest last.
    pub fn ticks(&self) -> &VecDeque<Arc<HistoryTick>> {
        &self.ticks
    }

    /// How many ticks were let go.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Memory of all that is kept, tracks and archive included, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the newest tick with the weights of its stacks, which it sorts.
    pub fn push(&mut self, tick: HistoryTick, stacks: &mut [StackEntry]) {
        let block = Block::new(stacks, tick.span.len_ns());
        self.bytes += tick.bytes() + block.bytes();
        self.ticks.push_back(Arc::new(tick));
        self.blocks.push_back(block);
    }

    /// Counts memory that tracks or the archive took.
    pub fn charge(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Counts memory that tracks or the archive gave back.
    pub fn refund(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A sixteenth of all ticks, the oldest ones, ends before this one.
    pub fn sixteenth(&self) -> u64 {
        self.oldest() + self.ticks.len().div_ceil(16) as u64
    }

    /// Lets the ticks before that one go; the newest stays. Returns how many went.
    pub fn evict(&mut self, oldest: u64) -> u64 {
        let count = oldest.saturating_sub(self.oldest()).min(self.ticks.len().saturating_sub(1) as u64) as usize;
        for (tick, block) in self.ticks.drain(..count).zip(self.blocks.drain(..count)) {
            self.bytes = self.bytes.saturating_sub(tick.bytes() + block.bytes());
        }
        self.evicted += count as u64;
        count as u64
    }

    /// Up to a tick, as if nothing had come after it.
    pub fn up_to(&self, newest: u64) -> Self {
        let end = self.indices(TickRange { first: 0, last: newest }).end;
        let mut history = self.clone();
        history.ticks.truncate(end);
        history.blocks.truncate(end);
        history
    }

    /// A tick and the weights of its stacks.
    pub fn tick(&self, number: u64) -> Option<(&Arc<HistoryTick>, &Block)> {
        let at = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        Some((self.ticks.get(at)?, self.blocks.get(at)?))
    }

    /// Number of the oldest tick held.
    pub fn oldest(&self) -> u64 {
        self.ticks.front().map_or(0, |tick| tick.number)
    }

    /// Number of the newest tick.
    pub fn newest(&self) -> u64 {
        self.ticks.back().map_or(0, |tick| tick.number)
    }

    /// Ticks of a window; `None` for all.
    pub fn resolve(&self, window: Window) -> Option<TickRange> {
        resolve(window, self.newest(), self.ticks.iter().map(|tick| tick.span))
    }

    /// Ticks of a range that are held.
    pub fn range(&self, range: TickRange) -> impl Iterator<Item = &HistoryTick> {
        self.indices(range).filter_map(|at| self.ticks.get(at)).map(|tick| &**tick)
    }

    /// Length of a range, ns.
    pub fn len_ns(&self, range: TickRange) -> u64 {
        self.range(range).fold(0, |sum, tick| tick.span.len_ns().saturating_add(sum))
    }

    /// Visits the stack weights of a range.
    pub fn stacks(&self, range: TickRange, mut visit: impl FnMut(StackEntry)) {
        for block in self.indices(range).filter_map(|at| self.blocks.get(at)) {
            block.each(&mut visit);
        }
    }

    /// Visits the samples of a range.
    pub fn samples(&self, range: TickRange, mut visit: impl FnMut(StackEntry)) {
        for block in self.indices(range).filter_map(|at| self.blocks.get(at)) {
            block.each_sampled(&mut visit);
        }
    }

    fn indices(&self, range: TickRange) -> std::ops::Range<usize> {
        let held = range.intersect(TickRange { first: self.oldest(), last: self.newest() });
        if held.is_empty() || self.ticks.is_empty() {
            return 0..0;
        }
        (held.first - self.oldest()) as usize..(held.last + 1 - self.oldest()) as usize
    }

    /// End of a tick; 0 for one that is not held.
    pub fn end_ns(&self, tick: u64) -> u64 {
        tick.checked_sub(self.oldest()).and_then(|at| self.ticks.get(at as usize)).map_or(0, |tick| tick.span.end_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_weights_come_back_sorted_and_small() {
        let entry = |group, serial, lens, stack, weight, count| StackEntry {
            group,
            serial,
            lens,
            stack: StackId(stack),
            weight,
            count,
        };
        let mut entries = vec![
            entry(7, 3, blocked_code(State::Poll), 9, 2_000_000_000, 0),
            entry(7, 3, blocked_code(State::Other), u32::MAX, u64::MAX, u64::MAX >> 1),
            entry(0, u32::MAX, ON_CPU, 0, 3, 3),
            entry(7, 3, blocked_code(State::Poll), 10, 1_999_999_999, 4),
        ];
        for span_ns in [0, 1_000_000_000, u64::MAX] {
            let block = Block::new(&mut entries, span_ns);
            let mut seen = Vec::new();
            block.each(|entry| seen.push(entry));
            assert_eq!(seen, entries);
        }
        let mut sleepers: Vec<StackEntry> =
            (0..1000).map(|n| entry(n / 10, n, blocked_code(State::Poll), n % 50, 1_000_000_000, 0)).collect();
        assert!(Block::new(&mut sleepers, 1_000_000_000).bytes() < 8 * 1000);
    }
}
