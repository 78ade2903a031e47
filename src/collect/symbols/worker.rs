//! The thread that finds what functions are called.

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolizer};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::file::FileNames;
use super::{
    Code, CodeFile, Found, JIT_BYTES, KernelNames, Message, NAMES_BYTES, SymbolStats, Want, kernel_symbols_off,
};
use crate::collect::demangle::demangle;
use crate::collect::perf_map::PerfMaps;
use crate::tick::{ModuleId, Names, ProcessKey, Symbol};

/// Addresses between two looks at whether to stop.
const CHUNK: usize = 256;
/// How often maps of JIT code that lack a function are looked at again.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// How often the kernel's list, where it is that, is read again because BPF programs may have come; a reading takes some 50 ms.
const BETWEEN_READS: Duration = Duration::from_secs(10);
/// While programs are met at ever other addresses, less and less often, and no less often than this.
const BETWEEN_READS_LATER: Duration = Duration::from_secs(80);
/// What blazesym keeps of the kernel's list, which it does not tell: resident memory grows by 7.5 MB for 122 000 functions.
const KERNEL_BYTES: usize = 8 << 20;
/// Addresses of BPF programs that wait for that.
const MAX_WAITING: usize = 4096;

/// What it keeps.
pub struct NameWorker {
    /// Answers for itself.
    asked: Option<Box<dyn KernelNames>>,
    /// Else its list is read.
    kernel: Option<(Symbolizer, Instant)>,
    kernel_hidden: bool,
    /// How old the kernel's list may be before it is read again.
    between_reads: Duration,
    /// Addresses that are, or may be, of BPF programs: those come and go, so they wait for a newer list.
    later: Vec<Want>,
    jit: PerfMaps,
    /// Files whose symbols were read, least recently used first; `None` for what is no ELF file.
    files: VecDeque<(ModuleId, Option<FileNames>)>,
    files_bytes: usize,
    /// Memory of files and of the kernel, at most; of compilers' maps, at most.
    limits: (usize, usize),
    results: Sender<Names>,
    stop: Arc<AtomicBool>,
    stats: Arc<SymbolStats>,
}

/// What is looked up together. What is gone soonest comes first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    Jit(ProcessKey),
    Kernel,
    Elf(ModuleId),
}

impl NameWorker {
    /// Knows nothing yet.
    pub fn new(
        asked: Option<Box<dyn KernelNames>>,
        results: Sender<Names>,
        stop: Arc<AtomicBool>,
        stats: Arc<SymbolStats>,
    ) -> Self {
        NameWorker {
            asked,
            kernel: None,
            kernel_hidden: kernel_symbols_off().is_some(),
            between_reads: BETWEEN_READS,
            later: Vec::new(),
            jit: PerfMaps::default(),
            files: VecDeque::new(),
            files_bytes: 0,
            limits: (NAMES_BYTES, JIT_BYTES),
            results,
            stop,
            stats,
        }
    }

    /// Answers until nobody asks any more.
    pub fn run(&mut self, messages: &Receiver<Message>) {
        let mut looked = Instant::now();
        loop {
            let waits = self.jit.is_waiting() || !self.later.is_empty();
            let first = match waits {
                true => messages.recv_timeout(BETWEEN_LOOKS.saturating_sub(looked.elapsed())),
                false => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match first {
                Ok(first) => self.take(std::iter::once(first).chain(messages.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // On a busy machine there is always another message.
            if waits && looked.elapsed() >= BETWEEN_LOOKS {
                self.look_again();
                looked = Instant::now();
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.stay_bounded();
        }
    }

    fn take(&mut self, messages: impl Iterator<Item = Message>) {
        let mut groups: FxHashMap<Group, Vec<Want>> = FxHashMap::default();
        for message in messages {
            match message {
                Message::KernelChanged => self.kernel = None,
                Message::Wants(wants) => wants.into_iter().for_each(|want| {
                    groups.entry(group(&want)).or_default().push(want);
                }),
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(group, _)| *group);
        for (group, wants) in groups {
            for chunk in wants.chunks(CHUNK) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                self.answer(group, chunk);
            }
        }
    }

    /// A compiler may write its map long after the code ran first, and the kernel's list may be read again.
    fn look_again(&mut self) {
        let found = self.jit.look_again();
        self.send(found);
        let is_old = self.kernel.as_ref().is_none_or(|(_, read)| read.elapsed() >= self.between_reads);
        if is_old && !self.later.is_empty() {
            self.between_reads = match &self.kernel {
                // Nobody asked for long.
                Some((_, read)) if read.elapsed() >= 2 * self.between_reads => BETWEEN_READS,
                _ => (2 * self.between_reads).min(BETWEEN_READS_LATER),
            };
            let later = std::mem::take(&mut self.later);
            self.kernel = None;
            later.chunks(CHUNK).for_each(|chunk| self.answer(Group::Kernel, chunk));
        }
    }

    fn answer(&mut self, group: Group, wants: &[Want]) {
        let found = catch_unwind(AssertUnwindSafe(|| self.look_up(group, wants)));
        let found = found.unwrap_or_else(|_| {
            // Nobody knows in what state the panic left it.
            (self.kernel, self.files, self.files_bytes) = (None, VecDeque::new(), 0);
            self.stats.broken.fetch_add(1, Ordering::Relaxed);
            Found::new()
        });
        self.stats.asked.fetch_add(wants.len() as u64, Ordering::Relaxed);
        self.send(found);
    }

    fn send(&self, found: Found) {
        self.stats.named.fetch_add(found.len() as u64, Ordering::Relaxed);
        if !found.is_empty() {
            let _ = self.results.send(Names { symbols: found, ..Names::default() });
        }
    }

    fn look_up(&mut self, group: Group, wants: &[Want]) -> Found {
        match (group, wants.first().map(|want| &want.code)) {
            (Group::Elf(_), Some(Code::Elf(file))) => self.elf(&file.clone(), wants),
            (Group::Jit(process), Some(Code::Jit(_, dir))) => {
                self.jit.find(process, &Arc::clone(dir), wants.iter().map(|want| (want.frame, want.offset)))
            }
            (Group::Kernel, _) => self.kernel(wants),
            _ => Found::new(),
        }
    }

    fn elf(&mut self, file: &CodeFile, wants: &[Want]) -> Found {
        let Some(names) = self.hold(file) else { return Found::new() };
        wants.iter().filter_map(|want| Some((want.frame, names.name(want.offset)?))).collect()
    }

    /// The names of a file, which is from now on the one used last.
    fn hold(&mut self, file: &CodeFile) -> Option<&FileNames> {
        let held = self.files.iter().position(|(module, _)| *module == file.module);
        let held = held.and_then(|at| self.files.remove(at)).unwrap_or_else(|| {
            let names = file.open().and_then(|opened| FileNames::open(opened, &file.seen()));
            self.files_bytes += bytes_of(&names);
            (file.module, names)
        });
        self.files.push_back(held);
        self.files.back()?.1.as_ref()
    }

    fn kernel(&mut self, wants: &[Want]) -> Found {
        if self.kernel_hidden {
            return Found::new();
        }
        let addresses: Vec<u64> = wants.iter().map(|want| want.offset).collect();
        if let Some(asked) = &self.asked {
            let named = wants.iter().zip(asked.names(&addresses));
            return named.filter_map(|(want, name)| Some((want.frame, symbol(&name?)))).collect();
        }
        let begun = Instant::now();
        let (kernel, read) = self.kernel.get_or_insert_with(|| (Symbolizer::new(), Instant::now()));
        let is_new = *read >= begun;
        // A vmlinux would need the offset of KASLR, which is in /proc/kcore; kallsyms has all functions.
        let source = Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() };
        let Ok(symbols) = kernel.symbolize(&Source::Kernel(source), Input::AbsAddr(&addresses)) else {
            return Found::new();
        };
        let mut found = Found::new();
        for (want, symbol) in wants.iter().zip(symbols) {
            match symbol.into_sym() {
                Some(symbol) if is_new || !symbol.name.starts_with("bpf_prog_") => {
                    found.push((want.frame, self::symbol(&(symbol.name.into_owned(), symbol.offset as u64))));
                }
                _ if !is_new && self.later.len() < MAX_WAITING => self.later.push(want.clone()),
                _ => {}
            }
        }
        found
    }

    /// Lets go of what was not used for longest, and says what the rest takes.
    fn stay_bounded(&mut self) {
        let kernel = self.kernel.as_ref().map_or(0, |_| KERNEL_BYTES);
        while self.files_bytes + kernel > self.limits.0
            && let Some((_, old)) = self.files.pop_front()
        {
            self.files_bytes -= bytes_of(&old);
        }
        while self.jit.bytes() > self.limits.1 && self.jit.evict() {}
        self.stats.names_bytes.store(self.files_bytes + kernel + self.jit.bytes(), Ordering::Relaxed);
    }
}

fn symbol((function, offset): &(String, u64)) -> Symbol {
    Symbol { function: demangle(function), offset: *offset, nameless: false }
}

fn bytes_of(names: &Option<FileNames>) -> usize {
    size_of::<(ModuleId, Option<FileNames>)>() + names.as_ref().map_or(0, FileNames::bytes)
}

fn group(want: &Want) -> Group {
    match &want.code {
        Code::Elf(file) => Group::Elf(file.module),
        Code::Kernel => Group::Kernel,
        Code::Jit(process, _) => Group::Jit(*process),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::object::Object;
    use crate::tick::FrameId;
    use crossbeam_channel::unbounded;
    use std::fs::File;

    /// A file of this machine, as a module, and the offset of its code.
    fn file(number: u32, path: &str) -> Option<(CodeFile, u64)> {
        let object = Object::open(Arc::new(File::open(path).ok()?))?;
        let file = Arc::new(File::open(path).ok()?.into());
        let code = CodeFile { module: ModuleId(number), file, path: path.into(), process: None };
        Some((code, object.section(".text")?.offset + 64))
    }

    #[test]
    fn what_is_kept_stays_within_the_bound_and_what_went_is_read_again() {
        let paths = ["/proc/self/exe", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/node", "/usr/bin/perl"];
        let files: Vec<_> = (0..).zip(paths).filter_map(|(number, path)| file(number, path)).collect();
        let (results, found) = unbounded();
        let stats = Arc::new(SymbolStats::default());
        let mut worker = NameWorker::new(None, results, Arc::new(AtomicBool::new(false)), Arc::clone(&stats));
        let limit = 1 << 20;
        worker.limits.0 = limit;
        let mut asked = 0;
        for round in 0..3 {
            for (code, offset) in &files {
                let wants = (0..50).map(|n| Want {
                    frame: FrameId(n),
                    code: Code::Elf(code.clone()),
                    offset: offset + u64::from(n) * 64,
                });
                worker.take(std::iter::once(Message::Wants(wants.collect())));
                worker.stay_bounded();
                let named: usize = found.try_iter().map(|names| names.symbols.len()).sum();
                assert!(named > 25, "{round}: {named} of 50 in {}", code.path);
                assert!(stats.bytes() <= limit as u64, "{} in {}", stats.bytes(), code.path);
                let known: usize = worker.files.iter().map(|(_, names)| bytes_of(names)).sum();
                assert_eq!(known, worker.files_bytes);
                asked += 50;
            }
        }
        assert_eq!(stats.asked.load(Ordering::Relaxed), asked);
        // What is no ELF file is looked at once.
        let (mut other, _) = file(9, "/proc/self/exe").unwrap();
        other.file = Arc::new(File::open("/proc/self/status").unwrap().into());
        worker.take(std::iter::once(Message::Wants(vec![Want {
            frame: FrameId(0),
            code: Code::Elf(other),
            offset: 0,
        }])));
        assert!(found.is_empty());
        assert!(worker.files.back().is_some_and(|(module, names)| *module == ModuleId(9) && names.is_none()));
    }
}
