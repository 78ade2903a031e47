//! Who runs now, and most: the tables of those are made before a stack misses them.

use std::cmp::Reverse;
use std::fs;

use rustix::time::ClockId;

use crate::collect::host::{now_ns, own_pid};
use crate::collect::mappings::ns_per_clock_tick;
use crate::tick::ProcessKey;

/// Processes that are looked at, at most: 20 us each.
const MOST: usize = 4096;
/// In field 9 of `/proc/PID/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Who has used less of a CPU since it began is not expected to run in the next moment: one part of this many.
const RARELY: u64 = 1000;

/// Processes outside the kernel, those first that have used most CPU time. `only`: their PIDs; empty: all but those that hardly
/// ever run (when one of them does, its first stack asks for what it needs) and ourselves, who are not looked at.
pub fn busiest(only: &[u32]) -> Vec<ProcessKey> {
    let now_ns = now_ns(ClockId::Boottime);
    let own = own_pid();
    let all = || {
        let entries = fs::read_dir("/proc").into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own)
            .take(MOST)
            .collect()
    };
    let pids: Vec<u32> = if only.is_empty() { all() } else { only.to_vec() };
    let mut found: Vec<(u64, ProcessKey)> = pids.into_iter().filter_map(read).collect();
    found.retain(|&(used, key)| !only.is_empty() || runs(used, now_ns.saturating_sub(key.start_ns)));
    found.sort_unstable_by_key(|&(used, key)| (Reverse(used), key));
    found.into_iter().map(|(_, key)| key).collect()
}

/// Whether so much CPU time, in clock ticks, since `age_ns` is worth something; what is less than a tick is not told.
fn runs(used: u64, age_ns: u64) -> bool {
    used.saturating_add(1).saturating_mul(ns_per_clock_tick()).saturating_mul(RARELY) >= age_ns
}

fn read(tgid: u32) -> Option<(u64, ProcessKey)> {
    let stat = fs::read(format!("/proc/{tgid}/stat")).ok()?;
    let (used, start_ticks) = parse(&stat)?;
    Some((used, ProcessKey { tgid, start_ns: start_ticks.checked_mul(ns_per_clock_tick())? }))
}

/// CPU time and start, both in clock ticks; `None` for a thread of the kernel.
fn parse(stat: &[u8]) -> Option<(u64, u64)> {
    // The name may hold anything.
    let behind_name = stat.get(stat.iter().rposition(|&byte| byte == b')')? + 1..)?;
    let text = std::str::from_utf8(behind_name).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(9 - 3);
    let mut number = |skip: usize| fields.nth(skip)?.parse::<u64>().ok();
    let (flags, user, system, start) = (number(0)?, number(14 - 9 - 1)?, number(0)?, number(22 - 15 - 1)?);
    (flags & PF_KTHREAD == 0).then_some((user.saturating_add(system), start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_a_hostile_name() {
        let fields = |flags: u64| {
            let rest: Vec<String> = (10..=30u64).map(|field| field.to_string()).collect();
            format!("1 (a) 1 2 (b) S 4 5 6 7 8 {flags} {}", rest.join(" "))
        };
        assert_eq!(parse(fields(0).as_bytes()), Some((14 + 15, 22)));
        assert_eq!(parse(fields(PF_KTHREAD).as_bytes()), None);
        assert_eq!(parse(b"1 (a) S 1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn who_hardly_ever_runs_is_left_out() {
        let second = 1_000_000_000;
        let ticks_per_s = second / ns_per_clock_tick();
        assert!(runs(0, second), "it has just begun");
        assert!(runs(ticks_per_s, 1000 * second) && !runs(ticks_per_s, 1100 * second));
        assert!(!runs(0, 3600 * second));
    }

    #[test]
    fn who_runs_is_among_them_but_we_are_not_unless_asked_for() {
        let own = std::process::id();
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let Ok(mut child) = child else { return };
        let keys = busiest(&[]);
        let _ = child.kill().and_then(|()| child.wait());
        assert!(keys.iter().any(|key| key.tgid == child.id()) && keys.iter().all(|key| key.tgid != own));
        assert_eq!(busiest(&[own]).len(), 1);
        assert!(busiest(&[u32::MAX]).is_empty());
    }
}
