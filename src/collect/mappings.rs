//! What is mapped where in one process: `/proc/PID/maps`, or one address of it by PROCMAP_QUERY where the kernel has it
//! (6.11). Everything goes through a descriptor of `/proc/PID`, so a re-used pid is never mistaken for its predecessor.

use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::tick::ProcessKey;

/// More than this of `/proc/PID/maps` is not read (vm.max_map_count lines of 100 bytes are 6.5 MB).
const MAX_MAPS_BYTES: u64 = 32 << 20;
/// Longer paths are cut by the kernel, too.
const MAX_PATH: usize = 4096;

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Of `start` in the file.
    pub offset: u64,
    /// Device as the kernel shows it here, which may differ from `stat` (btrfs, overlayfs).
    pub dev: (u32, u32),
    /// 0: no file.
    pub inode: u64,
    /// Path of the file without ` (deleted)`, a name in brackets, or empty.
    pub path: String,
}

impl Mapping {
    /// Whether that address lies in it.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Its name below `/proc/PID/map_files`.
    pub fn map_files_name(&self) -> String {
        format!("map_files/{:x}-{:x}", self.start, self.end)
    }
}

/// A descriptor of `/proc/PID` of exactly that process.
///
/// # Errors
/// NotFound if it is gone, even if another has its pid now.
pub fn open_process(key: ProcessKey) -> io::Result<OwnedFd> {
    let began = key.start_ns / ns_per_clock_tick();
    open_if(key.tgid, |ticks| ticks == began)
}

/// The process that has this PID now.
///
/// # Errors
/// NotFound if none has.
pub fn process_now(tgid: u32) -> io::Result<ProcessKey> {
    let stat = std::fs::read(format!("/proc/{tgid}/stat"))?;
    let ticks = start_ticks(&stat).ok_or(io::ErrorKind::NotFound)?;
    Ok(ProcessKey { tgid, start_ns: ticks.saturating_mul(ns_per_clock_tick()) })
}

/// A descriptor of `/proc/PID` of the process that had this pid at `start_ns` (CLOCK_BOOTTIME).
///
/// # Errors
/// NotFound if it is gone.
pub fn open_elder(tgid: u32, start_ns: u64) -> io::Result<OwnedFd> {
    let then = start_ns / ns_per_clock_tick();
    open_if(tgid, |ticks| ticks < then)
}

fn open_if(tgid: u32, is_right: impl Fn(u64) -> bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(format!("/proc/{tgid}"), flags, Mode::empty())?;
    match start_ticks(&read_at(&dir, "stat", 4096)?) {
        Some(ticks) if is_right(ticks) => Ok(dir),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Opens a file below a directory for reading.
pub fn open_at(dir: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(openat(dir, name, flags, Mode::empty())?.into())
}

/// At most `limit` bytes of a file below a directory.
pub fn read_at(dir: impl AsFd, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_at(dir, name)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// When a process began, clock ticks, from its `/proc/PID/stat`.
pub fn start_ticks(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)
}

/// Which program a process executes now: where its stack began, which is somewhere else after each execve(2) where addresses
/// are randomized. `None` if the process has no memory any more, or we may not know.
pub fn image(process: impl AsFd) -> Option<u64> {
    stat_field(&read_at(process, "stat", 4096).ok()?, 28).filter(|&start| start > 1)
}

/// A field of `/proc/PID/stat`, counted from 1, from the third one on; the name in field 2 may hold anything.
fn stat_field(stat: &[u8], number: usize) -> Option<u64> {
    let behind_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = stat.get(behind_name..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    std::str::from_utf8(fields.nth(number.checked_sub(3)?)?).ok()?.parse().ok()
}

/// Length of one tick of the clock that procfs counts in (USER_HZ).
pub fn ns_per_clock_tick() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// All executable mappings by rising address.
pub fn read_all(process: impl AsFd) -> io::Result<Vec<Mapping>> {
    Ok(parse(&read_at(process, "maps", MAX_MAPS_BYTES)?))
}

/// Executable mappings in the text of `/proc/PID/maps`; lines that cannot be understood are passed over.
pub fn parse(text: &[u8]) -> Vec<Mapping> {
    let mut mappings: Vec<_> = text.split(|&byte| byte == b'\n').filter_map(parse_line).collect();
    mappings.sort_by_key(|mapping| mapping.start);
    mappings
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let line = String::from_utf8_lossy(line);
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let perms = fields.next()?;
    let offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next().unwrap_or("").trim_start_matches(' ');
    let dev = (hex(major)?.try_into().ok()?, hex(minor)?.try_into().ok()?);
    let executable = perms.as_bytes().get(2) == Some(&b'x') && start < end;
    executable.then(|| Mapping { start, end, offset, dev, inode, path: clean(path) })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn clean(path: &str) -> String {
    path.strip_suffix(" (deleted)").unwrap_or(path).to_owned()
}

/// `struct procmap_query` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: u64 = (3 << 30) | ((size_of::<Query>() as u64) << 16) | ((b'f' as u64) << 8) | 17;
const VMA_EXECUTABLE: u64 = 4;

/// What asking for one address gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It lies in this executable mapping.
    Mapping(Mapping),
    /// Nothing executable is there.
    Nothing,
    /// This kernel cannot be asked so.
    Unsupported,
    /// The process has no memory any more.
    Gone,
}

/// Asks for the mapping at one address; `maps` is an open `/proc/PID/maps`.
pub fn query(maps: &File, address: u64) -> Answer {
    let mut name = [0u8; MAX_PATH];
    let mut query = Query {
        size: size_of::<Query>() as u64,
        address,
        name_size: MAX_PATH as u32,
        name_address: name.as_mut_ptr() as u64,
        ..Query::default()
    };
    // SAFETY: `query` is the structure that this request reads and writes, and `name` outlives the call and is as long
    // as `name_size` says.
    let result = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY as _, &mut query) };
    if result < 0 {
        return match io::Error::last_os_error().raw_os_error() {
            Some(libc::ENOENT) => Answer::Nothing,
            Some(libc::ESRCH) => Answer::Gone,
            _ => Answer::Unsupported,
        };
    }
    if query.vma_flags & VMA_EXECUTABLE == 0 {
        return Answer::Nothing;
    }
    let length = (query.name_size as usize).min(MAX_PATH).saturating_sub(1);
    Answer::Mapping(Mapping {
        start: query.start,
        end: query.end,
        offset: query.offset,
        dev: (query.dev_major, query.dev_minor),
        inode: query.inode,
        path: clean(&String::from_utf8_lossy(&name[..length])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 131 /usr/bin/a b\n\
55d0c0a02000-55d0c0a05000 r-xp 00002000 fe:01 131 /usr/bin/a b\n\
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
7f1000000000-7f1000001000 r-xp 00001000 00:2a 7    /tmp/x (deleted)\n\
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]\n\
7f2000000000-7f20000";

    #[test]
    fn executable_mappings_only() {
        let mappings = parse(MAPS);
        let seen: Vec<_> = mappings.iter().map(|at| (at.start, at.offset, at.inode, at.path.as_str())).collect();
        assert_eq!(
            seen,
            [
                (0x55d0_c0a0_2000, 0x2000, 131, "/usr/bin/a b"),
                (0x7f00_0000_0000, 0, 0, ""),
                (0x7f10_0000_0000, 0x1000, 7, "/tmp/x"),
                (0x7ffc_0000_0000, 0, 0, "[vdso]"),
            ]
        );
        assert_eq!(mappings[2].dev, (0, 0x2a));
    }

    #[test]
    fn torn_and_foreign_texts() {
        for cut in 0..MAPS.len() {
            parse(&MAPS[..cut]);
        }
        assert!(parse(b"\xff\xfe\n\0\0\nzz-yy r-xp\n9-1 r-xp 0 0:0 0 x\n1-2\n1-2 r-xp 0 fffffffff:0 1 x").is_empty());
    }

    #[test]
    fn start_time_behind_a_hostile_name() {
        let fields = (3..=30).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_ticks(format!("1 (a) 1 2 (b) {fields}").as_bytes()), Some(22));
        assert_eq!(start_ticks(b"1 (a) S 1"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn asking_and_reading_agree() {
        let here = asking_and_reading_agree as *const () as u64;
        let dir = rustix::fs::open("/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let read = read_all(&dir).unwrap().into_iter().find(|mapping| mapping.contains(here)).unwrap();
        match query(&open_at(&dir, "maps").unwrap(), here) {
            Answer::Mapping(mapping) => assert_eq!(mapping, read),
            Answer::Unsupported => eprintln!("skipped: this kernel has no PROCMAP_QUERY"),
            other => panic!("{other:?}"),
        }
        assert_eq!(query(&open_at(&dir, "maps").unwrap(), 8), Answer::Nothing);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let dir = rustix::fs::open("/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let ticks = start_ticks(&read_at(&dir, "stat", 4096).unwrap()).unwrap();
        let mut key = ProcessKey { tgid: std::process::id(), start_ns: ticks * ns_per_clock_tick() + 5 };
        assert!(open_process(key).is_ok());
        key.start_ns += ns_per_clock_tick();
        assert_eq!(open_process(key).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
