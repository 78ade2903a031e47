//! Staying within the bounds: the oldest ticks go first, then the lightest stacks and the names that only those needed.

use rustc_hash::FxHashSet;

use super::Model;
use super::group::{StackSums, add_stack};
use super::history::{LensCode, ON_CPU, blocked_code};
use super::names::EVICTED;
use super::window::TickRange;
use crate::tick::{Loss, StackId, State};

/// Memory of one stack's weight since the start, with the room that a hash table leaves.
pub(super) const SUM_BYTES: usize = 2 * size_of::<((LensCode, StackId), (u64, u64))>();

/// Sums with no more stacks than this are left alone.
const FEW: usize = 32;

impl Model {
    /// Lets go what is beyond the limits, and counts it.
    pub(super) fn stay_bounded(&mut self) {
        while self.history.bytes() > self.limits.history_bytes && self.evict_ticks() > 0 {}
        if self.stacks_bytes() <= self.limits.stacks_bytes {
            return;
        }
        // Well below the bound, or the next tick would begin anew.
        let goal = self.limits.stacks_bytes / 4 * 3;
        self.purge_names();
        while self.stacks_bytes() > goal {
            let folded = self.fold_sums();
            let evicted = (0..4).map(|_| self.evict_ticks()).sum::<u64>();
            self.purge_names();
            if folded + evicted == 0 {
                break;
            }
        }
    }

    /// Stacks that have a sum since the start, over all processes and groups.
    pub(super) fn stack_sums(&self) -> usize {
        let processes = self.processes.iter().map(|entry| entry.stacks.len());
        processes.chain(self.groups.iter().map(|group| group.stacks.len())).sum()
    }

    /// Lets the oldest ticks go, from the ring and from every track. Returns how many.
    fn evict_ticks(&mut self) -> u64 {
        let wanted = self.history.sixteenth();
        // A keyframe must come first, or what comes after could not be looked at.
        let boundary = if self.limits.look_back { self.archive.boundary(wanted).unwrap_or(self.ticks) } else { wanted };
        let count = self.history.evict(boundary);
        let freed = self.archive.evict(boundary);
        self.history.refund(freed);
        let oldest = self.history.oldest();
        let threads = self.threads.iter_mut().map(|entry| entry.track.evict(oldest));
        let processes = self.processes.iter_mut().map(|entry| entry.track.evict(oldest));
        let groups = self.groups.iter_mut().map(|group| group.track.evict(oldest));
        let freed: usize = threads.chain(processes).chain(groups).sum();
        self.history.refund(freed + self.machine_track.evict(oldest));
        self.lose(Loss::Evicted, count);
        count
    }

    /// Adds up the lighter half of the stacks of every sum. Returns how many went.
    fn fold_sums(&mut self) -> u64 {
        let processes = self.processes.iter_mut().map(|entry| &mut entry.stacks);
        let sums = processes.chain(self.groups.iter_mut().map(|group| &mut group.stacks));
        let folded = sums.map(fold).sum();
        self.lose(Loss::Evicted, folded);
        folded
    }

    /// Lets go the names that nothing refers to.
    fn purge_names(&mut self) {
        let mut wanted: FxHashSet<StackId> = FxHashSet::default();
        self.history.stacks(TickRange { first: 0, last: u64::MAX }, |stack| {
            wanted.insert(stack.stack);
        });
        let processes = self.processes.iter().map(|entry| &entry.stacks);
        let sums = processes.chain(self.groups.iter().map(|group| &group.stacks));
        wanted.extend(sums.flat_map(|sums| sums.iter().map(|((_, stack), _)| *stack)));
        if self.names.purge(&wanted) > 0 {
            self.labels.purge(&self.names);
            self.names_version += 1;
        }
    }
}

/// Adds the lighter half of each lens up to one stack that says so: totals stay exact.
fn fold(sums: &mut StackSums) -> u64 {
    if sums.len() <= FEW {
        return 0;
    }
    let before = sums.len();
    let blocked = State::ALL.into_iter().filter(|state| state.is_blocked()).map(blocked_code);
    for lens in [ON_CPU].into_iter().chain(blocked) {
        let mut of_lens: Vec<(u64, StackId)> =
            sums.iter().filter(|((have, _), _)| *have == lens).map(|((_, stack), sum)| (sum.0, *stack)).collect();
        of_lens.sort_unstable();
        of_lens.truncate(of_lens.len() / 2);
        for (_, stack) in of_lens {
            if let Some((weight, count)) = sums.remove(&(lens, stack)) {
                add_stack(sums, (lens, EVICTED), weight, count);
            }
        }
    }
    sums.shrink_to_fit();
    (before - sums.len()) as u64
}

#[cfg(test)]
mod tests {
    use crate::model::story::{facts, model, names, process, thread, tick, weight};
    use crate::model::{Limits, Model, TreeQuery, Window};
    use crate::tick::{Lens, Session, Stack, StackEnd, StackId, State, Tick};

    /// A tick with so many new stacks of one sample, beside an old one of a hundred.
    fn busy(nth: u64, new: u32) -> Tick {
        let first = 1 + nth as u32 * new;
        let mut tick = Tick {
            processes: vec![facts(7, "app")],
            threads: vec![thread(7, 7, &[(State::User, 9)])],
            names: names(&["main", "hot"], &[&["main", "hot"]]),
            ..tick(nth)
        };
        let frames = tick.names.stacks[0].1.frames.clone();
        let stack = |id| (StackId(id), Stack { frames: frames.clone(), end: StackEnd::Complete, ..Stack::default() });
        tick.names.stacks.extend((first..first + new).map(stack));
        tick.stacks = (first..first + new).map(|id| weight(7, Lens::OnCpu, id, 1)).collect();
        tick.stacks.push(weight(7, Lens::OnCpu, 0, 100));
        tick
    }

    #[test]
    fn many_stacks_stay_within_the_bound_and_none_of_their_weight_is_lost() {
        let limits = Limits { stacks_bytes: 1 << 20, history_bytes: 4 << 20, ..Limits::default() };
        let mut model = Model::new(Session::default(), limits);
        for nth in 0..100 {
            model.apply(busy(nth, 500));
            assert!(model.stacks_bytes() <= limits.stacks_bytes, "{nth}: {}", model.stacks_bytes());
        }
        for process in [Some(process(7)), None] {
            let tree = model.tree(&TreeQuery { process, window: Window::All, ..TreeQuery::default() });
            assert_eq!(tree.total(), 100 * 600);
            let named = |name: &str| tree.nodes.iter().find(|node| &*node.name == name).map(|node| node.total_weight);
            assert!(named("hot").is_some_and(|weight| weight > 100 * 100), "the heavy stay");
            assert!(named("[stack evicted]").is_some_and(|weight| weight > 0));
            assert_eq!(named("[stack lost]"), None);
        }
        assert!(model.losses().iter().any(|&(loss, count)| loss == crate::tick::Loss::Evicted && count > 1000));
    }

    #[test]
    fn twenty_thousand_stacks_in_one_tick_are_all_there() {
        let mut model = model();
        model.apply(busy(0, 20_000));
        let tree = model.tree(&TreeQuery { process: Some(process(7)), ..TreeQuery::default() });
        assert_eq!(tree.total(), 20_100);
        assert!(model.losses().is_empty());
    }
}
