//! Turns the addresses of a drained stack into interned frames, (module, file offset), while the process still lives.
//!
//! Every frame of the user part but the innermost is a return address, which may already belong to the next function.
//! So the frame that is interned is the byte before it: its offset lies within the call, and so does its symbol's.
//!
//! Whether a stack reached its thread's first function is decided here by where its outermost frame lies, see
//! [`super::elf`]; frames that a walk found beyond such a function are cut off.

use rustc_hash::{FxHashMap, FxHashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::files::{self, FileKey, Files};
use super::intern::Interner;
use super::kernel::{KernelModules, vdso};
use super::mappings::Mapping;
use super::outermost::Root;
use super::spaces::{Nowhere, Parts, Place, Space, Spaces, Why};
use super::symbols::{Code, CodeFile, SymbolWorker, Want, WantDetail};
use super::taken::{Tag, Taken, Walked, Where, Word, end_of};
use super::unwind::Stop;
use crate::tick::{
    Detail, FoundBy, Frame, FrameId, FrameKind, Module, ModuleId, ModuleKind, Names, ProcessKey, StackEnd, StackId,
    Symbol, Walk,
};

/// Names that wait to be asked for, at most; a machine that shows more new code than this in one tick shows addresses.
const MAX_PENDING: usize = 200_000;
/// Stacks that wait for a file to be read, at most; others stay broken.
const MAX_UNJUDGED: usize = 4096;

/// Makes [`Names`] of what the kernel hands over. Lives on the collector's thread and waits for nobody.
pub struct Resolver {
    interner: Interner,
    spaces: Spaces,
    files: Files,
    fixed: Fixed,
    kernel: KernelModules,
    symbols: SymbolWorker,
    pending: Vec<Want>,
    pending_details: Vec<WantDetail>,
    /// The module of each process's anonymous code.
    jit: FxHashMap<ProcessKey, ModuleId>,
    located: Vec<Located>,
    frames: Vec<FrameId>,
    unjudged: Vec<Unjudged>,
    /// What has a table, as the kernel side names it.
    tabled: FxHashMap<Tag, Tabled>,
    /// Frames whose name was sent because they are a thread's first function.
    roots: FxHashSet<FrameId>,
    unasked: u64,
}

/// A stack whose files were not read yet when it came.
struct Unjudged {
    id: StackId,
    process: ProcessKey,
    /// The user part, then the kernel part, each leaf first.
    words: Box<[u64]>,
    users: usize,
    walked: Walked,
    image: u64,
}

impl Unjudged {
    fn taken(&self) -> Taken<'_> {
        let (user, kernel) = self.words.split_at(self.users.min(self.words.len()));
        Taken { user, kernel, walked: self.walked, image: self.image }
    }
}

/// A mapped file that has a table, open, and how one process has it mapped.
#[derive(Debug)]
pub struct TabledFile {
    /// The file itself.
    pub opened: (FileKey, OwnedFd),
    /// A mapping of it.
    pub mapping: Mapping,
    /// It is what that process executes.
    pub is_program: bool,
    /// The directory of that process in procfs.
    pub process: Arc<OwnedFd>,
}

/// What has a table.
enum Tabled {
    /// A file, by its index.
    File(usize),
    /// The kernel's page.
    Vdso(ModuleId),
}

/// Modules that are not files, made when first needed.
#[derive(Default)]
struct Fixed {
    modules: FxHashMap<&'static str, ModuleId>,
    vdso: Option<Arc<OwnedFd>>,
}

impl Fixed {
    fn get(&mut self, path: &'static str, kind: ModuleKind, interner: &mut Interner, names: &mut Names) -> ModuleId {
        let module = || interner.module(Module { path: path.into(), kind, build_id: None }, names);
        *self.modules.entry(path).or_insert_with(module)
    }
}

/// One user frame, found.
#[derive(Clone, Copy)]
struct Located {
    frame: FrameId,
    found: FoundBy,
    /// In a thread's first function.
    root: bool,
    /// Not where code is.
    stray: bool,
    /// Whether it is a first function is not known yet.
    pending: bool,
}

impl Located {
    fn new(frame: FrameId) -> Self {
        Located { frame, found: FoundBy::Registers, root: false, stray: false, pending: false }
    }
}

impl Resolver {
    /// One that has names looked up by `symbols`.
    pub fn new(symbols: SymbolWorker) -> Self {
        Resolver {
            interner: Interner::default(),
            spaces: Spaces::new(),
            files: Files::new(),
            fixed: Fixed { vdso: vdso().map(Arc::new), ..Fixed::default() },
            kernel: KernelModules::default(),
            symbols,
            pending: Vec::new(),
            pending_details: Vec::new(),
            jit: FxHashMap::default(),
            located: Vec::new(),
            frames: Vec::new(),
            unjudged: Vec::new(),
            tabled: FxHashMap::default(),
            roots: FxHashSet::default(),
            unasked: 0,
        }
    }

    /// Interns a stack drained from the kernel.
    ///
    /// Where it ends may not be known at once (a file is read by another thread): then it is sent as broken, and again
    /// under the same id when it proves complete.
    pub fn stack(&mut self, process: ProcessKey, taken: Taken<'_>, names: &mut Names) -> StackId {
        let (end, walk) = self.take(process, taken, names);
        let id = self.interner.stack(&self.frames, end, walk, names);
        if end != StackEnd::Complete
            && self.located.iter().any(|located| located.pending)
            && self.unjudged.len() < MAX_UNJUDGED
        {
            let words = taken.user.iter().chain(taken.kernel).copied().collect();
            let Taken { walked, image, .. } = taken;
            self.unjudged.push(Unjudged { id, process, words, users: taken.user.len(), walked, image });
        }
        id
    }

    /// Interns a stack that is not whole and going to be completed.
    pub fn provisional(&mut self, process: ProcessKey, taken: Taken<'_>, names: &mut Names) -> StackId {
        let (end, walk) = self.take(process, taken, names);
        self.interner.provisional(&self.frames, end, walk, names)
    }

    /// What that stack really is.
    pub fn complete(&mut self, id: StackId, process: ProcessKey, taken: Taken<'_>, names: &mut Names) {
        let (end, walk) = self.take(process, taken, names);
        self.interner.replace(id, &self.frames, end, walk, names);
    }

    /// Finds the frames of a stack, root first, why its user part ends, and how that was walked.
    fn take(&mut self, process: ProcessKey, taken: Taken<'_>, names: &mut Names) -> (StackEnd, Walk) {
        self.locate(process, taken, names);
        let end = self.judge(taken.walked);
        let walk = match taken.walked {
            Walked::FramePointers { .. } => Walk::FramePointers,
            Walked::Tables(_) => Walk::of(self.located.iter().rev().map(|located| located.found)),
        };
        self.frames.clear();
        self.frames.extend(self.located.iter().rev().map(|located| located.frame));
        let depth = taken.kernel.iter().position(|&ip| ip == 0).unwrap_or(taken.kernel.len());
        for (depth, &ip) in taken.kernel[..depth].iter().enumerate().rev() {
            let frame = self.kernel_frame(if depth == 0 { ip } else { ip - 1 }, names);
            self.frames.push(frame);
        }
        (end, walk)
    }

    /// Looks again at the stacks whose end was not known, now that files have been read.
    fn judge_again(&mut self, names: &mut Names) {
        for unjudged in std::mem::take(&mut self.unjudged) {
            let (end, walk) = self.take(unjudged.process, unjudged.taken(), names);
            if end == StackEnd::Complete {
                self.interner.replace(unjudged.id, &self.frames, end, walk, names);
            } else if self.located.iter().any(|located| located.pending) {
                self.unjudged.push(unjudged);
            }
        }
    }

    /// A file has a table, and frames in it are told by this tag from now on.
    pub fn tabled_file(&mut self, tag: Tag, file: TabledFile, names: &mut Names) {
        let TabledFile { opened, mapping, is_program, process } = file;
        let index = self.files.find_opened(Some(opened), &mapping, is_program, &mut self.interner, names);
        self.files.see(index, &process, &mapping);
        self.tabled.insert(tag, Tabled::File(index));
    }

    /// The vDSO has one.
    pub fn tabled_vdso(&mut self, tag: Tag, names: &mut Names) {
        let module = self.fixed.get("[vdso]", ModuleKind::Vdso, &mut self.interner, names);
        self.tabled.insert(tag, Tabled::Vdso(module));
    }

    /// A stack of one note, `[stack not taken]` or `[unrecorded]`.
    pub fn note(&mut self, text: &'static str, names: &mut Names) -> StackId {
        let module = self.fixed.get(text, ModuleKind::Note, &mut self.interner, names);
        let (frame, new) = self.interner.frame(module, 0, FrameKind::Note, names);
        if new {
            names.symbols.push((frame, Symbol { function: text.to_owned(), ..Symbol::default() }));
        }
        self.interner.stack(&[frame], StackEnd::NotTaken, Walk::default(), names)
    }

    /// Asks for the names of all new frames, and takes those that arrived. To be called after each drain, and when
    /// [`Resolver::results`] is ready. Never waits.
    pub fn found(&mut self, names: &mut Names) {
        self.files.rest();
        if self.files.poll() {
            self.judge_again(names);
        }
        for key in self.spaces.expire(Instant::now()) {
            self.jit.remove(&key);
        }
        if !self.pending.is_empty()
            && let Err(back) = self.symbols.want(std::mem::take(&mut self.pending))
        {
            self.pending = back;
            let excess = self.pending.len().saturating_sub(MAX_PENDING);
            self.unasked += excess as u64;
            self.pending.truncate(MAX_PENDING);
        }
        if !self.pending_details.is_empty()
            && let Err(back) = self.symbols.want_details(std::mem::take(&mut self.pending_details))
        {
            self.pending_details = back;
            self.pending_details.truncate(MAX_PENDING);
        }
        for found in self.symbols.found().try_iter() {
            names.symbols.extend(found.symbols);
            names.details.extend(found.details);
        }
    }

    /// Has lines and inlined functions of frames found. Where there is no file to look into, that is told at once.
    pub fn detail(&mut self, frames: Vec<(FrameId, Frame)>, names: &mut Names) {
        for (id, frame) in frames {
            match self.files.of_module(frame.module).and_then(code_file) {
                Some(file) => self.pending_details.push(WantDetail { frame: id, file, offset: frame.offset }),
                None => names.details.push((id, Detail::default())),
            }
        }
    }

    /// A process exited. What is known of it stays a little: samples of it may still be drained.
    pub fn forget(&mut self, process: ProcessKey) {
        self.spaces.exited(process, Instant::now());
    }

    /// A process became another program: what was mapped is void.
    pub fn exec(&mut self, process: ProcessKey) {
        self.spaces.exec(process);
        self.jit.remove(&process);
    }

    /// A process was made: until it becomes another program, what its parent has mapped is mapped in it, too. Helps when it
    /// is gone before we could look.
    pub fn fork(&mut self, child: ProcessKey, parent: u32) {
        self.spaces.fork(child, parent);
    }

    /// Frames whose names could not be asked for, since the last call: more came at once than is kept waiting. And what found no id.
    pub fn take_unasked(&mut self) -> u64 {
        std::mem::take(&mut self.unasked) + self.interner.take_nameless()
    }

    /// What the worker has done.
    pub fn symbols(&self) -> &SymbolWorker {
        &self.symbols
    }

    /// Waits for no file from now on.
    #[cfg(test)]
    pub fn be_impatient(&mut self) {
        self.files.be_impatient();
    }

    /// Whether no stack waits for a file to be read.
    #[cfg(test)]
    pub fn has_judged_all(&self) -> bool {
        self.unjudged.is_empty()
    }

    fn locate(&mut self, process: ProcessKey, taken: Taken<'_>, names: &mut Names) {
        self.located.clear();
        if taken.user.is_empty() {
            return;
        }
        let now = Instant::now();
        let Resolver { interner, spaces, files, fixed, pending, jit, located, roots, tabled, .. } = self;
        let mut finder = Finder { process, interner, files, fixed, pending, jit, roots, names };
        let by_tables = matches!(taken.walked, Walked::Tables(_));
        for (depth, &word) in taken.user.iter().take_while(|&&word| word != 0).enumerate() {
            let (at, found) = match by_tables {
                true => (Word(word).at(), Word(word).found()),
                false if depth == 0 => (Where::Address(word), FoundBy::Registers),
                false => (Where::Address(word - 1), FoundBy::FramePointer),
            };
            let place = match at {
                Where::Address(address) => finder.address(spaces, address, taken.image, now),
                Where::File { tag, offset } => finder.tabled(tabled.get(&tag), offset),
            };
            located.push(Located { found, ..place });
        }
    }

    /// Cuts what cannot be, and says why the user part ends where it now does.
    fn judge(&mut self, walked: Walked) -> StackEnd {
        if self.located.is_empty() {
            return match walked {
                Walked::FramePointers { error, .. } if error < 0 => StackEnd::Unreadable(-error),
                Walked::FramePointers { .. } => StackEnd::KernelOnly,
                Walked::Tables(stop) => end_of(stop),
            };
        }
        if walked == Walked::Tables(Stop::End) {
            return StackEnd::Complete;
        }
        if let Some(root) = self.located.iter().rposition(|located| located.root) {
            // Nothing calls a thread's first function: a walk that went on followed a register that was no frame pointer.
            self.located.truncate(root + 1);
            return StackEnd::Complete;
        }
        let truncated = match walked {
            // Each frame was looked at when it was found; what is mapped there by now says nothing.
            Walked::Tables(stop) => return end_of(stop),
            Walked::FramePointers { truncated, .. } => truncated,
        };
        // A "return address" where no code is: from there on the walk followed something else. The leaf was no guess.
        let sound = self.located.iter().skip(1).position(|located| located.stray).map(|at| at + 1);
        self.located.truncate(sound.unwrap_or(usize::MAX));
        if truncated && sound.is_none() { StackEnd::Truncated } else { StackEnd::Broken }
    }

    fn kernel_frame(&mut self, address: u64, names: &mut Names) -> FrameId {
        let Resolver { kernel, interner, symbols, .. } = self;
        let (module, changed) = kernel.module_of(address, interner, names);
        if changed {
            symbols.kernel_changed();
        }
        let (frame, new) = interner.frame(module, address, FrameKind::Kernel, names);
        if new {
            self.pending.push(Want { frame, code: Code::Kernel, offset: address });
        }
        frame
    }
}

/// What finding the addresses of one stack needs.
struct Finder<'a> {
    process: ProcessKey,
    interner: &'a mut Interner,
    files: &'a mut Files,
    fixed: &'a mut Fixed,
    pending: &'a mut Vec<Want>,
    jit: &'a mut FxHashMap<ProcessKey, ModuleId>,
    roots: &'a mut FxHashSet<FrameId>,
    names: &'a mut Names,
}

impl Finder<'_> {
    fn address(&mut self, spaces: &mut Spaces, address: u64, image: u64, now: Instant) -> Located {
        let space = spaces.get(self.process, now);
        match space.at(address, image, now) {
            Ok(index) => self.code(space, index, address),
            Err(Nowhere::NotCode) => Located { stray: true, ..self.nameless("[unmapped]", address) },
            Err(Nowhere::Unknown(Why::Gone)) => self.nameless("[exited]", address),
            Err(Nowhere::Unknown(Why::Denied)) => self.nameless("[no access]", address),
        }
    }

    fn tabled(&mut self, tabled: Option<&Tabled>, offset: u64) -> Located {
        match tabled {
            Some(&Tabled::File(file)) => self.file(file, offset),
            Some(&Tabled::Vdso(module)) => self.vdso(module, offset, true),
            None => self.nameless("[unloaded]", offset),
        }
    }

    fn nameless(&mut self, module: &'static str, address: u64) -> Located {
        let module = self.fixed.get(module, ModuleKind::Anonymous, self.interner, self.names);
        let (frame, _) = self.interner.frame(module, address, FrameKind::User, self.names);
        Located::new(frame)
    }

    fn code(&mut self, space: &mut Space, index: usize, address: u64) -> Located {
        let Some(place) = self.place(space, index) else { return self.nameless("[exited]", address) };
        let Some(Parts { dir, known, .. }) = space.parts(index) else { return self.nameless("[exited]", address) };
        let mapping = &known.mapping;
        let into = address.saturating_sub(mapping.start);
        match place {
            Place::File(file) => self.file(file, mapping.offset.wrapping_add(into)),
            Place::Vdso(module, named) => self.vdso(module, into, named),
            Place::Jit(module) => self.jit(module, address, dir),
            Place::Nameless(module) => {
                let (frame, _) = self.interner.frame(module, address, FrameKind::User, self.names);
                Located::new(frame)
            }
        }
    }

    /// What the mapping holds. A file that we had to let go is opened again.
    fn place(&mut self, space: &mut Space, index: usize) -> Option<Place> {
        let Parts { dir, program, known } = space.parts(index)?;
        if let Some(place) = known.place {
            if let (Place::File(file), Some(dir)) = (place, dir) {
                self.files.reopen(file, dir, &known.mapping);
            }
            return Some(place);
        }
        let mapping = &known.mapping;
        let place = match mapping.path.as_str() {
            // That of 32-bit programs is another image.
            "[vdso]" if mapping.start >> 32 == 0 => Place::Vdso(self.fixed("[vdso32]", ModuleKind::Vdso), false),
            "[vdso]" => Place::Vdso(self.fixed("[vdso]", ModuleKind::Vdso), true),
            "[vsyscall]" => Place::Nameless(self.fixed("[vsyscall]", ModuleKind::Vdso)),
            path if mapping.inode == 0 || is_code_cache(path) => Place::Jit(self.anonymous()),
            path => {
                let is_program = program == Some(path);
                Place::File(self.files.find(dir, mapping, is_program, self.interner, self.names))
            }
        };
        known.place = Some(place);
        Some(place)
    }

    fn fixed(&mut self, path: &'static str, kind: ModuleKind) -> ModuleId {
        self.fixed.get(path, kind, self.interner, self.names)
    }

    /// The module of the code that the process made at run time.
    fn anonymous(&mut self) -> ModuleId {
        let module = || Module { path: "[anon]".into(), kind: ModuleKind::Anonymous, build_id: None };
        *self.jit.entry(self.process).or_insert_with(|| self.interner.module(module(), self.names))
    }

    fn vdso(&mut self, module: ModuleId, offset: u64, named: bool) -> Located {
        let (frame, new) = self.interner.frame(module, offset, FrameKind::User, self.names);
        if new
            && named
            && let Some(image) = &self.fixed.vdso
        {
            let (file, path) = (Arc::clone(image), Arc::from("[vdso]"));
            let code = Code::Elf(CodeFile { module, file, path, process: None });
            self.pending.push(Want { frame, code, offset });
        }
        Located::new(frame)
    }

    fn jit(&mut self, module: ModuleId, address: u64, dir: Option<&Arc<OwnedFd>>) -> Located {
        let (frame, new) = self.interner.frame(module, address, FrameKind::Jit, self.names);
        if new && let Some(dir) = dir {
            self.pending.push(Want { frame, code: Code::Jit(self.process, Arc::clone(dir)), offset: address });
        }
        Located::new(frame)
    }

    fn file(&mut self, index: usize, offset: u64) -> Located {
        let Some(file) = self.files.get(index) else { return self.nameless("[exited]", offset) };
        let (frame, new) = self.interner.frame(file.module, offset, FrameKind::User, self.names);
        if new && let Some(file) = code_file(file) {
            self.pending.push(Want { frame, code: Code::Elf(file), offset });
        }
        self.files.touch(index);
        let pending = self.files.is_pending(index);
        let root = self.files.root(index, offset);
        if let Some(Root { range, name: Some(name) }) = root
            && self.roots.insert(frame)
        {
            // A stripped C library does not name it; where it is named, the worker's answer replaces this one.
            let symbol = Symbol { function: (*name).into(), offset: offset - range.start, ..Symbol::default() };
            self.names.symbols.push((frame, symbol));
        }
        Located { root: root.is_some(), pending, ..Located::new(frame) }
    }
}

fn code_file(file: &files::CodeFile) -> Option<CodeFile> {
    let (path, process) = file.seen.clone();
    Some(CodeFile { module: file.module, file: Arc::clone(file.path.as_ref()?), path, process })
}

/// Shared memory that compilers map twice to write code into; files that hold ELF code are called otherwise.
fn is_code_cache(path: &str) -> bool {
    let names = ["/memfd:doublemapper", "/memfd:jit", "/memfd:JIT", "/dev/zero", "/SYSV", "/dev/shm/", "/[aio]"];
    names.iter().any(|name| path.starts_with(name)) || path.starts_with("/memfd:") && path.contains("jit")
}
