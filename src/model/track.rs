//! What one process, thread or group did in the ticks that memory holds, and its sums over any range of them.

use std::collections::VecDeque;

use super::entity::{IoTotals, Samples, Totals};
use super::history::History;
use super::pack::{Sums, put, put_sums, take, take_sums};
use super::window::TickRange;
use crate::tick::{Span, StateNs};

/// Records of neighbouring ticks in one piece of memory: they are many and small. A record is: first tick (from that of
/// the chunk), further ticks, length of the rest; start of the first tick if there are further ones; sums.
#[derive(Clone)]
struct Chunk {
    ticks: TickRange,
    records: Vec<u8>,
}

/// A chunk is closed beyond so many bytes. It is let go as a whole: larger ones would keep old records longer.
const CHUNK_BYTES: usize = 480;

/// What a chunk costs beside its records: itself, its place in a queue that is half full, what the allocator adds.
const OVERHEAD_BYTES: usize = 2 * size_of::<Chunk>() + 16;

impl Chunk {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.records.len()
    }

    /// Visits the records that touch a range: their ticks, the start of their first tick if they are more than one, sums.
    fn each(&self, range: TickRange, mut visit: impl FnMut(TickRange, u64, Sums)) {
        let mut bytes = self.records.as_slice();
        while !bytes.is_empty() {
            let first = self.ticks.first + take(&mut bytes);
            let last = first + take(&mut bytes);
            let len = (take(&mut bytes) as usize).min(bytes.len());
            let (mut record, rest) = bytes.split_at(len);
            bytes = rest;
            let ticks = TickRange { first, last };
            if !ticks.intersect(range).is_empty() {
                let start_ns = if first < last { take(&mut record) } else { 0 };
                visit(ticks, start_ns, take_sums(&mut record));
            }
        }
    }
}

/// What one entity did, tick by tick. Ticks in which it only slept cost nothing: they are what its sums since the start
/// have more than the track, and become one record when it wakes.
#[derive(Clone)]
pub(super) struct Track {
    chunks: VecDeque<Chunk>,
    /// Time in all records, evicted ones too.
    recorded: StateNs,
    /// The newest tick that is in a record.
    last: u64,
    /// End of that tick.
    last_end_ns: u64,
}

impl Track {
    /// Of an entity first seen in that tick.
    pub fn new(tick: u64, start_ns: u64) -> Self {
        let last = tick.saturating_sub(1);
        Track { chunks: VecDeque::new(), recorded: StateNs::default(), last, last_end_ns: start_ns }
    }

    /// Of an entity that is known with its sums, from that tick on. What came before is in no record.
    pub fn resumed(tick: u64, start_ns: u64, all: StateNs) -> Self {
        Track { recorded: all, ..Track::new(tick, start_ns) }
    }

    /// Adds a tick in which the entity did something. `before` is its time since the start without this tick. Returns
    /// the memory it took.
    pub fn push(&mut self, tick: u64, span: Span, before: &StateNs, sums: (&Totals, &IoTotals, Samples)) -> usize {
        let mut taken = 0;
        let slept = self.slept(before);
        if tick > self.last + 1 && slept != StateNs::default() {
            let totals = Totals { ns: slept, ..Totals::default() };
            let run = TickRange { first: self.last + 1, last: tick - 1 };
            taken += self.record(run, self.last_end_ns, (&totals, &IoTotals::default(), Samples::default()));
        }
        taken += self.record(TickRange { first: tick, last: tick }, span.start_ns, sums);
        self.recorded = *before;
        self.recorded.add(&sums.0.ns);
        (self.last, self.last_end_ns) = (tick, span.end_ns);
        taken
    }

    fn record(&mut self, ticks: TickRange, start_ns: u64, sums: (&Totals, &IoTotals, Samples)) -> usize {
        let mut packed = Vec::with_capacity(128);
        if ticks.first < ticks.last {
            put(&mut packed, start_ns);
        }
        put_sums(&mut packed, sums.0, sums.1, sums.2);
        let mut taken = 0;
        if self.chunks.back().is_none_or(|chunk| chunk.records.len() >= CHUNK_BYTES) {
            if let Some(full) = self.chunks.back_mut() {
                full.records.shrink_to_fit();
            }
            self.chunks.push_back(Chunk { ticks, records: Vec::new() });
            taken = OVERHEAD_BYTES;
        }
        if let Some(chunk) = self.chunks.back_mut() {
            let before = chunk.records.len();
            put(&mut chunk.records, ticks.first - chunk.ticks.first);
            put(&mut chunk.records, ticks.last - ticks.first);
            put(&mut chunk.records, packed.len() as u64);
            chunk.records.extend_from_slice(&packed);
            chunk.ticks.last = ticks.last;
            taken += chunk.records.len() - before;
        }
        taken
    }

    /// Time that is in no record yet: it only slept since.
    fn slept(&self, all: &StateNs) -> StateNs {
        let mut slept = *all;
        for (slept, recorded) in slept.0.iter_mut().zip(self.recorded.0) {
            *slept = slept.saturating_sub(recorded);
        }
        slept
    }

    /// Sums over a range of ticks. Of a run of sleep that reaches over an edge of the range, it takes the share by time:
    /// who only sleeps does so evenly.
    pub fn sum(&self, range: TickRange, all: &StateNs, history: &History) -> Sums {
        let mut sums = Sums::default();
        for chunk in self.chunks.iter().filter(|chunk| !chunk.ticks.intersect(range).is_empty()) {
            chunk.each(range, |ticks, start_ns, mut record| {
                share(&mut record.totals.ns, ticks, start_ns, range, history);
                sums.totals.add(&record.totals);
                sums.io.add(&record.io);
                sums.samples.add(record.samples);
            });
        }
        let mut slept = self.slept(all);
        let since = TickRange { first: self.last + 1, last: history.newest() };
        share(&mut slept, since, self.last_end_ns, range, history);
        sums.totals.ns.add(&slept);
        sums
    }

    /// Lets go what is older than a tick. Returns the memory it gave back.
    pub fn evict(&mut self, oldest: u64) -> usize {
        let mut freed = 0;
        while self.chunks.front().is_some_and(|chunk| chunk.ticks.last < oldest) {
            freed += self.chunks.pop_front().map_or(0, |chunk| chunk.bytes());
        }
        freed
    }

    /// Memory of its records.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Chunk::bytes).sum()
    }
}

/// Scales the time of a run of ticks to the part of it that lies in `range`. `start_ns` is when the run began: its first
/// ticks may not be held any more.
fn share(ns: &mut StateNs, run: TickRange, start_ns: u64, range: TickRange, history: &History) {
    let part = range.intersect(run);
    if part == run {
        return;
    }
    let part_ns = if part.is_empty() { 0 } else { history.len_ns(part) };
    let run_ns = history.end_ns(run.last).saturating_sub(start_ns).max(part_ns);
    for ns in ns.0.iter_mut().filter(|ns| **ns != 0) {
        *ns = (u128::from(*ns) * u128::from(part_ns)).checked_div(run_ns.into()).unwrap_or(0) as u64;
    }
}
