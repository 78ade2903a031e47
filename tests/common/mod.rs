//! What the tests from outside share: captures of an invented machine, and whether this one can be observed.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;
use std::time::{Duration, Instant};

use sberf::collect::Source;
use sberf::collect::capture::{Reader, Writer};
use sberf::collect::invented::{Invented, Invention};
use sberf::tick::{Batch, Lens, State, Tick};

/// A directory with a capture `demo.sberf` of 30 ticks.
pub fn demo() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_capture(&dir.path().join("demo.sberf"), 30);
    dir
}

/// Writes a capture of an invented machine with that many ticks, names between them included; yields what is in it.
pub fn write_capture(path: &Path, ticks: u64) -> Vec<Batch> {
    let mut source = Invented::new(Invention { ticks: Some(ticks), hostile: true, ..Invention::default() });
    let (_keep, requests) = crossbeam_channel::bounded(1);
    let mut writer = Writer::create(path, &source.session()).unwrap();
    let mut written = Vec::new();
    while let Some(batch) = source.next(&requests).unwrap() {
        writer.write(&batch).unwrap();
        written.push(batch);
    }
    writer.finish().unwrap();
    written
}

/// Why the live machine cannot be observed from here.
pub fn can_run_live() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim();
    let caps = u64::from_str_radix(caps, 16).unwrap_or(0);
    if caps >> 21 & 1 == 0 && caps >> 38 & 3 != 3 {
        return Err("neither root nor CAP_BPF and CAP_PERFMON".into());
    }
    match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Ok(()),
        false => Err("no BTF".into()),
    }
}

/// How many ticks a capture holds, and how it ends.
pub fn read_capture(path: &Path) -> (u64, Result<(), String>) {
    let mut reader = match Reader::open(path) {
        Ok(reader) => reader,
        Err(error) => return (0, Err(error.to_string())),
    };
    let mut ticks = 0;
    loop {
        match reader.next_batch() {
            Ok(Some(Batch::Tick(_))) => ticks += 1,
            Ok(Some(Batch::Names(_))) => {}
            Ok(None) => return (ticks, Ok(())),
            Err(error) => return (ticks, Err(error.to_string())),
        }
    }
}

/// Waits until it holds, for as long as anything may take.
#[track_caller]
pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never came true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What ticks say in sum, taken from them by hand.
#[derive(Debug, Default, PartialEq)]
pub struct Sums {
    pub samples: u64,
    pub wall_ns: u64,
    pub runnable_ns: u64,
    pub blocked_ns: u64,
    pub disk_ns: u64,
}

impl Sums {
    /// Of everybody.
    pub fn of(batches: &[Batch]) -> Self {
        Self::of_those(batches, |_| true)
    }

    /// Of one process.
    pub fn of_process(batches: &[Batch], pid: u32) -> Self {
        Self::of_those(batches, |tgid| tgid == pid)
    }

    fn of_those(batches: &[Batch], wanted: impl Fn(u32) -> bool) -> Self {
        let mut sums = Sums::default();
        for tick in batches.iter().filter_map(tick) {
            for thread in tick.threads.iter().filter(|thread| wanted(thread.process.tgid)) {
                sums.wall_ns += thread.ns.total();
                sums.runnable_ns += thread.ns.runnable();
                sums.blocked_ns += thread.ns.blocked();
                sums.disk_ns += thread.ns[State::Disk];
            }
            let stacks = tick.stacks.iter().filter(|stack| wanted(stack.process.tgid));
            sums.samples += stacks.filter(|stack| stack.lens == Lens::OnCpu).map(|stack| stack.weight).sum::<u64>();
        }
        sums
    }
}

fn tick(batch: &Batch) -> Option<&Tick> {
    match batch {
        Batch::Tick(tick) => Some(tick),
        Batch::Names(_) => None,
    }
}

/// Everything up to and with so many ticks.
pub fn first_ticks(batches: &[Batch], count: usize) -> Vec<Batch> {
    let mut left = count;
    let within = |batch: &&Batch| {
        let is_tick = tick(batch).is_some();
        let takes = !is_tick || left > 0;
        left -= usize::from(is_tick && takes);
        takes
    };
    batches.iter().take_while(within).cloned().collect()
}

/// The process that waited longest for a CPU, among those that were there in the first tick.
pub fn busiest(batches: &[Batch]) -> u32 {
    let first = batches.iter().find_map(tick).unwrap();
    let pids = first.threads.iter().map(|thread| thread.process.tgid);
    pids.max_by_key(|&pid| Sums::of_process(batches, pid).runnable_ns).unwrap()
}
