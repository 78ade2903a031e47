//! Names: what the source has told so far, and what frames are called in trees.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::dense::Dense;
use crate::tick::{
    Detail, Frame, FrameId, FrameKind, Inlined, Line, Module, ModuleId, ModuleKind, Names, Stack, StackEnd, StackId,
    Symbol, Walk,
};

/// The names known so far, by id, as the source gave them.
#[derive(Default)]
pub struct NameTable {
    /// User names by uid.
    pub users: FxHashMap<u32, String>,
    /// Modules.
    pub modules: FxHashMap<ModuleId, Module>,
    /// Frames.
    pub frames: FxHashMap<FrameId, Frame>,
    /// Symbols of frames; the newest for each.
    pub symbols: FxHashMap<FrameId, Symbol>,
    /// What debug information says of frames, where it was asked for.
    pub details: FxHashMap<FrameId, Detail>,
    /// Frames in files, whose details nobody told yet.
    plain: FxHashSet<FrameId>,
    /// Stacks, of at most [`MAX_FRAMES`] frames.
    pub stacks: FxHashMap<StackId, Stack>,
    /// Memory of all that, with what [`Labels`] has of it, about.
    bytes: usize,
    /// Stacks up to this one may have been let go.
    purged: Option<StackId>,
    /// See [`NameTable::take_proved`].
    proved: Vec<StackId>,
}

/// Deeper stacks are cut at the root and marked truncated.
pub const MAX_FRAMES: usize = 1024;

/// More functions inlined at one place than this are left out.
const MAX_INLINED: usize = 64;

/// Longer names are cut for display; they stay different names.
pub const MAX_NAME_CHARS: usize = 1024;

impl NameTable {
    /// Takes in new names. Returns the frames whose name may have changed.
    pub(super) fn learn(&mut self, names: Names) -> Vec<FrameId> {
        self.bytes += bytes_of(&names);
        self.users.extend(names.users);
        self.modules.extend(names.modules);
        let mut changed: Vec<FrameId> = names.frames.iter().map(|(id, _)| *id).collect();
        let in_file = names.frames.iter().filter(|(_, frame)| frame.kind == FrameKind::User).map(|(id, _)| *id);
        self.plain.extend(in_file.filter(|id| !self.details.contains_key(id)));
        self.frames.extend(names.frames);
        changed.extend(names.symbols.iter().map(|(id, _)| *id));
        changed.extend(names.details.iter().map(|(id, _)| *id));
        for (id, symbol) in names.symbols {
            // Symbols of frames that were let go come too late, and a name is better than none.
            let known = self.symbols.get(&id).is_some_and(|known| !known.nameless);
            if self.frames.contains_key(&id) && !(symbol.nameless && known) {
                self.symbols.insert(id, symbol);
            }
        }
        for (id, detail) in names.details {
            if self.frames.contains_key(&id) {
                self.plain.remove(&id);
                self.details.insert(id, detail);
            }
        }
        for (id, stack) in names.stacks {
            let stack = bounded(stack);
            let complete = is_complete(stack.end);
            let before = self.stacks.insert(id, stack);
            if complete && before.is_some_and(|before| !is_complete(before.end)) {
                self.proved.push(id);
            }
        }
        changed
    }

    /// Stacks that proved complete since the last call, and were not when they were told first.
    pub(super) fn take_proved(&mut self) -> Vec<StackId> {
        std::mem::take(&mut self.proved)
    }

    /// Memory of all names, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a stack that is not here was let go, rather than never told.
    pub(super) fn was_purged(&self, stack: StackId) -> bool {
        self.purged.is_some_and(|newest| stack <= newest)
    }

    /// Lets go every stack that is not wanted, and what only those needed. Returns how many stacks went.
    pub(super) fn purge(&mut self, wanted: &FxHashSet<StackId>) -> u64 {
        let before = self.stacks.len();
        let newest = self.stacks.keys().max().copied();
        self.purged = self.purged.max(newest.filter(|newest| *newest < EVICTED));
        self.stacks.retain(|id, _| wanted.contains(id));
        let frames: FxHashSet<FrameId> = self.stacks.values().flat_map(|stack| &stack.frames).copied().collect();
        self.frames.retain(|id, _| frames.contains(id));
        self.symbols.retain(|id, _| frames.contains(id));
        self.details.retain(|id, _| frames.contains(id));
        self.plain.retain(|id| frames.contains(id));
        let modules: FxHashSet<ModuleId> = self.frames.values().map(|frame| frame.module).collect();
        self.modules.retain(|id, _| modules.contains(id));
        self.shrink();
        self.bytes = self.stacks.values().map(stack_bytes).sum::<usize>()
            + self.symbols.values().map(symbol_bytes).sum::<usize>()
            + self.details.values().map(detail_bytes).sum::<usize>()
            + self.modules.values().map(module_bytes).sum::<usize>()
            + self.frames.len() * FRAME_BYTES;
        (before - self.stacks.len()) as u64
    }

    fn shrink(&mut self) {
        self.stacks.shrink_to_fit();
        self.frames.shrink_to_fit();
        self.symbols.shrink_to_fit();
        self.details.shrink_to_fit();
        self.plain.shrink_to_fit();
    }

    /// Whether it is in a file and its details have not been told.
    pub(super) fn is_plain(&self, frame: FrameId) -> bool {
        self.plain.contains(&frame)
    }

    /// Frames in files, whose details nobody told yet.
    pub(super) fn plain(&self) -> impl Iterator<Item = FrameId> + '_ {
        self.plain.iter().copied()
    }

    /// Whether the weight of a stack is known to its root.
    pub(super) fn is_complete(&self, stack: StackId) -> bool {
        self.stacks.get(&stack).is_some_and(|stack| is_complete(stack.end))
    }
}

fn is_complete(end: StackEnd) -> bool {
    matches!(end, StackEnd::Complete | StackEnd::KernelOnly)
}

/// The stack that stands for those whose weights were added up to stay within the bound.
pub(super) const EVICTED: StackId = StackId(u32::MAX);

/// A frame in the table, and what it is called.
const FRAME_BYTES: usize = size_of::<(FrameId, Frame)>() + size_of::<Option<FrameLabels>>() + size_of::<FrameId>() + 12;

fn bytes_of(names: &Names) -> usize {
    names.stacks.iter().map(|(_, stack)| stack_bytes(stack)).sum::<usize>()
        + names.symbols.iter().map(|(_, symbol)| symbol_bytes(symbol)).sum::<usize>()
        + names.details.iter().map(|(_, detail)| detail_bytes(detail)).sum::<usize>()
        + names.modules.iter().map(|(_, module)| module_bytes(module)).sum::<usize>()
        + names.frames.len() * FRAME_BYTES
}

fn stack_bytes(stack: &Stack) -> usize {
    let runs = match &stack.walk {
        Walk::Mixed(runs) => size_of_val(runs.as_slice()),
        Walk::FramePointers | Walk::Tables => 0,
    };
    size_of::<(StackId, Stack)>() + 8 + size_of_val(stack.frames.as_slice()) + runs
}

fn symbol_bytes(symbol: &Symbol) -> usize {
    // The name also stands twice in the labels, most often for several frames.
    size_of::<(FrameId, Symbol)>() + 8 + 2 * symbol.function.len()
}

fn detail_bytes(detail: &Detail) -> usize {
    let line = |line: &Option<Line>| line.as_ref().map_or(0, |line| line.file.len());
    let inlined = |inlined: &Inlined| size_of::<Inlined>() + inlined.function.len() + line(&inlined.call);
    let function = detail.function.as_ref().map_or(0, String::len);
    size_of::<(FrameId, Detail)>()
        + 8
        + function
        + line(&detail.line)
        + detail.inlined.iter().map(inlined).sum::<usize>()
}

fn module_bytes(module: &Module) -> usize {
    size_of::<(ModuleId, Module)>() + 8 + 2 * module.path.len()
}

fn bounded(mut stack: Stack) -> Stack {
    if stack.frames.len() > MAX_FRAMES {
        let excess = stack.frames.len() - MAX_FRAMES;
        stack.frames.drain(..excess);
        stack.walk = stack.walk.without_first(excess);
        stack.end = StackEnd::Truncated;
    }
    stack
}

/// What a node of a tree is called.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub name: Arc<str>,
    pub module: Arc<str>,
    pub kind: FrameKind,
    /// The frame that brought it: gives the order of first sight.
    pub first: FrameId,
}

/// Index of a [`Label`].
pub(super) type LabelId = u32;

/// What one frame is called.
#[derive(Clone, Debug)]
pub(super) struct FrameLabels {
    /// Its function and then those inlined into it, outermost first; empty while the function is not known.
    pub functions: SmallVec<[LabelId; 2]>,
    /// The same with the line in each; empty where no line is known.
    pub lines: SmallVec<[LabelId; 2]>,
    pub module: LabelId,
    /// What kind of code.
    pub kind: FrameKind,
}

/// Functions and modules, each once, and which frames belong to them.
#[derive(Default)]
pub(super) struct Labels {
    list: Dense<Label>,
    next: LabelId,
    index: FxHashMap<(Box<str>, Arc<str>, FrameKind), LabelId>,
    frames: Dense<FrameLabels>,
}

impl Labels {
    /// The label of an id that this table gave out.
    pub fn get(&self, id: LabelId) -> Option<&Label> {
        self.list.get(id)
    }

    /// What a frame is called; `None` for a frame that never arrived.
    pub fn of(&self, frame: FrameId) -> Option<&FrameLabels> {
        self.frames.get(frame.0)
    }

    /// Names a frame anew.
    pub fn update(&mut self, id: FrameId, names: &NameTable) {
        let Some(frame) = names.frames.get(&id) else { return };
        let unknown = Module { path: "[module not known]".to_owned(), kind: ModuleKind::File, build_id: None };
        let module = names.modules.get(&frame.module).unwrap_or(&unknown);
        let path: Arc<str> = module.path.as_str().into();
        let of_module = self.intern(id, short_name(&module.path), &path, frame.kind, true);
        let (mut functions, mut lines) = (SmallVec::new(), SmallVec::new());
        let detail = names.details.get(&id);
        match function_of(names.symbols.get(&id), detail) {
            Some(function) => {
                let inlined = detail.iter().flat_map(|detail| &detail.inlined).take(MAX_INLINED);
                let inlined = inlined.map(|inlined| (inlined.function.as_str(), FrameKind::Inlined));
                for (nth, (name, kind)) in [(function, frame.kind)].into_iter().chain(inlined).enumerate() {
                    functions.push(self.intern(id, name, &path, kind, false));
                    if let Some(line) = detail.and_then(|detail| detail.line_in(nth)) {
                        lines.resize(nth, functions[nth]);
                        lines.push(self.intern(id, &format!("{name} {}", place(line)), &path, kind, false));
                    }
                }
                if !lines.is_empty() {
                    lines.extend(functions.iter().skip(lines.len()).copied().collect::<SmallVec<[LabelId; 2]>>());
                }
            }
            // A note says all it has to say in the name of its module.
            None if module.kind == ModuleKind::Note => functions.push(of_module),
            None => {}
        }
        self.frames.insert(id.0, FrameLabels { functions, lines, module: of_module, kind: frame.kind });
    }

    /// Lets go what no frame of the table is called any more. Ids are not given out again.
    pub fn purge(&mut self, names: &NameTable) {
        self.frames.retain(|id| names.frames.contains_key(&FrameId(id)));
        let used: FxHashSet<LabelId> = self
            .frames
            .iter()
            .flat_map(|of| of.functions.iter().chain(&of.lines).chain([&of.module]))
            .copied()
            .collect();
        self.list.retain(|id| used.contains(&id));
        self.index.retain(|_, id| used.contains(id));
    }

    /// A function (or, with an empty path in the key, a module) is the same if name, module and kind are.
    fn intern(&mut self, first: FrameId, name: &str, path: &Arc<str>, kind: FrameKind, is_module: bool) -> LabelId {
        let key = match is_module {
            true => (path.as_ref().into(), Arc::from(""), kind),
            false => (name.into(), path.clone(), kind),
        };
        if let Some(&id) = self.index.get(&key) {
            return id;
        }
        let module = if kind == FrameKind::Note { "".into() } else { display(short_name(path)) };
        let id = self.next;
        self.next += 1;
        self.list.insert(id, Label { name: display(name), module, kind, first });
        self.index.insert(key, id);
        id
    }
}

/// What a frame's function is called: by the symbol table, else by debug information, else by where it begins.
fn function_of<'a>(symbol: Option<&'a Symbol>, detail: Option<&'a Detail>) -> Option<&'a str> {
    let by_symbol = |nameless| symbol.filter(|symbol| symbol.nameless == nameless).map(|symbol| &*symbol.function);
    let by_detail = || detail?.function.as_deref();
    by_symbol(false).or_else(by_detail).or_else(|| by_symbol(true)).filter(|name| !name.is_empty())
}

/// `tuplesort.c:2214`.
pub(super) fn place(line: &Line) -> String {
    format!("{}:{}", short_name(&line.file), line.number)
}

/// Last part of a path.
fn short_name(path: &str) -> &str {
    match path.rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => path,
    }
}

/// A name fit for the screen: cleaned, and cut where nobody reads on.
pub(super) fn display(name: &str) -> Arc<str> {
    let clean = clean(name);
    match clean.char_indices().nth(MAX_NAME_CHARS) {
        Some((at, _)) => format!("{}…", &clean[..at]).into(),
        None => clean.into(),
    }
}

/// Makes a name from outside harmless: what would move the cursor, change colours, or turn the direction of writing is
/// written out (`\x1b`, `\u{202e}`). Everything else stays as it is.
pub fn clean(name: &str) -> Cow<'_, str> {
    if !name.contains(is_harmful) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 16);
    for char in name.chars() {
        // Writing to a string cannot fail.
        let _ = match char {
            '\n' => out.write_str("\\n"),
            '\t' => out.write_str("\\t"),
            '\r' => out.write_str("\\r"),
            harmful if is_harmful(harmful) && u32::from(harmful) < 0x100 => {
                write!(out, "\\x{:02x}", u32::from(harmful))
            }
            harmful if is_harmful(harmful) => write!(out, "\\u{{{:x}}}", u32::from(harmful)),
            harmless => out.write_char(harmless),
        };
    }
    Cow::Owned(out)
}

/// Control characters, line and paragraph separators, direction marks and invisible tags.
pub(super) fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || matches!(char, '\u{61c}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_characters_are_written_out() {
        assert_eq!(clean("\x1b[31mred\x07"), "\\x1b[31mred\\x07");
        assert_eq!(clean("a\u{202e}b\u{9b}c\n"), "a\\u{202e}b\\x9bc\\n");
        assert!(matches!(clean("界面 e\u{301} std::vec<int>"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let name = display(&"界".repeat(5000));
        assert_eq!(name.chars().count(), MAX_NAME_CHARS + 1);
        assert!(name.ends_with('…'));
    }

    #[test]
    fn a_frame_is_a_function_once_its_symbol_comes() {
        let mut names = NameTable::default();
        let mut labels = Labels::default();
        let module = Module { path: "/usr/lib/libc.so.6".into(), ..Module::default() };
        names.learn(Names {
            modules: vec![(ModuleId(0), module)],
            frames: vec![(FrameId(0), Frame { offset: 64, ..Frame::default() })],
            ..Names::default()
        });
        labels.update(FrameId(0), &names);
        assert!(labels.of(FrameId(0)).is_some_and(|of| of.functions.is_empty()));
        let called = |labels: &Labels, of: &dyn Fn(&FrameLabels) -> SmallVec<[LabelId; 2]>| -> Vec<String> {
            let ids = labels.of(FrameId(0)).map(of).unwrap_or_default();
            ids.iter()
                .filter_map(|&id| labels.get(id))
                .map(|l| format!("{} {} {:?}", l.name, l.module, l.kind))
                .collect()
        };
        let tell = |names: &mut NameTable, labels: &mut Labels, news: Names| {
            names.learn(news).into_iter().for_each(|frame| labels.update(frame, names));
        };
        // First as what it begins with, then as what debug information calls it, then by its symbol.
        let at = |number| Some(Line { file: "/src/io.c".into(), number });
        let inlined = vec![Inlined { function: "check".into(), call: at(7) }];
        let detail = Detail { function: Some("io_read".into()), inlined, line: at(9) };
        let nameless = Symbol { function: "libc.so.6:fn@0x40".into(), nameless: true, ..Symbol::default() };
        let symbol = Symbol { function: "read".into(), ..Symbol::default() };
        tell(&mut names, &mut labels, Names { symbols: vec![(FrameId(0), nameless)], ..Names::default() });
        assert_eq!(called(&labels, &|of| of.functions.clone()), ["libc.so.6:fn@0x40 libc.so.6 User"]);
        assert_eq!(names.plain().collect::<Vec<_>>(), [FrameId(0)]);
        tell(&mut names, &mut labels, Names { details: vec![(FrameId(0), detail)], ..Names::default() });
        let inlined = "check libc.so.6 Inlined";
        assert_eq!(called(&labels, &|of| of.functions.clone()), ["io_read libc.so.6 User", inlined]);
        assert_eq!(names.plain().count(), 0);
        tell(&mut names, &mut labels, Names { symbols: vec![(FrameId(0), symbol)], ..Names::default() });
        assert_eq!(called(&labels, &|of| of.functions.clone()), ["read libc.so.6 User", inlined]);
        let nameless = Symbol { function: "libc.so.6:fn@0x40".into(), nameless: true, ..Symbol::default() };
        tell(&mut names, &mut labels, Names { symbols: vec![(FrameId(0), nameless)], ..Names::default() });
        assert_eq!(called(&labels, &|of| of.functions.clone()), ["read libc.so.6 User", inlined]);
        let lines = ["read io.c:7 libc.so.6 User", "check io.c:9 libc.so.6 Inlined"];
        assert_eq!(called(&labels, &|of| of.lines.clone()), lines);
    }
}
