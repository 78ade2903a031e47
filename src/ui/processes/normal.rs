//! What is normal for each process, so that a cell off its own recent normal can stand out.

use rustc_hash::FxHashMap;

use super::fields::Field;
use crate::model::{Model, Process};
use crate::tick::ProcessKey;

/// What is followed: CPU time, the longest wait for a CPU, bytes to and from disks.
const FOLLOWED: usize = 3;
/// Weight of the newest tick in an average.
const NEWEST: f64 = 0.1;
/// Ticks before anything can be said.
const WARM_UP: u32 = 10;
/// Off by more than so many mean deviations …
const DEVIATIONS: f64 = 4.0;
/// … and by more than this is worth a look: 5 % of a second of CPU, 5 ms, 1 MB.
const FLOORS: [f64; FOLLOWED] = [5e7, 5e6, 1e6];

/// Running averages of one process.
#[derive(Clone, Copy, Debug, Default)]
struct Normal {
    ticks: u32,
    mean: [f64; FOLLOWED],
    deviation: [f64; FOLLOWED],
    off: [bool; FOLLOWED],
}

impl Normal {
    fn see(&mut self, values: [f64; FOLLOWED]) {
        self.ticks = self.ticks.saturating_add(1);
        // At first every tick counts alike.
        let weight = NEWEST.max(1.0 / f64::from(self.ticks));
        for (at, value) in values.into_iter().enumerate() {
            let off = (value - self.mean[at]).abs();
            self.off[at] = self.ticks > WARM_UP && off > DEVIATIONS * self.deviation[at] + FLOORS[at];
            self.deviation[at] += weight * (off - self.deviation[at]);
            self.mean[at] += weight * (value - self.mean[at]);
        }
    }
}

fn values(process: &Process) -> [f64; FOLLOWED] {
    let totals = &process.tick;
    [totals.ns.on_cpu() as f64, totals.runq.max as f64, process.tick_io.moved_bytes() as f64]
}

/// What is normal, by process. Follows those that live; forgets the others.
#[derive(Debug, Default)]
pub struct Normals {
    known: FxHashMap<ProcessKey, Normal>,
    /// The newest tick that is in it.
    newest: u64,
}

impl Normals {
    /// A new tick. One that is looked at again teaches nothing.
    pub fn tick(&mut self, model: &Model) {
        if model.is_past() || model.is_glance() || model.ticks() <= self.newest {
            return;
        }
        self.newest = model.ticks();
        for process in model.processes() {
            self.known.entry(process.key).or_default().see(values(process));
        }
        if self.known.len() > model.process_count() {
            self.known.retain(|&key, _| model.process(key).is_some());
        }
    }

    /// Whether a cell of a process is off its normal.
    pub fn is_off(&self, process: ProcessKey, field: Field) -> bool {
        let followed = match field {
            Field::Cpu => 0,
            Field::RunqMax | Field::RunqP99 => 1,
            Field::Disk => 2,
            _ => return false,
        };
        self.known.get(&process).is_some_and(|normal| normal.off[followed])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: &[f64]) -> Normal {
        let mut normal = Normal::default();
        values.iter().for_each(|&value| normal.see([value, 0.0, 0.0]));
        normal
    }

    #[test]
    fn a_leap_is_off_and_what_lasts_becomes_normal() {
        let steady = [1e8; 20];
        assert!(!after(&steady).off[0]);
        let mut leap = steady.to_vec();
        leap.push(9e8);
        assert!(after(&leap).off[0]);
        leap.extend([9e8; 60]);
        assert!(!after(&leap).off[0]);
    }

    #[test]
    fn what_always_varies_is_normal() {
        let varying: Vec<f64> = (0..60).map(|at| if at % 2 == 0 { 1e8 } else { 6e8 }).collect();
        assert!(!after(&varying).off[0]);
    }

    #[test]
    fn little_things_and_the_first_ticks_are_not_worth_a_look() {
        let mut small = vec![0.0; 20];
        small.push(4e7);
        assert!(!after(&small).off[0], "4 % of a CPU");
        assert!(!after(&[0.0, 0.0, 9e8]).off[0], "too early to say");
    }
}
