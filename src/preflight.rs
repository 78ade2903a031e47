//! Quick look, before the terminal is touched: may this process load BPF programs here, and can the kernel take them?

use std::fs;
use std::path::Path;

/// Capabilities that loading needs, and their bits in `/proc/PID/status` (`capabilities(7)`, `linux/capability.h`).
const NEEDED: [(&str, u32); 2] = [("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// Implies both.
const CAP_SYS_ADMIN: u32 = 21;
/// The kernel's own types, which our programs are fitted to.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why a live view cannot work, if it is plain to see that it cannot: one line that says what would mend it.
pub fn check() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge(&status, Path::new(BTF).exists())
}

fn judge(status: &str, btf: bool) -> Result<(), String> {
    let missing = missing(effective(status));
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        return Err(format!(
            "the live view needs root, or CAP_BPF and CAP_PERFMON: {missing} missing; try sudo, or show a capture with \
             `sberf top --read FILE`"
        ));
    }
    if !btf {
        return Err(format!(
            "this kernel does not describe its types: {BTF} is missing; it takes a kernel built with \
             CONFIG_DEBUG_INFO_BTF=y (a capture can be shown with `sberf top --read FILE`)"
        ));
    }
    Ok(())
}

/// The effective capabilities in `/proc/PID/status`; `None` if it does not say.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// What is missing for sure. Where nothing can be known, loading will tell.
fn missing(effective: Option<u64>) -> Vec<&'static str> {
    let Some(effective) = effective else { return Vec::new() };
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED.iter().filter(|(_, bit)| !has(*bit)).map(|&(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_decide_not_the_user() {
        let status = |caps: &str| format!("Name:\tsberf\nCapInh:\t0000000000000000\nCapEff:\t{caps}\n");
        assert_eq!(judge(&status("000001ffffffffff"), true), Ok(()));
        assert_eq!(judge(&status("000000c000000000"), true), Ok(()));
        assert_eq!(judge("", true), Ok(()));
        let none = judge(&status("0000000000000000"), true).unwrap_err();
        assert!(none.contains("CAP_PERFMON and CAP_BPF missing"), "{none}");
        let one = judge(&status("0000008000000000"), true).unwrap_err();
        assert!(one.contains(": CAP_PERFMON missing"), "{one}");
        assert!(judge(&status("000001ffffffffff"), false).is_err_and(|why| why.contains("CONFIG_DEBUG_INFO_BTF")));
    }
}
