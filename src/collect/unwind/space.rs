//! Which parts of an array are free.

use std::collections::{BTreeMap, BTreeSet};

/// A run of places in an array: the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first place.
    pub start: u32,
    /// How many.
    pub length: u32,
}

/// Free places of an array that is cut into chunks (or is one chunk): no run crosses a boundary.
#[derive(Debug)]
pub struct Space {
    chunk: u32,
    /// Length by start; two that touch lie in different chunks.
    free: BTreeMap<u32, u32>,
    /// (length, start) of the same.
    by_length: BTreeSet<(u32, u32)>,
    total: u64,
}

impl Space {
    /// Nothing is free yet.
    pub fn new(chunk: u32) -> Self {
        Space { chunk, free: BTreeMap::new(), by_length: BTreeSet::new(), total: 0 }
    }

    /// Takes a run of that length, from the shortest one that holds it.
    pub fn take(&mut self, length: u32) -> Option<Run> {
        if length == 0 {
            return None;
        }
        let &(found, start) = self.by_length.range((length, 0)..).next()?;
        self.remove(Run { start, length: found });
        if found > length {
            self.insert(Run { start: start + length, length: found - length });
        }
        Some(Run { start, length })
    }

    /// Gives a run (back). It must not be free, nor cross a boundary.
    pub fn give(&mut self, run: Run) {
        let mut run = run;
        if let Some((&start, &length)) = self.free.range(..run.start).next_back()
            && start + length == run.start
            && start / self.chunk == run.start / self.chunk
        {
            self.remove(Run { start, length });
            run = Run { start, length: length + run.length };
        }
        let end = run.start + run.length;
        if let Some(&length) = self.free.get(&end)
            && end / self.chunk == run.start / self.chunk
        {
            self.remove(Run { start: end, length });
            run.length += length;
        }
        self.insert(run);
    }

    /// How many places are free.
    #[cfg(test)]
    pub fn total(&self) -> u64 {
        self.total
    }

    fn insert(&mut self, run: Run) {
        self.free.insert(run.start, run.length);
        self.by_length.insert((run.length, run.start));
        self.total += u64::from(run.length);
    }

    fn remove(&mut self, run: Run) {
        self.free.remove(&run.start);
        self.by_length.remove(&(run.length, run.start));
        self.total -= u64::from(run.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(start: u32, length: u32) -> Run {
        Run { start, length }
    }

    #[test]
    fn the_shortest_that_fits() {
        let mut space = Space::new(100);
        space.give(run(0, 100));
        space.give(run(100, 10));
        assert_eq!(space.take(8), Some(run(100, 8)));
        assert_eq!(space.take(8), Some(run(0, 8)));
        assert_eq!((space.take(93), space.total()), (None, 94));
        assert_eq!(space.take(0), None);
    }

    #[test]
    fn chunks_do_not_join() {
        let mut space = Space::new(100);
        space.give(run(0, 100));
        space.give(run(100, 100));
        assert_eq!(space.take(101), None);
        assert_eq!((space.take(100), space.take(100), space.take(1)), (Some(run(0, 100)), Some(run(100, 100)), None));
    }

    proptest! {
        /// Nothing is handed out twice, all comes back, and what is given back joins.
        #[test]
        fn what_is_taken_is_taken_once(steps in prop::collection::vec((1u32..60, any::<prop::sample::Index>()), 1..200)) {
            let mut space = Space::new(64);
            for chunk in 0..4 {
                space.give(run(chunk * 64, 64));
            }
            let mut taken: Vec<Run> = Vec::new();
            for (length, which) in steps {
                match space.take(length) {
                    Some(new) => {
                        prop_assert_eq!(new.start / 64, (new.start + new.length - 1) / 64);
                        for old in &taken {
                            prop_assert!(new.start + new.length <= old.start || old.start + old.length <= new.start);
                        }
                        taken.push(new);
                    }
                    None if !taken.is_empty() => space.give(taken.swap_remove(which.index(taken.len()))),
                    None => {}
                }
                let used: u64 = taken.iter().map(|run| u64::from(run.length)).sum();
                prop_assert_eq!(space.total() + used, 256);
            }
            taken.into_iter().for_each(|run| space.give(run));
            for _ in 0..4 {
                prop_assert!(space.take(64).is_some());
            }
        }
    }
}
