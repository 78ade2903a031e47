//! Bad days: what is observed goes away, and so does a CPU.

use sberf::tick::{Life, State};

use crate::machine::{last_cpu, machine, now_ns, scratch, skipped, sleep_ms, wait_for_freed_maps};
use crate::recording::Recording;
use crate::workload::Workload;

#[test]
fn a_watched_process_may_exit() {
    let Some(_machine) = machine() else { return };
    let mut sleeps = Workload::prepare("sleeps", &["20", "10"]);
    let pid = sleeps.pid();
    let recording = Recording::with(|options| options.pids = vec![pid]);
    sleeps.run();
    let tid = sleeps.threads()[0].0;
    assert!(sleeps.finish());
    let gone = now_ns();
    recording.wait_past(gone + 1_500_000_000);
    let seen = recording.stop();

    assert!(seen.ticks().filter(|tick| tick.span.start_ns > gone).count() >= 2, "ticks go on");
    assert_eq!(seen.thread_hist(tid, |thread| &thread.off_cpu).count(), 20, "and what it did is known");
    let exits =
        seen.events().filter(|event| event.process.tgid == pid && matches!(event.what, Life::Exit { status: 0 }));
    assert_eq!(exits.count(), 1);
    for tick in seen.ticks().filter(|tick| tick.span.start_ns > gone) {
        assert!(tick.threads.iter().all(|thread| thread.process.tgid != pid), "the dead do not go on living");
    }
    for tick in seen.ticks() {
        assert!(tick.threads.iter().all(|thread| thread.process.tgid == pid), "nobody else was asked for");
    }
}

#[test]
fn a_pid_that_does_not_exist_yields_empty_ticks() {
    let Some(_machine) = machine() else { return };
    // Above the highest pid there can be (PID_MAX_LIMIT is 2^22).
    let recording = Recording::with(|options| options.pids = vec![(1 << 22) + 1]);
    recording.wait_past(now_ns());
    let seen = recording.stop();
    assert!(seen.ticks().all(|tick| tick.threads.is_empty() && tick.stacks.is_empty() && tick.io.is_empty()));
}

/// Brings a CPU back, whatever happens meanwhile.
struct Offline(String);

impl Offline {
    fn take(cpu: u32) -> std::io::Result<Offline> {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        std::fs::write(&file, "0")?;
        Ok(Offline(file))
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        std::fs::write(&self.0, "1").expect("the CPU comes back");
    }
}

#[test]
fn a_cpu_may_go_and_come_back() {
    // Tasks bound to that CPU lose their binding for good, so this is not done to a machine that was not offered.
    if std::env::var_os("SBERF_TEST_HOTPLUG").is_none() {
        skipped("set SBERF_TEST_HOTPLUG=1 to let it take a CPU offline");
        return;
    }
    let Some(_machine) = machine() else { return };
    let mut blocked = Workload::prepare("blocked", &[&scratch("hotplug").display().to_string()]);
    blocked.run();
    let cpu = last_cpu();
    wait_for_freed_maps();
    let recording = Recording::start();
    recording.wait_ticks(1);
    let left = match Offline::take(cpu) {
        Ok(offline) => {
            let left = now_ns();
            recording.wait_past(left + 1_500_000_000);
            drop(offline);
            left
        }
        Err(error) => {
            skipped(format!("CPU {cpu} cannot be taken offline: {error}"));
            return;
        }
    };
    let back = now_ns();
    let mut split = Workload::prepare_pinned("split", cpu, &["2"]);
    split.run();
    recording.wait_past(split.number("end_ns"));
    sleep_ms(100);
    let seen = recording.stop();

    let without = seen.ticks_within((left, back)).collect::<Vec<_>>();
    assert!(!without.is_empty());
    assert!(without.iter().all(|tick| tick.cpus.iter().all(|of| of.id != cpu)), "it was offline");
    let after = seen.ticks().filter(|tick| tick.span.start_ns > back).collect::<Vec<_>>();
    assert!(after.iter().all(|tick| tick.cpus.iter().any(|of| of.id == cpu)), "it is back");
    for (tid, said) in blocked.threads() {
        for (tick, thread) in seen.thread(tid) {
            let share = thread.ns.total() as f64 / tick.span.len_ns() as f64;
            assert!((share - 1.0).abs() <= 0.005, "{said:?}: {share:.3}");
        }
    }
    let samples: u64 = after.iter().flat_map(|tick| &tick.cpus).filter(|of| of.id == cpu).map(|of| of.samples).sum();
    assert!(samples > 0, "and is sampled again");
    let ran: u64 = seen.process(split.pid()).iter().map(|thread| thread.ns[State::User]).sum();
    assert!(ran > 0);
}
