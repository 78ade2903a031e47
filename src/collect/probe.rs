//! Tries what cannot be known from settings: whether files and facts of other users' processes can be had, and whether the
//! kernel times BPF programs.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags, openat};

use super::host::own_pid;
use super::mappings::{read_all, read_at};

/// Processes that are tried: any of them may end meanwhile, or be one that nobody may look into.
const TRIED: usize = 8;

/// What can be had of processes that are not ours; errors are what the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Others {
    /// Mapped files themselves, by `/proc/PID/map_files`.
    pub mapped_files: Result<(), i32>,
    /// The program, by `/proc/PID/exe`, and other files by their paths below `/proc/PID/root`.
    pub paths: Result<(), i32>,
}

/// Tries some processes of other users; where there are none, some of the same user.
pub fn others() -> Others {
    let mut found = Others { mapped_files: Err(libc::ESRCH), paths: Err(libc::ESRCH) };
    for dir in candidates() {
        keep_best(&mut found.mapped_files, mapped_files(&dir));
        keep_best(&mut found.paths, paths(&dir));
        if found.mapped_files.is_ok() && found.paths.is_ok() {
            break;
        }
    }
    found
}

/// A success counts for all; of failures, the first that is not that the process has ended.
fn keep_best(best: &mut Result<(), i32>, tried: io::Result<()>) {
    match tried {
        Ok(()) => *best = Ok(()),
        Err(error) if *best == Err(libc::ESRCH) => *best = Err(error.raw_os_error().unwrap_or(libc::ESRCH)),
        Err(_) => {}
    }
}

fn candidates() -> Vec<OwnedFd> {
    let own = (own_pid(), rustix::process::geteuid().as_raw());
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let processes = entries.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        (pid != own.0).then_some((pid, entry.metadata().ok()?.uid()))
    });
    let (of_others, of_us): (Vec<_>, Vec<_>) = processes.partition(|&(_, uid)| uid != own.1);
    let programs = |processes: Vec<(u32, u32)>| -> Vec<OwnedFd> {
        processes.into_iter().filter_map(|(pid, _)| program(pid)).take(TRIED).collect()
    };
    let of_others = programs(of_others);
    if of_others.is_empty() { programs(of_us) } else { of_others }
}

/// The directory of a process that is no thread of the kernel.
fn program(pid: u32) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
    let cmdline = read_at(&dir, "cmdline", 1).ok()?;
    (!cmdline.is_empty()).then_some(dir)
}

fn mapped_files(dir: &OwnedFd) -> io::Result<()> {
    let mappings = read_all(dir)?;
    let mapping = mappings.iter().find(|mapping| mapping.inode != 0).ok_or(io::ErrorKind::NotFound)?;
    openat(dir, mapping.map_files_name(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(())
}

fn paths(dir: &OwnedFd) -> io::Result<()> {
    openat(dir, "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    openat(dir, "root/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(())
}

/// Whether BPF programs are being timed on this machine.
pub fn times_bpf() -> bool {
    fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_processes_can_be_looked_into() {
        // A child of ours, of the same user: its program can be opened without any capability.
        let Ok(mut child) = std::process::Command::new("sleep").arg("5").spawn() else {
            eprintln!("skipped: no sleep here");
            return;
        };
        // Its arguments appear a little after it was started.
        let begun = std::time::Instant::now();
        let dir = loop {
            match program(child.id()) {
                Some(dir) => break dir,
                None => assert!(begun.elapsed() < std::time::Duration::from_secs(20), "no program"),
            }
        };
        let tried = paths(&dir);
        child.kill().unwrap();
        child.wait().unwrap();
        tried.unwrap();
    }

    #[test]
    fn the_first_failure_that_tells_is_kept() {
        let mut best = Err(libc::ESRCH);
        keep_best(&mut best, Err(io::Error::from_raw_os_error(libc::ESRCH)));
        keep_best(&mut best, Err(io::Error::from_raw_os_error(libc::EACCES)));
        keep_best(&mut best, Err(io::Error::from_raw_os_error(libc::ENOENT)));
        assert_eq!(best, Err(libc::EACCES));
        keep_best(&mut best, Ok(()));
        assert_eq!(best, Ok(()));
    }
}
