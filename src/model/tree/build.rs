//! Making the tree: paths of keys become nodes, weights run up to the root, keys become names.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{CallTree, Code, Merge, TreeNode, TreeQuery, Weighed};
use crate::model::Model;
use crate::model::names::{EVICTED, display};
use crate::tick::{FoundBy, FrameId, FrameKind, Stack, StackEnd, StackId, State, Walk};

/// Where under the root an owner's stacks stand.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Root,
    Group(u32),
}

/// What a tree says that is not code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Note {
    NotSampled,
    NotTaken,
    StackLost,
    FrameLost,
    NoFramePointer,
    TooDeep,
    Unreadable,
    Evicted,
    NoTable,
    NotCode,
    NoRule,
    Stuck,
}

impl Note {
    const ALL: [Note; 12] = [
        Note::NotSampled,
        Note::NotTaken,
        Note::StackLost,
        Note::FrameLost,
        Note::NoFramePointer,
        Note::TooDeep,
        Note::Unreadable,
        Note::Evicted,
        Note::NoTable,
        Note::NotCode,
        Note::NoRule,
        Note::Stuck,
    ];

    fn name(self) -> &'static str {
        match self {
            Note::NotSampled => "[no sample]",
            Note::NotTaken => "[stack not taken]",
            Note::StackLost => "[stack lost]",
            Note::FrameLost => "[frame lost]",
            Note::NoFramePointer => "[no frame pointer]",
            Note::TooDeep => "[too deep]",
            Note::Unreadable => "[unreadable]",
            Note::Evicted => "[stack evicted]",
            Note::NoTable => "[no unwind table yet]",
            Note::NotCode => "[return to no code]",
            Note::NoRule => "[no unwind rule]",
            Note::Stuck => "[bad frame]",
        }
    }

    fn named(name: &str) -> Option<Note> {
        Note::ALL.into_iter().find(|note| note.name() == name)
    }

    /// What stands at the root of a stack that is not complete.
    fn of(end: StackEnd) -> Option<Note> {
        match end {
            StackEnd::Complete | StackEnd::KernelOnly => None,
            StackEnd::Broken => Some(Note::NoFramePointer),
            StackEnd::Truncated => Some(Note::TooDeep),
            StackEnd::Unreadable(_) => Some(Note::Unreadable),
            StackEnd::NotTaken => Some(Note::NotTaken),
            StackEnd::NoTable => Some(Note::NoTable),
            StackEnd::NotCode => Some(Note::NotCode),
            StackEnd::NoRule => Some(Note::NoRule),
            StackEnd::Stuck => Some(Note::Stuck),
        }
    }
}

/// What a node stands for. The order is that of siblings, and that of first sight: ids rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Root,
    Group(u32),
    State(u8),
    /// (frame that brought the name, label).
    Label(FrameId, u32),
    /// (frame, place among its inlined functions), by address or as long as it has no name.
    Frame(FrameId, u8),
    Note(u8),
}

impl Key {
    /// As a number, for stable ids. Order of first sight is not part of it.
    fn number(self) -> u64 {
        let (tag, value) = match self {
            Key::Root => (0, 0),
            Key::Group(group) => (1, u64::from(group)),
            Key::State(state) => (2, state.into()),
            Key::Label(_, label) => (3, label.into()),
            Key::Frame(frame, inlined) => (4, u64::from(frame.0) << 8 | u64::from(inlined)),
            Key::Note(note) => (5, note.into()),
        };
        tag << 56 | value
    }

    fn code(self) -> Code {
        match self {
            Key::Label(_, label) => Code::Label(label),
            Key::Frame(frame, _) => Code::Frame(frame),
            Key::Root | Key::Group(_) | Key::State(_) | Key::Note(_) => Code::None,
        }
    }

    /// For the order of siblings: states, then code by first sight, then notes.
    fn rank(self) -> (u8, u64, u64) {
        match self {
            Key::Root | Key::Group(_) | Key::State(_) => (0, 0, self.number()),
            Key::Label(first, _) => (1, u64::from(first.0) << 8, self.number()),
            Key::Frame(frame, inlined) => (1, u64::from(frame.0) << 8 | u64::from(inlined), self.number()),
            Key::Note(_) => (2, 0, self.number()),
        }
    }
}

struct Node {
    key: Key,
    parent: u32,
    depth: u16,
    guessed: bool,
    state: Option<State>,
    weight: u64,
    count: u64,
    id: u64,
}

/// One step of a path.
#[derive(Clone, Copy)]
struct Step {
    /// Which node.
    key: Key,
    /// The code is the kernel's.
    kernel: bool,
    /// Maybe nobody called from there.
    guessed: bool,
    place: Behind,
}

/// A frame behind a node: which of its functions (0: its own, others are inlined there), and how it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Behind {
    pub frame: FrameId,
    pub nth: u8,
    /// `None`: in the kernel, or no code.
    pub found: Option<FoundBy>,
}

impl Step {
    fn note(note: Note) -> Self {
        Step { key: Key::Note(note as u8), kernel: false, guessed: false, place: Behind::default() }
    }
}

/// Which frames stand behind one node.
struct Probe {
    /// Ids from the root down to the node.
    path: Vec<u64>,
    /// Weight by frame.
    found: FxHashMap<Behind, u64>,
}

/// A tree in the making.
pub(super) struct Builder<'a> {
    model: &'a Model,
    query: &'a TreeQuery,
    nodes: Vec<Node>,
    index: FxHashMap<(u32, u64), u32>,
    complete: u64,
    path: Vec<Step>,
    /// The path before this one, where it started and which nodes it became: neighbours share much.
    last: Vec<(Key, u32)>,
    last_base: u32,
    /// Instead of making a tree, find out about one node.
    probe: Option<Probe>,
}

const ROOT: u32 = 0;

impl<'a> Builder<'a> {
    pub fn new(model: &'a Model, query: &'a TreeQuery) -> Self {
        let root =
            Node { key: Key::Root, parent: ROOT, depth: 0, guessed: false, state: None, weight: 0, count: 0, id: 1 };
        Builder {
            model,
            query,
            nodes: vec![root],
            index: FxHashMap::default(),
            complete: 0,
            path: Vec::new(),
            last: Vec::new(),
            last_base: ROOT,
            probe: None,
        }
    }

    /// One that makes no tree but finds the frames behind a node, see [`Builder::found`].
    pub fn probe(model: &'a Model, query: &'a TreeQuery, path: &[u64]) -> Self {
        let mut builder = Builder::new(model, query);
        builder.probe = Some(Probe { path: path.to_vec(), found: FxHashMap::default() });
        builder
    }

    /// What was found: weight by frame.
    pub fn found(self) -> FxHashMap<Behind, u64> {
        self.probe.map(|probe| probe.found).unwrap_or_default()
    }

    pub fn query(&self) -> &'a TreeQuery {
        self.query
    }

    /// The node under which an owner's stacks stand.
    pub fn base(&mut self, base: Place) -> u32 {
        match base {
            Place::Root => ROOT,
            Place::Group(group) => self.child(ROOT, Key::Group(group), None),
        }
    }

    /// The node of a state of an owner.
    pub fn state(&mut self, base: Place, state: State) -> u32 {
        let base = self.base(base);
        self.child(base, Key::State(state as u8), Some(state))
    }

    /// The node of a note.
    pub fn note(&mut self, parent: u32, note: Note, state: Option<State>) -> u32 {
        self.child(parent, Key::Note(note as u8), state)
    }

    /// Adds weight that ends at a node.
    pub fn weigh(&mut self, node: u32, weight: u64, count: u64) {
        let node = &mut self.nodes[node as usize];
        node.weight = node.weight.saturating_add(weight);
        node.count = node.count.saturating_add(count);
    }

    /// Adds a stack under a node. `state` of on-CPU time is refined to user or kernel by frame.
    pub fn stack(&mut self, base: u32, stack: &Weighed, state: Option<State>) {
        if stack.weight == 0 {
            return;
        }
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        self.steps(stack.stack, &mut path);
        if self.query.inverted {
            path.reverse();
        }
        if let Some(probe) = &mut self.probe {
            let Node { id, depth, .. } = self.nodes[base as usize];
            probe.look(id, depth, &path, stack.weight);
            self.path = path;
            return;
        }
        let leaf = self.walk(base, &path, state);
        self.path = path;
        self.weigh(leaf, stack.weight, stack.count);
        if self.model.names.is_complete(stack.stack) {
            self.complete = self.complete.saturating_add(stack.weight);
        }
    }

    fn walk(&mut self, base: u32, path: &[Step], state: Option<State>) -> u32 {
        let shared = match self.last_base == base {
            true => self.last.iter().zip(path).take_while(|((last, _), step)| *last == step.key).count(),
            false => 0,
        };
        self.last_base = base;
        self.last.truncate(shared);
        let mut at = self.last.last().map_or(base, |(_, node)| *node);
        for &Step { key, kernel, .. } in &path[shared..] {
            let state = match state {
                Some(State::User) if kernel => Some(State::Kernel),
                state => state,
            };
            at = self.child(at, key, state);
            self.last.push((key, at));
        }
        if path.iter().any(|step| step.guessed) {
            for ((_, node), _) in self.last.iter().zip(path).filter(|(_, step)| step.guessed) {
                self.nodes[*node as usize].guessed = true;
            }
        }
        at
    }

    fn child(&mut self, parent: u32, key: Key, state: Option<State>) -> u32 {
        let next = self.nodes.len() as u32;
        let node = *self.index.entry((parent, key.number())).or_insert(next);
        if node == next {
            let Node { depth, id, .. } = self.nodes[parent as usize];
            let (depth, id) = (depth.saturating_add(1), mix(id, key.number()));
            self.nodes.push(Node { key, parent, depth, guessed: false, state, weight: 0, count: 0, id });
        }
        node
    }

    /// The path of a stack, root first.
    fn steps(&self, id: StackId, path: &mut Vec<Step>) {
        let Some(stack) = self.model.names.stacks.get(&id) else {
            let evicted = id == EVICTED || self.model.names.was_purged(id);
            path.push(Step::note(if evicted { Note::Evicted } else { Note::StackLost }));
            return;
        };
        path.extend(Note::of(stack.end).map(Step::note));
        let mixed = matches!(stack.walk, Walk::Mixed(_));
        for (at, &frame) in stack.frames.iter().enumerate() {
            let start = path.len();
            self.frame_steps(frame, path);
            // How frames were found is told of one node, or where it differs.
            if mixed || self.probe.is_some() {
                let found = self.found_by(stack, at);
                let guessed = mixed && found.is_some_and(|found| self.is_guess(stack, at, found));
                for step in path.iter_mut().skip(start) {
                    (step.place.found, step.guessed) = (found, guessed);
                }
            }
        }
        // The source wrote a note of its own: one is enough.
        if path.first().is_some_and(|step| matches!(step.key, Key::Note(_)))
            && path[1..].iter().any(|step| self.is_note(step.key))
        {
            path.remove(0);
        }
    }

    /// How a frame (root first) was found; `None` in the kernel.
    fn found_by(&self, stack: &Stack, at: usize) -> Option<FoundBy> {
        let is_user = |at: usize| {
            let kind = stack.frames.get(at).and_then(|frame| self.model.labels.of(*frame)).map(|of| of.kind);
            kind.is_some_and(|kind| !matches!(kind, FrameKind::Kernel | FrameKind::Note))
        };
        match (is_user(at), is_user(at + 1)) {
            (false, _) => None,
            // The registers point there, however the others were found.
            (true, false) => Some(FoundBy::Registers),
            (true, true) => Some(stack.walk.found(at)),
        }
    }

    /// Whether a frame may be none. By convention code made at run time has frame pointers; code of a file that has no table
    /// may use that register for anything. But what led astray does not reach the thread's first function.
    fn is_guess(&self, stack: &Stack, at: usize, found: FoundBy) -> bool {
        let callee = || stack.frames.get(at + 1).and_then(|frame| self.model.labels.of(*frame)).map(|of| of.kind);
        match found {
            FoundBy::Guess => true,
            FoundBy::FramePointer => stack.end != StackEnd::Complete && callee() == Some(FrameKind::User),
            FoundBy::Registers | FoundBy::Table | FoundBy::Signal | FoundBy::Thunk => false,
        }
    }

    fn is_note(&self, key: Key) -> bool {
        match key {
            Key::Note(note) => note != Note::FrameLost as u8,
            Key::Label(_, label) => self.model.labels.get(label).is_some_and(|label| label.kind == FrameKind::Note),
            _ => false,
        }
    }

    fn frame_steps(&self, frame: FrameId, path: &mut Vec<Step>) {
        let labels = &self.model.labels;
        let Some(of) = labels.of(frame) else { return path.push(Step::note(Note::FrameLost)) };
        let label = |id: u32| {
            let label = labels.get(id);
            // What the source says in the same words as we is the same node.
            let note = label.filter(|label| label.kind == FrameKind::Note).and_then(|label| Note::named(&label.name));
            note.map_or(Key::Label(label.map_or(frame, |label| label.first), id), |note| Key::Note(note as u8))
        };
        let step = |nth: usize, key: Key| Step {
            key,
            kernel: of.kind == FrameKind::Kernel,
            guessed: false,
            place: Behind { frame, nth: clamp(nth), found: None },
        };
        let named = match self.query.merge {
            Merge::Line if !of.lines.is_empty() => &of.lines,
            _ => &of.functions,
        };
        match self.query.merge {
            Merge::Module => {
                let key = label(of.module);
                if path.last().is_none_or(|last| last.key != key) {
                    path.push(step(0, key));
                }
            }
            Merge::Function | Merge::Line if !named.is_empty() => {
                path.extend(named.iter().enumerate().map(|(nth, &id)| step(nth, label(id))));
            }
            Merge::Function | Merge::Line | Merge::Address => {
                let steps = of.functions.len().max(1);
                path.extend((0..steps).map(|nth| step(nth, Key::Frame(frame, clamp(nth)))));
            }
        }
    }

    /// Names the nodes, sums the weights, puts siblings in order.
    pub fn finish(self, span_ns: u64) -> CallTree {
        let namer = Namer::new(self.model, self.query);
        let mut nodes: Vec<TreeNode> = self.nodes.iter().map(|node| namer.node(node)).collect();
        for at in (1..nodes.len()).rev() {
            let (total, count, parent) = (nodes[at].total_weight, nodes[at].count, nodes[at].parent as usize);
            nodes[parent].total_weight = nodes[parent].total_weight.saturating_add(total);
            nodes[parent].count = nodes[parent].count.saturating_add(count);
        }
        for (at, node) in self.nodes.iter().enumerate().skip(1) {
            nodes[node.parent as usize].children.push(at as u32);
        }
        for node in &mut nodes {
            node.children.sort_by_key(|&child| self.nodes[child as usize].key.rank());
        }
        let TreeQuery { process, lens, .. } = *self.query;
        CallTree { nodes, complete_weight: self.complete, span_ns, process, lens }
    }
}

impl Probe {
    /// Adds the weight of a stack that passes through the node. Its path begins below a node of that id and depth.
    fn look(&mut self, base: u64, depth: u16, path: &[Step], weight: u64) {
        let depth = usize::from(depth);
        if self.path.get(depth) != Some(&base) {
            return;
        }
        let Some(below) = self.path.get(depth + 1..) else { return };
        let mut id = base;
        for (nth, (step, wanted)) in path.iter().zip(below).enumerate() {
            id = mix(id, step.key.number());
            if id != *wanted {
                return;
            }
            if nth + 1 == below.len() {
                let found = self.found.entry(step.place).or_default();
                *found = found.saturating_add(weight);
            }
        }
    }
}

/// Makes names of keys.
struct Namer<'a> {
    model: &'a Model,
    root: Arc<str>,
    empty: Arc<str>,
    notes: Vec<Arc<str>>,
    states: Vec<Arc<str>>,
}

impl<'a> Namer<'a> {
    fn new(model: &'a Model, query: &TreeQuery) -> Self {
        let root = match query.process {
            None => "all".into(),
            Some(key) => display(model.process(key).map_or("", |process| &process.facts.comm)),
        };
        Namer {
            model,
            root,
            empty: "".into(),
            notes: Note::ALL.iter().map(|note| note.name().into()).collect(),
            states: State::ALL.iter().map(|state| state_name(*state).into()).collect(),
        }
    }

    fn node(&self, node: &Node) -> TreeNode {
        let (name, module, kind) = self.name(node.key);
        TreeNode {
            name,
            module,
            kind,
            state: node.state,
            parent: node.parent,
            depth: node.depth,
            code: node.key.code(),
            guessed: node.guessed,
            self_weight: node.weight,
            total_weight: node.weight,
            count: node.count,
            children: Vec::new(),
            id: node.id,
        }
    }

    fn name(&self, key: Key) -> (Arc<str>, Arc<str>, FrameKind) {
        let plain = |name: Option<&Arc<str>>, kind| (name.unwrap_or(&self.empty).clone(), self.empty.clone(), kind);
        match key {
            Key::Root => plain(Some(&self.root), FrameKind::User),
            Key::Group(group) => plain(self.model.groups.get(group).map(|group| &group.name), FrameKind::User),
            Key::State(state) => plain(self.states.get(usize::from(state)), FrameKind::Note),
            Key::Note(note) => plain(self.notes.get(usize::from(note)), FrameKind::Note),
            Key::Label(_, id) => match self.model.labels.get(id) {
                Some(label) => (label.name.clone(), label.module.clone(), label.kind),
                None => plain(None, FrameKind::Note),
            },
            Key::Frame(frame, nth) => self.frame(frame, usize::from(nth)),
        }
    }

    fn frame(&self, id: FrameId, nth: usize) -> (Arc<str>, Arc<str>, FrameKind) {
        let Model { names, labels, .. } = self.model;
        let of = labels.of(id);
        let frame = names.frames.get(&id).copied().unwrap_or_default();
        let function = of.and_then(|of| labels.get(*of.functions.get(nth)?));
        let module = of.and_then(|of| labels.get(of.module));
        match (function, module) {
            (Some(function), _) if nth > 0 || function.kind == FrameKind::Note => {
                (function.name.clone(), function.module.clone(), function.kind)
            }
            (Some(function), _) => {
                let offset = names.symbols.get(&id).map_or(0, |symbol| symbol.offset);
                (format!("{}+0x{offset:x}", function.name).into(), function.module.clone(), function.kind)
            }
            (None, module) => {
                let module = module.map_or(&self.empty, |module| &module.name);
                (format!("{module}+0x{:x}", frame.offset).into(), module.clone(), frame.kind)
            }
        }
    }
}

/// The frame that a state becomes.
pub(in crate::model) fn state_name(state: State) -> &'static str {
    match state {
        State::User | State::Kernel => "[on-CPU]",
        State::Woken => "[runnable]",
        State::Preempted => "[preempted]",
        State::Disk => "[disk]",
        State::Lock => "[lock]",
        State::Net => "[net]",
        State::Pipe => "[pipe]",
        State::Timer => "[timer]",
        State::Poll => "[poll]",
        State::Fault => "[fault]",
        State::Stopped => "[stopped]",
        State::Other => "[other]",
    }
}

fn clamp(nth: usize) -> u8 {
    u8::try_from(nth).unwrap_or(u8::MAX)
}

/// One step of a hash (splitmix64's finalizer) along a path.
fn mix(parent: u64, key: u64) -> u64 {
    let mut x = parent.rotate_left(5) ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
