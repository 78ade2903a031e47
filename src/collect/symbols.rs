//! Names for code addresses, found by a worker thread so that no tick and no frame ever waits for one.
//!
//! The worker owns blazesym for ELF files (through descriptors that the collector holds, so a deleted file still has its
//! names) and for the kernel; maps that JIT compilers write are read by [`super::perf_map`]. ELF symbols only: opening
//! debug information costs 100 ms and 20–30 MB a file. An address without a symbol gets no answer.

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Elf, Kernel, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer, evict};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::demangle::demangle;
use super::elf::has_bounded_symbols;
use super::mapped;
use super::perf_map::PerfMaps;
use super::sigbus;
use crate::tick::{FrameId, ModuleId, ProcessKey, Symbol};

/// Batches that may wait; what finds no room stays with the resolver.
const BATCHES: usize = 64;
/// Addresses between two looks at whether to stop, and at most this many behind one broken file.
const CHUNK: usize = 256;
/// How often maps of JIT code that lack a function are looked at again.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// Files whose symbol tables are kept; each costs up to 20 MB (rustc), most below 1 MB.
const MAX_FILES: usize = 64;

/// Where the code of a frame lies.
#[derive(Clone)]
pub enum Code {
    /// In a file; the frame's offset is a file offset.
    Elf(ModuleId, Arc<OwnedFd>),
    /// In the kernel or a module of it; the offset is the address.
    Kernel,
    /// Made at run time by that process, whose directory in procfs this is; the offset is the address.
    Jit(ProcessKey, Arc<OwnedFd>),
}

/// One name that is wanted.
#[derive(Clone)]
pub struct Want {
    /// For which frame.
    pub frame: FrameId,
    /// Where its code lies.
    pub code: Code,
    /// See [`Code`].
    pub offset: u64,
}

/// Names that were found.
pub type Found = Vec<(FrameId, Symbol)>;

/// What the worker has done so far.
#[derive(Debug, Default)]
pub struct SymbolStats {
    /// Addresses it looked at.
    pub asked: AtomicU64,
    /// Those that have a name.
    pub named: AtomicU64,
    /// Batches given up because a file made the parser fail or panic.
    pub broken: AtomicU64,
}

enum Message {
    Wants(Vec<Want>),
    KernelChanged,
}

/// The worker's other end. Dropping it stops the worker.
pub struct SymbolWorker {
    inbox: Option<Sender<Message>>,
    found: Receiver<Found>,
    stop: Arc<AtomicBool>,
    done: Receiver<()>,
    stats: Arc<SymbolStats>,
}

impl SymbolWorker {
    /// Starts the worker, at a low priority.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start() -> std::io::Result<Self> {
        let (inbox, messages) = bounded(BATCHES);
        let (results, found) = unbounded();
        let (finished, done) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stats = Arc::new(SymbolStats::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&stats));
        std::thread::Builder::new().name("sberf-symbols".into()).spawn(move || {
            // On a busy machine a thread of the lowest priority would have names ready in half a minute.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 4);
            // Without it a file that is cut while we read it ends us: rare, and no reason to show no names at all.
            let _ = sigbus::guard_this_thread();
            Worker::new(results, stopped, counted).run(&messages);
            let _ = finished.send(());
        })?;
        Ok(SymbolWorker { inbox: Some(inbox), found, stop, done, stats })
    }

    /// Hands over what is wanted, or gives it back when the worker is too busy.
    pub fn want(&self, wants: Vec<Want>) -> Result<(), Vec<Want>> {
        let Some(inbox) = &self.inbox else { return Ok(()) };
        match inbox.try_send(Message::Wants(wants)) {
            Err(TrySendError::Full(Message::Wants(wants))) => Err(wants),
            _ => Ok(()),
        }
    }

    /// A kernel module came or went: what is known of the kernel is void.
    pub fn kernel_changed(&self) {
        if let Some(inbox) = &self.inbox {
            let _ = inbox.try_send(Message::KernelChanged);
        }
    }

    /// Where names arrive.
    pub fn found(&self) -> &Receiver<Found> {
        &self.found
    }

    /// What the worker has done so far.
    pub fn stats(&self) -> &SymbolStats {
        &self.stats
    }
}

impl Drop for SymbolWorker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.inbox = None;
        // It may hang in a file system; then it ends with the process.
        let _ = self.done.recv_timeout(Duration::from_millis(200));
    }
}

/// Why functions of the kernel will have no names; `None` when they will.
pub fn kernel_symbols_off() -> Option<String> {
    let Ok(file) = File::open("/proc/kallsyms") else {
        return Some("no /proc/kallsyms: the kernel was built without CONFIG_KALLSYMS".into());
    };
    let mut lines = BufReader::new(file).lines().take(64).map_while(Result::ok);
    let shown =
        lines.any(|line| line.split(' ').next().is_some_and(|address| address.bytes().any(|digit| digit != b'0')));
    (!shown).then(|| {
        "kernel.kptr_restrict hides the addresses of kernel functions: run as root or with CAP_SYSLOG, or set it to 0".into()
    })
}

struct Worker {
    user: Symbolizer,
    kernel: Option<Symbolizer>,
    kernel_hidden: bool,
    jit: PerfMaps,
    /// Files whose symbols blazesym holds, least recently used first.
    files: VecDeque<(ModuleId, Arc<OwnedFd>)>,
    results: Sender<Found>,
    stop: Arc<AtomicBool>,
    stats: Arc<SymbolStats>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Group {
    Elf(ModuleId),
    Kernel,
    Jit(ProcessKey),
}

impl Worker {
    fn new(results: Sender<Found>, stop: Arc<AtomicBool>, stats: Arc<SymbolStats>) -> Self {
        let kernel_hidden = kernel_symbols_off().is_some();
        let (jit, files) = (PerfMaps::default(), VecDeque::new());
        Worker { user: symbolizer(), kernel: None, kernel_hidden, jit, files, results, stop, stats }
    }

    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            let first = match self.jit.is_waiting() {
                true => messages.recv_timeout(BETWEEN_LOOKS),
                false => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let first = match first {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.look_again();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut groups: FxHashMap<Group, Vec<Want>> = FxHashMap::default();
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::KernelChanged => self.kernel = None,
                    Message::Wants(wants) => wants.into_iter().for_each(|want| {
                        groups.entry(group(&want)).or_default().push(want);
                    }),
                }
            }
            for (group, wants) in groups {
                for chunk in wants.chunks(CHUNK) {
                    if self.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    self.answer(group, chunk);
                }
            }
            if messages.is_empty() {
                mapped::let_go();
            }
        }
    }

    /// A compiler may write its map long after the code ran first.
    fn look_again(&mut self) {
        let found = self.jit.look_again();
        self.stats.named.fetch_add(found.len() as u64, Ordering::Relaxed);
        if !found.is_empty() {
            let _ = self.results.send(found);
        }
    }

    fn answer(&mut self, group: Group, wants: &[Want]) {
        let found = catch_unwind(AssertUnwindSafe(|| self.look_up(group, wants)));
        let found = found.unwrap_or_else(|_| {
            // Nobody knows in what state the panic left it.
            self.reset();
            None
        });
        self.stats.asked.fetch_add(wants.len() as u64, Ordering::Relaxed);
        let Some(found) = found else {
            self.stats.broken.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.stats.named.fetch_add(found.len() as u64, Ordering::Relaxed);
        if !found.is_empty() {
            let _ = self.results.send(found);
        }
    }

    fn reset(&mut self) {
        self.user = symbolizer();
        self.kernel = None;
        self.files.clear();
    }

    fn look_up(&mut self, group: Group, wants: &[Want]) -> Option<Found> {
        match (group, wants.first().map(|want| &want.code)) {
            (Group::Elf(module), Some(Code::Elf(_, path))) => self.elf(module, &Arc::clone(path), wants),
            (Group::Jit(process), Some(Code::Jit(_, dir))) => {
                Some(self.jit.find(process, &Arc::clone(dir), wants.iter().map(|want| (want.frame, want.offset))))
            }
            (Group::Kernel, _) => self.kernel(wants),
            _ => None,
        }
    }

    fn elf(&mut self, module: ModuleId, path: &Arc<OwnedFd>, wants: &[Want]) -> Option<Found> {
        let path = self.hold(module, path)?;
        let mut elf = Elf::new(file_path(&path));
        elf.debug_syms = false;
        let offsets: Vec<u64> = wants.iter().map(|want| want.offset).collect();
        let symbols = self.user.symbolize(&Source::Elf(elf), Input::FileOffset(&offsets));
        Some(named(wants, symbols.ok()?))
    }

    /// Keeps the file among those whose symbols are kept, and lets go of the one not used for longest. `None` for a file
    /// that nobody should try to read.
    fn hold(&mut self, module: ModuleId, path: &Arc<OwnedFd>) -> Option<Arc<OwnedFd>> {
        let held = self.files.iter().position(|(at, _)| *at == module).and_then(|at| self.files.remove(at));
        let (_, path) = match held {
            Some(held) => held,
            None if has_bounded_symbols(&File::open(file_path(path)).ok()?) => (module, Arc::clone(path)),
            None => return None,
        };
        self.files.push_back((module, Arc::clone(&path)));
        if self.files.len() > MAX_FILES
            && let Some((_, old)) = self.files.pop_front()
        {
            let _ = self.user.evict(&evict::Evict::Elf(evict::Elf::new(file_path(&old))));
        }
        Some(path)
    }

    fn kernel(&mut self, wants: &[Want]) -> Option<Found> {
        if self.kernel_hidden {
            return Some(Found::new());
        }
        let addresses: Vec<u64> = wants.iter().map(|want| want.offset).collect();
        let symbolizer = self.kernel.get_or_insert_with(symbolizer);
        // A vmlinux would need the offset of KASLR, which is in /proc/kcore; kallsyms has all functions.
        let kernel = Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() };
        let symbols = symbolizer.symbolize(&Source::Kernel(kernel), Input::AbsAddr(&addresses));
        Some(named(wants, symbols.ok()?))
    }
}

fn group(want: &Want) -> Group {
    match &want.code {
        Code::Elf(module, _) => Group::Elf(*module),
        Code::Kernel => Group::Kernel,
        Code::Jit(process, _) => Group::Jit(*process),
    }
}

fn file_path(path: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", path.as_raw_fd()))
}

/// Names are demangled here and not by blazesym, whose result has no bound.
fn symbolizer() -> Symbolizer {
    Symbolizer::builder().enable_demangling(false).enable_code_info(false).enable_inlined_fns(false).build()
}

fn named(wants: &[Want], symbols: Vec<Symbolized<'_>>) -> Found {
    let pairs = wants.iter().zip(symbols);
    pairs
        .filter_map(|(want, symbol)| {
            let symbol = symbol.into_sym()?;
            let function = demangle(&symbol.name);
            Some((want.frame, Symbol { function, offset: symbol.offset as u64, nameless: false }))
        })
        .collect()
}
