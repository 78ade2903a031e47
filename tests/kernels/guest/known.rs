//! Workloads whose answer is known, by counts and by ratios of the guest's own time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sberf::tick::{DiskOp, Lens, Life, Loss, StackEnd, State};

use super::{check, line};
use crate::compile::compile;
use crate::recording::{Recorded, Recording, total};
use crate::workload::Workload;

const SOON: Duration = Duration::from_secs(3);
const SLEEPS: u64 = 40;
const FORKS: usize = 100;
const WRITES: u64 = 200;
const BLOCK: u64 = 4096;
/// Every request takes 2 ms there.
const DISK: &str = "/dev/nullb0";

/// Programs that are run.
const WORKLOADS: [&str; 5] = ["hogs", "sleeps", "forks", "writes", "depth"];
/// A file system in memory, in the guest. Its root comes over a wire, and of files there tables are made with little patience.
const MEMORY: &str = "/dev/shm";

/// Compiled without frame pointers, and of one piece: no library lies on the wire.
fn build(name: &str) -> std::io::Result<PathBuf> {
    compile("cc", name, &format!("{name}-of-guest"), &["-O2", "-fomit-frame-pointer", "-static"])
}

/// Where a workload is, in the guest.
pub fn program(name: &str) -> PathBuf {
    let built = build(name).expect("cc, the C compiler");
    let copy = Path::new(MEMORY).join(name);
    if !copy.exists() {
        std::fs::copy(&built, &copy).expect("room in memory");
    }
    copy
}

/// A workload, set up.
pub fn set_up(name: &str, args: &[&str]) -> Workload {
    Workload::prepare_program(&program(name), args)
}

/// Builds what the guest runs.
///
/// # Errors
/// That there is no compiler.
pub fn prepare() -> Result<(), String> {
    WORKLOADS.iter().try_for_each(|name| build(name).map(drop)).map_err(|error| format!("cc, the C compiler: {error}"))
}

/// Waits until it holds.
#[track_caller]
pub fn until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never came true");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs them all under one observer, then asks it.
pub fn answers() {
    let mut all = None;
    check("runs the workloads", || {
        // As on a crowded machine, where only those are looked at that had an event.
        let recording = Recording::with(|options| options.crowd = 0);
        let mut hogs = set_up("hogs", &["2", "1", "3"]);
        hogs.run();
        let (sleeps, sleeps_whole) =
            seen_whole(&recording, &["sleeper"], || set_up("sleeps", &[&SLEEPS.to_string(), "20"]));
        let mut forks = set_up("forks", &[&FORKS.to_string(), "1000"]);
        forks.run();
        let mut writes = set_up("writes", &[DISK, &WRITES.to_string(), &BLOCK.to_string()]);
        writes.run();
        let (deep, deep_whole) = seen_whole(&recording, &["zero", "one"], || set_up("depth", &["25"]));
        recording.wait_past(deep.number("end_ns"));
        let seen = recording.stop();
        let losses = format!("lost: {:?}", seen.losses());
        all = Some((seen, hogs, (sleeps, sleeps_whole), forks, writes, (deep, deep_whole)));
        losses
    });
    let Some((seen, hogs, (sleeps, sleeps_whole), forks, writes, (deep, deep_whole))) = all else { return };
    check("two hogs share a CPU", || shares(&seen, &hogs));
    check("samples are the CPU time", || samples(&seen, &hogs));
    check("a sleeper waits for its timer", || sleeper(&seen, &sleeps));
    check_stacks("its blocked stack is there", &seen, (&sleeps, sleeps_whole), || blocked_stack(&seen, &sleeps));
    check("forks, execs and exits are counted", || lives(&seen, &forks));
    check("block writes are counted", || requests(&seen, &writes));
    check_stacks("deep stacks are whole by tables", &seen, (&deep, deep_whole), || depth(&seen, &deep));
}

/// Runs a workload until its outer functions have been seen and named, for tables and names are made when there is time; then once
/// more.
///
/// The second is whether they were: where everything is slow, the share of CPU time that tables may take is used up.
fn seen_whole(recording: &Recording, functions: &[&str], prepare: impl Fn() -> Workload) -> (Workload, bool) {
    for left in (0..5).rev() {
        let mut first = prepare();
        first.run();
        recording.wait_past(first.number("end_ns"));
        if functions.iter().all(|function| recording.wait_symbol(SOON, |name| name == *function)) {
            let mut again = prepare();
            again.run();
            return (again, true);
        }
        if left == 0 {
            return (first, false);
        }
    }
    unreachable!("the last round returns")
}

/// A check of stacks, passed over where tables did not come.
fn check_stacks(name: &str, seen: &Recorded, (workload, made): (&Workload, bool), run: impl FnOnce() -> String) {
    if made {
        return check(name, run);
    }
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for weight in seen.ticks().flat_map(|tick| &tick.stacks).filter(|weight| weight.process.tgid == workload.pid()) {
        let end = seen.stack(weight.stack).map(|stack| format!("{:?}", stack.end));
        *ends.entry(end.unwrap_or_default()).or_default() += weight.count;
    }
    line(&[
        &"check",
        &name,
        &"skipped",
        &format!("tables or names were not made in time here; stacks end as {ends:?}"),
    ]);
}

fn hog_pids(hogs: &Workload) -> Vec<u32> {
    hogs.told("process").iter().map(|words| words[0].parse().expect("a pid")).collect()
}

fn shares(seen: &Recorded, hogs: &Workload) -> String {
    let ns: Vec<_> =
        hog_pids(hogs).iter().map(|pid| total(seen.process(*pid).iter().map(|thread| &thread.ns))).collect();
    let shares: Vec<f64> = ns.iter().map(|ns| ns.on_cpu() as f64 / (ns.on_cpu() + ns.runnable()) as f64).collect();
    let told = shares.iter().map(|share| format!("{:.1} %", 100.0 * share)).collect::<Vec<_>>().join(" and ");
    // Others of that CPU take from both.
    assert!(shares.iter().all(|share| (0.35..=0.6).contains(share)), "{told}: {ns:?}");
    let spans = ns.iter().map(|ns| ns.on_cpu() + ns.runnable());
    let (begin, end) = hogs.span();
    let wall = (end - begin) as f64;
    assert!(
        spans.clone().all(|span| (0.8..=1.15).contains(&(span as f64 / wall))),
        "{:?} of {wall} ns",
        spans.collect::<Vec<_>>()
    );
    told
}

fn samples(seen: &Recorded, hogs: &Workload) -> String {
    let pids = hog_pids(hogs);
    let of_them = |tgid: u32| pids.contains(&tgid);
    let weights =
        seen.ticks().flat_map(|tick| &tick.stacks).filter(|w| of_them(w.process.tgid) && w.lens == Lens::OnCpu);
    let samples: u64 = weights.map(|weight| weight.weight).sum();
    let on_cpu = total(pids.iter().flat_map(|pid| seen.process(*pid)).map(|thread| &thread.ns)).on_cpu() as f64 / 1e9;
    let ratio = samples as f64 / (on_cpu * 99.0);
    let told = format!("{samples} in {on_cpu:.2} s at 99 Hz, {ratio:.2} of what is due");
    // An emulated timer comes late now and then, and what it missed is not made up for.
    assert!((0.3..=1.2).contains(&ratio), "{told}");
    told
}

fn sleeper(seen: &Recorded, sleeps: &Workload) -> String {
    let tid = sleeps.threads()[0].0;
    let ns = seen.thread_ns(tid);
    let waits = seen.thread_hist(tid, |thread| &thread.off_cpu).count();
    let share = ns[State::Timer] as f64 / ns.total() as f64;
    let told = format!("{waits} waits, {:.1} % of its time", 100.0 * share);
    // A page of the program that is not in memory yet is another wait.
    assert!((SLEEPS..=SLEEPS + SLEEPS / 4 + seen.lost(Loss::Unseen)).contains(&waits), "{told}: {ns:?}");
    assert!(share >= 0.6, "{told}: {ns:?}");
    told
}

fn blocked_stack(seen: &Recorded, sleeps: &Workload) -> String {
    let (mut right, mut all) = (0, 0);
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != sleeps.pid() || weight.lens != Lens::Blocked(State::Timer) {
            continue;
        }
        all += weight.weight;
        let stack = seen.stack(weight.stack).expect("every stack is named");
        let functions = seen.functions(stack);
        if functions.contains(&"sleeper") && stack.end == StackEnd::Complete {
            right += weight.weight;
        }
    }
    let told = format!("{:.1} % of {} ms", 100.0 * right as f64 / all as f64, all / 1_000_000);
    // The first of them may come before the tables do.
    assert!(right as f64 >= 0.5 * all as f64 && right > 0, "{told}");
    told
}

fn lives(seen: &Recorded, forks: &Workload) -> String {
    let born: Vec<u32> = seen
        .events()
        .filter(|event| event.what == Life::Fork { parent: forks.pid() })
        .map(|event| event.process.tgid)
        .collect();
    let of_them = |life: fn(&Life) -> bool| {
        seen.events().filter(|event| born.contains(&event.process.tgid) && life(&event.what)).count()
    };
    let execs = of_them(|life| *life == Life::Exec);
    let exits = of_them(|life| matches!(life, Life::Exit { .. }));
    assert_eq!((born.len(), execs, exits), (FORKS, FORKS, FORKS), "forks, execs, exits");
    format!("{FORKS} of each")
}

fn requests(seen: &Recorded, writes: &Workload) -> String {
    let (requests, bytes, latency) = seen.io(writes.pid(), DiskOp::Write);
    assert_eq!((requests, bytes), (WRITES, WRITES * BLOCK), "requests, bytes");
    let long = latency.quantile(0.5).unwrap_or(0);
    assert!(long >= 1_900_000, "a request takes 2 ms at least: {long} ns");
    format!("{requests}, median {:.1} ms", long as f64 / 1e6)
}

/// As many `rec` as seven calls of `zero` and `one` spell, see the workload.
fn depth(seen: &Recorded, deep: &Workload) -> String {
    let (mut right, mut deepest, mut unreadable, mut wrong) = (0, 0, 0, Vec::new());
    for weight in seen.ticks().flat_map(|tick| &tick.stacks) {
        if weight.process.tgid != deep.pid() || weight.lens != Lens::OnCpu {
            continue;
        }
        let stack = seen.stack(weight.stack).expect("every stack is named");
        let functions = seen.functions(stack);
        if !functions.contains(&"spin") || matches!(stack.end, StackEnd::NoTable | StackEnd::Truncated) {
            continue;
        }
        // Where the kernel balances NUMA nodes, a page of the stack may be away for a moment.
        if let StackEnd::Unreadable(_) = stack.end {
            unreadable += weight.weight;
            continue;
        }
        let bits = functions.iter().filter(|name| ["zero", "one"].contains(*name));
        let spelled = bits.rev().fold(0, |number, name| number << 1 | usize::from(*name == "one")) + 1;
        let found = functions.iter().filter(|name| **name == "rec").count();
        if stack.end == StackEnd::Complete && spelled == found {
            right += weight.weight;
            deepest = deepest.max(found);
        } else if found > 0 {
            wrong.push(format!("{spelled} spelled, {found} found, {:?}: {}", stack.end, functions.join(";")));
        }
    }
    assert!(wrong.is_empty(), "{} wrong, {right} right: {}", wrong.len(), wrong[0]);
    assert!(right >= 40 && deepest >= 90, "{right} right, {deepest} calls at most");
    assert!(unreadable <= 1 + right / 50, "{unreadable} unreadable, {right} right");
    format!("{right} samples, up to {deepest} calls")
}
