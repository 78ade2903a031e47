//! Processes by the name of their command: what stays of them when they are gone. The views of the whole machine are
//! made of groups, so a thousand short-lived compilers are one node and their time is not lost with them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::history::LensCode;
use super::names::display;
use super::track::Track;
use crate::tick::{Span, StackId, StateNs};

/// What a sum is of.
type StackKey = (LensCode, StackId);

/// Weight and count by stack. The first is at hand: most processes sleep at one place for ever.
#[derive(Clone, Debug, Default)]
pub(super) struct StackSums {
    first: Option<(StackKey, (u64, u64))>,
    /// All but that.
    more: FxHashMap<StackKey, (u64, u64)>,
}

impl StackSums {
    /// Of one stack.
    pub fn get(&self, key: &StackKey) -> Option<&(u64, u64)> {
        match &self.first {
            Some((first, sum)) if first == key => Some(sum),
            _ => self.more.get(key),
        }
    }

    /// The same, to change.
    pub fn get_mut(&mut self, key: &StackKey) -> Option<&mut (u64, u64)> {
        match &mut self.first {
            Some((first, sum)) if first == key => Some(sum),
            _ => self.more.get_mut(key),
        }
    }

    /// The same; begins with nothing.
    fn sum(&mut self, key: StackKey) -> &mut (u64, u64) {
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some((key, (0, 0)));
        }
        match &mut self.first {
            Some((first, sum)) if *first == key => sum,
            _ => self.more.entry(key).or_default(),
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &StackKey) -> Option<(u64, u64)> {
        match self.first.take_if(|(first, _)| first == key) {
            Some((_, sum)) => Some(sum),
            None => self.more.remove(key),
        }
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = (&StackKey, &(u64, u64))> {
        self.first.iter().map(|(key, sum)| (key, sum)).chain(&self.more)
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Gives back what memory it can.
    pub fn shrink_to_fit(&mut self) {
        self.more.shrink_to_fit();
    }
}

/// Adds one stack's weight.
pub(super) fn add_stack(sums: &mut StackSums, key: StackKey, weight: u64, count: u64) {
    let sum = sums.sum(key);
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
