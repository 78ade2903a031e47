//! BPF programs of others, while the kernel counts what they cost.

use rustc_hash::FxHashMap;

use super::programs::Kernel;
use crate::collect::live::maps::{self, ProgramInfo};
use crate::tick::OtherProgram;

/// Programs looked at in a tick, and kept, at most.
const MOST: usize = 4096;
const TOLD: usize = 64;

/// The last readings by id.
#[derive(Default)]
pub struct Others(FxHashMap<u32, (u64, u64)>);

impl Others {
    /// Those that ran since the last call, most time first, bounded; `None` where looking at them is not allowed, and the
    /// first time, for there is nothing to compare with.
    pub fn since(&mut self, ours: &Kernel) -> Option<Vec<OtherProgram>> {
        let infos = programs(ours)?;
        let readings = infos.iter().map(|info| (info.id, (info.runs, info.ns))).collect();
        let before = std::mem::replace(&mut self.0, readings);
        if before.is_empty() && !infos.is_empty() {
            return None;
        }
        Some(difference(infos, &before))
    }
}

fn difference(infos: Vec<ProgramInfo>, before: &FxHashMap<u32, (u64, u64)>) -> Vec<OtherProgram> {
    let since = |info: ProgramInfo| {
        let (runs, ns) = before.get(&info.id).copied().unwrap_or_default();
        let (runs, ns) = (info.runs.saturating_sub(runs), info.ns.saturating_sub(ns));
        (runs > 0).then_some(OtherProgram { id: info.id, name: info.name, runs, ns })
    };
    let mut others: Vec<OtherProgram> = infos.into_iter().filter_map(since).collect();
    others.sort_by_key(|other| (std::cmp::Reverse(other.ns), other.id));
    others.truncate(TOLD);
    others
}

fn programs(ours: &Kernel) -> Option<Vec<ProgramInfo>> {
    let mut found = Vec::new();
    let mut id = 0;
    while let Some(next) = maps::next_program(id).ok()? {
        id = next;
        if ours.has(id) {
            continue;
        }
        // Gone meanwhile, if it cannot be opened; not allowed, if none can.
        found.extend(maps::program_by_id(id).ok().and_then(|fd| maps::program_info(&fd)));
        if found.len() >= MOST {
            break;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_time_first_and_only_who_ran() {
        let info = |id: u32, runs, ns| ProgramInfo { id, name: format!("p{id}"), runs, ns };
        let before = [(1, (5, 50)), (2, (7, 70))].into_iter().collect();
        let others = difference(vec![info(1, 6, 60), info(2, 7, 70), info(3, 2, 900)], &before);
        let told: Vec<_> = others.iter().map(|other| (other.id, other.runs, other.ns)).collect();
        assert_eq!(told, [(3, 2, 900), (1, 1, 10)]);
    }
}
