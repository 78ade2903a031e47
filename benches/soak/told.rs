//! What a capture that was written meanwhile tells: whether every tick is there, what was lost, what it cost.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use sberf::collect::capture::Reader;
use sberf::tick::{Batch, Life, Loss};

/// Sums over all ticks.
#[derive(Debug, Default)]
pub struct Told {
    pub ticks: u64,
    /// Ticks that do not begin where the one before ended.
    pub gaps: u64,
    pub late: u64,
    pub longest_late_ns: u64,
    pub losses: BTreeMap<&'static str, u64>,
    pub forks: u64,
    /// Sum of all intervals.
    pub observed_ns: u64,
    /// CPU time by sberf's own account.
    pub cost_ns: u64,
    pub governor_changes: u64,
    pub governed_ticks: u64,
    /// Comparisons with procfs that gave an alarm, by what they said.
    pub alarms: BTreeMap<String, u64>,
}

impl Told {
    pub fn read(path: &Path) -> Result<Self> {
        let mut reader = Reader::open(path).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let mut told = Told::default();
        let mut last_end = None;
        while let Some(batch) = reader.next_batch().map_err(|error| anyhow!("{}: {error}", path.display()))? {
            let Batch::Tick(tick) = batch else { continue };
            told.ticks += 1;
            told.gaps += u64::from(last_end.is_some_and(|end| end != tick.span.start_ns));
            last_end = Some(tick.span.end_ns);
            told.observed_ns += tick.span.len_ns();
            told.cost_ns += tick.cost.total_ns();
            told.longest_late_ns = told.longest_late_ns.max(tick.cost.late_ns);
            for &(loss, count) in &tick.losses {
                match loss {
                    Loss::LateTick => told.late += count,
                    loss => *told.losses.entry(loss.name()).or_default() += count,
                }
            }
            told.forks += tick.events.iter().filter(|event| matches!(event.what, Life::Fork { .. })).count() as u64;
            if let Some(governor) = &tick.watch.governor {
                told.governor_changes += governor.changes.len() as u64;
                told.governed_ticks += u64::from(governor.is_governing());
            }
            for check in tick.watch.alarms() {
                *told.alarms.entry(format!("{} {:?}", check.what.name(), check.verdict)).or_default() += 1;
            }
        }
        Ok(told)
    }
}
