//! Which rows there are and in which order. Made once per tick, or when a key asks for another order.

use rustc_hash::{FxHashMap, FxHashSet};

use super::fields::{Field, Subject, Value, value};
use super::groups::{By, Group, Sorter, groups};
use super::label;
use crate::model::{Model, Process};
use crate::tick::{ProcessKey, ThreadKey};
use crate::ui::filter::Matcher;

/// Identity of a row: it does not change when the order does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowId {
    /// A process.
    Process(ProcessKey),
    /// A thread under its process.
    Thread(ProcessKey, ThreadKey),
    /// Several together, by [`Group::id`].
    Group(u64),
}

impl RowId {
    /// The process it is, or belongs to.
    pub fn process(self) -> Option<ProcessKey> {
        match self {
            RowId::Process(key) | RowId::Thread(key, _) => Some(key),
            RowId::Group(_) => None,
        }
    }

    /// What the row is about; `None` when the model has let go of it.
    pub fn subject<'a>(self, model: &'a Model, groups: &'a [Group]) -> Option<Subject<'a>> {
        match self {
            RowId::Process(key) => Some(Subject::of(model, model.process(key)?, None)),
            RowId::Thread(key, thread) => Some(Subject::of(model, model.process(key)?, Some(model.thread(thread)?))),
            RowId::Group(id) => Some(Subject::of_group(model, groups.iter().find(|group| group.id == id)?)),
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub id: RowId,
    /// What stands before its command: lines of the tree.
    pub lead: String,
}

/// What decides on rows and their order.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Column sorted by.
    pub sort: Field,
    /// Largest first.
    pub descending: bool,
    /// Only processes that match.
    pub filter: Option<Matcher>,
    /// Only processes of this user.
    pub user: Option<u32>,
    /// With threads of the kernel.
    pub kernel: bool,
    /// Processes are put together by that.
    pub by: Option<By>,
    /// Only processes of the group of that name.
    pub within: Option<(By, String)>,
    /// Children under their parents.
    pub tree: bool,
    /// Threads under their process.
    pub threads: bool,
    /// Processes whose threads are shown although not all are.
    pub opened: FxHashSet<ProcessKey>,
}

impl Default for Selection {
    fn default() -> Self {
        Selection {
            sort: Field::Cpu,
            descending: true,
            filter: None,
            user: None,
            kernel: true,
            by: None,
            within: None,
            tree: false,
            threads: false,
            opened: FxHashSet::default(),
        }
    }
}

/// Deeper than that the lines of the tree are not drawn.
const DEEPEST: usize = 16;

/// The rows, in order.
pub fn rows(model: &Model, selection: &Selection) -> Vec<Row> {
    let sorted = sorted(model, selection);
    let mut rows = Vec::with_capacity(sorted.len());
    if selection.tree {
        push_tree(&sorted, model, selection, &mut rows);
    } else {
        for process in sorted {
            push_process(process, String::new(), "", model, selection, &mut rows);
        }
    }
    rows
}

/// The groups that processes are put together in, and a row of each.
pub fn grouped(by: By, model: &Model, selection: &Selection) -> (Vec<Group>, Vec<Row>) {
    let groups = groups(by, model, &passing(model, selection));
    let mut valued: Vec<(Value, &Group)> =
        groups.iter().map(|group| (value(selection.sort, Subject::of_group(model, group), model), group)).collect();
    valued.sort_by(|(one, a), (other, b)| {
        let by_value = if selection.descending { other.cmp(one) } else { one.cmp(other) };
        by_value.then_with(|| a.process.facts.comm.cmp(&b.process.facts.comm))
    });
    let rows = valued.into_iter().map(|(_, group)| Row { id: RowId::Group(group.id), lead: String::new() }).collect();
    (groups, rows)
}

/// The rows we have in the order they have, without those that are gone, with new ones at the end.
pub fn held(rows: &[Row], wanted: Vec<Row>) -> Vec<Row> {
    let known: FxHashSet<RowId> = rows.iter().map(|row| row.id).collect();
    let here: FxHashSet<RowId> = wanted.iter().map(|row| row.id).collect();
    let kept = rows.iter().filter(|row| here.contains(&row.id)).cloned();
    let new = wanted.into_iter().filter(|row| !known.contains(&row.id));
    kept.chain(new).collect()
}

/// Processes that pass the filters, in no order.
fn passing<'a>(model: &'a Model, selection: &Selection) -> Vec<&'a Process> {
    let mut text = String::new();
    let within = selection.within.as_ref().map(|(by, label)| (Sorter::new(*by, model), label));
    let mut passes = |process: &&Process| {
        let facts = &process.facts;
        if facts.kernel && !selection.kernel || selection.user.is_some_and(|user| user != facts.uid) {
            return false;
        }
        if within.as_ref().is_some_and(|(sorter, label)| sorter.label(process) != **label) {
            return false;
        }
        selection.filter.as_ref().is_none_or(|filter| {
            label::haystack(facts, model.user(facts.uid).unwrap_or_default(), &mut text);
            filter.matches(&text)
        })
    };
    model.processes().filter(|process| passes(process)).collect()
}

/// The same, in order.
fn sorted<'a>(model: &'a Model, selection: &Selection) -> Vec<&'a Process> {
    let mut valued: Vec<(Value, &Process)> = passing(model, selection)
        .into_iter()
        .map(|process| (value(selection.sort, Subject::of(model, process, None), model), process))
        .collect();
    order(&mut valued, selection.descending, |process| process.key.tgid);
    valued.into_iter().map(|(_, process)| process).collect()
}

/// Sorts by value; equals by id, so that they hold still.
fn order<T>(valued: &mut [(Value, T)], descending: bool, id: impl Fn(&T) -> u32) {
    // They come by age, and most are worth nothing: all but sorted, which this makes use of.
    valued.sort_by(|a, b| {
        let by_value = if descending { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) };
        by_value.then_with(|| id(&a.1).cmp(&id(&b.1)))
    });
}

/// A process, and its threads if they are to be seen. `below` is what the lines of the tree go on with under it.
fn push_process(
    process: &Process,
    lead: String,
    below: &str,
    model: &Model,
    selection: &Selection,
    rows: &mut Vec<Row>,
) {
    rows.push(Row { id: RowId::Process(process.key), lead });
    if !selection.threads && !selection.opened.contains(&process.key) {
        return;
    }
    // Threads that exited in an earlier tick have nothing to say of this one.
    let mut threads = model.threads(process.key);
    threads.retain(|thread| thread.exited_ns.is_none() || thread.tick.ns.total() > 0);
    if threads.len() < 2 {
        return;
    }
    let mut valued: Vec<_> = threads
        .into_iter()
        .map(|thread| (value(selection.sort, Subject::of(model, process, Some(thread)), model), thread))
        .collect();
    order(&mut valued, selection.descending, |thread| thread.key.tid);
    for (_, thread) in valued {
        rows.push(Row { id: RowId::Thread(process.key, thread.key), lead: format!("{below}· ") });
    }
}

/// Processes under their parents. Parents are named by id alone and ids are re-used, so that a cycle is possible: what no
/// root leads to becomes a root itself.
fn push_tree(sorted: &[&Process], model: &Model, selection: &Selection, rows: &mut Vec<Row>) {
    let by_id: FxHashMap<u32, usize> = sorted
        .iter()
        .enumerate()
        .filter(|(_, process)| process.exited.is_none())
        .map(|(at, process)| (process.key.tgid, at))
        .collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); sorted.len()];
    let mut roots = Vec::new();
    for (at, process) in sorted.iter().enumerate() {
        match by_id.get(&process.facts.ppid) {
            Some(&parent) if parent != at => children[parent].push(at),
            _ => roots.push(at),
        }
    }
    let mut seen = vec![false; sorted.len()];
    for root in roots.into_iter().chain(0..sorted.len()) {
        push_branch(root, sorted, &children, &mut seen, model, selection, rows);
    }
}

/// One step of the walk: which process, how deep, the lines before it, and whether it is the last of its siblings.
struct Step {
    at: usize,
    depth: usize,
    lines: String,
    last: bool,
}

fn push_branch(
    root: usize,
    sorted: &[&Process],
    children: &[Vec<usize>],
    seen: &mut [bool],
    model: &Model,
    selection: &Selection,
    rows: &mut Vec<Row>,
) {
    let mut steps = vec![Step { at: root, depth: 0, lines: String::new(), last: true }];
    while let Some(Step { at, depth, lines, last }) = steps.pop() {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        let (lead, below) = match depth {
            0 => (String::new(), String::new()),
            1..DEEPEST if last => (format!("{lines}└─"), format!("{lines}  ")),
            1..DEEPEST => (format!("{lines}├─"), format!("{lines}│ ")),
            _ => (format!("{lines}…"), lines),
        };
        push_process(sorted[at], lead, &below, model, selection, rows);
        for (nth, &child) in children[at].iter().rev().enumerate() {
            steps.push(Step { at: child, depth: depth + 1, lines: below.clone(), last: nth == 0 });
        }
    }
}
