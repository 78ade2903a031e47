//! What libbpf-rs does not offer: the mapped page of `flip`, and draining a map in batches into one buffer.

use std::ffi::c_void;
use std::fs::File;
use std::io::Read;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use libbpf_rs::{MapCore, MapFlags};
use rustix::time::{ClockId, clock_gettime};

use super::shared::Shared;
use super::skel::sched::types::flip;
use super::wire::{self, Wire};

/// The page that holds `struct flip`, shared with the programs.
pub struct FlipPage(Shared);

/// The interval that a flip closed: [prev, now).
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Its number.
    pub generation: u64,
    /// When it began, CLOCK_MONOTONIC ns.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

/// 64-bit words of `struct flip`, then 32-bit ones: walks, looks, weight of a sample; ids in the list of an even interval, and of an odd one.
const FLIP_GENERATION: usize = offset_of!(flip, r#gen) / 8;
const FLIP_PASSED: usize = offset_of!(flip, passed) / 8;
const FLIP_BEGAN: usize = offset_of!(flip, began) / 8;
const FLIP_SETTINGS: [usize; 3] =
    [offset_of!(flip, walks) / 4, offset_of!(flip, looks) / 4, offset_of!(flip, sample_weight) / 4];
const FLIP_LISTED: [usize; 2] = [offset_of!(flip, listed) / 4, offset_of!(flip, listed) / 4 + 1];

/// What programs are told while they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Stacks of blocked threads that may be walked, per CPU and period.
    pub walks: u32,
    /// Closer looks at places that registers say are known, per CPU and period.
    pub looks: u32,
    /// What a sample counts for, in parts of `WEIGHT_ONE`.
    pub sample_weight: u32,
}

impl FlipPage {
    /// Maps the page of `flip`.
    pub fn new(map: &impl MapCore) -> std::io::Result<Self> {
        Shared::new(&map.as_fd(), size_of::<flip>()).map(FlipPage)
    }

    /// Number of the interval that is being filled.
    pub fn generation(&self) -> u64 {
        self.0.long(FLIP_GENERATION).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Tells the programs how to go on from here.
    pub fn set(&self, settings: Settings) {
        let Settings { walks, looks, sample_weight } = settings;
        for (word, value) in FLIP_SETTINGS.into_iter().zip([walks, looks, sample_weight]) {
            if let Some(word) = self.0.word(word) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Adds threads to the list of a closed interval; false if there is no room for all that are, or were, to be in it.
    pub fn list(&self, list: &impl MapCore, generation: u64, tids: &[u32]) -> libbpf_rs::Result<bool> {
        let half = (generation & 1) as usize;
        let Some(count) = self.0.word(FLIP_LISTED[half]) else { return Ok(false) };
        let room = list.max_entries() / 2;
        let listed = count.load(Ordering::Acquire);
        let sum = u64::from(listed) + tids.len() as u64;
        if sum > u64::from(room) {
            return Ok(false);
        }
        for (at, tid) in (room * half as u32 + listed..).zip(tids) {
            list.update(&at.to_ne_bytes(), &tid.to_ne_bytes(), MapFlags::ANY)?;
        }
        count.store(sum as u32, Ordering::Release);
        Ok(true)
    }

    /// The list of this closed interval is not needed any more.
    pub fn unlist(&self, generation: u64) {
        if let Some(count) = self.0.word(FLIP_LISTED[(generation & 1) as usize]) {
            count.store(0, Ordering::Release);
        }
    }

    /// All threads have been asked for a closed interval: nobody needs to tell of it any more.
    pub fn passed(&self, generation: u64) {
        if let Some(passed) = self.0.long(FLIP_PASSED) {
            passed.store(generation, Ordering::Release);
        }
    }

    /// Begins the next interval now, and returns the one that it closes.
    ///
    /// Its beginning goes before its number: a program that reads the new number reads the new time.
    pub fn advance(&self) -> Closed {
        let end_ns = monotonic_ns();
        let began = |generation: u64| self.0.long(FLIP_BEGAN + (generation & 3) as usize);
        let Some(generation) = self.0.long(FLIP_GENERATION) else {
            return Closed { generation: 0, start_ns: end_ns, end_ns };
        };
        let closed = generation.load(Ordering::Acquire);
        let start_ns = began(closed).map_or(end_ns, |began| began.load(Ordering::Acquire));
        if let Some(next) = began(closed + 1) {
            next.store(end_ns, Ordering::Release);
        }
        generation.store(closed + 1, Ordering::Release);
        Closed { generation: closed, start_ns, end_ns }
    }
}

/// CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits until no program runs that could still use what was current before the call.
///
/// Has `nothing` run on each of `cpus`, one after the other: the interrupt that brings it there waits for programs on
/// `sched_switch` and for samples, which run with interrupts off. A program that runs with them on (a request that
/// completes) may be in the middle, but goes on at once and is over long before anything is drained.
///
/// Where that is not possible, an RCU grace period: it ends the update of a map-in-map. That is 7 ms at the median, but
/// more than a second when there are more threads to run than CPUs, for RCU's own thread has to wait its turn.
pub fn wait_for_programs(
    nothing: BorrowedFd<'_>,
    cpus: impl IntoIterator<Item = u32>,
    outer: &impl MapCore,
    inner: &impl MapCore,
) -> libbpf_rs::Result<()> {
    if cpus.into_iter().all(|cpu| run_on(nothing, cpu)) {
        return Ok(());
    }
    let inner = inner.as_fd().as_raw_fd();
    outer.update(&0u32.to_ne_bytes(), &inner.to_ne_bytes(), MapFlags::ANY)
}

/// Runs a program on a CPU and waits for its end; true also for a CPU that is offline.
fn run_on(program: BorrowedFd<'_>, cpu: u32) -> bool {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        flags: libbpf_sys::BPF_F_TEST_RUN_ON_CPU,
        cpu,
        ..Default::default()
    };
    // SAFETY: the descriptor is open for the call, and the options are a valid structure of the size that they state.
    let code = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    code == 0 || code == -libc::ENXIO
}

/// Overwrites every element of an array with zeros.
pub fn zero(array: &impl MapCore) -> libbpf_rs::Result<()> {
    let zeros = vec![0; array.value_size() as usize];
    (0..array.max_entries()).try_for_each(|at| array.update(&at.to_ne_bytes(), &zeros, MapFlags::ANY))
}

/// Takes everything out of a hash map. Elements that cannot be read are left out and counted.
pub fn drain<K: Wire, V: Wire>(map: &impl MapCore, each: impl FnMut(K, V)) -> libbpf_rs::Result<u64> {
    batches(map, libbpf_sys::bpf_map_lookup_and_delete_batch, each)
}

/// Reads everything in a hash map. Elements that cannot be read are left out and counted.
pub fn visit<K: Wire, V: Wire>(map: &impl MapCore, each: impl FnMut(K, V)) -> libbpf_rs::Result<u64> {
    batches(map, libbpf_sys::bpf_map_lookup_batch, each)
}

/// `bpf_map_lookup_batch` or its deleting twin: fd, where to go on, where that ended, keys, values, count, options.
type Batch = unsafe extern "C" fn(
    i32,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut u32,
    *const libbpf_sys::bpf_map_batch_opts,
) -> i32;

/// Bytes of elements asked for at once, at first.
const BATCH_BYTES: usize = 128 << 10;

/// Calls `batch` until the kernel says that the map is at its end.
///
/// Not the iterators of libbpf-rs: they take a batch that is not full for the last one, but the kernel never splits a hash
/// bucket between batches, so nearly every batch is short of a few and most of a large map would stay behind.
fn batches<K: Wire, V: Wire>(map: &impl MapCore, batch: Batch, mut each: impl FnMut(K, V)) -> libbpf_rs::Result<u64> {
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let mut room = (BATCH_BYTES / (key_size + value_size)).clamp(16, 4096);
    let (mut keys, mut values) = (vec![0u8; room * key_size], vec![0u8; room * value_size]);
    // The kernel's place in the map: a number of a bucket, however long the key is.
    let (mut place, mut next) = (0u64, 0u64);
    let (mut started, mut malformed) = (false, 0);
    loop {
        let mut count = room as u32;
        let from = if started { (&raw mut place).cast() } else { std::ptr::null_mut() };
        // SAFETY: the buffers hold `count` keys and values of the map's own sizes; `place` and `next` are larger than the 4
        // bytes that a hash map keeps there.
        let code = unsafe {
            batch(
                map.as_fd().as_raw_fd(),
                from,
                (&raw mut next).cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &mut count,
                std::ptr::null(),
            )
        };
        match -code {
            0 | libc::ENOENT => {}
            libc::EINTR => continue,
            // One hash bucket holds more than there is room for; nothing was taken.
            libc::ENOSPC => {
                room *= 2;
                keys.resize(room * key_size, 0);
                values.resize(room * value_size, 0);
                continue;
            }
            errno => return Err(std::io::Error::from_raw_os_error(errno).into()),
        }
        let elements = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
        for (key, value) in elements.take(count as usize) {
            match (wire::read(key), wire::read(value)) {
                (Some(key), Some(value)) => each(key, value),
                _ => malformed += 1,
            }
        }
        if code != 0 {
            return Ok(malformed);
        }
        place = next;
        started = true;
    }
}

/// Sum over CPUs of each counter of a per-CPU array of u64.
pub fn sum_percpu(map: &impl MapCore, entries: usize) -> Vec<u64> {
    (0..entries as u32)
        .map(|index| match map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY) {
            Ok(Some(values)) => values.iter().filter_map(|value| wire::read::<u64>(value)).sum(),
            _ => 0,
        })
        .collect()
}

/// Counters of an array of u64.
pub fn counters(map: &impl MapCore, entries: usize) -> Vec<u64> {
    (0..entries as u32)
        .map(|index| match map.lookup(&index.to_ne_bytes(), MapFlags::ANY) {
            Ok(Some(value)) => wire::read::<u64>(&value).unwrap_or(0),
            _ => 0,
        })
        .collect()
}

/// What the kernel says of a program. Runs and time are those of while its statistics are on; they only grow.
#[derive(Clone, Debug, Default)]
pub struct ProgramInfo {
    /// The kernel's id of it.
    pub id: u32,
    /// Its name, 15 bytes at most.
    pub name: String,
    /// Runs.
    pub runs: u64,
    /// ns in them.
    pub ns: u64,
}

/// Asks the kernel about a program.
pub fn program_info(program: &impl AsFd) -> Option<ProgramInfo> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `len` bytes of a structure of integers that is ours; all its pointers are null.
    let failed = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_fd().as_raw_fd(), &mut info, &mut len) };
    let name = info.name.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect::<Vec<_>>();
    let name = String::from_utf8_lossy(&name).into_owned();
    (failed == 0).then_some(ProgramInfo { id: info.id, name, runs: info.run_cnt, ns: info.run_time_ns })
}

/// The id of the next program on the machine; `None` after the last.
///
/// # Errors
/// What the kernel says: it needs CAP_SYS_ADMIN.
pub fn next_program(id: u32) -> std::io::Result<Option<u32>> {
    let mut next = 0;
    // SAFETY: the kernel writes one number, which is ours.
    match unsafe { libbpf_sys::bpf_prog_get_next_id(id, &mut next) } {
        0 => Ok(Some(next)),
        code if -code == libc::ENOENT => Ok(None),
        code => Err(std::io::Error::from_raw_os_error(-code)),
    }
}

/// Opens a program of whoever.
///
/// # Errors
/// What the kernel says: it is gone, or it needs CAP_SYS_ADMIN.
pub fn program_by_id(id: u32) -> std::io::Result<OwnedFd> {
    // SAFETY: takes a number, gives a descriptor or a negative error.
    owned(unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) })
}

/// Has the kernel count runs and time of all BPF programs for as long as the descriptor lives.
///
/// # Errors
/// What the kernel says: it needs CAP_SYS_ADMIN.
pub fn enable_statistics() -> std::io::Result<OwnedFd> {
    // SAFETY: takes a number, gives a descriptor or a negative error.
    owned(unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) })
}

/// What an iterator over one process has to say.
///
/// # Errors
/// What the kernel says: the process is gone, the program no iterator.
pub fn iterate_process(program: BorrowedFd<'_>, tgid: u32) -> std::io::Result<Vec<u8>> {
    let mut info = libbpf_sys::bpf_iter_link_info::default();
    info.task = libbpf_sys::bpf_iter_link_info__bindgen_ty_3 { pid: tgid, ..Default::default() };
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        iter_info: &mut info,
        iter_info_len: size_of::<libbpf_sys::bpf_iter_link_info>() as u32,
        ..Default::default()
    };
    // SAFETY: the descriptor is open for the call; the options and what they point at are valid and of the sizes they state.
    let link = unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), 0, libbpf_sys::BPF_TRACE_ITER, &options) };
    let link = owned(link)?;
    // SAFETY: the descriptor of the link is open for the call.
    let iterator = owned(unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) })?;
    let mut bytes = Vec::new();
    File::from(iterator).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A descriptor that libbpf gave us, or its negative errno.
fn owned(fd: i32) -> std::io::Result<OwnedFd> {
    match fd {
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        errno => Err(std::io::Error::from_raw_os_error(-errno)),
    }
}

/// Memory that the kernel charges for a map, bytes, from its fdinfo.
pub fn memory_of(map: &impl MapCore) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("memlock:")).and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
