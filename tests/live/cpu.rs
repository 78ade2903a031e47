//! Time on a CPU and time waiting for one.

use std::time::Duration;

use sberf::tick::{Hist, Loss, StackEnd, State, ThreadTick};

use crate::hooks::{attach, detach};
use crate::machine::{last_cpu, machine, now_ns, sleep_ms};
use crate::procfs::{Reading, Readings, Watch};
use crate::recording::{Recorded, Recording, merged, total};
use crate::workload::Workload;

const MSEC: u64 = 1_000_000;
/// The kernel brings a running thread's counter up to date at its own tick, which is 10 ms on the slowest kernels.
const KERNEL_TICK_NS: u64 = 10 * MSEC;
/// What a switch that was hidden from us (a loss that is counted) can have put under another state: a slice.
const UNSEEN_NS: u64 = 4 * MSEC;

#[test]
fn two_functions_share_a_cpu_70_to_30() {
    let Some(_machine) = machine() else { return };
    let mut split = Workload::prepare("split", &["4"]);
    // Odd, so as not to keep step with anything. At 99 Hz chance alone could use up the 2 % allowed: of 8 000 samples, 0.5 %
    // are one standard deviation.
    const HZ: u32 = 1999;
    let recording = Recording::with(|options| options.rate_hz = HZ);
    split.run();
    recording.wait_past(split.number("end_ns"));
    recording.wait_names(split.pid());
    let seen = recording.stop();

    let (seventy_ns, thirty_ns) = (split.number("seventy_ns"), split.number("thirty_ns"));
    let (samples, seventy, thirty) = folded_shares(&seen, split.pid());
    let share = |part: u64| 100.0 * part as f64 / samples as f64;
    let truth = 100.0 * seventy_ns as f64 / (seventy_ns + thirty_ns) as f64;
    assert!((truth - 70.0).abs() < 0.5, "the workload itself held {truth:.2} %");
    assert!((share(seventy) - 70.0).abs() <= 2.0, "seventy: {:.2} % of {samples}", share(seventy));
    assert!((share(thirty) - 30.0).abs() <= 2.0, "thirty: {:.2} % of {samples}", share(thirty));

    // A sample stands for 1/HZ s on a CPU: all of them together are the CPU time.
    let on_cpu_s = total(seen.process(split.pid()).iter().map(|thread| &thread.ns)).on_cpu() as f64 / 1e9;
    let expected = on_cpu_s * f64::from(HZ);
    assert!((samples as f64 / expected - 1.0).abs() < 0.05, "{samples} samples, {expected:.0} expected");
}

/// Weights in the folded export of a process: all, under `seventy`, under `thirty`.
fn folded_shares(seen: &Recorded, tgid: u32) -> (u64, u64, u64) {
    let folded = crate::recording::folded_on_cpu(seen, tgid);
    let (mut all, mut seventy, mut thirty) = (0, 0, 0);
    for line in folded.lines() {
        let (stack, weight) = line.rsplit_once(' ').expect("a weight");
        let weight: u64 = weight.parse().expect("a number");
        all += weight;
        seventy += if stack.split(';').any(|frame| frame == "seventy") { weight } else { 0 };
        thirty += if stack.split(';').any(|frame| frame == "thirty") { weight } else { 0 };
    }
    (all, seventy, thirty)
}

#[test]
fn three_hogs_on_one_cpu_wait_two_thirds() {
    let Some(_machine) = machine() else { return };
    let mut hogs = Workload::prepare("hogs", &["3", &last_cpu().to_string(), "5"]);
    let pids = hogs.told("process").iter().map(|words| words[0].parse().expect("a pid")).collect::<Vec<u32>>();
    let recording = Recording::start();
    let watch = Watch::start(pids.clone());
    hogs.run();
    recording.wait_past(hogs.number("end_ns"));
    let readings = watch.stop();
    let seen = recording.stop();

    let window = steady_window(&seen, hogs.span());
    let wall = (window.1 - window.0) as f64;
    for &pid in &pids {
        let ns = total(in_window(&seen, pid, window).map(|thread| &thread.ns));
        let runnable = 100.0 * ns.runnable() as f64 / wall;
        // Two thirds, when the three are alone on that CPU. Else what `schedstat` leaves: a hog runs or is runnable.
        let (least, most) = readings.bounds(pid, window, |reading| reading.on_cpu_ns);
        let truth = 100.0 * (1.0 - (least + most) as f64 / 2.0 / wall);
        assert!(truth >= 64.0, "hog {pid} had more than a third of a CPU: {truth:.2} % runnable");
        assert!((runnable - truth).abs() <= 3.0, "hog {pid} runnable {runnable:.2} %, schedstat {truth:.2} %: {ns:?}");
        assert!(ns.blocked() as f64 <= 0.001 * wall, "a hog never blocks: {ns:?}");
        assert!(ns[State::Preempted] > 9 * ns[State::Woken], "it is preempted, not woken: {ns:?}");
        check_run_queue(&seen, &readings, pid, window);
    }
}

/// Count and sum of a thread's waits for a CPU, against `schedstat`.
fn check_run_queue(seen: &Recorded, readings: &Readings, tid: u32, window: (u64, u64)) {
    let runq: Hist = merged(in_window(seen, tid, window).map(|thread| &thread.runq));
    let ns = total(in_window(seen, tid, window).map(|thread| &thread.ns));
    let unseen = seen.lost(Loss::Unseen);
    let (least, most) = readings.bounds(tid, window, |reading| reading.runs);
    let count = runq.count();
    assert!((least.saturating_sub(unseen)..=most).contains(&count), "{tid}: {count} waits, schedstat {least}..{most}");

    // The kernel stamps a wait's ends elsewhere in the switch, up to a µs or two apart from where we do. And when the wakeup comes
    // from an interrupt on a CPU that then switches at once, it does not read its clock again (RQCF_REQ_SKIP): the way from
    // the wakeup to the switch, a few µs, counts as running there. So the sum of both is what has to agree.
    let slack = count * 2_000 + unseen * UNSEEN_NS + KERNEL_TICK_NS + ns.on_cpu() / 2000;
    let delay = readings.bounds(tid, window, |reading| reading.run_delay_ns);
    let (least, most) = readings.bounds(tid, window, |reading| reading.on_cpu_ns + reading.run_delay_ns);
    let ours = ns.on_cpu() + runq.sum;
    assert!(
        (least.saturating_sub(slack)..=most + slack).contains(&ours),
        "{tid}: {ours} ns on a CPU and in {count} waits for it, schedstat {least}..{most}"
    );
    assert!(
        runq.sum + slack >= delay.0 && runq.sum <= delay.1 + slack + ns[State::Woken],
        "{tid}: waited {} ns in {count} waits, schedstat {delay:?}",
        runq.sum
    );
}

/// A kernel may hide switches from us, and then nothing tells that a thread got its CPU until it leaves it, which a hog ahead of all
/// others does not do for a while. That it runs can be seen.
#[test]
fn a_thread_that_got_its_cpu_unseen_runs() {
    let Some(_machine) = machine() else { return };
    let mut hog = Workload::prepare("hogs", &["1", &last_cpu().to_string(), "1"]);
    let pid: u32 = hog.told("process")[0][0].parse().expect("a pid");
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters are valid for the call.
    assert!(unsafe { libc::sched_setscheduler(pid.cast_signed(), libc::SCHED_FIFO, &parameters) } == 0);
    let recording = Recording::with(|options| options.interval = Duration::from_millis(100));
    let watch = Watch::start(vec![pid]);
    recording.wait_ticks(1);
    detach("sched_switch");
    hog.go();
    sleep_ms(20);
    let _link = attach("sched_switch");
    let attached = now_ns();
    hog.wait_done();
    recording.wait_past(hog.number("end_ns"));
    let readings = watch.stop();
    let seen = recording.stop();

    let span = (attached, hog.number("end_ns"));
    assert!(seen.ticks_within(span).count() >= 4);
    for tick in seen.ticks_within(span) {
        let tick_span = (tick.span.start_ns, tick.span.end_ns);
        let ns = total(in_window(&seen, pid, tick_span).map(|thread| &thread.ns));
        let (least, most) = readings.bounds(pid, tick_span, |reading| reading.on_cpu_ns);
        let ours = ns.on_cpu();
        let slack = KERNEL_TICK_NS + ours / 2000;
        assert!(
            (least.saturating_sub(slack)..=most + slack).contains(&ours),
            "{ours} ns on a CPU, schedstat {least}..{most}: {ns:?}"
        );
        assert_eq!(ns.total(), tick.span.len_ns(), "{ns:?}");
    }
}

#[test]
fn states_of_any_threads_sum_to_their_wall_time() {
    let Some(_machine) = machine() else { return };
    let mut mixed = Workload::prepare("mixed", &[]);
    mixed.run();
    let tids = mixed.threads().iter().map(|(tid, _)| *tid).collect::<Vec<_>>();
    let watch = Watch::start(tids.clone());
    sleep_ms(100);
    let recording = Recording::start();
    recording.wait_ticks(12);
    sleep_ms(50);
    let readings = watch.stop();
    let seen = recording.stop();

    let window = steady_window(&seen, (first_start(&seen), u64::MAX));
    assert!(window.1 - window.0 >= 4_500 * MSEC, "{window:?} {:?}", seen.pace());
    for (tid, what) in mixed.threads() {
        check_sums(&seen, tid, window, what[0]);
        check_on_cpu(&seen, &readings, tid, window, what[0]);
        check_switches(&seen, &readings, tid, window, what[0]);
        check_run_queue(&seen, &readings, tid, window);
    }
}

/// Σ states = wall ± 0.5 %, over the window and in each of its ticks.
fn check_sums(seen: &Recorded, tid: u32, window: (u64, u64), what: &str) {
    for tick in seen.ticks_within(window) {
        let thread = tick.threads.iter().find(|thread| thread.key.tid == tid);
        let thread = thread.unwrap_or_else(|| panic!("{what} {tid} is missing in {:?}", tick.span));
        let share = thread.ns.total() as f64 / tick.span.len_ns() as f64;
        assert!((share - 1.0).abs() <= 0.005, "{what} {tid}: {share:.4} of {:?}: {:?}", tick.span, thread.ns);
    }
}

/// On-CPU time lies between two readings. The slack: the two clocks (the scheduler's, the monotonic one) may drift apart by 500 ppm;
/// the reading is up to a tick old; a switch is stamped at places a µs or two apart; and see [`check_run_queue`] for time
/// that the kernel counts as running while we count it as woken.
fn check_on_cpu(seen: &Recorded, readings: &Readings, tid: u32, window: (u64, u64), what: &str) {
    let ns = total(in_window(seen, tid, window).map(|thread| &thread.ns));
    let (least, most) = readings.bounds(tid, window, |reading| reading.on_cpu_ns);
    let runs = readings.bounds(tid, window, |reading| reading.runs).1;
    let slack = KERNEL_TICK_NS + ns.on_cpu() / 2000 + runs * 2_000 + seen.lost(Loss::Unseen) * UNSEEN_NS;
    assert!(
        ns.on_cpu() + ns[State::Woken] + slack >= least && ns.on_cpu() <= most + slack,
        "{what} {tid}: {} ns on a CPU, schedstat {least}..{most} in {runs} runs: {ns:?}",
        ns.on_cpu()
    );
}

fn check_switches(seen: &Recorded, readings: &Readings, tid: u32, window: (u64, u64), what: &str) {
    let counted =
        |count: fn(&ThreadTick) -> u32| in_window(seen, tid, window).map(|t| u64::from(count(t))).sum::<u64>();
    let unseen = seen.lost(Loss::Unseen);
    let check = |name: &str, ours: u64, counter: fn(&Reading) -> u64| {
        let (least, most) = readings.bounds(tid, window, counter);
        assert!(
            (least.saturating_sub(unseen)..=most).contains(&ours),
            "{what} {tid}: {ours} {name} switches, status {least}..{most}"
        );
    };
    check("voluntary", counted(|thread| thread.voluntary), |reading| reading.voluntary);
    check("involuntary", counted(|thread| thread.involuntary), |reading| reading.involuntary);
}

#[test]
fn every_thread_of_the_machine_adds_up() {
    let Some(_machine) = machine() else { return };
    let mut mixed = Workload::prepare("mixed", &[]);
    mixed.run();
    let recording = Recording::start();
    recording.wait_ticks(5);
    let seen = recording.stop();
    let me = std::process::id();
    let ticks = seen.ticks().collect::<Vec<_>>();
    for (tick, next) in ticks.iter().zip(&ticks[1..]).skip(1) {
        // Alive in this tick and the next, and born before it: it lived through all of it.
        let boot_start = tick.span.start_ns + seen.session.boot_offset_ns;
        let through =
            |t: &&ThreadTick| t.key.start_ns + MSEC < boot_start && next.threads.iter().any(|n| n.key == t.key);
        let lived = tick.threads.iter().filter(through).collect::<Vec<_>>();
        assert!(lived.len() > 20, "only {} threads on the machine", lived.len());
        for thread in lived {
            let share = thread.ns.total() as f64 / tick.span.len_ns() as f64;
            assert!((share - 1.0).abs() <= 0.005, "{} {:?}: {share:.4}: {:?}", thread.comm, thread.key, thread.ns);
        }
        assert!(tick.threads.iter().all(|thread| thread.key.tid != 0), "idle is not a thread");
        let own = tick.stacks.iter().filter(|weight| weight.process.tgid == me);
        let taken = own.filter(|own| seen.stack(own.stack).is_none_or(|stack| stack.end != StackEnd::NotTaken)).count();
        assert_eq!(taken, 0, "sberf takes no stacks of itself");
        let on_cpu = total(tick.threads.iter().map(|thread| &thread.ns)).on_cpu() as f64;
        let capacity = tick.span.len_ns() as f64 * tick.cpus.len() as f64;
        assert!(on_cpu <= capacity * 1.005, "more time on CPUs than there is: {on_cpu} of {capacity}");
    }
}

#[test]
fn user_and_kernel_time_are_told_apart() {
    let Some(_machine) = machine() else { return };
    let mut modes = Workload::prepare("modes", &["2"]);
    let recording = Recording::start();
    modes.run();
    recording.wait_past(modes.number("end_ns"));
    let seen = recording.stop();
    for (tid, what) in modes.threads() {
        let ns = seen.thread_ns(tid);
        let told = |mode: &str| modes.number(&format!("{}_{mode}_ns", what[0])) as f64;
        let truth = told("user") / (told("user") + told("kernel"));
        let share = ns[State::User] as f64 / ns.on_cpu() as f64;
        // Both are the kernel's count by its ticks: 500 in 2 s at 250 Hz.
        assert!((share - truth).abs() <= 0.02, "{}: user is {share:.3}, getrusage {truth:.3}: {ns:?}", what[0]);
        let (on_cpu, used) = (ns.on_cpu() as f64, told("user") + told("kernel"));
        let slack = 0.01 + 0.002 * seen.lost(Loss::Unseen) as f64;
        assert!(
            (on_cpu / used - 1.0).abs() <= slack,
            "{}: {on_cpu} ns on a CPU, getrusage {used} ns {:?} {:#?}",
            what[0],
            seen.losses(),
            seen.thread(tid)
                .iter()
                .map(|(t, th)| format!(
                    "{} {} {:?} born {} {:?}",
                    t.span.start_ns,
                    t.span.len_ns(),
                    th.ns,
                    th.key.start_ns - seen.session.boot_offset_ns,
                    th.now
                ))
                .collect::<Vec<_>>()
        );
    }
}

/// Ticks that lie within, as one interval.
fn steady_window(seen: &Recorded, within: (u64, u64)) -> (u64, u64) {
    let mut ticks = seen.ticks_within(within).peekable();
    let start = ticks.peek().unwrap_or_else(|| panic!("no whole tick: {:?}", seen.pace())).span.start_ns;
    (start, ticks.last().expect("a tick").span.end_ns)
}

fn first_start(seen: &Recorded) -> u64 {
    // The first tick starts while programs are being attached; from the second on all is steady.
    seen.ticks().nth(1).expect("two ticks").span.start_ns
}

fn in_window(seen: &Recorded, tid: u32, window: (u64, u64)) -> impl Iterator<Item = &ThreadTick> {
    seen.ticks_within(window).flat_map(move |tick| tick.threads.iter().filter(move |thread| thread.key.tid == tid))
}
