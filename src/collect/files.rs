//! Files that hold code, one module each: known by what `stat` says of the mapped file itself, with one descriptor held
//! so that names can be looked up after the process is gone and the file unlinked.
//!
//! The descriptor is an O_PATH one: taking it and asking its cached attributes never waits for a file system. What
//! needs the contents (build id, outermost functions) is read by a thread of its own, for which the caller waits
//! shortly, see [`PATIENCE`].

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use rustc_hash::FxHashMap;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::intern::Interner;
use super::mappings::Mapping;
use super::outermost::{self, ElfFacts, Role, Root};
use crate::tick::{Module, ModuleId, ModuleKind, Names};

/// Longest wait for one file; page-cached ones answer in 0.1–10 ms.
const PATIENCE: Duration = Duration::from_millis(30);
/// Longest wait for all files between two calls of [`Files::rest`].
const PATIENCE_PER_TICK: Duration = Duration::from_millis(100);
/// Descriptors held at most, and never more than a quarter of what the process may have.
const MAX_OPEN: usize = 256;

/// Identity of a file that outlives its path. Not ctime: unlinking changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    dev: (u32, u32),
    inode: u64,
    bytes: u64,
    modified: (i64, u32),
}

/// One file with code.
pub struct CodeFile {
    /// Its module.
    pub module: ModuleId,
    /// Open on the file, while it is among the recently used.
    pub path: Option<Arc<OwnedFd>>,
    /// Its path as a process sees it that has it mapped, and while it is held open the directory of that process in procfs.
    pub seen: (Arc<str>, Option<Arc<OwnedFd>>),
    /// `None`: it could not be opened.
    key: Option<FileKey>,
    facts: Facts,
    used: u64,
}

enum Facts {
    Ready(ElfFacts),
    Pending(Receiver<Option<ElfFacts>>),
}

struct Job {
    path: Arc<OwnedFd>,
    role: Role,
    reply: Sender<Option<ElfFacts>>,
}

/// All files that were seen.
pub struct Files {
    files: Vec<CodeFile>,
    by_key: FxHashMap<(FileKey, bool), usize>,
    /// Files that could not be opened: by what the mapping says, without a descriptor.
    by_mapping: FxHashMap<((u32, u32), u64, String), usize>,
    by_module: FxHashMap<ModuleId, usize>,
    jobs: Sender<Job>,
    /// Files whose facts have not come yet.
    pending: Vec<usize>,
    open: usize,
    max_open: usize,
    clock: u64,
    patience: Duration,
    patience_per_tick: Duration,
}

impl Files {
    /// Starts the thread that reads ELF files.
    pub fn new() -> Self {
        let (jobs, inbox) = unbounded();
        // Without the thread (no memory for it) stacks are not judged complete; nothing else is lost.
        let _ = std::thread::Builder::new().name("sberf-elf".into()).spawn(move || read_files(&inbox));
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        Files {
            files: Vec::new(),
            by_key: FxHashMap::default(),
            by_mapping: FxHashMap::default(),
            by_module: FxHashMap::default(),
            jobs,
            pending: Vec::new(),
            open: 0,
            max_open: MAX_OPEN.min(usize::try_from(limit / 4).unwrap_or(MAX_OPEN)).max(4),
            clock: 0,
            patience: PATIENCE_PER_TICK,
            patience_per_tick: PATIENCE_PER_TICK,
        }
    }

    /// A tick is over: waiting is allowed again.
    pub fn rest(&mut self) {
        self.patience = self.patience_per_tick;
    }

    /// Waits for no file from now on.
    #[cfg(test)]
    pub fn be_impatient(&mut self) {
        (self.patience, self.patience_per_tick) = (Duration::ZERO, Duration::ZERO);
    }

    /// The file behind a mapping of a process; `is_program` if it is the one that was executed.
    pub fn find(
        &mut self,
        process: Option<&Arc<OwnedFd>>,
        mapping: &Mapping,
        is_program: bool,
        interner: &mut Interner,
        names: &mut Names,
    ) -> usize {
        let opened = process.and_then(|process| open_mapped(process, mapping));
        let index = self.find_opened(opened, mapping, is_program, interner, names);
        if let Some(process) = process {
            self.see(index, process, mapping);
        }
        index
    }

    /// Notes which process has it mapped. Of several, the newest lives longest, mostly.
    pub fn see(&mut self, index: usize, process: &Arc<OwnedFd>, mapping: &Mapping) {
        if let Some(file) = self.files.get_mut(index)
            && file.path.is_some()
        {
            file.seen = (mapping.path.as_str().into(), Some(Arc::clone(process)));
        }
    }

    /// The same with the file that was opened, if it could be.
    pub fn find_opened(
        &mut self,
        opened: Option<(FileKey, OwnedFd)>,
        mapping: &Mapping,
        is_program: bool,
        interner: &mut Interner,
        names: &mut Names,
    ) -> usize {
        let role = Role::of(&mapping.path, is_program);
        let index = match &opened {
            Some((key, _)) => self.by_key.get(&(*key, role == Role::Program)),
            None => self.by_mapping.get(&(mapping.dev, mapping.inode, mapping.path.clone())),
        };
        let index = match index {
            Some(&index) => index,
            None => self.add(&opened, mapping, role, interner, names),
        };
        if let Some((_, path)) = opened {
            self.hold(index, path);
        }
        index
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<&CodeFile> {
        self.files.get(index)
    }

    /// The one of a module.
    pub fn of_module(&self, module: ModuleId) -> Option<&CodeFile> {
        self.get(*self.by_module.get(&module)?)
    }

    /// Notes that it was used, for what is let go first.
    pub fn touch(&mut self, index: usize) {
        self.clock += 1;
        if let Some(file) = self.files.get_mut(index) {
            file.used = self.clock;
        }
    }

    /// Opens a file again that had to be let go, if it is still the same.
    pub fn reopen(&mut self, index: usize, process: &OwnedFd, mapping: &Mapping) {
        if !self.files.get(index).is_some_and(|file| file.path.is_none() && file.key.is_some()) {
            return;
        }
        let opened = open_mapped(process, mapping);
        if let Some((key, path)) = opened
            && self.files.get(index).is_some_and(|file| file.key == Some(key))
        {
            self.hold(index, path);
        }
    }

    /// The thread's first function at that file offset; `None` too while nobody knows.
    pub fn root(&self, index: usize, offset: u64) -> Option<&Root> {
        match &self.files.get(index)?.facts {
            Facts::Ready(facts) => facts.root(offset),
            Facts::Pending(_) => None,
        }
    }

    /// Whether its first functions are not known yet.
    pub fn is_pending(&self, index: usize) -> bool {
        self.pending.contains(&index)
    }

    /// Takes the answers that came late; `true` if there was one.
    pub fn poll(&mut self) -> bool {
        let before = self.pending.len();
        let files = &mut self.files;
        self.pending.retain(|&index| {
            let Some(CodeFile { facts, .. }) = files.get_mut(index) else { return false };
            let Facts::Pending(reply) = facts else { return false };
            match reply.try_recv() {
                Ok(answer) => *facts = Facts::Ready(answer.unwrap_or_default()),
                Err(TryRecvError::Disconnected) => *facts = Facts::Ready(ElfFacts::default()),
                Err(TryRecvError::Empty) => return true,
            }
            false
        });
        self.pending.len() < before
    }

    fn add(
        &mut self,
        opened: &Option<(FileKey, OwnedFd)>,
        mapping: &Mapping,
        role: Role,
        interner: &mut Interner,
        names: &mut Names,
    ) -> usize {
        let facts = match opened {
            Some((_, path)) => self.ask(path, role),
            None => Facts::Ready(ElfFacts::default()),
        };
        let build_id = match &facts {
            Facts::Ready(facts) => facts.build_id.clone(),
            Facts::Pending(_) => None,
        };
        let module = Module { path: mapping.path.clone(), kind: ModuleKind::File, build_id };
        let index = self.files.len();
        if role != Role::Other && matches!(facts, Facts::Pending(_)) {
            self.pending.push(index);
        }
        let module = interner.module(module, names);
        let seen = (mapping.path.as_str().into(), None);
        let key = opened.as_ref().map(|(key, _)| *key);
        self.files.push(CodeFile { module, path: None, seen, key, facts, used: 0 });
        self.by_module.insert(module, index);
        match opened {
            Some((key, _)) => self.by_key.insert((*key, role == Role::Program), index),
            None => self.by_mapping.insert((mapping.dev, mapping.inode, mapping.path.clone()), index),
        };
        index
    }

    fn ask(&mut self, path: &OwnedFd, role: Role) -> Facts {
        let (reply, answer) = bounded(1);
        let Ok(path) = path.try_clone() else { return Facts::Ready(ElfFacts::default()) };
        if self.jobs.send(Job { path: Arc::new(path), role, reply }).is_err() {
            return Facts::Ready(ElfFacts::default());
        }
        if self.patience.is_zero() {
            return Facts::Pending(answer);
        }
        let begun = Instant::now();
        let facts = answer.recv_timeout(PATIENCE.min(self.patience));
        self.patience = self.patience.saturating_sub(begun.elapsed());
        match facts {
            Ok(facts) => Facts::Ready(facts.unwrap_or_default()),
            Err(_) => Facts::Pending(answer),
        }
    }

    fn hold(&mut self, index: usize, path: OwnedFd) {
        self.touch(index);
        let Some(file) = self.files.get_mut(index) else { return };
        if file.path.is_some() {
            return;
        }
        file.path = Some(Arc::new(path));
        self.open += 1;
        if self.open <= self.max_open {
            return;
        }
        let held = self.files.iter_mut().filter(|file| file.path.is_some());
        if let Some(oldest) = held.min_by_key(|file| file.used) {
            (oldest.path, oldest.seen.1) = (None, None);
            self.open -= 1;
        }
    }
}

fn read_files(jobs: &Receiver<Job>) {
    for job in jobs {
        let facts = File::open(format!("/proc/self/fd/{}", job.path.as_raw_fd()))
            .ok()
            .and_then(|file| std::panic::catch_unwind(|| outermost::read(file, job.role)).unwrap_or(None));
        let _ = job.reply.send(facts);
    }
}

/// Opens the mapped file itself: by its mapping, else (without CAP_CHECKPOINT_RESTORE) as the program of the process,
/// else by its path as the process sees it; the latter two only if they are still the same inode.
pub fn open_mapped(process: &OwnedFd, mapping: &Mapping) -> Option<(FileKey, OwnedFd)> {
    let by_mapping = openat(process, mapping.map_files_name(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    if let Some(found) = by_mapping.ok().and_then(with_key) {
        return Some(found);
    }
    let by_path = format!("root/{}", mapping.path.trim_start_matches('/'));
    [String::from("exe"), by_path].into_iter().find_map(|name| {
        let path = openat(process, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        with_key(path).filter(|(key, _)| key.inode == mapping.inode)
    })
}

fn with_key(path: OwnedFd) -> Option<(FileKey, OwnedFd)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(path.as_fd(), c"", flags, StatxFlags::BASIC_STATS).ok()?;
    // A device that is mapped executable must not be opened by anyone.
    if rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode)) != rustix::fs::FileType::RegularFile {
        return None;
    }
    let key = FileKey {
        dev: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        bytes: stat.stx_size,
        modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
    };
    Some((key, path))
}
