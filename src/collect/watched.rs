//! Which processes are told of: all of them, those that were named, or one and whoever descends from it.

use rustc_hash::{FxHashMap, FxHashSet};

use super::mappings::{ns_per_clock_tick, process_now};
use crate::tick::{Event, Life, ProcessKey};

/// Ticks for which an ended process is still told of: the last accounts of its threads may come one tick late.
const LATE_TICKS: u8 = 2;

/// Marks the id of a task that has none in the pid namespace that we run in: ids end far below it.
pub const ELSEWHERE: u32 = 1 << 30;

/// Whether an id is marked so.
pub const fn is_elsewhere(id: u32) -> bool {
    id & ELSEWHERE != 0
}

/// The choice.
#[derive(Default)]
pub struct Watched {
    /// PIDs, and when the processes began that were named by them, in clock ticks, which is all that procfs tells.
    named: FxHashMap<u32, u64>,
    /// The one that is followed and its descendants.
    tree: Option<FxHashSet<u32>>,
    /// Descendants that have ended, with the ticks for which they stay.
    ended: Vec<(ProcessKey, u8)>,
}

/// The processes that have these PIDs now.
pub fn named(pids: &[u32]) -> Vec<ProcessKey> {
    // One that has ended already never comes back.
    let gone = |tgid| ProcessKey { tgid, start_ns: u64::MAX };
    pids.iter().map(|&pid| process_now(pid).unwrap_or_else(|_| gone(pid))).collect()
}

impl Watched {
    /// The processes that were named, and the one that is followed with all that it starts from now on. Neither: all.
    pub fn new(named: &[ProcessKey], follow: Option<u32>) -> Self {
        Watched {
            named: named.iter().map(|key| (key.tgid, ticks(key))).collect(),
            tree: follow.map(|root| FxHashSet::from_iter([root])),
            ended: Vec::new(),
        }
    }

    /// Every process is told of.
    pub fn all(&self) -> bool {
        self.named.is_empty() && self.tree.is_none()
    }

    /// Whether that process is told of.
    pub fn wants(&self, process: ProcessKey) -> bool {
        !is_elsewhere(process.tgid) && (self.all() || self.is_named(process) || self.is_in_tree(process))
    }

    /// Whether that very process was named, not one that had, or has, the same PID.
    pub fn is_named(&self, process: ProcessKey) -> bool {
        self.named.get(&process.tgid) == Some(&ticks(&process))
    }

    fn is_in_tree(&self, process: ProcessKey) -> bool {
        let is_anothers = |&(ended, _): &(ProcessKey, u8)| ended.tgid == process.tgid && ended != process;
        self.tree.as_ref().is_some_and(|tree| tree.contains(&process.tgid)) && !self.ended.iter().any(is_anothers)
    }

    /// Takes in what happened to processes, oldest first.
    pub fn learn(&mut self, events: &[Event]) {
        let Some(tree) = &mut self.tree else { return };
        for event in events {
            let tgid = event.process.tgid;
            match event.what {
                Life::Fork { parent } if tree.contains(&parent) => {
                    self.ended.retain(|(ended, _)| ended.tgid != tgid);
                    tree.insert(tgid);
                }
                Life::Exit { .. } if tree.contains(&tgid) => self.ended.push((event.process, LATE_TICKS)),
                _ => {}
            }
        }
    }

    /// Takes in who is whose child, as (PID, parent's PID), where nobody tells of forks. Children whose parent ended
    /// between two ticks are missed.
    pub fn adopt(&mut self, parents: impl Iterator<Item = (u32, u32)> + Clone) {
        let Some(tree) = &mut self.tree else { return };
        loop {
            let before = tree.len();
            for (tgid, parent) in parents.clone() {
                if tree.contains(&parent) {
                    tree.insert(tgid);
                }
            }
            if tree.len() == before {
                return;
            }
        }
    }

    /// A tick is over: lets go of those that ended long enough ago, whose PIDs may become others'.
    pub fn end_tick(&mut self) {
        let Some(tree) = &mut self.tree else { return };
        self.ended.retain_mut(|(process, left)| {
            *left -= 1;
            if *left == 0 {
                tree.remove(&process.tgid);
            }
            *left > 0
        });
    }
}

fn ticks(process: &ProcessKey) -> u64 {
    process.start_ns / ns_per_clock_tick()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tgid: u32) -> ProcessKey {
        ProcessKey { tgid, start_ns: 0 }
    }

    fn event(tgid: u32, what: Life) -> Event {
        Event { at_ns: 0, process: key(tgid), comm: String::new(), what }
    }

    #[test]
    fn nobody_named_is_everybody() {
        let watched = Watched::new(&[], None);
        assert!(watched.all() && watched.wants(key(7)));
        assert!(!watched.wants(key(7 | ELSEWHERE)), "but who has no id here");
        let watched = Watched::new(&[key(7)], None);
        assert!(!watched.all() && watched.wants(key(7)) && !watched.wants(key(8)));
    }

    #[test]
    fn who_gets_the_pid_of_one_that_was_named_is_another() {
        let tick = ns_per_clock_tick();
        let named = ProcessKey { tgid: 7, start_ns: 40 * tick };
        let watched = Watched::new(&[named], None);
        assert!(watched.wants(ProcessKey { start_ns: named.start_ns + tick - 1, ..named }), "procfs tells ticks");
        assert!(!watched.wants(ProcessKey { start_ns: named.start_ns + tick, ..named }));
        let gone = Watched::new(&super::named(&[u32::MAX]), None);
        assert!(!gone.all() && !gone.wants(key(u32::MAX)), "nobody is not everybody");
    }

    #[test]
    fn who_gets_the_pid_of_a_descendant_is_another() {
        let mut watched = Watched::new(&[], Some(7));
        watched.learn(&[event(8, Life::Fork { parent: 7 }), event(8, Life::Exit { status: 0 })]);
        assert!(watched.wants(key(8)) && !watched.wants(ProcessKey { tgid: 8, start_ns: 5 }));
    }

    #[test]
    fn descendants_are_followed_until_their_last_accounts_are_in() {
        let mut watched = Watched::new(&[key(5)], Some(7));
        watched.learn(&[
            event(8, Life::Fork { parent: 7 }),
            event(9, Life::Fork { parent: 8 }),
            event(30, Life::Fork { parent: 1 }),
            event(6, Life::Fork { parent: 5 }),
            event(8, Life::Exit { status: 0 }),
        ]);
        let wanted = |watched: &Watched| (1..40).filter(|&tgid| watched.wants(key(tgid))).collect::<Vec<_>>();
        assert_eq!(wanted(&watched), [5, 7, 8, 9]);
        watched.end_tick();
        assert_eq!(wanted(&watched), [5, 7, 8, 9], "its last account may come late");
        watched.end_tick();
        assert_eq!(wanted(&watched), [5, 7, 9]);
    }

    #[test]
    fn a_pid_that_is_used_again_at_once_stays() {
        let mut watched = Watched::new(&[], Some(7));
        watched.learn(&[event(8, Life::Fork { parent: 7 }), event(8, Life::Exit { status: 0 })]);
        watched.learn(&[event(8, Life::Fork { parent: 7 })]);
        (0..5).for_each(|_| watched.end_tick());
        assert!(watched.wants(key(8)));
    }

    #[test]
    fn parents_tell_of_children_in_any_order() {
        let mut watched = Watched::new(&[], Some(7));
        watched.adopt([(10, 9), (9, 8), (8, 7), (11, 1)].into_iter());
        assert!(watched.wants(key(10)) && !watched.wants(key(11)));
    }
}
