//! Names for code addresses, found by worker threads so that no tick and no frame ever waits for one.
//!
//! One thread finds what functions are called: by ELF symbols (through descriptors that the collector holds, so a deleted
//! file still has its names), by those of separate debug files, by what the kernel says, by the maps that JIT compilers
//! write ([`super::perf_map`]), or after where a function begins. An address of which nothing is known gets no answer.
//! Another thread reads debug information, which takes longer, for lines and inlined functions: only for frames that
//! somebody looks at; it answers for each of them. If that is wanted, a third one has what is not here fetched over the
//! network. Both keep what they read within a bound and let go of what was not used
//! for longest.

mod debug_file;
mod debuginfod;
mod fetch;
mod file;
mod lines;
#[cfg(test)]
pub mod oracle;
mod plt;
mod table;
mod worker;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use self::debug_file::Seen;
pub use self::debuginfod::Debuginfod;
use self::fetch::Fetcher;
use self::lines::LineWorker;
use self::worker::NameWorker;
use crate::tick::{FrameId, ModuleId, Names, ProcessKey, Symbol};

/// Batches that may wait; what finds no room stays with the resolver.
const BATCHES: usize = 64;
/// Memory of the symbols of files and of the kernel: a file of a hundred megabytes has 7 MB of them, most have less than one.
const NAMES_BYTES: usize = 48 << 20;
/// Memory of the maps of JIT compilers.
const JIT_BYTES: usize = 24 << 20;
/// Memory of debug information.
const LINES_BYTES: usize = 56 << 20;
/// Memory of all of it; what was not used for longest is let go.
pub const MAX_BYTES: u64 = (NAMES_BYTES + JIT_BYTES + LINES_BYTES) as u64;

/// A file with code, held open.
#[derive(Clone)]
pub struct CodeFile {
    /// Its module.
    pub module: ModuleId,
    /// Open on it, maybe with O_PATH only.
    pub file: Arc<OwnedFd>,
    /// Its path where a process sees it.
    pub path: Arc<str>,
    /// The directory in procfs of that process, which may be gone.
    pub process: Option<Arc<OwnedFd>>,
}

impl CodeFile {
    /// Opens it for reading, which may wait for its file system.
    fn open(&self) -> Option<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()
    }

    /// How that process sees it.
    fn seen(&self) -> Seen<'_> {
        Seen { path: &self.path, process: self.process.as_deref() }
    }
}

/// Where the code of a frame lies.
#[derive(Clone)]
pub enum Code {
    /// In a file; the frame's offset is a file offset.
    Elf(CodeFile),
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

/// A frame whose details are wanted.
#[derive(Clone)]
pub struct WantDetail {
    /// Which.
    pub frame: FrameId,
    /// Where its code lies.
    pub file: CodeFile,
    /// In the file.
    pub offset: u64,
}

/// The kernel, asked for names.
pub trait KernelNames: Send {
    /// What functions are called and how far into them those addresses are; as many as there are addresses.
    fn names(&self, addresses: &[u64]) -> Vec<Option<(String, u64)>>;
}

/// Names that were found.
pub type Found = Vec<(FrameId, Symbol)>;

/// What the workers have done so far.
#[derive(Debug, Default)]
pub struct SymbolStats {
    /// Addresses whose names were looked for.
    pub asked: AtomicU64,
    /// Those that have a name.
    pub named: AtomicU64,
    /// Batches given up because a file made its reader panic.
    pub broken: AtomicU64,
    /// Memory of symbols.
    names_bytes: AtomicUsize,
    /// Memory of debug information.
    lines_bytes: AtomicUsize,
}

impl SymbolStats {
    /// Memory of all that is kept, at most [`MAX_BYTES`].
    pub fn bytes(&self) -> u64 {
        (self.names_bytes.load(Ordering::Relaxed) + self.lines_bytes.load(Ordering::Relaxed)) as u64
    }
}

enum Message {
    Wants(Vec<Want>),
    KernelChanged,
}

/// The workers' other end. Dropping it stops them.
pub struct SymbolWorker {
    names: Option<Sender<Message>>,
    lines: Option<Sender<Vec<WantDetail>>>,
    found: Receiver<Names>,
    said: Receiver<String>,
    stop: Arc<AtomicBool>,
    done: Receiver<()>,
    stats: Arc<SymbolStats>,
}

impl SymbolWorker {
    /// Starts the workers, at a low priority. `kernel`: names its functions, else a list of them all is read. `debuginfod`: where
    /// debug information comes from that is not here.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(kernel: Option<Box<dyn KernelNames>>, debuginfod: Option<Debuginfod>) -> std::io::Result<Self> {
        let (names, wants) = bounded(BATCHES);
        let (lines, details) = bounded(BATCHES);
        let (results, found) = unbounded();
        let (finished, done) = bounded(2);
        let stop = Arc::new(AtomicBool::new(false));
        let stats = Arc::new(SymbolStats::default());
        // Made on its thread, which what blazesym keeps cannot leave.
        let worker = (results.clone(), Arc::clone(&stop), Arc::clone(&stats));
        // On a busy machine a thread of the lowest priority would have names ready in half a minute.
        spawn("sberf-symbols", 4, finished.clone(), move || {
            let (results, stop, stats) = worker;
            NameWorker::new(kernel, results, stop, stats).run(&wants);
        })?;
        let (say, said) = unbounded();
        let fetcher = debuginfod.map(|client| Fetcher::start(client, Arc::clone(&stop), say)).transpose()?;
        let mut worker = LineWorker::new(fetcher, results, Arc::clone(&stop), Arc::clone(&stats));
        spawn("sberf-lines", 10, finished, move || worker.run(&details))?;
        Ok(SymbolWorker { names: Some(names), lines: Some(lines), found, said, stop, done, stats })
    }

    /// Hands over what is wanted, or gives it back when the worker is too busy.
    pub fn want(&self, wants: Vec<Want>) -> Result<(), Vec<Want>> {
        let Some(names) = &self.names else { return Ok(()) };
        match names.try_send(Message::Wants(wants)) {
            Err(TrySendError::Full(Message::Wants(wants))) => Err(wants),
            _ => Ok(()),
        }
    }

    /// The same for details.
    pub fn want_details(&self, wants: Vec<WantDetail>) -> Result<(), Vec<WantDetail>> {
        let Some(lines) = &self.lines else { return Ok(()) };
        match lines.try_send(wants) {
            Err(TrySendError::Full(wants)) => Err(wants),
            _ => Ok(()),
        }
    }

    /// A kernel module came or went: what is known of the kernel is void.
    pub fn kernel_changed(&self) {
        if let Some(names) = &self.names {
            let _ = names.try_send(Message::KernelChanged);
        }
    }

    /// Where symbols and details arrive.
    pub fn found(&self) -> &Receiver<Names> {
        &self.found
    }

    /// What a person may want to know of what was fetched.
    pub fn said(&self) -> impl Iterator<Item = String> {
        self.said.try_iter()
    }

    /// What the workers have done so far.
    pub fn stats(&self) -> &SymbolStats {
        &self.stats
    }
}

impl Drop for SymbolWorker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        (self.names, self.lines) = (None, None);
        // They may hang in a file system; then they end with the process.
        for _ in 0..2 {
            let _ = self.done.recv_timeout(Duration::from_millis(200));
        }
    }
}

fn spawn(name: &str, nice: i32, finished: Sender<()>, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
        work();
        let _ = finished.send(());
    })?;
    Ok(())
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
