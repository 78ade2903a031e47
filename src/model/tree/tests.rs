//! Trees of a few stacks, drawn.

use super::*;
use crate::model::story::{MS, SECOND, facts, model, names, process, thread, tick, weight};
use crate::tick::{Detail, FoundBy, FrameId, Inlined, Lens, Line, Names, Stack, StackEnd, Symbol, Tick, Walk};

/// The tree as lines: two spaces per step, name, self/total.
fn draw(tree: &CallTree) -> String {
    fn node(tree: &CallTree, at: u32, out: &mut String) {
        let node_ = &tree.nodes[at as usize];
        let indent = "  ".repeat(node_.depth.into());
        out.push_str(&format!("{indent}{} {}/{}\n", node_.name, node_.self_weight, node_.total_weight));
        node_.children.iter().for_each(|&child| node(tree, child, out));
    }
    let mut out = String::new();
    node(tree, 0, &mut out);
    out
}

fn query(lens: TreeLens) -> TreeQuery {
    TreeQuery { process: Some(process(7)), lens, ..TreeQuery::default() }
}

/// main → a → b (3 samples), main → a (1), main → k!read (2); runs half of the time, and waits for a disk and in poll.
fn story() -> Tick {
    let functions = ["main", "a", "b", "k!read"];
    let stacks: [&[&str]; 3] = [&["main", "a", "b"], &["main", "a"], &["main", "k!read"]];
    let time = [(State::User, 400 * MS), (State::Kernel, 100 * MS), (State::Disk, 300 * MS), (State::Poll, 200 * MS)];
    let disk = Lens::Blocked(State::Disk);
    Tick {
        names: names(&functions, &stacks),
        processes: vec![facts(7, "app")],
        threads: vec![thread(7, 7, &time)],
        stacks: vec![
            weight(7, Lens::OnCpu, 0, 3),
            weight(7, Lens::OnCpu, 1, 1),
            weight(7, Lens::OnCpu, 2, 2),
            weight(7, disk, 2, 250 * MS),
        ],
        ..tick(0)
    }
}

#[test]
fn samples_become_a_tree() {
    let mut model = model();
    model.apply(story());
    let tree = model.tree(&query(TreeLens::OnCpu));
    assert_eq!(draw(&tree), "app 0/6\n  main 0/6\n    a 1/4\n      b 3/3\n    read 2/2\n");
    assert_eq!((tree.complete_weight, tree.span_ns), (6, SECOND));
    let kinds: Vec<_> = tree.nodes.iter().map(|node| (node.kind, &*node.module)).collect();
    assert_eq!(kinds[4], (FrameKind::Kernel, "[kernel]"));
    assert_eq!(kinds[1], (FrameKind::User, "app"));
}

#[test]
fn inverted_by_module_by_address() {
    let mut model = model();
    model.apply(story());
    let inverted = model.tree(&TreeQuery { inverted: true, ..query(TreeLens::OnCpu) });
    assert_eq!(
        draw(&inverted),
        "app 0/6\n  a 0/1\n    main 1/1\n  b 0/3\n    a 0/3\n      main 3/3\n  read 0/2\n    main 2/2\n"
    );
    let modules = model.tree(&TreeQuery { merge: Merge::Module, ..query(TreeLens::OnCpu) });
    assert_eq!(draw(&modules), "app 0/6\n  app 4/6\n    [kernel] 2/2\n");
    let addresses = model.tree(&TreeQuery { merge: Merge::Address, ..query(TreeLens::OnCpu) });
    assert!(draw(&addresses).contains("a+0x0 1/4"), "{}", draw(&addresses));
}

#[test]
fn blocked_time_is_whole_with_or_without_stacks() {
    let mut model = model();
    model.apply(story());
    let tree = model.tree(&query(TreeLens::Blocked));
    let ms = |text: &str| text.replace("000000/", "M/").replace("000000\n", "M\n");
    let disk = "  [disk] 0/300M\n    main 0/250M\n      read 250M/250M\n    [stack not taken] 50M/50M\n";
    let poll = "  [poll] 0/200M\n    [stack not taken] 200M/200M\n";
    assert_eq!(ms(&draw(&tree)), format!("app 0/500M\n{disk}{poll}"));
    assert!(tree.nodes[1..].iter().all(|node| node.state.is_some()));
    let busy = model.tree(&TreeQuery { hide_idle: true, ..query(TreeLens::Blocked) });
    assert_eq!(busy.total(), 300 * MS);
}

#[test]
fn a_wait_that_ends_now_is_charged_no_more_than_what_passed() {
    let mut model = model();
    let mut tick = story();
    tick.stacks.push(weight(7, Lens::Blocked(State::Disk), 1, 2000 * MS));
    model.apply(tick);
    let tree = model.tree(&query(TreeLens::Blocked));
    assert_eq!(tree.total(), 500 * MS);
}

#[test]
fn all_of_it_is_time() {
    let mut model = model();
    let mut tick = story();
    tick.threads.push(thread(7, 8, &[(State::Woken, 10 * MS), (State::Preempted, 5 * MS)]));
    model.apply(tick);
    let tree = model.tree(&query(TreeLens::All));
    assert_eq!(tree.total(), 1015 * MS);
    let at = |name: &str, state| {
        tree.nodes.iter().find(|node| &*node.name == name && node.state == Some(state)).map(|node| node.total_weight)
    };
    assert_eq!(at("[on-CPU]", State::User), Some(500 * MS));
    assert_eq!(at("b", State::User), Some(250 * MS));
    assert!(at("read", State::Kernel).is_some_and(|weight| weight.abs_diff(500 * MS / 3) <= 1));
    assert_eq!(at("[runnable]", State::Woken), Some(15 * MS));
    assert_eq!(at("[disk]", State::Disk), Some(300 * MS));
}

#[test]
fn all_processes_stand_side_by_side() {
    let mut model = model();
    let mut tick = story();
    tick.processes.push(facts(9, "app"));
    tick.processes.push(facts(11, "web\x1b[31m"));
    tick.stacks.extend([weight(9, Lens::OnCpu, 0, 1), weight(11, Lens::OnCpu, 1, 4)]);
    model.apply(tick);
    let tree = model.tree(&TreeQuery { process: None, ..query(TreeLens::OnCpu) });
    let drawn = "all 0/11\n  app 0/7\n    main 0/7\n      a 1/5\n        b 4/4\n      read 2/2\n  web\\x1b[31m 0/4\n    main 0/4\n      a 4/4\n";
    assert_eq!(draw(&tree), drawn);
}

#[test]
fn places_hold_still_when_ticks_and_names_come() {
    let mut model = model();
    let functions = ["main", "?1", "b"];
    let mut first = story();
    first.names = names(&functions, &[&["main", "?1"], &["main", "b"]]);
    first.stacks = vec![weight(7, Lens::OnCpu, 1, 1), weight(7, Lens::OnCpu, 0, 5)];
    model.apply(first);
    let before = model.tree(&query(TreeLens::OnCpu));
    assert_eq!(draw(&before), "app 0/6\n  main 0/6\n    app+0x10 5/5\n    b 1/1\n");
    let version = model.names_version();
    let symbol = Symbol { function: "late".into(), offset: 3, ..Symbol::default() };
    model.learn(Names { symbols: vec![(FrameId(1), symbol)], ..Names::default() });
    assert_ne!(model.names_version(), version);
    model.apply(Tick { stacks: vec![weight(7, Lens::OnCpu, 1, 9), weight(7, Lens::OnCpu, 0, 1)], ..tick(1) });
    let after = model.tree(&query(TreeLens::OnCpu));
    assert_eq!(draw(&after), "app 0/10\n  main 0/10\n    late 1/1\n    b 9/9\n");
    let id = |tree: &CallTree, name: &str| tree.nodes.iter().find(|node| &*node.name == name).map(|node| node.id);
    assert_eq!(id(&before, "b"), id(&after, "b"));
    assert_eq!(id(&before, "main"), id(&after, "main"));
    assert_eq!(
        id(&after, "b").and_then(|id| after.find(id)),
        after.nodes.iter().position(|n| &*n.name == "b").map(|at| at as u32)
    );
}

#[test]
fn what_is_not_known_says_so() {
    let mut model = model();
    let mut tick = story();
    tick.names.stacks[1].1 = Stack { frames: vec![FrameId(1), FrameId(77)], end: StackEnd::Broken, ..Stack::default() };
    tick.stacks.push(weight(7, Lens::OnCpu, 99, 2));
    model.apply(tick);
    let tree = model.tree(&query(TreeLens::OnCpu));
    let drawn = "app 0/8\n  main 0/5\n    a 0/3\n      b 3/3\n    read 2/2\n  [stack lost] 2/2\n  [no frame pointer] 0/1\n    a 0/1\n      [frame lost] 1/1\n";
    assert_eq!(draw(&tree), drawn);
    assert_eq!(tree.complete_weight, 5);
}

#[test]
fn a_module_that_is_a_note_is_its_own_name() {
    let mut model = model();
    let mut tick = story();
    tick.names.modules[0].1 =
        crate::tick::Module { path: "[stack not taken]".into(), kind: crate::tick::ModuleKind::Note, build_id: None };
    tick.names.frames[0].1.kind = FrameKind::Note;
    tick.names.symbols.clear();
    tick.names.stacks[0].1 = Stack { frames: vec![FrameId(0)], end: StackEnd::NotTaken, ..Stack::default() };
    tick.stacks = vec![weight(7, Lens::OnCpu, 0, 2)];
    model.apply(tick);
    assert_eq!(draw(&model.tree(&query(TreeLens::OnCpu))), "app 0/2\n  [stack not taken] 2/2\n");
    model.apply(Tick {
        threads: vec![thread(7, 7, &[(State::Lock, 9 * MS)])],
        stacks: vec![weight(7, Lens::Blocked(State::Lock), 0, 4 * MS)],
        ..crate::model::story::tick(1)
    });
    let blocked = model.tree(&query(TreeLens::Blocked));
    assert_eq!(blocked.nodes.len(), 3, "the source's note and ours are one node: {}", draw(&blocked));
    assert_eq!(blocked.total(), 9 * MS);
}

#[test]
fn proportions_sum_exactly() {
    let weighed = |weights: &[u64]| -> Vec<Weighed> {
        weights.iter().map(|&weight| Weighed { stack: StackId(0), weight, count: 1 }).collect()
    };
    for (weights, exact) in
        [(vec![1, 1, 1], 100), (vec![u64::MAX, u64::MAX, 7], u64::MAX), (vec![0, 5, 0], 3), (vec![u64::MAX; 9], 1)]
    {
        let out = scaled(&weighed(&weights), exact);
        assert_eq!(out.iter().map(|stack| u128::from(stack.weight)).sum::<u128>(), exact.into(), "{weights:?}");
    }
    assert_eq!(scaled(&weighed(&[0, 0]), 5).iter().map(|stack| stack.weight).sum::<u64>(), 0);
}

/// `main` calls `a` at line 3, where `inner` was inlined, and at line 5; what `b` does is not known by line.
fn lines() -> Model {
    let mut model = model();
    let functions = ["main", "a", "a", "b"];
    let mut tick = tick(0);
    tick.processes = vec![facts(7, "app")];
    tick.threads = vec![thread(7, 7, &[(State::User, 9 * MS)])];
    tick.names = names(&functions, &[]);
    let stack = |last| Stack { frames: vec![FrameId(0), FrameId(last)], end: StackEnd::Complete, ..Stack::default() };
    tick.names.stacks = (1..4).map(|last| (StackId(last), stack(last))).collect();
    tick.stacks = vec![weight(7, Lens::OnCpu, 1, 2), weight(7, Lens::OnCpu, 2, 5), weight(7, Lens::OnCpu, 3, 1)];
    model.apply(tick);
    model
}

fn line(number: u32) -> Option<Line> {
    Some(Line { file: "/src/app.c".into(), number })
}

fn tell(model: &mut Model) {
    let inlined = vec![Inlined { function: "inner".into(), call: line(3) }];
    let details = [
        Detail { line: line(40), ..Detail::default() },
        Detail { inlined, line: line(11), ..Detail::default() },
        Detail { line: line(5), ..Detail::default() },
    ];
    let details = (0..).map(FrameId).zip(details).collect();
    model.learn(Names { details, ..Names::default() });
}

#[test]
fn details_are_wanted_of_what_stands_behind_a_node_until_they_are_told() {
    let mut model = lines();
    let wanted = |model: &Model, name: &str| {
        let tree = model.tree(&query(TreeLens::OnCpu));
        let nodes = tree.nodes.iter().filter(|node| &*node.name == name).map(|node| node.code);
        let mut ids: Vec<u32> = model.plain_frames(nodes).into_iter().map(|(id, _)| id.0).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(wanted(&model, "a"), [1, 2], "both addresses of the function");
    assert_eq!(wanted(&model, "app"), Vec::<u32>::new(), "the root is no code");
    tell(&mut model);
    assert_eq!(wanted(&model, "a"), Vec::<u32>::new());
    assert_eq!(wanted(&model, "b"), [3]);
}

#[test]
fn inlined_functions_are_frames_and_lines_can_be_told_apart() {
    let mut model = lines();
    let by = |model: &Model, merge| draw(&model.tree(&TreeQuery { merge, ..query(TreeLens::OnCpu) }));
    assert_eq!(by(&model, Merge::Line), by(&model, Merge::Function), "nothing is known of lines");
    tell(&mut model);
    let functions = "app 0/8\n  main 0/8\n    a 5/7\n      inner 2/2\n    b 1/1\n";
    assert_eq!(by(&model, Merge::Function), functions);
    let lines =
        "app 0/8\n  main app.c:40 0/8\n    a app.c:3 0/2\n      inner app.c:11 2/2\n    a app.c:5 5/5\n    b 1/1\n";
    assert_eq!(by(&model, Merge::Line), lines);
}

#[test]
fn the_lines_of_a_node_add_up_to_its_weight() {
    let mut model = lines();
    tell(&mut model);
    for inverted in [false, true] {
        let query = TreeQuery { inverted, ..query(TreeLens::OnCpu) };
        let tree = model.tree(&query);
        for (at, node) in tree.nodes.iter().enumerate().skip(1) {
            let mut path = vec![node.id];
            let mut up = at;
            while up > 0 {
                up = tree.nodes[up].parent as usize;
                path.insert(0, tree.nodes[up].id);
            }
            let places = model.behind(&query, &path).lines;
            assert_eq!(places.iter().map(|(_, weight)| weight).sum::<u64>(), node.total_weight, "{}", node.name);
            match (&*node.name, inverted) {
                ("a", false) => assert_eq!(places, [(line(5), 5), (line(3), 2)]),
                ("inner", _) => assert_eq!(places, [(line(11), 2)]),
                ("b", _) => assert_eq!(places, [(None, 1)]),
                _ => {}
            }
        }
    }
    for path in [&[1, 2, 3][..], &[1], &[]] {
        assert_eq!(model.behind(&query(TreeLens::OnCpu), path), Behind::default());
    }
}

/// How each node was found, and whether it is a guess.
fn found(model: &Model) -> Vec<String> {
    let query = query(TreeLens::OnCpu);
    let tree = model.tree(&query);
    let path = |mut at: usize| {
        let mut path = vec![tree.nodes[at].id];
        while at > 0 {
            at = tree.nodes[at].parent as usize;
            path.insert(0, tree.nodes[at].id);
        }
        path
    };
    let line = |(at, node): (usize, &TreeNode)| {
        let by: Vec<_> =
            model.behind(&query, &path(at)).found.iter().map(|(by, w)| format!("{} {w}", by.name())).collect();
        format!("{}{}: {}", node.name, if node.guessed { "?" } else { "" }, by.join(", "))
    };
    tree.nodes.iter().enumerate().skip(1).map(line).collect()
}

#[test]
fn every_frame_says_how_it_was_found_and_guesses_are_marked() {
    use FoundBy::*;
    let mut model = model();
    let mut tick = story();
    tick.names = names(&["main", "a", "b", "jit", "k!read"], &[]);
    tick.names.frames[3].1.kind = FrameKind::Jit;
    let frames = |ids: &[u32]| ids.iter().copied().map(FrameId).collect();
    let mixed = |found: &[FoundBy]| Walk::of(found.iter().copied());
    let stacks = [
        Stack { frames: frames(&[0, 1, 2, 4]), end: StackEnd::Complete, walk: Walk::Tables },
        // `main` was found by the frame pointer of what has no table, `a` by that of code made at run time.
        Stack {
            frames: frames(&[0, 1, 3]),
            end: StackEnd::NotCode,
            walk: mixed(&[FramePointer, FramePointer, Registers]),
        },
    ];
    tick.names.stacks = (0..).map(StackId).zip(stacks).collect();
    tick.stacks = vec![weight(7, Lens::OnCpu, 0, 5), weight(7, Lens::OnCpu, 1, 2)];
    model.apply(tick);
    let told = [
        "main: table 5",
        "a: table 5",
        "b: registers 5",
        "read: ",
        "[return to no code]: ",
        "main?: frame pointer 2",
        "a: frame pointer 2",
        "jit: registers 2",
    ];
    let mut lines = found(&model);
    lines.sort_by_key(|line| told.iter().position(|told| told == line));
    assert_eq!(lines, told);
    // One that reached the first function has proved itself.
    let walk = mixed(&[FramePointer, FramePointer, Registers]);
    let stack = Stack { frames: frames(&[0, 1, 3]), end: StackEnd::Complete, walk };
    model.learn(Names { stacks: vec![(StackId(1), stack)], ..Names::default() });
    assert!(found(&model).contains(&"main: table 5, frame pointer 2".into()), "{:?}", found(&model));
}
