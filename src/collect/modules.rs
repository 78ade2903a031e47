//! Turns the addresses of a drained stack into interned frames, (module, file offset), while the process still lives.
//!
//! Every frame of the user part but the innermost is a return address, which may already belong to the next function.
//! So the frame that is interned is the byte before it: its offset lies within the call, and so does its symbol's.
//!
//! Whether a stack reached its thread's first function is decided here by where its outermost frame lies, see
//! [`super::elf`]; frames that a walk found beyond such a function are cut off.

use crossbeam_channel::Receiver;
use rustc_hash::{FxHashMap, FxHashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::elf::Root;
use super::files::Files;
use super::intern::Interner;
use super::kernel::{KernelModules, vdso};
use super::spaces::{Nowhere, Parts, Place, Space, Spaces, Why};
use super::symbols::{Code, Found, SymbolWorker, Want};
use crate::tick::{FrameId, FrameKind, Module, ModuleId, ModuleKind, Names, ProcessKey, StackEnd, StackId, Symbol};

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
    /// The module of each process's anonymous code.
    jit: FxHashMap<ProcessKey, ModuleId>,
    located: Vec<Located>,
    frames: Vec<FrameId>,
    unjudged: Vec<Unjudged>,
    /// Frames whose name was sent because they are a thread's first function.
    roots: FxHashSet<FrameId>,
    unasked: u64,
}

/// A stack whose files were not read yet when it came.
struct Unjudged {
    id: StackId,
    process: ProcessKey,
    /// The user part, then the kernel part, each leaf first.
    ips: Box<[u64]>,
    users: usize,
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

/// One user address, found.
#[derive(Clone, Copy)]
struct Located {
    frame: FrameId,
    /// In a thread's first function.
    root: bool,
    /// Not where code is.
    stray: bool,
    /// Whether it is a first function is not known yet.
    pending: bool,
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
            jit: FxHashMap::default(),
            located: Vec::new(),
            frames: Vec::new(),
            unjudged: Vec::new(),
            roots: FxHashSet::default(),
            unasked: 0,
        }
    }

    /// Interns a stack drained from the kernel. Both parts are leaf first, as `bpf_get_stack` gives them, zeroes at
    /// their end allowed. `user_error` is a negative errno when the user part could not be taken, 0 when it could or there
    /// is none; `truncated` says that the walk met its limit of depth.
    ///
    /// Where it ends may not be known at once (a file is read by another thread): then it is sent as broken, and again
    /// under the same id when it proves complete.
    pub fn stack(
        &mut self,
        process: ProcessKey,
        user_ips: &[u64],
        kernel_ips: &[u64],
        user_error: i32,
        truncated: bool,
        names: &mut Names,
    ) -> StackId {
        let end = self.take(process, user_ips, kernel_ips, user_error, truncated, names);
        let id = self.interner.stack(&self.frames, end, names);
        if end != StackEnd::Complete
            && self.located.iter().any(|located| located.pending)
            && self.unjudged.len() < MAX_UNJUDGED
        {
            let ips = user_ips.iter().chain(kernel_ips).copied().collect();
            self.unjudged.push(Unjudged { id, process, ips, users: user_ips.len() });
        }
        id
    }

    /// Finds the frames of a stack, root first, and why its user part ends.
    fn take(
        &mut self,
        process: ProcessKey,
        user_ips: &[u64],
        kernel_ips: &[u64],
        user_error: i32,
        truncated: bool,
        names: &mut Names,
    ) -> StackEnd {
        self.locate(process, user_ips, names);
        let end = self.judge(user_error, truncated);
        self.frames.clear();
        self.frames.extend(self.located.iter().rev().map(|located| located.frame));
        let depth = kernel_ips.iter().position(|&ip| ip == 0).unwrap_or(kernel_ips.len());
        for (depth, &ip) in kernel_ips[..depth].iter().enumerate().rev() {
            let frame = self.kernel_frame(if depth == 0 { ip } else { ip - 1 }, names);
            self.frames.push(frame);
        }
        end
    }

    /// Looks again at the stacks whose end was not known, now that files have been read.
    fn judge_again(&mut self, names: &mut Names) {
        for unjudged in std::mem::take(&mut self.unjudged) {
            let (user_ips, kernel_ips) = unjudged.ips.split_at(unjudged.users);
            let end = self.take(unjudged.process, user_ips, kernel_ips, 0, false, names);
            if end == StackEnd::Complete {
                self.interner.replace(unjudged.id, &self.frames, end, names);
            } else if self.located.iter().any(|located| located.pending) {
                self.unjudged.push(unjudged);
            }
        }
    }

    /// A stack of one note, `[stack not taken]` or `[unrecorded]`.
    pub fn note(&mut self, text: &'static str, names: &mut Names) -> StackId {
        let module = self.fixed.get(text, ModuleKind::Note, &mut self.interner, names);
        let (frame, new) = self.interner.frame(module, 0, FrameKind::Note, names);
        if new {
            names.symbols.push((frame, Symbol { function: text.to_owned(), ..Symbol::default() }));
        }
        self.interner.stack(&[frame], StackEnd::NotTaken, names)
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
        self.symbols.found().try_iter().for_each(|found| names.symbols.extend(found));
    }

    /// Becomes ready when there are names to take with [`Resolver::found`]; what is received from it directly belongs
    /// into [`Names::symbols`].
    pub fn results(&self) -> &Receiver<Found> {
        self.symbols.found()
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

    /// Frames whose names could not be asked for, since the last call: more came at once than is kept waiting.
    pub fn take_unasked(&mut self) -> u64 {
        std::mem::take(&mut self.unasked)
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

    fn locate(&mut self, process: ProcessKey, user_ips: &[u64], names: &mut Names) {
        self.located.clear();
        if user_ips.is_empty() {
            return;
        }
        let now = Instant::now();
        let Resolver { interner, spaces, files, fixed, pending, jit, located, roots, .. } = self;
        let space = spaces.get(process, now);
        let mut finder = Finder { process, interner, files, fixed, pending, jit, roots, names };
        for (depth, &ip) in user_ips.iter().take_while(|&&ip| ip != 0).enumerate() {
            let address = if depth == 0 { ip } else { ip - 1 };
            located.push(match space.at(address, now) {
                Ok(index) => finder.code(space, index, address),
                Err(Nowhere::NotCode) => Located { stray: true, ..finder.nameless("[unmapped]", address) },
                Err(Nowhere::Unknown(Why::Gone)) => finder.nameless("[exited]", address),
                Err(Nowhere::Unknown(Why::Denied)) => finder.nameless("[no access]", address),
            });
        }
    }

    /// Cuts what cannot be, and says why the user part ends where it now does.
    fn judge(&mut self, user_error: i32, truncated: bool) -> StackEnd {
        if self.located.is_empty() {
            return if user_error < 0 { StackEnd::Unreadable(-user_error) } else { StackEnd::KernelOnly };
        }
        if let Some(root) = self.located.iter().rposition(|located| located.root) {
            // Nothing calls a thread's first function: a walk that went on followed a register that was no frame pointer.
            self.located.truncate(root + 1);
            return StackEnd::Complete;
        }
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
    fn nameless(&mut self, module: &'static str, address: u64) -> Located {
        let module = self.fixed.get(module, ModuleKind::Anonymous, self.interner, self.names);
        let (frame, _) = self.interner.frame(module, address, FrameKind::User, self.names);
        Located { frame, root: false, stray: false, pending: false }
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
                Located { frame, root: false, stray: false, pending: false }
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
                Place::File(self.files.find(dir.map(Arc::as_ref), mapping, is_program, self.interner, self.names))
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
            self.pending.push(Want { frame, code: Code::Elf(module, Arc::clone(image)), offset });
        }
        Located { frame, root: false, stray: false, pending: false }
    }

    fn jit(&mut self, module: ModuleId, address: u64, dir: Option<&Arc<OwnedFd>>) -> Located {
        let (frame, new) = self.interner.frame(module, address, FrameKind::Jit, self.names);
        if new && let Some(dir) = dir {
            self.pending.push(Want { frame, code: Code::Jit(self.process, Arc::clone(dir)), offset: address });
        }
        Located { frame, root: false, stray: false, pending: false }
    }

    fn file(&mut self, index: usize, offset: u64) -> Located {
        let Some(file) = self.files.get(index) else { return self.nameless("[exited]", offset) };
        let (module, path) = (file.module, &file.path);
        let (frame, new) = self.interner.frame(module, offset, FrameKind::User, self.names);
        if new && let Some(path) = path {
            self.pending.push(Want { frame, code: Code::Elf(module, Arc::clone(path)), offset });
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
        Located { frame, root: root.is_some(), stray: false, pending }
    }
}

/// Shared memory that compilers map twice to write code into; files that hold ELF code are called otherwise.
fn is_code_cache(path: &str) -> bool {
    let names = ["/memfd:doublemapper", "/memfd:jit", "/memfd:JIT", "/dev/zero", "/SYSV", "/dev/shm/", "/[aio]"];
    names.iter().any(|name| path.starts_with(name)) || path.starts_with("/memfd:") && path.contains("jit")
}
