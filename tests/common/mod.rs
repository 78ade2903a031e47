//! What the tests from outside share: captures of an invented machine, and whether this one can be observed.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;

use sberf::collect::Source;
use sberf::collect::capture::Writer;
use sberf::collect::invented::{Invented, Invention};
use sberf::tick::Batch;

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
