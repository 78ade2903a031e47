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
const MAX_FILE: u64 = 64 << 20;
/// Of one file that is begun anew again and again; then it is not read any more.
const MAX_READ: u64 = 4 * MAX_FILE;
/// Memory of the functions of one process: 150 000 with names of usual length. Later ones have no names.
const MAX_BYTES: usize = 16 << 20;
/// Memory of one function beside its name.
const FUNCTION_BYTES: usize = 64;
/// Longest line that is one.
const MAX_LINE: usize = 4096;
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

    /// Memory they take.
    pub fn bytes(&self) -> usize {
        self.processes.values().map(PerfMap::bytes).sum()
    }

    /// Lets go of the process that was not used for longest; false if there is none but the last one.
    pub fn evict(&mut self) -> bool {
        let used = self.processes.iter().map(|(&key, map)| (map.used, key));
        let (oldest, newest) = (used.clone().min(), used.max());
        match oldest {
            Some(oldest) if Some(oldest) != newest => self.processes.remove(&oldest.1).is_some(),
            _ => false,
        }
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
    /// The same, with what was read before it was begun anew.
    read_ever: u64,
    /// Start of a line whose end was not written yet.
    torn: Vec<u8>,
    /// The last bytes that were read: while they stand there, the file was only written on.
    tail: Vec<u8>,
    functions: Functions,
    waiting: Vec<(FrameId, u64)>,
    used: u64,
}

impl PerfMap {
    fn of(dir: &Arc<OwnedFd>) -> Self {
        PerfMap {
            dir: Arc::clone(dir),
            file: None,
            read: 0,
            read_ever: 0,
            torn: Vec::new(),
            tail: Vec::new(),
            functions: Functions::default(),
            waiting: Vec::new(),
            used: 0,
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.functions.bytes + self.torn.capacity() + self.waiting.capacity() * 16
    }

    /// Reads what was written since.
    fn grow(&mut self) {
        let Some(file) = &self.file else { return };
        let bytes = file.metadata().map_or(0, |meta| meta.len()).min(MAX_FILE);
        if bytes < self.read || !is_there(file, &self.tail, self.read) {
            // It was begun anew.
            (self.read, self.torn, self.tail) = (0, Vec::new(), Vec::new());
            self.functions = Functions::default();
        }
        let mut chunk = vec![0; CHUNK.min((bytes - self.read) as usize)];
        while self.read < bytes && self.read_ever < MAX_READ {
            let want = chunk.len().min((bytes - self.read) as usize);
            let Ok(got @ 1..) = file.read_at(&mut chunk[..want], self.read) else { break };
            self.read += got as u64;
            self.read_ever += got as u64;
            self.torn.extend_from_slice(&chunk[..got]);
            self.tail.extend_from_slice(&chunk[got.saturating_sub(TAIL)..got]);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL));
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
        self.torn.shrink_to(MAX_LINE);
    }

    fn answer(&mut self) -> Found {
        if self.file.is_none() {
            self.file = open(&self.dir);
        }
        self.grow();
        let mut found = self.find();
        if !self.waiting.is_empty()
            && let Some(other) = open(&self.dir)
            && self.file.as_ref().is_none_or(|file| id(file) != id(&other))
        {
            // Another file is there now.
            (self.file, self.read, self.tail) = (Some(other), u64::MAX, Vec::new());
            self.grow();
            found.extend(self.find());
        }
        let excess = self.waiting.len().saturating_sub(MAX_WAITING);
        self.waiting.drain(..excess);
        if !self.waiting.is_empty() && read_at(&self.dir, "stat", 1).is_err() {
            // The process is gone and will write no more.
            self.waiting.clear();
        }
        found
    }

    fn find(&mut self) -> Found {
        let mut found = Found::new();
        self.waiting.retain(|&(frame, address)| match self.functions.at(address) {
            Some((start, name)) => {
                let function = demangle(name);
                found.push((frame, Symbol { function, offset: address - start, nameless: false }));
                false
            }
            None => true,
        });
        found
    }
}

/// How many of the last bytes are kept.
const TAIL: usize = 64;

/// Whether these bytes still stand before that offset.
fn is_there(file: &File, tail: &[u8], end: u64) -> bool {
    let mut bytes = [0; TAIL];
    let Some(bytes) = bytes.get_mut(..tail.len()) else { return false };
    let start = end.saturating_sub(tail.len() as u64);
    file.read_exact_at(bytes, start).is_ok_and(|()| bytes == tail)
}

fn id(file: &File) -> Option<(u64, u64)> {
    fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Functions by address. A later one displaces earlier ones in its place, as the compiler does with the code.
#[derive(Default)]
struct Functions {
    by_start: BTreeMap<u64, (u64, Box<str>)>,
    bytes: usize,
}

impl Functions {
    fn learn(&mut self, line: &[u8]) {
        let Some((start, end, name)) = parse(line) else { return };
        while let Some((&old, _)) = self.by_start.range(start..end).next() {
            self.remove(old);
        }
        let bytes = FUNCTION_BYTES + name.len();
        if self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            self.by_start.insert(start, (end, name));
        }
    }

    fn remove(&mut self, start: u64) {
        if let Some((_, name)) = self.by_start.remove(&start) {
            self.bytes -= FUNCTION_BYTES + name.len();
        }
    }

    fn at(&self, address: u64) -> Option<(u64, &str)> {
        let (&start, (end, name)) = self.by_start.range(..=address).next_back()?;
        (address < *end).then_some((start, name))
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, Box<str>)> {
    let line = String::from_utf8_lossy(line.get(..line.len().min(MAX_LINE))?);
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
        assert!(map.by_start.is_empty() && map.bytes == 0);
        assert!(parse(&vec![b'1'; 1 << 20]).is_none());
        assert!(parse(b"1 1 \xff\xfe\x1b[2J").is_some(), "what is shown of it is the screen's business");
    }

    /// A process whose map is what a test makes of it; without it tests of files are skipped.
    struct Process {
        child: std::process::Child,
        dir: Arc<OwnedFd>,
        path: std::path::PathBuf,
    }

    impl Process {
        fn start() -> Self {
            let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(format!("/proc/{}", child.id()), flags, Mode::empty()).unwrap();
            let path = format!("/tmp/perf-{}.map", child.id()).into();
            Process { child, dir: Arc::new(dir), path }
        }

        fn key(&self) -> ProcessKey {
            ProcessKey { tgid: self.child.id(), start_ns: 1 }
        }

        /// What is found at an address.
        fn find(&self, maps: &mut PerfMaps, address: u64) -> Option<String> {
            let found = maps.find(self.key(), &self.dir, [(FrameId(9), address)].into_iter());
            found.into_iter().next().map(|(_, symbol)| symbol.function)
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = std::fs::remove_file(&self.path);
        }
    }

    const MAP: &str = "1000 40 first\n";

    #[test]
    fn a_map_that_grows_is_read_on() {
        use std::io::Write;
        let (process, mut maps) = (Process::start(), PerfMaps::default());
        assert_eq!(process.find(&mut maps, 0x1001), None, "there is no map yet");
        assert!(maps.is_waiting());
        std::fs::write(&process.path, "1000 40 first\n2000 4").unwrap();
        assert_eq!(maps.look_again().first().map(|(_, symbol)| symbol.offset), Some(1));
        assert!(!maps.is_waiting());
        assert_eq!(process.find(&mut maps, 0x2001), None, "its line is torn");
        let mut file = File::options().append(true).open(&process.path).unwrap();
        file.write_all(b"0 second\n").unwrap();
        assert_eq!(maps.look_again().first().map(|(_, symbol)| symbol.function.clone()), Some("second".into()));
        // Overwritten with something longer, and replaced by another file.
        std::fs::write(&process.path, "5000 40 a_much_longer_name_than_before\n6000 40 sixth\n2000 40 anew\n").unwrap();
        assert_eq!(process.find(&mut maps, 0x6000).as_deref(), Some("sixth"));
        assert_eq!(process.find(&mut maps, 0x2000).as_deref(), Some("anew"));
        std::fs::remove_file(&process.path).unwrap();
        let mut file = File::create(&process.path).unwrap();
        file.write_all(b"7000 40 seventh\n").unwrap();
        assert_eq!(process.find(&mut maps, 0x7000).as_deref(), Some("seventh"));
        assert_eq!(process.find(&mut maps, 0x2000), None);
        maps = PerfMaps::default();
        assert_eq!(process.find(&mut maps, 0x7000).as_deref(), Some("seventh"));
        // What was open stays readable when the file and the process are gone.
        std::fs::remove_file(&process.path).unwrap();
        let dir = Arc::clone(&process.dir);
        let key = process.key();
        file.write_all(b"3000 40 third\n").unwrap();
        drop(process);
        let found = maps.find(key, &dir, [(FrameId(9), 0x3000)].into_iter());
        assert_eq!(found.first().map(|(_, symbol)| symbol.function.clone()), Some("third".into()));
        assert!(maps.find(key, &dir, [(FrameId(9), 0x9000)].into_iter()).is_empty());
        assert!(!maps.is_waiting(), "nobody will write it any more");
    }

    #[test]
    fn what_is_no_file_of_the_process_is_not_read() {
        let none = |process: &Process| process.find(&mut PerfMaps::default(), 0x1001);
        let process = Process::start();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(elsewhere.path(), MAP).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &process.path).unwrap();
        assert_eq!(none(&process), None, "a link");
        std::fs::remove_file(&process.path).unwrap();
        std::fs::create_dir(&process.path).unwrap();
        assert_eq!(none(&process), None, "a directory");
        std::fs::remove_dir(&process.path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &process.path, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(none(&process), None, "a pipe that nobody writes");
        std::fs::remove_file(&process.path).unwrap();
        std::fs::write(&process.path, MAP).unwrap();
        assert_eq!(none(&process).as_deref(), Some("first"), "and this is one");
        match std::os::unix::fs::chown(&process.path, Some(65534), None) {
            Ok(()) => assert_eq!(none(&process), None, "somebody else's"),
            Err(error) => eprintln!("skipped in part: {error}"),
        }
    }

    #[test]
    fn a_gigabyte_costs_bounded_time_and_memory() {
        let (process, mut maps) = (Process::start(), PerfMaps::default());
        // A hole of a gigabyte behind the first function, and another behind that.
        std::fs::write(&process.path, MAP).unwrap();
        let file = File::options().write(true).open(&process.path).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_at(b"\n2000 40 far\n", (1 << 30) - 100).unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(process.find(&mut maps, 0x1001).as_deref(), Some("first"));
        assert_eq!(process.find(&mut maps, 0x2001), None, "too far behind");
        assert!(maps.bytes() < 2 * CHUNK, "{}", maps.bytes());
        // Many functions, with the longest names there can be.
        let name = "x".repeat(MAX_LINE - 40);
        let lines: String = (0..16_000).map(|n| format!("{:x} 10 {name}{n}\n", 0x10_0000 + n * 16)).collect();
        std::fs::write(&process.path, lines).unwrap();
        assert!(process.find(&mut maps, 0x10_0000).is_some());
        assert!((MAX_BYTES / 2..MAX_BYTES + 4 * CHUNK).contains(&maps.bytes()), "{}", maps.bytes());
        assert_eq!(process.find(&mut maps, 0x10_0000 + 15_999 * 16), None, "no room for all");
        // Begun anew again and again.
        for _ in 0..20 {
            std::fs::write(&process.path, "").unwrap();
            assert_eq!(process.find(&mut maps, 1), None);
            file.set_len(MAX_FILE).unwrap();
            assert_eq!(process.find(&mut maps, 1), None);
        }
        let read: u64 = maps.processes.values().map(|map| map.read_ever).sum();
        assert!(read <= MAX_READ + CHUNK as u64, "{read}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    }

    #[test]
    fn the_process_not_used_for_longest_goes_first() {
        let mut maps = PerfMaps::default();
        let processes: Vec<Process> = (0..3).map(|_| Process::start()).collect();
        for process in &processes {
            std::fs::write(&process.path, MAP).unwrap();
            assert!(process.find(&mut maps, 0x1001).is_some());
        }
        assert!(processes[0].find(&mut maps, 0x1002).is_some());
        let all = maps.bytes();
        assert!(maps.evict() && maps.bytes() < all);
        assert!(!maps.processes.contains_key(&processes[1].key()));
        assert!(maps.evict() && maps.processes.contains_key(&processes[0].key()));
        assert!(!maps.evict(), "the last one stays");
    }
}
