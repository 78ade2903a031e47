//! A PID that is used again by another process.

use std::collections::HashSet;
use std::process::{Child, Command};

use crate::machine::{machine, skipped};
use crate::recording::Recording;

/// Starts a program until it gets that PID.
fn start_as(pid: u32, program: &str, args: &[&str]) -> Option<Child> {
    for _ in 0..1000 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let mut child = Command::new(program).args(args).spawn().expect("a program");
        if child.id() == pid {
            return Some(child);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    None
}

#[test]
fn who_gets_the_pid_of_a_process_that_was_named_is_not_watched() {
    let Some(_machine) = machine() else { return };
    let mut first = Command::new("sleep").arg("300").spawn().expect("sleep");
    let pid = first.id();
    let recording = Recording::with(|options| options.pids = vec![pid]);
    recording.wait_ticks(3);
    first.kill().expect("it lives");
    first.wait().expect("it ended");
    let Some(mut second) = start_as(pid, "sh", &["-c", "while :; do :; done"]) else {
        recording.stop();
        return skipped("its PID cannot be had again: no ns_last_pid, or too many take PIDs");
    };
    recording.wait_ticks(12);
    let seen = recording.stop();
    second.kill().expect("it lives");
    second.wait().expect("it ended");

    let starts: HashSet<u64> = seen.process(pid).iter().map(|thread| thread.process.start_ns).collect();
    assert_eq!(starts.len(), 1, "one process, not two");
    let of_it = |key: &sberf::tick::ProcessKey| key.tgid == pid && starts.contains(&key.start_ns);
    assert!(seen.ticks().flat_map(|tick| &tick.processes).all(|facts| of_it(&facts.key)));
    assert!(seen.ticks().flat_map(|tick| &tick.stacks).all(|weight| of_it(&weight.process)));
    assert!(seen.events().all(|event| of_it(&event.process)));
    // The kernel side does not take its stacks either.
    let last: Vec<_> = seen.ticks().rev().take(3).collect();
    assert!(last.iter().all(|tick| tick.threads.is_empty()), "nothing is left to be told of");
    let samples: u64 = last.iter().flat_map(|tick| &tick.cpus).map(|cpu| cpu.samples).sum();
    assert_eq!(samples, 0, "samples of somebody who was not named");
}
