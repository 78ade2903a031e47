//! Names of code made at run time, from the map that the process writes (`/tmp/perf-PID.map`, one line `START SIZE NAME`
//! a function, hexadecimal).
//!
//! Anyone can write to /tmp: the file must be a regular one, owned by the user of the process, below the root that the
//! process sees; links are not followed, and what is read of it is bounded.

use rustc_hash::FxHashMap;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::demangle::demangle;
use super::mappings::read_at;
use super::symbols::Found;
use crate::tick::{FrameId, ProcessKey, Symbol};

/// Processes with a map in memory; the one not used for longest goes first.
const MAX_PROCESSES: usize = 16;
/// Of one file; the rest is not read.
const MAX_BYTES: u64 = 64 << 20;
/// Functions of one process, about 100 bytes each.
const MAX_FUNCTIONS: usize = 300_000;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// Addresses without a name yet that are looked up again when the map grows.
const MAX_WAITING: usize = 4096;

/// The maps of all processes that have code made at run time.
#[derive(Default)]
pub struct PerfMaps {
    processes: FxHashMap<ProcessKey, PerfMap>,
    clock: u64,
}

impl PerfMaps {
    /// Names of these addresses of a process, whose directory in procfs is `dir`, and of earlier ones whose function has
    /// been written meanwhile.
    pub fn find(&mut self, key: ProcessKey, dir: &Arc<OwnedFd>, wants: impl Iterator<Item = (FrameId, u64)>) -> Found {
        self.clock += 1;
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&key) {
            let oldest = self.processes.iter().min_by_key(|(_, map)| map.used).map(|(&key, _)| key);
            oldest.and_then(|key| self.processes.remove(&key));
        }
        let map = self.processes.entry(key).or_insert_with(|| PerfMap::of(dir));
        map.used = self.clock;
        map.waiting.extend(wants);
        map.answer()
    }

    /// Whether addresses wait for their function to be written.
    pub fn is_waiting(&self) -> bool {
        self.processes.values().any(|map| !map.waiting.is_empty())
    }

    /// Names of those whose function has been written meanwhile.
    pub fn look_again(&mut self) -> Found {
        self.processes.values_mut().filter(|map| !map.waiting.is_empty()).flat_map(PerfMap::answer).collect()
    }
}

/// The map of one process.
struct PerfMap {
    dir: Arc<OwnedFd>,
    file: Option<File>,
    /// How much of the file was read.
    read: u64,
    /// Start of a line whose end was not written yet.
    torn: Vec<u8>,
    functions: Functions,
    waiting: Vec<(FrameId, u64)>,
    used: u64,
}

impl PerfMap {
    fn of(dir: &Arc<OwnedFd>) -> Self {
        let (functions, torn, waiting) = (Functions::default(), Vec::new(), Vec::new());
        PerfMap { dir: Arc::clone(dir), file: None, read: 0, torn, functions, waiting, used: 0 }
    }

    /// Reads what was written since.
    fn grow(&mut self) {
        let Some(file) = &self.file else { return };
        let bytes = file.metadata().map_or(0, |meta| meta.len()).min(MAX_BYTES);
        if bytes < self.read {
            // It was begun anew.
            (self.read, self.torn, self.functions) = (0, Vec::new(), Functions::default());
        }
        let mut chunk = vec![0; CHUNK.min((bytes - self.read) as usize)];
        while self.read < bytes {
            let want = chunk.len().min((bytes - self.read) as usize);
            let Ok(got @ 1..) = file.read_at(&mut chunk[..want], self.read) else { break };
            self.read += got as u64;
            self.torn.extend_from_slice(&chunk[..got]);
            let whole = self.torn.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            self.torn
                .drain(..whole)
                .as_slice()
                .split(|&byte| byte == b'\n')
                .for_each(|line| self.functions.learn(line));
            if self.torn.len() > CHUNK {
                // No function is called that.
                self.torn.clear();
            }
        }
    }

    fn answer(&mut self) -> Found {
        if self.file.is_none() {
            self.file = open(&self.dir);
        }
        self.grow();
        let mut found = Found::new();
        self.waiting.retain(|&(frame, address)| match self.functions.at(address) {
            Some((start, name)) => {
                let function = demangle(name);
                found.push((frame, Symbol { function, offset: address - start, nameless: false }));
                false
            }
            None => true,
        });
        let excess = self.waiting.len().saturating_sub(MAX_WAITING);
        self.waiting.drain(..excess);
        if !self.waiting.is_empty() && read_at(&self.dir, "stat", 1).is_err() {
            // The process is gone and will write no more.
            self.waiting.clear();
        }
        found
    }
}

/// Functions by address. A later one displaces earlier ones in its place, as the compiler does with the code.
#[derive(Default)]
struct Functions(BTreeMap<u64, (u64, Box<str>)>);

impl Functions {
    fn learn(&mut self, line: &[u8]) {
        let Some((start, end, name)) = parse(line) else { return };
        if self.0.len() >= MAX_FUNCTIONS {
            return;
        }
        while let Some((&old, _)) = self.0.range(start..end).next() {
            self.0.remove(&old);
        }
        self.0.insert(start, (end, name));
    }

    fn at(&self, address: u64) -> Option<(u64, &str)> {
        let (&start, (end, name)) = self.0.range(..=address).next_back()?;
        (address < *end).then_some((start, name))
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, Box<str>)> {
    let line = String::from_utf8_lossy(line.get(..line.len().min(4096))?);
    let mut fields = line.splitn(3, ' ');
    let start = hex(fields.next()?)?;
    let bytes = hex(fields.next()?)?;
    let name = fields.next()?.trim();
    let end = start.checked_add(bytes)?;
    (bytes > 0 && !name.is_empty()).then(|| (start, end, name.into()))
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// Opens the map of the process if it can be trusted to be that process's own.
fn open(dir: &OwnedFd) -> Option<File> {
    let status = read_at(dir, "status", 16 << 10).ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let inner_pid: u32 = field("NSpid:")?.split_whitespace().next_back()?.parse().ok()?;
    let users: Vec<u32> = field("Uid:")?.split_whitespace().filter_map(|uid| uid.parse().ok()).collect();
    let root = openat(dir, "root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let path = format!("tmp/perf-{inner_pid}.map");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Symbolic links on the way are the process's own, so they must not lead out of its root.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&root, path, flags, Mode::empty(), resolve).ok()?);
    let stat = fstat(&file).ok()?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    (regular && users.contains(&stat.st_uid)).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(text: &str) -> Functions {
        let mut functions = Functions::default();
        text.as_bytes().split(|&byte| byte == b'\n').for_each(|line| functions.learn(line));
        functions
    }

    #[test]
    fn later_code_displaces_earlier() {
        let map = functions("1000 40 a\n1040 40 b c\n1020 30 d\n0x2000 0x10 e");
        assert_eq!(map.at(0x1010), Some((0x1000, "a")));
        assert_eq!(map.at(0x1030), Some((0x1020, "d")));
        assert_eq!(map.at(0x1041), Some((0x1020, "d")));
        assert_eq!(map.at(0x1060), None, "b was overwritten in part and is gone");
        assert_eq!(map.at(0x200f), Some((0x2000, "e")));
        assert_eq!(map.at(0x2010), None);
        assert_eq!(map.at(0), None);
    }

    #[test]
    fn hostile_lines() {
        let map = functions(
            "ffffffffffffffff 2 over\n1 0 empty\n-1 5 x\n\n1000\n1000 10\n1000 10 \n\u{0} \u{0} \u{0}\nzz 1 q",
        );
        assert!(map.0.is_empty());
        assert!(parse(&vec![b'1'; 1 << 20]).is_none());
        assert!(parse(b"1 1 \xff\xfe\x1b[2J").is_some(), "what is shown of it is the screen's business");
    }
}
