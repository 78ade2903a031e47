//! The machine the tests share: who may use it now, and whether it can be used at all.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to load the machine and to observe it, until dropped: one test at a time, in all test processes.
pub struct Machine {
    _here: MutexGuard<'static, ()>,
    _elsewhere: File,
}

/// The machine for this test alone; `None`, having said why, where BPF cannot be used.
pub fn machine() -> Option<Machine> {
    // A test that failed leaves the lock poisoned; the next one is none the worse.
    let here = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(why) = require_bpf() {
        skipped(why);
        return None;
    }
    let elsewhere = File::create(std::env::temp_dir().join("sberf-live-tests.lock")).expect("lock file");
    flock(&elsewhere, FlockOperation::LockExclusive).expect("lock");
    Some(Machine { _here: here, _elsewhere: elsewhere })
}

/// Says past the test runner's capture why the running test proves nothing here.
pub fn skipped(why: impl std::fmt::Display) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", thread.name().unwrap_or("a test"));
}

/// Says past the test runner's capture what the running test found.
pub fn told(what: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Whether this process may use BPF on this kernel, found by making a map and opening a perf event. It does not ask sberf.
fn require_bpf() -> Result<(), &'static str> {
    static ANSWER: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err("this kernel carries no BTF (/sys/kernel/btf/vmlinux): CONFIG_DEBUG_INFO_BTF is off");
        }
        if !rustix::process::geteuid().is_root() {
            return Err("needs root");
        }
        if !can_make_a_map() {
            return Err("bpf(2) is refused here, even for root (a container?)");
        }
        Ok(())
    })
}

fn can_make_a_map() -> bool {
    // SAFETY: a null name and null options are what libbpf documents as "none"; the descriptor is ours to close.
    unsafe {
        let map =
            libbpf_sys::bpf_map_create(libbpf_sys::BPF_MAP_TYPE_HASH, std::ptr::null(), 4, 8, 1, std::ptr::null());
        if map >= 0 {
            libc::close(map);
        }
        map >= 0
    }
}

/// Waits until the kernel has freed the BPF maps that were let go: to be called before a CPU is taken offline.
///
/// Linux 6.18 frees a map of task storage on a CPU that the worker may not leave, and waits there for a grace period, which waits for
/// the CPUs to stand still; a CPU that is to go waits for the worker. Then that CPU never goes, and whoever asks for the CPUs hangs.
pub fn wait_for_freed_maps() {
    let is_at_it = |entry: std::io::Result<std::fs::DirEntry>| {
        let stack = entry.and_then(|entry| std::fs::read_to_string(entry.path().join("stack")));
        stack.is_ok_and(|stack| stack.contains("bpf_map_free"))
    };
    let mut quiet = 0;
    for _ in 0..300 {
        let freeing = std::fs::read_dir("/proc").is_ok_and(|entries| entries.into_iter().any(is_at_it));
        quiet = if freeing { 0 } else { quiet + 1 };
        // The work may not have begun yet.
        if quiet == 5 {
            return;
        }
        sleep_ms(100);
    }
    panic!("the kernel has been freeing maps for 30 s");
}

/// CLOCK_MONOTONIC ns, as in ticks.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Where tests may write: on a disk, inside the build directory.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

/// The CPU with the highest number that is online: least likely to serve interrupts.
pub fn last_cpu() -> u32 {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").expect("list of CPUs");
    online.trim().rsplit([',', '-']).next().and_then(|last| last.parse().ok()).expect("a CPU")
}
