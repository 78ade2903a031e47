//! What can be seen of a process from outside, again and again.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// One look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub rss_bytes: u64,
    /// Memory of the BPF maps that it holds.
    pub map_bytes: u64,
    pub descriptors: u64,
    pub threads: u64,
    /// CPU time so far.
    pub cpu_ns: u64,
}

impl Reading {
    pub fn take(pid: u32) -> Result<Self> {
        let gone = || format!("sberf (PID {pid}) is gone");
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).with_context(gone)?;
        let pages: u64 = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).context("statm")?;
        let (descriptors, map_bytes) = descriptors(pid)?;
        let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).with_context(gone)?.flatten().collect();
        let ran = |entry: &fs::DirEntry| fs::read_to_string(entry.path().join("schedstat")).ok();
        let cpu_ns =
            threads.iter().filter_map(ran).filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum();
        Ok(Reading {
            rss_bytes: pages * rustix::param::page_size() as u64,
            map_bytes,
            descriptors,
            threads: threads.len() as u64,
            cpu_ns,
        })
    }
}

/// How many, and the memory of the BPF maps among them, each counted once.
fn descriptors(pid: u32) -> Result<(u64, u64)> {
    let mut maps = BTreeMap::new();
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        count += 1;
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let value = |key: &str| info.lines().find_map(|line| line.strip_prefix(key))?.trim().parse::<u64>().ok();
        if let (Some(id), Some(bytes)) = (value("map_id:"), value("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok((count, maps.values().sum()))
}

/// The middle of what a reading says in some of them.
pub fn median(readings: &[Reading], of: impl Fn(&Reading) -> u64) -> u64 {
    let mut values: Vec<u64> = readings.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
