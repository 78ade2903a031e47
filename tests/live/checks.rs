//! The cross-checks with procfs: silent while all is well, and not when something was broken behind our back.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use sberf::tick::{Check, Counter, Lens, Loss, Tick, Verdict};

use crate::hooks::{close_perf_events, detach};
use crate::machine::{last_cpu, machine, now_ns, scratch, skipped};
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
    assert!(agrees(Counter::Samples), "{:?}", verdicts(&seen, (0, end), Counter::Samples));
    assert_eq!(seen.lost(Loss::Unsampled), 0);
}

/// One hog on one CPU, for so long; its pid and when it ran.
fn hog(seconds: &str) -> (u32, (u64, u64)) {
    let mut hog = Workload::prepare("hogs", &["1", &last_cpu().to_string(), seconds]);
    let pid = hog.told("process")[0][0].parse().expect("a pid");
    let from = now_ns();
    hog.run();
    (pid, (from, now_ns()))
}

fn samples_of(tick: &Tick, pid: u32) -> u64 {
    let on_cpu = tick.stacks.iter().filter(|of| of.process.tgid == pid && of.lens == Lens::OnCpu);
    on_cpu.map(|of| of.count).sum()
}

#[test]
fn sampling_that_was_detached_behind_our_back_is_noticed() {
    let Some(_machine) = machine() else { return };
    let recording = start(|_| ());
    detach("sample");
    let (_, span) = hog("3");
    recording.wait_past(span.1);
    let seen = recording.stop();
    let checks = verdicts(&seen, span, Counter::Samples);
    assert_eq!(checks.last().map(|check| check.verdict), Some(Verdict::Silent), "{checks:?}");
}

#[test]
fn a_perf_event_that_is_gone_is_opened_again() {
    let Some(_machine) = machine() else { return };
    let recording = start(|_| ());
    detach("sample");
    close_perf_events();
    let (pid, (_, end)) = hog("3");
    recording.wait_past(end);
    let seen = recording.stop();
    let samples: Vec<u64> = seen.ticks_within((end - 1_500_000_000, end)).map(|tick| samples_of(tick, pid)).collect();
    // Others may want that CPU, and nobody gets twice the rate.
    assert!(samples.iter().sum::<u64>() >= 5 && samples.iter().all(|&samples| samples < 40), "{samples:?}");
    assert!(seen.lost(Loss::Unsampled) > 0, "{:?}", seen.losses());
}

/// The kernel's limit on the rate of sampling, put back when dropped.
struct RateLimit(String);

const RATE_LIMIT: &str = "/proc/sys/kernel/perf_event_max_sample_rate";

impl RateLimit {
    fn set(rate_hz: u32) -> std::io::Result<RateLimit> {
        let before = fs::read_to_string(RATE_LIMIT)?;
        fs::write(RATE_LIMIT, rate_hz.to_string())?;
        Ok(RateLimit(before))
    }
}

impl Drop for RateLimit {
    fn drop(&mut self) {
        fs::write(RATE_LIMIT, self.0.trim()).expect("the limit is put back");
    }
}

#[test]
fn a_perf_event_that_cannot_be_opened_is_told_of_once_and_tried_again() {
    let Some(_machine) = machine() else { return };
    let recording = start(|_| ());
    let limit = match RateLimit::set(50) {
        Ok(limit) => limit,
        Err(error) => return skipped(format!("{RATE_LIMIT}: {error}")),
    };
    detach("sample");
    close_perf_events();
    let (_, refused) = hog("3");
    recording.wait_past(refused.1);
    drop(limit);
    let back = now_ns();
    let (pid, (_, end)) = hog("2");
    recording.wait_past(end);
    let seen = recording.stop();
    let unsampled: Vec<_> = seen.ticks_within(refused).map(|tick| lost(tick, Loss::Unsampled)).collect();
    assert!(unsampled.iter().rev().take(4).all(|&cpus| cpus > 0), "{unsampled:?}");
    let checks = verdicts(&seen, refused, Counter::Samples);
    assert_eq!(checks.last().map(|check| check.verdict), Some(Verdict::Silent), "{checks:?}");
    let about = |said: &&String| said.contains("perf event");
    assert_eq!(seen.said.iter().filter(about).count(), 1, "{:?}", seen.said);
    let samples: Vec<u64> = seen.ticks_within((back, end)).map(|tick| samples_of(tick, pid)).collect();
    assert!(samples.iter().skip(2).sum::<u64>() >= 5, "{samples:?}");
}

#[test]
fn a_rate_that_the_kernel_does_not_allow_is_said_with_its_limit() {
    let Some(_machine) = machine() else { return };
    let _limit = match RateLimit::set(1000) {
        Ok(limit) => limit,
        Err(error) => return skipped(format!("{RATE_LIMIT}: {error}")),
    };
    let recording = start(|options| options.rate_hz = 4000);
    recording.wait_ticks(1);
    let seen = recording.stop();
    let off = seen.session.lenses.iter().find(|lens| lens.name == "oncpu").and_then(|lens| lens.off.as_deref());
    let off = off.expect("samples cannot be taken");
    for said in ["4000 samples", "perf_event_max_sample_rate, 1000", "-F 1000", "perf_event_max_sample_rate=4000"] {
        assert!(off.contains(said), "{said:?} in {off}");
    }
}

fn lost(tick: &Tick, cause: Loss) -> u64 {
    tick.losses.iter().find(|(loss, _)| *loss == cause).map_or(0, |&(_, count)| count)
}

#[test]
fn samples_of_some_processes_alone_are_compared_with_nothing() {
    let Some(_machine) = machine() else { return };
    let recording = start(|options| options.pids = vec![1]);
    let (_, span) = hog("2");
    recording.wait_past(span.1);
    let seen = recording.stop();
    assert!(seen.ticks().all(|tick| check(tick, Counter::Samples).is_none()));
    assert_eq!(seen.lost(Loss::Unsampled), 0, "an event that has nothing to sample is none that is gone");
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
