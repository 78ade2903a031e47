//! How stacks end: what is known of the quality of every view that is made of them.

use super::Model;
use super::group::StackSums;
use super::history::{ON_CPU, blocked_code};
use crate::tick::{ProcessKey, StackEnd, State, StateNs};

/// What ended in one way, since we first saw the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndSum {
    /// In which.
    pub end: StackEnd,
    /// On-CPU samples.
    pub samples: u64,
    /// Time blocked, ns.
    pub blocked_ns: u64,
}

impl EndSum {
    /// All that there is to know of the stack is known.
    pub fn is_complete(&self) -> bool {
        matches!(self.end, StackEnd::Complete | StackEnd::KernelOnly)
    }
}

impl Model {
    /// How the stacks of a process, or of all, end: the complete ones first, then those that cost the most samples. The
    /// time adds up to all the time blocked: what no stack accounts for was not taken.
    pub fn stack_ends(&self, process: Option<ProcessKey>) -> Vec<EndSum> {
        let mut ends = Vec::new();
        match process {
            Some(key) => {
                self.processes
                    .get(key)
                    .iter()
                    .for_each(|entry| self.add(&mut ends, &entry.process.all.ns, &self.stacks_of(entry)));
            }
            None => {
                let groups = self.groups.iter().zip(self.stacks_of_groups());
                groups.for_each(|(group, stacks)| self.add(&mut ends, &group.all, &stacks));
            }
        }
        ends.sort_by_key(|sum: &EndSum| {
            (!sum.is_complete(), std::cmp::Reverse((sum.samples, sum.blocked_ns)), sum.end.name())
        });
        ends
    }

    fn add(&self, ends: &mut Vec<EndSum>, exact: &StateNs, stacks: &StackSums) {
        let mut taken = StateNs::default();
        for (&(lens, stack), &(weight, _)) in stacks.iter() {
            let end = self.names.stacks.get(&stack).map_or(StackEnd::NotTaken, |stack| stack.end);
            match State::ALL.into_iter().find(|&state| state.is_blocked() && lens == blocked_code(state)) {
                Some(state) => {
                    taken[state] = taken[state].saturating_add(weight);
                    add(ends, end, 0, weight);
                }
                None if lens == ON_CPU => add(ends, end, weight, 0),
                None => {}
            }
        }
        for state in State::ALL.into_iter().filter(|state| state.is_blocked() && exact[*state] > taken[*state]) {
            add(ends, StackEnd::NotTaken, 0, exact[state] - taken[state]);
        }
    }
}

fn add(ends: &mut Vec<EndSum>, end: StackEnd, samples: u64, blocked_ns: u64) {
    let at = ends.iter().position(|known| known.end.name() == end.name()).unwrap_or_else(|| {
        ends.push(EndSum { end, samples: 0, blocked_ns: 0 });
        ends.len() - 1
    });
    let sum = &mut ends[at];
    sum.samples = sum.samples.saturating_add(samples);
    sum.blocked_ns = sum.blocked_ns.saturating_add(blocked_ns);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::story::{MS, facts, model, names, process, thread, tick, weight};
    use crate::tick::{Lens, Tick};

    #[test]
    fn every_sample_and_every_blocked_ns_ends_somehow() {
        let mut model = model();
        let mut names = names(&["main", "a", "b"], &[&["main"], &["a"], &["b"], &["main", "b"]]);
        for (at, end) in [(1, StackEnd::Broken), (2, StackEnd::Unreadable(14)), (3, StackEnd::Unreadable(1))] {
            names.stacks[at].1.end = end;
        }
        let disk = Lens::Blocked(State::Disk);
        model.apply(Tick {
            names,
            processes: vec![facts(7, "app"), facts(9, "other")],
            threads: vec![
                thread(7, 7, &[(State::User, 500 * MS), (State::Disk, 300 * MS), (State::Pipe, 200 * MS)]),
                thread(9, 9, &[(State::Poll, 1000 * MS)]),
            ],
            stacks: vec![
                weight(7, Lens::OnCpu, 0, 40),
                weight(7, Lens::OnCpu, 1, 5),
                weight(7, Lens::OnCpu, 2, 2),
                weight(7, Lens::OnCpu, 3, 1),
                weight(7, Lens::OnCpu, 99, 1),
                weight(7, disk, 0, 100 * MS),
                weight(7, disk, 1, 150 * MS),
            ],
            ..tick(0)
        });
        let sum = |end, samples, ms| EndSum { end, samples, blocked_ns: ms * MS };
        let own = [
            sum(StackEnd::Complete, 40, 100),
            sum(StackEnd::Broken, 5, 150),
            sum(StackEnd::Unreadable(14), 3, 0),
            sum(StackEnd::NotTaken, 1, 250),
        ];
        let text = |ends: &[EndSum]| -> Vec<_> {
            ends.iter().map(|sum| (sum.end.name(), sum.samples, sum.blocked_ns)).collect()
        };
        assert_eq!(text(&model.stack_ends(Some(process(7)))), text(&own));
        let all = model.stack_ends(None);
        assert_eq!(all.iter().map(|sum| sum.samples).sum::<u64>(), 49);
        assert_eq!(all.iter().map(|sum| sum.blocked_ns).sum::<u64>(), 1500 * MS);
        assert!(model.stack_ends(Some(process(5))).is_empty());
    }
}
