//! A machine where most sleep: only those that had an event are looked at each time, and all the others are accounted for all the
//! same.

use std::collections::{HashMap, HashSet};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sberf::tick::{Life, State, Tick};

use crate::machine::{machine, now_ns};
use crate::recording::Recording;

const SLEEPERS: usize = 200;
/// Of half a second. Everybody is looked at in the first few, and every eighth second.
const TICKS: usize = 24;

/// Killed when the test ends, however it does.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(program: &str, args: &[&str]) -> Child {
    Command::new(program).args(args).stdout(Stdio::null()).spawn().expect("a program of every system")
}

/// Threads that the kernel side told of.
fn told(tick: &Tick) -> u64 {
    tick.cost.collectors.iter().find(|part| part.name == "tasks").map_or(0, |part| part.events)
}

#[test]
fn all_that_sleep_are_accounted_for() {
    let Some(_machine) = machine() else { return };
    let mut sleepers = Crowd((0..SLEEPERS).map(|_| spawn("sleep", &["100"])).collect());
    let _spinner = Crowd(vec![spawn("sh", &["-c", "while :; do :; done"])]);
    let recording = Recording::with(|options| options.crowd = 0);
    recording.wait_ticks(TICKS / 2);
    let (killed, killed_ns) = (sleepers.0.split_off(SLEEPERS / 2), now_ns());
    let dead: HashSet<u32> = killed.iter().map(Child::id).collect();
    drop(Crowd(killed));
    let gone_ns = now_ns();
    recording.wait_ticks(TICKS);
    let seen = recording.stop();

    let alive: HashSet<u32> = sleepers.0.iter().map(Child::id).collect();
    let mut few = 0;
    for tick in seen.ticks().skip(1) {
        let slept = |ns: u64| ns == tick.span.len_ns();
        let mut found = HashMap::new();
        for thread in &tick.threads {
            assert!(found.insert(thread.key.tid, thread).is_none(), "{:?} twice in a tick", thread.key);
            let sum = State::ALL.iter().map(|&state| thread.ns[state]).sum::<u64>();
            assert!(sum <= tick.span.len_ns(), "{:?}: {sum} ns in {} ns", thread.key, tick.span.len_ns());
            assert!(!alive.contains(&thread.key.tid) || slept(thread.ns[State::Timer]), "{thread:?}");
        }
        assert!(alive.iter().all(|tid| found.contains_key(tid)), "one of those that sleep is missing");
        if tick.span.end_ns < killed_ns {
            assert!(dead.iter().all(|tid| slept(found[tid].ns[State::Timer])), "one that still sleeps is missing");
        }
        // Those that ended are told of in the tick in which they did, or the next, and then no more.
        if tick.span.start_ns > gone_ns + 500_000_000 {
            assert!(dead.iter().all(|tid| !found.contains_key(tid)), "one that ended goes on sleeping");
        }
        few += usize::from(told(tick) < SLEEPERS as u64 / 2);
    }
    assert!(few > TICKS / 2, "looked at few in {few} of {TICKS} ticks only");
    let exits = seen.events().filter(|event| dead.contains(&event.process.tgid));
    assert_eq!(exits.filter(|event| matches!(event.what, Life::Exit { .. })).count(), dead.len());
}

/// A thread that has the CPU to itself has no event for seconds, and does not sleep.
#[test]
fn who_runs_undisturbed_is_looked_at() {
    let Some(_machine) = machine() else { return };
    let spinners = Crowd(vec![spawn("sh", &["-c", "while :; do :; done"])]);
    let pid = spinners.0[0].id();
    let recording = Recording::with(|options| {
        options.crowd = 0;
        options.interval = Duration::from_millis(100);
    });
    recording.wait_ticks(40);
    let seen = recording.stop();
    let mine = seen.thread(pid);
    assert!(mine.len() >= 38, "in {} of 40 ticks", mine.len());
    for (tick, thread) in &mine[1..] {
        let sum = State::ALL.iter().map(|&state| thread.ns[state]).sum::<u64>();
        assert_eq!(sum, tick.span.len_ns(), "{thread:?}");
    }
    let undisturbed = mine.iter().filter(|(_, thread)| thread.voluntary + thread.involuntary == 0).count();
    crate::machine::told(format!("undisturbed in {undisturbed} of {} ticks", mine.len()));
}
