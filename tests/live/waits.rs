//! Time blocked: how long, how often, for what reason.

#[cfg(target_arch = "x86_64")]
use std::process::Command;

use sberf::tick::{Loss, State};

#[cfg(target_arch = "x86_64")]
use crate::compile::compile;
use crate::machine::{machine, now_ns, scratch, skipped, sleep_ms};
use crate::recording::{Recorded, Recording, total};
use crate::workload::Workload;

#[test]
fn twenty_three_sleeps_of_ten_milliseconds() {
    let Some(_machine) = machine() else { return };
    // Where a task is exempt from tracing (process 1 of some sandboxes), what happens while it is current is hidden, counted as such,
    // and may be one of ours. Then, and only then, another go.
    let seen_all = (0..5).any(|_| {
        let (seen, sleeps) = sleep_and_record();
        let (tid, _) = sleeps.threads()[0];
        let (count, unseen) = (seen.thread_hist(tid, |thread| &thread.off_cpu).count(), seen.lost(Loss::Unseen));
        assert!((23 - unseen.min(23)..=23).contains(&count), "{count} waits, {unseen} switches unseen");
        if count == 23 {
            check_sleeps(&seen, &sleeps, tid);
        }
        count == 23
    });
    assert!(seen_all, "each time a switch of the sleeper was hidden");
}

fn sleep_and_record() -> (Recorded, Workload) {
    let mut sleeps = Workload::prepare("sleeps", &["23", "10"]);
    let recording = Recording::start();
    sleeps.run();
    recording.wait_past(sleeps.number("end_ns"));
    (recording.stop(), sleeps)
}

fn check_sleeps(seen: &Recorded, sleeps: &Workload, tid: u32) {
    let off_cpu = seen.thread_hist(tid, |thread| &thread.off_cpu);
    let ns = seen.thread_ns(tid);
    let mut took = sleeps.numbers("took_ns");
    took.sort_unstable();
    // What the sleeper's own clock says is asked for + overshoot: slack of the timer, and a wait for a CPU, if there was one.
    let (measured, p50) = (took[took.len() / 2] as f64, off_cpu.quantile(0.5).expect("waits") as f64);
    assert!((p50 / measured - 1.0).abs() <= 0.0625, "p50 {p50} ns, the sleeper says {measured} ns");
    let all = took.iter().sum::<u64>();
    assert!((230_000_000..=all).contains(&off_cpu.sum), "{} ns of waits, the sleeper says {all}", off_cpu.sum);
    assert!((10_000_000..=took[22]).contains(&off_cpu.max), "longest {}, the sleeper says {}", off_cpu.max, took[22]);
    let timer = ns[State::Timer] as f64 / ns.blocked() as f64;
    assert!(timer >= 0.99, "timer is {timer:.4} of {ns:?}");
    // Off CPU is blocked and then runnable; runnable is also the wait for its first CPU, and being preempted.
    let most = ns.blocked() + ns.runnable();
    assert!((ns.blocked()..=most).contains(&off_cpu.sum), "waits of {} ns, but {ns:?}", off_cpu.sum);
}

/// At least 99 % of the blocked time of a workload's threads is under the reason it names.
fn right_reason(kind: &str) {
    let Some(_machine) = machine() else { return };
    let file = scratch("waits");
    let mut waits = Workload::prepare("waits", &[kind, "1500", &file.display().to_string()]);
    let recording = Recording::start();
    waits.run();
    recording.wait_past(waits.number("end_ns"));
    let seen = recording.stop();
    if kind == "fault" && waits.number("major_faults") < 100 {
        skipped(format!("{} is not on a disk: its pages never left memory", file.display()));
        return;
    }
    let threads = waits.threads();
    assert!(!threads.is_empty());
    let ns = total(threads.iter().map(|(tid, _)| seen.thread_ns(*tid)).collect::<Vec<_>>().iter());
    let reason = State::ALL.into_iter().find(|state| state.name() == threads[0].1[0]).expect("a state");
    let share = ns[reason] as f64 / ns.blocked() as f64;
    assert!(ns.blocked() > ns.total() / 50, "hardly waits at all: {ns:?}");
    assert!(share >= 0.99, "{kind}: {} is {share:.4} of the time blocked: {ns:?}", reason.name());
    if kind == "fault" {
        let major: u64 = seen.process(waits.pid()).iter().map(|thread| thread.major_faults).sum();
        let told = waits.number("major_faults");
        assert!(major >= told && major <= told + 50, "{major} major faults, getrusage says {told}");
    }
}

#[test]
fn pipe_ping_pong_waits_for_a_pipe() {
    right_reason("pipe");
}

#[test]
fn mutex_convoy_waits_for_a_lock() {
    right_reason("mutex");
}

#[test]
fn a_mutex_held_for_long_is_a_lock() {
    right_reason("held");
}

/// The wait is for a condition, but the threads hold each other up.
#[test]
fn taking_turns_by_a_condition_is_a_lock() {
    right_reason("turns");
}

/// Nobody wakes them any more: from the next tick on they are idle.
#[test]
fn who_took_turns_and_has_none_left_is_idle() {
    let Some(_machine) = machine() else { return };
    let mut waits = Workload::prepare("waits", &["rests", "300", "-"]);
    let recording = Recording::start();
    waits.run();
    recording.wait_past(waits.number("end_ns"));
    let seen = recording.stop();
    let (from, to) = (waits.number("rest_ns"), waits.number("rest_ns") + 2_500_000_000);
    for (tid, _) in waits.threads() {
        let ns = seen.thread_ns(tid);
        assert!(ns[State::Lock] > 100_000_000, "took turns: {ns:?}");
        let resting = seen.thread(tid).into_iter();
        let resting = resting.filter(|(tick, _)| tick.span.start_ns >= from && tick.span.end_ns <= to);
        let shares = resting.map(|(tick, thread)| thread.ns[State::Poll] as f64 / tick.span.len_ns() as f64);
        let shares = shares.collect::<Vec<_>>();
        assert!(shares.len() >= 2 && shares.iter().all(|share| *share > 0.995), "{shares:?}");
    }
}

/// The same call as of those that take turns: these have nothing to do.
#[test]
fn a_pool_that_waits_for_work_is_idle() {
    right_reason("pool");
}

#[test]
fn socket_echo_waits_for_the_net() {
    right_reason("socket");
}

#[test]
fn poll_loop_polls() {
    right_reason("poll");
}

#[test]
fn epoll_loop_polls() {
    right_reason("epoll");
}

#[test]
fn select_loop_polls() {
    right_reason("select");
}

#[test]
fn page_in_from_disk_is_a_fault() {
    right_reason("fault");
}

#[test]
fn direct_reads_wait_for_the_disk() {
    right_reason("disk");
}

#[test]
fn short_sleeps_wait_for_a_timer() {
    right_reason("timer");
}

/// The same place in the program, the same registers, the same descriptor, and another kind of file behind it each time.
#[test]
fn a_descriptor_may_change_its_kind() {
    let Some(_machine) = machine() else { return };
    let mut reuse = Workload::prepare("reuse", &["300"]);
    let recording = Recording::start();
    reuse.run();
    recording.wait_past(reuse.number("end_ns"));
    let seen = recording.stop();
    let ns = seen.thread_ns(reuse.threads()[0].0);
    for (state, told) in [(State::Pipe, reuse.number("pipe_ns")), (State::Net, reuse.number("net_ns"))] {
        // What the reader measures is also its wait for a CPU, and the way into the call and out of it.
        let off = ns.runnable() + told / 10;
        assert!(ns[state] <= told && ns[state] + off >= told, "{}: the reader says {told} ns: {ns:?}", state.name());
    }
}

/// Asleep since before sberf came, and to the end: no switch, no wakeup, nothing but the state the threads are in.
#[test]
fn blocked_throughout_shows_in_every_tick() {
    let Some(_machine) = machine() else { return };
    let mut blocked = Workload::prepare("blocked", &[&scratch("blocked").display().to_string()]);
    blocked.run();
    let recording = Recording::start();
    let started = now_ns();
    sleep_ms(2_500);
    recording.wait_past(started + 2_500_000_000);
    let seen = recording.stop();

    assert!(seen.ticks().count() >= 5);
    let mut wrong = Vec::new();
    for (tid, said) in blocked.threads() {
        let reason = State::ALL.into_iter().find(|state| state.name() == said[0]).expect("a state");
        for (number, tick) in seen.ticks().enumerate() {
            let Some(thread) = tick.threads.iter().find(|thread| thread.key.tid == tid) else {
                wrong.push(format!("{said:?} is missing in tick {number}"));
                continue;
            };
            let share = thread.ns[reason] as f64 / tick.span.len_ns() as f64;
            if (share - 1.0).abs() > 0.005 || thread.now != Some(reason) {
                wrong.push(format!("{said:?} tick {number}: {share:.3}, now {:?}, {:?}", thread.now, thread.ns));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Numbers of system calls mean others in programs of 32 bits.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_program_of_32_bits_has_no_made_up_reason() {
    a_call_of_32_bits_has_no_made_up_reason("narrow", "-m32");
}

/// The gate to the calls of 32 bits is open to every program.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_of_32_bits_in_a_program_of_64_has_no_made_up_reason() {
    a_call_of_32_bits_has_no_made_up_reason("narrow-gate", "-m64");
}

#[cfg(target_arch = "x86_64")]
fn a_call_of_32_bits_has_no_made_up_reason(to: &str, bits: &str) {
    let Some(_machine) = machine() else { return };
    let flags = [bits, "-O2", "-nostdlib", "-static", "-ffreestanding", "-fno-pic", "-no-pie"];
    let program = compile("gcc", "narrow", to, &flags).expect("a C compiler");
    let mut child = match Command::new(program).spawn() {
        Ok(child) => child,
        Err(error) => return skipped(format!("this kernel runs no programs of 32 bits: {error}")),
    };
    sleep_ms(50);
    let recording = Recording::start();
    recording.wait_ticks(3);
    let seen = recording.stop();
    let _ = child.kill();
    let _ = child.wait();
    let told = seen.thread(child.id()).into_iter().map(|(_, thread)| (thread.now, thread.syscall)).collect::<Vec<_>>();
    assert_eq!(told[1..], [(Some(State::Other), None); 2], "{told:?}");
}

/// Interrupted waits go on through another system call (restart_syscall), which does not say what they wait for.
#[test]
fn a_stop_does_not_change_what_is_waited_for() {
    let Some(_machine) = machine() else { return };
    let mut restart = Workload::prepare("restart", &[]);
    let recording = Recording::start();
    restart.run();
    let pid = rustix::process::Pid::from_raw(restart.pid() as i32).expect("a pid");
    sleep_ms(600);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("our child");
    sleep_ms(600);
    let on = now_ns();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("our child");
    recording.wait_past(on + 1_100_000_000);
    let seen = recording.stop();
    for (tid, said) in restart.threads() {
        let reason = State::ALL.into_iter().find(|state| state.name() == said[0]).expect("a state");
        let all = seen.thread(tid);
        let stopped = total(all.iter().map(|(_, thread)| &thread.ns))[State::Stopped];
        assert!((400_000_000..=700_000_000).contains(&stopped), "{said:?} stopped for {stopped} ns");
        for (tick, thread) in all.into_iter().filter(|(tick, _)| tick.span.start_ns > on + 50_000_000) {
            let share = thread.ns[reason] as f64 / tick.span.len_ns() as f64;
            assert!((share - 1.0).abs() <= 0.005, "{said:?}: {share:.3} {:?} call {:?}", thread.ns, thread.syscall);
        }
    }
}

/// The same threads falling asleep while sberf looks: from the next tick on, all of it.
#[test]
fn falling_asleep_shows_at_once() {
    let Some(_machine) = machine() else { return };
    let mut blocked = Workload::prepare("blocked", &[&scratch("asleep").display().to_string()]);
    let recording = Recording::start();
    blocked.run();
    let asleep = blocked.number("end_ns");
    recording.wait_past(asleep + 1_500_000_000);
    let seen = recording.stop();
    for (tid, said) in blocked.threads() {
        let reason = State::ALL.into_iter().find(|state| state.name() == said[0]).expect("a state");
        let mut ticks = 0;
        for (tick, thread) in seen.thread(tid).into_iter().filter(|(tick, _)| tick.span.start_ns >= asleep) {
            let share = thread.ns[reason] as f64 / tick.span.len_ns() as f64;
            assert!((share - 1.0).abs() <= 0.005, "{said:?}: {share:.3} {:?}", thread.ns);
            assert!(thread.since_ns < asleep, "{said:?} since {} but asleep at {asleep}", thread.since_ns);
            ticks += 1;
        }
        assert!(ticks >= 2, "{said:?} in {ticks} ticks");
    }
}
