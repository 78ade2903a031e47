//! Threads that were asleep before anybody looked, and stay so: what they wait for has a stack all the same.

use std::time::Duration;

use sberf::tick::{Lens, StackEnd, State};

use crate::machine::machine;
use crate::recording::{Recorded, Recording};
use crate::workload::Workload;

/// Function of `fixtures/restart.c`, part of the name of the kernel's function in which it sleeps, and the reason.
const SLEEPERS: [(&str, &str, State); 4] = [
    ("sleeps", "nanosleep", State::Timer),
    ("polls", "poll", State::Poll),
    ("waits", "futex", State::Lock),
    ("main", "pipe_read", State::Pipe),
];

/// What a process waits for in a state: functions root first, how the stack ends, ns.
fn stacks(seen: &Recorded, tgid: u32, state: State) -> Vec<(Vec<&str>, StackEnd, u64)> {
    let weights = seen.ticks().flat_map(|tick| &tick.stacks);
    let its = weights.filter(|weight| weight.process.tgid == tgid && weight.lens == Lens::Blocked(state));
    let stack = |id| seen.stack(id).expect("every stack is named");
    its.map(|weight| (seen.functions(stack(weight.stack)), stack(weight.stack).end, weight.weight)).collect()
}

#[test]
fn threads_that_slept_before_have_their_stacks() {
    let Some(_machine) = machine() else { return };
    let mut asleep = Workload::prepare("restart", &[]);
    asleep.run();
    let recording = Recording::start();
    recording.wait_ticks(2);
    let whole = recording.wait_whole(Duration::from_secs(30), asleep.pid(), SLEEPERS.len());
    recording.wait_names(asleep.pid());
    let seen = recording.stop();
    for (function, kernel, state) in SLEEPERS {
        let found = stacks(&seen, asleep.pid(), state);
        assert!(!found.is_empty(), "{state:?}");
        for (functions, end, ns) in found {
            assert!(ns > 0 && functions.iter().any(|name| name.contains(kernel)), "{state:?} {functions:?}");
            assert!(end == StackEnd::Complete && functions.contains(&function), "{state:?} {end:?} {functions:?}");
            // The kernel's part hangs below the user's.
            let user = functions.iter().position(|name| *name == function);
            assert!(user < functions.iter().rposition(|name| name.contains(kernel)), "{functions:?}");
        }
    }
    assert!(whole);
}

#[test]
fn without_tables_they_have_the_kernel_part_and_say_so() {
    let Some(_machine) = machine() else { return };
    let mut asleep = Workload::prepare("restart", &[]);
    asleep.run();
    let recording = Recording::with(|options| options.by_tables = false);
    recording.wait_ticks(3);
    recording.wait_names(asleep.pid());
    let seen = recording.stop();
    for (function, kernel, state) in SLEEPERS {
        for (functions, end, _) in stacks(&seen, asleep.pid(), state) {
            assert!(functions.iter().any(|name| name.contains(kernel)), "{state:?} {functions:?}");
            assert!(matches!(end, StackEnd::Unreadable(_)) && !functions.contains(&function), "{end:?} {functions:?}");
        }
        assert!(!stacks(&seen, asleep.pid(), state).is_empty(), "{state:?}");
    }
}

/// Who was there is known by its command line in the first tick: it is read while the tick lasts.
#[test]
fn who_was_there_is_known_at_once() {
    let Some(_machine) = machine() else { return };
    let sleepers = (0..20).map(|_| Workload::prepare("restart", &[])).collect::<Vec<_>>();
    let recording = Recording::start();
    recording.wait_ticks(1);
    let seen = recording.stop();
    let tick = seen.ticks().next().expect("a tick");
    let there = |pid| tick.processes.iter().find(|process| process.key.tgid == pid);
    let known = sleepers.iter().filter(|asleep| there(asleep.pid()).is_some_and(|facts| facts.cmdline.is_some()));
    let known = known.count();
    assert!(known >= 18, "{known} of 20 have a command line");
}
