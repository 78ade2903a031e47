//! Processes by the name of their command: what stays of them when they are gone. The views of the whole machine are
//! made of groups, so a thousand short-lived compilers are one node and their time is not lost with them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::history::LensCode;
use super::names::display;
use super::track::Track;
use crate::tick::{Span, StackId, StateNs};

/// Weight and count by stack.
pub(super) type StackSums = FxHashMap<(LensCode, StackId), (u64, u64)>;

/// Adds one stack's weight.
pub(super) fn add_stack(sums: &mut StackSums, key: (LensCode, StackId), weight: u64, count: u64) {
    let sum = sums.entry(key).or_default();
    *sum = (sum.0.saturating_add(weight), sum.1.saturating_add(count));
}

/// All processes that have, or had, one command name.
pub(super) struct Group {
    /// Fit for the screen.
    pub name: Arc<str>,
    /// Threads of the kernel.
    pub kernel: bool,
    /// The newest tick.
    pub tick: StateNs,
    /// Since the start.
    pub all: StateNs,
    pub track: Track,
    /// Since the start.
    pub stacks: StackSums,
}

/// Names beyond this many share one group: a name is any process's to choose.
const MAX_GROUPS: usize = 4096;

/// Groups by number, in order of first sight.
#[derive(Default)]
pub(super) struct Groups {
    list: Vec<Group>,
    index: FxHashMap<(Box<str>, bool), u32>,
}

impl Groups {
    /// The group of a command name.
    pub fn of(&mut self, comm: &str, kernel: bool, tick: u64, span: Span) -> u32 {
        if let Some(&group) = self.index.get(&(Box::from(comm), kernel)) {
            return group;
        }
        if self.list.len() >= MAX_GROUPS && comm != OTHERS {
            return self.of(OTHERS, kernel, tick, span);
        }
        let key = (Box::from(comm), kernel);
        let group = self.list.len() as u32;
        self.list.push(Group {
            name: if comm.is_empty() { UNNAMED.into() } else { display(comm) },
            kernel,
            tick: StateNs::default(),
            all: StateNs::default(),
            track: Track::new(tick, span.start_ns),
            stacks: StackSums::default(),
        });
        self.index.insert(key, group);
        group
    }

    pub fn get(&self, group: u32) -> Option<&Group> {
        self.list.get(group as usize)
    }

    pub fn get_mut(&mut self, group: u32) -> Option<&mut Group> {
        self.list.get_mut(group as usize)
    }

    /// The same names under the same numbers, with these times since the start and nothing else known. `tick` and
    /// `start_ns` are where their tracks begin.
    pub fn resumed(&self, all: &[StateNs], tick: u64, start_ns: u64) -> Self {
        let known = all.iter().copied().chain(std::iter::repeat(StateNs::default()));
        let resumed = |(group, all): (&Group, StateNs)| Group {
            name: Arc::clone(&group.name),
            kernel: group.kernel,
            tick: StateNs::default(),
            all,
            track: Track::resumed(tick, start_ns, all),
            stacks: StackSums::default(),
        };
        Groups { list: self.list.iter().zip(known).map(resumed).collect(), index: self.index.clone() }
    }

    /// In order of first sight.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.list.iter()
    }

    /// In order of first sight.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.list.iter_mut()
    }
}

/// Where the names go that are too many.
const OTHERS: &str = "[other commands]";

/// Of a process whose name never arrived.
const UNNAMED: &str = "[unnamed]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_names_share_a_group_and_the_first_keep_theirs() {
        let mut groups = Groups::default();
        let mut of = |comm: &str, kernel| groups.of(comm, kernel, 1, Span::default());
        let first = of("first", false);
        let last = (0..10_000).map(|nth| of(&format!("made up {nth}"), false)).max();
        assert_eq!(of("first", false), first);
        assert_ne!(of("first", true), first, "kernel or not are two");
        assert_eq!(last, Some(MAX_GROUPS as u32));
        assert_eq!(groups.get(MAX_GROUPS as u32).map(|group| &*group.name), Some(OTHERS));
        assert!(groups.iter().count() <= MAX_GROUPS + 2);
    }
}
