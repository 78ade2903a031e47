//! Reads the facts of one process from procfs.

use rustix::fs::readlinkat;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use super::mappings::{open_at, open_process, read_at};
use super::reconcile::numbers_in;
use crate::tick::{ProcessFacts, ProcessKey};

/// Of a command line; longer ones are cut.
const MAX_CMDLINE: u64 = 16 << 10;
/// Lines of numa_maps are one for each mapping; a file of more than this is not read to its end, and not shown.
const MAX_NUMA_MAPS: u64 = 64 << 20;

/// The part of [`crate::tick::ProcessFacts`] that procfs knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FactsPart {
    /// Arguments; `None` where there are none.
    pub cmdline: Option<Vec<String>>,
    /// Path of the program.
    pub exe: Option<String>,
    /// Path within the cgroup hierarchy.
    pub cgroup: Option<String>,
    /// Pid inside its own pid namespace, where that differs.
    pub inner_pid: Option<u32>,
}

impl FactsPart {
    /// Puts it where it belongs.
    pub fn update(self, facts: &mut ProcessFacts) {
        let FactsPart { cmdline, exe, cgroup, inner_pid } = self;
        (facts.cmdline, facts.exe, facts.cgroup, facts.inner_pid) = (cmdline, exe, cgroup, inner_pid);
    }
}

/// Resident bytes by node.
pub type NodePages = Vec<u64>;

/// Reads facts; knows in which pid namespace it lives itself.
pub struct Reader {
    own_namespace: Option<Vec<u8>>,
}

impl Reader {
    /// Looks at itself.
    pub fn new() -> Self {
        let own = rustix::fs::readlink("/proc/self/ns/pid", Vec::new()).ok();
        Reader { own_namespace: own.map(std::ffi::CString::into_bytes) }
    }

    /// Facts of exactly that process; `None` if it is gone.
    pub fn facts(&mut self, key: ProcessKey) -> Option<FactsPart> {
        let dir = open_process(key).ok()?;
        let part = FactsPart {
            cmdline: read_at(&dir, "cmdline", MAX_CMDLINE).ok().and_then(|bytes| parse_cmdline(&bytes)),
            exe: link(&dir, "exe"),
            cgroup: read_at(&dir, "cgroup", 64 << 10).ok().and_then(|bytes| parse_cgroup(&bytes)),
            inner_pid: self.inner_pid(&dir),
        };
        Some(part)
    }

    /// Resident bytes of exactly that process on each of these nodes; `None` if that cannot be known.
    pub fn placement(&mut self, key: ProcessKey, nodes: &[u32]) -> Option<NodePages> {
        let dir = open_process(key).ok()?;
        match nodes {
            [] => None,
            [_] => {
                let statm = read_at(&dir, "statm", 4096).ok()?;
                let pages: u64 = std::str::from_utf8(&statm).ok()?.split(' ').nth(1)?.parse().ok()?;
                Some(vec![pages.checked_mul(rustix::param::page_size() as u64)?])
            }
            _ => parse_numa_maps(BufReader::new(open_at(&dir, "numa_maps").ok()?), nodes),
        }
    }

    fn inner_pid(&self, dir: &OwnedFd) -> Option<u32> {
        let namespace = readlinkat(dir, "ns/pid", Vec::new()).ok()?;
        if self.own_namespace.as_deref() == Some(namespace.as_bytes()) {
            return None;
        }
        parse_inner_pid(&read_at(dir, "status", 16 << 10).ok()?)
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

fn link(dir: &OwnedFd, name: &str) -> Option<String> {
    Some(readlinkat(dir, name, Vec::new()).ok()?.to_string_lossy().into_owned())
}

/// Arguments; programs that write their own title pad it with NULs.
fn parse_cmdline(bytes: &[u8]) -> Option<Vec<String>> {
    let end = bytes.iter().rposition(|&byte| byte != 0)? + 1;
    Some(bytes[..end].split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// The path in the unified hierarchy, else in that of the CPU controller, else of the first. Where both versions are mounted
/// a process may be in the root of one: then the path in the other says more.
fn parse_cgroup(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let is_cpu = |line: &&str| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == "cpu"));
    let unified = text.lines().find(|line| line.starts_with("0::")).and_then(path);
    let cpu = text.lines().find(is_cpu).and_then(path);
    let below = |path: &String| path != "/";
    let telling = unified.clone().filter(below).or_else(|| cpu.clone().filter(below));
    let telling = telling.or_else(|| text.lines().filter_map(path).find(below));
    telling.or(unified).or(cpu).or_else(|| text.lines().find_map(path))
}

/// The ids of this process from the pid namespace of `/proc` down to its own.
pub fn own_ids() -> Vec<u32> {
    std::fs::read("/proc/self/status").map_or_else(|_| Vec::new(), |status| parse_ids(&status))
}

/// PIDs of the processes that have this PID in a pid namespace of their own, by rising PID.
pub fn with_inner_pid(inner: u32) -> Vec<u32> {
    let has_it = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/status")).is_ok_and(|status| parse_inner_pid(&status) == Some(inner))
    };
    let mut pids: Vec<u32> = numbers_in("/proc").into_iter().filter(has_it).collect();
    pids.sort_unstable();
    pids
}

fn parse_ids(status: &[u8]) -> Vec<u32> {
    let status = String::from_utf8_lossy(status);
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// The last number of `NSpid:` when there are several.
fn parse_inner_pid(status: &[u8]) -> Option<u32> {
    match *parse_ids(status) {
        [_, .., inner] => Some(inner),
        _ => None,
    }
}

/// Sums `N<node>=<pages>` × `kernelpagesize_kB=<n>` of each line.
fn parse_numa_maps(text: impl Read, nodes: &[u32]) -> Option<NodePages> {
    let mut bytes = vec![0u64; nodes.len()];
    let mut lines = BufReader::new(text.take(MAX_NUMA_MAPS));
    let mut line = Vec::new();
    let mut total = 0u64;
    while lines.read_until(b'\n', &mut line).ok()? > 0 {
        total += line.len() as u64;
        add_mapping(&String::from_utf8_lossy(&line), nodes, &mut bytes);
        line.clear();
    }
    (total < MAX_NUMA_MAPS).then_some(bytes)
}

fn add_mapping(line: &str, nodes: &[u32], bytes: &mut [u64]) {
    let page = line.split_ascii_whitespace().find_map(|field| field.strip_prefix("kernelpagesize_kB=")?.parse().ok());
    let page_bytes = page.map_or(4096, |kib: u64| kib.saturating_mul(1024));
    // A file name comes before the counts and may look like one of them, but holds a `/` then.
    for field in line.split_ascii_whitespace().skip(2) {
        let Some((node, pages)) = field.strip_prefix('N').and_then(|field| field.split_once('=')) else { continue };
        let (Ok(node), Ok(pages)) = (node.parse::<u32>(), pages.parse::<u64>()) else { continue };
        if let Some(at) = nodes.iter().position(|&id| id == node) {
            bytes[at] = bytes[at].saturating_add(pages.saturating_mul(page_bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str) -> OwnedFd {
        use rustix::fs::{Mode, OFlags};
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn command_lines() {
        let words = |bytes| parse_cmdline(bytes).map(|words| words.join("|"));
        assert_eq!(words(b"sh\0-c\0\0x y\0").as_deref(), Some("sh|-c||x y"));
        assert_eq!(words(b"postgres: writer\0\0\0\0").as_deref(), Some("postgres: writer"));
        assert_eq!(words(b"no end").as_deref(), Some("no end"));
        assert_eq!(words(b"\xff\x1b[2J\0").as_deref(), Some("\u{fffd}\x1b[2J"));
        assert_eq!(words(b"\0\0"), None);
        assert_eq!(words(b""), None);
    }

    #[test]
    fn cgroups_of_both_kinds() {
        assert_eq!(parse_cgroup(b"0::/user.slice/a:b\n").as_deref(), Some("/user.slice/a:b"));
        assert_eq!(parse_cgroup(b"5:cpu,cpuacct:/docker/1\n0::/x\n").as_deref(), Some("/x"));
        assert_eq!(parse_cgroup(b"5:cpu:/docker/1\n1:name=systemd:/y\n").as_deref(), Some("/docker/1"));
        assert_eq!(parse_cgroup(b"3:cpuset:/set\n5:cpu,cpuacct:/app/quota\n0::/\n").as_deref(), Some("/app/quota"));
        assert_eq!(parse_cgroup(b"3:memory:/\n5:cpu:/\n0::/\n").as_deref(), Some("/"));
        assert_eq!(parse_cgroup(b"5:cpu"), None);
        assert_eq!(parse_cgroup(b""), None);
    }

    #[test]
    fn pids_inside() {
        assert_eq!(parse_inner_pid(b"Name:\tx\nNSpid:\t120\t7\t1\n"), Some(1));
        assert_eq!(parse_inner_pid(b"NSpid:\t120\n"), None);
        assert_eq!(parse_inner_pid(b"NSpid:\n"), None);
        assert_eq!(parse_inner_pid(b""), None);
        assert_eq!(parse_ids(b"NSpid:\t120\t7\t1\n"), [120, 7, 1]);
        assert_eq!(own_ids().last(), Some(&std::process::id()));
        assert!(with_inner_pid(u32::MAX).is_empty());
    }

    #[test]
    fn memory_by_node() {
        let text = "7f00 default file=/tmp/N1=5 mapped=3 N0=3 N2=1 kernelpagesize_kB=4\n7f01 bind:1 huge N2=2 kernelpagesize_kB=2048\n7f02 N0";
        assert_eq!(parse_numa_maps(text.as_bytes(), &[0, 2]), Some(vec![3 * 4096, 4096 + (4 << 20)]));
        assert_eq!(parse_numa_maps(&b"x y N0=18446744073709551615 N0=1\n"[..], &[0]), Some(vec![u64::MAX]));
        assert_eq!(parse_numa_maps(&b""[..], &[0]), Some(vec![0]));
    }

    #[test]
    fn a_process_in_our_namespace_has_no_inner_pid() {
        assert_eq!(Reader::new().inner_pid(&directory("/proc/self")), None);
        assert!(link(&directory("/proc/self"), "exe").is_some());
    }
}
