//! libbpf-tools over the same interval: two that count the same thing must agree.
//!
//! A workload runs wholly while both observe it, so neither sees an edge the other does not. The tools count in powers of two of
//! microseconds, which do not fall on the bounds of our buckets: at each bound what we counted below lies between the buckets wholly
//! below and those plus the one across it, and theirs must be there, give or take 2 % of all, and the time by which two programs on
//! one hook read the clock apart.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sberf::tick::{Hist, Loss, bucket_high, bucket_low};

use crate::disk::SlowDisk;
use crate::machine::{last_cpu, machine, now_ns, scratch, skipped, sleep_ms};
use crate::recording::{Recording, merged};
use crate::workload::Workload;

/// Two programs on one hook run one after the other: at the wakeup and at the switch, the later of the two reads the clock by the whole
/// run of the first later, 0.2 to 0.5 µs. What is left of it in a wait is the difference of the two.
const APART_NS: u64 = 500;

/// One of the libbpf-tools at work.
struct Tool(Option<Child>);

impl Tool {
    /// Starts it and waits until its programs are attached; `None`, having said so, where it is not installed or not allowed.
    fn start(name: &str, args: &[&str]) -> Option<Tool> {
        let path = format!("/usr/sbin/{name}");
        let spawned = Command::new(&path).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(child) = spawned else {
            skipped(format!("no {path} (Debian package libbpf-tools)"));
            return None;
        };
        let pid = child.id();
        let tool = Tool(Some(child));
        let patience = Instant::now() + Duration::from_secs(20);
        let (mut links, mut steady) = (0, 0);
        while steady < 5 {
            if Instant::now() > patience {
                skipped(format!("{path} does not attach here"));
                return None;
            }
            sleep_ms(100);
            let now = attached(pid);
            steady = if now > 0 && now == links { steady + 1 } else { 0 };
            links = now;
        }
        Some(tool)
    }

    /// Interrupts it, as Ctrl-C does, and gives what it prints then.
    fn stop(mut self) -> String {
        let mut child = self.0.take().expect("not stopped yet");
        interrupt(&child);
        let mut said = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        child.wait().expect("it ends");
        said
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
}

/// BPF links that a process holds.
fn attached(pid: u32) -> usize {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let target = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.ok()?.path()).ok();
    entries.filter_map(target).filter(|file| file.to_string_lossy().contains("bpf_link")).count()
}

/// Rows `low -> high : count` of a tool's histogram, µs: upper bound (not included) and count.
fn rows(printed: &str) -> BTreeMap<u64, u64> {
    let row = |line: &str| {
        let (range, rest) = line.split_once(':')?;
        let high: u64 = range.split_once("->")?.1.trim().parse().ok()?;
        Some((high + 1, rest.split_whitespace().next()?.parse::<u64>().ok()?))
    };
    printed.lines().filter_map(row).collect()
}

/// Compares our ns with their µs.
fn agree(what: &str, ours: &Hist, printed: &str) {
    let theirs = rows(printed);
    let (our_count, their_count) = (ours.count(), theirs.values().sum::<u64>());
    let slack = (their_count as f64 * 0.02).max(1.0);
    assert!(their_count > 100, "{what}: too few to compare: {printed}");
    let off = our_count as f64 - their_count as f64;
    assert!(off.abs() <= slack, "{what}: {our_count} counted, the tool {their_count}: {theirs:?} {ours:?}");
    let mut below = 0;
    for (&bound_us, &count) in &theirs {
        below += count;
        let bound = bound_us * 1000;
        let ours_if = |is_below: &dyn Fn(u16) -> bool| {
            ours.counts.iter().filter(|(bucket, _)| is_below(*bucket)).map(|(_, count)| count).sum::<u64>() as f64
        };
        let least = ours_if(&|bucket| bucket_high(bucket) < bound - APART_NS) - slack;
        let most = ours_if(&|bucket| bucket_low(bucket) < bound + APART_NS) + slack;
        assert!(
            (least..=most).contains(&(below as f64)),
            "{what}: below {bound_us} µs the tool counts {below}, we {least:.0}..{most:.0}: {theirs:?} {ours:?}"
        );
    }
}

#[test]
fn runqlat_agrees() {
    let Some(_machine) = machine() else { return };
    // On one CPU: hogs make waits of milliseconds, pipes and yields those of one or two µs.
    let mut mixed = Workload::prepare_pinned("mixed", last_cpu(), &[]);
    let Some(runqlat) = Tool::start("runqlat", &["-p", &mixed.pid().to_string()]) else { return };
    let recording = Recording::start();
    mixed.run();
    sleep_ms(3_000);
    let tgid = mixed.pid();
    mixed.finish();
    recording.wait_past(now_ns());
    let printed = runqlat.stop();
    let seen = recording.stop();
    agree("runqlat", &merged(seen.process(tgid).into_iter().map(|thread| &thread.runq)), &printed);
}

#[test]
fn biolatency_agrees() {
    let Some(_machine) = machine() else { return };
    let Some(disk) = SlowDisk::start(3_000) else { return };
    let mut writes = Workload::prepare("writes", &[&disk.device, "500", "4096"]);
    let Some(biolatency) = Tool::start("biolatency", &["-d", disk.name()]) else { return };
    let recording = Recording::start();
    writes.run();
    recording.wait_past(writes.number("end_ns"));
    let printed = biolatency.stop();
    let seen = recording.stop();
    let ops = seen.ticks().flat_map(|tick| &tick.disks).filter(|of| of.dev == disk.dev).flat_map(|of| &of.ops);
    agree("biolatency", &merged(ops.map(|op| &op.device)), &printed);
}

#[test]
fn offcputime_agrees() {
    let Some(_machine) = machine() else { return };
    for kind in ["mutex", "timer"] {
        let file = scratch("offcputime");
        let mut waits = Workload::prepare("waits", &[kind, "2000", &file.display().to_string()]);
        let Some(offcputime) = Tool::start("offcputime", &["-p", &waits.pid().to_string()]) else { return };
        let recording = Recording::start();
        waits.run();
        recording.wait_past(waits.number("end_ns"));
        let theirs = off_cpu_by_tid(&offcputime.stop());
        let seen = recording.stop();
        let unseen = seen.lost(Loss::Unseen);
        for (tid, _) in waits.threads() {
            let theirs = theirs.get(&tid).copied().unwrap_or_default() as f64;
            // The tool counts from leaving the CPU, blocked or preempted, to having it back, so not the first wait of a new thread.
            let ns = seen.thread_ns(tid);
            let first = seen.thread_hist(tid, |thread| &thread.runq).max.min(ns.runnable());
            let whole = (ns.blocked() + ns.runnable()) as f64 / 1000.0;
            // A switch that is hidden from tracing costs the tool the wait that ends with it, and our histogram, too; our states
            // keep that time. Where there was one, the tool's sum lies between the two; where there was none, they agree.
            let ended = seen.thread_hist(tid, |thread| &thread.off_cpu).sum as f64 / 1000.0;
            let least = if unseen == 0 { whole - first as f64 / 1000.0 } else { ended };
            assert!(
                (least * 0.98..=whole * 1.02).contains(&theirs),
                "{kind} {tid}: {least:.0}..{whole:.0} µs off CPU, the tool {theirs} µs, {unseen} switches unseen: {ns:?}"
            );
        }
    }
}

/// Sums by thread: each stack ends in `-  comm (tid)`, then the µs stand on a line of their own.
fn off_cpu_by_tid(printed: &str) -> BTreeMap<u32, u64> {
    let mut sums = BTreeMap::new();
    let mut of = None;
    for line in printed.lines().map(str::trim) {
        if let Some(owner) = line.strip_prefix("- ") {
            of = owner.rsplit_once('(').and_then(|(_, tid)| tid.trim_end_matches(')').parse().ok());
        } else if let (Some(tid), Ok(us)) = (of, line.parse::<u64>()) {
            *sums.entry(tid).or_insert(0) += us;
            of = None;
        }
    }
    sums
}
