//! From "the kernel said no" to a reason that has a name, and what would mend it.

use super::{
    CAP_BPF, CAP_CHECKPOINT_RESTORE, CAP_DAC_READ_SEARCH, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYSLOG,
    Capability, Lockdown, Privileges,
};
use crate::tick::Refusal;

/// Memory that maps took of RLIMIT_MEMLOCK before 5.11.
const MAPS_BYTES: u64 = 128 << 20;

impl Privileges {
    /// Why BPF programs or maps were refused. `said`: what was tried and what the kernel answered.
    pub fn explain_bpf(&self, said: &str, errno: Option<i32>) -> Refusal {
        let said = plain(said);
        let (why, remedy) = self.why_no_bpf(errno);
        let why = if why.is_empty() { said } else { format!("{why} ({said})") };
        Refusal { why, errno, remedy }
    }

    fn why_no_bpf(&self, errno: Option<i32>) -> (String, String) {
        let missing = self.missing(&[CAP_BPF, CAP_PERFMON]);
        let denied = matches!(errno, Some(libc::EPERM | libc::EACCES));
        if !self.btf {
            let why = "this kernel does not describe its types: /sys/kernel/btf/vmlinux is missing";
            let remedy =
                "a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, /sys of the host (-v /sys:/sys:ro)";
            return (why.into(), remedy.into());
        }
        if denied && !missing.is_empty() {
            let open = match self.unprivileged_bpf_disabled {
                Some(disabled) if missing.contains(&CAP_BPF) && disabled != 0 => {
                    format!(" and kernel.unprivileged_bpf_disabled is {disabled}")
                }
                _ => String::new(),
            };
            let (why, remedy) = self.lacks(&missing);
            return (format!("{why}{open}"), remedy);
        }
        if denied && self.user_namespace {
            let why = "this is a user namespace, whose capabilities do not count for BPF";
            return (why.into(), "run it outside of the container, or in a privileged one".into());
        }
        // EINVAL: the verifier then does not know the helpers that read memory.
        if matches!(errno, Some(libc::EPERM | libc::EINVAL)) && self.lockdown == Lockdown::Confidentiality {
            let why = "the kernel is locked down (confidentiality): BPF may not read its memory";
            return (why.into(), "boot with lockdown=integrity or without Secure Boot".into());
        }
        if errno == Some(libc::EPERM) && self.seccomp_filter {
            return (seccomp("bpf()"), seccomp_remedy("bpf"));
        }
        if matches!(errno, Some(libc::EPERM | libc::ENOMEM)) && self.counts_maps_as_locked() {
            let limit = self.memlock_bytes.unwrap_or(0) >> 10;
            let why = format!("maps count as locked memory on kernels before 5.11, and RLIMIT_MEMLOCK is {limit} KiB");
            return (why, "ulimit -l unlimited, or LimitMEMLOCK=infinity, or CAP_SYS_RESOURCE".into());
        }
        let why = match errno {
            Some(libc::EPERM) => "the kernel forbids it to everybody, or a security module does",
            Some(libc::EACCES) => "the kernel's verifier, or a security module, does not accept the program",
            Some(libc::ENOENT | libc::ESRCH) => "this kernel does not have the tracepoints or types it needs",
            Some(libc::ENOMEM) => "the kernel has no memory for it",
            Some(libc::E2BIG) => "the program is larger than this kernel verifies",
            Some(libc::EMFILE) => "too many files are open: raise `ulimit -n`",
            _ => "",
        };
        (why.into(), String::new())
    }

    fn counts_maps_as_locked(&self) -> bool {
        self.kernel < (5, 11) && self.memlock_bytes.is_some_and(|limit| limit < MAPS_BYTES)
    }

    /// Why not all processes are told of, if that is so.
    pub fn explain_pid_namespace(&self) -> Option<Refusal> {
        let why = "this is a pid namespace of its own: processes outside of it are left out, and counted as such";
        let remedy = "run sberf in the pid namespace of the host: docker run --pid=host, hostPID: true in a pod";
        self.pid_namespace.then(|| Refusal::new(why, remedy))
    }

    /// Why a perf event was refused that was to sample `rate_hz` times per second.
    pub fn explain_perf(&self, what: &str, errno: i32, rate_hz: u32) -> Refusal {
        let denied = matches!(errno, libc::EPERM | libc::EACCES);
        let (why, remedy) = match (errno, self.perf_event_max_sample_rate) {
            // The kernel lowers it by itself when its interrupts take long.
            (libc::EINVAL, Some(most)) if i64::from(rate_hz) > most => {
                let why =
                    format!("{rate_hz} samples per second are more than kernel.perf_event_max_sample_rate, {most}");
                (why, format!("-F {most} or less, or sysctl kernel.perf_event_max_sample_rate={rate_hz}"))
            }
            _ => self.why_no_event(denied, errno),
        };
        let said = words(errno);
        let why = if why.is_empty() { format!("{what}: {said}") } else { format!("{why} ({what}: {said})") };
        Refusal { why, errno: Some(errno), remedy }
    }

    fn why_no_event(&self, denied: bool, errno: i32) -> (String, String) {
        match errno {
            _ if denied && !self.has(CAP_PERFMON) => {
                let paranoid = self.perf_event_paranoid.map_or("?".into(), |level| level.to_string());
                let (why, remedy) = self.lacks(&[CAP_PERFMON]);
                let remedy = format!("{remedy}, or sysctl kernel.perf_event_paranoid=0");
                (format!("{why} and kernel.perf_event_paranoid is {paranoid}"), remedy)
            }
            _ if denied && self.seccomp_filter => (seccomp("perf_event_open()"), seccomp_remedy("perf_event_open")),
            _ if denied => ("the kernel forbids it to everybody, or a security module does".into(), String::new()),
            libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV => {
                ("no PMU here: most virtual machines have none".into(), "a machine, or a virtual one with a PMU".into())
            }
            libc::EBUSY => ("the counter is taken, by the NMI watchdog or another profiler".into(), String::new()),
            libc::EMFILE => ("too many files are open".into(), "ulimit -n 4096".into()),
            _ => (String::new(), String::new()),
        }
    }

    /// Why addresses of the kernel are hidden.
    pub fn explain_kernel_addresses(&self) -> Refusal {
        let level = self.kptr_restrict.map_or("?".into(), |level| level.to_string());
        if self.has(CAP_SYSLOG) && self.kptr_restrict != Some(2) {
            return Refusal::new("/proc/kallsyms shows no addresses", "");
        }
        if self.has(CAP_SYSLOG) {
            let why = format!("kernel.kptr_restrict is {level}: /proc/kallsyms shows no addresses to anybody");
            return Refusal::new(why, "sysctl kernel.kptr_restrict=1");
        }
        let (why, remedy) = self.lacks(&[CAP_SYSLOG]);
        // 0 shows them to whoever may profile the kernel, too.
        let why = format!("{why}, so /proc/kallsyms shows no addresses (kernel.kptr_restrict is {level})");
        Refusal::new(why, remedy)
    }

    /// Why `/proc/PID/map_files` of others could not be opened.
    pub fn explain_map_files(&self, errno: i32) -> Refusal {
        self.explain_others(
            &[CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE],
            "/proc/PID/map_files of other users",
            errno,
        )
    }

    /// Why `/proc/PID/exe` and `root` of others could not be opened.
    pub fn explain_facts(&self, errno: i32) -> Refusal {
        self.explain_others(&[CAP_SYS_PTRACE], "/proc/PID/exe of other users", errno)
    }

    fn explain_others(&self, needs: &[Capability], what: &str, errno: i32) -> Refusal {
        let missing = self.missing(needs);
        let said = words(errno);
        let (why, remedy) = match missing.is_empty() {
            true if self.user_namespace => {
                ("this is a user namespace, whose capabilities do not reach further".into(), String::new())
            }
            true => ("the kernel or a security module forbids it".into(), String::new()),
            false => self.lacks(&missing),
        };
        Refusal { why: format!("{why} ({what}: {said})"), errno: Some(errno), remedy }
    }

    /// Why BPF programs are not timed.
    pub fn explain_statistics(&self, errno: i32) -> Refusal {
        let said = words(errno);
        let (why, remedy) = match self.has(CAP_SYS_ADMIN) {
            false => {
                let (why, remedy) = self.lacks(&[CAP_SYS_ADMIN]);
                (format!("{why} ({said})"), format!("{remedy}, or sysctl kernel.bpf_stats_enabled=1"))
            }
            true => (said, "sysctl kernel.bpf_stats_enabled=1".into()),
        };
        Refusal { why, errno: Some(errno), remedy }
    }

    /// These are missing, and why they are although the file of the program may grant them.
    fn lacks(&self, missing: &[Capability]) -> (String, String) {
        let names = missing.iter().map(|capability| capability.name).collect::<Vec<_>>().join(", ");
        let why = format!("{names} missing");
        let granted = missing.iter().any(|capability| self.of_file >> capability.bit & 1 == 1);
        let bound = self.bounding.unwrap_or(u64::MAX);
        if missing.iter().any(|capability| bound >> capability.bit & 1 == 0) {
            let remedy = format!("start the container with {}", container(missing));
            return (format!("{why}: not in the bounding set, so nothing here can have it"), remedy);
        }
        if granted && self.no_new_privs {
            let remedy = "start it outside of that, or NoNewPrivileges=no";
            return (format!("{why}: the program's file grants it, but no_new_privs is set"), remedy.into());
        }
        if granted && self.nosuid {
            let remedy = "install it on a file system that is mounted without nosuid";
            return (
                format!("{why}: the program's file grants it, but its file system is mounted nosuid"),
                remedy.into(),
            );
        }
        let list = names.to_lowercase().replace(", ", ",");
        (why, format!("sudo, or `setcap {list}+ep` for the program (with what it has already)"))
    }
}

fn container(missing: &[Capability]) -> String {
    missing
        .iter()
        .map(|capability| format!("--cap-add={}", capability.name.trim_start_matches("CAP_")))
        .collect::<Vec<_>>()
        .join(" ")
}

fn seccomp(call: &str) -> String {
    format!("a seccomp filter is in force, as containers and services have, and refuses {call}")
}

fn seccomp_remedy(call: &str) -> String {
    format!("a profile that allows {call} (Docker: --security-opt seccomp=unconfined; systemd: SystemCallFilter=)")
}

/// What the C library says of an error.
fn words(errno: i32) -> String {
    plain(&std::io::Error::from_raw_os_error(errno).to_string())
}

/// Without the numbers of errors: they are told by name.
fn plain(said: &str) -> String {
    let mut text = said.to_owned();
    while let Some(at) = text.find(" (os error ") {
        let end = text[at + 1..].find(')').map_or(text.len(), |length| at + length + 2);
        text.replace_range(at..end, "");
    }
    text
}

/// `EPERM` and its like, for those that occur here.
pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::E2BIG => "E2BIG",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::ENOSYS => "ENOSYS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => return format!("error {errno}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = 0x1ff_ffff_ffff;

    fn with(effective: u64) -> Privileges {
        let bounding = Some(ALL);
        Privileges { effective: Some(effective), bounding, btf: true, kernel: (6, 1), ..Privileges::default() }
    }

    fn without(capability: Capability) -> Privileges {
        with(ALL & !(1 << CAP_SYS_ADMIN.bit) & !(1 << capability.bit))
    }

    fn bpf(privileges: &Privileges, errno: i32) -> String {
        privileges.explain_bpf("loading", Some(errno)).to_string()
    }

    #[test]
    fn each_capability_is_named() {
        assert!(bpf(&without(CAP_BPF), libc::EPERM).starts_with("CAP_BPF missing (loading); sudo"));
        assert!(bpf(&without(CAP_PERFMON), libc::EPERM).starts_with("CAP_PERFMON missing"));
        let disabled = Privileges { unprivileged_bpf_disabled: Some(2), ..with(0) };
        let both = bpf(&disabled, libc::EPERM);
        assert!(both.starts_with("CAP_BPF, CAP_PERFMON missing and kernel.unprivileged_bpf_disabled is 2"), "{both}");
        assert!(both.contains("setcap cap_bpf,cap_perfmon+ep"), "{both}");
        for capability in [CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE] {
            let why = without(capability).explain_map_files(libc::EACCES).why;
            assert!(why.starts_with(&format!("{} missing", capability.name)), "{why}");
        }
        assert!(without(CAP_SYSLOG).explain_kernel_addresses().why.starts_with("CAP_SYSLOG missing"));
        let perf = Privileges { perf_event_paranoid: Some(2), ..without(CAP_PERFMON) };
        assert!(perf.explain_perf("cpu-clock", libc::EACCES, 99).why.contains("kernel.perf_event_paranoid is 2"));
    }

    #[test]
    fn what_stands_in_the_way_of_file_capabilities_is_named() {
        let granted = Privileges { of_file: ALL, ..with(0) };
        let why = |privileges: Privileges| bpf(&privileges, libc::EPERM);
        assert!(why(Privileges { no_new_privs: true, ..granted.clone() }).contains("no_new_privs is set"));
        assert!(why(Privileges { nosuid: true, ..granted.clone() }).contains("mounted nosuid"));
        let bound = why(Privileges { bounding: Some(0), ..granted });
        assert!(bound.contains("bounding set") && bound.contains("--cap-add=BPF --cap-add=PERFMON"), "{bound}");
    }

    #[test]
    fn numbers_of_errors_are_left_out() {
        assert_eq!(plain("a: no (os error 1); b (os error 22), c"), "a: no; b, c");
        assert_eq!((plain("x (os error 1"), plain("x")), ("x".into(), "x".into()));
        assert_eq!(words(libc::EPERM), "Operation not permitted");
    }

    #[test]
    fn a_rate_above_the_limit_names_it_and_both_remedies() {
        let limited = |most| Privileges { perf_event_max_sample_rate: most, ..with(ALL) };
        let said = |most, rate_hz| limited(most).explain_perf("cpu-clock", libc::EINVAL, rate_hz).to_string();
        assert_eq!(
            said(Some(1000), 4999),
            "4999 samples per second are more than kernel.perf_event_max_sample_rate, 1000 (cpu-clock: Invalid argument); \
             -F 1000 or less, or sysctl kernel.perf_event_max_sample_rate=4999"
        );
        // Refused for another reason.
        for (most, rate_hz) in [(Some(1000), 1000), (Some(100_000), 4999), (None, 4999)] {
            assert_eq!(said(most, rate_hz), "cpu-clock: Invalid argument", "{most:?} {rate_hz}");
        }
    }

    #[test]
    fn other_reasons_are_named() {
        let all = || with(ALL);
        assert!(bpf(&Privileges { btf: false, ..all() }, libc::ESRCH).contains("CONFIG_DEBUG_INFO_BTF=y"));
        assert!(bpf(&Privileges { seccomp_filter: true, ..all() }, libc::EPERM).contains("seccomp filter"));
        assert!(bpf(&Privileges { user_namespace: true, ..all() }, libc::EPERM).contains("user namespace"));
        let locked = Privileges { lockdown: Lockdown::Confidentiality, ..all() };
        assert!(bpf(&locked, libc::EPERM).contains("locked down"));
        assert!(bpf(&locked, libc::EINVAL).contains("locked down"));
        let old = Privileges { kernel: (5, 10), memlock_bytes: Some(65536), ..all() };
        assert!(bpf(&old, libc::EPERM).contains("RLIMIT_MEMLOCK is 64 KiB"));
        assert!(bpf(&all(), libc::EACCES).contains("verifier"), "not a capability");
        assert_eq!(bpf(&all(), libc::EINVAL), "loading");
        assert!(all().explain_perf("cycles", libc::ENOENT, 99).why.contains("no PMU"));
        let hidden = Privileges { kptr_restrict: Some(2), ..all() };
        assert!(hidden.explain_kernel_addresses().to_string().contains("kptr_restrict=1"));
    }
}
