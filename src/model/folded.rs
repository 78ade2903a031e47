//! Trees as folded text: one line per stack, root first, `process;frame;frame… weight`.
//!
//! Kernel frames end in `_[k]`, inlined ones in `_[i]`, code made at run time in `_[j]`, guesses in `_[?]`. Whatever a name holds, a line is
//! a line and a frame a frame: `;` becomes `:`, control characters are written out.

use std::borrow::Cow;
use std::io::{self, Write};

use super::names::clean;
use super::{CallTree, Model, TreeLens, TreeQuery, Window};
use crate::tick::{FrameKind, ProcessKey, State};

/// What the weights of a folded file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FoldedLens {
    /// On-CPU samples.
    #[default]
    OnCpu,
    /// Blocked time, ns; a frame per reason after the process.
    Blocked,
    /// Time woken or preempted and waiting for a CPU, ns; one frame for each.
    Runnable,
    /// All wall time, ns; a frame per state after the process.
    Wall,
    /// Of the blocked time, what waited for a disk, ns.
    Io,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines.
    pub lines: u64,
    /// Sum of their weights.
    pub weight: u64,
}

/// Writes all stacks of one process, or of all, over a window, line by line: `out` should be buffered. Fails only if `out`
/// does.
pub fn write(
    out: &mut impl Write,
    model: &Model,
    lens: FoldedLens,
    process: Option<ProcessKey>,
    window: Window,
) -> io::Result<Counts> {
    let tree = |lens| model.tree(&TreeQuery { process, lens, window, ..TreeQuery::default() });
    match lens {
        FoldedLens::OnCpu => write_tree(out, &tree(TreeLens::OnCpu), 0),
        FoldedLens::Blocked => write_tree(out, &tree(TreeLens::Blocked), 0),
        FoldedLens::Wall => write_tree(out, &tree(TreeLens::All), 0),
        FoldedLens::Runnable => write_runnable(out, model, process, window),
        FoldedLens::Io => {
            let tree = tree(TreeLens::Blocked);
            write_lines(out, &tree, |index, _| tree.nodes[index].state == Some(State::Disk))
        }
    }
}

/// Writes the node `at` (0: everything) of a tree and what is below it, each with its whole path. An inverted tree gives
/// inverted lines. Fails only if `out` does.
pub fn write_tree(out: &mut impl Write, tree: &CallTree, at: u32) -> io::Result<Counts> {
    write_lines(out, tree, |_, path| path.contains(&(at as usize)))
}

/// Writes the nodes that are wanted, by index and the indices up to the root.
fn write_lines(out: &mut impl Write, tree: &CallTree, wanted: impl Fn(usize, &[usize]) -> bool) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut line = String::new();
    for (index, node) in tree.nodes.iter().enumerate().filter(|(_, node)| node.self_weight > 0) {
        let path = path(tree, index);
        if !wanted(index, &path) {
            continue;
        }
        line.clear();
        push_path(&mut line, tree, &path);
        put(out, &mut counts, &line, node.self_weight)?;
    }
    Ok(counts)
}

/// The line of one node: its path, and all the weight that passed through it. `None` if there is no such node.
pub fn line_of(tree: &CallTree, at: u32) -> Option<String> {
    let node = tree.nodes.get(at as usize)?;
    let mut line = String::new();
    push_path(&mut line, tree, &path(tree, at as usize));
    let name = if line.is_empty() { &*node.name } else { &line };
    Some(format!("{name} {}", node.total_weight))
}

/// The root stands in a line only where it is a process.
fn push_path(line: &mut String, tree: &CallTree, path: &[usize]) {
    for &step in path.iter().rev().filter(|&&step| step > 0 || tree.process.is_some()) {
        let node = &tree.nodes[step];
        push_frame(line, &node.name, node.kind);
        if node.guessed {
            line.push_str("_[?]");
        }
    }
}

/// Indices from a node up to the root.
fn path(tree: &CallTree, mut at: usize) -> Vec<usize> {
    let mut path = vec![at];
    while at > 0 {
        at = tree.nodes[at].parent as usize;
        path.push(at);
    }
    path
}

fn write_runnable(
    out: &mut impl Write,
    model: &Model,
    process: Option<ProcessKey>,
    window: Window,
) -> io::Result<Counts> {
    let mut counts = Counts::default();
    for (comm, ns) in model.state_times(process, window) {
        for state in [State::Woken, State::Preempted].into_iter().filter(|&state| ns[state] > 0) {
            let mut line = String::new();
            push_frame(&mut line, &comm, FrameKind::User);
            push_frame(&mut line, &format!("[{}]", state.name()), FrameKind::Note);
            put(out, &mut counts, &line, ns[state])?;
        }
    }
    Ok(counts)
}

fn put(out: &mut impl Write, counts: &mut Counts, line: &str, weight: u64) -> io::Result<()> {
    counts.lines += 1;
    counts.weight = counts.weight.saturating_add(weight);
    writeln!(out, "{line} {weight}")
}

fn push_frame(line: &mut String, name: &str, kind: FrameKind) {
    if !line.is_empty() {
        line.push(';');
    }
    let name = clean(name);
    // What reads folded files takes a number after a space for a weight, and a `;` for the next frame.
    let name = match name.rsplit_once(char::is_whitespace) {
        Some((start, end)) if end.starts_with(|char: char| char.is_ascii_digit()) => {
            Cow::Owned(format!("{start}_{end}"))
        }
        _ => name,
    };
    match name.trim() {
        "" => line.push_str("[unnamed]"),
        name => line.extend(name.chars().map(|char| if char == ';' { ':' } else { char })),
    }
    line.push_str(match kind {
        FrameKind::Kernel => "_[k]",
        FrameKind::Inlined => "_[i]",
        FrameKind::Jit => "_[j]",
        FrameKind::User | FrameKind::Note => "",
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::story::{MS, facts, model, names, process, thread, tick, weight};
    use crate::tick::{Lens, Tick};

    fn hostile() -> Model {
        let mut model = model();
        let functions = ["main", "operator; 12", "a\nb;c 7\x1b[31m", "k!read", "\x07 ", "x\u{2028}y 3 4"];
        let stacks: [&[&str]; 3] =
            [&["main", functions[1]], &["main", functions[2], "k!read"], &[functions[4], functions[5]]];
        model.apply(Tick {
            names: names(&functions, &stacks),
            processes: vec![facts(7, "e;vil\n9 9")],
            threads: vec![thread(
                7,
                7,
                &[(State::User, 500 * MS), (State::Preempted, 20 * MS), (State::Lock, 480 * MS)],
            )],
            stacks: (0..3).map(|stack| weight(7, Lens::OnCpu, stack, 1 + u64::from(stack))).collect(),
            ..tick(0)
        });
        model
    }

    fn folded(model: &Model, lens: FoldedLens, process: Option<ProcessKey>) -> (String, Counts) {
        let mut out = Vec::new();
        let counts = write(&mut out, model, lens, process, Window::All).expect("memory takes it");
        (String::from_utf8(out).expect("text"), counts)
    }

    #[test]
    fn names_break_no_line() {
        let (text, counts) = folded(&hostile(), FoldedLens::OnCpu, None);
        assert_eq!(
            text,
            "e:vil\\n9_9;main;operator:_12 1\n\
             e:vil\\n9_9;main;a\\nb:c_7\\x1b[31m;read_[k] 2\n\
             e:vil\\n9_9;\\x07;x\\u{2028}y 3_4 3\n"
        );
        assert_eq!(counts, Counts { lines: 3, weight: 6 });
        assert_eq!(folded(&hostile(), FoldedLens::OnCpu, Some(process(7))).0, text, "one process or all of one");
    }

    #[test]
    fn every_lens_has_its_exact_weight() {
        let model = hostile();
        let weight = |lens| folded(&model, lens, None).1.weight;
        assert_eq!(weight(FoldedLens::Blocked), 480 * MS);
        assert_eq!(weight(FoldedLens::Runnable), 20 * MS);
        assert_eq!(weight(FoldedLens::Wall), 1000 * MS);
        let (text, _) = folded(&model, FoldedLens::Runnable, Some(process(7)));
        assert_eq!(text, "e:vil\\n9_9;[preempted] 20000000\n");
    }

    #[test]
    fn waits_for_a_disk_are_part_of_the_blocked_ones() {
        let mut model = model();
        let stacks: [&[&str]; 2] = [&["main", "read"], &["main", "lock"]];
        model.apply(Tick {
            names: names(&["main", "read", "lock"], &stacks),
            processes: vec![facts(7, "db")],
            threads: vec![thread(7, 7, &[(State::Disk, 600 * MS), (State::Lock, 400 * MS)])],
            stacks: vec![
                weight(7, Lens::Blocked(State::Disk), 0, 500 * MS),
                weight(7, Lens::Blocked(State::Lock), 1, 400 * MS),
            ],
            ..tick(0)
        });
        let lines = "db;[disk];[stack not taken] 100000000\ndb;[disk];main;read 500000000\n";
        for whose in [None, Some(process(7))] {
            let (text, counts) = folded(&model, FoldedLens::Io, whose);
            assert_eq!(text, lines);
            assert_eq!(counts.weight, 600 * MS, "exact, with what no stack is known of");
        }
        assert_eq!(folded(&hostile(), FoldedLens::Io, None).0, "");
    }

    #[test]
    fn part_of_a_tree() {
        let model = hostile();
        let tree = model.tree(&TreeQuery { process: Some(process(7)), ..TreeQuery::default() });
        let main = tree.nodes.iter().position(|node| &*node.name == "main").unwrap_or_default() as u32;
        let mut out = Vec::new();
        let counts = write_tree(&mut out, &tree, main).expect("memory takes it");
        assert_eq!(counts, Counts { lines: 2, weight: 3 });
    }

    #[test]
    fn inferno_draws_it() {
        for lens in [FoldedLens::OnCpu, FoldedLens::Blocked, FoldedLens::Runnable, FoldedLens::Wall] {
            let (text, counts) = folded(&hostile(), lens, None);
            for line in text.lines() {
                let (stack, weight) = line.rsplit_once(' ').expect("a weight");
                assert!(weight.parse::<u64>().is_ok_and(|weight| weight > 0));
                assert!(!stack.chars().any(char::is_control));
            }
            let mut options = inferno::flamegraph::Options::default();
            let mut svg = Vec::new();
            inferno::flamegraph::from_lines(&mut options, text.lines(), &mut svg).expect("inferno takes it");
            let svg = String::from_utf8(svg).expect("text");
            assert!(svg.contains("e:vil"), "{lens:?}");
            assert!(svg.contains(&format!("total_samples=\"{}\"", counts.weight)), "{lens:?}");
        }
    }
}
