//! The kernel's own account of BPF programs, and the empty programs that show what keeping it costs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{Link, Object, ObjectBuilder};

use crate::load;

/// The kernel counts runs and time of BPF programs while this lives, whoever else turns that on or off.
pub struct Stats {
    _held: OwnedFd,
}

impl Stats {
    pub fn on() -> Result<Self> {
        // SAFETY: takes a number, gives a descriptor or a negative error.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        ensure!(
            fd >= 0,
            "turning on the kernel's statistics of BPF programs: {}",
            std::io::Error::from_raw_os_error(-fd)
        );
        // SAFETY: just made, and nobody else's.
        Ok(Stats { _held: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}

/// What one program has cost since it was loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    pub name: String,
    pub runs: u64,
    pub ns: u64,
}

impl Program {
    pub fn ns_per_run(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.ns as f64 / self.runs as f64)
    }
}

/// Every program that is loaded now, by the kernel's id.
fn programs() -> BTreeMap<u32, Program> {
    ProgInfoIter::default()
        .map(|info| {
            let name = info.name.to_string_lossy().into_owned();
            (info.id, Program { name, runs: info.run_cnt, ns: info.run_time_ns })
        })
        .collect()
}

/// Those that a process holds: others may load theirs meanwhile.
pub fn programs_of(pid: u32) -> BTreeMap<u32, Program> {
    let held: BTreeSet<u32> = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok())
        .collect();
    programs().into_iter().filter(|(id, _)| held.contains(id)).collect()
}

/// What the programs in `after` did since `before`, those that ran at all, summed by name.
pub fn since(before: &BTreeMap<u32, Program>, after: &BTreeMap<u32, Program>) -> Vec<Program> {
    let mut by_name: BTreeMap<&str, Program> = BTreeMap::new();
    for (id, program) in after {
        let (runs, ns) = before.get(id).map_or((0, 0), |old| (old.runs, old.ns));
        let sum = by_name.entry(&program.name).or_default();
        sum.name.clone_from(&program.name);
        sum.runs += program.runs.saturating_sub(runs);
        sum.ns += program.ns.saturating_sub(ns);
    }
    by_name.into_values().filter(|program| program.runs > 0).collect()
}

/// Which of the programs of `floor.bpf.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// They do nothing.
    Nothing,
    /// They read the clock.
    Clock,
}

/// The programs that do the least, attached as long as this lives.
pub struct Floor {
    // Links go before the object whose programs they hold.
    _links: Vec<Link>,
    _object: Object,
}

impl Floor {
    /// Compiles `floor.bpf.c` into `dir` and attaches those of its programs that the kernel takes.
    pub fn attach(dir: &Path, least: Least) -> Result<Self> {
        let object = dir.join("floor.bpf.o");
        let clang = load::clang()?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/overhead/floor.bpf.c");
        let status = Command::new(&clang)
            .args(["-O2", "-g", "-target", "bpf", "-c", source, "-o"])
            .arg(&object)
            .status()
            .with_context(|| format!("starting {clang}"))?;
        ensure!(status.success(), "{clang} could not compile {source}");
        let prefix = match least {
            Least::Nothing => "empty_",
            Least::Clock => "clock_",
        };
        let object = ObjectBuilder::default().open_file(&object)?.load().context("loading the least programs")?;
        let wanted = object.progs_mut().filter(|program| program.name().to_string_lossy().starts_with(prefix));
        let links = wanted.filter_map(|program| program.attach().ok()).collect();
        Ok(Floor { _links: links, _object: object })
    }
}
