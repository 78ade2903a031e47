//! Ticks that wait while the picture is held.

use std::collections::VecDeque;

use sberf::tick::{Batch, Loss, Names, ProcessFacts, Tick};

/// Bytes of packed batches that may wait: several minutes of a machine with thousands of threads.
const BOUND: usize = 32 << 20;

/// Batches in the order in which they came, packed. What is over the bound loses its oldest ticks, but no names, and
/// the next tick says how many were lost.
#[derive(Default)]
pub struct Held {
    packed: VecDeque<(Vec<u8>, bool)>,
    bytes: usize,
    ticks: usize,
    lost: u64,
    /// Of ticks that were lost: later ticks build on them.
    names: Vec<Names>,
    processes: Vec<ProcessFacts>,
}

impl Held {
    /// Ticks that wait.
    pub fn ticks(&self) -> usize {
        self.ticks
    }

    /// Keeps a batch for later.
    pub fn push(&mut self, batch: &Batch) {
        let packed = postcard::to_stdvec(batch).ok().and_then(|raw| zstd::bulk::compress(&raw, 1).ok());
        let Some(packed) = packed else { return };
        let is_tick = matches!(batch, Batch::Tick(_));
        self.bytes += packed.len();
        self.ticks += usize::from(is_tick);
        self.packed.push_back((packed, is_tick));
        while self.bytes > BOUND && self.packed.len() > 1 {
            self.lose_oldest();
        }
    }

    /// Hands out all that waits, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = Batch> {
        std::iter::from_fn(|| self.pop())
    }

    /// Hands out the oldest that waits.
    pub fn pop(&mut self) -> Option<Batch> {
        if let Some(names) = self.names.pop() {
            return Some(Batch::Names(Box::new(names)));
        }
        let mut batch = self.unpack()?;
        if let Batch::Tick(tick) = &mut batch
            && self.lost > 0
        {
            tick.losses.push((Loss::Evicted, std::mem::take(&mut self.lost)));
            self.processes.append(&mut tick.processes);
            tick.processes = std::mem::take(&mut self.processes);
        }
        Some(batch)
    }

    fn unpack(&mut self) -> Option<Batch> {
        let (packed, is_tick) = self.packed.pop_front()?;
        self.bytes -= packed.len();
        self.ticks -= usize::from(is_tick);
        // Our own bytes, from our own memory.
        let raw = zstd::stream::decode_all(&packed[..]).ok()?;
        postcard::from_bytes(&raw).ok()
    }

    fn lose_oldest(&mut self) {
        match self.unpack() {
            Some(Batch::Tick(tick)) => {
                let Tick { names, processes, losses, .. } = *tick;
                self.lost +=
                    1 + losses.iter().filter(|(cause, _)| *cause == Loss::Evicted).map(|(_, n)| n).sum::<u64>();
                self.names.insert(0, names);
                self.processes.extend(processes);
            }
            Some(Batch::Names(names)) => self.names.insert(0, *names),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sberf::tick::{ModuleId, Span, ThreadTick};

    fn tick(at: u64, bytes: usize) -> Batch {
        // Noise, or it would pack to nothing.
        let mut seed = at + 1;
        let comm = (0..bytes).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + (seed >> 58) as u8)
        });
        let threads = vec![ThreadTick { comm: comm.collect(), ..ThreadTick::default() }];
        let mut tick = Tick { span: Span { start_ns: at, ..Span::default() }, threads, ..Tick::default() };
        tick.names.modules.push((ModuleId(at as u32), Default::default()));
        tick.processes.push(ProcessFacts { ppid: at as u32, ..ProcessFacts::default() });
        Batch::Tick(Box::new(tick))
    }

    #[test]
    fn what_waits_comes_out_in_order() {
        let mut held = Held::default();
        (0..3).for_each(|at| held.push(&tick(at, 10)));
        assert_eq!(held.ticks(), 3);
        let out: Vec<String> = held.drain().map(|batch| format!("{batch:?}")).collect();
        assert_eq!(out, (0..3).map(|at| format!("{:?}", tick(at, 10))).collect::<Vec<_>>());
        assert_eq!((held.ticks(), held.bytes), (0, 0));
    }

    #[test]
    fn over_the_bound_ticks_are_lost_and_counted_but_names_are_not() {
        let mut held = Held::default();
        let big = BOUND / 4;
        (0..8).for_each(|at| held.push(&tick(at, big)));
        assert!(held.bytes <= BOUND);
        let kept = held.ticks() as u64;
        assert!((3..8).contains(&kept), "{kept}");
        let (mut modules, mut lost, mut parents) = (vec![], 0, vec![]);
        for batch in held.drain() {
            let names = match batch {
                Batch::Names(names) => *names,
                Batch::Tick(tick) => {
                    lost += tick.losses.iter().map(|(_, count)| count).sum::<u64>();
                    parents.extend(tick.processes.iter().map(|facts| facts.ppid));
                    tick.names
                }
            };
            modules.extend(names.modules.iter().map(|(id, _)| id.0));
        }
        assert_eq!(kept + lost, 8);
        assert_eq!(modules, (0..8).collect::<Vec<u32>>());
        assert_eq!(parents, (0..8).collect::<Vec<u32>>());
    }
}
