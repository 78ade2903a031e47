//! What observing costs is kept within its budget, said, and taken back; totals stay what they were.

use std::time::Duration;

use sberf::tick::{Lens, LeverKind, State, ThreadTick, Tick};

use crate::machine::{machine, now_ns, sleep_ms, told};
use crate::recording::Recording;
use crate::workload::Workload;

/// As it is by default.
const BUDGET: f64 = 0.01;

fn changes(tick: &Tick) -> usize {
    tick.watch.governor.as_ref().map_or(0, |governor| governor.changes.len())
}

/// Settled is: something was given up, and from then on the cost is within the budget, or nothing is left to give up that would matter
/// (`exhausted`). Totals are never given up, and a million switches a second cost more in totals than 1 % of two CPUs: at 60 ns
/// each, and as much for each wakeup, 6 %.
#[test]
fn a_million_switches_a_second_are_kept_to_the_budget_within_five_seconds() {
    let Some(_machine) = machine() else { return };
    let recording = Recording::with(|options| options.max_overhead = Some(BUDGET));
    // What a start costs is over by then.
    recording.wait_past(now_ns() + 1_500_000_000);
    let mut pairs = Workload::prepare("pairs", &["7"]);
    pairs.run();
    let (began, ended) = pairs.span();
    // Eleven ticks with room, and some more on a busy machine.
    recording.wait_past(ended + 7_000_000_000);
    sleep_ms(100);
    let seen = recording.stop();

    let during: Vec<&Tick> = seen.ticks_within((began, ended)).collect();
    // Something is given up, once; what others on the machine do may ask for a step more.
    let changed: Vec<u64> = during.iter().filter(|tick| changes(tick) > 0).map(|tick| tick.span.end_ns).collect();
    let governs = |tick: &&&Tick| tick.watch.governor.as_ref().is_some_and(|governor| governor.is_governing());
    assert!(changed.len() <= 3, "it does not settle: {} changes", changed.len());
    let settled = during.iter().find(governs).map(|tick| tick.span.start_ns).expect("something can be given up");
    assert!(settled < began + 5_000_000_000, "not before {} ms", (settled - began) / 1_000_000);
    let after: Vec<&Tick> = during.into_iter().filter(|tick| tick.span.start_ns >= settled).collect();
    assert!(after.len() >= 2, "{}", after.len());
    for tick in &after {
        let governor = tick.watch.governor.as_ref().expect("there is a budget");
        assert!(governor.is_governing(), "{governor:?}");
        assert!(governor.cost_ppm <= governor.budget_ppm || governor.exhausted, "{governor:?}");
    }
    let switches_per_s = 2 * pairs.number("trips") * 1_000_000_000 / (ended - began);
    let costs: Vec<u32> = after.iter().filter_map(|tick| Some(tick.watch.governor.as_ref()?.cost_ppm)).collect();
    told(format!(
        "{switches_per_s} switches a second, settled after {} ms, then {costs:?} ppm",
        (settled - began) / 1_000_000
    ));
    // How fast a machine switches that others use is no fault of ours; but it must be many.
    assert!(switches_per_s > 100_000, "{switches_per_s} switches a second");
    // Totals are what they were: each trip is two switches, and some more where others want the CPU.
    let left = |thread: &&ThreadTick| u64::from(thread.voluntary) + u64::from(thread.involuntary);
    let switches: u64 = seen.process(pairs.pid()).iter().map(left).sum();
    let trips = pairs.number("trips");
    let share = switches as f64 / (2 * trips) as f64;
    assert!((0.97..1.5).contains(&share), "{switches} switches in {trips} trips");
    // Fewer samples are taken, and each counts for more, so that they mean the same time.
    let rate =
        |tick: &Tick| tick.watch.governor.as_ref().and_then(|it| Some(it.lever(LeverKind::Rate)?.now)).unwrap_or(0);
    let rates: Vec<u32> = after.iter().map(|tick| rate(tick)).collect();
    assert!(rates.iter().all(|&rate| rate < 99), "{rates:?}");
    let (mut weight, mut count, mut ran) = (0, 0, 0);
    for tick in after {
        let stacks = tick.stacks.iter().filter(|of| of.process.tgid == pairs.pid() && of.lens == Lens::OnCpu);
        let sums = stacks.fold((0, 0), |(weight, count), of| (weight + of.weight, count + of.count));
        (weight, count) = (weight + sums.0, count + sums.1);
        let threads = tick.threads.iter().filter(|thread| thread.process.tgid == pairs.pid());
        ran += threads.map(|thread| thread.ns[State::User] + thread.ns[State::Kernel]).sum::<u64>();
    }
    let expected = ran as f64 / 1e9 * 99.0;
    let off = weight as f64 / expected;
    if rates.iter().all(|&rate| rate > 0) {
        assert!(count * 2 < weight, "{count} samples count for {weight}");
        assert!((0.6..1.5).contains(&off), "{weight} for {expected:.0} of time, by {count} samples");
    }
    // When it is over, some of it comes back.
    let back = seen.ticks().filter(|tick| tick.span.start_ns > ended).filter(|tick| changes(tick) > 0);
    assert!(back.count() > 0, "nothing was taken back: {:?}", seen.ticks().last().map(|tick| &tick.watch));
}

/// A third of 14 is 5: as whole samples each of those would count for 3, and all of them for 7 % too many.
#[test]
fn samples_at_a_lower_rate_count_for_the_rate_that_was_asked_for() {
    let Some(_machine) = machine() else { return };
    let recording = Recording::with(|options| {
        (options.max_overhead, options.rate_hz, options.walks_per_s) = (Some(1e-5), 14, 0);
    });
    let mut hogs = Workload::prepare("hogs", &["2", "0", "10"]);
    hogs.run();
    recording.wait_past(hogs.span().1);
    let seen = recording.stop();
    let rate = |tick: &Tick| tick.watch.governor.as_ref().and_then(|it| Some(it.lever(LeverKind::Rate)?.now));
    let sampled = seen.ticks().filter(|tick| rate(tick) == Some(5)).flat_map(|tick| &tick.stacks);
    let sums =
        sampled.filter(|of| of.lens == Lens::OnCpu).fold((0, 0), |sum, of| (sum.0 + of.weight, sum.1 + of.count));
    told(format!("{} samples at 5 Hz count for {}", sums.1, sums.0));
    assert!(sums.1 >= 30, "{} samples", sums.1);
    let off = sums.0 as f64 / (sums.1 as f64 * 14.0 / 5.0) - 1.0;
    // What each CPU carries over is less than a sample.
    assert!(off.abs() < 0.03, "{} samples count for {}: {off:+.3}", sums.1, sums.0);
}

#[test]
fn without_a_budget_nothing_is_given_up() {
    let Some(_machine) = machine() else { return };
    let recording = Recording::with(|options| options.interval = Duration::from_millis(200));
    let mut pairs = Workload::prepare("pairs", &["1.5"]);
    pairs.run();
    recording.wait_past(pairs.number("end_ns"));
    assert!(recording.stop().ticks().all(|tick| tick.watch.governor.is_none()));
}
