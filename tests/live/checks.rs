//! The cross-checks with procfs: silent while all is well, and not when something was broken behind our back.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use sberf::tick::{Check, Counter, Loss, Tick, Verdict};

use crate::hooks::detach;
use crate::machine::{machine, now_ns, scratch};
use crate::recording::{Recorded, Recording};
use crate::workload::Workload;

fn start(set: impl FnOnce(&mut sberf::collect::live::LiveOptions)) -> Recording {
    Recording::with(|options| {
        options.interval = Duration::from_millis(300);
        set(options);
    })
}

fn check(tick: &Tick, what: Counter) -> Option<&Check> {
    tick.watch.checks.iter().find(|check| check.what == what)
}

/// Verdicts on a counter in the ticks that lie within the work of a workload.
fn verdicts(seen: &Recorded, span: (u64, u64), what: Counter) -> Vec<&Check> {
    seen.ticks_within(span).filter_map(|tick| check(tick, what)).collect()
}

/// Writes that are flushed one by one, for two seconds at the most.
fn write_and_flush() {
    let path = scratch("written");
    let mut file = File::create(&path).expect("a file");
    let end = now_ns() + 2_000_000_000;
    for _ in 0..200 {
        file.write_all(&[7; 128 << 10]).and_then(|()| file.sync_data()).expect("room on the disk");
        if now_ns() > end {
            break;
        }
    }
    let _ = fs::remove_file(path);
}

#[test]
fn a_machine_at_work_gives_no_alarm() {
    let Some(_machine) = machine() else { return };
    let recording = start(|_| ());
    let mut pairs = Workload::prepare("pairs", &["3"]);
    pairs.go();
    let writes = std::thread::spawn(write_and_flush);
    let mut forks = Workload::prepare("forks", &["300", "500"]);
    forks.run();
    pairs.wait_done();
    writes.join().expect("written");
    let end = now_ns();
    recording.wait_past(end);
    let seen = recording.stop();
    for tick in seen.ticks() {
        assert_eq!(tick.watch.alarms().next(), None, "{:?} {:?}", tick.watch, tick.losses);
    }
    let agrees = |what| verdicts(&seen, (0, end), what).iter().any(|check| check.verdict == Verdict::Agrees);
    assert!(agrees(Counter::Switches) && agrees(Counter::CpuTime) && agrees(Counter::Forks));
}

#[test]
fn a_program_that_was_detached_behind_our_back_is_noticed() {
    let Some(_machine) = machine() else { return };
    let recording = start(|_| ());
    detach("on_fork");
    let mut forks = Workload::prepare("forks", &["600", "2000"]);
    forks.run();
    let mut pairs = Workload::prepare("pairs", &["3"]);
    detach("sched_switch");
    pairs.run();
    recording.wait_past(pairs.number("end_ns"));
    let seen = recording.stop();
    let last = |span, what| verdicts(&seen, span, what).last().map(|check| check.verdict);
    let forked = last(forks.span(), Counter::Forks);
    assert_eq!(forked, Some(Verdict::Silent), "{:?}", verdicts(&seen, forks.span(), Counter::Forks));
    let switched = last(pairs.span(), Counter::Switches);
    assert_eq!(switched, Some(Verdict::Silent), "{:?}", verdicts(&seen, pairs.span(), Counter::Switches));
}

#[test]
fn a_ring_that_nobody_drains_is_noticed() {
    let Some(_machine) = machine() else { return };
    let recording = start(|options| (options.undrained, options.ring_bytes) = (true, Some(16 << 10)));
    let mut forks = Workload::prepare("forks", &["600", "2000"]);
    forks.run();
    recording.wait_past(forks.number("end_ns"));
    let seen = recording.stop();
    assert!(seen.lost(Loss::DeadRingFull) > 0, "{:?}", seen.losses());
    // Threads are counted elsewhere, so it need not be silent.
    let checks = verdicts(&seen, forks.span(), Counter::Forks);
    assert!(checks.last().is_some_and(|check| check.verdict.is_alarm()), "{checks:?}");
}

#[test]
fn a_map_that_is_full_costs_stacks_and_no_totals() {
    let Some(_machine) = machine() else { return };
    let recording = start(|options| options.stack_entries = Some(8));
    let mut flood = Workload::prepare("flood", &["1", "2"]);
    flood.run();
    recording.wait_past(flood.number("end_ns"));
    let seen = recording.stop();
    assert!(seen.lost(Loss::StackMapFull) > 0, "{:?}", seen.losses());
    let checks = verdicts(&seen, flood.span(), Counter::Switches);
    assert!(checks.iter().any(|check| check.verdict == Verdict::Agrees), "{checks:?}");
    assert!(checks.iter().all(|check| !check.verdict.is_alarm()), "{checks:?}");
}
