//! CPUs that are not there, go and come.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use sberf::tick::{Lens, Loss, Tick};

use super::known::set_up;
use super::{check, tell_lenses};
use crate::machine::{now_ns, wait_for_freed_maps};
use crate::recording::{Recorded, Recording};
use crate::workload::Workload;

fn set_online(cpu: u32, online: bool) {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    fs::write(&file, if online { "1" } else { "0" }).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// The kernel's list, such as `0,2-4`.
pub fn online() -> BTreeSet<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").expect("the list of CPUs");
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |word: &str| word.parse::<u32>().expect("a CPU");
        number(first)..=number(last)
    };
    list.trim().split(',').flat_map(range).collect()
}

fn ids(tick: &Tick) -> BTreeSet<u32> {
    tick.cpus.iter().map(|cpu| cpu.id).collect()
}

/// Four CPUs, one missing from the start; another goes, both come back.
pub fn come_and_go() {
    check("CPUs may be missing, go and come", || holes(&[1], 2));
}

/// One that goes and comes back before anybody looks.
pub fn blink() {
    check("a CPU that goes and comes within a tick is sampled on", || {
        let cpu = 2;
        let recording = Recording::with(|options| options.interval = Duration::from_secs(1));
        recording.wait_ticks(3);
        set_online(cpu, false);
        set_online(cpu, true);
        let mut hog = set_up("hogs", &["1", &cpu.to_string(), "6"]);
        hog.run();
        let end = now_ns();
        recording.wait_past(end);
        let seen = recording.stop();
        assert!(seen.ticks().all(|tick| ids(tick).contains(&cpu)), "it took longer than a tick: this shows nothing");
        let late = |tick: &&Tick| tick.span.start_ns > end - 3_000_000_000 && tick.span.end_ns <= end;
        let late: Vec<u64> = seen.ticks().filter(late).map(|tick| samples_on(tick, cpu)).collect();
        let sampled = !late.is_empty() && late.iter().all(|samples| (5..150).contains(samples));
        assert!(sampled, "samples in the last ticks: {late:?}");
        assert!(seen.lost(Loss::Unsampled) > 0, "and nobody said so: {:?}", seen.losses());
        let all = samples(&seen, &hog);
        format!("{all} samples in 6 s, {late:?} in the last ticks")
    });
}

fn samples_on(tick: &Tick, cpu: u32) -> u64 {
    tick.cpus.iter().filter(|of| of.id == cpu).map(|of| of.samples).sum()
}

/// 64 CPUs with holes.
pub fn wide() {
    check("64 CPUs with holes; one goes, all come back", || {
        assert_eq!(online().len(), 64, "as many as were asked for");
        holes(&[1, 5, 17, 40, 63], 33)
    });
}

fn holes(missing: &[u32], goes: u32) -> String {
    wait_for_freed_maps();
    missing.iter().for_each(|cpu| set_online(*cpu, false));
    let first = online();
    assert!(missing.iter().all(|cpu| !first.contains(cpu)));
    let recording = Recording::start();
    recording.wait_ticks(3);
    let left = now_ns();
    set_online(goes, false);
    let gone = now_ns();
    let fewer = online();
    recording.wait_past(gone + 1_500_000_000);
    missing.iter().chain([&goes]).for_each(|cpu| set_online(*cpu, true));
    let back = now_ns();
    // Sampling is back on a CPU a tick after it is.
    recording.wait_past(back + 1_500_000_000);
    let mut hogs: Vec<Workload> =
        missing.iter().chain([&goes]).map(|cpu| set_up("hogs", &["1", &cpu.to_string(), "3"])).collect();
    hogs.iter_mut().for_each(Workload::go);
    hogs.iter_mut().for_each(Workload::wait_done);
    recording.wait_past(now_ns());
    let seen = recording.stop();
    tell_lenses(&seen.session);

    assert_eq!(seen.session.cpus.iter().copied().collect::<BTreeSet<_>>(), first, "CPUs at the start");
    for tick in seen.ticks() {
        let (from, to) = (tick.span.start_ns, tick.span.end_ns);
        match () {
            () if to < left => assert_eq!(ids(tick), first, "before one went"),
            () if from > gone && to < back => assert_eq!(ids(tick), fewer, "while it was gone"),
            () if from > back => assert_eq!(ids(tick), online(), "when all were back"),
            () => {}
        }
    }
    let sampled: Vec<u64> = hogs.iter().map(|hog| samples(&seen, hog)).collect();
    assert!(sampled.iter().all(|samples| *samples > 5), "samples on the CPUs that came: {sampled:?}");
    format!("{} of {} CPUs at first, samples on those that came: {sampled:?}", first.len(), online().len())
}

fn samples(seen: &Recorded, hog: &Workload) -> u64 {
    let pid: u32 = hog.told("process")[0][0].parse().expect("a pid");
    let weights = seen.ticks().flat_map(|tick| &tick.stacks);
    weights.filter(|weight| weight.process.tgid == pid && weight.lens == Lens::OnCpu).map(|weight| weight.weight).sum()
}
