//! What is told without BPF, by procfs alone, against what the scheduler counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use sberf::collect::Source;
use sberf::collect::live::LiveOptions;
use sberf::collect::procfs_only::ProcfsOnly;
use sberf::tick::{Batch, Refusal, State, StateNs, Tick};

use crate::machine::{last_cpu, machine, now_ns};
use crate::procfs::Watch;
use crate::workload::Workload;

const INTERVAL: Duration = Duration::from_millis(300);
/// The readings of a pass are not of one instant, and the counter of a thread that runs is up to 10 ms old.
const SLACK_NS: u64 = 60_000_000;

/// Ticks until one ends after that.
fn ticks(until: impl Fn() -> u64 + Send + 'static) -> std::thread::JoinHandle<Vec<Tick>> {
    let options = LiveOptions { interval: INTERVAL, ..LiveOptions::default() };
    let mut source = ProcfsOnly::start(&options, &Refusal::new("for the test", ""));
    std::thread::spawn(move || {
        let (_keep, requests) = bounded(1);
        let mut ticks: Vec<Tick> = Vec::new();
        while ticks.last().is_none_or(|last| last.span.end_ns <= until()) {
            if let Some(Batch::Tick(tick)) = source.next(&requests).expect("procfs does not end") {
                ticks.push(*tick);
            }
        }
        ticks
    })
}

#[test]
fn three_hogs_on_one_cpu_wait_two_thirds_by_procfs_as_well() {
    let Some(_machine) = machine() else { return };
    let mut hogs = Workload::prepare("hogs", &["3", &last_cpu().to_string(), "4"]);
    let pids: Vec<u32> = hogs.told("process").iter().map(|words| words[0].parse().expect("a pid")).collect();
    let over = Arc::new(AtomicU64::new(u64::MAX));
    let end = Arc::clone(&over);
    let seen = ticks(move || end.load(Ordering::Relaxed));
    let watch = Watch::start(pids.clone());
    hogs.run();
    over.store(now_ns(), Ordering::Relaxed);
    let seen = seen.join().expect("ticks");
    let readings = watch.stop();

    let (began_ns, ended_ns) = hogs.span();
    let steady: Vec<&Tick> =
        seen.iter().filter(|tick| tick.span.start_ns > began_ns + SLACK_NS && tick.span.end_ns < ended_ns).collect();
    let window = (steady[0].span.start_ns, steady[steady.len() - 1].span.end_ns);
    let wall = window.1 - window.0;
    assert!(steady.windows(2).all(|pair| pair[0].span.end_ns == pair[1].span.start_ns), "no gaps");
    for pid in pids {
        let mut ns = StateNs::default();
        let threads = steady.iter().flat_map(|tick| &tick.threads).filter(|thread| thread.process.tgid == pid);
        threads.for_each(|thread| ns.add(&thread.ns));
        assert_eq!(ns.total(), wall, "it adds up");
        let (least, most) = readings.bounds(pid, window, |reading| reading.on_cpu_ns);
        let on_cpu = ns.on_cpu();
        assert!((least.saturating_sub(SLACK_NS)..=most + SLACK_NS).contains(&on_cpu), "{on_cpu}, {least}..{most}");
        let (least, most) = readings.bounds(pid, window, |reading| reading.run_delay_ns);
        let waited = ns.runnable();
        // What it waits for at the end of the window is told later.
        let told = least.saturating_sub(SLACK_NS + wall / 20)..=most + SLACK_NS + wall / 20;
        assert!(told.contains(&waited), "waited {waited}, schedstat {least}..{most}: {ns:?}");
        assert!(ns[State::Other] < wall / 10, "a hog never blocks: {ns:?}");
    }
}
