//! Stacks merged to a tree: on-CPU samples, blocked time, or all of it as time.

mod build;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use self::build::{Builder, Note, Place};
use super::group::{StackSums, add_stack};
use super::history::{LensCode, ON_CPU, StackEntry, blocked_code};
use super::names::{FrameLabels, display};
use super::window::{TickRange, Window};
use super::{Model, is_idle_wait};
use crate::tick::{FoundBy, Frame, FrameId, FrameKind, Line, ProcessKey, StackId, State, StateNs};

/// Which stacks a tree is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TreeLens {
    /// On-CPU samples.
    #[default]
    OnCpu,
    /// Blocked time by stack, ns; a frame per reason at the root. What no stack accounts for is `[stack not taken]`, so
    /// that the tree sums to the exact total.
    Blocked,
    /// All of it as time, ns: a frame per state at the root; samples scaled so that they sum to the exact on-CPU time,
    /// blocked time, and one node for time spent runnable.
    All,
}

/// How frames become nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Merge {
    /// Frames of one function are one node.
    #[default]
    Function,
    /// Frames on one line of source code are one node; where no line is known, those of one function.
    Line,
    /// Neighbouring frames of one module are one node.
    Module,
    /// Each address its own.
    Address,
}

/// What stands behind a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Lines with their weights, the heaviest first; `None` for what no line is known of.
    pub lines: Vec<(Option<Line>, u64)>,
    /// How its frames were found, the most weight first; empty for code of the kernel and for what is no code.
    pub found: Vec<(FoundBy, u64)>,
}

/// What tree is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TreeQuery {
    /// One process, or all (then a node per command name at the root).
    pub process: Option<ProcessKey>,
    /// Which stacks.
    pub lens: TreeLens,
    /// Of which time.
    pub window: Window,
    /// How frames become nodes.
    pub merge: Merge,
    /// Leaf first. Commands and states stay at the root.
    pub inverted: bool,
    /// Leave out waits that are idle, see [`is_idle_wait`].
    pub hide_idle: bool,
}

/// The code that a node stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Code {
    /// None: the root, a command, a state, a note.
    #[default]
    None,
    /// All frames of a label: a function, a line, a module.
    Label(u32),
    /// One frame.
    Frame(FrameId),
}

/// A node of a [`CallTree`].
#[derive(Clone, Debug)]
pub struct TreeNode {
    /// What it is called, without control characters. `module+0xoffset` where the function is not known.
    pub name: Arc<str>,
    /// Short name of its module; empty for the root, commands, states and notes.
    pub module: Arc<str>,
    /// For colour and suffix. States are notes; the root and commands count as user code.
    pub kind: FrameKind,
    /// In the blocked and all lenses: which state. `None` for samples, the root and commands.
    pub state: Option<State>,
    /// Index of its parent; the root is its own.
    pub parent: u32,
    /// Steps from the root.
    pub depth: u16,
    /// Which code: what [`Model::plain_frames`] takes.
    pub code: Code,
    /// On some stacks it is but a guess that this was a caller: no table says where the frame is that was called from here.
    pub guessed: bool,
    /// Weight that ended here.
    pub self_weight: u64,
    /// Weight that passed through or ended here.
    pub total_weight: u64,
    /// Samples or waits that passed through or ended here.
    pub count: u64,
    /// Indices of its children, in order of first sight: the picture holds still between ticks.
    pub children: Vec<u32>,
    /// Stable across ticks: the same place in the same query always has the same id.
    pub id: u64,
}

/// Stacks of one query, merged. `nodes[0]` is everything observed; parents precede children. Empty only by `default()`.
#[derive(Clone, Debug, Default)]
pub struct CallTree {
    /// The root first.
    pub nodes: Vec<TreeNode>,
    /// Weight whose stack is complete: with all weight, the quality of the view.
    pub complete_weight: u64,
    /// Length of the interval it covers, ns.
    pub span_ns: u64,
    /// Whose: then the root is the process. `None`: all, and the root stands for them.
    pub process: Option<ProcessKey>,
    /// Which stacks: weights are samples for [`TreeLens::OnCpu`], else ns.
    pub lens: TreeLens,
}

impl CallTree {
    /// Weight of everything observed.
    pub fn total(&self) -> u64 {
        self.nodes.first().map_or(0, |root| root.total_weight)
    }

    /// The node with that id.
    pub fn find(&self, id: u64) -> Option<u32> {
        self.nodes.iter().position(|node| node.id == id).map(|at| at as u32)
    }
}

/// Whose stacks stand under one place at the root: a process, or a group of them.
struct Owner<'a> {
    group: Option<u32>,
    kernel: bool,
    exact: StateNs,
    stacks: std::borrow::Cow<'a, StackSums>,
}

impl Model {
    /// The tree of a query.
    pub fn tree(&self, query: &TreeQuery) -> CallTree {
        let mut builder = Builder::new(self, query);
        for owner in self.owners(query) {
            builder.owner(&owner);
        }
        let range = self.history.resolve(query.window);
        let span_ns = range.map_or(self.observed_ns, |range| self.history.len_ns(range));
        builder.finish(span_ns)
    }

    /// Frames in files behind these nodes whose details nobody told yet.
    pub fn plain_frames(&self, nodes: impl Iterator<Item = Code>) -> Vec<(FrameId, Frame)> {
        let nodes: FxHashSet<Code> = nodes.filter(|code| *code != Code::None).collect();
        if nodes.is_empty() {
            return Vec::new();
        }
        let labels = |of: &FrameLabels| of.functions.iter().any(|&label| nodes.contains(&Code::Label(label)));
        let wanted = |id: &FrameId| nodes.contains(&Code::Frame(*id)) || self.labels.of(*id).is_some_and(labels);
        self.names.plain().filter(wanted).filter_map(|id| Some((id, *self.names.frames.get(&id)?))).collect()
    }

    /// All frames in files whose details nobody told yet.
    pub fn all_plain_frames(&self) -> Vec<(FrameId, Frame)> {
        self.names.plain().filter_map(|id| Some((id, *self.names.frames.get(&id)?))).collect()
    }

    /// Whether a frame is in a file and nobody has told its details yet.
    pub fn is_plain(&self, frame: FrameId) -> bool {
        self.names.is_plain(frame)
    }

    /// What stands behind a node. `path` are the ids from the root down to it.
    pub fn behind(&self, query: &TreeQuery, path: &[u64]) -> Behind {
        let mut builder = Builder::probe(self, query, path);
        for owner in self.owners(query) {
            builder.owner(&owner);
        }
        let mut lines: FxHashMap<Option<&Line>, u64> = FxHashMap::default();
        let mut found: FxHashMap<FoundBy, u64> = FxHashMap::default();
        for (place, weight) in builder.found() {
            let detail = self.names.details.get(&place.frame);
            add(&mut lines, detail.and_then(|detail| detail.line_in(place.nth.into())), weight);
            if let Some(by) = place.found {
                add(&mut found, by, weight);
            }
        }
        let mut lines: Vec<_> = lines.into_iter().map(|(line, weight)| (line.cloned(), weight)).collect();
        lines.sort_by(|(line, weight), (other, least)| least.cmp(weight).then_with(|| order(line).cmp(&order(other))));
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|&(by, weight)| (std::cmp::Reverse(weight), by));
        Behind { lines, found }
    }

    /// Time by state of one process, or of all by command name, in order of first sight.
    pub(super) fn state_times(&self, process: Option<ProcessKey>, window: Window) -> Vec<(Arc<str>, StateNs)> {
        let query = TreeQuery { process, window, ..TreeQuery::default() };
        let name = |owner: &Owner<'_>| match owner.group.and_then(|group| self.groups.get(group)) {
            Some(group) => group.name.clone(),
            None => display(process.and_then(|key| self.process(key)).map_or("", |process| &process.facts.comm)),
        };
        self.owners(&query).iter().map(|owner| (name(owner), owner.exact)).collect()
    }

    /// Visits the weights of a range that a lens needs.
    fn weights(&self, range: TickRange, lens: TreeLens, visit: impl FnMut(StackEntry)) {
        match lens {
            TreeLens::OnCpu => self.history.samples(range, visit),
            TreeLens::Blocked | TreeLens::All => self.history.stacks(range, visit),
        }
    }

    fn owners(&self, query: &TreeQuery) -> Vec<Owner<'_>> {
        match query.process {
            Some(key) => self.process_owner(key, query).into_iter().collect(),
            None => self.group_owners(query),
        }
    }

    fn process_owner(&self, key: ProcessKey, query: &TreeQuery) -> Option<Owner<'_>> {
        let entry = self.processes.get(key)?;
        let (exact, stacks) = match self.history.resolve(query.window) {
            None => (entry.process.all.ns, self.stacks_of(entry)),
            Some(range) => {
                let mut stacks = StackSums::default();
                self.weights(range, query.lens, |stack| {
                    if stack.serial == entry.serial {
                        add_stack(&mut stacks, (stack.lens, stack.stack), stack.weight, stack.count);
                    }
                });
                (self.totals(key, query.window).ns, std::borrow::Cow::Owned(stacks))
            }
        };
        Some(Owner { group: None, kernel: entry.process.facts.kernel || self.waits_have_no_reasons(), exact, stacks })
    }

    fn group_owners(&self, query: &TreeQuery) -> Vec<Owner<'_>> {
        let range = self.history.resolve(query.window);
        let mut by_group: FxHashMap<u32, StackSums> = FxHashMap::default();
        if let Some(range) = range {
            self.weights(range, query.lens, |stack| {
                let sums = by_group.entry(stack.group).or_default();
                add_stack(sums, (stack.lens, stack.stack), stack.weight, stack.count);
            });
        }
        let all = if range.is_none() { self.stacks_of_groups() } else { Vec::new() };
        let mut all = all.into_iter();
        let owners = (0..).zip(self.groups.iter()).map(|(number, group)| {
            let (exact, stacks) = match range {
                None => (group.all, all.next().unwrap_or_default()),
                Some(range) => (
                    group.track.sum(range, &group.all, &self.history).totals.ns,
                    std::borrow::Cow::Owned(by_group.remove(&number).unwrap_or_default()),
                ),
            };
            Owner { group: Some(number), kernel: group.kernel || self.waits_have_no_reasons(), exact, stacks }
        });
        owners.collect()
    }
}

impl Builder<'_> {
    fn owner(&mut self, owner: &Owner<'_>) {
        let base = match owner.group {
            Some(group) => Place::Group(group),
            None => Place::Root,
        };
        let lens = self.query().lens;
        let mut stacks: Vec<_> =
            owner.stacks.iter().map(|(&(lens, stack), &(weight, count))| (lens, stack, weight, count)).collect();
        stacks.sort_unstable();
        if lens != TreeLens::Blocked {
            self.on_cpu(base, owner, &of_lens(&stacks, ON_CPU), lens == TreeLens::All);
        }
        if lens == TreeLens::All && owner.exact.runnable() > 0 {
            let node = self.state(base, State::Woken);
            self.weigh(node, owner.exact.runnable(), 0);
        }
        if lens != TreeLens::OnCpu {
            for state in State::ALL.into_iter().filter(|state| state.is_blocked()) {
                if !(self.query().hide_idle && is_idle_wait(state, owner.kernel)) {
                    self.blocked(base, state, owner.exact[state], &of_lens(&stacks, blocked_code(state)));
                }
            }
        }
    }

    /// Samples as they are or, with `as_time`, so that they sum to the exact time.
    fn on_cpu(&mut self, base: Place, owner: &Owner<'_>, stacks: &[Weighed], as_time: bool) {
        if !as_time {
            let node = (!stacks.is_empty()).then(|| self.base(base));
            stacks.iter().for_each(|stack| self.stack(node.unwrap_or(0), stack, None));
        } else if owner.exact.on_cpu() > 0 {
            let node = self.state(base, State::User);
            if stacks.is_empty() {
                let note = self.note(node, Note::NotSampled, Some(State::User));
                self.weigh(note, owner.exact.on_cpu(), 0);
            }
            let stacks = scaled(stacks, owner.exact.on_cpu());
            stacks.iter().for_each(|stack| self.stack(node, stack, Some(State::User)));
        }
    }

    /// Waits in one state. Their stacks are budgeted and come when the wait ends, the total is exact and charged as it
    /// passes: too little is filled up with a note, too much is scaled down to what passed in this window.
    fn blocked(&mut self, base: Place, state: State, exact: u64, stacks: &[Weighed]) {
        if exact == 0 {
            return;
        }
        let node = self.state(base, state);
        let sum = stacks.iter().fold(0, |sum: u64, stack| sum.saturating_add(stack.weight));
        if sum < exact {
            let note = self.note(node, Note::NotTaken, Some(state));
            self.weigh(note, exact - sum, 0);
        }
        let stacks = if sum > exact { scaled(stacks, exact) } else { stacks.to_vec() };
        stacks.iter().for_each(|stack| self.stack(node, stack, Some(state)));
    }
}

fn add<K: std::hash::Hash + Eq>(sums: &mut FxHashMap<K, u64>, key: K, weight: u64) {
    let sum = sums.entry(key).or_default();
    *sum = sum.saturating_add(weight);
}

fn order(line: &Option<Line>) -> Option<(&str, u32)> {
    line.as_ref().map(|line| (line.file.as_str(), line.number))
}

/// What one stack weighs.
#[derive(Clone, Copy, Debug)]
struct Weighed {
    stack: StackId,
    weight: u64,
    count: u64,
}

fn of_lens(stacks: &[(LensCode, StackId, u64, u64)], wanted: LensCode) -> Vec<Weighed> {
    let stacks = stacks.iter().filter(|(lens, ..)| *lens == wanted);
    stacks.map(|&(_, stack, weight, count)| Weighed { stack, weight, count }).collect()
}

/// The same stacks with weights in the same proportion that sum to exactly `exact` (if any weighs anything).
fn scaled(stacks: &[Weighed], exact: u64) -> Vec<Weighed> {
    let sum: u128 = stacks.iter().map(|stack| u128::from(stack.weight)).sum();
    let mut seen = 0u128;
    let mut given = 0u64;
    let mut scale = |stack: &Weighed| {
        seen += u128::from(stack.weight);
        // Below 2^128: the sum of fewer than 2^64 weights times a weight is cut in two steps.
        let upto = mul_div(seen, exact, sum);
        let weight = upto - given;
        given = upto;
        Weighed { weight, ..*stack }
    };
    stacks.iter().map(&mut scale).collect()
}

/// `part / whole * number` without overflow; 0 of nothing.
fn mul_div(part: u128, number: u64, whole: u128) -> u64 {
    let shift = whole.checked_ilog2().unwrap_or(0).saturating_sub(62);
    let (part, whole) = (part >> shift, whole >> shift);
    if part >= whole {
        return if whole == 0 { 0 } else { number };
    }
    (part * u128::from(number) / whole) as u64
}
