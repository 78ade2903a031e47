//! Which processes are told of: all of them, those that were named, or one and whoever descends from it.

use rustc_hash::FxHashSet;

use crate::tick::{Event, Life};

/// Ticks for which an ended process is still told of: the last accounts of its threads may come one tick late.
const LATE_TICKS: u8 = 2;

/// The choice.
#[derive(Default)]
pub struct Watched {
    /// By PID. Nobody in it, and no `tree`: all.
    named: FxHashSet<u32>,
    /// The one that is followed and its descendants.
    tree: Option<FxHashSet<u32>>,
    /// Descendants that have ended, with the ticks for which they stay.
    ended: Vec<(u32, u8)>,
}

impl Watched {
    /// The processes with these PIDs, and the one that is followed with all that it starts from now on. Neither: all.
    pub fn new(pids: &[u32], follow: Option<u32>) -> Self {
        Watched {
            named: pids.iter().copied().collect(),
            tree: follow.map(|root| FxHashSet::from_iter([root])),
            ended: Vec::new(),
        }
    }

    /// Every process is told of.
    pub fn all(&self) -> bool {
        self.named.is_empty() && self.tree.is_none()
    }

    /// Whether that process is told of.
    pub fn wants(&self, tgid: u32) -> bool {
        self.all() || self.named.contains(&tgid) || self.tree.as_ref().is_some_and(|tree| tree.contains(&tgid))
    }

    /// Takes in what happened to processes, oldest first.
    pub fn learn(&mut self, events: &[Event]) {
        let Some(tree) = &mut self.tree else { return };
        for event in events {
            let tgid = event.process.tgid;
            match event.what {
                Life::Fork { parent } if tree.contains(&parent) => {
                    self.ended.retain(|&(ended, _)| ended != tgid);
                    tree.insert(tgid);
                }
                Life::Exit { .. } if tree.contains(&tgid) => self.ended.push((tgid, LATE_TICKS)),
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
        self.ended.retain_mut(|(tgid, left)| {
            *left -= 1;
            if *left == 0 {
                tree.remove(tgid);
            }
            *left > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::ProcessKey;

    fn event(tgid: u32, what: Life) -> Event {
        Event { at_ns: 0, process: ProcessKey { tgid, start_ns: 0 }, comm: String::new(), what }
    }

    #[test]
    fn nobody_named_is_everybody() {
        let watched = Watched::new(&[], None);
        assert!(watched.all() && watched.wants(7));
        let watched = Watched::new(&[7], None);
        assert!(!watched.all() && watched.wants(7) && !watched.wants(8));
    }

    #[test]
    fn descendants_are_followed_until_their_last_accounts_are_in() {
        let mut watched = Watched::new(&[5], Some(7));
        watched.learn(&[
            event(8, Life::Fork { parent: 7 }),
            event(9, Life::Fork { parent: 8 }),
            event(30, Life::Fork { parent: 1 }),
            event(6, Life::Fork { parent: 5 }),
            event(8, Life::Exit { status: 0 }),
        ]);
        let wanted = |watched: &Watched| (1..40).filter(|&tgid| watched.wants(tgid)).collect::<Vec<_>>();
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
        assert!(watched.wants(8));
    }

    #[test]
    fn parents_tell_of_children_in_any_order() {
        let mut watched = Watched::new(&[], Some(7));
        watched.adopt([(10, 9), (9, 8), (8, 7), (11, 1)].into_iter());
        assert!(watched.wants(10) && !watched.wants(11));
    }
}
