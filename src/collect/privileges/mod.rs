//! What this process may do on this machine, read from procfs and sysfs: capabilities, the kernel's settings, what confines
//! it. `explain` turns that and what the kernel answered into a reason with a name, and what would mend it.

mod explain;

use std::fs;
use std::path::Path;

pub use explain::errno_name;

use super::host::{self, Identity, read_bounded};

/// The kernel's own types, which our programs are fitted to.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A capability that matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// As `capabilities(7)` writes it.
    pub name: &'static str,
    /// Its bit (`linux/capability.h`).
    pub bit: u32,
}

const fn capability(name: &'static str, bit: u32) -> Capability {
    Capability { name, bit }
}

/// To read any file and directory: `/proc/PID/map_files` of others, programs that only their owner may read.
pub const CAP_DAC_READ_SEARCH: Capability = capability("CAP_DAC_READ_SEARCH", 2);
/// To look into processes of others: their programs, files and memory.
pub const CAP_SYS_PTRACE: Capability = capability("CAP_SYS_PTRACE", 19);
/// What was not split off yet; to have BPF programs timed.
pub const CAP_SYS_ADMIN: Capability = capability("CAP_SYS_ADMIN", 21);
/// To see addresses of the kernel.
pub const CAP_SYSLOG: Capability = capability("CAP_SYSLOG", 34);
/// To load programs that trace, and to sample.
pub const CAP_PERFMON: Capability = capability("CAP_PERFMON", 38);
/// To load BPF programs at all.
pub const CAP_BPF: Capability = capability("CAP_BPF", 39);
/// To open mapped files themselves, by `/proc/PID/map_files`.
pub const CAP_CHECKPOINT_RESTORE: Capability = capability("CAP_CHECKPOINT_RESTORE", 40);

/// All that full function takes.
pub const WANTED: [Capability; 6] =
    [CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_SYSLOG, CAP_CHECKPOINT_RESTORE];

/// What the kernel forbids everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lockdown {
    /// Nothing, or it has no such thing.
    #[default]
    None,
    /// To change the running kernel.
    Integrity,
    /// To read its memory, too.
    Confidentiality,
}

impl Lockdown {
    /// As the kernel writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Lockdown::None => "none",
            Lockdown::Integrity => "integrity",
            Lockdown::Confidentiality => "confidentiality",
        }
    }
}

/// What this process may do. What could not be read is `None`, or as it is on most machines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Privileges {
    /// Effective capabilities; `None` if procfs does not say.
    pub effective: Option<u64>,
    /// Those that a program can get at all.
    pub bounding: Option<u64>,
    /// `no_new_privs` is set: file capabilities are not given.
    pub no_new_privs: bool,
    /// A seccomp filter is in force.
    pub seccomp_filter: bool,
    /// Not the first user namespace: capabilities count for its own things only.
    pub user_namespace: bool,
    /// Not the first pid namespace: processes outside of it cannot be seen …
    pub pid_namespace: bool,
    /// … but in /proc, which is of one above.
    pub proc_from_above: bool,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.perf_event_max_sample_rate`.
    pub perf_event_max_sample_rate: Option<i64>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<i64>,
    /// What nobody may.
    pub lockdown: Lockdown,
    /// The kernel describes its types.
    pub btf: bool,
    /// RLIMIT_MEMLOCK, bytes; `None`: no limit.
    pub memlock_bytes: Option<u64>,
    /// Release of the kernel: (6, 18).
    pub kernel: (u32, u32),
    /// Capabilities that the file of this program grants.
    pub of_file: u64,
    /// The file system of this program grants none (`nosuid`).
    pub nosuid: bool,
    /// Where this program is.
    pub program: String,
    /// Effective user.
    pub uid: u32,
    /// `hidepid` of /proc: others' processes cannot be seen.
    pub hidepid: bool,
}

impl Privileges {
    /// Of this process, now.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let setting = |name: &str| read_bounded(&format!("/proc/sys/kernel/{name}"), 64)?.trim().parse().ok();
        let memlock = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        let program = fs::read_link("/proc/self/exe").map_or("sberf".into(), |path| path.display().to_string());
        Privileges {
            effective: capabilities(&status, "CapEff:"),
            bounding: capabilities(&status, "CapBnd:"),
            no_new_privs: number(&status, "NoNewPrivs:") == Some(1),
            seccomp_filter: number(&status, "Seccomp:") == Some(2),
            user_namespace: read_bounded("/proc/self/uid_map", 4096).is_some_and(|map| is_namespace(&map)),
            pid_namespace: host::in_pid_namespace() == Some(true),
            proc_from_above: host::own_pid() != std::process::id(),
            perf_event_paranoid: setting("perf_event_paranoid"),
            perf_event_max_sample_rate: setting("perf_event_max_sample_rate"),
            unprivileged_bpf_disabled: setting("unprivileged_bpf_disabled"),
            kptr_restrict: setting("kptr_restrict"),
            lockdown: read_bounded("/sys/kernel/security/lockdown", 256).map_or(Lockdown::None, |text| lockdown(&text)),
            btf: Path::new(BTF).exists(),
            memlock_bytes: memlock,
            kernel: release(&Identity::read().kernel),
            of_file: file_capabilities(),
            nosuid: is_nosuid(),
            program,
            uid: rustix::process::geteuid().as_raw(),
            hidepid: read_bounded("/proc/self/mountinfo", 1 << 20).is_some_and(|mounts| hides_pids(&mounts)),
        }
    }

    /// Whether it has that capability, as far as can be known. `CAP_SYS_ADMIN` stands for the two that were once part of it.
    pub fn has(&self, capability: Capability) -> bool {
        let Some(effective) = self.effective else { return true };
        let has = |capability: Capability| effective >> capability.bit & 1 == 1;
        let once_admin = [CAP_BPF, CAP_PERFMON, CAP_CHECKPOINT_RESTORE].contains(&capability);
        has(capability) || once_admin && has(CAP_SYS_ADMIN)
    }

    /// Which of these it lacks.
    pub fn missing(&self, of: &[Capability]) -> Vec<Capability> {
        of.iter().copied().filter(|capability| !self.has(*capability)).collect()
    }

    /// The names of those that it has, among those that matter.
    pub fn capabilities(&self) -> Vec<&'static str> {
        let all = WANTED.into_iter().chain([CAP_SYS_ADMIN]);
        let effective = self.effective.unwrap_or(0);
        all.filter(|capability| effective >> capability.bit & 1 == 1).map(|capability| capability.name).collect()
    }
}

fn value<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn number(status: &str, name: &str) -> Option<u64> {
    value(status, name)?.parse().ok()
}

fn capabilities(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(value(status, name)?, 16).ok()
}

/// The map of the first namespace is the identity on all ids.
fn is_namespace(uid_map: &str) -> bool {
    let fields: Vec<&str> = uid_map.split_ascii_whitespace().collect();
    fields != ["0", "0", "4294967295"]
}

/// `none [integrity] confidentiality`: the one in brackets.
fn lockdown(text: &str) -> Lockdown {
    match text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(level, _)| level) {
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::None,
    }
}

/// `6.18.44-generic`: (6, 18).
fn release(text: &str) -> (u32, u32) {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Whether the last mount of /proc has `hidepid` (1, 2, 4 or their names).
fn hides_pids(mountinfo: &str) -> bool {
    let proc = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let option =
        |line: &str| line.split([' ', ',']).find_map(|option| option.strip_prefix("hidepid=").map(str::to_owned));
    proc.and_then(option).is_some_and(|level| level != "0" && level != "off")
}

/// The extended attribute `security.capability` of this program: permitted capabilities (`linux/capability.h`,
/// `struct vfs_cap_data`).
fn file_capabilities() -> u64 {
    let mut bytes = [0u8; 64];
    let read = rustix::fs::getxattr("/proc/self/exe", "security.capability", &mut bytes);
    read.map_or(0, |length| parse_file_capabilities(bytes.get(..length).unwrap_or_default()))
}

fn parse_file_capabilities(bytes: &[u8]) -> u64 {
    let word = |at: usize| {
        let bytes: [u8; 4] = bytes.get(4 * at..4 * at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_le_bytes(bytes)))
    };
    // Revision, then permitted and inheritable, low words before high ones.
    word(1).unwrap_or(0) | word(3).unwrap_or(0) << 32
}

fn is_nosuid() -> bool {
    let flags = rustix::fs::statvfs("/proc/self/exe").map(|fs| fs.f_flag);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOSUID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_decide_not_the_user() {
        let of = |effective| Privileges { effective, ..Privileges::default() };
        assert_eq!(of(Some(0x0000_01ff_ffff_ffff)).missing(&WANTED), []);
        assert_eq!(of(None).missing(&WANTED), [], "loading will tell");
        let both = of(Some(0x0000_00c0_0000_0000));
        assert_eq!(both.missing(&[CAP_BPF, CAP_PERFMON]), []);
        assert_eq!(both.missing(&WANTED), [CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_SYSLOG, CAP_CHECKPOINT_RESTORE]);
        assert_eq!(of(Some(0x0000_0080_0000_0000)).missing(&[CAP_BPF, CAP_PERFMON]), [CAP_PERFMON]);
        let admin = of(Some(1 << 21));
        assert_eq!(admin.missing(&WANTED), [CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_SYSLOG]);
        assert_eq!(admin.capabilities(), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn texts_of_the_kernel() {
        let status = "Name:\tx\nCapEff:\t000001fffeffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(capabilities(status, "CapEff:"), Some(0x1ff_feff_ffff));
        assert_eq!((number(status, "NoNewPrivs:"), number(status, "Seccomp:")), (Some(1), Some(2)));
        assert_eq!(number("", "Seccomp:"), None);
        assert!(!is_namespace("         0          0 4294967295\n"));
        assert!(is_namespace("0 1000 1\n") && is_namespace("0 100000 65536"));
        assert_eq!(lockdown("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(lockdown("none integrity [confidentiality]"), Lockdown::Confidentiality);
        assert_eq!((lockdown("[none] integrity"), lockdown("")), (Lockdown::None, Lockdown::None));
        assert_eq!((release("6.18.44"), release("5.10.0-30-amd64"), release("")), ((6, 18), (5, 10), (0, 0)));
        let mounts = "22 1 0:5 / /proc rw,relatime - proc proc rw,hidepid=invisible\n23 1 0:6 / /sys rw - sysfs s rw\n";
        assert!(hides_pids(mounts));
        assert!(!hides_pids(&mounts.replace("invisible", "0")) && !hides_pids(""));
    }

    #[test]
    fn capabilities_of_a_file() {
        // cap_bpf,cap_perfmon,cap_syslog,cap_sys_ptrace=ep, as setcap writes it.
        let mut bytes = vec![1, 0, 0, 2];
        for word in [1u32 << 19, 0, 1 << 7 | 1 << 6 | 1 << 2, 0] {
            bytes.extend(word.to_le_bytes());
        }
        assert_eq!(parse_file_capabilities(&bytes), 1 << 19 | 1 << 34 | 1 << 38 | 1 << 39);
        assert_eq!(parse_file_capabilities(&bytes[..7]), 0);
    }

    #[test]
    fn of_this_process() {
        let privileges = Privileges::read();
        assert!(privileges.effective.is_some() && privileges.kernel >= (4, 0), "{privileges:?}");
    }
}
