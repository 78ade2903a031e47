//! The machine as a whole: who it is, its gauges, and what this process costs it.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use super::reread::Reread;
use crate::tick::Host;

/// What `uname` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `uname -n`.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
}

impl Identity {
    /// Of this machine.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
        Identity { hostname: text(uname.nodename()), kernel: text(uname.release()), arch: text(uname.machine()) }
    }
}

/// `/proc/self/ns/pid` in the first pid namespace: the kernel has a fixed number for it (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether this process lives in another pid namespace than the first; `None` if procfs does not say.
pub fn in_pid_namespace() -> Option<bool> {
    fs::read_link("/proc/self/ns/pid").ok().map(|link| link.as_os_str() != FIRST_PID_NAMESPACE)
}

/// Our own PID as `/proc` has it, which is another one where that is of a pid namespace above ours.
pub fn own_pid() -> u32 {
    let link = fs::read_link("/proc/self").ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or_else(std::process::id)
}

/// The PID, as `/proc` has it, of a process that we know by the one that it has for us: our child.
pub fn shown_pid(pid: u32) -> u32 {
    if own_pid() == std::process::id() {
        return pid;
    }
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
    process.and_then(|process| pid_of(&process)).unwrap_or(pid)
}

/// The PID, as `/proc` has it, of the process that a descriptor is of; `None` once it is gone.
pub fn pid_of(process: &OwnedFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// Now on a clock, ns.
pub fn now_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// CLOCK_BOOTTIME minus CLOCK_MONOTONIC: the time this machine has slept.
pub fn boot_offset_ns() -> u64 {
    // The one that is behind is asked first, so that the difference is never negative.
    let monotonic = now_ns(ClockId::Monotonic);
    now_ns(ClockId::Boottime).saturating_sub(monotonic)
}

/// User names by uid from `/etc/passwd`; users of a directory service are not in it.
pub fn users() -> Vec<(u32, String)> {
    read_bounded("/etc/passwd", 8 << 20).map_or_else(Vec::new, |text| parse_passwd(&text))
}

/// The first name for each uid, by rising uid.
fn parse_passwd(text: &str) -> Vec<(u32, String)> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['#', '+', '-']))?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    let mut users: Vec<(u32, String)> = text.lines().filter_map(user).collect();
    users.sort_by_key(|(uid, _)| *uid);
    users.dedup_by_key(|(uid, _)| *uid);
    users
}

/// At most `limit` bytes of a file as text.
pub(super) fn read_bounded(path: &str, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads the gauges of the machine.
pub struct Gauges {
    load: Option<Reread>,
    memory: Option<Reread>,
}

impl Gauges {
    /// Opens what it reads.
    pub fn new() -> Self {
        Gauges { load: Reread::open("/proc/loadavg", 4096).ok(), memory: Reread::open("/proc/meminfo", 64 << 10).ok() }
    }

    /// The gauges now; what cannot be read is 0.
    pub fn read(&mut self) -> Host {
        let mut host = self.memory.as_mut().and_then(Reread::read).map_or_else(Host::default, parse_meminfo);
        host.load = self.load.as_mut().and_then(Reread::read).map_or([0.0; 3], parse_loadavg);
        host.uptime_ns = now_ns(ClockId::Boottime);
        host.boot_offset_ns = boot_offset_ns();
        host
    }
}

impl Default for Gauges {
    fn default() -> Self {
        Self::new()
    }
}

fn parse_loadavg(text: &str) -> [f32; 3] {
    let mut fields =
        text.split_ascii_whitespace().map(|field| field.parse().ok().filter(|load: &f32| load.is_finite()));
    [(); 3].map(|()| fields.next().flatten().unwrap_or(0.0))
}

fn parse_meminfo(text: &str) -> Host {
    let mut host = Host::default();
    let mut free = 0;
    let mut available = None;
    for (name, bytes) in text.lines().filter_map(meminfo_line) {
        match name {
            "MemTotal" => host.memory_total = bytes,
            "MemFree" => free = bytes,
            "MemAvailable" => available = Some(bytes),
            "SwapTotal" => host.swap_total = bytes,
            "SwapFree" => host.swap_free = bytes,
            _ => {}
        }
    }
    host.memory_available = available.unwrap_or(free);
    host
}

/// One line of a meminfo file, as (name, bytes); those of a node begin with `Node N`.
pub(super) fn meminfo_line(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(':')?;
    let mut value = value.split_ascii_whitespace();
    let amount: u64 = value.next()?.parse().ok()?;
    let unit = if value.next() == Some("kB") { 1024 } else { 1 };
    Some((name.rsplit(' ').next()?, amount.saturating_mul(unit)))
}

/// What this process costs, all its threads.
pub struct OwnCost {
    memory: Option<Reread>,
    page_bytes: u64,
}

impl OwnCost {
    /// Opens what it reads.
    pub fn new() -> Self {
        let memory = Reread::open("/proc/self/statm", 4096).ok();
        OwnCost { memory, page_bytes: rustix::param::page_size() as u64 }
    }

    /// CPU time since its start, ns. Rises.
    pub fn cpu_ns(&self) -> u64 {
        now_ns(ClockId::ProcessCPUTime)
    }

    /// Resident memory, bytes; 0 if it cannot be read.
    pub fn rss_bytes(&mut self) -> u64 {
        let pages = self.memory.as_mut().and_then(Reread::read).and_then(|text| text.split(' ').nth(1)?.parse().ok());
        self.page_bytes.saturating_mul(pages.unwrap_or(0))
    }
}

impl Default for OwnCost {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_texts() {
        assert_eq!(parse_loadavg("0.52 1.25 12.00 2/345 6789\n"), [0.52, 1.25, 12.0]);
        assert_eq!(parse_loadavg("0.52 x"), [0.52, 0.0, 0.0]);
        assert_eq!(parse_loadavg("inf NaN"), [0.0; 3]);
        let text = "MemTotal:   2048 kB\nMemFree:  100 kB\nMemAvailable: 1024 kB\nSwapTotal: 4 kB\nSwapFree: 3 kB\nHugePages_Total: 7\n";
        let host = parse_meminfo(text);
        assert_eq!((host.memory_total, host.memory_available), (2 << 20, 1 << 20));
        assert_eq!((host.swap_total, host.swap_free), (4096, 3072));
        assert_eq!(meminfo_line("Node 1 MemFree:   12 kB"), Some(("MemFree", 12288)));
        assert_eq!(meminfo_line("HugePages_Total:  7"), Some(("HugePages_Total", 7)));
        assert_eq!(meminfo_line("torn: "), None);
        assert_eq!(meminfo_line(": 99999999999999999999"), None);
    }

    #[test]
    fn users_of_a_file_that_anyone_wrote() {
        let text = "root:x:0:0:root:/root:/bin/sh\n# c:x:9:\ntoor:x:0:0::/:\n+nis:x:7:\nnobody:x:65534:\nbad:x:-1:\nbad:x:4294967296:\nx\n\n:x:5:";
        assert_eq!(parse_passwd(text), [(0, "root".to_owned()), (65534, "nobody".to_owned())]);
    }

    #[test]
    fn this_machine() {
        let identity = Identity::read();
        assert!(!identity.kernel.is_empty() && !identity.arch.is_empty());
        let host = Gauges::new().read();
        assert!(host.memory_available <= host.memory_total && host.memory_total > 0);
        let mut cost = OwnCost::new();
        let before = cost.cpu_ns();
        assert!((0..3_000_000u64).fold(0u64, |sum, i| std::hint::black_box(sum ^ i)) < u64::MAX);
        assert!(cost.cpu_ns() > before && cost.rss_bytes() > 1 << 20);
        assert_eq!(users().iter().find(|(uid, _)| *uid == 0).map(|(_, name)| name.as_str()), Some("root"));
    }
}
